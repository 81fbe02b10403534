//! Sends what importers planned: several feeds at the same time, each feed in order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Body, Job, Plan, Skipped, Step, Sum};
use crate::cli::fail::{Exit, Fail};
use crate::cli::out;
use crate::client::{Client, segment};

/// Messages in one request; the server's own bound is 1,000.
const BATCH_MESSAGES_MAX: usize = 500;
/// Payload text in one request, in bytes, roughly.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How often a request that found the server busy is repeated before the import gives up.
const RETRIES_MAX: u32 = 8;

/// Runs jobs on threads and adds up what they did.
pub(super) struct Runner {
    client: Client,
    threads: usize,
    started: Instant,
    bar: ProgressBar,
    total: Totals,
    feeds: std::collections::HashSet<String>,
    skipped: Skipped,
}

#[derive(Default)]
struct Totals {
    feeds_created: AtomicU64,
    joined: AtomicU64,
    messages: AtomicU64,
    appended: AtomicU64,
    duplicates: AtomicU64,
}

impl Runner {
    pub(super) fn new(client: Client, threads: usize) -> Self {
        Self {
            client,
            threads,
            started: Instant::now(),
            bar: out::progress(0, "messages"),
            total: Totals::default(),
            feeds: std::collections::HashSet::new(),
            skipped: Skipped::new(),
        }
    }

