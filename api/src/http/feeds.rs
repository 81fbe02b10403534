//! Feeds: create, list, look at, change, own settings.

use axum::http::Method;
use feedlog_core::command::{Action, Command};
use feedlog_core::event::FeedKind;
use feedlog_core::feed::Rejected;
use feedlog_core::ids::FeedId;
use feedlog_service::{Gate, SubmitError};

use super::call::{Call, answer};
use super::route::{Answer, CURSOR, FEED, LIMIT, Route, Size};
use super::wire::input::{ChangeFeedBody, CreateFeedBody, SettingsBody};
use super::wire::output::{ConversationOut, ConversationPageOut, DoneOut, FeedOut};
use crate::errors::{ApiError, Kind};
use crate::made;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::POST, "/v1/feeds", "create_feed", create)
            .tag("feeds", "Create a feed. A direct feed of the same two users is returned as it is.")
            .takes::<CreateFeedBody>(Size::Small)
            .gives::<FeedOut<'_>>(201, "The new feed.")
            .gives::<FeedOut<'_>>(200, "The direct feed of these two users existed.")
            .fails(&[Kind::AlreadyExists, Kind::Rejected]),
        Route::new(Method::GET, "/v1/feeds", "list_feeds", list)
            .tag("feeds", "The caller's conversation list: pinned first, then most recent first.")
            .params(&[LIMIT, CURSOR])
            .gives::<ConversationPageOut<'_>>(200, "A page of the list."),
        Route::new(Method::GET, "/v1/feeds/{feed}", "get_feed", get)
            .tag("feeds", "One feed.")
            .params(&[FEED])
            .gives::<FeedOut<'_>>(200, "The feed."),
        Route::new(Method::PATCH, "/v1/feeds/{feed}", "change_feed", change)
            .tag("feeds", "Change title, meta, join mode or history mode.")
            .params(&[FEED])
            .takes::<ChangeFeedBody>(Size::Small)
            .gives::<FeedOut<'_>>(200, "The feed after the change.")
            .fails(&[Kind::Rejected]),
        Route::new(Method::PUT, "/v1/feeds/{feed}/settings", "change_settings", settings)
            .tag("feeds", "The caller's own settings of a feed.")
            .params(&[FEED])
            .takes::<SettingsBody>(Size::Small)
            .gives::<DoneOut<'_>>(200, "Durable.")
            .fails(&[Kind::Rejected]),
    ]
}

/// A field that is well formed and does not fit the others.
fn unfit(field: &'static str, problem: &'static str) -> ApiError {
    ApiError::new(Kind::Rejected, format!("{field}: {problem}")).with("field", field)
}

async fn create(call: Call) -> Answer {
    let body: CreateFeedBody = call.json()?;
    let named = body.feed_id.as_ref().map(|name| name.0.clone());
    let create = body.into_create()?;
    let me = &call.gate().principal().uid;
    let direct = create.kind == FeedKind::Direct;
    let feed = match (direct, named) {
        (true, Some(_)) => return Err(unfit("feed_id", "direct feeds name themselves")),
        (true, None) => match create.members.as_slice() {
            [other] => FeedId::direct(me, other, made::digest),
            [a, b] if a == me || b == me => FeedId::direct(a, b, made::digest),
            _ => return Err(unfit("members", "must name the other user of a direct feed")),
        },
        (false, Some(feed)) => feed,
        (false, None) => made::feed_id()?,
    };
    let command = Command { feed: feed.clone(), action: Action::CreateFeed(create) };
    let status = match call.gate().submit(command).await {
        Ok(receipt) if receipt.done().duplicate => 200,
        Ok(_) => 201,
        Err(SubmitError::Rejected(Rejected::AlreadyExists)) if direct => 200,
        Err(error) => return Err(error.into()),
    };
    show(call.gate(), &feed, status).await
}

async fn show(gate: &Gate, feed: &FeedId, status: u16) -> Answer {
    let info = gate.feed(feed).await?;
    answer(status, &FeedOut::from(&info))
}

async fn list(call: Call) -> Answer {
    let page = call.gate().conversations(call.cursor(), call.limit()).await?;
    let now_ms = call.app.clock.now_ms();
    let feeds = page.rows.iter().map(|row| ConversationOut::new(row, now_ms)).collect();
    answer(200, &ConversationPageOut { feeds, next: page.next.as_deref() })
}

async fn get(call: Call) -> Answer {
    show(call.gate(), &call.feed(), 200).await
}

async fn change(call: Call) -> Answer {
    let body: ChangeFeedBody = call.json()?;
    let feed = call.feed();
    let meta = body.meta()?;
    let title = body.title.map(|title| title.0);
    let (join, history) = (body.join.map(Into::into), body.history.map(Into::into));
    if title.is_some() || meta.is_some() || join.is_some() || history.is_some() {
        let action = Action::ChangeFeed { title, join, history, meta };
        call.gate().submit(Command { feed: feed.clone(), action }).await?;
    }
    show(call.gate(), &feed, 200).await
}

async fn settings(call: Call) -> Answer {
    let body: SettingsBody = call.json()?;
    let action = Action::ChangeSettings {
        feed: call.feed(),
        pinned: body.pinned,
        muted_until_ms: body.muted_until_ms.map(|ms| ms.0),
    };
    let personal = FeedId::personal(&call.gate().principal().uid);
    let receipt = call.gate().submit(Command { feed: personal, action }).await?;
    answer(200, &DoneOut::from(receipt.done()))
}
