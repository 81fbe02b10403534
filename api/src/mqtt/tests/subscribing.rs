//! SUBSCRIBE and UNSUBSCRIBE: codes in order, what each filter means, options, quotas, access.

use std::collections::BTreeSet;

use feedlog_core::ids::{FeedId, SeqId};

use super::super::config::MqttConfig;
use super::super::wire::{Level, Packet, Properties, Qos, Subscribe, SubscribeOptions, Unsubscribe, reason};
use super::world::{Client, World, ack, id, options, place_of, properties, publish, text};

const LEVELS: [Level; 3] = [Level::V31, Level::V311, Level::V5];

/// SUBSCRIBE to several filters: the codes.
async fn subscribe_all(client: &mut Client, filters: &[&str]) -> Vec<u8> {
    let filters = filters.iter().map(|filter| (text(filter), options(Qos::AtLeastOnce))).collect();
    let subscribe = Subscribe { packet_id: id(21), properties: Properties::default(), filters };
    client.send(Packet::Subscribe(subscribe)).await;
    match client.next().await {
        Some(Packet::Suback(suback)) => {
            assert_eq!(suback.packet_id, id(21));
            suback.reasons
        }
        other => panic!("not a SUBACK: {other:?}"),
    }
}

async fn unsubscribe_all(client: &mut Client, filters: &[&str]) -> Vec<u8> {
    let filters = filters.iter().map(|filter| text(filter)).collect();
    let unsubscribe = Unsubscribe { packet_id: id(22), properties: Properties::default(), filters };
    client.send(Packet::Unsubscribe(unsubscribe)).await;
    match client.next().await {
        Some(Packet::Unsuback(unsuback)) => {
            assert_eq!(unsuback.packet_id, id(22));
            unsuback.reasons
        }
        other => panic!("not an UNSUBACK: {other:?}"),
    }
}

/// `[MQTT-3.8.4-1]`, `[MQTT-3.8.4-2]`, `[MQTT-3.8.4-5]` (3.1.1), MQTT5 `[MQTT-3.8.4-6]`, `[MQTT-3.9.3-1]`: one code for
/// each filter, in their order. MQTT 3.1 has no code for a refusal: granted, and nothing is delivered.
#[tokio::test]
async fn a_suback_has_one_code_for_each_filter_in_order() {
    let world = World::new();
    world.group("theirs", &["bob"]).await;
    world.group("mine", &["ada"]).await;
    let filters = [
        "a/b",
        "feeds/theirs",
        "feeds/mine",
        "$from/x/feeds/mine",
        "#",
        "feeds/none",
        "feeds/+",
        "pb/unread",
    ];
    for level in LEVELS {
        let mut client = world.connect(level, "ada", "c").await;
        let no = |code| match level {
            Level::V5 => code,
            Level::V311 => 0x80,
            Level::V31 => 1,
        };
        // What has no meaning at all is not granted with a QoS even in 3.1.
        let bad = if level == Level::V31 { 0 } else { no(reason::TOPIC_FILTER_INVALID) };
        let refused = no(reason::NOT_AUTHORIZED);
        assert_eq!(subscribe_all(&mut client, &filters).await, [1, refused, 1, bad, 1, refused, 1, 1]);
    }
}

#[tokio::test]
async fn what_mqtt_3_1_grants_against_the_rules_delivers_nothing_now_or_later() {
    for free_topics in [true, false] {
        let world = World::with(MqttConfig { free_topics, ..MqttConfig::default() });
        world.group("theirs", &["bob"]).await;
        let filters = if free_topics { vec!["feeds/theirs"] } else { vec!["feeds/theirs", "a/b", "a/#"] };
        let (mut client, _) = world.resume(Level::V31, "ada", "c").await;
        let codes = subscribe_all(&mut client, &filters).await;
        assert_eq!(codes, vec![1; filters.len()]);
        for (index, text) in ["first", "second"].into_iter().enumerate() {
            world.say("bob", "theirs", text).await;
            world.say("bob", "a/b", text).await;
            let mut other = world.connect(Level::V311, "bob", "sentinel").await;
            assert_eq!(other.subscribe("feeds/theirs", Qos::AtMostOnce).await, 0);
            world.say("bob", "theirs", "now").await;
            other.message().await;
            client.quiet().await;
            client.leave().await;
            client = world.resume(Level::V31, "ada", "c").await.0;
            assert!(index < 2);
        }
        client.quiet().await;
    }
}

