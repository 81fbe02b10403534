//! What one client subscribes to, and what it is told of what comes. No IO.
//!
//! Feeds are followed by an attachment; several channels may be of one feed. Each subscription has its own cursor, so what
//! came before it, or was seen already, is not told again when another one of the feed begins earlier.

use std::collections::HashMap;
use std::sync::Arc;

use feedlog_core::event::Event;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_service::views::{Delivery, Gone, GoneReason, View};
use serde_json::json;

use super::carried::Carried;
use super::ops::Target;

/// All subscriptions of a client.
#[derive(Default)]
pub(crate) struct Follows {
    feeds: HashMap<FeedId, Followed>,
    count: usize,
    /// Somebody who wants to know places has moved since [`Follows::write_cursors`].
    moved: bool,
}

struct Followed {
    /// How far the attachment is.
    place: SeqId,
    subscriptions: Vec<Subscription>,
}

struct Subscription {
    /// The channel as the client calls it.
    channel: Arc<str>,
    /// The channel as publishers call it.
    name: Arc<str>,
    private: Option<Arc<str>>,
    /// The client said `since`: it is told places, recalls and gaps.
    aware: bool,
    cursor: SeqId,
    /// The place it was told last.
    told: SeqId,
}

/// A frame for the client. INVARIANT: a text is UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Write<'a> {
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

impl Follows {
    /// Subscriptions.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Whether there is one to this channel.
    pub(crate) fn has(&self, target: &Target) -> bool {
        let of = |followed: &Followed| followed.subscriptions.iter().any(|sub| sub.name == target.name);
        self.feeds.get(&target.feed).is_some_and(of)
    }

    /// How far a feed is that is followed.
    pub(crate) fn place(&self, feed: &FeedId) -> Option<SeqId> {
        self.feeds.get(feed).map(|followed| followed.place)
    }

    /// The feeds, with how far they are.
    pub(crate) fn places(&self) -> Vec<(FeedId, SeqId)> {
        self.feeds.iter().map(|(feed, followed)| (feed.clone(), followed.place)).collect()
    }

    /// A subscription whose feed is followed from `after` on, or already. Again for the same channel: goes on from there.
    pub(crate) fn add(&mut self, target: &Target, channel: &str, aware: bool, after: SeqId) {
        let feed = self.feeds.entry(target.feed.clone());
        let followed = feed.or_insert_with(|| Followed { place: after, subscriptions: Vec::new() });
        followed.place = followed.place.min(after);
        let new = Subscription {
            channel: channel.into(),
            name: target.name.clone(),
            private: target.private.clone(),
            aware,
            cursor: after,
            told: after,
        };
        match followed.subscriptions.iter_mut().find(|sub| sub.name == target.name) {
            Some(old) => *old = new,
            None => {
                followed.subscriptions.push(new);
                self.count += 1;
            }
        }
    }

    /// Ends a subscription; `true` when its feed need not be followed any more.
    pub(crate) fn remove(&mut self, target: &Target) -> bool {
        let Some(followed) = self.feeds.get_mut(&target.feed) else { return false };
        let before = followed.subscriptions.len();
        followed.subscriptions.retain(|sub| sub.name != target.name);
        self.count -= before - followed.subscriptions.len();
        let empty = followed.subscriptions.is_empty();
        if empty {
            self.feeds.remove(&target.feed);
        }
        empty
    }

