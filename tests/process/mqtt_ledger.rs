//! Publishers and subscribers of MQTT, each with a ledger and a session that outlives its connections and the server.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use feedlog_api::mqtt::wire::reason;
use feedlog_api::mqtt::wire::{Level, Packet, PacketId, Publish, Qos};

use crate::ledger::Random;
use crate::mqtt::{Wire, ack, id, lasting, publish};

/// Messages that a publisher has on their way at most; ids are used again as soon as they are free.
const WINDOW: usize = 8;
/// Everything that is published.
pub(crate) const FILTER: &str = "ledger/#";

/// Where to connect, and whether a closed connection is to be expected.
#[derive(Clone)]
pub(crate) struct Cycle {
    pub(crate) server: SocketAddr,
    /// Messages that each publisher sends at most before it waits for the kill; 0 = only what is on its way is ended.
    pub(crate) burst: u64,
    pub(crate) killed: Arc<AtomicBool>,
}

impl Cycle {
    fn lost(&self, who: &str) {
        assert!(self.killed.load(Ordering::SeqCst), "the server closed the connection of {who}");
    }
}

async fn reconnect(cycle: &Cycle, level: Level, name: &str, known: &mut bool) -> Option<Wire> {
    let Some((wire, connack)) = Wire::connect(cycle.server, lasting(level, name)).await else {
        cycle.lost(name);
        return None;
    };
    assert_eq!(connack.reason, 0, "{name}: {connack:?}");
    // 3.1 does not tell.
    assert!(connack.session_present || !*known || level == Level::V31, "the session of {name} is lost");
    *known = true;
    Some(wire)
}

/// How far a message of a publisher is.
struct Flight {
    id: PacketId,
    number: u64,
    /// PUBREC came.
    received: bool,
}

pub(crate) struct Publisher {
    name: String,
    pub(crate) topic: String,
    level: Level,
    pub(crate) qos: Qos,
    random: Random,
    known: bool,
    flights: VecDeque<Flight>,
    /// Numbers below were sent.
    pub(crate) next: u64,
    /// PUBACK or PUBCOMP came.
    pub(crate) done: BTreeSet<u64>,
    /// Sent a second time.
    pub(crate) repeated: usize,
}

/// The payload with this number. It can be told from every other.
pub(crate) fn payload(topic: &str, number: u64) -> Bytes {
    let filler = "x".repeat((number * 37 % 200) as usize);
    format!("\"{number} {topic} {filler}\"").into()
}

/// The number in a payload, which must be whole.
fn number_of(topic: &str, bytes: &[u8]) -> u64 {
    let text = std::str::from_utf8(bytes).expect("a text");
    let number = text.strip_prefix('"').and_then(|rest| rest.split(' ').next()?.parse().ok());
    let number = number.unwrap_or_else(|| panic!("{topic}: nobody sent {text:?}"));
    assert_eq!(bytes, payload(topic, number), "{topic}: {number} is not what was sent");
    number
}

impl Publisher {
    pub(crate) fn new(n: usize, level: Level, qos: Qos, seed: u64) -> Self {
        Self {
            name: format!("pub-{n}"),
            topic: format!("ledger/{}/{n}", qos as u8),
            level,
            qos,
            random: Random::new(seed.wrapping_add(n as u64)),
            known: false,
            flights: VecDeque::new(),
            next: 0,
            done: BTreeSet::new(),
            repeated: 0,
        }
    }

    /// Publishes until the server is gone; with a burst of 0, until nothing is on its way.
    pub(crate) async fn run(mut self, cycle: Cycle) -> Self {
        if let Some(wire) = reconnect(&cycle, self.level, &self.name, &mut self.known).await
            && self.talk(&cycle, wire).await.is_none()
        {
            cycle.lost(&self.name);
        }
        self
    }

