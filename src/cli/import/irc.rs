//! IRC logs: `[hh:mm] <nick> text`.

use std::collections::HashSet;

use super::{Body, Plan, Skipped, Step};
use crate::cli::fail::Fail;

/// What a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Somebody said something.
    Message {
        /// Minutes since midnight.
        minute: u64,
        /// Who, without surrounding spaces (irclogs pads nicks that end in a bracket).
        nick: &'a str,
        /// What; may be empty.
        text: &'a str,
    },
    /// Anything else, by class.
    Skipped(&'static str),
}

/// Tells what a line (without its line feed) is.
pub(super) fn classify(line: &str) -> Line<'_> {
    if line.trim().is_empty() {
        return Line::Skipped("blank");
    }
    if let Some(rest) = line.strip_prefix("===") {
        return Line::Skipped(status(rest));
    }
    let Some((minute, rest)) = clock(line) else {
        return Line::Skipped("other");
    };
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    if let Some(said) = rest.strip_prefix('<')
        && let Some((nick, text)) = said.split_once('>')
    {
        let nick = nick.trim();
        if !nick.is_empty() {
            return Line::Message { minute, nick, text: text.strip_prefix(' ').unwrap_or(text) };
        }
    }
    match rest.trim_start().as_bytes().first() {
        Some(b'*') => Line::Skipped("action"),
        Some(b'-') => Line::Skipped("notice"),
        _ => Line::Skipped("other"),
    }
}

/// `[hh:mm]` and what follows.
fn clock(line: &str) -> Option<(u64, &str)> {
    let (time, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (hour, minute) = time.split_once(':')?;
    let two = |text: &str, below: u64| {
        (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse::<u64>().ok())
            .flatten()
            .filter(|n| *n < below)
    };
    Some((two(hour, 24)? * 60 + two(minute, 60)?, rest))
}

/// The class of a `===` line. Actions (`=== nick waves`) look the same and are `status`.
fn status(rest: &str) -> &'static str {
    const CLASSES: &[(&str, &str)] = &[
        ("has joined #", "join"),
        ("has left #", "part"),
        ("has quit", "quit"),
        ("is now known as", "nick"),
        ("was kicked", "kick"),
        ("kicked from #", "kick"),
        ("mode/#", "mode"),
        ("changed the topic", "topic"),
        ("Topic for #", "topic"),
        ("Topic (#", "topic"),
    ];
    CLASSES.iter().find(|(words, _)| rest.contains(words)).map_or("status", |(_, class)| class)
}

/// The first `yyyy-mm-dd` of a file's name, as milliseconds since the epoch.
pub(super) fn date_ms(file_name: &str) -> Option<u64> {
    file_name.as_bytes().windows(10).find_map(|window| {
        let text = std::str::from_utf8(window).ok()?;
        let mut parts = text.split('-');
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        if (year.len(), month.len(), day.len()) != (4, 2, 2) {
            return None;
        }
        let month = time::Month::try_from(month.parse::<u8>().ok()?).ok()?;
        let date = time::Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?;
        u64::try_from(date.midnight().assume_utc().unix_timestamp()).ok()?.checked_mul(1000)
    })
}

