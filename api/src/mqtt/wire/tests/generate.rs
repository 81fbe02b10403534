//! Random packets and random damage, repeated by a seed.

use bytes::{Bytes, BytesMut};

use super::samples::id;
use crate::mqtt::wire::{
    Ack, Auth, Connack, Connect, Disconnect, Level, Packet, Properties, PropertyWriter, Publish, Qos, Role,
    Suback, Subscribe, SubscribeOptions, Text, Unsuback, Unsubscribe, Will, encode,
};

/// SplitMix64, as in the tests of the core.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    fn some<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.chance(50).then(|| make(self))
    }

    fn number_of<T>(&mut self, least: usize, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = least + self.below(most - least + 1);
        (0..count).map(|_| make(self)).collect()
    }

    fn string(&mut self) -> String {
        let parts = ["a", "b", "Z", "0", " ", "é", "家", "🎉", "\u{FEFF}", "\u{1}", "$", ":", "?"];
        self.number_of(0, 6, |r| r.pick(&parts)).concat()
    }

    fn text(&mut self) -> Text {
        let text = self.string();
        Text::new(&text).expect("no U+0000")
    }

    fn bytes(&mut self) -> Bytes {
        let most = self.pick(&[0, 3, 40, 300]);
        self.number_of(0, most, |r| r.number() as u8).into()
    }

    fn name(&mut self) -> Text {
        let levels = ["a", "b", "", "$SYS", "家", "im:"];
        let name = self.number_of(1, 4, |r| r.pick(&levels)).join("/");
        Text::new(if name.is_empty() { "t" } else { &name }).expect("no U+0000")
    }

    fn filter(&mut self) -> Text {
        let levels = ["a", "+", "", "$SYS", "家"];
        let mut filter = self.number_of(1, 4, |r| r.pick(&levels)).join("/");
        if filter.is_empty() {
            filter.push('#');
        } else if self.chance(30) {
            filter.push_str("/#");
        }
        Text::new(&filter).expect("no U+0000")
    }

    fn packet_id(&mut self) -> crate::mqtt::wire::PacketId {
        id(1 + self.below(65_535) as u16)
    }

    fn qos(&mut self) -> Qos {
        self.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce])
    }
}

/// Writes properties that a block may hold, in any order: each of `writers` with even odds.
type Write = fn(&mut PropertyWriter, &mut Random);

fn properties(r: &mut Random, level: Level, writers: &[Write]) -> Properties {
    let mut w = PropertyWriter::new();
    if level == Level::V5 && r.chance(70) {
        let first = r.below(writers.len());
        for at in 0..writers.len() {
            if r.chance(40) {
                writers[(first + at) % writers.len()](&mut w, r);
            }
        }
    }
    w.finish()
}

const USER: Write = |w, r| {
    w.user(&r.string(), &r.string());
};
const REASON: Write = |w, r| {
    w.reason_string(&r.string());
};
const EXPIRY: Write = |w, r| {
    w.session_expiry_s(r.number() as u32);
};
const RECEIVE_MAXIMUM: Write = |w, r| {
    w.receive_maximum(1 + r.below(65_535) as u16);
};
const PACKET_SIZE: Write = |w, r| {
    w.maximum_packet_size(1 | r.number() as u32);
};
const ALIAS_MAXIMUM: Write = |w, r| {
    w.topic_alias_maximum(r.number() as u16);
};
const AUTHENTICATION: Write = |w, r| {
    w.authentication_method(&r.string());
    if r.chance(50) {
        w.authentication_data(&r.bytes());
    }
};
/// What a PUBLISH and a will share.
const MESSAGE: [Write; 7] = [
    |w, r| {
        w.payload_format_indicator(r.below(2) as u8);
    },
    |w, r| {
        w.message_expiry_s(r.number() as u32);
    },
    |w, r| {
        w.content_type(&r.string());
    },
    |w, r| {
        w.response_topic(&r.name());
    },
    |w, r| {
        w.correlation_data(&r.bytes());
    },
    USER,
    USER,
];

