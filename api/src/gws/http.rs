//! Requests: rooms, and the services beside them.
//!
//! Answers are the original's: `{"code","msg"}`, most with HTTP 200, because clients look into the body. Errors that it does not
//! know (credentials, rates, sizes) have their own status as well.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use feedlog_core::command::{Action, Command, RecallTarget};
use feedlog_core::event::Scope;
use feedlog_core::feed::Rejected;
use feedlog_core::ids::{ClientMsgId, FeedId, NameError, SeqId};
use feedlog_service::views::View;
use feedlog_service::{Gate, ReadError, Receipt, SubmitError};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::packet::{self, Kind as Frames};
use super::params::Params;
use super::talk::{self, Own, RoomTalk};
use super::timer::TimerTalk;
use super::{Gws, history};
use crate::errors::{ApiError, Kind, unavailable};
use crate::http::app::{App, Peer, local_peer};
use crate::http::call::refuse;
use crate::socket::{Frame, is_asked, upgrade};

/// How many messages a pull gives when it does not say.
const SIZE: i64 = 1_000;

/// The first segments of our own routes, which the shared port serves before any room [gws: paths].
const OWN: [&str; 14] = [
    "v1",
    "im",
    "ws",
    "docs",
    "openapi.json",
    "livez",
    "readyz",
    "metrics",
    "admin",
    "version",
    "mqtt",
    "mqtt64",
    "mqant",
    "xmpp-websocket",
];

/// Whether a path of the shared port names a room or one of the services beside them: our own first segments do not, however
/// they are written.
pub(crate) fn is_room(path: &str) -> bool {
    let first = path.strip_prefix('/').unwrap_or(path).split('/').next().unwrap_or_default();
    let first = percent_decode_str(first).decode_utf8_lossy();
    // An encoded slash ends the segment of the room's name as well.
    !OWN.contains(&first.split('/').next().unwrap_or_default())
}

/// Answers a request to a room, or to one of the services beside them.
pub(crate) async fn answer(gws: &Gws, app: &Arc<App>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let mut asked = Asked { gws, app, parts };
    let (route, mut response) = match asked.answer(body).await {
        Ok(answer) => answer,
        Err(error) => ("gws_refused", with_code(&error)),
    };
    let status = response.status();
    metrics::counter!("feedlog_http_requests_total", "route" => route, "status" => status.as_str().to_owned())
        .increment(1);
    tracing::debug!(front_end = "gws", route, status = status.as_u16(), "answered");
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A request on its way to its answer.
struct Asked<'a> {
    gws: &'a Gws,
    app: &'a Arc<App>,
    parts: Parts,
}

