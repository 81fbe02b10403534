//! A store in memory whose commits can be held back or made to fail, and short ways to say things.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use feedlog_core::command::{Action, Command, CreateFeed, Done, Draft, Principal, Scopes};
use feedlog_core::entry::{Entry, Head};
use feedlog_core::event::{FeedKind, HistoryMode, JoinMode, MessageKind, Role, Scope};
use feedlog_core::ids::{ClientMsgId, FeedId, SeqId, TimeMs, Uid};
use feedlog_core::pattern::Pattern;
use feedlog_core::rows::{RowKey, RowValue};
use feedlog_service::auth::AuthConfig;
use feedlog_service::views::{Delivery, HistoryQuery, Page};
use feedlog_service::{Attachment, Gate, Store, StoreConfig, SubmitError};
use feedlog_storage::{
    Change, Committed, Direction, Engine, EngineError, EngineKind, Group, OpenOptions, Record, RowRange,
    StateKey, StateTable, Upcasters,
};

/// An engine in memory behind a gate.
pub(crate) struct Gated {
    inner: Arc<dyn Engine>,
    gate: Mutex<Gates>,
    bell: Condvar,
    poisoned: AtomicBool,
    /// Whether `reopen` helps.
    pub(crate) curable: AtomicBool,
    pub(crate) commits: AtomicUsize,
    /// Whoever reads the state of this feed dies.
    pub(crate) deadly: Mutex<Option<FeedId>>,
    /// The head that a feed still seems to have until `settle`.
    pub(crate) behind: Mutex<Option<(FeedId, Head)>>,
    /// An entry that cannot be read.
    pub(crate) damaged: Mutex<Option<(FeedId, SeqId)>>,
}

#[derive(Default)]
struct Gates {
    closed: bool,
    waiting: usize,
    fail: Option<Fail>,
}

/// How the next commit fails.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Fail {
    /// The groups are written, but the answer is unknown.
    UnknownWritten,
    /// Nothing is written, and the answer is unknown.
    UnknownLost,
    /// Refused until told otherwise.
    NoSpace,
}

impl Gated {
    pub(crate) fn new() -> Arc<Self> {
        let options = OpenOptions { engine: EngineKind::Memory, ..OpenOptions::default() };
        let inner = feedlog_storage::open(&options, Upcasters::default()).unwrap().engine();
        Arc::new(Self {
            inner,
            gate: Mutex::default(),
            bell: Condvar::new(),
            poisoned: AtomicBool::new(false),
            curable: AtomicBool::new(false),
            commits: AtomicUsize::new(0),
            deadly: Mutex::default(),
            behind: Mutex::default(),
            damaged: Mutex::default(),
        })
    }

    /// From now on commits wait.
    pub(crate) fn close_gate(&self) {
        self.gate.lock().unwrap().closed = true;
    }

    pub(crate) fn open_gate(&self) {
        self.gate.lock().unwrap().closed = false;
        self.bell.notify_all();
    }

    /// Waits until a commit waits at the gate.
    pub(crate) fn wait_for_commit(&self) {
        let mut gate = self.gate.lock().unwrap();
        while gate.waiting == 0 {
            gate = self.bell.wait(gate).unwrap();
        }
    }

    pub(crate) fn fail(&self, fail: Option<Fail>) {
        self.gate.lock().unwrap().fail = fail;
    }
}

impl Engine for Gated {
    fn commit(&self, groups: Vec<Group>) -> Vec<Result<Committed, EngineError>> {
        let mut gate = self.gate.lock().unwrap();
        gate.waiting += 1;
        self.bell.notify_all();
        while gate.closed {
            gate = self.bell.wait(gate).unwrap();
        }
        gate.waiting -= 1;
        let all = |error: EngineError| groups.iter().map(|_| Err(error.clone())).collect();
        if self.poisoned.load(Ordering::SeqCst) {
            return all(EngineError::Poisoned);
        }
        match gate.fail {
            None => {}
            Some(Fail::NoSpace) => return all(EngineError::NoSpace),
            Some(fail) => {
                gate.fail = None;
                self.poisoned.store(true, Ordering::SeqCst);
                let answer = all(EngineError::Unknown("injected".into()));
                if fail == Fail::UnknownWritten {
                    drop(gate);
                    self.inner.commit(groups);
                }
                return answer;
            }
        }
        drop(gate);
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.inner.commit(groups)
    }

