//! How one value of the configuration is read from TOML and from the environment, and written back.

use std::net::SocketAddr;
use std::path::PathBuf;

/// A type that a key can have.
pub(super) trait Value: Sized {
    /// For error messages: what is expected.
    const EXPECTED: &'static str;

    /// From a TOML value; `None` when it is of another type.
    fn from_toml(value: &toml::Value) -> Option<Self>;

    /// From the text of an environment variable.
    fn from_text(text: &str) -> Option<Self>;

    /// As TOML text; `None` when the key is not set.
    fn to_toml(&self) -> Option<String>;
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_toml(value: &toml::Value) -> Option<Self> {
        value.as_bool()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn to_toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for u64 {
    const EXPECTED: &'static str = "a whole number, 0 or more";

    fn from_toml(value: &toml::Value) -> Option<Self> {
        value.as_integer().and_then(|n| Self::try_from(n).ok())
    }

    fn from_text(text: &str) -> Option<Self> {
        // TOML's digit separators are accepted here too, so that a value can be copied from the file.
        text.replace('_', "").parse().ok()
    }

    fn to_toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for String {
    const EXPECTED: &'static str = "a string";

    fn from_toml(value: &toml::Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "a path in quotes";

    fn from_toml(value: &toml::Value) -> Option<Self> {
        value.as_str().map(Self::from)
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(Self::from(text))
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
}

impl Value for SocketAddr {
    const EXPECTED: &'static str = "an address and port in quotes, e.g. \"127.0.0.1:7171\" or \"[::1]:7171\"";

    fn from_toml(value: &toml::Value) -> Option<Self> {
        value.as_str().and_then(Self::from_text)
    }

    fn from_text(text: &str) -> Option<Self> {
        // `localhost` is what people type first.
        match text.strip_prefix("localhost:") {
            Some(port) => port.parse().ok().map(|port| Self::from(([127, 0, 0, 1], port))),
            None => text.parse().ok(),
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Value for Vec<String> {
    const EXPECTED: &'static str = "a list of strings (in the environment: separated by commas)";

    fn from_toml(value: &toml::Value) -> Option<Self> {
        value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
    }

    fn to_toml(&self) -> Option<String> {
        Some(format!("[{}]", self.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", ")))
    }
}

/// Unset unless given. An empty environment variable unsets.
impl<T: Value> Value for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn from_toml(value: &toml::Value) -> Option<Self> {
        T::from_toml(value).map(Some)
    }

    fn from_text(text: &str) -> Option<Self> {
        if text.is_empty() { Some(None) } else { T::from_text(text).map(Some) }
    }

    fn to_toml(&self) -> Option<String> {
        self.as_ref().and_then(T::to_toml)
    }
}

/// A value that is never shown: `config show`, `Debug` and errors print a mask.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Value for Secret {
    const EXPECTED: &'static str = "a string of at least 16 characters";

    fn from_toml(value: &toml::Value) -> Option<Self> {
        value.as_str().and_then(Self::from_text)
    }

    fn from_text(text: &str) -> Option<Self> {
        (text.chars().count() >= SECRET_CHARS_MIN).then(|| Self(text.to_owned()))
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted("********"))
    }
}

impl Value for Vec<Secret> {
    const EXPECTED: &'static str =
        "a list of strings of at least 16 characters (in the environment: separated by commas)";

    fn from_toml(value: &toml::Value) -> Option<Self> {
        value.as_array()?.iter().map(Secret::from_toml).collect()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Secret::from_text).collect()
    }

    fn to_toml(&self) -> Option<String> {
        Some(format!("[{}]", self.iter().filter_map(Secret::to_toml).collect::<Vec<_>>().join(", ")))
    }
}

/// Shorter secrets can be guessed.
const SECRET_CHARS_MIN: usize = 16;

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? } $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
        }

        impl $name {
            /// Every value with its text.
            pub const ALL: &'static [(&'static str, Self)] = &[$(($text, Self::$variant)),+];

            /// As written in the configuration.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::from_text(text).ok_or_else(|| format!("expected {}", Self::EXPECTED))
            }
        }

        impl Value for $name {
            const EXPECTED: &'static str = $expected;

            fn from_toml(value: &toml::Value) -> Option<Self> {
                value.as_str().and_then(Self::from_text)
            }

            fn from_text(text: &str) -> Option<Self> {
                Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
            }

            fn to_toml(&self) -> Option<String> {
                Some(quoted(self.as_str()))
            }
        }
    };
}

choice! {
    /// Which engine keeps the data.
    Engine {
        /// RocksDB.
        Rocksdb = "rocksdb",
        /// sled.
        Sled = "sled",
    }
    "\"rocksdb\" or \"sled\""
}

choice! {
    /// Who gets mqant's pushes without having published to a URI.
    Impush {
        /// Connections of MQTT 3.1 with a user.
        Auto = "auto",
        /// Every connection with a user.
        Always = "always",
        /// Nobody.
        OnUse = "on_use",
    }
    "\"auto\", \"always\" or \"on_use\""
}

choice! {
    /// How log lines look.
    LogFormat {
        /// For people.
        Pretty = "pretty",
        /// One JSON object per line.
        Json = "json",
    }
    "\"pretty\" or \"json\""
}

choice! {
    /// How JWTs are signed with a shared secret.
    HmacAlgorithm {
        /// HMAC with SHA-256.
        Hs256 = "HS256",
        /// HMAC with SHA-384.
        Hs384 = "HS384",
        /// HMAC with SHA-512.
        Hs512 = "HS512",
    }
    "\"HS256\", \"HS384\" or \"HS512\""
}

choice! {
    /// How JWTs are signed with a private key.
    KeyAlgorithm {
        /// RSA PKCS#1 v1.5 with SHA-256.
        Rs256 = "RS256",
        /// ECDSA on P-256.
        Es256 = "ES256",
        /// Ed25519.
        EdDsa = "EdDSA",
    }
    "\"RS256\", \"ES256\" or \"EdDSA\""
}

impl From<Impush> for feedlog_api::mqtt::Impush {
    fn from(impush: Impush) -> Self {
        match impush {
            Impush::Auto => Self::Auto,
            Impush::Always => Self::Always,
            Impush::OnUse => Self::OnUse,
        }
    }
}

impl From<HmacAlgorithm> for feedlog_service::auth::JwtAlgorithm {
    fn from(algorithm: HmacAlgorithm) -> Self {
        match algorithm {
            HmacAlgorithm::Hs256 => Self::Hs256,
            HmacAlgorithm::Hs384 => Self::Hs384,
            HmacAlgorithm::Hs512 => Self::Hs512,
        }
    }
}

impl From<KeyAlgorithm> for feedlog_service::auth::JwtAlgorithm {
    fn from(algorithm: KeyAlgorithm) -> Self {
        match algorithm {
            KeyAlgorithm::Rs256 => Self::Rs256,
            KeyAlgorithm::Es256 => Self::Es256,
            KeyAlgorithm::EdDsa => Self::EdDsa,
        }
    }
}
