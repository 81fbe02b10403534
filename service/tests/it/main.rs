//! The service from outside, on the memory engine.

#![allow(clippy::unwrap_used)]

mod attaching;
mod auth;
mod faults;
mod logs;
mod maintenance;
mod marks;
mod sending;
mod world;
