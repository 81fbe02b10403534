//! Every setting and every bound of the message center.

use std::path::PathBuf;

use feedlog_core::limits;
use feedlog_service::auth::Secret;

/// Settings of the message center. Bytes, milliseconds or counts, as each name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnmixConfig {
    /// Development mode: back ends need no credential.
    pub dev: bool,
    /// Where clients connect on the shared port; on a listener of their own, any path will do. Default
    /// `/message-center`.
    pub path: String,
    /// The webhook that says whose a client's token is: `POST {"token":"…"}` is answered by `{"uid":1001}`. feedlog's own
    /// tokens are tried first. Default none.
    pub auth_url: Option<String>,
    /// The webhook is asked with a form (`token=…`) instead of JSON. Default false.
    pub auth_form: bool,
    /// Hosts that the webhook may be on: `host` or `host:port`, the latter also for private and loopback addresses.
    pub auth_hosts: Vec<String>,
    /// For one question to the webhook. Default 5,000.
    pub auth_timeout_ms: u64,
    /// Questions to the webhook under way. Default 64.
    pub auth_calls_max: usize,
    /// Largest answer of the webhook. Default 64 KiB.
    pub auth_answer_bytes_max: usize,
    /// For how long an answer of the webhook holds for other connections with the same token; 0 = for none. Default
    /// 30,000.
    pub auth_cache_ms: u64,
    /// Answers of the webhook that are kept. Default 10,000.
    pub auth_cached_max: usize,
    /// Back ends that may call the API by HTTP Basic: `name:secret:roles:mask`. Roles are `read`, `write` or
    /// `read+write`; a mask is `*`, an address, `10.0.0.0/8` or `172.*.*.*`. Default none.
    pub access: Vec<Secret>,
    /// More of them, one a line, in a file.
    pub access_file: Option<PathBuf>,
    /// The API has a listener of its own that is bound to loopback: whoever reaches it needs no credential while there
    /// is no access list.
    pub api_is_loopback: bool,
    /// Frames of clients with an unknown op go to this topic, for workers to pop; users cannot read it. Default none.
    pub client_topic: Option<String>,
    /// Types whose channel `@type` is the user's own. Default balance, order, position, account.
    pub private_types: Vec<String>,
    /// Types whose channel is named `<id>@<type>` inside as well. Default depth, trades, markprice, ticker, kline.
    pub public_types: Vec<String>,
    /// Port of the API that back ends are told of by `/v1/nodes`; without it, `shared_port` or the one they ask.
    pub api_port: Option<u16>,
    /// Port where the API is when it has none of its own, told on the center's own listener.
    pub shared_port: Option<u16>,
    /// Payload of one message; must be the limit the store was opened with. Default 1 MiB.
    pub payload_bytes_max: usize,
    /// Channels of one connection. Default 1,000.
    pub channels_max: usize,
    /// Context of one connection, as JSON text. Default 16 KiB.
    pub context_bytes_max: usize,
    /// Topics that were popped from and keep their place. Default 100.
    pub topics_max: usize,
    /// A client that asked for places is told of a new one at most this often. Default 50.
    pub cursor_ms: u64,
    /// For a `conn.call` to be done by the connection. Default 5,000.
    pub call_ms_max: u64,
}

impl Default for ConnmixConfig {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            dev: false,
            path: "/message-center".to_owned(),
            auth_url: None,
            auth_form: false,
            auth_hosts: Vec::new(),
            auth_timeout_ms: 5_000,
            auth_calls_max: 64,
            auth_answer_bytes_max: 64 * 1024,
            auth_cache_ms: 30_000,
            auth_cached_max: 10_000,
            access: Vec::new(),
            access_file: None,
            api_is_loopback: false,
            client_topic: None,
            private_types: names(&["balance", "order", "position", "account"]),
            public_types: names(&["depth", "trades", "markprice", "ticker", "kline"]),
            api_port: None,
            shared_port: None,
            payload_bytes_max: limits::PAYLOAD_BYTES_DEFAULT,
            channels_max: 1_000,
            context_bytes_max: 16 * 1024,
            topics_max: 100,
            cursor_ms: 50,
            call_ms_max: 5_000,
        }
    }
}

/// Why the message center did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnmixError {
    /// The path of clients begins with `/` and has nothing but a path.
    #[error("connmix.path {0:?} is not a path")]
    BadPath(String),
    /// The webhook's address.
    #[error("connmix.auth_url is not an http or https URL")]
    BadUrl,
    /// A host of the list, or the webhook's host that is not on it.
    #[error("connmix.auth_hosts: {0}")]
    BadHosts(String),
    /// A rule of the access list; it is not shown, because it holds a secret.
    #[error("connmix.access: rule {number} is not name:secret:roles:mask")]
    BadRule {
        /// Which, from 1.
        number: usize,
    },
    /// The file of the access list.
    #[error("connmix.access_file {path}: {problem}")]
    BadFile {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A topic whose name is empty, too long, or has control characters.
    #[error("connmix.client_topic is not a name of at most 86 bytes")]
    BadTopic,
    /// A type with `@` or a space, or the type `user`.
    #[error("connmix: {0:?} is not a type of channels")]
    BadType(String),
}
