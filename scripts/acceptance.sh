#!/usr/bin/env bash
# The whole way of real chat: every log of a data folder goes in through a running server, is compared with its source
# message by message, goes in again (which adds nothing), is verified, exported, imported into an empty store, and verified
# against the export. Prints what the server's memory was on the way.
#
#   scripts/acceptance.sh [BINARY] [DATA]     # target/release/feedlog, ../shared/data
#   ENGINE=sled scripts/acceptance.sh
#
# DATA has irc-ubuntu/ubuntu-irc-raw.tar.xz and crosswoz-zh/val.json.zip.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:-target/release/feedlog}
data=${2:-../shared/data}
engine=${ENGINE:-rocksdb}
. scripts/server.sh

irc=$data/irc-ubuntu/ubuntu-irc-raw.tar.xz
crosswoz=$data/crosswoz-zh/val.json.zip
[ -f "$irc" ] && [ -f "$crosswoz" ] || { echo "acceptance.sh: no chat logs in $data" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/feedlog-acceptance.XXXXXX")
cleanup() { stop_server || true; rm -rf "$work"; }
trap cleanup EXIT
say() { printf '\n--- %s\n' "$*"; }
figure() { printf '    %-46s %s\n' "$1" "$2"; }

mkdir "$work/irc"
tar -xJf "$irc" -C "$work/irc"
mapfile -t logs < <(find "$work/irc" -name '*.raw.txt' | sort)
# Counted by awk, then again by the comparison below.
lines=$(cat "${logs[@]}" | LC_ALL=C awk '/^\[[0-9][0-9]:[0-9][0-9]\] <[^>]+>/' | wc -l)

FEEDLOG_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
export FEEDLOG_TOKEN FEEDLOG__AUTH__ADMIN_TOKEN=$FEEDLOG_TOKEN
serve() { start_server "$binary" "$work/store" --engine "$engine"; export FEEDLOG_SERVER=$server_url; }
feedlog() { "$binary" "$@"; }

say "an empty server ($engine)"
serve
figure "memory, idle" "$(($(server_rss_kib) / 1024)) MiB"

say "importing ${#logs[@]} IRC logs with $lines messages, and CrossWOZ"
feedlog import --format irc "${logs[@]}"
feedlog import --format crosswoz "$crosswoz"
figure "memory, after the import" "$(($(server_rss_kib) / 1024)) MiB"

say "comparing every message with its source"
python3 scripts/acceptance_compare.py irc "${logs[@]}" | tee "$work/irc.compared"
grep -q "^${#logs[@]} feeds, $lines messages in the sources, 0 feeds differ$" "$work/irc.compared"
python3 scripts/acceptance_compare.py crosswoz "$crosswoz"
python3 scripts/acceptance_compare.py heads >"$work/heads.first"

say "importing again: adds nothing"
feedlog import --format irc "${logs[@]}"
feedlog import --format crosswoz "$crosswoz"
python3 scripts/acceptance_compare.py heads >"$work/heads.second"
cmp "$work/heads.first" "$work/heads.second"
figure "feeds whose head moved" 0

say "verify, against the running server"
feedlog verify
figure "memory, after reading everything" "$(($(server_rss_kib) / 1024)) MiB"

say "export"
feedlog export --output "$work/export.jsonl"
figure "bytes" "$(wc -c <"$work/export.jsonl")"
stop_server

say "verify, offline"
feedlog verify --data-dir "$work/store"
figure "bytes on disk" "$(du -sb "$work/store" | cut -f 1)"

say "importing the export into an empty store"
feedlog import --format feedlog --data-dir "$work/copy" "$work/export.jsonl"
feedlog verify --data-dir "$work/copy" --against "$work/export.jsonl"

say "all real logs went in and came out as they are"
