//! Ten thousand connections that say nothing must cost little and keep nobody else from being served.

use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::Server;

const CONNECTIONS: usize = 10_000;
/// What an idle connection may cost the server, in KiB.
const KIB_PER_CONNECTION_MAX: u64 = 24;

/// Held by whoever holds so many connections, which is not allowed twice everywhere.
static MANY: Mutex<()> = Mutex::new(());

/// Allows this process, and the servers it starts, so many open files; `None` where the machine does not.
pub(crate) fn raise_open_files(needed: u64) -> Option<MutexGuard<'static, ()>> {
    let alone = MANY.lock().unwrap_or_else(PoisonError::into_inner);
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < needed) {
        eprintln!("skipped: this machine allows {:?} open files, {needed} are needed", limit.maximum);
        return None;
    }
    setrlimit(
        Resource::Nofile,
        Rlimit { current: Some(needed.max(limit.current.unwrap_or(0))), maximum: limit.maximum },
    )
    .expect("the soft limit can be raised to the hard one");
    Some(alone)
}

#[test]
fn ten_thousand_idle_connections_are_held_and_others_are_served() {
    let Some(_alone) = raise_open_files(CONNECTIONS as u64 + 256) else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start_with(
        &dir.path().join("data"),
        "sled",
        &[
            ("FEEDLOG__HTTP__CONNECTIONS_MAX", "12000"),
            ("FEEDLOG__HTTP__CONNECTIONS_PER_ADDRESS_MAX", "12000"),
            ("FEEDLOG__HTTP__HEADER_READ_MAX_MS", "120000"),
            ("FEEDLOG__HTTP__IDLE_MAX_MS", "120000"),
        ],
    );
    let before = server.rss_kib();
    let address = server.url.strip_prefix("http://").expect("an http address").to_owned();
    let idle: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|n| TcpStream::connect(&address).unwrap_or_else(|error| panic!("connection {n}: {error}")))
        .collect();

    for _ in 0..20 {
        let answer = ureq::get(format!("{}/livez", server.url)).call().expect("others are served");
        assert_eq!(answer.status(), 200);
    }
    // Held: the server has closed none of them.
    for connection in idle.iter().step_by(97) {
        connection.set_nonblocking(true).expect("a socket option");
        let peeked = connection.peek(&mut [0]);
        assert!(
            matches!(&peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
            "{peeked:?}"
        );
    }
    let grown = server.rss_kib().saturating_sub(before);
    eprintln!(
        "{CONNECTIONS} idle connections: {grown} KiB, {:.1} KiB each",
        grown as f64 / CONNECTIONS as f64
    );
    assert!(
        grown <= KIB_PER_CONNECTION_MAX * CONNECTIONS as u64,
        "{grown} KiB for {CONNECTIONS} connections"
    );
    drop(idle);
    server.terminate();
}
