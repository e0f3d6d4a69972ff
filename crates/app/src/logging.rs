//! The operator's log on standard error.

use crate::config::{LogFormat, LogLevel};
use tracing_subscriber::{EnvFilter, fmt};

/// Starts the log. REHOME_LOG overrides the level, in the syntax of `tracing`'s filters.
pub(crate) fn start(format: LogFormat, level: LogLevel) {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "warn,rehome=info",
        LogLevel::Debug => "info,rehome=debug",
        LogLevel::Trace => "debug,rehome=trace",
    };
    let filter = std::env::var("REHOME_LOG")
        .ok()
        .and_then(|text| EnvFilter::try_new(text).ok());
    let log = fmt::Subscriber::builder()
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new(level)))
        .with_ansi(false)
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => tracing::subscriber::set_global_default(log.finish()),
        LogFormat::Json => tracing::subscriber::set_global_default(log.json().finish()),
    };
    // It fails only where a log was started before; that one goes on.
    let _ = started;
}
