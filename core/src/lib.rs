//! The domain core of feedlog: pure, without IO, clock or randomness.
//!
//! A message travels through this crate in three steps: [`policy::authorize`] turns a [`command::Command`]
//! into an `Authorized` command, [`feed::decide`] turns that into events, and the [`sequencer`] gives the events
//! their places. [`projection::project`] derives every row from the resulting entries.

pub mod command;
pub mod entry;
pub mod event;
pub mod feed;
pub mod ids;
pub mod lane;
pub mod limits;
pub mod overlay;
pub mod pattern;
pub mod policy;
pub mod projection;
pub mod read;
pub mod rows;
pub mod sequencer;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod views;
