//! Connections that say nothing.
//!
//! Back of an envelope: a task, a socket and a session without subscriptions are a few kilobytes; a read buffer that is
//! kept for every connection would be more than all the rest.

use std::time::{Duration, Instant};

use clap::Args;
use tokio::net::TcpStream;

use super::super::BenchError;
use super::super::Report;
use super::client::Client;
use super::web::{Web, Wire};
use super::{Broker, Common};

/// How many, and how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Connections to open, one after the other, and to hold.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Each subscribes to one topic of its own. In the rooms of gotapi-ws each is in a room of its own anyway, and in
    /// CONNMIX each is logged in and has a channel of its own.
    #[arg(long)]
    subscribed: bool,
}

/// What one broker needs.
#[derive(Debug, serde::Serialize)]
struct Held {
    name: String,
    connections: usize,
    connects_per_s: f64,
    rss_kib_before: Option<u64>,
    rss_kib_held: Option<u64>,
    /// Memory of one connection, KiB.
    rss_kib_each: Option<f64>,
}

/// The outcome of `bench mqtt idle`.
#[derive(Debug, serde::Serialize)]
pub(super) struct IdleReport {
    brokers: Vec<Held>,
}

/// Opens, holds, measures; one broker after the other.
pub(super) async fn run(args: &IdleArgs) -> Result<IdleReport, BenchError> {
    let common = &args.common;
    let mut brokers = Vec::new();
    for broker in &common.brokers {
        common.say(&format!(
            "bench idle: {}, {} connections{}, {}, held for {} s",
            broker.name,
            args.connections,
            if args.subscribed { " with one subscription each" } else { "" },
            broker.speaks(common),
            common.seconds
        ));
        let before = broker.pid.and_then(rss_kib);
        let start = Instant::now();
        let mut clients = Vec::with_capacity(args.connections);
        for number in 0..args.connections {
            let stream = connect(args, broker, number).await;
            clients.push(stream.map_err(|error| {
                BenchError::Other(format!("{}: connection {number}: {error}", broker.name))
            })?);
        }
        let elapsed = start.elapsed();
        tokio::time::sleep(Duration::from_secs_f64(common.seconds)).await;
        let closed = clients.iter().filter(|stream| closed(stream)).count();
        if closed > 0 {
            return Err(BenchError::Other(format!("{} closed {closed} connections", broker.name)));
        }
        let held = broker.pid.and_then(rss_kib);
        brokers.push(Held {
            name: broker.name.clone(),
            connections: clients.len(),
            connects_per_s: clients.len() as f64 / elapsed.as_secs_f64(),
            rss_kib_before: before,
            rss_kib_held: held,
            rss_kib_each: before
                .zip(held)
                .map(|(before, held)| held.saturating_sub(before) as f64 / clients.len() as f64),
        });
    }
    Ok(IdleReport { brokers })
}

async fn connect(args: &IdleArgs, broker: &Broker, number: usize) -> Result<TcpStream, BenchError> {
    let common = &args.common;
    let name = format!("idle-{number}");
    if broker.wire != Wire::Mqtt {
        return Ok(Web::subscriber(common, broker, number, &name).await?.stream);
    }
    let mut client = Client::connect(common, broker.address, number).await?;
    if args.subscribed {
        client.subscribe(&format!("{}/{name}", common.prefix)).await?;
    }
    Ok(client.stream)
}

/// Whether the broker ended the connection meanwhile.
fn closed(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0]) {
        Ok(n) => n == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// Resident memory of a process.
fn rss_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

impl Report for IdleReport {
    fn lines(&self) -> Vec<String> {
        self.brokers
            .iter()
            .map(|held| {
                let memory = match (held.rss_kib_before, held.rss_kib_held, held.rss_kib_each) {
                    (Some(before), Some(held), Some(each)) => {
                        format!("RSS {before} KiB before, {held} KiB held: {each:.2} KiB each")
                    }
                    _ => "no pid given, so no memory".to_owned(),
                };
                format!(
                    "{}: {} connections, {:.0}/s; {memory}",
                    held.name, held.connections, held.connects_per_s
                )
            })
            .collect()
    }
}
