//! Connections end to end over a store in memory.

mod basics;
mod lives;
mod window;
mod world;
