# The two commands are `make demo` and `make test`; each installs what it needs and is missing.

.DEFAULT_GOAL := help
.PHONY: help build demo test

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## The plugin and the command line, for use: target/release/libkubehose.so, target/release/kubehose
	@. scripts/setup.sh && need_build && cargo build --release

demo: build ## Container logs through Fluent Bit and the plugin into a local Firehose, and what arrived
	@target/release/kubehose demo

test: ## All checks and tests
	@scripts/test
