//! Webhooks: brings the calls of the outbox to the endpoints of the configuration.
//!
//! What is told, to whom and how often is the outbox's business (`feedlog_service::outbox`); here are the wire form, the
//! signature (Standard Webhooks) and the request.

mod body;
mod keys;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use feedlog_service::outbox::{Call, Carrier, CarryError};
use futures_util::future::BoxFuture;

pub use keys::{KeyError, Keys};

use crate::outside::{BadHost, BadUrl, CallError, Outside, OutsideConfig, Place};

/// Where the calls of one endpoint go, and what signs them.
pub struct WebhookConfig {
    /// The endpoint's name in the outbox.
    pub name: Arc<str>,
    /// `http:` or `https:`.
    pub url: String,
    /// What signs.
    pub keys: Keys,
    /// Hosts that may be called; private addresses only where listed with their port.
    pub hosts: Vec<String>,
    /// From the request to the end of its answer. Default 10,000.
    pub timeout_ms: u64,
    /// Calls at a time: `OutboxLimits::calls_max`.
    pub calls_max: usize,
}

/// Why a webhook cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The URL is none.
    #[error("url {0}")]
    Url(#[from] BadUrl),
    /// A host of the list is none.
    #[error("hosts: {0}")]
    Host(#[from] BadHost),
    /// The host may not be called.
    #[error("url: {0}; list it under outbox.hosts")]
    NotAllowed(CallError),
    /// Nothing would sign the calls.
    #[error("neither secret_file nor ed25519_key_file is set: calls must be signed")]
    NoKey,
}

/// Brings calls to their endpoints by HTTP.
#[derive(Debug)]
pub struct Webhooks(BTreeMap<Arc<str>, Webhook>);

struct Webhook {
    place: Place,
    keys: Keys,
    outside: Outside,
}

/// Without the path, which may hold a secret.
impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("host", &self.place.host).field("keys", &self.keys).finish()
    }
}

/// Bytes of an answer; nothing in it is looked at.
const ANSWER_BYTES_MAX: usize = 64 << 10;
const AGENT: &str = concat!("feedlog/", env!("CARGO_PKG_VERSION"));

impl Webhook {
    fn new(config: WebhookConfig) -> Result<Self, WebhookError> {
        if config.keys.is_empty() {
            return Err(WebhookError::NoKey);
        }
        let place = Place::parse(&config.url)?;
        let outside = Outside::new(&OutsideConfig {
            hosts: config.hosts,
            timeout_ms: config.timeout_ms,
            body_bytes_max: ANSWER_BYTES_MAX,
            calls_max: config.calls_max,
        })?;
        outside.check(&place).map_err(WebhookError::NotAllowed)?;
        Ok(Self { place, keys: config.keys, outside })
    }

    async fn call(&self, call: &Call) -> Result<(), CarryError> {
        let body = body::encode(call);
        let timestamp_s = call.time_ms / 1000;
        let signature = self.keys.sign(&call.id, timestamp_s, &body);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        for (name, value) in [
            ("webhook-id", call.id.clone()),
            ("webhook-timestamp", timestamp_s.to_string()),
            ("webhook-signature", signature),
            ("feedlog-attempt", call.attempt.to_string()),
        ] {
            // INVARIANT: ids are printable ASCII.
            let Ok(value) = HeaderValue::from_str(&value) else { return Err(CarryError::Unreachable) };
            headers.insert(HeaderName::from_static(name), value);
        }
        match self.outside.call(Method::POST, &self.place, headers, body).await {
            Ok(answer) => taken(answer.status, Some(&answer.headers)),
            // What it says does not matter.
            Err(CallError::TooLarge { status }) => taken(status, None),
            Err(CallError::Timeout) => Err(CarryError::TimedOut),
            Err(CallError::Off | CallError::NotListed | CallError::Private) => Err(CarryError::NotAllowed),
            Err(CallError::Broken) => Err(CarryError::BadAnswer),
            Err(_) => Err(CarryError::Unreachable),
        }
    }
}

/// Any 2xx means that it was taken. Redirects are not followed: they are failures.
fn taken(status: u16, headers: Option<&HeaderMap>) -> Result<(), CarryError> {
    if (200..300).contains(&status) {
        return Ok(());
    }
    // Seconds only (RFC 9110 §10.2.3 also has dates, which nobody needs here).
    let retry_after = headers.and_then(|headers| headers.get(header::RETRY_AFTER));
    let seconds = retry_after.and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    Err(CarryError::Status { status, retry_after_ms: seconds.map(|s| s.saturating_mul(1000)) })
}

impl Webhooks {
    /// One for each endpoint.
    ///
    /// # Errors
    /// The first endpoint that cannot be used, and why.
    pub fn new(configs: Vec<WebhookConfig>) -> Result<Self, (Arc<str>, WebhookError)> {
        let webhook = |config: WebhookConfig| {
            let name = config.name.clone();
            match Webhook::new(config) {
                Ok(webhook) => Ok((name, webhook)),
                Err(error) => Err((name, error)),
            }
        };
        configs.into_iter().map(webhook).collect::<Result<_, _>>().map(Self)
    }
}

impl Carrier for Webhooks {
    fn carry(&self, call: Call) -> BoxFuture<'_, Result<(), CarryError>> {
        Box::pin(async move {
            match self.0.get(&call.endpoint) {
                Some(webhook) => webhook.call(&call).await,
                None => Err(CarryError::NotAllowed),
            }
        })
    }
}

#[cfg(test)]
mod tests;
