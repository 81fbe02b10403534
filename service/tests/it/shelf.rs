//! Rows of front ends: durable on `Ok`, and atomic with the entries of the command that carries them.

use bytes::Bytes;
use feedlog_core::command::{Action, Draft};
use feedlog_core::event::FeedKind;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_service::{Answers, Shelf, ShelfValue, ShelfWrite, Store, StoreConfig, SubmitError};
use feedlog_storage::faulty::{Fault, FaultyDisk};
use feedlog_storage::{Engine, OpenOptions};

use crate::world::*;

const FRONT_END: &str = "test";

fn row(key: &str, value: ShelfValue) -> ShelfWrite {
    ShelfWrite { front_end: FRONT_END, key: key.into(), value }
}

fn bytes(text: &'static str) -> ShelfValue {
    ShelfValue::Bytes(Bytes::from_static(text.as_bytes()))
}

async fn get(shelf: &Shelf, key: &str) -> Option<Bytes> {
    let found = shelf.get(key.as_bytes()).await.unwrap();
    assert_eq!(shelf.get_blocking(key.as_bytes()).unwrap(), found);
    found
}

async fn names(shelf: &Shelf, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let rows = shelf.scan(prefix.as_bytes(), after.map(str::as_bytes), limit).await.unwrap();
    rows.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
}

