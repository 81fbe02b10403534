//! The limit that `bench append` is held against: a bare preallocated append file with group-committed `fdatasync`.
//!
//! It keeps no order per feed, no index, no dedup and checks nothing: what it does is the least any durable log must
//! do. Clients reach it the way they reach the store: an asynchronous task sends a record over a bounded channel to one
//! writing thread and waits for its answer.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

/// The file is preallocated in steps of this size, so that `fdatasync` need not write metadata.
const PREALLOCATE_BYTES: u64 = 256 << 20;
/// Most records written by one `fdatasync`.
const BATCH_RECORDS_MAX: usize = 4096;
/// Room for commands that wait.
const QUEUE_RECORDS: usize = 4096;

struct Append {
    record: Box<[u8]>,
    done: oneshot::Sender<io::Result<()>>,
}

/// A handle on the writing thread. Cheap to clone; the thread ends with the last handle.
#[derive(Clone)]
pub(super) struct Yardstick {
    queue: mpsc::Sender<Append>,
}

/// What the writing thread saw.
pub(super) struct YardstickReport {
    /// Duration of every `fdatasync`.
    pub syncs: Vec<Duration>,
}

impl Yardstick {
    /// Creates the file and starts its thread.
    pub(super) fn start(
        path: &Path,
    ) -> io::Result<(Self, std::thread::JoinHandle<io::Result<YardstickReport>>)> {
        let file = OpenOptions::new().create_new(true).write(true).open(path)?;
        let (queue, receiver) = mpsc::channel(QUEUE_RECORDS);
        let thread =
            std::thread::Builder::new().name("yardstick".into()).spawn(move || run(file, receiver))?;
        Ok((Self { queue }, thread))
    }

    /// Appends a record. **On `Ok` it is durable.**
    pub(super) async fn append(&self, record: Box<[u8]>) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        let stopped = || io::Error::other("the writing thread stopped");
        self.queue.send(Append { record, done }).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

fn run(mut file: File, mut queue: mpsc::Receiver<Append>) -> io::Result<YardstickReport> {
    let mut report = YardstickReport { syncs: Vec::new() };
    let mut waiting = Vec::with_capacity(BATCH_RECORDS_MAX);
    let mut batch = Vec::new();
    let (mut written, mut allocated) = (0_u64, 0_u64);
    while queue.blocking_recv_many(&mut waiting, BATCH_RECORDS_MAX) > 0 {
        batch.clear();
        for append in &waiting {
            batch.extend_from_slice(&(append.record.len() as u32).to_be_bytes());
            batch.extend_from_slice(&append.record);
        }
        if written + batch.len() as u64 > allocated {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), allocated, PREALLOCATE_BYTES)?;
            file.sync_all()?;
            allocated += PREALLOCATE_BYTES;
        }
        file.write_all(&batch)?;
        let start = Instant::now();
        file.sync_data()?;
        report.syncs.push(start.elapsed());
        written += batch.len() as u64;
        for append in waiting.drain(..) {
            // A client that stopped waiting needs no answer.
            let _ = append.done.send(Ok(()));
        }
    }
    Ok(report)
}
