//! What clients say: one JSON object in each text frame, and the names of channels.

use std::collections::HashMap;
use std::sync::Arc;

use feedlog_core::ids::{FeedId, SeqId, Uid};
use serde_json::value::RawValue;

/// The answer to what was done.
pub(crate) const DONE: &str = r#"{"result":true}"#;
/// Only who logged in may do this.
pub(crate) const NOT_AUTH: &str = r#"{"code":1,"msg":"Not Auth"}"#;
/// The token is nobody's; the connection ends. [connmix: invalid token]
pub(crate) const AUTH_FAILED: &str = r#"{"code":1,"msg":"Auth Failed"}"#;
/// An op that we do not know; the original says that it is done. [connmix: unknown op]
pub(crate) const INVALID_OP: &str = r#"{"code":1,"msg":"Invalid Op"}"#;
/// A channel that we do not know, or of somebody else. [connmix: unknown channel type]
pub(crate) const INVALID_CHANNEL: &str = r#"{"code":1,"msg":"Invalid Channel"}"#;
/// `since` is no place.
pub(crate) const INVALID_SINCE: &str = r#"{"code":1,"msg":"Invalid Since"}"#;
/// One channel more than a connection may have.
pub(crate) const TOO_MANY: &str = r#"{"code":1,"msg":"Too Many Channels"}"#;
/// The store cannot do it now; nothing happened.
pub(crate) const UNAVAILABLE: &str = r#"{"code":1,"msg":"Unavailable"}"#;
/// One request more than allowed.
pub(crate) const TOO_FAST: &str = r#"{"code":1,"msg":"Too Many Requests"}"#;

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Auth {
        token: String,
    },
    Subscribe {
        channel: String,
        since: Since,
    },
    Unsubscribe {
        channel: String,
    },
    /// Anything else.
    Other,
}

/// From which place on a subscription is to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// Not given: a client of the original, which knows of no places. Live only.
    Unaware,
    /// `null`: from now on, and the client is told places.
    Now,
    /// After this entry.
    After(SeqId),
    /// Not a place.
    Bad,
}

/// Why a connection is closed without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    NotJson,
    NoOp,
    NotAChannel,
}

impl Fault {
    /// The reason in the close frame; there is no other answer.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::NotJson => "not JSON",
            Self::NoOp => "op is missing",
            Self::NotAChannel => "channel is not two parts at @",
        }
    }
}

/// Reads a text frame. The op is looked at before anything else. [connmix: check op first]
pub(crate) fn parse(text: &str) -> Result<Op, Fault> {
    let fields: HashMap<String, &RawValue> = match serde_json::from_str(text) {
        Ok(fields) => fields,
        // JSON that is no object has no op.
        Err(_) if serde_json::from_str::<&RawValue>(text).is_ok() => return Err(Fault::NoOp),
        Err(_) => return Err(Fault::NotJson),
    };
    let field = |name: &str| fields.get(name).map(|raw| raw.get()).filter(|raw| *raw != "null");
    let op = field("op").ok_or(Fault::NoOp)?;
    let text_of = |name: &str| field(name).and_then(|raw| serde_json::from_str::<String>(raw).ok());
    let channel = || text_of("channel").filter(|text| parts(text).is_some()).ok_or(Fault::NotAChannel);
    match serde_json::from_str::<String>(op).as_deref() {
        Ok("auth") => {
            // Lua writes a number as its text, and nothing for what is missing.
            let number =
                field("token").filter(|raw| raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()));
            let token = text_of("token").or_else(|| number.map(str::to_owned)).unwrap_or_default();
            Ok(Op::Auth { token })
        }
        Ok("subscribe") => {
            Ok(Op::Subscribe { channel: channel()?, since: since(fields.get("since").copied()) })
        }
        Ok("unsubscribe") => Ok(Op::Unsubscribe { channel: channel()? }),
        _ => Ok(Op::Other),
    }
}

