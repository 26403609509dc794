#!/bin/sh
# Runs in the guest: /proc/schedstat has one number more for each CPU while the new scheduler is loaded.
set -eu
columns() { awk '/^cpu0 / { print NF }' /proc/schedstat; }
before=$(columns)
loader install "$SCHEDSWAP_MODULE"
[ "$(columns)" -eq $((before + 1)) ] || exit 1
echo "yields by CPU:" $(awk '/^cpu/ { print $NF }' /proc/schedstat)
awk '/^cpu/ && $NF > 1000000 { exit 1 }' /proc/schedstat
loader uninstall
[ "$(columns)" -eq "$before" ] || exit 1
