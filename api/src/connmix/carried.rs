//! What a message brings besides its payload, kept with it so that it is delivered as it was published.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | 3 = CONNMIX |
//! | 1 | bit 0: a binary frame; bit 1: a client sent it, its id follows |
//! | 0 or 8 | the client id |
//! | rest | the private type of its channel |
//!
//! A text to a channel that is not private carries nothing.

use bytes::{BufMut as _, Bytes, BytesMut};

const CONNMIX: u8 = 3;
const BINARY: u8 = 1;
const CLIENT: u8 = 2;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Carried<'a> {
    pub(crate) binary: bool,
    pub(crate) client: Option<u64>,
    pub(crate) private: Option<&'a str>,
}

impl<'a> Carried<'a> {
    pub(crate) fn encode(&self) -> Bytes {
        if *self == Self::default() {
            return Bytes::new();
        }
        let private = self.private.unwrap_or_default();
        let mut out = BytesMut::with_capacity(10 + private.len());
        out.put_u8(CONNMIX);
        out.put_u8(if self.binary { BINARY } else { 0 } | if self.client.is_some() { CLIENT } else { 0 });
        if let Some(client) = self.client {
            out.put_u64(client);
        }
        out.put_slice(private.as_bytes());
        out.freeze()
    }

    /// Of what another front end carried, or nobody: `None`.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (&[CONNMIX, flags], mut rest) = bytes.split_first_chunk::<2>()? else { return None };
        let mut client = None;
        if flags & CLIENT != 0 {
            let (id, after) = rest.split_first_chunk::<8>()?;
            client = Some(u64::from_be_bytes(*id));
            rest = after;
        }
        let private = std::str::from_utf8(rest).ok()?;
        Some(Self {
            binary: flags & BINARY != 0,
            client,
            private: Some(private).filter(|text| !text.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_carried_comes_back() {
        for binary in [false, true] {
            for client in [None, Some(7), Some(u64::MAX)] {
                for private in [None, Some("balance")] {
                    let carried = Carried { binary, client, private };
                    let bytes = carried.encode();
                    let plain = carried == Carried::default();
                    assert_eq!(bytes.is_empty(), plain);
                    assert_eq!(Carried::decode(&bytes), (!plain).then_some(carried));
                }
            }
        }
    }

    #[test]
    fn what_others_carry_is_not_ours() {
        for bytes in [&b""[..], b"\x01\x00aaaaaaaa", b"\x03", b"\x03\x02aaaaaaa", b"\x03\x00\xff"] {
            assert_eq!(Carried::decode(bytes), None, "{bytes:?}");
        }
    }
}
