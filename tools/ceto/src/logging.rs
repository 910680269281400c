//! Logs: one line per event on stderr, as text or JSON; `CETO_LOG` chooses levels (`info`, `debug,ceto_storage=trace`).

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Starts logging for the process. `default` is the level when `CETO_LOG` is not set.
pub(crate) fn start(format: LogFormat, default: &str) {
    let filter = EnvFilter::try_from_env("CETO_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}
