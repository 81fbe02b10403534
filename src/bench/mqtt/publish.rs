//! Publishers that wait for their acks, beside an echo of the same frames and Redis with the same payloads.
//!
//! Back of an envelope: a round trip over loopback costs each side two system calls and a wake-up, some ten
//! microseconds of one core; a durable ack adds its share of one `fdatasync`, which 64 waiting publishers divide.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use clap::Args;
use feedlog_api::mqtt::wire::{Ack, Packet, PacketId, Properties, Qos, encode, encode::SharedPublish};
use tokio::io::AsyncWriteExt;

use super::super::BenchError;
use super::super::stats::percentile;
use super::super::text::Texts;
use super::client::{Client, Skim, take, unexpected};
use super::others::{self, Echo};
use super::web::{Sends, Web, Wire};
use super::{Broker, Common, Figures, Sides, order, process_cpu};

/// Frames that every publisher sends in turn.
pub(super) const FRAMES: usize = 16;

/// What publishers do.
#[derive(Debug, Clone, Args)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Publishers; each has a topic of its own.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(super) publishers: u16,
    /// Messages that a publisher keeps in flight.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) window: u16,
    /// Quality of service: 1 (PUBACK) or 2 (PUBREC, PUBREL, PUBCOMP).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(super) qos: u8,
    /// Also a bare echo server of this process: the same connections and frames, nothing behind them.
    #[arg(long)]
    echo: bool,
    /// Also RPUSH to a Redis server, with the same connections and payloads. Start it with `appendonly yes` and
    /// `appendfsync always`; what it says of these is printed.
    #[arg(long, value_name = "ADDR:PORT")]
    redis: Option<SocketAddr>,
}

impl PublishArgs {
    pub(super) fn publishers(&self) -> usize {
        usize::from(self.publishers)
    }

    fn settings(&self) -> String {
        format!(
            "{} publishers (of QoS {} on MQTT {}), {} in flight each, {}-byte payloads, {} rounds of {} s",
            self.publishers,
            self.qos,
            self.common.protocol.name(),
            self.window,
            self.common.payload_bytes,
            self.common.rounds,
            self.common.seconds
        )
    }
}

/// One program of a run.
enum Program {
    Echo(Echo),
    Redis(SocketAddr),
    Broker(Broker),
}

/// Runs the rounds.
pub(super) async fn run(args: &PublishArgs) -> Result<Sides, BenchError> {
    let common = &args.common;
    let mut settings = args.settings();
    let mut programs = Vec::new();
    if args.echo {
        programs.push(("echo".to_owned(), Program::Echo(Echo::start()?)));
    }
    if let Some(address) = args.redis {
        settings = format!("{settings}; redis: {}", others::redis_settings(address).await?);
        programs.push(("redis".to_owned(), Program::Redis(address)));
    }
    let first = programs.len();
    for broker in &common.brokers {
        let name = match broker.subscribers {
            0 => broker.name.clone(),
            n => format!("{} with {n} subscribed", broker.name),
        };
        programs.push((name, Program::Broker(broker.clone())));
    }
    common.say(&format!("bench publish: {settings}"));
    let mut texts = Texts::new(None, common.payload_bytes, 1)?;
    let payloads: Vec<Bytes> = (0..args.publishers() * FRAMES).map(|_| texts.next()).collect();

    let mut rounds: Vec<(String, Vec<Figures>)> =
        programs.iter().map(|(name, _)| (name.clone(), Vec::new())).collect();
    for round in 0..common.rounds {
        for at in order(round, programs.len()) {
            let (name, program) = &programs[at];
            let pid = match program {
                Program::Broker(broker) => broker.pid,
                _ => None,
            };
            let before = pid.and_then(process_cpu);
            let mut measured = match program {
                Program::Echo(echo) => others::echo_round(args, echo.address, &payloads).await,
                Program::Redis(address) => others::redis_round(args, *address, &payloads).await,
                Program::Broker(broker) if broker.wire != Wire::Mqtt => {
                    web_round(args, broker, &payloads).await
                }
                Program::Broker(broker) => broker_round(args, broker, &payloads).await,
            }
            .map_err(|error| BenchError::Other(format!("{name}: {error}")))?;
            let cpu = pid.and_then(process_cpu).zip(before).map(|(after, before)| after - before);
            let figures = Figures {
                per_s: measured.latencies.len() as f64 / measured.elapsed.as_secs_f64(),
                p50_us: percentile(&mut measured.latencies, 50.0).as_secs_f64() * 1e6,
                p99_us: percentile(&mut measured.latencies, 99.0).as_secs_f64() * 1e6,
                cpu_us: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / measured.latencies.len() as f64),
                lost: 0,
            };
            common.say(&format!(
                "round {round}: {name:24} {:10.0}/s   p50 {:7.0} µs   p99 {:7.0} µs",
                figures.per_s, figures.p50_us, figures.p99_us
            ));
            rounds[at].1.push(figures);
        }
    }
    Ok(Sides::new("messages acknowledged per second", settings, first, &rounds))
}

