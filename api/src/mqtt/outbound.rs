//! Messages on their way to one client: the window of packet ids, and what of each feed is behind the session.

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroU16;

use feedlog_core::ids::{FeedId, SeqId};

use super::wire::{PacketId, Qos};

/// How far a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FlowState {
    /// PUBLISH was sent.
    Sent,
    /// QoS 2: PUBREC came, PUBREL was sent or is about to be.
    Released,
    /// The client has it. Kept while the session's stored place does not cover it.
    Done,
}

/// In which form an entry goes to the client; the numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Form {
    /// The payload on the topic that is the feed's name.
    Free = 0,
    /// `feeds/<feed_id>`.
    Feed = 1,
    /// mqant's push.
    Impush = 2,
    /// A protobuf body.
    Protobuf = 3,
}

impl Form {
    pub(crate) const ALL: [Self; 4] = [Self::Free, Self::Feed, Self::Impush, Self::Protobuf];
}

/// One message with a packet id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) id: PacketId,
    pub(crate) feed: FeedId,
    pub(crate) seq: SeqId,
    pub(crate) form: Form,
    pub(crate) qos: Qos,
    pub(crate) state: FlowState,
    /// Not sent in its turn: it is retained, or came through a shared subscription.
    pub(crate) aside: bool,
}

/// What a PUBREC does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// PUBREL is to follow.
    Release,
    /// The client refused the message: its id is free (`[MQTT-4.3.3-4]`).
    Refused,
    /// There is no such message in that state.
    Unknown,
}

/// Finished flows that are kept for each one that is not, so that one message that is never acknowledged holds up the
/// rest only after that many.
const KEPT_PER_PLACE: usize = 4;

/// Places of feeds that a stored session holds at most; as many as a resume takes.
const POSITIONS_MAX: usize = 65_536;

/// In the place of a commit: the feed is being replayed.
const REPLAYING: u64 = u64::MAX;

/// The window of one session.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    /// In the order of sending.
    flows: VecDeque<Flow>,
    /// Those that are not done.
    open: usize,
    last_id: u16,
    /// Newest place handed on of feeds whose stored place may be older, with the newest commit of that moment.
    ahead: HashMap<FeedId, (SeqId, u64)>,
    /// Flows of an earlier connection, until their entries were passed again, or everything was that was there when they
    /// were restored: up to this commit.
    restored: HashSet<PacketId>,
    restored_at: u64,
}

impl Outbound {
    /// The window of a stored session. `commit_no` is the newest commit now: the positions are older.
    pub(crate) fn restore(
        flows: Vec<Flow>,
        last_id: u16,
        positions: &[(FeedId, SeqId)],
        commit_no: u64,
    ) -> Self {
        let open = flows.iter().filter(|flow| flow.state != FlowState::Done).count();
        // As far as the stored place is from now, all of it may come again: what has not moved since says nothing.
        let after = commit_no + 1;
        let ahead = positions.iter().map(|(feed, seq)| (feed.clone(), (*seq, after))).collect();
        let restored = flows.iter().map(|flow| flow.id).collect();
        Self { flows: flows.into(), open, last_id, ahead, restored, restored_at: after }
    }

    /// Whether one more QoS 1 or 2 message may be sent to a client that takes `window` at a time.
    pub(crate) fn has_room(&self, window: u16) -> bool {
        let window = usize::from(window);
        self.open < window && self.kept() < window.saturating_mul(KEPT_PER_PLACE)
    }

    /// Those that are not done.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Messages that have not arrived.
    pub(crate) fn open_count(&self) -> usize {
        self.open
    }

    /// Flows that take room. Those of an earlier connection do not: what they wait for may be behind what has no room.
    fn kept(&self) -> usize {
        self.flows.len().saturating_sub(self.restored.len())
    }

