//! Shared subscriptions.

use std::collections::{BTreeMap, BTreeSet};

use super::super::wire::{Level, Packet, Properties, Publish, Qos, SubscribeOptions, reason};
use super::world::{Client, World, connect, options, properties, publish, text};

async fn member(world: &World, name: &str, filter: &str, qos: Qos) -> Client {
    let mut client = world.connect(Level::V5, "", name).await;
    assert_eq!(client.subscribe(filter, qos).await, qos as u8);
    client
}

/// The payloads that come until `end`, each acknowledged.
async fn until(client: &mut Client, end: &str) -> Vec<String> {
    let mut got = Vec::new();
    loop {
        let message = client.message().await;
        if let Some(id) = message.packet_id {
            client.puback(id).await;
        }
        let payload = String::from_utf8(message.payload.to_vec()).unwrap();
        if payload == end {
            return got;
        }
        got.push(payload);
    }
}

/// §4.8.2: each message to one member of each group, in turn; beside other groups and ordinary subscriptions.
#[tokio::test]
async fn each_message_goes_to_one_member_of_each_group_in_turn() {
    let world = World::new();
    let mut members = Vec::new();
    for name in ["one", "two", "three"] {
        let mut client = member(&world, name, "$share/g/s/+", Qos::AtLeastOnce).await;
        client.subscribe("end", Qos::AtMostOnce).await;
        members.push(client);
    }
    let mut other = member(&world, "other", "$share/h/s/+", Qos::AtMostOnce).await;
    let mut plain = member(&world, "plain", "s/#", Qos::AtMostOnce).await;
    for number in 0..30 {
        world.say("bob", &format!("s/{}", number % 4), &number.to_string()).await;
    }
    let all: BTreeSet<String> = (0..30).map(|number| number.to_string()).collect();
    for client in [&mut other, &mut plain] {
        let mut got = BTreeSet::new();
        for _ in 0..30 {
            got.insert(String::from_utf8(client.message().await.payload.to_vec()).unwrap());
        }
        assert_eq!(got, all);
    }
    let mut got = BTreeSet::new();
    for client in &mut members {
        for _ in 0..10 {
            let message = client.message().await;
            client.puback(message.packet_id.unwrap()).await;
            assert!(got.insert(String::from_utf8(message.payload.to_vec()).unwrap()));
        }
        client.quiet().await;
    }
    assert_eq!(got, all);
}

/// A group is a name and a filter: the same name with another filter is another group.
#[tokio::test]
async fn the_same_name_with_another_filter_is_another_group() {
    let world = World::new();
    let mut one = member(&world, "one", "$share/g/s/+", Qos::AtMostOnce).await;
    let mut two = member(&world, "two", "$share/g/s/#", Qos::AtMostOnce).await;
    for number in 0..4 {
        world.say("bob", "s/x", &number.to_string()).await;
    }
    for client in [&mut one, &mut two] {
        for _ in 0..4 {
            assert_eq!(client.message().await.topic.as_str(), "s/x");
        }
        client.quiet().await;
    }
}

/// `[MQTT-4.8.2-3]`: the QoS of each member's own subscription, and its own identifier.
#[tokio::test]
async fn each_member_has_its_own_qos_and_identifier() {
    let world = World::new();
    let mut zero = member(&world, "zero", "$share/g/s", Qos::AtMostOnce).await;
    let mut one = world.connect(Level::V5, "", "one").await;
    let identifier = properties(|p| {
        p.subscription_identifier(7);
    });
    one.subscribe_with("$share/g/s", options(Qos::AtLeastOnce), identifier).await;
    for _ in 0..4 {
        world.say("bob", "s", "m").await;
    }
    for _ in 0..2 {
        let message = zero.message().await;
        assert_eq!(
            (message.qos, message.properties.subscription_identifiers().count()),
            (Qos::AtMostOnce, 0)
        );
        let message = one.message().await;
        one.puback(message.packet_id.unwrap()).await;
        assert_eq!(message.properties.subscription_identifiers().collect::<Vec<_>>(), [7]);
    }
}

