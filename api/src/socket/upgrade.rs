//! From an HTTP request to a WebSocket (RFC 6455 §4.2).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tungstenite::handshake::derive_accept_key;

use super::{Bounds, Talk, run};
use crate::doors::Guest;
use crate::http::app::App;
use crate::http::stream::Counted;

/// Payload bytes of one connection that wait for the disk.
const PENDING_BYTES_MAX: usize = 4 << 20;
/// Bytes ready for one connection, beyond which nothing more is taken from the log for it.
const OUT_BYTES_MAX: usize = 64 * 1024;

/// A request that may become a WebSocket.
pub(crate) struct Upgrade {
    app: Arc<App>,
    accept: HeaderValue,
    on_upgrade: OnUpgrade,
    /// Keeps the connection counted at the doors of HTTP.
    guest: Option<Arc<Guest>>,
}

/// Whether a request asks for a WebSocket, well or badly.
pub(crate) fn is_asked(headers: &HeaderMap) -> bool {
    has_token(headers, &header::UPGRADE, "websocket")
}

/// Whether one of the comma separated words of a header is this one, in any case (RFC 9110 §5.6.1).
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case(token))
}

/// Checks an opening handshake (RFC 6455 §4.2.1); the answer to send when it is none.
#[allow(clippy::result_large_err)] // once per connection
pub(crate) fn upgrade(app: &Arc<App>, parts: &mut Parts) -> Result<Upgrade, Response> {
    let bad = |why: &'static str| (StatusCode::BAD_REQUEST, Body::from(why)).into_response();
    let headers = &parts.headers;
    if !is_asked(headers) || parts.version > Version::HTTP_11 {
        let mut response =
            (StatusCode::UPGRADE_REQUIRED, "this path speaks WebSocket over HTTP/1.1\n").into_response();
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        return Err(response);
    }
    if parts.method != Method::GET || !has_token(headers, &header::CONNECTION, "upgrade") {
        return Err(bad("an upgrade is a GET with Connection: Upgrade\n"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        // RFC 6455 §4.4: says which versions there are.
        let mut response = (StatusCode::UPGRADE_REQUIRED, "WebSocket version 13\n").into_response();
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(response);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let Some(key) = key.filter(|key| STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16)) else {
        return Err(bad("Sec-WebSocket-Key is not 16 bytes in base64\n"));
    };
    let accept = HeaderValue::from_str(&derive_accept_key(key)).map_err(|_| bad("Sec-WebSocket-Key\n"))?;
    let guest = parts.extensions.get::<Arc<Guest>>().cloned();
    match parts.extensions.remove::<OnUpgrade>() {
        Some(on_upgrade) => Ok(Upgrade { app: app.clone(), accept, on_upgrade, guest }),
        None => Err(bad("this connection cannot be upgraded\n")),
    }
}

impl Upgrade {
    /// Answers 101 and then serves the connection, in a task of its own. Messages of the peer may be as large as a payload
    /// and `beyond_payload` bytes more.
    pub(crate) fn talk(self, talk: impl Talk, beyond_payload: usize) -> Response {
        let max = self.app.config.payload_bytes_max.saturating_add(beyond_payload);
        self.talk_up_to(talk, max)
    }

    /// As [`Upgrade::talk`], with a bound of the caller's for messages.
    pub(crate) fn talk_up_to(self, talk: impl Talk, message_bytes_max: usize) -> Response {
        let Self { app, accept, on_upgrade, guest } = self;
        let config = &app.config;
        let bounds = Bounds {
            message_bytes_max,
            pending_max: config.websocket_in_flight_max.max(1),
            pending_bytes_max: PENDING_BYTES_MAX,
            out_bytes_max: OUT_BYTES_MAX,
            keep_alive: Duration::from_millis(config.websocket_ping_ms.max(1)),
            idle: Duration::from_millis(config.websocket_idle_ms_max),
            stalled: Duration::from_millis(config.stalled_reader_ms_max),
            drain: Duration::from_millis(config.drain_ms_max / 2),
        };
        let counted = Counted::new(&app);
        let draining = app.draining.clone();
        // What the task is given stays a part of it, also what is moved on: so it is given no more than a box of it.
        let given = Box::new((talk, bounds, draining));
        tokio::spawn(async move {
            match on_upgrade.await {
                // In a box of its own: the future is otherwise there twice, where it is made and where it is awaited.
                Ok(stream) => {
                    let (talk, bounds, draining) = *given;
                    Box::pin(run(TokioIo::new(stream), talk, bounds, draining)).await;
                }
                Err(error) => tracing::debug!(front_end = "websocket", %error, "an upgrade failed"),
            }
            drop((counted, guest));
        });
        let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        response
    }
}

#[cfg(test)]
mod tests;
