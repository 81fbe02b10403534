#!/usr/bin/env bash
# `make bench`: durable appends and pulls, on this machine's disk, beside the bare disk. Figures, not tests.
#
#   scripts/bench.sh [BINARY]
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:-target/release/feedlog}
"$binary" bench append
"$binary" bench pull
