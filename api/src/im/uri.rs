//! Where a topic leads: `scheme://host/path?query#fragment`, and the default form `Module[@node]/HD_Method[/n]`.
//!
//! Pure. Source of the rules and of the error texts: mqant `gate/uriroute/uri_route.go`, `gate/base/mqtt_agent.go`. The
//! reply goes to the very bytes of the request's topic, so nothing here gives a topic back.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::outside::Place;

/// The scheme and module whose methods are ours.
const IM: &str = "im";
/// The module of the default form that logs in.
const LOGIN: &str = "Login";
/// Node rules that every node answers to: we are one node behind all of them.
const ANY_NODE: [&str; 3] = ["modulus", "cache", "random"];
/// What methods of the default form begin with.
const HANDLER_PREFIX: &str = "HD_";

/// Where a request goes, and how its answer finds back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What is asked for.
    pub target: Target,
    /// What the client matches the answer by; the answer's topic carries it because it is the request's own.
    pub msg_id: Option<String>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A method of ours, as [`super::ask`] takes it.
    Method(String),
    /// Credentials for this connection. `default_form` is `Login/HD_Login`, whose fields have other names.
    Login {
        /// Whether the topic was `Login/HD_Login`.
        default_form: bool,
    },
    /// A request to pass on to another server.
    Proxy(Place),
}

/// A topic that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// The text that clients may match.
    pub text: String,
    /// Whether the client is told. Without a correlation nobody is, except of a topic that cannot be read at all.
    pub replies: bool,
}

impl Route {
    /// Whether an answer is sent. A request without correlation is done and never answered; the proxy always answers.
    pub fn replies(&self) -> bool {
        self.msg_id.is_some() || matches!(self.target, Target::Proxy(_))
    }
}

impl Refused {
    fn told(text: impl Into<String>) -> Self {
        Self { text: text.into(), replies: true }
    }

    fn not_uri(problem: &str) -> Self {
        Self::told(format!("topic is not uri {problem}"))
    }

    fn query(problem: impl std::fmt::Display) -> Self {
        Self::told(format!("parse query error {problem}"))
    }
}

/// Whether the topic is a URI with an authority, so that it cannot be the name of a feed.
pub fn is_uri(topic: &str) -> bool {
    topic.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme))
}

/// Whether the topic has the default form: a second level that begins with `HD_`, and at most one more.
pub fn is_default_form(topic: &str) -> bool {
    let mut levels = topic.split('/');
    let module = levels.next().is_some_and(|module| !module.is_empty());
    let handler = levels.next().is_some_and(|handler| handler.starts_with(HANDLER_PREFIX));
    module && handler && levels.nth(1).is_none()
}

/// Where a topic leads, in either form. `node` is our own node id.
pub fn parse(topic: &str, node: &str) -> Result<Route, Refused> {
    if is_uri(topic) { parse_uri(topic, node) } else { parse_default(topic, node) }
}

fn parse_uri(topic: &str, node: &str) -> Result<Route, Refused> {
    if topic.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err(Refused::not_uri("invalid control character in URL"));
    }
    // Fragments are no part of a request. A topic name cannot hold `#` anyway ([MQTT-3.3.2-2]).
    let whole = topic.split_once('#').map_or(topic, |(before, _)| before);
    let (scheme, rest) =
        whole.split_once("://").ok_or_else(|| Refused::not_uri("missing protocol scheme"))?;
    let scheme = scheme.to_ascii_lowercase();
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = match address.find('/') {
        Some(at) => address.split_at(at),
        None => (address, ""),
    };
    let (host, port) = host_and_port(authority)?;
    let decoded = decode(path).map_err(|problem| Refused::not_uri(&problem))?;
    let given = msg_id(query)?;
    if scheme == "http" || scheme == "https" {
        let path = if path.is_empty() { "/" } else { path };
        let query = without_msg_id(query);
        let path_and_query = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let outside = Place { tls: scheme == "https", host, port, path_and_query };
        return Ok(Route { target: Target::Proxy(outside), msg_id: given });
    }
    let (method, trailing) = correlated(decoded.trim_start_matches('/'));
    let msg_id = given.or_else(|| trailing.map(str::to_owned));
    let ours = is_ours(&host, node);
    if scheme != IM || !ours {
        let service =
            if ours && !host.eq_ignore_ascii_case(node) { scheme } else { format!("{scheme}@{host}") };
        return Err(not_found(&service, msg_id.is_some()));
    }
    let target = match method {
        "login" => Target::Login { default_form: false },
        method => Target::Method(method.to_owned()),
    };
    Ok(Route { target, msg_id })
}

