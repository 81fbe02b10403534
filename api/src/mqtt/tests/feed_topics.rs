//! Feed topics: who may use them, their forms, replay without a hole, marks.

use feedlog_core::command::{Action, RecallTarget};
use feedlog_core::event::Role;
use feedlog_core::ids::{FeedId, SeqId, Uid};
use serde_json::{Value, json};

use super::super::config::{Impush, MqttConfig};
use super::super::wire::{Level, Packet, Properties, Publish, Qos, reason};
use super::world::{Client, World, options, place_of, properties, publish};

const LEVELS: [Level; 3] = [Level::V31, Level::V311, Level::V5];

fn uid(name: &str) -> Uid {
    Uid::parse(name).unwrap()
}

/// Clients of MQTT 3.1 get no pushes beside what they subscribe to.
fn without_pushes() -> World {
    World::with(MqttConfig { free_topics: true, impush: Impush::OnUse, ..MqttConfig::default() })
}

fn json_of(message: &Publish) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

/// The entries that come until the one with this payload, each acknowledged: topic and entry.
async fn entries_until(client: &mut Client, last: &Value) -> Vec<Value> {
    let mut got = Vec::new();
    loop {
        let message = client.message().await;
        if let Some(id) = message.packet_id {
            client.puback(id).await;
        }
        let entry = json_of(&message);
        let ended = entry["payload"] == *last;
        got.push(entry);
        if ended {
            return got;
        }
    }
}

