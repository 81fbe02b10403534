//! Fields off the front of a packet, each a slice of it.

use bytes::{Buf, Bytes};

use super::text::is_text;
use super::{Fault, PacketId, Text, malformed, protocol_error};

/// What is left of the body of a packet. Every read checks that the bytes are there.
pub(super) struct Reader {
    rest: Bytes,
}

const SHORT: Fault = malformed("a field ends behind its packet (MQTT5 §1.2 malformed packet)");
const NO_TEXT: Fault = malformed(
    "a text is not UTF-8 without U+0000 (MQTT5 [MQTT-1.5.4-1] [MQTT-1.5.4-2], 3.1.1 [MQTT-1.5.3-1])",
);

impl Reader {
    pub(super) fn new(body: Bytes) -> Self {
        Self { rest: body }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub(super) fn rest(self) -> Bytes {
        self.rest
    }

    /// All that is left, and nothing is left then.
    pub(super) fn take_rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let bytes = *self.rest.first_chunk::<N>().ok_or(SHORT)?;
        self.rest.advance(N);
        Ok(bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn take(&mut self, bytes: usize) -> Result<Bytes, Fault> {
        if bytes > self.rest.len() {
            return Err(SHORT);
        }
        Ok(self.rest.split_to(bytes))
    }

    /// Binary data: MQTT5 §1.5.6.
    pub(super) fn binary(&mut self) -> Result<Bytes, Fault> {
        let bytes = self.u16()?;
        self.take(usize::from(bytes))
    }

    /// A text: MQTT5 §1.5.4.
    pub(super) fn text(&mut self) -> Result<Text, Fault> {
        Text::from_bytes(self.binary()?).ok_or(NO_TEXT)
    }

    pub(super) fn packet_id(&mut self) -> Result<PacketId, Fault> {
        PacketId::new(self.u16()?)
            .ok_or(protocol_error("packet id 0 (MQTT5 [MQTT-2.2.1-3], 3.1.1 [MQTT-2.3.1-1])"))
    }

    /// A block of properties behind its length.
    pub(super) fn property_block(&mut self) -> Result<Bytes, Fault> {
        let (length, used) = match variable(&self.rest) {
            Variable::Value { value, bytes, minimal: true } => (value, bytes),
            Variable::Value { minimal: false, .. } => return Err(NOT_MINIMAL),
            Variable::Short => return Err(SHORT),
            Variable::TooLong => return Err(TOO_LONG),
        };
        self.rest.advance(used);
        self.take(length)
    }

    /// The packet must end here.
    pub(super) fn end(&self) -> Result<(), Fault> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(malformed("bytes behind the last field of a packet (MQTT5 §2.1.4, 3.1.1 §2.2.3)"))
        }
    }
}

pub(super) const NOT_MINIMAL: Fault =
    malformed("a variable byte integer of more bytes than needed (MQTT5 [MQTT-1.5.5-1])");
pub(super) const TOO_LONG: Fault =
    malformed("a variable byte integer of more than four bytes (MQTT5 §1.5.5, 3.1.1 §2.2.3)");

/// What bytes begin with, read as a variable byte integer: MQTT5 §1.5.5, 3.1.1 §2.2.3.
pub(super) enum Variable {
    /// The integer, and how many bytes it has.
    Value { value: usize, bytes: usize, minimal: bool },
    /// Its end has not arrived.
    Short,
    /// A fifth byte would follow.
    TooLong,
}

pub(super) fn variable(bytes: &[u8]) -> Variable {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            return Variable::Value { value, bytes: place + 1, minimal: place == 0 || *byte != 0 };
        }
    }
    if bytes.len() < 4 { Variable::Short } else { Variable::TooLong }
}

/// The same reads on a slice, for properties, which are read again whenever one is asked for.
#[derive(Clone, Copy)]
pub(super) struct Slice<'a> {
    rest: &'a [u8],
}

impl<'a> Slice<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn variable(&mut self) -> Result<u32, Fault> {
        match variable(self.rest) {
            Variable::Value { value, bytes, minimal: true } => {
                self.rest = self.rest.get(bytes..).unwrap_or_default();
                // INVARIANT: four bytes of seven bits fit.
                Ok(u32::try_from(value).unwrap_or(u32::MAX))
            }
            Variable::Value { minimal: false, .. } => Err(NOT_MINIMAL),
            Variable::Short => Err(SHORT),
            Variable::TooLong => Err(TOO_LONG),
        }
    }

    pub(super) fn binary(&mut self) -> Result<&'a [u8], Fault> {
        let length = usize::from(self.u16()?);
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(SHORT)?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Fault> {
        let bytes = self.binary()?;
        if !is_text(bytes) {
            return Err(NO_TEXT);
        }
        std::str::from_utf8(bytes).map_err(|_| NO_TEXT)
    }
}
