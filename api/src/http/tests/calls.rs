//! Every documented call does what the page says.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::world::{ADMIN, World, closed_store};
use crate::http::HttpConfig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feeds_are_created_listed_shown_and_changed() {
    let world = World::new();
    let body = json!({"feed_id": "a/b c", "kind": "group", "title": "Tea", "members": ["bob"], "meta": {"x": [1.0]}});
    let feed = world.post("ann", "/v1/feeds", body.clone()).await.is(201);
    assert_eq!(
        (&feed["feed_id"], &feed["role"], &feed["member_count"]),
        (&json!("a/b c"), &json!("owner"), &json!(2))
    );
    assert_eq!(
        (&feed["join"], &feed["history"], &feed["head_seq_id"]),
        (&json!("invite"), &json!("all"), &json!(3))
    );
    world.post("ann", "/v1/feeds", body).await.fails(409, "already_exists");

    let shown = world.get("bob", "/v1/feeds/a%2Fb%20c").await.is(200);
    assert_eq!((&shown["title"], &shown["meta"]), (&json!("Tea"), &json!({"x": [1.0]})));
    let changed =
        world.patch("ann", "/v1/feeds/a%2Fb%20c", json!({"title": "Milk", "join": "open"})).await.is(200);
    assert_eq!((&changed["title"], &changed["join"]), (&json!("Milk"), &json!("open")));
    assert_eq!(world.patch("ann", "/v1/feeds/a%2Fb%20c", json!({})).await.is(200)["title"], "Milk");
    world.patch("bob", "/v1/feeds/a%2Fb%20c", json!({"title": "x"})).await.fails(403, "forbidden");

    let made = world.post("ann", "/v1/feeds", json!({"kind": "group"})).await.is(201);
    assert!(made["feed_id"].as_str().unwrap().starts_with("feed-"));
    let open = world.post("ann", "/v1/feeds", json!({"kind": "open", "feed_id": "room/1"})).await.is(201);
    assert_eq!(open["kind"], "open");

    let direct = world.post("ann", "/v1/feeds", json!({"kind": "direct", "members": ["bob"]})).await.is(201);
    assert!(direct["feed_id"].as_str().unwrap().starts_with("direct:"));
    assert_eq!(direct["pair"], json!(["ann", "bob"]));
    let again = world.post("bob", "/v1/feeds", json!({"kind": "direct", "members": ["ann"]})).await.is(200);
    assert_eq!(again["feed_id"], direct["feed_id"]);

    let settings = json!({"pinned": true, "muted_until_ms": 9_000_000_000_000_u64});
    world.put("bob", "/v1/feeds/a%2Fb%20c/settings", settings).await.is(200);
    let list = world.get("bob", "/v1/feeds").await.is(200);
    let row = &list["feeds"][0];
    assert_eq!(
        (&row["feed_id"], &row["pinned"], &row["muted"]),
        (&json!("a/b c"), &json!(true), &json!(true))
    );
    let page = world.get("bob", "/v1/feeds?limit=1").await.is(200);
    assert_eq!(page["feeds"].as_array().unwrap().len(), 1);
    let next = utf8_percent_encode(page["next"].as_str().unwrap(), NON_ALPHANUMERIC);
    let rest = world.get("bob", &format!("/v1/feeds?limit=1&cursor={next}")).await.is(200);
    assert_eq!(rest["feeds"][0]["feed_id"], direct["feed_id"]);
    assert_eq!(rest["next"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_added_promoted_removed_and_leave() {
    let world = World::new();
    world.group("g", &["bob"]).await;
    let added =
        world.post("ann", "/v1/feeds/g/members", json!({"uid": "cid", "role": "admin"})).await.is(201);
    assert_eq!(added["feed_id"], "g");
    let list = world.get("bob", "/v1/feeds/g/members?limit=2").await.is(200);
    assert_eq!(list["members"][0]["uid"], "ann");
    assert_eq!(list["members"][0]["role"], "owner");
    let next = utf8_percent_encode(list["next"].as_str().unwrap(), NON_ALPHANUMERIC);
    let rest = world.get("bob", &format!("/v1/feeds/g/members?cursor={next}")).await.is(200);
    assert_eq!((&rest["members"][0]["uid"], &rest["next"]), (&json!("cid"), &Value::Null));
    world.patch("ann", "/v1/feeds/g/members/bob", json!({"role": "admin"})).await.is(200);
    world.delete("bob", "/v1/feeds/g/members/cid").await.fails(403, "forbidden");
    world.delete("ann", "/v1/feeds/g/members/cid").await.is(200);
    world.delete("ann", "/v1/feeds/g/members/nobody").await.fails(404, "member_not_found");
    world.delete("ann", "/v1/feeds/g/members/me").await.fails(422, "rejected");
    world.delete("bob", "/v1/feeds/g/members/me").await.is(200);
    world.get("bob", "/v1/feeds/g/entries").await.fails(404, "feed_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_is_201_or_a_request_that_is_decided() {
    let world = World::new();
    for (feed, join) in [("o", "open"), ("p", "approval"), ("i", "invite")] {
        world.post("ann", "/v1/feeds", json!({"feed_id": feed, "kind": "group", "join": join})).await.is(201);
    }
    world.text("bob", "POST", "/v1/feeds/o/join", "").await.is(201);
    world.post("bob", "/v1/feeds/p/join", json!({"reason": "tea"})).await.is(202);
    world.post("bob", "/v1/feeds/i/join", json!({})).await.fails(404, "feed_not_found");
    let list = world.get("ann", "/v1/feeds/p/requests").await.is(200);
    assert_eq!((&list["requests"][0]["uid"], &list["requests"][0]["reason"]), (&json!("bob"), &json!("tea")));
    world.get("bob", "/v1/feeds/p/requests").await.fails(403, "forbidden");
    world.post("bob", "/v1/feeds/p/messages", json!({"payload": 1})).await.fails(403, "forbidden");
    world.post("ann", "/v1/feeds/p/requests/bob", json!({"decision": "agree"})).await.is(200);
    world.post("bob", "/v1/feeds/p/messages", json!({"payload": 1})).await.is(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_is_200_with_the_first_values_and_another_body_is_refused() {
    let world = World::new();
    world.group("g", &["bob"]).await;
    let body = json!({"client_msg_id": "m1", "payload": {"a": 1}});
    let first = world.post("ann", "/v1/feeds/g/messages", body.clone()).await.is(201);
    assert_eq!((&first["duplicate"], &first["client_msg_id"]), (&json!(false), &json!("m1")));
    let mut again = world.post("ann", "/v1/feeds/g/messages", body).await.is(200);
    assert_eq!(again["duplicate"], true);
    again["duplicate"] = json!(false);
    assert_eq!(again, first);
    let other = json!({"client_msg_id": "m1", "payload": {"a": 2}});
    let details = world.post("ann", "/v1/feeds/g/messages", other.clone()).await.fails(409, "id_conflict");
    assert_eq!(details["seq_id"], first["seq_id"]);
    world.post("bob", "/v1/feeds/g/messages", other).await.is(201);
    let head = world.get("ann", "/v1/feeds/g").await.is(200)["head_seq_id"].as_u64().unwrap();
    let body = json!({"payload": 1, "expect_head": head - 1});
    let details = world.post("ann", "/v1/feeds/g/messages", body).await.fails(409, "head_moved");
    assert_eq!(details["head_seq_id"], head);
    world.post("ann", "/v1/feeds/g/messages", json!({"payload": 1, "expect_head": head})).await.is(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_keep_their_bytes_in_both_spellings() {
    let world = World::new();
    world.group("g", &[]).await;
    let exact = "{ \"b\" : 1.0,\n \"a\":[1e3, \"\\u00e9\"] , \"big\": 123456789012345678901234567890}";
    let body = format!("{{\"payload\":{exact}}}");
    world.text("ann", "POST", "/v1/feeds/g/messages", &body).await.is(201);
    let got = world.get("ann", "/v1/feeds/g/entries/3").await;
    assert!(got.text.contains(&format!("\"payload\":{exact}")), "{}", got.text);
    for payload in ["null", "0", "\"\"", "[]", "false"] {
        world
            .text("ann", "POST", "/v1/feeds/g/messages", &format!("{{\"payload\":{payload}}}"))
            .await
            .is(201);
    }
    let page = world.get("ann", "/v1/feeds/g/entries?last_seq_id=3").await.is(200);
    let shown: Vec<&Value> =
        page["entries"].as_array().unwrap().iter().map(|entry| &entry["payload"]).collect();
    assert_eq!(shown, [&json!(null), &json!(0), &json!(""), &json!([]), &json!(false)]);
    assert!(page["entries"][0].as_object().unwrap().contains_key("payload"), "null is a payload");

    let body = json!({"payload_base64": "AP8=", "content_type": "image/png", "kind": "image"});
    let sent = world.post("ann", "/v1/feeds/g/messages", body).await.is(201);
    let entry = world.get("ann", &format!("/v1/feeds/g/entries/{}", sent["seq_id"])).await.is(200);
    assert_eq!((&entry["payload_base64"], &entry["content_type"]), (&json!("AP8="), &json!("image/png")));
    assert_eq!((&entry["kind"], entry.get("payload")), (&json!("image"), None));
    let body = json!({"payload_base64": "eyJhIjox", "content_type": "application/json"});
    let details = world.post("ann", "/v1/feeds/g/messages", body).await.fails(400, "bad_request");
    assert_eq!(details["field"], "payload_base64");
    let body = json!({"payload_base64": "WzFd", "content_type": "application/vnd.x+json"});
    let sent = world.post("ann", "/v1/feeds/g/messages", body).await.is(201);
    let entry = world.get("ann", &format!("/v1/feeds/g/entries/{}", sent["seq_id"])).await.is(200);
    assert_eq!((&entry["payload"], &entry["content_type"]), (&json!([1]), &json!("application/vnd.x+json")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_answers_each_message_in_order() {
    let world = World::new();
    world.group("g", &[]).await;
    world.group("h", &[]).await;
    let messages = json!({"messages": [
        {"feed_id": "g", "payload": 1, "client_msg_id": "a"},
        {"feed_id": "none", "payload": 2},
        {"feed_id": "h", "payload": 3},
        {"feed_id": "g", "payload": 4, "client_msg_id": "a"},
        {"feed_id": "g", "payload": 1, "client_msg_id": "a"},
    ]});
    let answer = world.post("ann", "/v1/messages:batch", messages).await.is(200);
    let results = answer["results"].as_array().unwrap();
    assert_eq!((&results[0]["seq_id"], &results[0]["duplicate"]), (&json!(3), &json!(false)));
    assert_eq!(results[1]["error"]["code"], "feed_not_found");
    assert_eq!(results[2]["feed_id"], "h");
    assert_eq!(results[3]["error"]["code"], "id_conflict");
    assert_eq!((&results[4]["seq_id"], &results[4]["duplicate"]), (&json!(3), &json!(true)));

    let many: Vec<Value> = (0..1000).map(|n| json!({"feed_id": "g", "payload": n})).collect();
    let answer = world.post("ann", "/v1/messages:batch", json!({"messages": many})).await.is(200);
    let seqs: Vec<u64> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["seq_id"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, (4..1004).collect::<Vec<_>>());
    let many: Vec<Value> = (0..1001).map(|n| json!({"feed_id": "g", "payload": n})).collect();
    let details =
        world.post("ann", "/v1/messages:batch", json!({"messages": many})).await.fails(400, "bad_request");
    assert_eq!(details["field"], "messages");
    let bad = json!({"messages": [{"feed_id": "g", "payload": 1}, {"payload": 2}]});
    let details = world.post("ann", "/v1/messages:batch", bad).await.fails(400, "bad_request");
    assert_eq!(details["field"], "messages[1].feed_id");
    let bad =
        json!({"messages": [{"feed_id": "g", "payload": 1}, {"feed_id": "g", "payload": 2, "seen_seq": -1}]});
    let details = world.post("ann", "/v1/messages:batch", bad).await.fails(400, "bad_request");
    assert_eq!(details["field"], "messages[1].seen_seq");
    assert_eq!(world.get("ann", "/v1/feeds/g").await.is(200)["head_seq_id"], 1003, "nothing was sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_go_forwards_backwards_around_and_by_position() {
    let world = World::new();
    world.group("g", &["bob"]).await;
    for n in 0..10 {
        world.say("ann", "g", &n.to_string()).await;
    }
    let seqs = |page: &Value| -> Vec<u64> {
        page["entries"].as_array().unwrap().iter().map(|entry| entry["seq_id"].as_u64().unwrap()).collect()
    };
    let page = world.get("bob", "/v1/feeds/g/entries?last_seq_id=3&limit=4").await.is(200);
    assert_eq!(
        (seqs(&page), &page["next"], &page["head_seq_id"]),
        (vec![4, 5, 6, 7], &json!({"last_seq_id": 7}), &json!(13))
    );
    assert_eq!(page["entries"][0]["prev_seq_id"], 3);
    let page = world.get("bob", "/v1/feeds/g/entries?last_seq_id=9").await.is(200);
    assert_eq!((seqs(&page), &page["next"]), (vec![10, 11, 12, 13], &Value::Null));
    let page = world.get("bob", "/v1/feeds/g/entries?before=6&limit=2").await.is(200);
    assert_eq!((seqs(&page), &page["next"]), (vec![5, 4], &json!({"before": 4})));
    let page = world.get("bob", "/v1/feeds/g/entries?around=8&limit=3").await.is(200);
    assert_eq!(seqs(&page), [7, 8, 9]);
    let page = world.get("bob", "/v1/feeds/g/entries?position=2&size=3").await.is(200);
    assert_eq!(seqs(&page), [5, 6, 7]);
    assert_eq!(page["next"], json!({"position": 5}));
    let page = world.get("bob", "/v1/feeds/g/entries?position=-2&size=3").await.is(200);
    assert_eq!(seqs(&page), [12, 13]);
    let page = world.get("bob", "/v1/feeds/g/entries?last_seq_id=1000").await.is(200);
    assert_eq!((seqs(&page), &page["head_seq_id"]), (vec![], &json!(13)), "beyond the head is not an error");
    world.get("bob", "/v1/feeds/g/entries/999").await.fails(404, "message_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_waits_for_something_newer() {
    let world = World::new();
    world.group("g", &["bob"]).await;
    let waiting = world.get("bob", "/v1/feeds/g/entries?last_seq_id=3&wait_ms=60000");
    let sending = world.say("ann", "g", "now");
    let (got, seq) = tokio::join!(waiting, sending);
    assert_eq!(got.is(200)["entries"][0]["seq_id"], seq);
    let nothing = world.get("bob", "/v1/feeds/g/entries?last_seq_id=4&wait_ms=20").await.is(200);
    assert_eq!(nothing["entries"], json!([]));
    let waiting = world.get("bob", "/v1/feeds/g/entries?last_seq_id=4&wait_ms=60000");
    let (got, _) = tokio::join!(waiting, async { world.drain.send(true).unwrap() });
    assert_eq!(got.is(200)["entries"], json!([]), "a drain ends it with what there is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recall_edit_and_reactions() {
    let world = World::new();
    world.group("g", &["bob", "cid"]).await;
    let seq = world.say("bob", "g", "secret-text").await;
    let path = format!("/v1/feeds/g/messages/{seq}");
    world.patch("bob", &path, json!({"payload": "edited"})).await.is(200);
    world.patch("ann", &path, json!({"payload": "x"})).await.fails(403, "forbidden");
    let entry = world.get("cid", &format!("/v1/feeds/g/entries/{seq}")).await.is(200);
    assert_eq!((&entry["payload"], &entry["edited_seq_id"]), (&json!("edited"), &json!(seq + 1)));
    world.put("cid", &format!("{path}/reactions/%F0%9F%8D%B5"), json!(null)).await.is(200);
    let entry = world.get("cid", &format!("/v1/feeds/g/entries/{seq}")).await.is(200);
    assert_eq!(entry["reactions"], json!([{"key": "🍵", "count": 1}]));
    world.delete("cid", &format!("{path}/reactions/%F0%9F%8D%B5")).await.is(200);

    world.post("cid", "/v1/feeds/g/recall", json!({"seq_id": seq})).await.fails(403, "forbidden");
    let recall =
        world.post("bob", "/v1/feeds/g/recall", json!({"seq_id": seq, "reason": "typo"})).await.is(201);
    let again = world.post("bob", "/v1/feeds/g/recall", json!({"seq_id": seq})).await.is(200);
    assert_eq!((&again["seq_id"], &again["duplicate"]), (&recall["seq_id"], &json!(true)));
    world.post("bob", "/v1/feeds/g/recall", json!({"seq_id": 9999})).await.fails(404, "message_not_found");
    let page = world.get("cid", "/v1/feeds/g/entries?limit=1000").await;
    assert!(!page.text.contains("secret-text") && !page.text.contains("edited\""), "P6: {}", page.text);
    let list = world.get("cid", "/v1/feeds").await;
    assert!(!list.text.contains("secret-text"), "P6: {}", list.text);
    let entry = world.get("cid", &format!("/v1/feeds/g/entries/{seq}")).await.is(200);
    assert_eq!((&entry["recalled"]["by"], &entry["recalled"]["seq_id"]), (&json!("bob"), &recall["seq_id"]));

    let sent =
        world.post("bob", "/v1/feeds/g/messages", json!({"payload": 1, "client_msg_id": "c1"})).await.is(201);
    world
        .post("ann", "/v1/feeds/g/recall", json!({"client_msg_id": "c1"}))
        .await
        .fails(404, "message_not_found");
    let body = json!({"client_msg_id": "c1", "sender": "bob"});
    world.post("ann", "/v1/feeds/g/recall", body).await.is(201);
    let entry = world.get("ann", &format!("/v1/feeds/g/entries/{}", sent["seq_id"])).await.is(200);
    assert_eq!(entry["recalled"]["by"], "ann");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_unread_unreplied_and_receipts() {
    let world = World::new();
    let direct = world.post("ann", "/v1/feeds", json!({"kind": "direct", "members": ["bob"]})).await.is(201);
    let feed = direct["feed_id"].as_str().unwrap().to_owned();
    let (one, two) = (world.say("ann", &feed, "1").await, world.say("ann", &feed, "2").await);
    let unread = world.get("bob", "/v1/unread").await.is(200);
    assert_eq!((&unread["total"], &unread["feeds"][0]["unread"]), (&json!(2), &json!(2)));
    let owed = world.get("bob", "/v1/unreplied").await.is(200);
    let row = &owed["unreplied"][0];
    assert_eq!((&row["from"], &row["count"], &row["seq_id"]), (&json!("ann"), &json!(2), &json!(one)));

    let path = format!("/v1/feeds/{feed}/marks");
    let marks = world.put("bob", &path, json!({"read_seq_id": one})).await.is(200);
    assert_eq!((&marks["read_seq_id"], &marks["received_seq_id"]), (&json!(one), &json!(one)));
    let marks = world.put("bob", &path, json!({"read_seq_id": 1})).await.is(200);
    assert_eq!(marks["read_seq_id"], one, "never back");
    let explained = world.get("bob", &format!("/v1/feeds/{feed}/unread?explain=true")).await.is(200);
    assert_eq!(
        (&explained["unread"], &explained["explain"]["counted"]),
        (&json!(1), &json!([{"from": two, "to": two}]))
    );
    let plain = world.get("bob", &format!("/v1/feeds/{feed}/unread")).await.is(200);
    assert_eq!(plain.get("explain"), None);
    let receipts = world.get("ann", &format!("/v1/feeds/{feed}/receipts/{one}")).await.is(200);
    assert_eq!((&receipts["delivered"], &receipts["read"]), (&json!(1), &json!(1)));
    assert_eq!(receipts["members"][0]["uid"], "bob");
    let marks = world.put("bob", &path, json!({"unread_from": one})).await.is(200);
    assert!(marks["read_seq_id"].as_u64().unwrap() < one);
    assert_eq!(world.get("bob", &path).await.is(200), marks);

    world.post("bob", &format!("/v1/feeds/{feed}/resolve"), json!({"seq_id": two})).await.is(200);
    assert_eq!(world.get("bob", "/v1/unreplied").await.is(200)["unreplied"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_made_used_listed_and_revoked() {
    let world = World::with(closed_store(), HttpConfig::default());
    world.get("nonsense", "/v1/feeds").await.fails(401, "unauthenticated");
    let body = json!({"uid": "svc", "scopes": ["user", "send-as"], "note": "import"});
    let made = world.post(ADMIN, "/v1/admin/tokens", body).await.is(201);
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    assert_eq!(made["scopes"], json!(["user", "send-as"]));
    world.get(token, "/v1/feeds").await.is(200);
    world.get(token, "/v1/admin/tokens").await.fails(403, "forbidden");
    let list = world.get(ADMIN, "/v1/admin/tokens").await;
    assert!(!list.text.contains(token), "a secret is shown once");
    assert_eq!(list.is(200)["tokens"][0]["id"], id);

    let request = |uid: &str, token: &str| {
        axum::http::Request::get("/v1/feeds")
            .header("authorization", format!("Bearer {token}"))
            .header("x-feedlog-user", uid)
            .body(axum::body::Body::empty())
            .unwrap()
    };
    world.raw(request("bob", token)).await.is(200);
    world.raw(request("", token)).await.fails(400, "bad_request");
    let plain = world.post(ADMIN, "/v1/admin/tokens", json!({"uid": "eve"})).await.is(201);
    let plain = plain["token"].as_str().unwrap();
    world.raw(request("bob", plain)).await.fails(403, "forbidden");

    let revoked = world.delete(ADMIN, &format!("/v1/admin/tokens/{id}")).await.is(200);
    assert!(revoked["revoked_ms"].is_u64());
    world.get(token, "/v1/feeds").await.fails(401, "unauthenticated");
    world.delete(ADMIN, &format!("/v1/admin/tokens/{id}")).await.is(200);
    world.delete(ADMIN, "/v1/admin/tokens/none").await.fails(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrators_verify_rebuild_export_and_see_limits() {
    let world = World::new();
    world.group("g", &["bob"]).await;
    world.say("ann", "g", "kept").await;
    for kind in ["verify", "rebuild"] {
        world.post("bob", &format!("/v1/admin/{kind}"), json!({})).await.fails(403, "forbidden");
        let job = world.text("admin", "POST", &format!("/v1/admin/{kind}"), "").await.is(202);
        let path = format!("/v1/admin/jobs/{}?wait=true", job["id"]);
        let job = world.get("admin", &path).await.is(200);
        assert_eq!(
            (&job["state"], &job["problem_count"], &job["kind"]),
            (&json!("done"), &json!(0), &json!(kind))
        );
        assert!(job["entries_done"].as_u64().unwrap() >= 4);
    }
    assert_eq!(world.get("admin", "/v1/admin/jobs").await.is(200)["jobs"].as_array().unwrap().len(), 2);
    world.get("admin", "/v1/admin/jobs/77").await.fails(404, "not_found");
    let feeds = world.get("admin", "/v1/admin/feeds").await.is(200);
    assert_eq!(feeds["feeds"][0]["feed_id"], "g");
    let export = world.get("admin", "/v1/admin/export?feed=g").await;
    let lines: Vec<Value> = export.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<&str> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["feedlog_export", "entry", "entry", "entry", "entry", "feed", "manifest"]);
    let mut checker = feedlog_service::export::Checker::default();
    for line in export.text.lines() {
        checker.line(line).unwrap();
    }
    world.get("admin", "/v1/admin/export?feed=none").await.fails(404, "feed_not_found");
    let limits = world.get("admin", "/v1/admin/limits").await.is(200);
    assert_eq!(limits["payload_bytes_max"], 1 << 20);
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("b");
    let body = json!({"dir": dir.to_str().unwrap()});
    world.post("admin", "/v1/admin/backup", body.clone()).await.is(201);
    assert!(dir.exists());
    world.post("admin", "/v1/admin/backup", body).await.fails(409, "already_exists");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operation_and_documentation() {
    let world = World::new();
    assert_eq!(world.get("", "/livez").await.is(200), json!({"alive": true}));
    assert_eq!(world.get("", "/readyz").await.is(200), json!({"ready": true, "reasons": []}));
    let metrics = world.get("", "/metrics").await;
    assert_eq!((metrics.status, metrics.text.as_str()), (200, "feedlog_test 1\n"));
    let document = world.get("", "/openapi.json").await.is(200);
    assert_eq!(document["openapi"], "3.1.0");
    let page = world.get("", "/docs").await;
    assert!(page.status == 200 && page.text.contains("/openapi.json"));
    assert!(!page.text.contains("https://") && !page.text.contains("//cdn"), "the page works offline");
    world.drain.send(true).unwrap();
    assert_eq!(world.get("", "/readyz").await.is(503), json!({"ready": false, "reasons": ["draining"]}));
    world.store.drain(std::time::Duration::from_secs(5)).await;
    world.post("ann", "/v1/feeds", json!({"kind": "group"})).await.fails(503, "unavailable");
}
