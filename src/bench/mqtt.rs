//! `feedlog bench mqtt`: any MQTT broker, ours or another, beside a bare echo and Redis, with one generator in one run;
//! and `feedlog bench ws`, the same beside our WebSocket systems.
//!
//! Question: how much of what the sockets of this machine can do is left after the protocol, the store and the sync,
//! and how do other programs do in the same minute?
//!
//! The generator runs on one thread of its own, so that every program under test meets the same client and may have
//! the rest of the machine. Rounds of all programs alternate, and ratios are made within a round: a noisy machine
//! slows all of them.

mod client;
mod fanout;
mod idle;
mod others;
mod publish;
mod web;

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use feedlog_api::mqtt::wire::Level;

use self::web::Wire;
use super::stats::median;
use super::{BenchError, Report};

/// How an MQTT broker is driven.
#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// Acknowledged messages per second: publishers that each wait for the broker's ack.
    ///
    /// Example: feedlog bench mqtt publish --broker feedlog=127.0.0.1:1883
    ///   --broker mosquitto=127.0.0.1:1884,subscribers=1 --echo --redis 127.0.0.1:6379
    #[command(verbatim_doc_comment)]
    Publish(publish::PublishArgs),
    /// Messages delivered per second: one publisher, many subscribers of QoS 0.
    ///
    /// Example: feedlog bench mqtt fanout --broker feedlog=127.0.0.1:1883 --subscribers 1000
    Fanout(fanout::FanoutArgs),
    /// Memory per connection that says nothing.
    ///
    /// Example: feedlog bench mqtt idle --broker feedlog=127.0.0.1:1883,pid=4711 --connections 10000
    Idle(idle::IdleArgs),
}

/// What every mode needs to know.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// A broker: NAME=ADDR:PORT, then if wanted `,pid=N` (its processor time and memory are shown), `,subscribers=N`
    /// (that many clients receive all that is published) and `,wire=W` for what else feedlog speaks at its HTTP port:
    /// `room` and `packet` (raw frames and data packets of gotapi-ws), `connmix` (`/ws/v1`, `/message-center`). The
    /// first one is compared with the others.
    #[arg(long = "broker", value_name = "BROKER", required = true)]
    brokers: Vec<Broker>,
    /// User name of every client.
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Password or token of every client.
    #[arg(long, env = "FEEDLOG_BENCH_PASSWORD", hide_env_values = true, value_name = "TOKEN")]
    password: Option<String>,
    /// Protocol version of the clients.
    #[arg(long, value_enum, default_value_t = Version::V311)]
    protocol: Version,
    /// Topics begin with this.
    #[arg(long, default_value = "bench", value_name = "TOPIC")]
    prefix: String,
    /// Length of one round, in seconds.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Rounds; the median of them is the figure.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Size of a payload, in bytes.
    #[arg(long, default_value_t = 200)]
    payload_bytes: usize,
    /// Nothing but the report is printed.
    #[arg(skip)]
    json: bool,
}

impl Common {
    fn lasting(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn say(&self, line: &str) {
        if !self.json {
            eprintln!("{line}");
        }
    }
}

/// A protocol version, as options name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub(crate) enum Version {
    #[value(name = "3.1")]
    V31,
    #[value(name = "3.1.1")]
    V311,
    #[value(name = "5")]
    V5,
}

impl Version {
    fn level(self) -> Level {
        match self {
            Self::V31 => Level::V31,
            Self::V311 => Level::V311,
            Self::V5 => Level::V5,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::V31 => "3.1",
            Self::V311 => "3.1.1",
            Self::V5 => "5",
        }
    }
}

/// A broker under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broker {
    name: String,
    address: SocketAddr,
    pid: Option<u32>,
    subscribers: usize,
    wire: Wire,
}