    /// Runs these jobs to their end. The first failure stops all of them.
    pub(super) fn run(&mut self, jobs: Vec<Job>) -> Result<(), Fail> {
        let threads = self.threads.min(jobs.len());
        let queue = Mutex::new(jobs.into_iter().collect::<VecDeque<_>>());
        let stop = AtomicBool::new(false);
        let done = Mutex::new(Vec::new());
        let failure = Mutex::new(None);
        let worker = Worker { client: &self.client, bar: &self.bar, total: &self.total, stop: &stop };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let Some(job) = lock(&queue).pop_front() else { return };
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        match job().and_then(|plan| worker.plan(plan)) {
                            Ok(part) => lock(&done).push(part),
                            Err(fail) => {
                                stop.store(true, Ordering::Relaxed);
                                lock(&failure).get_or_insert(fail);
                                return;
                            }
                        }
                    }
                });
            }
        });
        for (feed, skipped) in done.into_inner().unwrap_or_else(PoisonError::into_inner) {
            if !feed.is_empty() {
                self.feeds.insert(feed);
            }
            for (class, lines) in skipped {
                *self.skipped.entry(class).or_default() += lines;
            }
        }
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(fail) => Err(fail),
            None => Ok(()),
        }
    }

    pub(super) fn finish(self) -> Sum {
        self.bar.finish_and_clear();
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Sum {
            feeds: self.feeds.len() as u64,
            feeds_created: get(&self.total.feeds_created),
            joined: get(&self.total.joined),
            messages: get(&self.total.messages),
            appended: get(&self.total.appended),
            duplicates: get(&self.total.duplicates),
            skipped: self.skipped,
            took_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker<'a> {
    client: &'a Client,
    bar: &'a ProgressBar,
    total: &'a Totals,
    stop: &'a AtomicBool,
}

impl Worker<'_> {
    fn plan(&self, plan: Plan) -> Result<(String, Skipped), Fail> {
        let feed = plan.feed_id;
        if plan.steps.is_empty() && feed.is_empty() {
            return Ok((feed, plan.skipped));
        }
        let at = |fail: Fail| Fail { message: format!("feed {feed:?}: {}", fail.message), ..fail };
        self.create(&feed, &plan.title).map_err(at)?;
        let mut batch = Batch::default();
        for step in plan.steps {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            match step {
                Step::Join(uid) => {
                    self.send(&mut batch).map_err(at)?;
                    self.join(&feed, &uid).map_err(at)?;
                }
                Step::Message { sender, body } => {
                    if batch.is_full() {
                        self.send(&mut batch).map_err(at)?;
                    }
                    batch.push(&feed, &sender, body);
                }
            }
        }
        self.send(&mut batch).map_err(at)?;
        Ok((feed, plan.skipped))
    }

    fn create(&self, feed: &str, title: &str) -> Result<(), Fail> {
        let body = json!({"feed_id": feed, "kind": "group", "title": title});
        match self.patiently(|| self.client.post("/v1/feeds", &body)) {
            Ok((201, _)) => {
                self.total.feeds_created.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(fail) => already(fail),
        }
    }

    fn join(&self, feed: &str, uid: &str) -> Result<(), Fail> {
        let path = format!("/v1/feeds/{}/members", segment(feed));
        match self.patiently(|| self.client.post(&path, &json!({"uid": uid}))) {
            Ok((201, _)) => {
                self.total.joined.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(fail) => already(fail),
        }
    }

    fn send(&self, batch: &mut Batch) -> Result<(), Fail> {
        if batch.messages.is_empty() {
            return Ok(());
        }
        let mut left = std::mem::take(batch).messages;
        let mut tries = 0;
        // Each message has its client_msg_id, so whatever is unclear is simply sent again.
        while !left.is_empty() {
            let body = to_text(&Messages { messages: &left })?;
            let (_, answer) = self.patiently(|| self.client.post_text("/v1/messages:batch", &body))?;
            let results =
                answer["results"].as_array().filter(|results| results.len() == left.len()).ok_or_else(
                    || Fail::failed("the server's answer to a batch has no result for each message"),
                )?;
            let mut again = Vec::new();
            for (result, message) in results.iter().zip(std::mem::take(&mut left)) {
                match result.get("error").filter(|error| !error.is_null()) {
                    None => {
                        let duplicate = result["duplicate"] == Value::Bool(true);
                        let counter = if duplicate { &self.total.duplicates } else { &self.total.appended };
                        counter.fetch_add(1, Ordering::Relaxed);
                        self.total.messages.fetch_add(1, Ordering::Relaxed);
                        self.bar.inc(1);
                    }
                    Some(error) => {
                        let code = error["code"].as_str().unwrap_or("failed");
                        // Nothing happened, or nobody knows: the client_msg_id makes sending it again safe.
                        if ["unavailable", "unknown_outcome", "rate_limited"].contains(&code) {
                            again.push(message);
                            continue;
                        }
                        let reason = error["message"].as_str().unwrap_or_default();
                        let id = message.text_of("client_msg_id").unwrap_or_default();
                        return Err(Fail::new(Exit::Refused, code, format!("{id}: {reason} ({code})")));
                    }
                }
            }
            if !again.is_empty() {
                tries += 1;
                if tries > RETRIES_MAX {
                    return Err(Fail::unavailable("the server stays busy; run the import again to go on"));
                }
                std::thread::sleep(wait(tries));
            }
            left = again;
        }
        Ok(())
    }

    /// Repeats a call while the server is there but busy.
    fn patiently<T>(&self, call: impl Fn() -> Result<T, Fail>) -> Result<T, Fail> {
        let mut tries = 0;
        loop {
            match call() {
                Err(fail)
                    if fail.exit == Exit::Unavailable
                        && fail.code != "unreachable"
                        && tries < RETRIES_MAX
                        && !self.stop.load(Ordering::Relaxed) =>
                {
                    tries += 1;
                    std::thread::sleep(wait(tries));
                }
                other => return other,
            }
        }
    }
}

/// 50 ms, doubling, at most 3 s.
fn wait(tries: u32) -> Duration {
    Duration::from_millis((50_u64 << tries.min(6)).min(3_000))
}

fn already(fail: Fail) -> Result<(), Fail> {
    if fail.code == "already_exists" { Ok(()) } else { Err(fail) }
}

/// The body of a batch.
#[derive(Serialize)]
struct Messages<'a> {
    messages: &'a [Body],
}

fn to_text(messages: &Messages<'_>) -> Result<String, Fail> {
    serde_json::to_string(messages).map_err(Fail::failed)
}

/// Messages of one feed that go in one request.
#[derive(Default)]
struct Batch {
    messages: Vec<Body>,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.messages.len() >= BATCH_MESSAGES_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    fn push(&mut self, feed: &str, sender: &str, mut body: Body) {
        body.set("feed_id", feed);
        body.set("sender", sender);
        self.bytes += body.len_of("payload") + body.len_of("payload_base64") + 200;
        self.messages.push(body);
    }
}
