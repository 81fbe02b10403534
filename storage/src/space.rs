//! The reserve of free space: writes are refused before the engine meets a full disk.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An answer of the file system is trusted for so long …
const TRUST_TIME: Duration = Duration::from_millis(250);
/// … and for so many bytes written, at most.
const TRUST_BYTES_MAX: u64 = 4 << 20;
/// A batch costs its bytes in the log, again in a table, and once more while tables are merged.
const WRITE_FACTOR: u64 = 3;

/// Knows how much may still be written.
#[derive(Debug)]
pub(crate) struct SpaceReserve {
    /// `None` when nothing is reserved or there is no disk.
    dir: Option<PathBuf>,
    free_min_bytes: u64,
    checked: Option<Instant>,
    trusted_bytes: u64,
}

impl SpaceReserve {
    pub(crate) fn new(dir: Option<&Path>, free_min_bytes: u64) -> Self {
        let dir = dir.filter(|_| free_min_bytes > 0).map(Path::to_owned);
        Self { dir, free_min_bytes, checked: None, trusted_bytes: 0 }
    }

    /// Whether so many bytes may be written without touching the reserve.
    pub(crate) fn allows(&mut self, bytes: u64) -> bool {
        let Some(dir) = &self.dir else { return true };
        let cost = bytes.saturating_mul(WRITE_FACTOR);
        let is_fresh = self.checked.is_some_and(|checked| checked.elapsed() < TRUST_TIME);
        if !is_fresh || cost > self.trusted_bytes {
            let Some(free) = free_bytes(dir) else {
                // A file system that does not answer is met by the write itself.
                return true;
            };
            let above = free.saturating_sub(self.free_min_bytes);
            self.checked = Some(Instant::now());
            self.trusted_bytes = 0;
            if free < self.free_min_bytes || above < cost {
                return false;
            }
            // Others write to the same disk: only a part of what is free is taken for granted.
            self.trusted_bytes = (above / 4).min(TRUST_BYTES_MAX).max(cost);
        }
        self.trusted_bytes -= cost;
        true
    }
}

/// Bytes that an unprivileged process may still write on the file system of `dir`.
pub fn free_bytes(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let free = free_bytes(dir.path()).unwrap();
        assert!(SpaceReserve::new(Some(dir.path()), 0).allows(u64::MAX), "nothing is reserved");
        assert!(SpaceReserve::new(None, u64::MAX).allows(1), "there is no disk");
        assert!(!SpaceReserve::new(Some(dir.path()), u64::MAX).allows(0));
        assert!(!SpaceReserve::new(Some(dir.path()), 1).allows(free));
        let mut reserve = SpaceReserve::new(Some(dir.path()), free / 2);
        assert!(reserve.allows(1000));
        assert!(reserve.allows(1000), "without asking again");
        assert!(!reserve.allows(free / 2), "a large batch asks again at once");
    }
}
