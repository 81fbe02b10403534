//! The real binary from outside: killed, flooded with connections, short of disk.

#![allow(clippy::unwrap_used)]

mod connections;
mod crash;
mod gws;
mod gws_bounds;
mod gws_crash;
mod ledger;
mod mqtt;
mod mqtt_bounds;
mod mqtt_crash;
mod mqtt_ledger;
mod outbox;
mod receiver;
mod server;
