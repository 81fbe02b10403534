//! What a persistent session keeps on the shelf, so that it costs the same after one message or a million: its
//! subscriptions, one place, and the window of packet ids. Messages stay in their logs.
//!
//! Keys begin with a letter, then, ended by a zero byte each, the user (empty = none) and the client id.
//!
//! | letter | after the client id | value |
//! |---|---|---|
//! | `s` | | [`StoredSession`] |
//! | `f` | the filter | [`StoredSubscription`] |
//! | `o` | packet id | a QoS 2 message on its way to the client |
//! | `i` | packet id | a QoS 2 message from the client that is not released yet: the place it got |
//! | `w` | | [`StoredWill`] |
//! | `r` | (only the topic follows) | the place of its retained message |
//! | `g` | (group, 0 and filter follow) | the place of a shared subscription |
//!
//! JSON stands behind a version byte; fields are only ever added, with a default.

use std::num::NonZeroU16;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use feedlog_core::ids::{FeedId, SeqId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::outbound::{Flow, FlowState, Form};
use super::wire::{PacketId, Qos};

const VERSION: u8 = 1;

/// Whose session: user (`None` = without a name) and client id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SessionKey {
    pub(crate) user: Option<String>,
    pub(crate) client_id: String,
}

impl SessionKey {
    fn key(&self, letter: u8, room: usize) -> Vec<u8> {
        let user = self.user.as_deref().unwrap_or_default();
        let mut key = Vec::with_capacity(3 + user.len() + self.client_id.len() + room);
        key.push(letter);
        key.extend_from_slice(user.as_bytes());
        key.push(0);
        // Neither a uid nor an MQTT string holds a zero byte.
        key.extend_from_slice(self.client_id.as_bytes());
        key.push(0);
        key
    }

    /// What the keys of all sessions of this user begin with; those without a user count as one.
    pub(crate) fn sessions_of_user(&self) -> Vec<u8> {
        let mut key = vec![b's'];
        key.extend_from_slice(self.user.as_deref().unwrap_or_default().as_bytes());
        key.push(0);
        key
    }

    pub(crate) fn session(&self) -> Vec<u8> {
        self.key(b's', 0)
    }

    pub(crate) fn subscriptions(&self) -> Vec<u8> {
        self.key(b'f', 0)
    }

    pub(crate) fn subscription(&self, filter: &str) -> Vec<u8> {
        let mut key = self.key(b'f', filter.len());
        key.extend_from_slice(filter.as_bytes());
        key
    }

    pub(crate) fn sent(&self) -> Vec<u8> {
        self.key(b'o', 0)
    }

    pub(crate) fn sent_id(&self, id: PacketId) -> Vec<u8> {
        let mut key = self.key(b'o', 2);
        key.extend_from_slice(&id.get().to_be_bytes());
        key
    }

    pub(crate) fn received(&self) -> Vec<u8> {
        self.key(b'i', 0)
    }

    pub(crate) fn received_id(&self, id: PacketId) -> Vec<u8> {
        let mut key = self.key(b'i', 2);
        key.extend_from_slice(&id.get().to_be_bytes());
        key
    }

    pub(crate) fn will(&self) -> Vec<u8> {
        self.key(b'w', 0)
    }

    /// The inverse of the keys with letters `s` and `w`.
    pub(crate) fn parse(key: &[u8]) -> Option<Self> {
        let mut parts = key.get(1..)?.splitn(3, |byte| *byte == 0);
        let user = std::str::from_utf8(parts.next()?).ok()?;
        let client_id = std::str::from_utf8(parts.next()?).ok()?;
        Some(Self { user: (!user.is_empty()).then(|| user.to_owned()), client_id: client_id.to_owned() })
    }
}

/// All sessions.
pub(crate) const SESSIONS: &[u8] = b"s";
/// All wills.
pub(crate) const WILLS: &[u8] = b"w";

/// Retained messages of topics that begin like this.
pub(crate) fn retained(topic: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + topic.len());
    key.push(b'r');
    key.extend_from_slice(topic.as_bytes());
    key
}

/// The packet id at the end of a key with letter `o` or `i`.
pub(crate) fn id_of(key: &[u8]) -> Option<PacketId> {
    let (_, id) = key.split_last_chunk::<2>()?;
    NonZeroU16::new(u16::from_be_bytes(*id))
}

/// A place that the shelf wrote with an entry: seq_id, then ordinal and time.
pub(crate) fn place_of(value: &[u8]) -> Option<SeqId> {
    let (seq, _) = value.split_first_chunk::<8>()?;
    Some(SeqId(u64::from_be_bytes(*seq)))
}

