//! What a store survives (P2, P11): kill -9, failing syncs, full disks, damaged files. On every engine that is compiled
//! in.
//!
//! The writer that is killed is this same program, started again with [`kit::CHILD`] in its environment.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests throughout; what they print is their report

mod crash;
mod damage;
mod full_disk;
mod kit;
mod sync_errors;

/// Not a test of its own: the writer that the others start, trace and kill.
#[test]
#[ignore = "started by the other tests"]
fn writer_process() {
    if let Some(job) = kit::Job::from_env() {
        kit::write_until_killed(&job);
    }
}
