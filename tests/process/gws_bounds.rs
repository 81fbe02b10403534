//! What clients of rooms may cost, whatever they do: idle ones in rooms of their own, some that do not read, that never
//! finish their handshake, that are never heard of again.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::connections::raise_open_files;
use crate::gws::{Got, PATIENCE, Room, handshake, open, packet};
use crate::server::Server;

const ENGINE: &str = if cfg!(feature = "rocksdb") { "rocksdb" } else { "sled" };

const ROOMS: usize = 10_000;
/// What an idle connection in a room of its own may cost the server, in KiB. Futures are larger where nothing is optimized.
const KIB_PER_CONNECTION_MAX: u64 = if cfg!(debug_assertions) { 16 } else { 8 };
/// What the log and its caches may take beside the clients of a test, in KiB.
const SLACK_KIB: u64 = 96 << 10;

fn address(server: &Server) -> String {
    server.url.strip_prefix("http://").expect("an http address").to_owned()
}

fn post(server: &Server, room: &str, body: &str) {
    let answer = ureq::post(format!("{}{room}", server.url)).send(body).expect("the server answers");
    assert_eq!(answer.status(), 200, "{room}");
}

/// A text frame of the server, which has one as short as this.
fn short_frame(stream: &mut TcpStream) -> String {
    let mut head = [0; 2];
    stream.read_exact(&mut head).expect("a frame");
    assert!(head[0] == 0x81 && head[1] < 126, "{head:?}");
    let mut text = vec![0; usize::from(head[1])];
    stream.read_exact(&mut text).expect("a whole frame");
    String::from_utf8(text).expect("a text")
}

#[test]
fn ten_thousand_rooms_with_one_connection_each_are_held() {
    let Some(_alone) = raise_open_files(ROOMS as u64 + 256) else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start_with(
        &dir.path().join("data"),
        ENGINE,
        &[
            ("FEEDLOG__HTTP__CONNECTIONS_MAX", "12000"),
            ("FEEDLOG__HTTP__CONNECTIONS_PER_ADDRESS_MAX", "12000"),
            // Nothing is sent to them but what the test sends.
            ("FEEDLOG__HTTP__WEBSOCKET_PING_MS", "600000"),
            ("FEEDLOG__HTTP__WEBSOCKET_IDLE_MAX_MS", "900000"),
        ],
    );
    let at = address(&server);
    // What the first client of all costs is not what each costs.
    let mut first = Room::connect(&at, "/rooms/first").expect("served");
    first.send(packet("1", "first")).expect("served");
    assert_eq!(first.next(), Some(Got::Ack("1".to_owned())));
    let before = server.rss_kib();
    let began = Instant::now();
    let mut idle: Vec<TcpStream> = (0..ROOMS).map(|n| open(&at, &format!("/rooms/{n}"))).collect();
    let took = began.elapsed();
    let grown = server.rss_kib().saturating_sub(before);
    eprintln!(
        "{ROOMS} rooms with one connection each in {:.1} s: {grown} KiB, {:.1} KiB each",
        took.as_secs_f64(),
        grown as f64 / ROOMS as f64
    );
    // Each is in its own room: it is passed what is posted there, and nothing else.
    for (n, stream) in idle.iter_mut().enumerate().step_by(97) {
        post(&server, &format!("/rooms/{n}"), &format!("to {n}"));
        assert_eq!(short_frame(stream), format!("to {n}"));
    }
    for stream in &idle {
        stream.set_nonblocking(true).expect("a socket option");
        let peeked = stream.peek(&mut [0]);
        assert!(matches!(&peeked, Err(error) if error.kind() == ErrorKind::WouldBlock), "{peeked:?}");
    }
    assert!(grown <= KIB_PER_CONNECTION_MAX * ROOMS as u64, "{grown} KiB for {ROOMS} connections");
    drop(idle);
    server.terminate();
}

/// Readers that stop.
const DEAF: usize = 60;
/// Packets, and how large each is: for every reader 20 MiB, for all of them 1.2 GiB.
const PACKETS: usize = 640;
const BYTES: usize = 32 << 10;

#[test]
fn readers_that_stop_are_not_buffered_for_and_are_closed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start_with(
        &dir.path().join("data"),
        ENGINE,
        &[("FEEDLOG__HTTP__STALLED_READER_MAX_MS", "5000")],
    );
    let at = address(&server);
    let deaf: Vec<TcpStream> = (0..DEAF).map(|_| open(&at, "/flood")).collect();
    let mut good = Room::connect(&at, "/flood").expect("served");
    let before = server.rss_kib();
    let data = "x".repeat(BYTES);
    let grown = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            for number in 0..PACKETS {
                let Some(Got::Packet(uuid, _)) = good.next() else { panic!("not a packet") };
                assert_eq!(uuid, number.to_string(), "the good one misses nothing");
            }
        });
        let mut sender = Room::connect(&at, "/flood").expect("served");
        let mut most = 0;
        for number in 0..PACKETS {
            sender.send(packet(&number.to_string(), &data)).expect("served");
            assert_eq!(sender.next(), Some(Got::Ack(number.to_string())));
            most = most.max(server.rss_kib());
        }
        reading.join().expect("the good one has all");
        most.saturating_sub(before)
    });
    eprintln!(
        "{DEAF} readers that stopped, {} MiB for each: {} MiB more in the server",
        (PACKETS * BYTES) >> 20,
        grown >> 10
    );
    assert!(grown <= SLACK_KIB + DEAF as u64 * 512, "{grown} KiB");

    // It gives up on all of them, whoever reads again meanwhile or not.
    let deadline = Instant::now() + PATIENCE;
    while stalled(&server) < DEAF {
        assert!(Instant::now() < deadline, "only {} were closed", stalled(&server));
        std::thread::park_timeout(Duration::from_millis(5));
    }
    for mut stream in deaf {
        let mut bytes = vec![0; 1 << 16];
        while matches!(stream.read(&mut bytes), Ok(count) if count > 0) {}
    }
    good.send(packet("last", "still there")).expect("served");
    assert_eq!(good.next(), Some(Got::Ack("last".to_owned())));
    server.terminate();
}

