//! Who may do what.
//!
//! A service that acts for a user (`Principal::via`) has exactly that user's rights: the scopes `send_as`, `audit` and
//! `admin` only widen what a principal may do under its own name.

use crate::command::{Action, Command, CreateFeed, Principal, RecallTarget};
use crate::event::{FeedKind, HistoryMode, JoinMode, Role, Scope};
use crate::feed::{Context, Settings, Target};
use crate::ids::{FeedId, PERSONAL_PREFIX, SeqId, Uid};
use crate::rows::{FeedState, Member};

/// The principal may not do this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The feed does not exist, or the caller may not know that it does: one answer for both.
    #[error("no such feed")]
    FeedNotFound,
    /// The feed may be known to the caller, the act is not the caller's.
    #[error("not allowed")]
    Forbidden,
    /// Anonymous principals may not do this; authenticate first.
    #[error("authentication is required")]
    Unauthenticated,
}

/// A command that was allowed. Only [`authorize`] makes one (I-4).
#[derive(Debug)]
pub struct Authorized {
    principal: Principal,
    command: Command,
}

impl Authorized {
    /// Who asked.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What is allowed.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// Both, by value.
    pub(crate) fn into_parts(self) -> (Principal, Command) {
        (self.principal, self.command)
    }
}

/// Whether the principal may do this, judged on the state and the rows that [`crate::feed::gather`] fetched.
///
/// `state` is `None` for a feed that does not exist.
pub fn authorize(
    principal: &Principal,
    command: Command,
    state: Option<&FeedState>,
    context: &Context,
) -> Result<Authorized, Denied> {
    Question { principal, command: &command, context }.check(state)?;
    // INVARIANT I-4: the only place where an `Authorized` is made, after the check.
    Ok(Authorized { principal: principal.clone(), command })
}

/// What a reader may have of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadScope {
    /// The first entry the reader is entitled to: 1, or under `since_join` the reader's own MemberJoined entry.
    pub first: SeqId,
    /// Entries, members and meta may be read. When `false` only title and join mode may be known.
    pub contents: bool,
    /// The reader manages the feed: pending requests may be read (owner, admins, administrators).
    pub manages: bool,
}

impl ReadScope {
    /// The first readable entry, `Forbidden` when only title and join mode may be known.
    pub fn contents(self) -> Result<SeqId, Denied> {
        if self.contents { Ok(self.first) } else { Err(Denied::Forbidden) }
    }
}

/// What the principal may read of the feed.
///
/// `state` is `None` for a feed that does not exist; `member` is the principal's own row
/// (`RowKey::Member(feed, principal.uid)`), needed for groups only. A feed that may not be known is `FeedNotFound`.
/// An auditor reads everything; an administrator who is not a member knows of every feed and manages it, but reads no
/// entries.
pub fn may_read(
    principal: &Principal,
    feed: &FeedId,
    state: Option<&FeedState>,
    member: Option<&Member>,
    settings: &Settings,
) -> Result<ReadScope, Denied> {
    let everything = ReadScope { first: SeqId(1), contents: true, manages: false };
    if principal.anonymous {
        // One answer for every feed that is not an open one, existing or not.
        let open = settings.anonymous_open_feeds && state.is_some_and(|s| s.kind == FeedKind::Open);
        return if open { Ok(everything) } else { Err(Denied::Unauthenticated) };
    }
    let state = state.ok_or(Denied::FeedNotFound)?;
    let admin = is_admin(principal);
    if principal.scopes.audit && principal.via.is_none() {
        let manages = admin || member.is_some_and(|m| m.role >= Role::Admin);
        return Ok(ReadScope { manages, ..everything });
    }
    let acts = principal.scopes.user || principal.scopes.send_as;
    let scope = match state.kind {
        FeedKind::Direct if acts && in_pair(state, &principal.uid) => Some(everything),
        FeedKind::Personal if acts && feed.is_personal_of(&principal.uid) => Some(everything),
        FeedKind::Open if acts => Some(everything),
        FeedKind::Group if acts => match member {
            Some(member) => Some(ReadScope {
                first: first_of(state, member),
                contents: true,
                manages: admin || member.role >= Role::Admin,
            }),
            None if is_knowable(state) => Some(ReadScope { contents: false, ..everything }),
            None => None,
        },
        FeedKind::Direct | FeedKind::Personal | FeedKind::Open | FeedKind::Group => None,
    };
    match scope {
        Some(scope) => Ok(ReadScope { manages: scope.manages || admin, ..scope }),
        None if admin => Ok(ReadScope { contents: false, manages: true, ..everything }),
        None => Err(Denied::FeedNotFound),
    }
}

