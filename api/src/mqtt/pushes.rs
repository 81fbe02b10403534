//! Requests by mqant's methods, and what goes to connections without a subscription.

use std::sync::Arc;

use bytes::Bytes;
use feedlog_core::command::Principal;
use feedlog_service::auth::{AuthError, Credential};
use feedlog_service::views::View;
use feedlog_service::{Gate, ShelfWrite};
use serde_json::value::RawValue;

use super::carried::Carried;
use super::connection::Connection;
use super::machine::{Called, Verdict};
use super::outbound::Form;
use super::wire::{Qos, Text, topic};
use crate::errors::{ApiError, Kind};
use crate::im::uri::{self, Route, Target};
use crate::im::{self, Asked, Im, ImError, Login, Trace};
use crate::pb::{self, Ids, Incoming};

/// Our name as a node in mqant's URIs.
pub(crate) const NODE: &str = "feedlog";

/// What an answer becomes: an error that means "not done" or "not known" must not look like an acknowledgement.
fn called(topic: Option<Text>, trace: Trace, outcome: &Result<Box<RawValue>, ImError>) -> Called {
    if let Err(error) = outcome
        && matches!(error.kind, Kind::Unavailable | Kind::UnknownOutcome | Kind::Internal)
    {
        return Called::failed(error.kind);
    }
    let reply = topic.map(|topic| (topic, Bytes::from(im::envelope(trace, outcome.as_deref()))));
    Called { replies: reply.into_iter().collect(), verdict: Verdict::Acknowledge, message_id: None }
}

impl Connection {
    /// A request on a URI or in the default form.
    pub(super) async fn im(&mut self, number: u64, topic: Text, payload: Bytes, rows: Vec<ShelfWrite>) {
        let trace = Trace::next();
        let route = match uri::parse(&topic, NODE) {
            Ok(route) => route,
            Err(refused) => {
                let to = Some(topic).filter(|_| refused.replies);
                return self.machine.called(number, called(to, trace, &Err(refused.into())));
            }
        };
        let to = Some(topic).filter(|_| route.replies());
        match route {
            Route { target: Target::Login { default_form }, .. } => {
                let outcome = self.login(&payload, default_form).await;
                self.machine.called(number, called(to, trace, &outcome));
            }
            Route { target: Target::Proxy(outside), .. } => match &self.broker.proxy {
                Some(proxy) if !self.is_guest() => {
                    let proxy = proxy.clone();
                    self.works.push(Box::pin(async move {
                        let body = Bytes::from(proxy.forward(&outside, &payload).await);
                        let replies = to.map(|topic| (topic, body)).into_iter().collect();
                        (number, Some(Called { replies, verdict: Verdict::Acknowledge, message_id: None }))
                    }));
                }
                Some(_) => self.machine.called(number, called(to, trace, &Err(ImError::not_logined()))),
                None => {
                    let off = uri::Refused { text: "the proxy is off".into(), replies: true };
                    self.machine.called(number, called(to, trace, &Err(off.into())));
                }
            },
            Route { target: Target::Method(method), .. } => {
                if self.is_guest() {
                    return self.machine.called(number, called(to, trace, &Err(ImError::not_logined())));
                }
                self.start_impush().await;
                let Some(user) = &self.user else { return };
                let (im, gate) = (self.broker.im.clone(), user.gate.clone());
                let carried = self.carried();
                self.works.push(Box::pin(async move {
                    let outcome = ask(&im, &gate, &method, &payload, carried, rows).await;
                    (number, Some(called(to, trace, &outcome)))
                }));
            }
        }
    }

    fn is_guest(&self) -> bool {
        self.user.as_ref().is_none_or(|user| user.gate.principal().anonymous)
    }

    /// What a message of this connection carries, so that it does not come back as a push.
    pub(super) fn carried(&self) -> Bytes {
        let Some(session) = self.machine.session() else { return Bytes::new() };
        let (origin, properties) = (session.origin, Bytes::new());
        Carried { qos: Qos::ExactlyOnce, retain: false, origin, properties }.encode()
    }

    /// From now on pushes go to this connection.
    async fn start_impush(&mut self) {
        let starts =
            self.machine.session_mut().is_some_and(|session| !std::mem::replace(&mut session.impush, true));
        if starts {
            self.follow_mine().await;
        }
    }

    /// Whom the credential of a login names. The default form names the user beside it.
    fn whom(&self, login: &Login) -> Result<(Principal, Arc<str>), AuthError> {
        let auth = self.broker.store.auth();
        let by =
            |token: &str| auth.authenticate(Credential::Token(token)).map(|known| (known, Arc::from(token)));
        let Some(name) = &login.user else { return by(&login.token) };
        let is_named = |known: &(Principal, Arc<str>)| known.0.uid.as_str() == name;
        match by(&login.token) {
            Ok(known) if is_named(&known) => Ok(known),
            // In development mode a name is its own credential, and what stands beside it does not matter.
            _ => by(name).ok().filter(is_named).ok_or(AuthError::Unauthenticated),
        }
    }

    /// Binds the connection to a user.
    async fn login(&mut self, payload: &[u8], default_form: bool) -> Result<Box<RawValue>, ImError> {
        let login = im::login_token(payload, default_form)?;
        let (principal, credential) = match self.whom(&login) {
            Ok(known) => known,
            Err(error) => {
                self.broker.failures.count(self.origins.address)?;
                return Err(error.into());
            }
        };
        let gate = self.broker.store.gate(principal);
        self.follow_as(&gate).await?;
        if let Some(user) = &mut self.user {
            user.gate = gate;
            user.credential = Some(credential);
        }
        if let Some(session) = self.machine.session_mut() {
            session.impush = true;
            let alias =
                login.push_topic.as_deref().filter(|name| topic::is_name(name) && !name.starts_with('$'));
            session.push_alias = alias.map(Arc::from);
        }
        self.follow_mine().await;
        Ok(login.result())
    }

