//! Lives of connections from bytes: the corpus of the fuzz target, and random ones.

use std::path::Path;

use bytes::BytesMut;

use super::super::machine::fuzz::play;
use super::super::wire::{Level, Packet, Qos, Subscribe, encode};
use super::world::{ack, id, options, publish, text};

/// Lives that each random run tries.
const LIVES: u64 = 20_000;
const SEED: u64 = 20_261_120;

/// A small generator, so that a run repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn packets(level: Level) -> Vec<Packet> {
    let filter = |name: &str, qos| {
        let properties = Default::default();
        Packet::Subscribe(Subscribe {
            packet_id: id(9),
            properties,
            filters: vec![(text(name), options(qos))],
        })
    };
    let mut packets = vec![
        Packet::Publish(publish("a", "x", Qos::AtMostOnce, 0)),
        Packet::Publish(publish("a", "x", Qos::AtLeastOnce, 1)),
        Packet::Publish(publish("a/b", "x", Qos::ExactlyOnce, 2)),
        Packet::Publish(publish("im://modulus/unread?msg_id=1", "{}", Qos::AtLeastOnce, 3)),
        Packet::Publish(publish("feeds/a", "{\"payload\":1}", Qos::AtLeastOnce, 4)),
        filter("#", Qos::ExactlyOnce),
        filter("a/+", Qos::AtLeastOnce),
        filter("feeds/a%2Fb", Qos::AtLeastOnce),
        Packet::Pingreq,
    ];
    for number in 1..=4 {
        let one = || ack(id(number));
        packets.extend([
            Packet::Puback(one()),
            Packet::Pubrec(one()),
            Packet::Pubrel(one()),
            Packet::Pubcomp(one()),
        ]);
    }
    if level == Level::V5 {
        packets.push(Packet::Disconnect(super::super::wire::Disconnect {
            reason: 4,
            properties: Default::default(),
        }));
    }
    packets
}

fn life(random: &mut Random) -> Vec<u8> {
    let first = random.next() as u8;
    let level = [Level::V311, Level::V31, Level::V311, Level::V5][usize::from(first & 3)];
    let packets = packets(level);
    let mut life = vec![first];
    for _ in 0..random.below(24) {
        if random.below(3) > 0 {
            let mut bytes = BytesMut::new();
            let packet = &packets[random.below(packets.len() as u64) as usize];
            encode::packet(level, packet, &mut bytes);
            if random.below(40) == 0 {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.next() as u8;
            }
            life.extend([0, bytes.len() as u8]);
            life.extend(bytes);
        } else {
            life.extend([random.below(8) as u8, random.next() as u8]);
        }
    }
    life
}

#[test]
fn whatever_happens_a_connection_keeps_its_rules() {
    println!("seed {SEED}");
    let mut random = Random(SEED);
    for number in 0..LIVES {
        let life = life(&mut random);
        let played = std::panic::catch_unwind(|| play(&life));
        assert!(played.is_ok(), "life {number}: {life:?}");
    }
}

#[test]
fn the_corpus_of_lives_is_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/mqtt_machine");
    let mut files = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        play(&std::fs::read(file.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= 5);
}

#[test]
#[ignore = "writes into the repository"]
fn write_the_seeds_of_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/mqtt_machine");
    std::fs::create_dir_all(&folder).unwrap();
    let mut random = Random(1);
    for number in 0..12 {
        std::fs::write(folder.join(format!("life_{number}")), life(&mut random)).unwrap();
    }
}
