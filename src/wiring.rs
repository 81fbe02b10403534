//! From the configuration to what each crate takes.

use feedlog_api::connmix::ConnmixConfig;
use feedlog_api::gws::GwsConfig;
use feedlog_api::http::{HttpConfig, TlsConfig};
use feedlog_api::mqtt::MqttConfig;
use feedlog_core::command::{Principal, Scopes};
use feedlog_core::ids::Uid;
use feedlog_service::auth::{AuthConfig, AuthError, JwtConfig, JwtKey, NewToken, Rate, Secret};
use feedlog_service::{Store, StoreConfig};
use feedlog_storage::{EngineKind, OpenError, OpenOptions};

use crate::config::{Config, Engine};

/// The uid of the first administrator.
pub(crate) const ADMIN_UID: &str = "admin";

/// Everything: what the first administrator may do.
pub(crate) const ALL_SCOPES: Scopes = Scopes { user: true, send_as: true, audit: true, admin: true };

/// The binary itself, when it maintains the store it has open.
pub(crate) fn owner() -> Principal {
    let uid = Uid::parse(ADMIN_UID).expect("a short word is a uid");
    Principal { uid, scopes: ALL_SCOPES, anonymous: false, via: None }
}

pub(crate) fn engine_kind(engine: Engine) -> EngineKind {
    match engine {
        Engine::Rocksdb => EngineKind::RocksDb,
        Engine::Sled => EngineKind::Sled,
    }
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// INVARIANT: `Config::parse` checked the bounds.
fn count(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// INVARIANT: `Config::parse` checked the bounds.
fn small(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

pub(crate) fn open_options(config: &Config) -> OpenOptions {
    OpenOptions {
        dir: Some(config.storage.data_dir.clone()),
        engine: engine_kind(config.storage.engine),
        cache_bytes: size(config.storage.cache_bytes),
        free_min_bytes: config.storage.free_min_bytes,
        accept_loss: config.storage.accept_loss,
        ..OpenOptions::default()
    }
}

pub(crate) fn open_storage(config: &Config) -> Result<feedlog_storage::Store, OpenError> {
    feedlog_migrations::open(&open_options(config))
}

pub(crate) fn service_config(config: &Config, dev: bool) -> StoreConfig {
    StoreConfig {
        shards: size(config.service.shards),
        mailbox_commands_max: size(config.service.mailbox_max),
        payload_bytes_max: size(config.limits.payload_max_bytes),
        recall_window_ms: config.limits.recall_window_ms,
        shared_recall_window_ms: Some(config.gws.cancel_window_ms).filter(|window_ms| *window_ms > 0),
        auth: auth_config(config, dev),
        ..StoreConfig::default()
    }
}

fn rate(per_second: u64, burst: u64) -> Option<Rate> {
    (per_second > 0).then(|| Rate {
        per_second: count(per_second),
        burst: count(if burst == 0 { per_second } else { burst }),
    })
}

fn auth_config(config: &Config, dev: bool) -> AuthConfig {
    let auth = &config.auth;
    let limits = &config.limits;
    let mut keys = Vec::new();
    if let Some(path) = &auth.jwt_hmac_file {
        keys.push(JwtKey::Secret { path: path.clone(), algorithm: auth.jwt_hmac_algorithm.into() });
    }
    if let Some(path) = &auth.jwt_public_key_file {
        keys.push(JwtKey::Pem { path: path.clone(), algorithm: auth.jwt_public_key_algorithm.into() });
    }
    if let Some(path) = &auth.jwt_jwks_file {
        keys.push(JwtKey::Jwks { path: path.clone() });
    }
    AuthConfig {
        dev,
        anonymous: auth.anonymous || dev,
        admin_token: auth.admin_token.as_ref().map(|token| Secret::new(token.expose())),
        jwt: (!keys.is_empty()).then(|| JwtConfig {
            keys,
            audience: auth.jwt_audience.clone(),
            issuer: auth.jwt_issuer.clone(),
            leeway_s: auth.jwt_leeway_ms.div_ceil(1000),
            default_scopes: Scopes { user: true, ..Scopes::default() },
        }),
        rate_per_principal: rate(
            limits.requests_per_principal_per_second,
            limits.requests_per_principal_burst,
        ),
        rate_per_address: rate(limits.requests_per_address_per_second, limits.requests_per_address_burst),
    }
}

pub(crate) fn mqtt_config(config: &Config, dev: bool) -> MqttConfig {
    let mqtt = &config.mqtt;
    let tls = config.http.tls_cert_file.as_ref().zip(config.http.tls_key_file.as_ref());
    let payload_bytes_max = size(config.limits.payload_max_bytes);
    MqttConfig {
        tls: tls.map(|(cert, key)| TlsConfig {
            reload_check_ms: config.http.tls_reload_check_ms,
            ..TlsConfig::new(cert, key)
        }),
        client_ca: mqtt.client_ca_file.clone(),
        tls_handshake_ms_max: config.http.tls_handshake_max_ms,
        connect_ms_max: mqtt.connect_max_ms,
        connections_max: size(mqtt.connections_max),
        connections_per_address_max: size(mqtt.connections_per_address_max),
        connections_per_address_per_second: count(mqtt.connections_per_address_per_second),
        auth_failures_per_address_per_minute: count(config.limits.auth_failures_per_address_per_minute),
        packet_bytes_max: payload_bytes_max + 128 * 1024,
        topic_levels_max: size(mqtt.topic_levels_max),
        receive_maximum: small(mqtt.receive_maximum),
        in_flight_max: small(mqtt.in_flight_max),
        subscriptions_max: size(mqtt.subscriptions_max),
        sessions_per_user_max: size(mqtt.sessions_per_user_max),
        topic_alias_max: small(mqtt.topic_alias_max),
        session_expiry_s_max: count(mqtt.session_expiry_max_ms / 1000),
        out_bytes_max: size(mqtt.out_max_bytes),
        stalled_reader_ms_max: mqtt.stalled_reader_max_ms,
        checkpoint_ms: mqtt.checkpoint_ms,
        free_topics: mqtt.free_topics || dev,
        acl_file: mqtt.acl_file.clone(),
        anonymous_takeover: mqtt.anonymous_takeover,
        impush: mqtt.impush.into(),
        proxy_hosts: mqtt.proxy_hosts.clone(),
        payload_bytes_max,
        drain_ms_max: config.shutdown.drain_ms,
        ..MqttConfig::default()
    }
}

pub(crate) fn gws_config(config: &Config) -> GwsConfig {
    let gws = &config.gws;
    GwsConfig {
        store_raw: gws.store_raw,
        dedup: gws.dedup,
        echo_rooms: gws.echo_rooms.clone(),
        rollback_packets: gws.rollback_packets,
        rooms_max: size(gws.rooms_max),
        unseen_max: size(gws.unseen_max),
        history_page_max: size(gws.history_page_max),
        ttl_rooms_max: size(gws.ttl_rooms_max),
        ttl_check_ms: gws.ttl_check_ms,
        form_bytes_max: size(gws.form_max_bytes),
    }
}

/// Without the ports, which are known when the listeners are bound.
pub(crate) fn connmix_config(config: &Config, dev: bool) -> ConnmixConfig {
    let connmix = &config.connmix;
    ConnmixConfig {
        dev,
        path: connmix.path.clone(),
        auth_url: connmix.auth_url.as_ref().map(|url| url.expose().to_owned()),
        auth_form: connmix.auth_form,
        auth_hosts: connmix.auth_hosts.clone(),
        auth_timeout_ms: connmix.auth_max_ms,
        auth_calls_max: size(connmix.auth_calls_max),
        auth_cache_ms: connmix.auth_cache_ms,
        auth_cached_max: size(connmix.auth_cached_max),
        access: connmix.access.iter().map(|rule| Secret::new(rule.expose())).collect(),
        access_file: connmix.access_file.clone(),
        api_is_loopback: connmix.api_addr.is_some_and(|addr| addr.ip().is_loopback()),
        client_topic: connmix.client_topic.clone(),
        private_types: connmix.private_types.clone(),
        public_types: connmix.public_types.clone(),
        payload_bytes_max: size(config.limits.payload_max_bytes),
        channels_max: size(connmix.channels_max),
        context_bytes_max: size(connmix.context_max_bytes),
        topics_max: size(connmix.topics_max),
        call_ms_max: connmix.call_max_ms,
        ..ConnmixConfig::default()
    }
}

pub(crate) fn http_config(config: &Config) -> HttpConfig {
    let http = &config.http;
    let limits = &config.limits;
    let tls = http.tls_cert_file.as_ref().zip(http.tls_key_file.as_ref());
    HttpConfig {
        tls: tls.map(|(cert, key)| TlsConfig {
            reload_check_ms: http.tls_reload_check_ms,
            ..TlsConfig::new(cert, key)
        }),
        tls_handshake_ms_max: http.tls_handshake_max_ms,
        header_read_ms_max: http.header_read_max_ms,
        body_read_ms_max: http.body_read_max_ms,
        idle_ms_max: http.idle_max_ms,
        answer_ms_max: http.answer_max_ms,
        header_bytes_max: size(http.header_max_bytes),
        connections_max: size(http.connections_max),
        connections_per_address_max: size(http.connections_per_address_max),
        h2_streams_max: count(http.h2_streams_max),
        payload_bytes_max: size(limits.payload_max_bytes),
        batch_bytes_max: size(http.batch_max_bytes),
        cors_origins: http.cors_origins.clone(),
        compression: http.compression,
        auth_failures_per_address_per_minute: count(limits.auth_failures_per_address_per_minute),
        keep_alive_ms: http.keep_alive_ms,
        stalled_reader_ms_max: http.stalled_reader_max_ms,
        websocket_ping_ms: http.websocket_ping_ms,
        websocket_idle_ms_max: http.websocket_idle_max_ms,
        stream_feeds_max: size(http.stream_feeds_max),
        websocket_in_flight_max: size(http.websocket_in_flight_max),
        drain_ms_max: config.shutdown.drain_ms,
        docs: http.docs,
        backup_dir: Some(config.backup_dir()),
    }
}

/// Whether the store holds a token that is neither revoked nor expired.
pub(crate) async fn has_tokens(store: &Store) -> Result<bool, AuthError> {
    let now_ms = crate::cli::out::now_ms();
    let (auth, owner) = (store.auth(), owner());
    let mut cursor = None;
    loop {
        let page = auth.tokens(&owner, cursor.as_deref(), 100).await?;
        let live = |token: &feedlog_service::auth::TokenInfo| {
            token.revoked_ms.is_none() && token.expires_ms.is_none_or(|end| end > now_ms)
        };
        if page.rows.iter().any(live) {
            return Ok(true);
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(false),
        }
    }
}

pub(crate) async fn create_first_token(store: &Store) -> Result<Secret, AuthError> {
    let owner = owner();
    let token = NewToken {
        uid: owner.uid.clone(),
        scopes: ALL_SCOPES,
        expires_ms: None,
        note: Some("made at the first start".into()),
    };
    Ok(store.auth().create_token(&owner, token).await?.secret)
}
