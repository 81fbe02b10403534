//! Retained messages.

use std::collections::BTreeSet;

use super::super::wire::{Level, Packet, Properties, Publish, Qos, SubscribeOptions};
use super::world::{Client, World, options, properties, publish, sent};

const LEVELS: [Level; 3] = [Level::V31, Level::V311, Level::V5];

fn retained(topic: &str, payload: &str, qos: Qos, id: u16) -> Publish {
    Publish { retain: true, ..publish(topic, payload, qos, id) }
}

async fn retain(client: &mut Client, topic: &str, payload: &str) {
    assert_eq!(client.put_packet(retained(topic, payload, Qos::AtLeastOnce, 1)).await.reason, 0);
}

fn handling(retain_handling: u8) -> SubscribeOptions {
    SubscribeOptions { retain_handling, ..options(Qos::AtMostOnce) }
}

/// `[MQTT-3.3.1-8]`, `[MQTT-3.3.1-9]` (3.1.1), MQTT5 `[MQTT-3.3.1-12]`: set for a new subscription only, at whatever QoS.
#[tokio::test]
async fn retain_is_set_for_what_was_there_and_not_for_what_comes() {
    let world = World::new();
    for level in LEVELS {
        let mut writer = world.connect(level, "", "w").await;
        let mut old = world.connect(level, "", "old").await;
        old.subscribe(&format!("r/{level:?}/#"), Qos::ExactlyOnce).await;
        for (qos, id) in [(Qos::AtMostOnce, 0), (Qos::AtLeastOnce, 1), (Qos::ExactlyOnce, 2)] {
            let topic = format!("r/{level:?}/{}", qos as u8);
            writer.send(Packet::Publish(retained(&topic, "m", qos, id))).await;
            let live = old.message().await;
            assert_eq!((live.topic.as_str(), live.retain, live.qos), (topic.as_str(), false, qos));
            let mut new = world.connect(level, "", "new").await;
            new.subscribe(&topic, Qos::ExactlyOnce).await;
            let kept = new.message().await;
            assert_eq!((kept.retain, kept.dup, kept.qos, &kept.payload[..]), (true, false, qos, &b"m"[..]));
            new.quiet().await;
        }
    }
}

/// `[MQTT-3.3.1-5]`, `[MQTT-3.3.1-7]` (3.1.1): the newest one, whatever its QoS; each topic has its own.
#[tokio::test]
async fn each_topic_keeps_its_newest_one() {
    let world = World::new();
    let mut writer = world.connect(Level::V311, "", "w").await;
    retain(&mut writer, "k/a", "1").await;
    retain(&mut writer, "k/b", "2").await;
    writer.send(Packet::Publish(retained("k/a", "3", Qos::AtMostOnce, 0))).await;
    // What is not retained changes nothing: `[MQTT-3.3.1-12]` (3.1.1), MQTT5 `[MQTT-3.3.1-8]`.
    writer.put("k/a", "4").await;
    writer.put("k/b", "").await;
    let mut reader = world.connect(Level::V311, "", "r").await;
    reader.subscribe("k/+", Qos::AtLeastOnce).await;
    let mut got = BTreeSet::new();
    for _ in 0..2 {
        let message = reader.message().await;
        assert!(message.retain);
        got.insert((message.topic.to_string(), String::from_utf8(message.payload.to_vec()).unwrap()));
    }
    assert_eq!(got, [("k/a".into(), "3".into()), ("k/b".into(), "2".into())].into());
    reader.quiet().await;
}

/// `[MQTT-3.3.1-6]`, `[MQTT-3.3.1-7]`, 3.1.1 `[MQTT-3.3.1-10]`, `[MQTT-3.3.1-11]`: without bytes it clears, goes to
/// subscribers like any other, and is not kept itself.
#[tokio::test]
async fn a_retained_message_without_bytes_clears_and_is_passed_on() {
    let world = World::new();
    for level in LEVELS {
        let topic = format!("z/{level:?}");
        let mut writer = world.connect(level, "", "w").await;
        let mut old = world.connect(level, "", "old").await;
        old.subscribe(&topic, Qos::AtMostOnce).await;
        retain(&mut writer, &topic, "m").await;
        assert_eq!(old.payload(&topic).await, "m");
        retain(&mut writer, &topic, "").await;
        let cleared = old.message().await;
        assert_eq!((cleared.payload.len(), cleared.retain), (0, false));
        let mut new = world.connect(level, "", "new").await;
        for filter in [topic.as_str(), "z/+", "#"] {
            new.subscribe(filter, Qos::AtMostOnce).await;
            new.quiet().await;
        }
        assert_eq!(sent(&world, &topic).await, ["m", ""], "both are in the log");
    }
}

