//! The real binary from outside: killed, flooded with connections, short of disk.

#![allow(clippy::unwrap_used)]

mod connections;
mod crash;
mod ledger;
mod server;
