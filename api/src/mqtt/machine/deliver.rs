//! Entries on their way to the client: which of its subscriptions mean them, in which form and at which QoS, and the QoS 1 and
//! 2 exchange of that direction.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use feedlog_core::entry::Entry;
use feedlog_core::event::Event;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::pattern::Pattern;
use feedlog_service::views::View;

use super::super::carried::Carried;
use super::super::feeds;
use super::super::outbound::{Flow, FlowState, Form, Received};
use super::super::session::{Session, Subscription};
use super::super::space::{Wanted, feed_topic};
use super::super::stored;
use super::super::wire::{Ack, Level, PropertyWriter, Publish, Qos, Text, encode, reason};
use super::{Machine, Open};

/// An entry that was delivered to the session.
pub(crate) struct Outgoing {
    pub(crate) view: Arc<View>,
    /// The feed is an open one and was found by a pattern.
    pub(crate) free: bool,
    /// The newest commit now.
    pub(crate) commit_no: u64,
    /// Topic and body where mqant's or the protobuf form is wanted.
    pub(crate) pushes: Vec<(Form, Text, Bytes)>,
}

/// A search for retained messages, page by page.
#[derive(Debug, Clone)]
pub(crate) struct Retained {
    /// The number of the subscription.
    pub(crate) number: u32,
    /// Everything that can match begins like this.
    pub(crate) prefix: String,
    /// The one topic, or what they must match.
    pub(crate) pattern: Option<Arc<Pattern>>,
    /// The last topic that was looked at.
    pub(crate) after: Option<String>,
    /// Found and not sent yet: the topic and its message.
    pub(crate) found: VecDeque<(String, Arc<View>)>,
    /// The last page was read.
    pub(crate) finished: bool,
}

/// Entries that are remembered while retained messages are looked for; beyond, one may come twice.
const HANDED_MAX: usize = 4096;

/// One PUBLISH that waits for room.
pub(super) struct Waiting {
    view: Arc<View>,
    form: Form,
    qos: Qos,
    retain: bool,
    identifiers: Vec<u32>,
    raw: bool,
    push: Option<(Text, Bytes)>,
    /// Not in its turn: retained, or through a shared subscription.
    aside: bool,
    /// The number of that shared subscription.
    shared: Option<u32>,
    /// The newest commit when it was delivered; the entry is handed on with its last form.
    commit_no: Option<u64>,
}

impl Waiting {
    /// The place of an entry that came in its turn.
    pub(super) fn place(&self) -> Option<(&FeedId, SeqId)> {
        (!self.aside).then_some((&self.view.entry.feed, self.view.entry.seq))
    }
}

/// What the subscriptions of a session want of one entry, in one form.
struct Want {
    qos: Qos,
    retain: bool,
    identifiers: Vec<u32>,
    raw: bool,
}

impl Want {
    /// Of overlapping subscriptions: once, at the highest QoS, with every identifier (`[MQTT-3.3.5-1]`, MQTT5
    /// `[MQTT-3.3.4-2]` and `[MQTT-3.3.4-3]`).
    fn of<'a>(
        meant: impl Iterator<Item = &'a Subscription>,
        published: Qos,
        carried: Option<&Carried>,
    ) -> Option<Self> {
        let mut want: Option<Self> = None;
        for subscription in meant {
            let want = want.get_or_insert(Self {
                qos: Qos::AtMostOnce,
                retain: false,
                identifiers: Vec::new(),
                raw: false,
            });
            want.qos = want.qos.max(subscription.qos.min(published));
            // [MQTT-3.3.1-9], MQTT5 [MQTT-3.3.1-12] and [MQTT-3.3.1-13].
            want.retain |= subscription.retain_as_published && carried.is_some_and(|carried| carried.retain);
            want.identifiers.extend(subscription.identifier);
            want.raw |= subscription.raw;
        }
        want
    }
}

/// Whether an entry is something that a topic's subscribers get: a message that is still there, or a raw frame.
fn is_publication(view: &View) -> bool {
    let shown = view.entry.payload.bytes().is_some();
    shown && matches!(view.entry.event, Event::MessageSent(_) | Event::Broadcast { .. })
}

fn carried_of(entry: &Entry) -> Option<Carried> {
    entry.message().and_then(|message| message.carried.bytes()).and_then(Carried::decode)
}

