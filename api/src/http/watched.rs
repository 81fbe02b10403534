//! A connection whose silence and whose stalled writes are noticed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What is known of a connection; shared by its stream and its watchdog.
pub(crate) struct Activity {
    start: Instant,
    /// Milliseconds since `start` of the last byte in either direction.
    last_ms: AtomicU64,
    /// Milliseconds since `start` + 1 when a write began to wait, 0 while none waits.
    blocked_ms: AtomicU64,
    /// Whether a request reached the router.
    asked: AtomicBool,
    /// Requests that are being answered: while there is one the silence is ours.
    answering: AtomicUsize,
}

/// A request that is being answered.
pub(crate) struct Answering(Arc<Activity>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.moved();
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long a connection may do nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) first_request_ms: u64,
    pub(crate) idle_ms: u64,
    pub(crate) stalled_ms: u64,
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            last_ms: AtomicU64::new(0),
            blocked_ms: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            answering: AtomicUsize::new(0),
        })
    }

    /// A request came; until the guard is dropped the connection is not idle.
    pub(crate) fn answering(self: &Arc<Self>) -> Answering {
        self.asked.store(true, Ordering::Relaxed);
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answering(self.clone())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn moved(&self) {
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Completes with the reason when the connection should be cut.
    pub(crate) async fn watch(&self, patience: Patience) -> &'static str {
        loop {
            let now = self.now_ms();
            let blocked = self.blocked_ms.load(Ordering::Relaxed);
            let quiet_since = if self.answering.load(Ordering::Relaxed) > 0 {
                now
            } else {
                self.last_ms.load(Ordering::Relaxed)
            };
            let mut wake = quiet_since.saturating_add(patience.idle_ms.max(1));
            if wake <= now {
                return "idle";
            }
            if blocked > 0 {
                let end = (blocked - 1).saturating_add(patience.stalled_ms);
                if end <= now {
                    return "stalled_reader";
                }
                wake = wake.min(end);
            }
            if !self.asked.load(Ordering::Relaxed) {
                if patience.first_request_ms <= now {
                    return "no_request";
                }
                wake = wake.min(patience.first_request_ms);
            }
            // A write may begin to wait while this sleeps; looking again each `stalled_ms` finds it in time.
            let sleep = (wake - now).min(patience.stalled_ms.max(1));
            tokio::time::sleep(Duration::from_millis(sleep)).await;
        }
    }
}

/// A stream that notes its activity.
pub(crate) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }

    fn wrote<T>(&self, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.activity.blocked_ms.store(0, Ordering::Relaxed);
            self.activity.moved();
        } else if self.activity.blocked_ms.load(Ordering::Relaxed) == 0 {
            self.activity.blocked_ms.store(self.activity.now_ms() + 1, Ordering::Relaxed);
        }
        poll
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.activity.moved();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
