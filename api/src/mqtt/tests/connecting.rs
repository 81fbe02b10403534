//! CONNECT and CONNACK: levels, client ids, sessions, credentials, what is refused and how, takeover.

use bytes::Bytes;
use feedlog_service::auth::AuthConfig;

use super::super::config::MqttConfig;
use super::super::connection::{Connection, Origins};
use super::super::wire::{Auth, Connack, Connect, Disconnect, Level, Packet, Properties, Qos, Subscribe};
use super::world::{Client, World, connect, id, lasting, options, properties, publish, text, will};

const LEVELS: [Level; 3] = [Level::V31, Level::V311, Level::V5];

fn free(config: MqttConfig) -> World {
    World::with(MqttConfig { free_topics: true, ..config })
}

/// The answer to a CONNECT that must be refused: nothing follows it.
async fn refusal(world: &World, connect: Connect) -> u8 {
    let mut client = world.client(connect.level);
    let connack = client.connect(connect).await;
    assert!(!connack.session_present, "[MQTT-3.2.2-4], MQTT5 [MQTT-3.2.2-6]");
    client.closed().await;
    connack.reason
}

/// What the server says to these bytes before it closes.
async fn answer(world: &World, level: Level, bytes: &[u8]) -> Option<u8> {
    let mut client = world.client(level);
    client.raw(bytes).await;
    match client.next().await {
        Some(Packet::Connack(connack)) => {
            client.closed().await;
            Some(connack.reason)
        }
        None => None,
        other => panic!("not a CONNACK: {other:?}"),
    }
}

fn expiring(level: Level, id: &str, expiry_s: u32) -> Connect {
    let mut connect = lasting(level, "ada", id);
    connect.properties = properties(|p| {
        p.session_expiry_s(expiry_s);
    });
    connect
}

async fn open(world: &World, connect: Connect) -> (Client, Connack) {
    let mut client = world.client(connect.level);
    let connack = client.connect(connect).await;
    assert_eq!(connack.reason, 0, "{connack:?}");
    (client, connack)
}

/// `[MQTT-3.1.2-1]`, `[MQTT-3.1.2-2]`: in the form of the nearest version; who speaks another protocol gets no answer.
#[tokio::test]
async fn levels_that_are_not_spoken_are_refused_as_each_version_says() {
    let world = World::new();
    let connect = |name: &str, level: u8| {
        let mut body = vec![0, name.len() as u8];
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&[level, 2, 0, 0, 0, 1, b'a']);
        let mut bytes = vec![0x10, body.len() as u8];
        bytes.extend_from_slice(&body);
        bytes
    };
    assert_eq!(answer(&world, Level::V311, &connect("MQTT", 3)).await, Some(1));
    assert_eq!(answer(&world, Level::V311, &connect("MQTT", 0x84)).await, Some(1));
    assert_eq!(answer(&world, Level::V31, &connect("MQIsdp", 4)).await, Some(1));
    assert_eq!(answer(&world, Level::V5, &connect("MQTT", 6)).await, Some(0x84));
    assert_eq!(answer(&world, Level::V311, &connect("AMQP", 4)).await, None);
}

/// 3.1.1 `[MQTT-3.1.4-1]`, MQTT5 `[MQTT-3.1.4-1]`, `[MQTT-3.1.2-3]`, `[MQTT-3.2.2-15]`: only MQTT 5 is told why.
#[tokio::test]
async fn a_connect_that_does_not_conform_is_closed_and_told_why_in_mqtt_5() {
    let world = free(MqttConfig { connect_bytes_max: 200, ..MqttConfig::default() });
    // The reserved flag.
    let v5 = [0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 3, 0, 0, 0, 0, 1, b'a'];
    let v311 = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 3, 0, 0, 0, 1, b'a'];
    assert_eq!(answer(&world, Level::V5, &v5).await, Some(0x81));
    assert_eq!(answer(&world, Level::V311, &v311).await, None);
    // Larger than is accepted before the client is known.
    for (level, reason) in [(Level::V31, None), (Level::V311, None), (Level::V5, Some(0x95))] {
        let mut client = world.client(level);
        client.send(Packet::Connect(Box::new(connect(level, "", &"x".repeat(300))))).await;
        match reason {
            None => client.closed().await,
            Some(reason) => {
                assert!(matches!(client.next().await, Some(Packet::Connack(one)) if one.reason == reason));
                client.closed().await;
            }
        }
    }
}

