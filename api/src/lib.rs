//! The front ends of feedlog: thin projections of its log.
//!
//! A front end holds a [`feedlog_service::Gate`] per principal and nothing below it.

pub mod connmix;
mod doors;
mod driver;
pub mod errors;
mod failures;
pub mod gws;
pub mod http;
pub mod im;
mod made;
pub mod mqtt;
pub mod outside;
pub mod pb;
mod socket;
mod tls;
pub mod webhook;

#[doc(hidden)]
pub use socket::fuzz as fuzz_websocket;
pub use tls::TlsError;