/// `[MQTT-3.3.1-9]` to `[MQTT-3.3.1-11]`: 0 = always, 1 = for new subscriptions, 2 = never.
#[tokio::test]
async fn retain_handling_says_when_they_come() {
    let world = World::new();
    let mut writer = world.connect(Level::V5, "", "w").await;
    retain(&mut writer, "h/x", "m").await;
    let mut reader = world.connect(Level::V5, "", "r").await;
    for (handled, filter, comes) in [
        (2, "h/x", false),
        (1, "h/x", false),
        (0, "h/x", true),
        (0, "h/x", true),
        (1, "h/+", true),
        (1, "h/+", false),
        (0, "h/+", true),
    ] {
        reader.subscribe_with(filter, handling(handled), Properties::default()).await;
        if comes {
            let message = reader.message().await;
            assert!(message.retain);
        }
        reader.quiet().await;
    }
    reader.unsubscribe("h/+").await;
    reader.subscribe_with("h/+", handling(1), Properties::default()).await;
    assert!(reader.message().await.retain, "it is new again");
    // What came live a moment ago comes again when it is asked for.
    retain(&mut writer, "h/x", "m2").await;
    assert_eq!(reader.payload("h/x").await, "m2");
    reader.subscribe_with("h/x", handling(0), Properties::default()).await;
    let again = reader.message().await;
    assert_eq!((&again.payload[..], again.retain), (&b"m2"[..], true));
    reader.quiet().await;
}

/// `[MQTT-3.8.4-3]`, `[MQTT-3.8.4-4]`: a session that is resumed is not asked anew, a filter that is sent again is.
#[tokio::test]
async fn an_identical_filter_brings_them_again_and_a_resumed_session_does_not() {
    let world = World::new();
    for level in LEVELS {
        let mut writer = world.connect(level, "", "w").await;
        let topic = format!("i/{level:?}");
        retain(&mut writer, &topic, "m").await;
        let (mut reader, _) = world.resume(level, "ada", "r").await;
        for _ in 0..3 {
            reader.subscribe(&topic, Qos::AtLeastOnce).await;
            let message = reader.message().await;
            assert!(message.retain);
            reader.puback(message.packet_id.unwrap()).await;
            reader.quiet().await;
        }
        reader.leave().await;
        let (mut reader, _) = world.resume(level, "ada", "r").await;
        reader.quiet().await;
    }
}

/// `[MQTT-3.3.1-12]`, `[MQTT-3.3.1-13]`: Retain As Published.
#[tokio::test]
async fn retain_as_published_keeps_the_flag() {
    let world = World::new();
    let mut writer = world.connect(Level::V5, "", "w").await;
    let mut keeps = world.connect(Level::V5, "", "keeps").await;
    let kept = SubscribeOptions { retain_as_published: true, ..options(Qos::AtMostOnce) };
    keeps.subscribe_with("p/x", kept, Properties::default()).await;
    let mut plain = world.connect(Level::V5, "", "plain").await;
    plain.subscribe("p/x", Qos::AtMostOnce).await;
    for retain in [true, false, true] {
        writer.put_packet(Publish { retain, ..publish("p/x", "m", Qos::AtLeastOnce, 1) }).await;
        assert_eq!(keeps.message().await.retain, retain);
        assert!(!plain.message().await.retain);
    }
}

/// All of them, however many pages they take, also to a client that takes few at a time.
#[tokio::test]
async fn a_wildcard_finds_all_of_them() {
    let world = World::new();
    let mut writer = world.connect(Level::V311, "", "w").await;
    const ALL: usize = 600;
    for number in 0..ALL {
        let qos = if number % 2 == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce };
        let id = if number % 2 == 0 { 0 } else { number as u16 };
        writer.send(Packet::Publish(retained(&format!("all/{number}"), &number.to_string(), qos, id))).await;
    }
    for _ in 0..ALL / 2 {
        assert!(matches!(writer.next().await, Some(Packet::Puback(_))));
    }
    retain(&mut writer, "also", "x").await;
    retain(&mut writer, "al", "x").await;
    for level in LEVELS {
        let mut reader = world.client(level);
        let mut hello = super::world::connect(level, "", "r");
        if level == Level::V5 {
            hello.properties = properties(|p| {
                p.receive_maximum(3);
            });
        }
        reader.connect(hello).await;
        reader.subscribe("all/+", Qos::AtLeastOnce).await;
        let mut got = BTreeSet::new();
        for _ in 0..ALL {
            let message = reader.message().await;
            assert!(message.retain);
            if let Some(id) = message.packet_id {
                reader.puback(id).await;
            }
            let number = String::from_utf8(message.payload.to_vec()).unwrap();
            assert_eq!(message.topic.as_str(), format!("all/{number}"));
            assert!(got.insert(number));
        }
        reader.quiet().await;
        // `all/#` means `all` as well, and not what begins alike.
        reader.subscribe("al/#", Qos::AtMostOnce).await;
        assert_eq!(reader.payload("al").await, "x");
        reader.quiet().await;
    }
}

