//! Topics: open feeds whose new messages each go to one of the workers that pop them; and the one for frames of clients.
//!
//! A topic begins at the head of its feed when it is first popped. Its log is the queue: what comes while no worker is
//! there waits in it, for as long as this process lives and remembers the place: when there are as many topics as may be,
//! the one that nobody has popped for longest gives way. A worker that goes takes the message it was given with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use feedlog_core::event::FeedKind;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::policy::Denied;
use feedlog_service::views::{After, Delivery, View};
use feedlog_service::{Attachment, Gate, ReadError};
use serde_json::json;

use super::ClientTopic;
use super::carried::Carried;

/// After the log could not be followed.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The node of this process in events and at `/v1/nodes`. connmix-php reads it as an integer.
pub(crate) const NODE: u64 = 1;

/// All topics that were popped from.
pub(crate) struct Queues {
    topics: Mutex<HashMap<FeedId, Arc<Topic>>>,
    topics_max: usize,
    joins: AtomicU64,
}

struct Topic {
    /// Grows with every join of any topic.
    used: AtomicU64,
    name: String,
    feed: FeedId,
    // Whoever has it gets the next message; the others stand in line.
    turn: tokio::sync::Mutex<Turn>,
}

struct Turn {
    attachment: Option<Attachment>,
    /// Up to here all was given to workers.
    place: SeqId,
    /// Taken out of the attachment, and given to nobody yet.
    taken: Option<SeqId>,
}

/// What a worker gets.
#[derive(Debug)]
pub(crate) enum Popped {
    /// An event.
    Message(String),
    /// It is no topic any more.
    NoTopic,
}

/// A worker's share in a topic.
pub(crate) struct Share {
    topic: Arc<Topic>,
    gate: Gate,
}

/// Why a topic cannot be popped from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoTopic {
    /// There is one with another kind of that name, or it is none that an open feed can have.
    NotOpen,
    /// As many as may be are there.
    TooMany,
    /// The store cannot tell now.
    Unavailable,
}

impl Queues {
    pub(crate) fn new(topics_max: usize) -> Self {
        Self { topics: Mutex::default(), topics_max: topics_max.max(1), joins: AtomicU64::new(0) }
    }

    fn topics(&self) -> MutexGuard<'_, HashMap<FeedId, Arc<Topic>>> {
        // Nothing here panics half way through a change.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A share in a topic, which begins now when nobody had one before. `clients`: the topic for frames of clients, which
    /// goes before an open feed of that name.
    pub(crate) async fn join(
        &self,
        name: &str,
        gate: &Gate,
        clients: Option<&ClientTopic>,
    ) -> Result<Share, NoTopic> {
        let (feed, gate) = match clients.filter(|topic| topic.name == name) {
            Some(topic) => (topic.feed.clone(), &topic.gate),
            None => {
                let feed = FeedId::parse(name).ok().filter(|feed| !feed.is_reserved());
                (feed.ok_or(NoTopic::NotOpen)?, gate)
            }
        };
        let now = self.joins.fetch_add(1, Ordering::Relaxed);
        let share = |topic: &Arc<Topic>| {
            topic.used.store(now, Ordering::Relaxed);
            Share { topic: topic.clone(), gate: gate.clone() }
        };
        if let Some(topic) = self.topics().get(&feed) {
            return Ok(share(topic));
        }
        let place = match gate.feed(&feed).await {
            Ok(info) if matches!(info.kind, FeedKind::Open | FeedKind::Personal) => info.head,
            Ok(_) => return Err(NoTopic::NotOpen),
            // There is none yet, or none for this back end: that shows when it is followed.
            Err(ReadError::Denied(_)) => SeqId::ZERO,
            Err(_) => return Err(NoTopic::Unavailable),
        };
        let attachment = follow(&feed, gate, place).await.map_err(|error| match error {
            ReadError::Denied(_) => NoTopic::NotOpen,
            _ => NoTopic::Unavailable,
        })?;
        let mut topics = self.topics();
        if !topics.contains_key(&feed) && topics.len() >= self.topics_max {
            // Nobody can join while the map is held: those that only it holds have no worker.
            let idle = topics.iter().filter(|(_, topic)| Arc::strong_count(topic) == 1);
            let oldest = idle.min_by_key(|(_, topic)| topic.used.load(Ordering::Relaxed));
            let oldest = oldest.map(|(feed, _)| feed.clone()).ok_or(NoTopic::TooMany)?;
            topics.remove(&oldest);
        }
        let topic = topics.entry(feed.clone()).or_insert_with(|| {
            let turn = tokio::sync::Mutex::new(Turn { attachment: Some(attachment), place, taken: None });
            Arc::new(Topic { used: AtomicU64::new(now), name: name.to_owned(), feed, turn })
        });
        Ok(share(topic))
    }
}

