//! Fields mean the same to rmqtt-codec as to us.
//!
//! The tests in `oracles` would not see two fields of one packet mixed up the same way by decoder and encoder.

use bytes::{Bytes, BytesMut};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder as _;

use super::generate::{self, Random, bytes};
use super::samples::LEVELS;
use crate::mqtt::wire::{Level, Packet, Properties, Role};

const CASES: u64 = 2_000;

fn user(properties: &Properties) -> Vec<(String, String)> {
    properties.user().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn user_of(properties: &v5::UserProperties) -> Vec<(String, String)> {
    properties.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn data(bytes: Option<&[u8]>) -> Option<Bytes> {
    bytes.map(Bytes::copy_from_slice)
}

/// Panics where a field of a packet of MQTT 5 differs; whether it was one that is compared here.
#[track_caller]
fn same_v5(ours: &Packet, theirs: &v5::Packet) -> bool {
    match (ours, theirs) {
        (Packet::Connect(a), v5::Packet::Connect(b)) => {
            let p = &a.properties;
            assert_eq!((a.clean_start, a.keep_alive_s), (b.clean_start, b.keep_alive));
            assert_eq!((&*a.client_id, &a.password), (&*b.client_id, &b.password));
            assert_eq!(a.username.as_deref(), b.username.as_deref());
            assert_eq!(p.session_expiry_s().unwrap_or(0), b.session_expiry_interval_secs);
            assert_eq!(p.authentication_method(), b.auth_method.as_deref());
            assert_eq!(data(p.authentication_data()), b.auth_data);
            assert_eq!(p.request_problem_information().unwrap_or(true), b.request_problem_info);
            assert_eq!(p.request_response_information(), b.request_response_info);
            assert_eq!(p.receive_maximum(), b.receive_max.map(|n| n.get()));
            assert_eq!(p.topic_alias_maximum().unwrap_or(0), b.topic_alias_max);
            assert_eq!(p.maximum_packet_size(), b.max_packet_size.map(|n| n.get()));
            assert_eq!(user(p), user_of(&b.user_properties));
            assert_eq!(a.will.is_some(), b.last_will.is_some());
            if let (Some(a), Some(b)) = (&a.will, &b.last_will) {
                let p = &a.properties;
                assert_eq!((a.qos as u8, a.retain, &*a.topic), (b.qos.value(), b.retain, &*b.topic));
                assert_eq!((&a.payload, p.will_delay_s()), (&b.message, b.will_delay_interval_sec));
                assert_eq!(data(p.correlation_data()), b.correlation_data);
                assert_eq!(p.message_expiry_s(), b.message_expiry_interval.map(|n| n.get()));
                assert_eq!(p.content_type(), b.content_type.as_deref());
                assert_eq!(p.response_topic(), b.response_topic.as_deref());
                assert_eq!(p.payload_format_indicator().map(|is| is == 1), b.is_utf8_payload);
                assert_eq!(user(p), user_of(&b.user_properties));
            }
        }
        (Packet::Publish(a), v5::Packet::Publish(b)) => {
            let p = &a.properties;
            assert_eq!((a.dup, a.qos as u8, a.retain), (b.dup, b.qos.value(), b.retain));
            assert_eq!((&*a.topic, a.packet_id, &a.payload), (&*b.topic, b.packet_id, &b.payload));
            let b = b.properties.as_ref().expect("MQTT 5");
            assert_eq!(p.topic_alias(), b.topic_alias.map(|n| n.get()));
            assert_eq!(data(p.correlation_data()), b.correlation_data);
            assert_eq!(p.message_expiry_s(), b.message_expiry_interval.map(|n| n.get()));
            assert_eq!(p.content_type(), b.content_type.as_deref());
            assert_eq!(p.response_topic(), b.response_topic.as_deref());
            assert_eq!(p.payload_format_indicator() == Some(1), b.is_utf8_payload);
            assert_eq!(user(p), user_of(&b.user_properties));
            let identifiers: Vec<_> = b.subscription_ids.iter().map(|n| n.get()).collect();
            assert_eq!(p.subscription_identifiers().collect::<Vec<_>>(), identifiers);
        }
        (Packet::Puback(a), v5::Packet::PublishAck(b))
        | (Packet::Pubrec(a), v5::Packet::PublishReceived(b)) => {
            assert_eq!((a.packet_id, a.reason), (b.packet_id, b.reason_code as u8));
            assert_eq!(a.properties.reason_string(), b.reason_string.as_deref());
            assert_eq!(user(&a.properties), user_of(&b.properties));
        }
        (Packet::Pubrel(a), v5::Packet::PublishRelease(b))
        | (Packet::Pubcomp(a), v5::Packet::PublishComplete(b)) => {
            assert_eq!((a.packet_id, a.reason), (b.packet_id, b.reason_code as u8));
            assert_eq!(a.properties.reason_string(), b.reason_string.as_deref());
            assert_eq!(user(&a.properties), user_of(&b.properties));
        }
        (Packet::Subscribe(a), v5::Packet::Subscribe(b)) => {
            assert_eq!(a.packet_id, b.packet_id);
            assert_eq!(a.properties.subscription_identifiers().next(), b.id.map(|n| n.get()));
            assert_eq!(user(&a.properties), user_of(&b.user_properties));
            let ours = a.filters.iter().map(|(filter, o)| {
                (&**filter, o.qos as u8, o.no_local, o.retain_as_published, o.retain_handling)
            });
            let theirs = b.topic_filters.iter().map(|(filter, o)| {
                (&**filter, o.qos.value(), o.no_local, o.retain_as_published, o.retain_handling as u8)
            });
            assert!(ours.eq(theirs));
        }
        (Packet::Suback(a), v5::Packet::SubscribeAck(b)) => {
            assert_eq!(a.packet_id, b.packet_id);
            assert_eq!(a.reasons, b.status.iter().map(|code| *code as u8).collect::<Vec<_>>());
            assert_eq!(a.properties.reason_string(), b.reason_string.as_deref());
        }
        (Packet::Unsubscribe(a), v5::Packet::Unsubscribe(b)) => {
            assert_eq!(a.packet_id, b.packet_id);
            assert!(
                a.filters.iter().map(|filter| &**filter).eq(b.topic_filters.iter().map(|filter| &**filter))
            );
        }
        (Packet::Unsuback(a), v5::Packet::UnsubscribeAck(b)) => {
            assert_eq!(a.packet_id, b.packet_id);
            assert_eq!(a.reasons, b.status.iter().map(|code| *code as u8).collect::<Vec<_>>());
        }
        (Packet::Connack(a), v5::Packet::ConnectAck(b)) => {
            let p = &a.properties;
            assert_eq!((a.session_present, a.reason), (b.session_present, b.reason_code as u8));
            assert_eq!(p.session_expiry_s(), b.session_expiry_interval_secs);
            assert_eq!(p.receive_maximum().unwrap_or(u16::MAX), b.receive_max.get());
            assert_eq!(p.maximum_qos().unwrap_or(2), b.max_qos.value());
            assert_eq!(p.maximum_packet_size(), b.max_packet_size);
            assert_eq!(p.assigned_client_identifier(), b.assigned_client_id.as_deref());
            assert_eq!(p.topic_alias_maximum().unwrap_or(0), b.topic_alias_max);
            assert_eq!(p.retain_available().unwrap_or(true), b.retain_available);
            assert_eq!(
                p.wildcard_subscription_available().unwrap_or(true),
                b.wildcard_subscription_available
            );
            assert_eq!(
                p.subscription_identifiers_available().unwrap_or(true),
                b.subscription_identifiers_available
            );
            assert_eq!(p.shared_subscription_available().unwrap_or(true), b.shared_subscription_available);
            assert_eq!(p.server_keep_alive(), b.server_keepalive_sec);
            assert_eq!(p.response_information(), b.response_info.as_deref());
            assert_eq!(p.server_reference(), b.server_reference.as_deref());
            assert_eq!(p.reason_string(), b.reason_string.as_deref());
        }
        (Packet::Disconnect(a), v5::Packet::Disconnect(b)) => {
            assert_eq!(a.reason, b.reason_code as u8);
            assert_eq!(a.properties.session_expiry_s(), b.session_expiry_interval_secs);
            assert_eq!(a.properties.server_reference(), b.server_reference.as_deref());
        }
        (Packet::Pingreq, v5::Packet::PingRequest)
        | (Packet::Pingresp, v5::Packet::PingResponse)
        | (Packet::Auth(_), v5::Packet::Auth(_)) => return false,
        (ours, theirs) => panic!("{ours:?} is {theirs:?}"),
    }
    true
}

#[track_caller]
fn same_v3(ours: &Packet, theirs: &v3::Packet) -> bool {
    match (ours, theirs) {
        (Packet::Connect(a), v3::Packet::Connect(b)) => {
            assert_eq!((a.level == Level::V31, a.keep_alive_s), (b.protocol.0 == 3, b.keep_alive));
            assert_eq!((a.clean_start, &*a.client_id), (b.clean_session, &*b.client_id));
            assert_eq!((a.username.as_deref(), &a.password), (b.username.as_deref(), &b.password));
            assert_eq!(a.will.is_some(), b.last_will.is_some());
            if let (Some(a), Some(b)) = (&a.will, &b.last_will) {
                assert_eq!((a.qos as u8, a.retain, &*a.topic), (b.qos.value(), b.retain, &*b.topic));
                assert_eq!(a.payload, b.message);
            }
        }
        (Packet::Publish(a), v3::Packet::Publish(b)) => {
            assert_eq!((a.dup, a.qos as u8, a.retain), (b.dup, b.qos.value(), b.retain));
            assert_eq!((&*a.topic, a.packet_id, &a.payload), (&*b.topic, b.packet_id, &b.payload));
        }
        (Packet::Puback(a), v3::Packet::PublishAck { packet_id })
        | (Packet::Pubrec(a), v3::Packet::PublishReceived { packet_id })
        | (Packet::Pubrel(a), v3::Packet::PublishRelease { packet_id })
        | (Packet::Pubcomp(a), v3::Packet::PublishComplete { packet_id }) => {
            assert_eq!(a.packet_id, *packet_id)
        }
        (Packet::Unsuback(a), v3::Packet::UnsubscribeAck { packet_id }) => {
            assert_eq!(a.packet_id, *packet_id)
        }
        (Packet::Subscribe(a), v3::Packet::Subscribe { packet_id, topic_filters }) => {
            assert_eq!(a.packet_id, *packet_id);
            let ours = a.filters.iter().map(|(filter, options)| (&**filter, options.qos as u8));
            assert!(ours.eq(topic_filters.iter().map(|(filter, qos)| (&**filter, qos.value()))));
        }
        (Packet::Unsubscribe(a), v3::Packet::Unsubscribe { packet_id, topic_filters }) => {
            assert_eq!(a.packet_id, *packet_id);
            assert!(
                a.filters.iter().map(|filter| &**filter).eq(topic_filters.iter().map(|filter| &**filter))
            );
        }
        (Packet::Suback(a), v3::Packet::SubscribeAck { packet_id, status }) => {
            assert_eq!(a.packet_id, *packet_id);
            let theirs = status.iter().map(|status| match status {
                v3::SubscribeReturnCode::Success(qos) => qos.value(),
                v3::SubscribeReturnCode::Failure => 0x80,
            });
            assert!(a.reasons.iter().copied().eq(theirs));
        }
        (Packet::Connack(a), v3::Packet::ConnectAck(b)) => {
            assert_eq!((a.session_present, a.reason), (b.session_present, b.return_code as u8));
        }
        (Packet::Pingreq, v3::Packet::PingRequest)
        | (Packet::Pingresp, v3::Packet::PingResponse)
        | (Packet::Disconnect(_), v3::Packet::Disconnect) => return false,
        (ours, theirs) => panic!("{ours:?} is {theirs:?}"),
    }
    true
}

#[test]
fn w97_fields_mean_the_same_to_another_codec() {
    println!("seeds 0 to {} for every level and role", CASES - 1);
    for level in LEVELS {
        for role in [Role::Server, Role::Client] {
            let mut compared = 0;
            for seed in 0..CASES {
                let r = &mut Random::new(seed);
                let packet = if role == Role::Server && r.chance(25) {
                    generate::connect(r, level)
                } else {
                    generate::packet(r, level, role)
                };
                // What was decoded, not what was made: `w90` shows that they are the same.
                let mut sent = BytesMut::from(&bytes(level, &packet)[..]);
                compared += u64::from(if level == Level::V5 {
                    let (theirs, _) = v5::Codec::default().decode(&mut sent).expect("valid").expect("whole");
                    same_v5(&packet, &theirs)
                } else {
                    let (theirs, _) = v3::Codec::default().decode(&mut sent).expect("valid").expect("whole");
                    same_v3(&packet, &theirs)
                });
            }
            assert!(compared > CASES / 2, "{compared} compared");
        }
    }
}
