//! Patterns over the names of feeds: MQTT topic filters, without any MQTT round them.
//!
//! Levels are split by `/`, and empty levels count. `+` stands for one level, `#` for the level before it and all below.
//! A pattern that begins with a wildcard never matches a name that begins with `$` (MQTT5 [MQTT-4.7.2-1]).

use std::collections::HashMap;
use std::sync::Arc;

use crate::limits::{FEED_ID_BYTES_MAX, PATTERN_BYTES_MAX};

/// Levels beyond which a pattern matches no name: a name has at most this many, and `#` one more.
const LEVELS_MAX: usize = FEED_ID_BYTES_MAX + 2;

/// A pattern whose syntax was checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Checks the syntax: not empty, at most [`PATTERN_BYTES_MAX`], wildcards alone in their level, `#` only at the end.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
            return None;
        }
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            let sound = match level {
                // MQTT5 [MQTT-4.7.1-1]
                "#" => levels.peek().is_none(),
                // MQTT5 [MQTT-4.7.1-2]
                "+" => true,
                text => !text.contains(['+', '#']),
            };
            if !sound {
                return None;
            }
        }
        Some(Self(Arc::from(text)))
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it has no wildcard and so matches one name only.
    pub fn is_literal(&self) -> bool {
        !self.0.contains(['+', '#'])
    }

    /// Whether the name matches.
    pub fn matches(&self, name: &str) -> bool {
        if hides(name) && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = name.split('/');
        for wanted in self.0.split('/') {
            match (wanted, levels.next()) {
                // Also with no level left: `a/#` matches `a`.
                ("#", _) => return true,
                (_, None) => return false,
                ("+", Some(_)) => {}
                (text, Some(level)) if text == level => {}
                (_, Some(_)) => return false,
            }
        }
        levels.next().is_none()
    }
}

/// MQTT5 [MQTT-4.7.2-1]: such names are hidden from patterns that begin with a wildcard.
fn hides(name: &str) -> bool {
    name.starts_with('$')
}

/// Values by pattern. Finds those of all patterns that match a name by walking the levels of the name, however many
/// patterns there are.
#[derive(Debug, Clone)]
pub struct PatternSet<T> {
    root: Node<T>,
    len: usize,
}

#[derive(Debug, Clone)]
struct Node<T> {
    levels: HashMap<Box<str>, Node<T>>,
    any: Option<Box<Node<T>>>,
    /// Values of patterns that end here.
    here: Vec<T>,
    /// Values of patterns that go on with `#`.
    below: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { levels: HashMap::new(), any: None, here: Vec::new(), below: Vec::new() }
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.levels.is_empty() && self.any.is_none() && self.here.is_empty() && self.below.is_empty()
    }
}

impl<T> Default for PatternSet<T> {
    fn default() -> Self {
        Self { root: Node::default(), len: 0 }
    }
}

impl<T> PatternSet<T> {
    /// How many values there are, without those of patterns too deep to match anything.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing can match.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a value. One pattern may have many.
    pub fn insert(&mut self, pattern: &Pattern, value: T) {
        if is_too_deep(pattern) {
            return;
        }
        let mut node = &mut self.root;
        self.len += 1;
        for level in pattern.as_str().split('/') {
            node = match level {
                "#" => return node.below.push(value),
                "+" => node.any.get_or_insert_default(),
                // Looked up first, to copy the text of new levels only.
                text if node.levels.contains_key(text) => {
                    node.levels.get_mut(text).expect("INVARIANT: looked up just before")
                }
                text => node.levels.entry(text.into()).or_default(),
            };
        }
        node.here.push(value);
    }

    /// Removes the first value of a pattern that is meant.
    pub fn remove(&mut self, pattern: &Pattern, is_meant: impl FnMut(&T) -> bool) -> Option<T> {
        if is_too_deep(pattern) {
            return None;
        }
        let removed = remove(&mut self.root, Some(pattern.as_str()), is_meant)?;
        self.len -= 1;
        Some(removed)
    }

    /// Visits the values of all patterns that match the name.
    pub fn each<'a>(&'a self, name: &str, mut visit: impl FnMut(&'a T)) {
        each(&self.root, Some(name), hides(name), &mut visit);
    }

