//! What commands print: tables for people, JSON for programs, progress on standard error.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::fail::Fail;

/// Where and how a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    /// JSON for programs instead of tables.
    pub json: bool,
}

impl Out {
    /// One line, for people and programs alike. A closed pipe ends the command quietly.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn line(self, text: &str) -> Result<(), Fail> {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{text}")?;
        stdout.flush()?;
        Ok(())
    }

    /// One value as one line of JSON.
    ///
    /// # Errors
    /// See [`Out::line`].
    pub fn value(self, value: &Value) -> Result<(), Fail> {
        self.line(&value.to_string())
    }

    /// JSON when asked for, else the text.
    ///
    /// # Errors
    /// See [`Out::line`].
    pub fn either(self, value: &Value, text: &str) -> Result<(), Fail> {
        if self.json { self.value(value) } else { self.line(text) }
    }

    /// A table as wide as the terminal; unlimited when not a terminal.
    ///
    /// # Errors
    /// See [`Out::line`].
    pub fn table(self, header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Fail> {
        if rows.is_empty() {
            return self.line("(none)");
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY).set_header(header);
        if std::io::stdout().is_terminal()
            && let Some((_, columns)) = console::Term::stdout().size_checked()
        {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
        }
        for row in rows {
            table.add_row(row.iter().map(|cell| printable(cell)).collect::<Vec<_>>());
        }
        self.line(&table.to_string())
    }
}

/// Text from others, safe for a terminal: control characters could move the cursor or change the title.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// As [`printable`], on one line and cut to a number of characters.
pub fn short(text: &str, chars_max: usize) -> String {
    let one_line = printable(text).replace('\n', " ");
    if one_line.chars().count() <= chars_max {
        return one_line;
    }
    let mut cut: String = one_line.chars().take(chars_max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// Milliseconds since the epoch as UTC, e.g. `2026-11-20 11:02:03.123`.
pub fn time(ms: u64) -> String {
    let format = time::macros::format_description!(
        "[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]"
    );
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_else(|| ms.to_string())
}

/// How long ago or from now, in one unit: `3 min`, `2 d`.
pub fn span(ms: u64) -> String {
    match ms / 1000 {
        s if s < 120 => format!("{s} s"),
        s if s < 120 * 60 => format!("{} min", s / 60),
        s if s < 48 * 3600 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

/// Milliseconds since the epoch now.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A progress bar on standard error, hidden when that is not a terminal. `total` 0: unknown.
pub fn progress(total: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(
        (total > 0).then_some(total),
        if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        },
    );
    let template = if total > 0 {
        "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}"
    } else {
        "{spinner} {msg} {human_pos} {per_sec} {elapsed}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    if total == 0 {
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_others_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\u{7}"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(short("line 1\nline 2", 9), "line 1 l…");
        assert_eq!(short("äöü", 3), "äöü");
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(time(1_136_214_245_006), "2006-01-02 15:04:05.006");
        assert_eq!(span(119_000), "119 s");
        assert_eq!(span(7_200_000), "2 h");
    }
}
