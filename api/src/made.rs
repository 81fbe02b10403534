//! Names that front ends make themselves.

use feedlog_core::ids::FeedId;

use crate::errors::{ApiError, unavailable};

/// The digest behind derived names.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// A name of a feed that nobody can guess: 128 random bits.
pub(crate) fn feed_id() -> Result<FeedId, ApiError> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|_| unavailable("no_randomness"))?;
    let mut name = String::from("feed-");
    for byte in random {
        name.push_str(&format!("{byte:02x}"));
    }
    Ok(FeedId::parse(&name).expect("hexadecimal digits make a valid name"))
}
