//! Writers that each keep one append in flight, for a fixed time.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a round of load measured.
pub(super) struct Round {
    /// Acknowledged appends.
    pub acks: u64,
    /// From the first append to the last ack.
    pub elapsed: Duration,
    /// From sending to ack, one per append.
    pub latencies: Vec<Duration>,
}

impl Round {
    /// Acknowledged appends per second.
    pub(super) fn rate(&self) -> f64 {
        self.acks as f64 / self.elapsed.as_secs_f64()
    }
}

/// Runs `writers` tasks until `lasting` is over; each calls `append(writer, n)` for n = 0, 1, 2 … and waits for it.
/// The first error ends the round.
pub(super) async fn drive<A, F, E>(writers: usize, lasting: Duration, append: A) -> Result<Round, E>
where
    A: Fn(usize, u64) -> F + Clone + Send + 'static,
    F: Future<Output = Result<(), E>> + Send,
    E: Send + 'static,
{
    let stop = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (append, stop) = (append.clone(), stop.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let sent = Instant::now();
                    if let Err(error) = append(writer, n).await {
                        stop.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                    latencies.push(sent.elapsed());
                }
                Ok(latencies)
            })
        })
        .collect();
    tokio::time::sleep(lasting).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    let mut failed = None;
    for task in tasks {
        match task.await.expect("a writer does not panic") {
            Ok(more) => latencies.extend(more),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(Round { acks: latencies.len() as u64, elapsed: start.elapsed(), latencies }),
    }
}