    async fn talk(&mut self, cycle: &Cycle, mut wire: Wire) -> Option<()> {
        // [MQTT-4.4.0-1]: what was on its way again, with its id, in its order.
        for flight in &self.flights {
            self.repeated += 1;
            if flight.received {
                wire.push(&Packet::Pubrel(ack(flight.id)));
            } else {
                let packet = self.packet(flight);
                wire.push(&Packet::Publish(Publish { dup: true, ..packet }));
            }
        }
        let end = self.next + if cycle.burst == 0 { 0 } else { 1 + self.random.below(cycle.burst) };
        loop {
            while self.flights.len() < WINDOW && self.next < end {
                let free = (1..=WINDOW as u16 + 1).find(|n| self.flights.iter().all(|f| f.id.get() != *n));
                let flight =
                    Flight { id: id(free.expect("one is free")), number: self.next, received: false };
                wire.push(&Packet::Publish(self.packet(&flight)));
                self.flights.push_back(flight);
                self.next += 1;
            }
            if cycle.burst == 0 && self.flights.is_empty() {
                wire.leave().await;
                return Some(());
            }
            wire.flush().await?;
            let mut next = Some(wire.next().await?);
            while let Some(packet) = next {
                self.take(packet, &mut wire);
                next = wire.ready();
            }
        }
    }

    fn packet(&self, flight: &Flight) -> Publish {
        publish(&self.topic, payload(&self.topic, flight.number), self.qos, Some(flight.id))
    }

    fn take(&mut self, packet: Packet, wire: &mut Wire) {
        match (self.qos, packet) {
            (Qos::AtLeastOnce, Packet::Puback(answer)) | (Qos::ExactlyOnce, Packet::Pubcomp(answer)) => {
                // MQTT 5: an id that the server released before it was killed is not known any more.
                let known = answer.reason == reason::SUCCESS
                    || self.qos == Qos::ExactlyOnce && answer.reason == reason::PACKET_IDENTIFIER_NOT_FOUND;
                assert!(known, "{}: {answer:?}", self.name);
                let at = self.flights.iter().position(|flight| flight.id == answer.packet_id);
                let flight = at.and_then(|at| self.flights.remove(at)).expect("an answer to what was sent");
                assert!(self.qos == Qos::AtLeastOnce || flight.received, "PUBCOMP before PUBREC");
                self.done.insert(flight.number);
            }
            (Qos::ExactlyOnce, Packet::Pubrec(answer)) => {
                assert_eq!(answer.reason, reason::SUCCESS, "{}: {answer:?}", self.name);
                let flight = self.flights.iter_mut().find(|flight| flight.id == answer.packet_id);
                flight.expect("an answer to what was sent").received = true;
                wire.push(&Packet::Pubrel(ack(answer.packet_id)));
            }
            (_, other) => panic!("{} was sent {other:?}", self.name),
        }
    }

    /// Whether the log, as the numbers in it, holds what the ledger says.
    pub(crate) fn check_log(&self, log: &[Bytes]) {
        let numbers: Vec<u64> = log.iter().map(|bytes| number_of(&self.topic, bytes)).collect();
        assert_eq!(self.done.len() as u64, self.next, "{}: not all was acknowledged", self.topic);
        if self.qos == Qos::ExactlyOnce {
            let expected: Vec<u64> = (0..self.next).collect();
            assert_eq!(numbers, expected, "{}: lost, doubled or moved", self.topic);
        }
        let mut next = 0;
        for number in numbers {
            assert!(number <= next, "{}: {number} where {next} is missing", self.topic);
            next = next.max(number + 1);
        }
        assert_eq!(next, self.next, "{}: the end is lost", self.topic);
    }
}

pub(crate) struct Subscriber {
    name: String,
    level: Level,
    qos: Qos,
    random: Random,
    known: bool,
    /// QoS 2: ids between PUBLISH and PUBREL, with what they stand for.
    received: HashMap<PacketId, (String, u64)>,
    /// The next number of each topic that was not seen.
    next: HashMap<String, u64>,
    /// QoS 1: came, and no PUBACK was sent yet.
    owed: Vec<PacketId>,
    /// All that came, doubles included.
    pub(crate) came: usize,
    /// Topics and how many messages they will have, when that is known.
    goal: HashMap<String, u64>,
}

impl Subscriber {
    pub(crate) fn new(n: usize, level: Level, qos: Qos, seed: u64) -> Self {
        Self {
            name: format!("sub-{n}"),
            level,
            qos,
            random: Random::new(seed.wrapping_add(100 + n as u64)),
            known: false,
            received: HashMap::new(),
            next: HashMap::new(),
            owed: Vec::new(),
            came: 0,
            goal: HashMap::new(),
        }
    }

