#!/bin/sh
# Puts small valid files into the corpora, from which the fuzzer starts: it would never hit on an ELF header by chance. Needs
# gcc and binutils.
set -eu
cd "$(dirname "$0")"
fixture=../crates/kernel/src/vmlinux/tests/fixture
mkdir -p corpus/vmlinux_open corpus/object_read corpus/config_parse
corpus=$PWD/corpus
for dwarf in 4 5; do
	"$fixture/build.sh" "$corpus/vmlinux_open/dwarf$dwarf" "$dwarf"
done
for optimise in 0 2; do
	${CC:-gcc} "-O$optimise" -ffunction-sections -fdata-sections -ffreestanding -fno-pic -mcmodel=kernel \
		-c "$fixture/kernel/sched/core.c" -o "corpus/object_read/core-O$optimise.o"
done
# The example in the documentation.
sed -n '/^```yaml/,/^```/p' ../docs/configuration.md | sed '/^```/d' >"$corpus/config_parse/example.yaml"
