//! Sessions that are gone on with: after a lost connection, after a restart of the server, and until they expire.
//!
//! `Client::kill` ends a connection without its end being seen, `World::restart` forgets everything in memory: together
//! what a killed process leaves.

use super::super::config::MqttConfig;
use super::super::stored::{self, SESSIONS};
use super::super::wire::{Ack, Connect, Level, Packet, PacketId, Properties, Publish, Qos};
use super::world::{Client, World, ack, connect, id, lasting, options, properties, publish};

const LEVELS: [Level; 3] = [Level::V31, Level::V311, Level::V5];
const PERSISTENT: [Level; 2] = [Level::V311, Level::V5];

async fn open(world: &World, connect: Connect) -> Client {
    let mut client = world.client(connect.level);
    assert_eq!(client.connect(connect).await.reason, 0);
    client
}

/// A client of MQTT 5 that takes so many messages at a time.
fn taking(id: &str, receive_maximum: u16) -> Connect {
    let mut connect = lasting(Level::V5, "ada", id);
    connect.properties = properties(|p| {
        p.session_expiry_s(3600).receive_maximum(receive_maximum);
    });
    connect
}

fn payload(message: &Publish) -> String {
    String::from_utf8(message.payload.to_vec()).unwrap()
}

async fn pubrec(client: &mut Client, packet_id: PacketId) {
    client.send(Packet::Pubrec(ack(packet_id))).await;
}

async fn pubrel(client: &mut Client) -> Ack {
    match client.next().await {
        Some(Packet::Pubrel(ack)) => ack,
        other => panic!("not a PUBREL: {other:?}"),
    }
}

/// PUBREL, then PUBCOMP.
async fn release(client: &mut Client, packet_id: u16) -> u8 {
    client.send(Packet::Pubrel(ack(id(packet_id)))).await;
    match client.next().await {
        Some(Packet::Pubcomp(ack)) => {
            assert_eq!(ack.packet_id, id(packet_id));
            ack.reason
        }
        other => panic!("not a PUBCOMP: {other:?}"),
    }
}

/// Everything stored under this topic, through a new subscription to it from its start.
async fn stored_messages(world: &World, feed: &str) -> u64 {
    let feed = feedlog_core::ids::FeedId::parse(feed).unwrap();
    let gate = world.gate("eve");
    let mut count = 0;
    let head = gate.feed(&feed).await.unwrap().head.0;
    for seq in 1..=head {
        let view = gate.entry(&feed, feedlog_core::ids::SeqId(seq)).await.unwrap();
        count += u64::from(view.entry.message().is_some());
    }
    count
}

/// 3.1.1 `[MQTT-3.1.2-4]`, `[MQTT-3.1.2-5]`, `[MQTT-4.1.0-1]`; MQTT5 `[MQTT-3.1.2-5]`, `[MQTT-3.1.2-23]`, `[MQTT-4.5.0-1]`.
#[tokio::test]
async fn subscriptions_outlive_the_connection_and_the_server() {
    let mut world = World::new();
    for level in LEVELS {
        for kill in [false, true] {
            let name = format!("{level:?}{kill}");
            let topic = format!("s/{name}");
            let (mut reader, _) = world.resume(level, "ada", &name).await;
            let identified = properties(|p| {
                if level == Level::V5 {
                    p.subscription_identifier(77);
                }
            });
            let mut kept = options(Qos::AtLeastOnce);
            kept.retain_as_published = level == Level::V5;
            assert_eq!(reader.subscribe_with(&topic, kept, identified).await, 1);
            assert_eq!(reader.subscribe("s/ended", Qos::AtLeastOnce).await, 1);
            reader.unsubscribe("s/ended").await;
            if kill {
                reader.kill().await;
                world.restart().await;
            } else {
                reader.vanish().await;
            }
            let mut writer = world.connect(Level::V5, "bob", "writer").await;
            let mut message = publish(&topic, "1", Qos::ExactlyOnce, 1);
            message.retain = true;
            writer.put_packet(message).await;
            writer.put("s/ended", "x").await;
            let (mut reader, _) = world.resume(level, "ada", &name).await;
            let message = reader.message().await;
            assert_eq!((payload(&message), message.qos, message.dup), ("1".into(), Qos::AtLeastOnce, false));
            assert_eq!(message.retain, level == Level::V5, "[MQTT-3.3.1-9], MQTT5 [MQTT-3.3.1-13]");
            let identifiers: Vec<u32> = message.properties.subscription_identifiers().collect();
            assert_eq!(identifiers, if level == Level::V5 { vec![77] } else { vec![] });
            reader.puback(message.packet_id.unwrap()).await;
            reader.quiet().await;
            assert_eq!(reader.unsubscribe(&topic).await, if level == Level::V5 { vec![0] } else { vec![] });
        }
    }
}

