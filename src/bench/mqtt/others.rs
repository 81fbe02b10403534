//! What brokers are held against: a bare echo of the same frames, and Redis.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use feedlog_api::mqtt::wire::{PacketId, Qos, encode::SharedPublish};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::BenchError;
use super::client::dial;
use super::publish::{FRAMES, Measured, PublishArgs, gather};

/// An echo server on a runtime of its own, made as any tokio server is: with a thread for every core. It ends with the
/// process.
pub(super) struct Echo {
    pub(super) address: SocketAddr,
}

impl Echo {
    pub(super) fn start() -> Result<Self, BenchError> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("bench-echo").build()?;
        std::thread::Builder::new().name("bench-echo".into()).spawn(move || {
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a runtime is entered");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(echo(stream));
                }
            });
        })?;
        Ok(Self { address })
    }
}

async fn echo(mut stream: TcpStream) {
    // A client that is gone needs nothing more.
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n) = stream.read(&mut buffer).await {
        if n == 0 || stream.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// Sends the frames of the publishers to the echo; a frame that came back whole is an ack.
pub(super) async fn echo_round(
    args: &PublishArgs,
    address: SocketAddr,
    payloads: &[Bytes],
) -> Result<Measured, BenchError> {
    let level = args.common.protocol.level();
    let mut lists = Vec::new();
    for (publisher, payloads) in payloads.chunks(FRAMES).enumerate() {
        let topic = format!("{}/{publisher}", args.common.prefix);
        let frame = |payload: &Bytes| {
            let mut out = BytesMut::new();
            let frame = SharedPublish::new(level, Qos::AtLeastOnce, false, &topic, &[], payload);
            frame.write(false, Some(PacketId::MIN), &mut out);
            let bytes = out.len();
            (out.freeze(), bytes)
        };
        lists.push(payloads.iter().map(frame).collect());
    }
    exchange(args, address, lists, Answer::Bytes).await
}

/// RPUSHes the payloads, one list per publisher; the lists are deleted before and after.
pub(super) async fn redis_round(
    args: &PublishArgs,
    address: SocketAddr,
    payloads: &[Bytes],
) -> Result<Measured, BenchError> {
    let key = |publisher: usize| format!("feedlog-bench-{publisher}");
    let keys: Vec<String> = (0..args.publishers()).map(key).collect();
    let mut delete = vec!["DEL"];
    delete.extend(keys.iter().map(String::as_str));
    ask_redis(address, &delete).await?;
    let mut lists = Vec::new();
    for (payloads, key) in payloads.chunks(FRAMES).zip(&keys) {
        let frame = |payload: &Bytes| (resp(&[b"RPUSH", key.as_bytes(), payload]), 0);
        lists.push(payloads.iter().map(frame).collect());
    }
    let measured = exchange(args, address, lists, Answer::Line).await;
    ask_redis(address, &delete).await?;
    measured
}

/// How the end of an answer is found.
#[derive(Clone, Copy)]
enum Answer {
    /// As many bytes as were sent.
    Bytes,
    /// A line of Redis.
    Line,
}

/// What to send and the length of its answer.
type Frames = Vec<(Bytes, usize)>;

async fn exchange(
    args: &PublishArgs,
    address: SocketAddr,
    lists: Vec<Frames>,
    answer: Answer,
) -> Result<Measured, BenchError> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for (number, frames) in lists.into_iter().enumerate() {
        let stream = dial(address, number).await?;
        tasks.push(talk(stream, frames, usize::from(args.window), answer, stop.clone()));
    }
    gather(args.common.lasting(), tasks, &stop).await
}

/// One connection: answers come in the order of the questions.
async fn talk(
    mut stream: TcpStream,
    frames: Frames,
    window: usize,
    answer: Answer,
    stop: Arc<AtomicBool>,
) -> Result<Vec<Duration>, BenchError> {
    let mut latencies = Vec::new();
    let mut in_flight = std::collections::VecDeque::with_capacity(window);
    let (mut out, mut input) = (BytesMut::new(), BytesMut::new());
    let mut frames = frames.iter().cycle();
    loop {
        while in_flight.len() < window && !stop.load(Ordering::Relaxed) {
            let Some((frame, bytes)) = frames.next() else { break };
            out.extend_from_slice(frame);
            in_flight.push_back((Instant::now(), *bytes));
        }
        if !out.is_empty() {
            stream.write_all(&out).await?;
            out.clear();
        }
        if in_flight.is_empty() {
            return Ok(latencies);
        }
        input.reserve(4096);
        if stream.read_buf(&mut input).await? == 0 {
            return Err(BenchError::Other("the server closed the connection".into()));
        }
        while let Some((sent, bytes)) = in_flight.front() {
            let length = match answer {
                Answer::Bytes => Some(*bytes).filter(|bytes| *bytes <= input.len()),
                Answer::Line => input.windows(2).position(|pair| pair == b"\r\n").map(|at| at + 2),
            };
            let Some(length) = length else { break };
            let line = input.split_to(length);
            if matches!(answer, Answer::Line) && line.first() != Some(&b':') {
                return Err(BenchError::Other(format!("redis: {}", String::from_utf8_lossy(&line).trim())));
            }
            latencies.push(sent.elapsed());
            in_flight.pop_front();
        }
    }
}

/// A command in Redis' protocol.
fn resp(parts: &[&[u8]]) -> Bytes {
    let mut out = format!("*{}\r\n", parts.len()).into_bytes();
    for part in parts {
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    out.into()
}

/// What Redis says of its durability.
pub(super) async fn redis_settings(address: SocketAddr) -> Result<String, BenchError> {
    let mut found = Vec::new();
    for name in ["appendonly", "appendfsync"] {
        let answer = ask_redis(address, &["CONFIG", "GET", name]).await?;
        // *2 $10 appendonly $3 yes
        let value = answer.lines().nth(4).unwrap_or("unknown");
        found.push(format!("{name} {value}"));
    }
    Ok(found.join(", "))
}

/// Asks once, on a connection of its own; returns what came, an error where Redis says one.
async fn ask_redis(address: SocketAddr, parts: &[&str]) -> Result<String, BenchError> {
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    let mut stream = dial(address, 0).await?;
    stream.write_all(&resp(&parts)).await?;
    // These answers are short and come in one piece.
    let mut answer = BytesMut::with_capacity(4096);
    stream.read_buf(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    if answer.starts_with('-') || answer.is_empty() {
        return Err(BenchError::Other(format!("redis: {}", answer.trim())));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_counted_strings() {
        assert_eq!(
            &resp(&[b"RPUSH", b"k", b"a\r\n"])[..],
            b"*3\r\n$5\r\nRPUSH\r\n$1\r\nk\r\n$3\r\na\r\n\r\n"
        );
    }
}
