//! `feedlog feeds`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ServerArgs;
use super::fail::Fail;
use super::messages::{content, text_of};
use super::out::{self, Out};
use crate::client::{Client, segment};

/// Arguments of `feedlog feeds`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  feedlog feeds\n  feedlog feeds create team-x --title \"Team X\" --member ann --member bob\n  \
feedlog feeds members team-x\n  feedlog feeds add team-x eve --role admin\n  feedlog feeds remove team-x eve"
)]
pub(super) struct FeedsArgs {
    /// At most so many, most recent first; 0: all.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    #[command(subcommand)]
    command: Option<FeedsCommand>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum FeedsCommand {
    /// Create a feed.
    Create {
        /// Its id; without it the server makes one.
        feed: Option<String>,
        /// group, direct or open.
        #[arg(long, default_value = "group", value_parser = ["group", "direct", "open"])]
        kind: String,
        /// For people.
        #[arg(long)]
        title: Option<String>,
        /// A first member; may be repeated.
        #[arg(long = "member", value_name = "UID")]
        members: Vec<String>,
        /// How one becomes a member: open, approval or invite.
        #[arg(long, value_parser = ["open", "approval", "invite"])]
        join: Option<String>,
        /// What a member sees of the time before joining: all or since_join.
        #[arg(long, value_parser = ["all", "since_join"])]
        history: Option<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show one feed.
    Show {
        /// The feed.
        feed: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List the members of a feed.
    Members {
        /// The feed.
        feed: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Add a member.
    Add {
        /// The feed.
        feed: String,
        /// The user.
        uid: String,
        /// member, admin or owner.
        #[arg(long, default_value = "member", value_parser = ["member", "admin", "owner"])]
        role: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Remove a member; `me` leaves.
    Remove {
        /// The feed.
        feed: String,
        /// The user, or `me`.
        uid: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub(super) fn feeds(args: &FeedsArgs, out: Out) -> Result<(), Fail> {
    match &args.command {
        None => list(args, out),
        Some(FeedsCommand::Create { feed, kind, title, members, join, history, server }) => {
            let mut body = json!({"kind": kind});
            for (name, value) in [("feed_id", feed), ("title", title), ("join", join), ("history", history)] {
                if let Some(value) = value {
                    body[name] = value.as_str().into();
                }
            }
            if !members.is_empty() {
                body["members"] = members.clone().into();
            }
            let (_, answer) = server.client()?.post("/v1/feeds", &body)?;
            out.either(&answer, &text_of(&answer["feed_id"]))
        }
        Some(FeedsCommand::Show { feed, server }) => {
            let answer = server.client()?.get(&format!("/v1/feeds/{}", segment(feed)))?;
            if out.json {
                return out.value(&answer);
            }
            let rows = answer.as_object().into_iter().flatten();
            out.table(&["", ""], rows.map(|(name, value)| vec![name.clone(), text_of(value)]).collect())
        }
        Some(FeedsCommand::Members { feed, server }) => {
            let path = format!("/v1/feeds/{}/members", segment(feed));
            let members = all(&server.client()?, &path, "members", 0)?;
            if out.json {
                return out.value(&json!({"members": members}));
            }
            let rows = members.iter().map(|member| {
                vec![
                    text_of(&member["uid"]),
                    text_of(&member["role"]),
                    member["joined_seq_id"].to_string(),
                    member["joined_ms"].as_u64().map(out::time).unwrap_or_default(),
                ]
            });
            out.table(&["uid", "role", "joined seq", "joined"], rows.collect())
        }
        Some(FeedsCommand::Add { feed, uid, role, server }) => {
            let path = format!("/v1/feeds/{}/members", segment(feed));
            let (_, answer) = server.client()?.post(&path, &json!({"uid": uid, "role": role}))?;
            out.either(&answer, &format!("{uid} is a member of {feed}"))
        }
        Some(FeedsCommand::Remove { feed, uid, server }) => {
            let path = format!("/v1/feeds/{}/members/{}", segment(feed), segment(uid));
            let answer = server.client()?.delete(&path)?;
            out.either(&answer, &format!("{uid} is no member of {feed} any more"))
        }
    }
}

/// Every row of a paged list, or the first `limit`.
fn all(client: &Client, path: &str, list: &str, limit: u32) -> Result<Vec<Value>, Fail> {
    let mut rows: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let left = if limit == 0 { 1000 } else { limit as usize - rows.len() };
        let mut page = client.get(&format!("{path}?limit={}{cursor}", left.min(1000)))?;
        if let Value::Array(more) = page[list].take() {
            rows.extend(more);
        }
        match page["next"].as_str() {
            Some(next) if limit == 0 || rows.len() < limit as usize => {
                cursor = format!("&cursor={}", segment(next));
            }
            _ => return Ok(rows),
        }
    }
}

fn list(args: &FeedsArgs, out: Out) -> Result<(), Fail> {
    let feeds = all(&args.server.client()?, "/v1/feeds", "feeds", args.limit)?;
    if out.json {
        return out.value(&json!({"feeds": feeds}));
    }
    let rows = feeds.iter().map(|feed| {
        let mut flags = Vec::new();
        if feed["pinned"] == true {
            flags.push("pinned");
        }
        if feed["muted"] == true {
            flags.push("muted");
        }
        vec![
            text_of(&feed["feed_id"]),
            text_of(&feed["kind"]),
            feed["head_seq_id"].to_string(),
            feed["unread"].to_string(),
            feed["mentions"].to_string(),
            feed["unreplied"].to_string(),
            feed["active_ms"].as_u64().map(out::time).unwrap_or_default(),
            flags.join(" "),
            out::short(&content(&feed["last"]), 60),
        ]
    });
    let header = ["feed", "kind", "head", "unread", "mentions", "unreplied", "active", "", "last"];
    out.table(&header, rows.collect())
}
