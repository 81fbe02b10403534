//! Keep-alive, DISCONNECT, and how a connection ends: told why in MQTT 5, without a word before it.

use std::time::Duration;

use bytes::BytesMut;
use feedlog_core::ids::FeedId;

use super::super::config::MqttConfig;
use super::super::wire::{Disconnect, Level, Packet, Properties, Qos, encode};
use super::world::{Client, World, connect, id, lasting, properties, publish, text, will};

const LEVELS: [Level; 3] = [Level::V31, Level::V311, Level::V5];

/// A client that promised a packet every `keep_alive_s`.
async fn keeping(world: &World, level: Level, name: &str, keep_alive_s: u16) -> Client {
    let mut client = world.client(level);
    let mut wanted = connect(level, "", name);
    wanted.keep_alive_s = keep_alive_s;
    assert_eq!(client.connect(wanted).await.reason, 0);
    client
}

async fn pass(ms: u64) {
    tokio::time::advance(Duration::from_millis(ms)).await;
}

/// The end as this version tells it.
async fn ended(client: &mut Client, level: Level, reason: u8) {
    match level {
        Level::V5 => assert_eq!(client.disconnected().await, reason),
        _ => client.closed().await,
    }
}

fn encoded(level: Level, packet: Packet) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode::packet(level, &packet, &mut out);
    out.to_vec()
}

/// 3.1.1 `[MQTT-3.1.2-24]`, MQTT5 `[MQTT-3.1.2-22]`, `[MQTT-3.2.2-22]`: one and a half times, and any packet counts.
#[tokio::test]
async fn a_client_that_is_silent_for_one_and_a_half_keep_alives_is_closed() {
    let world = World::new();
    for level in LEVELS {
        let mut client = keeping(&world, level, "a", 10).await;
        tokio::time::pause();
        pass(14_900).await;
        client.quiet().await;
        pass(14_900).await;
        client.send(Packet::Publish(publish("feeds/", "nothing", Qos::AtMostOnce, 0))).await;
        if level == Level::V5 {
            // At QoS 0 a refused message is not told, and the connection goes on.
            tokio::task::yield_now().await;
            pass(14_900).await;
            client.quiet().await;
            pass(15_100).await;
            ended(&mut client, level, 0x8D).await;
        }
        tokio::time::resume();
    }
}

/// The same for a client that sent nothing behind CONNECT.
#[tokio::test]
async fn keep_alive_counts_from_connect() {
    let world = World::new();
    for level in LEVELS {
        let mut early = keeping(&world, level, "a", 2).await;
        let mut later = keeping(&world, level, "b", 65_535).await;
        tokio::time::pause();
        pass(3_100).await;
        ended(&mut early, level, 0x8D).await;
        pass(90_000_000).await;
        later.quiet().await;
        pass(98_400_000).await;
        ended(&mut later, level, 0x8D).await;
        tokio::time::resume();
    }
}

/// MQTT5 §3.1.2.10, 3.1.1 §3.1.2.10: 0 turns it off.
#[tokio::test]
async fn a_keep_alive_of_0_is_none() {
    let world = World::new();
    for level in LEVELS {
        let mut client = keeping(&world, level, "a", 0).await;
        tokio::time::pause();
        pass(1_000 * 24 * 3600 * 1_000).await;
        client.quiet().await;
        tokio::time::resume();
    }
}

/// Part of a packet is no packet: a client that sends single bytes is not alive.
#[tokio::test]
async fn part_of_a_packet_keeps_nothing_alive() {
    let world = World::new();
    let mut client = keeping(&world, Level::V5, "a", 10).await;
    tokio::time::pause();
    pass(10_000).await;
    client.raw(&[0x30, 100, 0]).await;
    tokio::task::yield_now().await;
    pass(5_100).await;
    assert_eq!(client.disconnected().await, 0x8D);
}

