//! The history of a room, newest first, sent as it is read: a page in memory at a time, however much is asked for.

use axum::body::Body;
use bytes::Bytes;
use feedlog_core::ids::{FeedId, Ordinal};
use feedlog_service::views::{HistoryQuery, Page};
use feedlog_service::{Gate, ReadError};
use futures_util::{StreamExt as _, stream};

use super::packet::quoted;
use super::positions;
use super::talk::packet_of;
use crate::errors::ApiError;

/// Where the reading is.
struct Reading {
    gate: Gate,
    room: FeedId,
    page_max: usize,
    /// The next message to read, `None` at the end.
    next: Option<Ordinal>,
    /// The last one.
    oldest: Ordinal,
    /// Something was written already.
    begun: bool,
}

impl Reading {
    /// The next packets, each as a JSON string with what separates it from the one before.
    async fn step(&mut self) -> Result<Option<String>, ReadError> {
        let Some(next) = self.next else { return Ok(None) };
        let left = (next.0 + 1).saturating_sub(self.oldest.0);
        let limit = usize::try_from(left).unwrap_or(usize::MAX).clamp(1, self.page_max);
        let page = self.gate.history(&self.room, HistoryQuery::BackFrom(next), limit, 0).await?;
        let below = page.next.and_then(|next| u64::try_from(next).ok()).map(Ordinal);
        self.next = below.filter(|below| *below >= self.oldest);
        Ok(Some(self.write(&page)))
    }

    fn write(&mut self, page: &Page) -> String {
        let mut out = String::new();
        for view in page.entries.iter().filter(|view| view.entry.ordinal >= self.oldest) {
            // Recalled after the range was taken: it is left out, and the page is shorter.
            let Some(packet) = packet_of(view) else { continue };
            let Ok(packet) = std::str::from_utf8(&packet) else { continue };
            if std::mem::replace(&mut self.begun, true) {
                out.push(',');
            }
            out.push_str(&quoted(packet));
        }
        out
    }
}

/// The answer to a pull [gws: history]: `position` and `size` as the caller asked.
pub(super) async fn answer(
    gate: Gate,
    room: Option<FeedId>,
    position: i64,
    size: i64,
    page_max: usize,
) -> Result<Body, ApiError> {
    let head = format!("{{\"code\":200,\"position\":{position},\"msg\":\"\",\"data\":[");
    let tail = "]}";
    let Some(room) = room else { return Ok(Body::from(head + tail)) };
    // How many there are now: what comes later changes no position of this answer.
    let newest = gate.history(&room, HistoryQuery::BackFrom(Ordinal(u64::MAX)), 1, 0).await?;
    let Some((first, oldest)) = positions::page(position, size, newest.head_ordinal.0) else {
        return Ok(Body::from(head + tail));
    };
    let page_max = page_max.clamp(1, feedlog_core::limits::PAGE_ENTRIES_MAX);
    let mut reading = Reading { gate, room, page_max, next: Some(first), oldest, begun: false };
    // The first page is read before anything is said: what fails there has a status of its own.
    let begin = head + &reading.step().await?.unwrap_or_default();
    if reading.next.is_none() {
        return Ok(Body::from(begin + tail));
    }
    let pages = stream::unfold(reading, async |mut reading| match reading.step().await {
        Ok(None) => None,
        Ok(Some(text)) => Some((Ok(Bytes::from(text)), reading)),
        Err(error) => {
            // Cut short, so that nobody takes a part for the whole.
            reading.next = None;
            Some((Err(std::io::Error::other(error.to_string())), reading))
        }
    });
    let whole = stream::iter([Ok(Bytes::from(begin))])
        .chain(pages)
        .chain(stream::iter([Ok(Bytes::from_static(tail.as_bytes()))]));
    Ok(Body::from_stream(whole))
}
