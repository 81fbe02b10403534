//! Every key of the configuration: section, name with its unit, type, default and meaning. Everything else — reading,
//! checking, the environment, `config show`, the example file — follows from this list.

#![allow(rustdoc::bare_urls)] // these texts are the comments of the example file as well

use std::net::SocketAddr;
use std::path::PathBuf;

use super::value::{Engine, HmacAlgorithm, Impush, KeyAlgorithm, LogFormat, Secret, Value};

/// What the machinery knows of one key.
pub(super) struct Key {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    pub(super) doc: &'static [&'static str],
    pub(super) expected: &'static str,
    /// An example for a key without a default.
    pub(super) example: Option<&'static str>,
    pub(super) set_toml: fn(&mut Config, &toml::Value) -> bool,
    pub(super) set_text: fn(&mut Config, &str) -> bool,
    pub(super) show: fn(&Config) -> Option<String>,
}

macro_rules! keys {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $type:ident {$(
            $(#[doc = $doc:literal])+
            $(#[example = $example:literal])?
            $name:ident: $value:ty = $default:expr;
        )+}
    )+) => {
        /// The whole configuration, checked for types. Times in milliseconds, sizes in bytes.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct Config {
            $($(#[doc = $section_doc])+ pub $section: $type,)+
        }

        $(
            $(#[doc = $section_doc])+
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $type {
                $($(#[doc = $doc])+ pub $name: $value,)+
            }

            impl Default for $type {
                fn default() -> Self {
                    Self { $($name: $default,)+ }
                }
            }
        )+

        /// Sections with what they are about, in the order of the example file.
        pub(super) const SECTIONS: &[(&str, &[&str])] = &[
            $((stringify!($section), &[$($section_doc),+]),)+
        ];

        /// All keys, by section.
        pub(super) const KEYS: &[Key] = &[
            $($(Key {
                section: stringify!($section),
                name: stringify!($name),
                doc: &[$($doc),+],
                expected: <$value as Value>::EXPECTED,
                example: keys!(@example $($example)?),
                set_toml: |config, value| {
                    <$value as Value>::from_toml(value).map(|value| config.$section.$name = value).is_some()
                },
                set_text: |config, text| {
                    <$value as Value>::from_text(text).map(|value| config.$section.$name = value).is_some()
                },
                show: |config| config.$section.$name.to_toml(),
            },)+)+
        ];
    };
    (@example) => { None };
    (@example $example:literal) => { Some($example) };
}

keys! {
    /// Where the data lives.
    storage: Storage {
        /// The data directory; created when missing.
        data_dir: PathBuf = PathBuf::from("feedlog-data");
        /// The engine: "rocksdb" (default) or "sled" (pure Rust, slower). A data directory keeps the engine it was made with.
        engine: Engine = Engine::Rocksdb;
        /// Writes are refused below this much free space on the data directory's file system, in bytes.
        free_min_bytes: u64 = 64 << 20;
        /// Memory of the engine's block cache, in bytes.
        cache_bytes: u64 = 32 << 20;
        /// Where `feedlog backup NAME` and POST /v1/admin/backup make their backups. Unset: the data directory's name
        /// with "-backups" behind it.
        #[example = "\"/var/backups/feedlog\""]
        backup_dir: Option<PathBuf> = None;
        /// Start although the newest acknowledged commits are missing after a damaged tail. Logged loudly. For emergencies.
        accept_loss: bool = false;
    }

    /// The HTTP front end: REST, SSE, WebSocket.
    http: Http {
        /// Where to listen. Any address but loopback needs `auth` and TLS (or `plain_text`).
        addr: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7171));
        /// TLS certificate chain, a PEM file; read again when it changes.
        #[example = "\"/etc/feedlog/cert.pem\""]
        tls_cert_file: Option<PathBuf> = None;
        /// TLS private key, a PEM file.
        #[example = "\"/etc/feedlog/key.pem\""]
        tls_key_file: Option<PathBuf> = None;
        /// How often the TLS files are looked at for a change, in milliseconds.
        tls_reload_check_ms: u64 = 10_000;
        /// Allows an address that is not loopback without TLS: tokens and messages then travel in the clear. Set it only
        /// when a proxy in front ends TLS.
        plain_text: bool = false;
        /// Origins that browsers may call from, e.g. ["https://chat.example.org"]; ["*"] allows any; [] switches CORS off.
        cors_origins: Vec<String> = Vec::new();
        /// Compresses pulls (gzip, zstd) for clients that ask for it.
        compression: bool = true;
        /// Serves /docs and /openapi.json.
        docs: bool = true;
        /// Time for the TLS handshake, in milliseconds.
        tls_handshake_max_ms: u64 = 10_000;
        /// Time for a request's header to arrive, in milliseconds.
        header_read_max_ms: u64 = 10_000;
        /// Time for a request's body to arrive, in milliseconds.
        body_read_max_ms: u64 = 30_000;
        /// A connection without a byte in either direction is closed after this, in milliseconds.
        idle_max_ms: u64 = 120_000;
        /// Time for one answer, long-polls' own `wait_ms` and streams apart, in milliseconds.
        answer_max_ms: u64 = 60_000;
        /// Largest header of a request, in bytes; at least 8192.
        header_max_bytes: u64 = 64 << 10;
        /// Largest body of a batch send, in bytes.
        batch_max_bytes: u64 = 16 << 20;
        /// Open connections.
        connections_max: u64 = 16_384;
        /// Open connections from one address.
        connections_per_address_max: u64 = 4_096;
        /// Concurrent requests on one HTTP/2 connection.
        h2_streams_max: u64 = 128;
        /// Between keep-alives of SSE and WebSocket streams, in milliseconds.
        keep_alive_ms: u64 = 15_000;
        /// A stream whose client takes no bytes is closed after this, in milliseconds.
        stalled_reader_max_ms: u64 = 30_000;
        /// Between pings of gotapi-ws and CONNMIX connections, in milliseconds.
        websocket_ping_ms: u64 = 25_000;
        /// A WebSocket without a frame from its client is closed after this, in milliseconds.
        websocket_idle_max_ms: u64 = 60_000;
        /// Feeds that one stream or WebSocket may name.
        stream_feeds_max: u64 = 1_000;
        /// Commands of one WebSocket whose answer is outstanding.
        websocket_in_flight_max: u64 = 64;
    }

    /// MQTT 3.1, 3.1.1 and 5. The HTTP port takes MQTT over WebSocket as well, at any path with the subprotocol `mqtt`.
    mqtt: Mqtt {
        /// Where MQTT listens, e.g. "127.0.0.1:1883". Without it MQTT is spoken over WebSocket only.
        #[example = "\"127.0.0.1:1883\""]
        addr: Option<SocketAddr> = None;
        /// Where MQTT over TLS listens, with the certificate of HTTP.
        #[example = "\"0.0.0.0:8883\""]
        tls_addr: Option<SocketAddr> = None;
        /// PEM file with the authorities whose client certificates are accepted; the common name is the user.
        #[example = "\"/etc/feedlog/clients.pem\""]
        client_ca_file: Option<PathBuf> = None;
        /// Topics such as a/b/c are open feeds, so that any MQTT client finds a broker. `--dev` switches it on.
        free_topics: bool = false;
        /// Who may publish and subscribe to which free topics, in the form of mosquitto's acl_file.
        #[example = "\"/etc/feedlog/mqtt.acl\""]
        acl_file: Option<PathBuf> = None;
        /// A client without a user name takes over the session of another such client with its client id. false for
        /// mqant's demo pages, which all use one.
        anonymous_takeover: bool = true;
        /// Who gets impush:// pushes without having published to a URI: "auto" (MQTT 3.1 with a user), "always", "on_use".
        impush: Impush = Impush::Auto;
        /// Hosts that http: and https: topics are sent on to, "host" or "host:port"; [] switches it off.
        proxy_hosts: Vec<String> = Vec::new();
        /// Time for CONNECT to arrive, in milliseconds.
        connect_max_ms: u64 = 10_000;
        /// Open connections.
        connections_max: u64 = 65_536;
        /// Open connections from one address.
        connections_per_address_max: u64 = 16_384;
        /// New connections from one address per second, ten times as many at once; 0 = any number.
        connections_per_address_per_second: u64 = 0;
        /// Levels of a topic name or filter.
        topic_levels_max: u64 = 32;
        /// QoS 1 and 2 messages of one client that are not acknowledged yet (Receive Maximum).
        receive_maximum: u64 = 64;
        /// QoS 1 and 2 messages to one client that it has not acknowledged.
        in_flight_max: u64 = 64;
        /// Subscriptions of one session.
        subscriptions_max: u64 = 1_000;
        /// Sessions of one user that outlive their connections; clients without a user count as one.
        sessions_per_user_max: u64 = 10_000;
        /// Topic aliases that a client may set.
        topic_alias_max: u64 = 16;
        /// How long a session may outlive its connection, in milliseconds.
        session_expiry_max_ms: u64 = 90 * 24 * 3_600_000;
        /// Bytes ready for one client beyond which it is read from the log for later.
        out_max_bytes: u64 = 64 << 10;
        /// A client that takes no bytes is closed after this, in milliseconds.
        stalled_reader_max_ms: u64 = 30_000;
        /// How often the place of a persistent session is written when it moved, in milliseconds.
        checkpoint_ms: u64 = 1_000;
    }

    /// gotapi-ws: WebSocket rooms with history and recall. Every path of the HTTP port that is no route of its own is a room;
    /// callers without a token come in where auth.anonymous lets them.
    gws: Gws {
        /// Switches rooms on.
        enabled: bool = true;
        /// Where rooms listen besides the HTTP port, e.g. "127.0.0.1:8080"; there every path but the reserved ones is a room.
        #[example = "\"127.0.0.1:8080\""]
        addr: Option<SocketAddr> = None;
        /// Raw frames, those that are no packets, are kept in the log of their room. false hands them on and forgets them.
        store_raw: bool = true;
        /// A packet that comes again with its uuid is acknowledged and not stored again. false for strict gotapi-ws.
        dedup: bool = true;
        /// How long a packet may be cancelled by whoever names its uuid, in milliseconds; 0 = at any time.
        cancel_window_ms: u64 = 0;
        /// Tells a cancel as a data packet with eventType 7 too, for applications that know that.
        rollback_packets: bool = false;
        /// Rooms that send a frame back to the connection it came from; "*" at the end stands for any rest.
        echo_rooms: Vec<String> = Vec::new();
        /// Rooms that have a connection.
        rooms_max: u64 = 100_000;
        /// Acknowledged messages of one connection that have not come round to it; then it is not read.
        unseen_max: u64 = 1_024;
        /// Messages of a history that are read at once.
        history_page_max: u64 = 200;
        /// Rooms whose messages are to end at a time (POST /__/ttl).
        ttl_rooms_max: u64 = 10_000;
        /// How often it is looked whether such a time has come, in milliseconds.
        ttl_check_ms: u64 = 1_000;
        /// Parameters in the body of a request to /__/…, in bytes.
        form_max_bytes: u64 = 64 << 10;
    }

    /// The CONNMIX message center: clients at `path`, back ends at /v1/mesh/publish, /v1/mesh/send and /ws/v1.
    connmix: Connmix {
        /// Whether it is served on the HTTP port. Clients need a token or a webhook, back ends a token with the scope send_as
        /// or a place on the access list.
        enabled: bool = true;
        /// Where clients connect on the HTTP port.
        path: String = "/message-center".to_owned();
        /// A listener of its own for clients, at any path.
        #[example = "\"127.0.0.1:6790\""]
        client_addr: Option<SocketAddr> = None;
        /// A listener of its own for back ends. On loopback it needs no credential while there is no access list, unless the
        /// request came by a proxy.
        #[example = "\"127.0.0.1:6789\""]
        api_addr: Option<SocketAddr> = None;
        /// A listener of its own for the center, which tells connmix-php where the API is.
        #[example = "\"127.0.0.1:6787\""]
        center_addr: Option<SocketAddr> = None;
        /// A webhook that says whose a client's token is: POST {"token":"..."} is answered by {"uid":1001}. feedlog's own
        /// tokens are tried first. Whoever answers there is trusted to name any user but admin, so it must not give people the
        /// names of services. Masked by `config show`, because it may hold a key.
        #[example = "\"https://shop.example.org/websocket_auth\""]
        auth_url: Option<Secret> = None;
        /// The webhook is asked with a form (token=...) instead of JSON.
        auth_form: bool = false;
        /// Hosts that the webhook may be on, "host" or "host:port"; private and loopback addresses need the port.
        auth_hosts: Vec<String> = Vec::new();
        /// For one answer of the webhook, in milliseconds.
        auth_max_ms: u64 = 5_000;
        /// Questions to the webhook under way.
        auth_calls_max: u64 = 64;
        /// For how long an answer of the webhook holds for the same token, in milliseconds; 0 asks each time.
        auth_cache_ms: u64 = 30_000;
        /// Answers of the webhook that are kept.
        auth_cached_max: u64 = 10_000;
        /// Back ends that may call by HTTP Basic: "name:secret:roles:mask". Roles: read, write or read+write; a mask is "*",
        /// an address, 10.0.0.0/8 or 172.*.*.*.
        access: Vec<Secret> = Vec::new();
        /// More of them, one a line.
        #[example = "\"/etc/feedlog/connmix.access\""]
        access_file: Option<PathBuf> = None;
        /// Frames of clients with an unknown op go to this topic, for workers to pop (queue.pop); users cannot read it. Unset:
        /// Invalid Op.
        #[example = "\"frames\""]
        client_topic: Option<String> = None;
        /// Types whose channel "@type" is the user's own, kept in the personal feed.
        private_types: Vec<String> =
            ["balance", "order", "position", "account"].map(str::to_owned).to_vec();
        /// Types whose channel is called "<id>@<type>" inside as well; all others are "<type>:<id>".
        public_types: Vec<String> =
            ["depth", "trades", "markprice", "ticker", "kline"].map(str::to_owned).to_vec();
        /// Channels of one connection.
        channels_max: u64 = 1_000;
        /// Context that back ends may set for one connection, in bytes of JSON.
        context_max_bytes: u64 = 16 << 10;
        /// Topics that workers may pop from.
        topics_max: u64 = 100;
        /// For a connection to do what a back end asks of it (conn.call), in milliseconds.
        call_max_ms: u64 = 5_000;
    }

    /// The push outbox: tells other servers of what members without a connection have missed.
    outbox: Outbox {
        /// The endpoints, a TOML file of its own: docs/OUTBOX.md. Without it nobody is told.
        #[example = "\"/etc/feedlog/outbox.toml\""]
        endpoints_file: Option<PathBuf> = None;
        /// Hosts that may be called, "host" or "host:port"; a private address only with its port.
        hosts: Vec<String> = Vec::new();
        /// Time for one call, in milliseconds.
        timeout_ms: u64 = 10_000;
        /// Feeds that one endpoint is told of at a time.
        feeds_at_once_max: u64 = 8;
        /// Commits that one window looks through.
        window_commits_max: u64 = 256;
        /// Entries that one call is about.
        call_entries_max: u64 = 100;
        /// Payload bytes of one call; further payloads are left out.
        call_max_bytes: u64 = 1 << 20;
        /// Members that one call is for.
        call_members_max: u64 = 500;
        /// Calls of one endpoint that may be given up; then it stands still instead of losing one.
        dead_max: u64 = 1_000;
    }

    /// Who may come in. Static tokens are made with `feedlog token create`; JWT is on when a key is given.
    auth: Auth {
        /// The first administrator's token. Without it one is created and printed once, when the store is new.
        #[example = "\"at least 16 characters, better 32 random bytes\""]
        admin_token: Option<Secret> = None;
        /// Secret of JWTs signed with HS256, HS384 or HS512, a file; its bytes are the key.
        #[example = "\"/etc/feedlog/jwt.secret\""]
        jwt_hmac_file: Option<PathBuf> = None;
        /// Algorithm of that secret: "HS256", "HS384" or "HS512". A token's own `alg` decides nothing.
        jwt_hmac_algorithm: HmacAlgorithm = HmacAlgorithm::Hs256;
        /// Public key of JWTs signed with RS256, ES256 or EdDSA, a PEM file.
        #[example = "\"/etc/feedlog/jwt.pem\""]
        jwt_public_key_file: Option<PathBuf> = None;
        /// Algorithm of that key: "RS256", "ES256" or "EdDSA".
        jwt_public_key_algorithm: KeyAlgorithm = KeyAlgorithm::Rs256;
        /// Keys as a JWKS file; read again when it changes.
        #[example = "\"/etc/feedlog/jwks.json\""]
        jwt_jwks_file: Option<PathBuf> = None;
        /// The `aud` a JWT must carry (one of these); [] accepts only tokens without `aud`.
        jwt_audience: Vec<String> = Vec::new();
        /// The `iss` a JWT must carry (one of these); [] accepts any.
        jwt_issuer: Vec<String> = Vec::new();
        /// Leeway for `exp` and `nbf`, in milliseconds.
        jwt_leeway_ms: u64 = 30_000;
        /// Callers without a token may use open feeds (as `anon:…`).
        anonymous: bool = false;
    }

    /// Bounds for callers. 0 switches a rate limit off.
    limits: Limits {
        /// Largest payload of a message, in bytes; at most 16 MiB.
        payload_max_bytes: u64 = 1 << 20;
        /// How long a sender may recall or edit, in milliseconds.
        recall_window_ms: u64 = 120_000;
        /// Requests per second of one principal.
        requests_per_principal_per_second: u64 = 0;
        /// Requests of one principal that may come at once; 0 = as many as per second.
        requests_per_principal_burst: u64 = 0;
        /// Requests per second from one address.
        requests_per_address_per_second: u64 = 0;
        /// Requests of one address that may come at once; 0 = as many as per second.
        requests_per_address_burst: u64 = 0;
        /// Wrong tokens from one address per minute, after which it waits.
        auth_failures_per_address_per_minute: u64 = 600;
    }

    /// The machinery between front ends and storage.
    service: Service {
        /// Shards that decide in parallel; 0 = one per core.
        shards: u64 = 0;
        /// Commands waiting per shard before senders are told to come back.
        mailbox_max: u64 = 4_096;
    }

    /// Log lines, on standard error.
    log: Log {
        /// "pretty" or "json".
        format: LogFormat = LogFormat::Pretty;
        /// What is logged, as tracing's filter: "info", "warn,feedlog=debug" … RUST_LOG overrides it.
        filter: String = "info".to_owned();
    }

    /// Traces for a collector.
    telemetry: Telemetry {
        /// OTLP over HTTP, e.g. "http://127.0.0.1:4318/v1/traces". Needs a binary built with the feature `otlp`.
        #[example = "\"http://127.0.0.1:4318/v1/traces\""]
        otlp_endpoint: Option<String> = None;
    }

    /// Stopping.
    shutdown: Shutdown {
        /// After SIGTERM or SIGINT running work may take this long, in milliseconds. A second signal exits at once.
        drain_ms: u64 = 10_000;
    }
}
