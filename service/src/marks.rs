//! Received marks of one user in one feed are written at most once in a while; in between they merge.
//!
//! A move that is merged is answered when the merged entry is durable. Read marks are never held back.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use feedlog_core::command::{Action, Command, Principal};
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::read::Reader;

use crate::clock::Moment;
use crate::mailbox::{Reply, Token};

/// Moves that may be held at once by one shard; beyond them moves are written at once.
const HELD_MAX: usize = 65_536;

/// What becomes of a command.
pub(crate) enum Taken {
    /// It waits for its merged entry.
    Held,
    /// Submit this.
    Submit(Command, Token),
}

/// Merges received marks.
pub(crate) struct Coalescer {
    every: Duration,
    // By personal feed and the feed that the marks are about. No reply: written lately, nothing is held.
    places: HashMap<(FeedId, FeedId), Held>,
    // Every place once, soonest first: all wait equally long.
    due: VecDeque<(Moment, (FeedId, FeedId))>,
    held: usize,
}

struct Held {
    principal: Arc<Principal>,
    received: SeqId,
    replies: Vec<Reply>,
}

impl Coalescer {
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, places: HashMap::new(), due: VecDeque::new(), held: 0 }
    }

    /// Holds a received move back, or says what to submit now.
    pub(crate) fn take(
        &mut self,
        principal: &Arc<Principal>,
        mut command: Command,
        mut reply: Reply,
        reader: &dyn Reader,
    ) -> Taken {
        let Action::MoveMarks { feed, read, received, unread_from: None } = &mut command.action else {
            return Taken::Submit(command, Token::of(reply));
        };
        // Only the owner's own moves merge, so that one decision holds for all of them.
        if self.every.is_zero() || !owns(principal, &command.feed) {
            return Taken::Submit(command, Token::of(reply));
        }
        let key = (command.feed.clone(), feed.clone());
        // A move that would be refused must not take others with it.
        let newest = (*read).max(*received).unwrap_or(SeqId::ZERO);
        let sound = reader.head(feed).is_ok_and(|head| newest <= head.seq);
        let room = self.held < HELD_MAX && self.due.len() < HELD_MAX;
        match (self.places.get_mut(&key), read.is_some()) {
            (Some(place), true) if sound && !place.replies.is_empty() => {
                *received = Some(place.received.max(received.unwrap_or(SeqId::ZERO)));
                let merged = std::mem::take(&mut place.replies);
                self.held -= merged.len();
                Taken::Submit(command, Token { reply: Some(reply), merged })
            }
            (Some(place), false) if sound && room => {
                let received = received.unwrap_or(SeqId::ZERO);
                place.received =
                    if place.replies.is_empty() { received } else { place.received.max(received) };
                place.principal = principal.clone();
                reply.release();
                place.replies.push(reply);
                self.held += 1;
                Taken::Held
            }
            (None, false) if sound && room => {
                let place = Held { principal: principal.clone(), received: SeqId::ZERO, replies: Vec::new() };
                self.due.push_back((Moment::now(), key.clone()));
                self.places.insert(key, place);
                Taken::Submit(command, Token::of(reply))
            }
            _ => Taken::Submit(command, Token::of(reply)),
        }
    }

    /// How long until something is due, `None` when nothing will be.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.due.front().map(|(since, _)| since.left(self.every))
    }

    /// What is to be written now; with `all`, also what is not due yet.
    pub(crate) fn due(&mut self, all: bool) -> Vec<(Arc<Principal>, Command, Token)> {
        let mut out = Vec::new();
        while self.due.front().is_some_and(|(since, _)| all || since.left(self.every).is_zero()) {
            let Some((_, key)) = self.due.pop_front() else { break };
            let Some(place) = self.places.get_mut(&key) else { continue };
            if place.replies.is_empty() {
                self.places.remove(&key);
                continue;
            }
            let merged = std::mem::take(&mut place.replies);
            self.held -= merged.len();
            let (personal, feed) = key.clone();
            let received = Some(place.received);
            out.push((
                place.principal.clone(),
                Command {
                    feed: personal,
                    action: Action::MoveMarks { feed, read: None, received, unread_from: None },
                },
                Token { reply: None, merged },
            ));
            if all {
                self.places.remove(&key);
            } else {
                self.due.push_back((Moment::now(), key));
            }
        }
        out
    }
}

fn owns(principal: &Principal, personal: &FeedId) -> bool {
    principal.scopes.user
        && !principal.anonymous
        && personal.as_str().strip_prefix(feedlog_core::ids::PERSONAL_PREFIX) == Some(principal.uid.as_str())
}
