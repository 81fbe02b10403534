//! The client of feedlog: what comes is handed to the bus, then acknowledged.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Filter, Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions, StateError};
use rumqttd::protocol::PublishProperties;

use crate::bus::Link;
use crate::{Counters, Error, Settings, safe};

const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// After a broken connection; doubled each time, up to the second one.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Follows until something fails that trying again does not mend.
pub(crate) async fn follow(settings: &Settings, mut link: Link, counters: &Arc<Counters>) -> Error {
    let options = match options(settings) {
        Ok(options) => options,
        Err(error) => return error,
    };
    // Room for every ack that can be due at once, so that none ever has to wait for the loop that sends it.
    let (client, mut events) = AsyncClient::new(options, usize::from(settings.in_flight_max) + 16);
    let mut back_off = BACK_OFF.0;
    let mut known = false;
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                back_off = BACK_OFF.0;
                if known && !ack.session_present {
                    tracing::warn!("feedlog no longer knows the session: readers missed what came meanwhile");
                }
                known = true;
                // Also on a session that has them: what is asked for may have changed since.
                let filters = settings.filters.iter().map(|path| Filter::new(path.clone(), QoS::AtLeastOnce));
                if let Err(error) = client.try_subscribe_many(filters) {
                    return Error::Refused(error.to_string());
                }
            }
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                for (reason, filter) in ack.return_codes.iter().zip(&settings.filters) {
                    if !matches!(reason, SubscribeReasonCode::Success(_)) {
                        return Error::Refused(format!("the filter {filter}: {reason:?}"));
                    }
                }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                Counters::add(&counters.received);
                if let Err(error) = republish(settings, &mut link, counters, &publish).await {
                    return error;
                }
                // Acknowledged only now: what a killed process had not handed over comes again.
                if let Err(error) = client.try_ack(&publish) {
                    return Error::Bus(error.to_string());
                }
            }
            Ok(_) => {}
            Err(error) => {
                if let Some(reason) = lasting(&error) {
                    return Error::Refused(reason);
                }
                Counters::add(&counters.reconnects);
                tracing::warn!("no connection to {}: {error}", settings.from);
                tokio::time::sleep(back_off).await;
                back_off = (back_off * 2).min(BACK_OFF.1);
            }
        }
    }
}

fn options(settings: &Settings) -> Result<MqttOptions, Error> {
    let address = settings.from.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let Some((host, port)) = address else {
        return Err(Error::Refused(format!("{:?} is not ADDR:PORT", settings.from)));
    };
    let mut options = MqttOptions::new(&settings.client_id, host.trim_matches(['[', ']']), port);
    options
        .set_credentials(&settings.username, &settings.token)
        .set_keep_alive(KEEP_ALIVE)
        .set_clean_start(false)
        .set_session_expiry_interval(Some(settings.session_expiry_s))
        .set_receive_maximum(Some(settings.in_flight_max))
        .set_max_packet_size(Some(settings.packet_bytes_max))
        .set_topic_alias_max(None)
        .set_manual_acks(true);
    Ok(options)
}

async fn republish(
    settings: &Settings,
    link: &mut Link,
    counters: &Counters,
    publish: &Publish,
) -> Result<(), Error> {
    let topic = std::str::from_utf8(&publish.topic).map(|topic| format!("{}/{topic}", settings.prefix));
    let Some(topic) = topic.ok().filter(|topic| safe::topic(topic).is_ok()) else {
        Counters::add(&counters.skipped);
        tracing::debug!("a topic that rumqttd cannot route is skipped");
        return Ok(());
    };
    // What tells readers how to read the payload; the rest belongs to the connection it came on.
    let properties = publish.properties.as_ref().map(|properties| PublishProperties {
        payload_format_indicator: properties.payload_format_indicator,
        message_expiry_interval: None,
        topic_alias: None,
        response_topic: None,
        correlation_data: None,
        user_properties: properties.user_properties.clone(),
        subscription_identifiers: Vec::new(),
        content_type: properties.content_type.clone(),
    });
    link.publish(topic, publish.payload.clone(), properties).await?;
    Counters::add(&counters.republished);
    Ok(())
}

/// What a new connection would not change.
fn lasting(error: &ConnectionError) -> Option<String> {
    let (ConnectionError::ConnectionRefused(reason)
    | ConnectionError::MqttState(StateError::ConnFail { reason })) = error
    else {
        return None;
    };
    let passing = matches!(
        reason,
        ConnectReturnCode::ServerUnavailable
            | ConnectReturnCode::ServiceUnavailable
            | ConnectReturnCode::ServerBusy
            | ConnectReturnCode::ConnectionRateExceeded
            | ConnectReturnCode::QuotaExceeded
    );
    if passing { None } else { Some(format!("{reason:?}")) }
}
