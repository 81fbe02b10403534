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

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use axum::Router;
    use axum::extract::{Request, State};
    use bytes::BytesMut;
    use feedlog_service::{Store, StoreConfig};
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
    use tokio_tungstenite::tungstenite::{Error, Message};

    use super::*;
    use crate::mqtt::MqttConfig;
    use crate::mqtt::wire::{Connect, Decoder, Level, Packet, Properties, Role, Text, encode};

    type Socket = WebSocketStream<TcpStream>;

    async fn answer(State(mqtt): State<Mqtt>, request: Request) -> Response {
        let (mut parts, _) = request.into_parts();
        parts.extensions.insert(Peer { address: IpAddr::from([127, 0, 0, 1]), connection: "c".into() });
        if is_meant(&parts) { upgrade(&mqtt, parts).await } else { StatusCode::NOT_FOUND.into_response() }
    }

    async fn serve() -> SocketAddr {
        let auth = feedlog_service::auth::AuthConfig { dev: true, ..Default::default() };
        let store = Store::in_memory(StoreConfig { shards: 1, auth, ..StoreConfig::default() }).unwrap();
        let mqtt = Mqtt::new(MqttConfig { free_topics: true, ..MqttConfig::default() }, store).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async { axum::serve(listener, Router::new().fallback(answer).with_state(mqtt)).await });
        address
    }

    /// The socket and the subprotocol that the server chose; the status when it refused.
    async fn dial(
        server: SocketAddr,
        path: &str,
        offered: Option<&str>,
    ) -> Result<(Socket, Option<String>), u16> {
        let mut request = format!("ws://{server}{path}").into_client_request().unwrap();
        if let Some(offered) = offered {
            request.headers_mut().insert("sec-websocket-protocol", offered.parse().unwrap());
        }
        let stream = TcpStream::connect(server).await.unwrap();
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, response)) => {
                let chosen = response.headers().get("sec-websocket-protocol");
                Ok((socket, chosen.map(|name| name.to_str().unwrap().to_owned())))
            }
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(other) => panic!("{other}"),
        }
    }

    fn connect() -> Vec<u8> {
        let connect = Connect {
            level: Level::V311,
            clean_start: true,
            keep_alive_s: 0,
            client_id: Text::new("web").unwrap(),
            will: None,
            username: None,
            password: None,
            properties: Properties::default(),
        };
        let mut out = BytesMut::new();
        encode::packet(Level::V311, &Packet::Connect(Box::new(connect)), &mut out);
        out.to_vec()
    }

    /// So many packets of the server, however they lie in its frames, all of which are binary (`[MQTT-6.0.0-1]`).
    async fn packets(socket: &mut Socket, count: usize) -> Vec<Packet> {
        let mut decoder = Decoder::new(Role::Client, 1 << 20);
        decoder.set_level(Level::V311);
        let (mut bytes, mut got) = (BytesMut::new(), Vec::new());
        while got.len() < count {
            match decoder.decode(&mut bytes).unwrap() {
                Some(packet) => got.push(packet),
                None => match socket.next().await.unwrap().unwrap() {
                    Message::Binary(part) => bytes.extend_from_slice(&part),
                    Message::Pong(_) => {}
                    other => panic!("{other:?}"),
                },
            }
        }
        got
    }

    fn is_welcome(packets: &[Packet]) -> bool {
        matches!(packets.first(), Some(Packet::Connack(connack)) if connack.reason == 0)
    }

    /// `[MQTT-6.0.0-3]`, `[MQTT-6.0.0-4]`; clients of 3.1 offer `mqttv3.1`, some nothing.
    #[tokio::test]
    async fn the_subprotocol_is_mqtt() {
        let server = serve().await;
        for (path, offered, chosen) in [
            ("/anything", Some("mqtt"), Some("mqtt")),
            ("/mqtt", Some("chat, mqtt"), Some("mqtt")),
            ("/mqtt", Some("mqttv3.1"), Some("mqttv3.1")),
            ("/mqtt", None, None),
        ] {
            let (mut socket, got) = dial(server, path, offered).await.unwrap();
            assert_eq!(got.as_deref(), chosen);
            socket.send(Message::binary(connect())).await.unwrap();
            assert!(is_welcome(&packets(&mut socket, 1).await));
        }
        for (path, offered) in [("/anything", None), ("/mqtt", Some("chat"))] {
            assert_eq!(dial(server, path, offered).await.err(), Some(404));
        }
    }

    /// `[MQTT-6.0.0-2]`: packets in pieces, many in one frame, and pings of WebSocket between them.
    #[tokio::test]
    async fn frames_and_packets_have_different_borders() {
        let server = serve().await;
        let (mut socket, _) = dial(server, "/", Some("mqtt")).await.unwrap();
        let mut bytes = connect();
        bytes.extend_from_slice(&[0xC0, 0, 0xC0, 0]);
        for byte in &bytes {
            socket.send(Message::binary(vec![*byte])).await.unwrap();
            socket.send(Message::Ping(vec![1].into())).await.unwrap();
        }
        socket.send(Message::binary(Vec::new())).await.unwrap();
        socket.send(Message::binary([0xC0, 0].repeat(100))).await.unwrap();
        let got = packets(&mut socket, 103).await;
        assert!(is_welcome(&got));
        assert!(got[1..].iter().all(|packet| *packet == Packet::Pingresp));
    }

    /// `[MQTT-6.0.0-1]`.
    #[tokio::test]
    async fn a_text_frame_closes_the_connection() {
        let server = serve().await;
        let (mut socket, _) = dial(server, "/", Some("mqtt")).await.unwrap();
        socket.send(Message::binary(connect())).await.unwrap();
        assert!(is_welcome(&packets(&mut socket, 1).await));
        socket.send(Message::text("\u{c}0")).await.unwrap();
        match socket.next().await.unwrap().unwrap() {
            Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Unsupported),
            other => panic!("{other:?}"),
        }
    }
}
