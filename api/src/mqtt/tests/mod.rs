//! Connections end to end over a store in memory.

mod basics;
mod connecting;
mod delivering;
mod feed_topics;
mod keeping;
mod lives;
mod mqant;
mod protobuf;
mod publishing;
mod resuming;
mod retaining;
mod sharing;
mod subscribing;
mod wills;
mod window;
mod world;
