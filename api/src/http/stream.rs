//! Server-sent events: replay, `caught_up`, then live.
//!
//! A producer reads the attachment and hands whole frames to the connection through a short queue; when the client takes
//! nothing for too long the producer ends, so a reader that stands still costs a few frames and nothing more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Method, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_service::auth::Credential;
use feedlog_service::views::{AttachTo, Delivery};
use feedlog_service::{Attachment, Gate};
use futures_util::{FutureExt as _, stream};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::app::{App, drained};
use super::call::Call;
use super::route::{Access, Answer, FEED, Param, Place, Route, Shape};
use super::wire::names::WHOLE_MAX;
use super::wire::output::{EntryOut, GoneOut};
use crate::errors::{ApiError, Kind};

/// Frames that may wait for the connection.
const QUEUE_FRAMES: usize = 4;
/// Deliveries are put together up to this size before they are handed over.
const FRAME_BYTES: usize = 32 * 1024;
/// A cursor up to this size goes with every event; a larger one once in a while.
const CURSOR_EACH_BYTES: usize = 1024;
/// Events between two large cursors.
const CURSOR_EVERY: u32 = 64;
/// A cursor above this would not come back in a request's header.
const CURSOR_BYTES_MAX: usize = 48 * 1024;

const LAST_EVENT_ID: Param = Param {
    name: "Last-Event-ID",
    place: Place::Header,
    shape: Shape::Text(CURSOR_BYTES_MAX),
    required: false,
    about: "`id` of the last event that arrived; resumes there and goes before the query.",
};

pub(crate) fn routes() -> Vec<Route> {
    const LAST: Param = Param::query(
        "last_seq_id",
        Shape::Int(0, WHOLE_MAX as i64),
        "Entries after this one; 0 when absent.",
    );
    const FEEDS: Param = Param::query(
        "feeds",
        Shape::Text(60_000),
        "`f1:N1,f2:N2`: these feeds, each after a place; ids percent-encoded. All of the caller's when absent.",
    );
    let events = || Some(("text/event-stream", json!({"type": "string"})));
    vec![
        Route::new(Method::GET, "/v1/feeds/{feed}/stream", "stream_feed", one)
            .tag("streams", "Entries of a feed as server-sent events: replay, `caught_up`, then live.")
            .access(Access::PrincipalOrQueryToken)
            .open_ended()
            .params(&[FEED, LAST, LAST_EVENT_ID])
            .gives_other(200, "Events `entry`, `gone`, `caught_up`, `ended`.", events()),
        Route::new(Method::GET, "/v1/stream", "stream_feeds", many)
            .tag("streams", "Entries of many feeds as server-sent events: replay, `caught_up`, then live.")
            .access(Access::PrincipalOrQueryToken)
            .open_ended()
            .params(&[FEEDS, LAST_EVENT_ID])
            .gives_other(200, "Events `entry`, `gone`, `caught_up`, `ended`.", events())
            .fails(&[Kind::FeedNotFound]),
    ]
}

async fn one(call: Call) -> Answer {
    let feed = call.feed();
    let after = match last_event_id(&call)? {
        Some(text) => text
            .parse::<u64>()
            .ok()
            .filter(|seq| *seq <= WHOLE_MAX)
            .map(SeqId)
            .ok_or_else(bad_last_event_id)?,
        None => call.values.seq("last_seq_id").unwrap_or(SeqId::ZERO),
    };
    let attachment = call.gate().attach(AttachTo::Feeds(vec![(feed, after)])).await?;
    Ok(respond(&call, attachment, Ids::OneFeed))
}

