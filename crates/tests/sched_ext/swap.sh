#!/bin/sh
# Runs in the guest: a sched_ext policy and a new scheduler. A policy that is loaded is in the way of load and unload;
# one can be loaded while the new scheduler is.
set -eu
policy=$(find / -xdev -name fifo.bpf.o | head -n 1)
mount -t bpf bpf /sys/fs/bpf

fail() {
    echo "sched_ext: $*" >&2
    exit 1
}

# $1 is what the state has to become within 10 s.
reaches() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        [ "$(cat /sys/kernel/sched_ext/state)" = "$1" ] && return
        sleep 1
    done
    fail "the policy is $(cat /sys/kernel/sched_ext/state), not $1"
}

# $1 is what is refused with a word about sched_ext, and changes nothing.
refused() {
    if loader "$@" >/tmp/said 2>&1; then
        fail "$1 went through with a policy loaded"
    fi
    cat /tmp/said
    grep -q sched_ext /tmp/said || fail "$1 was refused without a word about sched_ext"
    [ "$(cat /sys/kernel/sched_ext/state)" = enabled ] || fail "$1 ended the policy"
}

load_policy() {
    bpftool struct_ops register "$policy"
    reaches enabled
}

unload_policy() {
    bpftool struct_ops unregister name fifo
    reaches disabled
}

load_policy
refused check "$SCHEDSWAP_MODULE"
refused install "$SCHEDSWAP_MODULE"
insmod "$SCHEDSWAP_MODULE" && fail "the module itself went in with a policy loaded"
unload_policy

loader install "$SCHEDSWAP_MODULE"
load_policy
refused uninstall
unload_policy
loader uninstall
dmesg | grep -q 'sched_ext: .*(unregistered from user space)' || fail "the policy did not end as asked"
if dmesg | grep 'sched_ext: .*\(error\|stall\)'; then
    fail "the policy ended by itself"
fi
exit 0
