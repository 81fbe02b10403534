//! The writer, and how its store is checked afterwards.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use feedlog_core::entry::{Entry, Payload};
use feedlog_core::event::{Event, Message, MessageKind, Scope};
use feedlog_core::ids::{ClientMsgId, FeedId, SeqId, Uid};
use feedlog_storage::conformance::{Author, Random};
use feedlog_storage::{Direction, Engine, EngineError, EngineKind, OpenError, OpenOptions, Store, Upcasters};

/// Tells this program to be the writer.
pub(crate) const CHILD: &str = "FEEDLOG_FAULTS_CHILD";
const FEEDS: u64 = 8;
/// How long a lock may be held by somebody who does not use it.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Messages of one commit.
const BATCH_MAX: u64 = 32;

/// The engines on disk of this build.
pub(crate) fn engines() -> Vec<EngineKind> {
    [EngineKind::RocksDb, EngineKind::Sled].into_iter().filter(|kind| kind.is_available()).collect()
}

/// A number from the environment.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// The seed of this run, printed.
pub(crate) fn seed(what: &str) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = setting("FEEDLOG_SEED", now);
    println!("{what}: FEEDLOG_SEED={seed}");
    seed
}

pub(crate) fn options(dir: &Path, engine: EngineKind) -> OpenOptions {
    OpenOptions { dir: Some(dir.to_owned()), engine, cache_bytes: 8 << 20, ..OpenOptions::default() }
}

pub(crate) fn open(dir: &Path, engine: EngineKind) -> Result<Store, OpenError> {
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match feedlog_storage::open(&options(dir, engine), Upcasters::default()) {
            // Tests run side by side: a writer that another one is just starting shares this program's locks from its
            // fork to its exec.
            Err(OpenError::Locked(_)) if Instant::now() < until => std::thread::yield_now(),
            outcome => return outcome,
        }
    }
}

pub(crate) fn feed(number: u64) -> FeedId {
    FeedId::parse(&format!("feed-{number}")).unwrap()
}

fn sender(number: u64) -> Uid {
    Uid::parse(&format!("user-{number}")).unwrap()
}

/// What the writer sends at a place: the reader can tell without having seen it.
pub(crate) fn payload(feed: &FeedId, seq: SeqId, large_bytes: usize) -> Bytes {
    let mut random = Random(hash_of(feed.as_str()) ^ seq.0);
    let len = match random.below(64) {
        0 => 9000,
        1..4 => large_bytes,
        _ => random.below(400) as usize,
    };
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.number().to_le_bytes());
    }
    bytes.truncate(len);
    Bytes::from(bytes)
}

fn hash_of(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Adds a message at the end of a feed.
pub(crate) fn send(author: &mut Author, feed: &FeedId, large_bytes: usize) -> Result<SeqId, EngineError> {
    let seq = author.head(feed)?.seq.next();
    let message = Message {
        kind: MessageKind::Text,
        content_type: Arc::from("application/octet-stream"),
        client_msg_id: Some(ClientMsgId::parse(&format!("m{seq}")).unwrap()),
        scope: Scope::Sender,
        reply_to: None,
        mentions: Vec::new(),
        to_reply: None,
        seen_seq: SeqId::ZERO,
        sent_ms: None,
        expires_ms: None,
        auto: false,
        carried: Payload::None,
    };
    let payload = Payload::Bytes(payload(feed, seq, large_bytes));
    author.write(feed, &sender(seq.0 % 3), seq.0, Event::MessageSent(message), payload)
}

/// What a writer is told.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) dir: PathBuf,
    pub(crate) engine: EngineKind,
    pub(crate) seed: u64,
    /// Payload bytes of about one message in twenty: large ones make the engine switch and reuse its files.
    pub(crate) large_bytes: usize,
}

impl Job {
    pub(crate) fn from_env() -> Option<Self> {
        let text = std::env::var(CHILD).ok()?;
        let mut parts = text.splitn(4, ' ');
        let engine = parts.next()?;
        let engine = EngineKind::ALL.into_iter().find(|kind| kind.name() == engine)?;
        let seed = parts.next()?.parse().ok()?;
        let large_bytes = parts.next()?.parse().ok()?;
        Some(Self { dir: parts.next()?.into(), engine, seed, large_bytes })
    }

