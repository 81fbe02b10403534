#!/usr/bin/env bash
# Puts the Autobahn test suite into the user's cache, once per machine and set of versions, and prints where its
# `wstest` is. It needs a Python 2.7: the one that $AUTOBAHN_PYTHON names, else the newest of pyenv. Without one it
# prints `none` and the reason on stderr; that is no failure.
#
#   scripts/autobahn_setup.sh
set -euo pipefail
cd "$(dirname "$0")/../tests/interop"

is_27() { [ "$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = 2.7 ]; }
python=
if [ -n "${AUTOBAHN_PYTHON:-}" ]; then
  is_27 "$AUTOBAHN_PYTHON" || { echo "AUTOBAHN_PYTHON=$AUTOBAHN_PYTHON is not a Python 2.7" >&2; exit 1; }
  python=$AUTOBAHN_PYTHON
else
  for found in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7*/bin/python; do
    if is_27 "$found"; then python=$found; fi
  done
fi
if [ -z "$python" ]; then
  echo "no Python 2.7: \$AUTOBAHN_PYTHON is not set and pyenv has none" >&2
  echo none
  exit 0
fi

cache="${XDG_CACHE_HOME:-$HOME/.cache}/feedlog"
key=$( (cat autobahn.txt; echo "$python") | sha256sum | cut -c1-12)
suite=$cache/autobahn-$key
if [ ! -f "$suite/done" ]; then
  mkdir -p "$suite"
  exec 9>"$cache/autobahn.lock"
  flock 9
  if [ ! -f "$suite/done" ]; then
    # So that a machine without a network is told soon.
    pip=(install --quiet --disable-pip-version-check --timeout 20 --retries 2)
    # The last virtualenv that makes environments for 2.7, from a Python that is not past its end; it brings pip along.
    python3 -m venv --clear "$suite/maker" >&2
    "$suite/maker/bin/pip" "${pip[@]}" virtualenv==20.15.1 >&2
    "$suite/maker/bin/virtualenv" --quiet --clear --no-download --python "$python" "$suite/python" >&2
    # Everything is pinned. `autobahn[accelerate]` is left out: it is not needed and does not build everywhere.
    PYTHONWARNINGS=ignore "$suite/python/bin/pip" "${pip[@]}" --no-python-version-warning --no-deps --requirement autobahn.txt >&2
    touch "$suite/done"
  fi
  exec 9>&-
fi
echo "$suite/python/bin/wstest"
