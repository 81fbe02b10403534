//! From commits to calls, without IO: which stretches of which feeds a window has, how they are cut, and what each call is
//! named. The same window is always cut the same way, so that a call that is made again has the same id.

use std::collections::HashMap;
use std::fmt::Write as _;

use feedlog_core::ids::{FeedId, SeqId, Uid};
use feedlog_storage::Change;

/// Entries `first..=last` of one feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) feed: FeedId,
    pub(super) first: SeqId,
    pub(super) last: SeqId,
}

impl Run {
    /// Its first entries, at most so many.
    pub(super) fn start(&self, entries_max: u64) -> Self {
        let last = SeqId(self.first.0.saturating_add(entries_max.max(1) - 1));
        Self { last: last.min(self.last), ..self.clone() }
    }

    /// Its first entries that together weigh at most so much, unless the first alone weighs more.
    pub(super) fn light(self, weights: &[(SeqId, usize)], max: usize) -> Self {
        let mut sum = 0;
        for (seq, weight) in weights {
            sum += weight;
            if sum > max && *seq > self.first {
                return Self { last: seq.prev(), ..self };
            }
        }
        self
    }

    fn len(&self) -> u64 {
        (self.last.0 + 1).saturating_sub(self.first.0)
    }
}

/// Commits that were looked through.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// The last of them.
    pub(super) upto: u64,
    /// What they added to feeds that are wanted, by feed, in the order of their first.
    pub(super) runs: Vec<Run>,
    /// It ended because it was large enough.
    pub(super) full: bool,
}

/// Commits after `after` up to the first that makes the window large enough. `None` when the next one is not listed any
/// more.
pub(super) fn cut(
    changes: &[Change],
    after: u64,
    entries_max: u64,
    is_wanted: impl Fn(&FeedId) -> bool,
) -> Option<Cut> {
    let mut cut = Cut { upto: after, runs: Vec::new(), full: false };
    let mut runs: HashMap<FeedId, usize> = HashMap::new();
    let mut entries = 0;
    for change in changes {
        if change.commit_no != cut.upto + 1 {
            // Commits are dense; where one is missing, rows were removed.
            return if cut.upto == after { None } else { Some(cut) };
        }
        cut.upto = change.commit_no;
        for (feed, first, last) in &change.feeds {
            if !is_wanted(feed) {
                continue;
            }
            let run = Run { feed: feed.clone(), first: *first, last: *last };
            entries += run.len();
            match runs.get(feed) {
                // Of one feed nothing lies between two commits.
                Some(at) => cut.runs[*at].last = *last,
                None => {
                    runs.insert(feed.clone(), cut.runs.len());
                    cut.runs.push(run);
                }
            }
        }
        if entries >= entries_max {
            cut.full = true;
            break;
        }
    }
    Some(cut)
}

/// Whom a call is for: recipients after the one and up to and including the other, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) after: Option<Uid>,
    /// Fixed when the part is cut, also for the last one: whoever comes later is not taken for one of them.
    pub(super) upto: Option<Uid>,
    /// Others come after it.
    pub(super) more: bool,
}

impl Part {
    fn is_whole(&self) -> bool {
        self.after.is_none() && !self.more
    }
}

