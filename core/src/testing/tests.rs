//! Unread, unreplied, history and every row against a naive oracle over random operations (P5–P9, I-1, I-5, I-6, I-7).
//!
//! `FEEDLOG_SEED` repeats a run, `FEEDLOG_OPERATIONS` sets its length.

use crate::feed::Settings;
use crate::testing::{CoreSystem, Options, Played, run};

const OPERATIONS_DEFAULT: u64 = 100_000;
const OPERATIONS_PER_WORLD: u64 = 2_500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number in the environment"))
}

fn play(refuse_percent: u64, salt: u64) {
    let seed = number("FEEDLOG_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64)
    });
    let operations = number("FEEDLOG_OPERATIONS").unwrap_or(OPERATIONS_DEFAULT);
    eprintln!("FEEDLOG_SEED={seed} ({operations} operations)");
    let settings = Settings { recall_window_ms: 5_000, edit_window_ms: 5_000, ..Settings::default() };
    let worlds = operations.div_ceil(OPERATIONS_PER_WORLD);
    let mut total = Played::default();
    for world in 0..worlds {
        let seed = seed.wrapping_add(world * 2 + salt);
        let mut system = CoreSystem::new(settings, seed, refuse_percent);
        let options = Options {
            seed,
            operations: OPERATIONS_PER_WORLD.min(operations),
            prefix: String::new(),
            refusing: refuse_percent > 0,
        };
        let played = run(&mut system, &options);
        total.appended += played.appended;
        total.repeated += played.repeated;
        total.refused += played.refused;
        total.entries += played.entries;
        total.longest = total.longest.max(played.longest);
    }
    eprintln!("{operations} operations: {total:?}");
    // A run that mostly refuses, or never fills a block of counted sets, proves little.
    assert!(total.appended > operations / 3, "{total:?}");
}

#[test]
fn the_core_agrees_with_the_oracle() {
    play(0, 0);
}

#[test]
fn the_core_agrees_with_the_oracle_while_groups_are_refused() {
    play(3, 1);
}
