//! The methods over a store in memory, as the MQTT connection calls them.

use bytes::Bytes;
use feedlog_core::command::{Action, Command, Draft, Principal, Scopes};
use feedlog_core::event::MessageKind;
use feedlog_core::ids::{ClientMsgId, FeedId, SeqId, Uid};
use feedlog_service::auth::AuthConfig;
use feedlog_service::clock::{Clock, ManualClock};
use feedlog_service::{Gate, Store, StoreConfig};
use serde_json::{Value, json};

use super::{Im, Login, call, login_token, push};
use crate::errors::Kind;

struct World {
    im: Im,
    store: Store,
    clock: ManualClock,
}

impl World {
    fn new() -> Self {
        let (clock, hand) = Clock::manual(1_700_000_000_000);
        let auth = AuthConfig { dev: true, ..AuthConfig::default() };
        let config = StoreConfig { shards: 2, auth, clock: clock.clone(), ..StoreConfig::default() };
        let store = Store::in_memory(config).unwrap();
        Self { im: Im { payload_bytes_max: 64, clock }, store, clock: hand }
    }

    fn gate(&self, who: &str) -> Gate {
        let scopes = Scopes { user: true, ..Scopes::default() };
        self.store.gate(Principal { uid: Uid::parse(who).unwrap(), scopes, anonymous: false, via: None })
    }

    async fn ask(&self, who: &str, method: &str, body: &str) -> Result<String, (Kind, String)> {
        let answer = call(&self.im, &self.gate(who), method, body.as_bytes(), Bytes::new()).await;
        answer.map(|raw| raw.get().to_owned()).map_err(|error| (error.kind, error.text))
    }

