//! Bad input, bounds at their edge and one past it, readers that stand still.

use std::time::Duration;

use futures_util::SinkExt as _;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::world::*;
use crate::gws::GwsConfig;
use crate::http::HttpConfig;

const PAYLOAD: usize = 4_096;

async fn small_payloads() -> World {
    let http = HttpConfig { payload_bytes_max: PAYLOAD, ..HttpConfig::default() };
    World::configured(GwsConfig::default(), http, open_auth()).await
}

#[tokio::test]
async fn names_of_rooms_at_their_edges() {
    let world = World::new().await;
    let name = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
    let mut longest = world.join(&name(255)).await;
    longest.is_quiet("1").await;
    for path in [name(256), name(2_048), format!("/{}", "%C3%A9".repeat(128))] {
        assert_eq!(world.refused(&path).await, 414);
        assert_eq!(world.post(&path, "x").await.said().1, 414);
    }
    for path in ["/a%00b", "/a%0Ab", "/%7f", "/%C2%85", "/%ff", "/%c3"] {
        assert_eq!(world.refused(path).await, 400, "{path}");
        assert_eq!(world.post(path, "x").await.said().1, 400, "{path}");
    }
    // Percent-decoded, the query and a plus as they are, the trailing slash significant.
    let mut ann = world.join("/r%C3%A4ume/a%20b+c/?token=ann&x=y").await;
    ann.is_quiet("1").await;
    let got = world.post("/r%c3%a4ume/%61%20b+c/?a=b", "hello").await;
    assert_eq!(got.json()["group"], "/räume/a b+c/");
    ann.gets("hello").await;
    assert_eq!(world.post("/r%C3%A4ume/a%20b+c", "other room").await.status, 200);
    ann.is_quiet("2").await;
    assert_eq!(world.history("/r%C3%A4ume/a%20b%2Bc/", 0, 0).await.len(), 2);
    for name in ["", "%00", "%ff"] {
        let got = world.form("/__/cancel", &format!("groupName=/a{name}%0A&uuid=1")).await;
        assert_eq!(got.said().1, 400, "{name}");
    }
    let got = world.form("/__/history", &format!("groupName={}", name(256))).await;
    assert_eq!(got.said().1, 400);
}

#[tokio::test]
async fn frames_and_bodies_at_the_limit_and_one_past_it() {
    let world = small_payloads().await;
    let (mut ann, mut bob) = (world.join("/room").await, world.join("/room").await);
    let raw = "x".repeat(PAYLOAD);
    ann.send(&raw).await;
    bob.gets(&raw).await;
    let room = PAYLOAD - packet("1", "").len();
    let largest = packet("1", &"x".repeat(room));
    assert_eq!(largest.len(), PAYLOAD);
    ann.send(&largest).await;
    ann.gets(ack("1")).await;
    bob.gets(&largest).await;
    assert_eq!(world.post("/room", &raw).await.status, 200);
    ann.gets(&raw).await;
    bob.gets(&raw).await;
    // One byte more: 413 by HTTP, close code 1009 on the socket, and the room goes on.
    let got = world.post("/room", &"x".repeat(PAYLOAD + 1)).await;
    assert_eq!(got.said(), (413, 413, format!("the body is larger than {PAYLOAD} bytes")));
    ann.send(&"x".repeat(PAYLOAD + 1)).await;
    assert_eq!(ann.close_code().await, 1009);
    bob.is_quiet("2").await;
    let form = GwsConfig::default().form_bytes_max;
    let padded = |bytes: usize| {
        let start = "groupName=/room&size=1&pad=";
        format!("{start}{}", "x".repeat(bytes - start.len()))
    };
    assert_eq!(world.form("/__/history", &padded(form)).await.status, 200);
    assert_eq!(world.form("/__/history", &padded(form + 1)).await.status, 413);
}

