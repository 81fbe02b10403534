//! One table, [`Kind::row`]: our errors → every protocol. `code` is the stable name of the kind on every wire that has
//! names.

use feedlog_core::feed::Rejected;
use feedlog_core::policy::Denied;
use feedlog_service::auth::AuthError;
use feedlog_service::{ReadError, SubmitError};
use serde_json::{Map, Value, json};

/// What went wrong, as the caller is to understand it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // `row` is the definition
pub enum Kind {
    BadRequest,
    Unauthenticated,
    Forbidden,
    FeedNotFound,
    MessageNotFound,
    MemberNotFound,
    NotFound,
    MethodNotAllowed,
    Timeout,
    IdConflict,
    HeadMoved,
    AlreadyExists,
    RecallWindowClosed,
    TooLarge,
    UnsupportedMediaType,
    Rejected,
    UpgradeRequired,
    RateLimited,
    Internal,
    Unavailable,
    UnknownOutcome,
}

/// How a kind of error looks on each wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The stable name.
    pub code: &'static str,
    /// HTTP status.
    pub http: u16,
    /// MQTT 5 reason code (PUBACK, SUBACK, DISCONNECT).
    pub mqtt5: u8,
    /// MQTT 3.1.1 has no reason codes: whether the connection is closed (`[MQTT-3.3.5-2]`) instead.
    pub mqtt311_close: bool,
    /// XMPP stanza error condition (RFC 6120 §8.3.3).
    pub xmpp: &'static str,
    /// WebSocket close code when the error ends the connection (RFC 6455 §7.4); otherwise an error frame is sent.
    pub websocket_close: u16,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 21] = [
        Self::BadRequest,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::FeedNotFound,
        Self::MessageNotFound,
        Self::MemberNotFound,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Timeout,
        Self::IdConflict,
        Self::HeadMoved,
        Self::AlreadyExists,
        Self::RecallWindowClosed,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::Rejected,
        Self::UpgradeRequired,
        Self::RateLimited,
        Self::Internal,
        Self::Unavailable,
        Self::UnknownOutcome,
    ];

    /// The table.
    pub const fn row(self) -> Row {
        const fn row(
            code: &'static str,
            http: u16,
            mqtt5: u8,
            mqtt311_close: bool,
            xmpp: &'static str,
            websocket_close: u16,
        ) -> Row {
            Row { code, http, mqtt5, mqtt311_close, xmpp, websocket_close }
        }
        match self {
            Self::BadRequest => row("bad_request", 400, 0x83, true, "bad-request", 1008),
            Self::Unauthenticated => row("unauthenticated", 401, 0x87, true, "not-authorized", 1008),
            Self::Forbidden => row("forbidden", 403, 0x87, true, "forbidden", 1008),
            Self::FeedNotFound => row("feed_not_found", 404, 0x87, true, "item-not-found", 1008),
            Self::MessageNotFound => row("message_not_found", 404, 0x83, true, "item-not-found", 1008),
            Self::MemberNotFound => row("member_not_found", 404, 0x83, true, "item-not-found", 1008),
            Self::NotFound => row("not_found", 404, 0x90, true, "item-not-found", 1008),
            Self::MethodNotAllowed => row("method_not_allowed", 405, 0x83, true, "not-allowed", 1008),
            Self::Timeout => row("timeout", 408, 0x83, true, "remote-server-timeout", 1008),
            Self::IdConflict => row("id_conflict", 409, 0x83, true, "conflict", 1008),
            Self::HeadMoved => row("head_moved", 409, 0x83, true, "conflict", 1008),
            Self::AlreadyExists => row("already_exists", 409, 0x83, true, "conflict", 1008),
            Self::RecallWindowClosed => row("recall_window_closed", 410, 0x83, true, "not-acceptable", 1008),
            Self::TooLarge => row("too_large", 413, 0x95, true, "policy-violation", 1009),
            Self::UnsupportedMediaType => {
                row("unsupported_media_type", 415, 0x99, true, "not-acceptable", 1003)
            }
            Self::Rejected => row("rejected", 422, 0x83, true, "not-acceptable", 1008),
            Self::UpgradeRequired => row("upgrade_required", 426, 0x83, true, "bad-request", 1002),
            Self::RateLimited => row("rate_limited", 429, 0x97, true, "policy-violation", 1008),
            Self::Internal => row("internal", 500, 0x80, true, "internal-server-error", 1011),
            Self::Unavailable => row("unavailable", 503, 0x88, true, "service-unavailable", 1013),
            Self::UnknownOutcome => row("unknown_outcome", 503, 0x80, true, "internal-server-error", 1011),
        }
    }
}

/// An error on its way to a caller. The message is for people and repeats no input.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// What it is.
    pub kind: Kind,
    /// For people.
    pub message: String,
    /// For programs.
    pub details: Map<String, Value>,
    /// When trying again makes sense.
    pub retry_after_ms: Option<u64>,
    /// The methods that are allowed here, for `MethodNotAllowed`.
    pub allow: Option<String>,
}

