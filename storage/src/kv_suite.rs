//! What every [`Kv`] must do, checked against maps in memory.

#![allow(clippy::unwrap_used)] // tests throughout

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::Direction;
use crate::kv::{Batch, Kv, KvError, KvOptions, Op, Table};

type Model = BTreeMap<(Table, Vec<u8>), Bytes>;
type Open<K> = fn(&Path, &KvOptions) -> Result<K, KvError>;

const OPTIONS: KvOptions = KvOptions { cache_bytes: 8 << 20 };

/// Runs everything on one engine.
pub(crate) fn suite<K: Kv>(open: Open<K>) {
    batches_equal_maps(open);
    a_batch_applies_in_order(open);
    scans_stay_within_their_range(open);
    a_scan_shows_one_state(open);
    visitors_may_read(open);
    large_and_long(open);
    backup_while_writing(open);
}

fn all<K: Kv>(kv: &K) -> Model {
    let mut model = Model::new();
    for table in Table::ALL {
        kv.scan(table, &[], &[0xff; 600], Direction::Forward, &mut |key, value| {
            model.insert((table, key.to_vec()), Bytes::copy_from_slice(value));
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    model
}

fn apply(model: &mut Model, batch: &Batch) {
    for op in batch.ops() {
        match op {
            Op::Put(table, key, value) => {
                model.insert((*table, key.clone()), value.clone());
            }
            Op::Delete(table, key) => {
                model.remove(&(*table, key.clone()));
            }
            Op::DeleteRange(table, from, to) => {
                model.retain(|(t, key), _| t != table || key < from || key >= to);
            }
        }
    }
}

/// A key as the log writes them: a feed's number, then a short rest.
fn key() -> impl Strategy<Value = Vec<u8>> {
    (0_u64..4, prop::collection::vec(any::<u8>(), 0..3)).prop_map(|(feed, rest)| {
        let mut key = feed.to_be_bytes().to_vec();
        key.extend_from_slice(&[0; 6]);
        key.extend_from_slice(&rest);
        key
    })
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 4090_usize..4102).prop_map(|(byte, len)| vec![byte; len]),
        1 => (any::<u8>(), 8000_usize..30_000).prop_map(|(byte, len)| vec![byte; len]),
    ]
    .prop_map(Bytes::from)
}

fn table() -> impl Strategy<Value = Table> {
    prop::sample::select(Table::ALL.to_vec())
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (table(), key(), value()).prop_map(|(table, key, value)| Op::Put(table, key, value)),
        2 => (table(), key()).prop_map(|(table, key)| Op::Delete(table, key)),
        1 => (table(), key(), key()).prop_map(|(table, a, b)| {
            let (from, to) = if a <= b { (a, b) } else { (b, a) };
            Op::DeleteRange(table, from, to)
        }),
    ]
}

fn batch_of(ops: &[Op]) -> Batch {
    let mut batch = Batch::default();
    for op in ops.iter().cloned() {
        match op {
            Op::Put(table, key, value) => batch.put(table, key, value),
            Op::Delete(table, key) => batch.delete(table, key),
            Op::DeleteRange(table, from, to) => batch.delete_range(table, from, to),
        }
    }
    batch
}

fn batches_equal_maps<K: Kv>(open: Open<K>) {
    let batches = prop::collection::vec(prop::collection::vec(op(), 1..40), 1..12);
    let scans = prop::collection::vec((table(), key(), key(), any::<bool>(), 0_usize..50), 8);
    // A failure prints the batches; there is no other source of randomness.
    TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() })
        .run(&(batches, scans), |(batches, scans)| {
            let dir = tempfile::tempdir().unwrap();
            let mut kv = open(dir.path(), &OPTIONS).unwrap();
            let mut model = Model::new();
            for (at, ops) in batches.iter().enumerate() {
                let batch = batch_of(ops);
                kv.write(&batch).unwrap();
                apply(&mut model, &batch);
                for ((table, key), value) in &model {
                    let found = kv.get(*table, key).unwrap();
                    prop_assert_eq!(found.as_ref(), Some(value));
                }
                for (table, from, to, forward, limit) in &scans {
                    let mut expected: Vec<_> = model
                        .iter()
                        .filter(|((t, key), _)| t == table && key >= from && key < to)
                        .map(|((_, key), value)| (key.clone(), value.clone()))
                        .collect();
                    let direction = if *forward { Direction::Forward } else { Direction::Backward };
                    if !forward {
                        expected.reverse();
                    }
                    expected.truncate(limit + 1);
                    let mut found = Vec::new();
                    kv.scan(*table, from, to, direction, &mut |key, value| {
                        found.push((key.to_vec(), Bytes::copy_from_slice(value)));
                        if found.len() > *limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    })
                    .unwrap();
                    prop_assert_eq!(found, expected);
                }
                if at % 4 == 3 {
                    kv.close().unwrap();
                    drop(kv);
                    kv = open(dir.path(), &OPTIONS).unwrap();
                }
            }
            prop_assert_eq!(all(&kv), model.clone());
            kv.check(&mut |_| ()).unwrap();
            kv.compact().unwrap();
            prop_assert_eq!(all(&kv), model);
            Ok(())
        })
        .unwrap();
}

