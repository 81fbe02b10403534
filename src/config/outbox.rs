//! `outbox.endpoints_file`: the endpoints of the push outbox.

use std::path::{Path, PathBuf};

use feedlog_api::webhook::{Keys, WebhookConfig, Webhooks};
use feedlog_core::event::FeedKind;
use feedlog_core::pattern::Pattern;
use feedlog_service::outbox::{Endpoint, Events, OutboxConfig, OutboxLimits, Patience};

use super::{Config, ConfigError, described, unknown};

/// What an endpoint may have, with what it means; the first three are required.
const KEYS: &[&str] = &[
    "name",
    "url",
    "secret_file",
    "ed25519_key_file",
    "feeds",
    "kinds",
    "senders",
    "events",
    "payload",
    "coalesce_ms",
    "retry_first_ms",
    "retry_max_ms",
    "attempts_max",
    "give_up_ms",
];

/// Endpoints in one file.
const ENDPOINTS_MAX: usize = 100;
/// Longest of the times of an endpoint: a week.
const TIME_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// The endpoints, ready to be told and to be called.
#[derive(Debug)]
pub struct Endpoints {
    /// For the outbox.
    pub outbox: OutboxConfig,
    /// For their calls.
    pub webhooks: Webhooks,
    /// `whpk_…` of those that have an Ed25519 key, by name.
    pub public_keys: Vec<(String, Option<String>)>,
}

impl Config {
    /// The endpoints of the push outbox; none when no file is configured.
    ///
    /// # Errors
    /// When a file cannot be read, or something in it is not as it must be. Values are not repeated.
    pub fn endpoints(&self) -> Result<Endpoints, ConfigError> {
        let outbox = &self.outbox;
        let size = |value| usize::try_from(value).unwrap_or(usize::MAX);
        let limits = OutboxLimits {
            window_commits_max: size(outbox.window_commits_max),
            call_entries_max: outbox.call_entries_max,
            call_bytes_max: size(outbox.call_max_bytes),
            members_max: size(outbox.call_members_max),
            feeds_at_once_max: size(outbox.feeds_at_once_max),
            dead_max: size(outbox.dead_max),
            ..OutboxLimits::default()
        };
        let mut problems = Vec::new();
        let (mut endpoints, mut webhooks, mut public_keys) = (Vec::new(), Vec::new(), Vec::new());
        for read in self.tables()? {
            let Read { endpoint, url, keys } = match read.and_then(|table| Table(table).read()) {
                Ok(read) => read,
                Err(found) => {
                    problems.extend(found);
                    continue;
                }
            };
            if endpoints.iter().any(|other: &Endpoint| other.name == endpoint.name) {
                problems.push(format!("endpoint {}: there are two of this name", endpoint.name));
            }
            public_keys.push((endpoint.name.to_string(), keys.public_key()));
            webhooks.push(WebhookConfig {
                name: endpoint.name.clone(),
                url,
                keys,
                hosts: outbox.hosts.clone(),
                timeout_ms: outbox.timeout_ms,
                calls_max: limits.calls_max(),
            });
            endpoints.push(endpoint);
        }
        let webhooks = Webhooks::new(webhooks).map_err(|(name, error)| {
            problems.push(format!("endpoint {name}: {error}"));
        });
        match webhooks {
            Ok(webhooks) if problems.is_empty() => {
                Ok(Endpoints { outbox: OutboxConfig { endpoints, limits }, webhooks, public_keys })
            }
            _ => {
                let file = self.outbox.endpoints_file.as_deref().unwrap_or(Path::new("")).display();
                Err(ConfigError {
                    problems: problems.into_iter().map(|line| format!("{file}: {line}")).collect(),
                })
            }
        }
    }

    fn tables(&self) -> Result<Vec<Result<toml::Table, Vec<String>>>, ConfigError> {
        let Some(path) = &self.outbox.endpoints_file else { return Ok(Vec::new()) };
        let at = |problem: String| ConfigError::one(format!("{}: {problem}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| at(error.to_string()))?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let end = error.span().map_or(0, |span| span.start.min(text.len()));
            at(format!("not TOML: line {}: {}", text[..end].matches('\n').count() + 1, error.message()))
        })?;
        if let Some(other) = table.keys().find(|key| *key != "endpoint") {
            return Err(at(unknown("section", &format!("[[{other}]]"), other, ["endpoint"].into_iter())));
        }
        let Some(toml::Value::Array(endpoints)) = table.get("endpoint") else {
            return Err(at("expected [[endpoint]]".to_owned()));
        };
        if endpoints.len() > ENDPOINTS_MAX {
            return Err(at(format!("expected at most {ENDPOINTS_MAX} endpoints")));
        }
        let one = |value: &toml::Value| {
            value
                .as_table()
                .cloned()
                .ok_or_else(|| vec![format!("endpoint: expected [[endpoint]], found {}", value.type_str())])
        };
        Ok(endpoints.iter().map(one).collect())
    }
}

