//! PUBLISH from clients: acknowledgements, their order and what they say, QoS 2 once, refusals, bounds.

use std::time::Duration;

use feedlog_core::ids::{FeedId, SeqId};
use serde_json::Value;

use super::super::config::MqttConfig;
use super::super::wire::{Ack, Level, Packet, Properties, Publish, Qos, Subscribe, reason};
use super::world::{
    Client, World, ack, connect, id, lasting, options, place_of, properties, publish, sent, text,
};

const LEVELS: [Level; 3] = [Level::V31, Level::V311, Level::V5];

async fn pubrel(client: &mut Client, number: u16) -> u8 {
    client.send(Packet::Pubrel(ack(id(number)))).await;
    match client.next().await {
        Some(Packet::Pubcomp(ack)) => {
            assert_eq!(ack.packet_id, id(number));
            ack.reason
        }
        other => panic!("not a PUBCOMP: {other:?}"),
    }
}

fn dup(publish: Publish) -> Publish {
    Publish { dup: true, ..publish }
}

/// `[MQTT-3.3.4-1]`, 3.1.1 Table 3.4: PUBACK for QoS 1, PUBREC for QoS 2, nothing for QoS 0.
#[tokio::test]
async fn each_qos_has_its_acknowledgement_and_mqtt_5_is_told_the_place() {
    let world = World::new();
    for level in LEVELS {
        let mut client = world.connect(level, "", "writer").await;
        client.send(Packet::Publish(publish("p/a", "zero", Qos::AtMostOnce, 0))).await;
        client.quiet().await;
        client.send(Packet::Publish(publish("p/a", "one", Qos::AtLeastOnce, 11))).await;
        let Some(Packet::Puback(one)) = client.next().await else { panic!("no PUBACK") };
        client.send(Packet::Publish(publish("p/a", "two", Qos::ExactlyOnce, 12))).await;
        let Some(Packet::Pubrec(two)) = client.next().await else { panic!("no PUBREC") };
        assert_eq!((one.packet_id, two.packet_id), (id(11), id(12)));
        assert_eq!((one.reason, two.reason), (0, 0));
        assert_eq!(pubrel(&mut client, 12).await, 0);
        if level != Level::V5 {
            continue;
        }
        for (ack, payload) in [(one, "one"), (two, "two")] {
            let (feed, seq, ordinal) = place_of(&ack).expect("MQTT 5 is told the place");
            let feed = FeedId::parse(&feed).unwrap();
            let entry = world.gate("eve").entry(&feed, SeqId(seq)).await.unwrap().entry.clone();
            assert_eq!(entry.payload.bytes().unwrap(), payload);
            assert_eq!(entry.ordinal.0, ordinal);
        }
    }
}

/// `[MQTT-3.1.2-29]`: without problem information no user properties in acknowledgements.
#[tokio::test]
async fn without_problem_information_the_response_topic_is_told_the_place() {
    let world = World::new();
    let mut client = world.client(Level::V5);
    let mut hello = connect(Level::V5, "", "c");
    hello.properties = properties(|p| {
        p.request_problem_information(false);
    });
    client.connect(hello).await;
    for (number, qos) in [(1, Qos::AtLeastOnce), (2, Qos::ExactlyOnce)] {
        let ack = client.put_packet(publish("p/a", "silent", qos, number)).await;
        assert_eq!((ack.reason, place_of(&ack)), (0, None), "nobody else is asked");
        let mut asked = publish("p/a", "asking", qos, number + 10);
        asked.properties = properties(|p| {
            p.response_topic("my/answers").correlation_data(b"c-7");
        });
        client.send(Packet::Publish(asked)).await;
        let told = client.message().await;
        assert_eq!((told.topic.as_str(), told.qos), ("my/answers", Qos::AtMostOnce));
        assert_eq!(told.properties.correlation_data(), Some(&b"c-7"[..]));
        let body: Value = serde_json::from_slice(&told.payload).unwrap();
        assert_eq!(body["feed_id"], "p/a");
        let (Some(Packet::Puback(ack)) | Some(Packet::Pubrec(ack))) = client.next().await else {
            panic!("no acknowledgement")
        };
        assert_eq!(place_of(&ack), None);
        let seq = SeqId(body["seq_id"].as_u64().unwrap());
        let view = world.gate("eve").entry(&FeedId::parse("p/a").unwrap(), seq).await.unwrap();
        assert_eq!(view.entry.payload.bytes().unwrap(), "asking");
    }
    let refused = client.put_packet(publish("$SYS/x", "no", Qos::AtLeastOnce, 5)).await;
    assert_eq!(refused.reason, reason::NOT_AUTHORIZED);
    assert_eq!(refused.properties, Properties::default(), "no reason string either");
}