fn parse_default(topic: &str, node: &str) -> Result<Route, Refused> {
    let levels: Vec<&str> = topic.splitn(5, '/').collect();
    let (module, handler, rest) = match levels.as_slice() {
        [module, handler, rest @ ..] => (*module, *handler, rest),
        _ => {
            return Err(Refused::told(
                "Topic must be [moduleType@moduleID]/[handler]|[moduleType@moduleID]/[handler]/[msgid]",
            ));
        }
    };
    // Only three levels carry a correlation; more are done and never answered.
    let msg_id = match rest {
        [id] if !id.is_empty() => Some((*id).to_owned()),
        _ => None,
    };
    let (name, at) = module.split_once('@').map_or((module, None), |(name, at)| (name, Some(at)));
    let here = at.is_none_or(|at| is_ours(at, node));
    if !here || name != LOGIN && !name.eq_ignore_ascii_case(IM) {
        return Err(not_found(module, msg_id.is_some()));
    }
    let Some(method) = handler.strip_prefix(HANDLER_PREFIX) else {
        let text = format!("Method({handler}) must begin with '{HANDLER_PREFIX}'");
        return Err(Refused { text, replies: msg_id.is_some() });
    };
    let target = match (name, method) {
        (LOGIN, "Login") => Target::Login { default_form: true },
        (LOGIN, _) => return Err(not_found(module, msg_id.is_some())),
        (_, "login") => Target::Login { default_form: false },
        (_, method) => Target::Method(method.to_owned()),
    };
    Ok(Route { target, msg_id })
}

fn not_found(service: &str, replies: bool) -> Refused {
    Refused { text: format!("Service(type:{service}) not found"), replies }
}

fn is_ours(host: &str, node: &str) -> bool {
    ANY_NODE.iter().any(|rule| host.eq_ignore_ascii_case(rule)) || host.eq_ignore_ascii_case(node)
}

/// RFC 3986 §3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// RFC 3986 §3.2, user information dropped.
fn host_and_port(authority: &str) -> Result<(String, Option<u16>), Refused> {
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    let (host, port) = match address.strip_prefix('[') {
        Some(inner) => {
            let (host, after) =
                inner.split_once(']').ok_or_else(|| Refused::not_uri("missing ']' in host"))?;
            match after.strip_prefix(':') {
                Some(port) => (host, port),
                None if after.is_empty() => (host, ""),
                None => return Err(Refused::not_uri("invalid port after host")),
            }
        }
        None => address.split_once(':').unwrap_or((address, "")),
    };
    let host = decode(host).map_err(|problem| Refused::not_uri(&problem))?;
    if host.chars().any(|c| c.is_control() || c.is_whitespace() || "<>\"\\^`{|}/?#".contains(c)) {
        return Err(Refused::not_uri("invalid character in host name"));
    }
    let port = if port.is_empty() {
        None
    } else {
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        Some(
            port.parse()
                .ok()
                .filter(|_| digits)
                .ok_or_else(|| Refused::not_uri("invalid port after host"))?,
        )
    };
    Ok((host.to_ascii_lowercase(), port))
}

