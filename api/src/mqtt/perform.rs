//! What the machine asks for, done: subscriptions, retained messages, the end; opening is in `opening.rs`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use feedlog_core::event::FeedKind;
use feedlog_core::ids::FeedId;
use feedlog_core::pattern::Pattern;
use feedlog_core::policy::Denied;
use feedlog_service::views::{After, Resume, View};
use feedlog_service::{Attachment, Gate, ReadError};
use futures_util::stream::StreamExt as _;

use super::acl::Access;
use super::connection::{Connection, now};
use super::machine::{Effect, Ending, Granted, Retained, Sought, Unsubscribed};
use super::opening::{follow, follow_all};
use super::outbound::FlowState;
use super::session::Subscription;
use super::space::{self, Target, Wanted};
use super::stored;
use super::wills;
use super::wire::{Level, Subscribe, Unsubscribe, reason};

/// Rows that one look at the shelf takes.
const PAGE: usize = 256;
/// How often, and how long each time, a new subscription looks for what is on its way for older ones.
const CATCH_UP_LOOKS: usize = 20;
const CATCH_UP_WAIT: Duration = Duration::from_millis(1);
/// How long the end of a connection waits for messages that have no answer. Shorter than what a takeover waits.
const SETTLE_WAIT: Duration = Duration::from_secs(5);
/// Payload bytes of retained messages that are held for one client at a time; a single larger one still passes.
const FOUND_BYTES_MAX: usize = 64 * 1024;

