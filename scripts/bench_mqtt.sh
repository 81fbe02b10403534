#!/usr/bin/env bash
# `feedlog bench mqtt` beside mosquitto and Redis, all started here on loopback, in one run. Figures, not tests.
#
#   scripts/bench_mqtt.sh [BINARY]
#
#   SECONDS_EACH=4 ROUNDS=5      length of a round, and how many (the figures are medians)
#   SUBSCRIBERS=1000             of the fan-out
#   CONNECTIONS=10000            idle ones
#   DATA_ROOT=.                  where data directories are made; on the disk that is to be measured
#
# feedlog and Redis sync before they answer (appendfsync always); mosquitto keeps everything in memory and syncs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${1:-target/release/feedlog}")
seconds=${SECONDS_EACH:-4} rounds=${ROUNDS:-5} subscribers=${SUBSCRIBERS:-1000} connections=${CONNECTIONS:-10000}
for tool in mosquitto redis-server; do
  # Debian puts servers where only root's PATH looks.
  PATH=$PATH:/usr/sbin command -v "$tool" >/dev/null || { echo "$tool is missing (Debian: mosquitto, redis-server)" >&2; exit 1; }
done
PATH=$PATH:/usr/sbin
. scripts/server.sh

work=$(mktemp -d "${DATA_ROOT:-.}/bench-mqtt.XXXXXX")
case $(stat -f -c %T "$work") in
  tmpfs | ramfs) echo "$work is in memory, not on a disk: set DATA_ROOT" >&2; rmdir "$work"; exit 1 ;;
esac
work=$(realpath "$work")
mosquitto_pid= redis_pid=
cleanup() {
  stop_server || true
  local pid
  for pid in $mosquitto_pid $redis_pid; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap cleanup EXIT
ulimit -n "$(ulimit -H -n)"

mqtt_port=$(free_port)
FEEDLOG__HTTP__CONNECTIONS_MAX=$((connections + 2000)) FEEDLOG__HTTP__CONNECTIONS_PER_ADDRESS_MAX=$((connections + 2000)) \
  FEEDLOG__MQTT__CONNECTIONS_MAX=$((connections + 2000)) FEEDLOG__MQTT__CONNECTIONS_PER_ADDRESS_MAX=$((connections + 2000)) \
  start_server "$binary" "$work/feedlog" --dev --mqtt "127.0.0.1:$mqtt_port"
wait_for_port "$mqtt_port"

start_mosquitto "$work"

redis_port=$(free_port)
mkdir "$work/redis"
redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$work/redis" --appendonly yes --appendfsync always --save '' \
  --daemonize no >"$work/redis.log" 2>&1 &
redis_pid=$!
wait_for_port "$redis_port"

echo "machine: $(nproc) cores, $(uname -sr), data on $(stat -f -c %T "$work")"
echo "feedlog: $("$binary" --version), --dev, engine rocksdb, every commit synced"
echo "mosquitto: $(mosquitto -h | head -1), persistence off, TCP_NODELAY"
echo "redis: $(redis-server --version | cut -d' ' -f1-3), appendonly, appendfsync always, no snapshots"

common=(--username bench --password bench --seconds "$seconds" --rounds "$rounds")
feedlog=feedlog=127.0.0.1:$mqtt_port,pid=$server_pid
mosquitto=mosquitto=127.0.0.1:$mosquitto_port,pid=$mosquitto_pid
echo
# First, because what load leaves behind in a process would hide what connections need.
"$binary" bench mqtt idle "${common[@]}" --broker "$feedlog" --broker "$mosquitto" --connections "$connections"
echo
"$binary" bench mqtt publish "${common[@]}" --broker "$feedlog" --broker "$mosquitto,subscribers=1" --echo --redis "127.0.0.1:$redis_port"
echo
"$binary" bench mqtt fanout "${common[@]}" --broker "$feedlog" --broker "$mosquitto" --subscribers "$subscribers"
