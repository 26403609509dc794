#!/bin/sh
# What schedswap is compiled with, from the archive that the image is set up to use.
#
# Debian keeps a newer Rust for its web browsers beside the suite's own, which is too old.
set -eu
export DEBIAN_FRONTEND=noninteractive

apt-get update --quiet=2
apt-get install --yes --quiet=2 --no-install-recommends cargo-web git libelf1 make patch rustc-web xz-utils
