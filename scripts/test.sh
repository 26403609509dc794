#!/usr/bin/env bash
# Formatting, lints, and every test: those of the host, and those that swap schedulers in guests.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/kernel.sh
: "${SCHEDSWAP:=$PWD/target/release/schedswap}" "${KERNEL:=bookworm/cloud-amd64}"
export SCHEDSWAP
mkdir -p out
log=out/test.log

step "cargo fmt --check"
cargo fmt --all --check

step "cargo clippy"
cargo clippy --release --workspace --all-targets --quiet -- --deny warnings

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

# All in terms of the whole workspace: of a selection of its members, cargo would compile what they share anew.
tests() {
    cargo test --release --workspace --no-fail-fast "$@" 2>&1 | tee --append "$log"
}

step "tests on the host"
status=0
: >"$log"
# shellcheck disable=SC2046 # words of their own
tests --lib --bins $(integration_tests lib/tests) -- --skip stock_kernel_tests || status=1
tests --doc || status=1

# Each boots a guest with more CPUs than the host has: one at a time.
step "tests in guests"
tests --lib -- stock_kernel_tests --test-threads=1 || status=1
# shellcheck disable=SC2046 # words of their own
tests $(integration_tests tests/tests) -- --test-threads=1 || status=1

sed -n 's/^test \(.*\) \.\.\. FAILED$/failed: \1/p' "$log"
awk '/^test result:/ { passed += $4; failed += $6 }
    END { printf "%d passed, %d failed\n", passed, failed }' "$log"
exit "$status"
