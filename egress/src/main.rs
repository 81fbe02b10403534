//! `feedlog-egress`: parses its flags, runs until told to stop or until something fails.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use feedlog_egress::Settings;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let settings = Settings::parse();
    // rumqttd says at `info` what every client does, and at `error` what is none: a client that left, for one.
    let filter = EnvFilter::try_from_env("FEEDLOG_EGRESS_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,feedlog_egress=info,rumqttd=off"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    end_with_the_router();
    match feedlog_egress::run(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// A panic of rumqttd's one router thread leaves a listener that serves nobody. The probe would find it; this is sooner.
fn end_with_the_router() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        if std::thread::current().name().is_some_and(|name| name.starts_with("router-")) {
            std::process::exit(1);
        }
    }));
}
