//! Protobuf bodies over a connection.

use feedlog_core::ids::FeedId;
use prost::Message as _;
use serde_json::{Value, json};

use super::super::wire::{Level, Packet, Properties, Publish, Qos, reason};
use super::world::{Client, World, connect, id, publish};
use crate::made;
use crate::pb::wire::{BaseUserUnreadStatics, Message, ServiceMessage};

const LEVELS: [Level; 3] = [Level::V31, Level::V311, Level::V5];
/// The example of the page: message 1 of user 2, "hi", at 3, to user 4.
const EXAMPLE: [u8; 12] = [0x08, 0x01, 0x10, 0x02, 0x1a, 0x02, 0x68, 0x69, 0x20, 0x03, 0x28, 0x04];

fn body(topic: &str, body: &[u8], qos: Qos, number: u16) -> Publish {
    Publish { payload: bytes::Bytes::copy_from_slice(body), ..publish(topic, "", qos, number) }
}

/// A connection to the path of protobuf clients.
async fn paho(world: &World, level: Level, user: &str, name: &str) -> Client {
    let (stream, task) = world.dial_with(64 * 1024, true);
    let mut client = Client::over(stream, task, level);
    assert_eq!(client.connect(connect(level, user, name)).await.reason, 0);
    assert_eq!(statics(&mut client).await.unread_total, 0, "where the user stands comes first");
    client
}

async fn statics(client: &mut Client) -> BaseUserUnreadStatics {
    let message = client.message().await;
    assert_eq!((message.topic.as_str(), message.qos), ("pb/unread", Qos::AtMostOnce));
    BaseUserUnreadStatics::decode(&*message.payload).unwrap()
}

/// `pb/message` both ways, the receipt before the acknowledgement, unread counts after the change.
#[tokio::test]
async fn a_message_goes_to_the_direct_feed_and_down_to_the_other_user() {
    for level in LEVELS {
        let world = World::new();
        let mut sender = world.connect(level, "2", "s").await;
        // Asking for them makes a protobuf client of any connection.
        let mut reader = world.connect(Level::V5, "4", "r").await;
        assert_eq!(reader.subscribe("pb/message", Qos::AtLeastOnce).await, 1);
        sender.send(Packet::Publish(body("pb/message", &EXAMPLE, Qos::AtLeastOnce, 9))).await;
        let told = receipt(&mut sender, 1).await;
        let Some(Packet::Puback(ack)) = sender.next().await else { panic!("no PUBACK") };
        assert_eq!((ack.packet_id, ack.reason), (id(9), 0));
        let (two, four) = ("2".parse_uid(), "4".parse_uid());
        let feed = FeedId::direct(&two, &four, made::digest);
        assert_eq!((&told["client_message_id"], &told["feed_id"]), (&json!(1), &json!(feed.as_str())));
        let server_id = told["message_id"].as_u64().unwrap();
        assert!(server_id < 1 << 53);

        let message = reader.message().await;
        assert_eq!(message.topic.as_str(), "pb/message");
        let down = Message::decode(&*message.payload).unwrap();
        assert_eq!(down.message_id, Some(server_id), "the server's id");
        assert_eq!(
            (down.sender_id, down.receiver_id, down.content.as_deref()),
            (Some(2), Some(4), Some("hi"))
        );
        assert_eq!((down.create_time, down.seq_id), (Some(3), told["seq_id"].as_u64()));
        let unread = statics(&mut reader).await;
        assert_eq!((unread.user_id, unread.unread_total), (4, 1));

        // A retry is harmless and gets the same answer.
        let again = Publish { dup: true, ..body("pb/message", &EXAMPLE, Qos::AtLeastOnce, 10) };
        sender.send(Packet::Publish(again)).await;
        let told_again = receipt(&mut sender, 1).await;
        assert_eq!(
            (&told_again["message_id"], &told_again["seq_id"]),
            (&told["message_id"], &told["seq_id"])
        );
        assert_eq!(told_again["duplicate"], true);
        assert_eq!(super::world::sent_as(&world, "2", feed.as_str()).await, 1);
    }
}

/// The receipt; pushes may come before it.
async fn receipt(client: &mut Client, number: u64) -> Value {
    loop {
        let message = client.message().await;
        if message.topic.starts_with("imreceipt:") {
            assert_eq!(message.topic.as_str(), format!("imreceipt://modulus/publish?msg_id={number}"));
            return serde_json::from_slice(&message.payload).unwrap();
        }
        // Where the user stands, and what is news to clients of MQTT 3.1.
        assert!(["pb/unread", "impush://modulus/news"].contains(&message.topic.as_str()));
    }
}