type Answer = Result<(&'static str, Response), ApiError>;

impl Asked<'_> {
    async fn answer(&mut self, body: Body) -> Answer {
        let path = percent_decode_str(self.parts.uri.path()).decode_utf8();
        let path = path.map_err(|_| ApiError::field("path", "is not UTF-8"))?.into_owned();
        if let Some(service) = path.strip_prefix("/__/") {
            return match service.strip_suffix('/').unwrap_or(service) {
                "history" => Ok(("gws_history", self.history(body).await?)),
                "cancel" => Ok(("gws_cancel", self.cancel(body).await?)),
                "ttl" => Ok(("gws_ttl", self.ttl(body).await?)),
                "groups" => Ok(("gws_groups", self.groups()?)),
                _ => Err(ApiError::new(Kind::NotFound, "there is nothing here")),
            };
        }
        let method = &self.parts.method;
        if path == "/__status" {
            self.allow(&[Method::GET, Method::HEAD])?;
            return Ok(("gws_status", text(200, "status ok!")));
        }
        let room = match FeedId::parse(&path) {
            Ok(room) => room,
            Err(NameError::TooLong { .. }) => {
                return Ok(("gws_room", code(414, "the name of the room is longer than 255 bytes")));
            }
            Err(error) => return Err(ApiError::field("room", error)),
        };
        if *method == Method::POST {
            return Ok(("gws_post", self.post(room, body).await?));
        }
        self.allow(&[Method::GET, Method::HEAD])?;
        if !is_asked(&self.parts.headers) {
            return Ok(("gws_room", code(400, "a room speaks WebSocket, or is posted to")));
        }
        Ok(("gws_connect", self.connect(room).await?))
    }

    fn allow(&self, methods: &[Method]) -> Result<(), ApiError> {
        if methods.contains(&self.parts.method) {
            return Ok(());
        }
        let mut error = ApiError::new(Kind::MethodNotAllowed, "this method is not allowed here");
        error.allow = Some(methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", "));
        Err(error)
    }

    /// The store as the caller may use it, and the token that says so.
    fn gate(&self) -> Result<(Gate, Option<Arc<str>>), ApiError> {
        let peer = self.parts.extensions.get::<Peer>().cloned().unwrap_or_else(local_peer);
        let (principal, token) = self.app.caller(&self.parts, &peer, true)?;
        Ok((self.app.services.store.gate(principal), token))
    }

    async fn body(&self, body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
        read_body(&self.parts.headers, body, bytes_max, self.app.config.body_read_ms_max).await
    }

    async fn params(&self, body: Body) -> Result<Params, ApiError> {
        let body = self.body(body, self.gws.config().form_bytes_max).await?;
        Params::parse(self.parts.uri.query().unwrap_or_default(), &body)
    }

    async fn connect(&mut self, room: FeedId) -> Result<Response, ApiError> {
        let (gate, token) = self.gate()?;
        let upgrade = match upgrade(self.app, &mut self.parts) {
            Ok(upgrade) => upgrade,
            Err(response) => return Ok(response),
        };
        if room.as_str() == TIMER {
            return Ok(upgrade.talk(TimerTalk::new(self.app.clone(), token), 0));
        }
        talk::room_exists(&gate, &room).await?;
        let full = || unavailable("too many rooms have a connection");
        let seat = self.gws.rooms().enter(&room).ok_or_else(full)?;
        let attachment = Some(talk::follow(&gate, &room).await?);
        let own = Own::new(self.gws.config().echoes(room.as_str()));
        let (gws, app) = (self.gws.clone(), self.app.clone());
        Ok(upgrade.talk(RoomTalk { gws, app, gate, token, room, seat, attachment, own }, 0))
    }

    /// A frame by HTTP: no acknowledgement but this answer, and no connection that it is kept from.
    async fn post(&self, room: FeedId, body: Body) -> Result<Response, ApiError> {
        let (gate, _) = self.gate()?;
        let bytes = self.body(body, self.app.config.payload_bytes_max).await?;
        if bytes.is_empty() {
            return Ok(code(406, "data missing"));
        }
        let config = self.gws.config();
        let command = match std::str::from_utf8(&bytes).map_or(Frames::Raw, packet::classify) {
            _ if room.as_str() == TIMER => None,
            Frames::Swallowed | Frames::Dropped => None,
            Frames::Data(uuid) => {
                let (id, bytes) = (uuid.id(), bytes.clone());
                let first = self.submit(&gate, talk::message(&room, bytes.clone(), id)).await;
                if config.dedup || !talk::is_again(&first) {
                    first?;
                    None
                } else {
                    Some(talk::message(&room, bytes, None))
                }
            }
            Frames::Raw => {
                let frame = talk::as_handed_on(Frame::Binary(bytes));
                if config.store_raw {
                    Some(talk::broadcast(&room, frame))
                } else if self.gws.may_write(gate.principal()) {
                    talk::room_exists(&gate, &room).await?;
                    self.gws.rooms().tell(&room, None, &frame);
                    None
                } else {
                    return Err(ApiError::new(Kind::Forbidden, "not allowed"));
                }
            }
        };
        if let Some(command) = command {
            self.submit(&gate, command).await?;
        }
        Ok(json_answer(200, &json!({"code": 200, "group": room.as_str()})))
    }

    async fn submit(&self, gate: &Gate, command: Command) -> Result<Receipt, SubmitError> {
        let within = Duration::from_millis(self.app.config.answer_ms_max);
        tokio::time::timeout(within, gate.submit(command)).await.unwrap_or(Err(SubmitError::Unknown))
    }

    async fn history(&self, body: Body) -> Result<Response, ApiError> {
        self.allow(&[Method::POST])?;
        let (gate, _) = self.gate()?;
        let params = self.params(body).await?;
        let (position, size) =
            (params.number("position").unwrap_or(0), params.number("size").unwrap_or(SIZE));
        let Some(name) = params.get("groupName") else {
            let answer = json!({"code": 403, "position": position, "msg": "groupName missing", "data": []});
            return Ok(json_answer(200, &answer));
        };
        let room = room_named(name)?;
        let room = talk::room_exists(&gate, &room).await?.then_some(room);
        let page_max = self.gws.config().history_page_max;
        let body = history::answer(gate, room, position, size, page_max).await?;
        let mut response = Response::new(body);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    async fn cancel(&self, body: Body) -> Result<Response, ApiError> {
        self.allow(&[Method::POST])?;
        let (gate, _) = self.gate()?;
        let params = self.params(body).await?;
        let Some(name) = params.get("groupName") else { return Ok(said(403, "groupName missing")) };
        let Some(uuid) = params.get("uuid") else { return Ok(said(403, "uuid missing")) };
        let room = room_named(name)?;
        let not_found = || Ok(said(404, "uuid not found"));
        if !talk::room_exists(&gate, &room).await? {
            return not_found();
        }
        let Some((target, view)) = find(&gate, &room, uuid).await? else { return not_found() };
        let action = Action::RecallMessage { target, reason: None };
        match self.submit(&gate, Command { feed: room, action }).await {
            Ok(_) => {}
            Err(SubmitError::Rejected(Rejected::MessageNotFound)) => return not_found(),
            Err(error) => return Err(error.into()),
        }
        // The original names the hash of what it hides. Of what was hidden before not even that is told.
        let hash = view.entry.payload.bytes().map(|bytes| packet::hash(bytes)).unwrap_or_default();
        Ok(said(200, &format!("uuid found and saved in blacklist:{hash}")))
    }

    async fn ttl(&self, body: Body) -> Result<Response, ApiError> {
        self.allow(&[Method::POST])?;
        let (gate, _) = self.gate()?;
        administers(&gate)?;
        let params = self.params(body).await?;
        let Some(name) = params.get("groupName") else { return Ok(said(403, "groupName missing")) };
        let Some(seconds) = params.number("ttl").filter(|seconds| *seconds > 0) else {
            return Ok(said(403, "ttl missing"));
        };
        let room = room_named(name)?;
        if !talk::room_exists(&gate, &room).await? {
            return Ok(said(404, "group not found"));
        }
        let after_ms = seconds.unsigned_abs().saturating_mul(1_000);
        let at_ms = self.app.services.store.now_ms().saturating_add(after_ms).min(SeqId::MAX.0);
        // Done also when the caller goes away half way: what is stored and what is known do not part.
        let gws = self.gws.clone();
        let set = tokio::spawn(async move { gws.schedule().set(room, at_ms).await });
        set.await
            .unwrap_or_else(|_| Err(ApiError::new(Kind::Internal, "an internal error; it was logged")))?;
        Ok(said(200, "ttl saved"))
    }

    /// Live rooms, one in a line. `secret` is the original's word for a token.
    fn groups(&mut self) -> Result<Response, ApiError> {
        self.allow(&[Method::GET, Method::HEAD])?;
        let params = Params::parse(self.parts.uri.query().unwrap_or_default(), b"")?;
        if !self.parts.headers.contains_key(header::AUTHORIZATION)
            && let (None, Some(secret)) = (params.get("token"), params.get("secret"))
        {
            let unfit = |_| ApiError::new(Kind::Unauthenticated, "authentication is required");
            let mut bearer = HeaderValue::from_str(&format!("Bearer {secret}")).map_err(unfit)?;
            bearer.set_sensitive(true);
            self.parts.headers.insert(header::AUTHORIZATION, bearer);
        }
        let (gate, _) = self.gate()?;
        administers(&gate)?;
        let names = self.gws.rooms().names();
        let names: Vec<&str> = names.iter().map(FeedId::as_str).collect();
        Ok(text(200, names.join("\n")))
    }
}