/// What the server sends says nothing about the client.
#[tokio::test]
async fn what_is_sent_to_a_client_does_not_keep_it_alive() {
    let world = World::new();
    for level in LEVELS {
        let mut client = keeping(&world, level, "a", 10).await;
        client.subscribe("k/#", Qos::AtMostOnce).await;
        let mut writer = world.connect(level, "", "writer").await;
        for number in 0..3 {
            tokio::time::pause();
            pass(4_000).await;
            tokio::time::resume();
            writer.put("k/a", &format!("{number}")).await;
            assert_eq!(client.payload("k/a").await, format!("{number}"));
        }
        tokio::time::pause();
        pass(3_100).await;
        ended(&mut client, level, 0x8D).await;
        tokio::time::resume();
    }
}

/// MQTT5 `[MQTT-4.13.1-1]`, `[MQTT-4.13.2-1]`, `[MQTT-3.14.2-1]`, `[MQTT-3.14.4-1]`, `[MQTT-3.14.4-2]`; 3.1.1
/// `[MQTT-4.8.0-1]`, `[MQTT-3.14.1-1]`: an error ends the connection. The reason is told before it in MQTT 5, where the
/// standard names one; nothing is told before it.
#[tokio::test]
async fn every_class_of_error_ends_the_connection_with_its_reason() {
    let config = MqttConfig { receive_maximum: 2, packet_bytes_max: 5_000, ..MqttConfig::default() };
    let world = World::with(MqttConfig { free_topics: true, ..config });
    let aliased = |alias: u16, topic: &str| {
        let mut one = publish("x", "x", Qos::AtMostOnce, 0);
        one.topic = text(topic);
        one.properties = properties(|p| {
            p.topic_alias(alias);
        });
        encoded(Level::V5, Packet::Publish(one))
    };
    let both: [(u8, &str, Vec<u8>); 12] = [
        (0x81, "a reserved kind", vec![0x00, 0]),
        (0x81, "flags of DISCONNECT [MQTT-3.14.1-1]", vec![0xE1, 0]),
        (0x81, "flags of PINGREQ", vec![0xC8, 0]),
        (0x81, "a length of five bytes", vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]),
        (0x81, "QoS 3", vec![0x36, 0]),
        (0x81, "a packet that ends early", vec![0x30, 1, 0]),
        (0x81, "no UTF-8", vec![0x30, 3, 0, 1, 0xFF]),
        (0x82, "a server's packet", vec![0xD0, 0]),
        (0x82, "a second CONNECT", vec![0x10, 0]),
        (0x90, "a topic with a wildcard", vec![0x30, 4, 0, 1, b'#', 0]),
        (0x95, "a packet that is too large", vec![0x30, 0xFF, 0x7F]),
        (0x8F, "a filter that is none", vec![]),
    ];
    for level in [Level::V311, Level::V5] {
        for (reason, what, bytes) in &both {
            let bytes = if bytes.is_empty() {
                let properties: &[u8] = if level == Level::V5 { &[0] } else { &[] };
                let body = [&[0, 1][..], properties, &[0, 2, b'#', b'a', 0][..]].concat();
                [&[0x82, body.len() as u8][..], &body].concat()
            } else {
                bytes.clone()
            };
            let mut client = world.connect(level, "", "a").await;
            // What follows is not looked at.
            client.raw(&[&bytes[..], &[0xC0, 0]].concat()).await;
            match (level, client.next().await) {
                (Level::V5, Some(Packet::Disconnect(one))) => {
                    assert_eq!(one.reason, *reason, "{what}");
                    assert!(one.properties.reason_string().is_some(), "{what}");
                    assert_eq!(one.properties.session_expiry_s(), None, "[MQTT-3.14.2-2]");
                    assert_eq!(client.next().await, None, "{what}");
                }
                (Level::V311, None) => {}
                (_, other) => panic!("{what}: {other:?}"),
            }
        }
    }
    let v5 = [
        (0x82, "neither a topic nor an alias", vec![0x30, 3, 0, 0, 0]),
        (0x94, "the alias 0", aliased(0, "x")),
        (0x94, "an alias above the maximum", aliased(17, "x")),
        (0x82, "an alias that was not set", aliased(1, "")),
        (0x82, "a property twice", vec![0x30, 8, 0, 1, b'x', 4, 1, 0, 1, 0]),
        (0x81, "an unknown property", vec![0x30, 6, 0, 1, b'x', 2, 0x7F, 0]),
    ];
    for (reason, what, bytes) in v5 {
        let mut client = world.connect(Level::V5, "", "a").await;
        client.raw(&bytes).await;
        assert_eq!(client.disconnected().await, reason, "{what}");
    }
    // More than the Receive Maximum.
    let mut client = world.connect(Level::V5, "", "a").await;
    for number in 1..=2 {
        assert_eq!(client.put_packet(publish("q", "x", Qos::ExactlyOnce, number)).await.reason, 0);
    }
    client.send(Packet::Publish(publish("q", "x", Qos::ExactlyOnce, 3))).await;
    assert_eq!(client.disconnected().await, 0x93);
}

