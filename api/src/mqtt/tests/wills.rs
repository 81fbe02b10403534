//! Wills: when one is published, when not, and as what.

use std::time::Duration;

use bytes::Bytes;

use super::super::config::MqttConfig;
use super::super::wire::{Connect, Disconnect, Level, Packet, Properties, Qos};
use super::world::{Client, World, connect, lasting, properties, publish, will};

const LEVELS: [Level; 3] = [Level::V31, Level::V311, Level::V5];

/// A client of this id with a will on `w/<id>`.
fn leaving(level: Level, id: &str) -> Connect {
    let will = will(&format!("w/{id}"), "gone", Qos::AtLeastOnce, false);
    Connect { will: Some(will), ..connect(level, "ada", id) }
}

/// The same, of MQTT 5, with a delay and a session that stays for so long.
fn delaying(id: &str, delay_s: u32, expiry_s: u32) -> Connect {
    let mut connect = leaving(Level::V5, id);
    connect.clean_start = false;
    connect.properties = properties(|p| {
        p.session_expiry_s(expiry_s);
    });
    if let Some(will) = &mut connect.will {
        will.properties = properties(|p| {
            p.will_delay_s(delay_s);
        });
    }
    connect
}

async fn open(world: &World, connect: Connect) -> Client {
    let mut client = world.client(connect.level);
    assert_eq!(client.connect(connect).await.reason, 0);
    client
}

async fn watcher(world: &World) -> Client {
    let mut reader = world.connect(Level::V5, "", "watcher").await;
    reader.subscribe("w/#", Qos::AtMostOnce).await;
    reader
}

/// Time passes for everybody.
async fn pass(world: &World, s: u64) {
    tokio::time::pause();
    world.clock.advance(s * 1000);
    tokio::time::advance(Duration::from_secs(s)).await;
    tokio::time::resume();
}

/// Nothing was published before this.
async fn nothing(reader: &mut Client) {
    reader.send(Packet::Publish(publish("w/mark", "mark", Qos::AtMostOnce, 0))).await;
    assert_eq!(reader.payload("w/mark").await, "mark");
}

/// 3.1.1 `[MQTT-3.1.2-8]`, MQTT5 `[MQTT-3.1.2-7]`, `[MQTT-3.1.2-8]`.
#[tokio::test]
async fn a_will_is_published_when_the_socket_is_lost() {
    let world = World::new();
    let mut reader = watcher(&world).await;
    for level in LEVELS {
        let client = open(&world, leaving(level, "a")).await;
        client.vanish().await;
        assert_eq!(reader.payload("w/a").await, "gone");
        // [MQTT-3.1.2-10]: once.
        open(&world, connect(level, "ada", "a")).await.vanish().await;
        nothing(&mut reader).await;
    }
}

/// As above: a network that failed is one way to lose a connection.
#[tokio::test]
async fn a_will_is_published_when_the_keep_alive_is_over() {
    let world = World::new();
    let mut reader = watcher(&world).await;
    for level in LEVELS {
        let mut wanted = leaving(level, "a");
        wanted.keep_alive_s = 10;
        let mut client = open(&world, wanted).await;
        pass(&world, 16).await;
        match level {
            Level::V5 => assert_eq!(client.disconnected().await, 0x8D),
            _ => client.closed().await,
        }
        assert_eq!(reader.payload("w/a").await, "gone");
    }
}

/// As above: the server closes because of an error.
#[tokio::test]
async fn a_will_is_published_after_an_error_of_the_client() {
    let world = World::new();
    let mut reader = watcher(&world).await;
    for level in LEVELS {
        for bytes in [&[0xD0, 0][..], &[0x36, 0], &[0x10, 0]] {
            let mut client = open(&world, leaving(level, "a")).await;
            client.raw(bytes).await;
            client.gone().await;
            assert_eq!(reader.payload("w/a").await, "gone");
        }
        if level != Level::V5 {
            // A message that was refused.
            let mut client = open(&world, leaving(level, "a")).await;
            client.send(Packet::Publish(publish("$SYS/x", "x", Qos::AtLeastOnce, 1))).await;
            client.gone().await;
            assert_eq!(reader.payload("w/a").await, "gone");
        }
    }
}

