//! `feedlog send`, `pull` and `recall`.

use std::io::Read;

use clap::Args;
use serde_json::{Map, Value, json};

use super::ServerArgs;
use super::fail::Fail;
use super::out::{self, Out};
use crate::client::{Client, segment};

/// Arguments of `feedlog send`.
#[derive(Debug, Args)]
#[command(
    long_about = "Sends a message and prints its seq_id once it is durable. Give a --client-msg-id and a retry is \
harmless: the second send answers with the first seq_id.",
    after_help = "Examples:\n  feedlog send team-x \"lunch at twelve?\" --to-reply\n  \
feedlog send --to bob \"hello bob\"          (the direct feed of you two)\n  \
feedlog send team-x --payload '{\"lat\":52.5,\"lon\":13.4}' --kind location\n  \
echo \"long text\" | feedlog send team-x -"
)]
pub(super) struct SendArgs {
    /// The feed and the text; with --to only the text. `-` reads the text from standard input.
    #[arg(required = true, num_args = 1..=2, value_names = ["FEED", "TEXT"])]
    words: Vec<String>,
    /// Send to the direct feed with this user; it is created when there is none.
    #[arg(long, value_name = "UID")]
    to: Option<String>,
    /// The payload as JSON, instead of a text.
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// text, image, voice, video, shortvideo, location, link, custom or system.
    #[arg(long, default_value = "text")]
    kind: String,
    /// Your own id for the message; sending it again answers with the first seq_id.
    #[arg(long, value_name = "ID")]
    client_msg_id: Option<String>,
    /// The message that this one answers.
    #[arg(long, value_name = "SEQ")]
    reply_to: Option<u64>,
    /// Address this user; may be repeated; @all addresses everybody.
    #[arg(long = "mention", value_name = "UID")]
    mentions: Vec<String>,
    /// Ask for an answer.
    #[arg(long, conflicts_with = "no_reply")]
    to_reply: bool,
    /// Say that no answer is needed.
    #[arg(long)]
    no_reply: bool,
    /// What you have seen of the feed.
    #[arg(long, value_name = "SEQ")]
    seen: Option<u64>,
    /// Hide the content from then on, milliseconds since the epoch.
    #[arg(long, value_name = "MS")]
    expires_ms: Option<u64>,
    /// Written by a program: answers nothing and asks for nothing.
    #[arg(long)]
    auto: bool,
    /// Send only if this is the head of the feed.
    #[arg(long, value_name = "SEQ")]
    expect_head: Option<u64>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn send(args: &SendArgs, out: Out) -> Result<(), Fail> {
    let client = args.server.client()?;
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    let (feed, text) = match (&args.to, words.as_slice(), args.payload.is_some()) {
        (None, [feed], true) => ((*feed).to_owned(), None),
        (None, [feed, text], false) => ((*feed).to_owned(), Some(*text)),
        (Some(uid), [text], false) => (direct(&client, uid)?, Some(*text)),
        (Some(_), _, true) => {
            return Err(Fail::usage(
                "--to and --payload: create the direct feed with `feedlog feeds create --kind direct --member UID` and send to its id",
            ));
        }
        _ => {
            return Err(Fail::usage(
                "expected a feed and a text; with --to only a text, with --payload only a feed",
            ));
        }
    };
    let payload = match (text, &args.payload) {
        (Some("-"), _) => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            Value::from(text.trim_end_matches('\n'))
        }
        (Some(text), _) => Value::from(text),
        (None, Some(json)) => serde_json::from_str(json).map_err(|_| Fail::usage("--payload: not JSON"))?,
        (None, None) => Value::Null,
    };
    let mut body = Map::new();
    body.insert("kind".into(), args.kind.as_str().into());
    body.insert("payload".into(), payload);
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    set("client_msg_id", args.client_msg_id.as_deref().map(Value::from));
    set("reply_to", args.reply_to.map(Value::from));
    set("mentions", (!args.mentions.is_empty()).then(|| args.mentions.clone().into()));
    set("to_reply", (args.to_reply || args.no_reply).then(|| args.to_reply.into()));
    set("seen_seq", args.seen.map(Value::from));
    set("expires_ms", args.expires_ms.map(Value::from));
    set("auto", args.auto.then(|| true.into()));
    set("expect_head", args.expect_head.map(Value::from));
    let path = format!("/v1/feeds/{}/messages", segment(&feed));
    let (_, answer) = client.post(&path, &Value::Object(body))?;
    let again = if answer["duplicate"] == true { " (sent before)" } else { "" };
    out.either(&answer, &format!("{feed} seq_id {}{again}", answer["seq_id"]))
}

/// The direct feed with a user.
fn direct(client: &Client, uid: &str) -> Result<String, Fail> {
    let (_, feed) = client.post("/v1/feeds", &json!({"kind": "direct", "members": [uid]}))?;
    feed["feed_id"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| Fail::failed("the server's answer has no feed_id"))
}

