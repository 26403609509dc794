#!/bin/sh
# Run by mmdebstrap with the new root directory as its argument, once all packages are installed.
set -eu
root=$1

# Where the packages came from is the building machine's business, and the guest has no network.
rm -rf "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/* "$root"/var/lib/apt/lists/*
# What was left out to save time. Packages that a test installs are unpacked whole.
rm -f "$root"/etc/dpkg/dpkg.cfg.d/99mmdebstrap "$root"/etc/apt/apt.conf.d/99mmdebstrap

echo guest >"$root"/etc/hostname
printf '127.0.0.1 localhost guest\n' >"$root"/etc/hosts
# An empty one would mean a first boot, with all its setting up.
echo 5c4ed5a95c4ed5a95c4ed5a95c4ed5a9 >"$root"/etc/machine-id
printf '/dev/vda / ext4 defaults 0 1\n' >"$root"/etc/fstab
# A disk of the running kernel's modules is mounted here.
mkdir -p "$root"/usr/lib/modules
# The journal of a test's guest is asked for while it runs.
rm -rf "$root"/var/log/journal

# rpm's database knows nothing of what dpkg has installed, but rpm packages with scripts need a shell.
cat >"$root"/tmp/shell.spec <<'SPEC'
Name: debian-shell
Version: 1
Release: 1
Summary: Says that Debian's shell is there
License: none
BuildArch: noarch
Provides: /bin/sh
%description
Says that Debian's shell is there.
%files
SPEC
chroot "$root" rpmbuild -bb --quiet --define '_topdir /tmp/rpm' /tmp/shell.spec
chroot "$root" rpm -i /tmp/rpm/RPMS/noarch/debian-shell-1-1.noarch.rpm
rm -rf "$root"/tmp/shell.spec "$root"/tmp/rpm

# Else systemd takes /usr for newer than /etc and /var, and sets them up again.
touch "$root"/etc/.updated "$root"/var/.updated
