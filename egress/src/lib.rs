//! The egress: a small process beside feedlog that fans out to many trusted readers.
//!
//! It follows feedlog as one MQTT 5 client (service account, QoS 1, persistent session: its place is kept by feedlog)
//! and republishes everything with QoS 0 on an MQTT bus in memory, made by rumqttd, on a loopback or private address:
//! dashboards, bots, readers by the thousand that may miss a message. It holds no truth: killing it loses nothing that
//! feedlog has, and however slow its readers are, feedlog has one client more and no other work.
//!
//! What rumqttd is not trusted with: durability (it acknowledges before it appends), topics that begin with anything
//! but ASCII and client ids with `/ + # $` (both end it), topic aliases, authorization. So topics get an ASCII prefix,
//! unsafe ids are refused before its router sees them, the address may not be a public one, and a probe ends the
//! process when the bus no longer carries messages. What restarts it is the system's service manager.

mod bus;
mod follow;
mod safe;
mod settings;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

pub use settings::Settings;

/// Why the process ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listening address is taken, or none of this machine.
    #[error("cannot listen on {0}: {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
    /// The runtime, threads or signals.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// rumqttd ended, or did not start.
    #[error("the bus failed: {0}")]
    Bus(String),
    /// A message of our own did not come back in time.
    #[error("the bus carries nothing: the probe did not come back within {0:?}")]
    Probe(Duration),
    /// feedlog will not have us, and trying again would not help.
    #[error("feedlog refuses: {0}")]
    Refused(String),
}

/// What happened so far.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages that feedlog sent, redeliveries too.
    pub received: AtomicU64,
    /// Messages handed to the bus.
    pub republished: AtomicU64,
    /// Messages whose topic rumqttd cannot bear.
    pub skipped: AtomicU64,
    /// Clients of the bus with an id that rumqttd cannot bear, or without the password.
    pub refused_clients: AtomicU64,
    /// Connections to feedlog that broke.
    pub reconnects: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn report(&self) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        tracing::info!(
            received = get(&self.received),
            republished = get(&self.republished),
            skipped = get(&self.skipped),
            refused_clients = get(&self.refused_clients),
            reconnects = get(&self.reconnects),
            "so far"
        );
    }
}

/// Runs until SIGTERM or SIGINT (`Ok`) or a failure.
pub fn run(settings: &Settings) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let counters = Arc::new(Counters::default());
    let ended = runtime.block_on(async {
        tokio::select! {
            error = serve(settings, &counters) => Err(error),
            signal = signal() => signal,
        }
    });
    counters.report();
    ended
}

/// Follows and republishes; returns only with what failed.
pub async fn serve(settings: &Settings, counters: &Arc<Counters>) -> Error {
    let (failed, mut failure) = mpsc::unbounded_channel();
    let link = match bus::start(settings, counters, &failed) {
        Ok(link) => link,
        Err(error) => return error,
    };
    tracing::info!(from = %settings.from, bus = %settings.listen, prefix = settings.prefix, "running");
    // A report of zero seconds would be one without end.
    let mut report = tokio::time::interval(Duration::from_secs(settings.report_every_s.max(1)));
    report.tick().await;
    let follow = follow::follow(settings, link, counters);
    tokio::pin!(follow);
    loop {
        tokio::select! {
            error = &mut follow => return error,
            Some(error) = failure.recv() => return error,
            _ = report.tick() => counters.report(),
        }
    }
}

async fn signal() -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}