/// 3.1.1 `[MQTT-3.3.5-2]`, `[MQTT-4.8.0-2]`: what cannot be stored is not acknowledged before MQTT 5; MQTT 5 says so and
/// goes on.
#[tokio::test]
async fn a_message_that_is_refused_closes_the_connection_before_mqtt_5() {
    let world = World::new();
    for level in LEVELS {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let mut client = world.connect(level, "ada", "a").await;
            let number = if qos == Qos::AtMostOnce { 0 } else { 5 };
            client.send(Packet::Publish(publish("$SYS/x", "x", qos, number))).await;
            match (level, qos) {
                (Level::V31 | Level::V311, _) => client.closed().await,
                (Level::V5, Qos::AtMostOnce) => client.quiet().await,
                (Level::V5, _) => {
                    let answer = client.next().await;
                    assert!(
                        matches!(&answer, Some(Packet::Puback(ack) | Packet::Pubrec(ack))
                            if ack.reason == 0x87 && ack.packet_id == id(5)),
                        "{answer:?}"
                    );
                    client.quiet().await;
                }
            }
        }
    }
}

/// MQTT5 `[MQTT-3.1.2-29]`: without problem information an acknowledgement has no texts, and no DISCONNECT of ours has.
#[tokio::test]
async fn without_problem_information_nothing_is_explained() {
    let world = World::new();
    for asked in [false, true] {
        let mut client = world.client(Level::V5);
        let mut wanted = connect(Level::V5, "ada", "a");
        wanted.properties = properties(|p| {
            p.request_problem_information(asked);
        });
        assert_eq!(client.connect(wanted).await.reason, 0);
        for (number, qos, topic, reason) in [
            (1, Qos::AtLeastOnce, "p/a", 0),
            (2, Qos::ExactlyOnce, "p/a", 0),
            (3, Qos::AtLeastOnce, "$SYS/a", 0x87),
            (4, Qos::ExactlyOnce, "$SYS/a", 0x87),
        ] {
            let ack = client.put_packet(publish(topic, "x", qos, number)).await;
            assert_eq!(ack.reason, reason);
            assert_eq!(!ack.properties.is_empty(), asked, "{ack:?}");
        }
        client.raw(&[0xD0, 0]).await;
        match client.next().await {
            Some(Packet::Disconnect(one)) => {
                assert_eq!((one.reason, one.properties.reason_string().is_some()), (0x82, asked));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// MQTT5 `[MQTT-3.14.2-3]`, `[MQTT-3.4.2-2]`, `[MQTT-3.4.2-3]`: what explains is left out where it would be too large.
#[tokio::test]
async fn what_explains_is_left_out_where_the_client_takes_less() {
    let world = World::new();
    let mut client = world.client(Level::V5);
    let mut wanted = connect(Level::V5, "", "a");
    wanted.properties = properties(|p| {
        p.maximum_packet_size(24);
    });
    assert_eq!(client.connect(wanted).await.reason, 0);
    assert!(client.put("p/a", "x").await.properties.is_empty());
    client.raw(&[0xD0, 0]).await;
    match client.next().await {
        Some(Packet::Disconnect(one)) => {
            assert_eq!((one.reason, one.properties.reason_string()), (0x82, None));
        }
        other => panic!("{other:?}"),
    }
}

/// MQTT5 `[MQTT-3.14.4-1]`, 3.1.1 §3.14.4: DISCONNECT ends it, whatever comes behind.
#[tokio::test]
async fn disconnect_from_the_client_ends_the_connection_without_an_answer() {
    let world = World::new();
    for level in LEVELS {
        let mut client = world.connect(level, "", "a").await;
        client.raw(&[0xE0, 0, 0xC0, 0]).await;
        client.closed().await;
    }
    for reason in [0x04, 0x80, 0x98] {
        let mut client = world.connect(Level::V5, "", "a").await;
        client.send(Packet::Disconnect(Disconnect { reason, properties: Properties::default() })).await;
        client.closed().await;
    }
    // One that a client may not send.
    let mut client = world.connect(Level::V5, "", "a").await;
    client.raw(&[0xE0, 2, 0x8B, 0]).await;
    assert_eq!(client.disconnected().await, 0x82);
}

/// MQTT5 §3.14.2.1: 0x8B. Clients that are not connected yet are closed.
#[tokio::test]
async fn a_server_that_closes_says_so() {
    let world = World::new();
    let mut clients = Vec::new();
    for level in LEVELS {
        clients.push((level, world.connect(level, "", &format!("{level:?}")).await));
    }
    let mut silent = world.client(Level::V5);
    world.drain();
    for (level, client) in &mut clients {
        ended(client, *level, 0x8B).await;
    }
    silent.closed().await;
}

/// `[MQTT-3.12.4-1]`, also while nothing else is taken in.
#[tokio::test]
async fn every_ping_is_answered() {
    let world = World::new();
    for level in LEVELS {
        let mut client = world.connect(level, "", "a").await;
        client.raw(&[0xC0, 0, 0xC0, 0, 0xC0]).await;
        client.raw(&[0]).await;
        for _ in 0..3 {
            assert_eq!(client.next().await, Some(Packet::Pingresp));
        }
        client.quiet().await;
    }
}

/// Part of a packet is nothing: not when the connection is lost, and no CONNECT has a will before its last byte.
#[tokio::test]
async fn what_was_half_sent_when_the_connection_was_lost_never_happened() {
    let world = World::new();
    for level in LEVELS {
        for cut in [1, 5, 9] {
            let mut client = world.client(level);
            client.connect(lasting(level, "ada", "half")).await;
            let whole = encoded(level, Packet::Publish(publish("h/a", "payload", Qos::AtLeastOnce, 1)));
            client.raw(&whole[..cut]).await;
            client.vanish().await;
        }
        let mut client = world.connect(level, "ada", "half").await;
        client.quiet().await;
    }
    assert!(world.gate("ada").feed(&FeedId::parse("h/a").unwrap()).await.is_err(), "no such topic");
    let mut reader = world.connect(Level::V311, "", "reader").await;
    reader.subscribe("w/#", Qos::AtMostOnce).await;
    let mut client = world.client(Level::V311);
    let mut wanted = connect(Level::V311, "ada", "will");
    wanted.will = Some(will("w/a", "gone", Qos::AtMostOnce, false));
    let bytes = encoded(Level::V311, Packet::Connect(Box::new(wanted)));
    client.raw(&bytes[..bytes.len() - 1]).await;
    client.vanish().await;
    reader.quiet().await;
}
