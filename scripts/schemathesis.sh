#!/usr/bin/env bash
# Lets schemathesis ask the running server everything that /openapi.json promises: valid and invalid input for every
# call, all checks on, a fixed seed. Any finding fails.
#
#   scripts/schemathesis.sh target/debug/feedlog [examples per call]
#
# Twice: with real authentication (all checks), and in --dev. Streams and the WebSocket are left out: their answers do
# not end, so schemathesis waits for them for ever; tests/e2e covers them.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
binary=$(realpath "${1:?usage: scripts/schemathesis.sh BINARY [EXAMPLES]}")
examples=${2:-25}
seed=20260101
. scripts/server.sh

cache="${XDG_CACHE_HOME:-$HOME/.cache}/feedlog"
key=$(sha256sum scripts/schemathesis.txt | cut -c1-12)
venv=$cache/schemathesis-$key
if [ ! -f "$venv/done" ]; then
  mkdir -p "$cache"
  exec 9>"$cache/schemathesis.lock"
  flock 9
  if [ ! -f "$venv/done" ]; then
    echo "installing schemathesis (pinned in scripts/schemathesis.txt) into the user's cache"
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement scripts/schemathesis.txt
    touch "$venv/done"
  fi
  exec 9>&-
fi

work=$(mktemp -d)
cleanup() { stop_server || true; rm -rf "$work"; }
trap cleanup EXIT

# What the generated requests can find: schemathesis cannot guess names of feeds.
seed_feeds() {
  python3 - "$server_url" "$1" <<'PY'
import json, sys, urllib.request
url, token = sys.argv[1:]
def call(method, path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), method=method,
        headers={"Authorization": "Bearer " + token, "Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=10))
call("POST", "/v1/feeds", {"feed_id": "tea", "kind": "group", "members": ["bob", "carol"], "join": "approval"})
call("POST", "/v1/feeds", {"feed_id": "hall", "kind": "open", "title": "Hall"})
for feed in ("tea", "hall"):
    for i in range(5):
        call("POST", f"/v1/feeds/{feed}/messages", {"payload": {"n": i}, "client_msg_id": f"seed-{i}", "mentions": ["bob"]})
PY
}

run() {
  local name=$1 token=$2
  shift 2
  echo "--- schemathesis: $name"
  # From the work directory, because it remembers what it found where it stands.
  (cd "$work" && SCHEMATHESIS_HOOKS=schemathesis_hooks PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$root/scripts" \
    "$venv/bin/schemathesis" --no-color --config-file "$root/scripts/schemathesis.toml" run "$server_url/openapi.json" \
    --header "Authorization: Bearer $token" --checks all --seed "$seed" --max-examples "$examples" \
    --request-timeout 20 --continue-on-failure --suppress-health-check too_slow,filter_too_much --exclude-path-regex '/(stream|ws)$' "$@" </dev/null)
}

token=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
FEEDLOG__AUTH__ADMIN_TOKEN=$token start_server "$binary" "$work/auth"
seed_feeds "$token"
run "with authentication" "$token"
stop_server

start_server "$binary" "$work/dev" --dev
seed_feeds admin
# Anonymous callers are let in here on purpose, so leaving the token out is no error of its own.
run "--dev" admin --exclude-checks ignored_auth,missing_required_header
stop_server

echo "schemathesis: nothing found"