/// The quota of one session: at the limit, one past, and free again.
#[tokio::test]
async fn subscriptions_are_taken_up_to_the_quota() {
    let world = World::with(MqttConfig { free_topics: true, subscriptions_max: 3, ..MqttConfig::default() });
    let mut client = world.connect(Level::V5, "", "c").await;
    assert_eq!(subscribe_all(&mut client, &["a", "b"]).await, [1, 1]);
    let full = reason::QUOTA_EXCEEDED;
    assert_eq!(subscribe_all(&mut client, &["a", "c", "d", "b", "c"]).await, [1, 1, full, 1, 1]);
    assert_eq!(unsubscribe_all(&mut client, &["a"]).await, [0]);
    assert_eq!(subscribe_all(&mut client, &["d", "e"]).await, [1, full]);
    let mut client = world.connect(Level::V311, "", "d").await;
    assert_eq!(subscribe_all(&mut client, &["a", "b", "c", "d"]).await, [1, 1, 1, 0x80]);
}

/// `[MQTT-3.10.4-1]` to `[MQTT-3.10.4-6]`: always answered, one code each in MQTT 5; filters are compared as they are
/// written, and nothing comes afterwards.
#[tokio::test]
async fn an_unsuback_has_one_code_for_each_filter_and_nothing_comes_afterwards() {
    let world = World::new();
    for level in LEVELS {
        let mut client = world.connect(level, "", "c").await;
        assert_eq!(subscribe_all(&mut client, &["u/+", "u/x", "u/end"]).await, [1, 1, 1]);
        let none = reason::NO_SUBSCRIPTION_EXISTED;
        let codes = unsubscribe_all(&mut client, &["u/y", "u/+", "u/+", "U/X"]).await;
        assert_eq!(codes, if level == Level::V5 { vec![none, 0, none, none] } else { vec![] });
        let mut writer = world.connect(level, "", "w").await;
        writer.put("u/x", "still").await;
        let message = client.message().await;
        assert_eq!(&message.payload[..], b"still");
        client.puback(message.packet_id.unwrap()).await;
        let codes = unsubscribe_all(&mut client, &["u/x"]).await;
        assert_eq!(codes.len(), usize::from(level == Level::V5));
        writer.put("u/x", "no more").await;
        writer.put("u/end", "end").await;
        assert_eq!(client.payload("u/end").await, "end");
        client.quiet().await;
    }
}

/// `[MQTT-3.10.4-3]`: what was on its way when the subscription ended is brought to its end.
#[tokio::test]
async fn a_message_on_its_way_is_completed_after_unsubscribing() {
    let world = World::new();
    for level in LEVELS {
        let mut client = world.connect(level, "", "c").await;
        client.subscribe("u/x", Qos::ExactlyOnce).await;
        world.say("bob", "u/x", "m").await;
        let message = client.message().await;
        unsubscribe_all(&mut client, &["u/x"]).await;
        let number = message.packet_id.unwrap();
        client.send(Packet::Pubrec(ack(number))).await;
        assert!(matches!(client.next().await, Some(Packet::Pubrel(rel)) if rel.packet_id == number));
        client.send(Packet::Pubcomp(ack(number))).await;
        client.quiet().await;
    }
}

