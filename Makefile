# Thin names over cargo and scripts. `make demo` shows the main job, `make test` proves it; both are run by root.
SHELL := /bin/bash
.PHONY: all demo test unit e2e lint bench fuzz

all:
	cargo build --release

# Two Docker hosts joined into one switch, before your eyes
demo: all
	tests/install demo
	tests/demo/run

# Everything that a change must pass
test: lint unit e2e

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

# Unit and property tests: no privileges needed beyond what a test says itself
unit:
	cargo test --workspace --exclude underpass-tests

# Hosts in network namespaces, with real Docker Engines and real peers: one at a time
e2e: all
	tests/install test
	cargo test -p underpass-tests -- --test-threads=1

bench: all
	benches/run

fuzz:
	fuzz/run
