//! mqant's side of us without sockets: where a topic leads, what its methods do, what answers and pushes look like.
//!
//! `uri.rs` reads topics, `methods.rs` turns a request into a command or a read, `wire.rs` holds the bodies,
//! `message.rs` shows entries, `proxy.rs` passes requests on to other servers. The MQTT connection and `POST /im/…`
//! use the same functions, so a method means the same on both.

mod envelope;
mod message;
mod methods;
pub mod proxy;
#[cfg(test)]
mod tests;
pub mod uri;
pub(crate) mod wire;

pub use envelope::{ImError, Trace, envelope};
pub use message::push;
#[doc(hidden)]
pub use methods::fuzz;
pub use methods::{Asked, Login, Reply, Work, ask, call, login_token};

use feedlog_service::clock::Clock;

/// The topic of pushes.
pub const PUSH_TOPIC: &str = "impush://modulus/news";

/// What the methods need besides the caller's gate. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Im {
    /// Payload of one message, in bytes; the limit the store was opened with.
    pub payload_bytes_max: usize,
    /// For what is told relative to now: whether a feed is muted.
    pub clock: Clock,
}
