//! Connections end to end over a store in memory.

mod basics;
mod feed_topics;
mod lives;
mod mqant;
mod protobuf;
mod publishing;
mod retaining;
mod sharing;
mod subscribing;
mod window;
mod world;
