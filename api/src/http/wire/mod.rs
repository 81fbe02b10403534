//! The types of this wire: what callers send and what they get. The domain's own types never leave the core.

pub(crate) mod entry;
pub(crate) mod input;
pub(crate) mod names;
pub(crate) mod output;