/// `[MQTT-3.1.0-1]`; MQTT5 `[MQTT-3.14.0-1]`: without a word.
#[tokio::test]
async fn a_connection_that_begins_with_another_packet_is_closed() {
    let world = World::new();
    for level in LEVELS {
        for packet in [
            Packet::Pingreq,
            Packet::Publish(publish("a", "x", Qos::AtMostOnce, 0)),
            Packet::Disconnect(Disconnect { reason: 0, properties: Properties::default() }),
        ] {
            let mut client = world.client(level);
            client.send(packet).await;
            client.closed().await;
        }
    }
}

/// `[MQTT-3.1.0-2]`, MQTT5 `[MQTT-3.2.0-2]`: a second CONNECT is a protocol error, and gets no second CONNACK.
#[tokio::test]
async fn a_second_connect_ends_the_connection() {
    let world = World::new();
    for level in LEVELS {
        let mut client = world.connect(level, "", "a").await;
        client.send(Packet::Connect(Box::new(connect(level, "", "a")))).await;
        match level {
            Level::V5 => assert_eq!(client.disconnected().await, 0x82),
            _ => client.closed().await,
        }
    }
}

/// Ours: a connection that says nothing is not kept. MQTT 3.1.1 §3.1.4 and MQTT5 §3.1.4 recommend it.
#[tokio::test]
async fn a_connection_without_connect_ends_after_a_while() {
    let world = World::new();
    let mut silent = world.client(Level::V5);
    let mut slow = world.client(Level::V5);
    slow.raw(&[0x10, 14, 0, 4]).await;
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_millis(10_001)).await;
    silent.closed().await;
    slow.closed().await;
}

/// `[MQTT-3.1.3-5]`; longer ids and any characters are allowed (`/`, `+`, `#` and `$` mean nothing in them), and each names
/// a session of its own (`[MQTT-3.1.3-2]`).
#[tokio::test]
async fn client_ids_of_any_characters_name_sessions_of_their_own() {
    let world = World::new();
    let long = "x".repeat(1024);
    let ids = [
        "0123456789abcdefghijklm",
        "nopqrstuvwxyzABCDEFGHIJ",
        "KLMNOPQRSTUVWXYZ",
        "a/b",
        "/",
        "+",
        "#",
        "$share/a/b",
        "a#1",
        "ü\u{feff}",
        "a b",
        &long,
    ];
    for level in [Level::V311, Level::V5] {
        for id in ids {
            let user = format!("{level:?}");
            let (client, present) = world.resume(level, &user, id).await;
            assert!(!present, "{id}");
            client.leave().await;
            let (client, present) = world.resume(level, &user, id).await;
            assert!(present, "{id}");
            client.leave().await;
        }
    }
}

/// The id of one user is not the id of another.
#[tokio::test]
async fn sessions_belong_to_a_user_and_a_client_id() {
    let world = World::new();
    let (client, _) = world.resume(Level::V311, "ada", "one").await;
    for user in ["bob", ""] {
        let (other, present) = world.resume(Level::V311, user, "one").await;
        assert!(!present, "{user}");
        other.leave().await;
    }
    client.leave().await;
    assert!(world.resume(Level::V311, "ada", "one").await.1);
}

/// 3.1.1 `[MQTT-3.1.3-8]` and `[MQTT-3.1.3-9]`, MQTT5 `[MQTT-3.1.3-8]`.
#[tokio::test]
async fn client_ids_that_are_not_accepted_are_refused_as_each_version_says() {
    let world = World::new();
    let long = "x".repeat(1025);
    for clean in [false, true] {
        let one = Connect { clean_start: clean, ..connect(Level::V31, "", "") };
        assert_eq!(refusal(&world, one).await, 2, "3.1 knows no empty id");
    }
    assert_eq!(refusal(&world, lasting(Level::V311, "ada", "")).await, 2);
    for (level, reason) in [(Level::V31, 2), (Level::V311, 2), (Level::V5, 0x85)] {
        assert_eq!(refusal(&world, connect(level, "", &long)).await, reason);
    }
}