/// The room that sends the time.
const TIMER: &str = "/timer";

fn administers(gate: &Gate) -> Result<(), ApiError> {
    let principal = gate.principal();
    if principal.scopes.admin && principal.via.is_none() && !principal.anonymous {
        return Ok(());
    }
    if principal.anonymous {
        return Err(ApiError::new(Kind::Unauthenticated, "authentication is required"));
    }
    Err(ApiError::new(Kind::Forbidden, "not allowed"))
}

fn room_named(name: &str) -> Result<FeedId, ApiError> {
    FeedId::parse(name).map_err(|error| ApiError::field("groupName", error))
}

/// The message of a uuid, as clients know it, and by which right it is recalled: a packet by its uuid, which is the right; what
/// other wires brought by its place or by the caller's own id, as the sender's or a manager's.
async fn find(gate: &Gate, room: &FeedId, uuid: &str) -> Result<Option<(RecallTarget, View)>, ApiError> {
    let found = |answer: Result<View, ReadError>| match answer {
        Ok(view) => Ok(Some(view)),
        Err(ReadError::NotFound) => Ok(None),
        Err(error) => Err(ApiError::from(error)),
    };
    let id = ClientMsgId::parse(uuid).ok();
    if let Some(id) = &id {
        let scope = talk::scope();
        if let Some(view) = found(gate.message_of(room, scope.clone(), id.clone()).await)? {
            let target = RecallTarget::ClientMsgId { sender: None, scope, id: id.clone() };
            return Ok(Some((target, view)));
        }
    }
    let place = uuid.strip_prefix(room.as_str()).and_then(|rest| rest.strip_prefix(':'));
    if let Some(seq) = place.and_then(|place| place.parse::<u64>().ok()).filter(|seq| *seq <= SeqId::MAX.0)
        && let Some(view) = found(gate.entry(room, SeqId(seq)).await)?
    {
        return Ok(Some((RecallTarget::Seq(SeqId(seq)), view)));
    }
    if let Some(id) = id
        && let Some(view) = found(gate.message_of(room, Scope::Sender, id).await)?
    {
        return Ok(Some((RecallTarget::Seq(view.entry.seq), view)));
    }
    Ok(None)
}

