//! `/v1/admin/outbox`: how the push outbox is, and what can be told again or dropped. Administrators only.

use axum::http::Method;
use feedlog_core::ids::SeqId;
use feedlog_service::admin::Admin;
use feedlog_service::outbox::{DeadLetter, EndpointStatus, OutboxError, Pause, Replay};
use serde::Serialize;
use utoipa::ToSchema;

use super::call::{Call, answer};
use super::route::{Answer, CURSOR, LIMIT, Param, Route, Shape, Size};
use super::wire::input::{DropBody, DropWord, PauseBody, ReplayBody};
use crate::errors::{ApiError, Kind};

const ENDPOINT: Param = Param::path("endpoint", Shape::Text(64), "The endpoint's name.");

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/v1/admin/outbox", "list_outbox", list)
            .tag("admin", "The endpoints of the push outbox: how far each is, what fails, what was given up.")
            .gives::<OutboxOut<'_>>(200, "All endpoints."),
        Route::new(Method::GET, "/v1/admin/outbox/{endpoint}/dead", "list_dead_letters", dead)
            .tag("admin", "Calls that were given up, oldest first.")
            .params(&[ENDPOINT, LIMIT, CURSOR])
            .gives::<DeadPageOut<'_>>(200, "A page of dead letters.")
            .fails(&[Kind::NotFound]),
        Route::new(Method::POST, "/v1/admin/outbox/{endpoint}/replay", "replay_outbox", replay)
            .tag("admin", "Tell an endpoint again: its dead letters, a feed from a place, or everything after a commit.")
            .params(&[ENDPOINT])
            .takes::<ReplayBody>(Size::Small)
            .gives::<ReplayOut>(202, "Durable, and done as soon as the endpoint takes it.")
            .fails(&[Kind::NotFound, Kind::Rejected, Kind::RateLimited]),
        Route::new(Method::POST, "/v1/admin/outbox/{endpoint}/drop", "drop_outbox", drop_some)
            .tag("admin", "Forget dead letters, skip the backlog, or end replays: what is dropped is not told.")
            .params(&[ENDPOINT])
            .takes::<DropBody>(Size::Small)
            .gives::<DropOut>(200, "Dropped, durable.")
            .fails(&[Kind::NotFound, Kind::Rejected]),
        Route::new(Method::POST, "/v1/admin/outbox/{endpoint}/pause", "pause_outbox", pause)
            .tag("admin", "Stop or resume the calls of an endpoint; nothing is lost meanwhile.")
            .params(&[ENDPOINT])
            .takes::<PauseBody>(Size::Small)
            .gives::<EndpointOut<'_>>(200, "In force, durable.")
            .fails(&[Kind::NotFound]),
    ]
}

/// The endpoints of the push outbox.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Outbox)]
struct OutboxOut<'a> {
    endpoints: Vec<EndpointOut<'a>>,
}

/// One endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OutboxEndpoint)]
struct EndpointOut<'a> {
    name: &'a str,
    /// It was told of everything that was committed up to here.
    cursor: u64,
    /// How many commits it is behind.
    lag_commits: u64,
    /// Calls that wait for their answer.
    in_flight: usize,
    /// Calls that failed and wait to be made again.
    retrying: usize,
    /// Feeds whose calls fail again and again; they are told apart and hold up nobody else.
    parked: usize,
    /// Why it gets no calls: an administrator asked for it, or the endpoint answered 410 Gone.
    paused: Option<PauseWord>,
    /// There is no room for more dead letters: it stands still, and loses nothing.
    full: bool,
    /// Calls that were given up.
    dead: usize,
    /// Replays that are not done.
    replays: usize,
    /// Calls that were taken since the start.
    delivered: u64,
    /// Tries that failed since the start.
    retried: u64,
    last_delivered_ms: Option<u64>,
    /// Why the last try that failed did: never what the endpoint said.
    last_error: Option<&'a str>,
    last_error_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum PauseWord {
    Asked,
    Gone,
}

impl<'a> From<&'a EndpointStatus> for EndpointOut<'a> {
    fn from(status: &'a EndpointStatus) -> Self {
        Self {
            name: &status.name,
            cursor: status.cursor,
            lag_commits: status.lag_commits,
            in_flight: status.in_flight,
            retrying: status.retrying,
            parked: status.parked,
            paused: status.paused.map(|pause| match pause {
                Pause::Asked => PauseWord::Asked,
                Pause::Gone => PauseWord::Gone,
            }),
            full: status.full,
            dead: status.dead,
            replays: status.replays,
            delivered: status.delivered,
            retried: status.retried,
            last_delivered_ms: status.last_delivered_ms,
            last_error: status.last_error.as_ref().map(|(text, _)| text.as_str()),
            last_error_ms: status.last_error.as_ref().map(|(_, ms)| *ms),
        }
    }
}