/// MQTT5 §3.1.4: the old connection was not ended by its client.
#[tokio::test]
async fn a_will_is_published_when_the_session_is_taken_over() {
    let world = World::new();
    let mut reader = watcher(&world).await;
    for level in LEVELS {
        for clean in [true, false] {
            let old = open(&world, leaving(level, "a")).await;
            let new = open(&world, Connect { clean_start: clean, ..connect(level, "ada", "a") }).await;
            assert_eq!(reader.payload("w/a").await, "gone");
            old.gone().await;
            new.leave().await;
            nothing(&mut reader).await;
        }
    }
}

/// `[MQTT-3.14.4-3]`, `[MQTT-3.1.2-10]`: DISCONNECT, in MQTT 5 with 0x00, takes the will back.
#[tokio::test]
async fn a_will_is_void_after_disconnect_and_only_then() {
    let mut world = World::new();
    let mut reader = watcher(&world).await;
    for level in LEVELS {
        open(&world, leaving(level, "a")).await.leave().await;
        nothing(&mut reader).await;
    }
    for reason in [0x04, 0x80, 0x81, 0x98] {
        open(&world, leaving(Level::V5, "a")).await.leave_with(reason, Properties::default()).await;
        assert_eq!(reader.payload("w/a").await, "gone", "{reason}");
    }
    open(&world, leaving(Level::V5, "a")).await.leave().await;
    world.restart().await;
    let mut reader = watcher(&world).await;
    nothing(&mut reader).await;
}

/// 3.1.1 `[MQTT-3.1.2-12]`.
#[tokio::test]
async fn without_a_will_nothing_is_published() {
    let world = World::new();
    let mut reader = watcher(&world).await;
    for level in LEVELS {
        open(&world, connect(level, "ada", "a")).await.vanish().await;
        nothing(&mut reader).await;
    }
}

/// MQTT5 §3.1.3.2.2, `[MQTT-3.1.2-8]`: after the delay, and once.
#[tokio::test]
async fn a_will_waits_for_its_delay() {
    let world = World::new();
    let mut reader = watcher(&world).await;
    open(&world, delaying("a", 30, 3600)).await.vanish().await;
    pass(&world, 29).await;
    nothing(&mut reader).await;
    pass(&world, 2).await;
    assert_eq!(reader.payload("w/a").await, "gone");
    nothing(&mut reader).await;
}

/// MQTT5 `[MQTT-3.1.3-9]`: the session is there again in time, also when the server was not.
#[tokio::test]
async fn a_will_that_waits_is_void_when_the_session_is_resumed() {
    let mut world = World::new();
    for restarts in [false, true] {
        let mut reader = watcher(&world).await;
        open(&world, delaying("a", 30, 3600)).await.vanish().await;
        pass(&world, 10).await;
        if restarts {
            reader.leave().await;
            world.restart().await;
            reader = watcher(&world).await;
        }
        // Without a will of its own.
        let client = open(&world, lasting(Level::V5, "ada", "a")).await;
        pass(&world, 60).await;
        nothing(&mut reader).await;
        client.kill().await;
        reader.leave().await;
        world.restart().await;
        let mut reader = watcher(&world).await;
        pass(&world, 60).await;
        nothing(&mut reader).await;
        reader.leave().await;
    }
}

/// The same when the old connection was taken over: it is a new connection within the delay.
#[tokio::test]
async fn a_will_with_a_delay_is_void_when_the_session_is_taken_over() {
    let world = World::new();
    let mut reader = watcher(&world).await;
    let old = open(&world, delaying("a", 30, 3600)).await;
    let new = open(&world, lasting(Level::V5, "ada", "a")).await;
    old.gone().await;
    pass(&world, 60).await;
    nothing(&mut reader).await;
    new.leave().await;
}

/// MQTT5 §3.1.2.5, §3.1.3.2.2: the delay is over at the latest when the session ends.
#[tokio::test]
async fn a_will_does_not_wait_longer_than_its_session() {
    let world = World::new();
    let mut reader = watcher(&world).await;
    // No session is left.
    open(&world, delaying("a", 3600, 0)).await.vanish().await;
    assert_eq!(reader.payload("w/a").await, "gone");
    // It ends before.
    open(&world, delaying("a", 3600, 20)).await.vanish().await;
    pass(&world, 19).await;
    nothing(&mut reader).await;
    pass(&world, 2).await;
    assert_eq!(reader.payload("w/a").await, "gone");
    // The client ends it.
    let end = properties(|p| {
        p.session_expiry_s(0);
    });
    open(&world, delaying("a", 3600, 3600)).await.leave_with(0x04, end).await;
    assert_eq!(reader.payload("w/a").await, "gone");
    // A clean connection ends it.
    open(&world, delaying("a", 3600, 3600)).await.vanish().await;
    nothing(&mut reader).await;
    let client = open(&world, connect(Level::V5, "ada", "a")).await;
    assert_eq!(reader.payload("w/a").await, "gone");
    client.leave().await;
}

