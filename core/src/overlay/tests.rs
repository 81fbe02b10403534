use super::*;
use crate::entry::Payload;
use crate::event::Event;
use crate::testing::{MemStore, feed_id, message, uid};

fn key(n: u64) -> RowKey {
    RowKey::Expiry(n, feed_id("f"), SeqId(n))
}

fn value(n: u64) -> Option<RowValue> {
    Some(RowValue::Seq(SeqId(n)))
}

fn entry(seq: u64) -> Entry {
    let event: Event = message(|_| {});
    Entry {
        feed: feed_id("f"),
        seq: SeqId(seq),
        ordinal: crate::ids::Ordinal(seq),
        time_ms: seq,
        sender: uid("alice"),
        event,
        payload: Payload::None,
    }
}

/// Puts rows and seals them as the group that ends at `last`.
fn group(
    overlay: &mut Overlay,
    store: &MemStore,
    last: u64,
    rows: &[(u64, Option<u64>)],
) -> Vec<(RowKey, Option<RowValue>)> {
    overlay.push(&[entry(last)]);
    let mut view = overlay.view(store);
    for (n, to) in rows {
        view.put(key(*n), to.and_then(value));
    }
    drop(view);
    overlay.seal(SeqId(last))
}

fn get(overlay: &mut Overlay, store: &MemStore, n: u64) -> Option<RowValue> {
    overlay.view(store).get(&key(n)).unwrap()
}

#[test]
fn the_newest_group_is_seen_until_it_is_durable() {
    let mut store = MemStore::default();
    store.rows.insert(key(1), RowValue::Seq(SeqId(100)));
    let mut overlay = Overlay::new(feed_id("f"));
    assert_eq!(get(&mut overlay, &store, 1), value(100));
    let rows = group(&mut overlay, &store, 1, &[(1, Some(101)), (2, Some(102)), (1, Some(103))]);
    assert_eq!(rows, [(key(1), value(103)), (key(2), value(102))], "each key once, its last value");
    let rows = group(&mut overlay, &store, 2, &[(1, None)]);
    assert_eq!(rows, [(key(1), None)]);
    assert_eq!(get(&mut overlay, &store, 1), None, "removed, though the store still has it");
    overlay.retire(SeqId(1));
    assert_eq!(get(&mut overlay, &store, 1), None, "the later group wrote it too");
    assert_eq!(get(&mut overlay, &store, 2), None, "from the store now, which was not written here");
    overlay.retire(SeqId(2));
    assert!(overlay.is_empty());
    assert_eq!(get(&mut overlay, &store, 1), value(100));
}

#[test]
fn entries_are_read_from_the_overlay_and_then_from_the_store() {
    let mut store = MemStore::default();
    store.logs.insert(feed_id("f"), vec![entry(1)]);
    let mut overlay = Overlay::new(feed_id("f"));
    overlay.push(&[entry(2), entry(3)]);
    let seq = |overlay: &mut Overlay, seq| {
        overlay.view(&store).entry(&feed_id("f"), SeqId(seq)).unwrap().map(|entry| entry.seq.0)
    };
    assert_eq!([0, 1, 2, 3, 4].map(|n| seq(&mut overlay, n)), [None, Some(1), Some(2), Some(3), None]);
    let other = overlay.view(&store).entry(&feed_id("other"), SeqId(2)).unwrap();
    assert_eq!(other, None, "another feed's entries are never taken from here");
}

#[test]
fn a_refused_group_leaves_nothing() {
    let store = MemStore::default();
    let mut overlay = Overlay::new(feed_id("f"));
    group(&mut overlay, &store, 1, &[(1, Some(101))]);
    overlay.clear();
    assert!(overlay.is_empty());
    assert_eq!(get(&mut overlay, &store, 1), None);
    assert_eq!(overlay.view(&store).entry(&feed_id("f"), SeqId(1)).unwrap(), None);
}
