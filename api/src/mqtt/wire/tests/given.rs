//! Bytes by hand, and what a decoder must say to them.

use bytes::BytesMut;

use crate::mqtt::wire::{Decoder, Level, Packet, Role, WireError};

/// Larger than any packet of these tests.
pub(crate) const PACKET_BYTES_MAX: usize = 1 << 20;

/// A field behind its length.
pub(crate) fn field(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// A fixed header and what follows.
pub(crate) fn frame(first: u8, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = vec![first];
    let mut rest = body.len();
    loop {
        let low = (rest & 0x7F) as u8;
        rest >>= 7;
        bytes.push(if rest == 0 { low } else { low | 0x80 });
        if rest == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

/// Joined parts.
macro_rules! cat {
    ($($part:expr),* $(,)?) => {{
        let mut bytes: Vec<u8> = Vec::new();
        $(bytes.extend_from_slice(AsRef::<[u8]>::as_ref(&$part));)*
        bytes
    }};
}
pub(crate) use cat;

/// A decoder behind a CONNECT of this level.
pub(crate) fn decoder(level: Level, role: Role) -> Decoder {
    let mut decoder = Decoder::new(role, PACKET_BYTES_MAX);
    decoder.set_level(level);
    decoder
}

pub(crate) fn decode(decoder: &mut Decoder, bytes: &[u8]) -> Result<Option<Packet>, WireError> {
    decoder.decode(&mut BytesMut::from(bytes))
}

#[track_caller]
pub(crate) fn accepts(level: Level, role: Role, bytes: impl AsRef<[u8]>) -> Packet {
    let mut buffer = BytesMut::from(bytes.as_ref());
    let packet = decoder(level, role).decode(&mut buffer).expect("accepted").expect("whole");
    assert!(buffer.is_empty(), "nothing is left");
    packet
}

/// Refused with this reason, by this rule.
#[track_caller]
pub(crate) fn refuses(level: Level, role: Role, bytes: impl AsRef<[u8]>, reason: u8, rule: &str) {
    let error = decode(&mut decoder(level, role), bytes.as_ref()).expect_err("refused");
    assert!(
        error.reason == reason && error.problem.contains(rule) && error.level == Some(level),
        "{error} of {:?}, not 0x{reason:02X} by {rule}",
        error.level
    );
}

/// A CONNECT behind its fixed header.
pub(crate) struct ConnectBytes {
    pub(crate) name: &'static [u8],
    pub(crate) number: u8,
    pub(crate) flags: u8,
    pub(crate) properties: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl ConnectBytes {
    /// The least of a level: clean start, an empty client id.
    pub(crate) fn new(level: Level) -> Self {
        let (name, number): (&[u8], u8) = match level {
            Level::V31 => (b"MQIsdp", 3),
            Level::V311 => (b"MQTT", 4),
            Level::V5 => (b"MQTT", 5),
        };
        Self { name, number, flags: 2, properties: vec![], payload: field("") }
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = cat![field(self.name), [self.number, self.flags, 0, 60]];
        if self.number == 5 {
            assert!(self.properties.len() < 128);
            body.push(self.properties.len() as u8);
            body.extend_from_slice(&self.properties);
        }
        body.extend_from_slice(&self.payload);
        body
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        frame(0x10, self.body())
    }

    pub(crate) fn decode(&self) -> Result<crate::mqtt::wire::Connect, WireError> {
        connect(&self.bytes())
    }
}

/// What a fresh decoder makes of a CONNECT.
pub(crate) fn connect(bytes: &[u8]) -> Result<crate::mqtt::wire::Connect, WireError> {
    match decode(&mut Decoder::new(Role::Server, PACKET_BYTES_MAX), bytes)?.expect("whole") {
        Packet::Connect(connect) => Ok(*connect),
        other => panic!("{other:?}"),
    }
}
