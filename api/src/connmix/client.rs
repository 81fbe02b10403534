//! A client of the message center: log in, subscribe, get what is published.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use feedlog_core::command::{Action, Command, Principal};
use feedlog_core::ids::{SeqId, Uid};
use feedlog_core::policy::Denied;
use feedlog_service::auth::{AuthError, Credential};
use feedlog_service::views::{After, Delivery};
use feedlog_service::{Gate, ReadError, Receipt, SubmitError};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::asked::{Body, ConnCall};
use super::follows::{Follows, Write};
use super::login::Verdict;
use super::ops::{self, Op, Refused, Since, Target};
use super::publish;
use super::registry::Seat;
use super::{Connmix, login};
use crate::http::app::{App, Peer};
use crate::http::stream::still_good;
use crate::socket::{Frame, Line, Talk, close};

/// What others tell a client's connection.
pub(crate) enum Told {
    /// One frame for the client.
    Frame(Body),
    /// A back end does something with the connection.
    Call { call: ConnCall, by: Principal, answer: oneshot::Sender<bool> },
}

/// What the connection waits for by itself.
pub(crate) enum Done {
    /// The webhook's answer.
    Asked(Verdict),
}

type ClientLine = Line<Client>;

/// One connection.
pub(crate) struct Client {
    connmix: Connmix,
    app: Arc<App>,
    peer: Peer,
    seat: Option<Seat<Told>>,
    /// Who logged in.
    gate: Option<Gate>,
    /// By which token of our own.
    token: Option<Arc<str>>,
    /// The webhook is asked: frames wait. [connmix: ops sent before the webhook returns]
    asking: bool,
    /// A frame is on its way to the workers: those behind it wait, because answers have no ids.
    handing_on: bool,
    follows: Follows,
    /// Keys with JSON text. Back ends set it; nothing but `uid` means anything here.
    context: BTreeMap<String, Box<str>>,
    /// When places are told.
    due: Option<Instant>,
}

fn write(line: &mut ClientLine) -> impl FnMut(Write<'_>) {
    |frame| match frame {
        Write::Text(text) => line.text(text),
        Write::Binary(bytes) => line.binary(bytes),
    }
}

impl Client {
    pub(crate) fn new(connmix: Connmix, app: Arc<App>, peer: Peer) -> Self {
        Self {
            connmix,
            app,
            peer,
            seat: None,
            gate: None,
            token: None,
            asking: false,
            handing_on: false,
            follows: Follows::default(),
            context: BTreeMap::new(),
            due: None,
        }
    }

    fn uid(&self) -> Option<&Uid> {
        self.gate.as_ref().map(|gate| &gate.principal().uid)
    }

    /// As whom the client reads and writes: who logged in, else nobody, where that is configured.
    fn who(&self) -> Option<Gate> {
        if let Some(gate) = &self.gate {
            return Some(gate.clone());
        }
        let store = &self.connmix.0.store;
        let nobody = store.auth().authenticate(Credential::None { connection: &self.peer.connection });
        nobody.ok().map(|nobody| store.gate(nobody))
    }

    fn is_slow_enough(&self) -> bool {
        let auth = self.connmix.0.store.auth();
        match &self.gate {
            // Whom a back end logged in does not use up what the back end may do.
            Some(gate) if gate.principal().via.is_none() => auth.check_principal(gate.principal()).is_ok(),
            _ => auth.check_address(self.peer.address).is_ok(),
        }
    }

    async fn auth(&mut self, line: &mut ClientLine, token: String) {
        let auth = self.connmix.0.store.auth();
        let webhook = self.connmix.0.webhook.as_ref();
        // In development mode a bare uid is a token, but not when there is somebody to be asked.
        let own = match webhook {
            Some(_) => auth.issued(&token),
            None => auth.authenticate(Credential::Token(&token)),
        };
        match (own, webhook) {
            (Ok(principal), _) => {
                self.log_in(line, principal, Some(token.into())).await;
                line.text(ops::DONE.as_bytes());
            }
            (Err(AuthError::Unavailable(_)), _) => line.text(ops::UNAVAILABLE.as_bytes()),
            // What has our own form and is not good is nobody else's business.
            (Err(_), Some(webhook)) if !auth.has_own_form(&token) => {
                self.asking = true;
                let webhook = webhook.clone();
                line.work(async move { Done::Asked(webhook.ask(&token).await) });
            }
            (Err(_), _) => self.refuse(line),
        }
    }

