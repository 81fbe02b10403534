//! Text as MQTT allows it.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

use super::FIELD_BYTES_MAX;

/// Well-formed UTF-8 without U+0000, at most 65,535 bytes; usually a slice of what was read, so a clone copies nothing.
///
/// MQTT5 [MQTT-1.5.4-1] (no surrogates), [MQTT-1.5.4-2] (no U+0000), [MQTT-1.5.4-3] (U+FEFF stays where it is); the same
/// as 3.1.1 [MQTT-1.5.3-1] to [MQTT-1.5.3-3].
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(Bytes);

impl Text {
    /// A copy of `text`, when MQTT allows it.
    pub fn new(text: &str) -> Option<Self> {
        let allowed = text.len() <= FIELD_BYTES_MAX && !text.as_bytes().contains(&0);
        allowed.then(|| Self(Bytes::copy_from_slice(text.as_bytes())))
    }

    /// The same bytes, when they are a text that MQTT allows.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        (bytes.len() <= FIELD_BYTES_MAX && is_text(&bytes)).then_some(Self(bytes))
    }

    /// The text. The check is repeated, because this crate may not skip it; it costs a few nanoseconds.
    pub fn as_str(&self) -> &str {
        // INVARIANT: only checked bytes are in a `Text`.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The bytes of the text.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The bytes of the text, without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// Whether MQTT allows these bytes as a text. Control characters and non-characters are allowed: MQTT5 §1.5.4.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// So that a map of texts can be asked for a `&str`.
impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

/// As `str` hashes, because of [`Borrow`].
impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
