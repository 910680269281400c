//! `ceto dev`: one node on loopback, no configuration, little memory, ready at once; or several ([`dev_cluster`]).

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use crate::config::{AccessClass, Config, DataSize, LogFormat, SeedList};
use crate::dev_cluster;
use crate::identity;
use crate::start::{self, Neighbours, StartError};

/// Arguments of `ceto dev`.
#[derive(Args)]
pub(crate) struct DevArguments {
    /// Number of nodes, as processes on 127.0.0.1, 127.0.0.2 and so on; together they are one cluster
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) nodes: u8,
    /// Number of shards of each node
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) shards: u16,
    /// Folder for data; without it a temporary one, removed at the end
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Address to listen on; must be a loopback address
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) listen: IpAddr,
    /// Clients have to log in (at first as cassandra, with the password cassandra) and need permissions
    #[arg(long)]
    pub(crate) auth: bool,
    /// CQL port
    #[arg(long, default_value_t = 9042)]
    pub(crate) native_port: u16,
    /// CQL port where the client's source port chooses the shard
    #[arg(long, default_value_t = 19042)]
    pub(crate) shard_aware_port: u16,
    /// Port of the admin API
    #[arg(long, default_value_t = 10000)]
    pub(crate) admin_port: u16,
    /// Port of the Prometheus metrics
    #[arg(long, default_value_t = 9180)]
    pub(crate) metrics_port: u16,
    /// Port between nodes
    #[arg(long, default_value_t = 7000)]
    pub(crate) storage_port: u16,
    /// Address of the cluster's first node; nodes of one cluster have the same
    #[arg(long, hide = true)]
    pub(crate) seed: Option<IpAddr>,
    /// End when standard input ends: with the process that started this one
    #[arg(long, hide = true)]
    pub(crate) leashed: bool,
    /// Data center
    #[arg(long, default_value = "datacenter1")]
    pub(crate) datacenter: String,
    /// Rack
    #[arg(long, default_value = "rack1")]
    pub(crate) rack: String,
}

/// Name of temporary data folders.
pub(crate) const TEMPORARY_PREFIX: &str = "ceto-dev-";

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
        if is_ours && entry.path().join(ceto_sstable::LOCK_FILE).is_file() {
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
    if arguments.nodes > 1 {
        remove_abandoned_folders();
        return dev_cluster::run(arguments);
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
        datacenter: arguments.datacenter.clone(),
        rack: arguments.rack.clone(),
        listen_address: arguments.listen,
        storage_port: arguments.storage_port,
        seeds: SeedList(vec![arguments.seed.unwrap_or(arguments.listen).to_string()]),
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
    if arguments.leashed {
        #[allow(clippy::disallowed_methods)] // it only reads standard input
        std::thread::spawn(|| {
            // An error is an end, too.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            ceto_runtime::terminate(std::process::id());
        });
    }
    let neighbours = match arguments.seed {
        Some(_) => Neighbours::Close,
        None => Neighbours::None,
    };
    start::run(&config, "warn", neighbours)
}
