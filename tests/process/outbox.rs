//! The push outbox of the real binary, with a receiver that fails half the time, hangs and is restarted, while the server is
//! killed with `kill -9` again and again.
//!
//! At the end the receiver, which takes each call once by its id, has exactly the log's order of every feed, nothing
//! missing and nothing twice; every signature was right.
//!
//! `FEEDLOG_CRASH_CYCLES` sets the number of kills, `FEEDLOG_SEED` the seed.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::crash::{cycles, seed};
use crate::ledger::{self, Random};
use crate::receiver::{Receiver, SECRET, SEED};
use crate::server::Server;

/// Who sends; each sends to every group in turn.
const SENDERS: usize = 4;
const GROUPS: usize = 3;

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn group(n: usize) -> String {
    format!("push/{n}")
}

/// The answer of a call that must not fail.
fn ask(agent: &ureq::Agent, token: &str, path: &str, body: Option<&Value>) -> Value {
    let token = format!("Bearer {token}");
    let mut answer = match body {
        Some(body) => agent.post(path).header("authorization", token).send_json(body),
        None => agent.get(path).header("authorization", token).call(),
    }
    .expect("the server answers");
    let status = answer.status().as_u16();
    let body: Value = answer.body_mut().read_json().expect("an answer is JSON");
    assert!(status < 300, "{path}: {status} {body}");
    body
}

struct Sender {
    uid: String,
    agent: ureq::Agent,
    next: u64,
}

impl Sender {
    /// Sends the next message; with the same id as before when no answer had come. `false`: no answer.
    fn send(&mut self, url: &str) -> bool {
        let feed = group((self.next as usize) % GROUPS).replace('/', "%2F");
        let body =
            json!({"client_msg_id": self.next.to_string(), "payload": {"n": self.next, "by": self.uid}});
        let path = format!("{url}/v1/feeds/{feed}/messages");
        let sent =
            self.agent.post(path).header("authorization", format!("Bearer {}", self.uid)).send_json(body);
        match sent {
            Ok(answer) => {
                assert!(matches!(answer.status().as_u16(), 200 | 201), "{}", answer.status());
                self.next += 1;
                true
            }
            Err(_) => false,
        }
    }
}