/// `[MQTT-4.1.0-1]`, 3.1.1 §3.3.1.3: they outlive sessions and the process.
#[tokio::test]
async fn they_survive_a_restart() {
    let mut world = World::new();
    let mut writer = world.connect(Level::V5, "", "w").await;
    retain(&mut writer, "s/x", "m").await;
    retain(&mut writer, "s/gone", "m").await;
    retain(&mut writer, "s/gone", "").await;
    writer.vanish().await;
    world.restart().await;
    let mut reader = world.connect(Level::V31, "", "r").await;
    reader.subscribe("s/#", Qos::AtMostOnce).await;
    let message = reader.message().await;
    assert_eq!((message.topic.as_str(), message.retain), ("s/x", true));
    reader.quiet().await;
}

/// `[MQTT-3.3.2-5]`, `[MQTT-3.3.2-6]`: one that expires is gone then, and says before how long it has.
#[tokio::test]
async fn one_that_expires_is_gone_then() {
    let world = World::new();
    let mut writer = world.connect(Level::V5, "", "w").await;
    let mut message = retained("x/x", "m", Qos::AtLeastOnce, 1);
    message.properties = properties(|p| {
        p.message_expiry_s(60).user("a", "b");
    });
    writer.put_packet(message).await;
    world.clock.set(super::world::START_MS + 59_500);
    let mut reader = world.connect(Level::V5, "", "r").await;
    reader.subscribe("x/x", Qos::AtMostOnce).await;
    let message = reader.message().await;
    assert_eq!(message.properties.message_expiry_s(), Some(1));
    assert_eq!(message.properties.user().collect::<Vec<_>>(), [("a", "b")]);
    world.clock.set(super::world::START_MS + 60_000);
    reader.subscribe("x/x", Qos::AtMostOnce).await;
    reader.quiet().await;
}

/// `[MQTT-4.7.2-1]`: a wildcard at the beginning does not find what begins with `$`.
#[tokio::test]
async fn those_of_hidden_topics_are_found_by_name_only() {
    let world = World::new();
    let mut writer = world.connect(Level::V311, "", "w").await;
    retain(&mut writer, "$own/x", "m").await;
    let mut reader = world.connect(Level::V311, "", "r").await;
    for filter in ["#", "+/x"] {
        reader.subscribe(filter, Qos::AtMostOnce).await;
        reader.quiet().await;
    }
    for filter in ["$own/#", "$own/x"] {
        reader.subscribe(filter, Qos::AtMostOnce).await;
        assert!(reader.message().await.retain, "{filter}");
        reader.quiet().await;
    }
}

/// Those of feeds go to their members and only there, whichever way their name was encoded.
#[tokio::test]
async fn those_of_feeds_are_for_members() {
    let world = World::new();
    world.group("a/b", &["ada", "bob"]).await;
    let mut writer = world.connect(Level::V5, "ada", "w").await;
    let mut message = retained("feeds/a%2fb", "news", Qos::AtLeastOnce, 1);
    message.properties = properties(|p| {
        p.user("format", "raw");
    });
    assert_eq!(writer.put_packet(message).await.reason, 0);
    let mut bob = world.connect(Level::V5, "bob", "b").await;
    let raw = || {
        properties(|p| {
            p.user("format", "raw");
        })
    };
    for filter in ["feeds/a%2Fb", "feeds/+", "feeds/%61%2fb"] {
        assert_eq!(bob.subscribe_with(filter, options(Qos::AtMostOnce), raw()).await, 0);
        let message = bob.message().await;
        assert_eq!((message.topic.as_str(), message.retain), ("feeds/a%2Fb", true), "{filter}");
        assert_eq!(&message.payload[..], b"news");
        bob.quiet().await;
    }
    bob.subscribe("#", Qos::AtMostOnce).await;
    bob.quiet().await;
    let mut eve = world.connect(Level::V5, "eve", "e").await;
    for filter in ["feeds/+", "#", "feeds/a%2Fb"] {
        eve.subscribe(filter, Qos::AtMostOnce).await;
        eve.quiet().await;
    }
}
