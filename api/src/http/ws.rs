//! `/v1/ws`: the same calls and streams over one WebSocket, in JSON text frames.
//!
//! `{"op","id",…}` is answered by `{"id","ok"}` or `{"id","error"}`; what is attached comes as `{"event",…}`. Commands
//! are handed over in the order of their frames; answers come as they become durable.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts as _;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::Method;
use feedlog_core::command::{Action, Command};
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_service::views::{After, AttachTo, Delivery};
use feedlog_service::{Attachment, Gate};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde::de::value::MapDeserializer;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::app::{App, drained};
use super::call::Call;
use super::people::{move_marks, resolve_command};
use super::route::{Access, Answer, Route};
use super::stream::{Counted, heads_json, still_good};
use super::wire::input::{MarksBody, RecallBody, ResolveBody, SendMessage, explain, required_feed};
use super::wire::names::{FeedName, Whole};
use super::wire::output::{DoneOut, EntryOut, GoneOut, SentOut};
use crate::doors::Guest;
use crate::errors::{ApiError, Kind};

/// The longest `id` of a command, as JSON text.
const ID_BYTES_MAX: usize = 128;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/v1/ws", "websocket", upgrade)
            .tag("streams", "A WebSocket: attach, detach, send, recall, mark, resolve, ping.")
            .access(Access::PrincipalOrQueryToken)
            .open_ended()
            .gives_other(101, "Upgraded to a WebSocket.", None)
            .fails(&[Kind::UpgradeRequired]),
    ]
}

async fn upgrade(mut call: Call) -> Answer {
    let upgrade = WebSocketUpgrade::from_request_parts(&mut call.parts, &()).await.map_err(|_| {
        ApiError::new(Kind::UpgradeRequired, "this path speaks WebSocket (version 13, HTTP/1.1)")
    })?;
    let config = &call.app.config;
    let frame_max = config.payload_bytes_max / 3 * 4 + 128 * 1024;
    let upgrade = upgrade
        .max_message_size(frame_max)
        .max_frame_size(frame_max)
        .write_buffer_size(0)
        .max_write_buffer_size(frame_max * 2);
    let counted = (Counted::new(&call.app), call.parts.extensions.get::<Arc<Guest>>().cloned());
    let session = Session {
        app: call.app.clone(),
        gate: call.gate().clone(),
        token: call.token.clone(),
        attachment: None,
        attached: 0,
        all_mine: false,
    };
    Ok(upgrade.on_upgrade(move |socket| async move {
        session.run(socket).await;
        drop(counted);
    }))
}

struct Session {
    app: Arc<App>,
    gate: Gate,
    token: Option<Arc<str>>,
    attachment: Option<Attachment>,
    attached: usize,
    all_mine: bool,
}

type Reply = String;
type Work = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// What a frame asks for.
enum Asked {
    Now(Reply),
    Later(Work),
}

