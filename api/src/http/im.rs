//! mqant's methods over HTTP: `POST /im/<method>` with the bodies and the envelope that MQTT clients get.

use axum::body::Body;
use axum::http::{HeaderValue, Method, header};
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};

use super::call::{Call, refuse};
use super::route::{Answer, Route, Size};
use super::wire::output::{
    ConversationPageOut, FeedOut, FeedUnreadOut, ReceiptsOut, UnreadTotalOut, UnrepliedListOut,
};
use crate::errors::{ApiError, Kind};
use crate::im::wire::*;
use crate::im::{self, Im, ImError, Trace};

/// Whether errors of this path wear the envelope.
pub(super) fn is_here(path: &str) -> bool {
    path.starts_with("/im/")
}

/// Refused because of what the body names.
const MESSAGE: &[Kind] =
    &[Kind::FeedNotFound, Kind::MessageNotFound, Kind::RecallWindowClosed, Kind::Rejected];
const MEMBER: &[Kind] = &[Kind::FeedNotFound, Kind::MemberNotFound, Kind::AlreadyExists, Kind::Rejected];
const READ: &[Kind] = &[Kind::FeedNotFound, Kind::MessageNotFound, Kind::NotFound];

pub(super) fn routes() -> Vec<Route> {
    vec![
        row::<SendBody>(
            "/im/send",
            "im_send",
            "Send a message. The answer comes once it is durable.",
            Size::Payload,
        )
        .gives_enveloped::<SentOut<'_>>()
        .fails(&[Kind::FeedNotFound, Kind::IdConflict, Kind::MessageNotFound, Kind::Rejected]),
        row::<HistoryBody>("/im/history", "im_history", "A page of history.", Size::Small)
            .gives_enveloped::<HistoryOut<'_>>()
            .fails(READ),
        row::<RecallBody>("/im/recall", "im_recall", "Hide a message from all readers.", Size::Small)
            .gives_enveloped::<RecallOut>()
            .fails(MESSAGE),
        word::<PlaceBody>("/im/read", "im_read", "Move the caller's read mark forward.", &["success"])
            .fails(MESSAGE),
        word::<PlaceBody>(
            "/im/received",
            "im_received",
            "Move the caller's received mark forward.",
            &["success"],
        )
        .fails(MESSAGE),
        row::<UnreadBody>("/im/unread", "im_unread", "Unread of one feed or of all.", Size::Small)
            .optional_body()
            .gives_enveloped_either::<UnreadTotalOut<'_>, FeedUnreadOut<'_>>()
            .fails(READ),
        row::<LimitBody>("/im/unreplied", "im_unreplied", "Who waits for the caller's answer.", Size::Small)
            .optional_body()
            .gives_enveloped::<UnrepliedListOut<'_>>(),
        row::<ReceiptsBody>(
            "/im/receipts",
            "im_receipts",
            "Who has received and read a message.",
            Size::Small,
        )
        .gives_enveloped::<ReceiptsOut<'_>>()
        .fails(READ),
        row::<PageBody>("/im/feeds_list", "im_feeds_list", "The caller's conversation list.", Size::Small)
            .optional_body()
            .gives_enveloped::<ConversationPageOut<'_>>()
            .fails(READ),
        row::<FeedsBody>("/im/feeds_info", "im_feeds_info", "One feed.", Size::Small)
            .gives_enveloped::<FeedOut<'_>>()
            .fails(READ),
        row::<CreateBody>("/im/create_feeds", "im_create_feeds", "Create a group.", Size::Small)
            .optional_body()
            .gives_enveloped::<CreatedOut<'_>>()
            .fails(&[Kind::AlreadyExists, Kind::Rejected]),
        word::<JoinBody>("/im/join_feeds", "im_join_feeds", "Join, or ask to.", &["success", "pending"])
            .fails(MEMBER),
        word::<ApplicantBody>(
            "/im/agree_join_feeds",
            "im_agree_join_feeds",
            "Agree to a request to join.",
            &["success"],
        )
        .fails(MEMBER),
        word::<ApplicantBody>(
            "/im/reject_join_feeds",
            "im_reject_join_feeds",
            "Reject a request to join.",
            &["success"],
        )
        .fails(MEMBER),
        word::<MemberBody>(
            "/im/invite_feeds_member",
            "im_invite_feeds_member",
            "Add a member at once.",
            &["success"],
        )
        .fails(MEMBER),
        word::<MemberBody>(
            "/im/remove_feeds_member",
            "im_remove_feeds_member",
            "Remove a member.",
            &["success"],
        )
        .fails(MEMBER),
        word::<FeedsBody>("/im/leave_feeds", "im_leave_feeds", "Leave.", &["success"]).fails(MEMBER),
    ]
}

fn row<T: utoipa::ToSchema>(path: &'static str, id: &'static str, about: &'static str, size: Size) -> Route {
    Route::new(Method::POST, path, id, handle).tag("mqant", about).enveloped().takes::<T>(size)
}

fn word<T: utoipa::ToSchema>(
    path: &'static str,
    id: &'static str,
    about: &'static str,
    words: &'static [&'static str],
) -> Route {
    let result = json!({"type": "string", "enum": words});
    row::<T>(path, id, about, Size::Small).gives_other(
        200,
        "Done.",
        Some(("application/json", answer(&result))),
    )
}

/// The schema of an answer with this result.
pub(super) fn answer(result: &Value) -> Value {
    json!({
        "type": "object",
        "required": ["Trace", "Error", "Result"],
        "additionalProperties": false,
        "properties": {
            "Trace": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
            "Error": {"type": "string", "const": ""},
            "Result": result,
        },
    })
}

/// The schema of a refusal.
pub(super) fn error_schema() -> Value {
    json!({
        "type": "object",
        "required": ["Trace", "Error", "Result"],
        "additionalProperties": false,
        "properties": {
            "Trace": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
            "Error": {"type": "string", "minLength": 1, "description": "`<code>: <for people>`, or mqant's own text."},
            "Result": {"type": "null"},
        },
    })
}

async fn handle(call: Call) -> Answer {
    let im = Im { payload_bytes_max: call.app.config.payload_bytes_max, clock: call.app.clock.clone() };
    let method = call.parts.uri.path().strip_prefix("/im/").unwrap_or_default();
    // Percent-encoded or not, the router found the row.
    let method = percent_encoding::percent_decode_str(method).decode_utf8_lossy();
    let response = match im::call(&im, call.gate(), &method, &call.body, Bytes::new()).await {
        Ok(result) => typed(im::envelope(Trace::next(), Ok(&result))),
        Err(error) => dressed(&error),
    };
    Ok(response)
}

/// An error with the status and headers of every other and the envelope as its body.
pub(super) fn refuse_enveloped(error: &ApiError) -> Response {
    let mut response = refuse(error);
    *response.body_mut() = Body::from(im::envelope(Trace::next(), Err(&ImError::from(error.clone()))));
    response
}

fn dressed(error: &ImError) -> Response {
    let mut plain = ApiError::new(error.kind, "");
    plain.retry_after_ms = error.retry_after_ms;
    let mut response = refuse(&plain);
    *response.body_mut() = Body::from(im::envelope(Trace::next(), Err(error)));
    response
}

fn typed(body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