impl Machine {
    /// Whether another delivery may come.
    pub(crate) fn wants_delivery(&self) -> bool {
        self.ending.is_none()
            && self.out.len() + self.held.len() < self.config.out_bytes_max
            && self.open.as_ref().is_some_and(|open| open.backlog.is_empty())
    }

    /// Whether the session wants any ready-made form.
    pub(crate) fn wants_pushes(&self) -> bool {
        self.session().is_some_and(|session| session.impush || session.protobuf)
    }

    /// Which ready-made forms the session wants of an entry.
    pub(crate) fn wants_push(&self, form: Form) -> bool {
        self.session().is_some_and(|session| match form {
            Form::Impush => session.impush,
            Form::Protobuf => session.protobuf,
            Form::Free | Form::Feed => false,
        })
    }

    /// An entry of something that is followed.
    pub(crate) fn deliver(&mut self, outgoing: Outgoing) {
        let Some(open) = &mut self.open else { return };
        let Outgoing { view, free, commit_no, pushes } = outgoing;
        open.moved = true;
        let carried = carried_of(&view.entry);
        let mut forms = Vec::with_capacity(1);
        if free && is_publication(&view) {
            let published = carried.as_ref().map_or(Qos::ExactlyOnce, |carried| carried.qos);
            forms.extend(
                open.session
                    .want_free(&view, published, carried.as_ref())
                    .map(|want| (Form::Free, want, None)),
            );
        }
        let published = Qos::ExactlyOnce;
        let feed = open.session.subscriptions.values().filter(|one| one.is_feed_match(&view.entry.feed));
        let own = carried.as_ref().is_some_and(|carried| carried.origin == open.session.origin);
        let feed = feed.filter(|one| !(one.no_local && own));
        forms.extend(Want::of(feed, published, carried.as_ref()).map(|want| (Form::Feed, want, None)));
        for (form, topic, body) in pushes.into_iter().filter(|_| !own) {
            // The copy on the topic that the client chose is a convenience: one of the two is enough to be sure of.
            let copy = forms.iter().any(|(of, _, _)| *of == form);
            let sure = open.session.is_persistent() && !copy;
            let qos = if sure { Qos::AtLeastOnce } else { Qos::AtMostOnce };
            let want = Want { qos, retain: false, identifiers: Vec::new(), raw: false };
            forms.push((form, want, Some((topic, body))));
        }
        // What is in the window already is on its way, or has arrived.
        let (feed, seq) = (&view.entry.feed, view.entry.seq);
        forms.retain(|(form, _, _)| !open.session.outbound.holds(feed, seq, *form));
        let last = forms.len();
        if last == 0 {
            open.session.handed_on(feed, seq, commit_no);
            return;
        }
        if !open.retained.is_empty() && open.handed.len() < HANDED_MAX {
            open.handed.insert((feed.clone(), seq));
        }
        for (index, (form, want, push)) in forms.into_iter().enumerate() {
            open.backlog.push_back(Waiting {
                view: view.clone(),
                form,
                qos: want.qos,
                retain: want.retain,
                identifiers: want.identifiers,
                raw: want.raw,
                push,
                aside: false,
                shared: None,
                commit_no: (index + 1 == last).then_some(commit_no),
            });
        }
        self.pump();
    }

    /// A message of a shared subscription.
    pub(crate) fn deliver_shared(&mut self, view: Arc<View>, number: u32) {
        let Some(open) = &mut self.open else { return };
        let Some(subscription) = open.session.subscriptions.values().find(|one| one.number == number) else {
            return;
        };
        let carried = carried_of(&view.entry);
        let published = carried.as_ref().map_or(Qos::ExactlyOnce, |carried| carried.qos);
        open.backlog.push_back(Waiting {
            form: Form::Free,
            qos: subscription.qos.min(published),
            retain: subscription.retain_as_published && carried.is_some_and(|carried| carried.retain),
            identifiers: subscription.identifier.into_iter().collect(),
            raw: false,
            view,
            push: None,
            aside: true,
            shared: Some(number),
            commit_no: None,
        });
        self.pump();
    }

    /// Takes back what came through a shared subscription and was not sent.
    pub(crate) fn unsent_shared(&mut self, number: u32) -> Vec<(FeedId, SeqId)> {
        let Some(open) = &mut self.open else { return Vec::new() };
        let mut unsent = Vec::new();
        open.backlog.retain(|waiting| {
            let ours = waiting.shared == Some(number);
            if ours {
                unsent.push((waiting.view.entry.feed.clone(), waiting.view.entry.seq));
            }
            !ours
        });
        unsent
    }

