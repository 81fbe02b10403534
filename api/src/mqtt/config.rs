//! Every setting of the MQTT front end, with its unit and its default.

use std::path::PathBuf;

use crate::http::TlsConfig;

/// Settings of the MQTT front end. Bytes, milliseconds, seconds or counts, as each name says.
#[derive(Debug, Clone, PartialEq)]
pub struct MqttConfig {
    /// Certificate and key of the TLS listeners; without them there are none.
    pub tls: Option<TlsConfig>,
    /// PEM file with the authorities whose client certificates are accepted: then the common name is the user and no
    /// password is needed. Default none.
    pub client_ca: Option<PathBuf>,
    /// From accepting a connection to the end of the TLS handshake. Default 10,000.
    pub tls_handshake_ms_max: u64,
    /// From accepting a connection to the last byte of CONNECT. Default 10,000.
    pub connect_ms_max: u64,
    /// Open connections. Default 65,536.
    pub connections_max: usize,
    /// Open connections from one address. Default 16,384.
    pub connections_per_address_max: usize,
    /// New connections per second from one address, with a burst of ten times as many; 0 = no limit. Default 0.
    pub connections_per_address_per_second: u32,
    /// Wrong credentials from one address per minute, after which further ones are refused unread; 0 = no limit.
    /// Default 600.
    pub auth_failures_per_address_per_minute: u32,
    /// Largest packet, fixed header included. Default: a payload of the largest size with 128 KiB of everything else.
    pub packet_bytes_max: usize,
    /// Largest packet before CONNECT was accepted. Default 66,560.
    pub connect_bytes_max: usize,
    /// Levels of a topic name or filter. Default 32.
    pub topic_levels_max: usize,
    /// QoS 1 and 2 messages of one client that are not acknowledged yet (Receive Maximum). Default 64.
    pub receive_maximum: u16,
    /// Bytes of payload of one client that wait for the disk. Default 4 MiB; a single larger message still passes.
    pub pending_bytes_max: usize,
    /// QoS 1 and 2 messages to one client that it has not acknowledged; its own Receive Maximum may be lower.
    /// Default 64.
    pub in_flight_max: u16,
    /// Subscriptions of one session. Default 1,000.
    pub subscriptions_max: usize,
    /// Sessions of one user that outlive their connections; clients without a user count as one. Default 10,000.
    pub sessions_per_user_max: usize,
    /// Topic aliases a client may set. Default 16.
    pub topic_alias_max: u16,
    /// Longest time that a session outlives its connection, in seconds. Default 90 days.
    pub session_expiry_s_max: u32,
    /// Bytes ready for one client, beyond which nothing more is taken from the log for it. Default 64 KiB.
    pub out_bytes_max: usize,
    /// A client that takes no bytes for so long is closed. Default 30,000.
    pub stalled_reader_ms_max: u64,
    /// How often the place of a persistent session is written when it moved. Default 1,000.
    pub checkpoint_ms: u64,
    /// How often a connection's credential is looked at again. Default 30,000.
    pub recheck_ms: u64,
    /// Whether topics that are no feed of their own kind are open feeds. Default false.
    pub free_topics: bool,
    /// Who may publish and subscribe to free topics; without it everybody who may use open feeds. Default none.
    pub acl_file: Option<PathBuf>,
    /// Whether a client without a user name takes over the session of another such client with its client id. mqant's
    /// demo pages all use one id: switch it off for them. Default true.
    pub anonymous_takeover: bool,
    /// Who gets `impush://` pushes without having published to a URI. Default [`Impush::Auto`].
    pub impush: Impush,
    /// Hosts that `http:` and `https:` topics may be sent on to; empty = off. Default empty.
    pub proxy_hosts: Vec<String>,
    /// Payload of one message; must be the limit the store was opened with. Default 1 MiB.
    pub payload_bytes_max: usize,
    /// How long clients may take to be told of the end when the server drains. Default 10,000.
    pub drain_ms_max: u64,
}

/// Who gets `impush://` pushes without having asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Impush {
    /// Connections of MQTT 3.1 that are logged in, and all that have published to a URI.
    Auto,
    /// Every connection that is logged in.
    Always,
    /// Only connections that have published to a URI.
    OnUse,
}

impl Default for MqttConfig {
    fn default() -> Self {
        let payload_bytes_max = feedlog_core::limits::PAYLOAD_BYTES_DEFAULT;
        Self {
            tls: None,
            client_ca: None,
            tls_handshake_ms_max: 10_000,
            connect_ms_max: 10_000,
            connections_max: 65_536,
            connections_per_address_max: 16_384,
            connections_per_address_per_second: 0,
            auth_failures_per_address_per_minute: 600,
            packet_bytes_max: payload_bytes_max + 128 * 1024,
            connect_bytes_max: 65 * 1024,
            topic_levels_max: 32,
            receive_maximum: 64,
            pending_bytes_max: 4 << 20,
            in_flight_max: 64,
            subscriptions_max: 1_000,
            sessions_per_user_max: 10_000,
            topic_alias_max: 16,
            session_expiry_s_max: 90 * 24 * 3600,
            out_bytes_max: 64 * 1024,
            stalled_reader_ms_max: 30_000,
            checkpoint_ms: 1_000,
            recheck_ms: 30_000,
            free_topics: false,
            acl_file: None,
            anonymous_takeover: true,
            impush: Impush::Auto,
            proxy_hosts: Vec::new(),
            payload_bytes_max,
            drain_ms_max: 10_000,
        }
    }
}