    /// Forgets a feed; gives the names of its channels.
    pub(crate) fn end(&mut self, feed: &FeedId, out: &mut impl FnMut(Write<'_>)) -> Vec<Arc<str>> {
        let Some(followed) = self.feeds.remove(feed) else { return Vec::new() };
        self.count -= followed.subscriptions.len();
        for sub in followed.subscriptions.iter().filter(|sub| sub.aware) {
            tell(out, &json!({"op": "ended", "channel": &*sub.channel}));
        }
        followed.subscriptions.into_iter().map(|sub| sub.name).collect()
    }

    /// Tells what came.
    pub(crate) fn deliver(&mut self, delivery: &Delivery, out: &mut impl FnMut(Write<'_>)) {
        match delivery {
            Delivery::Entry(view) => self.entry(view, out),
            Delivery::Gone(feed, gone) => {
                let Some(followed) = self.feeds.get_mut(feed) else { return };
                followed.place = gone.to;
                for sub in followed.subscriptions.iter_mut().filter(|sub| sub.cursor < gone.to) {
                    sub.cursor = gone.to;
                    if sub.aware {
                        self.moved = true;
                        tell_gone(sub, *gone, out);
                    }
                }
            }
            Delivery::CaughtUp(heads) => {
                for (feed, head) in heads {
                    let Some(followed) = self.feeds.get_mut(feed) else { continue };
                    followed.place = followed.place.max(*head);
                    for sub in followed.subscriptions.iter_mut().filter(|sub| sub.cursor < *head) {
                        sub.cursor = *head;
                    }
                }
                self.moved = true;
            }
            // See `end`.
            Delivery::Ended(_) => {}
        }
    }

    fn entry(&mut self, view: &View, out: &mut impl FnMut(Write<'_>)) {
        let entry = &view.entry;
        let Some(followed) = self.feeds.get_mut(&entry.feed) else { return };
        followed.place = entry.seq;
        let frame = frame(view);
        for sub in followed.subscriptions.iter_mut().filter(|sub| sub.cursor < entry.seq) {
            sub.cursor = entry.seq;
            let told = match &frame {
                Some((private, frame)) => {
                    let fits = sub.private.as_deref() == *private;
                    if fits {
                        out(frame.clone());
                    }
                    fits
                }
                None => sub.aware && tell_change(sub, &entry.event, out),
            };
            self.moved |= told && sub.aware;
        }
    }

    /// Whether [`Follows::write_cursors`] has something to say.
    pub(crate) fn has_moved(&self) -> bool {
        self.moved
    }

    /// Tells those who want to know how far they are.
    pub(crate) fn write_cursors(&mut self, out: &mut impl FnMut(Write<'_>)) {
        if !std::mem::take(&mut self.moved) {
            return;
        }
        let subs = self.feeds.values_mut().flat_map(|followed| followed.subscriptions.iter_mut());
        for sub in subs.filter(|sub| sub.aware && sub.told < sub.cursor) {
            sub.told = sub.cursor;
            tell(out, &json!({"op": "cursor", "channel": &*sub.channel, "seq_id": sub.cursor.0}));
        }
    }
}

/// What subscribers get of an entry, with the private type of its channel: the published bytes as they are.
fn frame(view: &View) -> Option<(Option<&str>, Write<'_>)> {
    let message = view.entry.message()?;
    let is_hidden = |fate: &feedlog_core::rows::Fate| fate.recalled.is_some() || fate.is_gone();
    if view.fate.as_deref().is_some_and(is_hidden) {
        return None;
    }
    let carried = message.carried.bytes().and_then(|bytes| Carried::decode(bytes)).unwrap_or_default();
    let bytes = view.entry.payload.bytes().map_or(&b""[..], |bytes| bytes);
    let text = !carried.binary && std::str::from_utf8(bytes).is_ok();
    Some((carried.private, if text { Write::Text(bytes) } else { Write::Binary(bytes) }))
}

/// What happened to earlier messages; `false` when nothing did.
fn tell_change(sub: &Subscription, event: &Event, out: &mut impl FnMut(Write<'_>)) -> bool {
    let targets = |reason: GoneReason, targets: &[(SeqId, feedlog_core::ids::Ordinal)]| -> Vec<Gone> {
        let mut gone: Vec<Gone> = Vec::new();
        for (seq, _) in targets {
            match gone.last_mut() {
                Some(last) if last.to.next() == *seq => last.to = *seq,
                _ => gone.push(Gone { from: *seq, to: *seq, reason }),
            }
        }
        gone
    };
    let gone = match event {
        Event::MessageRecalled { target, .. } => {
            tell(out, &json!({"op": "recalled", "channel": &*sub.channel, "seq_id": target.0}));
            return true;
        }
        Event::MessageEdited { target, .. } => {
            tell(out, &json!({"op": "edited", "channel": &*sub.channel, "seq_id": target.0}));
            return true;
        }
        Event::MessagesExpired { targets: seqs } => targets(GoneReason::Expired, seqs),
        Event::MessagesErased { targets: seqs, .. } => targets(GoneReason::Erased, seqs),
        _ => return false,
    };
    for gone in gone {
        tell_gone(sub, gone, out);
    }
    true
}

fn tell_gone(sub: &Subscription, gone: Gone, out: &mut impl FnMut(Write<'_>)) {
    let reason = match gone.reason {
        GoneReason::Expired => "expired",
        GoneReason::Erased => "erased",
        GoneReason::BeforeJoin => "before_join",
    };
    let (from, to) = (gone.from.0, gone.to.0);
    tell(out, &json!({"op": "gone", "channel": &*sub.channel, "from": from, "to": to, "reason": reason}));
}

fn tell(out: &mut impl FnMut(Write<'_>), frame: &serde_json::Value) {
    out(Write::Text(frame.to_string().as_bytes()));
}
