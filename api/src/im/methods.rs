//! The methods: a body becomes a command or a read, a receipt or a view becomes a result.

use std::borrow::Cow;

use bytes::Bytes;
use feedlog_core::command::{Action, Command, Draft, Principal, RecallTarget};
use feedlog_core::event::{Role, Scope};
use feedlog_core::feed::Rejected;
use feedlog_core::ids::{ClientMsgId, FeedId, SeqId};
use feedlog_core::limits;
use feedlog_service::views::{HistoryQuery, Receipt};
use feedlog_service::{Gate, SubmitError};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;

use super::Im;
use super::envelope::ImError;
use super::message::{MessageOut, derived_id, derived_seq, raw};
use super::wire::*;
use crate::errors::{ApiError, Kind};
use crate::http::wire::input;
use crate::http::wire::output::{
    ConversationOut, ConversationPageOut, FeedOut, FeedUnreadOut, GoneOut, NextOut, ReceiptsOut,
    UnreadTotalOut, UnrepliedListOut, UnrepliedOut,
};
use crate::made;

/// What a request turned out to be.
#[derive(Debug)]
pub enum Asked {
    /// Submit this; [`Reply::of`] its receipt is the result.
    Submit(Box<Command>, Reply),
    /// Reads, and the rare wish that takes more than one command: [`Work::run`] gives the result.
    Work(Work),
}

/// How a receipt is told.
#[derive(Debug)]
pub struct Reply(Told);

#[derive(Debug)]
enum Told {
    Sent(Option<ClientMsgId>),
    Place,
    Success,
    Joined,
    Created,
}

/// What is not one command.
#[derive(Debug)]
pub struct Work(Wish);

#[derive(Debug)]
enum Wish {
    History(FeedId, HistoryQuery, usize),
    /// By the sender's own id, else by the place that the id names.
    Recall(FeedId, ClientMsgId, SeqId),
    Unread(Option<FeedId>),
    Unreplied(usize),
    Receipts(FeedId, SeqId, Option<String>, usize),
    Feeds(Option<String>, usize),
    Feed(FeedId),
}

type Outcome = Result<Box<RawValue>, ImError>;

/// Asks, and waits for the result. A result is given only once durable.
pub async fn call(im: &Im, gate: &Gate, method: &str, body: &[u8], carried: Bytes) -> Outcome {
    match ask(im, gate.principal(), method, body, carried)? {
        Asked::Submit(command, reply) => Ok(reply.of(&gate.submit(*command).await?)),
        Asked::Work(work) => work.run(im, gate).await,
    }
}

/// What a request wishes; nothing happens yet. `carried` goes with a message it may send.
pub fn ask(
    im: &Im,
    principal: &Principal,
    method: &str,
    body: &[u8],
    carried: Bytes,
) -> Result<Asked, ImError> {
    let personal = || FeedId::personal(&principal.uid);
    Ok(match method {
        "send" => send(im, parse(body)?, carried)?,
        "history" => history(parse(body)?),
        "recall" => recall(parse(body)?)?,
        "read" | "received" => {
            let PlaceBody { feeds, seq_id } = parse(body)?;
            let at = Some(SeqId::from(seq_id));
            let (read, received) = if method == "read" { (at, None) } else { (None, at) };
            let action = Action::MoveMarks { feed: feeds.0, read, received, unread_from: None };
            submit(personal(), action, Told::Success)
        }
        "unread" => work(Wish::Unread(parse::<UnreadBody>(body)?.feeds.map(|feeds| feeds.0))),
        "unreplied" => work(Wish::Unreplied(limit(parse::<LimitBody>(body)?.limit))),
        "receipts" => {
            let body: ReceiptsBody = parse(body)?;
            work(Wish::Receipts(body.feeds.0, body.seq_id.into(), cursor(body.cursor), limit(body.limit)))
        }
        "feeds_list" => {
            let body: PageBody = parse(body)?;
            work(Wish::Feeds(cursor(body.cursor), limit(body.limit)))
        }
        "feeds_info" => work(Wish::Feed(parse::<FeedsBody>(body)?.feeds.0)),
        "create_feeds" => {
            let mut body: CreateBody = parse(body)?;
            let feed = body.feeds.take().map_or_else(made::feed_id, |feeds| Ok(feeds.0))?;
            submit(feed, Action::CreateFeed(body.into_create()?), Told::Created)
        }
        "join_feeds" => {
            let JoinBody { feeds, reason } = parse(body)?;
            submit(feeds.0, Action::Join { reason: reason.map(|reason| reason.0) }, Told::Joined)
        }
        "agree_join_feeds" | "reject_join_feeds" => {
            let ApplicantBody { applicant, feeds } = parse(body)?;
            let action = Action::DecideJoin { uid: applicant.0, agree: method == "agree_join_feeds" };
            submit(feeds.0, action, Told::Success)
        }
        "invite_feeds_member" => {
            let MemberBody { member, feeds } = parse(body)?;
            submit(feeds.0, Action::AddMember { uid: member.0, role: Role::Member }, Told::Success)
        }
        "remove_feeds_member" => {
            let MemberBody { member, feeds } = parse(body)?;
            submit(feeds.0, Action::RemoveMember { uid: member.0, reason: None }, Told::Success)
        }
        "leave_feeds" => {
            let feed = parse::<FeedsBody>(body)?.feeds.0;
            let action = Action::RemoveMember { uid: principal.uid.clone(), reason: None };
            submit(feed, action, Told::Success)
        }
        _ => return Err(ApiError::new(Kind::NotFound, "there is no such method").into()),
    })
}

