//! Wrong credentials per address: after too many in a minute wrong ones are answered with 429.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::errors::{ApiError, Kind};

const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered at most; when full, those whose minute is over go first, then all.
const ADDRESSES_MAX: usize = 65_536;

pub(crate) struct Failures {
    per_minute_max: u32,
    seen: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl Failures {
    pub(crate) fn new(per_minute_max: u32) -> Self {
        Self { per_minute_max, seen: Mutex::default() }
    }

    /// Remembers one failure; `RateLimited` when the address has failed too often.
    pub(crate) fn count(&self, address: IpAddr) -> Result<(), ApiError> {
        self.count_at(address, Instant::now())
    }

    fn count_at(&self, address: IpAddr, now: Instant) -> Result<(), ApiError> {
        if self.per_minute_max == 0 {
            return Ok(());
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= ADDRESSES_MAX {
            seen.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
            if seen.len() >= ADDRESSES_MAX {
                seen.clear();
            }
        }
        let entry = seen.entry(address).or_insert((now, 0));
        if now.duration_since(entry.0) >= WINDOW {
            *entry = (now, 0);
        }
        entry.1 = entry.1.saturating_add(1);
        if entry.1 <= self.per_minute_max {
            return Ok(());
        }
        let left = WINDOW.saturating_sub(now.duration_since(entry.0));
        let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let mut error = ApiError::new(Kind::RateLimited, "too many wrong credentials from this address");
        error.retry_after_ms = Some(ms);
        Err(error.with("retry_after_ms", ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minute_passes() {
        let failures = Failures::new(2);
        let address: IpAddr = [127, 0, 0, 1].into();
        let start = Instant::now();
        assert!(failures.count_at(address, start).is_ok());
        assert!(failures.count_at(address, start).is_ok());
        let error = failures.count_at(address, start).unwrap_err();
        assert_eq!((error.kind, error.retry_after_ms), (Kind::RateLimited, Some(60_000)));
        assert!(failures.count_at([127, 0, 0, 2].into(), start).is_ok());
        assert!(failures.count_at(address, start + WINDOW).is_ok());
    }
}
