//! Every setting of the gotapi-ws front end, with its default.

use crate::gws::rooms::is_room_name;

/// Settings of the gotapi-ws front end. Milliseconds or counts, as each name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GwsConfig {
    /// Whether raw frames are entries of the room's log (events Broadcast). When not, they are handed to the connections
    /// that the room has in this process, and whoever is slow misses them. Default true.
    pub store_raw: bool,
    /// Whether a packet that comes again is known by its uuid. Without it a client's retry is a second message, as with the
    /// original. Default true.
    pub dedup: bool,
    /// Rooms that send a frame back to the connection it came from; `*` at the end stands for any rest. Default none.
    pub echo_rooms: Vec<String>,
    /// Whether a recall is also told as a data packet with `eventType` 7, for applications that know that. Default false.
    pub rollback_packets: bool,
    /// Rooms that have a connection. Default 100,000.
    pub rooms_max: usize,
    /// Own messages of one connection that were acknowledged and have not come round to it yet; then it is not read.
    /// Default 1,024.
    pub unseen_max: usize,
    /// Messages of a history that are read at once. Default 200; at most 1,000.
    pub history_page_max: usize,
    /// Rooms whose messages are to end at a time. Default 10,000.
    pub ttl_rooms_max: usize,
    /// How often it is looked whether one of those times has come. Default 1,000.
    pub ttl_check_ms: u64,
    /// Parameters in the body of a request to one of the services. Default 64 KiB.
    pub form_bytes_max: usize,
}

impl Default for GwsConfig {
    fn default() -> Self {
        Self {
            store_raw: true,
            dedup: true,
            echo_rooms: Vec::new(),
            rollback_packets: false,
            rooms_max: 100_000,
            unseen_max: 1_024,
            history_page_max: 200,
            ttl_rooms_max: 10_000,
            ttl_check_ms: 1_000,
            form_bytes_max: 64 * 1024,
        }
    }
}

/// Why the front end did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GwsError {
    /// Rooms are paths.
    #[error("gws.echo_rooms: {name:?} is no room: it must begin with / and have at most 255 bytes")]
    EchoRoom {
        /// What was configured.
        name: String,
    },
}

impl GwsConfig {
    /// Whether a front end can be made with it.
    ///
    /// # Errors
    /// When it names something that is no room.
    pub fn check(&self) -> Result<(), GwsError> {
        match self.echo_rooms.iter().find(|name| !is_room_name(name.strip_suffix('*').unwrap_or(name))) {
            Some(name) => Err(GwsError::EchoRoom { name: name.clone() }),
            None => Ok(()),
        }
    }

    /// Whether this room sends frames back to where they came from.
    pub(super) fn echoes(&self, room: &str) -> bool {
        self.echo_rooms.iter().any(|name| match name.strip_suffix('*') {
            Some(prefix) => room.starts_with(prefix),
            None => room == name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_that_echo_are_named_or_begin_alike() {
        let rooms = ["/echo", "/auto/*"].map(str::to_owned).to_vec();
        let config = GwsConfig { echo_rooms: rooms, ..GwsConfig::default() };
        assert_eq!(config.check(), Ok(()));
        for (room, echoes) in [
            ("/echo", true),
            ("/echo/", false),
            ("/echo2", false),
            ("/auto/", true),
            ("/auto/1/2", true),
            ("/auto", false),
        ] {
            assert_eq!(config.echoes(room), echoes, "{room}");
        }
        for bad in ["echo", "*", ""] {
            let config = GwsConfig { echo_rooms: vec![bad.to_owned()], ..GwsConfig::default() };
            assert_eq!(config.check(), Err(GwsError::EchoRoom { name: bad.to_owned() }));
        }
        let all = GwsConfig { echo_rooms: vec!["/*".to_owned()], ..GwsConfig::default() };
        assert!(all.check().is_ok() && all.echoes("/"));
    }
}
