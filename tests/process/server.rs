//! The real binary as a child process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The binary under test.
pub(crate) fn feedlog() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_feedlog"));
    command.env_remove("FEEDLOG_SERVER").env_remove("FEEDLOG_TOKEN");
    command
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    // Kept open: what it prints must have somewhere to go.
    _stdout: BufReader<ChildStdout>,
    /// Where it listens.
    pub(crate) url: String,
    /// Where it listens for MQTT.
    pub(crate) mqtt: SocketAddr,
}

impl Server {
    /// Starts it on a free port and returns when it answers that it is ready.
    pub(crate) fn start(data: &Path, engine: &str) -> Self {
        Self::start_with(data, engine, &[])
    }

    /// As `start`, with settings from the environment.
    pub(crate) fn start_with(data: &Path, engine: &str, settings: &[(&str, &str)]) -> Self {
        let mut child = feedlog()
            .args(["--json", "serve", "--dev", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"])
            .args(["--engine", engine, "--data-dir"])
            .arg(data)
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        // Its log is read to the end by a thread of its own, so that it never blocks on a full pipe.
        let log = BufReader::new(child.stderr.take().expect("stderr is a pipe"));
        let reader = std::thread::spawn(move || log.lines().map_while(Result::ok).collect::<Vec<_>>());
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("stdout can be read");
        let Ok(said) = serde_json::from_str::<serde_json::Value>(&line) else {
            let _ = child.kill();
            panic!("the server said {line:?}:\n{}", reader.join().unwrap_or_default().join("\n"));
        };
        let url = said["listening"].as_str().expect("an http address").to_owned();
        let mqtt = said["mqtt"][0].as_str().and_then(|url| url.strip_prefix("mqtt://")?.parse().ok());
        let mqtt = mqtt.expect("an mqtt address");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !ready(&url) {
            let ended = child.try_wait().expect("the child can be waited for");
            if ended.is_some() || Instant::now() > deadline {
                let _ = child.kill();
                panic!(
                    "the server did not become ready ({ended:?}):\n{}",
                    reader.join().unwrap_or_default().join("\n")
                );
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Self { child, _stdout: stdout, url, mqtt }
    }

    /// Resident memory, in KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a running server");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the kernel tells VmRSS");
        line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("VmRSS is a number")
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the server is still there to be killed");
        self.child.wait().expect("the child can be waited for");
    }

    /// SIGTERM; the server must end well.
    pub(crate) fn terminate(mut self) {
        let status = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
        assert!(status.expect("kill runs").success());
        let status = self.child.wait().expect("the child can be waited for");
        assert!(status.success(), "the server ended with {status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ready(url: &str) -> bool {
    ureq::get(format!("{url}/readyz")).call().is_ok()
}
