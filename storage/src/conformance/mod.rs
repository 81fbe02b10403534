//! One suite that every engine passes: the duties of [`Engine`], each as one case.
//!
//! `make` opens the store of a directory; a second call for the same directory, after `close`, must find everything.

mod author;
mod cases;
mod kit;
mod model;

use std::path::Path;

pub use author::Author;
pub use kit::{Random, carrying, created, entry, group, message, rows_group, sent, state_group, uid};

use crate::{OpenError, Store};

/// Opens the store of a directory.
pub type Make<'a> = &'a dyn Fn(&Path) -> Result<Store, OpenError>;

/// Runs every case, each in a directory of its own. Panics at the first that fails.
pub fn suite(make: Make<'_>) {
    type Case = fn(Make<'_>, &Path);
    let all: &[(&str, Case)] = &[
        ("appends and reads", cases::appends_and_reads),
        ("pages", cases::pages),
        ("moved heads", cases::moved_heads),
        ("bad groups", cases::bad_groups),
        ("several groups of one feed in one commit", cases::groups_build_on_each_other),
        ("rows and ranges", cases::rows_and_ranges),
        ("state", cases::state),
        ("names of feeds", cases::names_of_feeds),
        ("change rows", cases::changes),
        ("stripped payloads", cases::strip),
        ("proofs", cases::proofs),
        ("opened again", cases::opened_again),
        ("backup while writing", cases::backup_while_writing),
        ("readers while writing", cases::readers_while_writing),
        ("closed", cases::closed),
        ("one holder", cases::one_holder),
        ("verify and rebuild", cases::verify_and_rebuild),
        ("large values", cases::large_values),
    ];
    for (name, case) in all {
        let dir = tempfile_dir(name);
        case(make, &dir);
        std::fs::remove_dir_all(&dir).unwrap_or_else(|error| panic!("{dir:?}: {error}"));
    }
}

/// Random operations against a model in memory, with openings in between. The same seed repeats a run.
pub fn random(make: Make<'_>, seed: u64, operations: usize) {
    let dir = tempfile_dir("random");
    model::run(make, &dir, seed, operations);
    std::fs::remove_dir_all(&dir).unwrap_or_else(|error| panic!("{dir:?}: {error}"));
}

/// A new directory; left in place when the case fails, to be looked at.
fn tempfile_dir(name: &str) -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = name.replace(' ', "-");
    let dir = std::env::temp_dir().join(format!("feedlog-{name}-{}-{count}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("{dir:?}: {error}"));
    dir
}
