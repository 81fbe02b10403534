//! What happens when the disk fails: nothing acknowledged is lost, nothing else is shown, and every error is of the
//! right class.

use std::sync::Arc;
use std::sync::mpsc;

use feedlog_core::entry::Head;
use feedlog_core::ids::{FeedId, SeqId};

use crate::conformance::{Random, created, group, sent, state_group};
use crate::faulty::{Fault, FaultyDisk, options_in};
use crate::{
    CommitQueue, Committed, Direction, Engine, EngineError, Group, OpenError, OpenOptions, QueueLimits,
    Round, StateKey, StateTable, Store,
};

fn feed(name: &str) -> FeedId {
    FeedId::parse(name).unwrap()
}

fn open(disk: &FaultyDisk) -> Arc<dyn Engine> {
    disk.open(&OpenOptions::default()).unwrap().engine()
}

fn commit_one(engine: &dyn Engine, group: Group) -> Result<Committed, EngineError> {
    engine.commit(vec![group]).pop().unwrap()
}

fn head(engine: &dyn Engine) -> u64 {
    engine.head(&feed("a")).unwrap().seq.0
}

/// A store with a feed of three entries.
fn started() -> (FaultyDisk, Arc<dyn Engine>) {
    let disk = FaultyDisk::new();
    let engine = open(&disk);
    let a = feed("a");
    commit_one(&*engine, group(vec![created(&a), sent(&a, 2, b"x"), sent(&a, 3, b"y")])).unwrap();
    (disk, engine)
}

fn next(seq: u64) -> Group {
    group(vec![sent(&feed("a"), seq, b"next")])
}

#[test]
fn a_refused_write_did_not_happen_and_the_store_goes_on() {
    let (disk, engine) = started();
    disk.fail_next(Fault::Refused);
    let answers = engine.commit(vec![next(4), group(vec![created(&feed("b"))])]);
    assert!(answers.iter().all(|answer| matches!(answer, Err(EngineError::Refused(_)))));
    assert!(!engine.is_poisoned());
    assert_eq!((head(&*engine), engine.commit_no()), (3, 1));
    assert_eq!(engine.head(&feed("b")).unwrap(), Head::default());
    assert_eq!(commit_one(&*engine, next(4)).unwrap().commit_no(), 2);
    assert_eq!(open(&disk).head(&feed("a")).unwrap().seq, SeqId(4));
}

/// INVARIANT I-7, P11.
#[test]
fn a_failed_sync_stops_everything_and_shows_nothing() {
    for (kept, expected) in [(0, 3), (usize::MAX, 4)] {
        let (disk, engine) = started();
        disk.fail_next(Fault::SyncFails);
        let mut with_state = next(4);
        with_state.state = state_group(b"k", Some(b"v")).state;
        let error = commit_one(&*engine, with_state).unwrap_err();
        assert!(matches!(error, EngineError::Unknown(_)), "{error}");
        assert!(engine.is_poisoned());
        assert!(matches!(commit_one(&*engine, next(4)), Err(EngineError::Poisoned)));
        assert!(matches!(engine.prune_changes(1), Err(EngineError::Poisoned)));
        assert!(matches!(engine.reopen(), Err(EngineError::Poisoned)), "after EIO only a restart helps");
        // Reads serve what is durable.
        assert_eq!((head(&*engine), engine.commit_no()), (3, 1));
        let all = engine.read(&feed("a"), SeqId(1), SeqId::MAX, Direction::Backward, 9, 99).unwrap();
        assert_eq!(all[0].seq, SeqId(3));
        disk.crash(kept);
        let engine = open(&disk);
        assert_eq!(head(&*engine), expected, "there or not, and the state with it");
        let key = StateKey { table: StateTable::Checkpoint, key: b"k".to_vec() };
        assert_eq!(engine.state(&key).unwrap().is_some(), expected == 4);
        commit_one(&*engine, next(expected + 1)).unwrap();
    }
}