/// What a round measured.
pub(super) struct Measured {
    pub(super) latencies: Vec<Duration>,
    pub(super) elapsed: Duration,
}

/// Runs the tasks of a round until it is over; a task returns its latencies.
pub(super) async fn gather<F>(
    lasting: Duration,
    tasks: Vec<F>,
    stop: &AtomicBool,
) -> Result<Measured, BenchError>
where
    F: Future<Output = Result<Vec<Duration>, BenchError>> + Send + 'static,
{
    let start = Instant::now();
    let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    tokio::time::sleep(lasting).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for task in tasks {
        let ended = tokio::time::timeout(super::client::PATIENCE, task).await;
        let ended = ended.map_err(|_| BenchError::Other("acks stay away".into()))?;
        latencies.extend(ended.expect("a publisher does not panic")?);
    }
    Ok(Measured { latencies, elapsed: start.elapsed() })
}

async fn broker_round(
    args: &PublishArgs,
    broker: &Broker,
    payloads: &[Bytes],
) -> Result<Measured, BenchError> {
    let common = &args.common;
    let delivered = Arc::new(AtomicU64::new(0));
    let mut subscribers = Vec::new();
    for n in 0..broker.subscribers {
        let mut client = Client::connect(common, broker.address, args.publishers() + n).await?;
        client.subscribe(&format!("{}/#", common.prefix)).await?;
        subscribers.push(tokio::spawn(receive(client, delivered.clone())));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for (publisher, payloads) in payloads.chunks(FRAMES).enumerate() {
        let client = Client::connect(common, broker.address, publisher).await?;
        let level = common.protocol.level();
        let qos = if args.qos == 2 { Qos::ExactlyOnce } else { Qos::AtLeastOnce };
        let topic = format!("{}/{publisher}", common.prefix);
        let frames = payloads
            .iter()
            .map(|payload| SharedPublish::new(level, qos, false, &topic, &[], payload))
            .collect();
        tasks.push(publish(client, frames, args.window, level, stop.clone()));
    }
    let measured = gather(common.lasting(), tasks, &stop).await;
    for subscriber in &subscribers {
        subscriber.abort();
    }
    if broker.subscribers > 0 && delivered.load(Ordering::Relaxed) == 0 {
        return Err(BenchError::Other("nothing reaches the subscribers".into()));
    }
    measured
}

async fn web_round(args: &PublishArgs, broker: &Broker, payloads: &[Bytes]) -> Result<Measured, BenchError> {
    let common = &args.common;
    if broker.wire == Wire::Room || broker.subscribers > 0 {
        return Err(BenchError::Other(
            "nothing acknowledges raw frames, and nobody can be subscribed".into(),
        ));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for (publisher, payloads) in payloads.chunks(FRAMES).enumerate() {
        let name = publisher.to_string();
        let web = Web::publisher(common, broker, publisher, &name).await?;
        let sends = Sends::new(common, broker.wire, &name);
        tasks.push(publish_on_web(web, sends, payloads.to_vec(), args.window, stop.clone()));
    }
    gather(common.lasting(), tasks, &stop).await
}

/// As `publish`, over WebSocket.
async fn publish_on_web(
    mut web: Web,
    mut sends: Sends,
    payloads: Vec<Bytes>,
    window: u16,
    stop: Arc<AtomicBool>,
) -> Result<Vec<Duration>, BenchError> {
    let mut latencies = Vec::new();
    let mut free: Vec<u16> = (0..window).rev().collect();
    let mut sent = vec![Instant::now(); usize::from(window)];
    let mut waiting = VecDeque::new();
    let mut out = BytesMut::new();
    let mut payloads = payloads.iter().cycle();
    loop {
        if !stop.load(Ordering::Relaxed) {
            while let (false, Some(payload)) = (free.is_empty(), payloads.next()) {
                let Some(slot) = free.pop() else { break };
                sent[usize::from(slot)] = Instant::now();
                waiting.push_back(slot);
                sends.write(payload, slot, &mut out);
            }
        }
        if !out.is_empty() {
            web.stream.write_all(&out).await?;
            out.clear();
        }
        if waiting.is_empty() {
            return Ok(latencies);
        }
        let mut text = Some(web.next().await?);
        while let Some(next) = text {
            let slot = sends.answered(&next, waiting.front().copied())?;
            let at = waiting.iter().position(|waits| *waits == slot);
            waiting.remove(at.ok_or_else(|| BenchError::Other(format!("an answer to {slot}, not sent")))?);
            latencies.push(sent[usize::from(slot)].elapsed());
            free.push(slot);
            text = web.buffered()?;
        }
    }
}

/// One publisher: keeps its window full until `stop`, then waits for what is in flight.
async fn publish(
    mut client: Client,
    frames: Vec<SharedPublish>,
    window: u16,
    level: feedlog_api::mqtt::wire::Level,
    stop: Arc<AtomicBool>,
) -> Result<Vec<Duration>, BenchError> {
    let mut latencies = Vec::new();
    let mut free: Vec<PacketId> = (1..=window).rev().filter_map(PacketId::new).collect();
    let mut sent = vec![Instant::now(); usize::from(window)];
    let mut out = BytesMut::new();
    let mut frames = frames.iter().cycle();
    loop {
        if !stop.load(Ordering::Relaxed) {
            while let (false, Some(frame)) = (free.is_empty(), frames.next()) {
                let Some(id) = free.pop() else { break };
                sent[usize::from(id.get()) - 1] = Instant::now();
                frame.write(false, Some(id), &mut out);
            }
        }
        if !out.is_empty() {
            client.stream.write_all(&out).await?;
            out.clear();
        }
        if free.len() == usize::from(window) {
            return Ok(latencies);
        }
        let mut packet = Some(client.next().await?);
        while let Some(next) = packet {
            match next {
                Packet::Puback(ack) | Packet::Pubcomp(ack) => {
                    accepted(&ack)?;
                    let slot = sent.get(usize::from(ack.packet_id.get()) - 1);
                    latencies.push(slot.ok_or_else(|| stray(&ack))?.elapsed());
                    free.push(ack.packet_id);
                }
                Packet::Pubrec(ack) => {
                    accepted(&ack)?;
                    let rel = Ack { packet_id: ack.packet_id, reason: 0, properties: Properties::default() };
                    encode::packet(level, &Packet::Pubrel(rel), &mut out);
                }
                other => return Err(unexpected("an ack", &other)),
            }
            packet = client.buffered()?;
        }
    }
}

fn accepted(ack: &Ack) -> Result<(), BenchError> {
    if ack.reason < 0x80 { Ok(()) } else { Err(BenchError::Other(format!("refused: 0x{:02x}", ack.reason))) }
}

fn stray(ack: &Ack) -> BenchError {
    BenchError::Other(format!("an ack of packet {} that was not sent", ack.packet_id))
}

/// Takes everything and counts it.
async fn receive(client: Client, delivered: Arc<AtomicU64>) {
    let mut skim = Skim::default();
    while let Ok(n) = take(&client.stream, |bytes| skim.publishes(bytes)).await {
        delivered.fetch_add(n, Ordering::Relaxed);
    }
}