/// `[MQTT-3.4.2-2]`, `[MQTT-3.4.2-3]`, `[MQTT-3.5.2-2]`, `[MQTT-3.5.2-3]`: an acknowledgement is never made longer than
/// the client takes by what it tells besides.
#[tokio::test]
async fn an_acknowledgement_that_would_be_too_long_tells_the_response_topic() {
    let world = World::new();
    let topic = "p/".to_owned() + &"x".repeat(60);
    let mut client = world.client(Level::V5);
    let mut hello = connect(Level::V5, "", "c");
    hello.properties = properties(|p| {
        p.maximum_packet_size(topic.len() as u32 + 44);
    });
    client.connect(hello).await;
    let ack = client.put(&topic, "x").await;
    assert_eq!((ack.reason, place_of(&ack)), (0, None));
    let mut asked = publish(&topic, "x", Qos::AtLeastOnce, 2);
    asked.properties = properties(|p| {
        p.response_topic("r");
    });
    client.send(Packet::Publish(asked.clone())).await;
    let told = client.message().await;
    assert_eq!(told.topic.as_str(), "r");
    assert!(matches!(client.next().await, Some(Packet::Puback(ack)) if place_of(&ack).is_none()));
    // An answer that is longer itself is not sent either.
    asked.properties = properties(|p| {
        p.response_topic("r").correlation_data(&[7; 40]);
    });
    let ack = client.put_packet(asked).await;
    assert_eq!((ack.reason, place_of(&ack)), (0, None));
    let short = client.put("p/s", "x").await;
    assert_eq!(place_of(&short).unwrap().0, "p/s", "where there is room it is told");
}