    /// A protobuf message.
    pub(super) async fn protobuf(&mut self, number: u64, topic: Text, payload: Bytes, rows: Vec<ShelfWrite>) {
        let refused = |error: ApiError| Called::failed(error.kind);
        let place = match pb::place(&topic) {
            Some(Ok(place)) => place,
            Some(Err(error)) => return self.machine.called(number, refused(error)),
            None => return self.machine.called(number, Called::failed(Kind::NotFound)),
        };
        if self.is_guest() {
            return self.machine.called(number, Called::failed(Kind::Unauthenticated));
        }
        let starts =
            self.machine.session_mut().is_some_and(|session| !std::mem::replace(&mut session.protobuf, true));
        if starts {
            self.follow_mine().await;
            self.unread_changed();
        }
        let Some(user) = &self.user else { return };
        let (ids, gate, carried) = (self.broker.ids.clone(), user.gate.clone(), self.carried());
        // Read and handed over here, so that messages keep the order of their packets.
        let mut incoming = match pb::decode(&ids, gate.principal(), &place, payload, carried).await {
            Ok(incoming) => incoming,
            Err(error) => return self.machine.called(number, refused(error)),
        };
        incoming.rows.extend(rows);
        self.works.push(Box::pin(async move {
            let called = match send(&ids, &gate, incoming).await {
                Ok(called) => called,
                Err(error) => refused(error),
            };
            (number, Some(called))
        }));
    }

    /// Where the user stands, for a protobuf client.
    pub(super) async fn push_unread(&mut self) {
        let Some(user) = &self.user else { return };
        match pb::unread(&self.broker.ids, &user.gate.clone()).await {
            Ok(down) => {
                if let Some(topic) = Text::new(down.topic) {
                    self.machine.tell(topic, down.body.into());
                }
            }
            // The next change tells it.
            Err(error) => {
                tracing::debug!(front_end = "mqtt", code = error.kind.row().code, "unread could not be told")
            }
        }
    }

    /// The ready-made forms of an entry that this connection wants, or the one of them that is asked for.
    pub(super) async fn pushes(&mut self, view: &Arc<View>, only: Option<Form>) -> Vec<(Form, Text, Bytes)> {
        let mut pushes = Vec::new();
        let entry = &view.entry;
        // Open feeds have no members, and a user's own marks are not news. What is asked for by its form was judged when it
        // was sent first, and nothing follows its feed yet.
        let open = only.is_none()
            && self.attachment.as_ref().is_some_and(|attachment| attachment.is_open(&entry.feed));
        let is_news = !open && (entry.is_message() || entry.feed.personal_uid().is_none());
        let wanted = |form| only.map_or_else(|| self.machine.wants_push(form), |only| only == form);
        if is_news && wanted(Form::Impush) {
            let body = Bytes::from(im::push(view, entry.seq));
            let alias = self.machine.session().and_then(|session| session.push_alias.clone());
            for topic in std::iter::once(im::PUSH_TOPIC).chain(alias.as_deref()) {
                pushes.extend(Text::new(topic).map(|topic| (Form::Impush, topic, body.clone())));
            }
        }
        if !open
            && wanted(Form::Protobuf)
            && let Some(user) = &self.user
        {
            let gate = user.gate.clone();
            match Box::pin(pb::relay(&self.broker.ids, &gate, view)).await {
                Ok(Some(down)) => {
                    let topic = Text::new(down.topic);
                    pushes.extend(topic.map(|topic| (Form::Protobuf, topic, down.body.into())));
                }
                Ok(None) => {}
                Err(error) => {
                    let code = error.kind.row().code;
                    tracing::warn!(front_end = "mqtt", code, "an entry could not be shown as protobuf");
                }
            }
            self.unread_changed();
        }
        pushes
    }
}

/// A request whose rows are written with what it appends.
async fn ask(
    im: &Im,
    gate: &Gate,
    method: &str,
    body: &[u8],
    carried: Bytes,
    rows: Vec<ShelfWrite>,
) -> Result<Box<RawValue>, ImError> {
    match im::ask(im, gate.principal(), method, body, carried)? {
        Asked::Submit(command, reply) => Ok(reply.of(&gate.submit_with(*command, rows).await?)),
        Asked::Work(work) => work.run(im, gate).await,
    }
}

/// Sends a protobuf message; its receipt goes to the sender before the acknowledgement.
async fn send(ids: &Ids, gate: &Gate, mut incoming: Incoming) -> Result<Called, ApiError> {
    let rows = std::mem::take(&mut incoming.rows);
    let receipt = gate.submit_with(incoming.command.clone(), rows).await?;
    let server_id = incoming.settled_id(ids, &gate.principal().uid, &receipt).await?;
    let topic = Text::new(&pb::receipt_topic(incoming.message_id));
    let body = Bytes::from(pb::receipt(incoming.message_id, server_id, &receipt));
    Ok(Called {
        replies: topic.map(|topic| (topic, body)).into_iter().collect(),
        verdict: Verdict::Acknowledge,
        message_id: Some(server_id),
    })
}