/// A page of calls that were given up.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeadLetterPage)]
struct DeadPageOut<'a> {
    dead: Vec<DeadOut<'a>>,
    next: Option<String>,
}

/// A call that was given up. What it would have said is in the log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeadLetter)]
struct DeadOut<'a> {
    number: u64,
    /// The id of the call.
    id: &'a str,
    feed_id: &'a str,
    first_seq_id: u64,
    last_seq_id: u64,
    /// How often it was tried.
    attempts: u32,
    /// Why the last try failed.
    error: &'a str,
    time_ms: u64,
}

impl<'a> From<&'a DeadLetter> for DeadOut<'a> {
    fn from(dead: &'a DeadLetter) -> Self {
        Self {
            number: dead.number,
            id: &dead.id,
            feed_id: &dead.feed,
            first_seq_id: dead.first.0,
            last_seq_id: dead.last.0,
            attempts: dead.tries,
            error: &dead.error,
            time_ms: dead.time_ms,
        }
    }
}

/// A replay that will be done.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OutboxReplay)]
struct ReplayOut {
    /// The ids of its calls end with `:r` and this number.
    replay: u64,
}

/// What was dropped.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OutboxDropped)]
struct DropOut {
    /// How many dead letters, commits or replays.
    dropped: u64,
}

impl From<OutboxError> for ApiError {
    fn from(error: OutboxError) -> Self {
        match error {
            OutboxError::NoSuchEndpoint => Self::new(Kind::NotFound, error.to_string()),
            OutboxError::Nothing => Self::new(Kind::Rejected, error.to_string()),
            OutboxError::TooMany => Self::new(Kind::RateLimited, error.to_string()),
            OutboxError::Read(error) => error.into(),
            OutboxError::Write(error) => error.into(),
        }
    }
}

fn admin(call: &Call) -> Result<Admin, ApiError> {
    Ok(call.app.services.store.admin(call.gate().principal())?)
}

fn endpoint(call: &Call) -> &str {
    call.values.text("endpoint").unwrap_or_default()
}

async fn list(call: Call) -> Answer {
    let endpoints = admin(&call)?.outbox();
    answer(200, &OutboxOut { endpoints: endpoints.iter().map(EndpointOut::from).collect() })
}

async fn dead(call: Call) -> Answer {
    let admin = admin(&call)?;
    let bad = |_| ApiError::field("cursor", "is not one of ours");
    let after = call.cursor().map(|text| text.parse::<u64>().map_err(bad)).transpose()?;
    let limit = call.limit();
    let dead = admin.outbox_dead(endpoint(&call), after, limit).await?;
    let next = if dead.len() == limit { dead.last().map(|dead| dead.number.to_string()) } else { None };
    answer(200, &DeadPageOut { dead: dead.iter().map(DeadOut::from).collect(), next })
}

async fn replay(call: Call) -> Answer {
    let admin = admin(&call)?;
    let body: ReplayBody = call.json()?;
    let replay = match (body.dead, body.feed_id, body.from_seq_id, body.after_commit) {
        (Some(true), None, None, None) => Replay::Dead,
        (None, Some(feed), from, None) => Replay::Feed(feed.0, SeqId(from.map_or(1, |from| from.0))),
        (None, None, None, Some(after)) => Replay::AfterCommit(after.0),
        _ => {
            let problem = "give one of dead (true), feed_id (with from_seq_id), after_commit";
            return Err(ApiError::new(Kind::Rejected, problem));
        }
    };
    let number = admin.outbox_replay(endpoint(&call), replay).await?;
    answer(202, &ReplayOut { replay: number })
}

async fn drop_some(call: Call) -> Answer {
    let admin = admin(&call)?;
    let body: DropBody = call.json()?;
    let name = endpoint(&call);
    if body.number.is_some() && body.what != DropWord::Dead {
        return Err(ApiError::new(Kind::Rejected, "number: only dead letters have one"));
    }
    let dropped = match body.what {
        DropWord::Dead => admin.outbox_drop_dead(name, body.number.map(|number| number.0)).await?,
        DropWord::Backlog => admin.outbox_drop_backlog(name).await?,
        DropWord::Replays => admin.outbox_drop_replays(name).await?,
    };
    answer(200, &DropOut { dropped })
}

async fn pause(call: Call) -> Answer {
    let admin = admin(&call)?;
    let body: PauseBody = call.json()?;
    let name = endpoint(&call);
    admin.outbox_pause(name, body.on).await?;
    let status = admin.outbox().into_iter().find(|status| *status.name == *name);
    let status = status.ok_or_else(|| ApiError::from(OutboxError::NoSuchEndpoint))?;
    answer(200, &EndpointOut::from(&status))
}
