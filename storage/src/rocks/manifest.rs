//! A look at the manifest before RocksDB reads it.
//!
//! RocksDB's log reader meets a record whose type says "recycled log" in a log that did not begin so, and asks for the
//! same record again, for ever: one flipped bit in a type byte, and opening never returns. A manifest is never recycled,
//! so any such type is damage, and is found here.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::kv::KvError;

/// Records never cross blocks of this size.
const BLOCK_BYTES: usize = 32 * 1024;
/// CRC (4), length (2, little-endian), type (1).
const HEADER_BYTES: usize = 7;
/// Whole, first, middle and last part of a record. 0 is the filling of a preallocated file.
const TYPES: std::ops::RangeInclusive<u8> = 0..=4;

/// Refuses a manifest with a record of a type that no manifest has. Lengths and checksums are RocksDB's own to judge: a
/// record that does not fit its block ends the look at that block.
pub(super) fn check(dir: &Path) -> Result<(), KvError> {
    let Ok(current) = fs::read_to_string(dir.join("CURRENT")) else { return Ok(()) };
    // What cannot be read is told by RocksDB, which knows why it needs it.
    let Ok(manifest) = fs::read(dir.join(current.trim_end())) else { return Ok(()) };
    match types(&manifest).find(|(_, record)| !TYPES.contains(record)) {
        Some((at, record)) => Err(KvError::Damaged(Arc::from(format!(
            "{}: a record of the unknown type {record} at byte {at}",
            current.trim_end()
        )))),
        None => Ok(()),
    }
}

/// The offset and value of every type byte.
pub(super) fn types(manifest: &[u8]) -> impl Iterator<Item = (usize, u8)> + '_ {
    manifest.chunks(BLOCK_BYTES).enumerate().flat_map(|(number, block)| {
        let mut at = 0;
        std::iter::from_fn(move || {
            let header = block.get(at..at + HEADER_BYTES)?;
            let found = (number * BLOCK_BYTES + at + 6, header[6]);
            at += HEADER_BYTES + usize::from(u16::from_le_bytes([header[4], header[5]]));
            Some(found)
        })
    })
}