#[tokio::test]
async fn only_members_publish_and_subscribe() {
    let world = World::new();
    world.group("g", &["ada", "bob"]).await;
    for level in LEVELS {
        for user in ["eve", ""] {
            let mut eve = world.connect(level, user, "e").await;
            let code = eve.subscribe("feeds/g", Qos::AtLeastOnce).await;
            let expected = match level {
                Level::V5 => reason::NOT_AUTHORIZED,
                Level::V311 => 0x80,
                Level::V31 => 1,
            };
            assert_eq!(code, expected);
            eve.send(Packet::Publish(publish("feeds/g", r#"{"payload":1}"#, Qos::AtLeastOnce, 1))).await;
            match level {
                Level::V5 => {
                    let Some(Packet::Puback(ack)) = eve.next().await else { panic!("no PUBACK") };
                    assert_eq!(ack.reason, reason::NOT_AUTHORIZED);
                }
                _ => eve.closed().await,
            }
        }
    }
    let mut ada = world.connect(Level::V5, "ada", "a").await;
    assert_eq!(ada.put("feeds/none", r#"{"payload":1}"#).await.reason, reason::NOT_AUTHORIZED);
    assert_eq!(ada.put("feeds/%ff", "x").await.reason, reason::TOPIC_NAME_INVALID);
    assert_eq!(ada.subscribe("feeds/%ff", Qos::AtMostOnce).await, reason::TOPIC_FILTER_INVALID);
    assert_eq!(ada.subscribe("feeds/a/b", Qos::AtMostOnce).await, reason::TOPIC_FILTER_INVALID);
    // No wildcard of free topics leads into a feed, and its name alone does not either.
    assert_eq!(ada.subscribe("#", Qos::AtMostOnce).await, 0);
    assert_eq!(ada.subscribe("g", Qos::AtMostOnce).await, reason::NOT_AUTHORIZED);
    assert_eq!(ada.put("g", "x").await.reason, reason::NOT_AUTHORIZED);
    world.say("bob", "g", "m").await;
    world.say("bob", "end", "m").await;
    assert_eq!(ada.payload("end").await, "m");
}

/// The two forms of a PUBLISH, and the two of what comes.
#[tokio::test]
async fn entries_come_as_json_or_raw_with_their_envelope() {
    let world = World::new();
    world.group("g", &["ada", "bob"]).await;
    let mut whole = world.connect(Level::V5, "bob", "json").await;
    whole.subscribe("feeds/g", Qos::AtLeastOnce).await;
    let mut raw = world.connect(Level::V5, "bob", "raw").await;
    let wants_raw = properties(|p| {
        p.user("format", "raw");
    });
    raw.subscribe_with("feeds/g", options(Qos::AtMostOnce), wants_raw).await;
    let mut ada = world.connect(Level::V5, "ada", "a").await;

    // A JSON object with a payload is the body of the message.
    let body =
        r#"{"payload": {"text": "hi"}, "client_msg_id": "m-1", "mentions": ["bob"], "to_reply": true}"#;
    let first = place_of(&ada.put("feeds/g", body).await).unwrap();
    let message = whole.message().await;
    whole.puback(message.packet_id.unwrap()).await;
    assert_eq!((message.topic.as_str(), message.qos, message.retain), ("feeds/g", Qos::AtLeastOnce, false));
    assert_eq!(message.properties.content_type(), Some("application/json"));
    assert_eq!(message.properties.payload_format_indicator(), Some(1));
    let entry = json_of(&message);
    assert_eq!(
        (&entry["feed_id"], &entry["seq_id"], &entry["sender"], &entry["type"]),
        (&json!("g"), &json!(first.1), &json!("ada"), &json!("message"))
    );
    assert_eq!(entry["payload"], json!({"text": "hi"}));
    assert_eq!((&entry["client_msg_id"], &entry["mentions"]), (&json!("m-1"), &json!(["bob"])));
    let message = raw.message().await;
    assert_eq!(&message.payload[..], br#"{"text": "hi"}"#, "byte for byte");
    let of = |name: &str| {
        message
            .properties
            .user()
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("feed_id"), ["g"]);
    assert_eq!(of("seq_id"), [first.1.to_string()]);
    assert_eq!(of("ordinal"), [first.2.to_string()]);
    assert_eq!(of("prev_seq_id"), [(first.1 - 1).to_string()]);
    assert_eq!(of("time_ms"), [super::world::START_MS.to_string()]);
    assert_eq!(
        (of("sender"), of("type"), of("kind")),
        (vec!["ada".into()], vec!["message".into()], vec!["text".into()])
    );
    assert_eq!((of("client_msg_id"), of("mentions")), (vec!["m-1".into()], vec!["bob".into()]));
    assert_eq!(of("to_reply"), ["true"]);
    assert_eq!(message.properties.content_type(), Some("application/json"));

    // Anything else is the payload, its envelope in user properties.
    let mut own = publish("feeds/g", "\u{1}plain", Qos::AtLeastOnce, 1);
    own.properties = properties(|p| {
        p.content_type("text/plain")
            .user("client_msg_id", "m-2")
            .user("kind", "image")
            .user("reply_to", &first.1.to_string())
            .user("mentions", "ada")
            .user("mentions", "bob")
            .user("auto", "true")
            .user("their", "own");
    });
    let second = place_of(&ada.put_packet(own.clone()).await).unwrap();
    let again = place_of(&ada.put_packet(own).await).unwrap();
    assert_eq!(second, again, "one client_msg_id is one message (P3)");
    let entry = world.gate("bob").entry(&FeedId::parse("g").unwrap(), SeqId(second.1)).await.unwrap();
    assert_eq!(entry.entry.payload.bytes().unwrap(), "\u{1}plain");
    let stored = entry.entry.message().unwrap();
    assert_eq!((stored.reply_to, stored.mentions.len(), stored.auto), (Some(SeqId(first.1)), 2, true));
    let message = raw.message().await;
    assert_eq!(
        (&message.payload[..], message.properties.content_type()),
        (&b"\x01plain"[..], Some("text/plain"))
    );
    let entry = json_of(&whole.message().await);
    assert_eq!((&entry["kind"], &entry["reply_to"]), (&json!("image"), &json!(first.1)));

    // `format` decides where it could be either.
    let mut either = publish("feeds/g", r#"{"payload":1}"#, Qos::AtLeastOnce, 1);
    either.properties = properties(|p| {
        p.user("format", "raw");
    });
    ada.put_packet(either.clone()).await;
    assert_eq!(&raw.message().await.payload[..], br#"{"payload":1}"#);
    either.properties = properties(|p| {
        p.user("format", "json");
    });
    ada.put_packet(either.clone()).await;
    assert_eq!(&raw.message().await.payload[..], b"1");
    for (name, value) in [("format", "xml"), ("reply_to", "x"), ("kind", "nothing"), ("client_msg_id", "")] {
        either.properties = properties(|p| {
            p.user(name, value);
        });
        either.payload = "x".into();
        let ack = ada.put_packet(either.clone()).await;
        assert_eq!(ack.reason, reason::IMPLEMENTATION_SPECIFIC_ERROR, "{name}");
    }
    raw.quiet().await;
}

/// What is not a message comes as well, and a recalled payload never (P6).
#[tokio::test]
async fn everything_that_happens_in_a_feed_comes() {
    let world = World::new();
    world.group("g", &["ada", "bob"]).await;
    let mut bob = world.connect(Level::V311, "bob", "b").await;
    bob.subscribe("feeds/g", Qos::AtLeastOnce).await;
    let seq = world.say("ada", "g", "secret").await;
    let message = bob.message().await;
    assert_eq!(json_of(&message)["seq_id"], seq.0);
    world.act("ada", "g", Action::AddMember { uid: uid("cy"), role: Role::Member }).await;
    assert_eq!(json_of(&bob.message().await)["type"], "member_joined");
    let recall = Action::RecallMessage { target: RecallTarget::Seq(seq), reason: None };
    world.act("ada", "g", recall).await;
    let entry = json_of(&bob.message().await);
    assert_eq!((&entry["type"], &entry["target"]), (&json!("recall"), &json!(seq.0)));
    let mut late = world.connect(Level::V311, "bob", "late").await;
    late.subscribe("$from/0/feeds/g", Qos::AtMostOnce).await;
    loop {
        let message = late.message().await;
        assert!(!String::from_utf8_lossy(&message.payload).contains("secret"));
        let entry = json_of(&message);
        if entry["event"] == "caught_up" {
            break;
        }
    }
}

#[tokio::test]
async fn names_are_percent_encoded() {
    let world = World::new();
    let name = "ä/b c+#%$:";
    world.group(name, &["ada"]).await;
    let mut ada = world.connect(Level::V5, "ada", "a").await;
    let topic = "feeds/%C3%A4%2Fb%20c%2B%23%25%24:";
    for filter in [topic, "feeds/ä%2fb c%2b%23%25$:"] {
        assert_eq!(ada.subscribe(filter, Qos::AtMostOnce).await, 0);
    }
    for to in [topic, "feeds/%c3%a4%2fb%20c%2b%23%25$%3a"] {
        ada.send(Packet::Publish(publish(to, r#"{"payload":1}"#, Qos::AtMostOnce, 0))).await;
        let message = ada.message().await;
        assert_eq!(message.topic.as_str(), topic);
        assert_eq!(json_of(&message)["feed_id"], name);
        ada.quiet().await;
    }
}

/// `feeds/+`: all of the user's feeds, those that are joined later included; one that is left ends.
#[tokio::test]
async fn all_feeds_of_a_user_come_also_those_that_are_joined_later() {
    let world = without_pushes();
    world.group("one", &["ada", "bob"]).await;
    world.group("two", &["ada"]).await;
    for level in LEVELS {
        let mut bob = world.connect(level, "bob", "b").await;
        assert_eq!(bob.subscribe("feeds/+", Qos::AtMostOnce).await, 0);
        let three = format!("three-{level:?}");
        world.say("ada", "two", "not his").await;
        world.say("ada", "one", "his").await;
        let message = bob.message().await;
        assert_eq!(message.topic.as_str(), "feeds/one");
        world.group(&three, &["ada", "bob"]).await;
        world.say("ada", &three, "new").await;
        let topic = format!("feeds/{three}");
        let mut kinds = Vec::new();
        while kinds.last() != Some(&json!("message")) {
            let message = bob.message().await;
            if message.topic.as_str() == topic {
                kinds.push(json_of(&message)["type"].clone());
            }
        }
        world.act("ada", &three, Action::RemoveMember { uid: uid("bob"), reason: None }).await;
        world.say("ada", &three, "without him").await;
        world.say("ada", "one", "end").await;
        loop {
            let message = bob.message().await;
            let entry = json_of(&message);
            assert_ne!(entry["payload_base64"], "d2l0aG91dCBoaW0=");
            if message.topic.as_str() == "feeds/one" {
                break;
            }
        }
        bob.quiet().await;
    }
}

/// DESIGN P4: a removed member's subscription ends at that entry, for ever.
#[tokio::test]
async fn removal_ends_the_subscription() {
    let world = without_pushes();
    for level in LEVELS {
        let feed = format!("g-{level:?}");
        world.group(&feed, &["ada", "bob"]).await;
        let topic = format!("feeds/{feed}");
        let (mut bob, _) = world.resume(level, "bob", &feed).await;
        bob.subscribe(&topic, Qos::AtLeastOnce).await;
        bob.subscribe("end", Qos::AtMostOnce).await;
        world.say("ada", &feed, "1").await;
        let message = bob.message().await;
        bob.puback(message.packet_id.unwrap()).await;
        world.act("ada", &feed, Action::RemoveMember { uid: uid("bob"), reason: None }).await;
        world.say("ada", &feed, "2").await;
        world.say("ada", "end", "x").await;
        let mut last = bob.message().await;
        while last.topic.as_str() != "end" {
            assert_eq!(json_of(&last)["type"], "member_removed", "{last:?}");
            bob.puback(last.packet_id.unwrap()).await;
            last = bob.message().await;
        }
        bob.quiet().await;
        bob.send(Packet::Publish(publish(&topic, r#"{"payload":1}"#, Qos::AtLeastOnce, 1))).await;
        match bob.next().await {
            Some(Packet::Puback(ack)) => {
                assert_eq!(ack.reason, reason::NOT_AUTHORIZED, "nor may he publish");
                bob.leave().await;
            }
            other => assert_eq!((other, level != Level::V5), (None, true)),
        }
        let (mut bob, _) = world.resume(level, "bob", &feed).await;
        world.act("ada", &feed, Action::AddMember { uid: uid("bob"), role: Role::Member }).await;
        world.say("ada", &feed, "3").await;
        world.say("ada", "end", "y").await;
        assert_eq!(bob.payload("end").await, "y", "back in, he subscribes again");
        bob.quiet().await;
    }
}

/// Replay by the user property, or by the form of the filter; a marker where it ends; then live, without a hole.
#[tokio::test]
async fn a_replay_goes_over_into_what_is_live_without_a_hole() {
    let world = without_pushes();
    world.group("g", &["ada", "bob"]).await;
    for number in 0..50 {
        world.say("ada", "g", &format!("{number}")).await;
    }
    let mut round = 0;
    for (level, filter, property) in [
        (Level::V31, "$from/3/feeds/g", None),
        (Level::V311, "$from/3/feeds/g", None),
        (Level::V5, "$from/3/feeds/g", None),
        (Level::V5, "feeds/g", Some("3")),
        (Level::V5, "$from/3/feeds/g", Some("40")),
    ] {
        round += 1;
        let end = format!("end {round}");
        let mut bob = world.connect(level, "bob", "b").await;
        let asked = match property {
            Some(from) => properties(|p| {
                p.user("last_seq_id", from);
            }),
            None => Properties::default(),
        };
        let writer = async {
            for number in 0..50 {
                world.say("ada", "g", &format!("live {number}")).await;
            }
            world.say_as("ada", "g", "application/json", &json!(end).to_string()).await
        };
        let reader = async {
            assert_eq!(bob.subscribe_with(filter, options(Qos::AtLeastOnce), asked).await, 1);
            let mut seqs = Vec::new();
            let mut caught_up = None;
            loop {
                let message = bob.message().await;
                assert_eq!(message.topic.as_str(), "feeds/g");
                if let Some(id) = message.packet_id {
                    bob.puback(id).await;
                }
                let entry = json_of(&message);
                if entry["event"] == "caught_up" {
                    assert!(caught_up.is_none(), "once");
                    assert_eq!(entry["feed_id"], "g");
                    if level == Level::V5 {
                        assert_eq!(message.properties.user().next(), Some(("event", "caught_up")));
                    }
                    caught_up = Some((entry["head_seq_id"].as_u64().unwrap(), seqs.last().copied()));
                    continue;
                }
                seqs.push(entry["seq_id"].as_u64().unwrap());
                if entry["payload"] == *end {
                    return (seqs, caught_up);
                }
            }
        };
        let (last, (seqs, caught_up)) = tokio::join!(writer, reader);
        let expected: Vec<u64> = (4..=last.0).collect();
        assert_eq!(seqs, expected, "{level:?} {filter} {property:?}");
        if let Some((head, before)) = caught_up {
            assert!(before >= Some(head), "all up to the head came before the marker");
        } else {
            let marker = json_of(&bob.message().await);
            assert_eq!(marker["event"], "caught_up");
        }
    }
    let mut bob = world.connect(Level::V5, "bob", "b").await;
    for bad in ["x", "-1", "9007199254740992", ""] {
        let asked = properties(|p| {
            p.user("last_seq_id", bad);
        });
        let code = bob.subscribe_with("feeds/g", options(Qos::AtLeastOnce), asked).await;
        assert_eq!(code, reason::IMPLEMENTATION_SPECIFIC_ERROR, "{bad:?}");
    }
    // At the head there is nothing, and the marker says so.
    let head = world.gate("bob").feed(&FeedId::parse("g").unwrap()).await.unwrap();
    let asked = properties(|p| {
        p.user("last_seq_id", &head.head.0.to_string());
    });
    bob.subscribe_with("feeds/g", options(Qos::AtLeastOnce), asked).await;
    assert_eq!(json_of(&bob.message().await)["event"], "caught_up");
    bob.quiet().await;
}

/// DESIGN §3: what a client acknowledges counts as received; what it refuses or has not acknowledged does not.
#[tokio::test]
async fn acknowledgements_move_the_received_mark() {
    for checkpoint_ms in [1, 3_600_000] {
        let world = World::with(MqttConfig { free_topics: true, checkpoint_ms, ..MqttConfig::default() });
        world.group("g", &["ada", "bob"]).await;
        let feed = FeedId::parse("g").unwrap();
        for persistent in [false, true] {
            let mut bob = match persistent {
                false => world.connect(Level::V5, "bob", "b").await,
                true => world.resume(Level::V5, "bob", "b").await.0,
            };
            bob.subscribe("feeds/g", Qos::ExactlyOnce).await;
            let first = world.say("ada", "g", "1").await;
            let second = world.say("ada", "g", "2").await;
            let third = world.say("ada", "g", "3").await;
            let messages = [bob.message().await, bob.message().await, bob.message().await];
            assert_eq!(json_of(&messages[2])["seq_id"], third.0);
            let before = world.gate("bob").marks(&feed).await.unwrap().received_seq;
            assert!(before < first, "nothing was acknowledged");
            let ids: Vec<_> = messages.iter().map(|message| message.packet_id.unwrap()).collect();
            for id in &ids[..2] {
                bob.send(Packet::Pubrec(super::world::ack(*id))).await;
                bob.next().await;
                bob.send(Packet::Pubcomp(super::world::ack(*id))).await;
            }
            let refused = super::super::wire::Ack { reason: 0x80, ..super::world::ack(ids[2]) };
            bob.send(Packet::Pubrec(refused)).await;
            bob.quiet().await;
            bob.leave().await;
            assert_eq!(world.gate("bob").marks(&feed).await.unwrap().received_seq, second);
        }
    }
}

/// The payload of a PUBLISH and the entry over the native interface are the same.
#[tokio::test]
async fn what_comes_is_what_the_store_has() {
    let world = World::new();
    world.group("g", &["ada", "bob"]).await;
    let mut bob = world.connect(Level::V311, "bob", "b").await;
    bob.subscribe("feeds/g", Qos::AtLeastOnce).await;
    let mut ada = world.connect(Level::V31, "ada", "a").await;
    ada.put("feeds/g", r#"{"payload":{"a":1.50},"client_msg_id":"x"}"#).await;
    ada.put("feeds/g", "bytes").await;
    ada.put("feeds/g", r#"{"payload":"end"}"#).await;
    let got = entries_until(&mut bob, &json!("end")).await;
    for entry in got {
        let seq = SeqId(entry["seq_id"].as_u64().unwrap());
        let view = world.gate("bob").entry(&FeedId::parse("g").unwrap(), seq).await.unwrap();
        let stored: Value = serde_json::from_slice(&super::super::feeds::entry_json(&view)).unwrap();
        assert_eq!(entry, stored);
    }
}

/// A feed has several spellings in percent-encoding; clients look for the filter that a topic matches.
#[tokio::test]
async fn a_feed_topic_comes_back_as_the_client_wrote_it() {
    let world = World::new();
    world.group("a b:c", &["ada", "bob"]).await;
    for (filter, topic) in [
        ("feeds/a%20b%3Ac", "feeds/a%20b%3Ac"),
        ("feeds/a b:c", "feeds/a b:c"),
        ("feeds/+", "feeds/a%20b:c"),
        ("$from/0/feeds/a b:c", "feeds/a%20b:c"),
    ] {
        let mut bob = world.connect(Level::V311, "bob", "b").await;
        bob.subscribe(filter, Qos::AtLeastOnce).await;
        world.say("ada", "a b:c", "x").await;
        assert_eq!(bob.message().await.topic.as_str(), topic, "{filter}");
        bob.leave().await;
    }
}
