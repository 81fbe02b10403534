//! Every literal frame and curl line of the page, from a client's side.

use serde_json::json;

use super::world::{Hook, Peer, World, ask, config, dev};

const EVENT: &str = r#"{"event":"@user","data":{"uid":1001,"msg":"Hello,World!"}}"#;

/// The page's test, line by line: auth, subscribe, curl, event, unsubscribe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_played_through() {
    let hook = Hook::user("1001").await;
    let world = World::new(hook.config()).await;
    let mut client = world.client().await;
    client.ask(r#"{"op":"subscribe","channel":"@user"}"#, r#"{"code":1,"msg":"Not Auth"}"#).await;
    client.ask(r#"{"op":"unsubscribe","channel":"@user"}"#, r#"{"code":1,"msg":"Not Auth"}"#).await;
    client.ask(r#"{"op":"auth","token":"***"}"#, r#"{"result":true}"#).await;
    client.ask(r#"{"op":"subscribe","channel":"@user"}"#, r#"{"result":true}"#).await;
    // As curl sends it.
    let body = "{\n    \"c\": \"user:1001\",\n    \"d\": \"{\\\"event\\\":\\\"@user\\\",\\\"data\\\":{\\\"uid\\\":1001,\\\"msg\\\":\\\"Hello,World!\\\"}}\"\n}";
    let (status, answer) = world.post("/v1/mesh/publish", body).await;
    assert_eq!((status, answer), (200, json!({"E": null, "r": {"s": 1, "f": 0, "seq_id": 2}})));
    assert_eq!(client.text().await, EVENT, "verbatim");
    client.ask(r#"{"op":"unsubscribe","channel":"@user"}"#, r#"{"result":true}"#).await;
    let (_, answer) = world.post("/v1/mesh/publish", body).await;
    assert_eq!(answer["r"], json!({"s": 0, "f": 0, "seq_id": 3}));
    client.quiet().await;
    let request = hook.requests.lock().unwrap()[0].to_ascii_lowercase();
    assert!(request.starts_with("post /websocket_auth http/1.1\r\n"), "{request}");
    assert!(request.contains("content-type: application/json\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"token\":\"***\"}"), "{request}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_connections_of_a_user_receive() {
    let world = World::new(dev()).await;
    let mut ann = [world.subscriber("1001", "@user").await, world.subscriber("1001", "@user").await];
    let mut bob = world.subscriber("1002", "@user").await;
    let (_, answer) = world.post("/v1/mesh/publish", r#"{"c":"user:1001","d":"x"}"#).await;
    assert_eq!(answer["r"], json!({"s": 2, "f": 0, "seq_id": 2}));
    for client in &mut ann {
        assert_eq!(client.text().await, "x");
    }
    bob.quiet().await;
}

/// The samples of the video barrage and of the exchange.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_with_parameters() {
    let world = World::new(dev()).await;
    let mut client = world.user("1001").await;
    for (channel, inside, event) in [
        (
            "100001@video",
            "video:100001",
            r#"{"event":"@video","data":{"uid":1001,"video_id":100001,"msg":"Hello,World!"}}"#,
        ),
        ("BTCUSDT@depth", "BTCUSDT@depth", r#"{"event":"BTCUSDT@depth","data":{"bids":[],"asks":[]}}"#),
        (
            "@balance",
            "1001@balance",
            r#"{"event":"@balance","data":{"uid":1001,"balance":[{"currency":"BTC","available":100,"unavailable":100}]}}"#,
        ),
    ] {
        let op = |op: &str| json!({"op": op, "channel": channel}).to_string();
        client.ask(&op("subscribe"), r#"{"result":true}"#).await;
        world.publish(inside, event).await;
        assert_eq!(client.text().await, event);
        client.ask(&op("unsubscribe"), r#"{"result":true}"#).await;
        world.publish(inside, event).await;
        client.quiet().await;
    }
}

/// A private channel is a part of the personal feed: its user's alone on every wire, and not mixed with `@user`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_channel_is_its_users_alone() {
    let world = World::new(dev()).await;
    let mut balance = world.subscriber("1001", "@balance").await;
    let mut user = world.subscriber("1001", "@user").await;
    let mut both = world.subscriber("1001", "@balance").await;
    both.ask(r#"{"op":"subscribe","channel":"@user"}"#, r#"{"result":true}"#).await;
    let mut other = world.subscriber("1002", "@balance").await;
    assert_eq!(world.publish("1001@balance", "money").await, 2);
    assert_eq!(world.publish("user:1001", "mail").await, 3);
    assert_eq!(balance.text().await, "money");
    assert_eq!(user.text().await, "mail");
    assert_eq!([both.text().await, both.text().await], ["money", "mail"]);
    other
        .ask(r#"{"op":"subscribe","channel":"1001@balance"}"#, r#"{"code":1,"msg":"Invalid Channel"}"#)
        .await;
    for client in [&mut balance, &mut user, &mut both, &mut other] {
        client.quiet().await;
    }
    let page =
        ask(world.shared, "GET", "/v1/feeds/user:1001/entries", "authorization: Bearer 1002\r\n", "").await;
    assert_eq!(page.status, 404, "{page:?}");
    let page =
        ask(world.shared, "GET", "/v1/feeds/user:1001/entries", "authorization: Bearer 1001\r\n", "").await;
    assert_eq!(page.json()["entries"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_is_answered_and_the_connection_stays() {
    let world = World::new(dev()).await;
    let mut client = world.user("1001").await;
    for op in [r#"{"op":"nope"}"#, r#"{"op":"ping","channel":"none"}"#, r#"{"op":17}"#] {
        client.ask(op, r#"{"code":1,"msg":"Invalid Op"}"#).await;
    }
    for channel in ["@nope", "x@", "@", "1002@user", "a b@video", "x@direct"] {
        for op in ["subscribe", "unsubscribe"] {
            let frame = json!({"op": op, "channel": channel}).to_string();
            client.ask(&frame, r#"{"code":1,"msg":"Invalid Channel"}"#).await;
        }
    }
    let since = r#"{"op":"subscribe","channel":"@user","since":"x"}"#;
    client.ask(since, r#"{"code":1,"msg":"Invalid Since"}"#).await;
    client.ask(r#"{"op":"subscribe","channel":"@user"}"#, r#"{"result":true}"#).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_closes_without_an_answer() {
    let world = World::new(dev()).await;
    for (frame, code) in [
        ("not json", 1008),
        ("[]", 1008),
        ("{}", 1008),
        (r#"{"op":null}"#, 1008),
        (r#"{"op":"subscribe"}"#, 1008),
        (r#"{"op":"subscribe","channel":"user"}"#, 1008),
        (r#"{"op":"unsubscribe","channel":"a@b@c"}"#, 1008),
    ] {
        let mut client = world.user("1001").await;
        client.send(frame).await;
        assert_eq!(client.closed().await, code, "{frame}");
    }
    let mut client = world.user("1001").await;
    client.send_binary(br#"{"op":"auth","token":"1001"}"#).await;
    assert_eq!(client.closed().await, 1003);
}

/// Public channels are open to whoever may use open feeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_login_only_open_channels_and_only_where_configured() {
    let world = World::new(dev()).await;
    let mut nobody = world.client().await;
    nobody.ask(r#"{"op":"subscribe","channel":"100001@video"}"#, r#"{"result":true}"#).await;
    world.publish("video:100001", "x").await;
    assert_eq!(nobody.text().await, "x");
    // The subscription goes on when somebody logs in.
    nobody.ask(r#"{"op":"auth","token":"1001"}"#, r#"{"result":true}"#).await;
    world.publish("video:100001", "y").await;
    assert_eq!(nobody.text().await, "y");

    let world = World::new(config()).await;
    let mut nobody = world.client().await;
    for op in ["subscribe", "unsubscribe"] {
        let frame = json!({"op": op, "channel": "100001@video"}).to_string();
        nobody.ask(&frame, r#"{"code":1,"msg":"Not Auth"}"#).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_connect_at_the_path_of_the_shared_port_and_anywhere_on_their_own() {
    let world = World::new(dev()).await;
    for (to, path, fits) in [
        (world.shared, "/message-center", true),
        (world.clients, "/message-center", true),
        (world.clients, "/chat", true),
        (world.shared, "/chat", false),
    ] {
        assert_eq!(Peer::try_connect(to, path, "").await.is_ok(), fits, "{path}");
    }
    let got = ask(world.clients, "GET", "/message-center", "", "").await;
    assert_eq!(got.status, 426, "{got:?}");
}