impl Broker {
    fn speaks(&self, common: &Common) -> String {
        match self.wire {
            Wire::Mqtt => format!("MQTT {}", common.protocol.name()),
            Wire::Room | Wire::Packet => "each in a room of its own".to_owned(),
            Wire::Connmix => "each logged in, with a channel of its own".to_owned(),
        }
    }
}

impl FromStr for Broker {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usage = || format!("{text:?} is not NAME=ADDR:PORT[,pid=N][,subscribers=N][,wire=W]");
        let (name, rest) = text.split_once('=').ok_or_else(usage)?;
        let mut parts = rest.split(',');
        let address = parts.next().and_then(|address| address.parse().ok()).ok_or_else(usage)?;
        let mut broker = Self { name: name.to_owned(), address, pid: None, subscribers: 0, wire: Wire::Mqtt };
        for part in parts {
            match part.split_once('=') {
                Some(("pid", pid)) => broker.pid = Some(pid.parse().map_err(|_| usage())?),
                Some(("wire", name)) => broker.wire = Wire::named(name).ok_or_else(usage)?,
                Some(("subscribers", n)) => broker.subscribers = n.parse().map_err(|_| usage())?,
                _ => return Err(usage()),
            }
        }
        Ok(broker)
    }
}

/// What one program did in all rounds.
#[derive(Debug, serde::Serialize)]
struct Side {
    name: String,
    /// One figure a round.
    per_s: Vec<f64>,
    per_s_median: f64,
    p50_us: f64,
    p99_us: f64,
    /// Processor time of the program for one message, where its process id is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_us: Option<f64>,
    /// Messages that did not arrive.
    lost: u64,
}

/// The first program over another one; the median of what it was within each round.
#[derive(Debug, serde::Serialize)]
struct Ratio {
    of: String,
    over: String,
    median: f64,
    per_round: Vec<f64>,
}

/// One program in one round.
#[derive(Debug, Clone, Copy)]
struct Figures {
    per_s: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: Option<f64>,
    lost: u64,
}

/// The outcome of `bench mqtt publish` and `fanout`.
#[derive(Debug, serde::Serialize)]
struct Sides {
    /// What the figures count.
    unit: &'static str,
    settings: String,
    sides: Vec<Side>,
    ratios: Vec<Ratio>,
}

impl Sides {
    /// From every program's rounds. The program at `of` is compared with all others.
    fn new(unit: &'static str, settings: String, of: usize, rounds: &[(String, Vec<Figures>)]) -> Self {
        let middle = |figures: &[Figures], pick: fn(&Figures) -> f64| {
            median(&figures.iter().map(pick).collect::<Vec<_>>())
        };
        let sides = rounds
            .iter()
            .map(|(name, figures)| Side {
                name: name.clone(),
                per_s: figures.iter().map(|f| f.per_s).collect(),
                per_s_median: middle(figures, |f| f.per_s),
                p50_us: middle(figures, |f| f.p50_us),
                p99_us: middle(figures, |f| f.p99_us),
                cpu_us: figures
                    .iter()
                    .map(|f| f.cpu_us)
                    .collect::<Option<Vec<_>>>()
                    .map(|figures| median(&figures)),
                lost: figures.iter().map(|f| f.lost).sum(),
            })
            .collect();
        let mut ratios = Vec::new();
        if let Some((name, first)) = rounds.get(of) {
            for (at, (other, figures)) in rounds.iter().enumerate() {
                if at == of {
                    continue;
                }
                let per_round: Vec<f64> =
                    first.iter().zip(figures).map(|(mine, theirs)| mine.per_s / theirs.per_s).collect();
                let median = median(&per_round);
                ratios.push(Ratio { of: name.clone(), over: other.clone(), median, per_round });
            }
        }
        Self { unit, settings, sides, ratios }
    }
}