/// The will is that of the newest connection.
#[tokio::test]
async fn a_new_connection_brings_its_own_will() {
    let world = World::new();
    let mut reader = watcher(&world).await;
    open(&world, delaying("a", 30, 3600)).await.vanish().await;
    let mut wanted = delaying("a", 0, 3600);
    wanted.will.as_mut().unwrap().payload = Bytes::from_static(b"second");
    open(&world, wanted).await.vanish().await;
    assert_eq!(reader.payload("w/a").await, "second");
    pass(&world, 60).await;
    nothing(&mut reader).await;
}

/// 3.1.1 `[MQTT-3.1.2-16]`, `[MQTT-3.1.2-17]`, `[MQTT-3.1.2-9]`; MQTT5 `[MQTT-3.1.2-9]`, `[MQTT-3.1.2-14]`,
/// `[MQTT-3.1.2-15]`.
#[tokio::test]
async fn a_will_is_published_with_its_qos_and_its_retain_flag() {
    let world = World::new();
    for level in LEVELS {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            for retain in [false, true] {
                let topic = format!("q/{level:?}/{}/{retain}", qos as u8);
                let mut reader = world.connect(Level::V311, "", "live").await;
                reader.subscribe(&topic, Qos::ExactlyOnce).await;
                let mut wanted = connect(level, "ada", "a");
                wanted.will = Some(will(&topic, "gone", qos, retain));
                open(&world, wanted).await.vanish().await;
                let message = reader.message().await;
                assert_eq!((message.qos, message.retain, &message.payload[..]), (qos, false, &b"gone"[..]));
                let mut later = world.connect(Level::V311, "", "later").await;
                later.subscribe(&topic, Qos::ExactlyOnce).await;
                if retain {
                    let message = later.message().await;
                    assert_eq!((message.qos, message.retain), (qos, true));
                } else {
                    later.quiet().await;
                }
            }
        }
    }
}

/// MQTT5 §3.1.3.2, `[MQTT-3.1.3-10]`: what a PUBLISH would carry.
#[tokio::test]
async fn a_will_keeps_its_properties_in_their_order() {
    let world = World::new();
    let mut reader = watcher(&world).await;
    let mut wanted = leaving(Level::V5, "a");
    wanted.will.as_mut().unwrap().properties = properties(|p| {
        p.will_delay_s(0)
            .payload_format_indicator(1)
            .message_expiry_s(100)
            .content_type("text/plain")
            .response_topic("answers/here")
            .correlation_data(b"\x00\x01")
            .user("b", "1")
            .user("a", "2")
            .user("b", "3");
    });
    open(&world, wanted).await.vanish().await;
    let message = reader.message().await;
    let got = &message.properties;
    assert_eq!(got.payload_format_indicator(), Some(1));
    assert_eq!(got.message_expiry_s(), Some(100));
    assert_eq!(got.content_type(), Some("text/plain"));
    assert_eq!(got.response_topic(), Some("answers/here"));
    assert_eq!(got.correlation_data(), Some(&b"\x00\x01"[..]));
    assert_eq!(got.user().collect::<Vec<_>>(), [("b", "1"), ("a", "2"), ("b", "3")]);
    assert_eq!(got.will_delay_s(), None);
}

