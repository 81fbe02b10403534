//! `feedlog completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::fail::Fail;
use super::out::Out;

/// Arguments of `feedlog completions`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  feedlog completions bash > ~/.local/share/bash-completion/completions/feedlog"
)]
pub(super) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn completions(args: &CompletionsArgs, out: Out) -> Result<(), Fail> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "feedlog", &mut script);
    out.line(String::from_utf8_lossy(&script).trim_end())
}
