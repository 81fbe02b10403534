//! Protobuf bodies without sockets: `pb/…` topics of Paho web clients (`proto/feedlog.proto`).
//!
//! `wire.rs` holds the messages, `decode.rs` turns a body into a command, `ids.rs` keeps numbers for users and entries,
//! `encode.rs` shows entries, `unread.rs` tells where a user stands.

mod decode;
mod encode;
mod ids;
#[cfg(test)]
mod tests;
mod unread;
pub mod wire;

#[doc(hidden)]
pub use decode::fuzz;
pub use decode::{Incoming, Place, decode, place};
pub use encode::{Down, receipt, receipt_topic, relay};
pub use ids::Ids;
pub use unread::unread;

/// The media type of a whole encoded [`wire::Message`].
pub const MESSAGE_TYPE: &str = "application/x-protobuf; messageType=feedlog.Message";
/// The media type of a whole encoded [`wire::ServiceMessage`].
pub const SERVICE_TYPE: &str = "application/x-protobuf; messageType=feedlog.ServiceMessage";

/// Messages between two users, both ways.
pub const TOPIC_MESSAGE: &str = "pb/message";
/// Messages of customer service, and of kinds that a text has no place for; both ways.
pub const TOPIC_SERVICE: &str = "pb/service";
/// Where the user stands; down only.
pub const TOPIC_UNREAD: &str = "pb/unread";
/// What the topic of a message to a feed begins with; the percent-encoded `feed_id` follows.
pub const TOPIC_FEEDS: &str = "pb/feeds/";
