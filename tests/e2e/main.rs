//! The real binary, as people run it: a server on a free port, the command line against it.

// The whole binary is a test: its helpers stop at the first surprise, as the tests do.
#![allow(clippy::unwrap_used)]

mod commands;
mod harness;
mod logs;
mod outbox;
mod serving;
