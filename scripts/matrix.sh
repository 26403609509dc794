#!/usr/bin/env bash
# Takes every kernel of KERNELS through all steps, as many at a time as there are CPUs, and writes the results to
# docs/kernels.md, where the rows of other kernels stay. A kernel that is not available or is refused gets its row too,
# and makes this script fail at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/kernel.sh
: "${SCHEDSWAP:=schedswap}" "${CYCLES:=25}" "${THREADS:=500}"
# All kernels, in the page's order.
all="bullseye/cloud-amd64 bookworm/cloud-amd64 bookworm/amd64 bookworm-backports/cloud-amd64 trixie/cloud-amd64 \
trixie/amd64 trixie-backports/cloud-amd64 trixie-backports/rt-amd64 sid/cloud-amd64 bookworm/arm64 trixie/arm64"
: "${KERNELS:=$all}"
export SCHEDSWAP CYCLES THREADS
page=docs/kernels.md

# Runs a step of the current kernel. Its output goes to $out/<step>.log, and the seconds that it took to $took.
run() {
    local name=$1 began=$SECONDS
    shift
    "$@" >"$out/$name.log" 2>&1 || {
        reason=$(grep -m 1 '^schedswap: ' "$out/$name.log" | cut -c 1-200 || true)
        return 1
    }
    took=$((SECONDS - began))
}

# Takes one kernel through the steps, and sets its cells in order, as far as it gets.
kernel() {
    local KERNEL=$1 sysroot source vmlinux bzimage
    get_kernel "$SCHEDSWAP" >"$out/fetch.log" 2>&1 || { reason='not available'; return 1; }
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

# Whether the kernel was built with an option. Some of Debian's kernels have their configuration in only one of these
# places.
has() {
    grep -qsx "CONFIG_$1=y" "$sysroot/boot/config-$release" "$sysroot"/{usr/,}lib/modules/"$release"/config
}

# Adds to the last cell.
note() {
    reason=${reason:+$reason; }$1
}

# Mitigations: code that boot code rewrites for processors with bugs. The emulated processor has none of these bugs, so the
# mitigations are forced on it, or it is given the model number of a processor that has the bug. Each line: the option
# that the kernel was built with, a word of the message with which the kernel turns the mitigation on, the processor, and the
# kernel's parameters.
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

# A real sched_ext policy, before and while the new scheduler is loaded.
sched_ext() {
    clang -O2 -g --target=bpf -I/usr/include/x86_64-linux-gnu -c crates/tests/sched_ext/fifo.bpf.c -o "$out/fifo.bpf.o" &&
        PATH=$PATH:/usr/sbin "$SCHEDSWAP" try "$out/work" --run crates/tests/sched_ext/swap.sh --with bpftool --with "$out/fifo.bpf.o"
}

# Takes one kernel through the steps, and writes its row.
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
# shellcheck disable=SC2086 # separate words on purpose
printf '%s\n' $KERNELS | xargs --max-procs="$(nproc)" -n 1 scripts/matrix.sh row || failed=1

# The row of a kernel: from this run, or else from the page.
of() {
    case " $KERNELS " in
        *" $1 "*) cat "out/matrix/${1//\//-}/row" ;;
        *) grep -F "| $1 |" "$page" 2>/dev/null || true ;;
    esac
}
{
    cat <<EOF
# Kernels that were tried

\`make matrix\` writes this page. It takes the newest kernel of each suite and flavour in the archive through these steps,
without any configuration:

- \`fetch\` the kernel and its compiler;
- \`init\`, with its two proofs: the untouched source compiles to vmlinux's code, and bound and laid over vmlinux it is
  vmlinux;
- build the demo's edit, load it in a guest and use it;
- swap it while the function tracer, call graphs and a kprobe are attached to functions that are replaced, all of which
  have to keep working;
- swap it in and out under load. Afterwards the kernel's text and scheduling classes must be what they were, byte for byte.

The columns:

- **identical**: functions of the scheduler that compile to vmlinux's bytes. **replaced**: functions that the module brings
  with it; the others stay in vmlinux.
- **cycles**: swaps in and out that were done. A cycle that is missing was refused because a thread, which was named, was in
  the way.
- **pause**: the median stop in ms. The guest has four emulated CPUs and shares the host with another guest, so absolute
  times are the emulator's; only compare rows with each other.
- An empty cell was not reached; the last column says why.
- The last column also has what else was tried on kernels that have it. Mitigations for processors with bugs are forced on
  the emulator's processor, with 5 cycles each: *Stuffing* is call depth tracking, *Aligned* is aligned return thunks against
  indirect target selection, *untrained* is return thunks for AMD; all of them with retpolines. For sched_ext, a policy is
  loaded.

| kernel | release | compiler | identical | replaced | init, s | demo | tracing | cycles | pause, ms | |
|---|---|---|---|---|---|---|---|---|---|---|
EOF
    # shellcheck disable=SC2086 # separate words on purpose
    for spec in $(printf '%s\n' $all $KERNELS | awk '!seen[$0]++'); do
        of "$spec"
    done
} >"$page.new"
mv "$page.new" "$page"
cat "$page"
exit "$failed"
