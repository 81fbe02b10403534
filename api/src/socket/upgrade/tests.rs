use std::convert::Infallible;

use axum::http::Request;
use feedlog_service::{Store, StoreConfig};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::watch;

use super::*;
use crate::http::{HttpConfig, Services};
use crate::socket::tests::Echo;

/// The other end of a connection whose requests become WebSockets that repeat what they hear. The server drains when the
/// sender is told.
fn served() -> (DuplexStream, watch::Sender<bool>) {
    let store = Store::in_memory(StoreConfig { shards: 1, ..StoreConfig::default() }).unwrap();
    let services = Services { store, metrics: Arc::new(String::new), mqtt: None, gws: None, connmix: None };
    let (drain, draining) = watch::channel(false);
    let app = App::new(HttpConfig::default(), services, draining);
    let (server, client) = tokio::io::duplex(1 << 16);
    let service = service_fn(move |request: Request<Incoming>| {
        let (mut parts, _) = request.into_parts();
        let response = match upgrade(&app, &mut parts) {
            Ok(upgrade) => upgrade.talk(Echo::default(), 0),
            Err(refused) => refused,
        };
        std::future::ready(Ok::<_, Infallible>(response))
    });
    tokio::spawn(async move {
        let _ = http1::Builder::new().serve_connection(TokioIo::new(server), service).with_upgrades().await;
    });
    (client, drain)
}

/// The status line and headers of the answer, in small letters, to a handshake with some lines changed or taken out.
async fn answer(method: &str, changed: &[(&str, Option<&str>)]) -> (String, DuplexStream) {
    let mut lines = vec![
        ("Host", "h"),
        ("Upgrade", "websocket"),
        ("Connection", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        // The example of RFC 6455 §1.3.
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
    ];
    for (name, value) in changed {
        lines.retain(|(line, _)| line != name);
        lines.extend(value.map(|value| (*name, value)));
    }
    let mut request = format!("{method} /room HTTP/1.1\r\n");
    for (name, value) in lines {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    let (mut client, _drain) = served();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\n") {
        got.push(client.read_u8().await.unwrap());
    }
    (String::from_utf8(got).unwrap().to_ascii_lowercase(), client)
}

#[tokio::test]
async fn an_opening_handshake_is_checked() {
    for changed in [&[][..], &[("Upgrade", Some("WebSocket"))], &[("Connection", Some("upgrade"))]] {
        let (head, mut client) = answer("GET", changed).await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
        assert!(!head.contains("extensions"), "{head}");
        let mut hello = [0; 7];
        client.read_exact(&mut hello).await.unwrap();
        assert_eq!(hello, *b"\x81\x05hello");
    }
    for (method, changed, status) in [
        ("POST", [("Upgrade", Some("websocket"))], "400"),
        ("GET", [("Upgrade", None)], "426"),
        ("GET", [("Upgrade", Some("h2c"))], "426"),
        ("GET", [("Connection", Some("close"))], "400"),
        ("GET", [("Sec-WebSocket-Version", Some("8"))], "426"),
        ("GET", [("Sec-WebSocket-Version", None)], "426"),
        ("GET", [("Sec-WebSocket-Key", None)], "400"),
        ("GET", [("Sec-WebSocket-Key", Some("c2hvcnQ="))], "400"),
        ("GET", [("Sec-WebSocket-Key", Some("not base64 at all!!!"))], "400"),
    ] {
        let (head, _) = answer(method, &changed).await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{changed:?}: {head}");
        let names_version = head.contains("sec-websocket-version: 13");
        assert_eq!(names_version, changed[0].0 == "Sec-WebSocket-Version", "{head}");
    }
}
