# make deps           what tests and demo need on Debian 12 (as root; otherwise says what is missing)
# make bench          Rehome beside other programs on real servers (SCENARIO=copy,distance,delta,lock,large, SIZE=n, REPEAT=n, TOOLS=…)
# make build          everything, and the binary target/debug/rehome
# make demo           real mail moves between two organisations (SEED=n, KEEP=1)
# make demo-selftest  shows that the demo can fail
# make test           all tests; REHOME_WITHOUT=dovecot,… leaves out what needs a missing server
# make lint           format, clippy, documentation

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: bench build deps demo demo-selftest lint test

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

test:
	scripts/test

lint:
	scripts/lint
