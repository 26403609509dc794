#!/usr/bin/env bash
# Everything once on a stock kernel: fetch it, edit its scheduler, build the module, swap it live in a guest.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/kernel.sh
: "${SCHEDSWAP:=schedswap}" "${KERNEL:=bookworm/cloud-amd64}"
work=out/demo
began=$SECONDS

step "schedswap fetch $KERNEL"
get_kernel "$SCHEDSWAP"

step "schedswap init $release <kernel-src> $work"
rm -rf "$work"
mkdir -p out
"$SCHEDSWAP" init "$release" "$source" "$work"

step "patch -p1 < examples/demo/schedswap_test.patch"
patch --directory="$work" --strip=1 <examples/demo/schedswap_test.patch
cat examples/demo/schedswap_test.patch

step "schedswap build $work"
"$SCHEDSWAP" build "$work"

# A guest uses one CPU of this machine, so the second one can begin beside the first.
"$SCHEDSWAP" try "$work" --cycles 2 --baseline 4 >out/under-load.log 2>&1 &
under_load=$!

step "schedswap try $work --run examples/demo/features.sh"
"$SCHEDSWAP" try "$work" --run examples/demo/features.sh || failed=$?

step "schedswap try $work --cycles 2 --baseline 4"
tail --pid=$under_load --lines=+1 --follow out/under-load.log
wait $under_load || failed=$?
[ -z "${failed-}" ] || exit "$failed"

step "done in $((SECONDS - began)) s"
