#!/usr/bin/env bash
# Brings the newest kernel/sched of a kernel line to an older kernel of that line: makes a patch of each file that
# differs, applies the patches unchanged to a work dir of the older kernel, and builds. A file that cannot be updated (it
# needs a header or a caller outside kernel/sched that changed with it) is left out, with the reason that the compiler
# or `check` gives.
#
#   update.sh OLDER NEWER WORK_DIR      kernels as `schedswap fetch` takes them
set -euo pipefail
schedswap=${SCHEDSWAP:-schedswap}
[ $# -eq 3 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
older=$1 newer=$2 work=$3
series=$work.series

field() { sed -n "s/^  \"$1\": \"\(.*\)\",\{0,1\}$/\1/p"; }

for kernel in "$older" "$newer"; do "$schedswap" fetch "$kernel"; done
fetched=$("$schedswap" fetch --json "$older")
release=$(field release <<<"$fetched") sysroot=$(field sysroot <<<"$fetched") source=$(field source <<<"$fetched")
newest=$("$schedswap" fetch --json "$newer" | field source)

rm -rf "$work" "$series"
mkdir -p "$series"
"$schedswap" init "$release" "$source" "$work" --sysroot "$sysroot"

# A patch of each file, relative to the top of the kernel's source as upstream's patches are.
trees=$(mktemp -d)
trap 'rm -rf "$trees"' EXIT
ln -s "$(realpath "$source")" "$trees/a"
ln -s "$(realpath "$newest")" "$trees/b"
while read -r file; do
    (cd "$trees" && diff -uN "a/$file" "b/$file") >"$series/$(tr / - <<<"$file").patch" || [ $? -eq 1 ]
done < <(cd "$trees" && { cd "$(realpath a)" && find kernel/sched -name '*.[ch]'; cd "$(realpath "$trees/b")" && find kernel/sched -name '*.[ch]'; } | sort -u)
find "$series" -empty -delete

while :; do
    git -C "$work" reset -q --hard
    for patch in "$series"/*.patch; do
        patch --directory="$work" --strip=1 --quiet <"$patch"
    done
    if said=$("$schedswap" build "$work" --name update 2>&1); then
        printf '%s\n' "$said"
        break
    fi
    # The compiler prints `file:line: error: …`, check prints `file:line: refused […]`.
    reasons=$(grep -E '^[^ :]*kernel/sched/[^ :]+:[0-9]+(:[0-9]+)?: (error|refused)' <<<"$said" || true)
    file=$(sed -nE '1s/^[^ :]*(kernel\/sched\/[^ :]+):.*/\1/p' <<<"$reasons")
    patch=$series/$(tr / - <<<"$file").patch
    [ -n "$file" ] && [ -e "$patch" ] || { printf '%s\n' "$said" >&2; exit 1; }
    printf 'left out: %s\n' "$file"
    head -n 3 <<<"$reasons" | sed 's/^/  /'
    mv "$patch" "$patch.left-out"
done
printf '%s of %s files that differ were brought to %s\n' \
    "$(find "$series" -name '*.patch' | wc -l)" "$(find "$series" -type f | wc -l)" "$release"
