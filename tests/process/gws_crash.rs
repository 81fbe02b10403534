//! Senders in rooms and back ends of CONNMIX while the server is killed with `kill -9`, and now and then stopped in order,
//! with ledgers on both sides.
//!
//! Senders keep several messages on their way, and after each kill send again, with the same id and in their order, what
//! was not acknowledged. At the end every message is in its room's history exactly once, byte for byte and in its sender's
//! order; readers were passed none twice, and none that is not in the history; a client of the message center that went on
//! each time from the place it was told last has exactly the log (P1, P2, P3, P4).
//!
//! `FEEDLOG_CRASH_CYCLES` sets the number of kills (30 for RocksDB and 8 for sled unless set), `FEEDLOG_SEED` the seed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::crash::{cycles, seed, verify};
use crate::gws::{Got, Room, history, packet};
use crate::ledger::Random;
use crate::server::Server;

/// Senders with a room of their own, and as many in one room for all.
const EACH: usize = 10;
/// Back ends that publish to that room as a channel.
const BACK_ENDS: usize = 4;
/// Readers of the room for all.
const READERS: usize = 3;
/// Messages that a sender has on their way at most.
const WINDOW: usize = 8;
/// The room for all, and what it is called at the message center.
const SHARED: &str = "/crash:shared";
const CHANNEL: &str = "shared@/crash";

/// Somebody who sends packets in a room, or publishes on `/ws/v1`.
struct Sender {
    name: String,
    room: String,
    back_end: bool,
    next: u64,
    unacknowledged: VecDeque<u64>,
    resent: usize,
}

impl Sender {
    fn new(n: usize) -> Self {
        let name = format!("sender-{n}");
        let room = if n < EACH { format!("/crash/{n}") } else { SHARED.to_owned() };
        let back_end = n >= 2 * EACH;
        Self { name, room, back_end, next: 0, unacknowledged: VecDeque::new(), resent: 0 }
    }

    fn uuid(&self, number: u64) -> String {
        format!("{}:{number}", self.name)
    }

    fn words(&self, number: u64) -> String {
        format!("{number} of {}, {}", self.name, "word ".repeat((number * 37 % 60) as usize))
    }

    fn message(&self, number: u64) -> String {
        let (uuid, words) = (self.uuid(number), self.words(number));
        if self.back_end {
            let params = json!({"c": SHARED, "d": words, "id": uuid});
            return json!({"m": "mesh.publish", "p": params, "i": number}).to_string();
        }
        packet(&uuid, &words)
    }

    /// Whether this is how the message looks to whoever is in the room.
    fn is_shown_as(&self, number: u64, shown: &str) -> bool {
        if !self.back_end {
            return shown == self.message(number);
        }
        let shown: Value = serde_json::from_str(shown).expect("a packet");
        shown["uuid"] == self.uuid(number) && shown["body"]["data"] == self.words(number)
    }

    /// Talks until the server is gone, or, when it settles, until nothing is on its way.
    fn run(&mut self, server: &str, killed: &AtomicBool, settles: bool) {
        let whole = Room::connect(server, if self.back_end { "/ws/v1" } else { &self.room })
            .and_then(|room| self.talk(room, settles))
            .is_some();
        assert!(whole || killed.load(Ordering::SeqCst), "{}: the server closed", self.name);
    }

    fn talk(&mut self, mut room: Room, settles: bool) -> Option<()> {
        for number in &self.unacknowledged {
            self.resent += 1;
            room.send(self.message(*number))?;
        }
        loop {
            while !settles && self.unacknowledged.len() < WINDOW {
                room.send(self.message(self.next))?;
                self.unacknowledged.push_back(self.next);
                self.next += 1;
            }
            let Some(oldest) = self.unacknowledged.front() else { return Some(()) };
            match room.next()? {
                Got::Ack(uuid) => {
                    assert_eq!(uuid, self.uuid(*oldest), "acks come in the order of the packets");
                    self.unacknowledged.pop_front();
                }
                Got::Packet(uuid, _) => {
                    assert!(!uuid.starts_with(&format!("{}:", self.name)), "{uuid} came back to its sender");
                    assert_eq!(self.room, SHARED);
                }
                Got::Raw(answer) if self.back_end => {
                    let answer: Value = serde_json::from_str(&answer).expect("JSON");
                    assert!(answer["E"].is_null() && answer["r"]["seq_id"].is_u64(), "{answer}");
                    let at = self.unacknowledged.iter().position(|number| answer["i"] == *number);
                    self.unacknowledged.remove(at.expect("an answer to what waits for one"));
                }
                Got::Closed(Some(1001)) => return None,
                other => panic!("{}: {other:?}", self.name),
            }
        }
    }
}

