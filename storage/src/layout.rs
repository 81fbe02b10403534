//! Layout steps: numbered changes of the tables, run when a store is opened.
//!
//! `migrations` implements them. A step that was interrupted runs again from its beginning, so it must be rerunnable; its
//! number goes to `FORMAT` when it is done. Events are not rewritten by steps but upcast on read.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::dir::DataDir;
use crate::kv::{Batch, Kv, Table};
use crate::log::read_error;
use crate::{Direction, EngineError, EngineKind, OpenError};

/// One change of the tables, from layout `number() - 1` to `number()`.
pub trait LayoutStep: Send + Sync {
    /// The layout that it leads to; 2 for the first step, without gaps.
    fn number(&self) -> u32;

    /// What it does, for the log.
    fn what(&self) -> &'static str;

    /// Does it, durably on `Ok`. May have run before, in part or whole.
    fn run(&self, tables: &dyn RawTables) -> Result<(), EngineError>;
}

/// The bytes of all tables, as a step sees them.
pub trait RawTables {
    /// One value.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// The first `limit` keys that are not below `from`, ascending, with their values.
    fn page(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Bytes)>, EngineError>;

    /// Puts (or removes, with `None`) all of these or none; durable on `Ok`.
    fn write(&self, changes: Vec<(Table, Vec<u8>, Option<Bytes>)>) -> Result<(), EngineError>;
}

struct Raw<'a, K>(&'a K);

impl<K: Kv> RawTables for Raw<'_, K> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.0.get(table, key).map_err(read_error)
    }

    fn page(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Bytes)>, EngineError> {
        let mut page = Vec::new();
        if limit > 0 {
            self.0
                .scan(table, from, crate::keys::BEYOND_ALL, Direction::Forward, &mut |key, value| {
                    page.push((key.to_vec(), Bytes::copy_from_slice(value)));
                    if page.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })
                .map_err(read_error)?;
        }
        Ok(page)
    }

    fn write(&self, changes: Vec<(Table, Vec<u8>, Option<Bytes>)>) -> Result<(), EngineError> {
        let mut batch = Batch::default();
        for (table, key, value) in changes {
            match value {
                Some(value) => batch.put(table, key, value),
                None => batch.delete(table, key),
            }
        }
        self.0.write(&batch).map_err(read_error)
    }
}

/// The steps that this build knows.
pub(crate) struct Steps<'a> {
    pub(crate) steps: &'a [Box<dyn LayoutStep>],
    pub(crate) engine: EngineKind,
}

impl Steps<'_> {
    /// The layout that they lead to.
    pub(crate) fn newest(&self) -> u32 {
        self.steps.iter().map(|step| step.number()).fold(crate::LAYOUT_VERSION, u32::max)
    }

    /// Runs every step above the directory's layout, in order.
    pub(crate) fn run<K: Kv>(&self, kv: &K, dir: &mut DataDir) -> Result<(), OpenError> {
        while dir.layout() < self.newest() {
            let number = dir.layout() + 1;
            let Some(step) = self.steps.iter().find(|step| step.number() == number) else {
                return Err(OpenError::NoStep(number));
            };
            tracing::info!(number, what = step.what(), "the store gets a new layout");
            step.run(&Raw(kv)).map_err(|error| match error {
                EngineError::Damaged(text) => OpenError::Damaged(text),
                other => OpenError::Engine(other.to_string().into()),
            })?;
            dir.set_layout(self.engine, number)?;
        }
        Ok(())
    }
}
