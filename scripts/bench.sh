#!/usr/bin/env bash
# Runs the benchmark; slow results are not failures. WHAT: names of groups (default: all) and options for schedswap-bench.
# The figures and all samples also go to out/bench.json.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/kernel.sh
: "${SCHEDSWAP:?run it with make bench}" "${KERNEL:=bookworm/cloud-amd64}" "${WHAT:=}"
export SCHEDSWAP
mkdir -p out

get_kernel "$SCHEDSWAP"
export SCHEDSWAP_TEST_RELEASE=$release
export SCHEDSWAP_TEST_SYSROOT=$sysroot
export SCHEDSWAP_TEST_SOURCE=$source
export SCHEDSWAP_TEST_VMLINUX=$vmlinux
export SCHEDSWAP_TEST_KERNEL=$bzimage

cargo build --release --quiet --package schedswap-bench
# shellcheck disable=SC2086 # separate words on purpose
"$(dirname "$SCHEDSWAP")/schedswap-bench" --json out/bench.json $WHAT