async fn many(call: Call) -> Answer {
    let named = call.values.text("feeds").map(parse_feeds).transpose()?;
    let cursor = last_event_id(&call)?.map(parse_cursor).transpose()?;
    let mine = named.is_none();
    let mut places: BTreeMap<FeedId, SeqId> = named.unwrap_or_default().into_iter().collect();
    for (feed, seq) in cursor.into_iter().flatten() {
        if mine {
            places.insert(feed, seq);
        } else if let Some(place) = places.get_mut(&feed) {
            *place = seq;
        }
    }
    if places.len() > call.app.config.stream_feeds_max {
        let max = call.app.config.stream_feeds_max;
        return Err(ApiError::field("feeds", format_args!("names more than {max} feeds")));
    }
    let list = places.iter().map(|(feed, seq)| (feed.clone(), *seq)).collect();
    let to = if mine { AttachTo::Mine(list) } else { AttachTo::Feeds(list) };
    let attachment = call.gate().attach(to).await?;
    let ids = Ids::ManyFeeds(Cursor { places, events: 0, written: Instant::now() });
    Ok(respond(&call, attachment, ids))
}

fn last_event_id(call: &Call) -> Result<Option<&str>, ApiError> {
    match call.parts.headers.get("last-event-id") {
        None => Ok(None),
        Some(value) => {
            let text = value.to_str().map_err(|_| bad_last_event_id())?;
            Ok(Some(text).filter(|text| !text.is_empty()))
        }
    }
}

fn bad_last_event_id() -> ApiError {
    ApiError::field("Last-Event-ID", "is not the id of an event of this stream")
}

/// `f1:N1,f2:N2` with percent-encoded ids. The place may be left out and is 0 then.
pub(crate) fn parse_feeds(text: &str) -> Result<Vec<(FeedId, SeqId)>, ApiError> {
    text.split(',').filter(|part| !part.is_empty()).map(parse_place).collect()
}

fn parse_place(part: &str) -> Result<(FeedId, SeqId), ApiError> {
    let bad = |problem: &str| ApiError::field("feeds", problem);
    // An id with a colon that is not encoded ends before its last colon when a number follows.
    let (name, seq) = match part.rsplit_once(':') {
        Some((name, digits)) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            let seq = digits.parse::<u64>().ok().filter(|seq| *seq <= WHOLE_MAX);
            (name, seq.ok_or_else(|| bad("a place must be below 2^53"))?)
        }
        _ => (part, 0),
    };
    let name = percent_decode_str(name).decode_utf8().map_err(|_| bad("an id is not UTF-8"))?;
    let feed = FeedId::parse(&name).map_err(|error| ApiError::field("feeds", error))?;
    Ok((feed, SeqId(seq)))
}

fn parse_cursor(text: &str) -> Result<Vec<(FeedId, SeqId)>, ApiError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad_last_event_id())?;
    let text = String::from_utf8(bytes).map_err(|_| bad_last_event_id())?;
    parse_feeds(&text).map_err(|_| bad_last_event_id())
}

/// The places of a multi-feed stream.
struct Cursor {
    places: BTreeMap<FeedId, SeqId>,
    events: u32,
    written: Instant,
}

impl Cursor {
    fn text(&self) -> String {
        let mut text = String::new();
        for (feed, seq) in &self.places {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(&format!("{}:{seq}", utf8_percent_encode(feed.as_str(), NON_ALPHANUMERIC)));
        }
        URL_SAFE_NO_PAD.encode(text)
    }

    /// The cursor for this event. A large one goes with some events only: resuming then repeats the few events since,
    /// and never skips one.
    fn id(&mut self, must: bool) -> Option<String> {
        self.events += 1;
        let small = self.places.len() <= 8;
        if !small && !must && self.events < CURSOR_EVERY && self.written.elapsed() < Duration::from_secs(1) {
            return None;
        }
        let text = self.text();
        if text.len() > CURSOR_EACH_BYTES {
            self.events = 0;
            self.written = Instant::now();
        }
        (text.len() <= CURSOR_BYTES_MAX).then_some(text)
    }
}

/// What stands in `id:`.
enum Ids {
    OneFeed,
    ManyFeeds(Cursor),
}

