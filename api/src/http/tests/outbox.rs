//! `/v1/admin/outbox`: seen and steered by administrators alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use feedlog_service::outbox::{Call, Carrier, CarryError, Endpoint, OutboxConfig, Patience};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::world::World;

/// Answers every call with this status.
struct Answers(AtomicU16);

impl Carrier for Answers {
    fn carry(&self, _: Call) -> BoxFuture<'_, Result<(), CarryError>> {
        Box::pin(async {
            match self.0.load(Ordering::SeqCst) {
                200..300 => Ok(()),
                status => Err(CarryError::Status { status, retry_after_ms: None }),
            }
        })
    }
}

async fn until(world: &World, wanted: impl Fn(&Value) -> bool) -> Value {
    let waiting = async {
        loop {
            let outbox = world.get("admin", "/v1/admin/outbox").await.is(200);
            if wanted(&outbox["endpoints"][0]) {
                return outbox["endpoints"][0].clone();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it comes to that")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrators_see_and_steer_the_outbox() {
    let world = World::new();
    assert_eq!(world.get("admin", "/v1/admin/outbox").await.is(200), json!({"endpoints": []}));
    let patience = Patience { retry_first_ms: 1, retry_max_ms: 2, attempts_max: 2, give_up_ms: 0 };
    let endpoint = Endpoint { patience, coalesce_ms: 0, ..Endpoint::new("phones") };
    let answers = Arc::new(Answers(AtomicU16::new(500)));
    let config = OutboxConfig { endpoints: vec![endpoint], ..OutboxConfig::default() };
    world.store.start_outbox(config, answers.clone()).unwrap();
    for (method, path, body) in [
        ("GET", "/v1/admin/outbox", ""),
        ("GET", "/v1/admin/outbox/phones/dead", ""),
        ("POST", "/v1/admin/outbox/phones/replay", r#"{"dead":true}"#),
        ("POST", "/v1/admin/outbox/phones/drop", r#"{"what":"dead"}"#),
        ("POST", "/v1/admin/outbox/phones/pause", r#"{"on":true}"#),
    ] {
        world.text("bob", method, path, body).await.fails(403, "forbidden");
        let path = path.replace("phones", "nobody");
        if path.contains("nobody") {
            world.text("admin", method, &path, body).await.fails(404, "not_found");
        }
    }

    world.group("g", &["bob"]).await;
    world.say("ann", "g", "secret words").await;
    let status = until(&world, |one| one["dead"] == 1).await;
    assert_eq!((&status["last_error"], &status["paused"]), (&json!("status 500"), &json!(null)));
    assert_eq!((&status["name"], &status["delivered"]), (&json!("phones"), &json!(0)));
    let dead = world.get("admin", "/v1/admin/outbox/phones/dead?limit=1").await;
    assert!(!dead.text.contains("secret words"), "I-8: {}", dead.text);
    let dead = dead.is(200);
    let letter = &dead["dead"][0];
    assert_eq!((&letter["feed_id"], &letter["attempts"]), (&json!("g"), &json!(2)));
    let next = dead["next"].as_str().expect("the page is full");
    let rest = world.get("admin", &format!("/v1/admin/outbox/phones/dead?cursor={next}")).await.is(200);
    assert_eq!(rest, json!({"dead": [], "next": null}));
    world.get("admin", "/v1/admin/outbox/phones/dead?cursor=x").await.fails(400, "bad_request");

    let path = "/v1/admin/outbox/phones/replay";
    for body in [
        json!({}),
        json!({"dead": false}),
        json!({"dead": true, "feed_id": "g"}),
        json!({"from_seq_id": 1}),
        json!({"after_commit": 9_007_199_254_740_991_u64}),
    ] {
        world.post("admin", path, body).await.fails(422, "rejected");
    }
    answers.0.store(204, Ordering::SeqCst);
    let replay = world.post("admin", path, json!({"dead": true})).await.is(202);
    assert!(replay["replay"].is_u64());
    let status = until(&world, |one| one["dead"] == 0 && one["replays"] == 0).await;
    assert_eq!(status["delivered"], 1);
    world.post("admin", path, json!({"dead": true})).await.fails(422, "rejected");
    world.post("admin", path, json!({"feed_id": "g", "from_seq_id": 2})).await.is(202);
    until(&world, |one| one["delivered"] == 2 && one["replays"] == 0).await;

    let path = "/v1/admin/outbox/phones/pause";
    assert_eq!(world.post("admin", path, json!({"on": true})).await.is(200)["paused"], "asked");
    world.say("ann", "g", "more").await;
    let path = "/v1/admin/outbox/phones/drop";
    assert_eq!(world.post("admin", path, json!({"what": "dead"})).await.is(200), json!({"dropped": 0}));
    assert_eq!(world.post("admin", path, json!({"what": "replays"})).await.is(200), json!({"dropped": 0}));
    world.post("admin", path, json!({"what": "backlog", "number": 1})).await.fails(422, "rejected");
    assert_eq!(world.post("admin", path, json!({"what": "backlog"})).await.is(200), json!({"dropped": 1}));
    let status = until(&world, |one| one["lag_commits"] == 0).await;
    assert_eq!((&status["paused"], &status["delivered"]), (&json!("asked"), &json!(2)));
}
