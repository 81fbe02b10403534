//! Scans of one state while writes go on.

use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex};

use ::sled::IVec;
use bytes::Bytes;

use super::{Overlay, Sled, caught, lock, reading};
use crate::Direction;
use crate::kv::KvError;

/// Items and bytes that a scan takes at once, while it holds off the next write.
const CHUNK_ITEMS: usize = 128;
const CHUNK_BYTES: usize = 1 << 20;

/// A range of physical keys.
pub(super) type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Some items of a range.
#[derive(Default)]
struct Chunk {
    items: Vec<(Vec<u8>, IVec)>,
    bytes: usize,
    more: bool,
}

/// A scan that goes on: the state it began with.
struct View<'a> {
    store: &'a Sled,
    /// What the keys held then that were written since.
    past: Arc<Mutex<Overlay>>,
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        self.store.views().retain(|view| !Arc::ptr_eq(view, &self.past));
    }
}

impl Sled {
    /// The first items of a physical range in `direction`, where `overlay` has the last word. Fewer than
    /// [`CHUNK_ITEMS`] only at the end of the range or beyond [`CHUNK_BYTES`]; the flag tells whether more may follow.
    fn chunk(&self, overlay: &Overlay, range: &Range, direction: Direction) -> Result<Chunk, KvError> {
        let bounds = (range.0.as_ref().map(Vec::as_slice), range.1.as_ref().map(Vec::as_slice));
        let mut tree = self.db.range::<&[u8], _>(bounds);
        let mut over = overlay.range::<[u8], _>(bounds);
        let forward = direction == Direction::Forward;
        let mut next_tree = || {
            let item = if forward { tree.next() } else { tree.next_back() };
            item.transpose().map_err(|error| reading(&error))
        };
        let mut next_over = || if forward { over.next() } else { over.next_back() };
        let (mut a, mut b) = (next_tree()?, next_over());
        let mut chunk = Chunk::default();
        loop {
            let order = match (&a, &b) {
                (None, None) => return Ok(chunk),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((x, _)), Some((y, _))) if forward => x.as_ref().cmp(y.as_slice()),
                (Some((x, _)), Some((y, _))) => y.as_slice().cmp(x.as_ref()),
            };
            let item = match order {
                std::cmp::Ordering::Less => a.take().map(|(key, value)| (key.to_vec(), value)),
                _ => b.take().and_then(|(key, old)| old.clone().map(|value| (key.clone(), value))),
            };
            if order.is_le() {
                a = next_tree()?;
            }
            if order.is_ge() {
                b = next_over();
            }
            if let Some((key, value)) = item {
                chunk.bytes += key.len() + value.len();
                chunk.items.push((key, value));
                if chunk.items.len() >= CHUNK_ITEMS || chunk.bytes >= CHUNK_BYTES {
                    chunk.more = true;
                    return Ok(chunk);
                }
            }
        }
    }

    /// Visits a physical range as it is now, in pieces, so that writes are held off for one piece only. `resolve`
    /// makes of a key's value what `visit` gets; it may read more of the same state.
    pub(super) fn walk(
        &self,
        mut range: Range,
        direction: Direction,
        resolve: impl Fn(&Overlay, &[u8], &IVec) -> Result<Bytes, KvError>,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        let mut view: Option<View<'_>> = None;
        loop {
            // IMPORTANT: a write installs its shadow before it applies anything, so while this lock is held nothing
            // changes but what the shadow covers.
            let shadow = self.shadow();
            let mut ready = Vec::with_capacity(CHUNK_ITEMS);
            let more = caught(|| {
                let past = view.as_ref().map(|view| lock(&view.past));
                let overlay: &Overlay = past.as_deref().unwrap_or(&shadow);
                let chunk = self.chunk(overlay, &range, direction)?;
                for (key, value) in chunk.items {
                    let value = resolve(overlay, &key, &value)?;
                    ready.push((key, value));
                }
                Ok(chunk.more)
            })?;
            if more && view.is_none() {
                let past = Arc::new(Mutex::new(shadow.clone()));
                self.views().push(past.clone());
                view = Some(View { store: self, past });
            }
            drop(shadow); // `visit` may read, and a read behind a waiting write would wait for ever
            for (key, value) in &ready {
                if visit(key, value) == ControlFlow::Break(()) {
                    return Ok(());
                }
            }
            match ready.pop() {
                Some((last, _)) if more => match direction {
                    Direction::Forward => range.0 = Bound::Excluded(last),
                    Direction::Backward if range.0 == Bound::Included(last.clone()) => return Ok(()),
                    Direction::Backward => range.1 = Bound::Excluded(last),
                },
                _ => return Ok(()),
            }
        }
    }

    /// Visits every physical key.
    pub(super) fn walk_everything(
        &self,
        visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        self.walk(all, Direction::Forward, |_, _, value| Ok(Bytes::copy_from_slice(value)), visit)
    }
}
