//! Tables in memory: for tests, and for trying things out. A backup is one file, which opens again.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use crate::Direction;
use crate::kv::{Batch, Kv, KvError, Op, Table, Visit};

const SNAPSHOT: &str = "snapshot";
const MAGIC: &[u8; 8] = b"feedmem1";

/// The tables.
pub(crate) type Tables = BTreeMap<(Table, Vec<u8>), Bytes>;

/// Tables in memory; nothing survives the process but what a backup holds.
#[derive(Debug, Default)]
pub(crate) struct MemKv {
    tables: RwLock<Tables>,
}

impl MemKv {
    /// Empty tables, or those of a backup in `dir`.
    pub(crate) fn open(dir: Option<&Path>) -> Result<Self, KvError> {
        let Some(dir) = dir else { return Ok(Self::default()) };
        match std::fs::read(dir.join(SNAPSHOT)) {
            Ok(bytes) => {
                let tables =
                    load(&bytes).ok_or_else(|| KvError::Damaged("the snapshot is damaged".into()))?;
                Ok(Self::with(tables))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(refused(&error)),
        }
    }

    pub(crate) fn with(tables: Tables) -> Self {
        Self { tables: RwLock::new(tables) }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn into_tables(self) -> Tables {
        self.tables.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the changes visible.
    pub(crate) fn apply(&self, batch: &Batch) {
        apply(&mut self.tables.write().unwrap_or_else(PoisonError::into_inner), batch);
    }
}

/// Changes tables as a batch says.
pub(crate) fn apply(tables: &mut Tables, batch: &Batch) {
    for op in batch.ops() {
        match op {
            Op::Put(table, key, value) => {
                tables.insert((*table, key.clone()), value.clone());
            }
            Op::Delete(table, key) => {
                tables.remove(&(*table, key.clone()));
            }
            Op::DeleteRange(table, from, to) => {
                let range = (*table, from.clone())..(*table, to.clone());
                let keys: Vec<_> = tables.range(range).map(|(key, _)| key.clone()).collect();
                keys.iter().for_each(|key| {
                    tables.remove(key);
                });
            }
        }
    }
}

impl Kv for MemKv {
    fn write(&self, batch: &Batch) -> Result<(), KvError> {
        self.apply(batch);
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        Ok(tables.get(&(table, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), KvError> {
        if from >= to {
            return Ok(());
        }
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let bounds = (Bound::Included((table, from.to_vec())), Bound::Excluded((table, to.to_vec())));
        let mut range = tables.range(bounds);
        loop {
            let next = match direction {
                Direction::Forward => range.next(),
                Direction::Backward => range.next_back(),
            };
            match next {
                Some(((_, key), value)) => {
                    if visit(key, value) == ControlFlow::Break(()) {
                        return Ok(());
                    }
                }
                None => return Ok(()),
            }
        }
    }

    fn backup(&self, dir: &Path) -> Result<(), KvError> {
        std::fs::create_dir(dir).map_err(|error| refused(&error))?;
        // A copy of handles, not of bytes: writes go on while the file is written.
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner).clone();
        save(&tables, dir).map_err(|error| refused(&error))
    }

    fn check(&self, progress: &mut dyn FnMut(u64)) -> Result<(), KvError> {
        progress(0);
        Ok(())
    }

    fn close(&self) -> Result<(), KvError> {
        Ok(())
    }
}

fn refused(error: &io::Error) -> KvError {
    KvError::Refused(Arc::from(error.to_string()))
}

fn save(tables: &Tables, dir: &Path) -> io::Result<()> {
    let file = std::fs::File::create(dir.join(SNAPSHOT))?;
    let mut out = io::BufWriter::new(file);
    let mut crc = crc32fast::Hasher::new();
    let mut put = |bytes: &[u8]| {
        crc.update(bytes);
        out.write_all(bytes)
    };
    put(MAGIC)?;
    for ((table, key), value) in tables {
        put(&[*table as u8])?;
        put(&(key.len() as u32).to_le_bytes())?;
        put(&(value.len() as u32).to_le_bytes())?;
        put(key)?;
        put(value)?;
    }
    let crc = crc.finalize();
    out.write_all(&crc.to_le_bytes())?;
    out.into_inner()?.sync_all()?;
    crate::dir::sync_dir(dir)
}

fn load(bytes: &[u8]) -> Option<Tables> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut tables = Tables::new();
    while let Some((&number, after)) = rest.split_first() {
        let table = Table::ALL.into_iter().find(|table| *table as u8 == number)?;
        let (key_len, after) = after.split_first_chunk::<4>()?;
        let (value_len, after) = after.split_first_chunk::<4>()?;
        let (key, after) = after.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
        let (value, after) = after.split_at_checked(u32::from_le_bytes(*value_len) as usize)?;
        tables.insert((table, key.to_vec()), Bytes::copy_from_slice(value));
        rest = after;
    }
    Some(tables)
}