/// `[MQTT-3.8.4-3]`: the same filter again replaces the subscription; its options are the new ones.
#[tokio::test]
async fn an_identical_filter_replaces_the_subscription() {
    let world = World::new();
    let mut client = world.connect(Level::V5, "ada", "c").await;
    for (qos, number) in [(Qos::ExactlyOnce, 7), (Qos::AtMostOnce, 8), (Qos::AtLeastOnce, 9)] {
        let identifier = properties(|p| {
            p.subscription_identifier(number);
        });
        assert_eq!(client.subscribe_with("i/+", options(qos), identifier).await, qos as u8);
        world.say("bob", "i/x", "once").await;
        let message = client.message().await;
        assert_eq!(message.qos, qos);
        assert_eq!(message.properties.subscription_identifiers().collect::<Vec<_>>(), [number]);
        if let Some(id) = message.packet_id {
            match qos {
                Qos::ExactlyOnce => {
                    client.send(Packet::Pubrec(ack(id))).await;
                    client.next().await;
                    client.send(Packet::Pubcomp(ack(id))).await;
                }
                _ => client.puback(id).await,
            }
        }
        client.quiet().await;
    }
    // Without an identifier it has none.
    assert_eq!(client.subscribe("i/+", Qos::AtMostOnce).await, 0);
    world.say("bob", "i/x", "once").await;
    let message = client.message().await;
    assert_eq!(message.properties.subscription_identifiers().count(), 0);
    assert_eq!(unsubscribe_all(&mut client, &["i/+", "i/+"]).await, [0, reason::NO_SUBSCRIPTION_EXISTED]);
}

/// `[MQTT-3.8.4-4]`, 3.1.1 `[MQTT-3.8.4-3]`: nothing is lost while a subscription is replaced.
#[tokio::test]
async fn nothing_is_lost_while_a_subscription_is_replaced() {
    let world = World::new();
    for (filter, topic) in [("rep/+", "rep/x"), ("rep/y", "rep/y")] {
        let mut client = world.connect(Level::V5, "", "c").await;
        let never = SubscribeOptions { retain_handling: 2, ..options(Qos::AtMostOnce) };
        client.subscribe_with(filter, never, Properties::default()).await;
        let writer = async {
            for number in 0..200 {
                world.say("bob", topic, &number.to_string()).await;
            }
            world.say("bob", topic, "end").await;
        };
        let reader = async {
            let mut got = Vec::new();
            for round in 0.. {
                let filters = vec![(text(filter), never)];
                let packet_id = id(round % 100 + 1);
                let subscribe = Subscribe { packet_id, properties: Properties::default(), filters };
                client.send(Packet::Subscribe(subscribe)).await;
                loop {
                    match client.next().await {
                        Some(Packet::Publish(message)) if &message.payload[..] == b"end" => return got,
                        Some(Packet::Publish(message)) => {
                            got.push(String::from_utf8(message.payload.to_vec()).unwrap());
                        }
                        Some(Packet::Suback(_)) => break,
                        other => panic!("{other:?}"),
                    }
                }
            }
            unreachable!()
        };
        let ((), got) = tokio::join!(writer, reader);
        let expected: Vec<String> = (0..200).map(|number| number.to_string()).collect();
        assert_eq!(got, expected, "{filter}");
    }
}

