//! `feedlog outbox`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ServerArgs;
use super::fail::Fail;
use super::messages::text_of;
use super::out::{self, Out};
use crate::client::segment;
use crate::config::Config;

/// Arguments of `feedlog outbox`.
#[derive(Debug, Args)]
#[command(
    long_about = "The push outbox tells other servers (webhooks) of what members without a connection have missed: at \
least once, in order per feed, signed. What it tells is read from the log; here you see how far each endpoint is, what was \
given up, and can have it told again. docs/OUTBOX.md describes what receivers get.",
    after_help = "Examples:\n  feedlog outbox list\n  feedlog outbox dead apns\n  \
feedlog outbox replay apns --dead\n  feedlog outbox replay apns --feed team/a --from 17\n  \
feedlog outbox replay apns --after-commit 90000\n  feedlog outbox drop apns --dead\n  \
feedlog outbox drop apns --backlog\n  feedlog outbox pause apns\n  feedlog outbox key --config /etc/feedlog.toml\n\n\
Needs a token with the scope admin."
)]
pub(super) struct OutboxArgs {
    #[command(subcommand)]
    command: OutboxCommand,
}

#[derive(Debug, Subcommand)]
enum OutboxCommand {
    /// The endpoints: how far each is behind, what fails, what was given up.
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Calls of an endpoint that were given up, oldest first.
    Dead {
        /// The endpoint.
        endpoint: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Tell an endpoint again. Items keep their ids; ids of calls end with the number of the replay.
    Replay {
        /// The endpoint.
        endpoint: String,
        /// All calls that were given up; those that are taken now are no more.
        #[arg(long, conflicts_with_all = ["feed", "after_commit"], required_unless_present_any = ["feed", "after_commit"])]
        dead: bool,
        /// This feed.
        #[arg(long, value_name = "FEED", conflicts_with = "after_commit")]
        feed: Option<String>,
        /// With --feed: from this seq_id on [default: 1].
        #[arg(long, value_name = "SEQ_ID", requires = "feed")]
        from: Option<u64>,
        /// Everything that was committed after this number.
        #[arg(long, value_name = "COMMIT")]
        after_commit: Option<u64>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Drop what is never to be told.
    Drop {
        /// The endpoint.
        endpoint: String,
        /// Calls that were given up.
        #[arg(long, conflicts_with_all = ["backlog", "replays"], required_unless_present_any = ["backlog", "replays"])]
        dead: bool,
        /// With --dead: only the one of this number, from `outbox dead`.
        #[arg(long, requires = "dead")]
        number: Option<u64>,
        /// Everything that was committed until now and that the endpoint was not told of.
        #[arg(long, conflicts_with = "replays")]
        backlog: bool,
        /// Replays that are not done.
        #[arg(long)]
        replays: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Stop the calls of an endpoint; nothing is lost meanwhile.
    Pause {
        /// The endpoint.
        endpoint: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Go on after `pause`, or after the endpoint had answered 410 Gone.
    Resume {
        /// The endpoint.
        endpoint: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Print the public keys that receivers check Ed25519 signatures (v1a) with.
    Key {
        /// The configuration file.
        #[arg(long, env = "FEEDLOG_CONFIG")]
        config: Option<PathBuf>,
    },
}

const PATH: &str = "/v1/admin/outbox";

pub(super) fn outbox(args: &OutboxArgs, out: Out) -> Result<(), Fail> {
    match &args.command {
        OutboxCommand::List { server } => list(server, out),
        OutboxCommand::Dead { endpoint, server } => dead(endpoint, server, out),
        OutboxCommand::Replay { endpoint, feed, from, after_commit, server, .. } => {
            let body = match (feed, after_commit) {
                (Some(feed), _) => json!({"feed_id": feed, "from_seq_id": from.unwrap_or(1)}),
                (None, Some(after)) => json!({"after_commit": after}),
                (None, None) => json!({"dead": true}),
            };
            let (_, answer) = server.client()?.post(&path(endpoint, "replay"), &body)?;
            let number = text_of(&answer["replay"]);
            out.either(&answer, &format!("replay {number}: ids of its calls end with :r{number}"))
        }
        OutboxCommand::Drop { endpoint, number, backlog, replays, server, .. } => {
            let mut body = json!({"what": "dead"});
            if let Some(number) = number {
                body["number"] = (*number).into();
            }
            if *backlog {
                body["what"] = "backlog".into();
            } else if *replays {
                body["what"] = "replays".into();
            }
            let (_, answer) = server.client()?.post(&path(endpoint, "drop"), &body)?;
            out.either(&answer, &format!("{} dropped", text_of(&answer["dropped"])))
        }
        OutboxCommand::Pause { endpoint, server } => pause(endpoint, true, server, out),
        OutboxCommand::Resume { endpoint, server } => pause(endpoint, false, server, out),
        OutboxCommand::Key { config } => key(config.as_deref(), out),
    }
}

fn path(endpoint: &str, what: &str) -> String {
    format!("{PATH}/{}/{what}", segment(endpoint))
}

fn list(server: &ServerArgs, out: Out) -> Result<(), Fail> {
    let answer = server.client()?.get(PATH)?;
    if out.json {
        return out.value(&answer);
    }
    let rows = answer["endpoints"].as_array().into_iter().flatten().map(|one| {
        let state = match (one["paused"].as_str(), one["full"].as_bool()) {
            (Some("gone"), _) => "paused: gone (410)".to_owned(),
            (Some(_), _) => "paused".to_owned(),
            (None, Some(true)) => "stands still: dead letters are full".to_owned(),
            (None, _) if one["retrying"].as_u64() > Some(0) || one["parked"].as_u64() > Some(0) => {
                "retrying".to_owned()
            }
            (None, _) => "ok".to_owned(),
        };
        let date = |value: &Value| value.as_u64().map(out::time).unwrap_or_default();
        vec![
            text_of(&one["name"]),
            state,
            text_of(&one["lag_commits"]),
            text_of(&one["in_flight"]),
            text_of(&one["parked"]),
            text_of(&one["dead"]),
            text_of(&one["replays"]),
            date(&one["last_delivered_ms"]),
            format!("{} {}", text_of(&one["last_error"]), date(&one["last_error_ms"])).trim().to_owned(),
        ]
    });
    let header = [
        "endpoint",
        "state",
        "behind (commits)",
        "in flight",
        "parked feeds",
        "dead",
        "replays",
        "last taken",
        "last error",
    ];
    out.table(&header, rows.collect())
}

fn dead(endpoint: &str, server: &ServerArgs, out: Out) -> Result<(), Fail> {
    let client = server.client()?;
    let mut letters: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let mut page = client.get(&format!("{}?limit=1000{cursor}", path(endpoint, "dead")))?;
        if let Value::Array(rows) = page["dead"].take() {
            letters.extend(rows);
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={}", segment(next)),
            None => break,
        }
    }
    if out.json {
        return out.value(&json!({"dead": letters}));
    }
    let rows = letters.iter().map(|one| {
        vec![
            text_of(&one["number"]),
            one["time_ms"].as_u64().map(out::time).unwrap_or_default(),
            text_of(&one["feed_id"]),
            format!("{}–{}", text_of(&one["first_seq_id"]), text_of(&one["last_seq_id"])),
            text_of(&one["attempts"]),
            text_of(&one["error"]),
        ]
    });
    out.table(&["number", "given up", "feed", "entries", "tries", "last error"], rows.collect())
}

fn pause(endpoint: &str, on: bool, server: &ServerArgs, out: Out) -> Result<(), Fail> {
    let (_, answer) = server.client()?.post(&path(endpoint, "pause"), &json!({"on": on}))?;
    out.either(&answer, &format!("{endpoint} {}", if on { "paused" } else { "goes on" }))
}

fn key(config: Option<&std::path::Path>, out: Out) -> Result<(), Fail> {
    let endpoints = Config::load(config)?.endpoints()?;
    if out.json {
        let keys: Vec<_> = endpoints
            .public_keys
            .iter()
            .map(|(name, key)| json!({"name": name, "public_key": key}))
            .collect();
        return out.value(&json!({"endpoints": keys}));
    }
    let rows = endpoints.public_keys.into_iter().map(|(name, key)| vec![name, key.unwrap_or_default()]);
    out.table(&["endpoint", "public key (v1a)"], rows.collect())
}