    async fn ok(&self, who: &str, method: &str, body: Value) -> Value {
        let text = self.ask(who, method, &body.to_string()).await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    async fn fails(&self, who: &str, method: &str, body: &str) -> (Kind, String) {
        self.ask(who, method, body).await.unwrap_err()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_made_joined_and_left() {
    let world = World::new();
    let made = world
        .ok(
            "u1",
            "create_feeds",
            json!({"feeds": "f1", "title": "Tea", "members": ["u2"], "join": "approval"}),
        )
        .await;
    assert_eq!(made, json!({"feeds": "f1"}));
    let named = world.ok("u1", "create_feeds", json!({})).await;
    assert!(named["feeds"].as_str().unwrap().starts_with("feed-"));
    assert_eq!(world.ok("u3", "join_feeds", json!({"feeds": "f1", "reason": "please"})).await, "pending");
    assert_eq!(world.ok("u3", "join_feeds", json!({"feeds": "f1"})).await, "pending", "it still waits");
    let body = json!({"applicant": "u3", "feeds": "f1"});
    assert_eq!(world.fails("u2", "agree_join_feeds", &body.to_string()).await.0, Kind::Forbidden);
    assert_eq!(world.ok("u1", "agree_join_feeds", body).await, "success");
    world.ok("u4", "join_feeds", json!({"feeds": "f1"})).await;
    assert_eq!(
        world.ok("u1", "reject_join_feeds", json!({"applicant": "u4", "feeds": "f1"})).await,
        "success"
    );
    assert_eq!(
        world.ok("u1", "invite_feeds_member", json!({"member": "u5", "feeds": "f1"})).await,
        "success"
    );
    // The literal example of the page.
    let body = r#"{"member":"u2","feeds":"f1"}"#;
    assert_eq!(world.ask("u1", "remove_feeds_member", body).await.unwrap(), r#""success""#);
    assert_eq!(world.ok("u5", "leave_feeds", json!({"feeds": "f1"})).await, "success");
    let (kind, text) = world.fails("u2", "history", r#"{"feeds":"f1"}"#).await;
    assert_eq!(kind, Kind::Forbidden, "a group that may be asked to join may be known of: {text}");
    let info = world.ok("u3", "feeds_info", json!({"feeds": "f1"})).await;
    assert_eq!((&info["title"], &info["member_count"]), (&json!("Tea"), &json!(2)));
    let list = world.ok("u3", "feeds_list", json!({"limit": 1})).await;
    assert_eq!(list["feeds"][0]["feed_id"], "f1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_sent_once_shown_and_recalled() {
    let world = World::new();
    world.ok("u1", "create_feeds", json!({"feeds": "f1", "members": ["u2"]})).await;
    let body =
        r#"{"feeds":"f1","msg_id":"m-9","msg_type":"text","payload":{"text": "hi"},"mentions":["u2"]}"#;
    let sent = r#"{"SeqId":4,"MsgId":"m-9","TimeCreate":1700000000000}"#;
    assert_eq!(world.ask("u1", "send", body).await.unwrap(), sent);
    world.clock.set(1_700_000_000_500);
    assert_eq!(world.ask("u1", "send", body).await.unwrap(), sent, "a retry gets the first values (P3)");
    let other = r#"{"feeds":"f1","msg_id":"m-9","payload":2}"#;
    assert_eq!(world.fails("u1", "send", other).await.0, Kind::IdConflict);
    let second = world.ok("u2", "send", json!({"feeds": "f1", "payload": null, "reply_to": 4})).await;
    assert_eq!(second["MsgId"], "f1:5");
    world
        .ok("u2", "send", json!({"feeds": "f1", "payload": 1, "msg_type": "shortvideo", "to_reply": true}))
        .await;

    let page = world.ask("u2", "history", r#"{"feeds":"f1","last_seq_id":3}"#).await.unwrap();
    assert_eq!(
        page,
        concat!(
            r#"{"feeds":"f1","last_seq_id":6,"messages":["#,
            r#"{"MsgId":"m-9","Feeds":"f1","SeqId":4,"MsgType":"text","From":"u1","Payload":{"text": "hi"},"#,
            r#""TimeCreate":1700000000000,"Mentions":["u2"]},"#,
            r#"{"MsgId":"f1:5","Feeds":"f1","SeqId":5,"MsgType":"text","From":"u2","Payload":null,"#,
            r#""TimeCreate":1700000000500,"ReplyTo":4},"#,
            r#"{"MsgId":"f1:6","Feeds":"f1","SeqId":6,"MsgType":"shortvideo","From":"u2","Payload":1,"#,
            r#""TimeCreate":1700000000500,"ToReply":true}],"gone":[],"next":null}"#
        )
    );
    let back = world.ok("u2", "history", json!({"feeds": "f1", "before": 6, "limit": 1})).await;
    assert_eq!((&back["messages"][0]["SeqId"], &back["next"]), (&json!(5), &json!({"before": 5})));

    assert_eq!(
        world.ask("u1", "recall", r#"{"feeds":"f1","msg_id":"m-9"}"#).await.unwrap(),
        r#"{"SeqId":7}"#
    );
    assert_eq!(world.ok("u2", "recall", json!({"feeds": "f1", "msg_id": "f1:5"})).await["SeqId"], 8);
    assert_eq!(world.ok("u2", "recall", json!({"feeds": "f1", "seq_id": 6})).await["SeqId"], 9);
    let page = world.ok("u2", "history", json!({"feeds": "f1", "last_seq_id": 3, "limit": 4})).await;
    assert_eq!(
        page["messages"][0],
        json!({"MsgId": "m-9", "Feeds": "f1", "SeqId": 4, "MsgType": "text", "From": "u1", "Mentions": ["u2"],
            "TimeCreate": 1_700_000_000_000_u64,
            "Recalled": {"By": "u1", "SeqId": 7, "TimeCreate": 1_700_000_000_500_u64}}),
        "the place stays, the content is gone (P6)"
    );
    assert_eq!(
        page["messages"][3],
        json!({"MsgId": "f1:7", "Feeds": "f1", "SeqId": 7, "MsgType": "recall", "From": "u1",
            "Payload": {"target": 4}, "TimeCreate": 1_700_000_000_500_u64}),
        "the recall is an entry, so that it is learned on the next pull"
    );
    assert_eq!(page["next"], json!({"last_seq_id": 7}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_id_that_looks_like_a_place_goes_first() {
    let world = World::new();
    world.ok("u1", "create_feeds", json!({"feeds": "f1"})).await;
    world.ok("u1", "send", json!({"feeds": "f1", "payload": 1, "msg_id": "f1:4"})).await;
    world.ok("u1", "send", json!({"feeds": "f1", "payload": 2})).await;
    world.ok("u1", "recall", json!({"feeds": "f1", "msg_id": "f1:4"})).await;
    let page = world.ok("u1", "history", json!({"feeds": "f1", "last_seq_id": 2})).await;
    assert!(page["messages"][0]["Recalled"].is_object(), "{page}");
    assert!(page["messages"][1]["Recalled"].is_null(), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_people_stand_is_told_as_on_http() {
    let world = World::new();
    world.ok("u1", "create_feeds", json!({"feeds": "f1", "members": ["u2"]})).await;
    for n in 0..3 {
        world.ok("u1", "send", json!({"feeds": "f1", "payload": n, "mentions": ["u2"]})).await;
    }
    let total = world.ok("u2", "unread", json!({})).await;
    assert_eq!((&total["total"], &total["mentions"]), (&json!(3), &json!(3)));
    let owed = world.ok("u2", "unreplied", json!({"limit": 5})).await;
    assert_eq!((&owed["unreplied"][0]["seq_id"], &owed["unreplied"][0]["count"]), (&json!(4), &json!(3)));
    assert_eq!(world.ok("u2", "read", json!({"feeds": "f1", "seq_id": 5})).await, "success");
    assert_eq!(world.ok("u2", "received", json!({"feeds": "f1", "seq_id": 6})).await, "success");
    assert_eq!(world.ok("u2", "unread", json!({"feeds": "f1"})).await["unread"], 1);
    let receipts = world.ok("u1", "receipts", json!({"feeds": "f1", "seq_id": 6})).await;
    assert_eq!((&receipts["delivered"], &receipts["read"]), (&json!(1), &json!(0)));
    let (kind, _) = world.fails("u2", "read", r#"{"feeds":"f1","seq_id":99}"#).await;
    assert_eq!(kind, Kind::Rejected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_bodies_are_refused_and_nothing_happens() {
    let world = World::new();
    world.ok("u1", "create_feeds", json!({"feeds": "f1"})).await;
    for (method, body, text) in [
        ("send", "{\"feeds\":}", "The JSON format is incorrect at line 1 column 10"),
        ("send", "bytes", "bad_request: body: must be an object"),
        ("send", "[1]", "bad_request: body: must be an object"),
        ("send", "", "bad_request: feeds: is missing"),
        ("send", "{\"feeds\":\"f1\"}", "bad_request: payload: is missing"),
        ("send", "{\"feeds\":\"f1\",\"payload\":1,\"x\":2}", "bad_request: x: unknown field"),
        (
            "send",
            "{\"feeds\":\"f1\",\"payload\":1,\"msg_type\":\"x\"}",
            "bad_request: msg_type: is not one of the allowed values",
        ),
        (
            "recall",
            "{\"feeds\":\"f1\",\"seq_id\":1,\"msg_id\":\"a\"}",
            "bad_request: msg_id: excludes seq_id",
        ),
        ("recall", "{\"feeds\":\"f1\"}", "bad_request: seq_id: is missing"),
        (
            "history",
            "{\"feeds\":\"f1\",\"limit\":0}",
            "bad_request: limit: must be a whole number of 1 to 1000",
        ),
        (
            "history",
            "{\"feeds\":\"f1\",\"limit\":1001}",
            "bad_request: limit: must be a whole number of 1 to 1000",
        ),
        ("history", "{\"feeds\":\"none\"}", "feed_not_found: no such feed"),
        ("say", "{}", "not_found: there is no such method"),
        ("", "{}", "not_found: there is no such method"),
    ] {
        assert_eq!(world.fails("u1", method, body).await.1, text, "{method} {body}");
    }
    let large = format!("{{\"feeds\":\"f1\",\"payload\":\"{}\"}}", "x".repeat(63));
    assert_eq!(world.fails("u1", "send", &large).await.0, Kind::TooLarge);
    let fits = format!("{{\"feeds\":\"f1\",\"payload\":\"{}\"}}", "x".repeat(62));
    world.ask("u1", "send", &fits).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_is_as_on_the_page_and_wraps_what_other_wires_sent() {
    let world = World::new();
    world.ok("u1", "create_feeds", json!({"feeds": "f1"})).await;
    world.ok("u1", "send", json!({"feeds": "f1", "msg_id": "m-9", "payload": {"text": "hi"}})).await;
    let gate = world.gate("u1");
    let feed = FeedId::parse("f1").unwrap();
    let view = gate.entry(&feed, SeqId(3)).await.unwrap();
    assert_eq!(
        String::from_utf8(push(&view, SeqId(42))).unwrap(),
        concat!(
            r#"{"feeds":"f1","last_seq_id":42,"message":{"MsgId":"m-9","Feeds":"f1","SeqId":3,"MsgType":"text","#,
            r#""From":"u1","Payload":{"text":"hi"},"TimeCreate":1700000000000}}"#
        )
    );
    for (content_type, bytes, shown) in [
        ("text/plain", &b"tea\n"[..], json!("tea\n")),
        ("application/x-protobuf", b"\x08\x01\x10\x02", json!({"base64": "CAEQAg=="})),
        ("image/png", b"\xff\x00", json!({"base64": "/wA="})),
        ("application/json", b"{broken", json!("{broken")),
    ] {
        let client_msg_id = Some(ClientMsgId::parse(content_type).unwrap());
        let payload = Bytes::from_static(bytes);
        let draft = Draft { client_msg_id, ..Draft::new(MessageKind::Custom, content_type.into(), payload) };
        let command = Command { feed: feed.clone(), action: Action::SendMessage(Box::new(draft)) };
        let seq = gate.submit(command).await.unwrap().done().seq;
        let view = gate.entry(&feed, seq).await.unwrap();
        let body: Value = serde_json::from_slice(&push(&view, SeqId::ZERO)).unwrap();
        assert_eq!(body["message"]["Payload"], shown, "{content_type}");
        assert_eq!(body["last_seq_id"], seq.0, "never below the message");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_connection_carries_goes_with_the_message() {
    let world = World::new();
    world.ok("u1", "create_feeds", json!({"feeds": "f1"})).await;
    let gate = world.gate("u1");
    let body = br#"{"feeds":"f1","payload":1}"#;
    call(&world.im, &gate, "send", body, Bytes::from_static(b"\x01x")).await.unwrap();
    let view = gate.entry(&FeedId::parse("f1").unwrap(), SeqId(3)).await.unwrap();
    let carried = &view.entry.message().unwrap().carried;
    assert_eq!(carried.bytes().unwrap(), &b"\x01x"[..]);
}

#[test]
fn logins_are_read_in_both_forms() {
    let login = |token: &str, user: Option<&str>, topic: Option<&str>| Login {
        token: token.into(),
        user: user.map(str::to_owned),
        push_topic: topic.map(str::to_owned),
    };
    let body = br#"{"token":"t","push_topic":"im/news","device":"x"}"#;
    assert_eq!(login_token(body, false).unwrap(), login("t", None, Some("im/news")));
    let body = br#"{"userName":"liangdas","passWord":"p"}"#;
    let read = login_token(body, true).unwrap();
    assert_eq!(read, login("p", Some("liangdas"), None));
    assert_eq!(read.result().get(), r#""login success liangdas""#);
    assert_eq!(format!("{read:?}"), "Login { .. }", "credentials are not shown (I-8)");
    for bad in [&b"{}"[..], b"", b"x", b"{\"token\":1}", b"{\"token\":"] {
        assert!(login_token(bad, false).is_err());
    }
}

#[test]
fn the_corpus_of_the_fuzz_targets_is_replayed() {
    type Fuzz = fn(&[u8]);
    let targets: [(&str, Fuzz); 3] =
        [("mqant_topic", super::uri::fuzz), ("mqant_body", super::fuzz), ("protobuf_body", crate::pb::fuzz)];
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (target, fuzz) in targets {
        let files = std::fs::read_dir(corpus.join(target)).unwrap().map(|entry| {
            fuzz(&std::fs::read(entry.unwrap().path()).unwrap());
        });
        assert!(files.count() >= 5, "{target} has a corpus");
    }
}

proptest::proptest! {
    #[test]
    fn no_body_panics(body in "\\{(\"(feeds|payload|seq_id|limit|token)\":([0-9.e-]{1,5}|\"[ -~]{0,5}\"|null),?){0,3}\\}|.{0,20}") {
        super::fuzz(body.as_bytes());
    }
}
