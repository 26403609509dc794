#!/bin/sh
# Runs in the guest: the same work alternately on the kernel's own fair class and on the minimal one. Prints medians and
# their ratio. With --icount the guest's clock counts instructions of all CPUs together: other work on the host has no
# effect, and only ratios mean anything.
#
#   schedswap try WORK --icount 4 --run examples/minimal/measure.sh \
#       --with hackbench --with stress-ng --with cyclictest
set -eu
rounds=3
samples=/tmp/samples

sample() {
    echo "$1 $kind $2" >>$samples
}

switches() {
    sed -n 's/^ctxt //p' /proc/stat
}

# Processor time of a process, in ticks.
ticks_of() {
    cut -d ' ' -f 14 "/proc/$1/stat"
}

# 40 processes that send to 40 others, all at once.
messages() {
    before=$(switches)
    sample hackbench_ms $(($(guest-load time hackbench -g 2 -f 20 -l 20) / 1000000))
    sample hackbench_switches $(($(switches) - before))
}

# One byte there and back, again and again: which task wakes which, and where.
ping_pong() {
    sample pipe_ms $(($(guest-load pipe --rounds 2000) / 1000000))
}

# Six equal workers on four CPUs: the time at which the last one ends shows how evenly they are spread.
workers() {
    sample six_workers_ms $(($(guest-load time stress-ng --quiet --cpu 6 --cpu-method fibonacci --cpu-ops 100) / 1000000))
}

# Wake-up latency of a thread that sleeps and wakes beside eight busy ones.
latency() {
    stress-ng --quiet --cpu 8 --cpu-method fibonacci &
    busy=$!
    sleep 1
    cyclictest --quiet --threads=2 --interval=10000 --distance=0 --duration=4 --policy=other >/tmp/latency 2>/dev/null
    kill $busy
    wait $busy 2>/dev/null || true
    sample wakeup_mean_us "$(sed -n 's/.*Avg: *\([0-9]*\).*/\1/p' /tmp/latency | sort -n | tail -n 1)"
    sample wakeup_worst_us "$(sed -n 's/.*Max: *\([0-9]*\).*/\1/p' /tmp/latency | sort -n | tail -n 1)"
}

# CPU time of a nice 5 thread beside a nice 0 thread, in per cent of the latter's. By weight it is 33.
weights() {
    taskset 2 sh -c 'while :; do :; done' &
    first=$!
    taskset 2 sh -c 'while :; do :; done' &
    second=$!
    renice -n 5 -p $second >/dev/null
    sleep 1
    first_begun=$(ticks_of $first) second_begun=$(ticks_of $second)
    sleep 4
    sample nice_5_percent $(((($(ticks_of $second) - second_begun) * 100) / ($(ticks_of $first) - first_begun)))
    kill $first $second
    wait $first $second 2>/dev/null || true
}

all() {
    kind=$1
    messages
    ping_pong
    workers
    latency
    weights
    echo "round $round of $rounds: $kind done" >&2
}

: >$samples
round=0
while [ $round -lt $rounds ]; do
    round=$((round + 1))
    all stock
    loader install --retries 30 --wait 1s "$SCHEDSWAP_MODULE" >&2
    all minimal
    loader uninstall --retries 30 --wait 1s >&2
done

sort -k 1,1 -k 2,2 -k 3,3n $samples | awk '
    function done() { if (n) median[name, kind] = value[int((n + 1) / 2)]; n = 0 }
    $1 != name || $2 != kind { done(); name = $1; kind = $2; if (!seen[name]++) names[++count] = name }
    { value[++n] = $3 }
    END {
        done()
        printf "%-20s %10s %10s %7s\n", "median", "stock", "minimal", "ratio"
        for (i = 1; i <= count; i++) {
            s = median[names[i], "stock"]; m = median[names[i], "minimal"]
            printf "%-20s %10d %10d %7.2f\n", names[i], s, m, s ? m / s : 0
        }
    }'
echo
sort -k 1,1 -k 2,2 -k 3,3n $samples
