//! The command line. Every command's `--help` shows an example.

mod backup;
mod bench;
mod completions;
mod config_cmd;
mod export;
pub mod fail;
mod feeds;
mod import;
mod maintain;
mod messages;
pub mod out;
mod outbox;
mod people;
mod serve;
mod store;
mod tail;
mod token;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::client::Client;
use fail::{EXIT_CODES, Exit, Fail};
use out::Out;

/// Where `serve` listens and clients look, unless told otherwise.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:7171";

/// The examples and the exit codes under `feedlog --help`.
macro_rules! concat_help {
    () => {
        concat!(
            "Try it out:\n",
            "  feedlog serve --dev --data-dir /tmp/try &\n",
            "  feedlog --token ann send --to bob \"hello bob\"    (with --dev any uid is its own token)\n",
            "  feedlog --token bob unreplied\n\n",
            "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 refused (not allowed, not found,\n",
            "conflict), 4 unavailable (no server, or not now: try again), 5 damage found."
        )
    };
}

/// feedlog: a message store service for instant messaging.
#[derive(Debug, Parser)]
#[command(
    name = "feedlog",
    version,
    about = "A message store service for instant messaging: one ordered, durable, provable log per conversation",
    after_help = EXIT_CODES,
    after_long_help = concat_help!(),
    propagate_version = true,
    max_term_width = 110
)]
pub struct Cli {
    /// Print JSON for programs instead of tables; errors too.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::ServeArgs),
    /// Send a message.
    Send(messages::SendArgs),
    /// Show the history of a feed.
    Pull(messages::PullArgs),
    /// Follow feeds: history first where asked for, then what comes.
    Tail(tail::TailArgs),
    /// Take a message back: no reader sees its content any more.
    Recall(messages::RecallArgs),
    /// What you have not read.
    Unread(people::UnreadArgs),
    /// Who waits for your answer, longest first.
    Unreplied(people::UnrepliedArgs),
    /// Your conversations; create and show feeds, add and remove members.
    Feeds(feeds::FeedsArgs),
    /// The push outbox: how far its endpoints are, what was given up; tell again, drop, pause.
    Outbox(outbox::OutboxArgs),
    /// Create, list and revoke access tokens.
    Token(token::TokenArgs),
    Import(import::ImportArgs),
    /// Write feeds as JSONL with a manifest that proves them.
    Export(export::ExportArgs),
    /// Copy everything, consistently, while the server runs.
    Backup(backup::BackupArgs),
    /// Make a data directory from a backup, and verify it.
    Restore(backup::RestoreArgs),
    /// Prove that a store or an export is whole.
    Verify(maintain::VerifyArgs),
    /// Drop every derived row and derive it again from the log.
    Rebuild(maintain::RebuildArgs),
    Bench(bench::BenchArgs),
    /// Check and show the configuration.
    Config(config_cmd::ConfigArgs),
    /// Print a completion script for a shell.
    Completions(completions::CompletionsArgs),
}

/// Which server, and who asks.
#[derive(Debug, Clone, Args)]
struct ServerArgs {
    /// The server's address.
    #[arg(long, env = "FEEDLOG_SERVER", default_value = DEFAULT_SERVER, value_name = "URL", help_heading = "Server")]
    server: String,
    /// Your access token.
    #[arg(long, env = "FEEDLOG_TOKEN", hide_env_values = true, help_heading = "Server")]
    token: Option<String>,
    /// Act for this user; needs a token with the scope send_as.
    #[arg(long = "as", value_name = "UID", help_heading = "Server")]
    acting: Option<String>,
}

impl ServerArgs {
    fn client(&self) -> Result<Client, Fail> {
        Client::new(&self.server, self.token.as_deref(), self.acting.as_deref())
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) => {
            // Help and version are no failures; clap knows which stream each goes to.
            let _ = err.print();
            return if err.use_stderr() { ExitCode::from(Exit::Usage as u8) } else { ExitCode::SUCCESS };
        }
    };
    let out = Out { json: cli.json };
    match run(cli.command, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fail) if fail.is_broken_pipe() => ExitCode::SUCCESS,
        Err(fail) => {
            if out.json {
                eprintln!("{}", fail.to_json());
            } else {
                eprintln!("feedlog: {}", out::printable(&fail.message));
            }
            ExitCode::from(fail.exit as u8)
        }
    }
}

fn run(command: Command, out: Out) -> Result<(), Fail> {
    match command {
        Command::Serve(args) => serve::serve(&args, out),
        Command::Send(args) => messages::send(&args, out),
        Command::Pull(args) => messages::pull(&args, out),
        Command::Tail(args) => tail::tail(&args, out),
        Command::Recall(args) => messages::recall(&args, out),
        Command::Unread(args) => people::unread(&args, out),
        Command::Unreplied(args) => people::unreplied(&args, out),
        Command::Feeds(args) => feeds::feeds(&args, out),
        Command::Outbox(args) => outbox::outbox(&args, out),
        Command::Token(args) => token::token(&args, out),
        Command::Import(args) => import::import(&args, out),
        Command::Export(args) => export::export(&args, out),
        Command::Backup(args) => backup::backup(&args, out),
        Command::Restore(args) => backup::restore(&args, out),
        Command::Verify(args) => maintain::verify(&args, out),
        Command::Rebuild(args) => maintain::rebuild(&args, out),
        Command::Bench(args) => bench::bench(&args, out),
        Command::Config(args) => config_cmd::config(&args, out),
        Command::Completions(args) => completions::completions(&args, out),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_is_sound_and_every_command_teaches_with_an_example() {
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        for command in cli.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            let name = command.get_name().to_owned();
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{name} has no example:\n{help}");
            assert!(help.contains(&format!("feedlog {name}")), "{name}'s example does not show it:\n{help}");
        }
    }
}