/// 3.1.1 `[MQTT-3.1.2-7]`: retained messages are not part of a session.
#[tokio::test]
async fn retained_messages_outlive_the_session_that_made_them() {
    let mut world = World::new();
    let (mut writer, _) = world.resume(Level::V311, "ada", "writer").await;
    let mut message = publish("r/a", "kept", Qos::AtLeastOnce, 1);
    message.retain = true;
    writer.put_packet(message).await;
    writer.leave().await;
    world.connect(Level::V311, "ada", "writer").await.leave().await;
    world.restart().await;
    let mut reader = world.connect(Level::V311, "bob", "reader").await;
    reader.subscribe("r/#", Qos::AtMostOnce).await;
    assert_eq!(reader.payload("r/a").await, "kept");
}

/// 3.1.1 `[MQTT-4.3.3-2]`, MQTT5 `[MQTT-4.3.3-10]` to `[MQTT-4.3.3-12]`, `[MQTT-4.4.0-1]`: stored once, whatever ended.
#[tokio::test]
async fn a_qos_2_message_that_comes_again_after_a_restart_is_stored_once() {
    let mut world = World::new();
    for level in LEVELS {
        for kill in [false, true] {
            let name = format!("{level:?}{kill}");
            let topic = format!("i/{name}");
            let (mut writer, _) = world.resume(level, "ada", &name).await;
            let message = publish(&topic, "once", Qos::ExactlyOnce, 7);
            assert_eq!(writer.put_packet(message.clone()).await.packet_id, id(7));
            for round in 0..3 {
                if kill {
                    writer.kill().await;
                    world.restart().await;
                } else {
                    writer.vanish().await;
                }
                writer = world.resume(level, "ada", &name).await.0;
                let ack = writer.put_packet(Publish { dup: true, ..message.clone() }).await;
                assert_eq!((ack.packet_id, ack.reason), (id(7), 0), "{round}");
            }
            assert_eq!(release(&mut writer, 7).await, 0);
            assert_eq!(stored_messages(&world, &topic).await, 1);
            // PUBCOMP is durable too: the id means a new message now, also after a restart.
            if kill {
                writer.kill().await;
                world.restart().await;
            } else {
                writer.vanish().await;
            }
            writer = world.resume(level, "ada", &name).await.0;
            let unknown = if level == Level::V5 { 0x92 } else { 0 };
            assert_eq!(release(&mut writer, 7).await, unknown, "PUBREL again is answered");
            writer.put_packet(Publish { dup: true, ..message.clone() }).await;
            assert_eq!(release(&mut writer, 7).await, 0);
            assert_eq!(stored_messages(&world, &topic).await, 2);
            writer.leave().await;
        }
    }
}

/// As above, when the connection was lost before the server had an answer for the message.
#[tokio::test]
async fn a_qos_2_message_that_comes_again_at_once_is_stored_once() {
    let world = World::new();
    for level in PERSISTENT {
        for round in 0..40 {
            let topic = format!("f/{level:?}/{round}");
            let (mut writer, _) = world.resume(level, "ada", "fast").await;
            let message = publish(&topic, "once", Qos::ExactlyOnce, 7);
            writer.send(Packet::Publish(message.clone())).await;
            // Half of them are taken over, half are gone.
            let old = if round % 2 == 0 {
                drop(writer);
                None
            } else {
                Some(writer)
            };
            let (mut writer, _) = world.resume(level, "ada", "fast").await;
            writer.put_packet(Publish { dup: true, ..message }).await;
            release(&mut writer, 7).await;
            assert_eq!(stored_messages(&world, &topic).await, 1, "{round}");
            writer.leave().await;
            drop(old);
        }
    }
}