/// Arguments of `feedlog pull`.
#[derive(Debug, Args)]
#[command(
    long_about = "Shows the history of a feed: its newest entries, or those after, before or around a seq_id.",
    after_help = "Examples:\n  feedlog pull team-x\n  feedlog pull team-x --after 120 --all --json\n  \
feedlog pull team-x --around 57 --limit 11"
)]
pub(super) struct PullArgs {
    /// The feed.
    feed: String,
    /// Entries after this seq_id, ascending.
    #[arg(long, value_name = "SEQ", group = "place")]
    after: Option<u64>,
    /// Entries before this seq_id, descending.
    #[arg(long, value_name = "SEQ", group = "place")]
    before: Option<u64>,
    /// Entries around this seq_id.
    #[arg(long, value_name = "SEQ", group = "place")]
    around: Option<u64>,
    /// Messages from this position (1 is the oldest message).
    #[arg(long, value_name = "N", group = "place")]
    position: Option<u64>,
    /// Entries per page, 1 to 1000.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Go on to the end (with --after).
    #[arg(long, requires = "after")]
    all: bool,
    /// With --after: wait so long for something new, milliseconds, at most 60000.
    #[arg(long, value_name = "MS", requires = "after", default_value_t = 0)]
    wait_ms: u64,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn pull(args: &PullArgs, out: Out) -> Result<(), Fail> {
    let client = args.server.client()?;
    let base = format!("/v1/feeds/{}/entries", segment(&args.feed));
    let limit = args.limit;
    let newest = args.after.or(args.before).or(args.around).or(args.position).is_none();
    let mut query = match (args.after, args.before, args.around, args.position) {
        (Some(seq), ..) => format!("last_seq_id={seq}&limit={limit}&wait_ms={}", args.wait_ms),
        (_, Some(seq), ..) => format!("before={seq}&limit={limit}"),
        (_, _, Some(seq), _) => format!("around={seq}&limit={limit}"),
        (_, _, _, Some(position)) => format!("position={position}&size={limit}"),
        // The newest: everything is before the largest seq_id there can be.
        _ => format!("before={}&limit={limit}", feedlog_core::ids::SeqId::MAX.0),
    };
    loop {
        let mut page = client.get(&format!("{base}?{query}"))?;
        if newest && let Some(entries) = page["entries"].as_array_mut() {
            entries.reverse();
        }
        if out.json {
            out.value(&page)?;
        } else {
            show(&page, out)?;
        }
        match page["next"]["last_seq_id"].as_u64() {
            Some(next) if args.all => query = format!("last_seq_id={next}&limit={limit}"),
            _ => return Ok(()),
        }
    }
}

fn show(page: &Value, out: Out) -> Result<(), Fail> {
    let none = Vec::new();
    let entries = page["entries"].as_array().unwrap_or(&none);
    out.table(&["seq", "time (UTC)", "sender", "what", ""], entries.iter().map(row).collect())?;
    for gone in page["gone"].as_array().unwrap_or(&none) {
        out.line(&format!("not shown: {}–{} ({})", gone["from"], gone["to"], text_of(&gone["reason"])))?;
    }
    out.line(&format!("head {}", page["head_seq_id"]))
}

/// One entry as cells.
pub(super) fn row(entry: &Value) -> Vec<String> {
    let kind = entry["type"].as_str().unwrap_or_default();
    let what = if kind == "message" { entry["kind"].as_str().unwrap_or("message") } else { kind };
    vec![
        entry["seq_id"].to_string(),
        out::time(entry["time_ms"].as_u64().unwrap_or_default()),
        text_of(&entry["sender"]),
        what.to_owned(),
        content(entry),
    ]
}

/// What an entry says, on one line.
pub(super) fn content(entry: &Value) -> String {
    if !entry["recalled"].is_null() {
        return format!("(recalled by {})", text_of(&entry["recalled"]["by"]));
    }
    let payload = &entry["payload"];
    let text = match payload {
        Value::String(text) => text.clone(),
        Value::Null => match (entry["target"].as_u64(), entry["uid"].as_str()) {
            (Some(target), _) => format!("→ {target}"),
            (_, Some(uid)) => uid.to_owned(),
            _ => entry["content_type"].as_str().map(|kind| format!("({kind})")).unwrap_or_default(),
        },
        Value::Object(fields) => {
            fields.get("text").and_then(Value::as_str).map_or_else(|| payload.to_string(), str::to_owned)
        }
        other => other.to_string(),
    };
    out::short(&text, 200)
}

/// A string without its quotes; other values as JSON.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Arguments of `feedlog recall`.
#[derive(Debug, Args)]
#[command(
    long_about = "Takes a message back. Its content is hidden from every reader, a tombstone stays in its place, and \
an entry at the head tells offline devices. Your own within the recall window; admins of the feed and services always.",
    after_help = "Examples:\n  feedlog recall team-x 57\n  feedlog recall team-x --client-msg-id my-id-1 --reason typo"
)]
pub(super) struct RecallArgs {
    /// The feed.
    feed: String,
    /// The message.
    #[arg(required_unless_present = "client_msg_id", conflicts_with = "client_msg_id")]
    seq_id: Option<u64>,
    /// The message by your own id.
    #[arg(long, value_name = "ID")]
    client_msg_id: Option<String>,
    /// For people.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn recall(args: &RecallArgs, out: Out) -> Result<(), Fail> {
    let client = args.server.client()?;
    let mut body = match (&args.client_msg_id, args.seq_id) {
        (Some(id), _) => json!({"client_msg_id": id}),
        (None, seq) => json!({"seq_id": seq}),
    };
    if let Some(reason) = &args.reason {
        body["reason"] = reason.as_str().into();
    }
    let path = format!("/v1/feeds/{}/recall", segment(&args.feed));
    let (_, answer) = client.post(&path, &body)?;
    out.either(&answer, &format!("{} recalled, seq_id {}", args.feed, answer["seq_id"]))
}
