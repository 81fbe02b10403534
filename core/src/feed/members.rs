//! Rules of feeds and their members: create, change, join, leave, roles.

use std::sync::Arc;

use crate::command::CreateFeed;
use crate::entry::Payload;
use crate::event::{Event, FeedKind, HistoryMode, JoinMode, Role};
use crate::feed::{Case, Decision, NewEvent, Plan, Rejected};
use crate::ids::{FeedId, Ordinal, SeqId, Uid};
use crate::policy::{is_admin, is_service, pair_of};
use crate::rows::FeedState;

impl Case<'_> {
    pub(super) fn create(&self, create: &CreateFeed) -> Result<Decision, Rejected> {
        self.not_reserved(create.kind)?;
        match self.state {
            // A direct feed has one name per pair, so asking for it again asks for the same.
            Some(state) if create.kind == FeedKind::Direct && state.kind == FeedKind::Direct => {
                Ok(self.already(SeqId(1), Ordinal::ZERO, state.created_ms))
            }
            // The name is taken, which cannot be hidden from somebody who wants it; nothing else is told.
            Some(_) => Err(Rejected::AlreadyExists),
            None => {
                let events = self.created(create)?;
                Ok(Decision::Append(Plan { events, ..Plan::default() }))
            }
        }
    }

    /// FeedCreated, and for groups a MemberJoined for the owner and each member.
    pub(super) fn created(&self, create: &CreateFeed) -> Result<Vec<NewEvent>, Rejected> {
        let caller = &self.principal.uid;
        let pair = match create.kind {
            FeedKind::Direct => {
                let pair = pair_of(create, caller).ok_or(Rejected::BadField {
                    field: "members",
                    problem: "must name exactly two different users",
                })?;
                if FeedId::direct(&pair.0, &pair.1, self.context.digest) != *self.feed {
                    return Err(Rejected::BadField {
                        field: "feed_id",
                        problem: "is not the name of this pair's feed",
                    });
                }
                Some(pair)
            }
            FeedKind::Group => None,
            FeedKind::Open if create.members.is_empty() => None,
            FeedKind::Open => {
                return Err(Rejected::BadField { field: "members", problem: "open feeds have none" });
            }
            FeedKind::Personal => {
                return Err(Rejected::BadField {
                    field: "kind",
                    problem: "personal feeds are created by use",
                });
            }
        };
        self.not_reserved(create.kind)?;
        let group = create.kind == FeedKind::Group;
        let mut events = vec![self.event(
            Event::FeedCreated {
                kind: create.kind,
                title: create.title.clone(),
                // Only groups have members that come and go.
                join: if group { create.join } else { JoinMode::Invite },
                history: if group { create.history } else { HistoryMode::All },
                meta: create.meta.clone(),
                pair,
            },
            Payload::None,
        )];
        if group {
            let joined = |uid: &Uid, role| Event::MemberJoined { uid: uid.clone(), role };
            events.push(self.event(joined(caller, Role::Owner), Payload::None));
            let mut members: Vec<&Uid> = create.members.iter().filter(|uid| *uid != caller).collect();
            members.sort();
            members.dedup();
            events
                .extend(members.into_iter().map(|uid| self.event(joined(uid, Role::Member), Payload::None)));
        }
        Ok(events)
    }

    pub(super) fn change(
        &self,
        title: Option<Arc<str>>,
        join: Option<JoinMode>,
        history: Option<HistoryMode>,
        meta: Option<Arc<str>>,
    ) -> Result<Decision, Rejected> {
        let state = self.existing()?;
        if state.kind != FeedKind::Group && (join.is_some() || history.is_some()) {
            return Err(Rejected::Rule("only groups have a join and a history mode"));
        }
        let title = title.filter(|title| state.title.as_ref() != Some(title));
        let join = join.filter(|join| state.join != *join);
        let history = history.filter(|history| state.history != *history);
        let meta = meta.filter(|meta| state.meta.as_ref() != Some(meta));
        if title.is_none() && join.is_none() && history.is_none() && meta.is_none() {
            return Ok(self.nothing());
        }
        Ok(self.append([Event::FeedChanged { title, join, history, meta }]))
    }

    pub(super) fn add_member(&self, uid: Uid, role: Role) -> Result<Decision, Rejected> {
        self.group()?;
        if role == Role::Owner {
            return Err(Rejected::BadField { field: "role", problem: "an owner is named by handing over" });
        }
        match self.context.subject {
            Some(member) if member.role == role => {
                Ok(self.already(member.joined_seq, member.joined_ordinal, member.joined_ms))
            }
            Some(_) => Err(Rejected::AlreadyExists),
            None => Ok(self.append([Event::MemberJoined { uid, role }])),
        }
    }

    pub(super) fn remove_member(&self, uid: Uid, reason: Option<Arc<str>>) -> Result<Decision, Rejected> {
        self.group()?;
        let Some(member) = self.context.subject else { return Err(Rejected::MemberNotFound) };
        if member.role == Role::Owner {
            return Err(Rejected::Rule("the owner cannot leave without naming another"));
        }
        Ok(self.append([if uid == self.principal.uid {
            Event::MemberLeft { uid }
        } else {
            Event::MemberRemoved { uid, reason }
        }]))
    }

    pub(super) fn change_role(&self, uid: Uid, role: Role) -> Result<Decision, Rejected> {
        let state = self.group()?;
        let Some(member) = self.context.subject else { return Err(Rejected::MemberNotFound) };
        if member.role == role {
            return Ok(self.nothing());
        }
        if member.role == Role::Owner {
            return Err(Rejected::Rule("the owner hands the feed on by naming another owner"));
        }
        let former = state.owner.clone().filter(|_| role == Role::Owner);
        let former = former.map(|uid| Event::RoleChanged { uid, role: Role::Admin });
        Ok(self.append([Event::RoleChanged { uid, role }].into_iter().chain(former)))
    }

    pub(super) fn join(&self, reason: Option<Arc<str>>) -> Result<Decision, Rejected> {
        let state = self.group()?;
        if let Some(member) = self.context.actor {
            return Ok(self.already(member.joined_seq, member.joined_ordinal, member.joined_ms));
        }
        match state.join {
            JoinMode::Open => {
                Ok(self.append([Event::MemberJoined { uid: self.principal.uid.clone(), role: Role::Member }]))
            }
            JoinMode::Approval => match &self.context.request {
                Some(request) => {
                    let mut decision = self.already(request.seq, Ordinal::ZERO, request.time_ms);
                    if let Decision::Already(done) = &mut decision {
                        done.requested = true;
                    }
                    Ok(decision)
                }
                None => {
                    let events = vec![self.event(Event::JoinRequested { reason }, Payload::None)];
                    Ok(Decision::Append(Plan { events, requested: true, ..Plan::default() }))
                }
            },
            // Administrators get here: others do not know of such a group.
            JoinMode::Invite => Err(Rejected::Rule("members of this group are added by its owner or admins")),
        }
    }

    pub(super) fn decide_join(&self, uid: Uid, agreed: bool) -> Result<Decision, Rejected> {
        self.group()?;
        if self.context.request.is_none() {
            return Err(Rejected::MemberNotFound);
        }
        let joined = Event::MemberJoined { uid: uid.clone(), role: Role::Member };
        let joined = (agreed && self.context.subject.is_none()).then_some(joined);
        Ok(self.append([Event::JoinDecided { uid, agreed }].into_iter().chain(joined)))
    }

    /// Whether the principal may recall what others sent, at any time.
    pub(super) fn recalls_any(&self) -> bool {
        let admin = is_admin(self.principal)
            && self.state.is_some_and(|state| matches!(state.kind, FeedKind::Group | FeedKind::Open));
        let manager = self.context.actor.is_some_and(|member| member.role >= Role::Admin);
        admin || manager || is_service(self.principal)
    }

    fn not_reserved(&self, kind: FeedKind) -> Result<(), Rejected> {
        if kind != FeedKind::Direct && self.feed.is_reserved() {
            return Err(Rejected::BadField { field: "feed_id", problem: "begins with a reserved prefix" });
        }
        Ok(())
    }

    fn existing(&self) -> Result<&FeedState, Rejected> {
        // `authorize` answers for feeds that do not exist.
        self.state.ok_or(Rejected::Rule("the feed does not exist"))
    }

    fn group(&self) -> Result<&FeedState, Rejected> {
        match self.existing()? {
            state if state.kind == FeedKind::Group => Ok(state),
            _ => Err(Rejected::Rule("only groups have members that come and go")),
        }
    }
}