#[tokio::test]
async fn a_packet_in_pieces_is_one_and_bad_utf8_closes() {
    let world = small_payloads().await;
    let (mut ann, mut bob) = (world.join("/room").await, world.join("/room").await);
    let whole = packet("1", "in pieces");
    let (first, rest) = whole.as_bytes().split_at(7);
    let frame =
        |bytes: &[u8], kind, end| Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(kind), end));
    ann.stream.send(frame(first, Data::Text, false)).await.unwrap();
    ann.stream.send(Message::Ping(Vec::new().into())).await.unwrap();
    ann.stream.send(frame(rest, Data::Continue, true)).await.unwrap();
    ann.gets(ack("1")).await;
    bob.gets(&whole).await;
    // Pieces that are larger together than a message may be.
    let half = "x".repeat(PAYLOAD / 2 + 1);
    let mut eve = world.join("/room").await;
    eve.stream.send(frame(half.as_bytes(), Data::Text, false)).await.unwrap();
    let _ = eve.stream.send(frame(half.as_bytes(), Data::Continue, true)).await;
    assert_eq!(eve.close_code().await, 1009);
    ann.stream.send(frame(b"\xff", Data::Text, true)).await.unwrap();
    assert_eq!(ann.close_code().await, 1007);
    bob.is_quiet("2").await;
}

#[tokio::test]
async fn rooms_with_a_connection_are_bounded() {
    let world = World::with(GwsConfig { rooms_max: 2, ..GwsConfig::default() }).await;
    let mut first = world.join("/1").await;
    let _second = world.join("/2").await;
    assert_eq!(world.refused("/3").await, 503);
    let _again = world.join("/1").await;
    first.is_quiet("x").await;
    // Posting needs no room of this kind, and the timer is none.
    assert_eq!(world.post("/3", "x").await.status, 200);
    let _timer = world.join("/timer").await;
}

/// It is closed, costs a bounded amount until then, and holds nobody up; when it comes back it finds everything.
#[tokio::test]
async fn a_reader_that_stands_still_is_closed_and_holds_nobody_up() {
    let http = HttpConfig { stalled_reader_ms_max: 300, ..HttpConfig::default() };
    let world = World::configured(GwsConfig::default(), http, open_auth()).await;
    let mut still = world.join("/room").await;
    let mut reader = world.join("/room").await;
    let mut writer = world.join("/room").await;
    let text = "x".repeat(256 * 1024);
    for n in 0..80 {
        writer.send(&packet(&n.to_string(), &text)).await;
        writer.gets(ack(&n.to_string())).await;
        reader.gets(packet(&n.to_string(), &text)).await;
    }
    // Its buffers took some; what follows is the close, or the end of the connection.
    let mut got = 0;
    let end = loop {
        use futures_util::StreamExt as _;

        match tokio::time::timeout(Duration::from_secs(20), still.stream.next()).await.unwrap() {
            Some(Ok(Message::Text(_))) => got += 1,
            Some(Ok(Message::Close(frame))) => break frame.map(|frame| u16::from(frame.code)),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break None,
        }
    };
    assert!(got < 80 && end.is_none_or(|code| code == 1008), "{got} {end:?}");
    // In a bounded number of pages, newest first.
    assert_eq!(world.history("/room", 0, 0).await.len(), 80);
}

#[tokio::test]
async fn a_client_whose_messages_have_not_come_round_waits() {
    let world = World::with(GwsConfig { unseen_max: 1, ..GwsConfig::default() }).await;
    let (mut ann, mut bob) = (world.join("/room").await, world.join("/room").await);
    for n in 0..200 {
        ann.stream.feed(Message::text(packet(&n.to_string(), "x"))).await.unwrap();
    }
    ann.stream.flush().await.unwrap();
    for n in 0..200 {
        ann.gets(ack(&n.to_string())).await;
        bob.gets(packet(&n.to_string(), "x")).await;
    }
}

