//! Which back ends may call: the access list, tokens, loopback.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use feedlog_core::command::Scopes;
use feedlog_service::auth::Secret;
use serde_json::json;

use super::world::{Peer, World, ask, config, dev};
use crate::connmix::ConnmixConfig;

const PUBLISH: &str = r#"{"c":"x","d":"y"}"#;

fn basic(credential: &str) -> String {
    format!("authorization: Basic {}\r\n", STANDARD.encode(credential))
}

/// [connmix: API auth]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_access_list_only_those_on_it_and_tokens_call() {
    let rules = ["shop:s3cr3t-write:write:127.0.0.1", "work:s3cr3t-read:read", "far:s3cr3t:write:10.0.0.0/8"];
    let access = rules.map(Secret::new).to_vec();
    // Also in development mode, and on an own listener on loopback.
    let world = World::new(ConnmixConfig { access, dev: true, ..config() }).await;
    let service = Scopes { send_as: true, ..Scopes::default() };
    let token = world.token("service", service).await;
    for to in [world.api, world.shared] {
        for (headers, status) in [
            (String::new(), 401),
            (basic("shop:wrong"), 401),
            (basic("nobody:s3cr3t-write"), 401),
            (basic("far:s3cr3t"), 401),
            ("authorization: Basic ***\r\n".to_owned(), 401),
            ("authorization: Digest x\r\n".to_owned(), 401),
            (basic("shop:s3cr3t-write"), 200),
            (format!("authorization: Bearer {token}\r\n"), 200),
            ("authorization: Bearer 1001\r\n".to_owned(), 403),
        ] {
            let got = ask(to, "POST", "/v1/mesh/publish", &headers, PUBLISH).await;
            assert_eq!(got.status, status, "{headers}: {got:?}");
            if status == 401 {
                assert!(
                    got.head.to_ascii_lowercase().contains("\r\nwww-authenticate: basic realm="),
                    "{got:?}"
                );
                assert!(got.json()["E"]["m"].is_string());
            }
        }
    }
    let got = ask(world.api, "POST", &format!("/v1/mesh/publish?token={token}"), "", PUBLISH).await;
    assert_eq!(got.status, 200);
    // A role is for what it is for.
    let got = ask(world.api, "POST", "/v1/mesh/publish", &basic("work:s3cr3t-read"), PUBLISH).await;
    assert_eq!((got.status, &got.json()["E"]["c"]), (200, &json!(101)));
    let ws = |credential: &str| {
        let headers = basic(credential);
        let to = world.api;
        async move { Peer::try_connect(to, "/ws/v1", &headers).await }
    };
    let mut reads = ws("work:s3cr3t-read").await.unwrap_or_else(|_| panic!());
    let mut writes = ws("shop:s3cr3t-write").await.unwrap_or_else(|_| panic!());
    let publish = r#"{"m":"mesh.publish","p":{"c":"x","d":"y"},"i":1}"#;
    let pop = r#"{"m":"queue.pop","p":{"t":["topic"]},"i":1}"#;
    reads.ask(pop, r#"{"E":null,"r":{"s":true},"i":1}"#).await;
    for (back, frame) in [(&mut reads, publish), (&mut writes, pop)] {
        back.send(frame).await;
        assert_eq!(back.json().await["E"]["c"], json!(101));
    }
    assert_eq!(ws("shop:wrong").await.err(), Some(401));
    assert_eq!(Peer::try_connect(world.api, "/ws/v1", "").await.err(), Some(401));
    // Who writes is in the log.
    let got = ask(world.shared, "GET", "/v1/feeds/x/entries", "authorization: Bearer 1\r\n", "").await.json();
    assert_eq!(got["entries"][1]["sender"], json!("shop"), "{got}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_one_loopback_listeners_and_development_mode_trust_and_nobody_else() {
    let world = World::new(config()).await;
    let post = |to, headers: &'static str| ask(to, "POST", "/v1/mesh/publish", headers, PUBLISH);
    assert_eq!(post(world.api, "").await.status, 200);
    assert_eq!(post(world.shared, "").await.status, 401, "the shared port may be anywhere");
    assert_eq!(
        post(world.api, "authorization: Bearer wrong\r\n").await.status,
        401,
        "a credential is looked at"
    );
    assert_eq!(Peer::try_connect(world.shared, "/ws/v1", "").await.err(), Some(401));
    // Behind a proxy everybody is loopback.
    for by_proxy in ["x-forwarded-for: 1.2.3.4\r\n", "forwarded: for=1.2.3.4\r\n", "via: 1.1 x\r\n"] {
        assert_eq!(post(world.api, by_proxy).await.status, 401, "{by_proxy}");
    }
    let world = World::new(ConnmixConfig { api_is_loopback: false, ..config() }).await;
    assert_eq!(post(world.api, "").await.status, 401);
    let world = World::new(dev()).await;
    assert_eq!(post(world.shared, "").await.status, 200);
}

/// A page in a browser reaches loopback and sends Basic credentials of its own accord.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_origins_may_not_call() {
    let world = World::new(dev()).await;
    let origin = |origin: String| format!("origin: {origin}\r\n");
    let own = origin(format!("http://{}", world.api));
    for (headers, status) in [
        (origin("https://evil.example".to_owned()), 403),
        (origin("null".to_owned()), 403),
        (own, 200),
        (format!("authorization: Bearer admin\r\n{}", origin("https://any.example".to_owned())), 200),
    ] {
        let got = ask(world.api, "POST", "/v1/mesh/publish", &headers, PUBLISH).await;
        assert_eq!(got.status, status, "{headers}");
    }
    let access = vec![Secret::new("shop:s3cr3t-write:write")];
    let listed = World::new(ConnmixConfig { access, ..config() }).await;
    // Libraries that are no browsers say where they connect to; with a credential any name will do.
    for (host, origin, status) in [
        ("api.internal:6789", "http://api.internal:6789", 200),
        ("api.internal", "https://api.internal:443", 200),
        ("api.internal:6789", "https://evil.example", 403),
    ] {
        let headers = format!("{}origin: {origin}\r\n", basic("shop:s3cr3t-write"));
        let got = super::world::ask_at(listed.api, host, "POST", "/v1/mesh/publish", &headers, PUBLISH).await;
        assert_eq!(got.status, status, "{host} {origin}");
    }
    // Without one, a name that leads here is some page's own.
    let headers = "origin: http://rebound.example:6789\r\n";
    let got =
        super::world::ask_at(world.api, "rebound.example:6789", "POST", "/v1/mesh/publish", headers, PUBLISH);
    assert_eq!(got.await.status, 403);
    let evil = Peer::try_connect(world.api, "/ws/v1", "origin: https://evil.example").await;
    assert_eq!(evil.err(), Some(403));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_center_tells_where_the_api_is() {
    let world = World::new(config()).await;
    let version = ask(world.center, "GET", "/version", "", "").await;
    assert_eq!((version.status, version.json()), (200, json!({"apis": ["v1"]})));
    let server = format!("127.0.0.1:{}", world.api.port());
    let nodes = ask(world.center, "GET", "/v1/nodes", "", "").await;
    assert_eq!((nodes.status, nodes.json()), (200, json!({"nodes": [{"id": 1, "api_server": server}]})));
    for path in ["/version", "/v1/nodes"] {
        assert_eq!(ask(world.shared, "GET", path, "", "").await.status, 200, "{path} on the shared port");
    }
    assert_eq!(ask(world.center, "GET", "/v1/nope", "", "").await.status, 404);
    let access = vec![Secret::new("shop:s3cr3t-write:write")];
    let world = World::new(ConnmixConfig { access, ..config() }).await;
    assert_eq!(ask(world.center, "GET", "/v1/nodes", "", "").await.status, 401);
    assert_eq!(ask(world.center, "GET", "/v1/nodes", &basic("shop:s3cr3t-write"), "").await.status, 200);
}

#[tokio::test]
async fn the_access_list_can_be_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access");
    std::fs::write(&path, "# back ends\n\nshop:s3cr3t-write:write\n").unwrap();
    let world = World::new(ConnmixConfig { access_file: Some(path.clone()), ..config() }).await;
    let got = ask(world.api, "POST", "/v1/mesh/publish", &basic("shop:s3cr3t-write"), PUBLISH).await;
    assert_eq!(got.status, 200);
    let config = ConnmixConfig { access_file: Some(path.join("nowhere")), ..config() };
    let error = crate::connmix::Connmix::new(config, world.store.clone()).err().unwrap();
    assert!(error.to_string().contains("nowhere"), "{error}");
}
