//! Four people in one group, each on a wire of their own: ada on mqant's URIs over MQTT 3.1, bob on feed topics of MQTT 5,
//! cem on HTTP with server-sent events, 42 on protobuf over WebSocket. What one does, all see alike, and the server is
//! killed with `kill -9` half way.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use feedlog_api::mqtt::wire::Level;
use serde_json::{Value, json};

use crate::peer::{Events, Peer, http};
use crate::server::Server;

const ENGINE: &str = if cfg!(feature = "rocksdb") { "rocksdb" } else { "sled" };
const USERS: [&str; 4] = ["ada", "bob", "cem", "42"];

/// Fields of a protobuf body by number, read without its schema.
#[derive(Debug, Default)]
struct Fields(Vec<(u64, u64, Vec<u8>)>);

impl Fields {
    fn read(mut bytes: &[u8]) -> Self {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let value = varint(&mut bytes);
            let (number, text) = match key & 7 {
                0 => (value, Vec::new()),
                2 => {
                    let (text, rest) = bytes.split_at(value as usize);
                    bytes = rest;
                    (0, text.to_vec())
                }
                other => panic!("wire type {other}"),
            };
            fields.push((key >> 3, number, text));
        }
        Self(fields)
    }

    fn number(&self, field: u64) -> Option<u64> {
        self.0.iter().find(|(number, _, _)| *number == field).map(|(_, value, _)| *value)
    }

    fn text(&self, field: u64) -> Option<&str> {
        let found = self.0.iter().find(|(number, _, _)| *number == field);
        found.and_then(|(_, _, text)| std::str::from_utf8(text).ok())
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// A `Message` of the seed: its five required fields.
fn message(id: u64, sender: u64, content: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let put = |mut value: u64, out: &mut Vec<u8>| {
        while value > 0x7f {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    };
    for (field, value) in [(1, id), (2, sender)] {
        put(field << 3, &mut out);
        put(value, &mut out);
    }
    put(3 << 3 | 2, &mut out);
    put(content.len() as u64, &mut out);
    out.extend_from_slice(content.as_bytes());
    for (field, value) in [(4, 1_700_000_000_000), (5, 0)] {
        put(field << 3, &mut out);
        put(value, &mut out);
    }
    out
}

struct Scene {
    server: Server,
    ada: Peer,
    bob: Peer,
    cem: Events,
    fortytwo: Peer,
}

impl Scene {
    fn connect(server: Server, last_event: Option<&str>) -> Self {
        let ada = Peer::tcp(server.mqtt, Level::V31, "ada", true);
        let bob = Peer::tcp(server.mqtt, Level::V5, "bob", true);
        let cem = Events::open(&server.url, "cem", last_event);
        let mut fortytwo = Peer::web(&server.url, "42");
        fortytwo.subscribe("pb/unread");
        Self { server, ada, bob, cem, fortytwo }
    }

    fn get(&self, uid: &str, path: &str) -> Value {
        http(&self.server.url, uid, "GET", path, None)
    }

    /// cem does something over HTTP.
    fn cem(&self, method: &str, path: &str, body: Value) -> Value {
        http(&self.server.url, "cem", method, path, Some(body))
    }

    /// All of them, but for the pushes to whoever did it, see the entry at this place as HTTP shows it.
    #[track_caller]
    fn all_see(&mut self, seq: u64, by: &str) -> Value {
        let entry = self.get("cem", &format!("/v1/feeds/team/entries/{seq}"));
        assert_eq!(entry["sender"], by, "{entry}");
        assert_eq!(self.cem.entry("team", seq), entry, "on the stream of events");
        let shown = self.bob.message(|push| {
            let entry: Value = serde_json::from_slice(&push.payload).ok()?;
            (push.topic.as_str() == "feeds/team" && entry["seq_id"] == seq).then_some(entry)
        });
        assert_eq!(shown, entry, "on a feed topic");
        if by != "ada" {
            let push = self.ada.message(|push| {
                let body: Value = serde_json::from_slice(&push.payload).ok()?;
                (push.topic.as_str() == "impush://modulus/news" && body["message"]["SeqId"] == seq)
                    .then_some(body)
            });
            assert_eq!(push["feeds"], "team");
            assert!(push["last_seq_id"].as_u64() >= Some(seq));
            let message = &push["message"];
            assert_eq!((&message["From"], &message["TimeCreate"]), (&entry["sender"], &entry["time_ms"]));
            if entry["type"] == "message" {
                assert_eq!(message["MsgId"], entry["client_msg_id"]);
                assert_eq!(message["MsgType"], entry["kind"]);
                match &entry["payload_base64"] {
                    Value::Null => assert_eq!(message["Payload"], entry["payload"]),
                    bytes => assert_eq!(message["Payload"]["base64"], *bytes),
                }
            } else {
                assert_eq!(message["MsgType"], entry["type"]);
            }
        }
        entry
    }

    /// What 42 is sent of the entry at this place.
    #[track_caller]
    fn protobuf(&mut self, topic: &str, seq: u64) -> Fields {
        let fields = self.fortytwo.message(|push| {
            let fields = (push.topic.as_str() == topic).then(|| Fields::read(&push.payload))?;
            (fields.number(101) == Some(seq)).then_some(fields)
        });
        assert_eq!(fields.text(100), Some("team"));
        fields
    }

    /// Unread counts, unreplied messages and marks are the same on every wire.
    #[track_caller]
    fn all_agree(&mut self) {
        for user in USERS {
            let total = self.get(user, "/v1/unread");
            let team = self.get(user, "/v1/feeds/team/unread");
            let unreplied = self.get(user, "/v1/unreplied?limit=100");
            let peer = match user {
                "ada" => &mut self.ada,
                "bob" => &mut self.bob,
                "42" => {
                    self.agree_with_statistics(&total, &team, &unreplied);
                    continue;
                }
                _ => continue,
            };
            assert_eq!(peer.ask("unread", &json!({})), total, "{user}");
            assert_eq!(peer.ask("unread", &json!({"feeds": "team"})), team, "{user}");
            assert_eq!(peer.ask("unreplied", &json!({"limit": 100})), unreplied, "{user}");
        }
    }

    #[track_caller]
    fn agree_with_statistics(&mut self, total: &Value, team: &Value, unreplied: &Value) {
        let rows = unreplied["unreplied"]
            .as_array()
            .or(unreplied["rows"].as_array())
            .unwrap_or_else(|| panic!("{unreplied}"));
        let waiting: u64 = rows.iter().map(|row| row["count"].as_u64().unwrap()).sum();
        // Several changes are told at once, and each statistics replaces the one before it: what counts is the last.
        self.fortytwo.message(|push| {
            let all = (push.topic.as_str() == "pb/unread").then(|| Fields::read(&push.payload))?;
            assert_eq!(all.number(1), Some(42));
            let feed =
                all.0.iter().filter(|(field, _, _)| *field == 4).map(|(_, _, feed)| Fields::read(feed));
            let feed = feed.into_iter().find(|feed| feed.text(1) == Some("team")).unwrap_or_default();
            let same = all.number(2) == total["total"].as_u64()
                && all.number(3) == Some(waiting)
                && feed.number(2).unwrap_or(0) == team["unread"].as_u64().unwrap()
                && (feed.0.is_empty() || feed.number(5) == team["read_seq_id"].as_u64());
            same.then_some(())
        });
    }

    /// Whom the receipts of a message name as having read it, over HTTP and over MQTT.
    fn readers(&mut self, seq: u64) -> Vec<String> {
        let receipts = self.get("cem", &format!("/v1/feeds/team/receipts/{seq}"));
        let asked = self.ada.ask("receipts", &json!({"feeds": "team", "seq_id": seq}));
        let names = |receipts: &Value| {
            let members = receipts["members"].as_array().unwrap_or_else(|| panic!("{receipts}"));
            let read = members.iter().filter(|member| !member["read_ms"].is_null());
            let mut names: Vec<String> = read.map(|one| one["uid"].as_str().unwrap().to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&asked), names(&receipts));
        names(&receipts)
    }
}

/// The place in a PUBACK.
fn seq_of(ack: &feedlog_api::mqtt::wire::Ack) -> u64 {
    let place = ack.properties.user().find(|(name, _)| *name == "seq_id").map(|(_, value)| value.to_owned());
    place.unwrap().parse().unwrap()
}

#[test]
fn four_wires_and_one_conversation_over_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, ENGINE);
    let create = json!({"feed_id": "team", "kind": "group", "members": ["ada", "bob", "42"]});
    http(&server.url, "cem", "POST", "/v1/feeds", Some(create));
    // So that 42's own feed, with the marks, is there to be followed.
    http(&server.url, "42", "PUT", "/v1/feeds/team/marks", Some(json!({"read_seq_id": 1})));
    let mut scene = Scene::connect(server, None);
    scene.bob.subscribe("feeds/+");

    // Each sends one.
    let sent =
        scene.ada.ask("send", &json!({"feeds": "team", "payload": {"text": "from ada"}, "msg_id": "a-1"}));
    let ada_1 = sent["SeqId"].as_u64().unwrap();
    assert_eq!(sent["MsgId"], "a-1");
    assert_eq!(scene.all_see(ada_1, "ada")["payload"], json!({"text": "from ada"}));
    assert_eq!(scene.protobuf("pb/message", ada_1).text(3), Some("from ada"));

    let ack =
        scene.bob.publish("feeds/team", json!({"client_msg_id": "b-1", "payload": "from bob"}).to_string());
    let bob_1 = seq_of(&ack);
    assert_eq!(scene.all_see(bob_1, "bob")["payload"], "from bob");
    assert_eq!(scene.protobuf("pb/message", bob_1).text(3), Some("from bob"));

    let asks = json!({"client_msg_id": "c-1", "payload": "from cem, and what do you say, ada?",
        "mentions": ["ada"], "to_reply": true});
    let cem_1 = scene.cem("POST", "/v1/feeds/team/messages", asks)["seq_id"].as_u64().unwrap();
    assert_eq!(scene.all_see(cem_1, "cem")["mentions"], json!(["ada"]));
    let bob_number = scene.protobuf("pb/message", cem_1);
    assert_eq!(bob_number.text(3), Some("from cem, and what do you say, ada?"));

    let body = message(4201, 42, "from 42");
    scene.fortytwo.publish("pb/feeds/team", body);
    let receipt = scene.fortytwo.message(|push| {
        let topic = push.topic.as_str() == "imreceipt://modulus/publish?msg_id=4201";
        topic.then(|| serde_json::from_slice::<Value>(&push.payload).unwrap())
    });
    let pb_1 = receipt["seq_id"].as_u64().unwrap();
    let entry = scene.all_see(pb_1, "42");
    let stored = Fields::read(&STANDARD.decode(entry["payload_base64"].as_str().unwrap()).unwrap());
    assert_eq!((stored.number(2), stored.text(3)), (Some(42), Some("from 42")));
    scene.all_agree();

    // Marks move from every wire. 42's wire has none for that, so 42 uses HTTP.
    assert_eq!(scene.ada.ask("read", &json!({"feeds": "team", "seq_id": bob_1})), "success");
    assert_eq!(scene.bob.ask("read", &json!({"feeds": "team", "seq_id": cem_1})), "success");
    let marks = json!({"read_seq_id": ada_1});
    http(&scene.server.url, "42", "PUT", "/v1/feeds/team/marks", Some(marks));
    scene.all_agree();
    assert_eq!(scene.readers(bob_1), ["ada"]);

    // Acknowledged, and the server is gone before anybody has looked.
    let last = json!({"client_msg_id": "c-2", "payload": "the last before the kill"});
    let cem_2 = scene.cem("POST", "/v1/feeds/team/messages", last.clone())["seq_id"].as_u64().unwrap();
    let Scene { mut server, cem, ada, bob, fortytwo } = scene;
    server.kill();
    drop((ada, bob, fortytwo));
    let mut scene = Scene::connect(Server::start(&data, ENGINE), cem.last_id.as_deref());
    assert!(scene.bob.session_present);
    scene.all_see(cem_2, "cem");
    let again = scene.cem("POST", "/v1/feeds/team/messages", last);
    assert_eq!((&again["seq_id"], &again["duplicate"]), (&json!(cem_2), &json!(true)));
    scene.all_agree();
    assert_eq!(scene.readers(bob_1), ["ada"]);

    // The same message again, on the wire it came on and on another, is the same entry.
    let again =
        scene.ada.ask("send", &json!({"feeds": "team", "payload": {"text": "from ada"}, "msg_id": "a-1"}));
    assert_eq!(again["SeqId"], ada_1);
    let ack =
        scene.bob.publish("feeds/team", json!({"client_msg_id": "b-1", "payload": "from bob"}).to_string());
    assert_eq!(seq_of(&ack), bob_1);
    scene.fortytwo.publish("pb/feeds/team", message(4201, 42, "from 42"));

    // Ada answers cem: nothing waits for her any more.
    let waits = |scene: &Scene| scene.get("ada", "/v1/unreplied?limit=100").to_string().contains("\"team\"");
    assert!(waits(&scene), "cem's question waits");
    let reply = json!({"feeds": "team", "payload": {"text": "yes"}, "msg_id": "a-2", "reply_to": cem_1,
        "seen_seq": cem_2});
    let ada_2 = scene.ada.ask("send", &reply)["SeqId"].as_u64().unwrap();
    assert_eq!(scene.all_see(ada_2, "ada")["reply_to"], cem_1);
    assert_eq!(scene.protobuf("pb/message", ada_2).text(3), Some("yes"));
    assert!(!waits(&scene), "it was answered");
    scene.all_agree();

    // Each recalls what they sent, or another of them does where their wire has no word for it.
    let number = scene.get("cem", &format!("/v1/feeds/team/entries/{bob_1}"));
    assert_eq!(number["client_msg_id"], "b-1");
    let recall =
        scene.bob.ask("recall", &json!({"feeds": "team", "msg_id": "b-1"}))["SeqId"].as_u64().unwrap();
    assert_eq!(scene.all_see(recall, "bob")["target"], bob_1);
    let told = scene.protobuf("pb/service", recall);
    assert_eq!(told.number(4), Some(10), "MESSAGE_RECALL");
    let recalled = scene.get("cem", &format!("/v1/feeds/team/entries/{bob_1}"));
    assert!(recalled["payload"].is_null() && !recalled["recalled"].is_null(), "{recalled}");
    let history = scene.ada.ask("history", &json!({"feeds": "team", "last_seq_id": bob_1 - 1, "limit": 1}));
    let shown = &history["messages"][0];
    assert_eq!(shown["SeqId"], bob_1);
    assert!(shown["Payload"].is_null() && !shown["Recalled"].is_null(), "{shown}");
    let recall = scene.cem("POST", "/v1/feeds/team/recall", json!({"client_msg_id": "c-2"}));
    let recall = recall["seq_id"].as_u64().unwrap();
    assert_eq!(scene.all_see(recall, "cem")["target"], cem_2);
    assert_eq!(scene.protobuf("pb/service", recall).number(4), Some(10));
    scene.all_agree();

    // One log, the same whoever looks.
    let log = scene.get("cem", "/v1/feeds/team/entries?last_seq_id=0&limit=1000");
    for user in ["ada", "bob", "42"] {
        assert_eq!(scene.get(user, "/v1/feeds/team/entries?last_seq_id=0&limit=1000"), log, "{user}");
    }
    let sent = log["entries"].as_array().unwrap().iter().filter(|entry| entry["type"] == "message");
    assert_eq!(sent.count(), 6, "nothing twice: {log}");
    scene.server.terminate();
}
