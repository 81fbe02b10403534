//! Expiry, trailing projections, verify and rebuild on a running store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use feedlog_core::command::Draft;
use feedlog_core::event::{Event, FeedKind, Scope};
use feedlog_core::ids::{ClientMsgId, SeqId};
use feedlog_core::policy::Denied;
use feedlog_core::rows::{RowKey, RowValue};
use feedlog_service::admin::{JobKind, JobState};
use feedlog_service::check::check_feed;
use feedlog_service::clock::Clock;
use feedlog_service::views::{AttachTo, Delivery, GoneReason};
use feedlog_service::{Gate, Projection, ProjectionError, ReadError, Store, StoreConfig, SubmitError};
use feedlog_storage::{Change, Engine, Group, LogPart, StateKey};

use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_messages_hide_at_once_and_are_expired_soon() {
    let (clock, time) = Clock::manual(NOW_MS);
    let (store, _) = open(StoreConfig { clock, ..config() });
    let feed = group(&store, "g", "ann", &["bob"]).await;
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    let mut attachment = bob.attach(AttachTo::Feeds(vec![(feed.clone(), SeqId(3))])).await.unwrap();
    assert!(matches!(next(&mut attachment).await, Delivery::CaughtUp(_)));
    let mut brief = draft("brief");
    brief.expires_ms = Some(NOW_MS + 5_000);
    let sent = ann.submit(send(&feed, brief)).await.unwrap().done().clone();
    assert_eq!(next_seq(&mut attachment).await, 4);
    assert_eq!(bob.unread().await.unwrap().total, 1);
    time.advance(5_000);
    let page = pull(&bob, &feed, 3).await;
    assert!(page.entries.iter().all(|view| view.entry.seq != sent.seq));
    assert_eq!((page.gone[0].from, page.gone[0].reason), (sent.seq, GoneReason::Expired));
    match next(&mut attachment).await {
        Delivery::Entry(view) => {
            let Event::MessagesExpired { targets } = &view.entry.event else { panic!("{view:?}") };
            assert_eq!(targets[0].0, sent.seq);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bob.unread().await.unwrap().total, 0);
}

/// Counts entries per feed, as a trailing projection would.
#[derive(Clone, Default)]
struct Tally(Arc<Mutex<BTreeMap<String, u64>>>);

impl Projection for Tally {
    fn name(&self) -> &'static str {
        "tally"
    }

    fn apply(
        &mut self,
        changes: &[Change],
        _: &dyn Engine,
    ) -> Result<Vec<(StateKey, Option<Bytes>)>, ProjectionError> {
        for (feed, _, last) in changes.iter().flat_map(|change| &change.feeds) {
            self.0.lock().unwrap().insert(feed.to_string(), last.0);
        }
        Ok(Vec::new())
    }

    fn rescan(&mut self, engine: &dyn Engine) -> Result<Vec<(StateKey, Option<Bytes>)>, ProjectionError> {
        for feed in engine.feeds(None, 1000).map_err(|error| ProjectionError(Box::new(error)))? {
            let head = engine.head(&feed).map_err(|error| ProjectionError(Box::new(error)))?;
            self.0.lock().unwrap().insert(feed.to_string(), head.seq.0);
        }
        Ok(Vec::new())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trailing_projection_catches_up_from_its_checkpoint() {
    let engine = Gated::new();
    let tally = Tally::default();
    let store = Store::open_with(config(), engine.clone(), vec![Box::new(tally.clone())]).unwrap();
    let feed = group(&store, "g", "ann", &[]).await;
    let ann = store.gate(user("ann"));
    for _ in 0..20 {
        say(&ann, &feed, "x").await;
    }
    let caught_up = |tally: Tally, head: u64| async move {
        let wait = async {
            while tally.0.lock().unwrap().get("g") != Some(&head) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
    };
    caught_up(tally, 22).await;
    // A later run begins at the checkpoint: it is told of later commits only.
    drop((store, ann));
    let later = Tally::default();
    let store = Store::open_with(config(), engine.clone(), vec![Box::new(later.clone())]).unwrap();
    let other = group(&store, "other", "ann", &[]).await;
    let ann = store.gate(user("ann"));
    say(&ann, &other, "x").await;
    let wait = async {
        while later.0.lock().unwrap().get("other") != Some(&3) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
    assert_eq!(store.status().lags[0].0, "tally");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_damaged_rows_and_rebuild_puts_them_right() {
    let (store, engine) = open(config());
    let feed = group(&store, "g", "ann", &["bob"]).await;
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    for n in 0..300 {
        say(if n % 3 == 0 { &bob } else { &ann }, &feed, "x").await;
    }
    bob.submit(mark("bob", &feed, Some(20), None)).await.unwrap();
    assert!(matches!(store.admin(&user("ann")).err(), Some(Denied::Forbidden)));
    let maintenance = store.admin(&admin()).unwrap();
    let job = maintenance.finished(maintenance.start(JobKind::Verify).id).await.unwrap();
    assert_eq!((job.state, job.problem_count), (JobState::Done, 0), "{job:?}");
    assert_eq!(job.feeds_done, 2);
    assert!(job.entries_done >= 304 && job.rows_done > 4);

    let wrong = [RowKey::Counts(feed.clone(), 7), RowKey::Member(feed.clone(), uid("bob"))];
    let unread = bob.unread().await.unwrap().total;
    let rows = vec![(wrong[0].clone(), Some(RowValue::Counts(Box::default()))), (wrong[1].clone(), None)];
    let head = engine.head(&feed).unwrap().seq;
    let log = LogPart { feed: feed.clone(), expected: head, entries: Vec::new(), rows, strip: Vec::new() };
    engine.commit(vec![Group { log: Some(log), state: Vec::new() }]).remove(0).unwrap();
    let job = maintenance.finished(maintenance.start(JobKind::Verify).id).await.unwrap();
    assert_eq!((job.state, job.problem_count), (JobState::Done, 2), "{job:?}");
    let job = maintenance.finished(maintenance.start(JobKind::Rebuild).id).await.unwrap();
    assert_eq!((job.state, job.problem_count), (JobState::Done, 2));
    let job = maintenance.finished(maintenance.start(JobKind::Verify).id).await.unwrap();
    assert_eq!((job.state, job.problem_count), (JobState::Done, 0), "{job:?}");
    assert_eq!(bob.unread().await.unwrap().total, unread);
    say(&bob, &feed, "a member again").await;
    assert_eq!(maintenance.jobs().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_and_rebuild_find_nothing_while_others_send() {
    let (store, _) = open(config());
    let mut feeds = Vec::new();
    for n in 0..3 {
        feeds.push(group(&store, &format!("g{n}"), "ann", &["bob"]).await);
    }
    let maintenance = store.admin(&admin()).unwrap();
    let sender = {
        let (gate, feeds) = (store.gate(user("bob")), feeds.clone());
        tokio::spawn(async move {
            for n in 0..600_usize {
                say(&gate, &feeds[n % 3], "x").await;
            }
        })
    };
    for kind in [JobKind::Verify, JobKind::Rebuild, JobKind::Verify] {
        let job = maintenance.finished(maintenance.start(kind).id).await.unwrap();
        assert_eq!((job.state, job.problem_count), (JobState::Done, 0), "{job:?}");
    }
    sender.await.unwrap();
    let mut exported = Vec::new();
    while let Some(last) = {
        let after = exported.last().map_or(SeqId::ZERO, |record: &feedlog_storage::Record| record.entry.seq);
        let page = maintenance.export(feeds[0].clone(), after, 100).await.unwrap();
        let last = page.last().map(|record| record.entry.seq);
        exported.extend(page);
        last
    } {
        assert_eq!(last.0, exported.len() as u64);
    }
    assert_eq!(exported.len(), 203);
    assert_eq!(maintenance.feeds(None, 10).await.unwrap().len(), 3);
}

/// Rows can be read a moment before their head: that is not a difference.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_waits_for_the_head_of_rows_that_it_saw() {
    let (store, engine) = open(config());
    let feed = group(&store, "g", "ann", &["bob"]).await;
    let bob = store.gate(user("bob"));
    say(&bob, &feed, "1").await;
    *engine.behind.lock().unwrap() = Some((feed.clone(), engine.head(&feed).unwrap()));
    let last = say(&bob, &feed, "2").await.seq;
    let report = check_feed(&*engine, &feed, &|| true).unwrap().unwrap();
    assert_eq!((report.problems, report.head.seq), (Vec::new(), last));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_an_open_feed_holds_can_be_expired() {
    let (store, _) = open(config());
    let ann = store.gate(user("ann"));
    let room = feed("room");
    let first = publish(&ann, "room", "one").await.seq;
    publish(&ann, "room", "two").await;
    let head = store.open_head(&room).await.unwrap();
    let later = publish(&ann, "room", "three").await.seq;
    assert_eq!((head, later), (SeqId(3), SeqId(4)));
    store.expire_upto(&room, head).await.unwrap();
    let page = pull(&ann, &room, 0).await;
    assert_eq!((page.gone[0].from, page.gone[0].to, page.gone[0].reason), (first, head, GoneReason::Expired));
    let shown: Vec<SeqId> = page.entries.iter().map(|view| view.entry.seq).collect();
    assert_eq!(shown, [SeqId(1), later, SeqId(5)], "created, what was sent since, and the expiry");
    assert_eq!((page.head_ordinal.0, page.entries[2].entry.sender.as_str()), (3, "feedlog"));
    // Nothing is left to do the second time; of a feed that is not there nothing at all.
    store.expire_upto(&room, head).await.unwrap();
    assert_eq!(store.open_head(&room).await.unwrap(), SeqId(5), "no entry for nothing");
    assert_eq!(store.open_head(&feed("elsewhere")).await.unwrap(), SeqId::ZERO);
    store.expire_upto(&feed("elsewhere"), SeqId::MAX).await.unwrap();
    // Feeds of other kinds are not ended like this.
    let private = group(&store, "g", "ann", &["bob"]).await;
    say(&ann, &private, "kept").await;
    for denied in [store.open_head(&private).await.map(drop), store.expire_upto(&private, SeqId::MAX).await] {
        assert!(matches!(denied, Err(SubmitError::Denied(Denied::Forbidden))), "{denied:?}");
    }
    assert!(pull(&ann, &private, 0).await.gone.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_found_by_its_id() {
    let (store, _) = open(config());
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    let id = || ClientMsgId::parse("m").unwrap();
    let shared = || Scope::Shared("gws".into());
    let mut own = with_id("own", "m");
    own.create = Some(create(FeedKind::Open, &[]));
    let own = ann.submit(send(&feed("room"), own)).await.unwrap().done().seq;
    let common = Draft { scope: shared(), ..with_id("common", "m") };
    let common = ann.submit(send(&feed("room"), common)).await.unwrap().done().seq;
    let find = async |gate: &Gate, scope| gate.message_of(&feed("room"), scope, id()).await;
    assert_eq!(find(&ann, Scope::Sender).await.unwrap().entry.seq, own);
    assert!(matches!(find(&bob, Scope::Sender).await, Err(ReadError::NotFound)));
    assert_eq!(find(&bob, shared()).await.unwrap().entry.seq, common);
    let denied = bob.message_of(&feed("elsewhere"), shared(), id()).await;
    assert!(matches!(denied, Err(ReadError::Denied(Denied::FeedNotFound))));
}
