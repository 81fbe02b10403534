#!/usr/bin/env bash
# `feedlog bench ws`: rooms of gotapi-ws and channels of CONNMIX beside MQTT and mosquitto, all started here on loopback, in
# one run. Figures, not tests.
#
#   scripts/bench_ws.sh [BINARY]
#
#   SECONDS_EACH=4 ROUNDS=5      length of a round, and how many (the figures are medians)
#   SUBSCRIBERS=1000             of the fan-out
#   PUBLISHERS=64 WINDOW=16      of the durable publish, and what each keeps in flight where it pipelines
#   CONNECTIONS=10000            idle ones
#   DATA_ROOT=.                  where data directories are made; on the disk that is to be measured
#   ONLY=idle,publish,fanout     which parts
#
# feedlog syncs before it answers or passes anything on, also raw frames; mosquitto keeps everything in memory.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${1:-target/release/feedlog}")
seconds=${SECONDS_EACH:-4} rounds=${ROUNDS:-5} subscribers=${SUBSCRIBERS:-1000} connections=${CONNECTIONS:-10000}
publishers=${PUBLISHERS:-64} window=${WINDOW:-16} only=,${ONLY:-idle,publish,fanout},
# Debian puts servers where only root's PATH looks.
PATH=$PATH:/usr/sbin
command -v mosquitto >/dev/null || { echo "mosquitto is missing (Debian: mosquitto)" >&2; exit 1; }
. scripts/server.sh

work=$(mktemp -d "${DATA_ROOT:-.}/bench-ws.XXXXXX")
case $(stat -f -c %T "$work") in
  tmpfs | ramfs) echo "$work is in memory, not on a disk: set DATA_ROOT" >&2; rmdir "$work"; exit 1 ;;
esac
work=$(realpath "$work")
mosquitto_pid=
cleanup() {
  stop_server || true
  if [ -n "$mosquitto_pid" ]; then
    kill "$mosquitto_pid" 2>/dev/null || true
    wait "$mosquitto_pid" || true
  fi
  rm -rf "$work"
}
trap cleanup EXIT
ulimit -n "$(ulimit -H -n)"

# A server that has done nothing yet: what load leaves behind in a process would hide what connections need.
fresh_server() {
  stop_server
  rm -rf "$work/feedlog"
  mqtt_port=$(free_port)
  FEEDLOG__HTTP__CONNECTIONS_MAX=$((connections + 2000)) FEEDLOG__HTTP__CONNECTIONS_PER_ADDRESS_MAX=$((connections + 2000)) \
    FEEDLOG__MQTT__CONNECTIONS_MAX=$((connections + 2000)) FEEDLOG__MQTT__CONNECTIONS_PER_ADDRESS_MAX=$((connections + 2000)) \
    start_server "$binary" "$work/feedlog" --dev --mqtt "127.0.0.1:$mqtt_port"
  wait_for_port "$mqtt_port"
}

# One of feedlog's wires, as an option of the bench.
ours() {
  case $1 in
    mqtt) echo "feedlog MQTT=127.0.0.1:$mqtt_port,pid=$server_pid" ;;
    *) echo "feedlog $1=${server_url#http://},pid=$server_pid,wire=$1" ;;
  esac
}

start_mosquitto "$work"
mosquitto=mosquitto=127.0.0.1:$mosquitto_port,pid=$mosquitto_pid
# Only services may publish at the message center.
common=(--username admin --password admin --seconds "$seconds" --rounds "$rounds")

echo "machine: $(nproc) cores, $(uname -sr), data on $(stat -f -c %T "$work")"
echo "feedlog: $("$binary" --version), --dev, engine rocksdb, every commit synced"
echo "mosquitto: $(mosquitto -h | head -1), persistence off, TCP_NODELAY"

if [[ $only == *,idle,* ]]; then
  for wire in room connmix mqtt; do
    fresh_server
    echo
    "$binary" bench ws idle "${common[@]}" --broker "$(ours $wire)" --connections "$connections"
  done
fi

if [[ $only == *,publish,* ]]; then
  fresh_server
  for in_flight in 1 "$window"; do
    echo
    "$binary" bench ws publish "${common[@]}" --publishers "$publishers" --window "$in_flight" \
      --broker "$(ours connmix)" --broker "$(ours packet)" --broker "$(ours mqtt)" --broker "$mosquitto"
  done
fi

if [[ $only == *,fanout,* ]]; then
  fresh_server
  echo
  "$binary" bench ws fanout "${common[@]}" --subscribers "$subscribers" \
    --broker "$(ours room)" --broker "$(ours packet)" --broker "$(ours connmix)" --broker "$(ours mqtt)" --broker "$mosquitto"
fi
