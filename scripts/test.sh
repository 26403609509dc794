#!/usr/bin/env bash
# The formatter, the lints and every test: on the host, and in guests, where schedulers are swapped.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/kernel.sh
: "${SCHEDSWAP:?run it with make test}" "${KERNEL:=bookworm/cloud-amd64}"
export SCHEDSWAP
mkdir -p out

step "cargo fmt --check"
cargo fmt --all --check

step "cargo clippy"
cargo clippy --release --workspace --all-targets --quiet -- --deny warnings

step "cargo doc"
RUSTDOCFLAGS="${RUSTDOCFLAGS:-} --deny warnings" cargo doc --workspace --no-deps --quiet

step "the kernel to test on"
build_all
get_kernel "$SCHEDSWAP"
work=$PWD/out/test-work
"$SCHEDSWAP" init "$release" "$source" "$work"

export SCHEDSWAP_TEST_RELEASE=$release
export SCHEDSWAP_TEST_SYSROOT=$sysroot
export SCHEDSWAP_TEST_SOURCE=$source
export SCHEDSWAP_TEST_WORK=$work
export SCHEDSWAP_TEST_KBUILD=$work/.schedswap/kbuild
export SCHEDSWAP_TEST_VMLINUX=$vmlinux
export SCHEDSWAP_TEST_KERNEL=$bzimage
# `make soak` does more.
export SCHEDSWAP_TEST_CYCLES=${SCHEDSWAP_TEST_CYCLES:-10}

step "the other kernel, and the root file system of guests with a disk"
get_other_kernel

# Other kernels that make test analyses. make matrix also swaps them.
: "${ANALYSED:=bullseye/cloud-amd64 trixie/cloud-amd64 trixie-backports/cloud-amd64}"

# A kernel with EEVDF, on which queues are kept in order in another way than on 6.1.
: "${EEVDF:=bookworm-backports/cloud-amd64}"
export EEVDF

# Makes $1 the kernel under test.
on_kernel() {
    local KERNEL=$1
    # shellcheck source=scripts/kernel.sh
    . scripts/kernel.sh
    get_kernel "$SCHEDSWAP" || return
    export SCHEDSWAP_TEST_RELEASE=$release SCHEDSWAP_TEST_SYSROOT=$sysroot SCHEDSWAP_TEST_SOURCE=$source
    export SCHEDSWAP_TEST_VMLINUX=$vmlinux SCHEDSWAP_TEST_KERNEL=$bzimage
}

# Tests the analysis of kernel $1.
analyse() {
    on_kernel "$1" || return
    cargo test --release --workspace --no-fail-fast --test boundary --test kernels -- --nocapture
}

# Tests the order of queues on the kernel under test and on $EEVDF: one after the other, because the two runs have the same
# files.
order() {
    cargo test --release --workspace --test order || return
    on_kernel "$EEVDF" || return
    unset SCHEDSWAP_TEST_WORK SCHEDSWAP_TEST_KBUILD    # the other kernel's
    cargo test --release --workspace --test order
}

# Runs one part of the tests, NAME, with its output in $logs/NAME.log. Prints the result, and the whole output if the part
# failed. Always on the whole workspace: for a selection of its members, cargo would compile what they share again.
part() {
    local name=$1 log=$logs/$1.log began=$SECONDS
    shift
    local failed=0
    case $1 in
        analyse | order) "$@" ;;
        *) cargo test --release --workspace --no-fail-fast "$@" ;;
    esac >"$log" 2>&1 || failed=1
    awk -v name="$name" -v seconds="$((SECONDS - began))" '/^test result:/ { passed += $4; failed += $6 }
        END { printf "%-22s %3d passed, %d failed, %4d s\n", name, passed, failed, seconds }' "$log"
    [ "$failed" = 0 ] || { cat "$log"; return 1; }
}
export -f on_kernel analyse order part
export logs=$PWD/out/tests
rm -rf "$logs"
mkdir -p "$logs"

status=0
step "tests on the host"
part units --lib --bins -- --skip stock_kernel_tests || status=1
part documentation --doc || status=1

# A guest's CPUs share one thread of the host, so as many guests run at a time as the host has CPUs. Within a part the tests
# run one after the other. The parts, each with its arguments:
step "tests with kernels, and in guests ($(nproc) at a time)"
{
    for other in $ANALYSED; do
        echo "${other//\//-}" analyse "$other"
    done
    echo order order
    echo guest-library --lib -- stock_kernel_tests --test-threads=1
    for test in $(integration_tests crates/sched/tests) $(integration_tests crates/sdk/tests) $(integration_tests crates/tests/tests); do
        [ "$test" = --test=order ] || echo "${test#--test=}" "$test" -- --test-threads=1
    done
} | xargs --max-procs="$(nproc)" -I{} bash -c 'set -f; part {}' || status=1

sed -n 's/^test \(.*\) \.\.\. FAILED$/failed: \1/p' "$logs"/*.log
awk '/^test result:/ { passed += $4; failed += $6 }
    END { printf "%d passed, %d failed\n", passed, failed }' "$logs"/*.log
exit "$status"