    fn to_env(&self) -> String {
        format!("{} {} {} {}", self.engine.name(), self.seed, self.large_bytes, self.dir.display())
    }

    /// Starts the writer, under the tracer when its arguments are given.
    pub(crate) fn start(&self, tracer: Option<&[String]>) -> Writer {
        let own = std::env::current_exe().unwrap();
        let mut command = match tracer {
            Some(words) => {
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]).arg(&own);
                command
            }
            None => Command::new(&own),
        };
        let mut child = command
            .args(["--exact", "writer_process", "--ignored", "--nocapture"])
            .env(CHILD, self.to_env())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Writer { child, lines, pid: None }
    }
}

/// What a writer says, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// The store is open; milliseconds it took.
    Open(u64),
    /// It did not open.
    NotOpen(String),
    /// Everything up to this place of this feed was answered with `Ok`.
    Ack(u64, u64),
    /// A commit failed: the class, then the text.
    Failed(String),
    /// After that: everything acknowledged is still read, nothing more is shown, and nothing is written any more.
    StillReads,
    /// After that: something else.
    Broken(String),
}

pub(crate) struct Writer {
    child: Child,
    /// The writer's own, which under a tracer is not the child's.
    pid: Option<u64>,
    lines: BufReader<ChildStdout>,
}

impl Writer {
    /// The next thing it says, `None` at its end.
    pub(crate) fn next(&mut self) -> Option<Said> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // A killed writer may leave half a line: that one acknowledged nothing.
            let Some(text) = line.strip_suffix('\n') else { continue };
            // libtest begins lines of its own.
            let Some(at) = text.find("say ") else { continue };
            let (what, rest) = text[at + 4..].split_once(' ').unwrap_or((&text[at + 4..], ""));
            let number = |text: &str| text.parse::<u64>().unwrap();
            return Some(match what {
                "pid" => {
                    self.pid = Some(number(rest));
                    continue;
                }
                "open" => Said::Open(number(rest)),
                "not-open" => Said::NotOpen(rest.to_owned()),
                "ack" => {
                    let (feed, seq) = rest.split_once(' ').unwrap();
                    Said::Ack(number(feed), number(seq))
                }
                "failed" => Said::Failed(rest.to_owned()),
                "still-reads" => Said::StillReads,
                "broken" => Said::Broken(rest.to_owned()),
                other => panic!("the writer said {other}"),
            });
        }
    }

    /// Kills it with SIGKILL and takes what it said before, into `acked`.
    pub(crate) fn kill(mut self, acked: &mut Acked) {
        if let Some(pid) = self.pid.filter(|pid| *pid != u64::from(self.child.id())) {
            // A tracer that is killed lets its tracee go on. It may have ended by itself.
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        } else {
            let _ = self.child.kill();
        }
        self.child.wait().unwrap();
        while let Some(said) = self.next() {
            if let Said::Ack(feed, seq) = said {
                acked.insert(feed, seq);
            }
        }
    }
}

/// The newest acknowledged place of each feed.
pub(crate) type Acked = BTreeMap<u64, u64>;