#[test]
fn a_reader_that_stopped_is_told_why_it_was_closed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let server = Server::start_with(&data, ENGINE, &[("FEEDLOG__HTTP__STALLED_READER_MAX_MS", "1000")]);
    let at = address(&server);
    let mut deaf = Room::connect(&at, "/flood").expect("served");
    let data = "x".repeat(BYTES);
    let end = std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..PACKETS {
                post(&server, "/flood", &packet(&number.to_string(), &data));
            }
        });
        let deadline = Instant::now() + PATIENCE;
        while stalled(&server) < 1 {
            assert!(Instant::now() < deadline, "it is not closed");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        // What was under way comes first, in order; then the reason.
        let mut next = 0;
        loop {
            match deaf.next() {
                Some(Got::Packet(uuid, _)) => assert_eq!(uuid, next.to_string()),
                other => break other,
            }
            next += 1;
        }
    });
    assert_eq!(end, Some(Got::Closed(Some(1008))));
    server.terminate();
}

/// How many readers the server has given up on.
fn stalled(server: &Server) -> usize {
    let mut answer = ureq::get(format!("{}/metrics", server.url)).call().expect("metrics");
    let text = answer.body_mut().read_to_string().expect("a text");
    let line = text.lines().find_map(|line| line.strip_prefix("feedlog_http_stalled_readers_total "));
    line.map_or(0, |count| count.trim().parse::<f64>().expect("a number") as usize)
}

/// Connections of each kind that never finish what they began.
const SLOW: usize = 200;

#[test]
fn slow_handshakes_and_silent_clients_are_cut() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start_with(
        &dir.path().join("data"),
        ENGINE,
        &[
            ("FEEDLOG__HTTP__HEADER_READ_MAX_MS", "2000"),
            ("FEEDLOG__HTTP__WEBSOCKET_PING_MS", "500"),
            ("FEEDLOG__HTTP__WEBSOCKET_IDLE_MAX_MS", "2000"),
        ],
    );
    let at = address(&server);
    let before = server.rss_kib();
    let began = Instant::now();
    let half = handshake(&at, "/slow");
    let half = &half[..half.len() - 2];
    let endless = format!("{half}X-Filler: {}", "x".repeat(1 << 20));
    let with = |text: &str| -> Vec<TcpStream> {
        let one = |_| {
            let mut stream = TcpStream::connect(&at).expect("the server accepts");
            stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
            // The server may have closed before it has all.
            let _ = stream.write_all(text.as_bytes());
            stream
        };
        (0..SLOW).map(one).collect()
    };
    let mut never = with(half);
    never.extend(with(&endless));
    // Open, and then never a pong; one of a kind began a frame and did not go on.
    let mut silent: Vec<TcpStream> = (0..SLOW).map(|_| open(&at, "/silent")).collect();
    for stream in silent.iter_mut().step_by(2) {
        stream.write_all(&[0x81, 0xfe, 0xff, 0xff, 0, 0, 0, 0, b'x']).expect("the server reads");
    }
    let grown = server.rss_kib().saturating_sub(before);
    eprintln!("{} connections that never finish: {grown} KiB", 3 * SLOW);
    assert!(grown <= 3 * SLOW as u64 * 96 + (16 << 10), "{grown} KiB");

    for mut stream in never {
        let mut told = Vec::new();
        match stream.read_to_end(&mut told) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("not closed: {error}"),
            // At most a refusal.
            _ => assert!(!told.starts_with(b"HTTP/1.1 1") && told.len() < 1024, "{} bytes", told.len()),
        }
    }
    for mut stream in silent {
        let mut told = Vec::new();
        stream.read_to_end(&mut told).expect("the server closes in order");
        // Pings, then the close frame with 1001.
        let code = told.windows(4).find(|bytes| bytes[0] == 0x88 && bytes[1] >= 2);
        let code = code.map(|bytes| u16::from_be_bytes([bytes[2], bytes[3]]));
        assert_eq!(code, Some(1001), "{told:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(20), "all were closed after {:?}", began.elapsed());
    let mut other = Room::connect(&at, "/slow").expect("others are served");
    other.send(packet("1", "served")).expect("served");
    assert_eq!(other.next(), Some(Got::Ack("1".to_owned())));
    server.terminate();
}
