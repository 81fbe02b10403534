//! Messages: send one or many, edit, recall, react.

use std::collections::HashMap;

use axum::http::Method;
use feedlog_core::command::{Action, Command};
use feedlog_core::ids::{FeedId, Uid};
use feedlog_service::Gate;
use serde_json::{Value, json};

use super::call::{Call, answer};
use super::route::{Answer, FEED, Param, Route, SEQ, Shape, Size};
use super::wire::input::{BatchBody, EditBody, RecallBody, SendMessage, no_feed, payload_of, required_feed};
use super::wire::output::{DoneOut, SentOut};
use crate::errors::{ApiError, Kind};

/// Messages in one batch.
const BATCH_MESSAGES_MAX: usize = 1000;

const KEY: Param = Param::path("key", Shape::Reaction, "The reaction, percent-encoded; usually one emoji.");

pub(crate) fn routes() -> Vec<Route> {
    let results = json!({
        "type": "object",
        "required": ["results"],
        "additionalProperties": false,
        "properties": {"results": {"type": "array", "items": {"anyOf": [
            {"$ref": "#/components/schemas/Sent"}, {"$ref": "#/components/schemas/Error"},
        ]}}},
    });
    vec![
        Route::new(Method::POST, "/v1/feeds/{feed}/messages", "send_message", send)
            .tag("messages", "Send a message. The answer comes once it is durable.")
            .params(&[FEED])
            .takes::<SendMessage>(Size::Payload)
            .gives::<SentOut<'_>>(201, "Durable.")
            .gives::<SentOut<'_>>(200, "A retry: the values of the first time.")
            .fails(&[Kind::IdConflict, Kind::HeadMoved, Kind::MessageNotFound, Kind::Rejected]),
        Route::new(Method::POST, "/v1/messages:batch", "send_batch", batch)
            .tag(
                "messages",
                "Send up to 1000 messages across feeds: a result or an error for each, in order.",
            )
            .takes::<BatchBody>(Size::Batch)
            .gives_other(
                200,
                "A result or an error for each, in order.",
                Some(("application/json", results)),
            ),
        Route::new(Method::PATCH, "/v1/feeds/{feed}/messages/{seq_id}", "edit_message", edit)
            .tag("messages", "Replace the payload of one's own message, within the window.")
            .params(&[FEED, SEQ])
            .takes::<EditBody>(Size::Payload)
            .gives::<DoneOut<'_>>(200, "Durable.")
            .fails(&[Kind::MessageNotFound, Kind::RecallWindowClosed, Kind::Rejected]),
        Route::new(Method::POST, "/v1/feeds/{feed}/recall", "recall_message", recall)
            .tag(
                "messages",
                "Hide a message from all readers: one's own within the window, any as owner or admin.",
            )
            .params(&[FEED])
            .takes::<RecallBody>(Size::Small)
            .gives::<DoneOut<'_>>(201, "Recalled; `seq_id` is the recall's own.")
            .gives::<DoneOut<'_>>(200, "Had been recalled before.")
            .fails(&[Kind::MessageNotFound, Kind::RecallWindowClosed, Kind::Rejected]),
        Route::new(Method::PUT, "/v1/feeds/{feed}/messages/{seq_id}/reactions/{key}", "react", react)
            .tag("messages", "React to a message.")
            .params(&[FEED, SEQ, KEY])
            .gives::<DoneOut<'_>>(200, "Durable.")
            .fails(&[Kind::MessageNotFound, Kind::Rejected]),
        Route::new(Method::DELETE, "/v1/feeds/{feed}/messages/{seq_id}/reactions/{key}", "unreact", unreact)
            .tag("messages", "Take a reaction back.")
            .params(&[FEED, SEQ, KEY])
            .gives::<DoneOut<'_>>(200, "Durable.")
            .fails(&[Kind::MessageNotFound, Kind::Rejected]),
    ]
}

async fn send(call: Call) -> Answer {
    let body: SendMessage = call.json()?;
    no_feed(body.feed_id.as_ref())?;
    let draft = body.into_draft(call.app.config.payload_bytes_max)?;
    let id = draft.client_msg_id.clone();
    let command = Command { feed: call.feed(), action: Action::SendMessage(Box::new(draft)) };
    let receipt = call.gate().submit(command).await?;
    let done = receipt.done();
    let status = if done.duplicate { 200 } else { 201 };
    answer(status, &SentOut::new(done, id.as_ref().map(feedlog_core::ids::ClientMsgId::as_str)))
}