async fn read_body(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
    within_ms: u64,
) -> Result<Bytes, ApiError> {
    let too_large = || {
        ApiError::new(Kind::TooLarge, format!("the body is larger than {bytes_max} bytes"))
            .with("bytes_max", bytes_max)
    };
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: u64| length > bytes_max as u64) {
        return Err(too_large());
    }
    let reading = Limited::new(body, bytes_max).collect();
    match tokio::time::timeout(Duration::from_millis(within_ms), reading).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(ApiError::new(Kind::BadRequest, "the body ended early")),
        Err(_) => Err(ApiError::new(Kind::Timeout, "the body did not arrive in time")),
    }
}

fn json_answer(status: u16, body: &serde_json::Value) -> Response {
    let mut response = text(status, body.to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn text(status: u16, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

/// The status is in the body as well.
fn code(status: u16, msg: &str) -> Response {
    json_answer(status, &json!({"code": status, "msg": msg}))
}

/// The status is in the body alone: what the original answers with HTTP 200.
fn said(code: u16, msg: &str) -> Response {
    json_answer(200, &json!({"code": code, "msg": msg}))
}

/// An error in this wire's form, with the headers that go with it.
fn with_code(error: &ApiError) -> Response {
    let mut response = refuse(error);
    let body = json!({"code": response.status().as_u16(), "msg": error.message});
    *response.body_mut() = Body::from(body.to_string());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_first_segments_are_no_rooms_however_they_are_written() {
        for own in OWN {
            for path in [format!("/{own}"), format!("/{own}/"), format!("/{own}/a/b"), format!("/{own}%2Fa")]
            {
                assert!(!is_room(&path), "{path}");
            }
        }
        for path in ["/%761/feeds", "/%6Dqtt", "/admin%2f"] {
            assert!(!is_room(path), "{path}");
        }
        for path in ["/", "/room/9527/", "/v2", "/v1x", "//v1", "/room/v1", "/__/history/", "/timer", "/%ff"]
        {
            assert!(is_room(path), "{path}");
        }
    }
}
