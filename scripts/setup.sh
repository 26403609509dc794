#!/usr/bin/env bash
# Installs, with apt, what the Makefile's targets need and this machine lacks. Quick if nothing is missing.
#
#   scripts/setup.sh rust          check the Rust toolchain, the only prerequisite; this script never installs it
#   scripts/setup.sh build         what building schedswap and a scheduler needs
#   scripts/setup.sh guest         QEMU
#   scripts/setup.sh disk          what makes guests' disks, and the packages for them
#   scripts/setup.sh load          the programs that load a guest
#   scripts/setup.sh package       the programs with which the tests check packages and signatures
#   scripts/setup.sh kernel        what building a kernel needs
#   scripts/setup.sh bpf           what compiles and loads a sched_ext policy
#   scripts/setup.sh arm64         an emulator for arm64 kernels, and the binutils that their analysis is compared with
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        env DEBIAN_FRONTEND=noninteractive "$@"
    elif command -v sudo >/dev/null; then
        sudo env DEBIAN_FRONTEND=noninteractive "$@"
    else
        die "this needs root or sudo: $*"
    fi
}

# Is $1 at least $2? Both are dotted numbers.
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

check_rust() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
        die "the Rust toolchain is missing, and this script does not install it. Install Rust $wanted or newer with cargo, for example with rustup."
    fi
    found=$(rustc --version | awk '{ sub(/-.*/, "", $2); print $2 }')
    at_least "$found" "$wanted" ||
        die "Rust $found is too old: $wanted or newer is needed. Run 'rustup update', or install Rust with rustup if this one is the distribution's."
}

# Each argument is program:package. Prints the packages of the programs that are missing.
packages_of_missing() {
    local pair
    for pair in "$@"; do
        type -P "${pair%%:*}" >/dev/null || printf '%s\n' "${pair#*:}"
    done
}

