//! One packet and more of every kind, for tests that go over all of them.

use bytes::Bytes;

use crate::mqtt::wire::{
    Ack, Auth, Connack, Connect, Disconnect, Level, Packet, PacketId, Properties, PropertyWriter, Publish,
    Qos, Role, Suback, Subscribe, SubscribeOptions, Text, Unsuback, Unsubscribe, Will,
};

pub(crate) const LEVELS: [Level; 3] = [Level::V31, Level::V311, Level::V5];

pub(crate) fn text(text: &str) -> Text {
    Text::new(text).expect("a text of MQTT")
}

pub(crate) fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("not 0")
}

/// Properties in MQTT 5, none before.
fn properties(level: Level, write: impl Fn(&mut PropertyWriter)) -> Properties {
    let mut writer = PropertyWriter::new();
    if level == Level::V5 {
        write(&mut writer);
    }
    writer.finish()
}

fn reason_properties(level: Level) -> Properties {
    properties(level, |w| {
        w.reason_string("why").user("seq_id", "7").user("seq_id", "8");
    })
}

fn publish(level: Level, qos: Qos, receiver: Role) -> Publish {
    Publish {
        dup: qos != Qos::AtMostOnce,
        qos,
        retain: true,
        topic: text("家/+".trim_end_matches("/+")),
        packet_id: (qos != Qos::AtMostOnce).then(|| id(0x1234)),
        properties: properties(level, |w| {
            w.payload_format_indicator(1).message_expiry_s(9).content_type("text/plain");
            w.response_topic("back/to").correlation_data(&[0, 255]).user("a", "b").topic_alias(3);
            if receiver == Role::Client {
                w.subscription_identifier(1).subscription_identifier(268_435_455);
            }
        }),
        payload: Bytes::from_static(b"\0payload"),
    }
}

/// Canonical packets: each encodes to bytes that decode to it, as sent to `receiver` in `level`.
pub(crate) fn packets(level: Level, receiver: Role) -> Vec<Packet> {
    let v5 = level == Level::V5;
    let mut all: Vec<Packet> = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]
        .map(|qos| Packet::Publish(publish(level, qos, receiver)))
        .into();
    all.push(Packet::Publish(Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: text("t"),
        packet_id: None,
        properties: Properties::default(),
        payload: Bytes::new(),
    }));
    let plain = |packet_id| Ack { packet_id, reason: 0, properties: Properties::default() };
    let told = |packet_id, reason| Ack {
        packet_id,
        reason: if v5 { reason } else { 0 },
        properties: reason_properties(level),
    };
    all.extend([
        Packet::Puback(plain(id(1))),
        Packet::Puback(told(id(2), 0x87)),
        Packet::Pubrec(plain(id(3))),
        Packet::Pubrec(told(id(4), 0x10)),
        Packet::Pubrel(plain(id(5))),
        Packet::Pubrel(told(id(6), 0x92)),
        Packet::Pubcomp(plain(id(65_535))),
        Packet::Pubcomp(told(id(7), 0)),
    ]);
    match receiver {
        Role::Server => all.extend(from_client(level)),
        Role::Client => all.extend(from_server(level)),
    }
    if v5 {
        all.push(Packet::Auth(Auth {
            reason: 0x18,
            properties: properties(level, |w| {
                w.authentication_method("SCRAM").authentication_data(b"\0");
            }),
        }));
    }
    all
}

fn from_client(level: Level) -> Vec<Packet> {
    let v5 = level == Level::V5;
    let options = |qos| SubscribeOptions {
        qos,
        no_local: v5,
        retain_as_published: v5,
        retain_handling: if v5 { 2 } else { 0 },
    };
    vec![
        Packet::Subscribe(Subscribe {
            packet_id: id(10),
            properties: properties(level, |w| {
                w.subscription_identifier(128).user("last_seq_id", "1");
            }),
            filters: vec![(text("a/+/#"), options(Qos::ExactlyOnce)), (text("/"), options(Qos::AtMostOnce))],
        }),
        Packet::Unsubscribe(Unsubscribe {
            packet_id: id(11),
            properties: properties(level, |w| {
                w.user("", "");
            }),
            filters: vec![text("a/+/#"), text("$share/g/x")],
        }),
        Packet::Pingreq,
        Packet::Disconnect(Disconnect { reason: 0, properties: Properties::default() }),
        Packet::Disconnect(Disconnect {
            reason: if v5 { 4 } else { 0 },
            properties: properties(level, |w| {
                w.session_expiry_s(u32::MAX);
            }),
        }),
    ]
}

/// CONNECTs, least and most.
pub(crate) fn connects(level: Level) -> Vec<Packet> {
    let least = Connect {
        level,
        clean_start: true,
        keep_alive_s: 0,
        client_id: text(""),
        will: None,
        username: None,
        password: None,
        properties: Properties::default(),
    };
    let most = Connect {
        level,
        clean_start: false,
        keep_alive_s: 65_535,
        client_id: text("a/+#$"),
        will: Some(Will {
            qos: Qos::ExactlyOnce,
            retain: true,
            topic: text("will"),
            payload: Bytes::from_static(b"gone"),
            properties: properties(level, |w| {
                w.will_delay_s(5).message_expiry_s(6).content_type("t").user("k", "v");
            }),
        }),
        username: Some(text("小明")),
        password: Some(Bytes::from_static(&[0, 0xFF])),
        properties: properties(level, |w| {
            w.session_expiry_s(60).receive_maximum(1).maximum_packet_size(1).topic_alias_maximum(9);
            w.request_response_information(true).request_problem_information(false).user("k", "v");
            w.authentication_method("m").authentication_data(b"d");
        }),
    };
    let named = Connect { username: Some(text("u")), ..least.clone() };
    [least, named, most].map(|connect| Packet::Connect(Box::new(connect))).into()
}

fn from_server(level: Level) -> Vec<Packet> {
    let v5 = level == Level::V5;
    let mut all = vec![
        Packet::Connack(Connack {
            session_present: level != Level::V31,
            reason: 0,
            properties: properties(level, |w| {
                w.session_expiry_s(1).assigned_client_identifier("id").server_keep_alive(10);
                w.response_information("r").server_reference("s").reason_string("why");
                w.receive_maximum(64).topic_alias_maximum(8).maximum_qos(1).retain_available(true);
                w.maximum_packet_size(1000).wildcard_subscription_available(true);
                w.subscription_identifiers_available(true).shared_subscription_available(false);
            }),
        }),
        Packet::Connack(Connack {
            session_present: false,
            reason: if v5 { 0x87 } else { 5 },
            properties: Properties::default(),
        }),
        Packet::Suback(Suback {
            packet_id: id(10),
            properties: reason_properties(level),
            reasons: if level == Level::V31 { vec![0, 1, 2] } else { vec![0, 1, 2, 0x80] },
        }),
        Packet::Unsuback(Unsuback {
            packet_id: id(11),
            properties: reason_properties(level),
            reasons: if v5 { vec![0, 0x11] } else { vec![] },
        }),
        Packet::Pingresp,
    ];
    if v5 {
        all.push(Packet::Disconnect(Disconnect { reason: 0x8E, properties: reason_properties(level) }));
    }
    all
}
