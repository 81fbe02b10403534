//! Rows of a front end's own: sessions, packet ids. State, not derived from any log; in the backup.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use feedlog_core::entry::Head;
use feedlog_storage::{Engine, StateKey, StateTable};

use crate::append::Appender;
use crate::error::{ReadError, SubmitError};
use crate::{Blocking, Inner, Store};

/// The rows of one front end. Cheap to clone.
#[derive(Clone)]
pub struct Shelf {
    front_end: &'static str,
    engine: Arc<dyn Engine>,
    appender: Appender,
    blocking: Blocking,
}

/// A row that is written in the same batch as the entries of a command, or not at all.
#[derive(Debug, Clone)]
pub struct ShelfWrite {
    /// Whose row.
    pub front_end: &'static str,
    /// Its key.
    pub key: Vec<u8>,
    /// What becomes of it.
    pub value: ShelfValue,
}

/// What becomes of a row.
#[derive(Debug, Clone)]
pub enum ShelfValue {
    /// It goes.
    Remove,
    /// These bytes.
    Bytes(Bytes),
    /// These bytes, then `seq_id`, `ordinal` and `time_ms` of the entry that answers the command, each a big-endian u64.
    Place(Bytes),
}

impl ShelfWrite {
    /// Bytes that wait with the command.
    pub(crate) fn size(&self) -> usize {
        let value = match &self.value {
            ShelfValue::Remove => 0,
            ShelfValue::Bytes(bytes) | ShelfValue::Place(bytes) => bytes.len(),
        };
        self.key.len() + value
    }

    /// The row as stored, once the place of the entry is known.
    pub(crate) fn at(self, place: Head) -> (StateKey, Option<Bytes>) {
        let value = match self.value {
            ShelfValue::Remove => None,
            ShelfValue::Bytes(bytes) => Some(bytes),
            ShelfValue::Place(bytes) => {
                let mut value = BytesMut::with_capacity(bytes.len() + 24);
                value.put_slice(&bytes);
                value.put_u64(place.seq.0);
                value.put_u64(place.ordinal.0);
                value.put_u64(place.time_ms);
                Some(value.freeze())
            }
        };
        (key(self.front_end, &self.key), value)
    }
}

impl Store {
    /// The rows of one front end.
    pub fn shelf(&self, front_end: &'static str) -> Shelf {
        Shelf::of(front_end, &self.0)
    }
}

impl Shelf {
    pub(crate) fn of(front_end: &'static str, inner: &Inner) -> Self {
        Self {
            front_end,
            engine: inner.engine.clone(),
            appender: inner.appender.clone(),
            blocking: inner.blocking.clone(),
        }
    }

    /// The durable value of a row.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let (shelf, key) = (self.clone(), key.to_vec());
        self.blocking.run(move || shelf.get_blocking(&key)).await
    }

    /// Durable rows whose key begins with `prefix` and is above `after`, by key, at most `limit`. Keys are whole, as
    /// written.
    pub async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Bytes)>, ReadError> {
        let (shelf, prefix, after) = (self.clone(), prefix.to_vec(), after.map(<[u8]>::to_vec));
        self.blocking.run(move || shelf.scan_blocking(&prefix, after.as_deref(), limit)).await
    }

    /// Writes rows, or removes those without a value: all or nothing. **On `Ok` they are durable.**
    pub async fn put(&self, rows: Vec<(Vec<u8>, Option<Bytes>)>) -> Result<(), SubmitError> {
        if rows.is_empty() {
            return Ok(());
        }
        let rows = rows.into_iter().map(|(name, value)| (key(self.front_end, &name), value)).collect();
        self.appender.write_state(rows).await
    }

    /// As [`Shelf::get`], for threads of one's own.
    pub fn get_blocking(&self, name: &[u8]) -> Result<Option<Bytes>, ReadError> {
        Ok(self.engine.state(&key(self.front_end, name))?)
    }

    /// As [`Shelf::scan`], for threads of one's own.
    pub fn scan_blocking(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Bytes)>, ReadError> {
        let (prefix, after) =
            (whole(self.front_end, prefix), after.map(|after| whole(self.front_end, after)));
        let rows = self.engine.states(StateTable::FrontEnd, &prefix, after.as_deref(), limit)?;
        let own = self.front_end.len() + 1;
        Ok(rows.into_iter().map(|(mut key, value)| (key.key.split_off(own), value)).collect())
    }
}

fn key(front_end: &str, name: &[u8]) -> StateKey {
    StateKey { table: StateTable::FrontEnd, key: whole(front_end, name) }
}

/// The name of the front end and a zero byte keep front ends apart.
fn whole(front_end: &str, name: &[u8]) -> Vec<u8> {
    debug_assert!(!front_end.contains('\0'), "names have no zero byte");
    let mut whole = Vec::with_capacity(front_end.len() + 1 + name.len());
    whole.extend_from_slice(front_end.as_bytes());
    whole.push(0);
    whole.extend_from_slice(name);
    whole
}
