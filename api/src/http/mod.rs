//! The native interface: HTTP/1.1 and HTTP/2, SSE and WebSocket under `/v1`.
//!
//! `route.rs` holds the table's shape, one module per section holds its rows and handlers, `app.rs` takes a request to
//! its handler, `openapi.rs` documents the same rows, `serve.rs` is the server round it.

mod admin;
pub(crate) mod app;
pub(crate) mod call;
mod config;
mod docs;
mod entries;
mod faces;
mod feeds;
mod im;
mod members;
mod messages;
mod mqtt;
mod openapi;
mod ops;
mod outbox;
mod people;
mod route;
mod serve;
pub(crate) mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod watched;
pub(crate) mod wire;
mod ws;

pub use config::{HttpConfig, TlsConfig};
pub use faces::{Face, Listener};
pub use serve::{HttpError, Services, serve};

/// Whether a path of the shared port is kept for our own routes, by its first segment.
pub fn is_own_path(path: &str) -> bool {
    !crate::gws::is_room(path)
}

/// The OpenAPI 3.1 document of this interface, as JSON text.
pub fn openapi_json() -> String {
    openapi::document(&app::routes()).to_string()
}
