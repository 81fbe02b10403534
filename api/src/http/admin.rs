//! `/v1/admin`: tokens, all feeds, verify and rebuild, backup, export, limits. Administrators only.

use std::path::{Component, Path, PathBuf};

use axum::body::Body;
use axum::http::{HeaderValue, Method, header};
use axum::response::Response;
use bytes::Bytes;
use feedlog_core::command::Scopes;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::limits;
use feedlog_service::admin::{Admin, Job, JobKind, JobState};
use feedlog_service::auth::{AuthError, IssuedToken, NewToken, TokenInfo};
use feedlog_service::export::Writer;
use futures_util::stream;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::app::drained;
use super::call::{Call, answer};
use super::route::{Answer, CURSOR, LIMIT, Param, Route, Shape, Size};
use super::wire::input::{BackupBody, CreateTokenBody, ScopeWord};
use super::wire::names::WHOLE_MAX;
use super::wire::output::{FeedOut, FeedPageOut};
use crate::errors::{ApiError, Kind};

/// Entries read at once for an export.
const EXPORT_ENTRIES: usize = 500;

const TOKEN_ID: Param = Param::path("id", Shape::Text(64), "The token's id.");
const JOB_ID: Param = Param::path("id", Shape::Int(0, WHOLE_MAX as i64), "The job's number.");
const WAIT: Param = Param::query("wait", Shape::Bool, "Whether to wait for the end of the job.");
const EXPORT_FEED: Param = Param::query(
    "feed",
    Shape::Feeds,
    "Only these feeds, the parameter given once for each; all when absent.",
);

pub(crate) fn routes() -> Vec<Route> {
    let lines = Some(("application/x-ndjson", json!({"type": "string"})));
    let limits = json!({"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}});
    vec![
        Route::new(Method::POST, "/v1/admin/tokens", "create_token", create_token)
            .tag("admin", "Make a token. Its secret is shown this once.")
            .takes::<CreateTokenBody>(Size::Small)
            .gives::<IssuedOut<'_>>(201, "The token with its secret.")
            .fails(&[Kind::Rejected]),
        Route::new(Method::GET, "/v1/admin/tokens", "list_tokens", list_tokens)
            .tag("admin", "All tokens, without their secrets.")
            .params(&[LIMIT, CURSOR])
            .gives::<TokenPageOut<'_>>(200, "A page of tokens."),
        Route::new(Method::DELETE, "/v1/admin/tokens/{id}", "revoke_token", revoke_token)
            .tag("admin", "Revoke a token; again is fine.")
            .params(&[TOKEN_ID])
            .gives::<TokenOut<'_>>(200, "Revoked, durable and in force."),
        Route::new(Method::GET, "/v1/admin/feeds", "list_all_feeds", all_feeds)
            .tag("admin", "All feeds by name.")
            .params(&[LIMIT, CURSOR])
            .gives::<FeedPageOut<'_>>(200, "A page of feeds."),
        Route::new(Method::POST, "/v1/admin/verify", "start_verify", verify)
            .tag("admin", "Check every feed, checksum, chain, ordinal and row in the background.")
            .gives::<JobOut<'_>>(202, "The job, new or already running."),
        Route::new(Method::POST, "/v1/admin/rebuild", "start_rebuild", rebuild)
            .tag("admin", "As verify, and replace rows that differ from their replay.")
            .gives::<JobOut<'_>>(202, "The job, new or already running."),
        Route::new(Method::GET, "/v1/admin/jobs", "list_jobs", jobs)
            .tag("admin", "Jobs of this run, newest first.")
            .gives::<JobListOut<'_>>(200, "The jobs."),
        Route::new(Method::GET, "/v1/admin/jobs/{id}", "get_job", job)
            .tag("admin", "How far a job is.")
            .open_ended()
            .params(&[JOB_ID, WAIT])
            .gives::<JobOut<'_>>(200, "The job."),
        Route::new(Method::POST, "/v1/admin/backup", "backup", backup)
            .tag("admin", "A consistent copy of everything durable, on the server, while writes go on.")
            .open_ended()
            .takes::<BackupBody>(Size::Small)
            .gives::<BackupOut>(201, "Made.")
            .fails(&[Kind::AlreadyExists, Kind::Rejected]),
        Route::new(Method::GET, "/v1/admin/export", "export", export)
            .tag("admin", "Feeds as lines of JSON with what proves them (docs/FORMAT.md).")
            .open_ended()
            .params(&[EXPORT_FEED])
            .gives_other(200, "The lines; a file without its manifest line was cut off.", lines)
            .fails(&[Kind::FeedNotFound]),
        Route::new(Method::GET, "/v1/admin/limits", "limits", show_limits)
            .tag("admin", "Every bound in force, with its unit in its name.")
            .gives_other(200, "Name and value.", Some(("application/json", limits))),
    ]
}

fn admin(call: &Call) -> Result<Admin, ApiError> {
    Ok(call.app.services.store.admin(call.gate().principal())?)
}

/// A token without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Token)]
struct TokenOut<'a> {
    id: &'a str,
    uid: &'a str,
    scopes: Vec<ScopeWord>,
    created_ms: u64,
    expires_ms: Option<u64>,
    revoked_ms: Option<u64>,
    note: Option<&'a str>,
}

impl<'a> From<&'a TokenInfo> for TokenOut<'a> {
    fn from(info: &'a TokenInfo) -> Self {
        let scopes = [
            (info.scopes.user, ScopeWord::User),
            (info.scopes.send_as, ScopeWord::SendAs),
            (info.scopes.audit, ScopeWord::Audit),
            (info.scopes.admin, ScopeWord::Admin),
        ];
        Self {
            id: &info.id,
            uid: info.uid.as_str(),
            scopes: scopes.into_iter().filter_map(|(has, word)| has.then_some(word)).collect(),
            created_ms: info.created_ms,
            expires_ms: info.expires_ms,
            revoked_ms: info.revoked_ms,
            note: info.note.as_deref(),
        }
    }
}