impl Report for Sides {
    fn lines(&self) -> Vec<String> {
        let width = self.sides.iter().map(|side| side.name.chars().count()).max().unwrap_or(0);
        let mut lines = vec![format!(
            "medians of {} rounds, {}",
            self.sides.first().map_or(0, |side| side.per_s.len()),
            self.unit
        )];
        for side in &self.sides {
            let cpu = side.cpu_us.map_or(String::new(), |us| format!("   cpu {us:6.2} µs each"));
            let lost = if side.lost > 0 { format!("   LOST {}", side.lost) } else { String::new() };
            lines.push(format!(
                "  {:width$}  {:10.0}/s   p50 {:7.0} µs   p99 {:7.0} µs{cpu}{lost}",
                side.name, side.per_s_median, side.p50_us, side.p99_us
            ));
        }
        for ratio in &self.ratios {
            lines.push(format!("{} / {}: {:.3}", ratio.of, ratio.over, ratio.median));
        }
        lines
    }
}

/// Runs a mode on a thread of its own and prints its figures.
pub(crate) fn run(mode: &Mode, json: bool) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    client::raise_file_limit();
    match mode {
        Mode::Publish(args) => {
            let mut args = args.clone();
            args.common.json = json;
            super::print(json, &runtime.block_on(publish::run(&args))?)
        }
        Mode::Fanout(args) => {
            let mut args = args.clone();
            args.common.json = json;
            super::print(json, &runtime.block_on(fanout::run(&args))?)
        }
        Mode::Idle(args) => {
            let mut args = args.clone();
            args.common.json = json;
            super::print(json, &runtime.block_on(idle::run(&args))?)
        }
    }
}

/// The order of a round: there and back, so that no program always runs behind the same other.
fn order(round: usize, programs: usize) -> Vec<usize> {
    let order = 0..programs;
    if round.is_multiple_of(2) { order.collect() } else { order.rev().collect() }
}

/// Processor time a process has used so far, with the threads that have ended.
fn process_cpu(pid: u32) -> Option<Duration> {
    /// What `/proc` counts in, on every Linux.
    const TICKS_PER_S: u64 = 100;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in brackets, may itself hold spaces and brackets. utime and stime are fields 14 and 15.
    let (_, after) = text.rsplit_once(')')?;
    let ticks = after.split_ascii_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let sum: u64 = ticks.sum::<Result<_, _>>().ok()?;
    Some(Duration::from_millis(sum * 1000 / TICKS_PER_S))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_has_a_name_an_address_and_options() {
        let broker: Broker = "m=127.0.0.1:1883,pid=7,subscribers=2".parse().unwrap();
        assert_eq!((broker.name.as_str(), broker.pid, broker.subscribers), ("m", Some(7), 2));
        assert_eq!(broker.wire, Wire::Mqtt);
        let broker: Broker = "r=127.0.0.1:7171,wire=room".parse().unwrap();
        assert_eq!(broker.wire, Wire::Room);
        let wrong = ["127.0.0.1:1883", "m=localhost", "m=127.0.0.1:1883,pid", "m=127.0.0.1:1883,x=1"];
        for wrong in wrong.into_iter().chain(["m=127.0.0.1:1883,wire=xmpp"]) {
            assert!(wrong.parse::<Broker>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_processor_time_of_a_process_is_found() {
        assert!(process_cpu(std::process::id()).is_some());
    }

    #[test]
    fn ratios_are_made_within_a_round() {
        let figures = |per_s| Figures { per_s, p50_us: 1.0, p99_us: 2.0, cpu_us: None, lost: 0 };
        let rounds = [
            ("echo".to_owned(), vec![figures(100.0), figures(10.0), figures(50.0)]),
            ("ours".to_owned(), vec![figures(50.0), figures(8.0), figures(30.0)]),
        ];
        let sides = Sides::new("acks", String::new(), 1, &rounds);
        assert_eq!(sides.ratios.len(), 1);
        assert_eq!(sides.ratios[0].per_round, [0.5, 0.8, 0.6]);
        assert_eq!(sides.ratios[0].median, 0.6);
        assert!(sides.lines().last().unwrap().contains("ours / echo: 0.600"));
    }
}