#[tokio::test]
async fn too_many_frames_are_not_acknowledged_and_the_connection_stays() {
    let rate = feedlog_service::auth::Rate { per_second: 1, burst: 3 };
    let auth = feedlog_service::auth::AuthConfig { rate_per_principal: Some(rate), ..open_auth() };
    let world = World::configured(GwsConfig::default(), HttpConfig::default(), auth).await;
    let mut ann = world.join("/room?token=ann").await;
    // Joining was the first of three; pings cost nothing.
    for _ in 0..10 {
        ann.send(r#"{"type":1,"command":5}"#).await;
    }
    for n in 0..4 {
        ann.send(&packet(&n.to_string(), "x")).await;
    }
    ann.gets(ack("0")).await;
    ann.gets(ack("1")).await;
    let got = world.post("/room?token=ann", "x").await;
    assert_eq!(got.status, 429);
    assert!(got.head.contains("retry-after"), "{got:?}");
    // The client sends it again after a while.
    world.clock.advance(2_000);
    ann.send(&packet("2", "x")).await;
    ann.gets(ack("2")).await;
    assert_eq!(world.log("/room").await.len(), 4, "created, and three packets");
}

#[tokio::test]
async fn a_drain_answers_what_was_submitted_and_closes_with_1001() {
    let world = World::new().await;
    let mut ann = world.join("/room").await;
    ann.send(&packet("1", "x")).await;
    ann.gets(ack("1")).await;
    let stopping = world.stop();
    let closing = async { assert_eq!(ann.close_code().await, 1001) };
    let ((store, _), ()) = tokio::join!(stopping, closing);
    assert!(!store.status().draining, "the store goes on until it is drained itself");
}

#[tokio::test]
async fn ten_thousand_rooms_come_and_go() {
    use crate::gws::rooms::Rooms;
    use feedlog_core::ids::FeedId;

    let rooms = std::sync::Arc::new(Rooms::new(10_000));
    let seats: Vec<_> =
        (0..10_000).map(|n| rooms.enter(&FeedId::parse(&format!("/{n}")).unwrap()).unwrap()).collect();
    assert!(rooms.enter(&FeedId::parse("/more").unwrap()).is_none());
    assert_eq!(rooms.names().len(), 10_000);
    drop(seats);
    assert!(rooms.names().is_empty());
}

#[tokio::test]
async fn a_token_that_ends_ends_its_connections() {
    use feedlog_core::command::{Principal, Scopes};
    use feedlog_core::ids::Uid;
    use feedlog_service::auth::NewToken;

    let http = HttpConfig { websocket_ping_ms: 50, ..HttpConfig::default() };
    let world = World::configured(GwsConfig::default(), http, closed_auth()).await;
    let scopes = Scopes { user: true, send_as: false, audit: false, admin: true };
    let admin = Principal { uid: Uid::parse("root").unwrap(), scopes, anonymous: false, via: None };
    let user = Scopes { user: true, ..Scopes::default() };
    let new = NewToken { uid: Uid::parse("ann").unwrap(), scopes: user, expires_ms: None, note: None };
    let token = world.store.auth().create_token(&admin, new).await.unwrap();
    let mut ann = world.join(&format!("/room?token={}", token.secret.expose())).await;
    let mut timer = world.join(&format!("/timer?token={}", token.secret.expose())).await;
    ann.is_quiet("1").await;
    world.store.auth().revoke_token(&admin, &token.info.id).await.unwrap();
    assert_eq!(ann.close_code().await, 1008);
    loop {
        match timer.message().await {
            Message::Close(frame) => break assert_eq!(u16::from(frame.unwrap().code), 1008),
            other => assert!(other.is_text()),
        }
    }
}

/// What an auditor reads is not what an auditor writes.
#[tokio::test]
async fn who_may_not_write_is_closed_with_1008() {
    use feedlog_core::command::{Principal, Scopes};
    use feedlog_core::ids::Uid;
    use feedlog_service::auth::NewToken;

    for store_raw in [true, false] {
        let config = GwsConfig { store_raw, ..GwsConfig::default() };
        let world = World::configured(config, HttpConfig::default(), closed_auth()).await;
        let scopes = Scopes { user: true, send_as: false, audit: false, admin: true };
        let root = Principal { uid: Uid::parse("root").unwrap(), scopes, anonymous: false, via: None };
        let audit = Scopes { audit: true, ..Scopes::default() };
        let new = NewToken { uid: Uid::parse("eve").unwrap(), scopes: audit, expires_ms: None, note: None };
        let token = world.store.auth().create_token(&root, new).await.unwrap();
        let token = token.secret.expose();
        let mut admin = world.join(&format!("/room?token={ADMIN}")).await;
        admin.is_quiet("1").await;
        let mut eve = world.join(&format!("/room?token={token}")).await;
        admin.is_quiet("2").await;
        eve.gets(packet("2", "mark")).await;
        let got = world.post(&format!("/__/cancel?token={token}"), "groupName=/room&uuid=2").await;
        assert_eq!(got.said(), (403, 403, "not allowed".into()));
        assert_eq!(world.post(&format!("/room?token={token}"), "x").await.status, 403);
        eve.send("x").await;
        assert_eq!(eve.close_code().await, 1008, "{store_raw}");
    }
}
