//! `feedlog serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::fail::{Exit, Fail};
use super::out::Out;
use super::store;
use crate::config::{Config, Engine};
use crate::shutdown::Signals;
use crate::{BuildError, telemetry};

/// Arguments of `feedlog serve`.
#[derive(Debug, Args)]
#[command(
    long_about = "Runs the server. Without configuration it listens on 127.0.0.1:7171 only; at the first start it \
creates an administrator's token and prints it once. Any other address needs auth (auth.admin_token or a JWT key, or \
a token made before) and TLS (or http.plain_text = true behind a proxy that ends TLS).\n\n\
SIGTERM or SIGINT drains within shutdown.drain_ms; a second signal exits at once. What was acknowledged is durable \
either way.",
    after_help = "Examples:\n  feedlog serve --dev --data-dir /tmp/try\n  \
feedlog serve --dev --mqtt 127.0.0.1:1883\n  \
feedlog serve --data-dir /var/lib/feedlog --http 127.0.0.1:7171\n  \
FEEDLOG__AUTH__ADMIN_TOKEN=… feedlog serve --config /etc/feedlog.toml"
)]
pub(super) struct ServeArgs {
    /// The data directory; created when missing [default: feedlog-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen; port 0 picks a free one [default: 127.0.0.1:7171].
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<SocketAddr>,
    /// Where MQTT listens as well; port 0 picks a free one. MQTT over WebSocket needs no address of its own.
    #[arg(long, value_name = "ADDR:PORT")]
    mqtt: Option<SocketAddr>,
    /// Where MQTT over TLS listens, with the certificate of HTTP.
    #[arg(long, value_name = "ADDR:PORT")]
    mqtt_tls: Option<SocketAddr>,
    /// The engine: rocksdb or sled [default: rocksdb]. A data directory keeps the engine it was made with.
    #[arg(long)]
    engine: Option<Engine>,
    /// The configuration file, TOML; see `feedlog config example`.
    #[arg(long, value_name = "FILE", env = "FEEDLOG_CONFIG")]
    config: Option<PathBuf>,
    /// For trying things out, on loopback only: any uid is its own token, `admin` is the administrator, no token is
    /// anonymous; MQTT has free topics.
    #[arg(long)]
    dev: bool,
    /// Start although the newest acknowledged commits are missing after a damaged tail.
    #[arg(long)]
    accept_loss: bool,
}

impl ServeArgs {
    /// File, then environment, then flags.
    fn config(&self) -> Result<Config, Fail> {
        let mut config = Config::load(self.config.as_deref())?;
        if let Some(dir) = &self.data_dir {
            config.storage.data_dir.clone_from(dir);
        }
        if let Some(addr) = self.http {
            config.http.addr = addr;
        }
        config.mqtt.addr = self.mqtt.or(config.mqtt.addr);
        config.mqtt.tls_addr = self.mqtt_tls.or(config.mqtt.tls_addr);
        if let Some(engine) = self.engine {
            config.storage.engine = engine;
        }
        config.storage.accept_loss |= self.accept_loss;
        Ok(config)
    }
}

pub(super) fn serve(args: &ServeArgs, out: Out) -> Result<(), Fail> {
    let config = args.config()?;
    let _telemetry = telemetry::start(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Fail::failed)?;
    let clean = runtime.block_on(async {
        let signals = Signals::listen().map_err(Fail::failed)?;
        telemetry::recorder();
        let (data_dir, engine) = (config.storage.data_dir.clone(), config.storage.engine);
        let app = crate::build(config, args.dev).await.map_err(|err| build_failure(&err))?;
        announce(&app, args.dev, out)?;
        tracing::info!(addr = %app.addr(), data_dir = %data_dir.display(), engine = engine.as_str(), dev = args.dev, "serving");
        app.run(signals.first()).await.map_err(Fail::failed)
    })?;
    tracing::info!(clean, "stopped");
    // Connections that would not end do not hold up the exit.
    runtime.shutdown_background();
    if clean {
        Ok(())
    } else {
        Err(Fail::failed("drain_ms passed before all work was done; none of it was acknowledged"))
    }
}

fn announce(app: &crate::App, dev: bool, out: Out) -> Result<(), Fail> {
    let url = format!("{}://{}", if app.is_tls() { "https" } else { "http" }, app.addr());
    let token = app.first_token().map(|token| token.expose().to_owned());
    if out.json {
        let mqtt: Vec<_> = app.mqtt_urls().collect();
        let others: Vec<_> = app.other_urls().collect();
        return out.value(
            &json!({"listening": url, "mqtt": mqtt, "others": others, "dev": dev, "admin_token": token}),
        );
    }
    if let Some(token) = token {
        out.line(&format!(
            "The administrator's token, shown this once:\n\n  {token}\n\n  export FEEDLOG_TOKEN={token}\n"
        ))?;
    }
    if dev {
        out.line("Development mode: any uid is its own token, `admin` is the administrator.")?;
    }
    out.line(&format!("feedlog serves {url}"))?;
    for url in app.mqtt_urls().chain(app.other_urls()) {
        out.line(&format!("feedlog serves {url}"))?;
    }
    Ok(())
}

pub(super) fn build_failure(err: &BuildError) -> Fail {
    match err {
        BuildError::Config(err) => err.clone().into(),
        BuildError::Open(err) => store::open_failure(err),
        BuildError::Bind { .. } => Fail::unavailable(err),
        BuildError::Service(feedlog_service::OpenError::Auth(err)) => Fail::new(Exit::Usage, "config", err),
        BuildError::Mqtt(err) => Fail::new(Exit::Usage, "config", err),
        BuildError::Gws(err) => Fail::new(Exit::Usage, "config", err),
        BuildError::Connmix(err) => Fail::new(Exit::Usage, "config", err),
        BuildError::Service(_) | BuildError::Token(_) | BuildError::Outbox(_) => Fail::failed(err),
    }
}