/// §4.8.2, QoS 1: what a member that is gone has not acknowledged goes to another, sent or not.
#[tokio::test]
async fn what_a_member_that_vanishes_has_not_acknowledged_goes_to_another() {
    let world = World::new();
    let mut slow = world.client(Level::V5);
    let mut hello = connect(Level::V5, "", "slow");
    hello.properties = properties(|p| {
        p.receive_maximum(2);
    });
    slow.connect(hello).await;
    slow.subscribe("$share/g/s", Qos::AtLeastOnce).await;
    let all: BTreeSet<String> = (0..12).map(|number| number.to_string()).collect();
    for payload in &all {
        world.say("bob", "s", payload).await;
    }
    let done = slow.message().await;
    slow.message().await;
    slow.puback(done.packet_id.unwrap()).await;
    slow.message().await;
    slow.quiet().await;
    let mut quick = member(&world, "quick", "$share/g/s", Qos::AtLeastOnce).await;
    slow.vanish().await;
    let mut got = BTreeSet::new();
    while got.len() < 11 {
        let message = quick.message().await;
        quick.puback(message.packet_id.unwrap()).await;
        assert!(got.insert(String::from_utf8(message.payload.to_vec()).unwrap()));
    }
    quick.quiet().await;
    got.insert(String::from_utf8(done.payload.to_vec()).unwrap());
    assert_eq!(got, all, "all, and what was acknowledged not again");
}

/// `[MQTT-3.10.4-3]`: what a member that unsubscribes was sent is brought to its end; the rest goes to another.
#[tokio::test]
async fn a_member_that_unsubscribes_completes_what_it_was_sent() {
    let world = World::new();
    let mut one = world.client(Level::V5);
    let mut hello = connect(Level::V5, "", "one");
    hello.properties = properties(|p| {
        p.receive_maximum(1);
    });
    one.connect(hello).await;
    one.subscribe("$share/g/s", Qos::ExactlyOnce).await;
    let mut writer = world.connect(Level::V5, "", "w").await;
    for payload in ["sent", "not sent", "nor this"] {
        writer.put_packet(publish("s", payload, Qos::ExactlyOnce, 1)).await;
        writer.send(Packet::Pubrel(super::world::ack(super::world::id(1)))).await;
        writer.next().await;
    }
    let sent = one.message().await.packet_id.unwrap();
    one.quiet().await;
    let mut two = member(&world, "two", "$share/g/s", Qos::AtLeastOnce).await;
    assert_eq!(one.unsubscribe("$share/g/s").await, [0]);
    assert_eq!(one.unsubscribe("$share/g/s").await, [reason::NO_SUBSCRIPTION_EXISTED]);
    world.say("bob", "s", "end").await;
    let rest: BTreeSet<String> = until(&mut two, "end").await.into_iter().collect();
    let mut rest: Vec<String> = rest.into_iter().collect();
    while rest.len() < 2 {
        let message = two.message().await;
        two.puback(message.packet_id.unwrap()).await;
        rest.push(String::from_utf8(message.payload.to_vec()).unwrap());
    }
    rest.sort();
    assert_eq!(rest, ["nor this", "not sent"]);
    one.send(Packet::Pubrec(super::world::ack(sent))).await;
    assert!(matches!(one.next().await, Some(Packet::Pubrel(rel)) if rel.reason == 0));
    one.send(Packet::Pubcomp(super::world::ack(sent))).await;
    one.quiet().await;
    // A group without members is no group: only what comes since it is one again.
    assert_eq!(two.unsubscribe("$share/g/s").await, [0]);
    world.say("bob", "s", "nobody's").await;
    let mut three = member(&world, "three", "$share/g/s", Qos::AtLeastOnce).await;
    world.say("bob", "s", "end").await;
    assert_eq!(until(&mut three, "end").await, Vec::<String>::new());
}

/// `[MQTT-3.8.4-5]`, §4.8.2: subscribing again, in the same packet or another one, is one membership.
#[tokio::test]
async fn a_member_that_subscribes_again_is_one_member() {
    let world = World::new();
    let mut one = world.connect(Level::V5, "", "one").await;
    for _ in 0..2 {
        let filters = vec![(text("$share/g/s"), options(Qos::AtMostOnce)); 2];
        let packet_id = super::world::id(1);
        let subscribe =
            super::super::wire::Subscribe { packet_id, properties: Properties::default(), filters };
        one.send(Packet::Subscribe(subscribe)).await;
        assert!(matches!(one.next().await, Some(Packet::Suback(ack)) if ack.reasons == [0, 0]));
    }
    let mut two = member(&world, "two", "$share/g/s", Qos::AtMostOnce).await;
    for number in 0..6 {
        world.say("bob", "s", &number.to_string()).await;
    }
    for _ in 0..3 {
        one.message().await;
        two.message().await;
    }
    one.quiet().await;
    assert_eq!(one.unsubscribe("$share/g/s").await, [0]);
    for number in 0..6 {
        world.say("bob", "s", &number.to_string()).await;
    }
    for _ in 0..6 {
        two.message().await;
    }
    one.quiet().await;
}

