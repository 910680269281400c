//! `ceto dev`: one node on loopback, no configuration, little memory, ready at once.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use crate::config::{AccessClass, Config, DataSize, LogFormat};
use crate::identity;
use crate::start::{self, StartError};

/// Arguments of `ceto dev`.
#[derive(Args)]
pub(crate) struct DevArguments {
    /// Number of shards
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    shards: u16,
    /// Folder for data; without it a temporary one, removed at the end
    #[arg(long)]
    data: Option<PathBuf>,
    /// Address to listen on; must be a loopback address
    #[arg(long, default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Clients have to log in (at first as cassandra, with the password cassandra) and need permissions
    #[arg(long)]
    auth: bool,
    /// CQL port
    #[arg(long, default_value_t = 9042)]
    native_port: u16,
    /// CQL port where the client's source port chooses the shard
    #[arg(long, default_value_t = 19042)]
    shard_aware_port: u16,
    /// Port of the admin API
    #[arg(long, default_value_t = 10000)]
    admin_port: u16,
    /// Port of the Prometheus metrics
    #[arg(long, default_value_t = 9180)]
    metrics_port: u16,
}

/// Name of temporary data folders.
const TEMPORARY_PREFIX: &str = "ceto-dev-";

/// Temporary folders outlive a node that was killed; the next one removes those that no process holds. What cannot be
/// read, locked or removed is left alone: it is somebody else's.
#[allow(clippy::disallowed_methods)] // before any shard runs
fn remove_abandoned_folders() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX);
        // Only a folder in which a node once started has a lock to be free.
        if is_ours && entry.path().join(identity::LOCK_FILE).is_file() {
            let lock = identity::lock(&entry.path());
            if lock.is_ok() {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(arguments: &DevArguments) -> Result<(), StartError> {
    if !arguments.listen.is_loopback() {
        let text = format!(
            "--listen {} is not a loopback address; use `ceto server` to serve others",
            arguments.listen
        );
        return Err(StartError::Usage(text));
    }
    let temporary = match &arguments.data {
        Some(_) => None,
        None => Some({
            remove_abandoned_folders();
            tempfile::Builder::new()
                .prefix(TEMPORARY_PREFIX)
                .tempdir()
                .map_err(|error| {
                    StartError::Failed(format!(
                        "cannot create a temporary folder: {error}; give one with --data"
                    ))
                })?
        }),
    };
    let data = match (&arguments.data, &temporary) {
        (Some(data), _) => data.clone(),
        (None, Some(folder)) => folder.path().to_owned(),
        (None, None) => return Err(StartError::Failed("no data folder".to_owned())),
    };
    let config = Config {
        shards: arguments.shards,
        pin_shards: false,
        data_file_directories: vec![data],
        commitlog_total_space: DataSize::from_mebibytes(1024),
        // Tests truncate and drop all day.
        auto_snapshot: false,
        user_defined_functions_enabled: true,
        memory_limit: Some(DataSize::from_mebibytes(512)),
        listen_address: arguments.listen,
        rpc_address: arguments.listen,
        api_address: arguments.listen,
        prometheus_address: arguments.listen,
        native_transport_port: arguments.native_port,
        native_shard_aware_transport_port: arguments.shard_aware_port,
        api_port: arguments.admin_port,
        prometheus_port: arguments.metrics_port,
        authenticator: AccessClass::named(if arguments.auth {
            "PasswordAuthenticator"
        } else {
            "AllowAllAuthenticator"
        }),
        authorizer: AccessClass::named(if arguments.auth {
            "CassandraAuthorizer"
        } else {
            "AllowAllAuthorizer"
        }),
        log_format: LogFormat::Text,
        ..Config::default()
    };
    start::run(&config, "warn")
}
