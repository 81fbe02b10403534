//! mqant's methods over HTTP.

use serde_json::json;

use super::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_answer_in_the_envelope_and_the_entries_are_the_same() {
    let world = World::new();
    let made =
        world.post("ann", "/im/create_feeds", json!({"feeds": "f1", "members": ["bob"]})).await.is(200);
    assert_eq!((&made["Error"], &made["Result"]), (&json!(""), &json!({"feeds": "f1"})));
    assert_eq!(made["Trace"].as_str().unwrap().len(), 16);
    let body = json!({"feeds": "f1", "payload": {"text": "hi"}, "msg_id": "m-9", "msg_type": "link"});
    let sent = world.post("ann", "/im/send", body).await;
    assert!(sent.text.starts_with("{\"Trace\":\""), "{}", sent.text);
    let result = sent.is(200)["Result"].clone();
    assert_eq!((&result["SeqId"], &result["MsgId"]), (&json!(4), &json!("m-9")));
    let entry = world.get("bob", "/v1/feeds/f1/entries/4").await.is(200);
    assert_eq!((&entry["client_msg_id"], &entry["kind"]), (&json!("m-9"), &json!("link")));
    assert_eq!(entry["payload"], json!({"text": "hi"}));
    world.say("bob", "f1", "there").await;
    let page = world.post("ann", "/im/history", json!({"feeds": "f1", "last_seq_id": 4})).await.is(200);
    assert_eq!(page["Result"]["messages"][0]["Payload"], "there");
    assert_eq!(world.post("bob", "/im/feeds_list", json!({})).await.is(200)["Result"]["next"], json!(null));
    assert_eq!(world.text("bob", "POST", "/im/unread", "").await.is(200)["Result"]["total"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_their_status_and_the_envelope() {
    let world = World::new();
    world.group("g", &[]).await;
    let refused = |got: super::world::Got, status: u16, text: &str| {
        assert_eq!(got.status, status, "{got:?}");
        let body = got.json();
        assert_eq!((&body["Error"], &body["Result"]), (&json!(text), &json!(null)), "{got:?}");
        assert_eq!(got.headers["content-type"], "application/json");
        got
    };
    let send = json!({"feeds": "none", "payload": 1});
    refused(world.post("ann", "/im/send", send).await, 404, "feed_not_found: no such feed");
    let body = "{\"feeds\":}";
    let told = "The JSON format is incorrect at line 1 column 10";
    refused(world.text("ann", "POST", "/im/send", body).await, 400, told);
    refused(world.post("ann", "/im/say", json!({})).await, 404, "not_found: there is nothing here");
    let got = refused(
        world.get("ann", "/im/send").await,
        405,
        "method_not_allowed: this method is not allowed here",
    );
    assert_eq!(got.headers["allow"], "POST");
    let got = world.text("ann", "POST", "/im/send?x=1", "{}").await;
    refused(got, 400, "bad_request: x: unknown parameter");
    let mut request = axum::http::Request::builder().method("POST").uri("/im/feeds_list");
    request = request.header("authorization", "Basic x");
    let got = world.raw(request.body(axum::body::Body::empty()).unwrap()).await;
    let got = refused(got, 401, "Not Logined");
    assert!(got.headers.contains_key("www-authenticate"));
}
