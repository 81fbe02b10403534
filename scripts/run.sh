#!/usr/bin/env bash
# `make run`: serve --dev on a fresh data directory, and what to try next.
#
#   scripts/run.sh [--http ADDR:PORT] [--engine rocksdb|sled]
set -euo pipefail
cd "$(dirname "$0")/.."

http=127.0.0.1:7171
engine=rocksdb
while [ $# -gt 0 ]; do
  case "$1" in
    --http) http=$2; shift 2 ;;
    --engine) engine=$2; shift 2 ;;
    *) echo "run.sh: what is $1?" >&2; exit 2 ;;
  esac
done

data=$(mktemp -d "${TMPDIR:-/tmp}/feedlog-run.XXXXXX")
cat <<TEXT
Data directory: $data (fresh; yours to delete)
In --dev any name is its own token, and "admin" is the administrator. Try, in another terminal:

  curl -s http://$http/v1/feeds -H 'Authorization: Bearer alice' --json '{"feed_id":"tea","kind":"group","members":["bob"]}'
  curl -s http://$http/v1/feeds/tea/messages -H 'Authorization: Bearer alice' --json '{"payload":"Is there tea?","mentions":["bob"]}'
  curl -s http://$http/v1/unreplied -H 'Authorization: Bearer bob'

Every call with its fields: http://$http/docs

TEXT
exec target/debug/feedlog serve --dev --data-dir "$data" --http "$http" --engine "$engine"