/// `[MQTT-3.3.5-1]` (3.1.1), MQTT5 `[MQTT-3.3.4-2]` to `[MQTT-3.3.4-5]`: once, at the highest QoS granted, with the
/// identifiers of all that match; `[MQTT-3.8.4-8]`: never above the QoS it was published with.
#[tokio::test]
async fn overlapping_subscriptions_get_a_message_once_with_all_identifiers() {
    let world = World::new();
    for level in LEVELS {
        let mut client = world.connect(level, "", "c").await;
        for (filter, qos, number) in [
            ("o/#", Qos::AtMostOnce, 1),
            ("o/+", Qos::ExactlyOnce, 200),
            ("o/x", Qos::AtLeastOnce, 268_435_455),
        ] {
            let identifier = properties(|p| {
                p.subscription_identifier(number);
            });
            let identifier = if level == Level::V5 { identifier } else { Properties::default() };
            client.subscribe_with(filter, options(qos), identifier).await;
        }
        client.subscribe("elsewhere", Qos::ExactlyOnce).await;
        let mut writer = world.connect(level, "", "w").await;
        for (published, number) in [(Qos::AtMostOnce, 0), (Qos::AtLeastOnce, 3), (Qos::ExactlyOnce, 4)] {
            writer.send(Packet::Publish(publish("o/x", "m", published, number))).await;
            let message = client.message().await;
            assert_eq!(message.qos, published, "the lower of what was published and granted");
            if level == Level::V5 {
                let identifiers: BTreeSet<u32> = message.properties.subscription_identifiers().collect();
                assert_eq!(identifiers, [1, 200, 268_435_455].into());
            }
            client.quiet().await;
        }
    }
}