    /// Sends what waits and has room.
    pub(super) fn pump(&mut self) {
        if self.ending.is_none() && self.open.as_ref().is_some_and(|open| !open.unsent.is_empty()) {
            self.effects.push_back(super::Effect::Resend);
        }
        while self.ending.is_none()
            && let Some(open) = &mut self.open
            && let Some(next) = open.backlog.front()
            && (next.qos == Qos::AtMostOnce || open.session.outbound.has_room(open.window))
            && let Some(next) = open.backlog.pop_front()
        {
            self.send(next);
        }
    }

    fn send(&mut self, waiting: Waiting) {
        let Some(open) = &mut self.open else { return };
        open.moved = true;
        let (feed, seq) = (waiting.view.entry.feed.clone(), waiting.view.entry.seq);
        if let Some(publish) = open.frame(&waiting, self.level, self.now_ms) {
            let id = (waiting.qos != Qos::AtMostOnce)
                .then(|| open.session.outbound.start(&feed, seq, waiting.form, waiting.qos, waiting.aside));
            if let (Some(id), Qos::ExactlyOnce, true) = (id, waiting.qos, open.session.is_persistent()) {
                // So that the same id is used again after a crash: another one would make it another message.
                let flow = open.session.outbound.flows().find(|flow| flow.id == id);
                let value = flow.map(stored::encode_flow);
                self.rows.push((open.session.key.sent_id(id), value));
            }
            let publish = Publish { packet_id: id, ..publish };
            // Behind what is held, so that the order stays.
            let held = !self.rows.is_empty() || !self.held.is_empty();
            encode::publish(self.level, &publish, if held { &mut self.held } else { &mut self.out });
            metrics::counter!("feedlog_mqtt_deliveries_total").increment(1);
        }
        if let Some(commit_no) = waiting.commit_no {
            open.session.handed_on(&feed, seq, commit_no);
        }
    }

    /// The next message of the window that is to be sent again. One that takes fewer at a time than before gets the rest
    /// when it has acknowledged some (MQTT5 `[MQTT-3.3.4-9]`); PUBREL never waits for that (`[MQTT-3.3.4-10]`).
    pub(crate) fn next_resend(&mut self) -> Option<Flow> {
        let open = self.open.as_mut()?;
        let outbound = &open.session.outbound;
        let find = |id| outbound.flows().find(|flow| flow.id == id && flow.state != FlowState::Done);
        open.unsent.retain(|id| find(*id).is_some());
        let has_room = outbound.open().saturating_sub(open.unsent.len()) < usize::from(open.window);
        let next = open
            .unsent
            .iter()
            .position(|id| has_room || find(*id).is_some_and(|flow| flow.state == FlowState::Released))?;
        let id = open.unsent.remove(next)?;
        find(id).cloned()
    }

    /// A message of the window after a reconnect: again with the same id and DUP (`[MQTT-4.4.0-1]`), PUBREL where PUBREC
    /// had come. Without an entry to send it is given up.
    pub(crate) fn resend(&mut self, flow: &Flow, view: Option<Arc<View>>, push: Option<(Text, Bytes)>) {
        let Some(open) = &mut self.open else { return };
        if flow.state == FlowState::Released {
            return encode::pubrel(self.level, flow.id, reason::SUCCESS, &[], &mut self.out);
        }
        let publish = view.filter(|view| is_publication(view) || flow.form == Form::Feed).and_then(|view| {
            let carried = carried_of(&view.entry);
            let raw = open.session.subscriptions.values().any(|one| one.raw && one.is_feed_match(&flow.feed));
            let meant = open.session.subscriptions.values().filter(|one| match flow.form {
                Form::Free => one.is_free_match(flow.feed.as_str()),
                Form::Feed => one.is_feed_match(&flow.feed),
                Form::Impush | Form::Protobuf => false,
            });
            let want = Want::of(meant, flow.qos, carried.as_ref());
            // Nobody means it alone: it came through a group.
            let shared = flow.aside && want.is_none();
            let waiting = Waiting {
                view,
                form: flow.form,
                qos: flow.qos,
                retain: flow.aside && !shared || want.as_ref().is_some_and(|want| want.retain),
                identifiers: want.map(|want| want.identifiers).unwrap_or_default(),
                raw,
                push,
                aside: flow.aside,
                shared: None,
                commit_no: None,
            };
            open.frame(&waiting, self.level, self.now_ms)
        });
        match publish {
            // [MQTT-3.3.1-1].
            Some(publish) => {
                encode::publish(
                    self.level,
                    &Publish { dup: true, packet_id: Some(flow.id), ..publish },
                    &mut self.out,
                );
            }
            // The client may have it and wait for PUBREL: the exchange is ended, so that the id is free there too.
            None if flow.qos == Qos::ExactlyOnce => {
                if let (Received::Release, Some(flow)) = open.session.outbound.pubrec(flow.id, false)
                    && open.session.is_persistent()
                {
                    let key = open.session.key.sent_id(flow.id);
                    self.rows.push((key, Some(stored::encode_flow(&flow))));
                }
                encode::pubrel(self.level, flow.id, reason::SUCCESS, &[], &mut self.held);
            }
            None => drop(open.session.outbound.give_up(flow.id)),
        }
    }