/// A service under its own name.
pub(crate) fn is_service(principal: &Principal) -> bool {
    principal.scopes.send_as && principal.via.is_none() && !principal.anonymous
}

/// An administrator under its own name.
pub(crate) fn is_admin(principal: &Principal) -> bool {
    principal.scopes.admin && principal.via.is_none() && !principal.anonymous
}

/// The first entry that the actor of a command may see: what it may answer, recall or react to.
pub(crate) fn first_visible(state: &FeedState, context: &Context) -> SeqId {
    match (state.kind, &context.actor) {
        (FeedKind::Group, Some(member)) => first_of(state, member),
        _ => SeqId(1),
    }
}

/// Whether a message of an open feed is named by an id that all its writers share.
pub(crate) fn shares_target(state: &FeedState, target: &RecallTarget) -> bool {
    state.kind == FeedKind::Open
        && matches!(target, RecallTarget::ClientMsgId { scope: Scope::Shared(_), .. })
}

fn first_of(state: &FeedState, member: &Member) -> SeqId {
    match state.history {
        HistoryMode::All => SeqId(1),
        HistoryMode::SinceJoin => member.joined_seq,
    }
}

fn in_pair(state: &FeedState, uid: &Uid) -> bool {
    state.pair.as_ref().is_some_and(|(a, b)| a == uid || b == uid)
}

/// Groups that non-members may know of, by title and join mode.
fn is_knowable(state: &FeedState) -> bool {
    state.kind == FeedKind::Group && state.join != JoinMode::Invite
}

/// The two users that a new direct feed is for: those named, and the caller when only one other is named.
pub(crate) fn pair_of(create: &CreateFeed, caller: &Uid) -> Option<(Uid, Uid)> {
    let mut users: Vec<&Uid> = create.members.iter().collect();
    if users.len() == 1 {
        users.push(caller);
    }
    users.sort();
    users.dedup();
    match users[..] {
        [a, b] => Some((a.clone(), b.clone())),
        _ => None,
    }
}

struct Question<'a> {
    principal: &'a Principal,
    command: &'a Command,
    context: &'a Context,
}

