#!/usr/bin/env bash
# `make demo`: a slice of real chat goes in, and one of its participants looks at history, unread and unreplied.
#
# The logs come from ../shared/data when they are there, else a short sample of this repository is taken.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:-target/debug/feedlog}
. scripts/server.sh

work=$(mktemp -d "${TMPDIR:-/tmp}/feedlog-demo.XXXXXX")
cleanup() { stop_server || true; rm -rf "$work"; }
trap cleanup EXIT

packed=../shared/data/irc-ubuntu/ubuntu-irc-raw.tar.xz
if [ -f "$packed" ]; then
  mkdir "$work/irc"
  tar -xJf "$packed" -C "$work/irc"
  mapfile -t logs < <(find "$work/irc" -name '*.raw.txt' | sort | head -n 5)
  echo "Five real #ubuntu logs, the first 400 messages of each:"
else
  logs=(scripts/sample/*.raw.txt)
  echo "A short sample (the real logs are not at hand):"
fi
python3 scripts/demo_lines.py "${logs[@]}" >"$work/lines.jsonl" 2>"$work/who"
IFS=$'\t' read -r who feed <"$work/who"

start_server "$binary" "$work/store" --dev
export FEEDLOG_SERVER=$server_url
try() { printf '\n$ feedlog %s\n' "$*"; "$binary" "$@"; }

export FEEDLOG_TOKEN=admin
try import --format jsonl "$work/lines.jsonl"

printf '\n%s is one of those who talked there. In --dev the name is the token:\n' "$who"
export FEEDLOG_TOKEN=$who
try feeds
printf '\nThe newest of %s:\n' "$feed"
try pull "$feed" --position=-8
printf '\nNobody has read anything yet, so everything that others said is unread:\n'
try unread
printf '\nWho addressed %s and got no answer, longest waiting first:\n' "$who"
try unreplied