/// The session itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredSession {
    /// How long it outlives its connection.
    pub(crate) expiry_s: u32,
    /// Since when it has no connection; `None` while it has one, or when the server was killed then.
    #[serde(default)]
    pub(crate) ended_ms: Option<u64>,
    /// Everything up to this commit was handed on, but for `positions`.
    pub(crate) commit_no: u64,
    /// Feeds whose place is another one.
    #[serde(default)]
    pub(crate) positions: Vec<(String, u64)>,
    /// The last packet id given.
    #[serde(default)]
    pub(crate) last_id: u16,
    /// The window.
    #[serde(default)]
    pub(crate) flows: Vec<StoredFlow>,
    /// Whether `impush://` pushes go to it.
    #[serde(default)]
    pub(crate) impush: bool,
}

/// A message in the window: id, feed, seq_id, form, QoS, state, sent aside.
pub(crate) type StoredFlow = (u16, String, u64, u8, u8, u8, bool);

/// One subscription; the filter is in its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredSubscription {
    pub(crate) qos: u8,
    #[serde(default)]
    pub(crate) no_local: bool,
    #[serde(default)]
    pub(crate) retain_as_published: bool,
    #[serde(default)]
    pub(crate) identifier: Option<u32>,
    /// Feed topics: payloads as they are, with the envelope in user properties.
    #[serde(default)]
    pub(crate) raw: bool,
    /// The commit at which it was made.
    #[serde(default)]
    pub(crate) since: u64,
}

/// A will that is to be published when its session's connection ends, or after a delay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredWill {
    pub(crate) topic: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// In base64.
    pub(crate) payload: String,
    /// The properties to forward, in base64.
    #[serde(default)]
    pub(crate) properties: String,
    #[serde(default)]
    pub(crate) expiry_s: Option<u32>,
    pub(crate) delay_s: u32,
    /// When it is due; `None` while the connection lives.
    #[serde(default)]
    pub(crate) due_ms: Option<u64>,
    /// The name under which it is published.
    pub(crate) uid: String,
    pub(crate) anonymous: bool,
    /// What its client may do.
    #[serde(default)]
    pub(crate) user: bool,
    #[serde(default)]
    pub(crate) send_as: bool,
    /// The service that acts for the user.
    #[serde(default)]
    pub(crate) via: Option<String>,
}

/// A stored value is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored session is damaged or was written by something newer")]
pub(crate) struct Damaged;

pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, value)
        .expect("INVARIANT: strings, numbers and booleans always encode into memory");
    bytes.into()
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Damaged> {
    match bytes.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|_| Damaged),
        _ => Err(Damaged),
    }
}

pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn from_base64(text: &str) -> Result<Bytes, Damaged> {
    STANDARD.decode(text).map(Bytes::from).map_err(|_| Damaged)
}

impl StoredSession {
    pub(crate) fn positions(&self) -> Result<Vec<(FeedId, SeqId)>, Damaged> {
        self.positions
            .iter()
            .map(|(feed, seq)| Ok((FeedId::parse(feed).map_err(|_| Damaged)?, SeqId(*seq))))
            .collect()
    }

    pub(crate) fn flows(&self) -> Result<Vec<Flow>, Damaged> {
        self.flows
            .iter()
            .map(|(id, feed, seq, form, qos, state, aside)| {
                Ok(Flow {
                    id: NonZeroU16::new(*id).ok_or(Damaged)?,
                    feed: FeedId::parse(feed).map_err(|_| Damaged)?,
                    seq: SeqId(*seq),
                    form: form_of(*form).ok_or(Damaged)?,
                    qos: qos_of(*qos).ok_or(Damaged)?,
                    state: state_of(*state).ok_or(Damaged)?,
                    aside: *aside,
                })
            })
            .collect()
    }
}

pub(crate) fn stored_flow(flow: &Flow) -> StoredFlow {
    let feed = flow.feed.as_str().to_owned();
    (flow.id.get(), feed, flow.seq.0, flow.form as u8, flow.qos as u8, flow.state as u8, flow.aside)
}

/// A QoS 2 flow as a row of its own: version, form, state, aside, seq_id, feed.
pub(crate) fn encode_flow(flow: &Flow) -> Bytes {
    let mut out = BytesMut::with_capacity(12 + flow.feed.as_str().len());
    out.put_slice(&[VERSION, flow.form as u8, flow.state as u8, u8::from(flow.aside)]);
    out.put_u64(flow.seq.0);
    out.put_slice(flow.feed.as_str().as_bytes());
    out.freeze()
}

pub(crate) fn decode_flow(id: PacketId, mut bytes: &[u8]) -> Result<Flow, Damaged> {
    let (head, rest) = bytes.split_first_chunk::<4>().ok_or(Damaged)?;
    let &[VERSION, form, state, aside] = head else { return Err(Damaged) };
    bytes = rest;
    let seq = SeqId(bytes.try_get_u64().map_err(|_| Damaged)?);
    let feed = std::str::from_utf8(bytes).ok().and_then(|name| FeedId::parse(name).ok()).ok_or(Damaged)?;
    let (form, state) = (form_of(form).ok_or(Damaged)?, state_of(state).ok_or(Damaged)?);
    Ok(Flow { id, feed, seq, form, qos: Qos::ExactlyOnce, state, aside: aside != 0 })
}

