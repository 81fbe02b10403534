//! History: pages forwards, backwards, around, by position; with long-poll.

use axum::http::Method;
use feedlog_core::ids::SeqId;
use feedlog_service::views::HistoryQuery;

use super::app::drained;
use super::call::{Call, answer};
use super::route::{Answer, FEED, LIMIT, Param, Route, SEQ, Shape};
use super::wire::names::WHOLE_MAX;
use super::wire::output::{EntryOut, EntryPageOut, GoneOut, NextOut};
use crate::errors::Kind;

const SEQ_MAX: i64 = WHOLE_MAX as i64;

/// The longest long-poll.
const WAIT_MS_MAX: i64 = 60_000;

const PULL: &[Param] = &[
    FEED,
    Param::query(
        "last_seq_id",
        Shape::Int(0, SEQ_MAX),
        "Entries after this one, ascending; 0 when absent. Of `position`, `around`, `before` and `last_seq_id` the first \
         one given counts.",
    ),
    Param::query("before", Shape::Int(0, SEQ_MAX), "Entries before this one, descending."),
    Param::query("around", Shape::Int(0, SEQ_MAX), "Entries around this one, ascending."),
    Param::query(
        "position",
        Shape::Int(-SEQ_MAX, SEQ_MAX),
        "Messages by ordinal, ascending: 1 is the oldest, -1 the newest.",
    ),
    Param::query("size", Shape::Int(1, 1000), "With `position`: messages in the page; `limit` when absent."),
    LIMIT,
    Param::query(
        "wait_ms",
        Shape::Int(0, WAIT_MS_MAX),
        "With `last_seq_id`: when there is nothing newer, wait that long for something.",
    ),
];

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/v1/feeds/{feed}/entries", "pull", pull)
            .tag("entries", "A page of history.")
            .params(PULL)
            .gives::<EntryPageOut<'_>>(200, "Entries and what is not shown between them."),
        Route::new(Method::GET, "/v1/feeds/{feed}/entries/{seq_id}", "get_entry", one)
            .tag("entries", "One entry.")
            .params(&[FEED, SEQ])
            .gives::<EntryOut<'_>>(200, "The entry.")
            .fails(&[Kind::MessageNotFound]),
    ]
}

async fn pull(call: Call) -> Answer {
    let values = &call.values;
    let mut limit = call.limit();
    let mut wait_ms = 0;
    let query = if let Some(position) = values.int("position") {
        limit = values.int("size").and_then(|size| usize::try_from(size).ok()).unwrap_or(limit);
        // "From the start" is 1 to people who count from 0 as well.
        HistoryQuery::Position(if position == 0 { 1 } else { position })
    } else if let Some(around) = values.seq("around") {
        HistoryQuery::Around(around)
    } else if let Some(before) = values.seq("before") {
        HistoryQuery::Before(before)
    } else {
        wait_ms = values.int("wait_ms").map_or(0, i64::unsigned_abs);
        HistoryQuery::After(values.seq("last_seq_id").unwrap_or(SeqId::ZERO))
    };
    let page = wait(&call, query, limit, wait_ms).await?;
    let next = page.next.map(|next| match query {
        HistoryQuery::Position(_) | HistoryQuery::BackFrom(_) => NextOut::Position(next),
        HistoryQuery::Before(_) => NextOut::Before(next.unsigned_abs()),
        HistoryQuery::After(_) | HistoryQuery::Around(_) => NextOut::LastSeqId(next.unsigned_abs()),
    });
    answer(
        200,
        &EntryPageOut {
            feed_id: page.feed.as_str(),
            head_seq_id: page.head.0,
            first_seq_id: page.first.0,
            entries: page.entries.iter().map(EntryOut::new).collect(),
            gone: page.gone.iter().map(GoneOut::from).collect(),
            next,
        },
    )
}

/// A long-poll ends with what there is when the server drains.
async fn wait(
    call: &Call,
    query: HistoryQuery,
    limit: usize,
    wait_ms: u64,
) -> Result<feedlog_service::views::Page, feedlog_service::ReadError> {
    let feed = call.feed();
    if wait_ms == 0 {
        return call.gate().history(&feed, query, limit, 0).await;
    }
    let mut draining = call.app.draining.clone();
    tokio::select! {
        page = call.gate().history(&feed, query, limit, wait_ms) => page,
        () = drained(&mut draining) => call.gate().history(&feed, query, limit, 0).await,
    }
}

async fn one(call: Call) -> Answer {
    let view = call.gate().entry(&call.feed(), call.seq()).await?;
    answer(200, &EntryOut::new(&view))
}
