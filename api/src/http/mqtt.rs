//! MQTT on the HTTP port: told from other WebSockets by its subprotocol on any path, or by its path without one.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::FromRequestParts as _;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::app::Peer;
use crate::doors::Guest;
use crate::mqtt::Mqtt;
use crate::mqtt::websocket::{SUBPROTOCOLS, WebSocketStream};

/// Where MQTT is spoken without a subprotocol, as mqant's clients do.
const PATHS: [&str; 3] = ["/mqtt", "/mqant", PROTOBUF_PATH];
/// Clients with protobuf bodies, whose acknowledgements carry the server's message id.
const PROTOBUF_PATH: &str = "/mqtt64";
/// The read buffer of a WebSocket; the library's own default is 128 KiB for each.
const READ_BUFFER_BYTES: usize = 4096;

/// Whether a request asks for MQTT.
pub(crate) fn is_meant(parts: &Parts) -> bool {
    let headers = &parts.headers;
    let upgrades =
        headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !upgrades {
        return false;
    }
    let mut offered = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .peekable();
    if offered.peek().is_none() {
        return PATHS.contains(&parts.uri.path());
    }
    offered.any(|name| SUBPROTOCOLS.contains(&name))
}

/// Answers a request that asks for MQTT.
pub(crate) async fn upgrade(mqtt: &Mqtt, mut parts: Parts) -> Response {
    let Some(peer) = parts.extensions.get::<Peer>().cloned() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let http_guest = parts.extensions.get::<Arc<Guest>>().cloned();
    let protobuf = parts.uri.path() == PROTOBUF_PATH;
    let Ok(upgrade) = WebSocketUpgrade::from_request_parts(&mut parts, &()).await else {
        return (StatusCode::UPGRADE_REQUIRED, Body::from("MQTT over WebSocket (version 13, HTTP/1.1)\n"))
            .into_response();
    };
    let Some(guest) = mqtt.enter(peer.address) else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let frame_max = mqtt.packet_bytes_max();
    let mqtt = mqtt.clone();
    upgrade
        .protocols(SUBPROTOCOLS)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(frame_max.saturating_mul(2).max(1 << 20))
        .max_message_size(frame_max.saturating_mul(2))
        .max_frame_size(frame_max.saturating_mul(2))
        .on_upgrade(move |socket| async move {
            let origins = crate::mqtt::Origins { address: peer.address, certified: None, protobuf };
            mqtt.talk(WebSocketStream::new(socket), origins, guest).await;
            drop(http_guest);
        })
}
