//! Topics and their workers.

use std::collections::HashSet;

use feedlog_core::command::{Action, Command, CreateFeed, RecallTarget};
use feedlog_core::event::{FeedKind, HistoryMode, JoinMode};
use feedlog_core::ids::{FeedId, SeqId};
use serde_json::{Value, json};

use super::world::{World, config, dev};
use crate::connmix::ConnmixConfig;

const POP: &str = r#"{"m":"queue.pop","p":{"t":["topic1"]},"i":12345}"#;
const DONE: &str = r#"{"E":null,"r":{"s":true},"i":12345}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_goes_to_exactly_one_worker() {
    let world = World::new(dev()).await;
    world.publish("topic1", "from before").await;
    let mut workers = [world.back_end().await, world.back_end().await];
    for worker in &mut workers {
        worker.ask(POP, DONE).await;
    }
    let count = 40;
    for i in 0..count {
        world.publish("topic1", &i.to_string()).await;
    }
    let mut got = HashSet::new();
    let mut shares = [0, 0];
    let [one, two] = &mut workers;
    for _ in 0..count {
        let (event, who) = tokio::select! {
            event = one.json() => (event, 0),
            event = two.json() => (event, 1),
        };
        shares[who] += 1;
        let data = event["p"]["d"]["frame"]["data"].as_str().unwrap().to_owned();
        let frame = json!({"type": "text", "data": data, "finish": true});
        // Who did not come by CONNMIX is 0.
        let p = json!({"n": 1, "c": "0", "t": "topic1", "d": {"frame": frame}});
        assert_eq!(event, json!({"e": "queue.pop", "p": p, "id": null}));
        assert!(got.insert(data), "twice");
    }
    assert_eq!(got, (0..count).map(|i| i.to_string()).collect::<HashSet<_>>(), "and nothing from before");
    assert!(shares[0] > 0 && shares[1] > 0, "both work: {shares:?}");
}