#[test]
fn after_a_full_disk_the_store_opens_again_by_itself() {
    for kept in [0, 9, 100, usize::MAX] {
        let (disk, engine) = started();
        disk.fail_next(Fault::Full(kept));
        assert!(matches!(commit_one(&*engine, next(4)), Err(EngineError::Unknown(_))));
        assert!(matches!(commit_one(&*engine, next(4)), Err(EngineError::Poisoned)));
        assert_eq!(head(&*engine), 3);
        engine.reopen().unwrap();
        assert!(!engine.is_poisoned());
        let now = head(&*engine);
        assert_eq!(now, if kept == usize::MAX { 4 } else { 3 }, "a torn batch is not shown");
        assert_eq!(engine.commit_no(), now - 2, "numbers stay dense");
        commit_one(&*engine, next(now + 1)).unwrap();
        engine.reopen().unwrap();
        disk.crash(0);
        assert_eq!(head(&*open(&disk)), now + 1);
    }
}

#[test]
fn a_torn_batch_is_never_shown() {
    for kept in 0..300 {
        let (disk, engine) = started();
        disk.fail_next(Fault::Torn(kept));
        let b = feed("b");
        let answers = engine.commit(vec![next(4), group(vec![created(&b)])]);
        assert!(answers.iter().all(|answer| matches!(answer, Err(EngineError::Unknown(_)))));
        disk.crash(usize::MAX);
        let engine = open(&disk);
        assert_eq!(head(&*engine), 3, "{kept} bytes kept");
        assert_eq!(engine.head(&b).unwrap(), Head::default());
    }
}

#[test]
fn below_the_reserve_nothing_reaches_the_engine() {
    let (disk, engine) = started();
    drop(engine);
    let dir = tempfile::tempdir().unwrap();
    // The guard of a fresh directory knows no commit: accept what the disk has.
    let options = OpenOptions { free_min_bytes: u64::MAX, accept_loss: true, ..options_in(dir.path()) };
    let engine = disk.open(&options).unwrap().engine();
    let writes = disk.writes();
    assert!(matches!(commit_one(&*engine, next(4)), Err(EngineError::NoSpace)));
    assert_eq!((disk.writes(), head(&*engine), engine.is_poisoned()), (writes, 3, false));
    // Full all the same: it stays closed to writes until there is room.
    let moved = commit_one(&*engine, next(9)).unwrap_err();
    assert!(matches!(moved, EngineError::HeadMoved { .. }), "refusals need no room");
}

/// P2: what is not durable is not seen, by anybody.
#[test]
fn nothing_is_seen_before_it_is_durable() {
    let (disk, engine) = started();
    disk.hold();
    let writer = std::thread::spawn({
        let engine = engine.clone();
        move || commit_one(&*engine, next(4)).map(|_| ())
    });
    disk.wait_for_held();
    assert_eq!((head(&*engine), engine.commit_no()), (3, 1));
    assert!(engine.changes(1, 9).unwrap().is_empty());
    disk.release();
    writer.join().unwrap().unwrap();
    assert_eq!((head(&*engine), engine.commit_no()), (4, 2));
}

fn guarded(disk: &FaultyDisk, dir: &std::path::Path, accept_loss: bool) -> Result<Store, OpenError> {
    disk.open(&OpenOptions { accept_loss, ..options_in(dir) })
}

#[test]
fn a_lost_tail_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new();
    let engine = guarded(&disk, dir.path(), false).unwrap().engine();
    let a = feed("a");
    commit_one(&*engine, group(vec![created(&a)])).unwrap();
    disk.fail_next(Fault::Lied);
    commit_one(&*engine, group(vec![sent(&a, 2, b"acknowledged")])).unwrap();
    engine.close().unwrap();
    drop(engine);
    disk.crash(0);
    match guarded(&disk, dir.path(), false) {
        Err(error @ OpenError::TailLost { recovered: 1, guarded: 2 }) => {
            assert!(error.to_string().contains("commit 1") && error.to_string().contains("commit 2"));
        }
        other => panic!("{other:?}"),
    }
    let store = guarded(&disk, dir.path(), true).unwrap();
    assert_eq!(head(&*store.engine()), 1);
    drop(store);
    guarded(&disk, dir.path(), false).unwrap();
}

