#!/bin/sh
# Runs in the guest: the migration cost is halved while the new scheduler is loaded, unless the administrator has set it.
set -eu
file=/sys/kernel/debug/sched/migration_cost_ns
is() { [ "$(cat $file)" = "$1" ] || { echo "initial-value: $(cat $file), expected $1" >&2; exit 1; }; }
is 500000
loader install "$SCHEDSWAP_MODULE"
is 250000
loader uninstall
is 500000
echo 123456 >$file
loader install "$SCHEDSWAP_MODULE"
is 123456
loader uninstall
is 123456
echo 500000 >$file
echo "500000 ns, 250000 ns under the new scheduler, 123456 ns where the administrator had set it"