/// MQTT5 §3.1.2.5 and 3.1.1 §3.1.2.5: a server that failed, or that closes, publishes after its next start.
#[tokio::test]
async fn wills_of_connections_that_ended_with_the_server_are_published_after_its_start() {
    for drains in [false, true] {
        let mut world = World::new();
        let mut keeper = world.client(Level::V311);
        keeper.connect(lasting(Level::V311, "bob", "keeper")).await;
        keeper.subscribe("w/#", Qos::AtLeastOnce).await;
        keeper.leave().await;
        let mut clients = Vec::new();
        for level in LEVELS {
            clients.push(open(&world, leaving(level, &format!("{level:?}"))).await);
        }
        clients.push(open(&world, delaying("late", 30, 3600)).await);
        let left = open(&world, leaving(Level::V5, "left")).await;
        left.leave().await;
        if drains {
            world.drain();
        }
        for client in clients {
            if drains {
                client.gone().await;
            } else {
                client.kill().await;
            }
        }
        world.undrain();
        world.restart().await;
        let (mut keeper, _) = world.resume(Level::V311, "bob", "keeper").await;
        let mut got = Vec::new();
        for _ in LEVELS {
            let message = keeper.message().await;
            got.push(message.topic.as_str().to_owned());
            keeper.puback(message.packet_id.unwrap()).await;
        }
        got.sort();
        assert_eq!(got, ["w/V31", "w/V311", "w/V5"]);
        pass(&world, 29).await;
        keeper.quiet().await;
        pass(&world, 2).await;
        assert_eq!(keeper.payload("w/late").await, "gone");
        keeper.leave().await;
        // Once.
        world.restart().await;
        pass(&world, 60).await;
        let (mut keeper, _) = world.resume(Level::V311, "bob", "keeper").await;
        let message = keeper.message().await;
        assert!(message.dup && message.topic.as_str() == "w/late", "it was not acknowledged: {message:?}");
        keeper.puback(message.packet_id.unwrap()).await;
        keeper.quiet().await;
    }
}

/// A will that nobody could publish: the CONNECT is refused, as each version says.
#[tokio::test]
async fn a_will_to_a_topic_that_is_not_the_clients_is_refused() {
    let world = World::new();
    let long = "x".repeat(2000);
    for topic in [
        "$SYS/x",
        "$share/a/b",
        "$from/1/feeds/a",
        "im://modulus/x",
        "IM/HD_Say/1",
        "pb/x",
        "feeds/a/b",
        &long,
    ] {
        for (level, reason) in [(Level::V31, 5), (Level::V311, 5), (Level::V5, 0x90)] {
            let mut client = world.client(level);
            let mut wanted = connect(level, "ada", "a");
            wanted.will = Some(will(topic, "gone", Qos::AtMostOnce, false));
            assert_eq!(client.connect(wanted).await.reason, reason, "{topic}");
            client.closed().await;
        }
    }
    let world = World::with(MqttConfig::default());
    let mut client = world.client(Level::V311);
    assert_eq!(client.connect(leaving(Level::V311, "a")).await.reason, 5, "free topics are off");
}

/// A will on a feed topic is a message of its user, who must be a member when it is published.
#[tokio::test]
async fn a_will_to_a_feed_is_published_for_members_only() {
    let world = World::new();
    world.group("team", &["ada", "bob"]).await;
    let mut reader = world.connect(Level::V5, "bob", "reader").await;
    reader.subscribe("feeds/team", Qos::AtMostOnce).await;
    let to_team = |user: &str| {
        let mut wanted = connect(Level::V5, user, "a");
        wanted.will =
            Some(will("feeds/team", "{\"kind\":\"text\",\"text\":\"gone\"}", Qos::AtLeastOnce, false));
        wanted
    };
    open(&world, to_team("eve")).await.vanish().await;
    open(&world, to_team("ada")).await.vanish().await;
    let message = reader.message().await;
    let entry: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
    assert!(entry.to_string().contains("\"ada\""), "{entry}");
    reader.quiet().await;
}

/// DISCONNECT that is itself an error does not take the will back.
#[tokio::test]
async fn a_disconnect_that_breaks_a_rule_leaves_the_will() {
    let world = World::new();
    let mut reader = watcher(&world).await;
    let mut client = open(&world, leaving(Level::V5, "a")).await;
    let raised = properties(|p| {
        p.session_expiry_s(10);
    });
    client.send(Packet::Disconnect(Disconnect { reason: 0, properties: raised })).await;
    assert_eq!(client.disconnected().await, 0x82);
    assert_eq!(reader.payload("w/a").await, "gone");
    for level in [Level::V311, Level::V5] {
        let mut client = open(&world, leaving(level, "a")).await;
        client.raw(&[0xE1, 0]).await;
        client.gone().await;
        assert_eq!(reader.payload("w/a").await, "gone");
    }
}