/// 3.1.1 `[MQTT-3.1.3-6]`, `[MQTT-3.1.3-7]`; MQTT5 `[MQTT-3.1.3-6]`, `[MQTT-3.1.3-7]`, `[MQTT-3.2.2-16]`.
#[tokio::test]
async fn an_empty_client_id_gets_a_new_one() {
    let world = World::new();
    let (_one, _) = open(&world, connect(Level::V311, "", "")).await;
    let (_two, _) = open(&world, connect(Level::V311, "", "")).await;
    let mut ids = Vec::new();
    for clean in [true, false] {
        let mut wanted = expiring(Level::V5, "", 60);
        wanted.clean_start = clean;
        let (client, connack) = open(&world, wanted).await;
        assert!(!connack.session_present);
        ids.push(connack.properties.assigned_client_identifier().unwrap().to_owned());
        client.leave().await;
    }
    assert_ne!(ids[0], ids[1]);
    let (_, connack) = open(&world, expiring(Level::V5, &ids[0], 60)).await;
    assert!(connack.session_present, "it can be used like one of the client's own");
    assert_eq!(connack.properties.assigned_client_identifier(), None);
}

/// 3.1.1 `[MQTT-3.2.2-1]` to `[MQTT-3.2.2-3]`, `[MQTT-3.1.2-4]`, `[MQTT-3.1.2-6]`; MQTT5 `[MQTT-3.2.2-2]`,
/// `[MQTT-3.2.2-3]`, `[MQTT-3.1.2-4]` to `[MQTT-3.1.2-6]`, `[MQTT-3.1.4-4]`.
#[tokio::test]
async fn session_present_only_where_a_session_is_gone_on_with() {
    let world = World::new();
    for level in LEVELS {
        let is_told = level != Level::V31;
        let name = format!("{level:?}");
        let (mut client, present) = world.resume(level, "ada", &name).await;
        assert!(!present);
        client.subscribe("a/#", Qos::AtLeastOnce).await;
        client.leave().await;
        let (client, present) = world.resume(level, "ada", &name).await;
        assert_eq!(present, is_told);
        client.leave().await;
        // A clean one discards it, and leaves nothing but what MQTT 5 asks for.
        let (mut client, connack) = open(&world, connect(level, "ada", &name)).await;
        assert!(!connack.session_present);
        client.put("a/b", "x").await;
        client.quiet().await;
        client.leave().await;
        let (mut client, present) = world.resume(level, "ada", &name).await;
        assert!(!present);
        client.put("a/b", "x").await;
        client.quiet().await;
        client.leave().await;
    }
}

/// MQTT5 §3.1.2.11.2, `[MQTT-3.1.2-23]`, `[MQTT-4.1.0-2]`: without an expiry a session ends with its connection, whatever
/// Clean Start says; Clean Start 1 with an expiry begins one that stays.
#[tokio::test]
async fn the_expiry_says_whether_a_session_of_mqtt_5_stays() {
    let world = World::new();
    let mut bare = lasting(Level::V5, "ada", "a");
    bare.properties = Properties::default();
    for wanted in [bare.clone(), expiring(Level::V5, "a", 0)] {
        let (client, _) = open(&world, wanted).await;
        client.leave().await;
        let (client, connack) = open(&world, bare.clone()).await;
        assert!(!connack.session_present);
        client.leave().await;
    }
    let clean = Connect { clean_start: true, ..expiring(Level::V5, "a", 10) };
    let (client, _) = open(&world, clean).await;
    client.leave().await;
    world.clock.advance(9_999);
    let (client, connack) = open(&world, expiring(Level::V5, "a", 10)).await;
    assert!(connack.session_present);
    client.leave().await;
    world.clock.advance(10_000);
    let (_, connack) = open(&world, expiring(Level::V5, "a", 10)).await;
    assert!(!connack.session_present, "its time was over, though nobody had removed it");
}

/// MQTT5 §3.1.2.11.2: the expiry is that of the newest CONNECT. With 0 the session ends with that connection, also when the
/// server ends first.
#[tokio::test]
async fn a_session_resumed_without_an_expiry_ends_with_that_connection() {
    let mut world = World::new();
    for kill in [false, true] {
        let (client, _) = open(&world, expiring(Level::V5, "a", 3600)).await;
        client.leave().await;
        let (client, connack) = open(&world, expiring(Level::V5, "a", 0)).await;
        assert!(connack.session_present);
        if kill {
            client.kill().await;
            world.restart().await;
        } else {
            client.vanish().await;
        }
        let (client, connack) = open(&world, expiring(Level::V5, "a", 0)).await;
        assert!(!connack.session_present);
        client.leave().await;
    }
}