/// A flipped bit anywhere in the log that recovery replays is found: recovery stops before it, the guard knows better.
#[test]
fn every_flipped_bit_of_the_log_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new();
    let engine = guarded(&disk, dir.path(), false).unwrap().engine();
    let a = feed("a");
    commit_one(&*engine, group(vec![created(&a)])).unwrap();
    commit_one(&*engine, group(vec![sent(&a, 2, b"acknowledged")])).unwrap();
    engine.close().unwrap();
    drop(engine);
    for bit in 0..disk.len() * 8 {
        let copy = disk.image();
        copy.flip(bit);
        match guarded(&copy, dir.path(), false) {
            Err(OpenError::TailLost { .. } | OpenError::GuardDamaged { .. } | OpenError::Damaged(_)) => {}
            other => panic!("bit {bit}: {other:?}"),
        }
    }
    guarded(&disk, dir.path(), false).unwrap();
}

/// Acknowledged groups are there, refused ones are not, unknown ones may be; always whole, always dense.
#[test]
fn random_crashes_lose_nothing_acknowledged() {
    for seed in 0..60 {
        crash_run(seed);
    }
}

fn crash_run(seed: u64) {
    let mut random = Random(seed);
    let disk = FaultyDisk::new();
    let mut engine = open(&disk);
    let names: Vec<FeedId> = (0..3).map(|i| feed(&format!("feed-{i}"))).collect();
    // What must be there, by feed; and what may follow it.
    let mut sure = vec![0_u64; names.len()];
    let mut maybe = sure.clone();
    for _ in 0..80 {
        let faults = [
            Fault::Refused,
            Fault::Full(random.below(600) as usize),
            Fault::SyncFails,
            Fault::Torn(random.below(600) as usize),
        ];
        if random.one_in(6) {
            disk.fail_next(faults[random.below(4) as usize]);
        }
        let mut groups = Vec::new();
        let mut heads = Vec::new();
        for name in &names {
            let first = engine.head(name).unwrap().seq.0 + 1;
            let last = first + random.below(3);
            let entries =
                (first..=last).map(|seq| if seq == 1 { created(name) } else { sent(name, seq, b"payload") });
            groups.push(group(entries.collect()));
            heads.push(last);
        }
        let answers = engine.commit(groups);
        for (at, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(_) => {
                    sure[at] = heads[at];
                    maybe[at] = heads[at];
                }
                Err(EngineError::Unknown(_)) => maybe[at] = heads[at],
                Err(EngineError::Refused(_) | EngineError::Poisoned) => {}
                Err(other) => panic!("seed {seed}: {other}"),
            }
        }
        let must_restart = engine.is_poisoned() && engine.reopen().is_err();
        if must_restart || random.one_in(10) {
            disk.crash(random.below(2000) as usize);
            engine = open(&disk);
        }
        if engine.is_poisoned() {
            continue;
        }
        let mut there = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let head = engine.head(name).unwrap().seq.0;
            assert!(head == sure[at] || head == maybe[at], "seed {seed}: {name} ends at {head}");
            let all = engine.read(name, SeqId(1), SeqId::MAX, Direction::Forward, 9999, 1 << 20).unwrap();
            assert_eq!(all.len() as u64, head, "seed {seed}");
            if sure[at] != maybe[at] {
                there.push(head == maybe[at]);
            }
            (sure[at], maybe[at]) = (head, head);
        }
        assert!(there.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}: a batch was torn");
    }
}

/// Answers as messages: which group, and its result.
struct Answer(mpsc::Sender<(u64, Result<u64, EngineError>)>, u64);

impl crate::Reply for Answer {
    fn done(self, result: Result<Committed, EngineError>) {
        let _ = self.0.send((self.1, result.map(|committed| committed.commit_no())));
    }
}

