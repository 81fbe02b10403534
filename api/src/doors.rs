//! How many connections a front end lets in: in all, from one address, and how fast from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Addresses whose rate is remembered at most; when full, those that may come again go first, then all.
const ADDRESSES_MAX: usize = 65_536;
/// So many seconds' worth may come at once.
const BURST_S: f64 = 10.0;

/// The doors of one front end. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Doors(Arc<Inner>);

struct Inner {
    front_end: &'static str,
    all_max: usize,
    address_max: usize,
    per_second: f64,
    inside: Mutex<HashMap<IpAddr, usize>>,
    rates: Mutex<HashMap<IpAddr, (Instant, f64)>>,
    open: watch::Sender<usize>,
    /// Turns true when the server drains.
    draining: watch::Sender<bool>,
    /// Turns true when the drain's time is over.
    cut: watch::Sender<bool>,
}

/// One connection that was let in. A WebSocket takes it along, so that it counts as long as it is open.
pub(crate) struct Guest {
    address: IpAddr,
    doors: Doors,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here panics half way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Doors {
    /// Doors for this many. `per_second` new connections from one address, 0 = any number.
    pub(crate) fn new(front_end: &'static str, all_max: usize, address_max: usize, per_second: u32) -> Self {
        Self(Arc::new(Inner {
            front_end,
            all_max,
            address_max,
            per_second: f64::from(per_second),
            inside: Mutex::default(),
            rates: Mutex::default(),
            open: watch::Sender::new(0),
            draining: watch::Sender::new(false),
            cut: watch::Sender::new(false),
        }))
    }

    /// Lets a connection in, if there is room. One that is not let in is counted.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<Guest> {
        let guest = self.enter_at(address, Instant::now());
        let front_end = self.0.front_end;
        if guest.is_some() {
            metrics::gauge!("feedlog_connections_open", "front_end" => front_end).increment(1.0);
        } else {
            metrics::counter!("feedlog_connections_refused_total", "front_end" => front_end).increment(1);
        }
        guest
    }

    fn enter_at(&self, address: IpAddr, now: Instant) -> Option<Guest> {
        let mut inside = lock(&self.0.inside);
        if *self.0.open.borrow() >= self.0.all_max || !self.is_slow_enough(address, now) {
            return None;
        }
        let here = inside.entry(address).or_insert(0);
        if *here >= self.0.address_max {
            return None;
        }
        *here += 1;
        self.0.open.send_modify(|open| *open += 1);
        Some(Guest { address, doors: self.clone() })
    }

    fn is_slow_enough(&self, address: IpAddr, now: Instant) -> bool {
        let per_second = self.0.per_second;
        if per_second == 0.0 {
            return true;
        }
        let burst = per_second * BURST_S;
        let mut rates = lock(&self.0.rates);
        if rates.len() >= ADDRESSES_MAX {
            rates.retain(|_, (since, left)| {
                *left + now.duration_since(*since).as_secs_f64() * per_second < burst
            });
            if rates.len() >= ADDRESSES_MAX {
                rates.clear();
            }
        }
        let (since, left) = rates.entry(address).or_insert((now, burst));
        *left = (*left + now.saturating_duration_since(*since).as_secs_f64() * per_second).min(burst);
        *since = now;
        let allowed = *left >= 1.0;
        *left -= if allowed { 1.0 } else { 0.0 };
        allowed
    }

    /// Connections that are inside.
    pub(crate) fn open(&self) -> watch::Receiver<usize> {
        self.0.open.subscribe()
    }

    /// Turns true when the front end drains.
    pub(crate) fn draining(&self) -> watch::Receiver<bool> {
        self.0.draining.subscribe()
    }

    /// Turns true when the drain's time is over.
    pub(crate) fn cut(&self) -> watch::Receiver<bool> {
        self.0.cut.subscribe()
    }

    /// Tells everybody inside, waits at most so long for them to go, then cuts the rest.
    pub(crate) async fn drain(&self, within: Duration) {
        let _ = self.0.draining.send_replace(true);
        let mut open = self.open();
        if tokio::time::timeout(within, open.wait_for(|open| *open == 0)).await.is_err() {
            self.cut_all();
            // What ends a session still runs to its end.
            let _ = tokio::time::timeout(Duration::from_secs(1), open.wait_for(|open| *open == 0)).await;
        }
    }

    /// Cuts everybody who is still inside.
    pub(crate) fn cut_all(&self) {
        let (front_end, open) = (self.0.front_end, *self.0.open.borrow());
        tracing::warn!(front_end, open, "connections were cut by the drain");
        let _ = self.0.cut.send_replace(true);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut inside = lock(&self.doors.0.inside);
        if let Some(here) = inside.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                inside.remove(&self.address);
            }
        }
        drop(inside);
        self.doors.0.open.send_modify(|open| *open -= 1);
        metrics::gauge!("feedlog_connections_open", "front_end" => self.doors.0.front_end).decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doors_count_in_all_and_per_address() {
        let doors = Doors::new("test", 3, 2, 0);
        let (a, b): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let first = doors.enter(a).unwrap();
        let _second = doors.enter(a).unwrap();
        assert!(doors.enter(a).is_none(), "two from one address");
        let _third = doors.enter(b).unwrap();
        assert!(doors.enter(b).is_none(), "three in all");
        drop(first);
        assert!(doors.enter(b).is_some());
    }

    #[test]
    fn an_address_that_comes_too_fast_waits() {
        let doors = Doors::new("test", 1000, 1000, 1);
        let address: IpAddr = [127, 0, 0, 1].into();
        let now = Instant::now();
        let _inside: Vec<_> = (0..10).map(|_| doors.enter_at(address, now).unwrap()).collect();
        assert!(doors.enter_at(address, now).is_none(), "ten at once");
        assert!(doors.enter_at([127, 0, 0, 2].into(), now).is_some(), "others are not held up");
        assert!(doors.enter_at(address, now + Duration::from_secs(1)).is_some());
        assert!(doors.enter_at(address, now + Duration::from_secs(1)).is_none());
    }
}
