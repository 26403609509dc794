#!/bin/sh
# Installs the SDK's package from out/, and from the archive that the image is set up to use everything else that fetch,
# init, build and try need.
set -eu
cd "$(dirname "$0")/.."
export DEBIAN_FRONTEND=noninteractive

# The names of the packages that the newest version of package $1 depends on, one per line.
depends() {
    apt-cache show --no-all-versions "$1" | sed -n 's/^Depends: //p' | tr ',|' '\n\n' | sed 's/(.*//; s/:.*//; s/[[:space:]]//g'
}

apt-get update --quiet=2

# The compiler of the suite's kernels. Their headers depend on it, because modules have to be built with the same one.
meta=linux-headers-$(dpkg --print-architecture)
headers=$(depends "$meta" | grep '^linux-headers-[0-9]' | head -n 1)
compiler=$(depends "${headers:-$meta}" | grep 'gcc-[0-9]' | head -n 1)
if [ -z "$compiler" ]; then
    echo "the archive does not say which compiler its kernels are built with: ${headers:-$meta} depends on no gcc" >&2
    exit 1
fi

apt-get install --yes --quiet=2 --no-install-recommends \
    ./out/*.deb "$compiler" openssl qemu-system-x86 rpm
rm -rf /var/lib/apt/lists/*