    /// The token is nobody's. [connmix: invalid token]
    fn refuse(&self, line: &mut ClientLine) {
        // What too many of them lead to is the same answer; the counter holds up other ways in from there.
        let _ = self.app.failed(self.peer.address);
        line.text(ops::AUTH_FAILED.as_bytes());
        line.close(close::POLICY, "the token is not good");
    }

    /// From now on the connection is this principal's. Another user than before begins with nothing.
    /// [connmix: re-auth as another uid]
    async fn log_in(&mut self, line: &mut ClientLine, principal: Principal, token: Option<Arc<str>>) {
        let before = self.gate.replace(self.connmix.0.store.gate(principal));
        self.token = token;
        let now = self.gate.as_ref().map(Gate::principal);
        match before {
            Some(before) if Some(before.principal()) == now => {}
            Some(before) if Some(&before.principal().uid) != self.uid() => self.forget_all(line),
            _ => self.follow_again(line).await,
        }
    }

    fn log_out(&mut self, line: &mut ClientLine) {
        self.gate = None;
        self.token = None;
        self.forget_all(line);
    }

    fn forget_all(&mut self, line: &mut ClientLine) {
        line.attachment = None;
        self.follows = Follows::default();
        if let Some(seat) = &mut self.seat {
            seat.clear();
        }
    }

    /// What is followed goes on from where it is, with the rights of now.
    async fn follow_again(&mut self, line: &mut ClientLine) {
        if line.attachment.take().is_none() {
            return;
        }
        for (feed, place) in self.follows.places() {
            match self.follow(line, &feed, place).await {
                Ok(()) => {}
                Err(ReadError::Denied(_)) => self.ended(line, &feed),
                Err(_) => return line.close(close::TRY_AGAIN, "the log could not be followed"),
            }
        }
    }

    async fn follow(
        &self,
        line: &mut ClientLine,
        feed: &feedlog_core::ids::FeedId,
        after: SeqId,
    ) -> Result<(), ReadError> {
        let attachment = match &mut line.attachment {
            Some(attachment) => attachment,
            none => {
                let gate = self.who().ok_or(ReadError::Denied(Denied::Unauthenticated))?;
                none.insert(Box::new(gate.follow(None).await?))
            }
        };
        attachment.add_coming(feed.clone(), After::Seq(after)).await
    }

    fn ended(&mut self, line: &mut ClientLine, feed: &feedlog_core::ids::FeedId) {
        for name in self.follows.end(feed, &mut write(line)) {
            if let Some(seat) = &mut self.seat {
                seat.unsubscribe(&name);
            }
        }
    }

