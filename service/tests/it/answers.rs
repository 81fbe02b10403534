//! Answers that a connection takes in the order of its commands (P1, P2).

use std::time::Duration;

use feedlog_core::feed::Rejected;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::policy::Denied;
use feedlog_service::{Answers, Receipt, StoreConfig, SubmitError};

use crate::world::*;

/// The next answer; a test that waits for one that never comes fails instead of hanging.
async fn answer(answers: &Answers) -> Result<Receipt, SubmitError> {
    tokio::time::timeout(Duration::from_secs(20), answers.ready()).await.expect("an answer in time");
    answers.pop().expect("it is ready")
}

fn place(answer: Result<Receipt, SubmitError>) -> (FeedId, u64) {
    let receipt = answer.unwrap();
    (receipt.done().feed.clone(), receipt.done().seq.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_keep_the_order_of_commands_to_many_feeds() {
    let (store, _) = open(config());
    let ann = store.gate(user("ann"));
    let mut feeds = Vec::new();
    for n in 0..8 {
        feeds.push(group(&store, &format!("g{n}"), "ann", &[]).await);
    }
    let answers = Answers::new();
    let mut expected = Vec::new();
    for round in 3..20 {
        for feed in &feeds {
            ann.submit_into(send(feed, draft("x")), Vec::new(), &answers).await.unwrap();
            expected.push((feed.clone(), round));
        }
    }
    assert_eq!(answers.pending(), expected.len());
    for expected in expected {
        assert_eq!(place(answer(&answers).await), expected);
    }
    assert_eq!(answers.pending(), 0);
    assert!(answers.pop().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_and_repeated_commands_are_answered_in_their_places() {
    let (store, engine) = open(config());
    let (mine, other) =
        (group(&store, "mine", "ann", &[]).await, group(&store, "other", "bob", &["ann"]).await);
    let ann = store.gate(user("ann"));
    let foreign = group(&store, "foreign", "eve", &[]).await;
    let answers = Answers::new();
    engine.close_gate();
    let expecting = feedlog_core::command::Draft { expect_head: Some(SeqId(99)), ..draft("x") };
    for command in [
        send(&mine, with_id("x", "a")),
        send(&foreign, draft("denied at once")),
        send(&mine, with_id("x", "a")),
        send(&other, draft("x")),
        send(&mine, expecting),
        send(&mine, with_id("other", "a")),
    ] {
        ann.submit_into(command, Vec::new(), &answers).await.unwrap();
    }
    let blocked = engine.clone();
    tokio::task::spawn_blocking(move || blocked.wait_for_commit()).await.unwrap();
    assert!(answers.pop().is_none(), "I-2: nothing is durable, and the refusal waits behind the first");
    engine.open_gate();
    assert_eq!(place(answer(&answers).await), (mine.clone(), 3));
    assert!(matches!(answer(&answers).await, Err(SubmitError::Denied(Denied::FeedNotFound))));
    let again = answer(&answers).await.unwrap();
    assert!(again.done().duplicate);
    assert_eq!(again.done().seq.0, 3);
    assert_eq!(place(answer(&answers).await), (other, 4));
    assert!(matches!(answer(&answers).await, Err(SubmitError::Rejected(_))));
    assert!(matches!(
        answer(&answers).await,
        Err(SubmitError::Rejected(Rejected::IdConflict { seq })) if seq == SeqId(3)
    ));
    assert_eq!(answers.pending(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_finds_no_room_leaves_nothing_behind() {
    let config = StoreConfig { shards: 1, mailbox_commands_max: 1, submit_wait_ms_max: 100, ..config() };
    let (store, engine) = open(config);
    let feed = group(&store, "g", "ann", &[]).await;
    let ann = store.gate(user("ann"));
    let answers = Answers::new();
    engine.close_gate();
    ann.submit_into(send(&feed, draft("x")), Vec::new(), &answers).await.unwrap();
    let full = ann.submit_into(send(&feed, draft("no")), Vec::new(), &answers).await;
    assert!(matches!(full, Err(SubmitError::Unavailable(_))), "{full:?}");
    assert_eq!(answers.pending(), 1);
    {
        // A caller that gives up while it waits leaves nothing behind either.
        let waiting = std::pin::pin!(ann.submit_into(send(&feed, draft("no")), Vec::new(), &answers));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.poll(&mut context).is_pending());
    }
    assert_eq!((answers.pending(), &*store.status().queued), (1, &[1][..]));
    engine.open_gate();
    assert_eq!(place(answer(&answers).await).1, 3);
    // The answer gave back the room.
    ann.submit_into(send(&feed, draft("y")), Vec::new(), &answers).await.unwrap();
    assert_eq!(place(answer(&answers).await).1, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_dies_leaves_no_answer_open() {
    let (store, engine) = open(StoreConfig { shards: 1, ..config() });
    let feed = group(&store, "g", "ann", &[]).await;
    let ann = store.gate(user("ann"));
    let answers = Answers::new();
    engine.close_gate();
    *engine.deadly.lock().unwrap() = Some(crate::world::feed("deadly"));
    ann.submit_into(send(&feed, draft("at the committer")), Vec::new(), &answers).await.unwrap();
    let blocked = engine.clone();
    tokio::task::spawn_blocking(move || blocked.wait_for_commit()).await.unwrap();
    ann.submit_into(send(&crate::world::feed("deadly"), draft("dies")), Vec::new(), &answers).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(answer(&answers).await, Err(SubmitError::Unknown)));
    }
    engine.open_gate();
    // What comes later is unknown, or was never handed over.
    let late = ann.submit_into(send(&feed, draft("late")), Vec::new(), &answers).await;
    match late {
        Ok(()) => assert!(matches!(answer(&answers).await, Err(SubmitError::Unknown))),
        Err(error) => assert!(matches!(error, SubmitError::Unavailable(_)), "{error:?}"),
    }
    assert_eq!(answers.pending(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_answers_everything_that_was_handed_over() {
    let (store, engine) = open(config());
    let feed = group(&store, "g", "ann", &[]).await;
    let ann = store.gate(user("ann"));
    let answers = Answers::new();
    engine.close_gate();
    for _ in 0..100 {
        ann.submit_into(send(&feed, draft("x")), Vec::new(), &answers).await.unwrap();
    }
    let draining = {
        let store = store.clone();
        tokio::spawn(async move { store.drain(Duration::from_secs(20)).await })
    };
    while !store.status().draining {
        tokio::task::yield_now().await;
    }
    let late = ann.submit_into(send(&feed, draft("late")), Vec::new(), &answers).await;
    assert!(matches!(late, Err(SubmitError::Unavailable(_))));
    engine.open_gate();
    for seq in 3..103 {
        assert_eq!(place(answer(&answers).await), (feed.clone(), seq));
    }
    assert!(draining.await.unwrap(), "in time");
    assert_eq!(answers.pending(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_commit_answers_all_that_rested_on_it() {
    let (store, engine) = open(config());
    let feed = group(&store, "g", "ann", &[]).await;
    let ann = store.gate(user("ann"));
    let answers = Answers::new();
    engine.fail(Some(Fail::UnknownLost));
    engine.close_gate();
    for n in 0..3 {
        let draft = with_id("x", &format!("id-{n}"));
        ann.submit_into(send(&feed, draft), Vec::new(), &answers).await.unwrap();
    }
    engine.open_gate();
    assert!(matches!(answer(&answers).await, Err(SubmitError::Unknown)));
    for _ in 1..3 {
        // In the same batch or after it: unknown, or surely not written.
        let later = answer(&answers).await;
        assert!(matches!(later, Err(SubmitError::Unknown | SubmitError::Unavailable(_))), "{later:?}");
    }
}
