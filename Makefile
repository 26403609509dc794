# Everything starts from here; the Rust toolchain is the one prerequisite, the rest is installed when missing.

# The kernel that demo, test, bench and soak work on: SUITE/FLAVOUR, or a release.
KERNEL ?= bookworm/cloud-amd64
PREFIX ?= /usr/local

target := $(or $(CARGO_TARGET_DIR),target)
release := $(target)/release
libexec := $(target)/libexec/schedswap
triple = $(shell rustc -vV | sed -n 's/^host: //p')

export SCHEDSWAP := $(abspath $(release)/schedswap)
export SCHEDSWAP_LIBEXEC := $(abspath $(libexec))
export KERNEL WHAT

.PHONY: all help setup setup-rust setup-build setup-guest setup-disk setup-load static demo test bench soak install clean
all: setup-build ## build the command, and the programs that run on the swapped machine
	cargo build --release --package schedswap-cli
	$(MAKE) --no-print-directory static

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand --tabs=16

setup: setup-build setup-guest setup-disk setup-load ## install what is missing on this machine (done by the others as needed)

setup-rust:
	@scripts/setup.sh rust

setup-build: setup-rust
	@scripts/setup.sh build

setup-guest:
	@scripts/setup.sh guest

setup-disk:
	@scripts/setup.sh disk

setup-load:
	@scripts/setup.sh load

# They run on machines with any C library, or none.
static: setup-build
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --target $(triple) \
		--package schedswap-loader --package schedswap-guest-load
	mkdir -p $(libexec)
	cp $(target)/$(triple)/release/schedswap-loader $(target)/$(triple)/release/guest-load $(libexec)/

demo: all setup-guest ## fetch a kernel, edit its scheduler, build it and swap it live in a guest
	scripts/demo.sh

test: static setup-guest setup-disk setup-load ## format, lints, all tests on the host and in guests
	scripts/test.sh

bench: all setup-guest setup-load ## measure: analysis, init, build, the stop, the cost of being replaced (WHAT=stop: only that)
	scripts/bench.sh

soak: all setup-guest setup-load ## swap in and out for a long time (CYCLES=200 THREADS=2000)
	scripts/soak.sh

install: all ## install below PREFIX (/usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/schedswap
	install $(release)/schedswap $(DESTDIR)$(PREFIX)/bin/
	install $(libexec)/schedswap-loader $(libexec)/guest-load $(DESTDIR)$(PREFIX)/libexec/schedswap/

clean: ## remove what was built; fetched kernels stay in the cache
	cargo clean
	rm -rf out
