//! A simulated disk on which everything can fail: for tests here and above.
//!
//! The disk keeps a write-ahead log of checksummed batches. A write appends its batch and syncs; a crash keeps what was
//! synced and any part of the rest; recovery replays whole records and stops at the first that is not, as engines do.
//! Faults are asked for by the number of the write that meets them, so a run repeats exactly.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::dir::DataDir;
use crate::format::Upcasters;
use crate::kv::{Batch, Kv, KvError, Op, Table, Visit};
use crate::layout::Steps;
use crate::log::{LogEngine, LogOptions, Openers};
use crate::mem::{MemKv, Tables, apply};
use crate::{Direction, EngineKind, LAYOUT_VERSION, OpenError, OpenOptions, Store};

/// What a write meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The engine does not take it; nothing is written, the store goes on.
    Refused,
    /// The disk is full after so many bytes of the record: 0 keeps nothing, a large number all of it, unsynced.
    Full(usize),
    /// The record is appended whole, its sync fails with EIO.
    SyncFails,
    /// A part of the record is appended (at most so many bytes), the write fails with EIO.
    Torn(usize),
    /// The disk says it has synced and has not: lost in a crash although acknowledged.
    Lied,
}

/// A disk that outlives the engines opened on it. Cheap to clone.
#[derive(Clone, Default)]
pub struct FaultyDisk(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Default)]
struct State {
    /// What a backup brought; never lost.
    base: Tables,
    log: Vec<u8>,
    synced: usize,
    /// Writes since the disk was made.
    writes: u64,
    faults: BTreeMap<u64, Fault>,
    /// Writes wait.
    held: bool,
    waiting: usize,
    /// Engines of an earlier epoch are dead.
    epoch: u64,
}

