#!/usr/bin/env bash
# Measures; nothing here fails because something is slow. WHAT: groups by name (all by default), with options of
# schedswap-bench; the figures and all samples go to out/bench.json as well.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/kernel.sh
: "${SCHEDSWAP:=$PWD/target/release/schedswap}" "${KERNEL:=bookworm/cloud-amd64}" "${WHAT:=}"
export SCHEDSWAP
mkdir -p out

get_kernel "$SCHEDSWAP"
export SCHEDSWAP_TEST_RELEASE=$release
export SCHEDSWAP_TEST_SYSROOT=$sysroot
export SCHEDSWAP_TEST_SOURCE=$source
export SCHEDSWAP_TEST_VMLINUX=$vmlinux
export SCHEDSWAP_TEST_KERNEL=$bzimage

cargo build --release --quiet --package schedswap-bench
# shellcheck disable=SC2086 # words of their own
"$(dirname "$SCHEDSWAP")/schedswap-bench" --json out/bench.json $WHAT
