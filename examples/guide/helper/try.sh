#!/bin/sh
# Runs in the guest: the line of the new scheduler is in /proc/schedstat while that is loaded, with a number for each CPU.
set -eu
counted() { sed -n 's/^contended_ticks //p' /proc/schedstat; }
[ -z "$(counted)" ] || exit 1
loader install "$SCHEDSWAP_MODULE"
echo "ticks that found their run queue locked: $(counted)"
[ "$(counted | wc -w)" -eq "$(nproc)" ] || exit 1
loader uninstall
[ -z "$(counted)" ] || exit 1
