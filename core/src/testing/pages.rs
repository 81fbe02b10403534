//! Compares a page of history with the naive one.

use crate::entry::Payload;
use crate::event::Event;
use crate::ids::SeqId;
use crate::testing::oracle::{Oracle, Seen};
use crate::views::{HistoryQuery, Page, View};

/// Compares a page with what the reader sees at every place.
pub(super) fn check_page(
    oracle: &Oracle,
    seen: &[Seen],
    query: HistoryQuery,
    limit: usize,
    page: &Page,
    of: &str,
) {
    let head = SeqId(seen.len() as u64);
    assert_eq!(page.head, head, "{of}");
    assert!(page.entries.len() <= limit, "{of}");
    let is_message = |seq: u64| {
        matches!(oracle.entry(&page.feed, SeqId(seq)).map(|entry| &entry.event), Some(Event::MessageSent(_)))
    };
    let next = page.next.map(|next| next as u64);
    let places = || {
        let shown = page.entries.iter().map(|view| view.entry.seq.0);
        shown.chain(page.gone.iter().map(|gone| gone.from.0))
    };
    // The places that the page says to cover.
    let covered: Vec<u64> = match query {
        HistoryQuery::After(after) => (after.0 + 1..=next.unwrap_or(head.0)).collect(),
        HistoryQuery::Before(before) => (next.unwrap_or(1)..before.0.min(head.0 + 1)).collect(),
        HistoryQuery::Around(_) => match places().min() {
            Some(lowest) => (lowest..=next.unwrap_or(head.0)).collect(),
            None => Vec::new(),
        },
        HistoryQuery::Position(position) => {
            let messages: Vec<u64> = (1..=head.0).filter(|seq| is_message(*seq)).collect();
            let count = messages.len() as i64;
            let from = if position < 0 { (count + 1 + position).max(1) } else { position.max(1) };
            let to = next.map_or(count, |next| next as i64 - 1);
            messages
                .into_iter()
                .enumerate()
                .filter(|(at, _)| (from..=to).contains(&(*at as i64 + 1)))
                .map(|(_, seq)| seq)
                .collect()
        }
        HistoryQuery::BackFrom(from) => {
            let messages = (1..=head.0).filter(|seq| is_message(*seq)).zip(1..);
            let covered = next.unwrap_or(0) + 1..=from.0;
            messages.filter(|(_, ordinal)| covered.contains(ordinal)).map(|(seq, _)| seq).collect()
        }
    };
    assert_eq!(page.head_ordinal.0, (1..=head.0).filter(|seq| is_message(*seq)).count() as u64, "{of}");
    let prev = |seq: u64| {
        let before = (1..seq).rev().find(|at| matches!(seen[*at as usize - 1], Seen::Entry(..)));
        SeqId(before.unwrap_or(0))
    };
    let mut shown = Vec::new();
    for seq in covered {
        match &seen[seq as usize - 1] {
            Seen::Entry(payload, carried) => {
                shown.push((SeqId(seq), prev(seq), payload.clone(), carried.clone()));
            }
            Seen::Gone(reason) => {
                let told = page.gone.iter().find(|gone| gone.from.0 <= seq && seq <= gone.to.0);
                assert_eq!(told.map(|gone| gone.reason), Some(*reason), "{seq} is gone: {of}");
            }
        }
    }
    if matches!(query, HistoryQuery::Before(_) | HistoryQuery::BackFrom(_)) {
        shown.reverse();
    }
    let bytes = |payload: &Payload| payload.bytes().cloned().unwrap_or_default();
    let given = |view: &View| {
        let carried = view.entry.message().map(|message| bytes(&message.carried)).unwrap_or_default();
        (view.entry.seq, view.prev_seq, bytes(&view.entry.payload), carried)
    };
    let given: Vec<_> = page.entries.iter().map(given).collect();
    assert_eq!(given, shown, "{of}");
    for gone in &page.gone {
        for seq in gone.from.0..=gone.to.0 {
            let hidden = matches!(&seen[seq as usize - 1], Seen::Gone(reason) if *reason == gone.reason);
            // By position the stretch before joining also holds entries that are no messages.
            assert!(hidden, "{gone:?} covers {seq}: {of}");
        }
    }
    if page.next.is_some() && limit > 0 {
        assert!(places().next().is_some(), "a page that is not the last makes progress: {of}");
    }
}