    /// Subscribes, once.
    pub(crate) async fn start(mut self, server: SocketAddr) -> Self {
        let cycle = Cycle { server, burst: 0, killed: Arc::default() };
        let wire = reconnect(&cycle, self.level, &self.name, &mut self.known).await;
        let mut wire = wire.expect("a server that is not killed");
        assert_eq!(wire.subscribe(FILTER, self.qos).await, Some(self.qos as u8));
        wire.leave().await;
        self
    }

    /// From now on it reads until it has this much of each topic.
    pub(crate) fn set_goal(&mut self, goal: &HashMap<String, u64>) {
        self.goal.clone_from(goal);
    }

    fn is_done(&self) -> bool {
        !self.goal.is_empty() && self.received.is_empty() && self.next == self.goal
    }

    /// Reads until the server is gone, or the goal is reached.
    pub(crate) async fn run(mut self, cycle: Cycle) -> Self {
        if let Some(wire) = reconnect(&cycle, self.level, &self.name, &mut self.known).await {
            self.owed.clear();
            if self.talk(wire).await.is_none() {
                cycle.lost(&self.name);
            }
        }
        self
    }

    async fn talk(&mut self, mut wire: Wire) -> Option<()> {
        // Of one connection: an id stands for one message until it is acknowledged.
        let mut ids = HashSet::new();
        while !self.is_done() {
            let mut next = Some(wire.next().await?);
            while let Some(packet) = next {
                self.take(packet, &mut wire, &mut ids);
                next = wire.ready();
            }
            let last = !self.goal.is_empty();
            // Out of order is legal at QoS 1; what is held back here is lost with the connection.
            if last || self.owed.len() > 5 || self.random.below(3) > 0 {
                for id in self.owed.drain(..).rev() {
                    ids.remove(&id);
                    wire.push(&Packet::Puback(ack(id)));
                }
            }
            if last || self.random.below(4) > 0 {
                wire.flush().await?;
            }
        }
        // No message of QoS 2 comes behind the last one. PUBREL may: the PUBCOMP of before the kill was lost.
        wire.push(&Packet::Pingreq);
        wire.flush().await?;
        loop {
            match wire.next().await? {
                Packet::Pingresp => break,
                Packet::Publish(message) if message.qos == Qos::AtLeastOnce => {
                    self.take(Packet::Publish(message), &mut wire, &mut ids);
                }
                Packet::Pubrel(release) => self.take(Packet::Pubrel(release), &mut wire, &mut ids),
                other => panic!("{}: {other:?} after the end", self.name),
            }
        }
        wire.leave().await;
        Some(())
    }

    fn take(&mut self, packet: Packet, wire: &mut Wire, ids: &mut HashSet<PacketId>) {
        match packet {
            Packet::Publish(message) => {
                self.came += 1;
                let topic = message.topic.as_str();
                let number = number_of(topic, &message.payload);
                let id = message.packet_id.expect("no message here has QoS 0");
                let exactly = self.qos == Qos::ExactlyOnce && topic.starts_with("ledger/2/");
                assert_eq!(message.qos, if exactly { Qos::ExactlyOnce } else { Qos::AtLeastOnce });
                if !exactly {
                    assert!(ids.insert(id), "{}: {id} stands for two messages", self.name);
                    self.saw(topic, number, false);
                    self.owed.push(id);
                    return;
                }
                let this = (topic.to_owned(), number);
                match self.received.get(&id) {
                    Some(earlier) => assert_eq!(*earlier, this, "{}: {id} stands for two", self.name),
                    None => {
                        self.saw(topic, number, true);
                        self.received.insert(id, this);
                    }
                }
                wire.push(&Packet::Pubrec(ack(id)));
            }
            Packet::Pubrel(release) => {
                self.received.remove(&release.packet_id);
                wire.push(&Packet::Pubcomp(ack(release.packet_id)));
            }
            other => panic!("{} was sent {other:?}", self.name),
        }
    }

    fn saw(&mut self, topic: &str, number: u64, once: bool) {
        let next = self.next.entry(topic.to_owned()).or_default();
        if once {
            assert_eq!(number, *next, "{}: lost or doubled on {topic}", self.name);
        }
        assert!(number <= *next, "{}: {number} where {next} is missing on {topic}", self.name);
        *next = (*next).max(number + 1);
    }
}
