#!/bin/sh
# Runs in the guest: prints the scheduler's features before the new scheduler is loaded, while it is loaded and
# afterwards, and the line that it prints once its feature is on.
set -eu
features=/sys/kernel/debug/sched/features
# Kernels before 5.13 have it elsewhere.
[ -e $features ] || features=/sys/kernel/debug/sched_features

shown() {
    printf '%s\n  ' "$1"
    fold -s -w 90 $features | sed '2,$s/^/  /'
}

# One feature per line, without the demo's own.
others() {
    tr ' ' '\n' <$features | grep -v SCHEDSWAP_TEST
}

fail() {
    echo "demo: $*" >&2
    exit 1
}

shown "the kernel's own scheduler:"
others >/tmp/before
grep -q SCHEDSWAP_TEST $features && fail "the kernel already has the feature SCHEDSWAP_TEST"

loader install "$SCHEDSWAP_MODULE"
shown "the new scheduler:"
grep -q NO_SCHEDSWAP_TEST $features || fail "NO_SCHEDSWAP_TEST has not appeared"
others >/tmp/during
cmp /tmp/before /tmp/during || fail "other features have changed"

echo "echo SCHEDSWAP_TEST > $features"
echo SCHEDSWAP_TEST >$features
sleep 1
dmesg | grep "I am the new scheduler" || fail "the new __schedule did not print its line"

loader uninstall
shown "the kernel's own scheduler again:"
grep -q SCHEDSWAP_TEST $features && fail "SCHEDSWAP_TEST is still there"
others >/tmp/after
cmp /tmp/before /tmp/after || fail "features have changed"
exit 0