/// MQTT5 §3.2.2.3.2: a shorter expiry than was asked for is told.
#[tokio::test]
async fn an_expiry_beyond_the_limit_is_shortened_and_told() {
    let world = free(MqttConfig { session_expiry_s_max: 100, ..MqttConfig::default() });
    for (asked, told) in [(99, None), (100, None), (101, Some(100)), (u32::MAX, Some(100))] {
        let (client, connack) = open(&world, expiring(Level::V5, "a", asked)).await;
        assert_eq!(connack.properties.session_expiry_s(), told, "{asked}");
        client.leave().await;
    }
}

/// MQTT5 §3.14.2.2.2: the expiry may be changed at the end, but not from 0.
#[tokio::test]
async fn disconnect_may_change_the_expiry_but_not_from_0() {
    let world = World::new();
    let to = |expiry_s: u32| {
        properties(|p| {
            p.session_expiry_s(expiry_s);
        })
    };
    let (client, _) = open(&world, expiring(Level::V5, "a", 10)).await;
    client.leave_with(0, to(100)).await;
    world.clock.advance(50_000);
    let (client, connack) = open(&world, expiring(Level::V5, "a", 10)).await;
    assert!(connack.session_present);
    client.leave_with(0, to(0)).await;
    let (client, connack) = open(&world, expiring(Level::V5, "a", 0)).await;
    assert!(!connack.session_present);
    client.leave_with(0, to(0)).await;

    let (mut client, _) = open(&world, expiring(Level::V5, "a", 0)).await;
    client.send(Packet::Disconnect(Disconnect { reason: 0, properties: to(1) })).await;
    assert_eq!(client.disconnected().await, 0x82);
    let (_, connack) = open(&world, expiring(Level::V5, "a", 0)).await;
    assert!(!connack.session_present);
}

/// MQTT5 §3.2.2.3: limits that a client must know, and nothing that is as the standard assumes; `[MQTT-3.2.2-21]` and
/// `[MQTT-3.2.2-22]`: its own keep-alive; `[MQTT-3.1.2-28]`, `[MQTT-4.12.0-6]`: nothing it did not ask for.
#[tokio::test]
async fn connack_tells_the_limits_of_the_server() {
    let world = free(MqttConfig { receive_maximum: 7, topic_alias_max: 3, ..MqttConfig::default() });
    let (_, connack) = open(&world, connect(Level::V5, "", "a")).await;
    let told = &connack.properties;
    assert_eq!((told.receive_maximum(), told.topic_alias_maximum()), (Some(7), Some(3)));
    let packet_bytes_max = MqttConfig::default().packet_bytes_max;
    assert_eq!(told.maximum_packet_size(), u32::try_from(packet_bytes_max).ok());
    assert_eq!(told.session_expiry_s(), None);
    assert_eq!((told.server_keep_alive(), told.maximum_qos(), told.retain_available()), (None, None, None));
    assert_eq!((told.response_information(), told.authentication_method()), (None, None));
    assert_eq!(told.reason_string(), None);
    assert_eq!(told.user().count(), 0);
}

/// MQTT5 `[MQTT-3.1.2-24]`: not even a CONNACK is larger than the client takes.
#[tokio::test]
async fn a_client_that_takes_no_connack_is_refused_in_as_many_bytes_as_it_takes() {
    let world = World::new();
    let sized = |id: &str, bytes: u32| {
        let mut connect = connect(Level::V5, "", id);
        connect.properties = properties(|p| {
            p.maximum_packet_size(bytes);
        });
        connect
    };
    for bytes in 1..=100 {
        for id in ["a", ""] {
            let (mut stream, _task) = world.dial();
            let mut out = bytes::BytesMut::new();
            super::super::wire::encode::packet(
                Level::V5,
                &Packet::Connect(Box::new(sized(id, bytes))),
                &mut out,
            );
            out.extend_from_slice(&[0xE0, 0]);
            tokio::io::AsyncWriteExt::write_all(&mut stream, &out).await.unwrap();
            let mut got = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut got).await.unwrap();
            assert!(got.len() <= bytes as usize, "{bytes}: {got:?}");
            assert_eq!(got.is_empty(), bytes < 5);
            if bytes >= 72 || bytes >= 21 && id == "a" {
                assert_eq!(got[3], 0, "{bytes}: {got:?}");
            }
        }
    }
}

