//! The tail guard: the number of the newest durable commit, in a file of its own.
//!
//! Recovery that stops at a damaged WAL record leaves every feed dense but shorter. So the newest `commit_no` is also
//! kept here, and a store that recovers a lower number does not open.
//!
//! The file has two places of 512 bytes that are written in turn, so that a torn write leaves the other whole:
//! magic (8), node u16, commit_no u64, CRC-32, all big-endian.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::OpenError;
use crate::dir::{sync_dir, write_atomically};

const NAME: &str = "TAIL";
const MAGIC: &[u8; 8] = b"feedtail";
const SLOT_BYTES: usize = 512;
/// Shortest time between two syncs of the file.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Writes the guard from a thread of its own, off the commit path.
pub(crate) struct TailGuard {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    node: u16,
    file: File,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Newest durable commit.
    commit_no: u64,
    /// Newest one in the file.
    written: u64,
    slot: usize,
    closed: bool,
}

impl TailGuard {
    /// Compares the guard with what the engine recovered, and starts the thread.
    pub(crate) fn open(dir: &Path, node: u16, recovered: u64, accept_loss: bool) -> Result<Self, OpenError> {
        let path = dir.join(NAME);
        let failed = |source| OpenError::Io { path: path.clone(), source };
        let guarded = match std::fs::read(&path) {
            Ok(bytes) => newest(&bytes, node),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Only a store without a commit can be without a guard.
                (recovered == 0).then_some(0)
            }
            Err(source) => return Err(failed(source)),
        };
        match guarded {
            Some(guarded) if guarded <= recovered => {}
            _ if accept_loss => {
                tracing::warn!(recovered, guarded, "the loss of the newest commits was accepted");
            }
            Some(guarded) => return Err(OpenError::TailLost { recovered, guarded }),
            None => return Err(OpenError::GuardDamaged { recovered }),
        }
        Self::write_new(dir, node, recovered).map_err(failed)?;
        let file = File::options().write(true).open(&path).map_err(failed)?;
        let shared = Arc::new(Shared {
            node,
            file,
            state: Mutex::new(State { commit_no: recovered, written: recovered, slot: 0, closed: false }),
            changed: Condvar::new(),
        });
        let worker = shared.clone();
        let thread = std::thread::Builder::new()
            .name("tail-guard".into())
            .spawn(move || worker.run())
            .map_err(failed)?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// A new guard file, durable on return.
    pub(crate) fn write_new(dir: &Path, node: u16, commit_no: u64) -> io::Result<()> {
        let mut bytes = vec![0; 2 * SLOT_BYTES];
        bytes[..SLOT_BYTES].copy_from_slice(&slot(node, commit_no));
        bytes[SLOT_BYTES..].copy_from_slice(&slot(node, commit_no));
        write_atomically(dir, NAME, &bytes)?;
        sync_dir(dir)
    }

    /// A commit is durable. Returns at once.
    pub(crate) fn note(&self, commit_no: u64) {
        let mut state = self.shared.state();
        let may_sleep = state.commit_no == state.written;
        state.commit_no = commit_no;
        if may_sleep {
            self.shared.changed.notify_one();
        }
    }

    /// Writes what is newest and ends the thread.
    pub(crate) fn close(&self) {
        self.shared.state().closed = true;
        self.shared.changed.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A guard thread that panicked has nothing left to write.
            let _ = thread.join();
        }
    }
}

impl Drop for TailGuard {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes at once after a quiet time, then at most once a second.
    fn run(&self) {
        let mut state = self.state();
        loop {
            while state.commit_no == state.written && !state.closed {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let (commit_no, slot_no, closed) = (state.commit_no, state.slot, state.closed);
            if commit_no != state.written {
                drop(state);
                let written = self.write(slot_no, commit_no);
                state = self.state();
                match written {
                    Ok(()) => {
                        state.written = commit_no;
                        state.slot = 1 - slot_no;
                    }
                    // The guard is a second line: the commit itself is durable. Tried again within a second.
                    Err(error) => tracing::warn!(%error, "the tail guard could not be written"),
                }
            }
            if closed {
                return;
            }
            let until = Instant::now() + SYNC_INTERVAL;
            while !state.closed
                && let Some(left) = until.checked_duration_since(Instant::now())
            {
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn write(&self, slot_no: usize, commit_no: u64) -> io::Result<()> {
        self.file.write_all_at(&slot(self.node, commit_no), (slot_no * SLOT_BYTES) as u64)?;
        self.file.sync_data()
    }
}

fn slot(node: u16, commit_no: u64) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..10].copy_from_slice(&node.to_be_bytes());
    bytes[10..18].copy_from_slice(&commit_no.to_be_bytes());
    let crc = crc32fast::hash(&bytes[..18]);
    bytes[18..22].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The newest whole slot of this node.
fn newest(bytes: &[u8], node: u16) -> Option<u64> {
    bytes
        .chunks_exact(SLOT_BYTES)
        .filter_map(|bytes| {
            let commit_no = u64::from_be_bytes(bytes[10..18].try_into().ok()?);
            (bytes == slot(node, commit_no)).then_some(commit_no)
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, recovered: u64, accept_loss: bool) -> Result<TailGuard, OpenError> {
        TailGuard::open(dir, 3, recovered, accept_loss)
    }

    #[test]
    fn a_lower_number_is_refused_with_both_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let guard = open(dir.path(), 0, false).unwrap();
        (1..=7).for_each(|commit_no| guard.note(commit_no));
        drop(guard);
        open(dir.path(), 7, false).unwrap();
        open(dir.path(), 9, false).unwrap();
        match open(dir.path(), 8, false) {
            Err(OpenError::TailLost { recovered: 8, guarded: 9 }) => {}
            other => panic!("{:?}", other.map(|_| ())),
        }
        open(dir.path(), 8, true).unwrap();
        open(dir.path(), 8, false).unwrap();
    }

    #[test]
    fn a_torn_slot_leaves_the_other() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), 0, false).unwrap());
        let path = dir.path().join(NAME);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[SLOT_BYTES..].copy_from_slice(&slot(3, 5));
        bytes[3] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(open(dir.path(), 4, false), Err(OpenError::TailLost { recovered: 4, guarded: 5 })));
        bytes[SLOT_BYTES + 17] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(open(dir.path(), 4, false), Err(OpenError::GuardDamaged { recovered: 4 })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(open(dir.path(), 4, false), Err(OpenError::GuardDamaged { recovered: 4 })));
    }

    #[test]
    fn a_commit_after_a_quiet_time_is_guarded_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let guard = open(dir.path(), 0, false).unwrap();
        guard.note(1);
        let deadline = Instant::now() + Duration::from_secs(10);
        while newest(&std::fs::read(dir.path().join(NAME)).unwrap(), 3) != Some(1) {
            assert!(Instant::now() < deadline, "the guard was not written");
            std::thread::yield_now();
        }
    }
}
