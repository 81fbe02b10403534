//! The main answers, byte for byte: a change of the wire is a visible change of `golden/main.txt`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p feedlog-api golden` writes the file anew.

use std::fmt::Write as _;

use feedlog_service::auth::AuthConfig;
use feedlog_service::clock::Clock;
use feedlog_service::{Store, StoreConfig};

use super::world::World;
use crate::http::HttpConfig;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/tests/golden/main.txt");

/// Who, method, path, body.
const SCRIPT: &[(&str, &str, &str, &str)] = &[
    (
        "ann",
        "POST",
        "/v1/feeds",
        r#"{"feed_id":"team/a","kind":"group","title":"Tea","members":["bob"],"join":"approval","meta":{"k":[1, 2.0]}}"#,
    ),
    (
        "ann",
        "POST",
        "/v1/feeds/team%2Fa/messages",
        r#"{"client_msg_id":"m1","payload":{"text":"hello"},"mentions":["bob"]}"#,
    ),
    (
        "ann",
        "POST",
        "/v1/feeds/team%2Fa/messages",
        r#"{"client_msg_id":"m1","payload":{"text":"hello"},"mentions":["bob"]}"#,
    ),
    ("bob", "GET", "/v1/feeds", ""),
    ("bob", "GET", "/v1/unread", ""),
    ("bob", "GET", "/v1/feeds/team%2Fa/unread?explain=true", ""),
    ("bob", "GET", "/v1/unreplied", ""),
    ("bob", "PUT", "/v1/feeds/team%2Fa/marks", r#"{"read_seq_id":4}"#),
    ("ann", "GET", "/v1/feeds/team%2Fa/receipts/4", ""),
    (
        "bob",
        "POST",
        "/v1/feeds/team%2Fa/messages",
        r#"{"payload_base64":"AAEC","content_type":"audio/ogg","kind":"voice","reply_to":4,"sent_ms":1}"#,
    ),
    ("ann", "PATCH", "/v1/feeds/team%2Fa/messages/4", r#"{"payload":{"text":"hello, all"}}"#),
    ("bob", "PUT", "/v1/feeds/team%2Fa/messages/4/reactions/%F0%9F%91%8D", ""),
    ("cid", "POST", "/v1/feeds/team%2Fa/join", r#"{"reason":"please"}"#),
    ("ann", "GET", "/v1/feeds/team%2Fa/requests", ""),
    ("ann", "POST", "/v1/feeds/team%2Fa/requests/cid", r#"{"decision":"agree"}"#),
    ("cid", "GET", "/v1/feeds/team%2Fa/members", ""),
    ("bob", "POST", "/v1/feeds/team%2Fa/recall", r#"{"seq_id":5,"reason":"wrong file"}"#),
    ("bob", "POST", "/v1/feeds/team%2Fa/recall", r#"{"seq_id":5}"#),
    ("cid", "GET", "/v1/feeds/team%2Fa/entries", ""),
    ("cid", "GET", "/v1/feeds/team%2Fa/entries/4", ""),
    (
        "ann",
        "POST",
        "/v1/messages:batch",
        r#"{"messages":[{"feed_id":"team/a","payload":"one"},{"feed_id":"none","payload":2}]}"#,
    ),
    ("bob", "POST", "/v1/feeds/team%2Fa/resolve", r#"{"seq_id":4}"#),
    ("bob", "GET", "/v1/feeds/user%3Abob/entries", ""),
    ("ann", "PATCH", "/v1/feeds/team%2Fa", r#"{"join":"invite"}"#),
    ("ann", "POST", "/v1/feeds", r#"{"kind":"direct","members":["bob"]}"#),
    ("eve", "GET", "/v1/feeds/team%2Fa", ""),
    ("ann", "POST", "/v1/feeds/team%2Fa/messages", r#"{"payload":1,"seen_seq":-1}"#),
    ("ann", "GET", "/v1/feeds?limit=0", ""),
    ("ann", "DELETE", "/v1/unread", ""),
    ("ann", "GET", "/v1/nothing", ""),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_main_answers_are_as_written() {
    let (clock, hand) = Clock::manual(1_700_000_000_000);
    let auth = AuthConfig { dev: true, ..AuthConfig::default() };
    let config = StoreConfig { shards: 1, auth, clock, ..StoreConfig::default() };
    let world = World::with(Store::in_memory(config).unwrap(), HttpConfig::default());
    let mut transcript = String::new();
    for (who, method, path, body) in SCRIPT {
        hand.advance(1_000);
        let got = world.text(who, method, path, body).await;
        let space = if body.is_empty() { "" } else { " " };
        write!(transcript, "{who}> {method} {path}{space}{body}\n{} {}\n\n", got.status, got.text).unwrap();
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(FILE, &transcript).unwrap();
    }
    let written = std::fs::read_to_string(FILE).unwrap();
    for (now, then) in transcript.lines().zip(written.lines()) {
        assert_eq!(now, then);
    }
    assert_eq!(transcript.len(), written.len());
}
