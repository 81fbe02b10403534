//! Given entries, when a command, then what comes of it: for table tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::command::{Action, Command, CreateFeed, Draft, Principal, RecallTarget, Scopes};
use crate::entry::{Entry, Head, Payload};
use crate::event::{Event, FeedKind, HistoryMode, JoinMode, Message, MessageKind, Role, Scope};
use crate::feed::{Decision, Settings, decide, gather};
use crate::ids::{ClientMsgId, FeedId, SeqId, TimeMs, Uid};
use crate::overlay::Overlay;
use crate::policy::authorize;
use crate::projection::Fold;
use crate::read::Reader;
use crate::sequencer::{NewGroup, Refusal};
use crate::testing::{MemStore, toy_digest};

pub(crate) fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

pub(crate) fn feed_id(text: &str) -> FeedId {
    FeedId::parse(text).unwrap()
}

pub(crate) fn direct_id(a: &str, b: &str) -> FeedId {
    FeedId::direct(&uid(a), &uid(b), toy_digest)
}

/// `alice`, or with scopes: `svc+send_as`, `root+admin`, `eve+audit` (without `user`), `svc>alice` (a service for alice),
/// `anon:1`.
pub(crate) fn principal(text: &str) -> Principal {
    if let Some((service, user)) = text.split_once('>') {
        let scopes = Scopes { user: true, send_as: true, audit: true, admin: true };
        return Principal { uid: uid(user), scopes, anonymous: false, via: Some(uid(service)) };
    }
    let (name, scope) = text.split_once('+').unwrap_or((text, "user"));
    let scopes = Scopes {
        user: scope == "user",
        send_as: scope == "send_as",
        audit: scope == "audit",
        admin: scope == "admin",
    };
    Principal { uid: uid(name), scopes, anonymous: name.starts_with("anon:"), via: None }
}

