//! SSE and WebSocket over the real server: replay, caught up, live, resume, end.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::world::{Served, until, until_closed};
use crate::http::HttpConfig;

async fn group(served: &Served, feed: &str, members: &[&str]) {
    let body = json!({"feed_id": feed, "kind": "group", "members": members});
    let got = served.ann("POST /v1/feeds", &body).await;
    assert!(got.starts_with("HTTP/1.1 201"), "{got}");
}

async fn say(served: &Served, feed: &str, payload: &str) {
    let got = served.ann(&format!("POST /v1/feeds/{feed}/messages"), &json!({"payload": payload})).await;
    assert!(got.starts_with("HTTP/1.1 201"), "{got}");
}

async fn stream(served: &Served, who: &str, path: &str, more: &str) -> TcpStream {
    let mut stream = served.connect().await;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {who}\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// The events of a text, as (event, id, data).
fn events(text: &str) -> Vec<(String, String, Value)> {
    let field = |block: &str, name: &str| {
        let lines = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        lines.collect::<Vec<_>>().join("\n")
    };
    // Chunk sizes of the transfer stand on lines of their own and begin no field.
    let body = text.split_once("\r\n\r\n").map_or(text, |(_, body)| body);
    body.split("\n\n")
        .filter(|block| block.contains("event: "))
        .map(|block| {
            let data = field(block, "data");
            (field(block, "event"), field(block, "id"), serde_json::from_str(&data).unwrap_or(Value::Null))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_replays_catches_up_goes_live_and_resumes() {
    let served = Served::new(HttpConfig::default()).await;
    group(&served, "a/b", &["bob"]).await;
    say(&served, "a%2Fb", "old").await;
    let mut sse = stream(&served, "bob", "/v1/feeds/a%2Fb/stream?last_seq_id=3", "").await;
    let text = until(&mut sse, "caught_up").await;
    assert!(text.contains("content-type: text/event-stream"), "{text}");
    let mut text = text;
    if !text.contains("head_seq_id") {
        text.push_str(&until(&mut sse, "head_seq_id").await);
    }
    let got = events(&text);
    assert_eq!((got[0].0.as_str(), got[0].1.as_str(), &got[0].2["payload"]), ("entry", "4", &json!("old")));
    let caught = got.iter().find(|event| event.0 == "caught_up").unwrap();
    assert_eq!(caught.2, json!({"heads": [{"feed_id": "a/b", "head_seq_id": 4}]}));
    say(&served, "a%2Fb", "live").await;
    assert!(until(&mut sse, "\"live\"").await.contains("id: 5\n"));
    drop(sse);
    let mut sse =
        stream(&served, "bob", "/v1/feeds/a%2Fb/stream?last_seq_id=0", "Last-Event-ID: 4\r\n").await;
    let text = until(&mut sse, "caught_up").await;
    assert!(text.contains("id: 5\n") && !text.contains("id: 4\n"), "{text}");
    let body = json!({"uid": "bob"});
    let got = served.ann("DELETE /v1/feeds/a%2Fb/members/bob", &body).await;
    assert!(got.starts_with("HTTP/1.1 200"), "{got}");
    assert!(until(&mut sse, "event: ended").await.contains("event: ended"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_resumes_every_feed_of_a_stream() {
    let served = Served::new(HttpConfig::default()).await;
    group(&served, "x:1", &["bob"]).await;
    group(&served, "y,2", &["bob"]).await;
    say(&served, "x:1", "one").await;
    let path = "/v1/stream?feeds=x%253A1:3,y%252C2:0";
    let mut sse = stream(&served, "bob", path, "").await;
    let mut text = until(&mut sse, "caught_up").await;
    if !text.ends_with("\n\n") && !text.contains("head_seq_id") {
        text.push_str(&until(&mut sse, "head_seq_id").await);
    }
    let got = events(&text);
    let entries = got.iter().filter(|event| event.0 == "entry").count();
    assert_eq!(entries, 4, "one of x:1 and three of y,2: {text}");
    let cursor = got.iter().find(|event| event.0 == "caught_up").unwrap().1.clone();
    drop(sse);
    say(&served, "y,2", "two").await;
    let mut sse = stream(&served, "bob", path, &format!("Last-Event-ID: {cursor}\r\n")).await;
    let text = until(&mut sse, "caught_up").await;
    let got = events(&text);
    let entries: Vec<_> =
        got.iter().filter(|event| event.0 == "entry").map(|event| &event.2["payload"]).collect();
    assert_eq!(entries, [&json!("two")]);
    drop(sse);
    // All of bob's, also a feed that he joins while he listens.
    let mut sse = stream(&served, "bob", "/v1/stream", "").await;
    until(&mut sse, "caught_up").await;
    group(&served, "later", &["bob"]).await;
    say(&served, "later", "new feed").await;
    until(&mut sse, "new feed").await;
    let mut bad = stream(&served, "bob", "/v1/stream", "Last-Event-ID: %%\r\nconnection: close\r\n").await;
    assert!(until_closed(&mut bad).await.starts_with("HTTP/1.1 400"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_streams_with_a_clear_event() {
    let mut served = Served::new(HttpConfig::default()).await;
    group(&served, "g", &["bob"]).await;
    let mut sse = stream(&served, "bob", "/v1/feeds/g/stream", "").await;
    until(&mut sse, "caught_up").await;
    let mut ws = websocket(&served, "bob").await;
    served.stop();
    let text = until_closed(&mut sse).await;
    assert!(text.contains("event: ended") && text.contains("shutting_down"), "{text}");
    assert_eq!(said(&mut ws).await["reason"], "shutting_down");
    assert!(
        matches!(ws.next().await, Some(Ok(Message::Close(Some(frame)))) if u16::from(frame.code) == 1001)
    );
    served.ended().await;
}

type Socket = WebSocketStream<TcpStream>;

async fn websocket(served: &Served, who: &str) -> Socket {
    let url = format!("ws://{}/v1/ws?token={who}", served.address);
    let (socket, response) = tokio_tungstenite::client_async(url, served.connect().await).await.unwrap();
    assert_eq!(response.status(), 101);
    socket
}

async fn say_ws(socket: &mut Socket, frame: &Value) {
    socket.send(Message::Text(frame.to_string().into())).await.unwrap();
}

/// The next text frame.
async fn said(socket: &mut Socket) -> Value {
    loop {
        let next = tokio::time::timeout(std::time::Duration::from_secs(20), socket.next()).await;
        match next.expect("a frame comes").unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(text.as_str()).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_sends_attaches_marks_recalls_and_detaches() {
    let served = Served::new(HttpConfig::default()).await;
    group(&served, "g", &["bob"]).await;
    let (mut ann, mut bob) = (websocket(&served, "ann").await, websocket(&served, "bob").await);
    say_ws(&mut bob, &json!({"op": "attach", "id": 1, "feed_id": "g", "last_seq_id": 3})).await;
    assert_eq!(said(&mut bob).await, json!({"id": 1, "ok": {"attached": 1}}));
    assert_eq!(
        said(&mut bob).await,
        json!({"event": "caught_up", "heads": [{"feed_id": "g", "head_seq_id": 3}]})
    );
    let send = json!({"op": "send", "id": "s", "feed_id": "g", "payload": {"t": "hi"}, "client_msg_id": "c"});
    say_ws(&mut ann, &send).await;
    let sent = said(&mut ann).await;
    assert_eq!(
        (&sent["id"], &sent["ok"]["seq_id"], &sent["ok"]["duplicate"]),
        (&json!("s"), &json!(4), &json!(false))
    );
    let event = said(&mut bob).await;
    assert_eq!((&event["event"], &event["entry"]["payload"]), (&json!("entry"), &json!({"t": "hi"})));
    say_ws(&mut bob, &json!({"op": "mark", "id": 2, "feed_id": "g", "read_seq_id": 4})).await;
    assert_eq!(said(&mut bob).await["ok"]["read_seq_id"], 4);
    say_ws(&mut ann, &json!({"op": "recall", "id": 3, "feed_id": "g", "client_msg_id": "c"})).await;
    assert_eq!(said(&mut ann).await["ok"]["seq_id"], 5);
    let event = said(&mut bob).await;
    assert_eq!((&event["entry"]["type"], &event["entry"]["target"]), (&json!("recall"), &json!(4)));
    say_ws(&mut bob, &json!({"op": "resolve", "id": 4, "feed_id": "g", "seq_id": 4})).await;
    assert!(said(&mut bob).await["ok"].is_object());
    say_ws(&mut bob, &json!({"op": "detach", "id": 5, "feed_id": "g"})).await;
    assert_eq!(said(&mut bob).await, json!({"id": 5, "ok": {}}));
    say_ws(&mut ann, &send).await;
    assert_eq!(said(&mut ann).await["ok"]["duplicate"], true);
    say_ws(&mut bob, &json!({"op": "ping", "id": 6})).await;
    assert_eq!(said(&mut bob).await, json!({"id": 6, "ok": {}}), "nothing came after the detach");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_frames_get_errors_and_the_connection_stays() {
    let served = Served::new(HttpConfig::default()).await;
    let mut ws = websocket(&served, "ann").await;
    for (frame, code, field) in [
        (json!({"op": "nope", "id": 1}), "bad_request", "op"),
        (json!({"id": 1}), "bad_request", "op"),
        (json!({"op": "send", "id": 1, "payload": 1}), "bad_request", "feed_id"),
        (json!({"op": "send", "id": 1, "feed_id": "g", "payload": 1, "x": 1}), "bad_request", "x"),
        (json!({"op": "attach", "id": 1}), "bad_request", "feed_id"),
        (json!({"op": "attach", "id": 1, "feed_id": "none"}), "feed_not_found", ""),
        (json!({"op": "send", "id": 1, "feed_id": "none", "payload": 1}), "feed_not_found", ""),
    ] {
        say_ws(&mut ws, &frame).await;
        let got = said(&mut ws).await;
        assert_eq!((&got["id"], &got["error"]["code"]), (&json!(1), &json!(code)), "{frame}");
        assert_eq!(got["error"]["details"]["field"].as_str().unwrap_or_default(), field, "{frame}");
    }
    ws.send(Message::Text("{".into())).await.unwrap();
    assert_eq!(said(&mut ws).await["error"]["code"], "bad_request");
    say_ws(&mut ws, &json!({"op": "ping"})).await;
    assert_eq!(said(&mut ws).await, json!({"id": null, "ok": {}}));
    ws.send(Message::Binary(vec![1].into())).await.unwrap();
    assert!(
        matches!(ws.next().await, Some(Ok(Message::Close(Some(frame)))) if u16::from(frame.code) == 1003)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_websocket_is_closed() {
    let config = HttpConfig { keep_alive_ms: 20, websocket_idle_ms_max: 100, ..HttpConfig::default() };
    let served = Served::new(config).await;
    let key = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
               sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut raw = stream(&served, "ann", "/v1/ws", key).await;
    until(&mut raw, "101 Switching Protocols").await;
    // It never answers a ping.
    until_closed(&mut raw).await;
}
