//! Version 2 of the stored event: what a front end has carried with a message, then the event as in version 1.
//! **Frozen**, as version 1 is.
//!
//! Only messages that carry something are stored like this. Everything else is written in version 1, so that it stays as
//! small as it was, and an entry that came in an export of version 1 keeps the bytes that its chain hash covers.

use bytes::Bytes;
use feedlog_core::entry::Payload;
use feedlog_core::event::Event;

use super::bytes::{Reader, put_number};
use super::{DecodeError, event_v1};

const BYTES: u8 = 1;
const STRIPPED: u8 = 2;

/// What precedes the event of version 1.
enum CarriedV2<'a> {
    Bytes(&'a [u8]),
    Stripped([u8; 32]),
}

/// Whether the event needs this version.
pub(super) fn is_needed(event: &Event) -> bool {
    matches!(event, Event::MessageSent(message) if message.carried != Payload::None)
}

/// The stored bytes of a message that carries something.
pub(super) fn encode(event: &Event, out: &mut Vec<u8>) {
    if let Event::MessageSent(message) = event {
        match &message.carried {
            Payload::None => {}
            Payload::Bytes(bytes) => {
                out.push(BYTES);
                put_number(out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            Payload::Stripped { hash } => put_stripped(hash, out),
        }
    }
    event_v1::encode(event, out);
}

fn put_stripped(hash: &[u8; 32], out: &mut Vec<u8>) {
    out.push(STRIPPED);
    out.extend_from_slice(hash);
}

fn parse(stored: &[u8]) -> Result<(CarriedV2<'_>, &[u8]), DecodeError> {
    let mut reader = Reader(stored);
    let carried = match reader.byte()? {
        BYTES => {
            let len = reader.len()?;
            CarriedV2::Bytes(reader.bytes(len)?)
        }
        STRIPPED => CarriedV2::Stripped(reader.array()?),
        _ => return Err(DecodeError::Value("carried")),
    };
    Ok((carried, reader.0))
}

/// The event of these bytes.
pub(super) fn decode(stored: &[u8]) -> Result<Event, DecodeError> {
    let (carried, event) = parse(stored)?;
    let mut event = event_v1::decode(event)?;
    let Event::MessageSent(message) = &mut event else { return Err(DecodeError::Value("carried")) };
    message.carried = match carried {
        CarriedV2::Bytes(bytes) => Payload::Bytes(Bytes::copy_from_slice(bytes)),
        CarriedV2::Stripped(hash) => Payload::Stripped { hash },
    };
    Ok(event)
}

/// How many bytes are carried.
pub(super) fn carried_len(stored: &[u8]) -> usize {
    match parse(stored) {
        Ok((CarriedV2::Bytes(bytes), _)) => bytes.len(),
        Ok((CarriedV2::Stripped(_), _)) | Err(_) => 0,
    }
}

/// The same with a hash for what is carried; `None` when there is nothing to strip. The chain hash covers these bytes, so
/// that it holds after the carried ones were destroyed.
pub(super) fn stripped(stored: &[u8]) -> Option<Vec<u8>> {
    let Ok((CarriedV2::Bytes(bytes), event)) = parse(stored) else { return None };
    let mut out = Vec::with_capacity(33 + event.len());
    put_stripped(&crate::digest(bytes), &mut out);
    out.extend_from_slice(event);
    Some(out)
}
