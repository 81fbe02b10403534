//! How often a caller may ask: one theoretical arrival time per caller (GCRA), in a bounded map.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use feedlog_core::ids::TimeMs;
use quick_cache::sync::Cache;

use super::Rate;

/// Callers whose rate is remembered. A forgotten caller begins anew with a full burst.
const CALLERS_MAX: usize = 65_536;

/// Counts requests of callers named by `K`.
pub(super) struct Limiter<K> {
    interval_us: u64,
    burst_us: u64,
    callers: Cache<K, Arc<AtomicU64>>,
}

impl<K: Eq + Hash + Clone> Limiter<K> {
    pub(super) fn new(rate: Rate) -> Self {
        let interval_us = 1_000_000 / u64::from(rate.per_second.clamp(1, 1_000_000));
        Self {
            interval_us,
            burst_us: interval_us * u64::from(rate.burst.max(1)),
            callers: Cache::new(CALLERS_MAX),
        }
    }

    /// Counts one request; `Err` with the time to wait, in milliseconds, when it was one too many.
    pub(super) fn check(&self, caller: &K, now_ms: TimeMs) -> Result<(), u64> {
        let now = now_ms.saturating_mul(1000);
        let arrival = match self.callers.get(caller) {
            Some(arrival) => arrival,
            None => {
                let arrival = Arc::new(AtomicU64::new(0));
                self.callers.insert(caller.clone(), arrival.clone());
                arrival
            }
        };
        let mut seen = arrival.load(Ordering::Relaxed);
        loop {
            // The clock may have jumped back: nobody waits for longer than a burst takes.
            let base = if seen > now + self.burst_us { now } else { seen.max(now) };
            let next = base + self.interval_us;
            if next > now + self.burst_us {
                return Err((next - now - self.burst_us).div_ceil(1000).max(1));
            }
            match arrival.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now_seen) => seen = now_seen,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_the_wait_is_honest() {
        let limiter = Limiter::new(Rate { per_second: 10, burst: 3 });
        let now = 1_000_000;
        for _ in 0..3 {
            assert_eq!(limiter.check(&"a", now), Ok(()));
        }
        let wait = limiter.check(&"a", now).unwrap_err();
        assert_eq!(wait, 100);
        assert_eq!(limiter.check(&"b", now), Ok(()), "callers do not share a rate");
        assert!(limiter.check(&"a", now + wait - 1).is_err());
        assert_eq!(limiter.check(&"a", now + wait), Ok(()));
        assert!(limiter.check(&"a", now + wait).is_err());
    }

    #[test]
    fn a_clock_that_jumps_back_locks_nobody_out() {
        let limiter = Limiter::new(Rate { per_second: 1, burst: 1 });
        assert_eq!(limiter.check(&(), 10_000_000), Ok(()));
        assert_eq!(limiter.check(&(), 1_000), Ok(()));
    }
}
