//! The envelope of answers, and errors as its text.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use feedlog_service::auth::AuthError;
use feedlog_service::{ReadError, SubmitError};
use serde::Serialize;
use serde_json::value::RawValue;

use super::uri::Refused;
use crate::errors::{ApiError, Kind};

/// Names one request in an answer: 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace(pub u64);

impl Trace {
    /// A new one, unlike all others of this process.
    pub fn next() -> Self {
        static START: LazyLock<u64> = LazyLock::new(|| {
            let mut random = [0_u8; 8];
            // Without randomness traces of two runs may look alike; nothing rests on them.
            let _ = getrandom::fill(&mut random);
            u64::from_be_bytes(random)
        });
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // An odd factor: a permutation, so that no two counts give the same.
        Self(START.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }
}

impl std::fmt::Display for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Trace {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a request has no result. The text is what the client gets as `Error`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{text}")]
pub struct ImError {
    /// What it is, for wires that have codes.
    pub kind: Kind,
    /// For the client; never empty.
    pub text: String,
    /// When trying again makes sense, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl ImError {
    pub(super) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), retry_after_ms: None }
    }

    /// Before login only login is allowed.
    pub fn not_logined() -> Self {
        ApiError::new(Kind::Unauthenticated, "").into()
    }

    /// More requests are under way than one connection may have. Nothing happened.
    pub fn queue_full() -> Self {
        Self { retry_after_ms: Some(1_000), ..Self::new(Kind::RateLimited, "the work queue is full!") }
    }
}

impl From<ApiError> for ImError {
    fn from(error: ApiError) -> Self {
        Self { kind: error.kind, text: error.to_mqant(), retry_after_ms: error.retry_after_ms }
    }
}

impl From<SubmitError> for ImError {
    fn from(error: SubmitError) -> Self {
        ApiError::from(error).into()
    }
}

impl From<ReadError> for ImError {
    fn from(error: ReadError) -> Self {
        ApiError::from(error).into()
    }
}

/// Of a login.
impl From<AuthError> for ImError {
    fn from(error: AuthError) -> Self {
        ApiError::from(error).into()
    }
}

impl From<Refused> for ImError {
    fn from(refused: Refused) -> Self {
        Self::new(Kind::NotFound, refused.text)
    }
}

/// An answer: exactly these keys in exactly this order, `Error` empty on success and `Result` null on error.
pub fn envelope(trace: Trace, outcome: Result<&RawValue, &ImError>) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Envelope<'a> {
        trace: Trace,
        error: &'a str,
        result: Option<&'a RawValue>,
    }
    let (error, result) = match outcome {
        Ok(result) => ("", Some(result)),
        Err(error) => (error.text.as_str(), None),
    };
    serde_json::to_vec(&Envelope { trace, error, result })
        .expect("INVARIANT: text and JSON that was written before are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_envelope_is_as_on_the_page() {
        let result = serde_json::value::to_raw_value("success").unwrap();
        assert_eq!(
            text(envelope(Trace(0x9421_8104_768a_a033), Ok(&result))),
            r#"{"Trace":"94218104768aa033","Error":"","Result":"success"}"#
        );
        let error = ImError::new(Kind::BadRequest, "a \"b\"");
        assert_eq!(
            text(envelope(Trace(1), Err(&error))),
            r#"{"Trace":"0000000000000001","Error":"a \"b\"","Result":null}"#
        );
        assert_ne!(Trace::next(), Trace::next());
    }

    #[test]
    fn errors_have_stable_texts() {
        use feedlog_core::policy::Denied;
        let denied = |denied| ImError::from(SubmitError::Denied(denied));
        assert_eq!(ImError::not_logined().text, "Not Logined");
        assert_eq!(denied(Denied::Unauthenticated).text, "Not Logined");
        assert!(denied(Denied::Forbidden).text.starts_with("forbidden: "));
        let unavailable = ImError::from(SubmitError::Unavailable("closing"));
        assert!(unavailable.text.starts_with("unavailable: "));
        assert_eq!(unavailable.retry_after_ms, Some(1_000));
        assert_eq!(ImError::queue_full().text, "the work queue is full!");
    }
}
