//! The patterns of one attachment, and what of the past each still wants.

use std::collections::HashMap;

use feedlog_core::pattern::{Pattern, PatternSet};

/// Patterns by id.
#[derive(Clone, Default)]
pub(super) struct Wants {
    set: PatternSet<u32>,
    by_id: HashMap<u32, Want>,
}

#[derive(Clone)]
pub(super) struct Want {
    pub(super) pattern: Pattern,
    /// Entries committed after this are wanted.
    after: u64,
    stage: Stage,
}

/// How far a pattern is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// As far as all others.
    Live,
    /// The scan that runs or is about to run brings it there.
    Lagging,
    /// The scan after the one that runs does.
    Waiting,
}

/// Commits after the first and up to the second number.
pub(super) type Window = (u64, u64);

impl Wants {
    pub(super) fn insert(&mut self, id: u32, pattern: Pattern, after: u64, stage: Stage) {
        self.set.insert(&pattern, id);
        self.by_id.insert(id, Want { pattern, after, stage });
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Want> {
        let want = self.by_id.remove(&id)?;
        self.set.remove(&want.pattern, |other| *other == id);
        Some(want)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Want)> {
        self.by_id.iter().map(|(id, want)| (*id, want))
    }

    pub(super) fn has_waiting(&self) -> bool {
        self.by_id.values().any(|want| want.stage == Stage::Waiting)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        self.set.matches(name)
    }

    /// The scan has ended: what lagged is live, and what waited is next. From which commit on, if anything waited.
    pub(super) fn advance(&mut self) -> Option<u64> {
        let mut first = None;
        for want in self.by_id.values_mut() {
            want.stage = match want.stage {
                Stage::Live | Stage::Lagging => Stage::Live,
                Stage::Waiting => {
                    first = Some(first.map_or(want.after, |first: u64| first.min(want.after)));
                    Stage::Lagging
                }
            };
        }
        first
    }

    /// Of the commits in `(from, to]`, those whose entries of this feed are still to be delivered, when live patterns are
    /// complete up to `swept`. At most two stretches, in order; some may be empty.
    pub(super) fn windows(&self, name: &str, swept: u64, (from, to): Window) -> [Window; 2] {
        let (mut live, mut lagging) = (u64::MAX, u64::MAX);
        self.set.each(name, |id| {
            if let Some(want) = self.by_id.get(id) {
                let first = match want.stage {
                    Stage::Live => &mut live,
                    Stage::Lagging => &mut lagging,
                    Stage::Waiting => return,
                };
                *first = want.after.min(*first);
            }
        });
        // What live patterns had is not delivered again: `(live, swept]`.
        let stretches = if live < swept {
            [(lagging, live), (swept, u64::MAX)]
        } else {
            [(lagging.min(live), u64::MAX), (u64::MAX, u64::MAX)]
        };
        stretches.map(|(after, upto)| (after.max(from), upto.min(to)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(list: &[(&str, u64, Stage)]) -> Wants {
        let mut wants = Wants::default();
        for ((text, after, stage), id) in list.iter().zip(0..) {
            wants.insert(id, Pattern::parse(text).unwrap(), *after, *stage);
        }
        wants
    }

    /// The stretches against their definition, commit by commit.
    #[test]
    fn windows_hold_what_is_wanted_and_was_not_had() {
        let stages = [Stage::Live, Stage::Lagging, Stage::Waiting];
        for code in 0..3_u64.pow(3) * 5_u64.pow(3) {
            let (mut rest, mut list) = (code, Vec::new());
            for text in ["a/+", "#", "a/b"] {
                let (stage, after) = (stages[(rest % 3) as usize], rest / 3 % 5);
                rest /= 15;
                list.push((text, after * 2, stage));
            }
            let wants = wants(&list);
            for swept in 0..10 {
                let windows = wants.windows("a/b", swept, (1, 9));
                for commit in 0..12 {
                    let had = |(_, after, stage): &(&str, u64, Stage)| {
                        *stage == Stage::Live && *after < commit && commit <= swept
                    };
                    let wanted = |(_, after, stage): &(&str, u64, Stage)| {
                        *after < commit
                            && match stage {
                                Stage::Live => commit > swept,
                                Stage::Lagging => true,
                                Stage::Waiting => false,
                            }
                    };
                    let expected =
                        (2..=9).contains(&commit) && list.iter().any(wanted) && !list.iter().any(had);
                    let found = windows.iter().any(|(after, upto)| *after < commit && commit <= *upto);
                    assert_eq!(found, expected, "{code} {swept} {commit}");
                }
                assert!(wants.windows("b", swept, (9, 9)).iter().all(|(after, upto)| after >= upto));
            }
        }
    }
}