#[test]
fn what_waits_during_a_sync_is_the_next_batch() {
    let (disk, engine) = started();
    let (rounds_to, rounds) = mpsc::channel::<Round>();
    let observer: Box<dyn Fn(&Round) + Send> = Box::new(move |round| {
        let _ = rounds_to.send(*round);
    });
    let queue = CommitQueue::start(engine.clone(), QueueLimits::default(), Some(observer)).unwrap();
    let (to, answers) = mpsc::channel();
    disk.hold();
    queue.submit(next(4), Answer(to.clone(), 4)).ok().unwrap();
    disk.wait_for_held();
    for seq in 5..20 {
        queue.submit(next(seq), Answer(to.clone(), seq)).ok().unwrap();
    }
    queue.submit(next(99), Answer(to.clone(), 99)).ok().unwrap();
    assert_eq!(queue.waiting(), 16);
    disk.release();
    queue.stop();
    drop(to);
    let answers: Vec<_> = answers.iter().collect();
    assert_eq!(
        answers.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
        (4..20).chain([99]).collect::<Vec<_>>()
    );
    assert!(matches!(answers[0].1, Ok(2)));
    assert!(answers[1..16].iter().all(|(_, result)| matches!(result, Ok(3))), "one batch, one sync");
    assert!(matches!(answers[16].1, Err(EngineError::HeadMoved { head: SeqId(19) })));
    let rounds: Vec<_> = rounds.iter().map(|round| (round.groups, round.commit_no, round.appended)).collect();
    assert_eq!(rounds, [(1, 2, 1), (16, 3, 15)], "the refused group added nothing");
    assert_eq!(head(&*engine), 19);
}

#[test]
fn a_full_queue_pushes_back() {
    let (disk, engine) = started();
    let limits = QueueLimits { waiting_groups_max: 2, ..QueueLimits::default() };
    let queue = Arc::new(CommitQueue::start(engine.clone(), limits, None).unwrap());
    let (to, answers) = mpsc::channel();
    disk.hold();
    queue.submit(next(4), Answer(to.clone(), 4)).ok().unwrap();
    disk.wait_for_held();
    queue.submit(next(5), Answer(to.clone(), 5)).ok().unwrap();
    queue.submit(next(6), Answer(to.clone(), 6)).ok().unwrap();
    let (back, _) = queue.try_submit(next(7), Answer(to.clone(), 7)).err().unwrap();
    assert_eq!(back.log.unwrap().expected, SeqId(6));
    let blocked = std::thread::spawn({
        let (queue, to) = (queue.clone(), to.clone());
        move || queue.submit(next(7), Answer(to, 7)).is_ok()
    });
    disk.release();
    assert!(blocked.join().unwrap());
    queue.stop();
    drop(to);
    assert_eq!(answers.iter().filter(|(_, result)| result.is_ok()).count(), 4);
    let (to, _answers) = mpsc::channel();
    assert!(queue.submit(next(8), Answer(to, 8)).is_err(), "nothing is taken after the end");
}

#[test]
fn bytes_bound_a_batch() {
    let (disk, engine) = started();
    let limits = QueueLimits { batch_bytes_max: 1, ..QueueLimits::default() };
    let queue = CommitQueue::start(engine, limits, None).unwrap();
    let (to, answers) = mpsc::channel();
    let before = disk.writes();
    for seq in 4..8 {
        queue.submit(next(seq), Answer(to.clone(), seq)).ok().unwrap();
    }
    queue.stop();
    drop(to);
    assert!(answers.iter().all(|(_, result)| result.is_ok()));
    assert_eq!(disk.writes() - before, 4, "each larger than the bound, each alone");
}

#[test]
fn a_failure_is_answered_to_everybody_in_the_batch_and_after_it() {
    let (disk, engine) = started();
    let queue = CommitQueue::start(engine, QueueLimits::default(), None).unwrap();
    let (to, answers) = mpsc::channel();
    disk.hold();
    disk.fail_next(Fault::SyncFails);
    queue.submit(next(4), Answer(to.clone(), 4)).ok().unwrap();
    disk.wait_for_held();
    queue.submit(next(5), Answer(to.clone(), 5)).ok().unwrap();
    disk.release();
    queue.stop();
    drop(to);
    let answers: Vec<_> = answers.iter().collect();
    assert!(matches!(answers[0].1, Err(EngineError::Unknown(_))));
    assert!(matches!(answers[1].1, Err(EngineError::Poisoned)));
}