fn a_batch_applies_in_order<K: Kv>(open: Open<K>) {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path(), &OPTIONS).unwrap();
    let key = |n: u8| vec![0, 0, 0, 0, 0, 0, 0, 1, n];
    let mut batch = Batch::default();
    for n in 0..5 {
        batch.put(Table::Meta, key(n), vec![n]);
    }
    batch.delete_range(Table::Meta, key(1), key(3));
    batch.put(Table::Meta, key(2), vec![22]);
    batch.delete(Table::Meta, key(4));
    batch.put(Table::Meta, key(4), vec![44]);
    batch.delete(Table::Meta, key(3));
    kv.write(&batch).unwrap();
    let found: Vec<_> = all(&kv).into_iter().map(|((_, key), value)| (key[8], value[0])).collect();
    assert_eq!(found, [(0, 0), (2, 22), (4, 44)]);
}

fn scans_stay_within_their_range<K: Kv>(open: Open<K>) {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path(), &OPTIONS).unwrap();
    let key = |feed: u64, seq: u64| [feed.to_be_bytes(), seq.to_be_bytes()].concat();
    let mut batch = Batch::default();
    for feed in [1, 2, 255, 256, u64::MAX] {
        for seq in [1, 2, 3, u64::MAX] {
            batch.put(Table::Entries, key(feed, seq), key(feed, seq));
        }
    }
    kv.write(&batch).unwrap();
    kv.close().unwrap();
    drop(kv);
    let kv = open(dir.path(), &OPTIONS).unwrap();
    let scan = |from: &[u8], to: &[u8], direction| {
        let mut found = Vec::new();
        kv.scan(Table::Entries, from, to, direction, &mut |key, value| {
            assert_eq!(key, value);
            let number = |at: usize| u64::from_be_bytes(key[at..at + 8].try_into().unwrap());
            found.push((number(0), number(8)));
            ControlFlow::Continue(())
        })
        .unwrap();
        found
    };
    for direction in [Direction::Forward, Direction::Backward] {
        let ordered = |mut list: Vec<(u64, u64)>| {
            if direction == Direction::Backward {
                list.reverse();
            }
            list
        };
        let max = u64::MAX;
        assert_eq!(
            scan(&key(2, 0), &key(2, max), direction),
            ordered(vec![(2, 1), (2, 2), (2, 3)]),
            "{direction:?}"
        );
        assert_eq!(
            scan(&key(2, 2), &key(3, 0), direction),
            ordered(vec![(2, 2), (2, 3), (2, max)]),
            "{direction:?}"
        );
        assert_eq!(
            scan(&key(2, max), &key(256, 2), direction),
            ordered(vec![(2, max), (255, 1), (255, 2), (255, 3), (255, max), (256, 1)]),
            "{direction:?}"
        );
        assert_eq!(scan(&key(7, 0), &key(7, max), direction), [], "{direction:?}");
        assert_eq!(scan(&key(2, 3), &key(2, 3), direction), [], "{direction:?}");
        assert_eq!(scan(&key(3, 3), &key(2, 3), direction), [], "{direction:?}");
    }
}

/// Every batch writes the same number to every key, so a scan that shows two numbers shows two states.
fn a_scan_shows_one_state<K: Kv>(open: Open<K>) {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path(), &OPTIONS).unwrap();
    let done = AtomicBool::new(false);
    let durable = AtomicU64::new(0);
    let write = |n: u64| {
        let mut batch = Batch::default();
        for k in 0..400_u64 {
            // Every third key comes and goes.
            if k % 3 == 0 && n.is_multiple_of(2) {
                batch.delete(Table::Rows, k.to_be_bytes().to_vec());
            } else {
                batch.put(Table::Rows, k.to_be_bytes().to_vec(), n.to_be_bytes().to_vec());
            }
        }
        kv.write(&batch).unwrap();
        durable.store(n, Ordering::Release);
    };
    write(1);
    std::thread::scope(|scope| {
        for direction in [Direction::Forward, Direction::Backward] {
            let (kv, done, durable) = (&kv, &done, &durable);
            scope.spawn(move || {
                let mut last = 0;
                while !done.load(Ordering::Acquire) {
                    let before = durable.load(Ordering::Acquire);
                    let mut seen = Vec::new();
                    kv.scan(Table::Rows, &[], &[0xff; 9], direction, &mut |_, value| {
                        seen.push(u64::from_be_bytes(value.try_into().unwrap()));
                        ControlFlow::Continue(())
                    })
                    .unwrap();
                    let n = seen[0];
                    assert!(seen.iter().all(|other| *other == n), "two states in one scan");
                    assert_eq!(seen.len(), if n.is_multiple_of(2) { 266 } else { 400 });
                    assert!(n >= before && n >= last, "an older state after a newer one");
                    // A batch may be seen a moment before its writer is told, never one that is not durable: at most
                    // one is in flight.
                    assert!(n <= durable.load(Ordering::Acquire) + 1);
                    last = n;
                }
            });
        }
        for n in 2..40 {
            write(n);
        }
        done.store(true, Ordering::Release);
    });
}