/// What comes while no worker is there waits in the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_keeps_its_place_while_nobody_pops() {
    let world = World::new(dev()).await;
    let mut worker = world.back_end().await;
    worker.ask(POP, DONE).await;
    worker.send(POP).await;
    assert_eq!(worker.json().await["E"]["c"], json!(202), "consumed already");
    world.publish("topic1", "a").await;
    assert_eq!(worker.json().await["p"]["d"]["frame"]["data"], json!("a"));
    worker.ask(r#"{"m":"queue.unpop","p":{},"i":12345}"#, DONE).await;
    worker.send(r#"{"m":"queue.unpop","p":{},"i":1}"#).await;
    assert_eq!(worker.json().await["E"]["c"], json!(203), "nothing is consumed");
    world.publish("topic1", "b").await;
    worker.ask("ping", "pong").await;
    drop(worker);
    let mut other = world.back_end().await;
    // As connmix-php asks.
    other.ask(r#"{"m":"queue.pop","p":["topic1"],"i":12345}"#, DONE).await;
    assert_eq!(other.json().await["p"]["d"]["frame"]["data"], json!("b"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_open_feeds_and_not_more_than_may_be() {
    let world = World::new(ConnmixConfig { topics_max: 2, ..dev() }).await;
    let create = CreateFeed {
        kind: FeedKind::Group,
        title: None,
        members: Vec::new(),
        join: JoinMode::Invite,
        history: HistoryMode::All,
        meta: None,
    };
    let feed = FeedId::parse("group").unwrap();
    world.gate("ann").submit(Command { feed, action: Action::CreateFeed(create) }).await.unwrap();
    let mut worker = world.back_end().await;
    for topic in ["group", "user:1001", "direct:00", ""] {
        worker.send(&json!({"m": "queue.pop", "p": {"t": [topic]}, "i": 1}).to_string()).await;
        assert_eq!(worker.json().await["E"]["c"], json!(201), "{topic}");
    }
    worker.send(r#"{"m":"queue.unpop","p":{},"i":1}"#).await;
    assert_eq!(worker.json().await["E"]["c"], json!(203), "nothing is consumed");
    let mut worker = world.back_end().await;
    worker.send(r#"{"m":"queue.pop","p":{"t":["a","b","c"]},"i":1}"#).await;
    assert_eq!(worker.json().await["E"]["c"], json!(201), "one past the bound at once");
    worker.send(r#"{"m":"queue.unpop","p":{},"i":1}"#).await;
    assert_eq!(worker.json().await["E"]["c"], json!(203), "nothing is consumed");
    worker.ask(r#"{"m":"queue.pop","p":{"t":["a","b","a"]},"i":12345}"#, DONE).await;
    worker.send(r#"{"m":"queue.pop","p":{"t":["c"]},"i":1}"#).await;
    assert_eq!(worker.json().await["E"]["c"], json!(201), "one past the bound");
    let mut other = world.back_end().await;
    other.send(r#"{"m":"queue.pop","p":{"t":["c"]},"i":1}"#).await;
    assert_eq!(other.json().await["E"]["c"], json!(201), "also of another connection");
    other.ask(r#"{"m":"queue.pop","p":{"t":["b"]},"i":12345}"#, DONE).await;
    // Topics that nobody pops give way.
    worker.ask(r#"{"m":"queue.unpop","p":{},"i":12345}"#, DONE).await;
    loop {
        other.send(r#"{"m":"queue.pop","p":{"t":["c"]},"i":12345}"#).await;
        // Until the worker's shares are gone.
        if other.json().await["E"] == Value::Null {
            break;
        }
    }
}

/// Frames with ops of the operator's own reach a worker, which answers the client by its id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_clients_go_to_a_worker_and_come_back() {
    let world = World::new(ConnmixConfig { client_topic: Some("frames".to_owned()), ..dev() }).await;
    let mut worker = world.back_end().await;
    worker.ask(r#"{"m":"queue.pop","p":{"t":["frames"]},"i":12345}"#, DONE).await;
    let mut client = world.user("1001").await;
    let frame = r#"{"op":"order", "item" : 17}"#;
    client.send(frame).await;
    let event = worker.json().await;
    assert_eq!(event["p"]["d"]["frame"], json!({"type": "text", "data": frame, "finish": true}));
    let id = event["p"]["c"].as_str().unwrap().to_owned();
    assert!(id.parse::<u64>().is_ok_and(|id| id > 0 && id < 1 << 53), "{id}");
    let send = |c: Value, i: u64| json!({"m": "mesh.send", "p": {"c": c, "d": "done"}, "i": i}).to_string();
    worker.ask(&send(json!(id), 1), r#"{"E":null,"r":{"s":true},"i":1}"#).await;
    assert_eq!(client.text().await, "done");
    // As an integer, and a binary frame over HTTP.
    worker.ask(&send(json!(id.parse::<u64>().unwrap()), 2), r#"{"E":null,"r":{"s":true},"i":2}"#).await;
    assert_eq!(client.text().await, "done");
    let (_, answer) =
        world.post("/v1/mesh/send", &json!({"c": id, "d": "AAE=", "t": "binary"}).to_string()).await;
    assert_eq!(answer, json!({"E": null, "r": {"s": true}}));
    assert_eq!(client.next().await.into_data(), &b"\0\x01"[..]);
    // What clients send is for workers: no user reads it, and what users write elsewhere is none of it. What was sent to one
    // connection is in no log.
    let feed = |feed: &str, who: &str| {
        let path = format!("/v1/feeds/{feed}/entries");
        let headers = format!("authorization: Bearer {who}\r\n");
        let to = world.shared;
        async move { super::world::ask(to, "GET", &path, &headers, "").await }
    };
    assert_eq!(feed("frames", "1001").await.status, 404);
    assert_eq!(feed("user:connmix.topic:frames", "1001").await.status, 404);
    let got = feed("user:connmix.topic:frames", "connmix.topic:frames").await;
    assert_eq!(got.json()["entries"].as_array().unwrap().len(), 2, "the first entry and the frame");
    world.publish("frames", "of somebody else").await;
    worker.ask("ping", "pong").await;
    drop(client);
    loop {
        worker.send(&send(json!(id), 3)).await;
        let answer = worker.json().await;
        // Until the server has seen that it is gone.
        if answer["E"] != Value::Null {
            break assert_eq!(answer["E"]["c"], json!(401));
        }
    }
}

/// A client that may not write there is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_for_workers_need_a_login_like_everything_else() {
    let world = World::new(ConnmixConfig { client_topic: Some("frames".to_owned()), ..config() }).await;
    let mut client = world.client().await;
    client.ask(r#"{"op":"order"}"#, r#"{"code":1,"msg":"Not Auth"}"#).await;
}

/// What was prepared for a worker long ago is looked at again before it is handed out (P6).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_was_recalled_meanwhile_is_handed_to_no_worker() {
    let world = World::new(dev()).await;
    let mut worker = world.back_end().await;
    worker.ask(POP, DONE).await;
    worker.ask(r#"{"m":"queue.unpop","p":{},"i":12345}"#, DONE).await;
    for text in ["a", "secret", "c"] {
        world.publish("topic1", text).await;
    }
    let root = world.store.auth().configured_service("root").unwrap();
    let feed = FeedId::parse("topic1").unwrap();
    let recall = Action::RecallMessage { target: RecallTarget::Seq(SeqId(3)), reason: None };
    world.store.gate(root).submit(Command { feed, action: recall }).await.unwrap();
    worker.ask(POP, DONE).await;
    for text in ["a", "c"] {
        assert_eq!(worker.json().await["p"]["d"]["frame"]["data"], json!(text));
    }
    // A topic that becomes something else ends.
    worker.ask(r#"{"m":"queue.pop","p":{"t":["later"]},"i":12345}"#, DONE).await;
    let create = CreateFeed {
        kind: FeedKind::Group,
        title: None,
        members: Vec::new(),
        join: JoinMode::Invite,
        history: HistoryMode::All,
        meta: None,
    };
    let feed = FeedId::parse("later").unwrap();
    world.gate("ann").submit(Command { feed, action: Action::CreateFeed(create) }).await.unwrap();
    loop {
        worker.send(r#"{"m":"queue.pop","p":{"t":["later"]},"i":1}"#).await;
        match worker.json().await["E"]["c"].as_u64() {
            // Until the end was noticed.
            Some(202) => {}
            code => break assert_eq!(code, Some(201)),
        }
    }
}

/// A worker that waits for messages holds up no drain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_worker_does_not_hold_up_the_end() {
    let mut world = World::new(dev()).await;
    let mut worker = world.back_end().await;
    worker.ask(POP, DONE).await;
    let began = std::time::Instant::now();
    world.stop();
    assert_eq!(worker.closed().await, 1001);
    world.ended().await;
    assert!(began.elapsed() < std::time::Duration::from_secs(4), "{:?}", began.elapsed());
}