impl Ids {
    fn at(&mut self, feed: &FeedId, seq: SeqId) -> Option<String> {
        match self {
            Self::OneFeed => Some(seq.to_string()),
            Self::ManyFeeds(cursor) => {
                cursor.places.insert(feed.clone(), seq);
                cursor.id(false)
            }
        }
    }
}

/// Writes one event. JSON may hold line breaks between its tokens: each line gets its own `data:`, as the format wants.
fn event(out: &mut Vec<u8>, name: &str, id: Option<&str>, json: &[u8]) {
    if let Some(id) = id {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(id.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    for line in json.split(|byte| *byte == b'\n' || *byte == b'\r') {
        out.extend_from_slice(b"\ndata: ");
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b"\n\n");
}

/// The JSON of `caught_up`.
pub(crate) fn heads_json(heads: &[(FeedId, SeqId)]) -> serde_json::Value {
    let heads: Vec<_> =
        heads.iter().map(|(feed, seq)| json!({"feed_id": feed.as_str(), "head_seq_id": seq.0})).collect();
    json!(heads)
}

/// Whether the stream goes on after this delivery.
fn write(out: &mut Vec<u8>, ids: &mut Ids, delivery: &Delivery) -> bool {
    match delivery {
        Delivery::Entry(view) => {
            let id = ids.at(&view.entry.feed, view.entry.seq);
            let json = serde_json::to_vec(&EntryOut::new(view)).unwrap_or_default();
            event(out, "entry", id.as_deref(), &json);
        }
        Delivery::Gone(feed, gone) => {
            let id = ids.at(feed, gone.to);
            let mut json = serde_json::to_value(GoneOut::from(gone)).unwrap_or_default();
            json["feed_id"] = feed.as_str().into();
            event(out, "gone", id.as_deref(), json.to_string().as_bytes());
        }
        Delivery::CaughtUp(heads) => {
            let id = match ids {
                Ids::OneFeed => heads.first().map(|(_, seq)| seq.to_string()),
                Ids::ManyFeeds(cursor) => {
                    cursor.places.extend(heads.iter().cloned());
                    cursor.id(true)
                }
            };
            let json = json!({"heads": heads_json(heads)});
            event(out, "caught_up", id.as_deref(), json.to_string().as_bytes());
        }
        Delivery::Ended(feed) => {
            let json = json!({"feed_id": feed.as_str(), "reason": "no_longer_allowed"});
            event(out, "ended", None, json.to_string().as_bytes());
            match ids {
                Ids::OneFeed => return false,
                Ids::ManyFeeds(cursor) => {
                    cursor.places.remove(feed);
                }
            }
        }
    }
    true
}

fn write_end(out: &mut Vec<u8>, reason: &str) {
    event(out, "ended", None, json!({"feed_id": null, "reason": reason}).to_string().as_bytes());
}

/// Counts an open stream or WebSocket while it lives.
pub(crate) struct Counted(watch::Sender<usize>);

impl Counted {
    pub(crate) fn new(app: &App) -> Self {
        app.streams.send_modify(|open| *open += 1);
        metrics::gauge!("feedlog_http_streams_open").increment(1.0);
        Self(app.streams.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
        metrics::gauge!("feedlog_http_streams_open").decrement(1.0);
    }
}

/// Whether a credential that was good when a stream began still is: tokens are revoked and JWTs expire.
pub(crate) fn still_good(app: &App, token: Option<&str>) -> bool {
    let Some(token) = token else { return true };
    !matches!(
        app.services.store.auth().authenticate(Credential::Token(token)),
        Err(feedlog_service::auth::AuthError::Unauthenticated)
    )
}

fn respond(call: &Call, attachment: Attachment, ids: Ids) -> Response {
    let (frames, waiting) = mpsc::channel::<Bytes>(QUEUE_FRAMES);
    let producer = Producer {
        app: call.app.clone(),
        _gate: call.gate().clone(),
        token: call.token.clone(),
        attachment,
        ids,
        frames,
        _counted: Counted::new(&call.app),
    };
    tokio::spawn(producer.run());
    let body = stream::unfold(waiting, |mut waiting| async move {
        let frame = waiting.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(frame), waiting))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that collect answers would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct Producer {
    app: Arc<App>,
    _gate: Gate,
    token: Option<Arc<str>>,
    attachment: Attachment,
    ids: Ids,
    frames: mpsc::Sender<Bytes>,
    _counted: Counted,
}

impl Producer {
    async fn run(mut self) {
        let mut draining = self.app.draining.clone();
        let mut keep_alive = interval(Duration::from_millis(self.app.config.keep_alive_ms.max(1)));
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        keep_alive.reset();
        if !self.hand_over(b"retry: 2000\n\n".to_vec()).await {
            return;
        }
        loop {
            let mut frame = Vec::new();
            let go_on = tokio::select! {
                delivery = self.attachment.next() => match delivery {
                    Some(delivery) => self.gather(&mut frame, delivery),
                    None => {
                        write_end(&mut frame, "shutting_down");
                        false
                    }
                },
                _ = keep_alive.tick() => {
                    let good = still_good(&self.app, self.token.as_deref());
                    if good { frame.extend_from_slice(b": keep-alive\n\n") } else { write_end(&mut frame, "unauthenticated") }
                    good
                },
                () = drained(&mut draining) => {
                    write_end(&mut frame, "shutting_down");
                    false
                },
                () = self.frames.closed() => return,
            };
            if !self.hand_over(frame).await || !go_on {
                return;
            }
        }
    }

    /// Writes this delivery and those that are ready behind it.
    fn gather(&mut self, frame: &mut Vec<u8>, first: Delivery) -> bool {
        let mut go_on = write(frame, &mut self.ids, &first);
        while go_on && frame.len() < FRAME_BYTES {
            match self.attachment.next().now_or_never() {
                Some(Some(delivery)) => go_on = write(frame, &mut self.ids, &delivery),
                // The end of the service is met again, and told, in the next round.
                Some(None) | None => break,
            }
        }
        go_on
    }

    /// `false` when the client is gone or takes nothing.
    async fn hand_over(&self, frame: Vec<u8>) -> bool {
        let within = Duration::from_millis(self.app.config.stalled_reader_ms_max);
        match timeout(within, self.frames.send(Bytes::from(frame))).await {
            Ok(Ok(())) => true,
            Ok(Err(_)) => false,
            Err(_) => {
                metrics::counter!("feedlog_http_stalled_readers_total").increment(1);
                tracing::info!(front_end = "http", "a stream was closed: its reader takes nothing");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feeds_are_percent_encoded_and_may_hold_colons_and_commas() {
        let parsed = parse_feeds("a%2Fb%2C%3A:7,direct:abc:12,plain").unwrap();
        let shown: Vec<_> = parsed.iter().map(|(feed, seq)| (feed.as_str(), seq.0)).collect();
        assert_eq!(shown, [("a/b,:", 7), ("direct:abc", 12), ("plain", 0)]);
        for bad in ["%ff:1", "a%0ab:1", ":5", "a:9007199254740992"] {
            assert!(parse_feeds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cursor_covers_every_feed_and_comes_back() {
        let mut places = BTreeMap::new();
        for (name, seq) in [("irc/#a,b:1", 3), ("ü", 9)] {
            places.insert(FeedId::parse(name).unwrap(), SeqId(seq));
        }
        let mut cursor = Cursor { places: places.clone(), events: 0, written: Instant::now() };
        let id = cursor.id(false).unwrap();
        assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        assert_eq!(parse_cursor(&id).unwrap(), places.into_iter().collect::<Vec<_>>());
        assert!(parse_cursor("not base64!").is_err());
    }

    #[test]
    fn line_breaks_inside_json_become_data_lines() {
        let mut out = Vec::new();
        event(&mut out, "entry", Some("3"), b"{\"a\":\r\n1}");
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "id: 3\nevent: entry\ndata: {\"a\":\ndata: \ndata: 1}\n\n");
    }
}