impl FaultyDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the store on this disk; `options.dir` may name a directory for lock, FORMAT and tail guard.
    pub fn open(&self, options: &OpenOptions) -> Result<Store, OpenError> {
        let dir = options
            .dir
            .as_deref()
            .map(|dir| DataDir::open(dir, EngineKind::Memory, LAYOUT_VERSION))
            .transpose()?;
        let log = LogOptions {
            node: options.node,
            free_min_bytes: options.free_min_bytes,
            accept_loss: options.accept_loss,
            is_guarded: true,
            feeds_cached_max: options.feeds_cached_max,
        };
        if let Some(dir) = &dir {
            self.load_backup(&dir.tables())?;
        }
        let disk = self.clone();
        let openers = Openers {
            tables: Box::new(move || disk.recover()),
            scratch: Box::new(|_| FaultyDisk::new().recover()),
        };
        let steps = Steps { steps: &[], engine: EngineKind::Memory };
        Ok(Store::of(LogEngine::open(openers, dir, log, Upcasters::default(), &steps)?))
    }

    /// The next write meets this fault.
    pub fn fail_next(&self, fault: Fault) {
        let mut state = self.state();
        let next = state.writes;
        state.faults.insert(next, fault);
    }

    /// The write of this number (from 0, over the life of the disk) meets this fault.
    pub fn fail_at(&self, write: u64, fault: Fault) {
        self.state().faults.insert(write, fault);
    }

    /// Writes so far.
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    /// From now on writes wait until [`Self::release`].
    pub fn hold(&self) {
        self.state().held = true;
    }

    /// Lets waiting writes go on.
    pub fn release(&self) {
        self.state().held = false;
        self.0.released.notify_all();
    }

    /// Waits until a write is held.
    pub fn wait_for_held(&self) {
        let mut state = self.state();
        while state.waiting == 0 {
            state = self.0.released.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The power fails: engines on this disk are dead, what was not synced is lost but for `kept` bytes of it.
    pub fn crash(&self, kept: usize) {
        let mut state = self.state();
        let unsynced = state.log.len() - state.synced;
        let len = state.synced + kept.min(unsynced);
        state.log.truncate(len);
        state.synced = len;
        state.epoch += 1;
        state.held = false;
        state.faults.clear();
        drop(state);
        self.0.released.notify_all();
    }

    /// Bytes that a crash may lose.
    pub fn unsynced(&self) -> usize {
        let state = self.state();
        state.log.len() - state.synced
    }

    /// Bytes of the log.
    pub fn len(&self) -> usize {
        self.state().log.len()
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Flips one bit of the log.
    pub fn flip(&self, bit: usize) {
        let mut state = self.state();
        let len = state.log.len();
        state.log[bit / 8 % len] ^= 1 << (bit % 8);
    }

    /// Another disk with the same bytes.
    pub fn image(&self) -> Self {
        let state = self.state();
        let copy = Self::new();
        {
            let mut into = copy.state();
            into.base = state.base.clone();
            into.log = state.log.clone();
            into.synced = state.synced;
        }
        copy
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new disk on a directory that is a backup begins with what the backup holds.
    fn load_backup(&self, tables: &Path) -> Result<(), KvError> {
        let mut state = self.state();
        if state.log.is_empty() && state.base.is_empty() {
            state.base = MemKv::open(Some(tables))?.into_tables();
        }
        Ok(())
    }

    /// Replays whole records; what follows the first that is not whole is cut off.
    fn recover(&self) -> Result<FaultyKv, KvError> {
        let mut state = self.state();
        let mut tables = state.base.clone();
        let mut at = 0;
        while let Some((batch, end)) = parse_record(&state.log, at) {
            apply(&mut tables, &batch);
            at = end;
        }
        state.log.truncate(at);
        state.synced = at;
        Ok(FaultyKv { disk: self.clone(), epoch: state.epoch, tables: MemKv::with(tables) })
    }
}

impl std::fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state();
        f.debug_struct("FaultyDisk")
            .field("bytes", &state.log.len())
            .field("synced", &state.synced)
            .field("writes", &state.writes)
            .finish_non_exhaustive()
    }
}

struct FaultyKv {
    disk: FaultyDisk,
    epoch: u64,
    tables: MemKv,
}

impl FaultyKv {
    fn check_alive(&self, state: &State) -> Result<(), KvError> {
        if state.epoch == self.epoch { Ok(()) } else { Err(KvError::Unknown("the power failed".into())) }
    }
}

impl Kv for FaultyKv {
    fn write(&self, batch: &Batch) -> Result<(), KvError> {
        let mut state = self.disk.state();
        state.waiting += 1;
        self.disk.0.released.notify_all();
        while state.held && state.epoch == self.epoch {
            state = self.disk.0.released.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        self.check_alive(&state)?;
        let number = state.writes;
        state.writes += 1;
        let record = encode_record(batch);
        let fault = state.faults.remove(&number);
        let (kept, result) = match fault {
            None | Some(Fault::Lied) => (record.len(), Ok(())),
            Some(Fault::Refused) => (0, Err(KvError::Refused("injected".into()))),
            Some(Fault::Full(bytes)) => (bytes.min(record.len()), Err(KvError::Full("injected".into()))),
            Some(Fault::SyncFails) => (record.len(), Err(KvError::Unknown("injected".into()))),
            Some(Fault::Torn(bytes)) => {
                (bytes.min(record.len() - 1), Err(KvError::Unknown("injected".into())))
            }
        };
        state.log.extend_from_slice(&record[..kept]);
        if result.is_ok() {
            if fault.is_none() {
                state.synced = state.log.len();
            }
            self.tables.apply(batch);
        }
        result
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.check_alive(&self.disk.state())?;
        self.tables.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), KvError> {
        self.check_alive(&self.disk.state())?;
        self.tables.scan(table, from, to, direction, visit)
    }

    fn backup(&self, dir: &Path) -> Result<(), KvError> {
        self.tables.backup(dir)
    }

    fn check(&self, progress: &mut dyn FnMut(u64)) -> Result<(), KvError> {
        let state = self.disk.state();
        let mut at = 0;
        while let Some((_, end)) = parse_record(&state.log, at) {
            at = end;
            progress(at as u64);
        }
        if at == state.log.len() {
            Ok(())
        } else {
            Err(KvError::Damaged(Arc::from(format!("the log at byte {at}"))))
        }
    }

    fn close(&self) -> Result<(), KvError> {
        Ok(())
    }
}

/// Length, checksum, operations.
fn encode_record(batch: &Batch) -> Vec<u8> {
    let mut body = Vec::new();
    let mut field = |bytes: &[u8]| {
        body.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        body.extend_from_slice(bytes);
    };
    for op in batch.ops() {
        match op {
            Op::Put(table, key, value) => {
                field(&[1, *table as u8]);
                field(key);
                field(value);
            }
            Op::Delete(table, key) => {
                field(&[2, *table as u8]);
                field(key);
                field(&[]);
            }
            Op::DeleteRange(table, from, to) => {
                field(&[3, *table as u8]);
                field(from);
                field(to);
            }
        }
    }
    let mut record = (body.len() as u32).to_le_bytes().to_vec();
    record.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    record.extend_from_slice(&body);
    record
}

/// The record at `at` and where it ends; `None` when none is whole there.
fn parse_record(log: &[u8], at: usize) -> Option<(Batch, usize)> {
    fn field<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (field, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        *bytes = rest;
        Some(field)
    }
    let (len, rest) = log.get(at..)?.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let mut body = rest.get(..u32::from_le_bytes(*len) as usize)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let end = at + 8 + body.len();
    let mut batch = Batch::default();
    while !body.is_empty() {
        let (head, first, second) = (field(&mut body)?, field(&mut body)?, field(&mut body)?);
        let table = Table::ALL.into_iter().find(|table| Some(&(*table as u8)) == head.get(1))?;
        match head.first()? {
            1 => batch.put(table, first.to_vec(), second.to_vec()),
            2 => batch.delete(table, first.to_vec()),
            _ => batch.delete_range(table, first.to_vec(), second.to_vec()),
        }
    }
    Some((batch, end))
}

/// Options of a store on a [`FaultyDisk`] with lock, FORMAT and tail guard in `dir`.
pub fn options_in(dir: impl Into<PathBuf>) -> OpenOptions {
    OpenOptions { dir: Some(dir.into()), ..OpenOptions::default() }
}