fn publish(r: &mut Random, level: Level, receiver: Role) -> Packet {
    let qos = r.qos();
    let mut writers = MESSAGE.to_vec();
    if receiver == Role::Client {
        writers.push(|w, r| {
            w.subscription_identifier(1 + r.below(268_435_455) as u32);
        });
        writers.push(|w, r| {
            w.subscription_identifier(1 + r.below(300) as u32);
        });
    }
    writers.push(|w, r| {
        w.topic_alias(1 + r.below(65_535) as u16);
    });
    let properties = properties(r, level, &writers);
    let topic = if properties.topic_alias().is_some() && r.chance(50) { Text::default() } else { r.name() };
    Packet::Publish(Publish {
        dup: qos != Qos::AtMostOnce && r.chance(30),
        qos,
        retain: r.chance(50),
        topic,
        packet_id: (qos != Qos::AtMostOnce).then(|| r.packet_id()),
        properties,
        payload: r.bytes(),
    })
}

fn ack(r: &mut Random, level: Level, reasons: &[u8]) -> Ack {
    Ack {
        packet_id: r.packet_id(),
        reason: if level == Level::V5 { r.pick(reasons) } else { 0 },
        properties: properties(r, level, &[REASON, USER, USER]),
    }
}

/// A CONNECT of this level.
pub(crate) fn connect(r: &mut Random, level: Level) -> Packet {
    let client_id = r.text();
    let username = r.some(Random::text);
    let may_have_password = level == Level::V5 || username.is_some();
    Packet::Connect(Box::new(Connect {
        level,
        clean_start: client_id.is_empty() || r.chance(50),
        keep_alive_s: r.number() as u16,
        client_id,
        will: r.some(|r| Will {
            qos: r.qos(),
            retain: r.chance(50),
            topic: r.name(),
            payload: r.bytes(),
            properties: {
                let mut writers = MESSAGE.to_vec();
                writers.push(|w, r| {
                    w.will_delay_s(r.number() as u32);
                });
                properties(r, level, &writers)
            },
        }),
        password: if may_have_password { r.some(|r| r.text().into_bytes()) } else { None },
        username,
        properties: properties(
            r,
            level,
            &[
                EXPIRY,
                RECEIVE_MAXIMUM,
                PACKET_SIZE,
                ALIAS_MAXIMUM,
                |w, r| {
                    w.request_response_information(r.chance(50));
                },
                |w, r| {
                    w.request_problem_information(r.chance(50));
                },
                USER,
                USER,
                AUTHENTICATION,
            ],
        ),
    }))
}

