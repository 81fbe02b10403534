//! One message per line: `feed_id`, `sender` and what `POST /v1/feeds/{feed}/messages` takes.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::{Body, Job, Plan, Skipped, Step, file_name};
use crate::cli::fail::Fail;

/// Lines that are in memory at once. Feeds go on in the next piece in order.
const PIECE_LINES: usize = 20_000;
/// Longest line, in bytes; longer ones are skipped.
const LINE_BYTES_MAX: u64 = 32 << 20;

/// Fields of a line that are passed on.
const PASSED: &[&str] = &[
    "client_msg_id",
    "kind",
    "payload",
    "payload_base64",
    "content_type",
    "reply_to",
    "mentions",
    "to_reply",
    "seen_seq",
    "sent_ms",
    "expires_ms",
    "auto",
];

/// A file that is read piece by piece.
pub(super) struct Source {
    name: String,
    reader: Box<dyn BufRead>,
    line: u64,
    joined: HashSet<(String, String)>,
}

impl Source {
    /// Opens a file; `-` is standard input, whose name in client_msg_ids is `stdin`.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(path: &Path) -> Result<Self, Fail> {
        if path.as_os_str() == "-" {
            return Ok(Self::new("stdin".to_owned(), Box::new(BufReader::new(std::io::stdin()))));
        }
        let file = std::fs::File::open(path).map_err(|err| Fail::file(path, err))?;
        Ok(Self::new(file_name(path)?, Box::new(BufReader::new(file))))
    }

    fn new(name: String, reader: Box<dyn BufRead>) -> Self {
        Self { name, reader, line: 0, joined: HashSet::new() }
    }

    /// The next piece, one job per feed; `None` at the end.
    ///
    /// # Errors
    /// When reading fails.
    pub(super) fn next_jobs(&mut self) -> Result<Option<Vec<Job>>, Fail> {
        Ok(self
            .next_plans()?
            .map(|plans| plans.into_iter().map(|plan| Box::new(move || Ok(plan)) as Job).collect()))
    }

    fn next_plans(&mut self) -> Result<Option<Vec<Plan>>, Fail> {
        let mut plans: Vec<Plan> = Vec::new();
        let mut by_feed: HashMap<String, usize> = HashMap::new();
        let mut skipped = Skipped::new();
        let mut read_any = false;
        let mut bytes = Vec::new();
        for _ in 0..PIECE_LINES {
            bytes.clear();
            let read = std::io::Read::take(&mut self.reader, LINE_BYTES_MAX).read_until(b'\n', &mut bytes)?;
            if read == 0 {
                break;
            }
            read_any = true;
            self.line += 1;
            if bytes.last() != Some(&b'\n') && read as u64 == LINE_BYTES_MAX {
                skip_to_line_feed(&mut self.reader)?;
                *skipped.entry("too_long").or_default() += 1;
                continue;
            }
            match parse(&bytes, &self.name, self.line) {
                Err(class) => *skipped.entry(class).or_default() += 1,
                Ok((feed_id, sender, body)) => {
                    let at = *by_feed.entry(feed_id.clone()).or_insert_with(|| {
                        plans.push(Plan {
                            title: feed_id.clone(),
                            feed_id: feed_id.clone(),
                            steps: Vec::new(),
                            skipped: Skipped::new(),
                        });
                        plans.len() - 1
                    });
                    if self.joined.insert((feed_id, sender.clone())) {
                        plans[at].steps.push(Step::Join(sender.clone()));
                    }
                    plans[at].steps.push(Step::Message { sender, body });
                }
            }
        }
        if !skipped.is_empty() {
            match plans.first_mut() {
                Some(plan) => plan.skipped = skipped,
                // A plan without steps touches no feed; it carries the counts.
                None => plans.push(Plan {
                    feed_id: String::new(),
                    title: String::new(),
                    steps: Vec::new(),
                    skipped,
                }),
            }
        }
        Ok(read_any.then_some(plans))
    }
}

fn skip_to_line_feed(reader: &mut Box<dyn BufRead>) -> Result<(), Fail> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let (used, found) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), false),
        };
        reader.consume(used);
        if found {
            return Ok(());
        }
    }
}

/// Feed, sender and body of a line, or the class under which it is skipped.
fn parse(bytes: &[u8], file: &str, line: u64) -> Result<(String, String, Body), &'static str> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("blank");
    }
    let mut body = match serde_json::from_slice(bytes) {
        Ok(fields) => Body(fields),
        Err(err) if err.is_data() => return Err("not_an_object"),
        Err(_) => return Err("not_json"),
    };
    let mut take = |name: &str| {
        let text = body.text_of(name).filter(|text| !text.is_empty());
        body.0.remove(name);
        text.ok_or("feed_id_or_sender_missing")
    };
    let (feed_id, sender) = (take("feed_id")?, take("sender")?);
    if body.0.keys().any(|name| !PASSED.contains(&name.as_str())) {
        return Err("unknown_field");
    }
    if !body.0.contains_key("payload") && !body.0.contains_key("payload_base64") {
        return Err("payload_missing");
    }
    if !body.0.contains_key("client_msg_id") {
        body.set("client_msg_id", format!("{file}:{line}"));
    }
    Ok((feed_id, sender, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feeds_keep_their_order_and_bad_lines_are_counted() {
        let text = concat!(
            "{\"feed_id\":\"f\",\"sender\":\"a\",\"payload\":\"1\"}\n",
            "{\"feed_id\":\"g\",\"sender\":\"a\",\"payload\":{\"x\" : []},\"client_msg_id\":\"own\"}\n",
            "\n",
            "{oops\n",
            "[1]\n",
            "{\"feed_id\":\"f\",\"payload\":1}\n",
            "{\"feed_id\":\"f\",\"sender\":\"a\"}\n",
            "{\"feed_id\":\"f\",\"sender\":\"a\",\"payload\":1,\"to\":2}\n",
            "{\"feed_id\":\"f\",\"sender\":\"a\",\"payload\":\"2\",\"sent_ms\":7}",
        );
        let mut source = Source::new("x.jsonl".into(), Box::new(std::io::Cursor::new(text)));
        let plans = source.next_plans().unwrap().unwrap();
        assert_eq!(plans.len(), 2);
        let said = |json: &str| {
            let body = Body(serde_json::from_str(json).unwrap());
            Step::Message { sender: "a".into(), body }
        };
        assert_eq!(
            plans[0].steps,
            [
                Step::Join("a".into()),
                said(r#"{"payload":"1","client_msg_id":"x.jsonl:1"}"#),
                said(r#"{"payload":"2","sent_ms":7,"client_msg_id":"x.jsonl:9"}"#),
            ]
        );
        assert_eq!(plans[1].steps[1], said(r#"{"payload":{"x" : []},"client_msg_id":"own"}"#));
        assert_eq!(
            plans[0].skipped,
            Skipped::from([
                ("blank", 1),
                ("feed_id_or_sender_missing", 1),
                ("not_an_object", 1),
                ("not_json", 1),
                ("payload_missing", 1),
                ("unknown_field", 1),
            ])
        );
        assert!(source.next_plans().unwrap().is_none());
    }
}