install() {
    [ $# -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "this machine has no apt-get; install the equivalent of these Debian packages yourself: $*"
    printf 'setup: installing %s\n' "$*" >&2
    # The package lists may be missing (a new container), or name versions that are gone.
    as_root apt-get install --yes --quiet=2 --no-install-recommends "$@" >/dev/null 2>&1 || {
        as_root apt-get update --quiet=2
        as_root apt-get install --yes --quiet=2 --no-install-recommends "$@" >/dev/null
    }
}

setup_build() {
    local missing
    mapfile -t missing < <(packages_of_missing cc:gcc make:make git:git patch:patch xz:xz-utils tar:tar)
    # Static programs for the guest are linked with libc.a. objtool, from the kernel's packages, needs libelf.
    [ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
    ldconfig=$(command -v ldconfig || echo /sbin/ldconfig)
    "$ldconfig" -p | grep -q 'libelf\.so\.1 ' || missing+=("$(first_known libelf1t64 libelf1)")
    install "${missing[@]}"
}

# Prints the first of the packages that the archive has, or the last one if it has none of them.
first_known() {
    local package
    for package in "$@"; do
        if apt-cache show "$package" >/dev/null 2>&1; then
            break
        fi
    done
    printf '%s\n' "$package"
}

setup_arm64() {
    local missing
    mapfile -t missing < <(packages_of_missing aarch64-linux-gnu-objdump:binutils-aarch64-linux-gnu)
    install "${missing[@]}"
    install_emulator qemu-system-aarch64 qemu-system-arm
    check_rust_target aarch64-unknown-linux-musl
}

# Gets Rust's library for a target. rustup adds it without root; a distribution's Rust may not have it.
check_rust_target() {
    [ -d "$(rustc --print target-libdir --target "$1")" ] && return
    command -v rustup >/dev/null ||
        die "Rust's library for $1 is missing. Install Rust with rustup, which has a library for every target."
    (cd "$root" && rustup target add "$1")
}

setup_bpf() {
    local missing
    mapfile -t missing < <(packages_of_missing clang:clang)
    [ -e /usr/include/bpf/bpf_helpers.h ] || missing+=(libbpf-dev)
    # Not every user has /sbin in the path.
    type -P bpftool >/dev/null || [ -x /usr/sbin/bpftool ] || missing+=(bpftool)
    install "${missing[@]}"
}

setup_kernel() {
    local missing
    mapfile -t missing < <(packages_of_missing flex:flex bison:bison bc:bc perl:perl)
    [ -e /usr/include/libelf.h ] || missing+=(libelf-dev)
    install "${missing[@]}"
}

setup_guest() {
    install_emulator qemu-system-x86_64 qemu-system-x86
}

# Installs package $2 unless program $1 is there.
install_emulator() {
    command -v "$1" >/dev/null && return
    # A newer qemu-utils (from backports, say) excludes the suite's own qemu-system.
    if [ -n "$(newer_qemu_utils)" ]; then
        install_from_backports "$2"
    else
        install "$2"
    fi
}

# Prints the installed version of qemu-utils if the machine's suites do not offer it.
newer_qemu_utils() {
    local version
    version=$(dpkg-query --show --showformat '${Version}' qemu-utils 2>/dev/null) || return 0
    if ! apt-cache madison qemu-utils 2>/dev/null | grep -qF " $version "; then
        printf '%s\n' "$version"
    fi
}

# Installs from backports without adding them to the machine's sources. A private list of sources names the machine's own
# archives with another suite, so mirror and key stay the same.
install_from_backports() {
    local codename private
    # shellcheck disable=SC1091 # a file of the machine
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    [ -n "$codename" ] || die "/etc/os-release does not say which suite this is; install these packages yourself: $*"
    private=$(mktemp -d)
    # shellcheck disable=SC2064 # expanded now: the variable is out of scope later
    trap "rm -rf '$private'" EXIT
    chmod 755 "$private"
    mkdir -p "$private/sources" "$private/lists/partial" "$private/cache/archives/partial"
    cp /etc/apt/sources.list "$private/sources/machine.list" 2>/dev/null || true
    cp /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list "$private/sources/" 2>/dev/null || true
    derive_backports "$codename" "$private/sources"
    local settings=(
        -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$private/sources"
        -o "Dir::State::lists=$private/lists" -o "Dir::Cache=$private/cache"
    )
    printf 'setup: installing %s from %s-backports\n' "$*" "$codename" >&2
    as_root apt-get "${settings[@]}" update --quiet=2
    as_root apt-get "${settings[@]}" install --yes --quiet=2 --no-install-recommends \
        --target-release "$codename-backports" "$@" >/dev/null
}

# For every entry for suite $1 in the source files of directory $2, adds the same entry for its backports.
derive_backports() {
    local codename=$1 file
    for file in "$2"/*.list; do
        [ -e "$file" ] || continue
        sed -n "s/^\(deb .*\) $codename \(.*\)$/\1 $codename-backports \2/p" "$file" >"${file%.list}-backports.list"
    done
    for file in "$2"/*.sources; do
        [ -e "$file" ] || continue
        awk -v suite="$codename" 'BEGIN { RS = ""; ORS = "\n\n" }
            $0 ~ "Suites:[^\n]*" suite "([ \n]|$)" { sub(/Suites:[^\n]*/, "Suites: " suite "-backports"); print }
        ' "$file" >"${file%.sources}-backports.sources"
    done
}

setup_disk() {
    local missing
    # Not every user has /sbin in the path.
    local PATH=$PATH:/usr/sbin:/sbin
    mapfile -t missing < <(packages_of_missing mmdebstrap:mmdebstrap mke2fs:e2fsprogs depmod:kmod \
        qemu-img:qemu-utils rpmbuild:rpm)
    # Without root, these make files that belong to root.
    if [ "$(id -u)" != 0 ]; then
        mapfile -t -O "${#missing[@]}" missing < <(packages_of_missing fakeroot:fakeroot newuidmap:uidmap)
    fi
    install "${missing[@]}"
}

setup_load() {
    local missing
    mapfile -t missing < <(packages_of_missing hackbench:rt-tests stress-ng:stress-ng time:time)
    install "${missing[@]}"
}

setup_package() {
    local missing
    mapfile -t missing < <(packages_of_missing \
        rpm:rpm rpmbuild:rpm rpmlint:rpmlint cpio:cpio dpkg-source:dpkg-dev bzip2:bzip2 lintian:lintian openssl:openssl)
    # Firmware in which a certificate can be stored.
    [ -e /usr/share/OVMF/OVMF_CODE_4M.fd ] || missing+=(ovmf)
    # Not every user has /sbin in the path.
    type -P modinfo >/dev/null || [ -x /sbin/modinfo ] || missing+=(kmod)
    install "${missing[@]}"
}

case "${1:-}" in
rust) check_rust ;;
build) setup_build ;;
guest) setup_guest ;;
disk) setup_disk ;;
load) setup_load ;;
package) setup_package ;;
kernel) setup_kernel ;;
bpf) setup_bpf ;;
arm64) setup_arm64 ;;
*) die "usage: setup.sh rust | build | guest | disk | load | package | kernel | bpf | arm64" ;;
esac
