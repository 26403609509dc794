#!/bin/sh
# Runs in the guest: the CPU time of a group with a quota of 20 % of a CPU, under the kernel's own scheduler, under the
# one without bandwidth control, and under the kernel's own again.
set -eu
group=/cg/quota

fail() {
    echo "no-bandwidth-control: $*" >&2
    exit 1
}

# The group's share of one CPU in per cent, over three seconds.
share() {
    used=$(sed -n 's/^usage_usec //p' $group/cpu.stat)
    began=$(cut -d' ' -f1 /proc/uptime | tr -d .)
    sleep 3
    used=$(($(sed -n 's/^usage_usec //p' $group/cpu.stat) - used))
    took=$((($(cut -d' ' -f1 /proc/uptime | tr -d .) - began) * 10000))
    echo $((used * 100 / took))
}

mkdir -p /cg
mount -t cgroup2 none /cg
echo +cpu >/cg/cgroup.subtree_control
mkdir $group
echo '20000 100000' >$group/cpu.max
sh -c "echo \$\$ >$group/cgroup.procs; while :; do :; done" >/dev/null 2>&1 &
until grep -q . $group/cgroup.procs; do sleep 0.1; done

before=$(share)
loader install "$SCHEDSWAP_MODULE"
# The period timer unthrottles what is throttled.
sleep 0.5
during=$(share)
# The shell says "write error: Operation not supported" here.
if (echo '30000 100000' >$group/cpu.max) 2>/dev/null; then fail "a new quota was accepted"; fi
[ "$(cat $group/cpu.max)" = "20000 100000" ] || fail "the quota that was set cannot be read"
loader uninstall
sleep 0.5
after=$(share)
echo "of one CPU: $before % before, $during % without bandwidth control, $after % after"
[ "$before" -le 30 ] || fail "the quota is not enforced before the swap"
[ "$during" -ge 60 ] || fail "the quota is still enforced"
[ "$after" -le 30 ] || fail "the quota is not enforced after unloading"
