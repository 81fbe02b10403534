//! mqant's side of us without sockets.

pub mod uri;
