//! Wills: what a client leaves to be published when its connection ends without its leave.

use feedlog_core::command::{Action, Command, Principal, Scopes};
use feedlog_core::event::FeedKind;
use feedlog_core::ids::Uid;
use feedlog_service::{ShelfValue, ShelfWrite, SubmitError};

use super::FRONT_END;
use super::acl::Access;
use super::broker::Broker;
use super::carried::{Carried, Origin};
use super::machine::message;
use super::space::{self, Target};
use super::stored::{self, SessionKey, StoredWill};
use super::wire::{Connect, PropertyWriter, Publish, Text};

/// The will of a CONNECT, as it is kept. `None` without one.
pub(crate) fn of(connect: &Connect, principal: &Principal) -> Option<StoredWill> {
    let will = connect.will.as_ref()?;
    Some(StoredWill {
        topic: will.topic.as_str().to_owned(),
        qos: will.qos as u8,
        retain: will.retain,
        payload: stored::to_base64(&will.payload),
        properties: stored::to_base64(&will.properties.forwardable()),
        expiry_s: will.properties.message_expiry_s(),
        delay_s: will.properties.will_delay_s().unwrap_or(0),
        due_ms: None,
        uid: principal.uid.as_str().to_owned(),
        anonymous: principal.anonymous,
        user: principal.scopes.user,
        send_as: principal.scopes.send_as,
        via: principal.via.as_ref().map(|uid| uid.as_str().to_owned()),
    })
}

/// Publishes a will and forgets it, both in one batch. MQTT5 §3.1.2.5, `[MQTT-3.1.2-8]`, `[MQTT-3.1.2-10]`.
pub(crate) async fn publish(broker: &Broker, key: &SessionKey, will: &StoredWill) {
    let forget = ShelfWrite { front_end: FRONT_END, key: key.will(), value: ShelfValue::Remove };
    match submit(broker, key, will, forget).await {
        Some(Ok(())) => metrics::counter!("feedlog_mqtt_wills_published_total").increment(1),
        // The row stays where it may have happened or may happen later: the next start tries again.
        Some(Err(SubmitError::Unavailable(_) | SubmitError::Unknown | SubmitError::RateLimited { .. })) => {
            tracing::warn!(front_end = "mqtt", "a will could not be published now");
        }
        Some(Err(SubmitError::Denied(_) | SubmitError::Rejected(_))) | None => {
            tracing::debug!(front_end = "mqtt", "a will was refused");
            if let Err(error) = broker.shelf.put(vec![(key.will(), None)]).await {
                tracing::warn!(front_end = "mqtt", %error, "a refused will could not be removed");
            }
        }
    }
}

/// `None` when the will is damaged or addressed to nothing.
async fn submit(
    broker: &Broker,
    key: &SessionKey,
    will: &StoredWill,
    forget: ShelfWrite,
) -> Option<Result<(), SubmitError>> {
    let uid = Uid::parse(&will.uid).ok()?;
    let payload = stored::from_base64(&will.payload).ok()?;
    let block = stored::from_base64(&will.properties).ok()?;
    let qos = stored::qos_of(will.qos)?;
    let mut properties = PropertyWriter::new();
    properties.raw(&block);
    if let Some(expiry_s) = will.expiry_s {
        properties.message_expiry_s(expiry_s);
    }
    let publish = Publish {
        dup: false,
        qos,
        retain: will.retain,
        topic: Text::new(&will.topic)?,
        packet_id: None,
        properties: properties.finish(),
        payload,
    };
    let (feed, mut draft) = match space::target(&will.topic) {
        Target::Free(feed) => (feed, message::free(&publish).ok()?),
        Target::Feed(feed) => (feed, super::feeds::draft(&publish, broker.config.payload_bytes_max).ok()?),
        Target::Im | Target::Protobuf | Target::Reserved | Target::Invalid => return None,
    };
    let origin = Origin::of(key.user.as_deref().unwrap_or_default(), &key.client_id);
    draft.carried = Carried { qos, retain: will.retain, origin, properties: block }.encode();
    draft.expires_ms = message::expires_ms(&publish, broker.store.now_ms());
    let mut rows = vec![forget];
    rows.extend(message::retained_row(&publish));
    let command = Command { feed, action: Action::SendMessage(Box::new(draft)) };
    let via = will.via.as_deref().map(Uid::parse).transpose().ok()?;
    // As its client was: a will may do nothing that its client might not.
    let scopes = Scopes { user: will.user, send_as: will.send_as, ..Scopes::default() };
    let gate = broker.store.gate(Principal { uid, scopes, anonymous: will.anonymous, via });
    if !broker.allows(key, command.feed.as_str(), Access::Write)
        && !gate.feed(&command.feed).await.is_ok_and(|info| info.kind != FeedKind::Open)
    {
        return None;
    }
    Some(gate.submit_with(command, rows).await.map(|_| ()))
}

/// Whether a will to this topic can be published at all.
pub(crate) fn is_possible(topic: &str) -> bool {
    matches!(space::target(topic), Target::Free(_) | Target::Feed(_))
}
