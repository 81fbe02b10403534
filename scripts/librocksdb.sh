#!/usr/bin/env bash
# Compiles RocksDB's C++ once per machine and keeps librocksdb.a in the user's cache.
#
# The crate's build script would compile it again for every profile, target directory and clone
# (about 22 CPU-minutes each time). This builds it once, optimized, and prints the environment that
# makes the crate link the cached archive instead; see the Makefile.
#
#   eval "$(scripts/librocksdb.sh)"     # builds when missing, then exports ROCKSDB_*
#
# The cache key is the exact version of librocksdb-sys in Cargo.lock, the features and the flags.
set -euo pipefail
cd "$(dirname "$0")/.."

sys_version=$(awk '/^name = "librocksdb-sys"$/ { getline; gsub(/[",]/, "", $3); print $3 }' Cargo.lock)
crate_version=$(awk '/^name = "rocksdb"$/ { getline; gsub(/[",]/, "", $3); print $3 }' Cargo.lock)
[ -n "$sys_version" ] && [ -n "$crate_version" ] || { echo "librocksdb.sh: no rocksdb in Cargo.lock" >&2; exit 1; }

# Without SSE 4.2 every block and WAL checksum is computed by table look-up.
flags="-O2"
case "$(uname -m)" in x86_64) flags="$flags -msse4.2 -mpclmul" ;; esac
features="lz4,zstd"
key=$(printf '%s\n' "$sys_version" "$flags" "$features" "$(${CXX:-c++} -dumpfullversion 2>/dev/null || echo none)" | sha256sum | cut -c1-12)
dir="${XDG_CACHE_HOME:-$HOME/.cache}/feedlog/librocksdb-${sys_version%%+*}-$key"

if [ ! -f "$dir/done" ]; then
  mkdir -p "$dir"
  exec 9>"$dir/lock"
  flock 9 # two clones started at once: the second waits and finds it done
  if [ ! -f "$dir/done" ]; then
    echo "librocksdb.sh: compiling RocksDB $sys_version once for this machine (10-20 minutes on 2 cores)" >&2
    work=$(mktemp -d "$dir/build.XXXXXX") # not in /tmp, which may be small
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/src"
    echo 'fn main() {}' >"$work/src/main.rs"
    cat >"$work/Cargo.toml" <<TOML
[package]
name = "build-librocksdb"
version = "0.0.0"
edition = "2021"
[workspace]
[dependencies]
rocksdb = { version = "=$crate_version", default-features = false, features = ["bindgen-runtime", "lz4", "zstd"] }
librocksdb-sys = { version = "=$sys_version", default-features = false }
TOML
    env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC -u ROCKSDB_INCLUDE_DIR -u CARGO_TARGET_DIR -u RUSTFLAGS \
      CXXFLAGS="$flags" cargo build --release --quiet --manifest-path "$work/Cargo.toml" --target-dir "$work/target" >&2
    src=$(cargo metadata --format-version 1 --manifest-path "$work/Cargo.toml" |
      tr ',' '\n' | sed -n 's|.*"manifest_path":"\(.*librocksdb-sys-[^/]*\)/Cargo.toml".*|\1|p' | head -n 1)
    lib=$(find "$work/target/release/build" -name librocksdb.a | head -n 1)
    [ -f "$lib" ] && [ -d "$src/rocksdb/include" ] || { echo "librocksdb.sh: the build left no librocksdb.a" >&2; exit 1; }
    cp "$lib" "$dir/librocksdb.a"
    rm -rf "$dir/include"
    cp -r "$src/rocksdb/include" "$dir/include"
    touch "$dir/done"
  fi
fi

echo "export ROCKSDB_LIB_DIR='$dir'"
echo "export ROCKSDB_STATIC=1"
echo "export ROCKSDB_INCLUDE_DIR='$dir/include'"