impl Question<'_> {
    fn check(&self, state: Option<&FeedState>) -> Result<(), Denied> {
        if self.principal.anonymous {
            return self.anonymous(state);
        }
        let scopes = self.principal.scopes;
        if !(scopes.user || scopes.send_as || is_admin(self.principal)) {
            return Err(Denied::Forbidden);
        }
        match &self.command.action {
            Action::CreateFeed(create) => return self.create(create),
            Action::ExpireMessages { .. } | Action::EraseMessages { .. } => {
                return match (is_admin(self.principal), state) {
                    (false, _) => Err(Denied::Forbidden),
                    (true, None) => Err(Denied::FeedNotFound),
                    (true, Some(_)) => Ok(()),
                };
            }
            _ => {}
        }
        match state {
            None => self.absent(),
            Some(state) => {
                match state.kind {
                    FeedKind::Direct => self.direct(state),
                    FeedKind::Open => self.open(state),
                    FeedKind::Personal => self.personal(state),
                    FeedKind::Group => self.group(state),
                }?;
                self.kind_is(state.kind)
            }
        }
    }

    /// Anonymous principals use open feeds, where configured, and get one answer for everything else.
    fn anonymous(&self, state: Option<&FeedState>) -> Result<(), Denied> {
        let create = match &self.command.action {
            Action::SendMessage(draft) => draft.create.as_ref(),
            Action::Broadcast { create, .. } => create.as_ref(),
            Action::EditMessage { .. } | Action::RecallMessage { .. } | Action::React { .. } => None,
            _ => return Err(Denied::Unauthenticated),
        };
        let open = match (state, create) {
            (Some(state), _) => state.kind == FeedKind::Open,
            (None, Some(create)) => create.kind == FeedKind::Open && !self.command.feed.is_reserved(),
            (None, None) => false,
        };
        if !open || !self.context.settings.anonymous_open_feeds {
            return Err(Denied::Unauthenticated);
        }
        match state {
            Some(state) => self.open(state),
            None => Ok(()),
        }
    }

    fn create(&self, create: &CreateFeed) -> Result<(), Denied> {
        match create.kind {
            FeedKind::Group | FeedKind::Open => {
                // Reserved names never belong to these kinds. Asked to create one, `decide` says so whether or not it
                // exists; a first send gets the answer of a feed of others, so that nobody is guessed at.
                let explicit = matches!(self.command.action, Action::CreateFeed(_));
                if self.command.feed.is_reserved() && !explicit { Err(Denied::FeedNotFound) } else { Ok(()) }
            }
            FeedKind::Direct => {
                let Some((a, b)) = pair_of(create, &self.principal.uid) else { return Ok(()) };
                let caller = &self.principal.uid;
                if *caller != a && *caller != b && !is_service(self.principal) {
                    return Err(Denied::Forbidden);
                }
                // A wrong name gets one answer, whether or not a direct feed of others has it.
                if FeedId::direct(&a, &b, self.context.digest) != self.command.feed {
                    return Err(Denied::FeedNotFound);
                }
                Ok(())
            }
            FeedKind::Personal => Err(Denied::Forbidden),
        }
    }

    fn absent(&self) -> Result<(), Denied> {
        let feed = &self.command.feed;
        if feed.as_str().starts_with(PERSONAL_PREFIX) {
            let exists_for = match self.command.action {
                Action::SendMessage(_) | Action::Notify { .. } | Action::Broadcast { .. } => {
                    is_service(self.principal) || feed.is_personal_of(&self.principal.uid)
                }
                Action::MoveMarks { .. }
                | Action::ResolveUnreplied { .. }
                | Action::ChangeSettings { .. } => {
                    feed.is_personal_of(&self.principal.uid) && self.may_read_other()?
                }
                _ => false,
            };
            return if exists_for { self.kind_is(FeedKind::Personal) } else { Err(Denied::FeedNotFound) };
        }
        match &self.command.action {
            Action::SendMessage(draft) => match &draft.create {
                Some(create) => self.create(create),
                None => Err(Denied::FeedNotFound),
            },
            Action::Broadcast { create: Some(create), .. } => self.create(create),
            _ => Err(Denied::FeedNotFound),
        }
    }

    fn direct(&self, state: &FeedState) -> Result<(), Denied> {
        if !in_pair(state, &self.principal.uid) {
            return match self.command.action {
                Action::RecallMessage { .. } if is_service(self.principal) => Ok(()),
                _ if is_admin(self.principal) => Err(Denied::Forbidden),
                _ => Err(Denied::FeedNotFound),
            };
        }
        self.writes(state, is_service(self.principal))
    }

    fn open(&self, state: &FeedState) -> Result<(), Denied> {
        let admin = is_admin(self.principal);
        match self.command.action {
            Action::ChangeFeed { .. } if admin || state.creator == self.principal.uid => Ok(()),
            // The front end of such an id has no senders: whoever may write and can name it may take it back.
            Action::RecallMessage { ref target, .. } if shares_target(state, target) => Ok(()),
            _ => self.writes(state, admin || is_service(self.principal)),
        }
    }

    fn personal(&self, state: &FeedState) -> Result<(), Denied> {
        let own = self.command.feed.is_personal_of(&self.principal.uid);
        let service = is_service(self.principal);
        if !own && !service {
            return Err(Denied::FeedNotFound);
        }
        match self.command.action {
            Action::Notify { .. } => Ok(()),
            Action::MoveMarks { .. } | Action::ResolveUnreplied { .. } | Action::ChangeSettings { .. } => {
                if own && self.may_read_other()? {
                    Ok(())
                } else {
                    Err(Denied::Forbidden)
                }
            }
            _ => self.writes(state, service),
        }
    }

    fn group(&self, state: &FeedState) -> Result<(), Denied> {
        let admin = is_admin(self.principal);
        let actor = self.context.actor.as_ref();
        let manager = admin || actor.is_some_and(|m| m.role >= Role::Admin);
        let owner = admin || actor.is_some_and(|m| m.role == Role::Owner);
        if actor.is_none() && !admin {
            return match self.command.action {
                Action::Join { .. } if is_knowable(state) => Ok(()),
                Action::RecallMessage { .. } if is_service(self.principal) => Ok(()),
                _ if is_knowable(state) => Err(Denied::Forbidden),
                _ => Err(Denied::FeedNotFound),
            };
        }
        let allowed = match &self.command.action {
            Action::ChangeFeed { .. } | Action::DecideJoin { .. } => manager,
            Action::AddMember { role: Role::Member, .. } => manager,
            Action::AddMember { .. } | Action::ChangeRole { .. } => owner,
            Action::RemoveMember { uid, .. } if *uid == self.principal.uid => true,
            Action::RemoveMember { .. } => match self.context.subject {
                Some(subject) if subject.role >= Role::Admin => owner,
                _ => manager,
            },
            Action::Join { .. } => true,
            Action::RecallMessage { .. } => return self.writes(state, manager || is_service(self.principal)),
            _ if actor.is_none() => false,
            _ => return self.writes(state, manager),
        };
        if allowed { Ok(()) } else { Err(Denied::Forbidden) }
    }

    /// What everybody who may write in a feed may do with messages. `recalls_any`: also those of others.
    fn writes(&self, state: &FeedState, recalls_any: bool) -> Result<(), Denied> {
        let may = match &self.command.action {
            Action::SendMessage(_) | Action::Broadcast { .. } | Action::React { .. } => true,
            Action::EditMessage { .. } => self.owns_target(state),
            Action::RecallMessage { .. } => recalls_any || self.owns_target(state),
            // Feeds without members refuse these by rule, which is no secret to those who may write there.
            Action::AddMember { .. }
            | Action::RemoveMember { .. }
            | Action::ChangeRole { .. }
            | Action::Join { .. }
            | Action::DecideJoin { .. } => state.kind != FeedKind::Group,
            Action::CreateFeed(_)
            | Action::ChangeFeed { .. }
            | Action::ExpireMessages { .. }
            | Action::EraseMessages { .. }
            | Action::MoveMarks { .. }
            | Action::ResolveUnreplied { .. }
            | Action::ChangeSettings { .. }
            | Action::Notify { .. } => false,
        };
        if may { Ok(()) } else { Err(Denied::Forbidden) }
    }

    /// Whether the target is the caller's own. A target that the caller may not see is left to `decide`, which answers
    /// that there is no such message.
    fn owns_target(&self, state: &FeedState) -> bool {
        match self.context.targets.first() {
            Some(Target { entry, .. }) if entry.seq >= first_visible(state, self.context) => {
                entry.sender == self.principal.uid || !entry.event.is_message()
            }
            _ => true,
        }
    }

    /// Marks and settings are kept only for feeds that the caller may read.
    fn may_read_other(&self) -> Result<bool, Denied> {
        let Some(other) = &self.context.other else { return Ok(false) };
        let scope = may_read(
            self.principal,
            &other.feed,
            other.state.as_deref(),
            other.member.as_ref(),
            &self.context.settings,
        )?;
        scope.contents().map(|_| true)
    }

    /// A wire that addresses feeds of one kind is not let into a feed of another kind that has the same name.
    fn kind_is(&self, kind: FeedKind) -> Result<(), Denied> {
        let create = match &self.command.action {
            Action::SendMessage(draft) => draft.create.as_ref(),
            Action::Broadcast { create, .. } => create.as_ref(),
            _ => None,
        };
        match create {
            Some(create) if create.kind != kind => Err(Denied::Forbidden),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
