# Everything starts here. The Rust toolchain is the only prerequisite; other packages are installed if they are missing.

# The kernel that demo, test, bench and soak use: SUITE/FLAVOUR, or a release.
KERNEL ?= bookworm/cloud-amd64
PREFIX ?= /usr/local
# The base of the SDK's container image, and the program that builds it.
BASE ?= debian:12
ENGINE ?= $(firstword $(shell command -v podman; command -v docker))

# All programs have one target and one set of flags, so that each crate is compiled once. The flags are what the loader
# and guest-load need: they are static, because they run on machines with any C library, or none.
triple := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
export CARGO_BUILD_TARGET := $(triple)
export RUSTFLAGS := -C target-feature=+crt-static
export RUSTDOCFLAGS := $(RUSTFLAGS)

target := $(or $(CARGO_TARGET_DIR),target)
release := $(target)/$(triple)/release
libexec := $(target)/$(triple)/libexec/schedswap
program ?= $(release)/schedswap
mandir ?= $(PREFIX)/share/man
docdir ?= $(PREFIX)/share/doc/schedswap
licensedir ?= $(PREFIX)/share/licenses/schedswap

export SCHEDSWAP := $(abspath $(release)/schedswap)
export SCHEDSWAP_LIBEXEC := $(abspath $(libexec))
export KERNEL WHAT
# The kernels of the matrix; scripts/matrix.sh has the default.
export KERNELS

.PHONY: all help env setup setup-rust setup-build setup-guest setup-disk setup-load setup-package libexec test-programs static-arm64 demo test bench soak matrix install packages vendor container clean
all: setup-build ## build the command, and the programs that run on the swapped machine
	cargo build --release --package schedswap-cli --package schedswap-loader --package schedswap-guest-load
	$(MAKE) --no-print-directory libexec

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | sed 's/[$$][$$]/$$/g' | expand --tabs=16

env: ## print what to evaluate in a shell to run cargo and the scripts by hand: eval "$$(make --silent env)"
	@for name in CARGO_BUILD_TARGET RUSTFLAGS RUSTDOCFLAGS SCHEDSWAP SCHEDSWAP_LIBEXEC KERNEL; do \
		printf 'export %s=%s\n' $$name "$$(printenv $$name | sed "s/'/'\\\\''/g; s/.*/'&'/")"; \
	done

setup: setup-build setup-guest setup-disk setup-load setup-package ## install what is missing on this machine (other targets do so as needed)

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

setup-package:
	@scripts/setup.sh package

# The directory in which the command looks for the files that belong to it.
libexec:
	mkdir -p $(libexec)
	for program in schedswap-loader guest-load; do \
		strip -o $(libexec)/$$program $(release)/$$program || exit; \
	done
	rm -rf $(libexec)/kernels
	cp -r kernels $(libexec)/kernels

# Every test and every program that a test runs. Cargo is always asked for the whole workspace here: for a selection of its
# members it would compile what they share again.
test-programs: setup-build
	cargo build --release --workspace --all-targets
	$(MAKE) --no-print-directory libexec

# The same programs for arm64 guests. Rust's own linker and C library for this target need no cross compiler.
arm64_triple := aarch64-unknown-linux-musl
static-arm64: setup-build
	scripts/setup.sh arm64
	RUSTFLAGS= CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld cargo build --release --target $(arm64_triple) \
		--package schedswap-loader --package schedswap-guest-load
	mkdir -p $(libexec)/aarch64
	for program in schedswap-loader guest-load; do \
		aarch64-linux-gnu-strip -o $(libexec)/aarch64/$$program $(target)/$(arm64_triple)/release/$$program || exit; \
	done

demo: setup-build ## fetch a kernel, edit its scheduler, build it, and swap it live in a guest
	$(MAKE) --no-print-directory --jobs=2 all setup-guest
	scripts/demo.sh

test: test-programs setup-guest setup-disk setup-load setup-package ## run the formatter, the lints, and all tests on the host and in guests
	scripts/test.sh

bench: all setup-guest setup-load ## measure: analysis, init, build, the stop, the cost of being replaced (WHAT=stop: only that)
	scripts/bench.sh

soak: all static-arm64 setup-guest setup-disk setup-load setup-package ## swap in and out for a long time (CYCLES=200 THREADS=2000)
	scripts/soak.sh

matrix: all static-arm64 setup-guest setup-load ## take every kernel line from fetch to cycles under load, into docs/kernels.md (KERNELS=…)
	scripts/matrix.sh

install: all ## install below PREFIX (/usr/local): command, programs, manual pages, completions
	rm -rf $(target)/man
	$(release)/schedswap man $(target)/man
	$(libexec)/schedswap-loader man $(target)/man
	install -D -m 755 $(program) $(DESTDIR)$(PREFIX)/bin/schedswap
	install -d -m 755 $(DESTDIR)$(PREFIX)/libexec/schedswap $(DESTDIR)$(mandir)/man1 $(DESTDIR)$(docdir) \
		$(DESTDIR)$(licensedir)
	install -m 755 $(libexec)/schedswap-loader $(libexec)/guest-load $(DESTDIR)$(PREFIX)/libexec/schedswap/
	install -m 644 $(target)/man/*.1 $(DESTDIR)$(mandir)/man1/
	install -m 644 README.md DESIGN.md docs/configuration.md $(DESTDIR)$(docdir)/
	install -d -m 755 $(DESTDIR)$(docdir)/docs/design
	install -m 644 docs/design/*.md $(DESTDIR)$(docdir)/docs/design/
	install -d -m 755 $(DESTDIR)$(PREFIX)/libexec/schedswap/kernels
	install -m 644 kernels/* $(DESTDIR)$(PREFIX)/libexec/schedswap/kernels/
	install -m 644 LICENSE-MIT LICENSE-APACHE LICENSES/*.txt $(DESTDIR)$(licensedir)/
	set -e; complete() { \
		install -d -m 755 "$$(dirname "$(DESTDIR)$(PREFIX)/share/$$2")"; \
		$(release)/schedswap completions $$1 >"$(DESTDIR)$(PREFIX)/share/$$2"; \
		chmod 644 "$(DESTDIR)$(PREFIX)/share/$$2"; \
	}; \
	complete bash bash-completion/completions/schedswap; \
	complete zsh zsh/site-functions/_schedswap; \
	complete fish fish/vendor_completions.d/schedswap.fish

# The command is static too, so one package of each format serves every distribution.
packages: all ## build schedswap itself as .deb and .rpm, in out/
	rm -rf $(target)/sdk
	strip -o $(target)/schedswap-stripped $(release)/schedswap
	$(MAKE) --no-print-directory --old-file=all install program=$(target)/schedswap-stripped \
		DESTDIR=$(target)/sdk PREFIX=/usr
	mkdir -p out
	$(release)/sdk-packages $(target)/sdk . out

vendor: setup-rust ## put the sources of all crates into vendor/, for builds without a crates registry
	cargo vendor --locked --quiet --versioned-dirs vendor >/dev/null

container: ## build the SDK's image with podman or docker (BASE=debian:11, debian:12 or debian:13)
	@[ -n "$(ENGINE)" ] || { \
		echo "make container: found neither podman nor docker; install one of them, or name another engine with ENGINE=" >&2; \
		exit 1; \
	}
	$(ENGINE) build --file Containerfile --build-arg BASE=$(BASE) --tag schedswap:$(subst :,-,$(BASE)) .

clean: ## remove everything that was built; fetched kernels stay in the cache
	cargo clean
	rm -rf out
