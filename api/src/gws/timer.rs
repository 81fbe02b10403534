//! The room `/timer`: the time, each second, as text. What clients send there is ignored.

use std::sync::Arc;
use std::time::Duration;

use feedlog_service::views::Delivery;
use feedlog_service::{Receipt, SubmitError};
use tokio::time::Instant;

use crate::http::app::App;
use crate::http::stream::still_good;
use crate::socket::{Frame, Line, Talk, close};

const EVERY: Duration = Duration::from_secs(1);

/// A connection to the timer.
pub(super) struct TimerTalk {
    app: Arc<App>,
    token: Option<Arc<str>>,
    next: Instant,
}

impl TimerTalk {
    pub(super) fn new(app: Arc<App>, token: Option<Arc<str>>) -> Self {
        Self { app, token, next: Instant::now() + EVERY }
    }
}

impl Talk for TimerTalk {
    type Told = ();
    type Done = ();

    async fn opened(&mut self, _: &mut Line<Self>) {}

    async fn frame(&mut self, _: &mut Line<Self>, _: Frame) {}

    fn answered(&mut self, _: &mut Line<Self>, _: Result<Receipt, SubmitError>) {}

    async fn delivered(&mut self, _: &mut Line<Self>, _: Delivery) {}

    async fn told(&mut self, _: &mut Line<Self>, (): ()) {}

    async fn done(&mut self, _: &mut Line<Self>, (): ()) {}

    fn due(&self) -> Option<Instant> {
        Some(self.next)
    }

    async fn tick(&mut self, line: &mut Line<Self>) {
        let now = Instant::now();
        // Seconds that were missed are not made up for.
        self.next = (self.next + EVERY).max(now);
        let seconds = self.app.services.store.now_ms() / 1_000;
        line.text(seconds.to_string().as_bytes());
    }

    fn recheck(&mut self, line: &mut Line<Self>) {
        if !still_good(&self.app, self.token.as_deref()) {
            line.close(close::POLICY, "unauthenticated");
        }
    }
}