/// A store on a disk that outlives it.
fn on(disk: &FaultyDisk) -> Store {
    let engine = disk.open(&OpenOptions::default()).unwrap().engine();
    Store::open(StoreConfig { expire_every_ms: 60_000, ..config() }, engine).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_read_back_by_prefix_and_page() {
    let (store, _) = open(config());
    let shelf = store.shelf(FRONT_END);
    let put = |key: &str, value: &str| (key.as_bytes().to_vec(), Some(Bytes::from(value.to_owned())));
    shelf
        .put(vec![put("a/1", "1"), put("a/2", "2"), put("a/3", "3"), put("a", "0"), put("b/1", "")])
        .await
        .unwrap();
    // Another front end has its own keys, also one whose name begins alike.
    for other in ["tes", "test2"] {
        store.shelf(other).put(vec![put("a/1", "other")]).await.unwrap();
    }
    assert_eq!(names(&shelf, "", None, 99).await, ["a", "a/1", "a/2", "a/3", "b/1"]);
    assert_eq!(names(&shelf, "a", None, 99).await, ["a", "a/1", "a/2", "a/3"]);
    assert_eq!(names(&shelf, "a/", None, 2).await, ["a/1", "a/2"]);
    assert_eq!(names(&shelf, "a/", Some("a/2"), 2).await, ["a/3"]);
    assert_eq!(names(&shelf, "c", None, 99).await, [""; 0]);
    assert_eq!(get(&shelf, "a/2").await.as_deref(), Some(&b"2"[..]));
    assert_eq!(get(&shelf, "b/1").await.as_deref(), Some(&b""[..]), "an empty value is a value");
    assert_eq!(get(&shelf, "b").await, None);
    shelf.put(vec![(b"a/2".to_vec(), None), put("b/1", "new"), (b"no such".to_vec(), None)]).await.unwrap();
    assert_eq!(names(&shelf, "", None, 99).await, ["a", "a/1", "a/3", "b/1"]);
    assert_eq!(get(&shelf, "b/1").await.as_deref(), Some(&b"new"[..]));
    assert_eq!(names(&store.shelf("tes"), "", None, 99).await, ["a/1"]);
    shelf.put(Vec::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_durable_with_the_entry_and_know_its_place() {
    let disk = FaultyDisk::new();
    let feed = feed("open");
    let creating = Draft {
        create: Some(create(FeedKind::Open, &[])),
        client_msg_id: with_id("", "id").client_msg_id,
        ..draft("x")
    };
    let done = {
        let store = on(&disk);
        let ann = store.gate(user("ann"));
        store.shelf(FRONT_END).put(vec![(b"old".to_vec(), Some(Bytes::from_static(b"old")))]).await.unwrap();
        let rows = vec![
            row("place", ShelfValue::Place(Bytes::from_static(b"id:"))),
            row("bytes", bytes("b")),
            row("old", ShelfValue::Remove),
        ];
        // Two entries: the feed is created, then the message, and the place is that of the message.
        ann.submit_with(send(&feed, creating), rows).await.unwrap().done().clone()
    };
    assert_eq!((done.seq, done.ordinal.0), (SeqId(2), 1));
    disk.crash(0);
    let store = on(&disk);
    let shelf = store.shelf(FRONT_END);
    let mut expected = b"id:".to_vec();
    for number in [done.seq.0, done.ordinal.0, done.time_ms] {
        expected.extend_from_slice(&number.to_be_bytes());
    }
    assert_eq!(get(&shelf, "place").await.as_deref(), Some(&expected[..]));
    assert_eq!(get(&shelf, "bytes").await.as_deref(), Some(&b"b"[..]));
    assert_eq!(get(&shelf, "old").await, None);
    assert_eq!(pull(&store.gate(user("ann")), &feed, 0).await.head, done.seq);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_appends_nothing_writes_no_rows() {
    let (store, _) = open(config());
    let feed = group(&store, "g", "ann", &[]).await;
    let foreign = group(&store, "foreign", "eve", &[]).await;
    let (ann, shelf) = (store.gate(user("ann")), store.shelf(FRONT_END));
    ann.submit_with(send(&feed, with_id("x", "a")), vec![row("first", bytes("1"))]).await.unwrap();
    let again =
        ann.submit_with(send(&feed, with_id("x", "a")), vec![row("again", bytes("2"))]).await.unwrap();
    assert!(again.done().duplicate);
    let conflict = ann.submit_with(send(&feed, with_id("y", "a")), vec![row("conflict", bytes("3"))]).await;
    assert!(matches!(conflict, Err(SubmitError::Rejected(_))));
    let denied = ann.submit_with(send(&foreign, draft("x")), vec![row("denied", bytes("4"))]).await;
    assert!(matches!(denied, Err(SubmitError::Denied(_))));
    // What follows is not given the rows of those before it.
    say(&ann, &feed, "y").await;
    assert_eq!(names(&shelf, "", None, 99).await, ["first"]);
}

/// A write that fails leaves neither the entry nor its rows; one whose outcome is unknown leaves both or neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_commit_writes_neither_entry_nor_rows() {
    for fault in [Fault::Refused, Fault::Full(0), Fault::Torn(40), Fault::SyncFails, Fault::Full(usize::MAX)]
    {
        for kept in [0, 30, usize::MAX] {
            let disk = FaultyDisk::new();
            let id = {
                let store = on(&disk);
                let feed = group(&store, "g", "ann", &[]).await;
                disk.fail_next(fault);
                let ann = store.gate(user("ann"));
                let rows = vec![row("k", ShelfValue::Place(Bytes::new()))];
                let outcome = ann.submit_with(send(&feed, with_id("x", "a")), rows).await;
                assert!(outcome.is_err(), "{fault:?}: {outcome:?}");
                feed
            };
            disk.crash(kept);
            let store = on(&disk);
            let (ann, shelf) = (store.gate(user("ann")), store.shelf(FRONT_END));
            let written = head(&ann, &id).await > SeqId(2);
            assert_eq!(get(&shelf, "k").await.is_some(), written, "{fault:?}, {kept} bytes kept");
            // Sending it again is right in both cases: with it, or with what is there, the row tells the place.
            let rows = vec![row("k", ShelfValue::Place(Bytes::new()))];
            let done = ann.submit_with(send(&id, with_id("x", "a")), rows).await.unwrap().done().clone();
            assert_eq!(done.duplicate, written);
            let place = get(&shelf, "k").await.unwrap();
            assert_eq!(place[..8], done.seq.0.to_be_bytes());
        }
    }
}

async fn head(gate: &feedlog_service::Gate, feed: &FeedId) -> SeqId {
    pull(gate, feed, 0).await.head
}

/// Received marks are merged, unless rows go with them: those are written with the entry of their own command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_with_rows_are_not_held_back() {
    let (store, engine) = open(StoreConfig { received_every_ms: 3_600_000, ..config() });
    let feed = group(&store, "g", "ann", &["bob"]).await;
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    for _ in 0..3 {
        say(&ann, &feed, "x").await;
    }
    let (answers, shelf) = (Answers::new(), store.shelf(FRONT_END));
    bob.submit(mark("bob", &feed, None, Some(1))).await.unwrap();
    bob.submit_into(mark("bob", &feed, None, Some(2)), Vec::new(), &answers).await.unwrap();
    let before = engine.head(&FeedId::personal(&uid("bob"))).unwrap();
    let rows = vec![row("m", ShelfValue::Place(Bytes::new()))];
    let done = bob.submit_with(mark("bob", &feed, None, Some(3)), rows).await.unwrap().done().clone();
    assert_eq!(done.seq, before.seq.next());
    assert_eq!(get(&shelf, "m").await.unwrap()[..8], done.seq.0.to_be_bytes());
    assert_eq!(answers.pending(), 1);
    assert!(answers.pop().is_none(), "the one without rows is still held");
}

/// Rows go with any command, also one that answers for an entry in the middle of its group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_go_with_every_kind_of_command() {
    let (store, _) = open(config());
    let (ann, shelf) = (store.gate(user("ann")), store.shelf(FRONT_END));
    let feed = feed("g");
    let created = Action::CreateFeed(create(FeedKind::Group, &["bob", "cid"]));
    let recall =
        Action::RecallMessage { target: feedlog_core::command::RecallTarget::Seq(SeqId(5)), reason: None };
    for (name, action) in
        [("create", created), ("send", Action::SendMessage(Box::new(draft("x")))), ("recall", recall)]
    {
        let command = feedlog_core::command::Command { feed: feed.clone(), action };
        let rows = vec![row(name, ShelfValue::Place(Bytes::new()))];
        let done = ann.submit_with(command, rows).await.unwrap().done().clone();
        let place = get(&shelf, name).await.unwrap();
        assert_eq!(place[..8], done.seq.0.to_be_bytes(), "{name}");
        assert_eq!(place[8..16], done.ordinal.0.to_be_bytes(), "{name}");
        assert_eq!(place[16..], done.time_ms.to_be_bytes(), "{name}");
    }
}