/// `--dev`: a name is its own password. 3.1.1 §3.2.2.3 and MQTT5 §3.2.2.2: each version has its codes.
#[tokio::test]
async fn names_and_passwords_are_accepted_or_refused_as_each_version_says() {
    let world = World::new();
    let with = |level, name: Option<&str>, password: Option<&[u8]>| Connect {
        username: name.map(text),
        password: password.map(Bytes::copy_from_slice),
        ..connect(level, "", "a")
    };
    for level in LEVELS {
        let wrong = if level == Level::V5 { 0x86 } else { 4 };
        for (name, password) in [
            (None, None),
            (Some("ada"), Some(&b"ada"[..])),
            (Some("ada"), None),
            (Some("ada"), Some(b"admin")),
            (Some(""), None),
        ] {
            let (client, _) = open(&world, with(level, name, password)).await;
            client.leave().await;
        }
        for (name, password) in [
            (Some("ada"), Some(&b"bob"[..])),
            (Some("ada"), Some(b"anon:1")),
            (Some("anon:1"), Some(b"anon:1")),
            (Some("ada"), Some(b"\xff\xfe")),
            (Some("a\u{1}"), Some(b"admin")),
        ] {
            assert_eq!(refusal(&world, with(level, name, password)).await, wrong, "{name:?} {password:?}");
        }
    }
    // MQTT5 §3.1.2.9: a password without a name is a token.
    let (client, _) = open(&world, with(Level::V5, None, Some(b"ada"))).await;
    client.leave().await;
    assert_eq!(refusal(&world, with(Level::V5, None, Some(b"\xff"))).await, 0x86);
}

#[tokio::test]
async fn without_dev_mode_nobody_is_known_and_nobody_comes_without_a_name() {
    let world = World::with_auth(MqttConfig::default(), AuthConfig::default());
    for (level, none, wrong) in [(Level::V31, 5, 4), (Level::V311, 5, 4), (Level::V5, 0x87, 0x86)] {
        assert_eq!(refusal(&world, connect(level, "", "a")).await, none);
        assert_eq!(refusal(&world, connect(level, "ada", "a")).await, wrong);
    }
}

#[tokio::test]
async fn too_many_wrong_passwords_of_an_address_are_refused_otherwise() {
    let world = World::with(MqttConfig { auth_failures_per_address_per_minute: 2, ..MqttConfig::default() });
    let wrong = |level| Connect { password: Some(Bytes::from_static(b"bob")), ..connect(level, "ada", "a") };
    let mut reasons = Vec::new();
    for _ in 0..4 {
        reasons.push(refusal(&world, wrong(Level::V5)).await);
    }
    assert_eq!(reasons, [0x86, 0x86, 0x97, 0x97]);
    assert_eq!(refusal(&world, wrong(Level::V311)).await, 3);
    let (client, _) = open(&world, connect(Level::V311, "ada", "a")).await;
    client.leave().await;
}

/// A certificate that was checked names the user; with a password it is only one more check.
#[tokio::test]
async fn a_certificate_names_the_user() {
    let world = World::new();
    let mut ada = world.connect(Level::V5, "ada", "one").await;
    let (ours, theirs) = tokio::io::duplex(4096);
    let address = std::net::IpAddr::from([127, 0, 0, 1]);
    let origins = Origins { address, certified: Some("ada".into()), protobuf: false };
    let (_draining, watch) = tokio::sync::watch::channel(false);
    let task = tokio::spawn(Connection::new(world.broker.clone(), origins).run(theirs, watch));
    let mut client = Client::over(ours, task, Level::V5);
    assert_eq!(client.connect(connect(Level::V5, "", "one")).await.reason, 0);
    assert_eq!(ada.disconnected().await, 0x8E, "it is the same session");
    client.quiet().await;
}

