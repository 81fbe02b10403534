//! `feedlog token`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ServerArgs;
use super::fail::Fail;
use super::messages::text_of;
use super::out::{self, Out};
use crate::client::segment;

/// Arguments of `feedlog token`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  feedlog token create --uid ann\n  \
feedlog token create --uid shop --scope user --scope send_as --expires-days 90 --note \"the shop's back end\"\n  \
feedlog token list\n  feedlog token revoke 3f9a…\n\nNeeds a token with the scope admin.")]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Create a token and print it; it cannot be shown again.
    Create {
        /// Who its bearer is.
        #[arg(long)]
        uid: String,
        /// What its bearer may do: user, send_as, audit, admin; may be repeated.
        #[arg(long = "scope", default_value = "user", value_parser = ["user", "send_as", "audit", "admin"])]
        scopes: Vec<String>,
        /// It ends after so many days; without it, never.
        #[arg(long, value_name = "DAYS")]
        expires_days: Option<u32>,
        /// For people.
        #[arg(long)]
        note: Option<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List tokens, without their secrets.
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Revoke a token; in force on return.
    Revoke {
        /// Its id, from `token list`.
        id: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

const PATH: &str = "/v1/admin/tokens";
const MS_PER_DAY: u64 = 86_400_000;

pub(super) fn token(args: &TokenArgs, out: Out) -> Result<(), Fail> {
    match &args.command {
        TokenCommand::Create { uid, scopes, expires_days, note, server } => {
            let mut body = json!({"uid": uid, "scopes": scopes});
            if let Some(days) = expires_days {
                body["expires_ms"] = (out::now_ms() + u64::from(*days) * MS_PER_DAY).into();
            }
            if let Some(note) = note {
                body["note"] = note.as_str().into();
            }
            let (_, answer) = server.client()?.post(PATH, &body)?;
            out.either(&answer, &text_of(&answer["token"]))
        }
        TokenCommand::List { server } => list(server, out),
        TokenCommand::Revoke { id, server } => {
            let answer = server.client()?.delete(&format!("{PATH}/{}", segment(id)))?;
            out.either(&answer, &format!("{id} revoked"))
        }
    }
}

fn list(server: &ServerArgs, out: Out) -> Result<(), Fail> {
    let client = server.client()?;
    let mut tokens: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let mut page = client.get(&format!("{PATH}?limit=1000{cursor}"))?;
        if let Value::Array(rows) = page["tokens"].take() {
            tokens.extend(rows);
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={}", segment(next)),
            None => break,
        }
    }
    if out.json {
        return out.value(&json!({"tokens": tokens}));
    }
    let date = |value: &Value| value.as_u64().map(out::time).unwrap_or_default();
    let rows = tokens.iter().map(|token| {
        let scopes: Vec<_> = token["scopes"].as_array().into_iter().flatten().map(text_of).collect();
        vec![
            text_of(&token["id"]),
            text_of(&token["uid"]),
            scopes.join(" "),
            date(&token["created_ms"]),
            date(&token["expires_ms"]),
            date(&token["revoked_ms"]),
            text_of(&token["note"]),
        ]
    });
    out.table(&["id", "uid", "scopes", "created", "expires", "revoked", "note"], rows.collect())
}