    fn target(&self, channel: &str) -> Result<Target, &'static str> {
        self.connmix.0.types.of_client(channel, self.uid()).map_err(|refused| match refused {
            Refused::NotAuth => ops::NOT_AUTH,
            Refused::Invalid => ops::INVALID_CHANNEL,
        })
    }

    /// Subscribes; the place after which messages come.
    async fn subscribe(
        &mut self,
        line: &mut ClientLine,
        target: &Target,
        channel: &str,
        since: Since,
    ) -> Result<SeqId, &'static str> {
        let Some(gate) = self.who() else { return Err(ops::NOT_AUTH) };
        let known = self.follows.has(target);
        if !known && self.follows.len() >= self.connmix.0.config.channels_max {
            return Err(ops::TOO_MANY);
        }
        if known && since == Since::Unaware {
            // The original does nothing then.
            return Ok(SeqId::ZERO);
        }
        // Read before following: what is appended in between comes from the log.
        let head = match gate.feed(&target.feed).await {
            Ok(info) => info.head,
            // There is none yet, or it is none for this client: that shows when it is followed.
            Err(ReadError::Denied(_)) => SeqId::ZERO,
            Err(_) => return Err(ops::UNAVAILABLE),
        };
        let after = match since {
            Since::Unaware | Since::Now => head,
            Since::After(seq) => seq.min(head),
            Since::Bad => return Err(ops::INVALID_SINCE),
        };
        let goes_back = self.follows.place(&target.feed).is_none_or(|place| after < place);
        if goes_back {
            let followed = self.follow(line, &target.feed, after).await;
            if followed.is_err() && self.follows.len() == 0 {
                // A connection that follows nothing holds nothing for it.
                line.attachment = None;
            }
            followed.map_err(|error| match error {
                ReadError::Denied(_) if self.gate.is_none() => ops::NOT_AUTH,
                ReadError::Denied(_) => ops::INVALID_CHANNEL,
                ReadError::BadField { .. } => ops::TOO_MANY,
                _ => ops::UNAVAILABLE,
            })?;
        }
        self.follows.add(target, channel, since != Since::Unaware, after);
        if let Some(seat) = &mut self.seat {
            seat.subscribe(&target.name);
        }
        Ok(after)
    }

    fn unsubscribe(&mut self, line: &mut ClientLine, target: &Target) {
        // The last place of a channel is told before it ends.
        self.follows.write_cursors(&mut write(line));
        if self.follows.remove(target) {
            if let Some(attachment) = &mut line.attachment {
                attachment.remove(&target.feed);
            }
            if self.follows.len() == 0 {
                line.attachment = None;
            }
        }
        if let Some(seat) = &mut self.seat {
            seat.unsubscribe(&target.name);
        }
    }

    async fn op(&mut self, line: &mut ClientLine, text: &str, op: Op) -> Result<(), &'static str> {
        match op {
            Op::Auth { token } => {
                self.auth(line, token).await;
                return Ok(());
            }
            Op::Subscribe { channel, since } => {
                let target = self.target(&channel)?;
                let after = self.subscribe(line, &target, &channel, since).await?;
                if since != Since::Unaware {
                    line.text(format!(r#"{{"result":true,"seq_id":{after}}}"#).as_bytes());
                    return Ok(());
                }
            }
            Op::Unsubscribe { channel } => {
                let target = self.target(&channel)?;
                if self.who().is_none() {
                    return Err(ops::NOT_AUTH);
                }
                self.unsubscribe(line, &target);
            }
            Op::Other => return self.hand_on(line, text).await,
        }
        line.text(ops::DONE.as_bytes());
        Ok(())
    }

    /// A frame with an op of the operator's own goes to the topic for workers. There is no answer but theirs.
    async fn hand_on(&mut self, line: &mut ClientLine, text: &str) -> Result<(), &'static str> {
        let Some(topic) = &self.connmix.0.topic else { return Err(ops::INVALID_OP) };
        if self.who().is_none() {
            return Err(ops::NOT_AUTH);
        }
        let client = self.seat.as_ref().map(|seat| seat.id);
        let draft = publish::from_client(text, client);
        let command = Command { feed: topic.feed.clone(), action: Action::SendMessage(Box::new(draft)) };
        line.submit(&topic.gate, command, Vec::new()).await.map_err(|error| problem(&error))?;
        self.handing_on = true;
        Ok(())
    }

    async fn call(&mut self, line: &mut ClientLine, call: ConnCall, by: &Principal) -> bool {
        match call {
            ConnCall::Subscribe(names) => {
                let mut new = Vec::with_capacity(names.len());
                for name in names {
                    let target = self.connmix.0.types.of_publisher(&name);
                    let known = target.as_ref().is_some_and(|target| self.follows.has(target));
                    let done = match &target {
                        Some(target) => self.subscribe(line, target, &name, Since::Unaware).await.is_ok(),
                        None => false,
                    };
                    if !done {
                        // All or nothing.
                        new.iter().for_each(|target| self.unsubscribe(line, target));
                        return false;
                    }
                    new.extend(target.filter(|_| !known));
                }
                true
            }
            ConnCall::Unsubscribe(names) => {
                let types = &self.connmix.0.types;
                let Some(targets) =
                    names.iter().map(|name| types.of_publisher(name)).collect::<Option<Vec<_>>>()
                else {
                    return false;
                };
                targets.iter().for_each(|target| self.unsubscribe(line, target));
                true
            }
            ConnCall::SetContext(fields) => {
                let context: BTreeMap<String, Box<str>> = fields.into_iter().collect();
                let uid = context.get("uid").cloned();
                self.set_context(line, context, uid.as_deref(), by).await
            }
            ConnCall::SetValue(key, value) => {
                let uid = (key == "uid").then(|| value.clone());
                let mut context = self.context.clone();
                context.insert(key, value);
                self.set_context(line, context, uid.as_deref(), by).await
            }
        }
    }

    /// A context with `uid` logs the connection in as that user, one with `null` there logs it out; without, nothing
    /// changes about that.
    async fn set_context(
        &mut self,
        line: &mut ClientLine,
        context: BTreeMap<String, Box<str>>,
        uid: Option<&str>,
        by: &Principal,
    ) -> bool {
        let bytes: usize = context.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > self.connmix.0.config.context_bytes_max {
            return false;
        }
        match uid {
            None => {}
            Some("null") => self.log_out(line),
            Some(raw) => {
                let auth = self.connmix.0.store.auth();
                let Some(uid) = ops::uid(raw) else { return false };
                // Who it is already, by a credential of its own, stays so.
                if self.uid() != Some(&uid) {
                    let Ok(principal) = auth.act_for(by, uid) else { return false };
                    self.log_in(line, principal, None).await;
                }
            }
        }
        self.context = context;
        true
    }
}

