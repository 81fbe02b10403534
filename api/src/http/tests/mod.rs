//! The interface from outside: the real router over a store in memory, and the real server on sockets.

mod calls;
mod errors;
mod faces;
mod golden;
mod im;
mod outbox;
mod server;
mod streams;
mod world;
