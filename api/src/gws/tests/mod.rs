//! The front end from outside: the real server on sockets, with clients that send what node-gotapi-ws sent.

mod classification;
mod examples;
mod limits;
mod resolutions;
mod world;
