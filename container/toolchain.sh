#!/bin/sh
# Installs what compiles schedswap, from the archive that the image is set up to use.
#
# The suite's own Rust is too old; Debian keeps a newer one beside it for its web browsers.
set -eu
export DEBIAN_FRONTEND=noninteractive

apt-get update --quiet=2
apt-get install --yes --quiet=2 --no-install-recommends cargo-web git libelf1 make patch rustc-web xz-utils
