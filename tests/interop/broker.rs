//! The real binary with MQTT on a free port, or another broker.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A broker for one test; ours is killed when dropped.
pub(crate) struct Broker {
    /// MQTT over TCP.
    pub(crate) mqtt: SocketAddr,
    /// MQTT over WebSocket, at `/mqtt`.
    pub(crate) http: SocketAddr,
    ours: Option<(Child, tempfile::TempDir)>,
    settings: Vec<(&'static str, &'static str)>,
}

impl Broker {
    /// Starts the binary and returns when it is ready.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// As `start`, with settings from the environment.
    pub(crate) fn start_with(settings: &[(&'static str, &'static str)]) -> Self {
        let given = |name| std::env::var(name).ok().map(|at| at.parse().expect("ADDR:PORT"));
        if let (Some(mqtt), Some(http)) = (given("FEEDLOG_INTEROP_TCP"), given("FEEDLOG_INTEROP_WS")) {
            return Self { mqtt, http, ours: None, settings: Vec::new() };
        }
        let (mqtt, http) = (free_address(), free_address());
        let data = tempfile::tempdir().expect("a temporary directory");
        let child = serve(mqtt, http, data.path(), settings);
        Self { mqtt, http, ours: Some((child, data)), settings: settings.to_vec() }
    }

    /// `kill -9`, and up again on the same data and addresses. Another broker is left as it is.
    pub(crate) fn kill_and_start_again(&mut self) {
        if let Some((child, data)) = &mut self.ours {
            child.kill().expect("the server is still there to be killed");
            child.wait().expect("the child can be waited for");
            *child = serve(self.mqtt, self.http, data.path(), &self.settings);
        }
    }

    /// Whether it is not feedlog.
    pub(crate) fn is_another(&self) -> bool {
        self.ours.is_none()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.ours {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn serve(mqtt: SocketAddr, http: SocketAddr, data: &Path, settings: &[(&str, &str)]) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_feedlog"))
        .args(["serve", "--dev", "--http", &http.to_string(), "--mqtt", &mqtt.to_string(), "--data-dir"])
        .arg(data.join("data"))
        .envs(settings.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server starts");
    // Its log is read to the end by a thread of its own, so that it never blocks on a full pipe.
    let log = BufReader::new(child.stderr.take().expect("stderr is a pipe"));
    let reader = std::thread::spawn(move || log.lines().map_while(Result::ok).collect::<Vec<_>>());
    let deadline = Instant::now() + Duration::from_secs(30);
    while !(ureq::get(format!("http://{http}/readyz")).call().is_ok() && TcpStream::connect(mqtt).is_ok()) {
        let ended = child.try_wait().expect("the child can be waited for");
        if ended.is_some() || Instant::now() > deadline {
            let _ = child.kill();
            let log = reader.join().unwrap_or_default().join("\n");
            panic!("the server did not become ready ({ended:?}):\n{log}");
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    child
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}