/// What is malformed refuses the batch as a whole, before anything is sent; what the store refuses is told per message.
async fn batch(call: Call) -> Answer {
    let body: BatchBody = call.json()?;
    if body.messages.is_empty() || body.messages.len() > BATCH_MESSAGES_MAX {
        return Err(ApiError::field("messages", "must have 1 to 1000 items"));
    }
    let mut results: Vec<Value> = vec![Value::Null; body.messages.len()];
    let mut commands = Vec::with_capacity(results.len());
    let mut sent = Vec::with_capacity(results.len());
    let mut senders = HashMap::new();
    for (index, mut message) in body.messages.into_iter().enumerate() {
        let sender = message.sender.take().map(|sender| sender.0);
        let drafted = draft_of(message, call.app.config.payload_bytes_max)
            .and_then(|command| Ok((gate_of(&call, sender, &mut senders)?, command)));
        match drafted {
            Ok((gate, command)) => {
                let id = match &command.action {
                    Action::SendMessage(draft) => draft.client_msg_id.clone(),
                    _ => None,
                };
                sent.push((index, id));
                commands.push((gate, command));
            }
            Err(error) if error.kind == Kind::BadRequest => return Err(within(error, index)),
            Err(error) => results[index] = json!({"error": error.to_json()}),
        }
    }
    let outcomes = Gate::submit_each(commands).await;
    for ((index, id), outcome) in sent.into_iter().zip(outcomes) {
        results[index] = match outcome {
            Ok(receipt) => {
                let id = id.as_ref().map(feedlog_core::ids::ClientMsgId::as_str);
                serde_json::to_value(SentOut::new(receipt.done(), id))
                    .map_err(|_| ApiError::new(Kind::Internal, "the answer could not be written"))?
            }
            Err(error) => json!({"error": ApiError::from(error).to_json()}),
        };
    }
    answer(200, &json!({"results": results}))
}

/// The caller's gate, or that of a user for whom the caller, a service, sends.
fn gate_of(call: &Call, sender: Option<Uid>, known: &mut HashMap<Uid, Gate>) -> Result<Gate, ApiError> {
    let Some(uid) = sender else { return Ok(call.gate().clone()) };
    if let Some(gate) = known.get(&uid) {
        return Ok(gate.clone());
    }
    let store = &call.app.services.store;
    let gate = store.gate(store.auth().act_for(call.gate().principal(), uid.clone())?);
    known.insert(uid, gate.clone());
    Ok(gate)
}

fn draft_of(mut message: SendMessage, payload_max: usize) -> Result<Command, ApiError> {
    let feed = required_feed(message.feed_id.take())?;
    let draft = message.into_draft(payload_max)?;
    Ok(Command { feed, action: Action::SendMessage(Box::new(draft)) })
}

/// The same error, its field named from the top of the batch.
fn within(mut error: ApiError, index: usize) -> ApiError {
    if let Some(Value::String(field)) = error.details.get("field") {
        let field = format!("messages[{index}].{field}");
        error.message = format!("messages[{index}]: {}", error.message);
        error.details.insert("field".into(), Value::String(field));
    }
    error
}

async fn edit(call: Call) -> Answer {
    let body: EditBody = call.json()?;
    let max = call.app.config.payload_bytes_max;
    let (content_type, payload) = payload_of(body.payload, body.payload_base64, body.content_type, max)?;
    let action = Action::EditMessage { target: call.seq(), content_type, payload };
    finish(&call, call.feed(), action, 200).await
}

async fn recall(call: Call) -> Answer {
    let mut body: RecallBody = call.json()?;
    no_feed(body.feed_id.as_ref())?;
    let target = body.target()?;
    let action = Action::RecallMessage { target, reason: body.reason.map(|reason| reason.0) };
    finish(&call, call.feed(), action, 201).await
}

async fn react(call: Call) -> Answer {
    let action = Action::React { target: call.seq(), key: call.reaction(), on: true };
    finish(&call, call.feed(), action, 200).await
}

async fn unreact(call: Call) -> Answer {
    let action = Action::React { target: call.seq(), key: call.reaction(), on: false };
    finish(&call, call.feed(), action, 200).await
}

async fn finish(call: &Call, feed: FeedId, action: Action, status: u16) -> Answer {
    let receipt = call.gate().submit(Command { feed, action }).await?;
    let status = if receipt.done().duplicate { 200 } else { status };
    answer(status, &DoneOut::from(receipt.done()))
}