impl ApiError {
    /// An error without details.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), details: Map::new(), retry_after_ms: None, allow: None }
    }

    /// A field outside its bounds.
    pub fn field(field: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        let field = field.into();
        let mut error = Self::new(Kind::BadRequest, format!("{field}: {problem}"));
        error.details.insert("field".into(), Value::String(field));
        error
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.into(), value.into());
        self
    }

    fn retry(mut self, after_ms: u64) -> Self {
        self.retry_after_ms = Some(after_ms);
        self.with("retry_after_ms", after_ms)
    }

    /// The text of mqant's `Error`: the stable name and what it means, or what mqant itself says before a login.
    pub fn to_mqant(&self) -> String {
        match self.kind {
            Kind::Unauthenticated => "Not Logined".to_owned(),
            kind => format!("{}: {}", kind.row().code, self.message),
        }
    }

    /// `{"code","message","details"}`.
    pub fn to_json(&self) -> Value {
        json!({
            "code": self.kind.row().code,
            "message": self.message,
            "details": Value::Object(self.details.clone()),
        })
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        let kind = match denied {
            Denied::FeedNotFound => Kind::FeedNotFound,
            Denied::Forbidden => Kind::Forbidden,
            Denied::Unauthenticated => Kind::Unauthenticated,
        };
        Self::new(kind, denied.to_string())
    }
}

impl From<Rejected> for ApiError {
    fn from(rejected: Rejected) -> Self {
        let message = rejected.to_string();
        match rejected {
            Rejected::BadField { field, .. } => Self::new(Kind::Rejected, message).with("field", field),
            Rejected::IdConflict { seq } => Self::new(Kind::IdConflict, message).with("seq_id", seq.0),
            Rejected::HeadMoved { head } => Self::new(Kind::HeadMoved, message).with("head_seq_id", head.0),
            Rejected::AlreadyExists => Self::new(Kind::AlreadyExists, message),
            Rejected::MessageNotFound => Self::new(Kind::MessageNotFound, message),
            Rejected::MemberNotFound => Self::new(Kind::MemberNotFound, message),
            Rejected::RecallWindowClosed => Self::new(Kind::RecallWindowClosed, message),
            Rejected::TooLarge { max } => Self::new(Kind::TooLarge, message).with("bytes_max", max),
            Rejected::Rule(_) => Self::new(Kind::Rejected, message),
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Denied(denied) => denied.into(),
            SubmitError::Rejected(rejected) => rejected.into(),
            SubmitError::RateLimited { retry_after_ms } => rate_limited(retry_after_ms),
            SubmitError::Unavailable(reason) => unavailable(reason),
            SubmitError::Unknown => Self::new(
                Kind::UnknownOutcome,
                "it may have happened: send again with the same client_msg_id to find out",
            ),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Denied(denied) => denied.into(),
            ReadError::NotFound => Self::new(Kind::MessageNotFound, "no such message, or it is gone"),
            ReadError::BadField { field, problem } => bad_field(field, problem),
            ReadError::Unavailable(reason) => unavailable(reason),
            ReadError::Damaged => Self::new(Kind::Internal, "stored data is damaged and is not served"),
        }
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Unauthenticated => Self::new(Kind::Unauthenticated, error.to_string()),
            AuthError::Forbidden => Self::new(Kind::Forbidden, error.to_string()),
            AuthError::RateLimited { retry_after_ms } => rate_limited(retry_after_ms),
            AuthError::NotFound => Self::new(Kind::NotFound, error.to_string()),
            AuthError::BadField { field, problem } => bad_field(field, problem),
            AuthError::Unavailable(reason) => unavailable(reason),
            // Only at start; its text names files, which are no caller's business.
            AuthError::BadKeyFile { .. } => Self::new(Kind::Internal, "authentication is misconfigured"),
        }
    }
}

/// A cursor is opaque: any text may stand there, and one that leads nowhere is a page that is not there.
fn bad_field(field: &'static str, problem: &'static str) -> ApiError {
    let mut error = ApiError::field(field, problem);
    if field == "cursor" {
        error.kind = Kind::NotFound;
    }
    error
}

fn rate_limited(retry_after_ms: u64) -> ApiError {
    ApiError::new(Kind::RateLimited, "too many requests").retry(retry_after_ms)
}

/// Nothing happened; trying again in a second is fine.
pub(crate) fn unavailable(reason: &'static str) -> ApiError {
    ApiError::new(Kind::Unavailable, "temporarily unavailable; nothing happened")
        .with("reason", reason)
        .retry(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_code_and_a_valid_row() {
        let mut codes = std::collections::HashSet::new();
        for kind in Kind::ALL {
            let row = kind.row();
            assert!(codes.insert(row.code), "{}", row.code);
            assert!((400..600).contains(&row.http), "{}", row.code);
            assert!(row.mqtt5 >= 0x80, "{}: MQTT5 failures are 0x80 or more", row.code);
            assert!((1000..5000).contains(&row.websocket_close), "{}", row.code);
        }
    }

    #[test]
    fn denied_is_403_and_0x87_and_forbidden_everywhere() {
        let row = ApiError::from(Denied::Forbidden).kind.row();
        assert_eq!((row.http, row.mqtt5, row.mqtt311_close, row.xmpp), (403, 0x87, true, "forbidden"));
    }

    #[test]
    fn unavailable_promises_that_nothing_happened_and_unknown_does_not() {
        let error = ApiError::from(SubmitError::Unavailable("poisoned"));
        assert_eq!((error.kind.row().http, error.retry_after_ms), (503, Some(1_000)));
        let error = ApiError::from(SubmitError::Unknown);
        assert_eq!(error.to_json()["code"], "unknown_outcome");
        assert_eq!(error.retry_after_ms, None);
    }
}
