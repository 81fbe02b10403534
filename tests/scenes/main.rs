//! Scenes: people on different wires in one conversation with the real binary.

#![allow(clippy::unwrap_used)] // the whole binary is a test

mod interop;
mod peer;
mod rooms;
#[allow(dead_code)] // shared with the process tests, which use all of it
#[path = "../process/server.rs"]
mod server;