/// `40 0A PP PP MM×8` on the path of patched clients, two bytes everywhere else.
#[tokio::test]
async fn the_long_acknowledgement_is_for_the_protobuf_path_only() {
    use tokio::io::AsyncReadExt as _;
    for level in [Level::V31, Level::V311] {
        let world = World::new();
        world.group("g", &["2"]).await;
        let mut client = paho(&world, level, "2", "p").await;
        client.send(Packet::Publish(body("pb/feeds/g", &EXAMPLE, Qos::AtLeastOnce, 0x1234))).await;
        let told = receipt(&mut client, 1).await;
        let mut bytes = client.take_input().to_vec();
        while bytes.len() < 12 {
            let mut more = [0; 64];
            let count = client.stream.read(&mut more).await.unwrap();
            assert_ne!(count, 0);
            bytes.extend_from_slice(&more[..count]);
        }
        let number = told["message_id"].as_u64().unwrap().to_be_bytes();
        assert_eq!(bytes[..4], [0x40, 0x0a, 0x12, 0x34]);
        assert_eq!(bytes[4..12], number);
    }
    // MQTT 5 has no place for them.
    let world = World::new();
    world.group("g", &["2"]).await;
    let mut client = paho(&world, Level::V5, "2", "p").await;
    client.send(Packet::Publish(body("pb/feeds/g", &EXAMPLE, Qos::AtLeastOnce, 5))).await;
    receipt(&mut client, 1).await;
    let mut next = client.next().await;
    if matches!(next, Some(Packet::Publish(_))) {
        next = client.next().await;
    }
    assert!(matches!(next, Some(Packet::Puback(ack)) if ack.packet_id == id(5)));
}

/// What others send in a group comes as a protobuf body, with the number that a later recall names.
#[tokio::test]
async fn what_other_wires_send_comes_down_as_protobuf() {
    let world = World::new();
    world.group("g", &["ada", "4"]).await;
    let mut reader = paho(&world, Level::V311, "4", "p").await;
    let seq = world.say("ada", "g", "hello").await;
    let message = reader.message().await;
    assert_eq!(message.topic.as_str(), "pb/message");
    let down = Message::decode(&*message.payload).unwrap();
    assert_eq!((down.content.as_deref(), down.feed_id.as_deref()), (Some("hello"), Some("g")));
    assert_eq!(down.seq_id, Some(seq.0));
    assert_eq!(statics(&mut reader).await.unread_total, 1);
    let recall = feedlog_core::command::Action::RecallMessage {
        target: feedlog_core::command::RecallTarget::Seq(seq),
        reason: None,
    };
    world.act("ada", "g", recall).await;
    let message = reader.message().await;
    assert_eq!(message.topic.as_str(), "pb/service");
    let notice = ServiceMessage::decode(&*message.payload).unwrap();
    assert_eq!(notice.content, down.message_id.map(|number| number.to_string()));
    assert_eq!(statics(&mut reader).await.unread_total, 0);
}

/// Refused as each version can say it.
#[tokio::test]
async fn bad_bodies_and_other_senders_are_refused() {
    let world = World::new();
    world.group("g", &["2"]).await;
    let mut other = EXAMPLE;
    other[3] = 7;
    for (user, topic, bytes, code) in [
        ("2", "pb/feeds/g", &other[..], reason::NOT_AUTHORIZED),
        ("7", "pb/feeds/g", &other[..], reason::NOT_AUTHORIZED),
        ("", "pb/message", &EXAMPLE[..], reason::NOT_AUTHORIZED),
        ("2", "pb/message", &EXAMPLE[..5], reason::IMPLEMENTATION_SPECIFIC_ERROR),
        ("2", "pb/nothing", &EXAMPLE[..], reason::TOPIC_NAME_INVALID),
        ("2", "pb/unread", &EXAMPLE[..], reason::TOPIC_NAME_INVALID),
    ] {
        let mut client = world.connect(Level::V5, user, "c").await;
        client.send(Packet::Publish(body(topic, bytes, Qos::AtLeastOnce, 1))).await;
        let mut next = client.next().await;
        while matches!(&next, Some(Packet::Publish(publish)) if publish.topic.as_str() == "pb/unread") {
            next = client.next().await;
        }
        let Some(Packet::Puback(ack)) = next else { panic!("{topic}: no PUBACK: {next:?}") };
        assert_eq!(ack.reason, code, "{user} {topic}");
        let mut client = world.connect(Level::V311, user, "c").await;
        client.send(Packet::Publish(body(topic, bytes, Qos::AtLeastOnce, 1))).await;
        while let Some(packet) = client.next().await {
            assert!(matches!(packet, Packet::Publish(publish) if publish.topic.as_str() == "pb/unread"));
        }
    }
    let mut client = world.connect(Level::V5, "2", "c").await;
    let granted =
        client.subscribe_with("pb/unread", super::world::options(Qos::AtMostOnce), Properties::default());
    assert_eq!(granted.await, 0);
}

trait ParseUid {
    fn parse_uid(&self) -> feedlog_core::ids::Uid;
}

impl ParseUid for str {
    fn parse_uid(&self) -> feedlog_core::ids::Uid {
        feedlog_core::ids::Uid::parse(self).unwrap()
    }
}