/// A client of the message center. What it was sent up to the place it was told last is whole; the rest comes again.
#[derive(Default)]
struct Follower {
    place: u64,
    whole: Vec<String>,
    resumed: usize,
}

impl Follower {
    /// Follows until the server is gone, or until it has all up to this place.
    fn run(&mut self, server: &str, killed: &AtomicBool, until: Option<u64>) {
        let whole =
            Room::connect(server, "/message-center").and_then(|center| self.follow(center, until)).is_some();
        assert!(whole || killed.load(Ordering::SeqCst), "the server closed the connection of a follower");
    }

    fn follow(&mut self, mut center: Room, until: Option<u64>) -> Option<()> {
        center.send(r#"{"op":"auth","token":"dan"}"#)?;
        center.send(json!({"op": "subscribe", "channel": CHANNEL, "since": self.place}).to_string())?;
        self.resumed += usize::from(self.place > 0);
        let (mut answers, mut since) = (0, Vec::new());
        while until.is_none_or(|until| self.place < until) {
            let text = match center.next()? {
                Got::Raw(text) | Got::Packet(_, text) => text,
                Got::Closed(Some(1001)) => return None,
                other => panic!("a follower: {other:?}"),
            };
            // What is published here is text that is no JSON, or a packet.
            let told: Value = serde_json::from_str(&text).unwrap_or_default();
            if answers < 2 {
                assert_eq!(told["result"], true, "{text}");
                answers += 1;
            } else if told["op"] == "cursor" {
                self.place = told["seq_id"].as_u64().expect("a place");
                self.whole.append(&mut since);
            } else {
                since.push(text);
            }
        }
        Some(())
    }
}

/// Reads until the server is gone; what it was passed is in `seen`.
fn read(server: &str, killed: &AtomicBool, seen: &mut HashMap<String, String>) {
    let Some(mut room) = Room::connect(server, SHARED) else { return };
    let mut newest = HashMap::<String, u64>::new();
    while let Some(got) = room.next() {
        let (uuid, text) = match got {
            Got::Packet(uuid, text) => (uuid, text),
            Got::Closed(Some(1001)) => break,
            other => panic!("a reader: {other:?}"),
        };
        let (sender, number) = parts(&uuid);
        let newer = newest.insert(sender.to_owned(), number).is_none_or(|before| before < number);
        assert!(newer, "{uuid} came out of order");
        assert!(seen.insert(uuid.clone(), text).is_none(), "{uuid} was passed on twice");
    }
    assert!(killed.load(Ordering::SeqCst), "the server closed the connection of a reader");
}

fn parts(uuid: &str) -> (&str, u64) {
    let parts = uuid.split_once(':').and_then(|(sender, number)| Some((sender, number.parse().ok()?)));
    parts.unwrap_or_else(|| panic!("nobody sent {uuid:?}"))
}

fn crash_loop(engine: &str, cycles: u32) {
    let seed = seed();
    eprintln!("gws crash loop: engine {engine}, {cycles} cycles, FEEDLOG_SEED={seed}");
    let began = Instant::now();
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let mut senders: Vec<Sender> = (0..2 * EACH + BACK_ENDS).map(Sender::new).collect();
    let mut follower = Follower::default();
    let mut seen = vec![HashMap::new(); READERS];
    let mut server = Server::start(&data, engine);
    for _ in 0..cycles {
        let at = server.url.strip_prefix("http://").expect("an http address").to_owned();
        let killed = AtomicBool::new(false);
        let gently = random.below(6) == 0;
        // The kill comes at a random time, not when some state is reached.
        let until = Instant::now() + Duration::from_micros(10_000 + random.below(150_000));
        std::thread::scope(|scope| {
            for seen in &mut seen {
                scope.spawn(|| read(&at, &killed, seen));
            }
            scope.spawn(|| follower.run(&at, &killed, None));
            for sender in &mut senders {
                scope.spawn(|| sender.run(&at, &killed, false));
            }
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                std::thread::park_timeout(left);
            }
            killed.store(true, Ordering::SeqCst);
            if gently {
                // SIGTERM: everybody is told 1001.
                server.terminate();
            } else {
                server.kill();
            }
        });
        server = Server::start(&data, engine);
    }
    let at = server.url.strip_prefix("http://").expect("an http address").to_owned();
    let killed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for sender in &mut senders {
            scope.spawn(|| sender.run(&at, &killed, true));
        }
    });

    let last = Some(head(&server.url));
    follower.run(&at, &killed, last);
    let mut latecomer = Follower::default();
    latecomer.run(&at, &killed, last);

    let (own, shared) = senders.split_at(EACH);
    for sender in own {
        check(sender, &history(&server.url, &sender.room).iter().collect::<Vec<_>>());
    }
    let log = history(&server.url, SHARED);
    for sender in shared {
        let mine = format!(r#""uuid":"{}:"#, sender.name);
        check(sender, &log.iter().filter(|text| text.contains(&mine)).collect::<Vec<_>>());
    }
    let kept: HashSet<&String> = log.iter().collect();
    for text in seen.iter().flat_map(HashMap::values) {
        assert!(kept.contains(text), "passed on and not kept: {text}");
    }
    for (who, follower) in [("who came back", &follower), ("who came last", &latecomer)] {
        for (n, shown) in log.iter().enumerate() {
            // What came by the API is the text itself, and the room shows it in a packet.
            let is_it = |sent: &String| sent == shown || shown.contains(&format!(r#""data":"{sent}""#));
            let got = follower.whole.get(n);
            assert!(got.is_some_and(is_it), "the one {who} was sent {got:?} where {shown} is, {n}");
        }
        assert_eq!(follower.whole.len(), log.len(), "the one {who} was sent too much");
    }
    server.terminate();
    verify(&data, engine, cycles);
    let sent: u64 = senders.iter().map(|sender| sender.next).sum();
    assert!(sent > u64::from(cycles), "the senders were hardly served: {sent} messages");
    eprintln!(
        "gws crash loop: {cycles} kills in {:.1} s; {sent} messages acknowledged and found, {} sent again, \
         {} passed on to {READERS} readers, {} to one who came back {} times",
        began.elapsed().as_secs_f64(),
        senders.iter().map(|sender| sender.resent).sum::<usize>(),
        seen.iter().map(HashMap::len).sum::<usize>(),
        follower.whole.len(),
        follower.resumed,
    );
}

/// What is kept of a sender's messages: each once, and in order.
fn check(sender: &Sender, kept: &[&String]) {
    assert_eq!(kept.len() as u64, sender.next, "{} in {}: lost or doubled", sender.name, sender.room);
    for (number, shown) in (0..).zip(kept) {
        assert!(sender.is_shown_as(number, shown), "{}: {number} is {shown}", sender.name);
    }
}

fn head(url: &str) -> u64 {
    let path = SHARED.replace('/', "%2F");
    let answer = ureq::get(format!("{url}/v1/feeds/{path}/entries?limit=1"))
        .header("authorization", "Bearer dan")
        .call();
    let page: Value = answer.expect("a page").body_mut().read_json().expect("JSON");
    page["head_seq_id"].as_u64().expect("a place")
}

#[cfg(feature = "rocksdb")]
#[test]
fn rooms_lose_and_double_nothing_acknowledged_on_rocksdb() {
    crash_loop("rocksdb", cycles(30));
}

#[cfg(feature = "sled")]
#[test]
fn rooms_lose_and_double_nothing_acknowledged_on_sled() {
    crash_loop("sled", cycles(8));
}
