#!/bin/sh
# Runs in the guest with `before`, `loaded` and `after` as its argument: checks what fair.c must find when it is back.
# Quotas are in force before and after, but not while the minimal class is loaded. Groups come and go, and so does a CPU.
set -eu
groups=/sys/fs/cgroup
quota='10000 100000'

fail() {
    echo "minimal: $*" >&2
    exit 1
}

# A group with a quota (or `max`), and in it a thread that wants a CPU for itself.
hog() {
    mkdir "$groups/$1"
    echo "$2" >"$groups/$1/cpu.max"
    sh -c "echo \$\$ >$groups/$1/cgroup.procs; while :; do :; done" >/dev/null 2>&1 &
    echo $! >"/run/hog-$(basename "$1")"
}

end_group() {
    kill -9 "$(cat "/run/hog-$(basename "$1")")" || fail "the thread of group $1 is gone"
    tries=0
    # A group stays busy until its last thread is gone for good.
    until rmdir "$groups/$1" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || fail "group $1 cannot be removed"
        sleep 0.1
    done
}

number_in() {
    sed -n "s/^$2 //p" "$groups/$1/cpu.stat"
}

centiseconds() {
    cut -d ' ' -f 1 /proc/uptime | tr -d .
}

# Fails unless the share of one CPU that group $1 uses, in per cent, passes the test: `uses a -le 30`.
uses() {
    begun=$(centiseconds) used=$(number_in "$1" usage_usec)
    sleep 3
    percent=$((($(number_in "$1" usage_usec) - used) / 100 / ($(centiseconds) - begun)))
    [ "$percent" "$2" "$3" ] || fail "$stage: group $1 uses $percent % of a CPU, expected $2 $3"
    echo "$stage: group $1 uses $percent % of a CPU"
}

is_throttled() {
    from=$(number_in "$1" nr_throttled) tries=0
    until [ "$(number_in "$1" nr_throttled)" -ge $((from + 5)) ]; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || fail "$stage: the quota of group $1 does not hold"
        sleep 0.1
    done
    uses "$1" -le 30
}

stage=$1
case $stage in
before)
    echo +cpu >$groups/cgroup.subtree_control
    mkdir $groups/parent
    echo +cpu >$groups/parent/cgroup.subtree_control
    echo "$quota" >$groups/parent/cpu.max
    hog parent/child max
    hog kept "$quota"
    hog doomed "$quota"
    hog plugged "$quota"
    taskset -p 2 "$(cat /run/hog-plugged)" >/dev/null
    is_throttled kept
    is_throttled parent
    is_throttled plugged
    ;;
loaded)
    # No group is throttled, not even one that was at the moment of loading.
    for group in kept parent doomed plugged; do
        uses $group -ge 40
    done
    end_group doomed
    echo max >$groups/kept/cpu.max
    echo "$quota" >$groups/kept/cpu.max
    # A group below one that may be throttled, one with a quota, and one that the minimal class never handles.
    hog parent/late max
    hog new "$quota"
    mkdir $groups/idle
    echo 1 >$groups/idle/cpu.idle
    echo 500 >$groups/new/cpu.weight
    # The quota is lifted while the CPU is offline.
    echo 0 >/sys/devices/system/cpu/cpu1/online
    echo max >$groups/plugged/cpu.max
    echo 1 >/sys/devices/system/cpu/cpu1/online
    ;;
after)
    for group in kept parent new; do
        is_throttled $group
    done
    taskset -p 2 "$(cat /run/hog-plugged)" >/dev/null
    echo max >$groups/new/cpu.max
    uses plugged -ge 40
    uses new -ge 40
    [ "$(cat $groups/idle/cpu.idle)" = 1 ] || fail "group idle is not idle any more"
    [ "$(cat $groups/new/cpu.weight)" = 500 ] || fail "group new has lost its weight"
    for group in parent/child parent/late kept new plugged; do
        end_group $group
    done
    rmdir $groups/parent $groups/idle
    ;;
*)
    fail "before, loaded or after?"
    ;;
esac
