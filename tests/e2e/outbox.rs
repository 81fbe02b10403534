//! `feedlog outbox` against a server whose only endpoint is not there.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Server, run};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn until(server: &Server, what: &str, wanted: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let outbox = server.json("admin", &["outbox", "list"]);
        if wanted(&outbox["endpoints"][0]) {
            return;
        }
        assert!(Instant::now() < deadline, "{what} never came: {outbox}");
    }
}

#[test]
fn the_outbox_is_checked_seen_and_steered() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    std::fs::write(path("secret"), SECRET).unwrap();
    std::fs::write(path("key"), KEY).unwrap();
    let endpoint = format!(
        "[[endpoint]]\nname = \"phones\"\nurl = \"http://{address}/push\"\nsecret_file = {:?}\ned25519_key_file = {:?}\n\
         retry_first_ms = 1\nretry_max_ms = 2\nattempts_max = 2\n",
        path("secret"),
        path("key"),
    );
    std::fs::write(path("outbox.toml"), &endpoint).unwrap();
    let config = path("feedlog.toml");
    let text = format!("[outbox]\nendpoints_file = {:?}\nhosts = [\"{address}\"]\n", path("outbox.toml"));
    std::fs::write(&config, &text).unwrap();
    assert_eq!(run(&["config", "check", "--config", &config]).code, 0);
    let key = run(&["outbox", "key", "--config", &config]);
    assert!(key.stdout.contains("whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="), "{key:?}");
    std::fs::write(path("outbox.toml"), endpoint.replace("attempts_max", "attempts")).unwrap();
    run(&["config", "check", "--config", &config]).ended(2, "did you mean attempts_max?");
    std::fs::write(path("outbox.toml"), &endpoint).unwrap();

    let server = Server::start(&dir.path().join("data"), &["--dev", "--config", &config]);
    server.run("bob", &["outbox", "list"]).ended(3, "forbidden");
    let none = server.run("admin", &["outbox", "dead", "phones"]);
    assert!(none.stdout.contains("(none)"), "{none:?}");
    server.json("ann", &["send", "--to", "bob", "are you there?"]);
    until(&server, "a dead letter", |phones| phones["dead"] == 1);
    let list = server.run("admin", &["outbox", "list"]);
    assert!(list.stdout.contains("phones") && list.stdout.contains("unreachable"), "{list:?}");
    let dead = server.run("admin", &["outbox", "dead", "phones"]);
    assert!(dead.stdout.contains("direct:") && !dead.stdout.contains("are you there"), "{dead:?}");
    server.run("admin", &["outbox", "replay", "phones"]).ended(2, "--dead");
    server.run("admin", &["outbox", "replay", "nobody", "--dead"]).ended(3, "not_found");
    assert!(server.json("admin", &["outbox", "replay", "phones", "--dead"])["replay"].is_u64());
    until(&server, "the end of the replay", |phones| phones["replays"] == 0 && phones["dead"] == 1);
    assert_eq!(server.json("admin", &["outbox", "drop", "phones", "--dead"])["dropped"], 1);
    assert_eq!(server.json("admin", &["outbox", "pause", "phones"])["paused"], "asked");
    server.json("ann", &["send", "--to", "bob", "again"]);
    let paused = server.run("admin", &["outbox", "list"]);
    assert!(paused.stdout.contains("paused"), "{paused:?}");
    assert_eq!(server.json("admin", &["outbox", "drop", "phones", "--backlog"])["dropped"], 1);
    assert_eq!(server.json("admin", &["outbox", "resume", "phones"])["paused"], Value::Null);
    assert_eq!(server.stop(), 0);
}
