//! `feedlog unread` and `unreplied`.

use clap::Args;
use serde_json::Value;

use super::ServerArgs;
use super::fail::Fail;
use super::messages::text_of;
use super::out::{self, Out};
use crate::client::segment;

/// Arguments of `feedlog unread`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  feedlog unread\n  feedlog unread team-x --explain      (which messages were counted, and why others not)"
)]
pub(super) struct UnreadArgs {
    /// One feed; none: all of yours.
    feed: Option<String>,
    /// List what was counted and what was left out, with the rule.
    #[arg(long, requires = "feed")]
    explain: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn unread(args: &UnreadArgs, out: Out) -> Result<(), Fail> {
    let client = args.server.client()?;
    let Some(feed) = &args.feed else {
        let answer = client.get("/v1/unread")?;
        if out.json {
            return out.value(&answer);
        }
        let rows = rows(&answer["feeds"], |row| {
            vec![text_of(&row["feed_id"]), row["unread"].to_string(), row["mentions"].to_string()]
        });
        out.table(&["feed", "unread", "mentions"], rows)?;
        return out.line(&format!(
            "total {} (without muted feeds {}), mentions {}",
            answer["total"], answer["total_unmuted"], answer["mentions"]
        ));
    };
    let path = format!("/v1/feeds/{}/unread?explain={}", segment(feed), args.explain);
    let answer = client.get(&path)?;
    if out.json {
        return out.value(&answer);
    }
    out.line(&format!(
        "{feed}: {} unread after {}, {} mention you",
        answer["unread"], answer["read_seq_id"], answer["mentions"]
    ))?;
    if args.explain {
        out.line(&serde_json::to_string_pretty(&answer["explain"]).unwrap_or_default())?;
    }
    Ok(())
}

fn rows(list: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    list.as_array().map(|list| list.iter().map(row).collect()).unwrap_or_default()
}

/// Arguments of `feedlog unreplied`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  feedlog unreplied\n  feedlog unreplied --as ann --limit 10 --json")]
pub(super) struct UnrepliedArgs {
    /// At most so many feeds.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn unreplied(args: &UnrepliedArgs, out: Out) -> Result<(), Fail> {
    let answer = args.server.client()?.get(&format!("/v1/unreplied?limit={}", args.limit))?;
    if out.json {
        return out.value(&answer);
    }
    // The list stands alone or under a name.
    let list = if answer.is_array() { &answer } else { &answer["unreplied"] };
    let now_ms = out::now_ms();
    let rows = rows(list, |row| {
        let since_ms = row["waiting_since_ms"].as_u64().unwrap_or(now_ms);
        vec![
            text_of(&row["feed_id"]),
            text_of(&row["from"]),
            row["count"].to_string(),
            row["seq_id"].to_string(),
            out::span(now_ms.saturating_sub(since_ms)),
        ]
    });
    out.table(&["feed", "from", "messages", "oldest seq", "waiting"], rows)
}
