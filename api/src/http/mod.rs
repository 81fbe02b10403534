//! The native interface: HTTP/1.1 and HTTP/2, SSE and WebSocket under `/v1`.

mod config;
mod serve;

pub use config::{HttpConfig, TlsConfig};
pub use serve::{HttpError, Services, serve};
