//! Reads an export line by line and proves it: order, numbers, hashes, sums. Needs no store.

use feedlog_core::ids::{FeedId, Ordinal};
use feedlog_core::limits;
use feedlog_storage::Record;

use super::{BadExport, FeedSum, Line, Tally, Totals, parse_line};

/// The first thing that is wrong in an export.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}{}: {problem}", .at.as_ref().map(|(feed, seq)| format!(" (feed {feed:?}, entry {seq})")).unwrap_or_default())]
pub struct BadLine {
    /// From 1.
    pub line: u64,
    /// The feed and entry, when the line names them.
    pub at: Option<(String, u64)>,
    /// What is wrong.
    pub problem: BadExport,
}

/// What a proven line brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proven {
    /// The first line.
    Header,
    /// The next entry of the current feed.
    Entry(Box<Record>),
    /// The current feed is complete.
    Feed(FeedSum),
    /// The export is complete.
    Manifest(Totals),
}

/// Checks the lines of one export in order.
#[derive(Default)]
pub struct Checker {
    line: u64,
    state: State,
    previous: Option<Record>,
    last_feed: Option<FeedId>,
    tally: Tally,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Start,
    Lines,
    End,
}

impl Checker {
    /// The next line, without its line feed.
    ///
    /// # Errors
    /// The first problem; the checker is of no use afterwards.
    pub fn line(&mut self, text: &str) -> Result<Proven, BadLine> {
        self.line += 1;
        let line = parse_line(text).map_err(|problem| BadLine { line: self.line, at: None, problem })?;
        let at = match &line {
            Line::Entry(record) => Some((record.entry.feed.to_string(), record.entry.seq.0)),
            Line::Feed(sum) => Some((sum.feed_id.clone(), sum.head_seq_id)),
            Line::Header | Line::Manifest(_) => None,
        };
        self.step(line).map_err(|problem| BadLine { line: self.line, at, problem: BadExport(problem) })
    }

    /// There are no more lines.
    ///
    /// # Errors
    /// When the manifest is missing: the file was cut off.
    pub fn end(&self) -> Result<(), BadLine> {
        if self.state == State::End {
            return Ok(());
        }
        let problem = BadExport("the file ends before its manifest: it was cut off".to_owned());
        Err(BadLine { line: self.line + 1, at: None, problem })
    }

    fn step(&mut self, line: Line) -> Result<Proven, String> {
        match (self.state, line) {
            (State::Start, Line::Header) => {
                self.state = State::Lines;
                Ok(Proven::Header)
            }
            (State::Start, _) => Err("an export begins with its feedlog_export line".to_owned()),
            (State::End, _) => Err("something follows the manifest".to_owned()),
            (State::Lines, Line::Header) => Err("a second feedlog_export line".to_owned()),
            (State::Lines, Line::Entry(record)) => self.entry(record),
            (State::Lines, Line::Feed(said)) => self.feed(said),
            (State::Lines, Line::Manifest(said)) => {
                if self.previous.is_some() {
                    return Err("the last feed has no feed line".to_owned());
                }
                if self.tally.totals() != said {
                    return Err("the totals are not those of the lines above".to_owned());
                }
                self.state = State::End;
                Ok(Proven::Manifest(said))
            }
        }
    }

    fn entry(&mut self, record: Box<Record>) -> Result<Proven, String> {
        let entry = &record.entry;
        let (seq, ordinal, time_ms, chain) = match &self.previous {
            Some(previous) if previous.entry.feed != entry.feed => {
                return Err(format!("feed {:?} has no feed line", previous.entry.feed.as_str()));
            }
            Some(previous) => (
                previous.entry.seq.next(),
                previous.entry.ordinal,
                previous.entry.time_ms,
                Some(&previous.chain_hash),
            ),
            None => {
                if self.last_feed.as_ref().is_some_and(|last| *last >= entry.feed) {
                    return Err("feeds are not in the order of their names".to_owned());
                }
                (feedlog_core::ids::SeqId(1), Ordinal::ZERO, 0, None)
            }
        };
        // INVARIANT I-1: dense from 1, here checked on what is read back.
        if entry.seq != seq {
            return Err(format!("expected entry {seq}: entries are missing or repeated"));
        }
        let expected = if entry.event.is_message() { ordinal.next() } else { ordinal };
        if entry.ordinal != expected {
            return Err(format!("ordinal {}, expected {expected}", entry.ordinal));
        }
        if entry.time_ms < time_ms {
            return Err("the time is before that of the previous entry".to_owned());
        }
        if entry.payload.bytes().is_some_and(|bytes| bytes.len() > limits::PAYLOAD_BYTES_MAX) {
            return Err("the payload is larger than any store takes".to_owned());
        }
        let chain_hash = feedlog_storage::chain_hash(
            entry,
            record.version,
            &record.payload_hash,
            chain.unwrap_or(&[0; 32]),
        )
        .ok_or_else(|| format!("format {}: this program cannot read it", record.version))?;
        if chain_hash != record.chain_hash {
            return Err("the chain hash does not fit: this entry or its place was changed".to_owned());
        }
        self.tally.entry(&entry.feed, entry.seq, entry.ordinal, entry.event.is_message(), &record.chain_hash);
        self.previous = Some((*record).clone());
        Ok(Proven::Entry(record))
    }

    fn feed(&mut self, said: FeedSum) -> Result<Proven, String> {
        let Some(previous) = self.previous.take() else {
            return Err("a feed line without entries".to_owned());
        };
        self.last_feed = Some(previous.entry.feed);
        let Some((sum, _)) = self.tally.end_feed() else {
            return Err("a feed line without entries".to_owned());
        };
        if sum != said {
            return Err("the sums are not those of the entries above".to_owned());
        }
        Ok(Proven::Feed(said))
    }
}
