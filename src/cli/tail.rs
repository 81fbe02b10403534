//! `feedlog tail`.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::ServerArgs;
use super::fail::{Exit, Fail};
use super::messages::row;
use super::out::Out;
use crate::client::{next_event, segment};

/// Arguments of `feedlog tail`.
#[derive(Debug, Args)]
#[command(
    long_about = "Follows feeds: what is there after the given place, then what comes, without a hole between. A lost \
connection is taken up again where it broke. Ends with Ctrl-C, or when you may not read the feed any more.",
    after_help = "Examples:\n  feedlog tail team-x                 (from now on)\n  \
feedlog tail team-x --after 0       (from the beginning)\n  \
feedlog tail                        (all of your feeds)\n  \
feedlog tail team-x --after 0 --until-caught-up --json"
)]
pub(super) struct TailArgs {
    /// The feeds; none: all of yours, also those you join later.
    feeds: Vec<String>,
    /// Begin after this seq_id, in each of the feeds named. Without it: from now on.
    #[arg(long, value_name = "SEQ", requires = "feeds")]
    after: Option<u64>,
    /// End when everything that was there has been shown.
    #[arg(long)]
    until_caught_up: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Between attempts to connect again.
const RETRY: Duration = Duration::from_secs(1);

pub(super) fn tail(args: &TailArgs, out: Out) -> Result<(), Fail> {
    let client = args.server.client()?;
    let mut places = Vec::new();
    for feed in &args.feeds {
        let after = match args.after {
            Some(after) => after,
            None => client.get(&format!("/v1/feeds/{}", segment(feed)))?["head_seq_id"]
                .as_u64()
                .unwrap_or_default(),
        };
        places.push((feed, after));
    }
    let path = match places.as_slice() {
        [] => "/v1/stream".to_owned(),
        [(feed, after)] => format!("/v1/feeds/{}/stream?last_seq_id={after}", segment(feed)),
        many => {
            // Ids are encoded within the list, and the list within the query.
            let list: Vec<_> =
                many.iter().map(|(feed, after)| format!("{}:{after}", segment(feed))).collect();
            format!("/v1/stream?feeds={}", segment(&list.join(",")))
        }
    };
    let mut last_event_id: Option<String> = None;
    let mut connected = false;
    loop {
        let mut body = match client.stream(&path, "text/event-stream", last_event_id.as_deref()) {
            Ok(body) => body,
            Err(fail) if fail.exit == Exit::Unavailable && connected => {
                std::thread::sleep(RETRY);
                continue;
            }
            Err(fail) => return Err(fail),
        };
        connected = true;
        // A broken connection and its end are the same here: take it up again.
        while let Ok(Some(event)) = next_event(&mut body) {
            if event.id.as_ref().is_some_and(|id| !id.is_empty()) {
                last_event_id.clone_from(&event.id);
            }
            let data: Value = serde_json::from_str(&event.data).unwrap_or(Value::Null);
            if out.json {
                out.value(&serde_json::json!({"event": event.event, "data": data}))?;
            } else if event.event == "entry" {
                let cells = row(&data);
                let feed =
                    if args.feeds.len() == 1 { "" } else { data["feed_id"].as_str().unwrap_or_default() };
                out.line(super::out::printable(&format!("{feed} {}", cells.join("  "))).trim_start())?;
            }
            match event.event.as_str() {
                "caught_up" if args.until_caught_up => return Ok(()),
                "ended" if args.feeds.len() == 1 => {
                    return Err(Fail::new(Exit::Refused, "ended", "you may not read this feed any more"));
                }
                _ => {}
            }
        }
        std::thread::sleep(RETRY);
    }
}