fn since(raw: Option<&RawValue>) -> Since {
    match raw.map(RawValue::get) {
        None => Since::Unaware,
        Some("null") => Since::Now,
        Some(text) => match text.parse::<u64>() {
            Ok(seq) if seq <= SeqId::MAX.0 => Since::After(SeqId(seq)),
            _ => Since::Bad,
        },
    }
}

/// A channel has exactly two parts at `@`.
fn parts(channel: &str) -> Option<(&str, &str)> {
    let (id, kind) = channel.split_once('@')?;
    (!kind.contains('@')).then_some((id, kind))
}

/// Which types of channels there are besides `user` and `<id>@<type>`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Types {
    /// `@balance` is `<uid>@balance`, of that user alone.
    pub(crate) private: Vec<Arc<str>>,
    /// `BTCUSDT@depth` is called so inside as well.
    pub(crate) public: Vec<Arc<str>>,
}

/// What a channel is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The feed whose messages it has.
    pub(crate) feed: FeedId,
    /// Of a personal feed: only those of this private type; without, only those of none.
    pub(crate) private: Option<Arc<str>>,
    /// The name of the channel that publishers use.
    pub(crate) name: Arc<str>,
}

/// Why a channel is refused; the connection stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    NotAuth,
    Invalid,
}

impl Types {
    /// The channel that a client names `<id>@<type>`.
    ///
    /// | client | channel | who |
    /// |---|---|---|
    /// | `@user`, `1001@user` | `user:1001` | user 1001 |
    /// | `@balance`, `1001@balance` | `1001@balance` | user 1001 |
    /// | `BTCUSDT@depth` | `BTCUSDT@depth` | everybody |
    /// | `100001@video` | `video:100001` | everybody |
    pub(crate) fn of_client(&self, channel: &str, uid: Option<&Uid>) -> Result<Target, Refused> {
        let (id, kind) = parts(channel).ok_or(Refused::Invalid)?;
        if kind == "user" || self.is_private(kind) {
            let uid = uid.ok_or(Refused::NotAuth)?;
            if !id.is_empty() && id != uid.as_str() {
                return Err(Refused::Invalid);
            }
            return Ok(self.personal(uid, kind));
        }
        if id.is_empty() || kind.is_empty() {
            return Err(Refused::Invalid);
        }
        if self.is_public(kind) {
            return open(channel).ok_or(Refused::Invalid);
        }
        open(&format!("{kind}:{id}")).ok_or(Refused::Invalid)
    }

    /// The channel that a publisher names. `None` for a name that no channel can have.
    pub(crate) fn of_publisher(&self, name: &str) -> Option<Target> {
        if let Some(uid) = name.strip_prefix(feedlog_core::ids::PERSONAL_PREFIX) {
            return (!name.contains(char::is_whitespace))
                .then(|| Some(self.personal(&user(uid)?, "user")))
                .flatten();
        }
        // The last `@`: a uid may hold one.
        match name.rsplit_once('@') {
            None => open(name),
            Some((uid, kind)) if self.is_private(kind) => {
                (!uid.contains(char::is_whitespace)).then(|| Some(self.personal(&user(uid)?, kind))).flatten()
            }
            Some((_, kind)) if self.is_public(kind) => open(name),
            // No client could subscribe to it; and should it be meant for one user, everybody could read it.
            Some(_) => None,
        }
    }

    fn is_private(&self, kind: &str) -> bool {
        self.private.iter().any(|private| **private == *kind)
    }

    fn is_public(&self, kind: &str) -> bool {
        self.public.iter().any(|public| **public == *kind)
    }

    fn personal(&self, uid: &Uid, kind: &str) -> Target {
        let feed = FeedId::personal(uid);
        match self.private.iter().find(|private| ***private == *kind) {
            Some(private) => {
                let name = format!("{uid}@{private}").into();
                Target { feed, private: Some(private.clone()), name }
            }
            None => Target { name: feed.as_str().into(), feed, private: None },
        }
    }
}