fn endpoint(dir: &Path, receiver: &Receiver) -> String {
    let (secret, key, file) = (dir.join("secret"), dir.join("key"), dir.join("outbox.toml"));
    std::fs::write(&secret, format!("whsec_{}\n", STANDARD.encode(SECRET))).unwrap();
    std::fs::write(&key, STANDARD.encode(SEED)).unwrap();
    let text = format!(
        "[[endpoint]]\nname = \"phones\"\nurl = \"http://{}/push\"\nsecret_file = {secret:?}\n\
         ed25519_key_file = {key:?}\nattempts_max = 0\nretry_first_ms = 2\nretry_max_ms = 40\ncoalesce_ms = 3\n",
        receiver.address
    );
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

fn crash_loop(engine: &str, cycles: u32) {
    let seed = seed();
    eprintln!("outbox: engine {engine}, {cycles} kills, FEEDLOG_SEED={seed}");
    let began = Instant::now();
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let mut receiver = Receiver::start(seed);
    let file = endpoint(dir.path(), &receiver);
    let hosts = receiver.address.to_string();
    let settings = [
        ("FEEDLOG__OUTBOX__ENDPOINTS_FILE", file.as_str()),
        ("FEEDLOG__OUTBOX__HOSTS", hosts.as_str()),
        ("FEEDLOG__OUTBOX__TIMEOUT_MS", "200"),
        // Small, so that windows have several calls for one feed.
        ("FEEDLOG__OUTBOX__CALL_ENTRIES_MAX", "5"),
        ("FEEDLOG__OUTBOX__WINDOW_COMMITS_MAX", "16"),
    ];
    let mut server = Server::start_with(&data, engine, &settings);
    let mut senders: Vec<Sender> =
        (0..SENDERS).map(|n| Sender { uid: format!("s{n}"), agent: agent(), next: 0 }).collect();
    let mut members: Vec<String> = senders.iter().map(|one| one.uid.clone()).collect();
    members.push("bob".to_owned());
    for n in 0..GROUPS {
        let body = json!({"feed_id": group(n), "kind": "group", "members": members});
        ask(&agent(), "admin", &format!("{}/v1/feeds", server.url), Some(&body));
    }
    for cycle in 0..cycles {
        let stop = AtomicBool::new(false);
        let pause = Duration::from_millis(50 + random.below(400));
        std::thread::scope(|scope| {
            for sender in &mut senders {
                let (url, stop) = (server.url.clone(), &stop);
                scope.spawn(move || while !stop.load(Ordering::Relaxed) && sender.send(&url) {});
            }
            // Times of the kill and of the receiver's absence are random, not when some state is reached.
            park(pause / 2);
            if cycle % 2 == 0 {
                receiver.stop();
                park(pause / 4);
                receiver.restart();
            }
            park(pause / 2);
            server.kill();
            stop.store(true, Ordering::Relaxed);
        });
        server = Server::start_with(&data, engine, &settings);
    }
    // What was in flight is settled; a last one to each group, and then quiet.
    for sender in &mut senders {
        for _ in 0..GROUPS {
            assert!(sender.send(&server.url));
        }
    }
    receiver.heal();
    let logs: Vec<(String, Vec<u64>)> =
        (0..GROUPS).map(|n| (group(n), ledger::places(&server.url, &group(n), "bob"))).collect();
    let total: usize = logs.iter().map(|(_, places)| places.len()).sum();
    receiver.wait("the end of the log", |book| {
        let told: usize = book.messages.values().map(Vec::len).sum();
        told >= total
    });
    settled(&server.url);

    let book = receiver.book.0.lock().unwrap();
    for (feed, places) in &logs {
        let told: Vec<u64> = book.messages[feed].iter().map(|(seq, _)| *seq).collect();
        assert_eq!(told, *places, "{feed}: not the log's order");
    }
    let again: usize = book.taken.values().map(|(_, times)| times - 1).sum();
    eprintln!(
        "outbox: {cycles} kills in {:.1} s; {total} messages in {} calls, {} tries, {again} calls came again with their id",
        began.elapsed().as_secs_f64(),
        book.taken.len(),
        book.tries,
    );
    assert!(book.tries > book.taken.len(), "the receiver was never bad");
    drop(book);

    // The badge is that of the moment: nothing more comes, so it is what bob is told himself.
    let agent = agent();
    let unread = ask(&agent, "bob", &format!("{}/v1/unread", server.url), None);
    assert!(senders[0].send(&server.url));
    let expected = unread["total"].as_u64().expect("a number") + 1;
    assert_eq!(expected, total as u64 + 1);
    receiver.wait("the last badge", |book| book.newest["bob"]["badge"].as_u64() == Some(expected));
    server.terminate();
    crate::crash::verify(&data, engine, cycles);
}

/// Waits until the outbox says that it is not behind.
fn settled(url: &str) {
    let agent = agent();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let outbox = ask(&agent, "admin", &format!("{url}/v1/admin/outbox"), None);
        let phones = &outbox["endpoints"][0];
        assert_eq!(phones["dead"], 0, "{outbox}");
        if phones["lag_commits"] == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{outbox}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn park(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

#[cfg(feature = "rocksdb")]
#[test]
fn a_bad_receiver_gets_the_logs_order_across_kills_on_rocksdb() {
    crash_loop("rocksdb", cycles(12));
}

#[cfg(feature = "sled")]
#[test]
fn a_bad_receiver_gets_the_logs_order_across_kills_on_sled() {
    crash_loop("sled", cycles(4));
}
