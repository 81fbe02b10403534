//! PUBLISH to clients: windows, refusals, sizes, aliases, expiry, properties and order.

use feedlog_service::StoreConfig;
use feedlog_service::auth::AuthConfig;

use super::super::config::MqttConfig;
use super::super::wire::{Ack, Level, Packet, Properties, PropertyWriter, Publish, Qos, reason};
use super::world::{Client, START_MS, World, ack, connect, id, lasting, properties, publish};

const LEVELS: [Level; 3] = [Level::V31, Level::V311, Level::V5];

/// A connection of MQTT 5 with these properties in its CONNECT.
async fn with(world: &World, user: &str, name: &str, fill: impl Fn(&mut PropertyWriter)) -> Client {
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
    let limit = |p: &mut PropertyWriter| {
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
    world.clock.set(START_MS + 10_000);
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

/// More messages than one round takes lie ready when a slow reader goes on: none is lost between two rounds (P4).
#[tokio::test]
async fn all_that_lies_ready_is_handed_on() {
    let auth = AuthConfig { dev: true, ..AuthConfig::default() };
    let store = StoreConfig { attach_queue_max: 10_000, auth, ..StoreConfig::default() };
    let world = World::over(MqttConfig { free_topics: true, ..MqttConfig::default() }, store);
    let mut bob = world.connect(Level::V5, "bob", "b").await;
    bob.subscribe("r", Qos::AtMostOnce).await;
    // More than the pipe and what may wait for the client: from here on nothing is taken for it.
    let large = "x".repeat(200_000);
    world.say("ada", "r", &large).await;
    for number in 0..1_000 {
        world.say("ada", "r", &number.to_string()).await;
    }
    assert_eq!(bob.payload("r").await, large);
    for number in 0..1_000 {
        assert_eq!(bob.payload("r").await, number.to_string());
    }
}