/// Why the connection ends.
struct Close(u16, &'static str);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AttachBody {
    feed_id: Option<FeedName>,
    last_seq_id: Option<Whole>,
    feeds: Option<Vec<PlaceBody>>,
    /// All feeds of the caller, also those joined later.
    mine: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlaceBody {
    feed_id: FeedName,
    last_seq_id: Option<Whole>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DetachBody {
    feed_id: FeedName,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoBody {}

impl Session {
    async fn run(mut self, mut socket: WebSocket) {
        let close = self.serve(&mut socket).await;
        if let Some(Close(code, reason)) = close {
            let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
            let farewell = socket.send(Message::Close(Some(frame)));
            let _ = timeout(Duration::from_secs(1), farewell).await;
        }
    }

    async fn serve(&mut self, socket: &mut WebSocket) -> Option<Close> {
        let app = self.app.clone();
        let config = &app.config;
        let mut draining = app.draining.clone();
        let mut ping = interval(Duration::from_millis(config.keep_alive_ms.max(1)));
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.reset();
        let idle = Duration::from_millis(config.websocket_idle_ms_max);
        let mut heard = Instant::now();
        let mut work: FuturesUnordered<Work> = FuturesUnordered::new();
        loop {
            let room = work.len() < config.websocket_in_flight_max;
            let outgoing = tokio::select! {
                frame = socket.recv(), if room => {
                    heard = Instant::now();
                    match frame {
                        None | Some(Err(_)) => return None,
                        Some(Ok(Message::Close(_))) => return None,
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                        Some(Ok(Message::Binary(_))) => return Some(Close(1003, "text frames only")),
                        Some(Ok(Message::Text(text))) => match self.asked(text.as_str()).await {
                            Asked::Now(reply) => reply,
                            Asked::Later(later) => {
                                work.push(later);
                                continue;
                            }
                        },
                    }
                }
                Some(reply) = work.next() => reply,
                delivery = next(&mut self.attachment) => match delivery {
                    Some(delivery) => self.delivered(&delivery),
                    None => return self.end(socket, "shutting_down").await,
                },
                _ = ping.tick() => {
                    if heard.elapsed() > idle {
                        return Some(Close(1001, "no frame for too long"));
                    }
                    if !still_good(&app, self.token.as_deref()) {
                        return Some(Close(1008, "unauthenticated"));
                    }
                    let frame = Message::Ping(Default::default());
                    if !self.send(socket, frame).await { return None }
                    continue;
                }
                () = drained(&mut draining) => {
                    // What was handed over is answered before the end.
                    let within = Duration::from_millis(config.drain_ms_max / 2);
                    let _ = timeout(within, async {
                        while let Some(reply) = work.next().await {
                            if !self.send(socket, Message::Text(reply.into())).await { break }
                        }
                    }).await;
                    return self.end(socket, "shutting_down").await;
                }
            };
            if !self.send(socket, Message::Text(outgoing.into())).await {
                return None;
            }
        }
    }

    async fn end(&self, socket: &mut WebSocket, reason: &'static str) -> Option<Close> {
        let event = json!({"event": "ended", "feed_id": null, "reason": reason}).to_string();
        self.send(socket, Message::Text(event.into())).await;
        Some(Close(1001, reason))
    }

    /// `false` when the client is gone or takes nothing.
    async fn send(&self, socket: &mut WebSocket, frame: Message) -> bool {
        let within = Duration::from_millis(self.app.config.stalled_reader_ms_max);
        match timeout(within, socket.send(frame)).await {
            Ok(sent) => sent.is_ok(),
            Err(_) => {
                metrics::counter!("feedlog_http_stalled_readers_total").increment(1);
                tracing::info!(front_end = "websocket", "closed: its reader takes nothing");
                false
            }
        }
    }

    fn delivered(&mut self, delivery: &Delivery) -> String {
        match delivery {
            Delivery::Entry(view) => match serde_json::to_string(&EntryOut::new(view)) {
                // The entry is put in as text, so that payloads stay as they are.
                Ok(entry) => format!("{{\"event\":\"entry\",\"entry\":{entry}}}"),
                Err(_) => json!({"event": "error", "error": internal().to_json()}).to_string(),
            },
            Delivery::Gone(feed, gone) => {
                let mut event = serde_json::to_value(GoneOut::from(gone)).unwrap_or_default();
                event["event"] = "gone".into();
                event["feed_id"] = feed.as_str().into();
                event.to_string()
            }
            Delivery::CaughtUp(heads) => {
                json!({"event": "caught_up", "heads": heads_json(heads)}).to_string()
            }
            Delivery::Ended(feed) => {
                self.attached = self.attached.saturating_sub(1);
                let reason = "no_longer_allowed";
                json!({"event": "ended", "feed_id": feed.as_str(), "reason": reason}).to_string()
            }
        }
    }

    async fn asked(&mut self, text: &str) -> Asked {
        let frame = match Frame::parse(text) {
            Ok(frame) => frame,
            Err((id, error)) => return Asked::Now(reply_error(&id, &error)),
        };
        let id = frame.id.clone();
        match self.perform(frame).await {
            Ok(asked) => asked,
            Err(error) => Asked::Now(reply_error(&id, &error)),
        }
    }

    async fn perform(&mut self, frame: Frame<'_>) -> Result<Asked, ApiError> {
        self.app.services.store.auth().check_principal(self.gate.principal())?;
        let id = frame.id.clone();
        let gate = self.gate.clone();
        match frame.op.as_str() {
            "ping" => {
                let _: NoBody = frame.body()?;
                Ok(Asked::Now(reply_ok(&id, &json!({}))))
            }
            "attach" => {
                let attached = self.attach(frame.body()?).await?;
                Ok(Asked::Now(reply_ok(&id, &json!({"attached": attached}))))
            }
            "detach" => {
                let body: DetachBody = frame.body()?;
                if let Some(attachment) = &mut self.attachment {
                    attachment.remove(&body.feed_id.0);
                    self.attached = self.attached.saturating_sub(1);
                }
                Ok(Asked::Now(reply_ok(&id, &json!({}))))
            }
            "send" => {
                let mut body: SendMessage = frame.body()?;
                let feed = required_feed(body.feed_id.take())?;
                let draft = body.into_draft(self.app.config.payload_bytes_max)?;
                let client_id = draft.client_msg_id.clone();
                let command = Command { feed, action: Action::SendMessage(Box::new(draft)) };
                Ok(later(id, async move {
                    let receipt = gate.submit(command).await?;
                    let client_id = client_id.as_ref().map(feedlog_core::ids::ClientMsgId::as_str);
                    to_value(&SentOut::new(receipt.done(), client_id))
                }))
            }
            "recall" => {
                let mut body: RecallBody = frame.body()?;
                let feed = required_feed(body.feed_id.take())?;
                let target = body.target()?;
                let action = Action::RecallMessage { target, reason: body.reason.map(|reason| reason.0) };
                Ok(later(id, submit(gate, Command { feed, action })))
            }
            "mark" => {
                let mut body: MarksBody = frame.body()?;
                let feed = required_feed(body.feed_id.take())?;
                Ok(later(id, async move {
                    let marks = move_marks(&gate, &feed, body).await?;
                    Ok(json!({
                        "feed_id": feed.as_str(),
                        "read_seq_id": marks.read_seq.0,
                        "received_seq_id": marks.received_seq.0,
                    }))
                }))
            }
            "resolve" => {
                let mut body: ResolveBody = frame.body()?;
                let feed = required_feed(body.feed_id.take())?;
                let command = resolve_command(&gate, feed, &body);
                Ok(later(id, submit(gate, command)))
            }
            _ => {
                Err(ApiError::field("op", "is not one of attach, detach, send, recall, mark, resolve, ping"))
            }
        }
    }

    async fn attach(&mut self, body: AttachBody) -> Result<usize, ApiError> {
        let place = |name: FeedName, seq: Option<Whole>| (name.0, seq.map_or(SeqId::ZERO, Into::into));
        let mut places: Vec<(FeedId, SeqId)> = body
            .feeds
            .unwrap_or_default()
            .into_iter()
            .map(|entry| place(entry.feed_id, entry.last_seq_id))
            .collect();
        match (body.feed_id, body.last_seq_id) {
            (Some(feed), seq) => places.push(place(feed, seq)),
            (None, Some(_)) => return Err(ApiError::field("feed_id", "is missing")),
            (None, None) => {}
        }
        let mine = body.mine.unwrap_or(false);
        if places.is_empty() && !mine {
            return Err(ApiError::field("feed_id", "is missing"));
        }
        if self.attached + places.len() > self.app.config.stream_feeds_max {
            let max = self.app.config.stream_feeds_max;
            return Err(ApiError::field("feeds", format_args!("makes more than {max} feeds")));
        }
        let count = places.len();
        match &mut self.attachment {
            _ if mine && (self.all_mine || self.attached > 0) => {
                return Err(ApiError::new(Kind::Rejected, "`mine` must be the first attach of a connection"));
            }
            Some(attachment) => {
                for (feed, seq) in places {
                    attachment.add(feed, After::Seq(seq)).await?;
                    self.attached += 1;
                }
                return Ok(self.attached);
            }
            none => {
                let to = if mine { AttachTo::Mine(places) } else { AttachTo::Feeds(places) };
                *none = Some(self.gate.attach(to).await?);
            }
        }
        self.all_mine = mine;
        self.attached += count;
        Ok(self.attached)
    }
}

/// The next delivery, or never while nothing is attached.
async fn next(attachment: &mut Option<Attachment>) -> Option<Delivery> {
    match attachment {
        Some(attachment) => attachment.next().await,
        None => std::future::pending().await,
    }
}

fn later(id: String, work: impl Future<Output = Result<Value, ApiError>> + Send + 'static) -> Asked {
    Asked::Later(Box::pin(async move {
        match work.await {
            Ok(ok) => reply_ok(&id, &ok),
            Err(error) => reply_error(&id, &error),
        }
    }))
}

async fn submit(gate: Gate, command: Command) -> Result<Value, ApiError> {
    let receipt = gate.submit(command).await?;
    to_value(&DoneOut::from(receipt.done()))
}

fn to_value<T: serde::Serialize>(value: &T) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(|_| internal())
}

fn internal() -> ApiError {
    ApiError::new(Kind::Internal, "the answer could not be written")
}

fn reply_ok(id: &str, ok: &Value) -> String {
    format!("{{\"id\":{id},\"ok\":{ok}}}")
}

fn reply_error(id: &str, error: &ApiError) -> String {
    format!("{{\"id\":{id},\"error\":{}}}", error.to_json())
}

/// A frame before its operation is known. Fields stay raw, so that payloads keep their bytes.
struct Frame<'a> {
    op: String,
    /// JSON text: a string or a number, or `null`.
    id: String,
    fields: HashMap<String, &'a RawValue>,
}

impl<'a> Frame<'a> {
    fn parse(text: &'a str) -> Result<Self, (String, ApiError)> {
        let none = || "null".to_owned();
        let mut fields: HashMap<String, &'a RawValue> =
            serde_json::from_str(text).map_err(|error| (none(), explain(".", &error)))?;
        let id = match fields.remove("id") {
            None => none(),
            Some(raw) => {
                let text = raw.get();
                let plain =
                    text.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) || text == "null";
                if !plain || text.len() > ID_BYTES_MAX {
                    return Err((none(), ApiError::field("id", "must be a short string or a number")));
                }
                text.to_owned()
            }
        };
        let op = fields.remove("op").ok_or_else(|| (id.clone(), ApiError::field("op", "is missing")))?;
        let op = serde_json::from_str::<String>(op.get())
            .map_err(|_| (id.clone(), ApiError::field("op", "must be a string")))?;
        Ok(Self { op, id, fields })
    }

    fn body<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        let fields = self.fields.into_iter();
        let map = MapDeserializer::<_, serde_json::Error>::new(fields);
        serde_path_to_error::deserialize(map).map_err(|error| {
            let path = error.path().to_string();
            explain(&path, &error.into_inner())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_keeps_its_bytes_through_a_frame() {
        let text = r#"{"op":"send","id":7,"feed_id":"f","payload":{"b" : 1.0,  "a":[1e3]}}"#;
        let frame = Frame::parse(text).unwrap_or_else(|_| panic!());
        assert_eq!((frame.op.as_str(), frame.id.as_str()), ("send", "7"));
        let body: SendMessage = frame.body().unwrap();
        assert_eq!(body.payload.unwrap().get(), r#"{"b" : 1.0,  "a":[1e3]}"#);
    }

    #[test]
    fn bad_frames_are_told_apart() {
        for (text, field) in [
            (r#"{"id":1}"#, "op"),
            (r#"{"op":3}"#, "op"),
            (r#"{"op":"ping","id":{}}"#, "id"),
            (r#"{"op":"ping","id":[1]}"#, "id"),
        ] {
            let (_, error) = Frame::parse(text).err().unwrap();
            assert_eq!(error.details["field"], field, "{text}");
        }
        let frame =
            Frame::parse(r#"{"op":"send","feed_id":"f","payload":1,"nope":2}"#).unwrap_or_else(|_| panic!());
        let error = frame.body::<SendMessage>().unwrap_err();
        assert_eq!(error.details["field"], "nope");
    }
}
