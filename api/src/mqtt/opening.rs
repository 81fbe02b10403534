//! Opening a session: who it is, what was stored of it, what it follows from where.

use std::sync::Arc;

use feedlog_core::command::Principal;
use feedlog_core::ids::{SeqId, Uid};
use feedlog_core::pattern::Pattern;
use feedlog_service::auth::{AuthError, Credential};
use feedlog_service::views::{After, Resume};
use feedlog_service::{Attachment, Gate, ReadError};

use super::acl::Access;
use super::broker::has_ended;
use super::config::Impush;
use super::connection::{Connection, User};
use super::machine::{Accepted, ConnectRefusal, Rows, target};
use super::outbound::{Flow, Outbound};
use super::session::{Inbound, Session, Subscription};
use super::space::{self, Target, Wanted};
use super::stored::{self, Damaged, SessionKey, StoredSession, StoredSubscription, StoredWill};
use super::wills;
use super::wire::{Connect, Level};

/// Rows that one look at the shelf takes.
const PAGE: usize = 256;
/// Longest user name.
const NAME_BYTES_MAX: usize = feedlog_core::limits::UID_BYTES_MAX;

/// A session as it was stored.
struct Loaded {
    stored: StoredSession,
    flows: Vec<Flow>,
    subscriptions: Vec<(String, StoredSubscription)>,
    inbound: Vec<(super::wire::PacketId, SeqId)>,
}

impl Connection {
    /// Authenticates, takes over, loads the session and follows what it wants.
    pub(super) async fn open(&mut self, connect: &Connect) -> Result<Accepted, ConnectRefusal> {
        let (principal, credential) = self.authenticate(connect)?;
        let config = self.broker.config.clone();
        let anonymous = principal.anonymous;
        let uid = principal.uid.clone();
        let assigned = connect.client_id.is_empty();
        let mut client_id = if assigned {
            format!("auto-{}", self.broker.name(&self.handle))
        } else {
            connect.client_id.to_string()
        };
        // Pages that all use one client id each have a session of their own.
        let alone = anonymous && !config.anonymous_takeover;
        if alone {
            client_id = format!("{client_id}#{}", self.broker.name(&self.handle));
        }
        let key = SessionKey { user: (!anonymous).then(|| uid.as_str().to_owned()), client_id };
        if let Some(will) = &connect.will {
            let allowed = match space::target(&will.topic) {
                Target::Free(_) => config.free_topics && self.broker.allows(&key, &will.topic, Access::Write),
                _ => wills::is_possible(&will.topic),
            };
            if !allowed {
                return Err(ConnectRefusal::BadWill);
            }
        }
        if !self.broker.claim(&key, &self.handle).await {
            return Err(ConnectRefusal::Busy);
        }
        let expiry_s = match connect.level {
            _ if alone => 0,
            Level::V5 => connect.properties.session_expiry_s().unwrap_or(0).min(config.session_expiry_s_max),
            _ if connect.clean_start => 0,
            _ => config.session_expiry_s_max,
        };
        let gate = self.broker.store.gate(principal);
        let opened = self.open_held(connect, &key, expiry_s, &gate).await;
        match opened {
            Ok((mut session, present, attachment)) => {
                let will = wills::of(connect, gate.principal());
                session.impush |= !anonymous
                    && match config.impush {
                        Impush::Always => true,
                        Impush::Auto => connect.level == Level::V31,
                        Impush::OnUse => false,
                    };
                session.protobuf |= !anonymous && self.origins.protobuf;
                let mut rows: Rows = Vec::new();
                if let Some(will) = &will {
                    rows.push((key.will(), Some(stored::encode(will))));
                }
                if session.is_persistent() {
                    let settled =
                        attachment.as_ref().map_or_else(|| self.broker.store.commit_no(), |a| a.settled());
                    rows.push((key.session(), Some(stored::encode(&session_row(&session, settled, None)))));
                }
                if !rows.is_empty() && self.broker.shelf.put(rows).await.is_err() {
                    self.broker.release(&key, &self.handle);
                    return Err(ConnectRefusal::Unavailable);
                }
                self.user = Some(Box::new(User { gate, credential }));
                self.attachment = attachment.map(Box::new);
                Ok(Accepted { session, present, assigned, will })
            }
            Err(error) => {
                tracing::warn!(front_end = "mqtt", %error, "a session could not be opened");
                self.broker.release(&key, &self.handle);
                Err(match error {
                    ReadError::BadField { .. } => ConnectRefusal::Busy,
                    _ => ConnectRefusal::Unavailable,
                })
            }
        }
    }

