//! Topics: open feeds whose new messages each go to one of the workers that pop them; and the one for frames of clients.
//!
//! A topic begins at the head of its feed when it is first popped. Its log is the queue: what comes while no worker is
//! there waits in it, for as long as this process lives. A worker that goes takes the message it was given with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use feedlog_core::event::FeedKind;
use feedlog_core::ids::{FeedId, SeqId};
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
}

struct Topic {
    name: String,
    feed: FeedId,
    // Whoever has it gets the next message; the others stand in line.
    turn: tokio::sync::Mutex<Turn>,
}

struct Turn {
    attachment: Option<Attachment>,
    place: SeqId,
}

/// A worker's share in a topic.
#[derive(Clone)]
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
        Self { topics: Mutex::default(), topics_max: topics_max.max(1) }
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
        let share = |topic: &Arc<Topic>| Share { topic: topic.clone(), gate: gate.clone() };
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
            return Err(NoTopic::TooMany);
        }
        let topic = topics.entry(feed.clone()).or_insert_with(|| {
            let turn = tokio::sync::Mutex::new(Turn { attachment: Some(attachment), place });
            Arc::new(Topic { name: name.to_owned(), feed, turn })
        });
        Ok(share(topic))
    }
}

async fn follow(feed: &FeedId, gate: &Gate, place: SeqId) -> Result<Attachment, ReadError> {
    let mut attachment = gate.follow(None).await?;
    attachment.add_coming(feed.clone(), After::Seq(place)).await?;
    Ok(attachment)
}

impl Share {
    /// The next message that is this worker's, as the event it gets. Cancel safe: what is not returned goes to another.
    pub(crate) async fn next(&self) -> String {
        let mut turn = self.topic.turn.lock().await;
        loop {
            if let Ok(Some(event)) = turn.next(&self.topic, &self.gate).await {
                return event;
            }
            turn.attachment = None;
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}

impl Turn {
    /// `None` when the attachment ended.
    async fn next(&mut self, topic: &Topic, gate: &Gate) -> Result<Option<String>, ReadError> {
        let attachment = match &mut self.attachment {
            Some(attachment) => attachment,
            none => none.insert(follow(&topic.feed, gate, self.place).await?),
        };
        while let Some(delivery) = attachment.next().await {
            match delivery {
                Delivery::Entry(view) => {
                    self.place = view.entry.seq;
                    if let Some(event) = event(&topic.name, &view) {
                        return Ok(Some(event));
                    }
                }
                Delivery::Gone(_, gone) => self.place = gone.to,
                Delivery::CaughtUp(_) => {}
                Delivery::Ended(_) => return Ok(None),
            }
        }
        Ok(None)
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