/// `[MQTT-3.8.3-3]`: No Local; of the session and not of the user.
#[tokio::test]
async fn no_local_keeps_away_what_the_session_itself_published() {
    let world = World::new();
    world.group("g", &["ada"]).await;
    let mut client = world.connect(Level::V5, "ada", "one").await;
    let no_local = SubscribeOptions { no_local: true, ..options(Qos::AtMostOnce) };
    for filter in ["l/#", "feeds/g"] {
        assert_eq!(client.subscribe_with(filter, no_local, Properties::default()).await, 0);
    }
    let mut other = world.connect(Level::V5, "ada", "two").await;
    for topic in ["l/x", "feeds/g"] {
        client.put(topic, r#"{"payload":"own"}"#).await;
        other.put(topic, r#"{"payload":"other"}"#).await;
        let message = client.message().await;
        assert_eq!(message.topic.as_str(), topic);
        assert!(String::from_utf8_lossy(&message.payload).contains(r#""other""#));
    }
    // An overlapping subscription without the option gets it.
    client.subscribe("l/x", Qos::AtMostOnce).await;
    client.send(Packet::Publish(publish("l/x", "own", Qos::AtMostOnce, 0))).await;
    assert_eq!(client.payload("l/x").await, "own");
    client.quiet().await;
}

/// §4.7: `#` stands for all levels and its parent, `+` for one, neither for what begins with `$` at its own beginning
/// (`[MQTT-4.7.2-1]`); topics are compared character by character (`[MQTT-4.7.3-4]`).
#[tokio::test]
async fn filters_mean_what_they_say() {
    let world = World::new();
    let topics = ["w", "w/", "w/a", "w/a/b", "/w", "W/a", "w/é", "w/e\u{301}", "$w/a", "$w", "x/$w", "/"];
    let cases: [(&str, &[&str]); 14] = [
        ("#", &["w", "w/", "w/a", "w/a/b", "/w", "W/a", "w/é", "w/e\u{301}", "x/$w", "/"]),
        ("+", &["w"]),
        ("+/+", &["w/", "w/a", "/w", "W/a", "w/é", "w/e\u{301}", "x/$w", "/"]),
        ("/+", &["/w", "/"]),
        ("w/#", &["w", "w/", "w/a", "w/a/b", "w/é", "w/e\u{301}"]),
        ("w/+", &["w/", "w/a", "w/é", "w/e\u{301}"]),
        ("w/+/b", &["w/a/b"]),
        ("+/a", &["w/a", "W/a"]),
        ("+/a/#", &["w/a", "w/a/b", "W/a"]),
        ("$w/#", &["$w/a", "$w"]),
        ("$w/+", &["$w/a"]),
        ("x/+", &["x/$w"]),
        ("w/é", &["w/é"]),
        ("/", &["/"]),
    ];
    let mut clients = Vec::new();
    for (filter, expected) in cases {
        let mut client = world.connect(Level::V311, "", filter).await;
        assert_eq!(subscribe_all(&mut client, &[filter, "zz/end"]).await, [1, 1]);
        clients.push((client, filter, expected));
    }
    let mut writer = world.connect(Level::V311, "", "writer").await;
    for topic in topics {
        writer.put(topic, "m").await;
    }
    writer.put("zz/end", "m").await;
    for (mut client, filter, expected) in clients {
        let mut got = BTreeSet::new();
        let expected: BTreeSet<&str> = expected.iter().copied().collect();
        let mut ended = false;
        while !ended || got.len() < expected.len() {
            let message = client.message().await;
            client.puback(message.packet_id.unwrap()).await;
            match message.topic.as_str() {
                "zz/end" => ended = true,
                topic => assert!(got.insert(topic.to_owned()), "{filter}: {topic} twice"),
            }
        }
        client.quiet().await;
        assert_eq!(got.iter().map(String::as_str).collect::<BTreeSet<_>>(), expected, "{filter}");
    }
}

/// The access control file, for both directions and at every place.
#[tokio::test]
async fn the_access_control_file_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acl");
    let rules = "topic read public/#\nuser ada\ntopic notes/#\ntopic write public/#\ntopic deny notes/secret\n\
                 pattern readwrite own/%u/#\n";
    std::fs::write(&path, rules).unwrap();
    let world = World::with(MqttConfig { free_topics: true, acl_file: Some(path), ..MqttConfig::default() });
    let mut ada = world.connect(Level::V5, "ada", "a").await;
    let no = reason::NOT_AUTHORIZED;
    for (topic, code) in [
        ("notes/a", 0),
        ("notes/secret", no),
        ("public/a", 0),
        ("own/ada/x", 0),
        ("own/bob/x", no),
        ("else", no),
    ] {
        for (qos, number) in [(Qos::AtLeastOnce, 1), (Qos::ExactlyOnce, 2)] {
            let ack = ada.put_packet(publish(topic, "m", qos, number)).await;
            assert_eq!(ack.reason, code, "{topic}");
            if code == 0 && qos == Qos::ExactlyOnce {
                ada.send(Packet::Pubrel(super::world::ack(id(2)))).await;
                ada.next().await;
            }
        }
    }
    let codes =
        subscribe_all(&mut ada, &["notes/a", "notes/secret", "public/a", "own/ada/x", "own/bob/x"]).await;
    assert_eq!(codes, [1, no, no, 1, no]);
    // A wildcard is granted, and brings what may be read.
    assert_eq!(unsubscribe_all(&mut ada, &["notes/a", "own/ada/x"]).await, [0, 0]);
    assert_eq!(subscribe_all(&mut ada, &["#"]).await, [1]);
    let mut nobody = world.connect(Level::V311, "", "n").await;
    assert_eq!(subscribe_all(&mut nobody, &["public/#", "notes/a"]).await, [1, 0x80]);
    for topic in ["notes/secret", "own/bob/y", "public/x", "notes/end"] {
        world.say("bob", topic, "m").await;
    }
    assert_eq!(ada.payload("notes/end").await, "m");
    assert_eq!(nobody.payload("public/x").await, "m");
    nobody.send(Packet::Publish(publish("public/x", "m", Qos::AtLeastOnce, 1))).await;
    nobody.closed().await;
}

/// A subscription is from now on: what was there before is history, read with `$from` or over HTTP.
#[tokio::test]
async fn a_subscription_begins_now() {
    let world = World::new();
    let mut writer = world.connect(Level::V5, "", "w").await;
    let before = place_of(&writer.put("n/x", "before").await).unwrap();
    let mut client = world.connect(Level::V5, "", "c").await;
    client.subscribe("n/#", Qos::AtLeastOnce).await;
    writer.put("n/x", "after").await;
    assert_eq!(client.payload("n/x").await, "after");
    let entry = world.gate("eve").entry(&FeedId::parse("n/x").unwrap(), SeqId(before.1)).await.unwrap();
    assert_eq!(entry.entry.payload.bytes().unwrap(), "before");
}
