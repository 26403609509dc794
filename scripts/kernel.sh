# Sourced by the other scripts: gets $KERNEL into the cache and sets variables with its paths, and tells cargo what to build
# and run.
# shellcheck shell=bash disable=SC2034 # the sourcing script uses them

# Sets release, sysroot, source, vmlinux and bzimage, and gets the compiler that built the kernel if this machine has another
# one. The arguments are the command to run as schedswap.
get_kernel() {
    local fetched
    "$@" fetch "$KERNEL" || return
    fetched=$("$@" fetch --json "$KERNEL") || return
    release=$(field release <<<"$fetched")
    sysroot=$(field sysroot <<<"$fetched")
    source=$(field source <<<"$fetched")
    vmlinux=$(field vmlinux <<<"$fetched")
    bzimage=$(field bzimage <<<"$fetched")
    "$@" toolchain "$release"
}

# Gets what guests with a disk need: their root file system, and a second kernel to boot (OTHER_KERNEL, or whichever of two
# flavours get_kernel did not get).
get_other_kernel() {
    local other
    build_all
    for other in "${OTHER_KERNEL:-bookworm/amd64}" bookworm/cloud-amd64; do
        SCHEDSWAP_TEST_OTHER_RELEASE=$("$(dirname "$SCHEDSWAP")/guest-disk" "$other")
        [ "$SCHEDSWAP_TEST_OTHER_RELEASE" = "$release" ] || break
    done
    export SCHEDSWAP_TEST_OTHER_RELEASE
}

# Builds the tests and everything that they run, with one set of features.
build_all() {
    cargo build --release --quiet --workspace --all-targets
}

# Prints the cargo options that run the integration tests of a folder.
integration_tests() {
    local test
    for test in "$1"/*; do
        test=${test##*/}
        printf -- '--test=%s\n' "${test%.rs}"
    done
}

# Gets an arm64 kernel (ARM64_KERNEL), its compiler, an emulator, and the binutils that its analysis is compared with. The
# arguments are the command to run as schedswap.
get_arm64_kernel() {
    local fetched
    scripts/setup.sh arm64
    "$@" fetch "${ARM64_KERNEL:=bookworm/arm64}"
    fetched=$("$@" fetch --json "$ARM64_KERNEL")
    SCHEDSWAP_TEST_ARM64_VMLINUX=$(field vmlinux <<<"$fetched")
    SCHEDSWAP_TEST_ARM64_RELEASE=$(field release <<<"$fetched")
    SCHEDSWAP_TEST_ARM64_SOURCE=$(field source <<<"$fetched")
    export SCHEDSWAP_TEST_ARM64_VMLINUX SCHEDSWAP_TEST_ARM64_RELEASE SCHEDSWAP_TEST_ARM64_SOURCE
    "$@" toolchain "$SCHEDSWAP_TEST_ARM64_RELEASE"
}

# Gets the complete source of the kernel of this machine's suite (`fetch` keeps only what a scheduler needs), and the tools to
# build a kernel from it.
get_whole_source() {
    local package dir=$PWD/out/linux-source
    scripts/setup.sh kernel
    package=$(apt-cache depends linux-source | sed -n 's/^ *Depends: //p')
    if ! ls "$dir"/usr/src/"$package".tar.* >/dev/null 2>&1; then
        rm -rf "$dir"
        mkdir -p "$dir"
        (cd "$dir" && apt-get download --quiet=2 "$package" && dpkg-deb -x ./*.deb . && rm ./*.deb)
    fi
    SCHEDSWAP_TEST_LINUX_SOURCE=$(ls "$dir"/usr/src/"$package".tar.*)
    export SCHEDSWAP_TEST_LINUX_SOURCE
}

# Prints one string of a JSON object that has one member per line.
field() {
    sed -n "s/^  \"$1\": \"\(.*\)\",\{0,1\}$/\1/p"
}

step() {
    printf '\n\033[1m== %s\033[0m\n' "$*"
}