    fn authenticate(&self, connect: &Connect) -> Result<(Principal, Option<Arc<str>>), ConnectRefusal> {
        let auth = self.broker.store.auth();
        let address = self.origins.address;
        let limited = |_| ConnectRefusal::Busy;
        auth.check_address(address).map_err(limited)?;
        let name = connect.username.as_ref().map(|name| name.as_str()).filter(|name| !name.is_empty());
        let password = connect.password.as_ref().filter(|password| !password.is_empty());
        if let Some(certified) = &self.origins.certified
            && password.is_none()
        {
            let principal = auth.certified(certified).map_err(|_| ConnectRefusal::NotAuthorized)?;
            return Ok((principal, None));
        }
        let token = match (name, password) {
            (None, None) => {
                let connection = self.broker.name(&self.handle);
                let principal = auth
                    .authenticate(Credential::None { connection: &connection })
                    .map_err(|_| ConnectRefusal::NotAuthorized)?;
                return Ok((principal, None));
            }
            // The token alone, where there is room for one text only.
            (Some(name), None) => name,
            (_, Some(password)) => {
                std::str::from_utf8(password).map_err(|_| ConnectRefusal::BadCredential)?
            }
        };
        let failed = |error: AuthError| match error {
            AuthError::Unavailable(_) => ConnectRefusal::Unavailable,
            AuthError::RateLimited { .. } => ConnectRefusal::Busy,
            AuthError::Forbidden => ConnectRefusal::NotAuthorized,
            _ if self.broker.failures.count(address).is_err() => ConnectRefusal::Busy,
            _ => ConnectRefusal::BadCredential,
        };
        let principal = auth.authenticate(Credential::Token(token)).map_err(failed)?;
        let credential = Some(Arc::from(token));
        let Some(name) = name.filter(|_| password.is_some()) else { return Ok((principal, credential)) };
        if name == principal.uid.as_str() {
            return Ok((principal, credential));
        }
        // A service may name the user for whom it connects; anybody else's name is part of the credential.
        let user = (name.len() <= NAME_BYTES_MAX).then(|| Uid::parse(name).ok()).flatten();
        let user = user.ok_or_else(|| failed(AuthError::Unauthenticated))?;
        match auth.act_for(&principal, user) {
            Ok(principal) => Ok((principal, credential)),
            Err(_) => Err(failed(AuthError::Unauthenticated)),
        }
    }

