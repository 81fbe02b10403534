//! SUBSCRIBE and UNSUBSCRIBE: codes in order, what each filter means, options, quotas, windows of the client.

use std::collections::BTreeSet;

use feedlog_core::ids::{FeedId, SeqId};

use super::super::config::MqttConfig;
use super::super::wire::{
    Ack, Level, Packet, Properties, Publish, Qos, Subscribe, SubscribeOptions, Unsubscribe, reason,
};
use super::world::{Client, World, ack, connect, id, lasting, options, place_of, properties, publish, text};

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

/// A connection of MQTT 5 with these properties in its CONNECT.
async fn with(
    world: &World,
    user: &str,
    name: &str,
    fill: impl Fn(&mut super::super::wire::PropertyWriter),
) -> Client {
    let mut client = world.client(Level::V5);
    let mut hello =
        if user.is_empty() { connect(Level::V5, user, name) } else { lasting(Level::V5, user, name) };
    hello.properties = properties(|p| {
        if !user.is_empty() {
            p.session_expiry_s(3600);
        }
        fill(p);
    });
    assert_eq!(client.connect(hello).await.reason, 0);
    client
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

/// `[MQTT-4.9.0-1]`, `[MQTT-4.9.0-2]`, `[MQTT-3.3.4-9]`: never more than the client takes; `[MQTT-4.9.0-3]`: all else flows.
#[tokio::test]
async fn the_window_of_the_client_is_respected() {
    let world = World::new();
    let mut client = with(&world, "", "c", |p| {
        p.receive_maximum(2);
    })
    .await;
    client.subscribe("r/x", Qos::ExactlyOnce).await;
    let mut writer = world.connect(Level::V5, "", "w").await;
    for number in 0..3 {
        writer.put("r/x", &format!("{number}")).await;
    }
    writer.put_packet(publish("r/x", "3", Qos::ExactlyOnce, 1)).await;
    writer.put_packet(publish("r/x", "4", Qos::ExactlyOnce, 2)).await;
    let first = client.message().await;
    let second = client.message().await;
    assert_eq!((&first.payload[..], &second.payload[..]), (&b"0"[..], &b"1"[..]));
    client.quiet().await;
    // SUBSCRIBE, PUBLISH and their answers need no quota.
    assert_eq!(client.subscribe("r/y", Qos::AtLeastOnce).await, 1);
    assert_eq!(client.put("r/z", "x").await.reason, 0);
    // Out of order is legal; each frees one place.
    client.puback(second.packet_id.unwrap()).await;
    assert_eq!(&client.message().await.payload[..], b"2");
    client.quiet().await;
    client.puback(first.packet_id.unwrap()).await;
    let two = client.message().await;
    assert_eq!((&two.payload[..], two.qos), (&b"3"[..], Qos::ExactlyOnce));
    client.quiet().await;
    // PUBREC does not free the place, PUBCOMP does.
    let number = two.packet_id.unwrap();
    client.send(Packet::Pubrec(ack(number))).await;
    assert!(matches!(client.next().await, Some(Packet::Pubrel(_))));
    client.quiet().await;
    client.send(Packet::Pubcomp(ack(number))).await;
    assert_eq!(&client.message().await.payload[..], b"4");
    client.quiet().await;
}

/// `[MQTT-4.3.3-4]` (as a sender), §4.3.3: PUBREC of 0x80 or more ends it: no PUBREL, the place is free, it does not come again.
#[tokio::test]
async fn a_message_that_the_client_refuses_is_over() {
    let world = World::new();
    let mut client = with(&world, "ada", "c", |p| {
        p.receive_maximum(1);
    })
    .await;
    client.subscribe("r/x", Qos::ExactlyOnce).await;
    let mut writer = world.connect(Level::V5, "", "w").await;
    writer.put_packet(publish("r/x", "bad", Qos::ExactlyOnce, 1)).await;
    writer.put_packet(publish("r/x", "good", Qos::ExactlyOnce, 2)).await;
    writer.put_packet(publish("r/x", "last", Qos::AtLeastOnce, 3)).await;
    let bad = client.message().await;
    client.send(Packet::Pubrec(Ack { reason: 0x99, ..ack(bad.packet_id.unwrap()) })).await;
    let good = client.message().await;
    assert_eq!(&good.payload[..], b"good", "no PUBREL before it");
    let number = good.packet_id.unwrap();
    client.send(Packet::Pubrec(ack(number))).await;
    assert!(matches!(client.next().await, Some(Packet::Pubrel(_))));
    client.send(Packet::Pubcomp(ack(number))).await;
    let last = client.message().await;
    // A refusing PUBACK ends it as well.
    client.send(Packet::Puback(Ack { reason: 0x97, ..ack(last.packet_id.unwrap()) })).await;
    client.quiet().await;
    client.leave().await;
    let (mut client, present) = world.resume(Level::V5, "ada", "c").await;
    assert!(present);
    client.quiet().await;
}

/// `[MQTT-4.6.0-4]`: PUBRELs in the order of the PUBRECs, whatever the order of the messages.
#[tokio::test]
async fn pubrels_leave_in_the_order_of_the_pubrecs() {
    let world = World::new();
    for level in LEVELS {
        let (mut client, _) = world.resume(level, "ada", &format!("{level:?}")).await;
        client.subscribe("rel/x", Qos::ExactlyOnce).await;
        for _ in 0..3 {
            world.say("bob", "rel/x", "m").await;
        }
        let ids = [
            client.message().await.packet_id.unwrap(),
            client.message().await.packet_id.unwrap(),
            client.message().await.packet_id.unwrap(),
        ];
        let order = [ids[2], ids[0], ids[1]];
        for id in order {
            client.send(Packet::Pubrec(ack(id))).await;
        }
        for id in order {
            let Some(Packet::Pubrel(rel)) = client.next().await else { panic!("no PUBREL") };
            assert_eq!((rel.packet_id, rel.properties), (id, Properties::default()));
        }
        for id in ids {
            client.send(Packet::Pubcomp(ack(id))).await;
        }
        client.quiet().await;
        client.leave().await;
    }
}

/// §4.3.3, MQTT5 §3.5.2.1: acknowledgements of ids that are not in use are legal, and answered where an answer is owed.
#[tokio::test]
async fn acknowledgements_of_unknown_ids_do_no_harm() {
    let world = World::new();
    for level in LEVELS {
        let mut client = world.connect(level, "", "c").await;
        client.puback(id(5)).await;
        client.send(Packet::Pubcomp(ack(id(5)))).await;
        client.quiet().await;
        client.send(Packet::Pubrec(ack(id(5)))).await;
        let Some(Packet::Pubrel(rel)) = client.next().await else { panic!("no PUBREL") };
        let code = if level == Level::V5 { reason::PACKET_IDENTIFIER_NOT_FOUND } else { 0 };
        assert_eq!((rel.packet_id, rel.reason), (id(5), code));
        client.quiet().await;
    }
}

/// `[MQTT-3.1.2-24]`, `[MQTT-3.1.2-25]`: never a larger packet than the client takes; what is too large counts as
/// delivered.
#[tokio::test]
async fn what_is_larger_than_the_client_takes_is_skipped_for_good() {
    let world = World::new();
    // Fixed header 2, topic 2 + 3, id 2, no properties 1.
    let fits = "x".repeat(60 - 10);
    let limit = |p: &mut super::super::wire::PropertyWriter| {
        p.maximum_packet_size(60);
    };
    let mut client = with(&world, "ada", "c", limit).await;
    assert_eq!(client.subscribe("m/x", Qos::AtLeastOnce).await, 1);
    let mut writer = world.connect(Level::V5, "", "w").await;
    writer.put("m/x", &(fits.clone() + "x")).await;
    writer.put("m/x", &fits).await;
    assert_eq!(client.payload("m/x").await, fits, "one byte less than what was skipped");
    client.puback(id(1)).await;
    client.quiet().await;
    client.leave().await;
    writer.put("m/x", &"y".repeat(500)).await;
    writer.put("m/x", "small").await;
    let mut client = with(&world, "ada", "c", limit).await;
    let message = client.message().await;
    assert_eq!(&message.payload[..], b"small");
    client.puback(message.packet_id.unwrap()).await;
    client.quiet().await;
    client.leave().await;
    let (mut client, _) = world.resume(Level::V5, "ada", "c").await;
    client.quiet().await;
    writer.put("m/x", "now").await;
    assert_eq!(client.payload("m/x").await, "now", "what was skipped stays skipped");
}

/// §3.3.2.3.4, `[MQTT-3.3.2-11]`, `[MQTT-3.1.2-26]`, `[MQTT-3.1.2-27]`: aliases to the client, as many as it takes, of topics.
#[tokio::test]
async fn topics_get_aliases_as_many_as_the_client_takes() {
    let world = World::new();
    let mut client = with(&world, "", "c", |p| {
        p.topic_alias_maximum(2);
    })
    .await;
    client.subscribe("alias/+", Qos::AtMostOnce).await;
    let mut seen = Vec::new();
    for topic in ["alias/a", "alias/a", "alias/b", "alias/c", "alias/b", "alias/a", "alias/c"] {
        world.say("bob", topic, topic).await;
        let message = client.message().await;
        assert_eq!(&message.payload[..], topic.as_bytes());
        seen.push((message.topic.to_string(), message.properties.topic_alias()));
    }
    let seen: Vec<_> = seen.iter().map(|(topic, alias)| (topic.as_str(), *alias)).collect();
    let expected = [
        ("alias/a", Some(1)),
        ("", Some(1)),
        ("alias/b", Some(2)),
        ("alias/c", None),
        ("", Some(2)),
        ("", Some(1)),
        ("alias/c", None),
    ];
    assert_eq!(seen, expected);
    let mut client = world.connect(Level::V5, "", "d").await;
    client.subscribe("alias/+", Qos::AtMostOnce).await;
    world.say("bob", "alias/a", "x").await;
    let message = client.message().await;
    assert_eq!((message.topic.as_str(), message.properties.topic_alias()), ("alias/a", None));
}

/// `[MQTT-3.3.2-5]`, `[MQTT-3.3.2-6]`: the time that is left is told, and what is over does not come.
#[tokio::test]
async fn a_message_that_expires_comes_with_the_time_that_is_left() {
    let world = World::new();
    let (mut client, _) = world.resume(Level::V5, "ada", "c").await;
    client.subscribe("e/x", Qos::AtLeastOnce).await;
    let mut writer = world.connect(Level::V5, "", "w").await;
    let lasting_for = |payload: &str, seconds: u32| {
        let mut publish = publish("e/x", payload, Qos::AtLeastOnce, 1);
        publish.properties = properties(|p| {
            p.message_expiry_s(seconds);
        });
        publish
    };
    writer.put_packet(lasting_for("live", 100)).await;
    let message = client.message().await;
    assert_eq!(message.properties.message_expiry_s(), Some(100));
    client.puback(message.packet_id.unwrap()).await;
    client.quiet().await;
    client.leave().await;
    writer.put_packet(lasting_for("short", 10)).await;
    writer.put_packet(lasting_for("long", 100)).await;
    writer.put_packet(lasting_for("at once", 0)).await;
    writer.put("e/x", "for ever").await;
    world.clock.set(super::world::START_MS + 10_000);
    let (mut client, _) = world.resume(Level::V5, "ada", "c").await;
    let long = client.message().await;
    assert_eq!((&long.payload[..], long.properties.message_expiry_s()), (&b"long"[..], Some(90)));
    client.puback(long.packet_id.unwrap()).await;
    let ever = client.message().await;
    assert_eq!((&ever.payload[..], ever.properties.message_expiry_s()), (&b"for ever"[..], None));
    client.puback(ever.packet_id.unwrap()).await;
    client.quiet().await;
}

/// `[MQTT-3.3.2-4]`, `[MQTT-3.3.2-15]` to `[MQTT-3.3.2-20]`: unaltered and in order; `[MQTT-3.3.2-13]`, §4.10: request and
/// response.
#[tokio::test]
async fn properties_are_passed_on_unaltered_and_in_order() {
    let world = World::new();
    let (mut responder, _) = world.resume(Level::V5, "ada", "responder").await;
    responder.subscribe("ask/+", Qos::AtLeastOnce).await;
    let mut asker = world.connect(Level::V5, "bob", "asker").await;
    asker.subscribe("answers/bob", Qos::AtLeastOnce).await;
    let mut question = publish("ask/time", "what time is it?", Qos::AtLeastOnce, 1);
    question.properties = properties(|p| {
        p.user("b", "1")
            .payload_format_indicator(1)
            .user("a", "2")
            .content_type("text/plain; charset=utf-8")
            .message_expiry_s(60)
            .user("b", "")
            .response_topic("answers/bob")
            .user("", "é\u{feff}")
            .correlation_data(&[0, 255, 1])
            .user("b", "1")
            .topic_alias(3);
    });
    asker.send(Packet::Publish(question)).await;
    assert!(matches!(asker.next().await, Some(Packet::Puback(_))));
    let asked = responder.message().await;
    let got = &asked.properties;
    let user: Vec<_> = got.user().collect();
    assert_eq!(user, [("b", "1"), ("a", "2"), ("b", ""), ("", "é\u{feff}"), ("b", "1")]);
    assert_eq!(got.payload_format_indicator(), Some(1));
    assert_eq!(got.content_type(), Some("text/plain; charset=utf-8"));
    assert_eq!(got.response_topic(), Some("answers/bob"));
    assert_eq!(got.correlation_data(), Some(&[0, 255, 1][..]));
    assert_eq!(got.topic_alias(), None, "the sender's alias is the sender's");
    let mut answer = publish(got.response_topic().unwrap(), "noon", Qos::AtLeastOnce, 1);
    answer.properties = properties(|p| {
        p.correlation_data(got.correlation_data().unwrap());
    });
    // Again with the same id after a reconnect: the same properties.
    responder.vanish().await;
    let (mut responder, _) = world.resume(Level::V5, "ada", "responder").await;
    let again = responder.message().await;
    assert!(again.dup);
    assert_eq!((again.packet_id, &again.properties), (asked.packet_id, &asked.properties));
    responder.send(Packet::Publish(answer)).await;
    let answered = asker.message().await;
    assert_eq!(
        (&answered.payload[..], answered.properties.correlation_data()),
        (&b"noon"[..], Some(&[0, 255, 1][..]))
    );
    // A client of an older version gets the message without them.
    let mut old = world.connect(Level::V311, "", "old").await;
    old.subscribe("ask/#", Qos::AtMostOnce).await;
    asker.send(Packet::Publish(publish("ask/again", "?", Qos::AtMostOnce, 0))).await;
    asker.puback(answered.packet_id.unwrap()).await;
    assert_eq!(old.payload("ask/again").await, "?");
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

/// `[MQTT-4.6.0-5]`, `[MQTT-4.6.0-6]`, 3.1.1 §4.6: each topic in the order in which it was published.
#[tokio::test]
async fn every_topic_comes_in_the_order_in_which_it_was_published() {
    let world = World::new();
    for level in LEVELS {
        let mut client = world.connect(level, "", "c").await;
        client.subscribe("order/#", Qos::AtLeastOnce).await;
        let mut writer = world.connect(level, "", "w").await;
        for number in 0..100_u16 {
            let topic = format!("order/{}", number % 3);
            let qos = if number % 2 == 0 { Qos::AtLeastOnce } else { Qos::AtMostOnce };
            let packet_id = if number % 2 == 0 { number + 1 } else { 0 };
            writer.send(Packet::Publish(publish(&topic, &number.to_string(), qos, packet_id))).await;
        }
        let mut last = [-1_i32; 3];
        for _ in 0..100 {
            let Publish { topic, payload, packet_id, .. } = client.message().await;
            if let Some(id) = packet_id {
                client.puback(id).await;
            }
            let number: i32 = std::str::from_utf8(&payload).unwrap().parse().unwrap();
            let place = &mut last[usize::from(topic.as_bytes()[6] - b'0')];
            assert!(*place < number, "{topic}: {number} after {place}");
            *place = number;
        }
        for number in 0..50 {
            let Some(Packet::Puback(ack)) = writer.next().await else { panic!("no PUBACK") };
            assert_eq!(ack.packet_id, id(number * 2 + 1));
        }
    }
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
