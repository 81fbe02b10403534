//! The binary and its wiring; no message logic.

pub mod config;

/// Programs that must not compile, run by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../tests/must_not_compile.md")]
pub struct MustNotCompile;
