//! The API for back ends: single calls over HTTP, and many at a time over `/ws/v1`.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use feedlog_service::views::Delivery;
use feedlog_service::{Receipt, SubmitError};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::asked::{self, Asked, ConnCall, Fault, Id, Publish, Reply, code};
use super::caller::{Caller, refuse};
use super::client::Told;
use super::queue::{NoTopic, Popped, Share};
use super::{Connmix, publish};
use crate::http::app::{App, drained};
use crate::http::stream::still_good;
use crate::socket::{Frame, Line, Talk, close};

/// Calls to connections that wait for their answer.
const CALLS_MAX: usize = 256;
/// Calls of `queue.pop` that are being looked into.
const JOINS_MAX: usize = 8;
/// Bytes that may wait for a worker before it gets no more messages.
const WORKER_BYTES_MAX: usize = 64 * 1024;
/// How soon a worker that takes nothing is looked at again.
const WORKER_LOOK: Duration = Duration::from_millis(20);

const PING: &str = "ping";
const PONG: &[u8] = b"pong";

impl Connmix {
    /// How many get what is published now, and what the back end is told.
    fn published(&self, channel: &str, outcome: Result<Receipt, SubmitError>) -> Reply {
        match outcome {
            Ok(receipt) => {
                let done = receipt.done();
                // What was there before is not delivered again.
                let (delivered, failed) =
                    if done.duplicate { (0, 0) } else { self.0.registry.count(channel) };
                Reply::Published { delivered, failed, seq: done.seq.0, duplicate: done.duplicate }
            }
            Err(error) => Reply::Failed(publish::fault(error)),
        }
    }

    /// One frame to one connection. It is not stored: there is nobody whom it is for when that connection is gone.
    fn send(&self, client: u64, body: asked::Body) -> Reply {
        let bytes = body.bytes.len();
        match self.0.registry.tell(client, Told::Frame(body), bytes) {
            true => Reply::Done,
            false => Reply::Failed(Fault::new(code::SEND, "the connection is gone, or takes nothing")),
        }
    }
}

fn not_allowed() -> Fault {
    Fault::new(code::PARAMETER, "the access list does not allow this")
}

fn too_many() -> Fault {
    Fault::new(code::SEND, "rate_limited: too many requests")
}

/// `POST /v1/mesh/publish`, `POST /v1/mesh/send`. [connmix: HTTP status for API errors]
pub(crate) async fn post(
    connmix: &Connmix,
    app: &App,
    caller: Caller,
    parts: &Parts,
    body: Body,
) -> Response {
    if parts.method != Method::POST {
        let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, "this is a POST", None);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let body = match read(connmix, app, body).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let Ok(text) = serde_json::from_slice::<&RawValue>(&body).map(RawValue::get) else {
        return refuse(StatusCode::BAD_REQUEST, "the body is not JSON", None);
    };
    let asked = match parts.uri.path() {
        "/v1/mesh/publish" => asked::publish(text).map(Asked::Publish),
        _ => asked::send(text, false),
    };
    let reply = match asked {
        _ if !caller.roles.write => Reply::Failed(not_allowed()),
        _ if connmix.0.store.auth().check_principal(caller.gate.principal()).is_err() => {
            Reply::Failed(too_many())
        }
        Ok(Asked::Publish(publish)) => match publish::command(&connmix.0.types, publish) {
            Ok((target, command)) => {
                let within = Duration::from_millis(app.config.answer_ms_max);
                let outcome = timeout(within, caller.gate.submit(command)).await;
                connmix.published(&target.name, outcome.unwrap_or(Err(SubmitError::Unknown)))
            }
            Err(fault) => Reply::Failed(fault),
        },
        Ok(Asked::Send { client, body }) => connmix.send(client, body),
        Ok(_) => Reply::Failed(Fault::new(code::PARAMETER, "invalid parameter")),
        Err(fault) => Reply::Failed(fault),
    };
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (json, reply.write(None)).into_response()
}