/// The service whose personal feed holds the frames of clients begins so; it is no user's name here.
pub(crate) const TOPIC_PREFIX: &str = "connmix.topic:";

/// A user who can log in.
fn user(text: &str) -> Option<Uid> {
    Uid::parse(text).ok().filter(|uid| !uid.is_anonymous() && !text.starts_with(TOPIC_PREFIX))
}

/// Any string without spaces is a channel; ours are also names of feeds, and never of somebody's own. [connmix: pubsub]
fn open(name: &str) -> Option<Target> {
    if name.contains(char::is_whitespace) {
        return None;
    }
    let feed = FeedId::parse(name).ok().filter(|feed| !feed.is_reserved())?;
    Some(Target { name: name.into(), feed, private: None })
}

/// A uid as a webhook or a context has it: JSON text, or a whole number in decimal, never `1e+14`. [connmix: uid type]
pub(crate) fn uid(raw: &str) -> Option<Uid> {
    if raw.starts_with('"') {
        return user(&serde_json::from_str::<String>(raw).ok()?);
    }
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return user(if digits == "0" { "0" } else { raw });
    }
    // 1e3 and 1001.0 are whole as well; beyond 2^53 nobody knows which number was meant.
    let number = raw.parse::<f64>().ok().filter(|number| number.fract() == 0.0 && number.abs() < 9.0e15)?;
    user(&format!("{number:.0}"))
}

