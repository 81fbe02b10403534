//! `conn.call`: what back ends do with connections from afar.

use serde_json::{Value, json};

use super::world::{Peer, World, dev};
use crate::connmix::ConnmixConfig;

const DONE: &str = r#"{"result":true}"#;

/// A back end that knows the client's id, because the client sent it a frame.
async fn introduced(world: &World, client: &mut Peer) -> (Peer, String) {
    let mut back = world.back_end().await;
    let pop = r#"{"m":"queue.pop","p":{"t":["frames"]},"i":1}"#;
    back.ask(pop, r#"{"E":null,"r":{"s":true},"i":1}"#).await;
    client.send(r#"{"op":"hello"}"#).await;
    let id = back.json().await["p"]["c"].as_str().unwrap().to_owned();
    (back, id)
}

/// The error code of a call, 0 when it was done.
async fn call(back: &mut Peer, id: &Value, function: &str, arguments: Value) -> u64 {
    let p = json!({"c": id, "f": function, "a": arguments});
    back.send(&json!({"m": "conn.call", "p": p, "i": 12345}).to_string()).await;
    let answer = back.json().await;
    assert_eq!(answer["i"], json!(12345));
    match answer["E"]["c"].as_u64() {
        Some(code) => code,
        None => {
            assert_eq!(answer, json!({"E": null, "r": {"s": true}, "i": 12345}));
            0
        }
    }
}

fn config() -> ConnmixConfig {
    ConnmixConfig { client_topic: Some("frames".to_owned()), context_bytes_max: 64, ..dev() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_back_end_subscribes_a_connection() {
    let world = World::new(config()).await;
    let mut client = world.user("1001").await;
    let (mut back, id) = introduced(&world, &mut client).await;
    let id = json!(id);
    assert_eq!(call(&mut back, &id, "subscribe", json!(["channel1", "user:1001"])).await, 0);
    world.publish("channel1", "one").await;
    assert_eq!(client.text().await, "one");
    world.publish("user:1001", "own").await;
    assert_eq!(client.text().await, "own");
    assert_eq!(call(&mut back, &id, "unsubscribe", json!(["channel1"])).await, 0);
    let (_, answer) = world.post("/v1/mesh/publish", r#"{"c":"channel1","d":"x"}"#).await;
    assert_eq!(answer["r"]["s"], json!(0));
    // Nobody reads what is somebody else's, whoever says so.
    for bad in [json!(["user:1002"]), json!(["1002@balance"]), json!(["direct:00"]), json!(["a b"])] {
        assert_eq!(call(&mut back, &id, "subscribe", bad.clone()).await, 301, "{bad}");
    }
    // All or nothing.
    assert_eq!(call(&mut back, &id, "subscribe", json!(["channel2", "user:1002"])).await, 301);
    let (_, answer) = world.post("/v1/mesh/publish", r#"{"c":"channel2","d":"x"}"#).await;
    assert_eq!(answer["r"]["s"], json!(0));
    assert_eq!(call(&mut back, &json!("17"), "subscribe", json!(["channel1"])).await, 301, "nobody is there");
    for (function, arguments) in [("close", json!([])), ("send", json!(["x"])), ("subscribe", json!([]))] {
        assert_eq!(call(&mut back, &id, function, arguments).await, 101, "{function}");
    }
}

/// The context's `uid` is who the connection is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_back_end_logs_a_connection_in_and_out() {
    let world = World::new(config()).await;
    let mut client = world.client().await;
    let (mut back, id) = introduced(&world, &mut client).await;
    // connmix-php sends the id as an integer.
    let id = json!(id.parse::<u64>().unwrap());
    assert_eq!(call(&mut back, &id, "set_context_value", json!(["user_id", 10000])).await, 0);
    client.ask(r#"{"op":"subscribe","channel":"@user"}"#, r#"{"code":1,"msg":"Not Auth"}"#).await;
    assert_eq!(call(&mut back, &id, "set_context_value", json!(["uid", 1001])).await, 0);
    client.ask(r#"{"op":"subscribe","channel":"@user"}"#, DONE).await;
    world.publish("user:1001", "hello").await;
    assert_eq!(client.text().await, "hello");
    // Another key changes nothing about it; another uid begins with nothing.
    assert_eq!(call(&mut back, &id, "set_context_value", json!(["user_id", 7])).await, 0);
    assert_eq!(call(&mut back, &id, "set_context", json!([{"user_id": 10000}])).await, 0);
    world.publish("user:1001", "still").await;
    assert_eq!(client.text().await, "still");
    assert_eq!(call(&mut back, &id, "set_context", json!([{"uid": "1002"}])).await, 0);
    world.publish("user:1001", "gone").await;
    client.ask(r#"{"op":"subscribe","channel":"@user"}"#, DONE).await;
    world.publish("user:1002", "mine").await;
    assert_eq!(client.text().await, "mine");
    assert_eq!(call(&mut back, &id, "set_context_value", json!(["uid", null])).await, 0);
    client.ask(r#"{"op":"subscribe","channel":"@user"}"#, r#"{"code":1,"msg":"Not Auth"}"#).await;
    for bad in [json!(["uid", "anon:1"]), json!(["uid", "@all"]), json!(["uid", [1]]), json!(["uid", 1.5])] {
        assert_eq!(call(&mut back, &id, "set_context_value", bad.clone()).await, 301, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_is_bounded() {
    let world = World::new(config()).await;
    let mut client = world.user("1001").await;
    let (mut back, id) = introduced(&world, &mut client).await;
    let id = json!(id);
    // Key, quotes and text are 64 bytes, then 65.
    let value = |bytes: usize| json!(["k", "x".repeat(bytes)]);
    assert_eq!(call(&mut back, &id, "set_context_value", value(61)).await, 0);
    assert_eq!(call(&mut back, &id, "set_context_value", value(62)).await, 301);
    assert_eq!(call(&mut back, &id, "set_context_value", json!(["l", 1])).await, 301, "together");
    assert_eq!(call(&mut back, &id, "set_context", json!([{}])).await, 0);
    assert_eq!(call(&mut back, &id, "set_context_value", json!(["l", 1])).await, 0);
}
