//! How old feedlog data becomes new.
//!
//! - **Upcasters** turn the stored bytes of an event of version n into those of version n + 1: pure functions, applied on
//!   read, never written back. One file each in `upcast/`, `v1_to_v2.rs` and so on.
//! - **Layout steps** change the tables themselves, at open, in order, rerunnable. One file each in `layout/`,
//!   `step_0002_*.rs` and so on; layout 1 is the first.
//!
//! `golden/` holds bytes written by every released version, never edited; the tests here and in `feedlog-storage` open them
//! with today's code (P12). Both versions of the stored event, 1 and 2, are still written, each where it is the oldest
//! that can hold the event: so there is no upcaster yet, and no step.

use feedlog_storage::{LayoutStep, OpenError, OpenOptions, Store, Upcasters};

/// The upcaster of every version of the stored event that is not written any more.
pub fn upcasters() -> Upcasters {
    Upcasters::new(Vec::new())
}

/// Every layout step, by number.
pub fn layout_steps() -> Vec<Box<dyn LayoutStep>> {
    Vec::new()
}

/// Opens a store, whichever version of feedlog wrote it: runs the layout steps that it has not seen, and upcasts its
/// events on read. This is how the binary opens stores.
pub fn open(options: &OpenOptions) -> Result<Store, OpenError> {
    feedlog_storage::open_migrating(options, upcasters(), &layout_steps())
}
