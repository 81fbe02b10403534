//! The service from outside, on the memory engine.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod answers;
mod attaching;
mod auth;
mod carried;
mod faults;
mod following;
mod logs;
mod maintenance;
mod marks;
mod oracle;
mod outbox;
mod sending;
mod sessions;
mod shelf;
mod world;
