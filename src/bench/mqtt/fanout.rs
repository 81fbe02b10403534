//! One publisher, many subscribers.
//!
//! Back of an envelope: a frame of 220 bytes for each of 1,000 subscribers is one system call each, unless frames that
//! wait are written together; so what counts is how many messages a broker puts into one write.
//!
//! The publisher keeps a few messages in flight, counted until the last subscriber on average has them: no broker is
//! flooded into dropping what it may drop at QoS 0, and all do the same work.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use clap::Args;
use feedlog_api::mqtt::wire::{Packet, PacketId, Qos, encode::SharedPublish};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::super::BenchError;
use super::super::stats::percentile;
use super::super::text::Texts;
use super::client::{Client, PATIENCE, Skim, take, unexpected};
use super::web::{Sends, Web, WebSkim, Wire};
use super::{Broker, Common, Figures, Sides, order, process_cpu};

/// What publisher and subscribers do.
#[derive(Debug, Clone, Args)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Subscribers of the one topic, with QoS 0.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    subscribers: u32,
    /// Messages that are under way at once.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    window: u16,
    /// Quality of service of the publisher: 0 or 1.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    qos: u8,
}

/// Runs the rounds.
pub(super) async fn run(args: &FanoutArgs) -> Result<Sides, BenchError> {
    let common = &args.common;
    let settings = format!(
        "1 publisher (of QoS {} on MQTT {}), {} under way, {} subscribers of QoS 0, {}-byte payloads, {} rounds of {} s",
        args.qos,
        common.protocol.name(),
        args.window,
        args.subscribers,
        common.payload_bytes,
        common.rounds,
        common.seconds
    );
    common.say(&format!("bench fanout: {settings}"));
    let payload = Texts::new(None, common.payload_bytes, 1)?.next();
    let mut rounds: Vec<(String, Vec<Figures>)> =
        common.brokers.iter().map(|broker| (broker.name.clone(), Vec::new())).collect();
    for round in 0..common.rounds {
        for at in order(round, common.brokers.len()) {
            let broker = &common.brokers[at];
            let figures = one(args, broker, &payload)
                .await
                .map_err(|error| BenchError::Other(format!("{}: {error}", broker.name)))?;
            common.say(&format!(
                "round {round}: {:24} {:10.0}/s   to all: p50 {:7.0} µs   p99 {:7.0} µs   lost {}",
                broker.name, figures.per_s, figures.p50_us, figures.p99_us, figures.lost
            ));
            rounds[at].1.push(figures);
        }
    }
    Ok(Sides::new("messages delivered per second (p50, p99: until all have it)", settings, 0, &rounds))
}

/// What subscribers got together, and who waits to hear of it.
#[derive(Default)]
struct Delivered {
    messages: AtomicU64,
    more: Notify,
}