    /// The session of a connection that holds it, and what it follows.
    async fn open_held(
        &mut self,
        connect: &Connect,
        key: &SessionKey,
        expiry_s: u32,
        gate: &Gate,
    ) -> Result<(Session, bool, Option<Attachment>), ReadError> {
        let broker = self.broker.clone();
        let now_ms = broker.store.now_ms();
        let loaded = self.load(key).await?;
        let was_stored = loaded.is_some();
        let resumed = loaded.filter(|loaded| !connect.clean_start && !has_ended(&loaded.stored, now_ms));
        if broker.take_waiting_will(key)
            && let Some(left) = broker.shelf.get(&key.will()).await?
            && let Ok(will) = stored::decode::<StoredWill>(&left)
        {
            let due = will.due_ms.map_or(will.delay_s == 0, |due_ms| due_ms <= now_ms);
            if resumed.is_none() || due {
                wills::publish(&broker, key, &will).await;
            } else {
                // MQTT5 [MQTT-3.1.3-9]: the session goes on, so its will is void.
                let void = broker.shelf.put(vec![(key.will(), None)]).await;
                void.map_err(|_| ReadError::Unavailable("a will that is void could not be removed"))?;
            }
        }
        let Some(loaded) = resumed else {
            // [MQTT-3.1.2-6]: what was stored is discarded, before the client is told that there is none.
            if was_stored {
                broker.remove(key).await?;
            } else if expiry_s > 0 && broker.has_too_many(key).await? {
                return Err(ReadError::BadField { field: "sessions", problem: "are too many" });
            }
            return Ok((Session::new(key.clone(), expiry_s), false, None));
        };
        let mut session = Session::new(key.clone(), expiry_s);
        let stored = &loaded.stored;
        let damaged = |_: Damaged| ReadError::Damaged;
        let positions = stored.positions().map_err(damaged)?;
        session.outbound =
            Outbound::restore(loaded.flows, stored.last_id, &positions, broker.store.commit_no());
        session.inbound = loaded.inbound.into_iter().map(|(id, seq)| (id, Inbound::Earlier(seq))).collect();
        session.impush = stored.impush;
        let resume = Resume { commit_no: stored.commit_no, positions };
        let mut attachment = gate.follow(Some(resume)).await?;
        let mut subscriptions = Vec::with_capacity(loaded.subscriptions.len());
        for (filter, subscription) in &loaded.subscriptions {
            let Ok(target) = target(filter) else { continue };
            subscriptions.push(Subscription {
                filter: filter.as_str().into(),
                number: session.number(),
                qos: stored::qos_of(subscription.qos).ok_or(ReadError::Damaged)?,
                no_local: subscription.no_local,
                retain_as_published: subscription.retain_as_published,
                identifier: subscription.identifier,
                raw: subscription.raw,
                since: subscription.since,
                wanted: target.wanted,
                pattern: target.pattern,
                group: target.group,
                muted: false,
            });
        }
        session.protobuf |= subscriptions.iter().any(|one| one.filter.starts_with("pb/"));
        session.protobuf |= self.origins.protobuf;
        let mine = (session.impush || session.protobuf) && !gate.principal().anonymous;
        // What was refused then, or would be now, is not followed.
        let config = &broker.config;
        subscriptions.retain(|one| match &one.pattern {
            Some(pattern) => {
                config.free_topics
                    && (!pattern.is_literal() || broker.allows(key, pattern.as_str(), Access::Read))
            }
            None => true,
        });
        let followed = follow_all(&mut attachment, subscriptions, mine, stored.commit_no).await?;
        session.subscriptions = followed.into_iter().map(|one| (one.filter.clone(), one)).collect();
        if !session.is_persistent() {
            // From now on it lasts as long as its connection, whatever the server's end.
            broker.remove(key).await?;
        }
        Ok((session, true, Some(attachment)))
    }

    async fn load(&mut self, key: &SessionKey) -> Result<Option<Loaded>, ReadError> {
        let Some(bytes) = self.broker.shelf.get(&key.session()).await? else { return Ok(None) };
        let damaged = |_: Damaged| ReadError::Damaged;
        let stored: StoredSession = stored::decode(&bytes).map_err(damaged)?;
        let mut rows = Vec::new();
        for (name, value) in self.scan_all(&key.sent()).await? {
            let id = stored::id_of(&name).ok_or(ReadError::Damaged)?;
            rows.push(stored::decode_flow(id, &value).map_err(damaged)?);
        }
        // In the order of sending: ids go round from the last one of the stored window.
        rows.sort_by_key(|flow| flow.id.get().wrapping_sub(stored.last_id).wrapping_sub(1));
        let flows = stored::merge_flows(stored.flows().map_err(damaged)?, rows);
        let mut inbound = Vec::new();
        for (name, value) in self.scan_all(&key.received()).await? {
            let id = stored::id_of(&name).ok_or(ReadError::Damaged)?;
            inbound.push((id, stored::place_of(&value).ok_or(ReadError::Damaged)?));
        }
        let prefix = key.subscriptions();
        let mut subscriptions = Vec::new();
        for (name, value) in self.scan_all(&prefix).await? {
            let filter = name.get(prefix.len()..).and_then(|text| std::str::from_utf8(text).ok());
            let filter = filter.ok_or(ReadError::Damaged)?.to_owned();
            subscriptions.push((filter, stored::decode(&value).map_err(damaged)?));
        }
        let mut stored = stored;
        // Ids after the stored window are in use as well.
        stored.last_id = flows.last().map_or(stored.last_id, |flow| flow.id.get());
        Ok(Some(Loaded { stored, flows, subscriptions, inbound }))
    }