/// A packet that `receiver` may get behind CONNECT.
pub(crate) fn packet(r: &mut Random, level: Level, receiver: Role) -> Packet {
    let v5 = level == Level::V5;
    let of_puback = [0, 0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    match r.below(if v5 { 11 } else { 10 }) {
        0..=2 => publish(r, level, receiver),
        3 => Packet::Puback(ack(r, level, &of_puback)),
        4 => Packet::Pubrec(ack(r, level, &of_puback)),
        5 => Packet::Pubrel(ack(r, level, &[0, 0x92])),
        6 => Packet::Pubcomp(ack(r, level, &[0, 0x92])),
        10 if r.chance(50) => Packet::Auth(Auth {
            reason: if receiver == Role::Server { r.pick(&[0x18, 0x19]) } else { r.pick(&[0x00, 0x18]) },
            properties: {
                let mut w = PropertyWriter::new();
                AUTHENTICATION(&mut w, r);
                if r.chance(50) {
                    REASON(&mut w, r);
                }
                w.finish()
            },
        }),
        10 => Packet::Disconnect(Disconnect {
            reason: r.pick(if receiver == Role::Server {
                &[0, 4, 0x80, 0x99]
            } else {
                &[0, 0x81, 0x8E, 0xA2]
            }),
            properties: {
                let mut writers = vec![REASON, USER];
                if receiver == Role::Server {
                    writers.push(EXPIRY);
                } else {
                    writers.push(|w, r| {
                        w.server_reference(&r.string());
                    });
                }
                properties(r, level, &writers)
            },
        }),
        _ if receiver == Role::Server => from_client(r, level),
        _ => from_server(r, level),
    }
}

fn from_client(r: &mut Random, level: Level) -> Packet {
    let v5 = level == Level::V5;
    match r.below(4) {
        0 | 1 => Packet::Subscribe(Subscribe {
            packet_id: r.packet_id(),
            properties: properties(
                r,
                level,
                &[
                    |w, r| {
                        w.subscription_identifier(1 + r.below(268_435_455) as u32);
                    },
                    USER,
                    USER,
                ],
            ),
            filters: r.number_of(1, 4, |r| {
                let options = SubscribeOptions {
                    qos: r.qos(),
                    no_local: v5 && r.chance(50),
                    retain_as_published: v5 && r.chance(50),
                    retain_handling: if v5 { r.below(3) as u8 } else { 0 },
                };
                (r.filter(), options)
            }),
        }),
        2 => Packet::Unsubscribe(Unsubscribe {
            packet_id: r.packet_id(),
            properties: properties(r, level, &[USER, USER]),
            filters: r.number_of(1, 4, Random::filter),
        }),
        _ => Packet::Pingreq,
    }
}

fn from_server(r: &mut Random, level: Level) -> Packet {
    let v5 = level == Level::V5;
    match r.below(4) {
        0 => {
            let reason = r.pick(if v5 { &[0, 0, 0x80, 0x87, 0x95, 0x9F][..] } else { &[0, 0, 1, 2, 5] });
            Packet::Connack(Connack {
                session_present: level != Level::V31 && reason == 0 && r.chance(50),
                reason,
                properties: properties(
                    r,
                    level,
                    &[
                        EXPIRY,
                        RECEIVE_MAXIMUM,
                        |w, r| {
                            w.maximum_qos(r.below(2) as u8);
                        },
                        |w, r| {
                            w.retain_available(r.chance(50));
                        },
                        PACKET_SIZE,
                        |w, r| {
                            w.assigned_client_identifier(&r.string());
                        },
                        ALIAS_MAXIMUM,
                        REASON,
                        USER,
                        |w, r| {
                            w.wildcard_subscription_available(r.chance(50));
                        },
                        |w, r| {
                            w.subscription_identifiers_available(r.chance(50));
                        },
                        |w, r| {
                            w.shared_subscription_available(r.chance(50));
                        },
                        |w, r| {
                            w.server_keep_alive(r.number() as u16);
                        },
                        |w, r| {
                            w.response_information(&r.string());
                        },
                        |w, r| {
                            w.server_reference(&r.string());
                        },
                        AUTHENTICATION,
                    ],
                ),
            })
        }
        1 => {
            let known: &[u8] = match level {
                Level::V31 => &[0, 1, 2],
                Level::V311 => &[0, 1, 2, 0x80],
                Level::V5 => &[0, 1, 2, 0x80, 0x87, 0x8F, 0xA2],
            };
            Packet::Suback(Suback {
                packet_id: r.packet_id(),
                properties: properties(r, level, &[REASON, USER]),
                reasons: r.number_of(1, 4, |r| r.pick(known)),
            })
        }
        2 => Packet::Unsuback(Unsuback {
            packet_id: r.packet_id(),
            properties: properties(r, level, &[REASON, USER]),
            reasons: if v5 { r.number_of(1, 4, |r| r.pick(&[0, 0x11, 0x87])) } else { vec![] },
        }),
        _ => Packet::Pingresp,
    }
}

/// The bytes of a packet.
pub(crate) fn bytes(level: Level, packet: &Packet) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode::packet(level, packet, &mut out);
    out.to_vec()
}

/// Changes a few bytes: another value, a flipped bit, one more, one less, a cut.
pub(crate) fn damage(r: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..1 + r.below(3) {
        if bytes.is_empty() {
            return;
        }
        let at = r.below(bytes.len());
        match r.below(8) {
            0 | 1 => bytes[at] ^= 1 << r.below(8),
            2 => bytes[at] = r.number() as u8,
            3 => bytes[at] = r.pick(&[0, 1, 2, 0x7F, 0x80, 0xFF, 0x26, 0x0B]),
            4 => bytes.insert(at, r.pick(&[0, 1, 0x80, 0xFF])),
            5 => drop(bytes.remove(at)),
            6 => bytes.truncate(at),
            // The remaining length follows, so that a change of length is not the only thing found.
            _ => {
                if bytes.len() < 100 && bytes.len() > 2 {
                    let extra = r.number() as u8;
                    bytes.insert(2 + at % (bytes.len() - 2), extra);
                    bytes[1] = (bytes.len() - 2) as u8;
                }
            }
        }
    }
}