async fn read(connmix: &Connmix, app: &App, body: Body) -> Result<Bytes, Box<Response>> {
    let max = message_bytes_max(connmix);
    let within = Duration::from_millis(app.config.body_read_ms_max);
    match timeout(within, Limited::new(body, max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large", None).into())
        }
        Ok(Err(_)) => Err(refuse(StatusCode::BAD_REQUEST, "the body ended early", None).into()),
        Err(_) => Err(refuse(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time", None).into()),
    }
}

/// A payload is in a JSON string, where many write a letter of two bytes as six (`\u0416`), or in base64; the rest is round
/// it.
pub(crate) fn message_bytes_max(connmix: &Connmix) -> usize {
    connmix.0.config.payload_bytes_max.saturating_mul(3).saturating_add(64 * 1024)
}

/// A connection to `/ws/v1`.
pub(crate) struct Api {
    connmix: Connmix,
    app: Arc<App>,
    caller: Caller,
    /// What was submitted, in order, with the channels.
    pending: VecDeque<(Id, Arc<str>)>,
    /// Topics that are popped from.
    consuming: Option<Consuming>,
    /// What is not asked for while the worker takes nothing.
    held: Vec<Taken>,
    due: Option<Instant>,
    calls: usize,
    joins: usize,
}

struct Consuming {
    stop: CancellationToken,
    topics: HashSet<String>,
}

/// Topics that are being joined, until they are taken back.
pub(crate) struct Taking {
    topics: Vec<String>,
    stop: CancellationToken,
}

/// A topic that is popped from, until it is taken back.
pub(crate) struct Taken {
    share: Share,
    stop: CancellationToken,
}

impl Taking {
    fn of(&self, share: Share) -> Taken {
        Taken { share, stop: self.stop.clone() }
    }
}

/// What the connection waits for by itself.
pub(crate) enum Done {
    Called(Id, Reply),
    Joined(Id, Taking, Result<Vec<Share>, NoTopic>),
    Popped(Taken, Popped),
    Stopped,
}

type ApiLine = Line<Api>;

impl Api {
    pub(crate) fn new(connmix: Connmix, app: Arc<App>, caller: Caller) -> Self {
        Self {
            connmix,
            app,
            caller,
            pending: VecDeque::new(),
            consuming: None,
            held: Vec::new(),
            due: None,
            calls: 0,
            joins: 0,
        }
    }

    async fn asked(&mut self, line: &mut ApiLine, id: Id, asked: Asked) -> Result<(), (Id, Fault)> {
        let write = !matches!(asked, Asked::Pop { .. } | Asked::Unpop);
        if !(if write { self.caller.roles.write } else { self.caller.roles.read }) {
            return Err((id, not_allowed()));
        }
        if self.connmix.0.store.auth().check_principal(self.caller.gate.principal()).is_err() {
            return Err((id, too_many()));
        }
        match asked {
            Asked::Publish(publish) => return self.publish(line, id, publish).await,
            Asked::Send { client, body } => reply(line, &id, &self.connmix.send(client, body)),
            Asked::Call { client, call } => return self.call(line, id, client, call),
            Asked::Pop { topics } => return self.pop(line, id, topics),
            Asked::Unpop => match self.consuming.take() {
                Some(consuming) => {
                    consuming.stop.cancel();
                    reply(line, &id, &Reply::Done);
                }
                None => return Err((id, Fault::new(code::UNCONSUME, "nothing is consumed"))),
            },
        }
        Ok(())
    }

    async fn publish(&mut self, line: &mut ApiLine, id: Id, publish: Publish) -> Result<(), (Id, Fault)> {
        let (target, command) = match publish::command(&self.connmix.0.types, publish) {
            Ok(command) => command,
            Err(fault) => return Err((id, fault)),
        };
        match line.submit(&self.caller.gate, command, Vec::new()).await {
            Ok(()) => {
                self.pending.push_back((id, target.name));
                Ok(())
            }
            Err(error) => Err((id, publish::fault(error))),
        }
    }

    fn call(&mut self, line: &mut ApiLine, id: Id, client: u64, call: ConnCall) -> Result<(), (Id, Fault)> {
        let fault = || Fault::new(code::CALL, "the call failed");
        let (answer, answered) = oneshot::channel();
        let by = self.caller.gate.principal().clone();
        let bytes = call.size();
        let full = self.calls >= CALLS_MAX;
        if full || !self.connmix.0.registry.tell(client, Told::Call { call, by, answer }, bytes) {
            return Err((id, fault()));
        }
        self.calls += 1;
        let within = Duration::from_millis(self.connmix.0.config.call_ms_max);
        line.work(async move {
            match timeout(within, answered).await {
                Ok(Ok(true)) => Done::Called(id, Reply::Done),
                _ => Done::Called(id, Reply::Failed(fault())),
            }
        });
        Ok(())
    }

    fn pop(&mut self, line: &mut ApiLine, id: Id, mut topics: Vec<String>) -> Result<(), (Id, Fault)> {
        topics.sort_unstable();
        topics.dedup();
        let consumed = self.consuming.as_ref().map_or(0, |consuming| consuming.topics.len());
        let is_consumed = |consuming: &Consuming| topics.iter().any(|topic| consuming.topics.contains(topic));
        if self.consuming.as_ref().is_some_and(is_consumed) {
            return Err((id, Fault::new(code::CONSUMING, "it is consumed already")));
        }
        if consumed + topics.len() > self.connmix.0.config.topics_max || self.joins >= JOINS_MAX {
            return Err((id, Fault::new(code::CONSUME, "too many topics")));
        }
        let consuming = self
            .consuming
            .get_or_insert_with(|| Consuming { stop: CancellationToken::new(), topics: HashSet::new() });
        self.joins += 1;
        consuming.topics.extend(topics.iter().cloned());
        let taking = Taking { topics, stop: consuming.stop.clone() };
        let (connmix, gate) = (self.connmix.clone(), self.caller.gate.clone());
        line.work(async move {
            let mut shares = Vec::with_capacity(taking.topics.len());
            for topic in &taking.topics {
                match connmix.0.queues.join(topic, &gate, connmix.0.topic.as_ref()).await {
                    Ok(share) => shares.push(share),
                    Err(problem) => return Done::Joined(id, taking, Err(problem)),
                }
            }
            Done::Joined(id, taking, Ok(shares))
        });
        Ok(())
    }

    /// Asks for the next message of a topic.
    fn take_next(&self, line: &mut ApiLine, taken: Taken) {
        if taken.stop.is_cancelled() {
            return;
        }
        let mut draining = self.app.draining.clone();
        line.work(async move {
            let event = tokio::select! {
                () = taken.stop.cancelled() => return Done::Stopped,
                () = drained(&mut draining) => return Done::Stopped,
                event = taken.share.next() => event,
            };
            Done::Popped(taken, event)
        });
    }
}

fn reply(line: &mut ApiLine, id: &Id, reply: &Reply) {
    line.text(reply.write(Some(id)).as_bytes());
}

impl Talk for Api {
    type Told = ();
    type Done = Done;

    async fn opened(&mut self, _line: &mut ApiLine) {}

    async fn frame(&mut self, line: &mut ApiLine, frame: Frame) {
        let Frame::Text(text) = frame else { return line.close(close::UNSUPPORTED, "text frames only") };
        if text.as_str() == PING {
            return line.text(PONG);
        }
        let (id, asked) = asked::frame(text.as_str());
        let refused = match asked {
            Ok(asked) => self.asked(line, id, asked).await.err(),
            Err(fault) => Some((id, fault)),
        };
        if let Some((id, fault)) = refused {
            reply(line, &id, &Reply::Failed(fault));
        }
    }

    fn answered(&mut self, line: &mut ApiLine, outcome: Result<Receipt, SubmitError>) {
        let Some((id, channel)) = self.pending.pop_front() else { return };
        let published = self.connmix.published(&channel, outcome);
        reply(line, &id, &published);
    }

    async fn delivered(&mut self, _line: &mut ApiLine, _delivery: Delivery) {}

    async fn told(&mut self, _line: &mut ApiLine, _told: ()) {}

    async fn done(&mut self, line: &mut ApiLine, done: Done) {
        match done {
            Done::Called(id, called) => {
                self.calls -= 1;
                reply(line, &id, &called);
            }
            Done::Joined(id, taking, Ok(shares)) => {
                self.joins -= 1;
                reply(line, &id, &Reply::Done);
                shares.into_iter().for_each(|share| self.take_next(line, taking.of(share)));
            }
            Done::Joined(id, taking, Err(problem)) => {
                self.joins -= 1;
                if let Some(consuming) = self.consuming.as_mut().filter(|_| !taking.stop.is_cancelled()) {
                    consuming.topics.retain(|topic| !taking.topics.contains(topic));
                    self.consuming.take_if(|consuming| consuming.topics.is_empty());
                }
                let why = match problem {
                    NoTopic::NotOpen => "the topic is no open feed",
                    NoTopic::TooMany => "too many topics",
                    NoTopic::Unavailable => "unavailable",
                };
                reply(line, &id, &Reply::Failed(Fault::new(code::CONSUME, why)));
            }
            // Also when it was taken back meanwhile: the message is this worker's.
            Done::Popped(taken, Popped::Message(event)) => {
                line.text(event.as_bytes());
                if line.waiting() < WORKER_BYTES_MAX {
                    self.take_next(line, taken);
                } else {
                    self.held.push(taken);
                    self.due = Some(Instant::now() + WORKER_LOOK);
                }
            }
            // It became another kind of feed: nothing more comes of it.
            Done::Popped(taken, Popped::NoTopic) => {
                tracing::warn!(front_end = "connmix", "a topic is no open feed any more");
                self.connmix.0.queues.end(&taken.share);
                if let Some(consuming) = self.consuming.as_mut().filter(|_| !taken.stop.is_cancelled()) {
                    consuming.topics.remove(taken.share.name());
                }
            }
            Done::Stopped => {}
        }
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    async fn tick(&mut self, line: &mut ApiLine) {
        self.due = None;
        if line.waiting() >= WORKER_BYTES_MAX {
            self.due = Some(Instant::now() + WORKER_LOOK);
            return;
        }
        for taken in std::mem::take(&mut self.held) {
            self.take_next(line, taken);
        }
    }

    fn recheck(&mut self, line: &mut ApiLine) {
        if !still_good(&self.app, self.caller.token.as_deref()) {
            line.close(close::POLICY, "unauthenticated");
        }
    }
}