/// The method and the trailing all-digit segment that mqantlib appends to a topic as its correlation.
fn correlated(path: &str) -> (&str, Option<&str>) {
    match path.rsplit_once('/') {
        Some((method, id)) if !method.is_empty() && is_digits(id) => (method, Some(id)),
        _ => (path, None),
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// The first `msg_id` of a query; the whole query must be one.
fn msg_id(query: &str) -> Result<Option<String>, Refused> {
    let mut found = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if pair.contains(';') {
            return Err(Refused::query("invalid semicolon separator in query"));
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = form_decode(name).map_err(Refused::query)?;
        let value = form_decode(value).map_err(Refused::query)?;
        if name == "msg_id" && found.is_none() {
            found = Some(value);
        }
    }
    Ok(found)
}

/// The query without its `msg_id`, everything else byte for byte as it was.
fn without_msg_id(query: &str) -> String {
    let keep = |pair: &&str| {
        let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
        form_decode(name).map_or(true, |name| name != "msg_id")
    };
    query.split('&').filter(keep).collect::<Vec<_>>().join("&")
}

/// As in `application/x-www-form-urlencoded`: a raw `+` is a space.
fn form_decode(text: &str) -> Result<String, String> {
    decode(&text.replace('+', " ")).map(Cow::into_owned)
}

fn decode(text: &str) -> Result<Cow<'_, str>, String> {
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices('%') {
        let escape = bytes.get(at + 1..at + 3);
        if !escape.is_some_and(|escape| escape.iter().all(u8::is_ascii_hexdigit)) {
            // Two characters at most, so that the text stays short whatever came.
            let shown: String =
                text.chars().skip(text.get(..at).map_or(0, |s| s.chars().count())).take(3).collect();
            return Err(format!("invalid URL escape {shown:?}"));
        }
    }
    percent_decode_str(text).decode_utf8().map_err(|_| "invalid UTF-8".to_owned())
}

/// For fuzzing: any topic gives a route or a refusal, and the query that is passed on never holds `msg_id`.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let Ok(topic) = std::str::from_utf8(bytes) else { return };
    let _ = is_default_form(topic);
    if let Ok(Route { target: Target::Proxy(outside), .. }) = parse(topic, "node-1") {
        let query = outside.path_and_query.split_once('?').map_or("", |(_, query)| query);
        assert_eq!(msg_id(query), Ok(None), "{topic:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Topic, then `kind name/detail [msg_id]` or the error, `!` before it when nobody is told.
    const TABLE: &[(&str, &str)] = &[
        ("im://modulus/remove_feeds_member?msg_id=1002", "method remove_feeds_member [1002]"),
        ("im://modulus/agree_join_feeds?msg_id=1003", "method agree_join_feeds [1003]"),
        ("im://cache/send?msg_id=1", "method send [1]"),
        ("im://random/send?msg_id=1", "method send [1]"),
        ("im://node-1/send?msg_id=1", "method send [1]"),
        ("IM://Modulus/send?msg_id=1", "method send [1]"),
        ("im://user:pass@modulus:3563/send?msg_id=1", "method send [1]"),
        ("im://node-2/send?msg_id=1", "Service(type:im@node-2) not found"),
        ("im://node-2/send", "! Service(type:im@node-2) not found"),
        ("chat://modulus/say?msg_id=1", "Service(type:chat) not found"),
        ("local://modulus/x?msg_id=1", "Service(type:local) not found"),
        ("system://node-9/x?msg_id=1", "Service(type:system@node-9) not found"),
        ("im:///send?msg_id=1", "Service(type:im@) not found"),
        // Without correlation it is done and never answered.
        ("im://modulus/send", "method send []"),
        ("im://modulus/send?x=1", "method send []"),
        ("im://modulus/send?msg_id=", "method send []+"),
        ("im://modulus/send?msg_id", "method send []+"),
        ("im://modulus/send?msg_id=a&msg_id=b", "method send [a]"),
        // mqantlib appends `/n`.
        ("im://modulus/say/2", "method say [2]"),
        ("im://modulus/say/2?msg_id=7", "method say [7]"),
        ("im://modulus/say/2a", "method say/2a []"),
        ("im://modulus/2", "method 2 []"),
        ("im://modulus/", "method  []"),
        ("im://modulus", "method  []"),
        // armyant: sorted parameters, a space as `+`.
        ("im://modulus/send?a=1+2&msg_id=x+y", "method send [x y]"),
        ("im://modulus/se%6Ed?msg_id=%E2%82%AC", "method send [€]"),
        ("im://modulus/send?msg_id=1#frag?msg_id=2", "method send [1]"),
        ("im://modulus/send?msg_id=%zz", "parse query error invalid URL escape \"%zz\""),
        ("im://modulus/send?msg_id=%e", "parse query error invalid URL escape \"%e\""),
        ("im://modulus/send?a;b", "parse query error invalid semicolon separator in query"),
        ("im://modulus/send?a=%ff", "parse query error invalid UTF-8"),
        ("im://modulus/%zz", "topic is not uri invalid URL escape \"%zz\""),
        ("im://mod ulus/send", "topic is not uri invalid character in host name"),
        ("im://modulus:x/send", "topic is not uri invalid port after host"),
        ("im://[::1/send", "topic is not uri missing ']' in host"),
        ("im://mod\u{7f}ulus/send", "topic is not uri invalid control character in URL"),
        ("im://modulus/login?msg_id=1", "login false [1]"),
        // The proxy: correlated by the whole topic, `msg_id` stays here.
        ("http://www.wanwan.com/pay/one.json", "proxy http www.wanwan.com - /pay/one.json []"),
        ("https://www.wanwan.com:8443?msg_id=3", "proxy https www.wanwan.com 8443 / [3]"),
        ("http://h/p?b=%20&msg_id=3&a=+1&msg%5Fid=4", "proxy http h - /p?b=%20&a=+1 [3]"),
        ("http://[::1]:80/p/12", "proxy http ::1 80 /p/12 []"),
        // The default form.
        ("Login/HD_Login/1", "login true [1]"),
        ("Login/HD_Login", "login true []"),
        ("Login@node-1/HD_Login/1", "login true [1]"),
        ("im/HD_send/x9", "method send [x9]"),
        ("im@modulus/HD_send/1", "method send [1]"),
        ("im/HD_login/1", "login false [1]"),
        ("im/HD_send/1/2", "method send []"),
        ("Chat/HD_Say/1", "Service(type:Chat) not found"),
        ("Login@node-2/HD_Login/1", "Service(type:Login@node-2) not found"),
        ("Chat/HD_Say", "! Service(type:Chat) not found"),
        ("Login/Login/1", "Method(Login) must begin with 'HD_'"),
        ("Login/Login", "! Method(Login) must begin with 'HD_'"),
        ("Login", "Topic must be [moduleType@moduleID]/[handler]|[moduleType@moduleID]/[handler]/[msgid]"),
    ];

    fn shown(topic: &str) -> String {
        match parse(topic, "node-1") {
            Ok(route) => {
                let id = match route.msg_id.as_deref() {
                    Some("") => "[]+".to_owned(),
                    id => format!("[{}]", id.unwrap_or_default()),
                };
                match route.target {
                    Target::Method(name) => format!("method {name} {id}"),
                    Target::Login { default_form } => format!("login {default_form} {id}"),
                    Target::Proxy(to) => {
                        let port = to.port.map_or("-".to_owned(), |port| port.to_string());
                        let scheme = if to.tls { "https" } else { "http" };
                        format!("proxy {scheme} {} {port} {} {id}", to.host, to.path_and_query)
                    }
                }
            }
            Err(Refused { text, replies: true }) => text,
            Err(Refused { text, replies: false }) => format!("! {text}"),
        }
    }

    #[test]
    fn topics_lead_where_the_table_says() {
        for (topic, expected) in TABLE {
            assert_eq!(shown(topic), *expected, "{topic}");
            fuzz(topic.as_bytes());
        }
    }

    #[test]
    fn answers_are_sent_when_there_is_a_correlation() {
        let replies = |topic| parse(topic, "n").unwrap().replies();
        assert!(replies("im://modulus/send?msg_id=1"));
        assert!(replies("im://modulus/send?msg_id="));
        assert!(!replies("im://modulus/send"));
        assert!(replies("http://h/p"), "the proxy is correlated by the whole topic");
    }

    #[test]
    fn forms_are_told_apart_from_free_topics() {
        for uri in ["im://modulus/x", "http://h", "a+b.c-d://x"] {
            assert!(is_uri(uri), "{uri}");
        }
        for free in ["a/b/c", "://x", "1a://x", "a b://x", "im:/x", "/im://x"] {
            assert!(!is_uri(free), "{free}");
        }
        for form in ["Login/HD_Login", "Login/HD_Login/1", "Chat@n/HD_Say/1", "x/HD_"] {
            assert!(is_default_form(form), "{form}");
        }
        for free in ["a/b/c", "Login/Login", "/HD_x", "a/HD_x/1/2", "a"] {
            assert!(!is_default_form(free), "{free}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_topic_panics(topic in "(im|http|https|Login|[a-z]{1,3})?(://|/)?[ -~]{0,40}|.{0,60}") {
            fuzz(topic.as_bytes());
        }
    }
}
