#!/usr/bin/env bash
# Puts the clients that tests/interop drives into the user's cache, once per machine and set of versions, and prints
# where: two Python environments (paho1, paho2) and node_modules.
#
#   scripts/interop_setup.sh
set -euo pipefail
cd "$(dirname "$0")/../tests/interop"

cache="${XDG_CACHE_HOME:-$HOME/.cache}/feedlog"
key=$(cat paho1.txt paho2.txt package.json package-lock.json | sha256sum | cut -c1-12)
clients=$cache/interop-$key
if [ ! -f "$clients/done" ]; then
  mkdir -p "$clients"
  exec 9>"$cache/interop.lock"
  flock 9
  if [ ! -f "$clients/done" ]; then
    for paho in paho1 paho2; do
      python3 -m venv --clear "$clients/$paho" >&2
      "$clients/$paho/bin/pip" install --quiet --disable-pip-version-check --requirement "$paho.txt" >&2
    done
    cp package.json package-lock.json "$clients/"
    (cd "$clients" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error >&2)
    touch "$clients/done"
  fi
  exec 9>&-
fi
echo "$clients"
