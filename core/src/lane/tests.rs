use super::*;
use crate::command::Action;
use crate::event::{HistoryMode, JoinMode};
use crate::feed::Rejected;
use crate::ids::Uid;
use crate::testing::*;

type Steps = Vec<Step<u32>>;
type Handed = (NewGroup, Vec<(RowKey, Option<RowValue>)>);

const SETUP: Setup = Setup {
    settings: Settings {
        recall_window_ms: 1_000,
        shared_recall_window_ms: None,
        edit_window_ms: 1_000,
        payload_bytes_max: 1_000,
        anonymous_open_feeds: false,
    },
    digest: toy_digest,
};

fn submit(lane: &mut Lane<u32>, store: &MemStore, who: &str, action: Action, token: u32) -> Steps {
    let mut out = Vec::new();
    let command = Command { feed: lane.feed.clone(), action };
    lane.submit(&principal(who), command, token, 5_000, &SETUP, store, &mut out).unwrap();
    out
}

fn with_id(text: &str) -> Action {
    send_with(text, |draft| draft.client_msg_id = id("1"))
}

/// The one group among the steps, and the replies.
fn split(steps: Steps) -> (Option<Handed>, Vec<(u32, Answer)>) {
    let mut group = None;
    let mut replies = Vec::new();
    for step in steps {
        match step {
            Step::Commit { group: new, rows } => assert!(group.replace((new, rows)).is_none()),
            Step::Reply(token, answer) => replies.push((token, answer)),
            Step::ReadFailed(error) => panic!("{error}"),
        }
    }
    (group, replies)
}

#[test]
fn i5_a_retry_in_flight_waits_and_gets_the_first_place() {
    let mut store = Scene::group(JoinMode::Open, HistoryMode::All).store;
    let mut lane = Lane::load(feed_id("g"), &store).unwrap();
    let (group, replies) = split(submit(&mut lane, &store, "carol", with_id("x"), 1));
    assert!(replies.is_empty());
    for (token, text) in [(2, "x"), (3, "y")] {
        let (none, replies) = split(submit(&mut lane, &store, "carol", with_id(text), token));
        assert!(none.is_none() && replies.is_empty(), "waits for the original");
    }
    let (group, rows) = group.unwrap();
    store.commit(group, rows);
    let mut out = Vec::new();
    lane.committed(SeqId(7), &mut out);
    let (_, replies) = split(out);
    let told: Vec<_> = replies
        .iter()
        .map(|(token, answer)| match answer {
            Answer::Done(done) => (*token, done.seq.0, done.duplicate),
            Answer::Refused(Refusal::Rejected(Rejected::IdConflict { seq })) => (*token, seq.0, true),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [(1, 7, false), (2, 7, true), (3, 7, true)]);
    assert!(lane.is_idle());
}

#[test]
fn i7_what_rests_on_a_refused_group_did_not_happen() {
    let mut store = Scene::group(JoinMode::Open, HistoryMode::All).store;
    let mut lane = Lane::load(feed_id("g"), &store).unwrap();
    submit(&mut lane, &store, "erin", Action::Join { reason: None }, 1);
    // Allowed only because of the join before it.
    let (second, _) = split(submit(&mut lane, &store, "erin", send("x"), 2));
    assert!(second.is_some());
    let mut out = Vec::new();
    lane.refused(SeqId(7), &mut out);
    lane.refused(SeqId(8), &mut out);
    assert_eq!(split(out).1, [(1, Answer::Retry), (2, Answer::Retry)]);
    // Loaded again by the next command: erin is no member.
    let (none, replies) = split(submit(&mut lane, &store, "erin", send("x"), 3));
    let forbidden = Answer::Refused(Refusal::Denied(crate::policy::Denied::Forbidden));
    assert!(none.is_none());
    assert_eq!(replies, [(3, forbidden)]);
    // And the feed goes on where it was.
    let (group, _) = split(submit(&mut lane, &store, "carol", send("x"), 4));
    let (group, rows) = group.unwrap();
    assert_eq!(group.expected, SeqId(6));
    store.commit(group, rows);
    let mut out = Vec::new();
    lane.committed(SeqId(7), &mut out);
    assert!(matches!(split(out).1[..], [(4, Answer::Done(_))]));
}

/// A store whose reads fail.
struct Broken<'a>(&'a MemStore);

impl Reader for Broken<'_> {
    fn row(&self, _: &RowKey) -> Result<Option<RowValue>, RowsError> {
        Err(RowsError("broken".into()))
    }

    fn head(&self, feed: &FeedId) -> Result<Head, RowsError> {
        Reader::head(self.0, feed)
    }

    fn entry(&self, _: &FeedId, _: SeqId) -> Result<Option<crate::entry::Entry>, RowsError> {
        Err(RowsError("broken".into()))
    }

    fn entries(
        &self,
        _: &FeedId,
        _: SeqId,
        _: SeqId,
        _: bool,
        _: usize,
        _: usize,
    ) -> Result<Vec<crate::entry::Entry>, RowsError> {
        Err(RowsError("broken".into()))
    }

    fn counts(
        &self,
        _: &FeedId,
        _: u64,
        _: u64,
        _: usize,
    ) -> Result<Vec<(u64, crate::rows::Counts)>, RowsError> {
        Err(RowsError("broken".into()))
    }

    fn user_counts(
        &self,
        _: &FeedId,
        _: &Uid,
        _: u64,
        _: u64,
        _: bool,
        _: usize,
    ) -> Result<Vec<(u64, crate::rows::UserCounts)>, RowsError> {
        Err(RowsError("broken".into()))
    }

    fn fates(
        &self,
        _: &FeedId,
        _: SeqId,
        _: SeqId,
        _: usize,
    ) -> Result<Vec<(SeqId, crate::rows::Fate)>, RowsError> {
        Err(RowsError("broken".into()))
    }
}

#[test]
fn a_read_that_fails_fails_the_command_and_nothing_else() {
    let store = Scene::direct("alice", "bob").store;
    let mut lane = Lane::load(direct_id("alice", "bob"), &store).unwrap();
    let broken = Broken(&store);
    let mut out = Vec::new();
    // While fetching: the token comes back.
    let command = Command { feed: direct_id("alice", "bob"), action: with_id("x") };
    let failed = lane.submit(&principal("alice"), command, 1, 5_000, &SETUP, &broken, &mut out);
    assert!(matches!(failed, Err((1, RowsError(_)))) && out.is_empty());
    // While deriving rows: the command did not happen, and the state is loaded again.
    let seen = send_with("x", |draft| draft.seen_seq = Some(SeqId(0)));
    let command = Command { feed: direct_id("alice", "bob"), action: seen };
    lane.submit(&principal("alice"), command, 2, 5_000, &SETUP, &broken, &mut out).unwrap();
    assert!(matches!(out[..], [Step::ReadFailed(_), Step::Reply(2, Answer::Retry)]), "{out:?}");
    assert!(lane.is_idle());
    let (group, _) = split(submit(&mut lane, &store, "alice", send("x"), 3));
    assert_eq!(group.map(|(group, _)| group.expected), Some(SeqId(1)));
}
