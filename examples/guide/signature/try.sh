#!/bin/sh
# Runs in the guest: the kernel log says who changes a nice value while the new scheduler is loaded.
set -eu
reniced() { dmesg | grep -c "^.*nice of .* from 0 to 7, by another part of the kernel" || true; }
renice_a_shell() { sh -c 'renice -n 7 -p $$ >/dev/null'; }
renice_a_shell
[ "$(reniced)" = 0 ] || exit 1
loader install "$SCHEDSWAP_MODULE"
renice_a_shell
dmesg | grep "nice of"
[ "$(reniced)" = 1 ] || exit 1
loader uninstall
renice_a_shell
[ "$(reniced)" = 1 ] || exit 1