/// What a client is told of a frame that was not handed on.
fn problem(error: &SubmitError) -> &'static str {
    match error {
        SubmitError::Denied(_) => ops::NOT_AUTH,
        SubmitError::Rejected(_) => ops::INVALID_OP,
        SubmitError::RateLimited { .. } => ops::TOO_FAST,
        SubmitError::Unavailable(_) | SubmitError::Unknown => ops::UNAVAILABLE,
    }
}

impl Talk for Client {
    type Told = Told;
    type Done = Done;

    async fn opened(&mut self, line: &mut ClientLine) {
        self.seat = Some(self.connmix.0.registry.enter(line.inbox()));
    }

    async fn frame(&mut self, line: &mut ClientLine, frame: Frame) {
        // [connmix: closed without a reply]: the close frame alone says why.
        let Frame::Text(text) = frame else { return line.close(close::UNSUPPORTED, "text frames only") };
        let op = match ops::parse(text.as_str()) {
            Ok(op) => op,
            Err(fault) => return line.close(close::POLICY, fault.reason()),
        };
        if !self.is_slow_enough() {
            return line.text(ops::TOO_FAST.as_bytes());
        }
        if let Err(refusal) = self.op(line, text.as_str(), op).await {
            line.text(refusal.as_bytes());
        }
    }

    fn answered(&mut self, line: &mut ClientLine, outcome: Result<Receipt, SubmitError>) {
        self.handing_on = false;
        if let Err(error) = outcome {
            line.text(problem(&error).as_bytes());
        }
    }

    async fn delivered(&mut self, line: &mut ClientLine, delivery: Delivery) {
        self.follows.deliver(&delivery, &mut write(line));
        if let Delivery::Ended(feed) = &delivery {
            self.ended(line, feed);
        }
        if self.follows.has_moved() && self.due.is_none() {
            self.due = Some(Instant::now() + Duration::from_millis(self.connmix.0.config.cursor_ms));
        }
    }

    async fn told(&mut self, line: &mut ClientLine, told: Told) {
        match told {
            Told::Frame(body) if body.binary => line.binary(&body.bytes),
            Told::Frame(body) => line.text(&body.bytes),
            // It was told that it failed.
            Told::Call { answer, .. } if answer.is_closed() => {}
            Told::Call { call, by, answer } => {
                let done = self.call(line, call, &by).await;
                // Nobody waits any more when it took too long.
                let _ = answer.send(done);
            }
        }
    }

    async fn done(&mut self, line: &mut ClientLine, done: Done) {
        let Done::Asked(verdict) = done;
        self.asking = false;
        match verdict {
            Verdict::User(uid) => match self.connmix.0.store.auth().vouched(uid) {
                Ok(principal) => {
                    self.log_in(line, principal, None).await;
                    line.text(ops::DONE.as_bytes());
                }
                Err(_) => self.refuse(line),
            },
            Verdict::Refused => self.refuse(line),
            // [connmix: webhook transport error, body not JSON]: without an answer.
            Verdict::Broken => line.close(close::TRY_AGAIN, "the webhook did not answer"),
        }
    }

    fn wants_frames(&self) -> bool {
        !self.asking && !self.handing_on
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    async fn tick(&mut self, line: &mut ClientLine) {
        self.due = None;
        self.follows.write_cursors(&mut write(line));
    }

    fn recheck(&mut self, line: &mut ClientLine) {
        if !still_good(&self.app, self.token.as_deref()) {
            line.close(close::POLICY, "unauthenticated");
        }
    }
}

const _: () = assert!(login::TOKEN_BYTES_MAX >= 1024);
