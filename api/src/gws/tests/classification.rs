//! Every row of the table of classification, and what Go's decoder makes of the corners between.

use crate::gws::packet::{Kind, Uuid, ack, cancelled, classify, foreign, rollback};

use super::world::{World, packet};

fn kind(text: &str) -> &'static str {
    match classify(text) {
        Kind::Raw => "raw",
        Kind::Data(_) => "data",
        Kind::Swallowed => "swallowed",
        Kind::Dropped => "dropped",
    }
}

fn uuid(text: &str) -> (String, Option<String>) {
    match classify(text) {
        Kind::Data(uuid) => (uuid.json().to_owned(), uuid.id().map(|id| id.as_str().to_owned())),
        other => panic!("{text} is {other:?}"),
    }
}

#[test]
fn every_row_of_the_table_of_classification() {
    let rows = [
        // Not a JSON object, or fields of a wrong type.
        ("", "raw"),
        ("hello", "raw"),
        ("{", "raw"),
        ("[1,2]", "raw"),
        ("7", "raw"),
        (r#""text""#, "raw"),
        ("true", "raw"),
        (r#"{"type":"2","uuid":"u"}"#, "raw"),
        (r#"{"type":2.0}"#, "raw"),
        (r#"{"type":2e0}"#, "raw"),
        (r#"{"type":2,"uuid":7}"#, "raw"),
        (r#"{"type":2,"body":"text"}"#, "raw"),
        (r#"{"type":2,"body":[]}"#, "raw"),
        (r#"{"type":2,"body":{"sent":"false"}}"#, "raw"),
        (r#"{"type":2,"body":{"hash":1}}"#, "raw"),
        (r#"{"type":2,"command":"x"}"#, "raw"),
        (r#"{"type":2,"queryArgs":{"uuid":1}}"#, "raw"),
        (r#"{"type":2,"pullargs":{"offset":"0"}}"#, "raw"),
        (r#"{"type":2,"pullargs":{"size":1.5}}"#, "raw"),
        (r#"{"type":9223372036854775808}"#, "raw"),
        // An object with type 0 or absent and command 0 or absent; null.
        ("{}", "raw"),
        ("null", "raw"),
        (r#"{"a":1}"#, "raw"),
        (r#"{"type":0}"#, "raw"),
        (r#"{"type":0,"command":0}"#, "raw"),
        (r#"{"type":null,"command":null}"#, "raw"),
        // Type 2.
        (r#"{"type":2}"#, "data"),
        (r#"{"type":2,"command":9}"#, "data"),
        (r#"{"type":2,"body":{"data":{"any":[1,null]}}}"#, "data"),
        (r#"{"type":2,"body":null,"uuid":null,"queryArgs":null,"pullargs":null}"#, "data"),
        (r#"{"type":2,"body":{"data":null,"sent":null,"hash":null}}"#, "data"),
        // Type 1: command 5 is a ping; no reply to any.
        (r#"{"type":1,"command":5}"#, "swallowed"),
        (r#"{"type":1}"#, "swallowed"),
        (r#"{"type":1,"command":1,"uuid":"u"}"#, "swallowed"),
        // Any other type, or a command without one.
        (r#"{"type":3}"#, "dropped"),
        (r#"{"type":-1}"#, "dropped"),
        (r#"{"command":2}"#, "dropped"),
        (r#"{"type":0,"command":5}"#, "dropped"),
    ];
    for (text, expected) in rows {
        assert_eq!(kind(text), expected, "{text}");
    }
}

#[test]
fn keys_match_in_any_case_and_the_last_one_counts() {
    let rows = [
        (r#"{"TYPE":2}"#, "data"),
        (r#"{"tYpE":2,"Body":{"SENT":true}}"#, "data"),
        (r#"{"type":2,"BODY":{"Sent":1}}"#, "raw"),
        (r#"{"type":2,"QUERYARGS":{"Uuid":1}}"#, "raw"),
        (r#"{"type":2,"pullArgs":{"offset":""}}"#, "raw"),
        // Go folds the long s and the sign of Kelvin as well.
        ("{\"type\":2,\"body\":{\"\u{17f}ent\":1}}", "raw"),
        ("{\"type\":2,\"body\":{\"ha\u{17f}h\":\"\"}}", "data"),
        ("{\"type\":2,\"bod\u{17f}\":1}", "data"),
        (r#"{"type":1,"type":2}"#, "data"),
        (r#"{"type":2,"type":1}"#, "swallowed"),
        (r#"{"type":2,"Type":null}"#, "data"),
        (r#"{"type":"x","type":2}"#, "raw"),
        // Escapes in keys are read, also those that are no Unicode.
        (r#"{"\u0074ype":2}"#, "data"),
        (r#"{"\ud800":1,"type":2}"#, "data"),
        ("{\"a\nb\":1,\"type\":2}", "raw"),
        // Whitespace round it is, anything else is not, JSON.
        (" \r\n\t{\"type\":2} ", "data"),
        ("{\"type\":2} x", "raw"),
        ("{\"type\":2}{\"type\":2}", "raw"),
        ("\u{feff}{\"type\":2}", "raw"),
        (r#"{"type":2,}"#, "raw"),
        ("{\"type\":2 /* c */}", "raw"),
        (r#"{"type":02}"#, "raw"),
    ];
    for (text, expected) in rows {
        assert_eq!(kind(text), expected, "{text:?}");
    }
}

#[test]
fn uuids_that_fit_are_ids() {
    let long = |bytes: usize| format!(r#"{{"type":2,"uuid":"{}"}}"#, "x".repeat(bytes));
    assert_eq!(uuid(&long(128)).1.map(|id| id.len()), Some(128));
    assert_eq!(uuid(&long(129)).1, None, "one past the limit");
    let rows = [
        (r#"{"type":2,"uuid":"a"}"#, r#""a""#, Some("a")),
        (r#"{"type":2,"uuid":"a","uuid":"b"}"#, r#""b""#, Some("b")),
        (r#"{"type":2,"uuid":"a","UUID":null}"#, r#""a""#, Some("a")),
        (r#"{"type":2,"uuid":"\u00e9\"" }"#, r#""\u00e9\"""#, Some("é\"")),
        (r#"{"type":2}"#, r#""""#, None),
        (r#"{"type":2,"uuid":""}"#, r#""""#, None),
        (r#"{"type":2,"uuid":"a\nb"}"#, r#""a\nb""#, None),
        (r#"{"type":2,"uuid":"\ud800"}"#, r#""\ud800""#, None),
    ];
    for (text, json, id) in rows {
        assert_eq!(uuid(text), (json.to_owned(), id.map(str::to_owned)), "{text}");
    }
}

/// However deep, nothing runs out of stack.
#[test]
fn deep_nesting_is_read_level_by_level() {
    let deep =
        |depth| format!("{{\"type\":2,\"body\":{{\"data\":{}{}}}}}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(kind(&deep(100_000)), "data");
    assert_eq!(kind(&deep(100_000)[1..]), "raw");
    assert_eq!(kind(&"{\"body\":".repeat(100_000)), "raw");
    let json = "[".repeat(100_000) + &"]".repeat(100_000);
    assert_eq!(kind(&foreign("u", json.as_bytes(), "application/json")), "data");
}

#[test]
fn what_is_written_is_what_clients_read() {
    assert_eq!(
        ack(Uuid::default().json()),
        r#"{"uuid":"","body":{"data":null,"sent":false,"hash":""},"type":1,"command":1,"queryArgs":{"uuid":""},"pullargs":{"offset":0,"size":0}}"#
    );
    assert_eq!(cancelled("a\"b"), r#"{"uuid":"a\"b","type":1,"command":6}"#);
    let told: serde_json::Value = serde_json::from_str(&rollback("u", "own")).unwrap();
    assert_eq!(told["body"]["data"], r#"{"eventType":7,"data":{"uuid":"u"}}"#);
    assert_eq!((&told["type"], &told["uuid"]), (&2.into(), &"own".into()));
}

/// JSON as a value, other UTF-8 as a string, else base64; the hash is the client's.
#[test]
fn messages_of_other_wires_are_wrapped_and_not_encoded_anew() {
    let hash = |bytes: &[u8]| crate::gws::packet::hash(bytes);
    let rows: [(&[u8], &str, &str, &[u8]); 8] = [
        (
            br#"{"b" : 1.0,  "a":[1e3]}"#,
            "application/json",
            r#"{"b" : 1.0,  "a":[1e3]}"#,
            br#"{"b" : 1.0,  "a":[1e3]}"#,
        ),
        (br#""hi""#, "application/json; charset=utf-8", r#""hi""#, b"hi"),
        (b"42", "application/json", "42", b"42"),
        (b"{not json", "application/json", r#""{not json""#, b"{not json"),
        (b"say \"hi\"\n", "text/plain", r#""say \"hi\"\n""#, b"say \"hi\"\n"),
        // Of a sender that names no type, as MQTT's mostly do not.
        (br#"{"a":1}"#, "application/octet-stream", r#"{"a":1}"#, br#"{"a":1}"#),
        (b"42", "application/octet-stream", r#""42""#, b"42"),
        (b"\xff\x00", "image/png", r#""/wA=""#, b"/wA="),
    ];
    for (payload, content_type, data, hashed) in rows {
        let expected = format!(
            r#"{{"body":{{"sent":false,"data":{data},"hash":"{}"}},"type":2,"uuid":"/r:7"}}"#,
            hash(hashed)
        );
        assert_eq!(foreign("/r:7", payload, content_type), expected);
    }
    assert_eq!(hash(b"god bless u"), "eb2ef7838a7a57d755378bd25208020c");
    assert_eq!(hash(b""), "d41d8cd98f00b204e9800998ecf8427e");
}

/// The corpus of the target in `fuzz/`, and cuts of it.
#[test]
fn the_corpus_of_the_fuzz_target_is_replayed() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/gws_packet");
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        crate::gws::fuzz(&bytes);
        for cut in 0..bytes.len() {
            crate::gws::fuzz(&bytes[..cut]);
            let mut changed = bytes.clone();
            changed[cut] ^= 0x11;
            crate::gws::fuzz(&changed);
        }
        count += 1;
    }
    assert!(count >= 10, "the corpus is there");
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        crate::gws::fuzz(&bytes);
    }
}

/// What each kind of frame does, through the server.
#[tokio::test]
async fn each_kind_of_frame_does_what_the_table_says() {
    let world = World::new().await;
    let (mut ann, mut bob) = (world.join("/room").await, world.join("/room").await);
    let raw = ["hello", "", "[1]", "null", "{\"type\":0}", r#"{"type":2,"uuid":7}"#];
    for frame in raw {
        ann.send(frame).await;
        bob.gets(frame).await;
    }
    for nothing in
        [r#"{"type":1,"command":5}"#, r#"{"type":1,"command":77}"#, r#"{"type":9}"#, r#"{"command":2}"#]
    {
        ann.send(nothing).await;
    }
    // Binary input is relayed as text where it is UTF-8; a packet may come that way too.
    ann.send_binary("grüß".as_bytes()).await;
    bob.gets("grüß").await;
    ann.send_binary(packet("1", "x").as_bytes()).await;
    bob.gets(packet("1", "x")).await;
    ann.gets(super::world::ack("1")).await;
    ann.send_binary(b"\xff\xfe").await;
    assert_eq!(bob.message().await, tokio_tungstenite::tungstenite::Message::binary(vec![0xff, 0xfe]));
    ann.send_binary(b"").await;
    assert_eq!(bob.message().await, tokio_tungstenite::tungstenite::Message::binary(Vec::new()));
    // Only the packet is in the history; raw frames are in the log, with no ordinal.
    assert_eq!(world.history("/room", 0, 0).await, [packet("1", "x")]);
    let mut expected = vec!["FeedCreated"];
    expected.extend(["Broadcast"; 7]);
    expected.extend(["MessageSent", "Broadcast", "Broadcast"]);
    assert_eq!(world.log("/room").await, expected);
}