impl Queues {
    /// A topic is none any more; whoever asks for it again is told so.
    pub(crate) fn end(&self, share: &Share) {
        let mut topics = self.topics();
        if topics.get(&share.topic.feed).is_some_and(|topic| Arc::ptr_eq(topic, &share.topic)) {
            topics.remove(&share.topic.feed);
        }
    }
}

async fn follow(feed: &FeedId, gate: &Gate, place: SeqId) -> Result<Attachment, ReadError> {
    let mut attachment = gate.follow(None).await?;
    attachment.add_coming(feed.clone(), After::Seq(place)).await?;
    Ok(attachment)
}

impl Share {
    /// The topic's name.
    pub(crate) fn name(&self) -> &str {
        &self.topic.name
    }

    /// The next message that is this worker's, as the event it gets. Cancel safe: what is not returned goes to another.
    pub(crate) async fn next(&self) -> Popped {
        let mut turn = self.topic.turn.lock().await;
        loop {
            match turn.next(&self.topic, &self.gate).await {
                Ok(Some(event)) => return Popped::Message(event),
                Err(ReadError::Denied(_)) => {
                    turn.forget();
                    return Popped::NoTopic;
                }
                // The log could not be followed.
                Ok(None) | Err(_) => {
                    turn.forget();
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // The last worker goes: only the place is kept.
        if Arc::strong_count(&self.topic) <= 2
            && let Ok(mut turn) = self.topic.turn.try_lock()
        {
            turn.forget();
        }
    }
}

impl Turn {
    /// `None` when the attachment ended.
    async fn next(&mut self, topic: &Topic, gate: &Gate) -> Result<Option<String>, ReadError> {
        loop {
            if let Some(seq) = self.taken {
                // The attachment may have prepared it long ago: what was recalled since then is not handed out.
                let view = match gate.entry(&topic.feed, seq).await {
                    Ok(view) => event(&topic.name, &view),
                    Err(ReadError::NotFound) => None,
                    Err(error) => return Err(error),
                };
                self.taken = None;
                self.place = seq;
                if view.is_some() {
                    return Ok(view);
                }
            }
            let attachment = match &mut self.attachment {
                Some(attachment) => attachment,
                none => none.insert(follow(&topic.feed, gate, self.place).await?),
            };
            match attachment.next().await {
                Some(Delivery::Entry(view)) if view.entry.is_message() => self.taken = Some(view.entry.seq),
                Some(Delivery::Entry(view)) => self.place = view.entry.seq,
                Some(Delivery::Gone(_, gone)) => self.place = gone.to,
                Some(Delivery::CaughtUp(_)) => {}
                Some(Delivery::Ended(_)) => return Err(ReadError::Denied(Denied::Forbidden)),
                None => return Ok(None),
            }
        }
    }

    /// What is prepared is forgotten; following goes on from the place.
    fn forget(&mut self) {
        self.attachment = None;
        self.taken = None;
    }
}

/// The event of a message. Who did not come by CONNMIX has the client id 0, which is nobody's: connmix-php reads it as an
/// integer.
fn event(topic: &str, view: &View) -> Option<String> {
    let entry = &view.entry;
    let message = entry.message()?;
    if view.fate.as_deref().is_some_and(|fate| fate.recalled.is_some() || fate.is_gone()) {
        return None;
    }
    let carried = message.carried.bytes().and_then(|bytes| Carried::decode(bytes)).unwrap_or_default();
    let bytes = entry.payload.bytes().map_or(&b""[..], |bytes| bytes);
    let (kind, data) = match std::str::from_utf8(bytes) {
        Ok(text) if !carried.binary => ("text", text.to_owned()),
        _ => ("binary", STANDARD.encode(bytes)),
    };
    let event = json!({
        "e": "queue.pop",
        "p": {
            "n": NODE,
            "c": carried.client.unwrap_or(0).to_string(),
            "t": topic,
            "d": {"frame": {"type": kind, "data": data, "finish": true}},
        },
        "id": null,
    });
    Some(event.to_string())
}