/// The log reads while it scans.
fn visitors_may_read<K: Kv>(open: Open<K>) {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path(), &OPTIONS).unwrap();
    let mut batch = Batch::default();
    for k in 0..1000_u64 {
        batch.put(Table::Meta, k.to_be_bytes().to_vec(), k.to_be_bytes().to_vec());
    }
    kv.write(&batch).unwrap();
    let mut count = 0;
    kv.scan(Table::Meta, &[], &[0xff; 9], Direction::Forward, &mut |key, value| {
        assert_eq!(kv.get(Table::Meta, key).unwrap().as_deref(), Some(value));
        // Writes from here are allowed too; the scan does not see them.
        let mut batch = Batch::default();
        batch.delete(Table::Meta, (999 - count as u64).to_be_bytes().to_vec());
        if count % 100 == 0 {
            kv.write(&batch).unwrap();
            assert_eq!(kv.get(Table::Meta, &(999 - count as u64).to_be_bytes()).unwrap(), None);
        }
        count += 1;
        if count == 450 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    assert_eq!(count, 450);
}

fn large_and_long<K: Kv>(open: Open<K>) {
    let dir = tempfile::tempdir().unwrap();
    let mut kv = open(dir.path(), &OPTIONS).unwrap();
    let large = |len: usize, seed: u32| -> Bytes {
        let mut state = seed;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect()
    };
    let mut model = Model::new();
    for (n, len) in [0, 1, 4095, 4096, 4097, 1 << 20, 16 << 20].into_iter().enumerate() {
        let mut batch = Batch::default();
        batch.put(Table::Entries, vec![n as u8; 16], large(len, n as u32));
        batch.put(Table::Meta, vec![n as u8 + 1; 500], large(len / 2, n as u32));
        apply(&mut model, &batch);
        kv.write(&batch).unwrap();
    }
    for seq in 0..200_u64 {
        // Long keys with long values in one place: the largest page that can be.
        let mut batch = Batch::default();
        let mut key = vec![b'k'; 492];
        key.extend_from_slice(&seq.to_be_bytes());
        batch.put(Table::Rows, key, large(4096, seq as u32));
        apply(&mut model, &batch);
        kv.write(&batch).unwrap();
    }
    assert!(all(&kv) == model);
    // Smaller ones in their place leave nothing behind.
    let mut batch = Batch::default();
    batch.put(Table::Entries, vec![6; 16], vec![1]);
    batch.delete(Table::Meta, vec![7; 500]);
    apply(&mut model, &batch);
    kv.write(&batch).unwrap();
    kv.close().unwrap();
    drop(kv);
    kv = open(dir.path(), &OPTIONS).unwrap();
    assert!(all(&kv) == model);
    kv.check(&mut |_| ()).unwrap();
}

/// Batch n writes n to both ends, so a copy that has one end without the other is torn.
fn backup_while_writing<K: Kv>(open: Open<K>) {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let kv = open(&store, &OPTIONS).unwrap();
    let write = |n: u64| {
        let mut batch = Batch::default();
        batch.put(Table::Entries, [1_u64.to_be_bytes(), n.to_be_bytes()].concat(), vec![7; 300]);
        batch.put(Table::Rows, vec![0; 9], n.to_be_bytes().to_vec());
        batch.put(Table::Meta, vec![9; 3], n.to_be_bytes().to_vec());
        kv.write(&batch).unwrap();
    };
    (1..300).for_each(write);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 300;
            while !done.load(Ordering::Acquire) {
                write(n);
                n += 1;
            }
        });
        let at_least = kv.get(Table::Meta, &[9; 3]).unwrap().unwrap();
        kv.backup(&dir.path().join("copy")).unwrap();
        done.store(true, Ordering::Release);
        let copy = open(&dir.path().join("copy"), &OPTIONS).unwrap();
        let n = copy.get(Table::Meta, &[9; 3]).unwrap().unwrap();
        assert!(n >= at_least);
        assert_eq!(copy.get(Table::Rows, &[0; 9]).unwrap().unwrap(), n);
        let entries = all(&copy).into_keys().filter(|(table, _)| *table == Table::Entries).count();
        assert_eq!(entries as u64, u64::from_be_bytes(n.as_ref().try_into().unwrap()));
        copy.check(&mut |_| ()).unwrap();
    });
    assert!(kv.backup(&dir.path().join("copy")).is_err(), "an existing directory is never written into");
}