/// The feed of one file.
///
/// # Errors
/// When the file's name cannot be part of a feed's.
pub(super) fn plan(file_name: &str, bytes: &[u8]) -> Result<Plan, Fail> {
    let base = file_name.strip_suffix(".raw.txt").unwrap_or(file_name);
    let feed_id = format!("irc/{base}");
    feedlog_core::ids::FeedId::parse(&feed_id)
        .map_err(|err| Fail::failed(format!("{file_name}: the feed's name {err}")))?;
    let day_ms = date_ms(file_name);
    let text = String::from_utf8_lossy(bytes);
    let mut members = HashSet::new();
    let mut steps = Vec::new();
    let mut skipped = Skipped::new();
    for (i, line) in text.lines().enumerate() {
        match classify(line) {
            Line::Skipped(class) => *skipped.entry(class).or_default() += 1,
            Line::Message { minute, nick, text } => {
                if members.insert(nick.to_owned()) {
                    steps.push(Step::Join(nick.to_owned()));
                }
                let mut body = Body::default()
                    .with("kind", "text")
                    .with("payload", text)
                    .with("client_msg_id", format!("{file_name}:{}", i + 1));
                if let Some(day_ms) = day_ms {
                    body.set("sent_ms", day_ms + minute * 60_000);
                }
                steps.push(Step::Message { sender: nick.to_owned(), body });
            }
        }
    }
    Ok(Plan { feed_id, title: base.to_owned(), steps, skipped })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(minute: u64, nick: &'static str, text: &'static str) -> Line<'static> {
        Line::Message { minute, nick, text }
    }

    #[test]
    fn lines_as_they_are_in_real_logs() {
        for (line, expected) in [
            ("[09:21] <Chetwin> Hey all.  I have", message(561, "Chetwin", "Hey all.  I have")),
            ("[00:00] <a> ", message(0, "a", "")),
            ("[23:59] <a>", message(1439, "a", "")),
            ("[12:10] <a>  two spaces", message(730, "a", " two spaces")),
            ("[10:23] <bob[1] > hey all", message(623, "bob[1]", "hey all")),
            ("[10:23] <x> a > b <c>", message(623, "x", "a > b <c>")),
            ("[10:23] <x> \u{2}bold\u{f}", message(623, "x", "\u{2}bold\u{f}")),
            ("[10:23] <x> === y has joined #z", message(623, "x", "=== y has joined #z")),
            ("=== reus_ [n=reus@83.101.13.92]  has joined #ubuntu", Line::Skipped("join")),
            ("=== Lynx- [n=a@b]  has left #ubuntu [\"One]", Line::Skipped("part")),
            ("=== a is now known as b", Line::Skipped("nick")),
            ("=== mode/#ubuntu [+o x]  by ChanServ", Line::Skipped("mode")),
            ("=== mnoir waits for 1002 more folks", Line::Skipped("status")),
            ("[13:54]  * MinIRC  is hugging", Line::Skipped("action")),
            ("[05:12] -gfx:#ubuntu- happy", Line::Skipped("notice")),
            ("[01:09] (soundray/#ubuntu) thomas: have", Line::Skipped("other")),
            ("[24:00] <a> no such hour", Line::Skipped("other")),
            ("[1:00] <a> one digit", Line::Skipped("other")),
            ("[10:00] <> nobody", Line::Skipped("other")),
            ("[10:00] <a no end", Line::Skipped("other")),
            ("", Line::Skipped("blank")),
            ("  ", Line::Skipped("blank")),
        ] {
            assert_eq!(classify(line), expected, "{line:?}");
        }
    }

    #[test]
    fn the_date_is_in_the_name() {
        assert_eq!(date_ms("2004-12-25.train-c.raw.txt"), Some(1_103_932_800_000));
        assert_eq!(date_ms("#ubuntu-2016-02-29.txt"), Some(1_456_704_000_000));
        assert_eq!(date_ms("2015-02-29.txt"), None);
        assert_eq!(date_ms("log.txt"), None);
    }

    #[test]
    fn a_file_is_a_group_where_each_nick_joins_at_its_first_line() {
        let text = "=== a has joined #u\n[00:01] <a> hi\n[00:02] <b> ho\n\n[00:03] <a>\n";
        let plan = plan("2004-12-25.raw.txt", text.as_bytes()).unwrap();
        assert_eq!(plan.feed_id, "irc/2004-12-25");
        let said = |sender: &str, payload: &str, line: u64, minute: u64| Step::Message {
            sender: sender.to_owned(),
            body: Body::default()
                .with("kind", "text")
                .with("payload", payload)
                .with("client_msg_id", format!("2004-12-25.raw.txt:{line}"))
                .with("sent_ms", 1_103_932_800_000_u64 + minute * 60_000),
        };
        assert_eq!(
            plan.steps,
            [
                Step::Join("a".into()),
                said("a", "hi", 2, 1),
                Step::Join("b".into()),
                said("b", "ho", 3, 2),
                said("a", "", 5, 3)
            ]
        );
        assert_eq!(plan.skipped, Skipped::from([("join", 1), ("blank", 1)]));
    }
}
