# make deps           what tests and demo need on Debian 12 (as root; otherwise says what is missing)
# make bench          Rehome beside other programs on real servers (SCENARIO=copy,distance,delta,lock,large, SIZE=n, REPEAT=n, TOOLS=…)
# make build          everything, and the binary target/debug/rehome
# make demo           real mail moves between two organisations (SEED=n, KEEP=1)
# make demo-selftest  shows that the demo can fail
# make test           all tests; REHOME_WITHOUT=dovecot,… leaves out what needs a missing server
# make fuzz           every parser of outside bytes under a fuzzer (SECONDS_EACH=20, TARGETS=frames …)
# make interruption   a move cut at every durable step, by kills, power cuts and broken lines (about an hour; SEED=n)
# make lint           format, clippy, documentation

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: bench build deps demo demo-selftest fuzz interruption lint test

build:
	cargo build --workspace --locked

deps:
	scripts/install-deps

bench:
	scripts/install-deps bench
	cargo build --release --locked -p rehome-app -p rehome-bench
	python3 bench/run.py

demo: build
	python3 demo/run.py

demo-selftest: build
	python3 demo/run.py --selftest

# The binary counts its durable steps and may end at one; otherwise it is the same.
interruption:
	scripts/install-deps
	cargo build --locked -p rehome-app --features rehome-app/fault-injection
	install -m 0755 target/debug/rehome target/debug/rehome-fault
	python3 interruption/run.py

test:
	scripts/test

fuzz:
	scripts/fuzz

lint:
	scripts/lint