    fn head(&self, feed: &FeedId) -> Result<Head, EngineError> {
        if let Some((late, head)) = &*self.behind.lock().unwrap()
            && late == feed
        {
            return Ok(*head);
        }
        self.inner.head(feed)
    }

    fn read(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        direction: Direction,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, EngineError> {
        if let Some((damaged, seq)) = &*self.damaged.lock().unwrap()
            && damaged == feed
            && (from..=to).contains(seq)
        {
            return Err(EngineError::Damaged("injected".into()));
        }
        self.inner.read(feed, from, to, direction, entries_max, bytes_max)
    }

    fn row(&self, key: &RowKey) -> Result<Option<RowValue>, EngineError> {
        let deadly = self.deadly.lock().unwrap().clone();
        if let (RowKey::Feed(feed), Some(deadly)) = (key, deadly) {
            assert_ne!(*feed, deadly, "injected");
        }
        self.inner.row(key)
    }

    fn rows(
        &self,
        range: &RowRange,
        direction: Direction,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, RowValue)>, EngineError> {
        self.inner.rows(range, direction, after, limit)
    }

    fn feeds(&self, after: Option<&FeedId>, limit: usize) -> Result<Vec<FeedId>, EngineError> {
        self.inner.feeds(after, limit)
    }

    fn states(
        &self,
        table: StateTable,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(StateKey, Bytes)>, EngineError> {
        self.inner.states(table, prefix, after, limit)
    }

    fn state(&self, key: &StateKey) -> Result<Option<Bytes>, EngineError> {
        self.inner.state(key)
    }

    fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, EngineError> {
        self.inner.changes(after, limit)
    }

    fn records(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, EngineError> {
        self.inner.records(feed, from, to, entries_max, bytes_max)
    }

    fn backup(&self, dir: &Path) -> Result<(), EngineError> {
        self.inner.backup(dir)
    }

    fn settle(&self) {
        *self.behind.lock().unwrap() = None;
        self.inner.settle();
    }

    fn prune_changes(&self, upto: u64) -> Result<(), EngineError> {
        self.inner.prune_changes(upto)
    }

    fn commit_no(&self) -> u64 {
        self.inner.commit_no()
    }

    fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::SeqCst)
    }

    fn reopen(&self) -> Result<(), EngineError> {
        if !self.curable.load(Ordering::SeqCst) {
            return Err(EngineError::Poisoned);
        }
        self.poisoned.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn close(&self) -> Result<(), EngineError> {
        self.inner.close()
    }
}

/// Bounds small enough to be met in tests.
pub(crate) fn config() -> StoreConfig {
    StoreConfig {
        shards: 3,
        expire_every_ms: 10,
        auth: AuthConfig { dev: true, ..AuthConfig::default() },
        ..StoreConfig::default()
    }
}

pub(crate) fn open(config: StoreConfig) -> (Store, Arc<Gated>) {
    let engine = Gated::new();
    (Store::open(config, engine.clone()).unwrap(), engine)
}

pub(crate) fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

pub(crate) fn feed(text: &str) -> FeedId {
    FeedId::parse(text).unwrap()
}

pub(crate) fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

pub(crate) fn user(name: &str) -> Principal {
    let scopes = Scopes { user: true, ..Scopes::default() };
    Principal { uid: uid(name), scopes, anonymous: false, via: None }
}

pub(crate) fn admin() -> Principal {
    let scopes = Scopes { user: true, send_as: true, audit: true, admin: true };
    Principal { uid: uid("root"), scopes, anonymous: false, via: None }
}

pub(crate) fn create(kind: FeedKind, members: &[&str]) -> CreateFeed {
    CreateFeed {
        kind,
        title: None,
        members: members.iter().map(|name| uid(name)).collect(),
        join: JoinMode::Invite,
        history: HistoryMode::All,
        meta: None,
    }
}

pub(crate) fn draft(text: &str) -> Draft {
    Draft {
        kind: MessageKind::Text,
        content_type: "application/json".into(),
        payload: Bytes::from(format!("\"{text}\"")),
        client_msg_id: None,
        scope: Scope::Sender,
        reply_to: None,
        mentions: Vec::new(),
        to_reply: None,
        seen_seq: None,
        sent_ms: None,
        expires_ms: None,
        auto: false,
        carried: Bytes::new(),
        expect_head: None,
        create: None,
    }
}

pub(crate) fn with_id(text: &str, id: &str) -> Draft {
    Draft { client_msg_id: Some(ClientMsgId::parse(id).unwrap()), ..draft(text) }
}

pub(crate) fn send(feed: &FeedId, draft: Draft) -> Command {
    Command { feed: feed.clone(), action: Action::SendMessage(Box::new(draft)) }
}

pub(crate) async fn act(gate: &Gate, feed: &FeedId, action: Action) -> Result<Done, SubmitError> {
    let receipt = gate.submit(Command { feed: feed.clone(), action }).await?;
    Ok(receipt.done().clone())
}

pub(crate) async fn say(gate: &Gate, feed: &FeedId, text: &str) -> Done {
    gate.submit(send(feed, draft(text))).await.unwrap().done().clone()
}

/// A group owned by `owner` with `members`.
pub(crate) async fn group(store: &Store, name: &str, owner: &str, members: &[&str]) -> FeedId {
    let feed = feed(name);
    let gate = store.gate(user(owner));
    act(&gate, &feed, Action::CreateFeed(create(FeedKind::Group, members))).await.unwrap();
    feed
}

/// Sends to an open feed, which need not exist.
pub(crate) async fn publish(gate: &Gate, name: &str, text: &str) -> Done {
    let mut draft = draft(text);
    draft.create = Some(create(FeedKind::Open, &[]));
    gate.submit(send(&feed(name), draft)).await.unwrap().done().clone()
}

pub(crate) async fn remove(gate: &Gate, feed: &FeedId, name: &str) -> Done {
    act(gate, feed, Action::RemoveMember { uid: uid(name), reason: None }).await.unwrap()
}

pub(crate) async fn add(gate: &Gate, feed: &FeedId, name: &str) -> Done {
    act(gate, feed, Action::AddMember { uid: uid(name), role: Role::Member }).await.unwrap()
}

pub(crate) fn mark(name: &str, about: &FeedId, read: Option<u64>, received: Option<u64>) -> Command {
    Command {
        feed: FeedId::personal(&uid(name)),
        action: Action::MoveMarks {
            feed: about.clone(),
            read: read.map(SeqId),
            received: received.map(SeqId),
            unread_from: None,
        },
    }
}

pub(crate) async fn pull(gate: &Gate, feed: &FeedId, after: u64) -> Page {
    gate.history(feed, HistoryQuery::After(SeqId(after)), 1000, 0).await.unwrap()
}

pub(crate) fn text(entry: &Entry) -> String {
    entry.payload.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

/// The next delivery; a test that waits for one that never comes fails instead of hanging.
pub(crate) async fn next(attachment: &mut Attachment) -> Delivery {
    tokio::time::timeout(Duration::from_secs(20), attachment.next())
        .await
        .expect("a delivery in time")
        .expect("an open attachment")
}

/// What has happened so far in places: entries as their seq.
pub(crate) async fn next_seq(attachment: &mut Attachment) -> u64 {
    match next(attachment).await {
        Delivery::Entry(view) => view.entry.seq.0,
        other => panic!("an entry, not {other:?}"),
    }
}

pub(crate) const NOW_MS: TimeMs = 1_700_000_000_000;

/// A seed, from `FEEDLOG_SEED` when set; printed so that a failure can be repeated.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("FEEDLOG_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| getrandom::u64().unwrap());
    println!("FEEDLOG_SEED={seed}");
    seed
}

/// A small generator, the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
