#!/bin/sh
# Runs in the guest: the function tracer, its call graphs and a kprobe on functions that are replaced go on working while
# a new scheduler comes and goes, and see what its module calls.
set -eu
traced=sched_fork   # fork calls it by vmlinux's address
probed=wake_up_new_task
forks=20
cd /sys/kernel/tracing

fail() {
    echo "tracing: $*" >&2
    exit 1
}

# What is traced goes on while it is read, and may grow faster; so it is stopped for that.
fork_and_read() {
    echo >trace
    echo 1 >tracing_on
    for _ in $(seq $forks); do (:); done
    echo 0 >tracing_on
}

# $1: how often the trace must have $2, and when that is.
seen() {
    found=$(grep -c "$2" trace || true)
    echo "$3: '$2' met $found times"
    [ "$found" -ge "$1" ] || fail "$3, '$2' was met $found times, expected $1 at least"
}

probe_hits() {
    awk '$1 == "schedswap_probe" { print $2 }' kprobe_profile
}

everything_is_seen() {
    before=$(probe_hits)
    fork_and_read
    seen $forks " $traced <-" "$1"
    [ "$(($(probe_hits) - before))" -ge $forks ] || fail "$1, the kprobe was hit $before, then $(probe_hits) times"
}

echo $traced >set_ftrace_filter
echo function >current_tracer
echo "p:schedswap_probe $probed" >kprobe_events
echo 1 >events/kprobes/schedswap_probe/enable
everything_is_seen "the kernel's own"
loader install "$SCHEDSWAP_MODULE"
everything_is_seen "loaded, attached before"

echo function_graph >current_tracer
fork_and_read
seen $forks " $traced" "loaded, call graph"

# What the module's functions call is called through vmlinux's entry.
echo nop >current_tracer
echo '*rq*' '*sched*' >set_ftrace_filter
echo function >current_tracer
fork_and_read
echo nop >current_tracer
seen 1 ' [a-z_0-9]* <-[^ ]*\.ss' "called from the module"

echo nop >current_tracer
echo $traced >set_ftrace_filter
echo function >current_tracer
everything_is_seen "attached while loaded"
loader uninstall
everything_is_seen "the kernel's own again"
echo nop >current_tracer
echo 0 >events/kprobes/schedswap_probe/enable
echo >kprobe_events
