//! Members, roles, joining and its requests.

use axum::http::Method;
use feedlog_core::command::{Action, Command};
use feedlog_core::event::Role;
use feedlog_core::ids::FeedId;
use feedlog_service::Gate;

use super::call::{Call, answer};
use super::route::{Answer, CURSOR, FEED, LIMIT, Param, Route, Shape, Size, UID};
use super::wire::input::{AddMemberBody, ChangeRoleBody, DecisionBody, DecisionWord, JoinBody};
use super::wire::output::{DoneOut, MemberOut, MemberPageOut, RequestOut, RequestPageOut};
use crate::errors::Kind;

const UID_OR_ME: Param =
    Param::path("uid", Shape::UidOrMe, "The user's name, percent-encoded; `me` = the caller.");

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/v1/feeds/{feed}/members", "list_members", list)
            .tag("members", "The members of a feed by name.")
            .params(&[FEED, LIMIT, CURSOR])
            .gives::<MemberPageOut<'_>>(200, "A page of members."),
        Route::new(Method::POST, "/v1/feeds/{feed}/members", "add_member", add)
            .tag("members", "Add a member at once (owner and admins).")
            .params(&[FEED])
            .takes::<AddMemberBody>(Size::Small)
            .gives::<DoneOut<'_>>(201, "A member now.")
            .gives::<DoneOut<'_>>(200, "Was a member already.")
            .fails(&[Kind::AlreadyExists, Kind::Rejected]),
        Route::new(Method::DELETE, "/v1/feeds/{feed}/members/{uid}", "remove_member", remove)
            .tag("members", "Remove a member, or leave.")
            .params(&[FEED, UID_OR_ME])
            .gives::<DoneOut<'_>>(200, "No member any more.")
            .fails(&[Kind::MemberNotFound, Kind::Rejected]),
        Route::new(Method::PATCH, "/v1/feeds/{feed}/members/{uid}", "change_role", role)
            .tag("members", "Change a member's role; naming an owner hands the group on.")
            .params(&[FEED, UID_OR_ME])
            .takes::<ChangeRoleBody>(Size::Small)
            .gives::<DoneOut<'_>>(200, "Durable.")
            .fails(&[Kind::MemberNotFound, Kind::Rejected]),
        Route::new(Method::POST, "/v1/feeds/{feed}/join", "join_feed", join)
            .tag("members", "Join, or ask to where approval is needed.")
            .params(&[FEED])
            .may_take::<JoinBody>(Size::Small)
            .gives::<DoneOut<'_>>(201, "A member now.")
            .gives::<DoneOut<'_>>(200, "Was a member already.")
            .gives::<DoneOut<'_>>(202, "The request waits for a decision.")
            .fails(&[Kind::AlreadyExists, Kind::Rejected]),
        Route::new(Method::GET, "/v1/feeds/{feed}/requests", "list_requests", requests)
            .tag("members", "Pending requests to join (owner and admins).")
            .params(&[FEED, LIMIT, CURSOR])
            .gives::<RequestPageOut<'_>>(200, "A page of requests."),
        Route::new(Method::POST, "/v1/feeds/{feed}/requests/{uid}", "decide_request", decide)
            .tag("members", "Decide a request to join (owner and admins).")
            .params(&[FEED, UID])
            .takes::<DecisionBody>(Size::Small)
            .gives::<DoneOut<'_>>(200, "Durable.")
            .fails(&[Kind::MemberNotFound, Kind::AlreadyExists, Kind::Rejected]),
    ]
}

async fn list(call: Call) -> Answer {
    let page = call.gate().members(&call.feed(), call.cursor(), call.limit()).await?;
    let members = page.rows.iter().map(MemberOut::from).collect();
    answer(200, &MemberPageOut { members, next: page.next.as_deref() })
}

async fn requests(call: Call) -> Answer {
    let page = call.gate().requests(&call.feed(), call.cursor(), call.limit()).await?;
    let requests = page.rows.iter().map(RequestOut::from).collect();
    answer(200, &RequestPageOut { requests, next: page.next.as_deref() })
}

/// Submits and answers with `status`, or 200 when it had been done before.
async fn done(gate: &Gate, feed: FeedId, action: Action, status: u16) -> Answer {
    let receipt = gate.submit(Command { feed, action }).await?;
    let status = if receipt.done().duplicate { 200 } else { status };
    answer(status, &DoneOut::from(receipt.done()))
}

async fn add(call: Call) -> Answer {
    let body: AddMemberBody = call.json()?;
    let role = body.role.map_or(Role::Member, Into::into);
    done(call.gate(), call.feed(), Action::AddMember { uid: body.uid.0, role }, 201).await
}

async fn remove(call: Call) -> Answer {
    let action = Action::RemoveMember { uid: call.uid(), reason: None };
    done(call.gate(), call.feed(), action, 200).await
}

async fn role(call: Call) -> Answer {
    let body: ChangeRoleBody = call.json()?;
    let action = Action::ChangeRole { uid: call.uid(), role: body.role.into() };
    done(call.gate(), call.feed(), action, 200).await
}

async fn join(call: Call) -> Answer {
    let body: JoinBody = call.json()?;
    let feed = call.feed();
    let action = Action::Join { reason: body.reason.map(|reason| reason.0) };
    let receipt = call.gate().submit(Command { feed: feed.clone(), action }).await?;
    // The durable row says which of the two it became: the join mode may have changed a moment ago.
    let member = call.gate().feed(&feed).await?.role.is_some();
    let status = match (member, receipt.done().duplicate) {
        (true, false) => 201,
        (true, true) => 200,
        (false, _) => 202,
    };
    answer(status, &DoneOut::from(receipt.done()))
}

async fn decide(call: Call) -> Answer {
    let body: DecisionBody = call.json()?;
    let action = Action::DecideJoin { uid: call.uid(), agree: body.decision == DecisionWord::Agree };
    done(call.gate(), call.feed(), action, 200).await
}