/// A new token.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IssuedToken)]
struct IssuedOut<'a> {
    id: &'a str,
    /// What the bearer presents; cannot be seen again.
    token: &'a str,
    uid: &'a str,
    scopes: Vec<ScopeWord>,
    created_ms: u64,
    expires_ms: Option<u64>,
    note: Option<&'a str>,
}

impl<'a> From<&'a IssuedToken> for IssuedOut<'a> {
    fn from(issued: &'a IssuedToken) -> Self {
        let TokenOut { id, uid, scopes, created_ms, expires_ms, note, .. } = TokenOut::from(&issued.info);
        Self { id, token: issued.secret.expose(), uid, scopes, created_ms, expires_ms, note }
    }
}

/// A page of tokens.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TokenPage)]
struct TokenPageOut<'a> {
    tokens: Vec<TokenOut<'a>>,
    next: Option<&'a str>,
}

async fn create_token(call: Call) -> Answer {
    let body: CreateTokenBody = call.json()?;
    let words = body.scopes.unwrap_or_else(|| vec![ScopeWord::User]);
    if words.is_empty() || words.len() > 4 {
        return Err(ApiError::field("scopes", "must have 1 to 4 items"));
    }
    let scopes = Scopes {
        user: words.contains(&ScopeWord::User),
        send_as: words.contains(&ScopeWord::SendAs),
        audit: words.contains(&ScopeWord::Audit),
        admin: words.contains(&ScopeWord::Admin),
    };
    let token = NewToken {
        uid: body.uid.0,
        scopes,
        expires_ms: body.expires_ms.map(|ms| ms.0),
        note: body.note.map(|note| note.0),
    };
    let issued = call.app.services.store.auth().create_token(call.gate().principal(), token).await;
    // What is left to refuse is well formed: a time that has passed.
    let issued = issued.map_err(|error| match error {
        AuthError::BadField { field, problem } => {
            ApiError::new(Kind::Rejected, format!("{field}: {problem}")).with("field", field)
        }
        other => other.into(),
    })?;
    answer(201, &IssuedOut::from(&issued))
}

async fn list_tokens(call: Call) -> Answer {
    let auth = call.app.services.store.auth();
    let page = auth.tokens(call.gate().principal(), call.cursor(), call.limit()).await?;
    let tokens = page.rows.iter().map(TokenOut::from).collect();
    answer(200, &TokenPageOut { tokens, next: page.next.as_deref() })
}

async fn revoke_token(call: Call) -> Answer {
    let id = call.values.text("id").unwrap_or_default();
    let info = call.app.services.store.auth().revoke_token(call.gate().principal(), id).await?;
    answer(200, &TokenOut::from(&info))
}

async fn all_feeds(call: Call) -> Answer {
    admin(&call)?;
    let page = call.gate().all_feeds(call.cursor(), call.limit()).await?;
    answer(
        200,
        &FeedPageOut { feeds: page.rows.iter().map(FeedOut::from).collect(), next: page.next.clone() },
    )
}