    /// Whether the window is full only of messages that have arrived, and a stored place would let go of a good part of
    /// them: it should not wait for its time.
    pub(crate) fn wants_place(&self, window: u16) -> bool {
        let window = usize::from(window);
        if self.open >= window || self.kept() < window.saturating_mul(KEPT_PER_PLACE) {
            return false;
        }
        (self.flows.len() - self.needed(0).count()) * 4 >= self.kept()
    }

    /// Flows that a session stores with the place `settled`: those that are not done, and those that the place does not
    /// cover, because it is before one that is not done, or because it was not passed again since they were restored.
    pub(crate) fn needed(&self, settled: u64) -> impl Iterator<Item = &Flow> {
        // The stored place of a feed is before its first message that has not arrived: whatever came after that comes again.
        let mut first: HashMap<&FeedId, SeqId> = HashMap::new();
        for flow in self.flows.iter().filter(|flow| flow.state != FlowState::Done && !flow.aside) {
            let place = first.entry(&flow.feed).or_insert(flow.seq);
            *place = flow.seq.min(*place);
        }
        self.flows.iter().filter(move |flow| {
            flow.state != FlowState::Done
                || first.get(&flow.feed).is_some_and(|place| flow.seq >= *place)
                || self.is_to_come(flow, settled)
        })
    }

    /// Whether the entry of an earlier connection's flow may yet be delivered again.
    fn is_to_come(&self, flow: &Flow, settled: u64) -> bool {
        !flow.aside
            && settled < self.restored_at
            && self.restored.contains(&flow.id)
            && !self.covers(&flow.feed, flow.seq)
    }

    pub(crate) fn last_id(&self) -> u16 {
        self.last_id
    }

