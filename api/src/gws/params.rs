//! Parameters of the services beside the rooms: from the query, from a form in the body, or from both [gws: history].

use crate::errors::ApiError;
use crate::http::call::query_pairs;

/// Parameters by name. Those of the body come first, as where the original was written; of repeated ones the first counts.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn parse(query: &str, body: &[u8]) -> Result<Self, ApiError> {
        let body = std::str::from_utf8(body).map_err(|_| ApiError::field("body", "is not UTF-8"))?;
        let mut pairs = query_pairs(body.trim_matches(['\r', '\n']))?;
        pairs.extend(query_pairs(query)?);
        Ok(Self(pairs))
    }

    /// A parameter that is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A number, as Go's `Atoi` reads it; none when it is no number.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_from_the_body_and_from_the_query() {
        let params =
            Params::parse("groupName=%2Fa&size=5&size=6&empty=", b"groupName=%2Fb%20c&x=1+2\r\n").unwrap();
        assert_eq!(params.get("groupName"), Some("/b c"), "the body comes first");
        assert_eq!((params.get("x"), params.get("empty"), params.get("none")), (Some("1 2"), None, None));
        assert_eq!(params.number("size"), Some(5));
        for (text, number) in [
            ("7", Some(7)),
            ("-50", Some(-50)),
            ("%2B3", Some(3)),
            ("0x10", None),
            ("1.5", None),
            ("", None),
            ("9223372036854775808", None),
        ] {
            let params = Params::parse(&format!("n={text}"), b"").unwrap();
            assert_eq!(params.number("n"), number, "{text}");
        }
        assert!(Params::parse("a=%ff", b"").is_err());
        assert!(Params::parse("", b"a=\xff").is_err());
    }
}