    async fn scan_all(&mut self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, bytes::Bytes)>, ReadError> {
        let mut rows = Vec::new();
        loop {
            let after = rows.last().map(|(key, _): &(Vec<u8>, bytes::Bytes)| key.clone());
            let page = self.broker.shelf.scan(prefix, after.as_deref(), PAGE).await?;
            let full = page.len() == PAGE;
            rows.extend(page);
            if !full {
                return Ok(rows);
            }
        }
    }
}

/// Follows what a session wants, as far as its user still may, after what it had up to `commit_no`.
///
/// IMPORTANT: patterns first, then the user's own feeds, then names: a feed that is followed already is not read again from
/// an older place.
pub(super) async fn follow_all(
    attachment: &mut Attachment,
    mut subscriptions: Vec<Subscription>,
    mine: bool,
    commit_no: u64,
) -> Result<Vec<Subscription>, ReadError> {
    subscriptions.sort_by_key(|one| match one.wanted {
        Wanted::Free => 0,
        Wanted::Mine => 1,
        Wanted::Feed(..) | Wanted::Unasked | Wanted::Invalid => 2,
    });
    let names = subscriptions.partition_point(|one| one.wanted == Wanted::Free);
    let mut followed = Vec::with_capacity(subscriptions.len());
    for (index, mut subscription) in subscriptions.into_iter().enumerate() {
        if mine && index == names {
            attachment.add_mine(After::Commit(commit_no)).await?;
        }
        let after = After::Commit(commit_no.max(subscription.since));
        match follow(attachment, &mut subscription, after).await {
            Ok(()) => followed.push(subscription),
            // No longer a member: the subscription ended while nobody looked.
            Err(ReadError::Denied(_)) => {}
            Err(error) => return Err(error),
        }
    }
    if mine {
        // Where nothing else wanted them; again is harmless.
        attachment.add_mine(After::Commit(commit_no)).await?;
    }
    Ok(followed)
}

/// Follows what a subscription wants.
pub(super) async fn follow(
    attachment: &mut Attachment,
    subscription: &mut Subscription,
    after: After,
) -> Result<(), ReadError> {
    match (&subscription.wanted, &subscription.pattern) {
        (Wanted::Feed(feed, _), _) => attachment.add(feed.clone(), after).await,
        (Wanted::Mine, _) => attachment.add_mine(after).await,
        // Its group follows.
        _ if subscription.group.is_some() => Ok(()),
        (_, Some(pattern)) => {
            subscription.since = attachment.add_pattern(subscription.number, Pattern::clone(pattern), after);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A session as it is stored.
pub(super) fn session_row(session: &Session, settled: u64, ended_ms: Option<u64>) -> StoredSession {
    let positions = session.outbound.positions(settled);
    StoredSession {
        expiry_s: session.expiry_s,
        ended_ms,
        commit_no: settled,
        positions: positions.into_iter().map(|(feed, seq)| (feed.as_str().to_owned(), seq.0)).collect(),
        last_id: session.outbound.last_id(),
        flows: session.outbound.needed(settled).map(stored::stored_flow).collect(),
        impush: session.impush,
    }
}