/// `[MQTT-4.6.0-2]`, `[MQTT-4.6.0-3]`: in the order of the PUBLISHes, whichever of them is done first.
#[tokio::test]
async fn acknowledgements_leave_in_publish_order_with_slow_and_fast_commands_mixed() {
    let world = World::new();
    world.group("g", &["ada", "bob"]).await;
    for level in LEVELS {
        let mut client = world.connect(level, "ada", "c").await;
        let mut packets = Vec::new();
        for round in 0..8_u16 {
            let n = round * 5;
            // Reads, appends to several feeds, refusals that are known at once.
            let asks = [
                ("im://modulus/history?msg_id=1", r#"{"feeds":"g"}"#, Qos::AtLeastOnce),
                ("p/one", "x", Qos::ExactlyOnce),
                ("im://modulus/nothing", "{}", Qos::AtLeastOnce),
                ("feeds/g", r#"{"payload":1}"#, Qos::AtLeastOnce),
                ("im://modulus/send?msg_id=2", r#"{"feeds":"g","payload":2}"#, Qos::ExactlyOnce),
            ];
            for (index, (topic, payload, qos)) in asks.into_iter().enumerate() {
                packets.push(Packet::Publish(publish(topic, payload, qos, n + index as u16 + 1)));
            }
        }
        let expected: Vec<u16> = (1..=packets.len() as u16).collect();
        for packet in packets {
            client.send(packet).await;
        }
        let mut order = Vec::new();
        let mut replies = 0;
        while order.len() < expected.len() {
            match client.next().await {
                Some(Packet::Puback(ack) | Packet::Pubrec(ack)) => {
                    assert_eq!(ack.reason, 0);
                    order.push(ack.packet_id.get());
                }
                Some(Packet::Publish(reply)) if reply.topic.starts_with("im://") => {
                    replies += 1;
                    let next = order.len() as u16 % 5;
                    assert!(next == 0 || next == 4, "a reply comes right before its acknowledgement");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(order, expected);
        assert_eq!(replies, 16);
    }
}

/// `[MQTT-4.3.3-2]` (3.1.1), `[MQTT-4.3.3-8]` to `[MQTT-4.3.3-12]`: one message until PUBREL, another one after it.
#[tokio::test]
async fn a_replay_before_pubrel_is_stored_once() {
    let mut world = World::new();
    for level in LEVELS {
        let topic = format!("once/{level:?}");
        let name = format!("{level:?}");
        let message = publish(&topic, "m", Qos::ExactlyOnce, 5);
        let (mut client, _) = world.resume(level, "ada", &name).await;
        assert_eq!(client.put_packet(message.clone()).await.packet_id, id(5));
        assert_eq!(client.put_packet(dup(message.clone())).await.packet_id, id(5), "on the same connection");
        client.vanish().await;
        let (mut client, _) = world.resume(level, "ada", &name).await;
        assert_eq!(client.put_packet(dup(message.clone())).await.packet_id, id(5), "on the next one");
        client.vanish().await;
        world.restart().await;
        let (mut client, _) = world.resume(level, "ada", &name).await;
        // Paho's clients send it again without DUP.
        assert_eq!(client.put_packet(message.clone()).await.packet_id, id(5), "after a restart");
        assert_eq!(sent(&world, &topic).await, ["m"]);
        assert_eq!(pubrel(&mut client, 5).await, 0);
        client.put_packet(message.clone()).await;
        assert_eq!(sent(&world, &topic).await, ["m", "m"], "a released id is a new message");
        assert_eq!(pubrel(&mut client, 5).await, 0);
        client.leave().await;
        world.restart().await;
        let (mut client, _) = world.resume(level, "ada", &name).await;
        client.put_packet(dup(message)).await;
        assert_eq!(sent(&world, &topic).await.len(), 3, "what was released is forgotten");
    }
}

#[tokio::test]
async fn a_session_without_a_future_forgets_its_ids() {
    let world = World::new();
    for level in LEVELS {
        let topic = format!("clean/{level:?}");
        let mut client = world.connect(level, "ada", "c").await;
        client.put_packet(publish(&topic, "m", Qos::ExactlyOnce, 5)).await;
        client.put_packet(dup(publish(&topic, "m", Qos::ExactlyOnce, 5))).await;
        client.vanish().await;
        let mut client = world.connect(level, "ada", "c").await;
        client.put_packet(publish(&topic, "m", Qos::ExactlyOnce, 5)).await;
        assert_eq!(sent(&world, &topic).await.len(), 2);
    }
}

/// `[MQTT-4.3.2-5]`, 3.1.1 `[MQTT-4.3.2-2]`: after PUBACK the same id is another message, DUP or not.
#[tokio::test]
async fn a_qos_1_id_is_free_after_its_puback() {
    let world = World::new();
    for level in LEVELS {
        let topic = format!("free/{level:?}");
        let mut client = world.connect(level, "ada", "c").await;
        client.put(&topic, "1").await;
        client.put(&topic, "2").await;
        client.put_packet(dup(publish(&topic, "2", Qos::AtLeastOnce, 1))).await;
        assert_eq!(sent(&world, &topic).await, ["1", "2", "2"]);
    }
}

/// MQTT5 §3.7.2.1; 3.1.1 `[MQTT-4.3.3-2]`, MQTT5 `[MQTT-4.3.3-11]`: an answer is owed, also to an id that nobody knows.
#[tokio::test]
async fn pubrel_of_an_unknown_id_is_answered() {
    let world = World::new();
    for level in LEVELS {
        let mut client = world.connect(level, "", "c").await;
        let code = pubrel(&mut client, 77).await;
        assert_eq!(code, if level == Level::V5 { reason::PACKET_IDENTIFIER_NOT_FOUND } else { 0 });
        client.quiet().await;
    }
}

/// `[MQTT-4.3.3-7]`, `[MQTT-4.3.3-13]`: an exchange that has begun goes on although the message has expired meanwhile.
#[tokio::test]
async fn a_qos_2_exchange_goes_on_after_its_message_expired() {
    let world = World::new();
    let mut reader = world.connect(Level::V5, "", "r").await;
    reader.subscribe("x/x", Qos::ExactlyOnce).await;
    let mut writer = world.connect(Level::V5, "", "w").await;
    let mut message = publish("x/x", "m", Qos::ExactlyOnce, 3);
    message.properties = properties(|p| {
        p.message_expiry_s(1);
    });
    writer.put_packet(message.clone()).await;
    let number = reader.message().await.packet_id.unwrap();
    world.clock.set(super::world::START_MS + 5_000);
    assert_eq!(writer.put_packet(dup(message)).await.reason, 0);
    assert_eq!(pubrel(&mut writer, 3).await, 0);
    reader.send(Packet::Pubrec(ack(number))).await;
    assert!(matches!(reader.next().await, Some(Packet::Pubrel(rel)) if rel.reason == 0));
    reader.send(Packet::Pubcomp(ack(number))).await;
    reader.quiet().await;
}

/// `[MQTT-4.3.3-9]`: a refused PUBREC ends it, the id may be used again.
#[tokio::test]
async fn a_refused_qos_2_message_frees_its_id() {
    let world = World::new();
    let mut client = world.connect(Level::V5, "", "c").await;
    let refused = client.put_packet(publish("$SYS/x", "no", Qos::ExactlyOnce, 3)).await;
    assert_eq!(refused.reason, reason::NOT_AUTHORIZED);
    assert_eq!(pubrel(&mut client, 3).await, reason::PACKET_IDENTIFIER_NOT_FOUND);
    let taken = client.put_packet(publish("p/x", "yes", Qos::ExactlyOnce, 3)).await;
    assert_eq!(taken.reason, 0);
    assert_eq!(pubrel(&mut client, 3).await, 0);
}

/// `[MQTT-3.3.1-3]`: DUP is told by the sender to the receiver and not passed on.
#[tokio::test]
async fn dup_is_never_passed_on() {
    let world = World::new();
    for level in LEVELS {
        let mut reader = world.connect(level, "", "reader").await;
        reader.subscribe("d/#", Qos::ExactlyOnce).await;
        let mut writer = world.connect(level, "", "writer").await;
        for (number, qos) in [(1, Qos::AtLeastOnce), (2, Qos::ExactlyOnce)] {
            writer.put_packet(dup(publish("d/x", "m", qos, number))).await;
            let message = reader.message().await;
            assert!(!message.dup);
            assert_eq!(message.qos, qos);
        }
    }
}

/// `[MQTT-3.3.4-8]`: more than our Receive Maximum is 0x93; `[MQTT-4.9.0-3]`: everything else flows at zero quota.
#[tokio::test]
async fn more_messages_than_our_receive_maximum_end_the_connection() {
    let world = World::with(MqttConfig { free_topics: true, receive_maximum: 3, ..MqttConfig::default() });
    let mut client = world.client(Level::V5);
    let connack = client.connect(connect(Level::V5, "", "c")).await;
    assert_eq!(connack.properties.receive_maximum(), Some(3));
    for number in 1..=3 {
        client.put_packet(publish("q/x", "m", Qos::ExactlyOnce, number)).await;
    }
    // No quota is left, and nothing but PUBLISH needs one.
    client.quiet().await;
    client.send(Packet::Publish(publish("q/x", "zero", Qos::AtMostOnce, 0))).await;
    assert_eq!(client.subscribe("q/other", Qos::AtLeastOnce).await, 1);
    client.put_packet(dup(publish("q/x", "m", Qos::ExactlyOnce, 2))).await;
    assert_eq!(pubrel(&mut client, 2).await, 0);
    client.put_packet(publish("q/x", "again", Qos::AtLeastOnce, 9)).await;
    client.put_packet(publish("q/x", "again", Qos::ExactlyOnce, 2)).await;
    client.send(Packet::Publish(publish("q/x", "one too many", Qos::AtLeastOnce, 10))).await;
    assert_eq!(client.disconnected().await, reason::RECEIVE_MAXIMUM_EXCEEDED);
    assert!(!sent(&world, "q/x").await.contains(&"one too many".to_owned()));
}

/// Before MQTT 5 there is no quota: such a client is read more slowly, and all is stored.
#[tokio::test]
async fn clients_that_know_no_receive_maximum_wait() {
    let world = World::with(MqttConfig { free_topics: true, receive_maximum: 2, ..MqttConfig::default() });
    for level in [Level::V31, Level::V311] {
        let topic = format!("many/{level:?}");
        let mut client = world.connect(level, "", "c").await;
        for number in 1..=50 {
            client
                .send(Packet::Publish(publish(&topic, &number.to_string(), Qos::AtLeastOnce, number)))
                .await;
        }
        for number in 1..=50 {
            let Some(Packet::Puback(ack)) = client.next().await else { panic!("no PUBACK") };
            assert_eq!(ack.packet_id, id(number));
        }
        let all: Vec<String> = (1..=50).map(|number| number.to_string()).collect();
        assert_eq!(sent(&world, &topic).await, all);
    }
}

/// `[MQTT-3.2.2-15]`: what is larger than the server takes is refused by its header.
#[tokio::test]
async fn a_packet_larger_than_we_take_ends_the_connection() {
    let world =
        World::with(MqttConfig { free_topics: true, packet_bytes_max: 1024, ..MqttConfig::default() });
    for level in LEVELS {
        let mut client = world.client(level);
        let connack = client.connect(connect(level, "", "c")).await;
        if level == Level::V5 {
            assert_eq!(connack.properties.maximum_packet_size(), Some(1024));
        }
        // Fixed header 3, topic 2 + 3, id 2, in MQTT 5 no properties 1.
        let fits = 1024 - 10 - usize::from(level == Level::V5);
        let ack = client.put("s/x", &"x".repeat(fits)).await;
        assert_eq!(ack.reason, 0);
        client.send(Packet::Publish(publish("s/x", &"x".repeat(fits + 1), Qos::AtLeastOnce, 2))).await;
        match level {
            Level::V5 => assert_eq!(client.disconnected().await, reason::PACKET_TOO_LARGE),
            _ => client.closed().await,
        }
    }
}

/// `[MQTT-3.3.2-7]` to `[MQTT-3.3.2-10]`, §3.3.2.3.4: aliases from the client.
#[tokio::test]
async fn a_topic_alias_stands_for_its_topic_on_its_connection() {
    let world = World::new();
    let alias = |topic: &str, alias: u16, payload: &str| {
        let mut publish = publish(topic, payload, Qos::AtLeastOnce, 1);
        publish.properties = properties(|p| {
            p.topic_alias(alias);
        });
        publish
    };
    let mut client = world.client(Level::V5);
    let connack = client.connect(lasting(Level::V5, "ada", "c")).await;
    assert_eq!(connack.properties.topic_alias_maximum(), Some(16));
    for (topic, number, payload) in [
        ("al/a", 1, "1"),
        ("", 1, "2"),
        ("al/b", 16, "3"),
        ("", 1, "4"),
        ("al/b", 1, "5"),
        ("", 1, "6"),
        ("", 16, "7"),
    ] {
        assert_eq!(client.put_packet(alias(topic, number, payload)).await.reason, 0);
    }
    assert_eq!(sent(&world, "al/a").await, ["1", "2", "4"]);
    assert_eq!(sent(&world, "al/b").await, ["3", "5", "6", "7"]);
    client.vanish().await;
    // Of the connection and not of the session: [MQTT-3.3.2-7].
    let (mut client, present) = world.resume(Level::V5, "ada", "c").await;
    assert!(present);
    client.send(Packet::Publish(alias("", 1, "8"))).await;
    assert_eq!(client.disconnected().await, reason::PROTOCOL_ERROR);
    for number in [0, 17, u16::MAX] {
        let mut client = world.connect(Level::V5, "", "other").await;
        client.send(Packet::Publish(alias("al/a", number, "9"))).await;
        assert_eq!(client.disconnected().await, reason::TOPIC_ALIAS_INVALID, "{number}");
    }
    assert_eq!(sent(&world, "al/a").await.len(), 3);
}

/// `[MQTT-3.3.5-2]` (3.1.1), MQTT5 §3.4.2.1: refused as each version can say it.
#[tokio::test]
async fn without_free_topics_publishing_to_one_is_refused() {
    let world = World::with(MqttConfig::default());
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let number = u16::from(qos != Qos::AtMostOnce);
        for level in [Level::V31, Level::V311] {
            let mut client = world.connect(level, "ada", "c").await;
            client.send(Packet::Publish(publish("f/x", "m", qos, number))).await;
            client.closed().await;
        }
    }
    let mut client = world.connect(Level::V5, "ada", "c").await;
    client.send(Packet::Publish(publish("f/x", "m", Qos::AtMostOnce, 0))).await;
    client.quiet().await;
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let ack = client.put_packet(publish("f/x", "m", qos, 1)).await;
        assert_eq!(ack.reason, reason::NOT_AUTHORIZED);
    }
    assert!(sent(&world, "f/x").await.is_empty());
}

/// Feeds of any name up to 255 bytes; `[MQTT-4.7.3-3]`, MQTT5 §3.4.2.1 0x90.
#[tokio::test]
async fn topics_of_the_longest_name_and_the_most_levels_are_taken_and_no_more() {
    let world = World::new();
    let mut client = world.connect(Level::V5, "", "c").await;
    let long = "é".repeat(127) + "x";
    assert_eq!(long.len(), 255);
    let deep = vec!["a"; 32].join("/");
    for topic in [long.as_str(), &deep, "é/ü", "/", "a//b", " ", "\u{feff}x", "😀"] {
        assert_eq!(client.subscribe(topic, Qos::AtLeastOnce).await, 1, "{topic}");
        client.send(Packet::Publish(publish(topic, "m", Qos::AtLeastOnce, 1))).await;
        // The acknowledgement and the message, in either order.
        let mut seen = (false, false);
        while seen != (true, true) {
            match client.next().await {
                Some(Packet::Puback(ack)) => {
                    assert_eq!(ack.reason, 0, "{topic}");
                    seen.0 = true;
                }
                Some(Packet::Publish(message)) => {
                    assert_eq!(message.topic.as_str(), topic);
                    client.puback(message.packet_id.unwrap()).await;
                    seen.1 = true;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    for topic in ["é".repeat(128), vec!["a"; 33].join("/"), "/".repeat(32)] {
        let ack = client.put(&topic, "m").await;
        assert_eq!(ack.reason, reason::TOPIC_NAME_INVALID, "{topic}");
        assert_eq!(client.subscribe(&topic, Qos::AtLeastOnce).await, reason::TOPIC_FILTER_INVALID);
    }
    for level in [Level::V31, Level::V311] {
        let mut client = world.connect(level, "", "d").await;
        client.send(Packet::Publish(publish(&"x".repeat(256), "m", Qos::AtLeastOnce, 1))).await;
        client.closed().await;
    }
}

/// MQTT5 §3.3.2.3.2: 0x99 where the payload is not what it says.
#[tokio::test]
async fn a_payload_that_is_not_the_text_it_says_is_refused() {
    let world = World::new();
    let mut client = world.connect(Level::V5, "", "c").await;
    let mut message = publish("t/x", "", Qos::AtLeastOnce, 1);
    message.properties = properties(|p| {
        p.payload_format_indicator(1);
    });
    message.payload = vec![0xff, 0xfe].into();
    assert_eq!(client.put_packet(message.clone()).await.reason, reason::PAYLOAD_FORMAT_INVALID);
    message.payload = "é".into();
    assert_eq!(client.put_packet(message.clone()).await.reason, 0);
    message.properties = properties(|p| {
        p.payload_format_indicator(0);
    });
    message.payload = vec![0xff, 0xfe].into();
    assert_eq!(client.put_packet(message).await.reason, 0, "bytes are any bytes");
}

/// P1, *retry* and *unknown* of mqtt.md: never an acknowledgement of what is not stored.
#[tokio::test]
async fn what_cannot_be_stored_is_not_acknowledged() {
    for level in LEVELS {
        let world = World::new();
        world.group("g", &["ada"]).await;
        let mut clients = Vec::new();
        for (index, topic) in ["u/x", "feeds/g", "im://modulus/send?msg_id=1"].into_iter().enumerate() {
            for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
                let mut client = world.connect(level, "ada", &format!("c{index}{qos:?}")).await;
                client.quiet().await;
                clients.push((client, topic, qos));
            }
        }
        world.store.drain(Duration::from_secs(10)).await;
        for (mut client, topic, qos) in clients {
            let body = r#"{"feeds":"g","payload":1}"#;
            let body = if topic == "feeds/g" { r#"{"payload":1}"# } else { body };
            client.send(Packet::Publish(publish(topic, body, qos, 1))).await;
            if level != Level::V5 {
                client.closed().await;
            } else if topic.starts_with("im:") {
                // Its pushes cannot be followed, so it is told before anything is sent.
                assert_eq!(client.disconnected().await, reason::SERVER_BUSY);
            } else {
                let (Some(Packet::Puback(ack)) | Some(Packet::Pubrec(ack))) = client.next().await else {
                    panic!("{topic} {qos:?}: no acknowledgement")
                };
                assert_eq!(ack.reason, reason::IMPLEMENTATION_SPECIFIC_ERROR, "{topic} {qos:?}");
                assert_eq!(place_of(&ack), None);
                client.quiet().await;
            }
        }
    }
}

/// A message is one entry however it was sent and however it is read.
#[tokio::test]
async fn a_message_is_the_same_entry_over_every_way() {
    let world = World::new();
    let mut writer = world.connect(Level::V5, "ada", "w").await;
    let mut message = publish("same/x", "bytes", Qos::AtLeastOnce, 1);
    message.properties = properties(|p| {
        p.user("client_msg_id", "m-1").content_type("text/x-thing");
    });
    let first = place_of(&writer.put_packet(message.clone()).await).unwrap();
    let again = place_of(&writer.put_packet(dup(message)).await).unwrap();
    assert_eq!(first, again, "one client_msg_id is one message (P3)");
    let feed = FeedId::parse("same/x").unwrap();
    let view = world.gate("bob").entry(&feed, SeqId(first.1)).await.unwrap();
    let stored = view.entry.message().unwrap();
    assert_eq!(view.entry.sender.as_str(), "ada");
    assert_eq!(view.entry.payload.bytes().unwrap(), "bytes");
    assert_eq!(stored.client_msg_id.as_ref().unwrap().as_str(), "m-1");
    assert_eq!(&*stored.content_type, "text/x-thing");

    for level in LEVELS {
        let mut reader = world.connect(level, "", "r").await;
        reader.subscribe("same/x", Qos::ExactlyOnce).await;
        let seq = world.say("bob", "same/x", "from elsewhere").await;
        let message = reader.message().await;
        assert_eq!((&message.payload[..], message.qos), (&b"from elsewhere"[..], Qos::ExactlyOnce));
        if level == Level::V5 {
            assert_eq!(message.properties.content_type(), Some("text/plain"));
        }
        assert!(world.gate("ada").entry(&feed, seq).await.is_ok());
    }
}

/// `[MQTT-3.8.4-1]`, `[MQTT-3.12.4-1]`: what was read behind a PUBLISH that waits for the disk is still served.
#[tokio::test]
async fn many_packets_in_one_write_are_all_answered() {
    let world = World::new();
    for level in LEVELS {
        let mut client = world.connect(level, "", "c").await;
        let filters = vec![(text("m/+"), options(Qos::AtMostOnce))];
        let subscribe = Subscribe { packet_id: id(8), properties: Properties::default(), filters };
        let mut bytes = bytes::BytesMut::new();
        for packet in [
            Packet::Publish(publish("n/x", "1", Qos::AtLeastOnce, 1)),
            Packet::Subscribe(subscribe),
            Packet::Pingreq,
            Packet::Publish(publish("n/x", "2", Qos::AtLeastOnce, 2)),
        ] {
            super::super::wire::encode::packet(level, &packet, &mut bytes);
        }
        client.raw(&bytes).await;
        let mut acks: Vec<Ack> = Vec::new();
        let (mut suback, mut pong) = (false, false);
        while acks.len() < 2 || !suback || !pong {
            match client.next().await {
                Some(Packet::Puback(ack)) => acks.push(ack),
                Some(Packet::Suback(ack)) => suback = ack.packet_id == id(8),
                Some(Packet::Pingresp) => pong = true,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((acks[0].packet_id, acks[1].packet_id), (id(1), id(2)));
    }
}
