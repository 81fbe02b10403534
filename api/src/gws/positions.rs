//! The pages of a history: positions as the original counts them.
//!
//! The original keeps a list, newest first, and asks for `LRANGE first last` [gws: index semantics]. Here the list is the
//! messages of the room by ordinal; what is not shown any more keeps its place.

use feedlog_core::ids::Ordinal;

/// The messages of a page, from the newest to the oldest of them; `None` when there are none. `count` messages are there.
pub(crate) fn page(position: i64, size: i64, count: u64) -> Option<(Ordinal, Ordinal)> {
    // INVARIANT: a feed has fewer than 2^53 messages.
    let count = i64::try_from(count).ok()?;
    // A negative position counts from the oldest message.
    let first = if position < 0 { count + position } else { position };
    let last = first.saturating_add(size).saturating_sub(1);
    // LRANGE: negative ends count from the end of the list, here for the second time.
    let from_end = |index: i64| if index < 0 { count + index } else { index };
    let (first, last) = (from_end(first).max(0), from_end(last).min(count - 1));
    if first > last {
        return None;
    }
    // 0 is the newest message, whose ordinal is the count.
    let ordinal = |index: i64| u64::try_from(count - index).ok().map(Ordinal);
    Some((ordinal(first)?, ordinal(last)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages of a page of ten, m10 being the newest.
    fn of_ten(position: i64, size: i64) -> Vec<u64> {
        page(position, size, 10)
            .map_or_else(Vec::new, |(newest, oldest)| (oldest.0..=newest.0).rev().collect())
    }

    #[test]
    fn every_row_of_the_table_of_positions() {
        let all: Vec<u64> = (1..=10).rev().collect();
        let cases: [(i64, i64, &[u64]); 17] = [
            (0, 3, &[10, 9, 8]),
            (3, 3, &[7, 6, 5]),
            (8, 5, &[2, 1]),
            (20, 5, &[]),
            (-3, 3, &[3, 2, 1]),
            (-5, 2, &[5, 4]),
            (-3, 5, &[3, 2, 1]),
            (-50, 50, &all),
            (-50, 45, &[10, 9, 8, 7, 6]),
            (-50, 20, &[]),
            (-12, 5, &[]),
            (0, 0, &all),
            (0, -1, &all[..9]),
            // Between the rows.
            (9, 1, &[1]),
            (10, 1, &[]),
            (-10, 1, &[10]),
            (0, 1000, &all),
        ];
        for (position, size, expected) in cases {
            assert_eq!(of_ten(position, size), expected, "position {position}, size {size}");
        }
    }

    #[test]
    fn no_numbers_are_too_large_and_an_empty_room_has_no_page() {
        let edges = [i64::MIN, i64::MIN + 1, -11, -1, 0, 1, 11, i64::MAX - 1, i64::MAX];
        for position in edges {
            for size in edges {
                for count in [0, 1, 10, (1 << 53) - 1, u64::MAX] {
                    let page = page(position, size, count);
                    assert!(page.is_none_or(|(newest, oldest)| {
                        Ordinal(1) <= oldest && oldest <= newest && newest.0 <= count
                    }));
                    assert!(count > 0 || page.is_none());
                }
            }
        }
    }
}
