# Thin names over cargo and scripts. `make demo` shows the main job, `make test` proves it; both are run by root.
SHELL := /bin/bash
.PHONY: all install install-names demo test packages unit counts e2e lint bench bench-sweeps fuzz

all:
	cargo build --release

PREFIX ?= /usr/local
COMPLETIONS_ZSH = $(PREFIX)/share/zsh/site-functions
COMPLETIONS_FISH = $(PREFIX)/share/fish/vendor_completions.d

# The binary, its systemd unit, manual pages and completions
install: all
	install -D -m 755 $(wildcard target/*/release/underpass) $(DESTDIR)$(PREFIX)/sbin/underpass
	install -d $(DESTDIR)/etc/systemd/system
	sed "s:/usr/local/:$(PREFIX)/:" dist/underpass.service > $(DESTDIR)/etc/systemd/system/underpass.service
	install -d $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(COMPLETIONS_ZSH) $(DESTDIR)$(COMPLETIONS_FISH)
	$(DESTDIR)$(PREFIX)/sbin/underpass manual $(DESTDIR)$(PREFIX)/share/man/man8
	install -D -m 644 dist/completions/underpass $(DESTDIR)$(PREFIX)/share/bash-completion/completions/underpass
	$(DESTDIR)$(PREFIX)/sbin/underpass completions zsh > $(DESTDIR)$(COMPLETIONS_ZSH)/_underpass
	$(DESTDIR)$(PREFIX)/sbin/underpass completions fish > $(DESTDIR)$(COMPLETIONS_FISH)/underpass.fish

# The names of Open vSwitch's tools as well, on a host that has none of them
install-names: install
	install -d $(DESTDIR)$(PREFIX)/bin
	ln -sf underpass $(DESTDIR)$(PREFIX)/sbin/ovs-vswitchd
	ln -sf ../sbin/underpass $(DESTDIR)$(PREFIX)/bin/ovs-vsctl
	ln -sf ../sbin/underpass $(DESTDIR)$(PREFIX)/bin/ovs-appctl
	for name in ovs-vswitchd ovs-vsctl ovs-appctl; do \
		echo '.so man8/underpass.8' > $(DESTDIR)$(PREFIX)/share/man/man8/$$name.8; \
	done

# Two Docker hosts joined into one switch, before your eyes
demo: all
	tests/install demo
	tests/demo/run

# Everything that a change must pass
test: packages lint unit counts e2e

packages:
	tests/install test

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --manifest-path fuzz/Cargo.toml --no-default-features --target-dir target -- -D warnings

# Unit and property tests, and those that compare with Open vSwitch's programs
unit: packages
	cargo test --workspace --exclude underpass-tests

# Instructions of the hot functions against their limits
counts: packages
	benches/instructions/run

# Hosts in network namespaces, with real Docker Engines and real peers: one at a time. Then what the device road could do
# differently, as nobody takes it by itself where underlays are veths
e2e: all packages
	cargo test -p underpass-tests --no-fail-fast -- --test-threads=1
	UNDERLAY_IO=device cargo test -p underpass-tests --test vlan -- --test-threads=1
	UNDERLAY_IO=device cargo test -p underpass-tests --test mtu -- --test-threads=1 esp_over mtu_changes

# Underpass beside its peers, about 20 minutes; benches/run --quick takes two
bench: all
	benches/run

# How the cost of a frame grows: its size, MAC addresses, tunnels, SAs
bench-sweeps: all
	benches/run --sweeps

fuzz:
	fuzz/run
