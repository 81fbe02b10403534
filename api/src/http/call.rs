//! One call on its way to its handler: who asks, what for, and with which checked parameters.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use feedlog_core::ids::{FeedId, NameError, ReactionKey, SeqId, Uid};
use feedlog_service::Gate;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::app::App;
use super::route::{Param, Place, Route, Shape};
use super::wire::input;
use crate::errors::{ApiError, Kind};

/// A checked call.
pub(crate) struct Call {
    /// The server.
    pub(crate) app: Arc<App>,
    /// The store as the caller may use it; `None` on public routes.
    pub(crate) gate: Option<Gate>,
    /// The token the caller brought, for streams that look again whether it is still good. Never logged (I-8).
    pub(crate) token: Option<Arc<str>>,
    /// The request without its body.
    pub(crate) parts: Parts,
    /// The body; empty where the route takes none.
    pub(crate) body: Bytes,
    /// Checked parameters.
    pub(crate) values: Values,
}

/// A checked parameter.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Feed(FeedId),
    Feeds(Vec<FeedId>),
    Uid(Uid),
    Me,
    Reaction(ReactionKey),
    Int(i64),
    Bool(bool),
    Text(String),
}

/// The checked parameters of a call.
#[derive(Debug, Default)]
pub(crate) struct Values(HashMap<&'static str, Value>);

impl Values {
    /// Checks path and query against the route's row: unknown, repeated, missing and ill-formed ones are refused.
    pub(crate) fn check(route: &Route, parts: &Parts) -> Result<Self, ApiError> {
        let mut values = HashMap::new();
        let mut given = path_segments(route, parts.uri.path())?;
        for (name, value) in query_pairs(parts.uri.query().unwrap_or_default())? {
            let param = route.params.iter().find(|p| p.place == Place::Query && p.name == name);
            let known = param.is_some();
            if let Some(Param { name, shape: Shape::Feeds, .. }) = param {
                let feed = FeedId::parse(&value).map_err(|error| ApiError::field(*name, error))?;
                match values.entry(*name).or_insert(Value::Feeds(Vec::new())) {
                    Value::Feeds(feeds) => feeds.push(feed),
                    _ => unreachable!("a name has one shape"),
                }
                continue;
            }
            if !known && name == "token" && route.query_token() {
                continue;
            }
            if !known {
                let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
                return Err(ApiError::field(shown, "unknown parameter"));
            }
            if given.insert(name.clone(), value).is_some() {
                return Err(ApiError::field(name, "is given twice"));
            }
        }
        for param in route.params {
            match given.get(param.name) {
                Some(text) => {
                    let value = check(param, text).map_err(|problem| ApiError::field(param.name, problem))?;
                    values.insert(param.name, value);
                }
                None if param.required && param.place != Place::Header => {
                    return Err(ApiError::field(param.name, "is missing"));
                }
                None => {}
            }
        }
        Ok(Self(values))
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        match self.0.get(name) {
            Some(Value::Int(value)) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Value::Bool(true)))
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The feeds of a parameter that can be given many times.
    pub(crate) fn feeds(&self, name: &str) -> &[FeedId] {
        match self.0.get(name) {
            Some(Value::Feeds(feeds)) => feeds,
            _ => &[],
        }
    }

    /// A place; the table's bounds keep it positive.
    pub(crate) fn seq(&self, name: &str) -> Option<SeqId> {
        self.int(name).map(|value| SeqId(value.unsigned_abs()))
    }
}

fn path_segments(route: &Route, path: &str) -> Result<HashMap<String, String>, ApiError> {
    let mut given = HashMap::new();
    for (pattern, segment) in route.path.split('/').zip(path.split('/')) {
        if let Some(name) = pattern.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            let text = percent_decode_str(segment)
                .decode_utf8()
                .map_err(|_| ApiError::field(name, "is not UTF-8"))?;
            given.insert(name.to_owned(), text.into_owned());
        }
    }
    Ok(given)
}

