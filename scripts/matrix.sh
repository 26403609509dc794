#!/usr/bin/env bash
# Takes every kernel of KERNELS through all of it, as many at a time as there are CPUs, and writes what was seen to
# docs/kernels.md, where the rows of other kernels stay. A kernel that is not to be had or is refused gets its row too,
# and makes this fail at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/kernel.sh
: "${SCHEDSWAP:=schedswap}" "${CYCLES:=25}" "${THREADS:=500}"
# What there is to be seen, in the page's order.
all="bullseye/cloud-amd64 bookworm/cloud-amd64 bookworm/amd64 bookworm-backports/cloud-amd64 trixie/cloud-amd64 \
trixie/amd64 trixie-backports/cloud-amd64 trixie-backports/rt-amd64 sid/cloud-amd64 bookworm/arm64 trixie/arm64"
: "${KERNELS:=$all}"
export SCHEDSWAP CYCLES THREADS
page=docs/kernels.md

# Runs a step of the current kernel; its output is in $out/<step>.log, and what it took in $took.
run() {
    local name=$1 began=$SECONDS
    shift
    "$@" >"$out/$name.log" 2>&1 || {
        reason=$(grep -m 1 '^schedswap: ' "$out/$name.log" | cut -c 1-200 || true)
        return 1
    }
    took=$((SECONDS - began))
}

# Sets the cells of one kernel, in order, as far as it gets.
kernel() {
    local KERNEL=$1 sysroot source vmlinux bzimage
    get_kernel "$SCHEDSWAP" >"$out/fetch.log" 2>&1 || { reason='not to be had'; return 1; }
    compiler=$(sed -n 's/^ *compiler .*(Debian \([^)]*\)).*/gcc \1/p' "$out/fetch.log")
    rm -rf "$out/work"
    run init "$SCHEDSWAP" init --no-config "$release" "$source" "$out/work" || return 1
    init_s=$took
    functions=$(awk '/^kernel\/sched\// { all += $2; same += $4 } END { print same " of " all }' "$out/init.log")
    replaced=$(sed -n 's/^\([0-9]*\) functions replaced.*/\1/p' "$out/init.log")
    patch --quiet --directory="$out/work" --strip=1 <examples/demo/schedswap_test.patch || { reason='the demo patch does not apply'; return 1; }
    run build "$SCHEDSWAP" build "$out/work" || return 1
    run demo "$SCHEDSWAP" try "$out/work" --run examples/demo/features.sh --console "$out/demo-console.log" || return 1
    demo=yes
    run tracing "$SCHEDSWAP" try "$out/work" --run crates/tests/tracing/swap.sh --console "$out/tracing-console.log" || return 1
    tracing=yes
    run cycles "$SCHEDSWAP" try "$out/work" --cycles "$CYCLES" --threads "$THREADS" --time-limit 14400 \
        --console "$out/console.log" || return 1
    cycles=$(sed -n "s/^\([0-9]*\) cycles done.*/\1 of $CYCLES/p" "$out/cycles.log")
    pause=$(awk '$1 == "stop" { print $3 " in, " $6 " out" }' "$out/cycles.log")
    grep -q 'classes afterwards: identical' "$out/cycles.log" || { reason='the kernel is not as it was'; return 1; }
    mitigations || return 1
    if has SCHED_CLASS_EXT; then
        run sched_ext sched_ext || return 1
        note 'sched_ext: loaded policy refused'
    fi
    rm -rf "$out/work"
}

# Whether the kernel was built with an option. Some of Debian's have their configuration in one of these places only.
has() {
    grep -qsx "CONFIG_$1=y" "$sysroot/boot/config-$release" "$sysroot"/{usr/,}lib/modules/"$release"/config
}

# Adds to the last cell.
note() {
    reason=${reason:+$reason; }$1
}

