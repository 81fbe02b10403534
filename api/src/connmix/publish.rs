//! What is published becomes a message of the channel's feed.

use bytes::Bytes;
use feedlog_core::command::{Action, Command, CreateFeed, Draft};
use feedlog_core::event::{FeedKind, MessageKind};
use feedlog_service::SubmitError;
use serde::de::IgnoredAny;

use super::asked::{Body, Fault, Publish, code};
use super::carried::Carried;
use super::ops::{Target, Types};
use crate::errors::ApiError;

/// The channel and the command that appends to its feed, which is created when there is none. [connmix: publish with no
/// listener]
pub(crate) fn command(types: &Types, publish: Publish) -> Result<(Target, Command), Fault> {
    let target = types
        .of_publisher(&publish.channel)
        .ok_or_else(|| Fault::new(code::PARAMETER, "invalid parameter: c is no channel"))?;
    let carried = Carried { binary: publish.body.binary, client: None, private: target.private.as_deref() };
    // A personal feed is created by use.
    let create = target.feed.personal_uid().is_none().then(open_feed);
    let draft = Draft { client_msg_id: publish.id, create, ..draft(publish.body, &carried) };
    let command = Command { feed: target.feed.clone(), action: Action::SendMessage(Box::new(draft)) };
    Ok((target, command))
}

/// A client's frame for a topic.
pub(crate) fn from_client(text: &str, client: Option<u64>) -> Draft {
    let body = Body { bytes: Bytes::copy_from_slice(text.as_bytes()), binary: false };
    draft(body, &Carried { client, ..Carried::default() })
}

fn draft(body: Body, carried: &Carried<'_>) -> Draft {
    let content_type = content_type(&body);
    Draft { carried: carried.encode(), ..Draft::new(MessageKind::Custom, content_type.into(), body.bytes) }
}

/// JSON objects and arrays are JSON on the other wires; other texts stay texts.
fn content_type(body: &Body) -> &'static str {
    if body.binary {
        return "application/octet-stream";
    }
    let compound = matches!(body.bytes.trim_ascii_start().first(), Some(b'{' | b'['));
    match compound && serde_json::from_slice::<IgnoredAny>(&body.bytes).is_ok() {
        true => "application/json",
        false => "text/plain; charset=utf-8",
    }
}

fn open_feed() -> CreateFeed {
    CreateFeed::new(FeedKind::Open)
}

/// What a back end is told of a publish that failed: 101 when it must not be tried again as it is, else 401.
pub(crate) fn fault(error: SubmitError) -> Fault {
    let code = match &error {
        SubmitError::Denied(_) | SubmitError::Rejected(_) => code::PARAMETER,
        SubmitError::RateLimited { .. } | SubmitError::Unavailable(_) | SubmitError::Unknown => code::SEND,
    };
    let error = ApiError::from(error);
    Fault::new(code, format!("{}: {}", error.kind.row().code, error.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_when_it_is_an_object_or_an_array() {
        for (text, wanted) in [
            (r#"{"event":"@user"}"#, "application/json"),
            (" [1]", "application/json"),
            ("123456789", "text/plain; charset=utf-8"),
            ("\"quoted\"", "text/plain; charset=utf-8"),
            ("Hello,World!", "text/plain; charset=utf-8"),
            ("{broken", "text/plain; charset=utf-8"),
            ("", "text/plain; charset=utf-8"),
        ] {
            let body = Body { bytes: Bytes::copy_from_slice(text.as_bytes()), binary: false };
            assert_eq!(content_type(&body), wanted, "{text}");
        }
        let body = Body { bytes: Bytes::from_static(b"{}"), binary: true };
        assert_eq!(content_type(&body), "application/octet-stream");
    }
}