/// `[MQTT-4.8.2-5]`: a QoS 2 message that was sent to a session that ended goes to nobody else; `[MQTT-4.8.2-6]`: nor one
/// that was refused.
#[tokio::test]
async fn what_was_sent_at_qos_2_or_refused_goes_to_nobody_else() {
    let world = World::new();
    let mut one = member(&world, "one", "$share/g/s", Qos::ExactlyOnce).await;
    world.say("bob", "s", "refused").await;
    let refused = one.message().await.packet_id.unwrap();
    one.send(Packet::Pubrec(super::super::wire::Ack { reason: 0x83, ..super::world::ack(refused) })).await;
    world.say("bob", "s", "sent").await;
    assert_eq!(one.payload("s").await, "sent");
    let mut two = member(&world, "two", "$share/g/s", Qos::AtLeastOnce).await;
    one.vanish().await;
    world.say("bob", "s", "end").await;
    assert_eq!(until(&mut two, "end").await, Vec::<String>::new());
    // The same for QoS 1: refused is over.
    world.say("bob", "s", "again").await;
    let again = two.message().await.packet_id.unwrap();
    two.send(Packet::Puback(super::super::wire::Ack { reason: 0x83, ..super::world::ack(again) })).await;
    two.quiet().await;
    let mut three = member(&world, "three", "$share/g/s", Qos::AtLeastOnce).await;
    two.vanish().await;
    world.say("bob", "s", "end").await;
    assert_eq!(until(&mut three, "end").await, Vec::<String>::new());
}

/// Persistent members: what came while nobody was there, and what was on its way, also after a restart.
#[tokio::test]
async fn a_group_with_persistent_members_keeps_its_place_over_a_restart() {
    let mut world = World::new();
    let (mut one, _) = world.resume(Level::V5, "ada", "one").await;
    assert_eq!(one.subscribe("$share/g/k", Qos::AtLeastOnce).await, 1);
    let (mut two, _) = world.resume(Level::V5, "bob", "two").await;
    assert_eq!(two.subscribe("$share/g/k", Qos::AtLeastOnce).await, 1);
    world.say("bob", "k", "a").await;
    world.say("bob", "k", "b").await;
    let held = one.message().await;
    let other = two.message().await;
    two.puback(other.packet_id.unwrap()).await;
    two.quiet().await;
    one.vanish().await;
    two.leave().await;
    world.say("bob", "k", "c").await;
    world.restart().await;
    world.say("bob", "k", "d").await;
    let (mut two, present) = world.resume(Level::V5, "bob", "two").await;
    assert!(present);
    world.say("bob", "k", "end").await;
    assert_eq!(until(&mut two, "end").await, ["c", "d"]);
    // What a session has on its way stays with it.
    let (mut one, _) = world.resume(Level::V5, "ada", "one").await;
    let again = one.message().await;
    assert!(again.dup);
    assert_eq!((&again.payload, again.packet_id), (&held.payload, held.packet_id));
    one.puback(again.packet_id.unwrap()).await;
    one.quiet().await;
}

/// The place is there with the SUBACK: a crash at any time after it loses nothing.
#[tokio::test]
async fn a_group_keeps_its_place_over_a_crash() {
    let mut world = World::new();
    let (mut one, _) = world.resume(Level::V5, "ada", "one").await;
    assert_eq!(one.subscribe("$share/g/k", Qos::AtLeastOnce).await, 1);
    // Nothing of what is in memory is told of it.
    one.cut().await;
    world.restart().await;
    world.say("bob", "k", "m").await;
    let (mut again, present) = world.resume(Level::V5, "ada", "one").await;
    assert!(present);
    let message = again.message().await;
    assert_eq!(&message.payload[..], b"m");
    again.puback(message.packet_id.unwrap()).await;
    again.quiet().await;
}

/// Members that do not stay move the place of a group that is kept as well.
#[tokio::test]
async fn what_a_guest_had_does_not_come_again() {
    let world = World::new();
    let (mut one, _) = world.resume(Level::V5, "ada", "one").await;
    assert_eq!(one.subscribe("$share/g/k", Qos::AtLeastOnce).await, 1);
    one.leave().await;
    let mut guest = member(&world, "guest", "$share/g/k", Qos::AtLeastOnce).await;
    world.say("bob", "k", "guest's").await;
    let message = guest.message().await;
    guest.puback(message.packet_id.unwrap()).await;
    guest.quiet().await;
    guest.leave().await;
    let (mut one, _) = world.resume(Level::V5, "ada", "one").await;
    world.say("bob", "k", "end").await;
    assert_eq!(until(&mut one, "end").await, Vec::<String>::new());
}