/// For fuzzing: any text is an op or a fault; what it names is a feed of the client's own or one of nobody's.
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let types = Types { private: vec!["balance".into()], public: vec!["depth".into()] };
    let ann = Uid::parse("1001").expect("INVARIANT: digits are a uid");
    for channel in [text, &format!("{text}@user"), &format!("{text}@video")] {
        for uid in [None, Some(&ann)] {
            if let Ok(target) = types.of_client(channel, uid) {
                let own = uid.is_some() && target.feed.is_personal_of(&ann);
                assert!(own || !target.feed.is_reserved(), "{channel}");
                assert_eq!(types.of_publisher(&target.name), Some(target), "{channel}");
            }
        }
    }
    if let Ok(Op::Subscribe { channel, .. } | Op::Unsubscribe { channel }) = parse(text) {
        assert!(parts(&channel).is_some());
    }
    assert!(uid(text).is_none_or(|uid| !uid.is_anonymous()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types() -> Types {
        Types { private: vec!["balance".into()], public: vec!["depth".into()] }
    }

    fn who(text: &str) -> Uid {
        Uid::parse(text).unwrap()
    }

    #[test]
    fn every_frame_of_the_page_is_read() {
        let channel = || "@user".to_owned();
        for (text, op) in [
            (r#"{"op":"auth","token":"***"}"#, Op::Auth { token: "***".into() }),
            // Later versions check op first, so auth needs no channel.
            (r#"{"op":"auth"}"#, Op::Auth { token: String::new() }),
            (r#"{"op":"auth","token":17}"#, Op::Auth { token: "17".into() }),
            (
                r#"{"op":"subscribe","channel":"@user"}"#,
                Op::Subscribe { channel: channel(), since: Since::Unaware },
            ),
            (
                r#"{"op":"subscribe","channel":"@user","since":7}"#,
                Op::Subscribe { channel: channel(), since: Since::After(SeqId(7)) },
            ),
            (
                r#"{"op":"subscribe","channel":"@user","since":null}"#,
                Op::Subscribe { channel: channel(), since: Since::Now },
            ),
            (
                r#"{"op":"subscribe","channel":"@user","since":"7"}"#,
                Op::Subscribe { channel: channel(), since: Since::Bad },
            ),
            (
                r#"{"op":"subscribe","channel":"@user","since":9007199254740992}"#,
                Op::Subscribe { channel: channel(), since: Since::Bad },
            ),
            (r#"{"op":"unsubscribe","channel":"@user"}"#, Op::Unsubscribe { channel: channel() }),
            (r#"{"op":"nope"}"#, Op::Other),
            (r#"{"op":7,"channel":"none"}"#, Op::Other),
        ] {
            assert_eq!(parse(text), Ok(op), "{text}");
        }
    }

    #[test]
    fn what_closes_without_an_answer() {
        for (text, fault) in [
            ("", Fault::NotJson),
            ("{", Fault::NotJson),
            ("ping", Fault::NotJson),
            ("[]", Fault::NoOp),
            ("17", Fault::NoOp),
            ("{}", Fault::NoOp),
            (r#"{"op":null}"#, Fault::NoOp),
            (r#"{"channel":"@user"}"#, Fault::NoOp),
            (r#"{"op":"subscribe"}"#, Fault::NotAChannel),
            (r#"{"op":"subscribe","channel":""}"#, Fault::NotAChannel),
            (r#"{"op":"subscribe","channel":"user"}"#, Fault::NotAChannel),
            (r#"{"op":"subscribe","channel":"a@b@c"}"#, Fault::NotAChannel),
            (r#"{"op":"unsubscribe","channel":5}"#, Fault::NotAChannel),
        ] {
            assert_eq!(parse(text), Err(fault), "{text}");
        }
    }

    #[test]
    fn the_table_of_channels() {
        let (types, ann) = (types(), who("1001"));
        for (channel, feed, private, name) in [
            ("@user", "user:1001", None, "user:1001"),
            ("1001@user", "user:1001", None, "user:1001"),
            ("@balance", "user:1001", Some("balance"), "1001@balance"),
            ("1001@balance", "user:1001", Some("balance"), "1001@balance"),
            ("BTCUSDT@depth", "BTCUSDT@depth", None, "BTCUSDT@depth"),
            ("100001@video", "video:100001", None, "video:100001"),
        ] {
            let target = types.of_client(channel, Some(&ann)).unwrap();
            assert_eq!(target.feed.as_str(), feed, "{channel}");
            assert_eq!(target.private.as_deref(), private, "{channel}");
            assert_eq!(&*target.name, name, "{channel}");
            // Publishers find the same place by the name inside.
            assert_eq!(types.of_publisher(name), Some(target), "{name}");
        }
        let bob = who("bob@example.org");
        let target = types.of_client("@balance", Some(&bob)).unwrap();
        assert_eq!(types.of_publisher("bob@example.org@balance"), Some(target), "a uid with an @");
        for channel in ["1002@user", "1002@balance", "@", "@video", "x@", "a b@video", "a@direct", "b@user:a"]
        {
            assert_eq!(types.of_client(channel, Some(&ann)), Err(Refused::Invalid), "{channel}");
        }
        for channel in ["@user", "1001@user", "@balance"] {
            assert_eq!(types.of_client(channel, None), Err(Refused::NotAuth), "{channel}");
        }
        assert!(types.of_client("1@video", None).is_ok(), "open to those who may be anonymous");
        for name in [
            "",
            "a b",
            "direct:00",
            "user:",
            "user:anon:1",
            "user:a b",
            "a b@balance",
            "@balance",
            "x\n",
            "1001@wallet",
            "user:connmix.topic:frames",
        ] {
            assert_eq!(types.of_publisher(name), None, "{name:?}");
        }
    }

    #[test]
    fn uids_are_decimal_text() {
        for (raw, text) in [
            ("1001", "1001"),
            (r#""1001""#, "1001"),
            (r#""ann""#, "ann"),
            ("100000000000000", "100000000000000"),
            ("1e14", "100000000000000"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("1001.0", "1001"),
            ("-5", "-5"),
            ("-0", "0"),
        ] {
            assert_eq!(uid(raw).as_ref().map(Uid::as_str), Some(text), "{raw}");
        }
        for raw in [
            "null",
            "true",
            "1.5",
            "1e300",
            "1e16",
            r#""""#,
            r#""anon:7""#,
            r#""connmix.topic:frames""#,
            r#""a\u0000b""#,
            "[1]",
            "{}",
        ] {
            assert_eq!(uid(raw), None, "{raw}");
        }
    }
}
