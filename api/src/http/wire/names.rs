//! Names and numbers as JSON carries them: a value of these types was checked, and each knows its own schema.

use std::borrow::Cow;
use std::fmt;

use feedlog_core::ids::{ClientMsgId, FeedId, SeqId, Uid};
use feedlog_core::limits;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde_json::{Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// JavaScript's largest exact integer; every id and number on this wire is at most this.
pub(crate) const WHOLE_MAX: u64 = SeqId::MAX.0;

/// The schema of a name of 1 to `max` bytes without control characters. A pattern cannot count bytes, so it gives what
/// always fits: `max` ASCII characters, and fewer of those that take two, three or four bytes.
pub(crate) fn name_schema(max: usize, description: &str) -> Value {
    let pattern = format!(
        "^(?:[ -~]{{1,{max}}}|[ -~\\u00a0-\\u07ff]{{1,{two}}}|[ -~\\u00a0-\\ud7ff\\ue000-\\uffff]{{1,{three}}})$",
        two = max / 2,
        three = max / 3,
    );
    json!({"type": "string", "minLength": 1, "maxLength": max, "pattern": pattern, "description": description})
}

pub(crate) fn whole_schema(description: &str) -> Value {
    json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": WHOLE_MAX, "description": description})
}

fn to_schema(value: Value) -> RefOr<Schema> {
    serde_json::from_value(value).expect("the schema is written in this file and a test reads it")
}

macro_rules! name {
    ($wire:ident, $inner:ident, $public:literal, $max:expr, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug, Clone)]
        pub(crate) struct $wire(pub(crate) $inner);

        impl<'de> Deserialize<'de> for $wire {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                $inner::parse(&text).map(Self).map_err(de::Error::custom)
            }
        }

        impl PartialSchema for $wire {
            fn schema() -> RefOr<Schema> {
                to_schema(name_schema($max, $doc))
            }
        }

        impl ToSchema for $wire {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed($public)
            }
        }
    };
}

name!(
    FeedName,
    FeedId,
    "FeedId",
    limits::FEED_ID_BYTES_MAX,
    "The name of a feed: UTF-8, 1 to 255 bytes, no control characters."
);
name!(
    UidName,
    Uid,
    "Uid",
    limits::UID_BYTES_MAX,
    "The name of a user: UTF-8, 1 to 100 bytes, no control characters."
);
name!(
    ClientId,
    ClientMsgId,
    "ClientMsgId",
    limits::CLIENT_MSG_ID_BYTES_MAX,
    "The sender's own id, which makes retries harmless: UTF-8, 1 to 128 bytes, no control characters."
);

/// A whole number of 0 to 2^53 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whole(pub(crate) u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WholeVisitor;

        impl Visitor<'_> for WholeVisitor {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of 0 to 9007199254740991")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Whole, E> {
                if value <= WHOLE_MAX {
                    Ok(Whole(value))
                } else {
                    Err(E::invalid_value(de::Unexpected::Other("a larger number"), &self))
                }
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Whole, E> {
                match u64::try_from(value) {
                    Ok(value) => self.visit_u64(value),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Other("a negative number"), &self)),
                }
            }

            // JSON has one kind of number: 3.0 is a whole number there.
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Whole, E> {
                if value.fract() == 0.0 && (0.0..=WHOLE_MAX as f64).contains(&value) {
                    Ok(Whole(value as u64))
                } else {
                    Err(E::invalid_value(de::Unexpected::Other("another number"), &self))
                }
            }
        }

        deserializer.deserialize_any(WholeVisitor)
    }
}

impl PartialSchema for Whole {
    fn schema() -> RefOr<Schema> {
        to_schema(whole_schema("A whole number below 2^53."))
    }
}

impl ToSchema for Whole {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Whole")
    }
}

impl From<Whole> for SeqId {
    fn from(whole: Whole) -> Self {
        Self(whole.0)
    }
}

/// Text for people of at most `MAX` bytes.
#[derive(Debug, Clone)]
pub(crate) struct Text<const MAX: usize>(pub(crate) std::sync::Arc<str>);

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        if text.len() > MAX {
            return Err(de::Error::custom(format_args!("is longer than {MAX} bytes")));
        }
        if text.chars().any(char::is_control) {
            return Err(de::Error::custom("contains a control character"));
        }
        Ok(Self(std::sync::Arc::from(&*text)))
    }
}

impl<const MAX: usize> PartialSchema for Text<MAX> {
    fn schema() -> RefOr<Schema> {
        let Value::Object(mut schema) = name_schema(MAX, "Text for people, without control characters.")
        else {
            unreachable!("a schema is an object")
        };
        schema.insert("minLength".into(), json!(0));
        if let Some(Value::String(pattern)) = schema.get_mut("pattern") {
            *pattern = pattern.replace("{1,", "{0,");
        }
        to_schema(Value::Object(schema))
    }
}

impl<const MAX: usize> ToSchema for Text<MAX> {
    fn name() -> Cow<'static, str> {
        Cow::Owned(format!("Text{MAX}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_the_limit_and_one_past_it() {
        let parse = |text: &str| serde_json::from_str::<Whole>(text).map(|whole| whole.0);
        assert_eq!(parse("0").unwrap(), 0);
        assert_eq!(parse("9007199254740991").unwrap(), WHOLE_MAX);
        assert_eq!(parse("3.0").unwrap(), 3);
        for bad in ["9007199254740992", "-1", "1.5", "\"1\"", "null", "1e300", "18446744073709551616", "true"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_schema_reads_back() {
        for schema in [
            FeedName::schema(),
            UidName::schema(),
            ClientId::schema(),
            Whole::schema(),
            Text::<255>::schema(),
        ] {
            let json = serde_json::to_value(schema).unwrap();
            assert!(json["type"].is_string(), "{json}");
        }
    }

    #[test]
    fn names_refuse_control_characters_and_one_byte_too_many() {
        let parse = |text: &str| serde_json::from_value::<UidName>(json!(text)).map(|name| name.0);
        assert!(parse(&"u".repeat(100)).is_ok());
        for bad in [String::new(), "u".repeat(101), "a\nb".into(), "\u{85}".into()] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }
}