    /// Whether any pattern matches the name.
    pub fn matches(&self, name: &str) -> bool {
        let mut found = false;
        self.each(name, |_| found = true);
        found
    }
}

/// Keeps the tree as shallow as names are: a filter may have ten thousands of levels.
fn is_too_deep(pattern: &Pattern) -> bool {
    pattern.as_str().split('/').nth(LEVELS_MAX).is_some()
}

/// The first level and what follows it, if anything does.
fn first(rest: &str) -> (&str, Option<&str>) {
    match rest.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (rest, None),
    }
}

fn each<'a, T>(node: &'a Node<T>, rest: Option<&str>, hidden: bool, visit: &mut impl FnMut(&'a T)) {
    if !hidden {
        node.below.iter().for_each(&mut *visit);
    }
    let Some(rest) = rest else { return node.here.iter().for_each(visit) };
    let (level, rest) = first(rest);
    if let Some(next) = node.levels.get(level) {
        each(next, rest, false, visit);
    }
    if let (Some(next), false) = (&node.any, hidden) {
        each(next, rest, false, visit);
    }
}

fn remove<T>(node: &mut Node<T>, rest: Option<&str>, mut is_meant: impl FnMut(&T) -> bool) -> Option<T> {
    fn take<T>(values: &mut Vec<T>, is_meant: impl FnMut(&T) -> bool) -> Option<T> {
        values.iter().position(is_meant).map(|at| values.swap_remove(at))
    }
    let Some(rest) = rest else { return take(&mut node.here, is_meant) };
    match first(rest) {
        ("#", _) => take(&mut node.below, is_meant),
        ("+", rest) => {
            let removed = remove(node.any.as_mut()?, rest, &mut is_meant as &mut dyn FnMut(&T) -> bool);
            node.any.take_if(|next| next.is_empty());
            removed
        }
        (level, rest) => {
            let next = node.levels.get_mut(level)?;
            let removed = remove(next, rest, &mut is_meant as &mut dyn FnMut(&T) -> bool);
            if next.is_empty() {
                node.levels.remove(level);
            }
            removed
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap_or_else(|| panic!("{text:?} is a pattern"))
    }

    #[test]
    fn syntax() {
        for good in ["a", "/", "//", "+", "#", "+/+", "a/+/b", "a/#", "/#", "+/#", "$SYS/#", "é/+", " "] {
            assert!(Pattern::parse(good).is_some(), "{good:?}");
        }
        for bad in ["", "a#", "#/a", "a/#/b", "a+", "+a", "a/b+/c", "a/b#", "##", "++", "+#", "#/"] {
            assert!(Pattern::parse(bad).is_none(), "{bad:?}");
        }
        assert!(Pattern::parse(&"/".repeat(PATTERN_BYTES_MAX)).is_some());
        assert!(Pattern::parse(&"/".repeat(PATTERN_BYTES_MAX + 1)).is_none());
        assert!(pattern("a/b").is_literal() && !pattern("a/+").is_literal());
    }

    /// The examples of MQTT 5 §4.7.1 to §4.7.2, and what they leave to be thought of.
    #[test]
    fn table() {
        let cases = [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/tennis/player1/#", "sport/tennis/player2", false),
            ("sport/#", "sport", true),
            ("sport/#", "sports", false),
            ("#", "a", true),
            ("#", "/", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("+", "finance", true),
            ("a//b", "a//b", true),
            ("a//b", "a/b", false),
            ("a/+/b", "a//b", true),
            ("a", "A", false),
            ("a/b", "a", false),
            ("a", "a/b", false),
            ("/a", "a", false),
            ("#", "$SYS/uptime", false),
            ("+/uptime", "$SYS/uptime", false),
            ("+/#", "$SYS", false),
            ("$SYS/#", "$SYS/uptime", true),
            ("$SYS/#", "$SYS", true),
            ("$SYS/+", "$SYS/uptime", true),
            ("a/#", "a/$b", true),
            ("a/+", "a/$b", true),
            ("/#", "/$b", true),
            ("+/#", "a", true),
            ("+/+/#", "a", false),
            ("+/+/#", "a/b", true),
            ("é/+", "é/ü", true),
        ];
        for (filter, name, expected) in cases {
            assert_eq!(pattern(filter).matches(name), expected, "{filter:?} {name:?}");
            let mut set = PatternSet::default();
            set.insert(&pattern(filter), ());
            assert_eq!(set.matches(name), expected, "{filter:?} {name:?} in a set");
        }
    }

    /// Straight from the words of the standard, slow and obvious.
    fn naive(filter: &[&str], name: &[&str]) -> bool {
        match (filter, name) {
            (["#"], _) => true,
            ([], []) => true,
            ([wanted, filter @ ..], [level, name @ ..]) => {
                (*wanted == "+" || wanted == level) && naive(filter, name)
            }
            _ => false,
        }
    }

    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["", "a", "b", "$s"]), 1..6).prop_map(|l| l.join("/"))
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["", "a", "b", "$s", "+"]);
        (prop::collection::vec(level, 0..6), any::<bool>()).prop_filter_map("empty", |(mut levels, below)| {
            if below {
                levels.push("#");
            }
            (levels.iter().any(|level| !level.is_empty()) || levels.len() > 1).then(|| levels.join("/"))
        })
    }

    proptest! {
        #[test]
        fn a_set_finds_what_a_naive_matcher_finds(
            filters in prop::collection::vec(filter(), 0..30),
            gone in prop::collection::vec(any::<bool>(), 30),
            names in prop::collection::vec(name(), 1..20),
        ) {
            let mut set = PatternSet::default();
            for (at, text) in filters.iter().enumerate() {
                set.insert(&pattern(text), at);
            }
            let mut kept = Vec::new();
            for (at, text) in filters.iter().enumerate() {
                if gone[at] {
                    prop_assert_eq!(set.remove(&pattern(text), |value| *value == at), Some(at));
                    prop_assert_eq!(set.remove(&pattern(text), |value| *value == at), None);
                } else {
                    kept.push(at);
                }
            }
            prop_assert_eq!(set.len(), kept.len());
            for name in &names {
                let levels: Vec<&str> = name.split('/').collect();
                let mut found = Vec::new();
                set.each(name, |at| found.push(*at));
                found.sort_unstable();
                let wanted = |at: &usize| {
                    let hidden = name.starts_with('$') && filters[*at].starts_with(['+', '#']);
                    !hidden && naive(&filters[*at].split('/').collect::<Vec<_>>(), &levels)
                };
                let expected: Vec<usize> = kept.iter().copied().filter(wanted).collect();
                prop_assert_eq!(&found, &expected);
                for (at, text) in filters.iter().enumerate() {
                    prop_assert_eq!(pattern(text).matches(name), wanted(&at));
                }
            }
            for at in kept {
                set.remove(&pattern(&filters[at]), |value| *value == at);
            }
            prop_assert!(set.is_empty() && set.root.is_empty(), "nothing is left behind");
        }
    }

    #[test]
    fn depth_is_bounded_by_what_a_name_can_have() {
        let deepest = "/".repeat(FEED_ID_BYTES_MAX);
        let mut set = PatternSet::default();
        set.insert(&pattern(&format!("{deepest}/#")), 1);
        set.insert(&pattern(&format!("{}#", "+/".repeat(FEED_ID_BYTES_MAX + 1))), 2);
        set.insert(&pattern(&"/".repeat(PATTERN_BYTES_MAX)), 3);
        let mut found = Vec::new();
        set.each(&deepest, |value| found.push(*value));
        assert_eq!(found, [1, 2]);
        assert_eq!(set.len(), 2, "what can match nothing is not kept");
        assert_eq!(set.remove(&pattern(&"/".repeat(PATTERN_BYTES_MAX)), |_| true), None);
    }

    #[test]
    fn many_patterns_cost_the_levels_of_the_name() {
        let mut set = PatternSet::default();
        for n in 0..100_000 {
            set.insert(&pattern(&format!("a/{n}/+")), n);
        }
        let mut found = Vec::new();
        set.each("a/77/x", |value| found.push(*value));
        assert_eq!(found, [77]);
    }
}