impl Connection {
    pub(super) async fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Open(connect) => match self.open(&connect).await {
                Ok(accepted) => {
                    self.machine.opened(&connect, accepted, now());
                    self.set_recheck();
                    if self.machine.session().is_some_and(|session| session.protobuf) {
                        self.unread_changed();
                    }
                }
                Err(refusal) => {
                    metrics::counter!("feedlog_mqtt_connects_refused_total").increment(1);
                    self.machine.refused(refusal);
                }
            },
            Effect::Submit(_) => debug_assert!(false, "INVARIANT: `advance` takes these"),
            Effect::Im(number, topic, payload, rows) => self.im(number, topic, payload, rows).await,
            Effect::Protobuf(number, topic, payload, rows) => {
                self.protobuf(number, topic, payload, rows).await
            }
            Effect::Subscribe(subscribe, sought) => self.subscribe(&subscribe, sought).await,
            Effect::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe),
            Effect::Retained(search) => self.search_retained(search).await,
            Effect::Resend => self.resend().await,
            Effect::Rejoin => self.rejoin().await,
            Effect::FollowMine => self.follow_mine().await,
        }
    }

    async fn subscribe(&mut self, subscribe: &Subscribe, sought: Vec<Sought>) {
        self.catch_up().await;
        let mut granted = Vec::with_capacity(sought.len());
        for one in sought {
            granted.push(match one {
                Sought::Refused(reason) => {
                    if self.level() == Level::V31 {
                        metrics::counter!("feedlog_mqtt_subscriptions_muted_total").increment(1);
                    }
                    Granted::Refused(reason)
                }
                Sought::Wanted(mut subscription, seeks) => {
                    subscription.since = self.broker.store.commit_no();
                    match self.grant(&mut subscription).await {
                        Ok(()) => {
                            // At once: the same filter may stand in this packet again (`[MQTT-3.8.4-5]`).
                            if let Some(session) = self.machine.session_mut() {
                                session
                                    .subscriptions
                                    .insert(subscription.filter.clone(), subscription.clone());
                            }
                            Granted::Followed(subscription, seeks != 0)
                        }
                        Err(_) if self.level() == Level::V31 => {
                            metrics::counter!("feedlog_mqtt_subscriptions_muted_total").increment(1);
                            subscription.muted = true;
                            Granted::Followed(subscription, false)
                        }
                        Err(reason) => Granted::Refused(reason),
                    }
                }
            });
        }
        self.machine.subscribed(subscribe, granted);
    }

    /// What is on its way for older subscriptions is delivered to them: a new one begins with what comes after it (MQTT5
    /// §3.8.4). A client that has no room for it is not waited for, nor commits that take their time.
    async fn catch_up(&mut self) {
        let upto = self.broker.store.commit_no();
        for _ in 0..CATCH_UP_LOOKS {
            if !self.machine.wants_delivery() {
                return;
            }
            let Some(attachment) = self.attachment.as_mut().filter(|attachment| attachment.settled() < upto)
            else {
                return;
            };
            match tokio::time::timeout(CATCH_UP_WAIT, attachment.next()).await {
                Ok(Some(delivery)) => self.deliver(delivery).await,
                // The loop of the connection comes to it.
                Ok(None) => return,
                Err(_) => {}
            }
        }
    }

    async fn grant(&mut self, subscription: &mut Subscription) -> Result<(), u8> {
        let Some(user) = &self.user else { return Err(reason::UNSPECIFIED_ERROR) };
        let gate = user.gate.clone();
        let (principal, filter) = (gate.principal(), subscription.filter.clone());
        let refused = |error: ReadError| match error {
            ReadError::Denied(_) => reason::NOT_AUTHORIZED,
            ReadError::BadField { .. } => reason::QUOTA_EXCEEDED,
            _ => reason::IMPLEMENTATION_SPECIFIC_ERROR,
        };
        match &subscription.wanted {
            Wanted::Invalid => return Err(reason::TOPIC_FILTER_INVALID),
            Wanted::Unasked => {
                // They come by themselves; asking for them shows what kind of client this is.
                if principal.anonymous {
                    return Ok(());
                }
                if let Some(session) = self.machine.session_mut() {
                    session.protobuf |= filter.starts_with("pb/");
                    session.impush |= !filter.starts_with("pb/");
                }
                self.follow_mine().await;
                if filter.starts_with("pb/") {
                    // Where the user stands now; changes follow.
                    self.unread_changed();
                }
                return Ok(());
            }
            Wanted::Free => self.grant_free(subscription, &gate).await?,
            Wanted::Feed(..) | Wanted::Mine => {}
        }
        if let (Some(group), Some(pattern)) = (&subscription.group, &subscription.pattern) {
            let number = subscription.number;
            self.take_seat(group, pattern, number, &gate).await.map_err(refused)?;
            if let Some(old) = self.machine.session().and_then(|session| session.subscriptions.get(&filter)) {
                self.leave_seat(old.number);
            }
            return Ok(());
        }
        if let Wanted::Feed(feed, _) = &subscription.wanted
            && !self.may(&gate, feed, Access::Read).await
        {
            return Err(reason::NOT_AUTHORIZED);
        }
        let old = self.machine.session().and_then(|session| session.subscriptions.get(&filter));
        if let Some(old) = old.filter(|old| old.pattern.is_some() && !old.muted) {
            // The same filter again: it is followed already, and what is on its way is not lost (`[MQTT-3.8.4-4]`).
            (subscription.number, subscription.since) = (old.number, old.since);
            return Ok(());
        }
        let attachment = self.attachment(&gate).await.map_err(refused)?;
        let after = match &subscription.wanted {
            Wanted::Feed(_, Some(seq)) => After::Seq(*seq),
            _ => After::Head,
        };
        follow(attachment, subscription, after).await.map_err(refused)?;
        if let (Wanted::Feed(feed, Some(seq)), Some(session)) =
            (&subscription.wanted, self.machine.session_mut())
        {
            session.outbound.replay_from(feed, *seq);
        }
        Ok(())
    }

    /// Whether the access control file allows it. It speaks of open feeds, in whatever form they are named.
    pub(super) fn may(
        &self,
        gate: &Gate,
        feed: &FeedId,
        access: Access,
    ) -> impl Future<Output = bool> + Send + use<> {
        let session = self.machine.session();
        let allowed = session.is_some_and(|session| self.broker.allows(&session.key, feed.as_str(), access));
        let (gate, feed) = (gate.clone(), feed.clone());
        async move { allowed || gate.feed(&feed).await.is_ok_and(|info| info.kind != FeedKind::Open) }
    }

    /// Joins the group of a shared subscription.
    async fn take_seat(
        &mut self,
        group: &Arc<str>,
        pattern: &Pattern,
        number: u32,
        gate: &Gate,
    ) -> Result<(), ReadError> {
        let principal = gate.principal();
        let scopes = principal.scopes;
        if !(principal.anonymous || scopes.user || scopes.send_as || scopes.audit) {
            // The group follows as one of its members: each must be somebody who may read open feeds.
            return Err(Denied::Forbidden.into());
        }
        let Some(session) = self.machine.session() else { return Ok(()) };
        let member = (&session.key, &self.handle);
        let persistent = session.is_persistent();
        let seat =
            self.broker.groups.join(&self.broker, gate, (group, pattern), member, number, persistent).await?;
        self.seats.push(seat);
        Ok(())
    }

    /// A resumed session takes its places in groups again.
    async fn rejoin(&mut self) {
        let Some(user) = &self.user else { return };
        let gate = user.gate.clone();
        let shared: Vec<_> = self.machine.session().map_or_else(Vec::new, |session| {
            let shared = session.subscriptions.values().filter(|one| one.group.is_some());
            shared.cloned().collect()
        });
        for one in shared {
            if let (Some(group), Some(pattern)) = (&one.group, &one.pattern)
                && let Err(error) = self.take_seat(group, pattern, one.number, &gate).await
            {
                tracing::warn!(front_end = "mqtt", %error, "a shared subscription could not be followed");
                return self.machine.close(reason::SERVER_BUSY, "the log could not be followed", true);
            }
        }
    }

    /// Leaves the group of a shared subscription. What was not sent goes to the others; what was is brought to its end
    /// (`[MQTT-3.10.4-3]`).
    fn leave_seat(&mut self, number: u32) {
        let Some(index) = self.seats.iter().position(|seat| seat.number == number) else { return };
        let seat = self.seats.swap_remove(index);
        seat.leave(self.machine.unsent_shared(number).into_iter());
    }

    /// Leaves all groups at the end of the connection. A session that goes on keeps what it has not acknowledged (MQTT5
    /// `[MQTT-4.8.2-4]`), else QoS 1 messages go to others, and those of QoS 2 to nobody (`[MQTT-4.8.2-5]`).
    fn leave_seats(&mut self, keeps: bool) {
        if let Some(session) = self.machine.session().filter(|_| !keeps) {
            for (feed, seq, seat) in &self.shared {
                if session.outbound.may_be_doubled(feed, *seq) {
                    seat.give_back(feed.clone(), *seq);
                }
            }
        }
        for number in self.seats.iter().map(|seat| seat.number).collect::<Vec<_>>() {
            self.leave_seat(number);
        }
    }

    async fn grant_free(&mut self, subscription: &Subscription, gate: &Gate) -> Result<(), u8> {
        if !self.broker.config.free_topics {
            return Err(reason::NOT_AUTHORIZED);
        }
        let Some(pattern) = subscription.pattern.as_ref().filter(|pattern| pattern.is_literal()) else {
            // Each topic is judged when something comes from it.
            return Ok(());
        };
        let Some(session) = self.machine.session() else { return Err(reason::UNSPECIFIED_ERROR) };
        if !self.broker.allows(&session.key, pattern.as_str(), Access::Read) {
            return Err(reason::NOT_AUTHORIZED);
        }
        // A feed of another kind has this name: it is followed as a feed topic, by members.
        let Ok(feed) = FeedId::parse(pattern.as_str()) else { return Err(reason::TOPIC_FILTER_INVALID) };
        match gate.feed(&feed).await {
            Ok(info) if info.kind != FeedKind::Open => Err(reason::NOT_AUTHORIZED),
            _ => Ok(()),
        }
    }

    pub(super) async fn attachment(&mut self, gate: &Gate) -> Result<&mut Attachment, ReadError> {
        match &mut self.attachment {
            Some(attachment) => Ok(attachment),
            empty => Ok(empty.insert(Box::new(gate.follow(None).await?))),
        }
    }

    /// Follows everything as another user from now on: a login has bound the connection.
    pub(super) async fn follow_as(&mut self, gate: &Gate) -> Result<(), ReadError> {
        let Some(old) = &self.attachment else { return Ok(()) };
        let settled = old.settled();
        let Some(session) = self.machine.session() else { return Ok(()) };
        let resume = Resume { commit_no: settled, positions: session.outbound.positions(settled) };
        let subscriptions = session.subscriptions.values().cloned().collect();
        let mut attachment = gate.follow(Some(resume)).await?;
        follow_all(&mut attachment, subscriptions, false, settled).await?;
        self.attachment = Some(Box::new(attachment));
        Ok(())
    }

    /// All feeds of the user, for pushes without a subscription.
    pub(super) async fn follow_mine(&mut self) {
        let Some(user) = &self.user else { return };
        let gate = user.gate.clone();
        if gate.principal().anonymous {
            return;
        }
        // A protobuf client is told when its user reads elsewhere. A feed of one's own that does not exist is not there yet.
        let own = self.machine.session().is_some_and(|session| session.protobuf);
        let own = own.then(|| FeedId::personal(&gate.principal().uid));
        let followed = match self.attachment(&gate).await {
            Ok(attachment) => match attachment.add_mine(After::Head).await {
                Ok(()) => match own {
                    Some(own) => match attachment.add(own, After::Head).await {
                        Err(ReadError::Denied(_) | ReadError::NotFound) => Ok(()),
                        followed => followed,
                    },
                    None => Ok(()),
                },
                failed => failed,
            },
            Err(error) => Err(error),
        };
        if let Err(error) = followed {
            tracing::warn!(front_end = "mqtt", %error, "the feeds of a user could not be followed");
            self.machine.close(reason::SERVER_BUSY, "the feeds could not be followed", true);
        }
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe) {
        let mut ended = Vec::with_capacity(unsubscribe.filters.len());
        let mut seen = HashSet::new();
        for filter in &unsubscribe.filters {
            if !seen.insert(filter.as_str()) {
                ended.push(Unsubscribed::Unknown);
                continue;
            }
            let known = self.machine.session().and_then(|session| session.subscriptions.get(filter.as_str()));
            let Some(subscription) = known.cloned() else {
                ended.push(Unsubscribed::Unknown);
                continue;
            };
            ended.push(Unsubscribed::Ended);
            if subscription.group.is_some() {
                self.leave_seat(subscription.number);
                continue;
            }
            let unasked = self.machine.session().is_some_and(|session| session.impush || session.protobuf);
            let others = |wanted: &dyn Fn(&Wanted) -> bool| {
                self.machine.session().is_some_and(|session| {
                    session
                        .subscriptions
                        .values()
                        .filter(|one| one.filter != subscription.filter)
                        .any(|one| wanted(&one.wanted))
                })
            };
            let still_feed = match &subscription.wanted {
                Wanted::Feed(feed, _) => {
                    others(&|wanted| matches!(wanted, Wanted::Feed(of, _) if of == feed))
                }
                _ => false,
            };
            let still_mine = unasked || others(&|wanted| *wanted == Wanted::Mine);
            if let Some(attachment) = &mut self.attachment {
                match &subscription.wanted {
                    Wanted::Free => attachment.remove_pattern(subscription.number),
                    Wanted::Feed(feed, _) if !still_feed => attachment.remove(feed),
                    Wanted::Mine if !still_mine => attachment.remove_mine(),
                    _ => {}
                }
            }
        }
        self.machine.unsubscribed(unsubscribe, &ended);
    }

    /// An entry, with what the connection knows of its feed.
    pub(super) async fn deliver_entry(&mut self, view: Arc<View>) {
        let feed = &view.entry.feed;
        let open = self.attachment.as_ref().is_some_and(|attachment| attachment.is_open(feed));
        let session = self.machine.session();
        let allowed =
            session.is_some_and(|session| self.broker.allows(&session.key, feed.as_str(), Access::Read));
        if open && !allowed {
            // By whichever topic it is followed.
            return self.passed(&feed.clone(), view.entry.seq);
        }
        let free = open && self.broker.config.free_topics;
        let pushes =
            if self.machine.wants_pushes() { Box::pin(self.pushes(&view, None)).await } else { Vec::new() };
        let commit_no = self.broker.store.commit_no();
        self.machine.deliver(super::machine::Outgoing { view, free, commit_no, pushes });
    }

    /// The next page of retained messages.
    async fn search_retained(&mut self, mut search: Retained) {
        let Some(user) = &self.user else { return };
        let gate = user.gate.clone();
        let found = match &search.pattern {
            None => {
                search.finished = true;
                let key = stored::retained(&search.prefix);
                self.broker
                    .shelf
                    .get(&key)
                    .await
                    .map(|place| place.map(|place| (key, place)).into_iter().collect())
            }
            Some(_) => {
                let prefix = stored::retained(&search.prefix);
                let after = search.after.as_deref().map(stored::retained);
                self.broker.shelf.scan(&prefix, after.as_deref(), PAGE).await.inspect(|page: &Vec<_>| {
                    search.finished = page.len() < PAGE;
                })
            }
        };
        let Ok(found) = found else {
            // Retained messages are not lost: the next subscription gets them.
            tracing::warn!(front_end = "mqtt", "retained messages could not be read");
            return;
        };
        // What is published to feeds goes to those who asked for feeds, and to nobody else, whatever a wildcard matches.
        let feeds = search.prefix.starts_with(space::FEEDS);
        let mut bytes = 0;
        for (key, place) in found {
            let topic = key.get(1..).and_then(|topic| std::str::from_utf8(topic).ok());
            let (Some(topic), Some(seq)) = (topic, stored::place_of(&place)) else { continue };
            search.after = Some(topic.to_owned());
            if search.pattern.as_ref().is_some_and(|pattern| !pattern.matches(topic)) {
                continue;
            }
            let feed = match space::target(topic) {
                Target::Free(feed) if !feeds => {
                    let key = self.machine.session().map(|session| &session.key);
                    if !key.is_some_and(|key| self.broker.allows(key, topic, Access::Read)) {
                        continue;
                    }
                    feed
                }
                Target::Feed(feed) if feeds => feed,
                _ => continue,
            };
            // One that is gone, or that this user may not read, is not there.
            if let Ok(view) = gate.entry(&feed, seq).await {
                bytes += view.entry.payload.bytes().map_or(0, |bytes| bytes.len());
                search.found.push_back((topic.to_owned(), Arc::new(view)));
            }
            if bytes >= FOUND_BYTES_MAX {
                // The rest is looked up again when these have left.
                search.finished = false;
                break;
            }
        }
        self.machine.retained(search);
    }

    /// What was on its way when the last connection ended.
    async fn resend(&mut self) {
        let Some(user) = &self.user else { return };
        let gate = user.gate.clone();
        while let Some(flow) = self.machine.next_resend() {
            if flow.state == FlowState::Released {
                self.machine.resend(&flow, None, None);
                continue;
            }
            match gate.entry(&flow.feed, flow.seq).await {
                Ok(view) => {
                    let view = Arc::new(view);
                    let push = self.pushes(&view, Some(flow.form)).await.into_iter().next();
                    self.machine.resend(&flow, Some(view), push.map(|(_, topic, body)| (topic, body)));
                }
                Err(ReadError::Unavailable(_)) => {
                    return self.machine.close(reason::SERVER_BUSY, "the log could not be read", true);
                }
                Err(_) => self.machine.resend(&flow, None, None),
            }
        }
    }

    /// Writes the place of a persistent session when it moved. `ended_ms` when the connection is over.
    pub(super) async fn checkpoint(&mut self, ended_ms: Option<u64>) {
        let commit_no = self.broker.store.commit_no();
        let settled = self.attachment.as_ref().map_or(commit_no, |attachment| attachment.settled());
        let Some((key, rows)) = self.machine.place(settled, ended_ms) else { return };
        match self.broker.shelf.put(rows).await {
            Ok(()) => self.machine.placed(settled),
            // The older place stays: what follows it comes again.
            Err(error) => {
                tracing::warn!(front_end = "mqtt", %error, client = key.client_id.len(), "a place was not written");
                if self.machine.wants_place() {
                    // Nothing can be sent without it.
                    self.machine.rows_failed();
                }
            }
        }
    }

    /// What was handed over has its outcome before the session is let go of: the rows of a QoS 2 message are there, or never
    /// will be, when the next connection loads or discards the session (`[MQTT-4.3.3-2]`).
    async fn wait_for_answers(&mut self) {
        let settled = async {
            while self.answers.pending() > 0 {
                self.answers.ready().await;
                while self.answers.pop().is_some() {}
            }
            while self.works.next().await.is_some() {}
        };
        if tokio::time::timeout(SETTLE_WAIT, settled).await.is_err() {
            tracing::warn!(front_end = "mqtt", "a session ends with commands whose outcome is not known");
        }
    }

    /// The connection is over: its place is written, its will is published or waits, its session is let go of.
    pub(super) async fn end(&mut self, ending: Ending) {
        let Some(key) = self.machine.session().map(|session| session.key.clone()) else { return };
        let (expiry_s, will) =
            (self.machine.session().map_or(0, |session| session.expiry_s), self.machine.will().cloned());
        self.move_marks();
        if expiry_s > 0 || self.machine.was_stored() || !self.works.is_empty() {
            self.wait_for_answers().await;
        }
        let now_ms = self.broker.store.now_ms();
        self.leave_seats(expiry_s > 0);
        if expiry_s > 0 {
            self.checkpoint(Some(now_ms)).await;
        } else if self.machine.was_stored()
            && let Err(error) = self.broker.remove(&key).await
        {
            tracing::warn!(front_end = "mqtt", %error, "a session that ended could not be removed");
        }
        self.attachment = None;
        if let Some(mut will) = will {
            // [MQTT-3.1.3-9]: not before the delay, nor after the session.
            let delay_s = will.delay_s.min(expiry_s);
            if !ending.will {
                // [MQTT-3.1.2-10].
                if let Err(error) = self.broker.shelf.put(vec![(key.will(), None)]).await {
                    tracing::warn!(front_end = "mqtt", %error, "a will that is void could not be removed");
                }
            } else if delay_s == 0 && !self.drained {
                wills::publish(&self.broker, &key, &will).await;
            } else {
                will.due_ms = Some(now_ms + u64::from(delay_s) * 1000);
                let row = (key.will(), Some(stored::encode(&will)));
                if let Err(error) = self.broker.shelf.put(vec![row]).await {
                    tracing::warn!(front_end = "mqtt", %error, "when a will is due could not be written");
                }
                // MQTT5 §3.1.2.5: a server that closes may leave it to its next start.
                if !self.drained {
                    self.broker.await_will(key.clone(), will);
                }
            }
        }
        self.broker.release(&key, &self.handle);
    }
}
