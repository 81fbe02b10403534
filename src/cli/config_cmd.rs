//! `feedlog config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::fail::Fail;
use super::out::Out;
use super::serve::build_failure;
use crate::config::Config;

/// Arguments of `feedlog config`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  feedlog config check --config /etc/feedlog.toml\n  \
FEEDLOG__HTTP__ADDR=127.0.0.1:9000 feedlog config show\n  feedlog config example > feedlog.toml")]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a file together with the environment; exit code 2 when something is wrong.
    Check(FileArgs),
    /// Show every key that has a value, secrets masked.
    Show(FileArgs),
    /// Print the commented example file: every key, its meaning and default.
    Example,
}

#[derive(Debug, Args)]
struct FileArgs {
    /// The configuration file; none: defaults and environment only.
    #[arg(long, env = "FEEDLOG_CONFIG")]
    config: Option<PathBuf>,
}

pub(super) fn config(args: &ConfigArgs, out: Out) -> Result<(), Fail> {
    match &args.command {
        ConfigCommand::Check(file) => {
            let config = Config::load(file.config.as_deref())?;
            crate::check(&config).map_err(|err| build_failure(&err))?;
            out.either(&json!({"ok": true}), "ok")
        }
        ConfigCommand::Show(file) => {
            let config = Config::load(file.config.as_deref())?;
            out.either(&config.show_json(), config.show().trim_end())
        }
        ConfigCommand::Example => out.line(Config::example().trim_end()),
    }
}
