//! The access control file: who may publish and subscribe to which free topics.
//!
//! The form is that of mosquitto's `acl_file`: lines `topic [read|write|readwrite|deny] FILTER`, for everybody after the start and
//! `user NAME` for that user; `pattern [read|write|readwrite|deny] FILTER` for all users, with `%u` for the user and `%c` for the client
//! id. Ours besides: `client ID` after `user` narrows what follows to a client id. A topic is allowed when a rule allows it
//! and no rule denies it. Without a file everybody may use what the store lets them use.

use std::path::Path;

use feedlog_core::pattern::Pattern;

/// What somebody wants to do with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Receive what is published to it.
    Read,
    /// Publish to it.
    Write,
}

/// Why an access control file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct AclError {
    /// Counted from 1; 0 when the file could not be read.
    pub line: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// The rules of a file.
#[derive(Debug, Default)]
pub(crate) struct Acl {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    who: Who,
    read: bool,
    write: bool,
    deny: bool,
    filter: Filter,
}

#[derive(Debug, Clone)]
enum Who {
    Anonymous,
    User(String, Option<String>),
    Everybody,
}

#[derive(Debug)]
enum Filter {
    Fixed(Pattern),
    /// With `%u` or `%c`.
    Template(String),
}

/// Files beyond this are refused.
const BYTES_MAX: u64 = 4 << 20;

impl Acl {
    pub(crate) fn load(path: &Path) -> Result<Self, AclError> {
        let unread = |problem| AclError { line: 0, problem };
        let length = std::fs::metadata(path).map_err(|_| unread("the file cannot be read"))?.len();
        if length > BYTES_MAX {
            return Err(unread("the file is larger than 4 MiB"));
        }
        let text = std::fs::read_to_string(path).map_err(|_| unread("the file cannot be read"))?;
        Self::parse(&text)
    }

    pub(crate) fn parse(text: &str) -> Result<Self, AclError> {
        let mut rules = Vec::new();
        let mut who = Who::Anonymous;
        for (index, line) in text.lines().enumerate() {
            let fail = |problem| AclError { line: index + 1, problem };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let rest = rest.trim();
            match word {
                "user" | "client" if rest.is_empty() => return Err(fail("a name is missing")),
                "user" => who = Who::User(rest.to_owned(), None),
                "client" => match &mut who {
                    Who::User(_, client) => *client = Some(rest.to_owned()),
                    _ => return Err(fail("`client` follows a `user`")),
                },
                "topic" => rules.push(rule(who.clone(), rest, false).map_err(fail)?),
                "pattern" => rules.push(rule(Who::Everybody, rest, true).map_err(fail)?),
                _ => return Err(fail("begins with none of user, client, topic, pattern")),
            }
        }
        Ok(Self { rules })
    }

    /// Whether this user (`None` = anonymous) with this client id may do this with the topic.
    pub(crate) fn allows(&self, user: Option<&str>, client_id: &str, topic: &str, access: Access) -> bool {
        let mut allowed = false;
        for rule in &self.rules {
            let concerns = match access {
                Access::Read => rule.read,
                Access::Write => rule.write,
            };
            if !concerns || !rule.who.is(user, client_id) || !rule.filter.matches(user, client_id, topic) {
                continue;
            }
            if rule.deny {
                return false;
            }
            allowed = true;
        }
        allowed
    }
}

fn rule(who: Who, rest: &str, template: bool) -> Result<Rule, &'static str> {
    let (word, filter) = rest.split_once(char::is_whitespace).unwrap_or(("", rest));
    let (read, write, deny, filter) = match word {
        "read" => (true, false, false, filter.trim()),
        "write" => (false, true, false, filter.trim()),
        "readwrite" => (true, true, false, filter.trim()),
        "deny" => (true, true, true, filter.trim()),
        // A filter may hold blanks.
        _ => (true, true, false, rest),
    };
    let pattern = Pattern::parse(filter).ok_or("is not a topic filter")?;
    let filter = if template && (filter.contains("%u") || filter.contains("%c")) {
        Filter::Template(filter.to_owned())
    } else {
        Filter::Fixed(pattern)
    };
    Ok(Rule { who, read, write, deny, filter })
}

impl Who {
    fn is(&self, user: Option<&str>, client_id: &str) -> bool {
        match self {
            Self::Everybody => true,
            Self::Anonymous => user.is_none(),
            Self::User(name, client) => {
                user == Some(name.as_str()) && client.as_ref().is_none_or(|client| client == client_id)
            }
        }
    }
}

impl Filter {
    fn matches(&self, user: Option<&str>, client_id: &str, topic: &str) -> bool {
        match self {
            Self::Fixed(pattern) => pattern.matches(topic),
            Self::Template(text) => {
                // A name with `/`, `+` or `#` in it would reach further than its owner's own topics.
                let plain = |name: &str| !name.is_empty() && !name.contains(['/', '+', '#']);
                let user = user.unwrap_or_default();
                if text.contains("%u") && !plain(user) || text.contains("%c") && !plain(client_id) {
                    return false;
                }
                let filter = text.replace("%u", user).replace("%c", client_id);
                Pattern::parse(&filter).is_some_and(|pattern| pattern.matches(topic))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
# everybody without a name
topic read public/#

user ada
topic notes/#
topic deny notes/secret
topic write out/ada box
client phone
topic readwrite phone/only

pattern readwrite own/%u/#
pattern read client/%c
";

    #[test]
    fn rules_are_read_as_written() {
        let acl = Acl::parse(FILE).unwrap();
        use Access::{Read, Write};
        for (user, client, topic, access, expected) in [
            (None, "x", "public/a", Read, true),
            (None, "x", "public/a", Write, false),
            (Some("ada"), "x", "public/a", Read, false),
            (Some("ada"), "x", "notes/a", Write, true),
            (Some("ada"), "x", "notes/secret", Read, false),
            (Some("ada"), "x", "out/ada box", Write, true),
            (Some("ada"), "x", "out/ada box", Read, false),
            (Some("ada"), "phone", "phone/only", Read, true),
            (Some("ada"), "other", "phone/only", Read, false),
            (Some("bob"), "x", "own/bob/y", Write, true),
            (Some("bob"), "x", "own/ada/y", Write, false),
            (Some("+"), "x", "own/ada/y", Write, false),
            (None, "x", "own//y", Write, false),
            (Some("bob"), "c1", "client/c1", Read, true),
            (Some("bob"), "+", "client/c1", Read, false),
            (Some("bob"), "c1", "elsewhere", Read, false),
        ] {
            assert_eq!(
                acl.allows(user, client, topic, access),
                expected,
                "{user:?} {client} {topic} {access:?}"
            );
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, line) in [
            ("topic a\nuser\n", 2),
            ("client x\n", 1),
            ("\n\ntopics a", 3),
            ("topic a/#/b", 1),
            ("topic read a+", 1),
        ] {
            assert_eq!(Acl::parse(text).unwrap_err().line, line, "{text}");
        }
    }
}
