//! Logs: one line per event on stderr, as text or JSON. The levels (`info`, `debug,ceto_storage=trace`) are those of
//! `CETO_LOG`, else of `log_levels` in the configuration; the latter can change while the node runs.

use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Libraries whose warnings tell nobody anything but their authors: what matters of them is logged where they are used.
const QUIET: &str = "openraft=error,openraft::replication=off,chitchat=error";

/// Puts other levels in the place of the present ones.
type Reload = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// Of the process; none before [`start`].
static RELOAD: OnceLock<Reload> = OnceLock::new();

/// Starts logging for the process, and returns the levels. `default` are those when neither `CETO_LOG` nor the
/// configuration says any.
pub(crate) fn start(format: LogFormat, levels: &str, default: &str) -> String {
    let asked_for = std::env::var("CETO_LOG")
        .ok()
        .filter(|levels| check_levels(levels).is_ok());
    let levels = asked_for.unwrap_or_else(|| or_default(levels, default));
    let filter = EnvFilter::new(&levels);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let reload: Reload = match format {
        LogFormat::Text => {
            let builder = builder.with_ansi(false).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |filter| drop(handle.reload(filter)))
        }
        LogFormat::Json => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |filter| drop(handle.reload(filter)))
        }
    };
    let _ = RELOAD.set(reload);
    levels
}

fn or_default(levels: &str, default: &str) -> String {
    match levels.is_empty() {
        true => format!("{default},{QUIET}"),
        false => levels.to_owned(),
    }
}

/// Refuses levels that nobody understands; with one line.
pub(crate) fn check_levels(levels: &str) -> Result<(), String> {
    EnvFilter::try_new(levels)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// Takes other levels from now on. Empty ones are `default`.
pub(crate) fn set_levels(levels: &str, default: &str) {
    let levels = or_default(levels, default);
    if let (Some(reload), Ok(filter)) = (RELOAD.get(), EnvFilter::try_new(levels)) {
        reload(filter);
    }
}
