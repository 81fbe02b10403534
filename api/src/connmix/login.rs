//! Whose a token is, by asking a webhook: bounded, with a short memory, and never twice at a time for one token.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, header};
use feedlog_core::ids::Uid;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::value::RawValue;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, timeout};

use super::config::{ConnmixConfig, ConnmixError};
use super::ops;
use crate::outside::{CallError, Outside, OutsideConfig, Place};

/// The longest token that the webhook is asked about.
pub(crate) const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// What the webhook says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The token is this user's.
    User(Uid),
    /// It is nobody's: another status than 200, or no uid. [connmix: invalid token]
    Refused,
    /// There is no telling: no answer in time, one that is too large, one that is not JSON.
    Broken,
}

type Digest = [u8; 32];

/// A webhook.
pub(crate) struct Webhook {
    place: Place,
    form: bool,
    outside: Outside,
    /// Those who find no room wait for as long as one call may take.
    room: Semaphore,
    room_wait: Duration,
    cache: Mutex<Cache>,
    hold: Duration,
    cached_max: usize,
}

/// What was said lately, by the hash of the token. All hold equally long, so the oldest is the first that ends.
#[derive(Default)]
struct Cache {
    said: HashMap<Digest, Said>,
    /// Those that are kept: whose token is somebody's.
    order: VecDeque<(Digest, u64)>,
    next: u64,
}

struct Said {
    verdict: Arc<OnceCell<Verdict>>,
    number: u64,
    since: Instant,
    kept: bool,
}

impl Cache {
    fn forget(&mut self, digest: &Digest, number: u64) {
        if self.said.get(digest).is_some_and(|said| said.number == number) {
            self.said.remove(digest);
        }
    }

    fn keep(&mut self, digest: Digest, number: u64, max: usize) {
        let Some(said) = self.said.get_mut(&digest).filter(|said| said.number == number && !said.kept) else {
            return;
        };
        said.kept = true;
        self.order.push_back((digest, number));
        while self.order.len() > max {
            if let Some((oldest, number)) = self.order.pop_front() {
                self.forget(&oldest, number);
            }
        }
    }
}

/// A question under way. Unless its answer is kept, nothing is left of it: also when nobody waits for it any more.
struct Asking<'a> {
    webhook: &'a Webhook,
    digest: Digest,
    number: u64,
    keep: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut cache = self.webhook.cache();
        if self.keep {
            cache.keep(self.digest, self.number, self.webhook.cached_max);
        } else {
            cache.forget(&self.digest, self.number);
        }
    }
}

impl Webhook {
    /// The webhook of the configuration, if there is one.
    pub(crate) fn new(config: &ConnmixConfig) -> Result<Option<Self>, ConnmixError> {
        let Some(url) = &config.auth_url else { return Ok(None) };
        let place = Place::parse(url).map_err(|_| ConnmixError::BadUrl)?;
        let outside = Outside::new(&OutsideConfig {
            hosts: config.auth_hosts.clone(),
            timeout_ms: config.auth_timeout_ms,
            body_bytes_max: config.auth_answer_bytes_max,
            calls_max: config.auth_calls_max.max(1),
        })
        .map_err(|error| ConnmixError::BadHosts(error.to_string()))?;
        outside.check(&place).map_err(|error| ConnmixError::BadHosts(error.to_string()))?;
        Ok(Some(Self {
            outside,
            place,
            room: Semaphore::new(config.auth_calls_max.max(1)),
            room_wait: Duration::from_millis(config.auth_timeout_ms),
            form: config.auth_form,
            cache: Mutex::default(),
            hold: Duration::from_millis(config.auth_cache_ms),
            cached_max: config.auth_cached_max.max(1),
        }))
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // Nothing here panics half way through a change.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose token this is. Only that it is somebody's is remembered.
    pub(crate) async fn ask(&self, token: &str) -> Verdict {
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Verdict::Refused;
        }
        let digest = *blake3::hash(token.as_bytes()).as_bytes();
        let (cell, number) = self.remembered(digest);
        let mut asking = Asking { webhook: self, digest, number, keep: false };
        let verdict = cell.get_or_init(|| self.call(token)).await.clone();
        asking.keep = !self.hold.is_zero() && matches!(verdict, Verdict::User(_));
        verdict
    }

    /// What is known of a token, or will be by whoever asks first.
    fn remembered(&self, digest: Digest) -> (Arc<OnceCell<Verdict>>, u64) {
        let now = Instant::now();
        let mut cache = self.cache();
        // While it is asked for it does not end, however long that takes.
        let holds = |said: &Said| !said.verdict.initialized() || now.duration_since(said.since) < self.hold;
        if let Some(said) = cache.said.get(&digest).filter(|said| holds(said)) {
            return (said.verdict.clone(), said.number);
        }
        let number = cache.next;
        cache.next += 1;
        let verdict = Arc::new(OnceCell::new());
        cache.said.insert(digest, Said { verdict: verdict.clone(), number, since: now, kept: false });
        (verdict, number)
    }

    async fn call(&self, token: &str) -> Verdict {
        let (kind, body) = if self.form {
            let token = utf8_percent_encode(token, NON_ALPHANUMERIC);
            ("application/x-www-form-urlencoded", format!("token={token}"))
        } else {
            // The original's own text is `{"token:"…"}`, which no server can read. [connmix: webhook body]
            ("application/json", serde_json::json!({"token": token}).to_string())
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let Ok(Ok(_room)) = timeout(self.room_wait, self.room.acquire()).await else {
            tracing::warn!(front_end = "connmix", "too many questions to the authentication webhook wait");
            return Verdict::Broken;
        };
        match self.outside.call(Method::POST, &self.place, headers, body.into()).await {
            Ok(answer) => verdict(answer.status, &answer.body),
            Err(CallError::TooLarge { status }) if status != 200 => Verdict::Refused,
            Err(error) => {
                tracing::warn!(front_end = "connmix", %error, "the authentication webhook did not answer");
                Verdict::Broken
            }
        }
    }
}

/// What an answer means.
fn verdict(status: u16, body: &[u8]) -> Verdict {
    if status != 200 {
        return Verdict::Refused;
    }
    let Ok(whole) = serde_json::from_slice::<&RawValue>(body) else {
        tracing::warn!(front_end = "connmix", "the authentication webhook's answer is not JSON");
        return Verdict::Broken;
    };
    let uid = serde_json::from_str::<HashMap<String, &RawValue>>(whole.get())
        .ok()
        .and_then(|fields| ops::uid(fields.get("uid")?.get()));
    uid.map_or(Verdict::Refused, Verdict::User)
}
