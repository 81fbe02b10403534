#!/usr/bin/env bash
# Every check of this repository, in the order in which failures are cheapest to find. The same everywhere.
#
#   scripts/check.sh                 # all of them
#   scripts/check.sh fmt clippy      # some of them: fmt clippy docs deny test schemathesis
#
# Dependencies are built in one profile only (dev, which optimizes them a little); see Cargo.toml.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${ROCKSDB_LIB_DIR:-}" ]; then
  environment=$(scripts/librocksdb.sh)
  eval "$environment"
fi
tools="${XDG_CACHE_HOME:-$HOME/.cache}/feedlog/tools"
deny_version=0.19.9

check_fmt() {
  cargo fmt --all --check
}

check_clippy() {
  cargo clippy --workspace --all-targets -- -D warnings
}

check_docs() {
  RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
}

check_deny() {
  local deny
  if command -v cargo-deny >/dev/null; then
    deny=(cargo-deny)
  else
    if [ ! -x "$tools/bin/cargo-deny" ]; then
      echo "cargo-deny is missing: compiling $deny_version into the user's cache (about 4 minutes on 2 cores)"
      cargo install --quiet --locked cargo-deny --version "$deny_version" --root "$tools"
    fi
    deny=("$tools/bin/cargo-deny")
  fi
  "${deny[@]}" --locked --workspace check bans licenses sources
  # Advisories need RustSec's database, which is fetched over the network; a machine without it says so and goes on.
  if compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-db*/*/.git" >/dev/null; then
    "${deny[@]}" --locked --workspace check --disable-fetch advisories
  else
    echo "advisories: NOT CHECKED, no database at hand (fetch one with: cargo deny fetch db)"
  fi
}

# With the crash loops: FEEDLOG_CRASH_CYCLES makes them longer.
check_test() {
  cargo test --workspace --no-fail-fast
}

check_schemathesis() {
  cargo build --quiet
  scripts/schemathesis.sh target/debug/feedlog
}

steps=("$@")
[ "${#steps[@]}" -gt 0 ] || steps=(fmt clippy docs deny test schemathesis)

report=()
for step in "${steps[@]}"; do
  printf '\n==> %s\n' "$step"
  began=$SECONDS
  "check_$step"
  report+=("$(printf '%-13s ok  %4d s' "$step" $((SECONDS - began)))")
done

printf '\n==> all checks passed\n'
printf '    %s\n' "${report[@]}"