pub(crate) fn draft(text: &str) -> Draft {
    Draft {
        kind: MessageKind::Text,
        content_type: Arc::from("text/plain"),
        payload: Bytes::copy_from_slice(text.as_bytes()),
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

pub(crate) fn id(text: &str) -> Option<ClientMsgId> {
    Some(ClientMsgId::parse(text).unwrap())
}

pub(crate) fn send(text: &str) -> Action {
    Action::SendMessage(Box::new(draft(text)))
}

pub(crate) fn send_with(text: &str, change: impl FnOnce(&mut Draft)) -> Action {
    let mut draft = draft(text);
    change(&mut draft);
    Action::SendMessage(Box::new(draft))
}

pub(crate) fn recall(seq: u64) -> Action {
    Action::RecallMessage { target: RecallTarget::Seq(SeqId(seq)), reason: None }
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

pub(crate) fn message(change: impl FnOnce(&mut Message)) -> Event {
    let mut message = Message {
        kind: MessageKind::Text,
        content_type: Arc::from("text/plain"),
        client_msg_id: None,
        scope: Scope::Sender,
        reply_to: None,
        mentions: Vec::new(),
        to_reply: None,
        seen_seq: SeqId::ZERO,
        sent_ms: None,
        expires_ms: None,
        auto: false,
        carried: Payload::None,
    };
    change(&mut message);
    Event::MessageSent(message)
}

/// Feeds with history. Time is a count of milliseconds that grows by one with each entry.
pub(crate) struct Scene {
    pub(crate) store: MemStore,
    pub(crate) settings: Settings,
    pub(crate) now_ms: TimeMs,
    folds: BTreeMap<FeedId, Fold>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self {
            store: MemStore::default(),
            settings: Settings::default(),
            now_ms: 1_000,
            folds: BTreeMap::new(),
        }
    }

    /// A group: alice owns it, bob is an admin, carol and dave are members. 6 entries, the last is bob's promotion.
    pub(crate) fn group(join: JoinMode, history: HistoryMode) -> Self {
        let mut scene = Self::new();
        let feed = feed_id("g");
        let created = Event::FeedCreated {
            kind: FeedKind::Group,
            title: Some(Arc::from("title")),
            join,
            history,
            meta: None,
            pair: None,
        };
        scene.add(&feed, "alice", created);
        for (name, role) in [("alice", Role::Owner), ("bob", Role::Member), ("carol", Role::Member)] {
            scene.add(&feed, "alice", Event::MemberJoined { uid: uid(name), role });
        }
        scene.add(&feed, "alice", Event::MemberJoined { uid: uid("dave"), role: Role::Member });
        scene.add(&feed, "alice", Event::RoleChanged { uid: uid("bob"), role: Role::Admin });
        scene
    }

    pub(crate) fn direct(a: &str, b: &str) -> Self {
        let mut scene = Self::new();
        let pair = if a < b { (uid(a), uid(b)) } else { (uid(b), uid(a)) };
        let created = Event::FeedCreated {
            kind: FeedKind::Direct,
            title: None,
            join: JoinMode::Invite,
            history: HistoryMode::All,
            meta: None,
            pair: Some(pair),
        };
        scene.add(&direct_id(a, b), a, created);
        scene
    }

    pub(crate) fn open(name: &str, creator: &str) -> Self {
        let mut scene = Self::new();
        let created = Event::FeedCreated {
            kind: FeedKind::Open,
            title: None,
            join: JoinMode::Invite,
            history: HistoryMode::All,
            meta: None,
            pair: None,
        };
        scene.add(&feed_id(name), creator, created);
        scene
    }

    pub(crate) fn personal(mut self, name: &str) -> Self {
        let created = Event::FeedCreated {
            kind: FeedKind::Personal,
            title: None,
            join: JoinMode::Invite,
            history: HistoryMode::All,
            meta: None,
            pair: None,
        };
        self.add(&FeedId::personal(&uid(name)), name, created);
        self
    }

    /// Appends an event as it is, without asking anybody.
    pub(crate) fn add(&mut self, feed: &FeedId, sender: &str, event: Event) -> SeqId {
        self.now_ms += 1;
        let head = Reader::head(&self.store, feed).unwrap();
        let payload = match event {
            Event::MessageSent(_) | Event::MessageEdited { .. } => {
                Payload::Bytes(Bytes::from_static(b"text"))
            }
            _ => Payload::None,
        };
        let ordinal = if event.is_message() { head.ordinal.next() } else { head.ordinal };
        let entry = Entry {
            feed: feed.clone(),
            seq: head.seq.next(),
            ordinal,
            time_ms: self.now_ms,
            sender: uid(sender),
            event,
            payload,
        };
        let seq = entry.seq;
        let answer = Head::of(&entry);
        self.commit(NewGroup {
            feed: feed.clone(),
            expected: head.seq,
            entries: vec![entry],
            strip: Vec::new(),
            answer,
        });
        seq
    }

    fn commit(&mut self, group: NewGroup) {
        let mut overlay = Overlay::new(group.feed.clone());
        overlay.push(&group.entries);
        let fold = self.folds.entry(group.feed.clone()).or_default();
        for entry in &group.entries {
            fold.apply(entry, &mut overlay.view(&self.store)).unwrap();
        }
        let rows = overlay.seal(group.entries.last().unwrap().seq);
        self.store.commit(group, rows);
    }

    /// Authorize and decide; nothing is appended.
    pub(crate) fn when(&self, who: &str, feed: &FeedId, action: Action) -> Result<Decision, Refusal> {
        let principal = principal(who);
        let command = Command { feed: feed.clone(), action };
        let state = self.folds.get(feed).and_then(|fold| fold.state.clone());
        let state = state.as_deref();
        let head = Reader::head(&self.store, feed).unwrap();
        let mut rows = self.store.clone();
        let context =
            gather(&principal, &command, state, head, &mut rows, self.now_ms, &self.settings, toy_digest)
                .unwrap();
        let authorized = authorize(&principal, command, state, &context)?;
        Ok(decide(state, authorized, &context)?)
    }

    /// Authorize, decide and append.
    pub(crate) fn does(&mut self, who: &str, feed: &FeedId, action: Action) -> SeqId {
        let decision = self.when(who, feed, action);
        let Ok(Decision::Append(plan)) = decision else { panic!("{who} appends: {decision:?}") };
        let head = Reader::head(&self.store, feed).unwrap();
        let mut sequencer = crate::sequencer::Sequencer::new(feed.clone(), head);
        let mut out = Vec::new();
        self.now_ms += 1;
        let input = crate::sequencer::Input::Decided {
            decision: Ok(Decision::Append(plan)),
            now_ms: self.now_ms,
            token: (),
        };
        sequencer.step(input, &mut out);
        let Some(crate::sequencer::Output::Append(group)) = out.pop() else { panic!("one group") };
        self.commit(group);
        Reader::head(&self.store, feed).unwrap().seq
    }

    pub(crate) fn head(&self, feed: &FeedId) -> Head {
        Reader::head(&self.store, feed).unwrap()
    }
}

/// What came of it in a few words: the names of the events, `already N`, or the refusal's text.
pub(crate) fn told(result: &Result<Decision, Refusal>) -> String {
    match result {
        Ok(Decision::Append(plan)) => {
            let names: Vec<String> = plan
                .events
                .iter()
                .map(|new| {
                    let debug = format!("{:?}", new.event);
                    debug.split([' ', '(', '{']).next().unwrap().to_owned()
                })
                .collect();
            names.join("+")
        }
        Ok(Decision::Already(done)) => format!("already {}", done.seq),
        Err(refusal) => refusal.to_string(),
    }
}