    /// Sends retained messages that were found, and looks for more, while there is room.
    pub(crate) fn seek_retained(&mut self) {
        while self.wants_delivery()
            && self.effects.is_empty()
            && let Some(open) = &mut self.open
            && let Some(mut search) = open.retained.pop_front()
        {
            let number = search.number;
            let Some(subscription) = open.session.subscriptions.values().find(|one| one.number == number)
            else {
                // Unsubscribed meanwhile.
                continue;
            };
            let Some((_, view)) = search.found.pop_front() else {
                if !search.finished {
                    self.effects.push_back(super::Effect::Retained(search));
                }
                continue;
            };
            let waiting = open.session.retained_for(subscription, view, &open.handed);
            open.retained.push_front(search);
            open.backlog.extend(waiting);
            self.pump();
        }
        if self.effects.is_empty()
            && let Some(open) = &mut self.open
            && open.retained.is_empty()
        {
            open.handed.clear();
        }
    }

    /// A page of retained messages.
    pub(crate) fn retained(&mut self, search: Retained) {
        if let Some(open) = &mut self.open {
            open.retained.push_front(search);
        }
        self.seek_retained();
    }

    /// PUBACK. Out of order is legal; an id that is not in use is answered by nothing (`[MQTT-4.3.2-5]`, MQTT5 §4.3.2).
    pub(super) fn puback(&mut self, ack: &Ack) {
        let Some(open) = &mut self.open else { return };
        if let Some(flow) = open.session.outbound.puback(ack.packet_id) {
            open.arrived(&flow, ack.reason < 0x80);
        }
        self.pump();
    }

    /// PUBREC: PUBREL, once it is durable that it came.
    pub(super) fn pubrec(&mut self, ack: &Ack) {
        let Some(open) = &mut self.open else { return };
        let id = ack.packet_id;
        let (received, flow) = open.session.outbound.pubrec(id, ack.reason >= 0x80);
        match (received, flow) {
            (Received::Release, flow) => match flow.filter(|_| open.session.is_persistent()) {
                Some(flow) => {
                    self.rows.push((open.session.key.sent_id(id), Some(stored::encode_flow(&flow))));
                    encode::pubrel(self.level, id, reason::SUCCESS, &[], &mut self.held);
                }
                None => encode::pubrel(self.level, id, reason::SUCCESS, &[], &mut self.out),
            },
            (Received::Refused, flow) => {
                open.moved = true;
                if flow.is_some() && open.session.is_persistent() {
                    let row =
                        open.session.outbound.flows().find(|flow| flow.id == id).map(stored::encode_flow);
                    self.rows.push((open.session.key.sent_id(id), row));
                }
                self.pump();
            }
            // MQTT5 §4.3.3: an id that is not known is answered, so that the client can end its part.
            (Received::Unknown, _) => {
                if ack.reason < 0x80 {
                    encode::pubrel(self.level, id, reason::PACKET_IDENTIFIER_NOT_FOUND, &[], &mut self.out);
                }
            }
        }
    }

