# Sourced by the scripts beside it: gets $KERNEL into the cache and says where it is.
# shellcheck shell=bash disable=SC2034 # set for who sources it

# Sets release, sysroot, source, vmlinux and bzimage; gets the compiler that the kernel was built with, if it is not this
# machine's. The arguments are the command to run as schedswap.
get_kernel() {
    local fetched
    "$@" fetch "$KERNEL"
    fetched=$("$@" fetch --json "$KERNEL")
    release=$(field release <<<"$fetched")
    sysroot=$(field sysroot <<<"$fetched")
    source=$(field source <<<"$fetched")
    vmlinux=$(field vmlinux <<<"$fetched")
    bzimage=$(field bzimage <<<"$fetched")
    "$@" toolchain "$release"
}

# Gets what machines with a disk are made of: their root file system, and a kernel beside that of get_kernel to boot them
# with (OTHER_KERNEL, or one of the two flavours that get_kernel did not get).
get_other_kernel() {
    local other
    for other in "${OTHER_KERNEL:-bookworm/amd64}" bookworm/cloud-amd64; do
        SCHEDSWAP_TEST_OTHER_RELEASE=$(cargo run --release --quiet --package schedswap-tests --bin guest-disk -- "$other")
        [ "$SCHEDSWAP_TEST_OTHER_RELEASE" = "$release" ] || break
    done
    export SCHEDSWAP_TEST_OTHER_RELEASE
}

# One string of a JSON object that is printed one member a line.
field() {
    sed -n "s/^  \"$1\": \"\(.*\)\",\{0,1\}$/\1/p"
}

step() {
    printf '\n\033[1m== %s\033[0m\n' "$*"
}