/// What runs over all feeds in the background.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Job)]
struct JobOut<'a> {
    id: u64,
    kind: JobKindWord,
    state: JobStateWord,
    started_ms: u64,
    ended_ms: Option<u64>,
    feeds_done: u64,
    entries_done: u64,
    rows_done: u64,
    /// The feed it is at, or stopped at.
    at: Option<&'a str>,
    problem_count: u64,
    /// The first of them.
    problems: Vec<ProblemOut<'a>>,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum JobKindWord {
    Verify,
    Rebuild,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum JobStateWord {
    Running,
    Done,
    Failed,
}

/// Something that is not as it should be.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Problem)]
struct ProblemOut<'a> {
    feed_id: &'a str,
    /// 0 for rows.
    seq_id: u64,
    what: &'a str,
}

/// Jobs of this run.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = JobList)]
struct JobListOut<'a> {
    jobs: Vec<JobOut<'a>>,
}

impl<'a> From<&'a Job> for JobOut<'a> {
    fn from(job: &'a Job) -> Self {
        Self {
            id: job.id,
            kind: match job.kind {
                JobKind::Verify => JobKindWord::Verify,
                JobKind::Rebuild => JobKindWord::Rebuild,
            },
            state: match job.state {
                JobState::Running => JobStateWord::Running,
                JobState::Done => JobStateWord::Done,
                JobState::Failed => JobStateWord::Failed,
            },
            started_ms: job.started_ms,
            ended_ms: job.ended_ms,
            feeds_done: job.feeds_done,
            entries_done: job.entries_done,
            rows_done: job.rows_done,
            at: job.at.as_ref().map(FeedId::as_str),
            problem_count: job.problem_count,
            problems: job
                .problems
                .iter()
                .map(|problem| ProblemOut {
                    feed_id: problem.feed.as_str(),
                    seq_id: problem.seq.0,
                    what: &problem.what,
                })
                .collect(),
        }
    }
}

async fn verify(call: Call) -> Answer {
    answer(202, &JobOut::from(&admin(&call)?.start(JobKind::Verify)))
}

async fn rebuild(call: Call) -> Answer {
    answer(202, &JobOut::from(&admin(&call)?.start(JobKind::Rebuild)))
}

async fn jobs(call: Call) -> Answer {
    let jobs = admin(&call)?.jobs();
    answer(200, &JobListOut { jobs: jobs.iter().map(JobOut::from).collect() })
}

async fn job(call: Call) -> Answer {
    let admin = admin(&call)?;
    let id = call.values.int("id").unwrap_or_default().unsigned_abs();
    let known = admin.job(id);
    let job = if call.values.flag("wait") && known.is_some() {
        let mut draining = call.app.draining.clone();
        tokio::select! {
            job = admin.finished(id) => job,
            () = drained(&mut draining) => admin.job(id),
        }
    } else {
        known
    };
    let job = job.ok_or_else(|| ApiError::new(Kind::NotFound, "no such job"))?;
    answer(200, &JobOut::from(&job))
}

/// A backup that was made.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Backup)]
struct BackupOut {
    dir: String,
    /// The newest commit when it began; everything up to it is in the backup.
    commit_no: u64,
}

async fn backup(call: Call) -> Answer {
    let admin = admin(&call)?;
    let body: BackupBody = call.json()?;
    let dir = backup_dir(call.app.config.backup_dir.as_deref(), &body.dir.0)?;
    if dir.exists() {
        return Err(ApiError::new(Kind::AlreadyExists, "this directory exists"));
    }
    let commit_no = call.app.services.store.status().commit_no;
    admin.backup(dir).await?;
    answer(201, &BackupOut { dir: body.dir.0.to_string(), commit_no })
}

/// Where a backup goes: below the configured directory if there is one, else where an absolute path says.
fn backup_dir(root: Option<&Path>, dir: &str) -> Result<PathBuf, ApiError> {
    let refused = |why: &str| Err(ApiError::new(Kind::Rejected, why).with("field", "dir"));
    let path = root.unwrap_or(Path::new("")).join(dir);
    if path.components().any(|part| matches!(part, Component::ParentDir)) {
        return refused("dir: must not contain ..");
    }
    match root {
        Some(root) if !path.starts_with(root) || path == root => {
            refused("dir: must be below the configured directory for backups")
        }
        None if !path.is_absolute() => refused("dir: must be absolute"),
        _ => Ok(path),
    }
}

