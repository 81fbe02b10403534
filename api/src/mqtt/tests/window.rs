//! The window of a persistent session, and the place that is stored for it.

use super::super::config::MqttConfig;
use super::super::wire::{Level, Qos};
use super::world::World;

/// Messages that have arrived are kept until the session's place covers them. When only those fill the window the place
/// is stored at once: the time between two places is no limit of what a session gets.
#[tokio::test]
async fn a_session_that_acknowledges_everything_never_waits_for_its_place() {
    let config = MqttConfig { free_topics: true, checkpoint_ms: 3_600_000, ..MqttConfig::default() };
    let world = World::with(config);
    let (mut sub, present) = world.resume(Level::V5, "sub", "s").await;
    assert!(!present);
    assert_eq!(sub.subscribe("a", Qos::AtLeastOnce).await, 1);
    let mut publisher = world.connect(Level::V5, "pub", "p").await;
    for number in 0..1_000 {
        assert_eq!(publisher.put("a", &number.to_string()).await.reason, 0);
    }
    for number in 0..1_000 {
        let message = sub.message().await;
        assert_eq!(message.payload, number.to_string());
        sub.puback(message.packet_id.unwrap()).await;
    }
    sub.quiet().await;
}

/// One message that is never acknowledged holds up the rest at last, and does not make the store write a place for each
/// of them.
#[tokio::test]
async fn a_message_that_is_never_acknowledged_holds_up_the_rest_at_last() {
    let config = MqttConfig { free_topics: true, checkpoint_ms: 3_600_000, ..MqttConfig::default() };
    let world = World::with(config);
    let (mut sub, _) = world.resume(Level::V5, "sub", "s").await;
    sub.subscribe("a", Qos::AtLeastOnce).await;
    let mut publisher = world.connect(Level::V5, "pub", "p").await;
    for number in 0..400 {
        publisher.put("a", &number.to_string()).await;
    }
    let first = sub.message().await;
    assert_eq!(first.payload, "0");
    for _ in 1..256 {
        let message = sub.message().await;
        sub.puback(message.packet_id.unwrap()).await;
    }
    sub.quiet().await;
    sub.puback(first.packet_id.unwrap()).await;
    for number in 256..400 {
        let message = sub.message().await;
        assert_eq!(message.payload, number.to_string());
        sub.puback(message.packet_id.unwrap()).await;
    }
    sub.quiet().await;
}
