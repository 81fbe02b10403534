//! Stopping: front ends first, then the service, then the engine; all within `shutdown.drain_ms`.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code after a second signal, as shells show it for SIGINT.
const SECOND_SIGNAL_EXIT: i32 = 130;

/// SIGTERM and SIGINT.
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Takes the signals over from their default action. Call inside a runtime, before anything is served.
    ///
    /// # Errors
    /// When the handlers cannot be set.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }

    /// Completes at the first signal. From then on a second one ends the process at once: whatever was acknowledged
    /// is durable already.
    pub async fn first(mut self) {
        let name = self.next().await;
        tracing::info!(signal = name, "draining; a second signal exits at once");
        tokio::spawn(async move {
            let name = self.next().await;
            tracing::warn!(signal = name, "exiting without waiting");
            std::process::exit(SECOND_SIGNAL_EXIT);
        });
    }
}
