//! Where people stand: marks, unread, unreplied, receipts.

use axum::http::Method;
use feedlog_core::command::{Action, Command};
use feedlog_core::ids::FeedId;
use feedlog_service::Gate;
use feedlog_service::views::Marks;

use super::call::{Call, answer};
use super::route::{Answer, CURSOR, FEED, LIMIT, Param, Route, SEQ, Shape, Size};
use super::wire::input::{MarksBody, ResolveBody, no_feed};
use super::wire::output::{
    DoneOut, FeedUnreadOut, MarksOut, ReceiptsOut, UnreadTotalOut, UnrepliedListOut, UnrepliedOut,
};
use crate::errors::{ApiError, Kind};

const EXPLAIN: Param = Param::query(
    "explain",
    Shape::Bool,
    "Whether to list what was counted and what was left out, with the rule.",
);

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::PUT, "/v1/feeds/{feed}/marks", "move_marks", put_marks)
            .tag("people", "Move the caller's marks: forward only, unless `unread_from` is given.")
            .params(&[FEED])
            .takes::<MarksBody>(Size::Small)
            .gives::<MarksOut<'_>>(200, "The marks, durable.")
            .fails(&[Kind::MessageNotFound, Kind::Rejected]),
        Route::new(Method::GET, "/v1/feeds/{feed}/marks", "get_marks", get_marks)
            .tag("people", "The caller's marks.")
            .params(&[FEED])
            .gives::<MarksOut<'_>>(200, "The marks."),
        Route::new(Method::GET, "/v1/unread", "unread", unread)
            .tag("people", "Unread over all feeds of the caller.")
            .gives::<UnreadTotalOut<'_>>(200, "Totals, and the feeds with something unread."),
        Route::new(Method::GET, "/v1/feeds/{feed}/unread", "feed_unread", feed_unread)
            .tag("people", "Unread of one feed.")
            .params(&[FEED, EXPLAIN])
            .gives::<FeedUnreadOut<'_>>(200, "The figures, with their reasons when asked for."),
        Route::new(Method::GET, "/v1/unreplied", "unreplied", unreplied)
            .tag("people", "Who waits for the caller's answer, longest first.")
            .params(&[LIMIT])
            .gives::<UnrepliedListOut<'_>>(200, "One row for each feed in which somebody waits."),
        Route::new(Method::POST, "/v1/feeds/{feed}/resolve", "resolve", resolve)
            .tag("people", "Close what is owed up to and including an entry, without answering.")
            .params(&[FEED])
            .takes::<ResolveBody>(Size::Small)
            .gives::<DoneOut<'_>>(200, "Durable.")
            .fails(&[Kind::MessageNotFound, Kind::Rejected]),
        Route::new(Method::GET, "/v1/feeds/{feed}/receipts/{seq_id}", "receipts", receipts)
            .tag("people", "Who has received and read a message.")
            .params(&[FEED, SEQ, LIMIT, CURSOR])
            .gives::<ReceiptsOut<'_>>(200, "Counts and a page of members.")
            .fails(&[Kind::MessageNotFound]),
    ]
}

/// Moves marks and returns them as they are then.
pub(crate) async fn move_marks(gate: &Gate, feed: &FeedId, body: MarksBody) -> Result<Marks, ApiError> {
    let (read, received) = (body.read_seq_id.map(Into::into), body.received_seq_id.map(Into::into));
    let unread_from = body.unread_from.map(Into::into);
    if read.is_some() || received.is_some() || unread_from.is_some() {
        let action = Action::MoveMarks { feed: feed.clone(), read, received, unread_from };
        gate.submit(Command { feed: FeedId::personal(&gate.principal().uid), action }).await?;
    }
    Ok(gate.marks(feed).await?)
}

/// The command that closes what is owed.
pub(crate) fn resolve_command(gate: &Gate, feed: FeedId, body: &ResolveBody) -> Command {
    let action = Action::ResolveUnreplied { feed, upto: body.seq_id.into() };
    Command { feed: FeedId::personal(&gate.principal().uid), action }
}

fn marks_answer(feed: &FeedId, marks: Marks) -> Answer {
    answer(
        200,
        &MarksOut {
            feed_id: feed.as_str(),
            read_seq_id: marks.read_seq.0,
            received_seq_id: marks.received_seq.0,
        },
    )
}

async fn put_marks(call: Call) -> Answer {
    let body: MarksBody = call.json()?;
    no_feed(body.feed_id.as_ref())?;
    let feed = call.feed();
    let marks = move_marks(call.gate(), &feed, body).await?;
    marks_answer(&feed, marks)
}

async fn get_marks(call: Call) -> Answer {
    let feed = call.feed();
    let marks = call.gate().marks(&feed).await?;
    marks_answer(&feed, marks)
}

async fn unread(call: Call) -> Answer {
    let total = call.gate().unread().await?;
    answer(200, &UnreadTotalOut::from(&total))
}

async fn feed_unread(call: Call) -> Answer {
    let view = call.gate().unread_of(&call.feed()).await?;
    if call.values.flag("explain") {
        answer(200, &FeedUnreadOut::explained(&view))
    } else {
        answer(200, &FeedUnreadOut::new(&view.unread))
    }
}

async fn unreplied(call: Call) -> Answer {
    let rows = call.gate().unreplied(call.limit()).await?;
    answer(200, &UnrepliedListOut { unreplied: rows.iter().map(UnrepliedOut::from).collect() })
}

async fn resolve(call: Call) -> Answer {
    let body: ResolveBody = call.json()?;
    no_feed(body.feed_id.as_ref())?;
    let command = resolve_command(call.gate(), call.feed(), &body);
    let receipt = call.gate().submit(command).await?;
    answer(200, &DoneOut::from(receipt.done()))
}

async fn receipts(call: Call) -> Answer {
    let view = call.gate().receipts(&call.feed(), call.seq(), call.cursor(), call.limit()).await?;
    answer(200, &ReceiptsOut::from(&view))
}
