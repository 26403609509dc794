#!/bin/sh
# Builds the SDK's packages, in out/, from the checkout that this file is in. If there is a vendor/ (`make vendor`), nothing
# is downloaded; otherwise cargo gets the crates that Cargo.lock names.
set -eu
cd "$(dirname "$0")/.."

if ! git rev-parse --quiet --verify HEAD >/dev/null; then
    echo "$PWD has no git history, from which the packages get their changelog and date: build from a clone, not from an exported tree or a linked worktree" >&2
    exit 1
fi

if [ -d vendor ]; then
    export CARGO_HOME="$PWD/target/cargo"
    mkdir -p "$CARGO_HOME"
    cat >"$CARGO_HOME/config.toml" <<EOF
[source.crates-io]
replace-with = "vendored"

[source.vendored]
directory = "$PWD/vendor"

[net]
offline = true
EOF
fi

make packages