    /// Flows in the order of sending.
    pub(crate) fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.flows.iter()
    }

    /// Whether this entry is on its way or has just arrived.
    pub(crate) fn holds(&self, feed: &FeedId, seq: SeqId, form: Form) -> bool {
        self.flows.iter().any(|flow| flow.seq == seq && flow.form == form && flow.feed == *feed)
    }

    /// Whether this entry was sent aside and has not arrived.
    pub(crate) fn is_open(&self, feed: &FeedId, seq: SeqId) -> bool {
        let open = |flow: &&Flow| flow.aside && flow.state != FlowState::Done;
        self.flows.iter().filter(open).any(|flow| flow.seq == seq && flow.feed == *feed)
    }

    /// Whether this entry was sent aside at QoS 1 and has not arrived, so that somebody else may get it.
    pub(crate) fn may_be_doubled(&self, feed: &FeedId, seq: SeqId) -> bool {
        let open = |flow: &&Flow| flow.aside && flow.state == FlowState::Sent && flow.qos == Qos::AtLeastOnce;
        self.flows.iter().filter(open).any(|flow| flow.seq == seq && flow.feed == *feed)
    }

    /// Whether everything of the feed up to this place was handed on.
    fn covers(&self, feed: &FeedId, seq: SeqId) -> bool {
        self.ahead.get(feed).is_some_and(|(newest, _)| *newest >= seq)
    }

    /// Gives a message an id. [`Outbound::has_room`] was asked before.
    pub(crate) fn start(&mut self, feed: &FeedId, seq: SeqId, form: Form, qos: Qos, aside: bool) -> PacketId {
        let id = self.free_id();
        self.last_id = id.get();
        self.open += 1;
        let feed = feed.clone();
        self.flows.push_back(Flow { id, feed, seq, form, qos, state: FlowState::Sent, aside });
        id
    }

    /// Ids go round, so that one that was just freed is used again as late as possible.
    fn free_id(&self) -> PacketId {
        let mut id = self.last_id;
        loop {
            id = id.checked_add(1).unwrap_or(1);
            if let Some(free) = NonZeroU16::new(id)
                && !self.flows.iter().any(|flow| flow.id == free)
            {
                return free;
            }
        }
    }

    /// An entry was handed on, with or without an id, while `commit_no` was the newest commit.
    pub(crate) fn handed_on(&mut self, feed: &FeedId, seq: SeqId, commit_no: u64) {
        match self.ahead.get_mut(feed) {
            Some((place, tag)) if *tag == REPLAYING => *place = seq,
            Some(place) => *place = (seq.max(place.0), commit_no.max(place.1)),
            None => drop(self.ahead.insert(feed.clone(), (seq, commit_no))),
        }
    }

    /// A feed is replayed from an older place, which no commit stands for: it is kept until [`Outbound::caught_up`].
    pub(crate) fn replay_from(&mut self, feed: &FeedId, seq: SeqId) {
        self.ahead.insert(feed.clone(), (seq, REPLAYING));
    }

    /// The replay has come to the head.
    pub(crate) fn caught_up(&mut self, feed: &FeedId, commit_no: u64) {
        if let Some((_, tag)) = self.ahead.get_mut(feed)
            && *tag == REPLAYING
        {
            *tag = commit_no;
        }
    }

    /// PUBACK. The flow that it ends, `None` when there is none.
    pub(crate) fn puback(&mut self, id: PacketId) -> Option<Flow> {
        let flow = self.flows.iter_mut().find(|flow| flow.id == id)?;
        if flow.qos != Qos::AtLeastOnce || flow.state != FlowState::Sent {
            return None;
        }
        flow.state = FlowState::Done;
        self.open -= 1;
        Some(flow.clone())
    }

    /// PUBREC.
    pub(crate) fn pubrec(&mut self, id: PacketId, refused: bool) -> (Received, Option<Flow>) {
        let Some(flow) = self.flows.iter_mut().find(|flow| flow.id == id) else {
            return (Received::Unknown, None);
        };
        match (flow.qos, flow.state, refused) {
            (Qos::ExactlyOnce, FlowState::Sent, true) => {
                flow.state = FlowState::Done;
                self.open -= 1;
                (Received::Refused, Some(flow.clone()))
            }
            (Qos::ExactlyOnce, FlowState::Sent, false) => {
                flow.state = FlowState::Released;
                (Received::Release, Some(flow.clone()))
            }
            (Qos::ExactlyOnce, FlowState::Released, false) => (Received::Release, None),
            _ => (Received::Unknown, None),
        }
    }

    /// PUBCOMP. The flow that it ends.
    pub(crate) fn pubcomp(&mut self, id: PacketId) -> Option<Flow> {
        let flow = self.flows.iter_mut().find(|flow| flow.id == id)?;
        if flow.state != FlowState::Released {
            return None;
        }
        flow.state = FlowState::Done;
        self.open -= 1;
        Some(flow.clone())
    }

    /// Forgets a flow whose entry cannot be sent again: it is gone.
    pub(crate) fn give_up(&mut self, id: PacketId) -> Option<Flow> {
        let flow = self.flows.iter_mut().find(|flow| flow.id == id)?;
        if flow.state != FlowState::Done {
            flow.state = FlowState::Done;
            self.open -= 1;
        }
        Some(flow.clone())
    }

    /// Where to resume each feed that the place `settled` does not cover: all before was handed on and has arrived.
    pub(crate) fn positions(&self, settled: u64) -> Vec<(FeedId, SeqId)> {
        let mut positions: HashMap<&FeedId, SeqId> = self
            .ahead
            .iter()
            .filter(|(_, (_, commit_no))| *commit_no > settled)
            .map(|(feed, (seq, _))| (feed, *seq))
            .collect();
        for flow in self.flows.iter().filter(|flow| flow.state != FlowState::Done && !flow.aside) {
            let before = flow.seq.prev();
            let place = positions.entry(&flow.feed).or_insert(before);
            *place = before.min(*place);
        }
        let mut positions: Vec<_> = positions.into_iter().map(|(feed, seq)| (feed.clone(), seq)).collect();
        if positions.len() > POSITIONS_MAX {
            // Those that are left out come again from the commit: at least once. Never those of the window.
            let open = |feed: &FeedId| {
                self.flows
                    .iter()
                    .any(|flow| flow.state != FlowState::Done && !flow.aside && flow.feed == *feed)
            };
            positions.sort_by_cached_key(|(feed, _)| !open(feed));
            positions.truncate(POSITIONS_MAX);
        }
        positions.sort_unstable();
        positions
    }

    /// Drops what no stored place needs any more. With `settled`, the place that is stored; without, nothing is stored.
    pub(crate) fn forget(&mut self, settled: Option<u64>) {
        let needed: HashSet<PacketId> = match settled {
            Some(settled) => self.needed(settled).map(|flow| flow.id).collect(),
            None => {
                self.flows.iter().filter(|flow| flow.state != FlowState::Done).map(|flow| flow.id).collect()
            }
        };
        self.flows.retain(|flow| needed.contains(&flow.id));
        self.restored.retain(|id| needed.contains(id));
        if let Some(settled) = settled {
            self.ahead.retain(|_, (_, commit_no)| *commit_no > settled);
            if settled >= self.restored_at {
                self.restored = HashSet::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(name: &str) -> FeedId {
        FeedId::parse(name).unwrap()
    }

    fn id(number: u16) -> PacketId {
        NonZeroU16::new(number).unwrap()
    }

    #[test]
    fn a_window_has_as_many_places_as_it_says() {
        let mut out = Outbound::default();
        for seq in 1..=3 {
            assert!(out.has_room(3));
            out.start(&feed("a"), SeqId(seq), Form::Free, Qos::AtLeastOnce, false);
        }
        assert!(!out.has_room(3));
        assert!(out.puback(id(2)).is_some(), "out of order is legal");
        assert!(out.has_room(3));
        assert_eq!(out.puback(id(2)), None, "twice is not");
        assert_eq!(out.puback(id(9)), None);
    }

    #[test]
    fn ids_go_round_and_skip_those_in_use() {
        let mut out = Outbound { last_id: u16::MAX - 1, ..Outbound::default() };
        assert_eq!(out.start(&feed("a"), SeqId(1), Form::Free, Qos::AtLeastOnce, false).get(), u16::MAX);
        assert_eq!(out.start(&feed("a"), SeqId(2), Form::Free, Qos::AtLeastOnce, false).get(), 1);
        out.last_id = u16::MAX - 1;
        assert_eq!(out.start(&feed("a"), SeqId(3), Form::Free, Qos::AtLeastOnce, false).get(), 2);
    }

    #[test]
    fn exactly_once_goes_through_its_steps() {
        let mut out = Outbound::default();
        let one = out.start(&feed("a"), SeqId(1), Form::Free, Qos::ExactlyOnce, false);
        assert_eq!(out.puback(one), None, "PUBACK is not for QoS 2");
        assert_eq!(out.pubcomp(one), None, "PUBCOMP before PUBREC");
        assert_eq!(out.pubrec(one, false).0, Received::Release);
        assert_eq!(out.pubrec(one, false), (Received::Release, None), "repeated");
        assert!(out.pubcomp(one).is_some());
        assert_eq!(out.pubrec(one, false).0, Received::Unknown);
        let two = out.start(&feed("a"), SeqId(2), Form::Free, Qos::ExactlyOnce, false);
        assert_eq!(out.pubrec(two, true).0, Received::Refused);
        assert_eq!(out.pubcomp(two), None);
    }

    #[test]
    fn a_place_is_before_what_has_not_arrived() {
        let mut out = Outbound::default();
        for seq in 1..=4 {
            out.start(&feed("a"), SeqId(seq), Form::Free, Qos::AtLeastOnce, false);
            out.handed_on(&feed("a"), SeqId(seq), seq);
        }
        out.start(&feed("b"), SeqId(9), Form::Free, Qos::AtLeastOnce, true);
        out.handed_on(&feed("c"), SeqId(7), 4);
        assert_eq!(out.positions(0), [(feed("a"), SeqId(0)), (feed("c"), SeqId(7))]);
        out.puback(id(1));
        out.puback(id(3));
        assert_eq!(
            out.positions(4),
            [(feed("a"), SeqId(1))],
            "2 has not arrived; c is covered by the commit"
        );
        out.forget(Some(4));
        assert!(out.holds(&feed("a"), SeqId(3), Form::Free), "3 has, after 2: it must not be sent again");
        assert!(!out.holds(&feed("a"), SeqId(1), Form::Free));
        out.puback(id(2));
        out.puback(id(4));
        out.puback(id(5));
        out.forget(Some(4));
        assert!(out.is_empty());
        assert_eq!(out.positions(4), []);
    }

    #[test]
    fn a_replay_keeps_its_place_until_it_has_caught_up() {
        let mut out = Outbound::default();
        out.handed_on(&feed("a"), SeqId(9), 4);
        out.replay_from(&feed("a"), SeqId(2));
        assert_eq!(out.positions(100), [(feed("a"), SeqId(2))]);
        out.handed_on(&feed("a"), SeqId(3), 5);
        out.forget(Some(100));
        assert_eq!(out.positions(100), [(feed("a"), SeqId(3))]);
        out.caught_up(&feed("a"), 5);
        assert_eq!(out.positions(5), []);
    }

    #[test]
    fn one_message_that_never_arrives_holds_up_the_rest_at_last() {
        let mut out = Outbound::default();
        out.start(&feed("a"), SeqId(1), Form::Free, Qos::AtLeastOnce, false);
        let mut sent = 1;
        while out.has_room(2) {
            sent += 1;
            let id = out.start(&feed("a"), SeqId(sent), Form::Free, Qos::AtLeastOnce, false);
            out.puback(id);
            out.forget(Some(0));
        }
        assert_eq!(sent, 8);
    }

    #[test]
    fn what_arrived_before_a_crash_is_known_until_it_was_passed_again() {
        let flow = |number: u16, state| Flow {
            id: id(number),
            feed: feed("a"),
            seq: SeqId(u64::from(number)),
            form: Form::Free,
            qos: Qos::ExactlyOnce,
            state,
            aside: false,
        };
        // The stored place is commit 0: all of it comes again.
        let flows = (1..=4).map(|number| flow(number, FlowState::Released)).collect();
        let mut out = Outbound::restore(flows, 4, &[], 4);
        assert!((1..=4).all(|number| out.pubcomp(id(number)).is_some()));
        out.forget(Some(0));
        assert!((1..=4).all(|seq| out.holds(&feed("a"), SeqId(seq), Form::Free)));
        assert_eq!(out.needed(0).count(), 4, "and they are stored, for the next crash");
        out.handed_on(&feed("a"), SeqId(3), 4);
        out.forget(Some(0));
        assert!(!out.holds(&feed("a"), SeqId(3), Form::Free));
        assert!(out.holds(&feed("a"), SeqId(4), Form::Free));
        assert_eq!(out.positions(0), [(feed("a"), SeqId(3))]);
        out.forget(Some(5));
        assert!(out.is_empty(), "everything that was there then was passed");
        assert_eq!(out.positions(5), []);
    }

    #[test]
    fn what_arrived_before_a_crash_takes_no_room() {
        let flows = (1..=8).map(|number| Flow {
            id: id(number),
            feed: feed("a"),
            seq: SeqId(u64::from(number)),
            form: Form::Free,
            qos: Qos::ExactlyOnce,
            state: FlowState::Done,
            aside: false,
        });
        let mut out = Outbound::restore(flows.collect(), 8, &[], 20);
        for seq in 1..=8 {
            assert!(out.has_room(2));
            assert!(!out.wants_place(2));
            let id = out.start(&feed("b"), SeqId(seq), Form::Free, Qos::AtLeastOnce, false);
            out.handed_on(&feed("b"), SeqId(seq), 20);
            out.puback(id);
        }
        assert!(!out.has_room(2));
        assert!(out.wants_place(2));
        out.forget(Some(0));
        assert!(out.has_room(2));
        assert!((1..=8).all(|seq| out.holds(&feed("a"), SeqId(seq), Form::Free)));
    }
}
