//! Senders in rooms while the server is killed with `kill -9`, with ledgers on both sides.
//!
//! Senders keep several packets on their way, and after each kill send again, with the same uuid and in their order, what
//! was not acknowledged. At the end every packet is in its room's history exactly once, byte for byte and in its sender's
//! order; readers were passed no packet twice, and none that is not in the history (P1, P2, P3).
//!
//! `FEEDLOG_CRASH_CYCLES` sets the number of kills (30 for RocksDB and 8 for sled unless set), `FEEDLOG_SEED` the seed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::crash::{cycles, seed, verify};
use crate::gws::{Got, Room, history, packet};
use crate::ledger::Random;
use crate::server::Server;

/// Senders with a room of their own, and as many in one room for all.
const EACH: usize = 10;
/// Readers of the room for all.
const READERS: usize = 3;
/// Packets that a sender has on their way at most.
const WINDOW: usize = 8;
const SHARED: &str = "/crash/shared";

struct Sender {
    name: String,
    room: String,
    next: u64,
    unacknowledged: VecDeque<u64>,
    resent: usize,
}

impl Sender {
    fn new(n: usize) -> Self {
        let name = format!("sender-{n}");
        let room = if n < EACH { format!("/crash/{n}") } else { SHARED.to_owned() };
        Self { name, room, next: 0, unacknowledged: VecDeque::new(), resent: 0 }
    }

    fn uuid(&self, number: u64) -> String {
        format!("{}:{number}", self.name)
    }

    fn packet(&self, number: u64) -> String {
        let filler = "word ".repeat((number * 37 % 60) as usize);
        packet(&self.uuid(number), &format!("{number} of {}, {filler}", self.name))
    }

    /// Talks until the server is gone, or, when it settles, until nothing is on its way.
    fn run(&mut self, server: &str, killed: &AtomicBool, settles: bool) {
        let whole = Room::connect(server, &self.room).and_then(|room| self.talk(room, settles)).is_some();
        assert!(whole || killed.load(Ordering::SeqCst), "{}: the server closed", self.name);
    }

    fn talk(&mut self, mut room: Room, settles: bool) -> Option<()> {
        for number in &self.unacknowledged {
            self.resent += 1;
            room.send(self.packet(*number))?;
        }
        loop {
            while !settles && self.unacknowledged.len() < WINDOW {
                room.send(self.packet(self.next))?;
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
                other => panic!("{}: {other:?}", self.name),
            }
        }
    }
}

/// Reads until the server is gone; what it was passed is in `seen`.
fn read(server: &str, killed: &AtomicBool, seen: &mut HashMap<String, String>) {
    let Some(mut room) = Room::connect(server, SHARED) else { return };
    let mut newest = HashMap::<String, u64>::new();
    while let Some(got) = room.next() {
        let Got::Packet(uuid, text) = got else { panic!("a reader: {got:?}") };
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
    let mut senders: Vec<Sender> = (0..2 * EACH).map(Sender::new).collect();
    let mut seen = vec![HashMap::new(); READERS];
    let mut server = Server::start(&data, engine);
    for _ in 0..cycles {
        let at = server.url.strip_prefix("http://").expect("an http address").to_owned();
        let killed = AtomicBool::new(false);
        // The kill comes at a random time, not when some state is reached.
        let until = Instant::now() + Duration::from_micros(10_000 + random.below(150_000));
        std::thread::scope(|scope| {
            for seen in &mut seen {
                scope.spawn(|| read(&at, &killed, seen));
            }
            for sender in &mut senders {
                scope.spawn(|| sender.run(&at, &killed, false));
            }
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                std::thread::park_timeout(left);
            }
            killed.store(true, Ordering::SeqCst);
            server.kill();
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

    let (own, shared) = senders.split_at(EACH);
    for sender in own {
        let sent: Vec<String> = (0..sender.next).map(|number| sender.packet(number)).collect();
        let kept = history(&server.url, &sender.room);
        assert_eq!(kept.len(), sent.len(), "{}: lost or doubled", sender.room);
        assert!(kept == sent, "{}: reordered or changed", sender.room);
    }
    let log = history(&server.url, SHARED);
    for sender in shared {
        let mine = format!(r#""uuid":"{}:"#, sender.name);
        let kept: Vec<&String> = log.iter().filter(|text| text.contains(&mine)).collect();
        assert_eq!(kept.len() as u64, sender.next, "{}: lost or doubled", sender.name);
        for (number, text) in kept.into_iter().enumerate() {
            assert_eq!(*text, sender.packet(number as u64), "{}: reordered or changed", sender.name);
        }
    }
    let kept: HashSet<&String> = log.iter().collect();
    for text in seen.iter().flat_map(HashMap::values) {
        assert!(kept.contains(text), "passed on and not kept: {text}");
    }
    server.terminate();
    verify(&data, engine, cycles);
    let sent: u64 = senders.iter().map(|sender| sender.next).sum();
    assert!(sent > u64::from(cycles), "the senders were hardly served: {sent} packets");
    eprintln!(
        "gws crash loop: {cycles} kills in {:.1} s; {sent} packets acknowledged and found, {} sent again, \
         {} passed on to {READERS} readers",
        began.elapsed().as_secs_f64(),
        senders.iter().map(|sender| sender.resent).sum::<usize>(),
        seen.iter().map(HashMap::len).sum::<usize>(),
    );
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