    /// PUBCOMP. Its row stays until the stored place covers the message.
    pub(super) fn pubcomp(&mut self, ack: &Ack) {
        let Some(open) = &mut self.open else { return };
        if let Some(flow) = open.session.outbound.pubcomp(ack.packet_id) {
            open.arrived(&flow, true);
        }
        self.pump();
    }

    /// A feed ended for this user: its subscriptions end with it.
    pub(crate) fn feed_ended(&mut self, feed: &FeedId) {
        let Some(open) = &mut self.open else { return };
        let ended: Vec<_> = open
            .session
            .subscriptions
            .values()
            .filter(|one| matches!(&one.wanted, super::super::space::Wanted::Feed(of, _) if of == feed))
            .map(|one| one.filter.clone())
            .collect();
        for filter in ended {
            open.session.subscriptions.remove(&filter);
            if open.session.is_persistent() {
                self.rows.push((open.session.key.subscription(&filter), None));
            }
        }
    }

    /// A marker of a feed topic: everything up to the head was replayed.
    pub(crate) fn caught_up(&mut self, feed: &FeedId, head: u64) {
        let Some(open) = &self.open else { return };
        let wanted = |one: &Subscription| matches!(&one.wanted, Wanted::Feed(of, Some(_)) if of == feed);
        if !open.session.subscriptions.values().any(wanted) {
            return;
        }
        let body = serde_json::json!({"event": "caught_up", "feed_id": feed.as_str(), "head_seq_id": head});
        let Some(topic) = Text::new(&feed_topic(feed)) else { return };
        let mut properties = PropertyWriter::new();
        properties.user("event", "caught_up");
        let publish = Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic,
            packet_id: None,
            properties: properties.finish(),
            payload: body.to_string().into(),
        };
        let held = !self.rows.is_empty() || !self.held.is_empty();
        encode::publish(self.level, &publish, if held { &mut self.held } else { &mut self.out });
    }

    /// Feeds whose received mark moves, since the last call.
    pub(crate) fn take_received(&mut self) -> Vec<(FeedId, SeqId)> {
        self.open
            .as_mut()
            .map(|open| std::mem::take(&mut open.received).into_iter().collect())
            .unwrap_or_default()
    }
}

impl Session {
    /// `None` when the message is gone, or came as a live one already.
    fn retained_for(
        &self,
        subscription: &Subscription,
        view: Arc<View>,
        handed: &HashSet<(FeedId, SeqId)>,
    ) -> Option<Waiting> {
        let (feed, seq) = (&view.entry.feed, view.entry.seq);
        let form = if subscription.is_free_match(feed.as_str()) { Form::Free } else { Form::Feed };
        if !is_publication(&view) || handed.contains(&(feed.clone(), seq)) {
            return None;
        }
        let published = carried_of(&view.entry).map_or(Qos::ExactlyOnce, |carried| carried.qos);
        Some(Waiting {
            qos: subscription.qos.min(published),
            identifiers: subscription.identifier.into_iter().collect(),
            raw: subscription.raw,
            view,
            form,
            // [MQTT-3.3.1-8].
            retain: true,
            push: None,
            aside: true,
            shared: None,
            commit_no: None,
        })
    }

    fn want_free(&self, view: &View, published: Qos, carried: Option<&Carried>) -> Option<Want> {
        let topic = view.entry.feed.as_str();
        let own = carried.is_some_and(|carried| carried.origin == self.origin);
        // MQTT5 [MQTT-3.8.3-3]: No Local.
        let meant = self
            .subscriptions
            .values()
            .filter(|one| one.is_free_match(topic))
            .filter(|one| !(one.no_local && own));
        Want::of(meant, published, carried)
    }
}

impl Open {
    /// A message has arrived at the client.
    fn arrived(&mut self, flow: &Flow, accepted: bool) {
        self.moved = true;
        if accepted && flow.form != Form::Free {
            let mark = self.received.entry(flow.feed.clone()).or_insert(flow.seq);
            *mark = flow.seq.max(*mark);
        }
        if !self.session.is_persistent() {
            self.session.outbound.forget(None);
        }
    }

