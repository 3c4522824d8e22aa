# Set-up, build, tests and the demonstration. `make help` lists the targets.
.PHONY: help setup build release test check clean

help:
	@echo 'make demo   build, start a local cluster, kill the primary, show the gap; leaves the cluster up'
	@echo 'make test   formatting, lints, unit, scenario and end-to-end tests'
	@echo 'make build  the four programs in ./bin'
	@echo 'make setup  install what is missing (PostgreSQL, etcd, protoc, iproute2)'

setup:
	@tools/setup

check: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

test: check
	cargo test --workspace