fn submit(feed: FeedId, action: Action, told: Told) -> Asked {
    Asked::Submit(Box::new(Command { feed, action }), Reply(told))
}

fn work(wish: Wish) -> Asked {
    Asked::Work(Work(wish))
}

fn limit(limit: Option<Limit>) -> usize {
    limit.map_or(50, |limit| limit.0)
}

/// An empty cursor is the start.
fn cursor(cursor: Option<Cursor>) -> Option<String> {
    cursor.map(|cursor| cursor.0).filter(|cursor| !cursor.is_empty())
}

/// A body is JSON when it begins with `{` and ends with `}`; none is an empty object.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ImError> {
    let body = match body.trim_ascii() {
        [] => b"{}",
        body => body,
    };
    if !body.starts_with(b"{") || !body.ends_with(b"}") {
        return Err(ApiError::field("body", "must be an object").into());
    }
    input::parse(body).map_err(|error| match serde_json::from_slice::<IgnoredAny>(body) {
        Ok(_) => error.into(),
        Err(at) => {
            let text = format!("The JSON format is incorrect at line {} column {}", at.line(), at.column());
            ImError::new(Kind::BadRequest, text)
        }
    })
}

fn send(im: &Im, body: SendBody, carried: Bytes) -> Result<Asked, ImError> {
    let (content_type, payload) = input::payload_of(body.payload, None, None, im.payload_bytes_max)?;
    let mentions: Vec<_> = body.mentions.unwrap_or_default().into_iter().map(|name| name.0).collect();
    if mentions.len() > limits::MENTIONS_MAX {
        return Err(ApiError::field("mentions", "has more than 100 items").into());
    }
    let id = body.msg_id.map(|id| id.0);
    let draft = Draft {
        client_msg_id: id.clone(),
        reply_to: body.reply_to.map(Into::into),
        mentions,
        to_reply: body.to_reply,
        seen_seq: body.seen_seq.map(Into::into),
        carried,
        ..Draft::new(body.msg_type.unwrap_or_default().into(), content_type, payload)
    };
    Ok(submit(body.feeds.0, Action::SendMessage(Box::new(draft)), Told::Sent(id)))
}

fn history(body: HistoryBody) -> Asked {
    let query = match (body.before, body.last_seq_id) {
        (Some(before), _) => HistoryQuery::Before(before.into()),
        (None, after) => HistoryQuery::After(after.map_or(SeqId::ZERO, Into::into)),
    };
    work(Wish::History(body.feeds.0, query, limit(body.limit)))
}

fn recall(body: RecallBody) -> Result<Asked, ImError> {
    let feed = body.feeds.0;
    let target = match (body.seq_id, body.msg_id) {
        (Some(seq), None) => RecallTarget::Seq(seq.into()),
        (None, Some(id)) => match derived_seq(feed.as_str(), id.0.as_str()) {
            Some(seq) => return Ok(work(Wish::Recall(feed, id.0, seq))),
            None => by_id(id.0),
        },
        (Some(_), Some(_)) => return Err(ApiError::field("msg_id", "excludes seq_id").into()),
        (None, None) => return Err(ApiError::field("seq_id", "is missing").into()),
    };
    Ok(submit(feed, Action::RecallMessage { target, reason: None }, Told::Place))
}

/// The caller's own message of this id.
fn by_id(id: ClientMsgId) -> RecallTarget {
    RecallTarget::ClientMsgId { sender: None, scope: Scope::Sender, id }
}

impl Reply {
    /// The result. Asks for a receipt, so that nothing is told before it is durable (I-2).
    pub fn of(self, receipt: &Receipt) -> Box<RawValue> {
        let done = receipt.done();
        match self.0 {
            Told::Sent(id) => {
                let msg_id = match &id {
                    Some(id) => Cow::Borrowed(id.as_str()),
                    None => Cow::Owned(derived_id(done.feed.as_str(), done.seq)),
                };
                raw(&SentOut { seq_id: done.seq.0, msg_id, time_create: done.time_ms })
            }
            Told::Place => raw(&RecallOut { seq_id: done.seq.0 }),
            Told::Joined if done.requested => raw(&"pending"),
            Told::Joined | Told::Success => raw(&"success"),
            Told::Created => raw(&CreatedOut { feeds: done.feed.as_str() }),
        }
    }
}

