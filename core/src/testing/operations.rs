//! Random commands on a small world: a few users, every kind of feed, one of them busy.

use std::sync::Arc;

use bytes::Bytes;

use crate::command::{Action, Command, CreateFeed, Draft, Principal, RecallTarget, Scopes};
use crate::event::{FeedKind, HistoryMode, JoinMode, MENTION_ALL, MessageKind, Role, Scope};
use crate::ids::{ClientMsgId, Digest, FeedId, SeqId, TimeMs, Uid};
use crate::testing::store::reaction;
use crate::testing::{Oracle, Random};

/// Who and where.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) users: Vec<Uid>,
    pub(super) feeds: Vec<FeedId>,
    /// Gets most of the traffic, so that it outgrows a block of counted sets.
    busy: FeedId,
    service: Principal,
    admin: Principal,
    digest: Digest,
}

pub(super) fn user(uid: &Uid) -> Principal {
    let scopes = Scopes { user: true, ..Scopes::default() };
    Principal { uid: uid.clone(), scopes, anonymous: false, via: None }
}

fn uid(text: &str) -> Uid {
    Uid::parse(text).expect("a short name is a valid uid")
}

fn feed_id(text: &str) -> FeedId {
    FeedId::parse(text).expect("a short name is a valid feed_id")
}

