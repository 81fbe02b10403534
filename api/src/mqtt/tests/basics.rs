//! The first things any client does.

use super::super::wire::{Level, Packet, Qos};
use super::world::{World, ack, id, publish};

const LEVELS: [Level; 3] = [Level::V31, Level::V311, Level::V5];

#[tokio::test]
async fn a_message_goes_from_one_client_to_another_at_every_qos_and_level() {
    let world = World::new();
    for level in LEVELS {
        let mut reader = world.connect(level, "", "reader").await;
        assert_eq!(reader.subscribe("a/+", Qos::ExactlyOnce).await, 2);
        let mut writer = world.connect(level, "", "writer").await;
        writer.send(Packet::Publish(publish("a/b", "zero", Qos::AtMostOnce, 0))).await;
        let message = reader.message().await;
        assert_eq!((message.qos, &message.payload[..]), (Qos::AtMostOnce, &b"zero"[..]));

        assert_eq!(writer.put("a/b", "one").await.packet_id, id(1));
        let message = reader.message().await;
        assert_eq!((message.qos, &message.payload[..]), (Qos::AtLeastOnce, &b"one"[..]));
        reader.puback(message.packet_id.unwrap()).await;

        assert_eq!(writer.put_packet(publish("a/b", "two", Qos::ExactlyOnce, 7)).await.packet_id, id(7));
        writer.send(Packet::Pubrel(ack(id(7)))).await;
        assert!(matches!(writer.next().await, Some(Packet::Pubcomp(one)) if one.packet_id == id(7)));
        let message = reader.message().await;
        assert_eq!((message.qos, &message.payload[..]), (Qos::ExactlyOnce, &b"two"[..]));
        let number = message.packet_id.unwrap();
        reader.send(Packet::Pubrec(ack(number))).await;
        assert!(matches!(reader.next().await, Some(Packet::Pubrel(one)) if one.packet_id == number));
        reader.send(Packet::Pubcomp(ack(number))).await;
        reader.quiet().await;
        writer.quiet().await;
    }
}

#[tokio::test]
async fn a_session_that_stays_gets_what_came_meanwhile() {
    let world = World::new();
    for (level, id) in LEVELS.into_iter().zip(["one", "two", "three"]) {
        let (mut reader, present) = world.resume(level, "ada", id).await;
        assert!(!present);
        reader.subscribe("a/#", Qos::AtLeastOnce).await;
        reader.leave().await;
        let mut writer = world.connect(level, "bob", "writer").await;
        for number in 0..5 {
            writer.put(&format!("a/{}", number % 2), &format!("{number}")).await;
        }
        let (mut reader, present) = world.resume(level, "ada", id).await;
        assert_eq!(present, level != Level::V31);
        let mut got = Vec::new();
        for _ in 0..5 {
            let message = reader.message().await;
            reader.puback(message.packet_id.unwrap()).await;
            got.push(String::from_utf8(message.payload.to_vec()).unwrap());
        }
        got.sort();
        assert_eq!(got, ["0", "1", "2", "3", "4"]);
        reader.quiet().await;
        reader.leave().await;
        let (mut reader, _) = world.resume(level, "ada", id).await;
        reader.quiet().await;
        reader.unsubscribe("a/#").await;
        reader.leave().await;
    }
}

#[tokio::test]
async fn the_newest_retained_message_meets_whoever_subscribes() {
    let world = World::new();
    let mut writer = world.connect(Level::V311, "", "writer").await;
    for payload in ["old", "new"] {
        let mut message = publish("r/x", payload, Qos::AtLeastOnce, 3);
        message.retain = true;
        writer.put_packet(message).await;
    }
    for filter in ["r/x", "r/+", "#"] {
        let mut reader = world.connect(Level::V311, "", "reader").await;
        reader.subscribe(filter, Qos::AtMostOnce).await;
        let message = reader.message().await;
        assert!(message.retain);
        assert_eq!(&message.payload[..], b"new");
        reader.quiet().await;
    }
    let mut message = publish("r/x", "", Qos::AtLeastOnce, 3);
    message.retain = true;
    writer.put_packet(message).await;
    let mut reader = world.connect(Level::V311, "", "reader").await;
    reader.subscribe("r/x", Qos::AtMostOnce).await;
    reader.quiet().await;
}
