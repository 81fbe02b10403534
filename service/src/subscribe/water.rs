//! Up to which commit everything was published.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts the groups of each commit that are still to be published. The committer announces a commit before it answers for
/// its groups, shards retire each group after publishing it, in any order over feeds.
pub(super) struct LowWater {
    pending: Mutex<Pending>,
    low: AtomicU64,
    newest: AtomicU64,
}

struct Pending {
    newest: u64,
    /// Commits with groups to come, ascending.
    commits: VecDeque<(u64, usize)>,
}

impl LowWater {
    /// `commit_no` is the newest commit of before the first that will be announced.
    pub(super) fn new(commit_no: u64) -> Self {
        Self {
            pending: Mutex::new(Pending { newest: commit_no, commits: VecDeque::new() }),
            low: AtomicU64::new(commit_no),
            newest: AtomicU64::new(commit_no),
        }
    }

    /// Everything committed up to here was published.
    pub(super) fn low(&self) -> u64 {
        self.low.load(Ordering::SeqCst)
    }

    /// Nothing committed after this was published yet.
    pub(super) fn newest(&self) -> u64 {
        self.newest.load(Ordering::SeqCst)
    }

    /// So many groups of this commit will be published. Calls `gap` first when commits before it were never announced:
    /// their outcome was unknown, and nobody will publish them.
    pub(super) fn announce(&self, commit_no: u64, groups: usize, gap: impl FnOnce()) {
        if groups == 0 {
            return;
        }
        let mut pending = self.lock();
        if commit_no > pending.newest + 1 {
            // Before the mark can pass them.
            gap();
        }
        pending.newest = pending.newest.max(commit_no);
        self.newest.store(pending.newest, Ordering::SeqCst);
        pending.commits.push_back((commit_no, groups));
    }

    /// One group of this commit was published.
    pub(super) fn retire(&self, commit_no: u64) {
        let mut pending = self.lock();
        let at = pending.commits.partition_point(|(other, _)| *other < commit_no);
        match pending.commits.get_mut(at) {
            Some((other, groups)) if *other == commit_no => *groups = groups.saturating_sub(1),
            _ => {
                return debug_assert!(
                    false,
                    "INVARIANT: a commit is announced before its groups are answered"
                );
            }
        }
        while pending.commits.front().is_some_and(|(_, groups)| *groups == 0) {
            pending.commits.pop_front();
        }
        let low = pending.commits.front().map_or(pending.newest, |(oldest, _)| oldest - 1);
        self.low.store(low, Ordering::SeqCst);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_passes_a_commit_when_all_of_its_groups_are_published() {
        let water = LowWater::new(7);
        assert_eq!((water.low(), water.newest()), (7, 7));
        water.announce(8, 2, || panic!("no gap"));
        water.announce(9, 1, || panic!("no gap"));
        // A round of state rows only has the number of the commit before.
        water.announce(9, 0, || panic!("no gap"));
        assert_eq!((water.low(), water.newest()), (7, 9));
        water.retire(9);
        assert_eq!(water.low(), 7);
        water.retire(8);
        assert_eq!(water.low(), 7);
        water.retire(8);
        assert_eq!(water.low(), 9);
    }

    #[test]
    fn a_commit_that_nobody_announced_is_told_before_the_mark_passes_it() {
        let water = LowWater::new(1);
        let mut low = None;
        water.announce(3, 1, || low = Some(water.low()));
        assert_eq!(low, Some(1));
        assert_eq!(water.low(), 1);
        water.retire(3);
        assert_eq!(water.low(), 3);
    }
}
