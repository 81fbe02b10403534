//! gotapi-ws: WebSocket rooms with history and recall.
//!
//! A room is an open feed whose name is a path. A frame is a packet, which is stored, acknowledged and handed on byte for byte,
//! or anything else, which is handed on (`packet.rs`). `talk.rs` is a connection, `http.rs` the requests, `history.rs` and
//! `positions.rs` the pull, `rooms.rs` who is connected now, `ttl.rs` rooms whose messages are to end.

mod config;
mod history;
mod http;
mod packet;
mod params;
mod positions;
mod rooms;
mod talk;
#[cfg(test)]
mod tests;
mod timer;
mod ttl;

use std::sync::Arc;
use std::time::Duration;

use feedlog_core::command::Principal;
use feedlog_service::Store;

pub use config::{GwsConfig, GwsError};
pub(crate) use http::{answer, is_room};
#[doc(hidden)]
pub use packet::fuzz;
use rooms::Rooms;
use ttl::Schedule;

/// The gotapi-ws front end. Cheap to clone.
#[derive(Clone)]
pub struct Gws(Arc<Inner>);

struct Inner {
    config: GwsConfig,
    store: Store,
    rooms: Arc<Rooms>,
    schedule: Schedule,
}

impl Gws {
    /// A front end over a store.
    ///
    /// # Errors
    /// When the configuration names something that is no room.
    pub fn new(config: GwsConfig, store: Store) -> Result<Self, GwsError> {
        config.check()?;
        let rooms = Arc::new(Rooms::new(config.rooms_max));
        let schedule = Schedule::new(&store, config.ttl_rooms_max);
        Ok(Self(Arc::new(Inner { config, store, rooms, schedule })))
    }

    /// What is done beside all connections, for ever: rooms whose time has come lose their messages.
    pub(crate) async fn keep(self) {
        let pause = Duration::from_millis(self.0.config.ttl_check_ms.max(1));
        while let Err(error) = self.0.schedule.load().await {
            tracing::warn!(front_end = "gws", error = error.message, "times of rooms are not known yet");
            tokio::time::sleep(pause).await;
        }
        loop {
            self.0.schedule.run(&self.0.store).await;
            tokio::time::sleep(pause).await;
        }
    }

    fn config(&self) -> &GwsConfig {
        &self.0.config
    }

    fn rooms(&self) -> &Arc<Rooms> {
        &self.0.rooms
    }

    fn schedule(&self) -> &Schedule {
        &self.0.schedule
    }

    /// Whether the principal may write to rooms. The store says so for all that is stored; this is for frames that are not.
    fn may_write(&self, principal: &Principal) -> bool {
        let scopes = principal.scopes;
        // INVARIANT: authentication makes anonymous principals only where open feeds are theirs.
        principal.anonymous || scopes.user || scopes.send_as || scopes.admin
    }
}
