# Each command installs what it needs and is missing.

.DEFAULT_GOAL := help
.PHONY: help build demo test lint faults simulate mutants soak bench dist arm64

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## The plugin and the command: target/release/libkubehose.so, target/release/kubehose
	@. scripts/setup.sh && need_build && cargo build --release

demo: build ## Container logs through Fluent Bit and the plugin into a local Firehose, and what arrived
	@target/release/kubehose demo

test: ## All checks and tests
	@scripts/test

lint: ## Format and clippy, as make test checks them
	@. scripts/setup.sh && need_build && cargo fmt && cargo fmt --manifest-path fuzz/Cargo.toml && cargo clippy --workspace --all-targets -- -D warnings

faults: ## The delivery contract under faults, as a table (about 5 minutes)
	@. scripts/setup.sh && need_build && cargo build --workspace && scripts/faults

SEEDS ?= 100000
simulate: ## The delivery core in SEEDS simulated worlds (100,000 by default: half an hour on two cores)
	@. scripts/setup.sh && need_build && SEEDS=$(SEEDS) cargo test --release --test simulation no_world -- --nocapture

mutants: ## Puts known faults in, one at a time, and shows whether the tests catch each (about 15 minutes)
	@. scripts/setup.sh && need_build && scripts/mutants

soak: ## Ten minutes of 20,000 events a second under changing faults
	@. scripts/setup.sh && need_build && cargo build --workspace && cargo test --release --test soak -- --ignored --nocapture

bench: ## CPU, memory and time beside the built-in kinesis_firehose, in a real Fluent Bit (about half an hour)
	@. scripts/setup.sh && need_build && cargo bench --bench peers

arm64: ## dist/ for arm64, cross-built and run in an arm64 Fluent Bit under qemu (as root; half an hour, 6 GB)
	@scripts/arm64

dist: ## dist/: the plugin and the command for glibc 2.26 and newer, stripped, with checksums
	@scripts/dist.sh