/// MQTT5 `[MQTT-4.12.0-1]`, `[MQTT-4.12.0-7]`: enhanced authentication is not supported, and AUTH is an error.
#[tokio::test]
async fn enhanced_authentication_is_refused() {
    let world = World::new();
    let mut wanted = connect(Level::V5, "ada", "a");
    wanted.properties = properties(|p| {
        p.authentication_method("SCRAM-SHA-1").authentication_data(b"x");
    });
    assert_eq!(refusal(&world, wanted).await, 0x8C);

    let mut client = world.connect(Level::V5, "ada", "a").await;
    let auth = properties(|p| {
        p.authentication_method("SCRAM-SHA-1");
    });
    client.send(Packet::Auth(Auth { reason: 0x19, properties: auth })).await;
    assert_eq!(client.disconnected().await, 0x82);
}

/// MQTT5 §3.1.4, 3.1.1 §3.1.4: a client need not wait for CONNACK. 3.1.1 `[MQTT-3.2.0-1]`, MQTT5 `[MQTT-3.2.0-1]`: that is
/// the first answer all the same.
#[tokio::test]
async fn what_is_sent_behind_connect_is_processed_after_success() {
    let world = World::new();
    for level in LEVELS {
        let mut client = world.client(level);
        let mut out = bytes::BytesMut::new();
        let subscribe = Subscribe {
            packet_id: id(1),
            properties: Properties::default(),
            filters: vec![(text("b/#"), options(Qos::AtLeastOnce))],
        };
        for packet in [
            Packet::Connect(Box::new(lasting(level, "ada", &format!("{level:?}")))),
            Packet::Subscribe(subscribe),
            Packet::Publish(publish("b/c", "x", Qos::AtLeastOnce, 2)),
            Packet::Pingreq,
        ] {
            super::super::wire::encode::packet(level, &packet, &mut out);
        }
        client.raw(&out).await;
        assert!(matches!(client.next().await, Some(Packet::Connack(connack)) if connack.reason == 0));
        let mut rest = Vec::new();
        for _ in 0..4 {
            rest.push(client.next().await.unwrap());
        }
        assert!(rest.iter().any(|packet| matches!(packet, Packet::Suback(_))));
        assert!(rest.iter().any(|packet| matches!(packet, Packet::Puback(ack) if ack.packet_id == id(2))));
        assert!(rest.iter().any(|packet| matches!(packet, Packet::Publish(one) if &one.payload[..] == b"x")));
        assert!(rest.contains(&Packet::Pingresp));
    }
}

/// 3.1.1 `[MQTT-3.1.4-5]`, `[MQTT-3.2.2-5]`; MQTT5 `[MQTT-3.1.4-6]`, `[MQTT-3.2.2-7]`, `[MQTT-3.1.4-2]`.
#[tokio::test]
async fn what_is_sent_behind_a_refused_connect_is_discarded() {
    let world = World::new();
    let mut reader = world.connect(Level::V311, "", "reader").await;
    reader.subscribe("b/#", Qos::AtLeastOnce).await;
    for level in LEVELS {
        let mut client = world.client(level);
        let mut out = bytes::BytesMut::new();
        let refused = Connect { password: Some(Bytes::from_static(b"bob")), ..connect(level, "ada", "a") };
        for packet in [
            Packet::Connect(Box::new(refused)),
            Packet::Publish(publish("b/c", "x", Qos::AtLeastOnce, 2)),
            Packet::Pingreq,
        ] {
            super::super::wire::encode::packet(level, &packet, &mut out);
        }
        client.raw(&out).await;
        assert!(matches!(client.next().await, Some(Packet::Connack(connack)) if connack.reason != 0));
        client.closed().await;
    }
    reader.send(Packet::Publish(publish("b/end", "end", Qos::AtMostOnce, 0))).await;
    assert_eq!(reader.payload("b/end").await, "end", "nothing came before it");
}

