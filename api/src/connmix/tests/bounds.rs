//! Bounds, at the edge and one past it; and what fuzzing found before.

use feedlog_service::auth::{AuthConfig, Rate};
use feedlog_service::{Store, StoreConfig};
use serde_json::json;

use super::world::{World, dev};
use crate::connmix::{Connmix, ConnmixConfig, ConnmixError, fuzz_api, fuzz_client};
use crate::http::HttpConfig;

const DONE: &str = r#"{"result":true}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_of_one_connection() {
    let world = World::new(ConnmixConfig { channels_max: 2, ..dev() }).await;
    let mut client = world.user("1001").await;
    let op = |op: &str, channel: &str| json!({"op": op, "channel": channel}).to_string();
    client.ask(&op("subscribe", "@user"), DONE).await;
    client.ask(&op("subscribe", "@balance"), DONE).await;
    client.ask(&op("subscribe", "@user"), DONE).await;
    client.ask(&op("subscribe", "1@video"), r#"{"code":1,"msg":"Too Many Channels"}"#).await;
    client.ask(&op("unsubscribe", "@balance"), DONE).await;
    client.ask(&op("subscribe", "1@video"), DONE).await;
}

/// An op is small; where frames go to workers, they may also be as large as a payload. Beyond, the connection is failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_clients() {
    let frame = |bytes: usize| {
        let empty = r#"{"op":"auth","token":"1001","x":""}"#.len();
        format!(r#"{{"op":"auth","token":"1001","x":"{}"}}"#, "x".repeat(bytes - empty))
    };
    for (client_topic, payload) in [(None, 0), (Some("frames".to_owned()), 1024)] {
        let world = World::new(ConnmixConfig { payload_bytes_max: 1024, client_topic, ..dev() }).await;
        let max = payload + super::super::FRAME_BYTES;
        let mut client = world.client().await;
        client.ask(&frame(max), DONE).await;
        client.send(&frame(max + 1)).await;
        assert_eq!(client.closed().await, 1009);
    }
}

/// Names of channels are names of feeds: 255 bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_channels() {
    let world = World::new(dev()).await;
    let mut client = world.user("1001").await;
    for (bytes, wanted) in [(255, DONE), (256, r#"{"code":1,"msg":"Invalid Channel"}"#)] {
        let channel = format!("{}@video", "x".repeat(bytes - "video:".len()));
        client.ask(&json!({"op": "subscribe", "channel": channel}).to_string(), wanted).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rates_are_told_and_the_connection_stays() {
    let auth = AuthConfig {
        dev: true,
        rate_per_principal: Some(Rate { per_second: 1, burst: 3 }),
        ..AuthConfig::default()
    };
    let store = Store::in_memory(StoreConfig { shards: 2, auth, ..StoreConfig::default() }).unwrap();
    let world = World::over(dev(), HttpConfig::default(), store).await;
    let mut client = world.user("1001").await;
    let subscribe = r#"{"op":"subscribe","channel":"@user"}"#;
    client.send_all((0..20).map(|_| subscribe.to_owned())).await;
    let mut got = Vec::new();
    for _ in 0..20 {
        got.push(client.text().await);
    }
    assert!(got[..3].iter().all(|text| text == DONE), "{got:?}");
    assert!(got.iter().any(|text| text == r#"{"code":1,"msg":"Too Many Requests"}"#), "{got:?}");
    let mut back = world.back_end().await;
    back.send_all(
        (0..20).map(|i| json!({"m": "mesh.publish", "p": {"c": "x", "d": "y"}, "i": i}).to_string()),
    )
    .await;
    let mut codes = Vec::new();
    for _ in 0..20 {
        codes.push(back.json().await["E"]["c"].as_u64());
    }
    assert!(codes.contains(&None) && codes.contains(&Some(401)), "{codes:?}");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_is_refused() {
    let new = |config| {
        let store = Store::in_memory(StoreConfig::default()).unwrap();
        Connmix::new(config, store).err()
    };
    for path in ["", "message-center", "/a?b", "/a b"] {
        let config = ConnmixConfig { path: path.to_owned(), ..dev() };
        assert_eq!(new(config), Some(ConnmixError::BadPath(path.to_owned())));
    }
    let longest = 100 - "connmix.topic:".len();
    for (topic, error) in [
        (String::new(), Some(ConnmixError::BadTopic)),
        ("a\nb".to_owned(), Some(ConnmixError::BadTopic)),
        ("x".repeat(longest), None),
        ("x".repeat(longest + 1), Some(ConnmixError::BadTopic)),
    ] {
        let config = ConnmixConfig { client_topic: Some(topic.clone()), ..dev() };
        assert_eq!(new(config), error, "{topic}");
    }
    for kind in ["", "user", "a@b", "a b"] {
        for private in [true, false] {
            let types = vec![kind.to_owned()];
            let config = match private {
                true => ConnmixConfig { private_types: types, ..dev() },
                false => ConnmixConfig { public_types: types, ..dev() },
            };
            assert_eq!(new(config), Some(ConnmixError::BadType(kind.to_owned())), "{kind}");
        }
    }
}

#[test]
fn the_corpus_of_the_fuzz_targets_is_replayed() {
    type Target = (&'static str, fn(&[u8]));
    let targets: [Target; 2] = [("connmix_client", fuzz_client), ("connmix_api", fuzz_api)];
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (target, fuzz) in targets {
        let mut files = 0;
        for entry in std::fs::read_dir(corpus.join(target)).unwrap() {
            fuzz(&std::fs::read(entry.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files >= 10, "{target}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_what_reads_it(text in ".*") {
        fuzz_client(text.as_bytes());
        fuzz_api(text.as_bytes());
    }

    #[test]
    fn nothing_like_a_frame_breaks_what_reads_it(
        op in "auth|subscribe|unsubscribe|[a-z]{0,5}",
        channel in "[ab@: ]{0,8}",
        method in "mesh.publish|mesh.send|conn.call|queue.pop|queue.unpop",
        json in "[\\[\\]{}\":,a-ctd0-9 ]{0,40}",
    ) {
        fuzz_client(format!(r#"{{"op":"{op}","channel":"{channel}","since":{json}}}"#).as_bytes());
        fuzz_client(channel.as_bytes());
        fuzz_api(format!(r#"{{"m":"{method}","p":{json},"i":1}}"#).as_bytes());
    }
}
