//! The corpus of the fuzz targets, replayed.

use std::path::Path;

use super::generate::{self, Random, bytes};
use super::samples::{LEVELS, connects, packets};
use crate::mqtt::wire::{Level, Role, fuzz};

/// Each target in `fuzz/fuzz_targets`, which has a folder of its name in `fuzz/corpus`.
const TARGETS: [(&str, Role, Option<Level>); 7] = [
    ("mqtt_connect", Role::Server, None),
    ("mqtt_server_v31", Role::Server, Some(Level::V31)),
    ("mqtt_server_v311", Role::Server, Some(Level::V311)),
    ("mqtt_server_v5", Role::Server, Some(Level::V5)),
    ("mqtt_client_v31", Role::Client, Some(Level::V31)),
    ("mqtt_client_v311", Role::Client, Some(Level::V311)),
    ("mqtt_client_v5", Role::Client, Some(Level::V5)),
];

#[test]
fn w94_the_corpus_of_the_fuzz_targets_is_replayed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (target, role, level) in TARGETS {
        let mut files = 0;
        for entry in std::fs::read_dir(corpus.join(target)).expect("a folder of each target") {
            let data = std::fs::read(entry.unwrap().path()).unwrap();
            fuzz::decode(role, level, &data);
            files += 1;
        }
        assert!(files >= 5, "{target} has a corpus");
    }
}

/// Writes the seeds of the corpus anew: samples, random streams, and streams with damage. What a fuzzer found since is
/// kept, as it has other names.
#[test]
#[ignore = "writes into the repository"]
fn write_the_seeds_of_the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (target, role, level) in TARGETS {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder).unwrap();
        let levels = level.map_or(LEVELS.to_vec(), |level| vec![level]);
        for level in levels {
            let samples = if target == "mqtt_connect" { connects(level) } else { packets(level, role) };
            let mut streams = vec![(
                "samples".to_owned(),
                samples.iter().flat_map(|packet| bytes(level, packet)).collect(),
            )];
            for seed in 0..6 {
                let r = &mut Random::new(seed);
                let mut stream = Vec::new();
                if target == "mqtt_connect" {
                    stream = bytes(level, &generate::connect(r, level));
                }
                for _ in 0..3 {
                    stream.extend(bytes(level, &generate::packet(r, level, role)));
                }
                streams.push((format!("stream_{seed}"), stream.clone()));
                generate::damage(r, &mut stream);
                streams.push((format!("damaged_{seed}"), stream));
            }
            for (name, stream) in streams {
                std::fs::write(folder.join(format!("{name}_{level:?}").to_lowercase()), stream).unwrap();
            }
        }
    }
}