    /// The PUBLISH without its id. `None` when it must not be sent: expired, or larger than the client takes (MQTT5
    /// `[MQTT-3.1.2-24]`, `[MQTT-3.1.2-25]`: as if it had been delivered).
    fn frame(&mut self, waiting: &Waiting, level: Level, now_ms: u64) -> Option<Publish> {
        let entry = &waiting.view.entry;
        let message = entry.message();
        let expires_ms = message.and_then(|message| message.expires_ms);
        if expires_ms.is_some_and(|end| end <= now_ms) {
            return None;
        }
        let mut properties = std::mem::take(&mut self.properties);
        properties.clear();
        let (topic, payload) = match (&waiting.push, waiting.form) {
            (Some((topic, body)), _) => (topic.clone(), body.clone()),
            (None, Form::Free) => (Text::new(entry.feed.as_str())?, entry.payload.bytes()?.clone()),
            (None, _) if waiting.raw && entry.payload.bytes().is_some() => {
                (self.topic_of(&entry.feed)?, entry.payload.bytes()?.clone())
            }
            (None, _) => (self.topic_of(&entry.feed)?, feeds::entry_json(&waiting.view)),
        };
        if level == Level::V5 {
            if let Some(end) = expires_ms {
                // MQTT5 [MQTT-3.3.2-6].
                let left = (end - now_ms).div_ceil(1000);
                properties.message_expiry_s(u32::try_from(left).unwrap_or(u32::MAX));
            }
            match waiting.form {
                Form::Free => match carried_of(entry) {
                    // MQTT5 [MQTT-3.3.2-4], [MQTT-3.3.2-15] to [MQTT-3.3.2-20]: as they came, in their order.
                    Some(carried) => {
                        properties.raw(&carried.properties);
                    }
                    // Taken by another front end.
                    None => {
                        if let Some(message) = message {
                            properties.content_type(&message.content_type);
                        }
                    }
                },
                Form::Feed if waiting.raw => {
                    if let Some(message) = message {
                        properties.content_type(&message.content_type);
                    }
                    feeds::envelope(&waiting.view, &mut properties);
                }
                Form::Feed => {
                    properties.payload_format_indicator(1).content_type("application/json");
                }
                Form::Impush | Form::Protobuf => {}
            }
            for identifier in &waiting.identifiers {
                properties.subscription_identifier(*identifier);
            }
        }
        let (qos, retain) = (waiting.qos, waiting.retain);
        let publish = |topic, properties, payload| Publish {
            dup: false,
            qos,
            retain,
            topic,
            packet_id: None,
            properties,
            payload,
        };
        let plain = publish(topic, properties.finish(), payload);
        let bytes = encode::publish_bytes(level, &plain);
        if self.packet_bytes_max.is_some_and(|max| bytes > max) {
            metrics::counter!("feedlog_mqtt_deliveries_too_large_total").increment(1);
            return None;
        }
        Some(self.aliased(plain, bytes, level))
    }

    /// The feed topic of a feed, as the client itself wrote it: clients look for the filter that a topic matches, and a feed has
    /// more than one spelling in percent-encoding.
    fn topic_of(&self, feed: &FeedId) -> Option<Text> {
        let names = |one: &&Subscription| {
            one.group.is_none() && matches!(&one.wanted, Wanted::Feed(of, None) if of == feed)
        };
        match self.session.subscriptions.values().filter(names).min_by_key(|one| one.number) {
            Some(subscription) => Text::new(&subscription.filter),
            None => Text::new(&feed_topic(feed)),
        }
    }

    /// MQTT5 §3.3.2.3.4: the first topics of a connection get an alias, as many as the client takes.
    fn aliased(&mut self, publish: Publish, bytes: usize, level: Level) -> Publish {
        if level != Level::V5 || self.alias_out_max == 0 {
            return publish;
        }
        let known = self.aliases_out.get(publish.topic.as_str()).copied();
        let next = u16::try_from(self.aliases_out.len() + 1).ok().filter(|next| *next <= self.alias_out_max);
        // Three bytes more, and lengths that may grow by one each; for a topic that is longer than its alias.
        let pays = publish.topic.len() > 3 && self.packet_bytes_max.is_none_or(|max| bytes + 5 <= max);
        let Some(alias) = known.or(next.filter(|_| pays)) else { return publish };
        let mut properties = PropertyWriter::new();
        properties.raw(publish.properties.bytes()).topic_alias(alias);
        let properties = properties.finish();
        if known.is_none() {
            self.aliases_out.insert(publish.topic.as_str().into(), alias);
            return Publish { properties, ..publish };
        }
        match Text::new("") {
            Some(topic) => Publish { topic, properties, ..publish },
            None => publish,
        }
    }
}
