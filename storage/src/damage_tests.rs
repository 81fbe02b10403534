//! What is damaged is named, by opening or by verify; never served.

use bytes::Bytes;
use feedlog_core::entry::Payload;
use feedlog_core::ids::{FeedId, SeqId};

use crate::conformance::{created, group, sent};
use crate::format::{self, Upcasters};
use crate::keys;
use crate::kv::{Batch, Kv, KvError, Table};
use crate::layout::Steps;
use crate::log::{LogEngine, LogOptions, Openers};
use crate::mem::{MemKv, Tables};
use crate::{Damage, Direction, Engine, EngineError, EngineKind, Group, OpenError};

fn feed(name: &str) -> FeedId {
    FeedId::parse(name).unwrap()
}

fn open(tables: Tables) -> Result<LogEngine<MemKv>, OpenError> {
    let openers: Openers<MemKv> = Openers {
        tables: Box::new(move || Ok::<_, KvError>(MemKv::with(tables.clone()))),
        scratch: Box::new(|_| Ok(MemKv::default())),
    };
    let options =
        LogOptions { node: 1, free_min_bytes: 0, accept_loss: false, is_guarded: false, feeds_cached_max: 8 };
    let steps = Steps { steps: &[], engine: EngineKind::Memory };
    LogEngine::open(openers, None, options, Upcasters::default(), &steps)
}

