//! Rows and entries of one feed that are decided but not yet durable, laid over the durable ones.

use std::collections::{HashMap, VecDeque};

use crate::entry::Entry;
use crate::ids::{FeedId, SeqId};
use crate::read::Reader;
use crate::rows::{RowKey, RowValue, Rows};

/// What one feed's undurable groups wrote. Groups are numbered by the place of their last entry.
///
/// `view` gives [`Rows`] of this feed as of now and of other feeds as durable.
#[derive(Debug)]
pub struct Overlay {
    feed: FeedId,
    rows: HashMap<RowKey, (SeqId, Option<RowValue>)>,
    entries: VecDeque<Entry>,
    groups: VecDeque<(SeqId, Vec<RowKey>)>,
    staged: Vec<RowKey>,
}

#[allow(unused_variables)]
impl Overlay {
    /// An empty overlay.
    pub fn new(feed: FeedId) -> Self {
        todo!()
    }

    /// Rows as of now: this overlay, below it the durable store.
    pub fn view<'a>(&'a mut self, durable: &'a dyn Reader) -> impl Rows + 'a {
        crate::overlay::View { overlay: self, durable }
    }

    /// Makes the entries of a new group readable. Call before projecting them through `view`.
    pub fn push(&mut self, entries: &[Entry]) {
        todo!()
    }

    /// Ends the group whose rows were put through `view`: these are the rows to commit with its entries, each key once.
    /// `last` is the place of the group's last entry.
    pub fn seal(&mut self, last: SeqId) -> Vec<(RowKey, Option<RowValue>)> {
        todo!()
    }

    /// Everything up to and including `upto` is durable: forgets it.
    pub fn retire(&mut self, upto: SeqId) {
        todo!()
    }

    /// A group was refused, and with it all later ones: forgets everything.
    pub fn clear(&mut self) {
        todo!()
    }

    /// Whether everything is durable.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

struct View<'a> {
    overlay: &'a mut Overlay,
    durable: &'a dyn Reader,
}

impl Rows for View<'_> {
    fn get(&mut self, key: &RowKey) -> Result<Option<RowValue>, crate::rows::RowsError> {
        todo!()
    }
    fn head(&mut self, feed: &FeedId) -> Result<crate::entry::Head, crate::rows::RowsError> {
        self.durable.head(feed)
    }
    fn entry(&mut self, feed: &FeedId, seq: SeqId) -> Result<Option<Entry>, crate::rows::RowsError> {
        todo!()
    }
    fn put(&mut self, key: RowKey, value: Option<RowValue>) {
        todo!()
    }
}