impl Cast {
    pub(super) fn new(prefix: &str, digest: Digest, random: &mut Random) -> Self {
        let users: Vec<Uid> = (0..5).map(|n| uid(&format!("{prefix}u{n}"))).collect();
        let mut feeds: Vec<FeedId> = ["open-all", "approval-since", "invite-since", "room"]
            .map(|name| feed_id(&format!("{prefix}{name}")))
            .into();
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            feeds.push(FeedId::direct(&users[a], &users[b], digest));
        }
        feeds.extend(users[..2].iter().map(FeedId::personal));
        let busy = random.pick(&feeds[..7]).clone();
        let service = Principal {
            uid: uid(&format!("{prefix}service")),
            scopes: Scopes { user: true, send_as: true, ..Scopes::default() },
            anonymous: false,
            via: None,
        };
        let admin = Principal {
            uid: uid(&format!("{prefix}admin")),
            scopes: Scopes { admin: true, ..Scopes::default() },
            anonymous: false,
            via: None,
        };
        Self { users, feeds, busy, service, admin, digest }
    }

    /// The groups of this world; the other feeds create themselves.
    pub(super) fn created(&self) -> Vec<(Principal, Command)> {
        let modes = [
            (JoinMode::Open, HistoryMode::All),
            (JoinMode::Approval, HistoryMode::SinceJoin),
            (JoinMode::Invite, HistoryMode::SinceJoin),
        ];
        let group = |(feed, (join, history)): (&FeedId, (JoinMode, HistoryMode))| {
            let create = CreateFeed {
                kind: FeedKind::Group,
                title: Some(Arc::from("group")),
                members: self.users[1..3].to_vec(),
                join,
                history,
                meta: None,
            };
            (user(&self.users[0]), Command { feed: feed.clone(), action: Action::CreateFeed(create) })
        };
        self.feeds[..3].iter().zip(modes).map(group).collect()
    }

    /// A random command. `sent` are client_msg_ids used before.
    pub(super) fn command(
        &self,
        random: &mut Random,
        oracle: &Oracle,
        sent: &[(FeedId, Uid, Draft)],
        now_ms: TimeMs,
    ) -> (Principal, Command) {
        let feed = if random.chance(60) { self.busy.clone() } else { random.pick(&self.feeds).clone() };
        let mut actor = random.pick(&self.users).clone();
        for _ in 0..4 {
            // Mostly somebody who may write there.
            if oracle.first_readable(&feed, &actor).is_none() {
                actor = random.pick(&self.users).clone();
            }
        }
        let principal = user(&actor);
        let head = oracle.head(&feed);
        let recent = |random: &mut Random| SeqId(head.0.saturating_sub(random.below(12)));
        let at = |action| (principal.clone(), Command { feed: feed.clone(), action });
        let personal = |action| (principal.clone(), Command { feed: FeedId::personal(&actor), action });
        match random.below(100) {
            0..=49 => {
                let (principal, draft) = self.draft(random, &feed, &actor, head, now_ms);
                (principal, Command { feed, action: Action::SendMessage(Box::new(draft)) })
            }
            50..=53 if !sent.is_empty() => self.again(random, sent),
            50..=60 => {
                let target = if random.chance(80) || sent.is_empty() {
                    RecallTarget::Seq(recent(random))
                } else {
                    let (_, sender, draft) = random.pick(sent);
                    RecallTarget::ClientMsgId {
                        sender: random.chance(50).then(|| sender.clone()),
                        scope: draft.scope.clone(),
                        id: draft.client_msg_id.clone().expect("only drafts with an id are kept"),
                    }
                };
                let by = if random.chance(5) { self.service.clone() } else { principal.clone() };
                (by, Command { feed, action: Action::RecallMessage { target, reason: None } })
            }
            61..=64 => at(Action::EditMessage {
                target: recent(random),
                content_type: Arc::from("application/json"),
                payload: Bytes::from(format!("\"edit {}\"", random.below(1000))),
            }),
            65..=67 => at(Action::React {
                target: recent(random),
                key: reaction(random.pick::<&str>(&["👍", "🎉", "no"])),
                on: random.chance(70),
            }),
            68..=80 => {
                let place = |random: &mut Random| {
                    if random.chance(70) { recent(random) } else { SeqId(random.below(head.0 + 2)) }
                };
                let (mut read, mut received, mut unread_from) = (None, None, None);
                match random.below(10) {
                    0..=4 => read = Some(place(random)),
                    5..=7 => received = Some(place(random)),
                    8 => unread_from = Some(place(random)),
                    _ => {
                        read = Some(place(random));
                        received = Some(place(random));
                    }
                }
                personal(Action::MoveMarks { feed, read, received, unread_from })
            }
            81..=82 => personal(Action::ResolveUnreplied { upto: recent(random), feed }),
            83 => personal(Action::ChangeSettings {
                feed,
                pinned: Some(random.chance(50)),
                muted_until_ms: random.chance(50).then_some(now_ms),
            }),
            84..=93 => self.membership(random, oracle, principal),
            94..=96 => {
                let due = oracle.log(&feed).iter().filter(|entry| {
                    let expires = entry.message().and_then(|message| message.expires_ms);
                    expires.is_some_and(|ms| ms <= now_ms)
                });
                let mut targets: Vec<SeqId> = due.map(|entry| entry.seq).collect();
                targets.push(recent(random));
                let early = random.chance(20);
                (self.admin.clone(), Command { feed, action: Action::ExpireMessages { targets, early } })
            }
            97 => {
                let targets = vec![recent(random), recent(random)];
                let reason = Some(Arc::from("asked for"));
                (self.admin.clone(), Command { feed, action: Action::EraseMessages { targets, reason } })
            }
            _ => (
                self.service.clone(),
                Command {
                    feed: random.pick(&self.feeds[7..]).clone(),
                    action: Action::Notify {
                        content_type: Arc::from("text/plain"),
                        payload: Bytes::from_static(b"news"),
                    },
                },
            ),
        }
    }

    fn membership(&self, random: &mut Random, oracle: &Oracle, principal: Principal) -> (Principal, Command) {
        let feed = random.pick(&self.feeds[..4]).clone();
        let subject = random.pick(&self.users[1..]).clone();
        let asked = principal.clone();
        // Mostly somebody who may: else groups would stay as they are.
        let by = match oracle.log(&feed).first() {
            Some(_) if random.chance(15) => self.admin.clone(),
            Some(created) if random.chance(60) => user(&created.sender),
            _ => principal,
        };
        let role = *random.pick(&[Role::Member, Role::Member, Role::Member, Role::Admin, Role::Owner]);
        let (by, action) = match random.below(10) {
            0..=1 => (by, Action::AddMember { uid: subject, role }),
            2 => (by, Action::RemoveMember { uid: subject, reason: None }),
            3 => (asked.clone(), Action::RemoveMember { uid: asked.uid, reason: None }),
            4 => (by, Action::ChangeRole { uid: subject, role }),
            5..=7 => (asked, Action::Join { reason: None }),
            8 => (by, Action::DecideJoin { uid: subject, agree: random.chance(80) }),
            _ => (
                by,
                Action::ChangeFeed {
                    title: Some(Arc::from(*random.pick(&["a", "b"]))),
                    join: None,
                    history: random.chance(10).then_some(HistoryMode::All),
                    meta: None,
                },
            ),
        };
        (by, Command { feed, action })
    }

    fn draft(
        &self,
        random: &mut Random,
        feed: &FeedId,
        actor: &Uid,
        head: SeqId,
        now_ms: TimeMs,
    ) -> (Principal, Draft) {
        let mut mentions = Vec::new();
        while random.chance(20) {
            mentions.push(random.pick(&self.users).clone());
        }
        if random.chance(4) {
            mentions.push(uid(MENTION_ALL));
        }
        let at = self.feeds.iter().position(|other| other == feed).unwrap_or_default();
        let create = match at {
            3 => Some((FeedKind::Open, Vec::new())),
            4..=6 => {
                let (a, b) = [(0, 1), (0, 2), (1, 2)][at - 4];
                Some((FeedKind::Direct, vec![self.users[a].clone(), self.users[b].clone()]))
            }
            _ => None,
        };
        debug_assert!(
            !(4..=6).contains(&at) || {
                let (a, b) = [(0, 1), (0, 2), (1, 2)][at - 4];
                *feed == FeedId::direct(&self.users[a], &self.users[b], self.digest)
            }
        );
        let principal = if at >= 7 && random.chance(70) { self.service.clone() } else { user(actor) };
        let draft = Draft {
            kind: if random.chance(6) { MessageKind::System } else { MessageKind::Text },
            content_type: Arc::from("application/json"),
            payload: Bytes::from(format!("\"text {}\"", random.below(1_000_000))),
            client_msg_id: random.chance(50).then(|| {
                // Some meet by chance: of two senders they are two ids, in a shared scope they are one.
                let space = if random.chance(20) { 30 } else { 1 << 40 };
                ClientMsgId::parse(&format!("c{}", random.below(space))).expect("short and plain")
            }),
            scope: if random.chance(5) { Scope::Shared(Arc::from("wire")) } else { Scope::Sender },
            reply_to: random.chance(15).then(|| SeqId(head.0.saturating_sub(random.below(8)))),
            mentions,
            to_reply: match random.below(10) {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            },
            seen_seq: random.chance(40).then(|| SeqId((head.0 + 2).saturating_sub(random.below(10)))),
            sent_ms: random.chance(50).then_some(now_ms),
            expires_ms: random.chance(8).then(|| now_ms - 20 + random.below(2000)),
            auto: random.chance(8),
            carried: match random.below(10) {
                0 => Bytes::from(format!("\u{1}carried {}", random.below(1_000_000))),
                _ => Bytes::new(),
            },
            expect_head: random.chance(3).then(|| SeqId(head.0.saturating_sub(random.below(2)))),
            create: create.map(|(kind, members)| CreateFeed {
                kind,
                title: None,
                members,
                join: JoinMode::Invite,
                history: HistoryMode::All,
                meta: None,
            }),
        };
        (principal, draft)
    }

    /// A retry, or the same id with another body.
    fn again(&self, random: &mut Random, sent: &[(FeedId, Uid, Draft)]) -> (Principal, Command) {
        let (feed, sender, draft) = random.pick(sent);
        let mut draft = draft.clone();
        if random.chance(25) {
            match random.below(3) {
                0 => draft.payload = Bytes::from_static(b"\"another\""),
                1 => draft.kind = MessageKind::Voice,
                _ => draft.mentions.push(self.users[0].clone()),
            }
        } else {
            // What the sender had seen, its clock and what its front end carries are not part of what it says.
            draft.seen_seq = Some(SeqId(random.below(50)));
            draft.sent_ms = None;
            draft.carried = Bytes::from_static(b"\x01otherwise");
        }
        let principal = if *sender == self.service.uid { self.service.clone() } else { user(sender) };
        (principal, Command { feed: feed.clone(), action: Action::SendMessage(Box::new(draft)) })
    }
}
