//! `/v1/mesh/publish`, `/v1/mesh/send` and `/ws/v1`.

use std::collections::HashMap;

use feedlog_core::command::{Action, Command, Draft, Scopes};
use feedlog_core::event::MessageKind;
use feedlog_core::ids::FeedId;
use serde_json::{Value, json};

use super::world::{World, ask, config, dev};

/// Each curl line of the page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_curl_line_of_the_page() {
    let world = World::new(config()).await;
    for (body, seq) in [
        // pubsub.md
        ("{\n    \"c\": \"user:1001\",\n    \"d\": \"Hello,World!\"\n}", 2),
        ("{\"c\":\"user:1001\",\"d\":\"<string>\",\"t\":\"text\"}", 3),
        // examples-barrage-videos.md
        (
            "{\n    \"c\": \"video:100001\",\n    \"d\": \"{\\\"event\\\":\\\"@video\\\",\\\"data\\\":{\\\"uid\\\":1001,\\\"video_id\\\":100001,\\\"msg\\\":\\\"Hello,World!\\\"}}\"\n}",
            2,
        ),
        // examples-exchange-stream.md
        (
            "{\n    \"c\": \"ex:1001@balance\",\n    \"d\": \"{\\\"event\\\":\\\"@balance\\\",\\\"data\\\":{\\\"uid\\\":1001,\\\"balance\\\":[{\\\"currency\\\":\\\"BTC\\\",\\\"available\\\":100,\\\"unavailable\\\":100}]}}\"\n}",
            2,
        ),
    ] {
        let (status, answer) = world.post("/v1/mesh/publish", body).await;
        assert_eq!(
            (status, answer),
            (200, json!({"E": null, "r": {"s": 0, "f": 0, "seq_id": seq}})),
            "{body}"
        );
    }
}