/// 3.1.1 `[MQTT-4.3.3-1]`, `[MQTT-4.4.0-1]`, `[MQTT-3.3.1-1]`, `[MQTT-2.3.1-4]`; MQTT5 `[MQTT-4.3.3-3]` to
/// `[MQTT-4.3.3-6]`, `[MQTT-4.4.0-1]`: PUBLISH with its id and DUP until PUBREC, then PUBREL until PUBCOMP.
#[tokio::test]
async fn a_qos_2_message_to_the_client_goes_on_where_it_was() {
    let mut world = World::new();
    for level in LEVELS {
        for kill in [false, true] {
            let name = format!("{level:?}{kill}");
            let topic = format!("o/{name}");
            let (mut reader, _) = world.resume(level, "ada", &name).await;
            reader.subscribe(&topic, Qos::ExactlyOnce).await;
            let mut writer = world.connect(level, "bob", "writer").await;
            for number in 1..=3 {
                writer.put_packet(publish(&topic, &format!("{number}"), Qos::ExactlyOnce, number)).await;
            }
            let mut ids = Vec::new();
            for number in 1..=3 {
                let message = reader.message().await;
                assert_eq!((payload(&message), message.dup), (format!("{number}"), false));
                ids.push(message.packet_id.unwrap());
            }
            // The second one has come as far as PUBREL, the third is done.
            for index in [1, 2] {
                pubrec(&mut reader, ids[index]).await;
                assert_eq!(pubrel(&mut reader).await.packet_id, ids[index]);
            }
            reader.send(Packet::Pubcomp(ack(ids[2]))).await;
            reader.quiet().await;
            for _ in 0..2 {
                if kill {
                    writer.kill().await;
                    reader.kill().await;
                    world.restart().await;
                    writer = world.connect(level, "bob", "writer").await;
                } else {
                    reader.vanish().await;
                }
                reader = world.resume(level, "ada", &name).await.0;
                let (mut first, mut released) = (0, Vec::new());
                // The one that was done may be released again: that PUBCOMP came is written later.
                while first == 0 || !released.contains(&ids[1]) {
                    match reader.next().await {
                        Some(Packet::Publish(one)) => {
                            assert_eq!((one.packet_id, one.dup), (Some(ids[0]), true));
                            assert_eq!(payload(&one), "1");
                            first += 1;
                        }
                        Some(Packet::Pubrel(ack)) => released.push(ack.packet_id),
                        other => panic!("{other:?}"),
                    }
                }
                assert_eq!(first, 1);
                if !kill {
                    assert_eq!(released, [ids[1]]);
                    reader.quiet().await;
                } else if released.len() == 1 {
                    reader.send(Packet::Pingreq).await;
                    match reader.next().await {
                        Some(Packet::Pubrel(ack)) => {
                            assert_eq!(ack.packet_id, ids[2]);
                            assert_eq!(reader.next().await, Some(Packet::Pingresp));
                        }
                        Some(Packet::Pingresp) => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
            for number in &ids {
                reader.send(Packet::Pubcomp(ack(*number))).await;
            }
            pubrec(&mut reader, ids[0]).await;
            assert_eq!(pubrel(&mut reader).await.packet_id, ids[0]);
            reader.send(Packet::Pubcomp(ack(ids[0]))).await;
            reader.quiet().await;
            // Nothing is left, and nothing comes twice.
            reader.leave().await;
            let (mut reader, _) = world.resume(level, "ada", &name).await;
            reader.quiet().await;
            writer.put_packet(publish(&topic, "4", Qos::ExactlyOnce, 9)).await;
            assert_eq!(reader.payload(&topic).await, "4");
            reader.leave().await;
        }
    }
}

/// 3.1.1 `[MQTT-4.3.2-1]`, `[MQTT-4.4.0-1]`, `[MQTT-4.6.0-1]`; MQTT5 `[MQTT-4.3.2-3]`, `[MQTT-4.4.0-1]`: with the same ids,
/// in their order, and DUP; after the newest place of a killed server, where nothing of them was stored, once more from
/// the log.
#[tokio::test]
async fn qos_1_messages_that_were_not_acknowledged_come_again() {
    let mut world = World::new();
    for level in LEVELS {
        for kill in [false, true] {
            let name = format!("{level:?}{kill}");
            let topic = format!("q/{name}");
            let (mut reader, _) = world.resume(level, "ada", &name).await;
            reader.subscribe(&topic, Qos::AtLeastOnce).await;
            let mut writer = world.connect(level, "bob", "writer").await;
            for number in 0..5 {
                writer.put(&topic, &format!("{number}")).await;
            }
            let mut ids = Vec::new();
            for number in 0..5 {
                let message = reader.message().await;
                assert_eq!((payload(&message), message.dup), (format!("{number}"), false));
                ids.push(message.packet_id.unwrap());
            }
            reader.puback(ids[0]).await;
            reader.quiet().await;
            if kill {
                writer.kill().await;
                reader.kill().await;
                world.restart().await;
            } else {
                reader.vanish().await;
            }
            let (mut reader, _) = world.resume(level, "ada", &name).await;
            let first = if kill { 0 } else { 1 };
            for (number, packet_id) in ids.iter().enumerate().skip(first) {
                let message = reader.message().await;
                assert_eq!(payload(&message), format!("{number}"));
                assert_eq!(message.dup, !kill);
                if !kill {
                    assert_eq!(message.packet_id, Some(*packet_id));
                }
                reader.puback(message.packet_id.unwrap()).await;
            }
            reader.quiet().await;
            reader.leave().await;
            let (mut reader, _) = world.resume(level, "ada", &name).await;
            reader.quiet().await;
            reader.leave().await;
        }
    }
}

/// MQTT5 §4.6, 3.1.1 §4.6: a client may acknowledge in any order; what it has is not sent again.
#[tokio::test]
async fn acknowledgements_out_of_order_are_legal() {
    let mut world = World::new();
    for level in PERSISTENT {
        let name = format!("{level:?}");
        let (mut reader, _) = world.resume(level, "ada", &name).await;
        reader.subscribe(&name, Qos::ExactlyOnce).await;
        let mut writer = world.connect(level, "bob", "writer").await;
        for number in 0..6 {
            writer.put(&name, &format!("{number}")).await;
        }
        let mut ids = Vec::new();
        for _ in 0..6 {
            ids.push(reader.message().await.packet_id.unwrap());
        }
        for index in [4, 0, 2] {
            reader.puback(ids[index]).await;
        }
        // Twice, unknown, and of another kind: nothing happens.
        reader.puback(ids[4]).await;
        reader.puback(id(60_000)).await;
        reader.send(Packet::Pubcomp(ack(ids[1]))).await;
        reader.quiet().await;
        reader.vanish().await;
        world.restart().await;
        let (mut reader, _) = world.resume(level, "ada", &name).await;
        let mut got = Vec::new();
        for _ in 0..3 {
            let message = reader.message().await;
            assert!(message.dup);
            got.push((payload(&message), message.packet_id.unwrap()));
            reader.puback(message.packet_id.unwrap()).await;
        }
        assert_eq!(got, [("1".into(), ids[1]), ("3".into(), ids[3]), ("5".into(), ids[5])]);
        reader.quiet().await;
        reader.leave().await;
        let (mut reader, _) = world.resume(level, "ada", &name).await;
        reader.quiet().await;
    }
}

/// MQTT5 `[MQTT-3.3.4-9]`, `[MQTT-4.9.0-1]`: the Receive Maximum is that of the new connection. `[MQTT-3.3.4-10]`: PUBREL
/// does not wait for it.
#[tokio::test]
async fn what_is_sent_again_keeps_to_the_new_receive_maximum() {
    let world = World::new();
    let mut reader = open(&world, taking("r", 20)).await;
    reader.subscribe("r/#", Qos::ExactlyOnce).await;
    let mut writer = world.connect(Level::V5, "bob", "writer").await;
    for number in 1..=6 {
        let qos = if number == 6 { Qos::ExactlyOnce } else { Qos::AtLeastOnce };
        writer.put_packet(publish("r/a", &format!("{number}"), qos, number)).await;
    }
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(reader.message().await.packet_id.unwrap());
    }
    pubrec(&mut reader, ids[5]).await;
    pubrel(&mut reader).await;
    reader.vanish().await;
    writer.put("r/a", "7").await;

    let mut reader = open(&world, taking("r", 2)).await;
    let (mut sent, mut released) = (Vec::new(), 0);
    for _ in 0..3 {
        match reader.next().await {
            Some(Packet::Publish(one)) => sent.push(one.packet_id.unwrap()),
            Some(Packet::Pubrel(one)) => {
                assert_eq!(one.packet_id, ids[5]);
                released += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((&sent[..], released), (&ids[..2], 1));
    reader.quiet().await;
    reader.send(Packet::Pubcomp(ack(ids[5]))).await;
    reader.quiet().await;
    for index in 0..5 {
        reader.puback(ids[index]).await;
        if let Some(next) = ids[..5].get(index + 2) {
            let message = reader.message().await;
            assert_eq!((message.packet_id, message.dup), (Some(*next), true));
        } else if index == 3 {
            assert_eq!(reader.payload("r/a").await, "7");
        }
        reader.quiet().await;
    }
}

/// 3.1.1 `[MQTT-3.3.1-3]`: DUP says that this server sends it again, and nothing else.
#[tokio::test]
async fn dup_from_a_publisher_is_not_handed_on() {
    let world = World::new();
    for level in LEVELS {
        let mut reader = world.connect(level, "", "reader").await;
        reader.subscribe("d/#", Qos::ExactlyOnce).await;
        let mut writer = world.connect(level, "", "writer").await;
        for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
            writer.put_packet(Publish { dup: true, ..publish("d/a", "x", qos, 3) }).await;
            assert!(!reader.message().await.dup);
        }
    }
}

/// MQTT5 `[MQTT-4.1.0-2]`, `[MQTT-3.1.2-23]`: sessions are removed when their time is over, and not before.
#[tokio::test]
async fn sessions_whose_time_is_over_are_removed() {
    let mut world =
        World::with(MqttConfig { free_topics: true, session_expiry_s_max: 5_000, ..MqttConfig::default() });
    let (mut short, _) = world.resume(Level::V5, "ada", "short").await;
    short.subscribe("e/#", Qos::ExactlyOnce).await;
    short.put_packet(publish("x/a", "x", Qos::ExactlyOnce, 3)).await;
    short.leave().await;
    let (long, _) = world.resume(Level::V311, "ada", "long").await;
    long.leave().await;
    let (mut held, _) = world.resume(Level::V5, "ada", "held").await;
    let (killed, _) = world.resume(Level::V5, "ada", "killed").await;
    killed.kill().await;
    let names = async |world: &World| {
        let rows = world.broker.shelf.scan(SESSIONS, None, 100).await.unwrap();
        rows.iter()
            .filter_map(|(key, _)| stored::SessionKey::parse(key))
            .map(|key| key.client_id)
            .collect::<Vec<_>>()
    };
    world.clock.advance(3_599_999);
    world.broker.sweep_once().await.unwrap();
    assert_eq!(names(&world).await, ["held", "killed", "long", "short"]);
    world.clock.advance(1);
    world.broker.sweep_once().await.unwrap();
    assert_eq!(names(&world).await, ["held", "killed", "long"], "one hour is over");
    for prefix in [b"f", b"i", b"o"] {
        let rows = world.broker.shelf.scan(prefix, None, 100).await.unwrap();
        assert!(rows.is_empty(), "nothing of it is left: {rows:?}");
    }
    world.clock.advance(1_400_000);
    world.broker.sweep_once().await.unwrap();
    assert_eq!(names(&world).await, ["held", "killed"]);
    held.quiet().await;
    held.kill().await;
    // The time of those that ended with the server begins when the next one first looks.
    world.restart().await;
    world.broker.sweep_once().await.unwrap();
    world.clock.advance(3_599_999);
    world.broker.sweep_once().await.unwrap();
    assert_eq!(
        names(&world).await,
        ["held"],
        "the time of one that was cut began at the first look after that"
    );
    world.clock.advance(1);
    world.broker.sweep_once().await.unwrap();
    assert!(names(&world).await.is_empty());
    let (mut short, present) = world.resume(Level::V5, "ada", "short").await;
    assert!(!present);
    // The id that was in use then is free.
    assert_eq!(release(&mut short, 3).await, 0x92);
}

/// 3.1.1 `[MQTT-3.1.2-6]`, MQTT5 `[MQTT-3.1.2-4]`: of a session that was discarded nothing is used again.
#[tokio::test]
async fn a_clean_session_has_nothing_of_the_one_before() {
    let mut world = World::new();
    for level in LEVELS {
        let name = format!("{level:?}");
        let (mut client, _) = world.resume(level, "ada", &name).await;
        client.subscribe("c/#", Qos::ExactlyOnce).await;
        client.put_packet(publish("x/c", "x", Qos::ExactlyOnce, 3)).await;
        let mut writer = world.connect(level, "bob", "writer").await;
        writer.put_packet(publish("c/a", "x", Qos::ExactlyOnce, 1)).await;
        client.message().await;
        client.kill().await;
        world.restart().await;
        let mut client = open(&world, connect(level, "ada", &name)).await;
        client.quiet().await;
        assert_eq!(release(&mut client, 3).await, if level == Level::V5 { 0x92 } else { 0 });
        client.kill().await;
        world.restart().await;
        let (mut client, present) = world.resume(level, "ada", &name).await;
        assert!(!present);
        let mut writer = world.connect(level, "bob", "writer").await;
        writer.put("c/a", "x").await;
        client.quiet().await;
        client.leave().await;
    }
}

/// 3.1.1 `[MQTT-4.1.0-2]`, MQTT5 `[MQTT-4.1.0-1]`: the session of an open connection is never discarded.
#[tokio::test]
async fn the_session_of_an_open_connection_does_not_expire() {
    let world = World::new();
    let mut wanted = lasting(Level::V5, "ada", "a");
    wanted.properties = properties(|p| {
        p.session_expiry_s(1);
    });
    let mut client = open(&world, wanted.clone()).await;
    client.subscribe("v/#", Qos::AtMostOnce).await;
    world.clock.advance(1_000_000);
    world.broker.sweep_once().await.unwrap();
    client.send(Packet::Publish(publish("v/a", "x", Qos::AtMostOnce, 0))).await;
    assert_eq!(client.payload("v/a").await, "x");
    client.leave_with(0, Properties::default()).await;
    let mut client = world.client(Level::V5);
    assert!(client.connect(wanted).await.session_present, "its time began when it ended");
}

/// MQTT5 §4.3.3: a PUBREC that is not known is answered, so that the client can end its part.
#[tokio::test]
async fn acknowledgements_of_nothing_are_answered_where_an_answer_is_owed() {
    let world = World::new();
    for level in LEVELS {
        let mut client = world.connect(level, "", "a").await;
        let unknown = if level == Level::V5 { 0x92 } else { 0 };
        pubrec(&mut client, id(5)).await;
        let answer = pubrel(&mut client).await;
        assert_eq!((answer.packet_id, answer.reason), (id(5), unknown));
        assert_eq!(release(&mut client, 5).await, unknown);
        client.puback(id(5)).await;
        client.send(Packet::Pubcomp(ack(id(5)))).await;
        client.quiet().await;
    }
}

/// MQTT5 §4.9: the quota of a client begins anew with its connection. Ids that it lost do not use it up.
#[tokio::test]
async fn messages_of_an_earlier_connection_use_up_no_quota() {
    let world = World::with(MqttConfig { free_topics: true, receive_maximum: 2, ..MqttConfig::default() });
    for round in 0..3 {
        let (mut writer, present) = world.resume(Level::V5, "ada", "lost").await;
        assert_eq!(present, round > 0);
        for number in [1, 2] {
            let message = publish("q/a", "x", Qos::ExactlyOnce, 10 * round + number);
            assert_eq!(writer.put_packet(message).await.reason, 0);
        }
        if round > 0 {
            // One of the earlier ones, released: it makes no room either.
            assert_eq!(release(&mut writer, 10 * (round - 1) + 1).await, 0);
            writer.send(Packet::Publish(publish("q/a", "x", Qos::ExactlyOnce, 9_999))).await;
            assert_eq!(writer.disconnected().await, 0x93);
        } else {
            writer.vanish().await;
        }
    }
}