/// `[MQTT-3.1.4-2]`, MQTT5 `[MQTT-3.1.4-3]`: one connection for each client id, whatever the versions.
#[tokio::test]
async fn a_new_connection_takes_the_session_of_the_old_one() {
    let world = World::new();
    for (old, new) in [
        (Level::V31, Level::V5),
        (Level::V311, Level::V311),
        (Level::V5, Level::V311),
        (Level::V5, Level::V5),
    ] {
        let (mut first, _) = world.resume(old, "ada", "one").await;
        first.subscribe("t/#", Qos::AtLeastOnce).await;
        let (mut second, present) = world.resume(new, "ada", "one").await;
        assert!(present, "the session goes on");
        match old {
            Level::V5 => assert_eq!(first.disconnected().await, 0x8E),
            _ => first.closed().await,
        }
        // The late close of the old one does not touch the new one.
        first.gone().await;
        second.send(Packet::Publish(publish("t/a", "x", Qos::AtMostOnce, 0))).await;
        assert_eq!(second.payload("t/a").await, "x");
        second.quiet().await;
        second.leave().await;
        let (third, _) = open(&world, connect(new, "ada", "one")).await;
        third.leave().await;
    }
}

/// Many connections that want the same session at once: one has it in the end, and nobody waits for ever.
#[tokio::test]
async fn one_of_many_that_take_the_session_from_each_other_keeps_it() {
    let world = World::new();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = world.client(Level::V311);
        client.send(Packet::Connect(Box::new(lasting(Level::V311, "ada", "one")))).await;
        clients.push(client);
    }
    let mut kept = 0;
    for client in &mut clients {
        assert!(matches!(client.next().await, Some(Packet::Connack(connack)) if connack.reason == 0));
        client.send(Packet::Pingreq).await;
        match client.next().await {
            Some(Packet::Pingresp) => kept += 1,
            None => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(kept >= 1);
    let (client, present) = world.resume(Level::V311, "ada", "one").await;
    assert!(present);
    client.leave().await;
}

/// mqant's demo pages all use one client id: with `anonymous_takeover` off those without a name leave each other alone.
#[tokio::test]
async fn anonymous_clients_take_over_only_where_it_is_switched_on() {
    let world = free(MqttConfig { anonymous_takeover: false, ..MqttConfig::default() });
    for level in LEVELS {
        let mut one = world.connect(level, "", "same").await;
        let (mut two, present) = world.resume(level, "", "same").await;
        assert!(!present);
        one.quiet().await;
        two.quiet().await;
        two.leave().await;
        let (two, present) = world.resume(level, "", "same").await;
        assert!(!present, "nothing of it stays");
        one.quiet().await;
        two.leave().await;
        // Those with a name still do.
        let mut old = world.connect(level, "ada", "same").await;
        let mut new = world.connect(level, "ada", "same").await;
        match level {
            Level::V5 => assert_eq!(old.disconnected().await, 0x8E),
            _ => old.closed().await,
        }
        new.quiet().await;
        one.leave().await;
    }
    let world = World::new();
    let mut old = world.connect(Level::V31, "", "same").await;
    let _new = world.connect(Level::V31, "", "same").await;
    old.closed().await;
}

/// A CONNECT that is refused takes nothing over.
#[tokio::test]
async fn a_refused_connect_touches_no_session() {
    let world = World::new();
    let (mut client, _) = world.resume(Level::V311, "ada", "one").await;
    let wrong = Connect { password: Some(Bytes::from_static(b"bob")), ..connect(Level::V311, "ada", "one") };
    assert_eq!(refusal(&world, wrong).await, 4);
    let hopeless = Connect {
        will: Some(will("$SYS/x", "x", Qos::AtMostOnce, false)),
        ..connect(Level::V311, "ada", "one")
    };
    assert_eq!(refusal(&world, hopeless).await, 5);
    client.quiet().await;
}

/// Issue limits: sessions of one user at the limit and one past it; those that end with their connection do not count.
#[tokio::test]
async fn a_user_has_so_many_sessions_that_stay() {
    let world =
        World::with(MqttConfig { free_topics: true, sessions_per_user_max: 2, ..MqttConfig::default() });
    for level in [Level::V311, Level::V5] {
        let user = format!("{level:?}");
        for id in ["one", "two"] {
            world.resume(level, &user, id).await.0.leave().await;
        }
        let code = refusal(&world, lasting(level, &user, "three")).await;
        assert_eq!(code, if level == Level::V5 { 0x97 } else { 3 });
        // One that is there already goes on, and so does a clean one.
        assert!(world.resume(level, &user, "two").await.1);
        world.connect(level, &user, "three").await.quiet().await;
    }
}