/// The window as it was: the session's own row, and the QoS 2 rows written since.
pub(crate) fn merge_flows(mut flows: Vec<Flow>, rows: Vec<Flow>) -> Vec<Flow> {
    for row in rows {
        match flows.iter_mut().find(|flow| {
            flow.id == row.id && flow.seq == row.seq && flow.form == row.form && flow.feed == row.feed
        }) {
            Some(flow) => flow.state = flow.state.max(row.state),
            None => flows.push(row),
        }
    }
    flows
}

pub(crate) fn qos_of(number: u8) -> Option<Qos> {
    [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce].into_iter().find(|qos| *qos as u8 == number)
}

fn form_of(number: u8) -> Option<Form> {
    Form::ALL.into_iter().find(|form| *form as u8 == number)
}

fn state_of(number: u8) -> Option<FlowState> {
    [FlowState::Sent, FlowState::Released, FlowState::Done].into_iter().find(|state| *state as u8 == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(id: u16, seq: u64, state: FlowState) -> Flow {
        Flow {
            id: NonZeroU16::new(id).unwrap(),
            feed: FeedId::parse("a/b").unwrap(),
            seq: SeqId(seq),
            form: Form::Feed,
            qos: Qos::ExactlyOnce,
            state,
            aside: false,
        }
    }

    #[test]
    fn keys_of_two_sessions_never_meet() {
        let key = |user: Option<&str>, client: &str| SessionKey {
            user: user.map(str::to_owned),
            client_id: client.to_owned(),
        };
        let keys = [key(None, "a"), key(Some("a"), ""), key(Some("a"), "b"), key(Some("ab"), "")];
        for one in &keys {
            assert_eq!(SessionKey::parse(&one.session()).as_ref(), Some(one));
            for other in keys.iter().filter(|other| *other != one) {
                assert!(!other.subscription("x").starts_with(&one.subscriptions()), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn stored_values_come_back() {
        let session = StoredSession {
            expiry_s: 60,
            ended_ms: Some(5),
            commit_no: 9,
            positions: vec![("a/b".into(), 3)],
            last_id: 7,
            flows: vec![stored_flow(&flow(7, 4, FlowState::Released))],
            impush: true,
        };
        let back: StoredSession = decode(&encode(&session)).unwrap();
        assert_eq!(back, session);
        assert_eq!(back.flows().unwrap(), [flow(7, 4, FlowState::Released)]);
        for state in [FlowState::Sent, FlowState::Released, FlowState::Done] {
            let one = flow(300, 1 << 40, state);
            assert_eq!(decode_flow(one.id, &encode_flow(&one)).unwrap(), one);
        }
    }

    #[test]
    fn version_1_is_read_as_it_was_written() {
        let bytes = b"\x01{\"expiry_s\":60,\"commit_no\":9}";
        assert_eq!(
            decode::<StoredSession>(bytes).unwrap(),
            StoredSession { expiry_s: 60, commit_no: 9, ..StoredSession::default() }
        );
        let bytes = b"\x01{\"qos\":1}";
        assert_eq!(decode::<StoredSubscription>(bytes).unwrap().qos, 1);
        let flow_bytes = b"\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x04a/b";
        assert_eq!(
            decode_flow(NonZeroU16::new(7).unwrap(), flow_bytes).unwrap(),
            flow(7, 4, FlowState::Released)
        );
    }

    #[test]
    fn damaged_values_are_refused() {
        assert_eq!(decode::<StoredSession>(b""), Err(Damaged));
        assert_eq!(decode::<StoredSession>(b"\x02{}"), Err(Damaged));
        for end in 0..12 {
            assert_eq!(
                decode_flow(NonZeroU16::MIN, &encode_flow(&flow(1, 1, FlowState::Sent))[..end]),
                Err(Damaged)
            );
        }
        assert_eq!(
            decode_flow(NonZeroU16::MIN, b"\x01\x00\x09\x00\x00\x00\x00\x00\x00\x00\x00\x04a"),
            Err(Damaged)
        );
    }

    #[test]
    fn rows_written_after_the_session_win_when_they_are_further() {
        let merged = merge_flows(
            vec![flow(1, 1, FlowState::Sent), flow(2, 2, FlowState::Done)],
            vec![
                flow(1, 1, FlowState::Released),
                flow(2, 2, FlowState::Released),
                flow(3, 3, FlowState::Sent),
            ],
        );
        assert_eq!(
            merged,
            [flow(1, 1, FlowState::Released), flow(2, 2, FlowState::Done), flow(3, 3, FlowState::Sent)]
        );
    }
}
