//! The configuration: a TOML file, overridden by `FEEDLOG__SECTION__KEY`, overridden by flags.
//!
//! Unknown keys are refused with the nearest known name; wrong types are named. Without any configuration the server
//! listens on loopback only and creates an administrator's token.

mod keys;
pub mod outbox;
mod value;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use keys::{Auth, Config, Http, Limits, Log, Mqtt, Outbox, Service, Shutdown, Storage, Telemetry};
pub use value::{Engine, HmacAlgorithm, Impush, KeyAlgorithm, LogFormat, Secret};

use keys::{KEYS, Key, SECTIONS};

/// Environment variables with this prefix are keys: `FEEDLOG__HTTP__ADDR`.
pub const ENV_PREFIX: &str = "FEEDLOG__";

/// Why the configuration was refused. All problems found, not only the first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.join("\n"))]
pub struct ConfigError {
    /// One line each; values are not repeated.
    pub problems: Vec<String>,
}

impl ConfigError {
    fn one(problem: impl Into<String>) -> Self {
        Self { problems: vec![problem.into()] }
    }
}

impl Config {
    /// The configuration of a file (none: the defaults) and of the environment. Secrets stay out of errors.
    ///
    /// # Errors
    /// When the file cannot be read or is not TOML, a key is unknown, or a value has the wrong type or is out of
    /// bounds.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let text = match file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|err| ConfigError::one(format!("{}: {err}", path.display())))?,
            None => String::new(),
        };
        let env = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            name.starts_with(ENV_PREFIX).then(|| (name, value.to_string_lossy().into_owned()))
        });
        Self::parse(&text, env)
    }

    /// As [`Config::load`], from text and given variables.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn parse(text: &str, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut problems = Vec::new();
        // The parser's own message quotes the line, which may hold a secret: only its place and kind are told.
        let table: toml::Table = text.parse().map_err(|err: toml::de::Error| {
            let line =
                err.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            ConfigError::one(format!("not TOML: line {line}: {}", err.message()))
        })?;
        for (section, value) in &table {
            if !SECTIONS.iter().any(|(name, _)| name == section) {
                let known = SECTIONS.iter().map(|(name, _)| *name);
                problems.push(unknown("section", &format!("[{section}]"), section, known));
                continue;
            }
            let Some(keys) = value.as_table() else {
                problems
                    .push(format!("{section}: expected a section [{section}], found {}", value.type_str()));
                continue;
            };
            for (name, value) in keys {
                match find(section, name) {
                    None => problems.push(unknown_key(section, name)),
                    Some(key) if !(key.set_toml)(&mut config, value) => {
                        problems.push(format!(
                            "{section}.{name}: expected {}, found {}",
                            key.expected,
                            described(value)
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
        let mut env: Vec<_> = env.into_iter().collect();
        env.sort();
        for (variable, value) in env {
            let path = variable.strip_prefix(ENV_PREFIX).unwrap_or(&variable).to_lowercase();
            let found = path.split_once("__").and_then(|(section, name)| find(section, name));
            match found {
                None => {
                    let known = KEYS.iter().map(variable_of).collect::<Vec<_>>();
                    problems.push(unknown(
                        "environment variable",
                        &variable,
                        &variable,
                        known.iter().map(String::as_str),
                    ));
                }
                Some(key) if !(key.set_text)(&mut config, &value) => {
                    problems.push(format!("{variable}: expected {}", key.expected));
                }
                Some(_) => {}
            }
        }
        config.check_bounds(&mut problems);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }
    }

    fn check_bounds(&self, problems: &mut Vec<String>) {
        let mut check = |ok: bool, problem: &str| {
            if !ok {
                problems.push(problem.to_owned());
            }
        };
        let payload_max = feedlog_core::limits::PAYLOAD_BYTES_MAX as u64;
        check(
            (1..=payload_max).contains(&self.limits.payload_max_bytes),
            "limits.payload_max_bytes: expected 1 to 16777216",
        );
        check(
            self.http.batch_max_bytes >= self.limits.payload_max_bytes,
            "http.batch_max_bytes: is smaller than limits.payload_max_bytes",
        );
        check(
            (8 << 10..=1 << 20).contains(&self.http.header_max_bytes),
            "http.header_max_bytes: expected 8192 to 1048576",
        );
        check(self.http.connections_max > 0, "http.connections_max: expected 1 or more");
        check(
            self.http.connections_per_address_max > 0,
            "http.connections_per_address_max: expected 1 or more",
        );
        check((1..=10_000).contains(&self.http.h2_streams_max), "http.h2_streams_max: expected 1 to 10000");
        check(self.http.keep_alive_ms >= 100, "http.keep_alive_ms: expected 100 or more");
        check(self.http.stream_feeds_max > 0, "http.stream_feeds_max: expected 1 or more");
        check(self.http.websocket_in_flight_max > 0, "http.websocket_in_flight_max: expected 1 or more");
        check(
            self.http.tls_cert_file.is_some() == self.http.tls_key_file.is_some(),
            "http.tls_cert_file and http.tls_key_file: set both or none",
        );
        for (value, max, name) in [
            (self.mqtt.connections_max, u64::MAX, "mqtt.connections_max"),
            (self.mqtt.connections_per_address_max, u64::MAX, "mqtt.connections_per_address_max"),
            (self.mqtt.topic_levels_max, 128, "mqtt.topic_levels_max"),
            (self.mqtt.receive_maximum, 65_535, "mqtt.receive_maximum"),
            (self.mqtt.in_flight_max, 1_024, "mqtt.in_flight_max"),
            (self.mqtt.subscriptions_max, 100_000, "mqtt.subscriptions_max"),
            (self.mqtt.sessions_per_user_max, 1_000_000, "mqtt.sessions_per_user_max"),
            (self.mqtt.session_expiry_max_ms, u64::from(u32::MAX) * 1000, "mqtt.session_expiry_max_ms"),
            (self.mqtt.out_max_bytes, 16 << 20, "mqtt.out_max_bytes"),
            (self.mqtt.checkpoint_ms, 3_600_000, "mqtt.checkpoint_ms"),
            (self.gws.rooms_max, u64::MAX, "gws.rooms_max"),
            (self.gws.unseen_max, 1 << 20, "gws.unseen_max"),
            (self.gws.history_page_max, 1_000, "gws.history_page_max"),
            (self.gws.ttl_rooms_max, 1 << 20, "gws.ttl_rooms_max"),
            (self.gws.ttl_check_ms, 60_000, "gws.ttl_check_ms"),
            (self.gws.form_max_bytes, 1 << 20, "gws.form_max_bytes"),
            (self.connmix.auth_max_ms, 600_000, "connmix.auth_max_ms"),
            (self.connmix.auth_calls_max, 10_000, "connmix.auth_calls_max"),
            (self.connmix.auth_cached_max, 10_000_000, "connmix.auth_cached_max"),
            (self.connmix.channels_max, 10_000, "connmix.channels_max"),
            (self.connmix.context_max_bytes, 1 << 20, "connmix.context_max_bytes"),
            (self.connmix.topics_max, 10_000, "connmix.topics_max"),
            (self.connmix.call_max_ms, 600_000, "connmix.call_max_ms"),
        ] {
            check((1..=max).contains(&value), &format!("{name}: expected 1 to {max}"));
        }
        for (value, max, name) in [
            (self.outbox.timeout_ms, 600_000, "outbox.timeout_ms"),
            (self.outbox.feeds_at_once_max, 256, "outbox.feeds_at_once_max"),
            (self.outbox.window_commits_max, 10_000, "outbox.window_commits_max"),
            (self.outbox.call_entries_max, 1_000, "outbox.call_entries_max"),
            (self.outbox.call_max_bytes, 64 << 20, "outbox.call_max_bytes"),
            (self.outbox.call_members_max, 10_000, "outbox.call_members_max"),
            (self.outbox.dead_max, 1_000_000, "outbox.dead_max"),
        ] {
            check((1..=max).contains(&value), &format!("{name}: expected 1 to {max}"));
        }
        check(self.mqtt.topic_alias_max <= 65_535, "mqtt.topic_alias_max: expected 0 to 65535");
        check(
            self.mqtt.connections_per_address_per_second <= u64::from(u32::MAX),
            "mqtt.connections_per_address_per_second: expected at most 4294967295",
        );
        check(
            self.mqtt.tls_addr.is_none() || self.http.tls_cert_file.is_some(),
            "mqtt.tls_addr: needs http.tls_cert_file and http.tls_key_file",
        );
        check(self.gws.enabled || self.gws.addr.is_none(), "gws.addr: is set, but gws.enabled is false");
        let connmix = &self.connmix;
        for (addr, name) in [
            (connmix.client_addr, "connmix.client_addr"),
            (connmix.api_addr, "connmix.api_addr"),
            (connmix.center_addr, "connmix.center_addr"),
        ] {
            check(
                connmix.enabled || addr.is_none(),
                &format!("{name}: is set, but connmix.enabled is false"),
            );
        }
        check(!feedlog_api::http::is_own_path(&connmix.path), "connmix.path: begins like a path of our own");
        check(self.service.shards <= 256, "service.shards: expected 0 to 256");
        check(self.service.mailbox_max > 0, "service.mailbox_max: expected 1 or more");
        check(self.storage.cache_bytes >= 1 << 20, "storage.cache_bytes: expected 1048576 or more");
        for (value, name) in [
            (self.limits.requests_per_principal_per_second, "limits.requests_per_principal_per_second"),
            (self.limits.requests_per_principal_burst, "limits.requests_per_principal_burst"),
            (self.limits.requests_per_address_per_second, "limits.requests_per_address_per_second"),
            (self.limits.requests_per_address_burst, "limits.requests_per_address_burst"),
            (self.limits.auth_failures_per_address_per_minute, "limits.auth_failures_per_address_per_minute"),
        ] {
            check(u32::try_from(value).is_ok(), &format!("{name}: expected at most 4294967295"));
        }
        if self.telemetry.otlp_endpoint.is_some() && !cfg!(feature = "otlp") {
            check(false, "telemetry.otlp_endpoint: this binary was built without the feature `otlp`");
        }
    }

    /// Where a running server makes its backups.
    pub fn backup_dir(&self) -> PathBuf {
        self.storage.backup_dir.clone().unwrap_or_else(|| {
            let mut name = self.storage.data_dir.clone().into_os_string();
            name.push("-backups");
            name.into()
        })
    }

    /// Whether callers can prove who they are without the store's own tokens.
    pub fn has_auth(&self) -> bool {
        self.auth.admin_token.is_some() || self.has_jwt()
    }

    /// Whether JWTs are accepted.
    pub fn has_jwt(&self) -> bool {
        self.auth.jwt_hmac_file.is_some()
            || self.auth.jwt_public_key_file.is_some()
            || self.auth.jwt_jwks_file.is_some()
    }

    /// Secure by default: says why this address must not be served. `has_tokens`: the store holds an unrevoked token
    /// of an earlier run.
    ///
    /// # Errors
    /// With what to set.
    pub fn check_bind(&self, dev: bool, has_tokens: bool) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        self.check_address(self.http.addr, self.http.tls_cert_file.is_some(), dev, has_tokens, &mut problems);
        if let Some(addr) = self.mqtt.addr {
            self.check_address(addr, false, dev, has_tokens, &mut problems);
        }
        if let Some(addr) = self.mqtt.tls_addr {
            self.check_address(addr, true, dev, has_tokens, &mut problems);
        }
        let (gws, connmix) = (&self.gws, &self.connmix);
        let alone = [gws.addr, connmix.client_addr, connmix.api_addr, connmix.center_addr];
        for addr in alone.into_iter().flatten() {
            let tls = self.http.tls_cert_file.is_some();
            self.check_address(addr, tls, dev, has_tokens, &mut problems);
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    fn check_address(
        &self,
        addr: SocketAddr,
        tls: bool,
        dev: bool,
        has_tokens: bool,
        problems: &mut Vec<String>,
    ) {
        if addr.ip().is_loopback() {
            return;
        }
        if dev {
            problems.push(format!(
                "--dev opens everything and therefore listens on loopback only, not on {addr}; use 127.0.0.1 or [::1]"
            ));
            return;
        }
        if !self.has_auth() && !has_tokens {
            problems.push(format!(
                "{addr} is reachable by others and no auth is configured: set auth.admin_token \
                 (FEEDLOG__AUTH__ADMIN_TOKEN) or a JWT key, or create a token on loopback first"
            ));
        }
        if !tls && !self.http.plain_text {
            problems.push(format!(
                "{addr} is reachable by others and TLS is not configured: set http.tls_cert_file and \
                 http.tls_key_file, or http.plain_text = true when a proxy in front ends TLS"
            ));
        }
    }

    /// The configuration as TOML, secrets masked. Keys that are not set are left out.
    pub fn show(&self) -> String {
        let mut out = String::new();
        for (section, _) in SECTIONS {
            let _ = writeln!(out, "[{section}]");
            for key in keys_of(section) {
                if let Some(value) = (key.show)(self) {
                    let _ = writeln!(out, "{} = {value}", key.name);
                }
            }
            out.push('\n');
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        out
    }

    /// Section → key → value for programs, secrets masked, `null` where not set.
    pub fn show_json(&self) -> serde_json::Value {
        let mut out = serde_json::Map::new();
        for (section, _) in SECTIONS {
            let keys = keys_of(section).map(|key| {
                let value = (key.show)(self).and_then(|text| {
                    let table: toml::Table = format!("v = {text}").parse().ok()?;
                    serde_json::to_value(table.get("v")?).ok()
                });
                (key.name.to_owned(), value.unwrap_or(serde_json::Value::Null))
            });
            out.insert((*section).to_owned(), keys.collect::<serde_json::Map<_, _>>().into());
        }
        out.into()
    }

    /// The example file: every key with its meaning and default, commented out. `docs/feedlog.example.toml` is this.
    pub fn example() -> String {
        let mut out = String::from(
            "# feedlog: every key with its default. Copy this file, remove the leading `#` of what you change, and check it\n\
             # with `feedlog config check --config FILE`. Each key can also be set as FEEDLOG__SECTION__KEY in the\n\
             # environment, which overrides the file; flags override both. Unknown keys are refused.\n",
        );
        let defaults = Self::default();
        for (section, docs) in SECTIONS {
            out.push('\n');
            for line in *docs {
                let _ = writeln!(out, "#{line}");
            }
            let _ = writeln!(out, "[{section}]");
            for key in keys_of(section) {
                out.push('\n');
                for line in key.doc {
                    let _ = writeln!(out, "#{line}");
                }
                match (key.show)(&defaults) {
                    Some(value) => {
                        let _ = writeln!(out, "#{} = {value}", key.name);
                    }
                    None => {
                        let _ = writeln!(out, "# Not set by default. Example:");
                        let _ = writeln!(out, "#{} = {}", key.name, key.example.unwrap_or("\"\""));
                    }
                }
            }
        }
        out
    }
}

fn keys_of(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section == section)
}

fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

fn variable_of(key: &Key) -> String {
    format!("{ENV_PREFIX}{}__{}", key.section.to_uppercase(), key.name.to_uppercase())
}

/// The type of a value, and the value itself only where it cannot be a secret.
fn described(value: &toml::Value) -> String {
    match value {
        toml::Value::Integer(_) | toml::Value::Boolean(_) | toml::Value::Float(_) => {
            format!("{} {value}", value.type_str())
        }
        _ => value.type_str().to_owned(),
    }
}

fn unknown_key(section: &str, name: &str) -> String {
    let path = format!("{section}.{name}");
    // The same name in another section is what was meant more often than a similar name in this one.
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return format!("unknown key {path}; did you mean {}.{}?", key.section, key.name);
    }
    unknown("key", &path, name, keys_of(section).map(|key| key.name))
}

fn unknown<'a>(what: &str, shown: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known
        .map(|candidate| (strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((score, candidate)) if score > 0.6 => {
            format!("unknown {what} {shown}; did you mean {candidate}?")
        }
        _ => format!("unknown {what} {shown}; `feedlog config show` lists all"),
    }
}

#[cfg(test)]
mod tests;
