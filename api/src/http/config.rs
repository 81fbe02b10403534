//! Every setting of the HTTP front end, with its unit and its default.

use std::path::PathBuf;

/// Settings of the HTTP front end. Bytes, milliseconds or counts, as each name says.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpConfig {
    /// Certificate and key; plain HTTP when absent.
    pub tls: Option<TlsConfig>,
    /// From accepting a connection to the end of the TLS handshake. Default 10,000.
    pub tls_handshake_ms_max: u64,
    /// From the first byte of a request (or from accepting) to the end of its header. Default 10,000.
    pub header_read_ms_max: u64,
    /// From the end of the header to the end of the body. Default 30,000.
    pub body_read_ms_max: u64,
    /// Without a byte in either direction and without a request that is being answered, after which a connection is
    /// closed; streams send keep-alives more often than this. Default 120,000.
    pub idle_ms_max: u64,
    /// For the answer of one request, not counting long-polls' own `wait_ms`, streams and WebSockets. Default 60,000.
    pub answer_ms_max: u64,
    /// Header of one request, request line included; holds the cursor of a multi-feed stream. Default 65,536; at least
    /// 8,192.
    pub header_bytes_max: usize,
    /// Open connections. Default 16,384.
    pub connections_max: usize,
    /// Open connections from one address. Default 4,096.
    pub connections_per_address_max: usize,
    /// Concurrent requests on one HTTP/2 connection. Default 128.
    pub h2_streams_max: u32,
    /// Payload of one message; must be the limit the store was opened with. Default 1 MiB.
    pub payload_bytes_max: usize,
    /// Body of a batch send. Default 16 MiB.
    pub batch_bytes_max: usize,
    /// Origins that browsers may call from; empty = CORS off; `*` = any. Default empty.
    pub cors_origins: Vec<String>,
    /// Whether pulls are compressed (gzip, zstd) for clients that ask for it. Default true.
    pub compression: bool,
    /// Wrong credentials from one address per minute, after which further wrong ones are answered with 429; 0 = no
    /// limit. Default 600.
    pub auth_failures_per_address_per_minute: u32,
    /// Directory below which `POST /v1/admin/backup` makes its backups; without it administrators name any absolute
    /// path. Default none.
    pub backup_dir: Option<PathBuf>,
    /// Between keep-alive comments of SSE and pings of `/v1/ws`. Default 15,000.
    pub keep_alive_ms: u64,
    /// How long a stream's client may take no bytes before it is closed. Default 30,000.
    pub stalled_reader_ms_max: u64,
    /// Between pings of gotapi-ws and CONNMIX connections. Default 25,000.
    pub websocket_ping_ms: u64,
    /// Without a frame (pong included) from a WebSocket client, after which it is closed. Default 60,000.
    pub websocket_idle_ms_max: u64,
    /// Feeds one stream or WebSocket may name. Default 1,000.
    pub stream_feeds_max: usize,
    /// Commands of one WebSocket whose answer is outstanding. Default 64.
    pub websocket_in_flight_max: usize,
    /// How long running requests may take to finish when the server drains. Default 10,000.
    pub drain_ms_max: u64,
    /// Whether `/docs` and `/openapi.json` are served. Default true.
    pub docs: bool,
}

/// TLS by certificate files, read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM file: the certificate, then the rest of its chain.
    pub certificate: PathBuf,
    /// PEM file: the private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
    /// How often the files are looked at for a change. Default 10,000; a change that does not load is logged and the
    /// old certificate stays.
    pub reload_check_ms: u64,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            tls: None,
            tls_handshake_ms_max: 10_000,
            header_read_ms_max: 10_000,
            body_read_ms_max: 30_000,
            idle_ms_max: 120_000,
            answer_ms_max: 60_000,
            header_bytes_max: 64 * 1024,
            connections_max: 16_384,
            connections_per_address_max: 4_096,
            h2_streams_max: 128,
            payload_bytes_max: feedlog_core::limits::PAYLOAD_BYTES_DEFAULT,
            batch_bytes_max: 16 << 20,
            cors_origins: Vec::new(),
            compression: true,
            auth_failures_per_address_per_minute: 600,
            backup_dir: None,
            keep_alive_ms: 15_000,
            stalled_reader_ms_max: 30_000,
            websocket_ping_ms: 25_000,
            websocket_idle_ms_max: 60_000,
            stream_feeds_max: 1_000,
            websocket_in_flight_max: 64,
            drain_ms_max: 10_000,
            docs: true,
        }
    }
}

impl TlsConfig {
    /// These files, with the default of everything else.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { certificate: certificate.into(), key: key.into(), reload_check_ms: 10_000 }
    }
}
