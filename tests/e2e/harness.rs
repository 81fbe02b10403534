//! A server of the test's own, and the command line.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

/// The engine that this build has.
pub(crate) const ENGINE: &str = if cfg!(feature = "rocksdb") { "rocksdb" } else { "sled" };

/// The binary without the environment of whoever runs the tests.
pub(crate) fn feedlog() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_feedlog"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FEEDLOG") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(mut command: Command) -> Self {
        let output = command.stdin(Stdio::null()).output().unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// It went well, and printed one line of JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn ended(&self, code: i32, words: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.contains(words), "{words:?} is not in {self:?}");
    }
}

/// Runs the command line without a server.
pub(crate) fn run(args: &[&str]) -> Ran {
    let mut command = feedlog();
    command.args(args);
    Ran::of(command)
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    // Kept open: a server whose output nobody reads must not notice.
    _stdout: BufReader<ChildStdout>,
    pub(crate) url: String,
    pub(crate) admin_token: Option<String>,
}

impl Server {
    pub(crate) fn dev(dir: &Path) -> Self {
        Self::start(dir, &["--dev"])
    }

    pub(crate) fn start(dir: &Path, args: &[&str]) -> Self {
        let mut command = feedlog();
        command.args(["--json", "serve", "--http", "127.0.0.1:0", "--engine", ENGINE, "--data-dir"]);
        command.arg(dir).args(args).env("FEEDLOG__STORAGE__FREE_MIN_BYTES", "0").env("RUST_LOG", "warn");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the server said {line:?}"));
        Self {
            child,
            _stdout: stdout,
            url: said["listening"].as_str().unwrap().to_owned(),
            admin_token: said["admin_token"].as_str().map(str::to_owned),
        }
    }

    pub(crate) fn command(&self, token: &str, args: &[&str]) -> Command {
        let mut command = feedlog();
        command.args(args).env("FEEDLOG_SERVER", &self.url).env("FEEDLOG_TOKEN", token);
        command
    }

    /// Runs a command as whoever has the token.
    pub(crate) fn run(&self, token: &str, args: &[&str]) -> Ran {
        Ran::of(self.command(token, args))
    }

    /// As [`Server::run`] with `--json`; it must go well.
    #[track_caller]
    pub(crate) fn json(&self, token: &str, args: &[&str]) -> Value {
        self.run(token, &[&["--json"], args].concat()).json()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap().success());
    }

    /// SIGTERM; the exit code.
    pub(crate) fn stop(mut self) -> i32 {
        self.signal("TERM");
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
