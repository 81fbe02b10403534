//! When a call that failed is made again, and when it is given up.

use std::time::Duration;

use super::CarryError;

/// Tries of a call whose answer says that the call itself is at fault.
const HOPELESS_TRIES_MAX: u32 = 3;

/// How often and for how long a call is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Longest wait after the first failure; doubles with each further one. Default 1,000.
    pub retry_first_ms: u64,
    /// Longest wait. Default 60,000.
    pub retry_max_ms: u64,
    /// Tries after which a call is a dead letter; 0 = any number. Default 50.
    pub attempts_max: u32,
    /// Time after its first try after which a call is a dead letter; 0 = any time. Default 0.
    pub give_up_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { retry_first_ms: 1_000, retry_max_ms: 60_000, attempts_max: 50, give_up_ms: 0 }
    }
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Tried again after this wait.
    Again(Duration),
    /// A dead letter.
    Dead,
    /// The endpoint wants no more calls.
    Gone,
}

impl Patience {
    /// What follows after so many tries, the first so long ago. `random` is uniform over all numbers.
    pub(super) fn next(&self, error: &CarryError, tries: u32, since_first: Duration, random: u64) -> Next {
        if matches!(error, CarryError::Status { status: 410, .. }) {
            return Next::Gone;
        }
        let too_many = self.attempts_max > 0 && tries >= self.attempts_max;
        let too_long = self.give_up_ms > 0 && since_first >= Duration::from_millis(self.give_up_ms);
        if too_many || too_long || error.is_hopeless() && tries >= HOPELESS_TRIES_MAX {
            return Next::Dead;
        }
        Next::Again(self.wait(error, tries, random))
    }

    /// Exponential back-off with full jitter, so that many calls do not come back together; not before the time that the
    /// endpoint asked for, within the bound.
    pub(super) fn wait(&self, error: &CarryError, tries: u32, random: u64) -> Duration {
        let doublings = tries.saturating_sub(1).min(32);
        let most = self.retry_first_ms.saturating_mul(1 << doublings).min(self.retry_max_ms).max(1);
        let jittered = 1 + random % most;
        let asked = match error {
            CarryError::Status { status: 429 | 503, retry_after_ms: Some(ms) } => *ms,
            _ => 0,
        };
        Duration::from_millis(jittered.max(asked.min(self.retry_max_ms)))
    }
}

impl CarryError {
    /// The answer says that this very call will never be taken. Everything else may be a fault of the endpoint or its
    /// configuration, which somebody puts right.
    fn is_hopeless(&self) -> bool {
        matches!(self, Self::Status { status: 400 | 413 | 415 | 422, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { retry_first_ms: 100, retry_max_ms: 1_000, attempts_max: 5, give_up_ms: 60_000 };

    fn status(status: u16) -> CarryError {
        CarryError::Status { status, retry_after_ms: None }
    }

    #[test]
    fn waits_double_up_to_the_bound_with_full_jitter() {
        for (tries, most) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1_000), (40, 1_000)] {
            assert_eq!(PATIENCE.wait(&status(500), tries, most - 1), Duration::from_millis(most));
            assert_eq!(PATIENCE.wait(&status(500), tries, most), Duration::from_millis(1));
        }
    }

    #[test]
    fn the_endpoint_may_ask_for_a_longer_wait_within_the_bound() {
        let asks = |status, ms| CarryError::Status { status, retry_after_ms: Some(ms) };
        assert_eq!(PATIENCE.wait(&asks(429, 700), 1, 0), Duration::from_millis(700));
        assert_eq!(PATIENCE.wait(&asks(503, 99_000), 1, 0), Duration::from_millis(1_000));
        assert_eq!(PATIENCE.wait(&asks(500, 700), 1, 0), Duration::from_millis(1));
    }

    #[test]
    fn when_a_call_is_given_up() {
        let begun = Duration::ZERO;
        let is_again = |next| matches!(next, Next::Again(_));
        for error in [status(500), status(404), CarryError::TimedOut, CarryError::Unreachable] {
            assert!(is_again(PATIENCE.next(&error, 4, begun, 0)), "{error:?}");
            assert_eq!(PATIENCE.next(&error, 5, begun, 0), Next::Dead, "{error:?}");
            assert_eq!(PATIENCE.next(&error, 1, Duration::from_secs(60), 0), Next::Dead, "{error:?}");
        }
        for code in [400, 413, 415, 422] {
            assert!(is_again(PATIENCE.next(&status(code), 2, begun, 0)));
            assert_eq!(PATIENCE.next(&status(code), 3, begun, 0), Next::Dead);
        }
        assert_eq!(PATIENCE.next(&status(410), 1, begun, 0), Next::Gone);
        let endless = Patience { attempts_max: 0, give_up_ms: 0, ..PATIENCE };
        assert!(is_again(endless.next(&status(500), u32::MAX, Duration::from_secs(1 << 30), 0)));
    }
}
