# Set-up, build, tests and the demonstration. `make help` lists the targets.
.PHONY: help setup build release demo test sim chaos check bench-failover soak clean

help:
	@echo 'make demo   build, start a local cluster, kill the primary, show the gap; leaves the cluster up'
	@echo '            (EXIT=1: end then; the exit code tells whether all was well)'
	@echo 'make test   formatting, lints, unit, scenario and end-to-end tests'
	@echo 'make bench-failover  the gaps that clients see, per kind of failover, beside the floor (as root; an hour or two; goes'
	@echo '            on where it stopped; ARGS="--kinds host-frozen --trials 5", ARGS=--readme, ARGS=--help)'
	@echo 'make soak   an hour of what must not cause a failover (as root; ARGS="--minutes 10")'
	@echo 'make chaos  every fault on hosts of their own (hours; goes on where it stopped; results in CHAOS_DIR, else target/chaos)'
	@echo '            CHAOS_MODES=async,sync  CHAOS_ONLY=part-of-a-name'
	@echo 'make sim    the simulation on its own: SEEDS=n FROM=m histories; a failing one says how to see it again'
	@echo 'make build  the four programs in ./bin (PROFILE=dev: quicker to build)'
	@echo 'make setup  install what is missing (PostgreSQL, etcd, protoc, iproute2, nftables)'
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

# Release builds are measured, by a release build: clients compute too.
bench-failover: build
	cargo run --quiet --locked --release --package stolon-bench -- failover $(ARGS)

soak: build
	cargo run --quiet --locked --release --package stolon-bench -- soak $(ARGS)

# Needs root: network namespaces, loop mounts. The table's rows and what is expected of each are in tests/chaos/table.rs.
chaos: setup
	cargo test --package stolon-tests --test chaos -- --ignored --nocapture the_whole_table

SEEDS ?= 10000
FROM ?= 0
sim:
	cargo run --package stolon-simulation --bin sim -- --seeds $(SEEDS) --from $(FROM)

clean:
	cargo clean
	rm -rf bin
