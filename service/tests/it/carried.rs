//! What a front end has carried with a message: handed back to readers, and gone with the payload (P6).

use bytes::Bytes;
use feedlog_core::command::{Action, Draft, RecallTarget};
use feedlog_core::entry::Payload;
use feedlog_core::feed::Rejected;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::limits::CARRIED_BYTES_MAX;
use feedlog_service::clock::Clock;
use feedlog_service::export::{Checker, Proven, Writer};
use feedlog_service::views::{AttachTo, Delivery};
use feedlog_service::{Gate, ReadError, StoreConfig, SubmitError};
use feedlog_storage::{Direction, Engine, Group, LogPart};

use crate::world::*;

fn carrying(text: &str, carried: &'static str) -> Draft {
    Draft { carried: Bytes::from_static(carried.as_bytes()), ..draft(text) }
}

/// What readers are given of the message, by every way to read it.
async fn carried(gate: &Gate, feed: &FeedId, seq: SeqId) -> Vec<Payload> {
    let of = |entry: &feedlog_core::entry::Entry| entry.message().map(|message| message.carried.clone());
    let mut found = Vec::new();
    match gate.entry(feed, seq).await {
        Ok(view) => found.extend(of(&view.entry)),
        Err(ReadError::NotFound) => {}
        Err(error) => panic!("{error:?}"),
    }
    found.extend(pull(gate, feed, seq.0 - 1).await.entries.iter().filter_map(|view| of(&view.entry)));
    let to = AttachTo::Feeds(vec![(feed.clone(), seq.prev())]);
    let mut attachment = gate.attach(to).await.unwrap();
    loop {
        match next(&mut attachment).await {
            Delivery::Entry(view) => found.extend(of(&view.entry)),
            Delivery::CaughtUp(_) => break,
            _ => {}
        }
    }
    for conversation in gate.conversations(None, 10).await.unwrap().rows {
        found.extend(conversation.last.and_then(|view| of(&view.entry)));
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_carried_is_handed_back_until_the_payload_is_hidden() {
    let (clock, time) = Clock::manual(NOW_MS);
    let (store, engine) = open(StoreConfig { clock, ..config() });
    let feed = group(&store, "g", "ann", &["bob"]).await;
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    let bytes = Payload::Bytes(Bytes::from_static(b"\x01props"));
    let mut sent = Vec::new();
    for _ in 0..3 {
        let expires_ms = (sent.len() == 2).then_some(NOW_MS + 1000);
        let draft = Draft { expires_ms, ..carrying("x", "\u{1}props") };
        let seq = ann.submit(send(&feed, draft)).await.unwrap().done().seq;
        // An entry, a page, a live reader, and the list of conversations.
        assert_eq!(carried(&bob, &feed, seq).await, vec![bytes.clone(); 4]);
        sent.push(seq);
    }
    let [recalled, erased, expired] = sent[..] else { panic!("{sent:?}") };
    act(&ann, &feed, Action::RecallMessage { target: RecallTarget::Seq(recalled), reason: None })
        .await
        .unwrap();
    let erase = Action::EraseMessages { targets: vec![erased], reason: None };
    act(&store.gate(admin()), &feed, erase).await.unwrap();
    time.advance(1000);
    for seq in [recalled, erased, expired] {
        let found = carried(&bob, &feed, seq).await;
        assert!(found.iter().all(|carried| *carried == Payload::None), "{seq}: {found:?}");
    }
    // Erased is destroyed; only the hash is left.
    let stored = engine.read(&feed, erased, erased, Direction::Forward, 1, 0).unwrap().remove(0);
    let hash = feedlog_storage::digest(b"\x01props");
    assert_eq!(stored.message().unwrap().carried, Payload::Stripped { hash });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_carried_is_bounded_and_no_part_of_what_is_said() {
    let (store, _) = open(config());
    let feed = group(&store, "g", "ann", &[]).await;
    let ann = store.gate(user("ann"));
    let sized = |bytes| Draft { carried: Bytes::from(vec![1; bytes]), ..with_id("x", "a") };
    let first = ann.submit(send(&feed, sized(CARRIED_BYTES_MAX))).await.unwrap().done().clone();
    let again = ann.submit(send(&feed, sized(3))).await.unwrap().done().clone();
    assert_eq!((again.seq, again.duplicate), (first.seq, true));
    let larger = ann.submit(send(&feed, sized(CARRIED_BYTES_MAX + 1))).await;
    assert!(matches!(
        larger,
        Err(SubmitError::Rejected(Rejected::TooLarge { max })) if max == CARRIED_BYTES_MAX
    ));
    let entry = ann.entry(&feed, first.seq).await.unwrap().entry.clone();
    assert_eq!(entry.message().unwrap().carried.size(), CARRIED_BYTES_MAX);
}

/// An export holds what is carried, or its hash, and proves it; imported verbatim, the chain of hashes is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_carried_is_exported_and_comes_back() {
    let (store, engine) = open(config());
    let feed = group(&store, "g", "ann", &[]).await;
    let ann = store.gate(user("ann"));
    for (text, carried) in [("a", ""), ("b", "\u{1}props"), ("c", "\u{1}erased"), ("d", "")] {
        ann.submit(send(&feed, carrying(text, carried))).await.unwrap();
    }
    let erase = Action::EraseMessages { targets: vec![SeqId(5)], reason: None };
    act(&store.gate(admin()), &feed, erase).await.unwrap();

    let records = engine.records(&feed, SeqId(1), SeqId::MAX, 99, 1 << 20).unwrap();
    assert_eq!(records.iter().map(|record| record.version).collect::<Vec<_>>(), [1, 1, 1, 2, 2, 1, 1]);
    let mut writer = Writer::default();
    let mut lines = vec![writer.header(NOW_MS)];
    lines.extend(records.iter().map(|record| writer.entry(record)));
    lines.extend(writer.end_feed());
    lines.push(writer.manifest());
    let whole = lines.concat();
    assert!(whole.contains("AXByb3Bz"), "base64 of what is carried");
    assert!(!whole.contains("AWVyYXNlZA"), "of what was erased only the hash is left");
    let mut checker = Checker::default();
    let mut entries = Vec::new();
    for line in &lines {
        if let Proven::Entry(record) = checker.line(line).unwrap() {
            entries.push(record.entry);
        }
    }
    checker.end().unwrap();

    let other = Gated::new();
    let part =
        LogPart { feed: feed.clone(), expected: SeqId(0), entries, rows: Vec::new(), strip: Vec::new() };
    other.commit(vec![Group { log: Some(part), state: Vec::new() }]).remove(0).unwrap();
    let again = other.records(&feed, SeqId(1), SeqId::MAX, 99, 1 << 20).unwrap();
    for (old, new) in records.iter().zip(&again) {
        assert_eq!((&old.entry, old.version, old.chain_hash), (&new.entry, new.version, new.chain_hash));
    }
    assert_eq!(records.len(), again.len());
}
