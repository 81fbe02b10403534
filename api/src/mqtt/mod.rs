//! MQTT 3.1, 3.1.1 and 5.0 over TCP, TLS and WebSocket: a broker whose sessions are cursors over the log.
//!
//! `wire` is the codec, `machine` one connection without IO, `connection.rs` its loop, `broker.rs` what all share. A PUBACK
//! or PUBREC leaves only for a [`feedlog_service::Receipt`]; `space.rs` names the four kinds of topics.

mod acl;
mod broker;
mod carried;
mod config;
mod connection;
mod feeds;
mod machine;
mod opening;
mod outbound;
mod perform;
mod pushes;
mod serve;
mod session;
mod shared;
mod space;
mod stored;
#[cfg(test)]
mod tests;
pub(crate) mod websocket;
mod wills;
pub mod wire;

pub use acl::AclError;
pub use config::{Impush, MqttConfig};
pub(crate) use connection::Origins;
#[doc(hidden)]
pub use machine::fuzz::play as fuzz;
pub use serve::{Listener, Mqtt, MqttError};

/// The name of this front end's rows.
const FRONT_END: &str = "mqtt";
