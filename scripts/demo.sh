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

step "schedswap try $work --run examples/demo/features.sh"
"$SCHEDSWAP" try "$work" --run examples/demo/features.sh

step "schedswap try $work --baseline 6"
"$SCHEDSWAP" try "$work" --baseline 6

step "done in $((SECONDS - began)) s"
