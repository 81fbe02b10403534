//! Shared subscriptions (MQTT5 §4.8.2): each message goes to one member of the group.
//!
//! A group with connected members follows its filter once; what comes is given to the members in turn, to those that have
//! room. What a member that leaves has not acknowledged goes to the others, unless its session keeps it. A group that has
//! had a persistent member keeps its place when nobody is connected.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::pattern::Pattern;
use feedlog_service::views::{After, Delivery, Resume, View};
use feedlog_service::{Attachment, Gate, ReadError};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

use super::acl::Access;
use super::broker::{Broker, Handle};
use super::stored::{self, SessionKey};

/// Messages that wait for one member; more stay with the group.
const SEAT_MAX: usize = 16;
/// Messages that come back from members that left; beyond, the group goes back to an earlier place.
const RETURNED_MAX: usize = 65_536;
/// How long a group may take to write its place when it ends.
const END_WAIT: Duration = Duration::from_secs(10);
/// How often the place of a group is written when it moved.
const CHECKPOINT: Duration = Duration::from_secs(1);

/// All groups with connected members.
#[derive(Default)]
pub(crate) struct Groups(Mutex<HashMap<Name, Arc<Group>>>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name {
    group: Arc<str>,
    filter: Arc<str>,
}

impl Name {
    fn key(&self) -> Vec<u8> {
        let mut key = vec![b'g'];
        key.extend_from_slice(self.group.as_bytes());
        key.push(0);
        key.extend_from_slice(self.filter.as_bytes());
        key
    }
}

/// One group.
pub(crate) struct Group {
    name: Name,
    state: Mutex<State>,
    bell: Notify,
    /// Closed when its place is written.
    ended: Semaphore,
}

#[derive(Default)]
struct State {
    seats: Vec<Arc<Seat>>,
    /// Whose turn it is.
    next: usize,
    returned: VecDeque<(FeedId, SeqId)>,
    /// A member was persistent, so the place is kept.
    kept: bool,
    /// Nobody follows any more: whoever comes begins anew.
    over: bool,
}

/// A member of a group while it is connected.
pub(crate) struct Seat {
    pub(crate) group: Arc<Group>,
    /// Of the member's subscription.
    pub(crate) number: u32,
    key: SessionKey,
    handle: Arc<Handle>,
    waiting: Mutex<VecDeque<Arc<View>>>,
}

/// The place of a group without connected members.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct StoredGroup {
    commit_no: u64,
    #[serde(default)]
    returned: Vec<(String, u64)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here panics half way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Groups {
    /// Makes a connection a member. `gate` follows for the group when it is the first.
    pub(crate) async fn join(
        &self,
        broker: &Arc<Broker>,
        gate: &Gate,
        (group, pattern): (&Arc<str>, &Pattern),
        (key, handle): (&SessionKey, &Arc<Handle>),
        number: u32,
        persistent: bool,
    ) -> Result<Arc<Seat>, ReadError> {
        let name = Name { group: group.clone(), filter: pattern.as_str().into() };
        let seat = |group: &Arc<Group>| {
            let (key, handle, waiting) = (key.clone(), handle.clone(), Mutex::default());
            Arc::new(Seat { group: group.clone(), number, key, handle, waiting })
        };
        // One whose last member has just left is writing its place.
        let running = loop {
            let known = lock(&self.0).get(&name).cloned();
            let Some(group) = known else { break None };
            if let Some(seat) = group.admit(persistent, || seat(&group)) {
                break Some(seat);
            }
            // Nobody ever adds a permit: this ends when it is closed.
            if tokio::time::timeout(END_WAIT, group.ended.acquire()).await.is_err() {
                return Err(ReadError::Unavailable("the group is ending"));
            }
        };
        // Read before it is needed, so that nothing is waited for while the groups are held.
        let row = broker.shelf.get(&name.key()).await?;
        let kept = row.is_some();
        let stored = match row {
            Some(bytes) => stored::decode::<StoredGroup>(&bytes).map_err(|_| ReadError::Damaged)?,
            None => StoredGroup { commit_no: broker.store.commit_no(), returned: Vec::new() },
        };
        if persistent && !kept {
            // Before SUBACK: what comes from here on is not lost in a crash.
            let row = (name.key(), Some(stored::encode(&stored)));
            let written = broker.shelf.put(vec![row]).await;
            written.map_err(|_| ReadError::Unavailable("the place of the group could not be written"))?;
        }
        if let Some(seat) = running {
            return Ok(seat);
        }
        let resume = Resume { commit_no: stored.commit_no, positions: Vec::new() };
        let mut attachment = gate.follow(Some(resume)).await?;
        // The group outlives its first member.
        attachment.read_for_others();
        attachment.add_pattern(1, pattern.clone(), After::Commit(stored.commit_no));
        let returned =
            stored.returned.iter().filter_map(|(feed, seq)| Some((FeedId::parse(feed).ok()?, SeqId(*seq))));
        let state = State { returned: returned.collect(), kept, ..State::default() };
        let (bell, ended) = (Notify::new(), Semaphore::new(0));
        let new = Arc::new(Group { name: name.clone(), state: Mutex::new(state), bell, ended });
        let mut groups = lock(&self.0);
        // Another first member may have been quicker.
        if let Some(group) = groups.get(&name).cloned() {
            drop(groups);
            let admitted = group.admit(persistent, || seat(&group));
            return admitted.ok_or(ReadError::Unavailable("the group is ending"));
        }
        let admitted = new.admit(persistent, || seat(&new));
        groups.insert(name, new.clone());
        drop(groups);
        tokio::spawn(run(broker.clone(), new, gate.clone(), attachment));
        admitted.ok_or(ReadError::Unavailable("the group is ending"))
    }

    fn forget(&self, group: &Arc<Group>) {
        let mut groups = lock(&self.0);
        if groups.get(&group.name).is_some_and(|known| Arc::ptr_eq(known, group)) {
            groups.remove(&group.name);
        }
    }
}

impl Seat {
    /// The next message for this member.
    pub(crate) fn take(&self) -> Option<Arc<View>> {
        let next = lock(&self.waiting).pop_front();
        if next.is_some() {
            self.group.bell.notify_one();
        }
        next
    }

    /// A message that this member will not acknowledge any more.
    pub(crate) fn give_back(&self, feed: FeedId, seq: SeqId) {
        let mut state = lock(&self.group.state);
        if state.returned.len() < RETURNED_MAX {
            state.returned.push_back((feed, seq));
        }
        drop(state);
        self.group.bell.notify_one();
    }

    /// Leaves the group; what it had not taken goes to the others, and `unsent` with it.
    pub(crate) fn leave(self: &Arc<Self>, unsent: impl Iterator<Item = (FeedId, SeqId)>) {
        let mut state = lock(&self.group.state);
        state.seats.retain(|seat| !Arc::ptr_eq(seat, self));
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        let left = waiting.into_iter().map(|view| (view.entry.feed.clone(), view.entry.seq));
        let room = RETURNED_MAX.saturating_sub(state.returned.len());
        state.returned.extend(unsent.chain(left).take(room));
        drop(state);
        self.group.bell.notify_one();
    }
}

impl Group {
    /// One more member, unless the group is over. Decided in one step, or whoever comes last would find nobody who follows.
    fn admit(&self, persistent: bool, seat: impl FnOnce() -> Arc<Seat>) -> Option<Arc<Seat>> {
        let mut state = lock(&self.state);
        if state.over {
            return None;
        }
        let seat = seat();
        state.kept |= persistent;
        state.seats.push(seat.clone());
        drop(state);
        self.bell.notify_one();
        Some(seat)
    }

    /// Gives a message to the next member that has room and may have it. `Err` gives it back: nobody can take it now.
    fn offer(&self, broker: &Broker, view: Arc<View>) -> Result<(), Arc<View>> {
        let mut state = lock(&self.state);
        let count = state.seats.len();
        for turn in 0..count {
            let index = (state.next + turn) % count;
            let Some(seat) = state.seats.get(index).cloned() else { continue };
            let mut waiting = lock(&seat.waiting);
            let may =
                broker.config.free_topics && broker.allows(&seat.key, view.entry.feed.as_str(), Access::Read);
            if may && waiting.len() < SEAT_MAX {
                waiting.push_back(view);
                drop(waiting);
                seat.handle.bell.notify_one();
                state.next = (index + 1) % count;
                return Ok(());
            }
        }
        Err(view)
    }

    /// Whether somebody may have it at all.
    fn is_wanted(&self, broker: &Broker, view: &View) -> bool {
        let state = lock(&self.state);
        broker.config.free_topics
            && state.seats.iter().any(|seat| broker.allows(&seat.key, view.entry.feed.as_str(), Access::Read))
    }

    fn take_returned(&self) -> Option<(FeedId, SeqId)> {
        lock(&self.state).returned.pop_front()
    }

    /// Whether nobody is left; then nobody can join any more.
    fn is_over(&self) -> bool {
        let mut state = lock(&self.state);
        state.over |= state.seats.is_empty();
        state.over
    }
}

/// Follows for a group as long as it has members.
async fn run(broker: Arc<Broker>, group: Arc<Group>, gate: Gate, mut attachment: Attachment) {
    let mut held: Option<Arc<View>> = None;
    let mut moved = false;
    let mut checkpoint = tokio::time::interval(CHECKPOINT);
    checkpoint.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !group.is_over() {
        if let Some(view) = held.take()
            && let Err(view) = group.offer(&broker, view)
            && group.is_wanted(&broker, &view)
        {
            held = Some(view);
        }
        if held.is_none()
            && let Some((feed, seq)) = group.take_returned()
        {
            // One that is gone meanwhile is not missed.
            held = gate.entry(&feed, seq).await.ok().map(Arc::new);
            continue;
        }
        tokio::select! {
            delivery = attachment.next(), if held.is_none() => match delivery {
                Some(Delivery::Entry(view)) => {
                    held = Some(view).filter(|view| view.entry.payload.bytes().is_some() && view.entry.is_message());
                    moved = true;
                }
                Some(_) => {}
                // The log could not be read: followed again from the same place, unless the service is closing.
                None => {
                    tokio::time::sleep(CHECKPOINT).await;
                    match again(&gate, &attachment, &group).await {
                        Some(followed) => attachment = followed,
                        None => break,
                    }
                }
            },
            () = group.bell.notified() => {}
            _ = checkpoint.tick(), if moved => {
                moved = false;
                keep(&broker, &group, &attachment, held.as_deref()).await;
            }
        }
    }
    // Whoever joins from here on begins a new group, at the place that is written here.
    lock(&group.state).over = true;
    keep(&broker, &group, &attachment, held.as_deref()).await;
    broker.groups.forget(&group);
    group.ended.close();
}

/// Follows again after what was had.
async fn again(gate: &Gate, old: &Attachment, group: &Group) -> Option<Attachment> {
    let commit_no = old.settled();
    let pattern = Pattern::parse(&group.name.filter)?;
    let mut attachment = gate.follow(Some(Resume { commit_no, positions: Vec::new() })).await.ok()?;
    let _ = attachment.add_pattern(1, pattern, After::Commit(commit_no));
    Some(attachment)
}

/// Writes the place of a group that is kept.
async fn keep(broker: &Broker, group: &Group, attachment: &Attachment, held: Option<&View>) {
    let stored = {
        let state = lock(&group.state);
        if !state.kept {
            return;
        }
        let mut returned: Vec<_> =
            state.returned.iter().map(|(feed, seq)| (feed.as_str().to_owned(), seq.0)).collect();
        for seat in &state.seats {
            let waiting = lock(&seat.waiting);
            returned
                .extend(waiting.iter().map(|view| (view.entry.feed.as_str().to_owned(), view.entry.seq.0)));
        }
        returned.extend(held.map(|view| (view.entry.feed.as_str().to_owned(), view.entry.seq.0)));
        StoredGroup { commit_no: attachment.settled(), returned }
    };
    if let Err(error) = broker.shelf.put(vec![(group.name.key(), Some(stored::encode(&stored)))]).await {
        tracing::warn!(front_end = "mqtt", %error, "the place of a shared subscription was not written");
    }
}
