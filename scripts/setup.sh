#!/usr/bin/env bash
# Installs what building and checking need and a bare Debian bookworm lacks. Does nothing when all is there.
#
# Uses apt only for what is missing, and only as root or with sudo; otherwise it prints the one command that
# somebody who may install packages has to run.
#
#   scripts/setup.sh          # what `make run` needs
#   scripts/setup.sh --test   # and what `make test` needs besides
set -euo pipefail

missing=()
lacks() { missing+=("$@"); }

# A C and C++ compiler: RocksDB and the C parts of zstd and lz4.
command -v cc >/dev/null && command -v c++ >/dev/null || lacks g++
# libclang and its own headers: bindgen reads RocksDB's C header through them.
exists() { for pattern in "$@"; do compgen -G "$pattern" >/dev/null && return 0; done; return 1; }
libclang_is_here() {
  [ -n "${LIBCLANG_PATH:-}" ] ||
    exists '/usr/lib/llvm-*/lib/libclang*.so*' '/usr/lib/*/libclang*.so*' '/usr/lib64/libclang*.so*' '/usr/local/lib/libclang*'
}
clang_headers_are_here() {
  exists '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' '/usr/lib/clang/*/include/stddef.h'
}
libclang_is_here || lacks libclang1-14
clang_headers_are_here || lacks libclang-common-14-dev
command -v flock >/dev/null || lacks util-linux
[ -e /etc/ssl/certs/ca-certificates.crt ] || lacks ca-certificates

if [ "${1:-}" = --test ]; then
  command -v git >/dev/null || lacks git
  # schemathesis runs in its own virtual environment; the test of failing syncs injects errors with strace.
  command -v python3 >/dev/null || lacks python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || lacks python3-venv
  command -v strace >/dev/null || lacks strace
  # Clients of others that tests/interop drives: mosquitto's, those on node, and Paho in a browser.
  command -v mosquitto_pub >/dev/null && command -v mosquitto_rr >/dev/null || lacks mosquitto-clients
  node_is_here() { command -v node >/dev/null && [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 18 ]; }
  node_is_here && command -v npm >/dev/null || lacks nodejs npm
  command -v chromium >/dev/null || lacks chromium
fi

if ! command -v cargo >/dev/null; then
  echo "setup.sh: cargo is missing. Install Rust 1.95 or newer: https://rustup.rs" >&2
  exit 1
fi

[ "${#missing[@]}" -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup.sh: missing: ${missing[*]}; run as root: apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
if ! command -v apt-get >/dev/null; then
  echo "setup.sh: missing (Debian's names): ${missing[*]}; install them with this system's package manager" >&2
  exit 1
fi
echo "setup.sh: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
install() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >&2; }
# Fresh images have no package lists, others have old ones; so lists are fetched only when the first try fails.
install || { "${as_root[@]}" apt-get update -q >&2 && install; }