/// The pairs of a query (`application/x-www-form-urlencoded`).
pub(crate) fn query_pairs(query: &str) -> Result<Vec<(String, String)>, ApiError> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8().map(std::borrow::Cow::into_owned)
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).map_err(|_| ApiError::field("query", "is not UTF-8"))?;
            let value = decode(value).map_err(|_| ApiError::field(name.clone(), "is not UTF-8"))?;
            Ok((name, value))
        })
        .collect()
}

fn check(param: &Param, text: &str) -> Result<Value, String> {
    let named = |error: NameError| error.to_string();
    match param.shape {
        // Taken from the query before, one by one.
        Shape::Feeds => Err("is given in a place for one value".into()),
        Shape::Feed => FeedId::parse(text).map(Value::Feed).map_err(named),
        Shape::UidOrMe if text == "me" => Ok(Value::Me),
        Shape::Uid | Shape::UidOrMe => Uid::parse(text).map(Value::Uid).map_err(named),
        Shape::Reaction => ReactionKey::parse(text).map(Value::Reaction).map_err(named),
        Shape::Bool => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err("must be true or false".into()),
        },
        Shape::Int(min, max) => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            match text.parse::<i64>() {
                Ok(value) if plain && (min..=max).contains(&value) => Ok(Value::Int(value)),
                _ => Err(format!("must be a whole number of {min} to {max}")),
            }
        }
        Shape::Text(max) if text.len() > max => Err(format!("is longer than {max} bytes")),
        Shape::Text(_) => Ok(Value::Text(text.to_owned())),
    }
}

impl Call {
    /// The store as the caller may use it.
    pub(crate) fn gate(&self) -> &Gate {
        self.gate.as_ref().expect("only public routes have no principal")
    }

    /// The feed of the path.
    pub(crate) fn feed(&self) -> FeedId {
        match self.values.0.get("feed") {
            Some(Value::Feed(feed)) => feed.clone(),
            _ => unreachable!("the route's row has a feed, so it was checked"),
        }
    }

    /// The member of the path.
    pub(crate) fn uid(&self) -> Uid {
        match self.values.0.get("uid") {
            Some(Value::Uid(uid)) => uid.clone(),
            Some(Value::Me) => self.gate().principal().uid.clone(),
            _ => unreachable!("the route's row has a uid, so it was checked"),
        }
    }

    /// The reaction of the path.
    pub(crate) fn reaction(&self) -> ReactionKey {
        match self.values.0.get("key") {
            Some(Value::Reaction(key)) => key.clone(),
            _ => unreachable!("the route's row has a key, so it was checked"),
        }
    }

    /// The place of the path.
    pub(crate) fn seq(&self) -> SeqId {
        self.values.seq("seq_id").expect("the route's row has a seq_id, so it was checked")
    }

    /// The page size asked for.
    pub(crate) fn limit(&self) -> usize {
        self.values.int("limit").map_or(50, |limit| usize::try_from(limit).unwrap_or(50))
    }

    /// The page asked for. An empty cursor is the start.
    pub(crate) fn cursor(&self) -> Option<&str> {
        self.values.text("cursor").filter(|cursor| !cursor.is_empty())
    }

    /// The body, read as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        if self.body.is_empty() { input::parse(b"{}") } else { input::parse(&self.body) }
    }
}

/// A JSON answer.
pub(crate) fn answer<T: Serialize>(status: u16, body: &T) -> Result<Response, ApiError> {
    let bytes = serde_json::to_vec(body)
        .map_err(|_| ApiError::new(Kind::Internal, "the answer could not be written"))?;
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// An error answer.
pub(crate) fn refuse(error: &ApiError) -> Response {
    let body = serde_json::json!({"error": error.to_json()});
    let status = error.kind.row().http;
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(ms) = error.retry_after_ms {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
    }
    if let Some(allow) = error.allow.as_deref().and_then(|allow| HeaderValue::from_str(allow).ok()) {
        headers.insert(header::ALLOW, allow);
    }
    match error.kind {
        // RFC 9110 §11.6.1: a 401 names the scheme.
        Kind::Unauthenticated => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"feedlog\""));
        }
        // RFC 9110 §15.5.22: a 426 names the protocol.
        Kind::UpgradeRequired => {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        _ => {}
    }
    response
}
