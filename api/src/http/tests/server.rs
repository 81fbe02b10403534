//! The server against clients that are slow, silent or gone; TLS, HTTP/2, compression.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::world::{Served, World, store, until, until_closed};
use crate::http::{HttpConfig, TlsConfig};

fn quick() -> HttpConfig {
    HttpConfig {
        header_read_ms_max: 200,
        body_read_ms_max: 200,
        idle_ms_max: 600,
        stalled_reader_ms_max: 300,
        ..HttpConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_a_request_is_cut() {
    let served = Served::new(quick()).await;
    let started = Instant::now();
    let mut silent = served.connect().await;
    assert_eq!(until_closed(&mut silent).await, "");
    let mut halfway = served.connect().await;
    halfway.write_all(b"PRI * HT").await.unwrap();
    until_closed(&mut halfway).await;
    let mut slow = served.connect().await;
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nx-slow: ").await.unwrap();
    until_closed(&mut slow).await;
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_body_is_answered_with_408() {
    let served = Served::new(quick()).await;
    let mut slow = served.connect().await;
    let head = "POST /v1/feeds HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ann\r\ncontent-type: application/json\r\n\
                content-length: 100\r\n\r\n{";
    slow.write_all(head.as_bytes()).await.unwrap();
    let text = until(&mut slow, "timeout").await;
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    let mut early = served.connect().await;
    early.write_all(head.as_bytes()).await.unwrap();
    early.shutdown().await.unwrap();
    // A half-closed connection cannot bring the rest of its body.
    until_closed(&mut early).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed_and_a_stream_with_keep_alives_is_not() {
    let config = HttpConfig { keep_alive_ms: 50, header_read_ms_max: 5_000, ..quick() };
    let served = Served::new(config).await;
    served.ann("POST /v1/feeds", &json!({"feed_id": "g", "kind": "group"})).await;
    let mut idle = served.connect().await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    until(&mut idle, "alive").await;
    let mut sse = served.connect().await;
    let request = "GET /v1/feeds/g/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ann\r\n\r\n";
    sse.write_all(request.as_bytes()).await.unwrap();
    until_closed(&mut idle).await;
    for _ in 0..5 {
        until(&mut sse, ": keep-alive").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_reading_is_closed_and_memory_stays_bounded() {
    let served = Served::new(HttpConfig { keep_alive_ms: 50, ..quick() }).await;
    served.ann("POST /v1/feeds", &json!({"feed_id": "g", "kind": "group"})).await;
    let payload = "x".repeat(200_000);
    let mut sse = served.connect().await;
    let request = "GET /v1/feeds/g/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ann\r\n\r\n";
    sse.write_all(request.as_bytes()).await.unwrap();
    until(&mut sse, "caught_up").await;
    let mut open = true;
    for _ in 0..400 {
        let got = served.ann("POST /v1/feeds/g/messages", &json!({"payload": payload})).await;
        assert!(got.starts_with("HTTP/1.1 201"), "{got}");
        open = served.store.status().attachments > 0;
        if !open {
            break;
        }
    }
    assert!(!open, "the stream of a client that reads nothing was closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_connections_are_closed_at_once() {
    let config = HttpConfig { connections_per_address_max: 2, ..HttpConfig::default() };
    let served = Served::new(config).await;
    let mut first = served.connect().await;
    first.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    until(&mut first, "alive").await;
    let mut second = served.connect().await;
    second.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    until(&mut second, "alive").await;
    let mut third = served.connect().await;
    assert_eq!(until_closed(&mut third).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_counts_as_a_connection_while_it_is_open() {
    let served = Served::new(HttpConfig { connections_per_address_max: 1, ..HttpConfig::default() }).await;
    let mut ws = served.connect().await;
    let upgrade = "GET /v1/ws HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ann\r\nupgrade: websocket\r\n\
                   connection: upgrade\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    ws.write_all(upgrade.as_bytes()).await.unwrap();
    until(&mut ws, "101 Switching Protocols").await;
    // The handler that took it over has begun when it answers.
    ws.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.unwrap();
    let mut pong = [0_u8; 2];
    ws.read_exact(&mut pong).await.unwrap();
    let mut second = served.connect().await;
    assert_eq!(until_closed(&mut second).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_being_answered_is_not_idle() {
    let served = Served::new(HttpConfig { idle_ms_max: 100, ..HttpConfig::default() }).await;
    served.ann("POST /v1/feeds", &json!({"feed_id": "g", "kind": "group"})).await;
    let head = "GET /v1/feeds/g/entries?last_seq_id=2&wait_ms=500 HTTP/1.1\r\nauthorization: Bearer ann";
    assert!(served.ask(head, "").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_have_a_bound() {
    let served = Served::new(HttpConfig { header_bytes_max: 8192, ..HttpConfig::default() }).await;
    let long = format!("GET /livez HTTP/1.1\r\nx-long: {}", "x".repeat(20_000));
    let got = served.ask(&long, "").await;
    assert!(got.is_empty() || got.starts_with("HTTP/1.1 431"), "{got}");
    assert!(served.ask("GET /livez HTTP/1.1", "").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lets_a_running_request_finish() {
    let mut served = Served::new(HttpConfig::default()).await;
    let mut running = served.connect().await;
    let body = json!({"feed_id": "g", "kind": "group"}).to_string();
    let head = format!(
        "POST /v1/feeds HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ann\r\ncontent-type: application/json\r\n\
         expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    running.write_all(head.as_bytes()).await.unwrap();
    until(&mut running, "100 Continue").await;
    served.stop();
    running.write_all(body.as_bytes()).await.unwrap();
    let text = until_closed(&mut running).await;
    assert!(text.contains("201 Created"), "{text}");
    served.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_is_spoken_with_prior_knowledge() {
    let served = Served::new(HttpConfig::default()).await;
    let io = TokioIo::new(served.connect().await);
    let (mut send, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<bytes::Bytes>>(TokioExecutor::new(), io)
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = |path: &str| {
        let uri = format!("http://x{path}");
        Request::get(uri).header("authorization", "Bearer ann").body(Empty::new()).unwrap()
    };
    let (one, two) = tokio::join!(
        send.clone().send_request(request("/v1/feeds")),
        send.send_request(request("/v1/unread"))
    );
    for response in [one.unwrap(), two.unwrap()] {
        assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
        assert!(response.into_body().collect().await.unwrap().to_bytes().starts_with(b"{"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_are_compressed_and_streams_are_not() {
    let world = World::with(store(), HttpConfig::default());
    world.group("g", &[]).await;
    world.say("ann", "g", &"compressible ".repeat(500)).await;
    let ask = |path: &str, encoding: &str| {
        Request::get(path)
            .header("authorization", "Bearer ann")
            .header("accept-encoding", encoding)
            .body(Body::empty())
            .unwrap()
    };
    for (encoding, magic) in [("gzip", &[0x1f, 0x8b][..]), ("zstd", &[0x28, 0xb5, 0x2f, 0xfd][..])] {
        use tower::ServiceExt as _;
        let response = world.router.clone().oneshot(ask("/v1/feeds/g/entries", encoding)).await.unwrap();
        assert_eq!(response.headers()["content-encoding"], encoding);
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert!(bytes.starts_with(magic) && bytes.len() < 1500, "{encoding}: {} bytes", bytes.len());
        let response = world.router.clone().oneshot(ask("/v1/feeds/g/stream", encoding)).await.unwrap();
        assert_eq!(response.headers().get("content-encoding"), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cors_is_off_unless_configured() {
    let preflight = || {
        Request::options("/v1/feeds")
            .header("origin", "https://chat.example")
            .header("access-control-request-method", "POST")
            .body(Body::empty())
            .unwrap()
    };
    let world = World::with(store(), HttpConfig::default());
    let got = world.raw(preflight()).await;
    assert_eq!((got.status, got.headers.get("access-control-allow-origin")), (405, None));
    let config = HttpConfig { cors_origins: vec!["https://chat.example".into()], ..HttpConfig::default() };
    let world = World::with(store(), config);
    let got = world.raw(preflight()).await;
    assert_eq!(
        (got.status, &got.headers["access-control-allow-origin"]),
        (200, &"https://chat.example".parse().unwrap())
    );
    let other = Request::get("/livez").header("origin", "https://evil.example").body(Body::empty()).unwrap();
    assert_eq!(world.raw(other).await.headers.get("access-control-allow-origin"), None);
}

struct Certificate {
    pem: String,
    key: String,
    der: CertificateDer<'static>,
}

fn certificate() -> Certificate {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    Certificate { pem: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().clone() }
}

/// The certificate that the server shows, and the protocol agreed on; an error when it is not the trusted one.
async fn handshake(
    served: &Served,
    trusted: &Certificate,
    alpn: &[&[u8]],
) -> Result<(Vec<u8>, String), std::io::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, served.connect().await).await?;
    let agreed = stream.get_ref().1.alpn_protocol().unwrap_or_default().to_vec();
    let mut text = String::new();
    if agreed != b"h2" {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        text = String::from_utf8(bytes).unwrap();
    }
    Ok((agreed, text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_serves_agrees_on_h2_and_reads_a_new_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let (first, second) = (certificate(), certificate());
    let write = |made: &Certificate| {
        std::fs::write(&key, &made.key).unwrap();
        std::fs::write(&cert, &made.pem).unwrap();
    };
    write(&first);
    let tls = TlsConfig { reload_check_ms: 20, ..TlsConfig::new(&cert, &key) };
    let served =
        Served::new(HttpConfig { tls: Some(tls), tls_handshake_ms_max: 300, ..HttpConfig::default() }).await;
    let (agreed, text) = handshake(&served, &first, &[b"http/1.1"]).await.unwrap();
    assert!(agreed == b"http/1.1" && text.contains("\"alive\":true"), "{text}");
    assert_eq!(handshake(&served, &first, &[b"h2", b"http/1.1"]).await.unwrap().0, b"h2");
    assert!(handshake(&served, &second, &[]).await.is_err());

    std::fs::write(&cert, "not a certificate").unwrap();
    write(&second);
    let deadline = Instant::now() + Duration::from_secs(20);
    while handshake(&served, &second, &[]).await.is_err() {
        assert!(Instant::now() < deadline, "the new certificate was not read");
        tokio::task::yield_now().await;
    }
    // Who never begins the handshake is let go.
    let mut silent = served.connect().await;
    assert_eq!(until_closed(&mut silent).await, "");
    let mut plain = served.connect().await;
    plain.write_all(b"GET /livez HTTP/1.1\r\n\r\n").await.unwrap();
    until_closed(&mut plain).await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_told_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cert.pem");
    std::fs::write(&path, "-----BEGIN NOTHING-----").unwrap();
    let config = HttpConfig { tls: Some(TlsConfig::new(&path, &path)), ..HttpConfig::default() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let services = super::world::services(store());
    let error = crate::http::serve(config, vec![listener.into()], services, std::future::pending())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("cert.pem"), "{error}");
}