# Code that boot code rewrites for processors with bugs. The emulator's has none of them, so they are forced on it, or it
# is given the number of one that has them. Each line: what the kernel was built with, a word of what it says once it does
# it, the processor, and the parameters for it.
mitigations() {
    local option word vendor parameters
    while IFS='|' read -r -u 3 option word vendor parameters; do
        has "$option" || continue
        run "$word" "$SCHEDSWAP" try "$out/work" --cycles 5 --threads 100 --time-limit 14400 \
            --cpu "max,vendor=$vendor" --append "$parameters" --console "$out/$word-console.log" || return 1
        grep -q "Mitigation: .*$word" "$out/$word-console.log" || { reason="the kernel has not turned on: $word"; return 1; }
        note "$word: $(sed -n "s/^\([0-9]*\) cycles done.*/\1 of 5/p" "$out/$word.log")"
    done 3<<END
MITIGATION_CALL_DEPTH_TRACKING|Stuffing|GenuineIntel|spectre_v2=retpoline retbleed=force,stuff
CALL_DEPTH_TRACKING|Stuffing|GenuineIntel|spectre_v2=retpoline retbleed=force,stuff
MITIGATION_ITS|Aligned|GenuineIntel|spectre_v2=retpoline indirect_target_selection=force
MITIGATION_UNRET_ENTRY|untrained|AuthenticAMD,family=23,model=1|spectre_v2=retpoline retbleed=unret
CPU_UNRET_ENTRY|untrained|AuthenticAMD,family=23,model=1|spectre_v2=retpoline retbleed=unret
END
}

# A policy of sched_ext's, for real, before and while the new scheduler is loaded.
sched_ext() {
    clang -O2 -g --target=bpf -I/usr/include/x86_64-linux-gnu -c crates/tests/sched_ext/fifo.bpf.c -o "$out/fifo.bpf.o" &&
        PATH=$PATH:/usr/sbin "$SCHEDSWAP" try "$out/work" --run crates/tests/sched_ext/swap.sh --with bpftool --with "$out/fifo.bpf.o"
}

# One kernel, and its row.
row() {
    out=out/matrix/${1//\//-}
    mkdir -p "$out"
    release=$1 compiler='' functions='' replaced='' init_s='' demo='' tracing='' cycles='' pause='' reason=''
    local failed=0
    kernel "$1" || { failed=1; reason=${reason:-failed}; }
    echo "| $1 | $release | $compiler | $functions | $replaced | $init_s | $demo | $tracing | $cycles | $pause | $reason |" |
        tee "$out/row"
    return "$failed"
}

[ "${1-}" != row ] || { row "$2"; exit; }

scripts/setup.sh bpf
step "matrix ($(nproc) at a time)"
failed=0
# shellcheck disable=SC2086 # words of their own
printf '%s\n' $KERNELS | xargs --max-procs="$(nproc)" -n 1 scripts/matrix.sh row || failed=1

# The row of a kernel: this run's, else the page's.
of() {
    case " $KERNELS " in
        *" $1 "*) cat "out/matrix/${1//\//-}/row" ;;
        *) grep -F "| $1 |" "$page" 2>/dev/null || true ;;
    esac
}
{
    cat <<EOF
# Kernels that were tried

Written by \`make matrix\`: the newest kernel of each suite and flavour that was to be had, fetched, with its compiler;
\`init\` with its two proofs; the demo's edit, built, loaded and used in a guest, and swapped in and out under load, with
nothing configured; the function tracer, call graphs and a kprobe on functions that are replaced have to go on working
meanwhile. Afterwards kernel text and scheduling classes have to be what they were, byte for byte. The pause is
the median stop in ms, in an emulated guest of four CPUs, beside another one: what it says of a real machine is its order
among the others. A cycle that was not done was refused because a thread was in the way, by name. An empty cell was not
reached; why is in the last column. It also has what else was tried, for kernels that have it: mitigations for processors
with bugs, forced on the emulator's (Stuffing: call depth tracking; Aligned: aligned return thunks against
indirect target selection; untrained: return thunks for AMD; all with retpolines), with 5 cycles each, and a loaded policy of sched_ext's.

| kernel | release | compiler | identical | replaced | init, s | demo | tracing | cycles | pause, ms | |
|---|---|---|---|---|---|---|---|---|---|---|
EOF
    # shellcheck disable=SC2086 # words of their own
    for spec in $(printf '%s\n' $all $KERNELS | awk '!seen[$0]++'); do
        of "$spec"
    done
} >"$page.new"
mv "$page.new" "$page"
cat "$page"
exit "$failed"
