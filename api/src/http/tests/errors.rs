//! Every error: its status, its stable code, and the field it names.

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use super::world::{World, closed_store};
use crate::http::HttpConfig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_bodies_name_their_field() {
    let world = World::new();
    world.group("g", &[]).await;
    let path = "/v1/feeds/g/messages";
    for (body, field) in [
        (r#"{"payload":1,"nope":2}"#, "nope"),
        (r#"{"payload":1,"kind":"shout"}"#, "kind"),
        (r#"{"payload":1,"kind":7}"#, "kind"),
        (r#"{"payload":1,"seen_seq":-1}"#, "seen_seq"),
        (r#"{"payload":1,"seen_seq":1.5}"#, "seen_seq"),
        (r#"{"payload":1,"seen_seq":"1"}"#, "seen_seq"),
        (r#"{"payload":1,"seen_seq":9007199254740992}"#, "seen_seq"),
        (r#"{"payload":1,"sent_ms":1e300}"#, "sent_ms"),
        (r#"{"payload":1,"auto":"yes"}"#, "auto"),
        (r#"{"payload":1,"mentions":["a",3]}"#, "mentions[1]"),
        (r#"{"payload":1,"mentions":"a"}"#, "mentions"),
        (r#"{"payload":1,"client_msg_id":""}"#, "client_msg_id"),
        (r#"{"payload":1,"client_msg_id":"a\u0000b"}"#, "client_msg_id"),
        (r#"{"payload":1,"payload":2}"#, "payload"),
        (r#"{"payload":1,"payload_base64":"AA=="}"#, "payload_base64"),
        (r#"{"payload":1,"content_type":"text/plain"}"#, "content_type"),
        (r#"{"payload_base64":"AA=="}"#, "content_type"),
        (r#"{"payload_base64":"AA","content_type":"text/plain"}"#, "payload_base64"),
        (r#"{"payload_base64":"AA==","content_type":"text"}"#, "content_type"),
        (r#"{"payload":1,"feed_id":"g"}"#, "feed_id"),
        (r#"{}"#, "payload"),
        (r#"[]"#, "body"),
        (r#"7"#, "body"),
    ] {
        let got = world.text("ann", "POST", path, body).await;
        assert_eq!(got.error(), (400, "bad_request".into(), field.into()), "{body}");
    }
    for body in
        ["{", "{\"payload\":}", "{\"payload\":1}}", "{\"payload\":1} x", "nul", "{\"payload\":\"\u{1}\"}"]
    {
        world.text("ann", "POST", path, body).await.fails(400, "bad_request");
    }
    let deep = format!("{{\"payload\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
    world.text("ann", "POST", path, &deep).await.is(201);
    assert_eq!(world.get("ann", "/v1/feeds/g").await.is(200)["head_seq_id"], 3, "nothing else was sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_repeats_no_input() {
    let world = World::new();
    world.group("g", &[]).await;
    for body in [
        r#"{"payload":1,"kind":"<script>"}"#,
        r#"{"payload":1,"client_msg_id":["<script>"]}"#,
        r#"{"payload_base64":"<script>","content_type":"text/plain"}"#,
    ] {
        let got = world.text("ann", "POST", "/v1/feeds/g/messages", body).await;
        assert_eq!(got.status, 400);
        assert!(!got.text.contains("script"), "{}", got.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_at_their_bounds_and_one_past_them() {
    let world = World::new();
    world.group("g", &[]).await;
    for good in [
        "limit=1",
        "limit=1000",
        "last_seq_id=0",
        "last_seq_id=9007199254740991",
        "wait_ms=0",
        "position=-9007199254740991",
        "before=9007199254740991",
        "around=0",
        "position=0",
    ] {
        world.get("ann", &format!("/v1/feeds/g/entries?{good}")).await.is(200);
    }
    for (bad, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=", "limit"),
        ("limit=ten", "limit"),
        ("limit=1.0", "limit"),
        ("limit=%2B1", "limit"),
        ("limit=1&limit=2", "limit"),
        ("last_seq_id=-1", "last_seq_id"),
        ("last_seq_id=9007199254740992", "last_seq_id"),
        ("last_seq_id=99999999999999999999999", "last_seq_id"),
        ("wait_ms=60001", "wait_ms"),
        ("nope=1", "nope"),
        ("token=ann", "token"),
    ] {
        let got = world.get("ann", &format!("/v1/feeds/g/entries?{bad}")).await;
        assert_eq!(got.error(), (400, "bad_request".into(), field.into()), "{bad}");
    }
    let got = world.get("ann", "/v1/feeds?cursor=nonsense").await;
    assert_eq!(got.error(), (404, "not_found".into(), "cursor".into()));
    let got = world.get("ann", "/v1/feeds/g/unread?explain=1").await;
    assert_eq!(got.error().2, "explain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_at_the_limit_and_one_past_it() {
    let world = World::new();
    let longest = "x".repeat(255);
    world.group(&longest, &[]).await;
    world.get("ann", &format!("/v1/feeds/{longest}")).await.is(200);
    for bad in [
        format!("{longest}x"),
        "a%0Ab".into(),
        "a%7Fb".into(),
        "a%C2%85b".into(),
        "%FF".into(),
        "%E2%82".into(),
    ] {
        let got = world.get("ann", &format!("/v1/feeds/{bad}")).await;
        assert_eq!(got.error(), (400, "bad_request".into(), "feed".into()), "{bad}");
    }
    let body = json!({"kind": "group", "feed_id": format!("{longest}x")});
    assert_eq!(world.post("ann", "/v1/feeds", body).await.error().2, "feed_id");
    let body = json!({"kind": "group", "members": ["u".repeat(101)]});
    assert_eq!(world.post("ann", "/v1/feeds", body).await.error().2, "members[0]");
    let body = json!({"kind": "group", "title": "t".repeat(256)});
    assert_eq!(world.post("ann", "/v1/feeds", body).await.error().2, "title");
    let body = json!({"kind": "group", "meta": {"m": "x".repeat(16 * 1024)}});
    assert_eq!(world.post("ann", "/v1/feeds", body).await.error().2, "meta");
    let body = json!({"kind": "group", "meta": [1]});
    assert_eq!(world.post("ann", "/v1/feeds", body).await.error().2, "meta");
    let got = world.get("ann", "/v1/feeds/g/entries/-1").await;
    assert_eq!(got.error().2, "seq_id");
    let got = world.post("ann", "/v1/feeds/g/members", json!({"uid": "a\u{7}"})).await;
    assert_eq!(got.error().2, "uid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_at_the_limit_and_one_byte_more() {
    let world = World::new();
    world.group("g", &[]).await;
    let max = 1 << 20;
    let payload = format!("\"{}\"", "x".repeat(max - 2));
    world.text("ann", "POST", "/v1/feeds/g/messages", &format!("{{\"payload\":{payload}}}")).await.is(201);
    let payload = format!("\"{}\"", "x".repeat(max - 1));
    let got = world.text("ann", "POST", "/v1/feeds/g/messages", &format!("{{\"payload\":{payload}}}")).await;
    assert_eq!(got.fails(413, "too_large")["bytes_max"], max);
    let body = format!("{{\"payload\":\"{}\"}}", "x".repeat(2 << 20));
    world.text("ann", "POST", "/v1/feeds/g/messages", &body).await.fails(413, "too_large");
    let body = format!(
        "{{\"messages\":[{{\"feed_id\":\"g\",\"payload\":1}},{{\"feed_id\":\"g\",\"payload\":{payload}}}]}}"
    );
    let answer = world.text("ann", "POST", "/v1/messages:batch", &body).await.is(200);
    assert_eq!(answer["results"][1]["error"]["code"], "too_large");
    assert!(answer["results"][0]["seq_id"].is_u64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_paths_methods_and_media_types() {
    let world = World::new();
    world.group("g", &[]).await;
    for path in ["/v1", "/v1/nope", "/v1/feeds/g/nope", "/v2/feeds"] {
        world.get("ann", path).await.fails(404, "not_found");
    }
    for (method, path, allow) in [
        ("DELETE", "/v1/feeds", "POST, GET, HEAD"),
        ("TRACE", "/v1/feeds/g/messages", "POST"),
        ("OPTIONS", "/v1/unread", "GET, HEAD"),
        ("POST", "/livez", "GET, HEAD"),
        ("PUT", "/openapi.json", "GET, HEAD"),
    ] {
        let got = world.text("ann", method, path, "").await;
        let mut shown: Vec<&str> = got.headers["allow"].to_str().unwrap().split(", ").collect();
        let mut wanted: Vec<&str> = allow.split(", ").collect();
        shown.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(shown, wanted, "{method} {path}");
        got.fails(405, "method_not_allowed");
    }
    let request = |content_type: &str, encoding: &str| {
        let mut request = Request::post("/v1/feeds/g/messages").header("authorization", "Bearer ann");
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        if !encoding.is_empty() {
            request = request.header("content-encoding", encoding);
        }
        request.body(Body::from("{\"payload\":1}")).unwrap()
    };
    world.raw(request("application/json; charset=utf-8", "")).await.is(201);
    for (content_type, encoding) in
        [("text/plain", ""), ("", ""), ("application/xml", ""), ("application/json", "gzip")]
    {
        world.raw(request(content_type, encoding)).await.fails(415, "unsupported_media_type");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_asked_for_before_anything_else() {
    let world = World::with(closed_store(), HttpConfig::default());
    for (method, path) in
        [("GET", "/v1/feeds"), ("POST", "/v1/feeds"), ("GET", "/v1/feeds/%FF"), ("GET", "/v1/unread?x")]
    {
        let got = world.text("", method, path, "").await;
        assert_eq!(got.headers["www-authenticate"], "Bearer realm=\"feedlog\"");
        got.fails(401, "unauthenticated");
    }
    for header in ["Bearer", "Basic YTpi", "Bearer ", "bearer forged", "nonsense"] {
        let request = Request::get("/v1/feeds").header("authorization", header).body(Body::empty()).unwrap();
        world.raw(request).await.fails(401, "unauthenticated");
    }
    let token = super::world::ADMIN;
    world.get("", &format!("/v1/feeds?token={token}")).await.fails(401, "unauthenticated");
    world.get("", &format!("/v1/feeds/none/stream?token={token}")).await.fails(404, "feed_not_found");
    world.get("", "/v1/feeds/none/stream?token=wrong").await.fails(401, "unauthenticated");
    world.get("", &format!("/v1/ws?token={token}")).await.fails(426, "upgrade_required");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_are_slowed_down_and_good_ones_are_not() {
    let config = HttpConfig { auth_failures_per_address_per_minute: 3, ..HttpConfig::default() };
    let world = World::with(closed_store(), config);
    for _ in 0..3 {
        world.get("wrong", "/v1/feeds").await.fails(401, "unauthenticated");
    }
    let got = world.get("wrong", "/v1/feeds").await;
    assert!(got.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    got.fails(429, "rate_limited");
    world.get("", "/v1/feeds").await.fails(401, "unauthenticated");
    world.get(super::world::ADMIN, "/v1/feeds").await.is(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_one_may_not_know_of_looks_like_one_that_is_not_there() {
    let world = World::new();
    world.group("g", &["bob"]).await;
    for (method, tail, body) in [
        ("GET", "", ""),
        ("GET", "/entries", ""),
        ("GET", "/entries/1", ""),
        ("GET", "/members", ""),
        ("GET", "/unread", ""),
        ("GET", "/receipts/1", ""),
        ("GET", "/stream", ""),
        ("POST", "/messages", r#"{"payload":1}"#),
        ("POST", "/recall", r#"{"seq_id":1}"#),
        ("POST", "/join", "{}"),
        ("POST", "/members", r#"{"uid":"x"}"#),
        ("PUT", "/marks", r#"{"read_seq_id":1}"#),
        ("PATCH", "", r#"{"title":"x"}"#),
        ("PATCH", "/messages/1", r#"{"payload":1}"#),
    ] {
        let there = world.text("eve", method, &format!("/v1/feeds/g{tail}"), body).await;
        let absent = world.text("eve", method, &format!("/v1/feeds/none{tail}"), body).await;
        assert_eq!(there.text, absent.text, "{method} {tail}");
        there.fails(404, "feed_not_found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anonymous_callers_reach_open_feeds_only() {
    let world = World::new();
    world.post("ann", "/v1/feeds", json!({"kind": "open", "feed_id": "room"})).await.is(201);
    world.group("g", &[]).await;
    world.post("", "/v1/feeds/room/messages", json!({"payload": 1})).await.is(201);
    let page = world.get("", "/v1/feeds/room/entries").await.is(200);
    assert!(page["entries"][1]["sender"].as_str().unwrap().starts_with("anon:"));
    // One answer for groups and for what is not there.
    for feed in ["g", "none"] {
        world.get("", &format!("/v1/feeds/{feed}/entries")).await.fails(401, "unauthenticated");
    }
    let got = world.post("", "/v1/feeds", json!({"kind": "group"})).await;
    assert!([401, 403].contains(&got.status), "{got:?}");
}