/// Two feeds with rows, in three commits; the first commit's change row is pruned.
fn sound() -> Tables {
    let engine = open(Tables::new()).unwrap();
    let (a, b) = (feed("a"), feed("b"));
    let commit =
        |groups: Vec<Group>| engine.commit(groups).into_iter().for_each(|answer| drop(answer.unwrap()));
    commit(vec![group(vec![created(&a), sent(&a, 2, b"one")])]);
    commit(vec![group(vec![created(&b), sent(&b, 2, b"two")]), group(vec![sent(&a, 3, b"three")])]);
    commit(vec![group(vec![sent(&a, 4, b"four")])]);
    engine.prune_changes(1).unwrap();
    crate::rebuild::rebuild(&engine, &mut |_| {}).unwrap();
    assert_eq!(crate::verify::verify(&engine, &mut |_| {}).unwrap().damage, None);
    let mut tables = Tables::new();
    let kv = engine.kv().unwrap();
    for table in Table::ALL {
        kv.scan(table, &[], &[255; 64], Direction::Forward, &mut |key, value| {
            tables.insert((table, key.to_vec()), Bytes::copy_from_slice(value));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    }
    tables
}

/// What verify says of tables that were changed behind the log's back while it was open.
fn verify_after(change: impl FnOnce(&mut Batch)) -> Damage {
    let engine = open(sound()).unwrap();
    let mut batch = Batch::default();
    change(&mut batch);
    engine.kv().unwrap().write(&batch).unwrap();
    crate::verify::verify(&engine, &mut |_| {}).unwrap().damage.expect("the damage is found")
}

fn entry_key(number: u64, seq: u64) -> Vec<u8> {
    keys::entry_array(number, SeqId(seq)).to_vec()
}

#[test]
fn verify_names_the_entry() {
    let check = |change: &dyn Fn(&mut Batch), name: &str, seq: u64, what: &str| {
        let damage = verify_after(change);
        assert_eq!((damage.feed.clone(), damage.seq), (Some(feed(name)), Some(SeqId(seq))), "{damage}");
        assert!(damage.what.contains(what) && damage.to_string().contains(name), "{damage}");
    };
    let tables = sound();
    let value = |number, seq| tables[&(Table::Entries, entry_key(number, seq))].clone();
    check(&|batch| batch.delete(Table::Entries, entry_key(1, 2)), "a", 2, "missing");
    check(&|batch| batch.delete(Table::Entries, entry_key(1, 1)), "a", 1, "missing");
    check(&|batch| batch.delete_range(Table::Entries, entry_key(1, 0), entry_key(1, 9)), "a", 1, "missing");
    check(&|batch| batch.delete_range(Table::Entries, entry_key(2, 0), entry_key(2, 9)), "b", 1, "missing");
    check(&|batch| batch.put(Table::Entries, entry_key(2, 2), value(1, 2)), "b", 2, "checksum");
    // A forged entry with a sound checksum breaks the chain: here, or at its successor.
    let forged = |seq: u64, payload: Payload| {
        let mut entry = sent(&feed("a"), seq, b"");
        entry.payload = payload;
        format::encode_entry(&keys::entry_array(1, SeqId(seq)), &entry, 1, 1, &[9; 32]).0
    };
    check(
        &|batch| {
            batch.put(Table::Entries, entry_key(1, 2), forged(2, Payload::Bytes(Bytes::from_static(b"1ne"))))
        },
        "a",
        2,
        "chain",
    );
    let early = |seq: u64| {
        let mut entry = sent(&feed("a"), seq, b"");
        entry.time_ms = 1;
        format::encode_entry(&keys::entry_array(1, SeqId(seq)), &entry, 1, 1, &[0; 32]).0
    };
    check(&|batch| batch.put(Table::Entries, entry_key(1, 3), early(3)), "a", 3, "earlier");
    let miscounted = || {
        let mut entry = sent(&feed("a"), 3, b"");
        entry.ordinal = feedlog_core::ids::Ordinal(7);
        format::encode_entry(&keys::entry_array(1, SeqId(3)), &entry, 1, 1, &[0; 32]).0
    };
    check(&|batch| batch.put(Table::Entries, entry_key(1, 3), miscounted()), "a", 3, "ordinal");
}

#[test]
fn verify_names_what_is_wrong_in_the_other_tables() {
    let check = |change: &dyn Fn(&mut Batch), what: &str| {
        let damage = verify_after(change);
        assert!(damage.to_string().contains(what), "{damage}");
    };
    let (a, b) = (feed("a"), feed("b"));
    check(&|batch| batch.delete(Table::Meta, keys::feed_name(1)), "feed number 1 has entries and no name");
    check(&|batch| batch.delete(Table::Meta, keys::feed_name(2)), "feed number 2 has entries and no name");
    check(&|batch| batch.delete(Table::Meta, keys::feed_number(&a)), "its name leads to None");
    check(
        &|batch| batch.put(Table::Meta, keys::feed_number(&b), format::encode_feed_number(1)),
        "leads to Some(1)",
    );
    check(
        &|batch| batch.put(Table::Meta, keys::feed_number(&feed("c")), format::encode_feed_number(1)),
        "3 names",
    );
    check(&|batch| batch.put(Table::Meta, keys::feed_name(3), &b"c"[..]), "\"c\": entry 1: is missing");
    check(&|batch| batch.delete(Table::Meta, keys::change(1, 3)), "change rows name");
    check(&|batch| batch.put(Table::Meta, keys::change(1, 9), &b"\0"[..]), "change row 9");
    let wrong = format::encode_change(&[(1, SeqId(3), SeqId(4))]);
    check(&|batch| batch.put(Table::Meta, keys::change(1, 3), wrong.clone()), "change row 3");
    check(&|batch| batch.put(Table::Meta, keys::change(1, 3), &b"\xff"[..]), "change row 3");
    let (table, key) = keys::row(&feedlog_core::rows::RowKey::Feed(b.clone()), 2);
    check(&|batch| batch.delete(table, key.clone()), "row Feed(\"b\") is missing");
    check(&|batch| batch.put(table, key.clone(), &b"x"[..]), "is not what the log says");
    check(
        &|batch| batch.put(Table::Rows, [&7_u64.to_be_bytes()[..], &[99]].concat(), &b"x"[..]),
        "no entry accounts",
    );
    check(&|batch| batch.put(Table::Meta, vec![12, 1], &b"x"[..]), "row key 0c01 is there");
}

#[test]
fn opening_checks_the_feeds_of_the_newest_commits() {
    let check = |change: &dyn Fn(&mut Tables), what: &str| {
        let mut tables = sound();
        change(&mut tables);
        match open(tables) {
            Err(OpenError::Damaged(text)) => assert!(text.contains(what), "{text}"),
            other => panic!("{:?}", other.map(|_| ())),
        }
    };
    let remove = |tables: &mut Tables, table, key: Vec<u8>| drop(tables.remove(&(table, key)).unwrap());
    check(&|tables| remove(tables, Table::Entries, entry_key(1, 4)), "ends at 3");
    check(&|tables| remove(tables, Table::Entries, entry_key(1, 3)), "entry 3 of feed number 1 is missing");
    check(&|tables| remove(tables, Table::Meta, keys::change(1, 3)), "ends at 4");
    check(
        &|tables| {
            let value = tables.get_mut(&(Table::Entries, entry_key(2, 2))).unwrap();
            let mut bytes = value.to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            *value = bytes.into();
        },
        "checksum",
    );
    check(
        &|tables| {
            let value = tables[&(Table::Meta, keys::change(1, 3))].clone();
            tables.insert((Table::Meta, keys::change(1, 5)), value);
        },
        "not neighbours",
    );
}

#[test]
fn damage_is_an_error_on_every_read_path() {
    let damaged =
        |result: Result<usize, EngineError>| assert!(matches!(result, Err(EngineError::Damaged(_))));
    let engine = open(sound()).unwrap();
    let a = feed("a");
    let all = |engine: &LogEngine<MemKv>, direction| {
        engine.read(&a, SeqId(1), SeqId::MAX, direction, 9, 999).map(|entries| entries.len())
    };
    assert_eq!(all(&engine, Direction::Forward).unwrap(), 4);
    let mut batch = Batch::default();
    batch.delete(Table::Entries, entry_key(1, 2));
    batch.put(Table::Meta, keys::change(1, 2), &b"\xff"[..]);
    let row = feedlog_core::rows::RowKey::Feed(a.clone());
    let (table, key) = keys::row(&row, 1);
    batch.put(table, key, &b"\xff"[..]);
    batch.put(Table::Entries, entry_key(2, 2), &b"\x01\x01\0\0\0\0"[..]);
    engine.kv().unwrap().write(&batch).unwrap();
    damaged(all(&engine, Direction::Forward));
    damaged(all(&engine, Direction::Backward));
    damaged(engine.records(&a, SeqId(1), SeqId::MAX, 9, 999).map(|records| records.len()));
    damaged(engine.changes(0, 9).map(|changes| changes.len()));
    damaged(engine.row(&row).map(|_| 0));
    damaged(
        engine.read(&feed("b"), SeqId(2), SeqId(2), Direction::Forward, 1, 1).map(|entries| entries.len()),
    );
    // A page that ends before the gap is sound.
    assert_eq!(engine.read(&a, SeqId(1), SeqId(4), Direction::Forward, 1, 999).unwrap().len(), 1);
    assert_eq!(engine.read(&a, SeqId(1), SeqId(4), Direction::Backward, 2, 999).unwrap().len(), 2);
}