async fn one(args: &FanoutArgs, broker: &Broker, payload: &Bytes) -> Result<Figures, BenchError> {
    let common = &args.common;
    let delivered = Arc::new(Delivered::default());
    let count = u64::from(args.subscribers);
    let mut subscribers = Vec::new();
    for number in 0..args.subscribers {
        let (number, delivered) = (number as usize + 1, delivered.clone());
        subscribers.push(if broker.wire == Wire::Mqtt {
            let mut client = Client::connect(common, broker.address, number).await?;
            client.subscribe(&format!("{}/{NAME}", common.prefix)).await?;
            let mut skim = Skim::default();
            tokio::spawn(receive(client.stream, delivered, count, move |bytes| skim.publishes(bytes)))
        } else {
            let web = Web::subscriber(common, broker, number, NAME).await?;
            let mut skim = WebSkim::default();
            tokio::spawn(receive(web.stream, delivered, count, move |bytes| skim.texts(bytes)))
        });
    }
    let mut publisher = Publisher::connect(args, broker, payload).await?;

    let before = broker.pid.and_then(process_cpu);
    let start = Instant::now();
    let (mut under_way, mut times) = (VecDeque::new(), Vec::new());
    let mut sent = 0_u64;
    let mut out = BytesMut::new();
    let mut last_progress = Instant::now();
    loop {
        let over = start.elapsed() >= common.lasting();
        // A message counts as arrived once as many were delivered as there are copies of it and of those before it.
        let whole = delivered.messages.load(Ordering::Relaxed) / count;
        while under_way.len() as u64 > sent - whole.min(sent) {
            let began: Instant = under_way.pop_front().expect("just seen not to be empty");
            times.push(began.elapsed());
            last_progress = Instant::now();
        }
        while !over && under_way.len() < usize::from(args.window) {
            publisher.write(payload, &mut out);
            under_way.push_back(Instant::now());
            sent += 1;
        }
        if !out.is_empty() {
            publisher.stream().write_all(&out).await?;
            out.clear();
        }
        if (over && under_way.is_empty()) || last_progress.elapsed() > PATIENCE / 5 {
            break;
        }
        tokio::select! {
            () = delivered.more.notified() => {}
            answer = publisher.answer() => answer?,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
    // Losing is not faster: what did not come is counted with the time that was waited for it.
    let elapsed = start.elapsed();
    let got = delivered.messages.load(Ordering::Relaxed);
    for subscriber in &subscribers {
        subscriber.abort();
    }
    let cpu = broker.pid.and_then(process_cpu).zip(before).map(|(after, before)| after - before);
    Ok(Figures {
        per_s: got as f64 / elapsed.as_secs_f64(),
        p50_us: percentile(&mut times, 50.0).as_secs_f64() * 1e6,
        p99_us: percentile(&mut times, 99.0).as_secs_f64() * 1e6,
        cpu_us: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / got.max(1) as f64),
        lost: (sent * count).saturating_sub(got),
    })
}

/// What messages are published under.
const NAME: &str = "fanout";

/// The one that publishes; what acknowledges it is read and not waited for.
enum Publisher {
    Mqtt { client: Client, frame: SharedPublish, ids: Box<dyn Iterator<Item = PacketId>>, qos: u8 },
    Web { web: Web, sends: Sends },
}

impl Publisher {
    async fn connect(args: &FanoutArgs, broker: &Broker, payload: &Bytes) -> Result<Self, BenchError> {
        let common = &args.common;
        if broker.wire != Wire::Mqtt {
            let web = Web::publisher(common, broker, 0, NAME).await?;
            return Ok(Self::Web { web, sends: Sends::new(common, broker.wire, NAME) });
        }
        let client = Client::connect(common, broker.address, 0).await?;
        let qos = if args.qos == 1 { Qos::AtLeastOnce } else { Qos::AtMostOnce };
        let topic = format!("{}/{NAME}", common.prefix);
        let frame = SharedPublish::new(common.protocol.level(), qos, false, &topic, &[], payload);
        let ids = Box::new((1..=u16::MAX).filter_map(PacketId::new).cycle());
        Ok(Self::Mqtt { client, frame, ids, qos: args.qos })
    }

    fn write(&mut self, payload: &[u8], out: &mut BytesMut) {
        match self {
            Self::Mqtt { frame, ids, qos, .. } => {
                frame.write(false, if *qos == 1 { ids.next() } else { None }, out);
            }
            Self::Web { sends, .. } => sends.write(payload, 0, out),
        }
    }

    fn stream(&mut self) -> &mut TcpStream {
        match self {
            Self::Mqtt { client, .. } => &mut client.stream,
            Self::Web { web, .. } => &mut web.stream,
        }
    }

    async fn answer(&mut self) -> Result<(), BenchError> {
        match self {
            Self::Mqtt { client, .. } => match client.next().await? {
                Packet::Puback(ack) if ack.reason < 0x80 => Ok(()),
                other => Err(unexpected("PUBACK", &other)),
            },
            Self::Web { web, sends } => sends.answered(&web.next().await?, Some(0)).map(drop),
        }
    }
}

async fn receive(
    stream: TcpStream,
    delivered: Arc<Delivered>,
    count: u64,
    mut skim: impl FnMut(&[u8]) -> u64,
) {
    while let Ok(n) = take(&stream, &mut skim).await {
        let before = delivered.messages.fetch_add(n, Ordering::Relaxed);
        // The publisher is woken when a message has reached everybody, not for every copy.
        if before / count != (before + n) / count {
            delivered.more.notify_one();
        }
    }
}
