#!/usr/bin/env bash
# Swaps an edited scheduler in and out, many times, in a guest under load.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/kernel.sh
: "${SCHEDSWAP:=schedswap}" "${KERNEL:=bookworm/cloud-amd64}" "${CYCLES:=200}" "${THREADS:=2000}"
work=out/soak

get_kernel "$SCHEDSWAP"
rm -rf "$work"
mkdir -p out
"$SCHEDSWAP" init "$release" "$source" "$work"
patch --directory="$work" --strip=1 <examples/demo/schedswap_test.patch
"$SCHEDSWAP" build "$work"
"$SCHEDSWAP" try "$work" --cycles "$CYCLES" --threads "$THREADS" --time-limit 86400 \
    --console out/soak-console.log --json out/soak.json

step "the tests that make test leaves out: full preemption, more of a machine's life, analysis and swap of an arm64 kernel, and a kernel built here"
export SCHEDSWAP_TEST_RELEASE=$release SCHEDSWAP_TEST_SYSROOT=$sysroot SCHEDSWAP_TEST_SOURCE=$source
export SCHEDSWAP_TEST_VMLINUX=$vmlinux SCHEDSWAP_TEST_KERNEL=$bzimage
get_other_kernel
get_arm64_kernel "$SCHEDSWAP"
get_whole_source
# shellcheck disable=SC2046 # separate words on purpose
cargo test --release --workspace --no-fail-fast $(integration_tests crates/tests/tests) -- --ignored --test-threads=1
cargo test --release --workspace --test cycles -- with_voluntary_preemption
