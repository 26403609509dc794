#!/usr/bin/env bash
# Measures; nothing here fails because something is slow. Times in guests are the emulator's.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/kernel.sh
: "${SCHEDSWAP:=schedswap}" "${KERNEL:=bookworm/cloud-amd64}" "${THREADS:=500 2000 10000}" "${CYCLES:=10}"
work=out/bench

# Runs a command and prints what it took.
measured() {
    local what=$1
    shift
    command time --format "$what: %e s, %M KiB at most" --output out/bench.time "$@" >out/bench.log 2>&1 || {
        cat out/bench.log >&2
        return 1
    }
    cat out/bench.time
}

# Median of the numbers of one member in a JSON file, per cycle of loading (the first of each cycle's two).
median_ms() {
    grep "^      \"$1\":" "$2" | tr -dc '0-9\n' | sort -n |
        awk '{ value[NR] = $1 } END { if (NR) printf "%.3f", value[int((NR + 1) / 2)] / 1e6; else printf "-" }'
}

get_kernel "$SCHEDSWAP"
mkdir -p out

step "on this machine ($(nproc) CPUs)"
rm -rf "$work"
# What is measured is our work, not the disk's.
cat "$vmlinux" >/dev/null
measured "init" "$SCHEDSWAP" init "$release" "$source" "$work"
patch --quiet --directory="$work" --strip=1 <examples/demo/schedswap_test.patch
measured "build" "$SCHEDSWAP" build "$work"
sed -i 's/I am the new scheduler/I am the newest scheduler/' "$work/kernel/sched/core.c"
measured "build after a one-line edit" "$SCHEDSWAP" build "$work"
printf 'work dir: %s\n' "$(du --summarize --human-readable "$work" | cut -f 1)"

step "the stop, in a guest: median of $CYCLES loads, ms"
printf '%8s %10s %10s %12s %10s %10s %10s\n' threads stop handler stack-check dequeue patch enqueue
for threads in $THREADS; do
    json=out/bench-$threads.json
    "$SCHEDSWAP" try "$work" --no-load --threads "$threads" --cycles "$CYCLES" --json "$json" >out/bench.log 2>&1 || {
        cat out/bench.log >&2
        exit 1
    }
    printf '%8s %10s %10s %12s %10s %10s %10s\n' "$threads" "$(median_ms stop_ns "$json")" \
        "$(median_ms handler_ns "$json")" "$(median_ms stack_check_ns "$json")" "$(median_ms dequeue_ns "$json")" \
        "$(median_ms patch_ns "$json")" "$(median_ms enqueue_ns "$json")"
done
