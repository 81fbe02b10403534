//! How a command ends: exit codes, and what is said on standard error.

use std::fmt;

/// Why a command did not do what was asked. The number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something else failed: a file, a damaged input, an answer that makes no sense.
    Failed = 1,
    /// The command line or the configuration is wrong. Nothing was tried.
    Usage = 2,
    /// Refused: not allowed, not found, in conflict. Trying again changes nothing.
    Refused = 3,
    /// No server, or not now. Trying again later may help.
    Unavailable = 4,
    /// Stored data or an export is damaged.
    Damage = 5,
}

/// The table of `--help`.
pub const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 refused (not allowed, not found, conflict),
4 unavailable (no server, or not now: try again), 5 damage found.";

/// A command that failed.
#[derive(Debug)]
pub struct Fail {
    /// The exit code.
    pub exit: Exit,
    /// A stable word for programs.
    pub code: String,
    /// For people.
    pub message: String,
}

impl Fail {
    /// With a stable word.
    pub fn new(exit: Exit, code: &str, message: impl fmt::Display) -> Self {
        Self { exit, code: code.to_owned(), message: message.to_string() }
    }

    /// Exit code 1.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, "failed", message)
    }

    /// Exit code 2.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// Exit code 4.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(Exit::Unavailable, "unavailable", message)
    }

    /// Exit code 5.
    pub fn damage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Damage, "damage", message)
    }

    /// Reading or writing a file failed.
    pub fn file(path: &std::path::Path, err: impl fmt::Display) -> Self {
        Self::failed(format!("{}: {err}", path.display()))
    }

    /// As one line of JSON, in the shape of the server's errors.
    pub fn to_json(&self) -> String {
        serde_json::json!({"error": {"code": self.code, "message": self.message}, "exit": self.exit as u8})
            .to_string()
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<crate::config::ConfigError> for Fail {
    fn from(err: crate::config::ConfigError) -> Self {
        Self::new(Exit::Usage, "config", err)
    }
}

/// A reader of our output that goes away (`| head`) is no failure: the command just ends.
impl From<std::io::Error> for Fail {
    fn from(err: std::io::Error) -> Self {
        if err.kind() == std::io::ErrorKind::BrokenPipe {
            Self { exit: Exit::Failed, code: BROKEN_PIPE.to_owned(), message: String::new() }
        } else {
            Self::failed(err)
        }
    }
}

const BROKEN_PIPE: &str = "broken_pipe";

impl Fail {
    /// Whether the reader of our output went away.
    pub fn is_broken_pipe(&self) -> bool {
        self.code == BROKEN_PIPE
    }
}
