//! Logging in: tokens of our own, the webhook and everything it can do wrong.

use std::time::Duration;

use feedlog_core::command::Scopes;
use serde_json::json;

use super::world::{ADMIN, Hook, Say, World, config};
use crate::connmix::{Connmix, ConnmixConfig, ConnmixError};
use crate::http::HttpConfig;

const AUTH: &str = r#"{"op":"auth","token":"***"}"#;
const DONE: &str = r#"{"result":true}"#;
const FAILED: &str = r#"{"code":1,"msg":"Auth Failed"}"#;
const USER: Scopes = Scopes { user: true, send_as: false, audit: false, admin: false };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_our_own_come_first() {
    let hook = Hook::user("7").await;
    let world = World::new(hook.config()).await;
    let token = world.token("1001", USER).await;
    let mut client = world.subscriber(&token, "1001@user").await;
    assert_eq!(hook.count(), 0, "nobody else was asked");
    // One of our own form that is not good is told to nobody.
    let mut forged = world.client().await;
    let wrong = format!("{}{}", &token[..token.len() - 1], if token.ends_with('0') { '1' } else { '0' });
    forged.ask(&json!({"op": "auth", "token": wrong}).to_string(), FAILED).await;
    assert_eq!(hook.count(), 0);
    // In development mode a bare uid is a token, unless there is somebody to be asked.
    let dev = World::new(ConnmixConfig { dev: true, ..hook.config() }).await;
    dev.subscriber("1001", "7@user").await;
    assert_eq!(hook.count(), 1);
    client.quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_nobody_is_told_and_closes() {
    let world = World::new(config()).await;
    for auth in [AUTH, r#"{"op":"auth"}"#, r#"{"op":"auth","token":""}"#, r#"{"op":"auth","token":{}}"#] {
        let mut client = world.client().await;
        client.ask(auth, FAILED).await;
        assert_eq!(client.closed().await, 1008);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_says_no_is_told_and_closes() {
    let hook = Hook::user("1001").await;
    let world = World::new(hook.config()).await;
    for (status, body) in [
        (500, "oops"),
        (401, r#"{"uid":1001}"#),
        (204, ""),
        (302, ""),
        (200, "{}"),
        (200, r#"{"uid":null}"#),
        (200, r#"{"uid":{"is":1001}}"#),
        (200, r#"{"uid":""}"#),
        (200, r#"{"uid":"anon:1"}"#),
        (200, r#"{"uid":"@all"}"#),
        (200, "[1001]"),
        (200, "1001"),
    ] {
        hook.says(Say::Answer(status, body.to_owned()));
        let mut client = world.client().await;
        client.ask(AUTH, FAILED).await;
        assert_eq!(client.closed().await, 1008, "{status} {body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_cannot_be_understood_closes_without_an_answer() {
    let hook = Hook::user("1001").await;
    let config = ConnmixConfig { auth_timeout_ms: 300, ..hook.config() };
    let world = World::new(config).await;
    for say in [
        Say::Answer(200, "not json".to_owned()),
        Say::Answer(200, String::new()),
        Say::Answer(200, r#"{"uid":1001"#.to_owned()),
        Say::Answer(200, format!("{{\"uid\":1001{}}}", " ".repeat(10 << 20))),
        Say::Raw(b"garbage\r\n\r\n".to_vec()),
        Say::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec()),
        Say::Raw(Vec::new()),
        Say::Hang,
    ] {
        hook.says(say);
        let mut client = world.client().await;
        client.send(AUTH).await;
        assert_eq!(client.closed().await, 1013);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let inside = Hook::user("1001").await;
    let location =
        format!("HTTP/1.1 302 Found\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n", inside.address);
    let hook = Hook::new(Say::Raw(location.into_bytes())).await;
    let world = World::new(hook.config()).await;
    let mut client = world.client().await;
    client.ask(AUTH, FAILED).await;
    assert_eq!((hook.count(), inside.count()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uids_are_text_and_never_1e14() {
    let hook = Hook::user("1").await;
    let world = World::new(ConnmixConfig { auth_cache_ms: 0, ..hook.config() }).await;
    for (raw, uid) in [
        ("1001", "1001"),
        (r#""1001""#, "1001"),
        (r#""ann@example.org""#, "ann@example.org"),
        ("100000000000000", "100000000000000"),
        ("1e14", "100000000000000"),
    ] {
        hook.says(Say::Answer(200, format!(r#"{{"uid":{raw}}}"#)));
        let mut client = world.subscriber("***", "@user").await;
        world.publish(&format!("user:{uid}"), raw).await;
        assert_eq!(client.text().await, raw);
    }
}

/// [connmix: ops sent before the webhook returns]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_while_the_webhook_is_asked_waits_in_order() {
    let hook = Hook::new(Say::Hang).await;
    let world = World::new(hook.config()).await;
    let mut client = world.client().await;
    let ops = [
        AUTH,
        r#"{"op":"subscribe","channel":"@user"}"#,
        r#"{"op":"nope"}"#,
        r#"{"op":"unsubscribe","channel":"@user"}"#,
        r#"{"op":"subscribe","channel":"1002@user"}"#,
    ];
    client.send_all(ops.map(str::to_owned)).await;
    hook.says(Say::Answer(200, r#"{"uid":1001}"#.to_owned()));
    let mut got = Vec::new();
    for _ in ops {
        got.push(client.text().await);
    }
    let invalid = [r#"{"code":1,"msg":"Invalid Op"}"#, r#"{"code":1,"msg":"Invalid Channel"}"#];
    assert_eq!(got, [DONE, DONE, invalid[0], DONE, invalid[1]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_holds_for_a_time_and_one_question_serves_all_who_ask_it() {
    let hook = Hook::new(Say::Hang).await;
    let world = World::new(hook.config()).await;
    let mut waiting = [world.client().await, world.client().await, world.client().await];
    for client in &mut waiting {
        client.send(AUTH).await;
    }
    hook.says(Say::Answer(200, r#"{"uid":1001}"#.to_owned()));
    for client in &mut waiting {
        assert_eq!(client.text().await, DONE);
    }
    world.user("***").await;
    assert_eq!(hook.count(), 1);
    world.user("another").await;
    assert_eq!(hook.count(), 2, "another token is another question");

    // No is not kept.
    hook.says(Say::Answer(403, String::new()));
    for count in [3, 4] {
        let mut client = world.client().await;
        client.ask(r#"{"op":"auth","token":"bad"}"#, FAILED).await;
        assert_eq!(hook.count(), count);
    }
    hook.says(Say::Answer(200, r#"{"uid":1001}"#.to_owned()));
    world.user("bad").await;
    // Nor does it push others out.
    let small = World::new(ConnmixConfig { auth_cached_max: 1, ..hook.config() }).await;
    small.user("good").await;
    hook.says(Say::Answer(403, String::new()));
    small.client().await.ask(r#"{"op":"auth","token":"bad"}"#, FAILED).await;
    let before = hook.count();
    small.user("good").await;
    assert_eq!(hook.count(), before);
    hook.says(Say::Answer(200, r#"{"uid":1001}"#.to_owned()));

    for (config, count) in [
        (ConnmixConfig { auth_cache_ms: 0, ..hook.config() }, 3),
        // With room for one, the first is forgotten for the second.
        (ConnmixConfig { auth_cached_max: 1, ..hook.config() }, 3),
        (ConnmixConfig { auth_cached_max: 2, ..hook.config() }, 2),
    ] {
        let world = World::new(config).await;
        let before = hook.count();
        for token in ["one", "two", "one"] {
            world.user(token).await;
        }
        assert_eq!(hook.count() - before, count);
    }
}

/// More questions than may be under way wait; they are not refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_beyond_the_bound_wait() {
    let hook = Hook::new(Say::Hang).await;
    let world = World::new(ConnmixConfig { auth_calls_max: 1, ..hook.config() }).await;
    let mut clients = [world.client().await, world.client().await];
    for (at, client) in clients.iter_mut().enumerate() {
        client.send(&json!({"op": "auth", "token": format!("t{at}")}).to_string()).await;
    }
    hook.says(Say::Answer(200, r#"{"uid":1001}"#.to_owned()));
    for client in &mut clients {
        assert_eq!(client.text().await, DONE);
    }
    assert_eq!(hook.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_webhook_can_be_asked_with_a_form() {
    let hook = Hook::user("1001").await;
    let world = World::new(ConnmixConfig { auth_form: true, ..hook.config() }).await;
    world.user("a b&c=*").await;
    let request = hook.requests.lock().unwrap()[0].clone();
    assert!(request.contains("content-type: application/x-www-form-urlencoded\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\ntoken=a%20b%26c%3D%2A"), "{request}");
}

/// [connmix: re-auth as another uid]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_begins_with_nothing_and_the_same_goes_on() {
    let world = World::new(super::world::dev()).await;
    let mut client = world.subscriber("1001", "@user").await;
    client.ask(r#"{"op":"auth","token":"1001"}"#, DONE).await;
    world.publish("user:1001", "still here").await;
    assert_eq!(client.text().await, "still here");
    client.ask(r#"{"op":"auth","token":"1002"}"#, DONE).await;
    let (_, answer) = world.post("/v1/mesh/publish", r#"{"c":"user:1001","d":"gone"}"#).await;
    assert_eq!(answer["r"], json!({"s": 0, "f": 0, "seq_id": 3}));
    client.ask(r#"{"op":"subscribe","channel":"@user"}"#, DONE).await;
    world.publish("user:1002", "mine").await;
    assert_eq!(client.text().await, "mine");
    client.quiet().await;
}

/// A token that was revoked is noticed with the next ping.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_ends_the_connection() {
    let http = HttpConfig { websocket_ping_ms: 20, ..HttpConfig::default() };
    let world = World::with(config(), http).await;
    let token = world.token("1001", USER).await;
    let mut client = world.user(&token).await;
    let auth = world.store.auth();
    let root = auth.authenticate(feedlog_service::auth::Credential::Token(ADMIN)).unwrap();
    let id = auth.tokens(&root, None, 10).await.unwrap().rows[0].id.clone();
    auth.revoke_token(&root, &id).await.unwrap();
    assert_eq!(client.closed().await, 1008);
}

#[tokio::test]
async fn a_webhook_must_be_on_the_list() {
    let store = || feedlog_service::Store::in_memory(feedlog_service::StoreConfig::default()).unwrap();
    let new = |url: &str, hosts: &[&str]| {
        let config = ConnmixConfig {
            auth_url: Some(url.to_owned()),
            auth_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            ..ConnmixConfig::default()
        };
        Connmix::new(config, store()).err()
    };
    assert_eq!(new("https://a.example/auth", &["a.example"]), None);
    assert_eq!(new("http://127.0.0.1:8000/auth", &["127.0.0.1:8000"]), None);
    for (url, hosts) in [
        ("https://a.example/auth", &[][..]),
        ("https://a.example/auth", &["b.example"]),
        ("https://a.example:8443/auth", &["a.example"]),
        ("https://a.example/auth", &["not a host"]),
    ] {
        assert!(matches!(new(url, hosts), Some(ConnmixError::BadHosts(_))), "{url}");
    }
    assert_eq!(new("ftp://a.example/auth", &["a.example"]), Some(ConnmixError::BadUrl));
    // A name on the list that leads to a private address is refused when it is asked, unless its port is listed as well.
    let hook = Hook::user("1001").await;
    let url = format!("http://localhost:{}/", hook.address.port());
    assert!(new(&url, &["localhost"]).is_some());
    let listed = format!("localhost:{}", hook.address.port());
    assert_eq!(new(&url, &[&listed]), None);
    let within = Duration::from_secs(5);
    let config = ConnmixConfig {
        auth_url: Some("http://localhost/".into()),
        auth_hosts: vec!["localhost".into()],
        ..config()
    };
    let world = World::new(config).await;
    let mut client = world.client().await;
    client.send(AUTH).await;
    assert_eq!(tokio::time::timeout(within, client.closed()).await.unwrap(), 1013);
}