/// §4.8.2: no retained messages; nor does a group get what was published before it was.
#[tokio::test]
async fn retained_messages_do_not_come() {
    let world = World::new();
    let mut writer = world.connect(Level::V5, "", "w").await;
    writer.put_packet(Publish { retain: true, ..publish("s", "old", Qos::AtLeastOnce, 1) }).await;
    let mut one = member(&world, "one", "$share/g/s", Qos::AtMostOnce).await;
    one.quiet().await;
    writer.put_packet(Publish { retain: true, ..publish("s", "new", Qos::AtLeastOnce, 1) }).await;
    let message = one.message().await;
    assert_eq!((&message.payload[..], message.retain), (&b"new"[..], false));
    one.quiet().await;
}

/// `[MQTT-3.8.3-4]`: No Local is a protocol error.
#[tokio::test]
async fn no_local_ends_the_connection() {
    let world = World::new();
    let mut client = world.connect(Level::V5, "", "c").await;
    let filters = vec![(text("$share/g/s"), SubscribeOptions { no_local: true, ..options(Qos::AtMostOnce) })];
    let subscribe = super::super::wire::Subscribe {
        packet_id: super::world::id(1),
        properties: Properties::default(),
        filters,
    };
    client.send(Packet::Subscribe(subscribe)).await;
    assert_eq!(client.disconnected().await, reason::PROTOCOL_ERROR);
}

/// `[MQTT-4.8.2-1]`, `[MQTT-4.8.2-2]`: a name of at least one character without `/`, `+` and `#`, and a filter.
#[tokio::test]
async fn bad_names_of_groups_end_the_connection() {
    let world = World::new();
    for filter in ["$share//s", "$share/g", "$share/g/", "$share/+/s", "$share/g#/s", "$share/"] {
        let mut client = world.connect(Level::V5, "", "c").await;
        let filters = vec![(text(filter), options(Qos::AtMostOnce))];
        let subscribe = super::super::wire::Subscribe {
            packet_id: super::world::id(1),
            properties: Properties::default(),
            filters,
        };
        client.send(Packet::Subscribe(subscribe)).await;
        let code = client.disconnected().await;
        assert!(
            [reason::MALFORMED_PACKET, reason::PROTOCOL_ERROR, reason::TOPIC_FILTER_INVALID].contains(&code),
            "{filter}: {code:#x}"
        );
    }
    let mut client = world.connect(Level::V5, "ada", "c").await;
    world.group("g", &["ada"]).await;
    for filter in ["$share/g/feeds/g", "$share/g/feeds/+", "$share/g/$from/0/feeds/g", "$share/g/pb/unread"] {
        let code = client.subscribe(filter, Qos::AtMostOnce).await;
        assert_eq!(code, reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED, "{filter}");
    }
    let ack = client.put("$share/g/s", "m").await;
    assert_eq!(ack.reason, reason::NOT_AUTHORIZED, "nobody publishes there");
}

/// A member that takes nothing does not hold up the others.
#[tokio::test]
async fn a_member_whose_window_is_full_does_not_hold_up_the_others() {
    let world = World::new();
    let mut stuck = world.client(Level::V5);
    let mut hello = connect(Level::V5, "", "stuck");
    hello.properties = properties(|p| {
        p.receive_maximum(1);
    });
    stuck.connect(hello).await;
    stuck.subscribe("$share/g/s", Qos::AtLeastOnce).await;
    let mut quick = member(&world, "quick", "$share/g/s", Qos::AtLeastOnce).await;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..100 {
        world.say("bob", "s", &number.to_string()).await;
    }
    // One on its way, one behind it, and those that wait for that member.
    for _ in 0..100 - 18 {
        let message = quick.message().await;
        quick.puback(message.packet_id.unwrap()).await;
        *counts.entry(String::from_utf8(message.payload.to_vec()).unwrap()).or_default() += 1;
    }
    stuck.message().await;
    stuck.vanish().await;
    for _ in 0..18 {
        let message = quick.message().await;
        quick.puback(message.packet_id.unwrap()).await;
        *counts.entry(String::from_utf8(message.payload.to_vec()).unwrap()).or_default() += 1;
    }
    quick.quiet().await;
    assert_eq!(counts.len(), 100);
    assert!(counts.values().all(|count| *count == 1));
}