fn say(what: std::fmt::Arguments<'_>) {
    // One write call per line: a kill tears none of them from its newline unnoticed.
    let line = format!("say {what}\n");
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Appends and acknowledges until somebody ends it. After a failed commit it tells whether reads go on, and ends.
pub(crate) fn write_until_killed(job: &Job) {
    say(format_args!("pid {}", std::process::id()));
    let begin = Instant::now();
    let store = match open(&job.dir, job.engine) {
        Ok(store) => store,
        Err(error) => return say(format_args!("not-open {error}")),
    };
    say(format_args!("open {}", begin.elapsed().as_millis()));
    let engine = store.engine();
    let mut author = Author::new(engine.clone());
    let mut random = Random(job.seed);
    let mut acked = Acked::new();
    for number in 0..FEEDS {
        acked.insert(number, engine.head(&feed(number)).unwrap().seq.0);
    }
    loop {
        if random.one_in(2000) {
            let upto = engine.commit_no().saturating_sub(100);
            // A failure shows at the next commit.
            let _ = engine.prune_changes(upto);
        }
        let written = (|| {
            for _ in 0..=random.below(BATCH_MAX) {
                let feed = feed(random.below(FEEDS));
                author.open_feed(&feed, &sender(0))?;
                send(&mut author, &feed, job.large_bytes)?;
            }
            author.commit()
        })();
        match written {
            Ok((entries, _)) => {
                for entry in entries {
                    let number = entry.feed.as_str()["feed-".len()..].parse().unwrap();
                    acked.insert(number, entry.seq.0);
                }
                for (feed, seq) in &acked {
                    say(format_args!("ack {feed} {seq}"));
                }
            }
            Err(error) => {
                say(format_args!("failed {error:?}"));
                return match still_reads(&*engine, &acked, job.large_bytes) {
                    Ok(()) => say(format_args!("still-reads")),
                    Err(what) => say(format_args!("broken {what}")),
                };
            }
        }
    }
}

/// After a failed commit: the durable heads are what was acknowledged, entries are read, nothing is written.
pub(crate) fn still_reads(engine: &dyn Engine, acked: &Acked, large_bytes: usize) -> Result<(), String> {
    for (number, seq) in acked {
        let feed = feed(*number);
        let head = engine.head(&feed).map_err(|error| error.to_string())?.seq.0;
        if head != *seq {
            return Err(format!("feed {feed} shows head {head}, acknowledged was {seq}"));
        }
        check_feed(engine, &feed, large_bytes)?;
    }
    let group = feedlog_storage::conformance::group(vec![feedlog_storage::conformance::created(&feed(99))]);
    match engine.commit(vec![group]).pop() {
        Some(Err(EngineError::Poisoned)) if engine.is_poisoned() => Ok(()),
        other => Err(format!("a commit after a failed one gave {other:?}")),
    }
}

/// Every entry of a feed is the one that was sent to its place, from 1 to the head. Gives the head.
pub(crate) fn check_feed(engine: &dyn Engine, feed: &FeedId, large_bytes: usize) -> Result<u64, String> {
    let head = engine.head(feed).map_err(|error| error.to_string())?.seq;
    let mut next = SeqId(1);
    while next <= head {
        let page = engine
            .read(feed, next, head, Direction::Forward, 500, 4 << 20)
            .map_err(|error| format!("feed {feed} from {next}: {error}"))?;
        for entry in &page {
            check_entry(entry, next, large_bytes)?;
            next = next.next();
        }
        if page.is_empty() {
            return Err(format!("feed {feed} has no entry {next}, its head is {head}"));
        }
    }
    Ok(head.0)
}

fn check_entry(entry: &Entry, seq: SeqId, large_bytes: usize) -> Result<(), String> {
    let same = entry.seq == seq
        && match &entry.payload {
            Payload::Bytes(bytes) => *bytes == payload(&entry.feed, seq, large_bytes),
            other => *other == Payload::None && seq == SeqId(1),
        };
    if same { Ok(()) } else { Err(format!("feed {} has something else at {seq}: {entry:?}", entry.feed)) }
}

/// Opens what a writer left. Everything acknowledged is there and nothing else than what it may have been writing; the
/// store verifies. `acked` becomes what is there.
pub(crate) fn check_store(job: &Job, acked: &mut Acked) -> Store {
    let store = open(&job.dir, job.engine).unwrap_or_else(|error| panic!("{job:?}: {error}"));
    let engine = store.engine();
    for number in 0..FEEDS {
        let was = acked.get(&number).copied().unwrap_or(0);
        let is = check_feed(&*engine, &feed(number), job.large_bytes)
            .unwrap_or_else(|what| panic!("{job:?}: {what}"));
        assert!(is >= was, "{job:?}: feed {number} ends at {is}, {was} was acknowledged");
        // One commit may have been in flight: at most so many messages and the feed's creation.
        assert!(
            is <= was + BATCH_MAX + 2,
            "{job:?}: feed {number} ends at {is}, only {was} was acknowledged"
        );
        acked.insert(number, is);
    }
    let report = store.verify(&mut |_| {}).unwrap_or_else(|error| panic!("{job:?}: {error}"));
    assert_eq!(report.damage, None, "{job:?}");
    store
}

/// Copies a directory.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).unwrap();
        }
    }
}

/// Every file below a directory, in order, with its length.
pub(crate) fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push((entry.path(), entry.metadata().unwrap().len()));
        }
    }
    found.sort();
    found
}