struct Read {
    endpoint: Endpoint,
    url: String,
    keys: Keys,
}

/// One `[[endpoint]]`.
struct Table(toml::Table);

impl Table {
    fn read(&self) -> Result<Read, Vec<String>> {
        let mut problems = Vec::new();
        let name = self.text("name", &mut problems).unwrap_or_default();
        let mut endpoint = Endpoint::new(&name);
        if !Endpoint::is_name(&name) {
            problems.push("name: expected 1 to 64 of a-z, 0-9, - and _".to_owned());
        }
        for key in self.0.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            problems.push(unknown("key", key, key, KEYS.iter().copied()));
        }
        let url = self.text("url", &mut problems);
        if url.is_none() && !self.0.contains_key("url") {
            problems.push("url: is missing".to_owned());
        }
        endpoint.feeds = self.patterns("feeds", &mut problems);
        endpoint.senders = self.patterns("senders", &mut problems);
        endpoint.kinds = self.words("kinds", &mut problems, |word| match word {
            "direct" => Some(FeedKind::Direct),
            "group" => Some(FeedKind::Group),
            "open" => Some(FeedKind::Open),
            "personal" => Some(FeedKind::Personal),
            _ => None,
        });
        if self.0.contains_key("events") {
            let words = self.words("events", &mut problems, |word| match word {
                "message" => Some(0),
                "withdrawn" => Some(1),
                "read" => Some(2),
                _ => None,
            });
            let has = |event| words.contains(&event);
            endpoint.events = Events { messages: has(0), withdrawals: has(1), reads: has(2) };
        }
        match self.0.get("payload") {
            None => {}
            Some(toml::Value::Boolean(payload)) => endpoint.payload = *payload,
            Some(other) => {
                problems.push(format!("payload: expected true or false, found {}", described(other)))
            }
        }
        let patience = Patience::default();
        endpoint.coalesce_ms =
            self.number("coalesce_ms", endpoint.coalesce_ms, 0, TIME_MS_MAX, &mut problems);
        let attempts = u64::from(patience.attempts_max);
        let attempts = self.number("attempts_max", attempts, 0, u64::from(u32::MAX), &mut problems);
        endpoint.patience = Patience {
            retry_first_ms: self.number(
                "retry_first_ms",
                patience.retry_first_ms,
                1,
                TIME_MS_MAX,
                &mut problems,
            ),
            retry_max_ms: self.number("retry_max_ms", patience.retry_max_ms, 1, TIME_MS_MAX, &mut problems),
            attempts_max: u32::try_from(attempts).unwrap_or(u32::MAX),
            give_up_ms: self.number("give_up_ms", patience.give_up_ms, 0, TIME_MS_MAX, &mut problems),
        };
        let path = |key: &str, problems: &mut Vec<String>| self.text(key, problems).map(PathBuf::from);
        let secret = path("secret_file", &mut problems);
        let private = path("ed25519_key_file", &mut problems);
        let keys = Keys::read(secret.as_deref(), private.as_deref())
            .map_err(|error| problems.push(error.to_string()));
        match (keys, url, problems.is_empty()) {
            (Ok(keys), Some(url), true) => Ok(Read { endpoint, url, keys }),
            _ => Err(problems.into_iter().map(|line| format!("endpoint {name:?}: {line}")).collect()),
        }
    }

    fn text(&self, key: &str, problems: &mut Vec<String>) -> Option<String> {
        match self.0.get(key)? {
            toml::Value::String(text) => Some(text.clone()),
            other => {
                problems.push(format!("{key}: expected a string, found {}", described(other)));
                None
            }
        }
    }

    fn number(&self, key: &str, default: u64, min: u64, max: u64, problems: &mut Vec<String>) -> u64 {
        let Some(value) = self.0.get(key) else { return default };
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        number.filter(|number| (min..=max).contains(number)).unwrap_or_else(|| {
            problems.push(format!("{key}: expected {min} to {max}, found {}", described(value)));
            default
        })
    }

    fn words<T>(&self, key: &str, problems: &mut Vec<String>, known: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let Some(value) = self.0.get(key) else { return Vec::new() };
        let Some(list) = value.as_array() else {
            problems.push(format!("{key}: expected a list of strings, found {}", described(value)));
            return Vec::new();
        };
        if list.is_empty() && key != "events" {
            problems.push(format!("{key}: is empty; leave it out for all"));
        }
        let words: Option<Vec<T>> = list.iter().map(|word| known(word.as_str()?)).collect();
        words.unwrap_or_else(|| {
            problems.push(format!("{key}: has something that is not known; see docs/OUTBOX.md"));
            Vec::new()
        })
    }

    fn patterns(&self, key: &str, problems: &mut Vec<String>) -> Vec<Pattern> {
        self.words(key, problems, Pattern::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn read(text: &str) -> Result<Endpoints, String> {
        let dir = tempfile::tempdir().unwrap();
        let (file, secret) = (dir.path().join("outbox.toml"), dir.path().join("secret"));
        std::fs::write(&secret, SECRET).unwrap();
        std::fs::write(&file, text.replace("SECRET", secret.to_str().unwrap())).unwrap();
        let mut config = Config::default();
        config.outbox.endpoints_file = Some(file);
        config.outbox.hosts =
            ["push.example", "push.example.org", "10.0.0.7:9000"].map(String::from).to_vec();
        config.endpoints().map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_of_the_document_is_read() {
        let document = include_str!("../../docs/OUTBOX.md");
        let (_, rest) = document.split_once("```toml endpoints\n").expect("the example");
        let (example, _) = rest.split_once("```").expect("its end");
        let example =
            example.replace("\"/etc/feedlog/apns.secret\"", "\"SECRET\"").replace("ed25519_key_file", "# ");
        let endpoints = read(&example).unwrap();
        let names: Vec<_> = endpoints.outbox.endpoints.iter().map(|one| &*one.name).collect();
        assert_eq!(names, ["apns", "shop"]);
        let shop = &endpoints.outbox.endpoints[1];
        assert!(!shop.payload && shop.events.messages && !shop.events.reads);
        assert_eq!(shop.feeds, [Pattern::parse("shop/#").unwrap()]);
        assert_eq!(shop.kinds, [FeedKind::Group]);
        assert_eq!(shop.patience.attempts_max, 20);
    }

    #[test]
    fn what_is_wrong_is_named_without_its_value() {
        let good = "[[endpoint]]\nname = \"a\"\nurl = \"https://push.example/x\"\nsecret_file = \"SECRET\"\n";
        assert!(read(good).is_ok());
        for (text, said) in [
            ("", "expected [[endpoint]]"),
            ("[endpoints]\n", "did you mean endpoint?"),
            ("[[endpoint]]\nname = \"a\"\n", "url: is missing"),
            ("[[endpoint]]\nname = \"A\"\nurl = \"https://push.example/\"\n", "name: expected"),
            (&format!("{good}retry_frist_ms = 5\n"), "did you mean retry_first_ms?"),
            (&format!("{good}attempts_max = -1\n"), "attempts_max: expected 0 to"),
            (&format!("{good}retry_max_ms = 0\n"), "retry_max_ms: expected 1 to"),
            (&format!("{good}feeds = [\"a#\"]\n"), "feeds: has something"),
            (&format!("{good}kinds = []\n"), "leave it out for all"),
            (&format!("{good}kinds = \"group\"\n"), "kinds: expected a list"),
            (&format!("{good}events = [\"typing\"]\n"), "events: has something"),
            (&format!("{good}payload = 1\n"), "payload: expected true or false"),
            (&format!("{good}{good}"), "two of this name"),
            (&good.replace("push.example", "evil.example"), "not on the list"),
            (&good.replace("https://push.example/x", "push-secret"), "is not a URL"),
            (&good.replace("secret_file = \"SECRET\"", ""), "must be signed"),
            (&good.replace("SECRET", "/no/such/file"), "/no/such/file"),
        ] {
            let error = read(text).map(|_| ()).expect_err(text);
            assert!(error.contains(said) && !error.contains("push-secret"), "{text}: {error}");
        }
        assert!(Config::default().endpoints().unwrap().outbox.endpoints.is_empty());
    }
}