impl Work {
    /// Does it.
    pub async fn run(self, im: &Im, gate: &Gate) -> Outcome {
        match self.0 {
            Wish::History(feed, query, limit) => page(gate, &feed, query, limit).await,
            Wish::Recall(feed, id, seq) => {
                let recall = |target| {
                    let action = Action::RecallMessage { target, reason: None };
                    gate.submit(Command { feed: feed.clone(), action })
                };
                let receipt = match recall(by_id(id)).await {
                    Err(SubmitError::Rejected(Rejected::MessageNotFound)) => {
                        recall(RecallTarget::Seq(seq)).await?
                    }
                    outcome => outcome?,
                };
                Ok(Reply(Told::Place).of(&receipt))
            }
            Wish::Unread(None) => Ok(raw(&UnreadTotalOut::from(&gate.unread().await?))),
            Wish::Unread(Some(feed)) => Ok(raw(&FeedUnreadOut::new(&gate.unread_of(&feed).await?.unread))),
            Wish::Unreplied(limit) => {
                let rows = gate.unreplied(limit).await?;
                Ok(raw(&UnrepliedListOut { unreplied: rows.iter().map(UnrepliedOut::from).collect() }))
            }
            Wish::Receipts(feed, seq, cursor, limit) => {
                let view = gate.receipts(&feed, seq, cursor.as_deref(), limit).await?;
                Ok(raw(&ReceiptsOut::from(&view)))
            }
            Wish::Feeds(cursor, limit) => {
                let page = gate.conversations(cursor.as_deref(), limit).await?;
                let now_ms = im.clock.now_ms();
                let feeds = page.rows.iter().map(|row| ConversationOut::new(row, now_ms)).collect();
                Ok(raw(&ConversationPageOut { feeds, next: page.next.as_deref() }))
            }
            Wish::Feed(feed) => Ok(raw(&FeedOut::from(&gate.feed(&feed).await?))),
        }
    }
}

async fn page(gate: &Gate, feed: &FeedId, query: HistoryQuery, limit: usize) -> Outcome {
    let page = gate.history(feed, query, limit, 0).await?;
    let next = page.next.map(|next| match query {
        HistoryQuery::Before(_) => NextOut::Before(next.unsigned_abs()),
        _ => NextOut::LastSeqId(next.unsigned_abs()),
    });
    Ok(raw(&HistoryOut {
        feeds: page.feed.as_str(),
        last_seq_id: page.head.0,
        messages: page.entries.iter().map(MessageOut::new).collect(),
        gone: page.gone.iter().map(GoneOut::from).collect(),
        next,
    }))
}

/// What a login brings. Never logged (I-8).
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The credential.
    pub token: String,
    /// The name that the default form brings beside it.
    pub user: Option<String>,
    /// A topic that this connection wants its pushes on as well, beside [`super::PUSH_TOPIC`]: for libraries that drop a
    /// callback after its first push on a topic of more than two levels.
    pub push_topic: Option<String>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

impl Login {
    /// The result of a login that was granted.
    pub fn result(&self) -> Box<RawValue> {
        match &self.user {
            // As mqant's demo server says it.
            Some(user) => raw(&format!("login success {user}")),
            None => raw(&"success"),
        }
    }
}

/// Reads the body of a login: `{token}`, or `{userName, passWord}` of `Login/HD_Login`; in both `push_topic` may stand.
/// Fields that are not ours are not looked at: clients send what their own servers want to know as well.
pub fn login_token(body: &[u8], default_form: bool) -> Result<Login, ImError> {
    #[derive(Deserialize)]
    struct Body {
        token: String,
        push_topic: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct DefaultBody {
        user_name: String,
        pass_word: String,
        #[serde(rename = "push_topic")]
        push_topic: Option<String>,
    }
    if default_form {
        let DefaultBody { user_name, pass_word, push_topic } = parse(body)?;
        Ok(Login { token: pass_word, user: Some(user_name), push_topic })
    } else {
        let Body { token, push_topic } = parse(body)?;
        Ok(Login { token, user: None, push_topic })
    }
}

/// Every method.
const METHODS: [&str; 17] = [
    "send",
    "history",
    "recall",
    "read",
    "received",
    "unread",
    "unreplied",
    "receipts",
    "feeds_list",
    "feeds_info",
    "create_feeds",
    "join_feeds",
    "agree_join_feeds",
    "reject_join_feeds",
    "invite_feeds_member",
    "remove_feeds_member",
    "leave_feeds",
];

/// For fuzzing: any body is a wish or a refusal of every method, with a text.
#[doc(hidden)]
pub fn fuzz(body: &[u8]) {
    let im = Im { payload_bytes_max: 64, clock: feedlog_service::clock::Clock::manual(0).0 };
    let principal = Principal {
        uid: feedlog_core::ids::Uid::parse("u1").expect("INVARIANT: a short plain name is valid"),
        scopes: feedlog_core::command::Scopes::default(),
        anonymous: false,
        via: None,
    };
    for method in METHODS {
        if let Err(error) = ask(&im, &principal, method, body, Bytes::new()) {
            assert!(!error.text.is_empty());
            assert_ne!(error.text, "not_found: there is no such method", "{method}");
        }
    }
    for default_form in [false, true] {
        let _ = login_token(body, default_form);
    }
}
