//! What the outbox keeps: state rows of the front end `outbox`, in the backup. Never a body: what a call says is read
//! from the log when it is made.
//!
//! | key | value |
//! |---|---|
//! | `e`, endpoint | [`StoredPlace`] |
//! | `p`, endpoint, 0, feed | [`StoredParked`] |
//! | `d`, endpoint, 0, number (u64 big-endian) | [`StoredDead`] |
//! | `j`, endpoint, 0, number (u64 big-endian) | [`StoredJob`] |
//!
//! JSON stands behind a version byte; fields are only ever added, with a default.

use bytes::Bytes;
use feedlog_core::ids::{FeedId, SeqId, Uid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::plan::{Part, Run};
use crate::error::ReadError;

const VERSION: u8 = 1;
/// Under whose name the rows lie.
pub(super) const SHELF: &str = "outbox";

/// How far an endpoint is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredPlace {
    /// It was told of everything that was committed up to here.
    pub(super) cursor: u64,
    /// It is being told of what was committed up to here; as `cursor` when nothing is under way. Written before the first
    /// call, so that after a crash the same calls are made.
    pub(super) upto: u64,
    /// Of feeds up to this name, `cursor..upto` is done; only while change rows are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) named: Option<String>,
    /// Why it gets no calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) paused: Option<StoredPause>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StoredPause {
    /// An administrator said so.
    Asked,
    /// The endpoint said so: 410 Gone.
    Gone,
}

/// A feed that is told apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredParked {
    /// Begun, and cut like this.
    pub(super) first: u64,
    pub(super) last: u64,
    /// What comes after it up to here was not begun.
    pub(super) upto: u64,
    /// Failed tries of the first call.
    pub(super) tries: u32,
}

/// A call that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredDead {
    pub(super) id: String,
    pub(super) feed: String,
    pub(super) first: u64,
    pub(super) last: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) upto: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) more: bool,
    pub(super) tries: u32,
    pub(super) error: String,
    pub(super) time_ms: u64,
}

impl StoredDead {
    /// What it is about and whom it is for.
    pub(super) fn subject(&self) -> Option<(Run, Part)> {
        let run =
            Run { feed: FeedId::parse(&self.feed).ok()?, first: SeqId(self.first), last: SeqId(self.last) };
        let uid = |name: &Option<String>| match name {
            Some(name) => Uid::parse(name).ok().map(Some),
            None => Some(None),
        };
        Some((run, Part { after: uid(&self.after)?, upto: uid(&self.upto)?, more: self.more }))
    }
}

/// Something that is told again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StoredJob {
    /// Dead letters up to this number; those after `at` are still to come.
    Dead { upto: u64, at: u64 },
    /// Entries `at..=last` of a feed.
    Feed { feed: String, at: u64, last: u64 },
    /// Commits after `at` up to `upto`.
    Commits { at: u64, upto: u64 },
}

pub(super) fn encode<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, value)
        .expect("INVARIANT: strings and numbers always encode into memory");
    bytes.into()
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ReadError> {
    match bytes.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|_| ReadError::Damaged),
        _ => Err(ReadError::Damaged),
    }
}

pub(super) fn place_key(endpoint: &str) -> Vec<u8> {
    [b"e", endpoint.as_bytes()].concat()
}

/// No row is ever here: removing it waits for all writes before.
pub(super) fn barrier_key(endpoint: &str) -> Vec<u8> {
    [b"b", endpoint.as_bytes()].concat()
}

/// All parked feeds of an endpoint begin like this.
pub(super) fn parked_prefix(endpoint: &str) -> Vec<u8> {
    [b"p", endpoint.as_bytes(), &[0]].concat()
}

/// All dead letters of an endpoint begin like this.
pub(super) fn dead_prefix(endpoint: &str) -> Vec<u8> {
    [b"d", endpoint.as_bytes(), &[0]].concat()
}

/// All jobs of an endpoint begin like this.
pub(super) fn job_prefix(endpoint: &str) -> Vec<u8> {
    [b"j", endpoint.as_bytes(), &[0]].concat()
}

pub(super) fn numbered(mut prefix: Vec<u8>, number: u64) -> Vec<u8> {
    prefix.extend_from_slice(&number.to_be_bytes());
    prefix
}

/// The number at the end of a key.
pub(super) fn number_of(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_is_read_as_it_was_written() {
        let place =
            StoredPlace { cursor: 3, upto: 9, named: Some("a".into()), paused: Some(StoredPause::Gone) };
        assert_eq!(decode::<StoredPlace>(&encode(&place)).unwrap(), place);
        let bytes = b"\x01{\"cursor\":3,\"upto\":9,\"named\":\"a\",\"paused\":\"gone\"}";
        assert_eq!(decode::<StoredPlace>(bytes).unwrap(), place);
        assert_eq!(decode::<StoredPlace>(b"\x01{\"cursor\":1,\"upto\":1}").unwrap().paused, None);
        let bytes = b"\x01{\"id\":\"e:a:1-2\",\"feed\":\"a\",\"first\":1,\"last\":2,\"tries\":5,\"error\":\"status 500\",\"time_ms\":7}";
        let dead: StoredDead = decode(bytes).unwrap();
        assert_eq!(decode::<StoredDead>(&encode(&dead)).unwrap(), dead);
        let (run, part) = dead.subject().unwrap();
        assert_eq!((run.first, run.last, part), (SeqId(1), SeqId(2), Part::default()));
        let parked: StoredParked = decode(b"\x01{\"first\":3,\"last\":5,\"upto\":9,\"tries\":3}").unwrap();
        assert_eq!(parked, StoredParked { first: 3, last: 5, upto: 9, tries: 3 });
        assert_eq!(decode::<StoredParked>(&encode(&parked)).unwrap(), parked);
        for (bytes, job) in [
            (&b"\x01{\"dead\":{\"upto\":5,\"at\":2}}"[..], StoredJob::Dead { upto: 5, at: 2 }),
            (
                b"\x01{\"feed\":{\"feed\":\"a\",\"at\":1,\"last\":4}}",
                StoredJob::Feed { feed: "a".into(), at: 1, last: 4 },
            ),
            (b"\x01{\"commits\":{\"at\":1,\"upto\":4}}", StoredJob::Commits { at: 1, upto: 4 }),
        ] {
            assert_eq!(decode::<StoredJob>(bytes).unwrap(), job);
            assert_eq!(decode::<StoredJob>(&encode(&job)).unwrap(), job);
        }
        for bad in [&b""[..], b"\x02{\"cursor\":1,\"upto\":1}", b"\x01{"] {
            assert!(decode::<StoredPlace>(bad).is_err());
        }
    }

    #[test]
    fn keys_of_endpoints_do_not_meet() {
        assert_ne!(dead_prefix("a"), dead_prefix("ab")[..dead_prefix("a").len()]);
        assert_eq!(number_of(&numbered(job_prefix("a"), 1 << 40)), Some(1 << 40));
    }
}
