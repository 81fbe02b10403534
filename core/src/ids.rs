//! Names and numbers. A value of these types was checked: only parsing makes one.

use std::fmt;
use std::sync::Arc;

use crate::limits;

/// Milliseconds since the Unix epoch.
pub type TimeMs = u64;

/// Digest used for derived names; given by the caller because this crate hashes nothing itself.
pub type Digest = fn(&[u8]) -> [u8; 32];

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no byte.
    #[error("is empty")]
    Empty,
    /// The name is longer than its limit.
    #[error("is longer than {max} bytes")]
    TooLong {
        /// The limit, in bytes.
        max: usize,
    },
    /// The name contains U+0000–U+001F, U+007F or U+0080–U+009F.
    #[error("contains a control character")]
    Control,
}

fn check(text: &str, max: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > max {
        return Err(NameError::TooLong { max });
    }
    if text.chars().any(char::is_control) {
        return Err(NameError::Control);
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks length and characters.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check(text, $max)?;
                Ok(Self(Arc::from(text)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a feed: UTF-8, 1–255 bytes, no control characters. `user:` and `direct:` are reserved.
    FeedId,
    limits::FEED_ID_BYTES_MAX
);
name!(
    /// The name of a user or of a service: UTF-8, 1–100 bytes, no control characters.
    Uid,
    limits::UID_BYTES_MAX
);
name!(
    /// A sender's own id for a message; makes retries harmless. UTF-8, 1–128 bytes, no control characters.
    ClientMsgId,
    limits::CLIENT_MSG_ID_BYTES_MAX
);
name!(
    /// The key of a reaction, usually one emoji.
    ReactionKey,
    limits::REACTION_KEY_BYTES_MAX
);

/// The prefix of personal feeds.
pub const PERSONAL_PREFIX: &str = "user:";
/// The prefix of direct feeds.
pub const DIRECT_PREFIX: &str = "direct:";
/// The prefix of the uids of senders who did not authenticate.
pub const ANONYMOUS_PREFIX: &str = "anon:";

impl FeedId {
    /// The personal feed of a user.
    pub fn personal(uid: &Uid) -> Self {
        // A uid has at most 100 bytes and no control character, so the result is a valid name.
        Self(Arc::from(format!("{PERSONAL_PREFIX}{uid}")))
    }

    /// The direct feed of two users: `direct:` + hex of the digest of the length-prefixed, sorted pair.
    pub fn direct(a: &Uid, b: &Uid, digest: Digest) -> Self {
        let (a, b) = if a <= b { (a, b) } else { (b, a) };
        let mut bytes = Vec::with_capacity(4 + a.as_str().len() + b.as_str().len());
        for uid in [a, b] {
            // INVARIANT: a uid has at most 100 bytes, so its length fits in the two-byte prefix.
            bytes.extend_from_slice(&(uid.as_str().len() as u16).to_be_bytes());
            bytes.extend_from_slice(uid.as_str().as_bytes());
        }
        let mut text = String::with_capacity(DIRECT_PREFIX.len() + 40);
        text.push_str(DIRECT_PREFIX);
        for byte in &digest(&bytes)[..20] {
            fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"))
                .expect("writing to a String cannot fail");
        }
        Self(Arc::from(text))
    }

    /// The user of a personal feed, `None` for other feeds.
    pub fn personal_uid(&self) -> Option<Uid> {
        self.0.strip_prefix(PERSONAL_PREFIX).and_then(|uid| Uid::parse(uid).ok())
    }

    /// Whether this is the personal feed of that user.
    pub fn is_personal_of(&self, uid: &Uid) -> bool {
        self.0.strip_prefix(PERSONAL_PREFIX) == Some(uid.as_str())
    }

    /// Whether the name begins with a reserved prefix, so that it cannot name a group or an open feed.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(PERSONAL_PREFIX) || self.0.starts_with(DIRECT_PREFIX)
    }
}

impl Uid {
    /// Whether this names a connection that did not authenticate.
    pub fn is_anonymous(&self) -> bool {
        self.0.starts_with(ANONYMOUS_PREFIX)
    }
}

/// The place of an entry in its feed, from 1. 0 means "before the first entry".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SeqId(pub u64);

/// The dense count of messages up to and including an entry. 0 means "no message yet".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Ordinal(pub u64);

impl SeqId {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);
    /// The largest `seq_id` there can be: JavaScript's largest exact integer.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// The following place.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The place before, 0 at the start.
    pub fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl Ordinal {
    /// Before the first message.
    pub const ZERO: Self = Self(0);

    /// The following ordinal.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

macro_rules! number {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(SeqId);
number!(Ordinal);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_at_the_limit_and_one_past_it() {
        let max = limits::FEED_ID_BYTES_MAX;
        assert!(FeedId::parse(&"x".repeat(max)).is_ok());
        assert_eq!(FeedId::parse(&"x".repeat(max + 1)), Err(NameError::TooLong { max }));
        assert!(Uid::parse(&"é".repeat(50)).is_ok());
        assert!(Uid::parse(&"é".repeat(51)).is_err());
        assert_eq!(FeedId::parse(""), Err(NameError::Empty));
        for bad in ["a\0b", "a\nb", "\u{7f}", "\u{85}"] {
            assert_eq!(FeedId::parse(bad), Err(NameError::Control), "{bad:?}");
        }
    }

    #[test]
    fn a_direct_feed_has_one_name_whoever_asks() {
        fn digest(bytes: &[u8]) -> [u8; 32] {
            let mut out = [0_u8; 32];
            for (i, byte) in bytes.iter().enumerate() {
                out[i % 20] = out[i % 20].wrapping_mul(31).wrapping_add(*byte);
            }
            out
        }
        let uid = |text| Uid::parse(text).unwrap();
        assert_eq!(
            FeedId::direct(&uid("a"), &uid("b"), digest),
            FeedId::direct(&uid("b"), &uid("a"), digest)
        );
        // Without the length prefix these two pairs would share one name.
        assert_ne!(
            FeedId::direct(&uid("ab"), &uid("c"), digest),
            FeedId::direct(&uid("a"), &uid("bc"), digest)
        );
    }
}
