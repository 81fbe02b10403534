//! What the process tells of itself: log lines, metrics, traces.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::config::{Config, ConfigError, LogFormat};

/// Upper bounds of the time histograms, in seconds: from a cached read to a very slow disk.
const SECONDS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 10.0,
];
/// Upper bounds of the size histograms, in bytes.
const BYTES: &[f64] =
    &[256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];
/// Upper bounds of other histograms.
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

/// Keeps exporters alive; dropping it flushes them.
#[must_use]
pub struct Telemetry {
    #[cfg(feature = "otlp")]
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

#[cfg(feature = "otlp")]
impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            // Nobody is left to be told when the collector is gone.
            let _ = provider.shutdown();
        }
    }
}

/// Starts logging (to standard error) and, where configured, traces. Once per process.
///
/// # Errors
/// When the filter cannot be understood or the exporter cannot be made.
pub fn start(config: &Config) -> Result<Telemetry, ConfigError> {
    let problem = |text: String| ConfigError { problems: vec![text] };
    let (source, text) = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => ("RUST_LOG", text),
        _ => ("log.filter", config.log.filter.clone()),
    };
    let filter = EnvFilter::try_new(&text).map_err(|err| problem(format!("{source}: {err}")))?;
    let colored = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colored);
    let lines = match config.log.format {
        LogFormat::Pretty => lines.with_target(false).compact().boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let registry = tracing_subscriber::registry().with(filter).with(lines);
    #[cfg(feature = "otlp")]
    {
        let provider = config
            .telemetry
            .otlp_endpoint
            .as_deref()
            .map(otlp)
            .transpose()
            .map_err(|err| problem(format!("telemetry.otlp_endpoint: {err}")))?;
        let layer = provider.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(opentelemetry::trace::TracerProvider::tracer(provider, "feedlog"))
        });
        // A second start in one process (tests) keeps the first.
        let _ = registry.with(layer).try_init();
        Ok(Telemetry { provider })
    }
    #[cfg(not(feature = "otlp"))]
    {
        let _ = registry.try_init();
        Ok(Telemetry {})
    }
}

#[cfg(feature = "otlp")]
fn otlp(endpoint: &str) -> Result<opentelemetry_sdk::trace::SdkTracerProvider, String> {
    use opentelemetry_otlp::WithExportConfig;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .build()
        .map_err(|err| err.to_string())?;
    Ok(opentelemetry_sdk::trace::SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(opentelemetry_sdk::Resource::builder().with_service_name("feedlog").build())
        .build())
}

/// The recorder behind `metrics`' macros. Installed once per process; needs [`upkeep`] now and then.
pub fn recorder() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let suffix = |text: &str| Matcher::Suffix(text.to_owned());
            let builder = PrometheusBuilder::new()
                .set_buckets_for_metric(suffix("_seconds"), SECONDS)
                .and_then(|builder| builder.set_buckets_for_metric(suffix("_bytes"), BYTES))
                .and_then(|builder| builder.set_buckets(COUNTS))
                .expect("the bucket lists are not empty");
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            // Another recorder is there only if the embedding program installed its own: then /metrics is empty.
            let _ = metrics::set_global_recorder(recorder);
            handle
        })
        .clone()
}

/// Keeps the recorder's memory bounded: histograms are drained even when nobody reads `/metrics`.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    loop {
        tick.tick().await;
        handle.run_upkeep();
    }
}

/// The text of `/metrics`. `stats` are figures of the engine at this moment.
pub fn render(handle: &PrometheusHandle, stats: &[(&'static str, u64)]) -> String {
    for (name, value) in stats {
        metrics::gauge!(format!("feedlog_storage_{name}")).set(*value as f64);
    }
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!("feedlog_process_resident_bytes").set(bytes as f64);
    }
    handle.render()
}

/// Memory that this process has in RAM, in bytes; only where `/proc` tells it.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_have_buckets_and_the_engine_its_gauges() {
        let handle = recorder();
        metrics::histogram!("feedlog_test_wait_seconds").record(0.003);
        let text = render(&handle, &[("test_files", 7)]);
        assert!(text.contains("feedlog_test_wait_seconds_bucket{le=\"0.005\"} 1"), "{text}");
        assert!(text.contains("feedlog_storage_test_files 7"), "{text}");
        assert!(text.contains("feedlog_process_resident_bytes"), "{text}");
    }
}
