# Sourced by the scripts beside it: gets $KERNEL into the cache and says where it is.
# shellcheck shell=bash disable=SC2034 # set for who sources it

# Sets release, sysroot, source, vmlinux and bzimage; installs the compiler that the kernel was built with. The arguments are
# the command to run as schedswap.
get_kernel() {
    local fetched compiler
    "$@" fetch "$KERNEL"
    fetched=$("$@" fetch --json "$KERNEL")
    release=$(field release <<<"$fetched")
    sysroot=$(field sysroot <<<"$fetched")
    source=$(field source <<<"$fetched")
    vmlinux=$(field vmlinux <<<"$fetched")
    bzimage=$(field bzimage <<<"$fetched")
    compiler=$(field compiler <<<"$fetched")
    scripts/setup.sh compiler "${compiler%% *}"
}

# One string of a JSON object that is printed one member a line.
field() {
    sed -n "s/^  \"$1\": \"\(.*\)\",\{0,1\}$/\1/p"
}

step() {
    printf '\n\033[1m== %s\033[0m\n' "$*"
}