async fn export(call: Call) -> Answer {
    let admin = admin(&call)?;
    let mut only = call.values.feeds("feed").to_vec();
    only.sort();
    only.dedup();
    for feed in &only {
        // Before the first line, so that an absent feed is a 404 and not an empty file.
        call.gate().feed(feed).await?;
    }
    let (lines, waiting) = mpsc::channel::<Result<Bytes, ExportBroke>>(4);
    let now_ms = call.app.clock.now_ms();
    tokio::spawn(async move {
        if let Err(broke) = write_export(&admin, only, now_ms, &lines).await {
            // The body breaks off, so that no client takes half an export for a whole one.
            let _ = lines.send(Err(broke)).await;
        }
    });
    let body = stream::unfold(waiting, |mut waiting| async move { Some((waiting.recv().await?, waiting)) });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    let file = HeaderValue::from_static("attachment; filename=\"feedlog-export.jsonl\"");
    headers.insert(header::CONTENT_DISPOSITION, file);
    Ok(response)
}

/// The export ended before its manifest.
#[derive(Debug, thiserror::Error)]
#[error("the export broke off")]
struct ExportBroke;

async fn write_export(
    admin: &Admin,
    only: Vec<FeedId>,
    now_ms: u64,
    lines: &mpsc::Sender<Result<Bytes, ExportBroke>>,
) -> Result<(), ExportBroke> {
    let mut writer = Writer::default();
    let mut out = writer.header(now_ms);
    out.push('\n');
    let mut after = None;
    loop {
        let feeds = if only.is_empty() {
            admin.feeds(after.take(), EXPORT_ENTRIES).await.map_err(|_| ExportBroke)?
        } else {
            only.clone()
        };
        for feed in &feeds {
            export_feed(admin, feed, &mut writer, &mut out, lines).await?;
        }
        match feeds.last() {
            Some(last) if only.is_empty() => after = Some(last.clone()),
            _ => break,
        }
    }
    out.push_str(&writer.manifest());
    out.push('\n');
    lines.send(Ok(Bytes::from(out))).await.map_err(|_| ExportBroke)
}

async fn export_feed(
    admin: &Admin,
    feed: &FeedId,
    writer: &mut Writer,
    out: &mut String,
    lines: &mpsc::Sender<Result<Bytes, ExportBroke>>,
) -> Result<(), ExportBroke> {
    let mut seq = SeqId::ZERO;
    loop {
        let records = admin.export(feed.clone(), seq, EXPORT_ENTRIES).await.map_err(|_| ExportBroke)?;
        let Some(last) = records.last() else { break };
        seq = last.entry.seq;
        for record in &records {
            out.push_str(&writer.entry(record));
            out.push('\n');
        }
        lines.send(Ok(Bytes::from(std::mem::take(out)))).await.map_err(|_| ExportBroke)?;
    }
    if let Some(line) = writer.end_feed() {
        out.push_str(&line);
        out.push('\n');
    }
    Ok(())
}

async fn show_limits(call: Call) -> Answer {
    admin(&call)?;
    let config = &call.app.config;
    answer(
        200,
        &json!({
            "feed_id_bytes_max": limits::FEED_ID_BYTES_MAX,
            "uid_bytes_max": limits::UID_BYTES_MAX,
            "client_msg_id_bytes_max": limits::CLIENT_MSG_ID_BYTES_MAX,
            "title_bytes_max": limits::TITLE_BYTES_MAX,
            "meta_bytes_max": limits::META_BYTES_MAX,
            "reason_bytes_max": limits::REASON_BYTES_MAX,
            "mentions_max": limits::MENTIONS_MAX,
            "page_entries_max": limits::PAGE_ENTRIES_MAX,
            "page_bytes_max": limits::PAGE_BYTES_MAX,
            "payload_bytes_max": config.payload_bytes_max,
            "batch_bytes_max": config.batch_bytes_max,
            "header_bytes_max": config.header_bytes_max,
            "connections_max": config.connections_max,
            "connections_per_address_max": config.connections_per_address_max,
            "h2_streams_max": config.h2_streams_max,
            "stream_feeds_max": config.stream_feeds_max,
            "websocket_in_flight_max": config.websocket_in_flight_max,
            "header_read_ms_max": config.header_read_ms_max,
            "body_read_ms_max": config.body_read_ms_max,
            "idle_ms_max": config.idle_ms_max,
            "answer_ms_max": config.answer_ms_max,
            "stalled_reader_ms_max": config.stalled_reader_ms_max,
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_stay_below_the_configured_directory() {
        let root = Some(Path::new("/backups"));
        assert_eq!(backup_dir(root, "monday").unwrap(), Path::new("/backups/monday"));
        assert_eq!(backup_dir(root, "/backups/monday").unwrap(), Path::new("/backups/monday"));
        for bad in ["/etc/x", "../x", "a/../../x", "", "/backups"] {
            assert!(backup_dir(root, bad).is_err(), "{bad}");
        }
        assert_eq!(backup_dir(None, "/var/b").unwrap(), Path::new("/var/b"));
        assert!(backup_dir(None, "b").is_err());
    }
}
