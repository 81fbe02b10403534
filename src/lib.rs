//! The binary and its wiring; no message logic.

pub mod config;
