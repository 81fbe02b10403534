# The two commands: `make run` and `make test`. Everything they need and miss is installed by scripts/setup.sh.
SHELL := /bin/bash
.DEFAULT_GOAL := help

HTTP ?= 127.0.0.1:7171
ENGINE ?= rocksdb
# RocksDB is compiled once per machine, not once per profile and clone.
# By hand: eval "$(scripts/librocksdb.sh)"
ROCKSDB = rocksdb=$$(scripts/librocksdb.sh) && eval "$$rocksdb"

.PHONY: help run demo test check bench acceptance build release setup clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: setup ## serve --dev on a fresh data directory, and three commands to try
	@$(ROCKSDB) && cargo build && scripts/run.sh --http $(HTTP) --engine $(ENGINE)

demo: setup ## import real chat and show history, unread and unreplied of one participant
	@$(ROCKSDB) && cargo build && scripts/demo.sh

test: ## every check there is; the same that .ci/run does
	@scripts/setup.sh --test
	@$(ROCKSDB) && scripts/check.sh

check: ## the quick part: format, clippy, unit tests without RocksDB
	@scripts/check.sh fmt && cargo clippy --all-targets --no-default-features --features sled -- -D warnings && \
	  cargo test --no-default-features --features sled

bench: setup ## durable appends and pulls per second, beside the speed of the bare disk
	@$(ROCKSDB) && cargo build --release && scripts/bench.sh

acceptance: setup ## import all real logs, compare every count, export, import again, verify
	@$(ROCKSDB) && cargo build --release && scripts/acceptance.sh

build: setup ## target/debug/feedlog
	@$(ROCKSDB) && cargo build

release: setup ## target/release/feedlog
	@$(ROCKSDB) && cargo build --release

setup:
	@scripts/setup.sh

clean: ## remove what was built here; the compiled RocksDB stays in the user's cache
	@cargo clean
