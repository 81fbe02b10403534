//! `since`: replay, then live, without a hole; places, recalls and gaps are told.

use feedlog_core::command::{Action, Command, Draft, Principal, RecallTarget, Scopes};
use feedlog_core::event::MessageKind;
use feedlog_core::ids::{FeedId, SeqId, Uid};
use feedlog_service::Gate;
use serde_json::{Value, json};

use super::world::{Peer, World, dev};

/// Everything up to the place, told as it is told.
async fn until(client: &mut Peer, seq: u64) -> Vec<String> {
    let cursor = json!({"op": "cursor", "channel": "@user", "seq_id": seq}).to_string();
    let mut got = Vec::new();
    loop {
        let text = client.text().await;
        if text == cursor {
            return got;
        }
        got.push(text);
    }
}

fn root(world: &World) -> Gate {
    let scopes = Scopes { user: true, send_as: true, audit: true, admin: true };
    let root = Principal { uid: Uid::parse("root").unwrap(), scopes, anonymous: false, via: None };
    world.store.gate(root)
}

async fn act(gate: &Gate, feed: &str, action: Action) -> u64 {
    let feed = FeedId::parse(feed).unwrap();
    gate.submit(Command { feed, action }).await.unwrap().done().seq.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_resumes_after_its_place_and_is_told_places() {
    let world = World::new(dev()).await;
    for text in ["a", "b", "c"] {
        world.publish("user:1001", text).await;
    }
    let mut client = world.user("1001").await;
    let since = |since: Value| json!({"op": "subscribe", "channel": "@user", "since": since}).to_string();
    client.ask(&since(json!(2)), r#"{"result":true,"seq_id":2}"#).await;
    assert_eq!(until(&mut client, 4).await, ["b", "c"]);
    world.publish("user:1001", "d").await;
    assert_eq!(until(&mut client, 5).await, ["d"]);
    // From now on, and from beyond the head.
    client.ask(&since(Value::Null), r#"{"result":true,"seq_id":5}"#).await;
    client.ask(&since(json!(900)), r#"{"result":true,"seq_id":5}"#).await;
    world.publish("user:1001", "e").await;
    assert_eq!(until(&mut client, 6).await, ["e"]);
    // Again from an older place.
    client.ask(&since(json!(4)), r#"{"result":true,"seq_id":4}"#).await;
    assert_eq!(until(&mut client, 6).await, ["d", "e"]);
    // Who does not say since knows of no places.
    let mut unaware = world.subscriber("1001", "@user").await;
    world.publish("user:1001", "f").await;
    assert_eq!(unaware.text().await, "f");
    unaware.quiet().await;
}

/// P4, while others publish; then again from the last place that was told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_hole_between_replay_and_live_while_others_publish() {
    let world = World::new(dev()).await;
    let count: u64 = 600;
    let mut back = world.back_end().await;
    let publisher = tokio::spawn(async move {
        for i in 0..count {
            back.send(
                &json!({"m": "mesh.publish", "p": {"c": "user:1001", "d": i.to_string()}, "i": i})
                    .to_string(),
            )
            .await;
            if i % 50 == 49 {
                for _ in 0..50 {
                    assert_eq!(back.json().await["E"], Value::Null);
                }
            }
        }
    });
    let (mut place, mut seen) = (0, 0_u64);
    while seen < count {
        let mut client = world.user("1001").await;
        client.send(&json!({"op": "subscribe", "channel": "@user", "since": place}).to_string()).await;
        assert_eq!(client.json().await, json!({"result": true, "seq_id": place}));
        let mut here = 0;
        // A connection is left with every few places; what came after the last place comes again.
        let mut behind = seen;
        while behind < count && here < 3 {
            let text = client.text().await;
            match text.parse::<u64>() {
                Ok(number) => {
                    assert_eq!(number, behind, "each once and in order");
                    behind += 1;
                }
                Err(_) => {
                    let told: Value = serde_json::from_str(&text).unwrap();
                    let told = told["seq_id"].as_u64().unwrap();
                    assert!(told > place);
                    // The message i has the place i + 2.
                    place = told;
                    seen = place - 1;
                    here += 1;
                }
            }
        }
        seen = if behind == count { count } else { seen };
    }
    publisher.await.unwrap();
}

/// More than is handed on in one go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_backlog_comes_whole() {
    let world = World::new(dev()).await;
    let count = 2000;
    let mut back = world.back_end().await;
    let publish =
        |i: usize| json!({"m": "mesh.publish", "p": {"c": "user:1001", "d": i.to_string()}, "i": i});
    back.send_all((0..count).map(|i| publish(i).to_string())).await;
    for _ in 0..count {
        assert_eq!(back.json().await["E"], Value::Null);
    }
    let mut client = world.user("1001").await;
    client.ask(r#"{"op":"subscribe","channel":"@user","since":0}"#, r#"{"result":true,"seq_id":0}"#).await;
    let got = until(&mut client, count as u64 + 1).await;
    let got: Vec<_> = got.into_iter().filter(|text| !text.contains("cursor")).collect();
    assert_eq!(got, (0..count).map(|i| i.to_string()).collect::<Vec<_>>());
}

/// Subscriptions of one feed that began at different places each get what comes after their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_of_one_feed_have_places_of_their_own() {
    let world = World::new(dev()).await;
    world.publish("1001@balance", "old money").await;
    world.publish("user:1001", "old mail").await;
    let mut client = world.subscriber("1001", "@user").await;
    let since = r#"{"op":"subscribe","channel":"@balance","since":0}"#;
    client.ask(since, r#"{"result":true,"seq_id":0}"#).await;
    assert_eq!(client.text().await, "old money");
    assert_eq!(client.json().await, json!({"op": "cursor", "channel": "@balance", "seq_id": 3}));
    world.publish("user:1001", "new mail").await;
    assert_eq!(client.text().await, "new mail");
    client.quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recalls_edits_and_gaps_are_told_and_recalled_content_never_is() {
    let world = World::new(dev()).await;
    let root = root(&world);
    for text in ["keep", "secret", "erased"] {
        world.publish("user:1001", text).await;
    }
    let mut live = world.user("1001").await;
    live.ask(r#"{"op":"subscribe","channel":"@user","since":4}"#, r#"{"result":true,"seq_id":4}"#).await;
    let mut unaware = world.subscriber("1001", "@user").await;
    let recall = Action::RecallMessage { target: RecallTarget::Seq(SeqId(3)), reason: None };
    assert_eq!(act(&root, "user:1001", recall).await, 5);
    assert_eq!(live.json().await, json!({"op": "recalled", "channel": "@user", "seq_id": 3}));
    assert_eq!(live.json().await, json!({"op": "cursor", "channel": "@user", "seq_id": 5}));
    act(&root, "user:1001", Action::EraseMessages { targets: vec![SeqId(4)], reason: None }).await;
    let gone = json!({"op": "gone", "channel": "@user", "from": 4, "to": 4, "reason": "erased"});
    assert_eq!(live.json().await, gone);
    until(&mut live, 6).await;
    let draft = Draft::new(MessageKind::Custom, "text/plain".into(), "typo".into());
    assert_eq!(act(&root, "user:1001", Action::SendMessage(Box::new(draft))).await, 7);
    assert_eq!(until(&mut live, 7).await, ["typo"]);
    let edit =
        Action::EditMessage { target: SeqId(7), content_type: "text/plain".into(), payload: "right".into() };
    act(&root, "user:1001", edit).await;
    assert_eq!(live.json().await, json!({"op": "edited", "channel": "@user", "seq_id": 7}));
    until(&mut live, 8).await;
    // A client of the original gets messages and nothing else.
    assert_eq!(unaware.text().await, "typo");
    unaware.quiet().await;
    // Whoever reads it all now gets what is left, and is told what is not.
    let mut late = world.user("1001").await;
    late.ask(r#"{"op":"subscribe","channel":"@user","since":0}"#, r#"{"result":true,"seq_id":0}"#).await;
    let got = until(&mut late, 8).await;
    assert!(!got.iter().any(|text| text.contains("secret") || text == "erased" || text == "typo"), "{got:?}");
    let recalled = json!({"op": "recalled", "channel": "@user", "seq_id": 3}).to_string();
    for wanted in ["keep", "right", &recalled, &gone.to_string()] {
        assert!(got.iter().any(|text| text == wanted), "{wanted}: {got:?}");
    }
}

/// What is published while nobody is there is delivered later to who says since, across a restart of the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_outlives_the_server() {
    let mut world = World::new(dev()).await;
    world.publish("user:1001", "a").await;
    let mut client = world.user("1001").await;
    client.ask(r#"{"op":"subscribe","channel":"@user","since":0}"#, r#"{"result":true,"seq_id":0}"#).await;
    assert_eq!(until(&mut client, 2).await, ["a"]);
    world.publish("user:1001", "b").await;
    assert_eq!(until(&mut client, 3).await, ["b"]);
    world.stop();
    assert_eq!(client.closed().await, 1001);
    let store = world.store.clone();
    world.ended().await;
    let world = World::over(dev(), crate::http::HttpConfig::default(), store).await;
    world.publish("user:1001", "c").await;
    let mut client = world.user("1001").await;
    client.ask(r#"{"op":"subscribe","channel":"@user","since":3}"#, r#"{"result":true,"seq_id":3}"#).await;
    assert_eq!(until(&mut client, 4).await, ["c"]);
}
