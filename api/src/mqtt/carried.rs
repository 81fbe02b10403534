//! What an MQTT PUBLISH brings besides its payload, as it is kept with the message and handed to subscribers again.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | 1 = MQTT |
//! | 1 | bits 0 and 1: QoS; bit 2: RETAIN; bit 3: properties follow |
//! | 8 | the session that published, a hash of user and client id: for No Local |
//! | rest | the properties of MQTT 5 that are to be forwarded, as they came |

use bytes::{BufMut as _, Bytes, BytesMut};

use super::wire::Qos;

const MQTT: u8 = 1;
const RETAIN: u8 = 4;

/// Names the session that published, so that it can be told from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin(pub(crate) [u8; 8]);

impl Origin {
    /// The origin of a session.
    pub(crate) fn of(user: &str, client_id: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(user.len() as u64).to_be_bytes());
        hasher.update(user.as_bytes());
        hasher.update(client_id.as_bytes());
        let mut origin = [0; 8];
        origin.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Self(origin)
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) origin: Origin,
    pub(crate) properties: Bytes,
}

impl Carried {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(10 + self.properties.len());
        out.put_u8(MQTT);
        out.put_u8(self.qos as u8 | if self.retain { RETAIN } else { 0 });
        out.put_slice(&self.origin.0);
        out.put_slice(&self.properties);
        out.freeze()
    }

    /// `None` when another front end took the message.
    pub(crate) fn decode(bytes: &Bytes) -> Option<Self> {
        let (&[front_end, flags], rest) = bytes.split_first_chunk::<2>()?;
        let (origin, _) = rest.split_first_chunk::<8>()?;
        if front_end != MQTT {
            return None;
        }
        let qos = match flags & 3 {
            0 => Qos::AtMostOnce,
            1 => Qos::AtLeastOnce,
            _ => Qos::ExactlyOnce,
        };
        let properties = bytes.slice(10..);
        Some(Self { qos, retain: flags & RETAIN != 0, origin: Origin(*origin), properties })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_carried_comes_back() {
        for (qos, retain, properties) in [
            (Qos::AtMostOnce, true, &b""[..]),
            (Qos::AtLeastOnce, false, b"\x01\x01"),
            (Qos::ExactlyOnce, true, b"x"),
        ] {
            let carried = Carried {
                qos,
                retain,
                origin: Origin::of("u", "c"),
                properties: Bytes::copy_from_slice(properties),
            };
            assert_eq!(Carried::decode(&carried.encode()), Some(carried));
        }
    }

    #[test]
    fn what_others_carry_is_not_ours() {
        assert_eq!(Carried::decode(&Bytes::new()), None);
        assert_eq!(Carried::decode(&Bytes::from_static(b"\x02\x00aaaaaaaa")), None);
        assert_eq!(Carried::decode(&Bytes::from_static(b"\x01\x00aaaaaaa")), None);
    }

    #[test]
    fn sessions_of_two_users_with_one_client_id_differ() {
        assert_ne!(Origin::of("a", "c"), Origin::of("b", "c"));
        assert_ne!(Origin::of("ab", "c"), Origin::of("a", "bc"));
    }
}
