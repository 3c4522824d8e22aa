# Set-up, build, tests and the demonstration. `make help` lists the targets.
.PHONY: help setup build release demo test sim check clean

help:
	@echo 'make demo   build, start a local cluster, kill the primary, show the gap; leaves the cluster up'
	@echo '            (EXIT=1: end then; the exit code tells whether all was well)'
	@echo 'make test   formatting, lints, unit, scenario and end-to-end tests'
	@echo 'make sim    the simulation on its own: SEEDS=n FROM=m histories; a failing one says how to see it again'
	@echo 'make build  the four programs in ./bin (PROFILE=dev: quicker to build)'
	@echo 'make setup  install what is missing (PostgreSQL, etcd, protoc, iproute2)'
	@echo 'make clean  remove ./bin and what cargo built'

setup:
	@tools/setup

build: setup
	@tools/build

release: build

demo: build
	@tools/demo

check: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

# Unit tests take the cores there are; end-to-end tests wait more than they compute, and share the cores by weight.
test: check
	cargo test --workspace --exclude stolon-tests
	cargo test --package stolon-tests -- --test-threads=8

SEEDS ?= 10000
FROM ?= 0
sim:
	cargo run --package stolon-simulation --bin sim -- --seeds $(SEEDS) --from $(FROM)

clean:
	cargo clean
	rm -rf bin