/// The id of a call: `<endpoint>:<feed>:<first>-<last>`, for a part of the recipients with the part behind it, for a replay
/// with its number. Printable ASCII without `.`, because it is signed with dots between.
pub(super) fn call_id(
    endpoint: &str,
    run: &Run,
    part: &Part,
    replay: Option<u64>,
    digest: fn(&[u8]) -> [u8; 32],
) -> String {
    let mut id = format!("{endpoint}:");
    for byte in run.feed.as_str().bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'.' | b'%') {
            id.push(char::from(byte));
        } else {
            let _ = write!(id, "%{byte:02X}");
        }
    }
    let _ = write!(id, ":{}-{}", run.first, run.last);
    if !part.is_whole() {
        // Both ends: when members come and go between two tries, a part that is cut elsewhere is another call, so that
        // nobody is taken for told who was not.
        let mut ends = part.after.as_ref().map_or(String::new(), |uid| uid.as_str().to_owned());
        ends.push('\0');
        if part.more {
            ends.push_str(part.upto.as_ref().map_or("", |uid| uid.as_str()));
        }
        id.push_str(":p");
        for byte in &digest(ends.as_bytes())[..8] {
            let _ = write!(id, "{byte:02x}");
        }
    }
    if let Some(replay) = replay {
        let _ = write!(id, ":r{replay}");
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(name: &str) -> FeedId {
        FeedId::parse(name).unwrap()
    }

    fn change(commit_no: u64, feeds: &[(&str, u64, u64)]) -> Change {
        let feeds = feeds.iter().map(|(name, a, b)| (feed(name), SeqId(*a), SeqId(*b))).collect();
        Change { commit_no, feeds }
    }

    fn run(name: &str, first: u64, last: u64) -> Run {
        Run { feed: feed(name), first: SeqId(first), last: SeqId(last) }
    }

    #[test]
    fn commits_become_one_run_of_each_feed() {
        let changes =
            [change(5, &[("a", 1, 2), ("b", 7, 7)]), change(6, &[("a", 3, 3)]), change(7, &[("c", 1, 1)])];
        let whole = cut(&changes, 4, 100, |_| true).unwrap();
        assert_eq!(
            whole,
            Cut { upto: 7, runs: vec![run("a", 1, 3), run("b", 7, 7), run("c", 1, 1)], full: false }
        );
        let only = cut(&changes, 4, 100, |feed| feed.as_str() == "c").unwrap();
        assert_eq!(only, Cut { upto: 7, runs: vec![run("c", 1, 1)], full: false });
        // A window that is cut when it is large enough has whole commits.
        let small = cut(&changes, 4, 2, |_| true).unwrap();
        assert_eq!(small, Cut { upto: 5, runs: vec![run("a", 1, 2), run("b", 7, 7)], full: true });
        assert_eq!(cut(&[], 4, 2, |_| true), Some(Cut { upto: 4, runs: Vec::new(), full: false }));
    }

    #[test]
    fn where_commits_are_missing_it_ends() {
        assert_eq!(cut(&[change(6, &[("a", 1, 1)])], 4, 9, |_| true), None);
        let gap = cut(&[change(5, &[("a", 1, 1)]), change(7, &[("a", 3, 3)])], 4, 9, |_| true).unwrap();
        assert_eq!((gap.upto, gap.runs), (5, vec![run("a", 1, 1)]));
    }

    #[test]
    fn long_runs_are_cut_from_their_first_entry() {
        assert_eq!(run("a", 3, 8).start(3), run("a", 3, 5));
        assert_eq!(run("a", 6, 8).start(3), run("a", 6, 8));
        assert_eq!(run("a", 6, 7).start(3), run("a", 6, 7));
        assert_eq!(run("a", 3, 3).start(0), run("a", 3, 3));
    }

    #[test]
    fn heavy_entries_have_calls_of_their_own() {
        let last = |list: &[usize]| {
            let weights: Vec<_> = (3..).map(SeqId).zip(list.iter().copied()).collect();
            run("a", 3, 2 + list.len() as u64).light(&weights, 10).last.0
        };
        assert_eq!(last(&[1, 1, 8]), 5);
        assert_eq!(last(&[1, 1, 9]), 4);
        assert_eq!(last(&[50, 50, 1]), 3);
        assert_eq!(last(&[]), 2, "nothing was read: as it is");
    }

    #[test]
    fn ids_name_what_a_call_is() {
        let digest = feedlog_storage::digest;
        let whole = Part::default();
        let uid = |name: &str| Some(Uid::parse(name).unwrap());
        assert_eq!(call_id("apns", &run("direct:00ff", 2, 9), &whole, None, digest), "apns:direct:00ff:2-9");
        assert_eq!(call_id("apns", &run("a.b é%", 1, 1), &whole, None, digest), "apns:a%2Eb%20%C3%A9%25:1-1");
        assert_eq!(call_id("apns", &run("a", 1, 1), &whole, Some(77), digest), "apns:a:1-1:r77");
        let first = Part { after: None, upto: uid("m"), more: true };
        let rest = Part { after: uid("m"), upto: uid("z"), more: false };
        let moved = Part { after: None, upto: uid("n"), more: true };
        let alone = Part { after: None, upto: uid("n"), more: false };
        assert_eq!(call_id("e", &run("a", 1, 1), &alone, None, digest), "e:a:1-1");
        let ids: Vec<_> =
            [&first, &rest, &moved].map(|part| call_id("e", &run("a", 1, 1), part, None, digest)).to_vec();
        assert!(ids.iter().all(|id| id.starts_with("e:a:1-1:p") && id.len() == 25), "{ids:?}");
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
    }
}
