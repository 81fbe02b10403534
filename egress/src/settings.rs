//! Flags, and what of them is refused.

use std::net::{IpAddr, SocketAddr};

use clap::Parser;

use crate::safe;

/// Re-publish what feedlog sends on a private in-memory MQTT bus, for many trusted readers.
///
/// Follows feedlog as one MQTT 5 client with a persistent session, so nothing is missed while this process restarts,
/// and re-publishes with QoS 0 under a prefix. Readers of the bus connect with MQTT 5, any user name, a client id
/// without / + # $, and leave the topic alias maximum at 0. A slow reader misses messages; feedlog never waits for one.
///
/// Example:
///
///   FEEDLOG_EGRESS_TOKEN=… feedlog-egress --from 127.0.0.1:1883 --filter 'feeds/+' --listen 127.0.0.1:1885
///   mosquitto_sub -V 5 -p 1885 -i screen-1 -u screen -P any -t 'bus/#'
///
/// Exit codes: 0 told to stop, 1 failed (start it again), 2 wrong usage.
#[derive(Debug, Clone, Parser)]
#[command(name = "feedlog-egress", version, verbatim_doc_comment, max_term_width = 110)]
pub struct Settings {
    /// Where feedlog listens for MQTT: ADDR:PORT. Not encrypted: run beside it, or through a tunnel.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:1883")]
    pub from: String,
    /// User name of the service account.
    #[arg(long, value_name = "NAME", default_value = "egress")]
    pub username: String,
    /// Token of the service account.
    #[arg(
        long,
        env = "FEEDLOG_EGRESS_TOKEN",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    pub token: String,
    /// Name of the session that feedlog keeps for this process; two egresses need two names.
    #[arg(long, value_name = "ID", default_value = "feedlog-egress", value_parser = client_id)]
    pub client_id: String,
    /// What to follow; may be given several times.
    #[arg(long = "filter", value_name = "FILTER", default_value = "feeds/+")]
    pub filters: Vec<String>,
    /// How long feedlog keeps the session while this process is away, in seconds.
    #[arg(long, default_value_t = 7 * 24 * 3600)]
    pub session_expiry_s: u32,
    /// Messages that feedlog may send before this process has acknowledged them.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub in_flight_max: u16,
    /// Largest packet that is taken, in bytes.
    #[arg(long, default_value_t = 1 << 20)]
    pub packet_bytes_max: u32,

    /// Where the bus listens: a loopback or private address, because the bus knows no authorization.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:1885", value_parser = private_address)]
    pub listen: SocketAddr,
    /// Topics of the bus begin with this and a slash. ASCII, because rumqttd ends at a topic that begins otherwise.
    #[arg(long, default_value = "bus", value_parser = prefix)]
    pub prefix: String,
    /// Readers must give this password; any password will do when it is not set.
    #[arg(long, env = "FEEDLOG_EGRESS_BUS_PASSWORD", hide_env_values = true)]
    pub bus_password: Option<String>,
    /// Most readers at once.
    #[arg(long, default_value_t = 10_000)]
    pub readers_max: usize,
    /// Memory for messages that a slow reader has not taken yet, per filter that readers use, in bytes.
    #[arg(long, default_value_t = 8 << 20, value_parser = clap::value_parser!(u64).range((1 << 16)..))]
    pub backlog_bytes: u64,

    /// How often the bus is probed, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub probe_every_s: u64,
    /// How long a probe may take, in milliseconds.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..))]
    pub probe_within_ms: u64,
    /// How often the counters are logged, in seconds.
    #[arg(long, default_value_t = 60)]
    pub report_every_s: u64,
}

/// An address that the public cannot reach.
fn private_address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "not ADDR:PORT".to_owned())?;
    let private = match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    match private {
        true => Ok(address),
        false => {
            Err("the bus knows no authorization, so only loopback and private addresses are taken".into())
        }
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let fits = text.is_ascii() && !text.ends_with('/') && safe::topic(text).is_ok();
    if fits { Ok(text.to_owned()) } else { Err("ASCII, no wildcard, no $ in front, no / at the end".into()) }
}

fn client_id(text: &str) -> Result<String, String> {
    if safe::client_id(text) && !text.is_empty() {
        Ok(text.to_owned())
    } else {
        Err("no / + # $, not empty".into())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_are_sound_and_the_example_is_shown() {
        let mut command = Settings::command();
        command.clone().debug_assert();
        assert!(command.render_long_help().to_string().contains("feedlog-egress --from"));
        let settings = Settings::parse_from(["feedlog-egress"]);
        assert_eq!(settings.filters, ["feeds/+"]);
    }

    #[test]
    fn the_bus_listens_where_the_public_cannot_reach() {
        for fits in ["127.0.0.1:1", "10.1.2.3:1", "192.168.0.1:1", "172.16.0.1:1", "[::1]:1", "[fd00::1]:1"] {
            assert!(private_address(fits).is_ok(), "{fits}");
        }
        for open in ["0.0.0.0:1", "[::]:1", "8.8.8.8:1", "172.32.0.1:1", "[2001:db8::1]:1", "localhost:1"] {
            assert!(private_address(open).is_err(), "{open}");
        }
    }

    #[test]
    fn a_prefix_makes_every_topic_safe() {
        for fits in ["bus", "a/b", "x y"] {
            assert!(prefix(fits).is_ok(), "{fits}");
        }
        for wrong in ["", "büs", "$bus", "bus/", "b+s", "#"] {
            assert!(prefix(wrong).is_err(), "{wrong}");
        }
    }
}
