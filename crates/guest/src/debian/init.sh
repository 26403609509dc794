#!/bin/busybox sh
# PID 1 of a machine that boots from a disk, until the disk is mounted; after that, the disk's own systemd is PID 1.
bb=/bin/busybox
root=/disk

fail() {
    echo "schedswap guest cannot boot from its disk: $*" >/dev/kmsg
    $bb reboot -f
}

# The disk with a serial number.
disk() {
    for block in /sys/block/vd*; do
        [ "$($bb cat "$block/serial")" = "$1" ] && echo "/dev/${block##*/}" && return
    done
    fail "there is none with the serial number $1"
}

$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
$bb mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run

# Their names put each one after those that it needs.
for module in /modules/*.ko; do
    [ -e "$module" ] || break
    $bb insmod "$module" || fail "$module cannot be loaded"
done

# Read-only, as distributions do it: systemd mounts it again by /etc/fstab, so anything that writes too early is
# found.
$bb mount -t ext4 -o ro "$(disk root)" $root || fail "its root file system cannot be mounted"
$bb mount -t ext4 -o ro "$(disk modules)" $root/usr/lib/modules || fail "its modules cannot be mounted"

$bb cp -a /handover/. /run
$bb ln -s "$(disk transfer)" /run/schedswap/transfer
for mounted in proc sys dev run; do
    $bb mount --move /$mounted $root/$mounted
done
exec $bb switch_root $root /sbin/init
fail "there is no /sbin/init on it"