/// [connmix: HTTP status for API errors]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_over_http_are_200_with_e_and_4xx_only_for_what_is_not_json() {
    let world = World::new(ConnmixConfigs::small()).await;
    for body in [
        "{}",
        "[]",
        "17",
        r#"{"c":"x"}"#,
        r#"{"d":"x"}"#,
        r#"{"c":"x","d":17}"#,
        r#"{"c":"x","d":"x","t":"other"}"#,
        r#"{"c":"x","d":"***","t":"binary"}"#,
        r#"{"c":"a b","d":"x"}"#,
        r#"{"c":"","d":"x"}"#,
        r#"{"c":"direct:00","d":"x"}"#,
        r#"{"c":"user:anon:1","d":"x"}"#,
        r#"{"c":"1001@wallet","d":"for one user, of a type that was forgotten"}"#,
        r#"{"c":"x","d":"x","id":{}}"#,
    ] {
        let (status, answer) = world.post("/v1/mesh/publish", body).await;
        assert_eq!((status, &answer["E"]["c"]), (200, &json!(101)), "{body}");
        assert!(answer["E"]["m"].is_string() && answer.get("r").is_none(), "{answer}");
    }
    let (status, answer) = world.post("/v1/mesh/send", r#"{"c":"17","d":"x"}"#).await;
    assert_eq!((status, &answer["E"]["c"]), (200, &json!(401)));
    // What was meant for one is not published.
    let (status, answer) = world.post("/v1/mesh/send", r#"{"c":"user:1001","d":"x"}"#).await;
    assert_eq!((status, &answer["E"]["c"]), (200, &json!(101)));
    for (method, path, body, status) in [
        ("POST", "/v1/mesh/publish", "", 400),
        ("POST", "/v1/mesh/publish", "{", 400),
        ("POST", "/v1/mesh/publish", "c=x&d=y", 400),
        ("GET", "/v1/mesh/publish", "", 405),
        ("POST", "/v1/mesh/nope", "{}", 404),
        ("GET", "/ws/v1", "", 426),
    ] {
        let got = ask(world.api, method, path, "", body).await;
        assert_eq!(got.status, status, "{method} {path} {body}");
    }
    // A payload at the limit, and one byte past it; a body that is too large to be read at all.
    for (size, code) in [(1024, Value::Null), (1025, json!(101))] {
        let body = json!({"c": "x", "d": "y".repeat(size)}).to_string();
        let (status, answer) = world.post("/v1/mesh/publish", &body).await;
        assert_eq!((status, &answer["E"]["c"]), (200, &code), "{size}");
    }
    let huge = json!({"c": "x", "d": "y".repeat(200_000)}).to_string();
    assert_eq!(ask(world.api, "POST", "/v1/mesh/publish", "", &huge).await.status, 413);
}

struct ConnmixConfigs;

impl ConnmixConfigs {
    fn small() -> crate::connmix::ConnmixConfig {
        crate::connmix::ConnmixConfig { payload_bytes_max: 1024, ..config() }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn binary_is_base64_and_arrives_as_a_binary_frame() {
    let world = World::new(dev()).await;
    let mut client = world.subscriber("1001", "1@video").await;
    for (data, bytes) in [("AAH/", &b"\0\x01\xff"[..]), ("aGVsbG8=", b"hello"), ("", b"")] {
        let body = json!({"c": "video:1", "d": data, "t": "binary"}).to_string();
        let (_, answer) = world.post("/v1/mesh/publish", &body).await;
        assert_eq!(answer["E"], Value::Null);
        assert_eq!(client.next().await.into_data(), bytes, "also when it is UTF-8");
    }
    world.publish("video:1", "").await;
    assert_eq!(client.text().await, "", "an empty text");
}

/// The frames of the page, over one connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_frames_of_the_websocket_api() {
    let world = World::new(dev()).await;
    let mut client = world.subscriber("1001", "1@video").await;
    let mut back = world.back_end().await;
    back.ask("ping", "pong").await;
    back.ask(
        r#"{"m":"mesh.publish","p":{"c":"channel1","d":"data"},"i":12345}"#,
        r#"{"E":null,"r":{"s":0,"f":0,"seq_id":2},"i":12345}"#,
    )
    .await;
    back.ask(
        r#"{"m":"mesh.publish","p":{"c":"video:1","d":"data"},"id":12345}"#,
        r#"{"E":null,"r":{"s":1,"f":0,"seq_id":2},"id":12345}"#,
    )
    .await;
    assert_eq!(client.text().await, "data");
    // connmix-php's synchronous meshPublish.
    back.ask(
        r#"{"m":"mesh.send","p":{"c":"video:1","d":"wrongly"},"i":1}"#,
        r#"{"E":null,"r":{"s":1,"f":0,"seq_id":3},"i":1}"#,
    )
    .await;
    assert_eq!(client.text().await, "wrongly");
    for (frame, code, id) in [
        ("{}", 101, Value::Null),
        ("nonsense", 101, Value::Null),
        (r#"{"m":"nope","p":{},"i":2}"#, 101, json!(2)),
        (r#"{"m":"mesh.publish","p":{"c":"x"},"i":"three"}"#, 101, json!("three")),
        (r#"{"m":"mesh.send","p":{"c":"undefined","d":"for one"},"i":3}"#, 101, json!(3)),
        (r#"{"m":"mesh.send","p":{"c":"1463786910324359168","d":"data"},"i":4}"#, 401, json!(4)),
        (r#"{"m":"queue.unpop","p":{},"i":5}"#, 203, json!(5)),
    ] {
        back.send(frame).await;
        let answer = back.json().await;
        assert_eq!((&answer["E"]["c"], &answer["i"]), (&json!(code), &id), "{frame}");
    }
    back.send_binary(b"{}").await;
    assert_eq!(back.closed().await, 1003);
}

/// Many in flight: each has its answer by `i`, and those to one channel get their places in the order sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_publishes_are_answered_by_i() {
    let world = World::new(dev()).await;
    let mut subscriber = world.subscriber("1001", "0@video").await;
    let mut back = world.back_end().await;
    let count = 1000;
    let channel = |i: usize| format!("video:{}", i % 5);
    back.send_all((0..count).map(|i| {
        json!({"m": "mesh.publish", "p": {"c": channel(i), "d": i.to_string()}, "i": i}).to_string()
    }))
    .await;
    let mut seqs: HashMap<usize, u64> = HashMap::new();
    for _ in 0..count {
        let answer = back.json().await;
        assert_eq!(answer["E"], Value::Null, "{answer}");
        let i = usize::try_from(answer["i"].as_u64().unwrap()).unwrap();
        assert!(seqs.insert(i, answer["r"]["seq_id"].as_u64().unwrap()).is_none(), "{i} twice");
    }
    for i in 0..count {
        // FeedCreated is 1.
        assert_eq!(seqs[&i], i as u64 / 5 + 2, "{i}");
    }
    for i in (0..count).step_by(5) {
        assert_eq!(subscriber.text().await, i.to_string());
    }
}

/// Ours: with an `id` a retry is harmless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_with_an_id_happens_once() {
    let world = World::new(dev()).await;
    let mut client = world.subscriber("1001", "@user").await;
    let body = r#"{"c":"user:1001","d":"x","id":"m-1"}"#;
    let (_, answer) = world.post("/v1/mesh/publish", body).await;
    assert_eq!(answer["r"], json!({"s": 1, "f": 0, "seq_id": 2}));
    let (_, answer) = world.post("/v1/mesh/publish", body).await;
    assert_eq!(answer["r"], json!({"s": 0, "f": 0, "seq_id": 2, "duplicate": true}));
    let (_, answer) = world.post("/v1/mesh/publish", r#"{"c":"user:1001","d":"y","id":"m-1"}"#).await;
    assert_eq!(answer["E"]["c"], json!(101), "another body");
    assert_eq!(client.text().await, "x");
    client.quiet().await;
}

/// [connmix: publish with no listener]: who is offline finds it, and it counts as unread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_offline_finds_it_on_the_next_pull_with_unread_counts() {
    let world = World::new(config()).await;
    let user = Scopes { user: true, ..Scopes::default() };
    let token = format!("authorization: Bearer {}\r\n", world.token("1001", user).await);
    let text = r#"{"event":"@user","data":{"b" : 1.0}}"#;
    for seq in 2..5 {
        assert_eq!(world.publish("user:1001", text).await, seq);
    }
    let page = ask(world.shared, "GET", "/v1/feeds/user:1001/entries?last_seq_id=2", &token, "").await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains(text), "byte for byte: {}", page.body);
    let entries = page.json()["entries"].clone();
    assert_eq!(entries.as_array().unwrap().len(), 2);
    let unread = ask(world.shared, "GET", "/v1/unread", &token, "").await.json();
    assert_eq!((&unread["total"], &unread["feeds"][0]["feed_id"]), (&json!(3), &json!("user:1001")));
    // And the back end sees the same places.
    assert_eq!(entries[1]["seq_id"], json!(4));
}

/// Messages of other wires reach subscribers with their bytes; what was recalled does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_other_wires_are_delivered_with_their_bytes() {
    let world = World::new(dev()).await;
    world.publish("video:1", "first").await;
    let mut client = world.subscriber("1001", "1@video").await;
    let gate = world.gate("1002");
    for (content_type, payload) in [
        ("application/json", &br#"{"b" : 1.0}"#[..]),
        ("application/octet-stream", b"\xff\0"),
        ("text/plain", b"hi"),
    ] {
        let draft = Draft::new(MessageKind::Custom, content_type.into(), payload.to_vec().into());
        let feed = FeedId::parse("video:1").unwrap();
        gate.submit(Command { feed, action: Action::SendMessage(Box::new(draft)) }).await.unwrap();
        let frame = client.next().await;
        assert_eq!(frame.is_text(), std::str::from_utf8(payload).is_ok());
        assert_eq!(frame.into_data(), payload);
    }
}

/// `f` are connections whose reader takes nothing now: they get it from the log when they read again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_nothing_counts_as_failed_until_it_reads() {
    let world = World::new(dev()).await;
    let mut reads = world.subscriber("1001", "@user").await;
    let mut slow = world.subscriber("1001", "@user").await;
    let text = "x".repeat(200_000);
    let body = json!({"c": "user:1001", "d": text}).to_string();
    let mut sent = 0;
    loop {
        let (_, answer) = world.post("/v1/mesh/publish", &body).await;
        sent += 1;
        assert_eq!(reads.text().await.len(), text.len());
        // The one that reads may be in the middle of it.
        if answer["r"] == json!({"s": 1, "f": 1, "seq_id": sent + 1}) {
            break;
        }
        assert!(sent < 1000, "the slow one is noticed");
    }
    for _ in 0..sent {
        assert_eq!(slow.text().await.len(), text.len(), "nothing is lost");
    }
    loop {
        let (_, answer) = world.post("/v1/mesh/publish", r#"{"c":"user:1001","d":"x"}"#).await;
        if answer["r"]["s"] == json!(2) {
            break assert_eq!(answer["r"]["f"], json!(0));
        }
    }
}
