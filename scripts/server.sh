# Sourced by the other scripts: starts a server of their own, and stops exactly that one.
#
#   start_server BINARY DATA_DIR [serve options…]   # sets server_pid, server_log, server_url; waits until ready
#   stop_server                                     # SIGTERM, waits; fails when it does not end well
#   start_mosquitto WORK_DIR                        # sets mosquitto_pid, mosquitto_port; without persistence
#   wait_for_port PORT

server_pid=

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start_server() {
  local binary=$1 data=$2 port
  shift 2
  port=$(free_port)
  server_url=http://127.0.0.1:$port
  server_log=$data.log
  "$binary" serve --data-dir "$data" --http "127.0.0.1:$port" "$@" >"$server_log" 2>&1 &
  server_pid=$!
  for _ in $(seq 300); do
    if ! kill -0 "$server_pid" 2>/dev/null; then break; fi
    if python3 - "$server_url/readyz" 2>/dev/null <<'PY'; then return 0; fi
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=1)
PY
    sleep 0.1
  done
  echo "the server did not become ready; its log:" >&2
  tail -n 40 "$server_log" >&2
  return 1
}

# Resident memory of the server in KiB.
server_rss_kib() {
  awk '/^VmRSS:/ { print $2 }' "/proc/$server_pid/status"
}

stop_server() {
  [ -n "$server_pid" ] || return 0
  local pid=$server_pid status=0
  server_pid=
  kill -TERM "$pid" 2>/dev/null || true
  wait "$pid" || status=$?
  if [ "$status" -ne 0 ]; then
    echo "the server ended with $status; its log:" >&2
    tail -n 40 "$server_log" >&2
  fi
  return "$status"
}

wait_for_port() {
  for _ in $(seq 200); do
    if (: </dev/tcp/127.0.0.1/"$1") 2>/dev/null; then return 0; fi
    sleep 0.05
  done
  echo "nothing listens on port $1" >&2
  return 1
}

# As fast as it goes: nothing is kept, nothing is logged, nobody is counted.
start_mosquitto() {
  local work=$1
  mosquitto_port=$(free_port)
  cat >"$work/mosquitto.conf" <<CONF
listener $mosquitto_port 127.0.0.1
allow_anonymous true
persistence false
set_tcp_nodelay true
max_connections -1
log_type error
log_dest stderr
CONF
  mosquitto -c "$work/mosquitto.conf" 2>"$work/mosquitto.log" &
  mosquitto_pid=$!
  wait_for_port "$mosquitto_port"
}
