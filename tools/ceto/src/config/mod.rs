//! `ceto.yaml`: the node's settings.
//!
//! Keys are named as in cassandra.yaml where they mean the same. Every key has a default, every key is in
//! `conf/ceto.yaml` with its explanation (a test compares them), and an unknown key is an error that names the nearest
//! known one: a misspelt setting never passes for a setting.

mod access;
mod bounds;
mod cluster;
mod commitlog;
mod live;
mod renamed;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ceto_node::guardrails::Guardrails;
use ceto_node::options::AccessRules;
use ceto_node::settings::Setting;
use serde::{Deserialize, Serialize};

pub(crate) use access::AccessClass;
pub(crate) use ceto_node::quantity::{DataRate, DataSize, Period};
pub(crate) use cluster::{LinkCompression, SeedList, TokenList};
pub(crate) use commitlog::{CommitFailurePolicy, CommitlogCompression, ReplayFailurePolicy};

/// All settings, with Cassandra's defaults where Cassandra has the key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    pub(crate) cluster_name: String,
    pub(crate) datacenter: String,
    pub(crate) rack: String,
    pub(crate) num_tokens: u16,
    pub(crate) initial_token: Option<TokenList>,
    pub(crate) seeds: SeedList,
    pub(crate) auto_bootstrap: bool,
    pub(crate) replace_address_first_boot: Option<IpAddr>,
    pub(crate) phi_convict_threshold: f64,
    pub(crate) authenticator: AccessClass,
    pub(crate) authorizer: AccessClass,
    pub(crate) shards: u16,
    pub(crate) pin_shards: bool,
    pub(crate) data_file_directories: Vec<PathBuf>,
    pub(crate) commitlog_directory: Option<PathBuf>,
    pub(crate) commitlog_sync: SyncMode,
    pub(crate) commitlog_sync_period: Period,
    pub(crate) commitlog_sync_group_window: Period,
    pub(crate) commitlog_segment_size: DataSize,
    pub(crate) commitlog_total_space: DataSize,
    pub(crate) max_mutation_size: Option<DataSize>,
    pub(crate) commitlog_compression: Option<CommitlogCompression>,
    pub(crate) commit_failure_policy: CommitFailurePolicy,
    pub(crate) commitlog_replay_failure_policy: ReplayFailurePolicy,
    pub(crate) auto_snapshot: bool,
    pub(crate) auto_snapshot_ttl: Option<Period>,
    pub(crate) incremental_backups: bool,
    pub(crate) compaction_throughput: DataRate,
    pub(crate) concurrent_compactors: u32,
    pub(crate) memory_limit: Option<DataSize>,
    pub(crate) memtable_heap_space: Option<DataSize>,
    pub(crate) row_cache_size: Option<DataSize>,
    pub(crate) file_cache_size: Option<DataSize>,
    pub(crate) concurrent_reads: u32,
    pub(crate) listen_address: IpAddr,
    pub(crate) broadcast_address: Option<IpAddr>,
    pub(crate) storage_port: u16,
    pub(crate) internode_compression: LinkCompression,
    pub(crate) stream_throughput_outbound: DataRate,
    pub(crate) hinted_handoff_enabled: bool,
    pub(crate) hinted_handoff_disabled_datacenters: Vec<String>,
    pub(crate) max_hint_window: Period,
    pub(crate) max_hints_size_per_host: DataSize,
    pub(crate) hinted_handoff_throttle: Option<DataSize>,
    pub(crate) rpc_address: IpAddr,
    pub(crate) broadcast_rpc_address: Option<IpAddr>,
    pub(crate) native_transport_port: u16,
    pub(crate) native_shard_aware_transport_port: u16,
    pub(crate) native_transport_max_frame_size: DataSize,
    pub(crate) native_transport_max_concurrent_connections: i64,
    pub(crate) native_transport_max_requests_per_connection: u32,
    pub(crate) native_transport_max_requests_per_shard: u32,
    pub(crate) native_transport_max_output_per_connection: DataSize,
    pub(crate) native_transport_max_response_data_in_flight: Option<DataSize>,
    pub(crate) native_transport_max_request_data_in_flight: Option<DataSize>,
    pub(crate) native_transport_max_request_data_in_flight_per_ip: Option<DataSize>,
    pub(crate) prepared_statements_cache_entries: u32,
    pub(crate) read_request_timeout: Period,
    pub(crate) range_request_timeout: Period,
    pub(crate) write_request_timeout: Period,
    pub(crate) counter_write_request_timeout: Period,
    pub(crate) truncate_request_timeout: Period,
    pub(crate) batch_size_warn_threshold: DataSize,
    pub(crate) batch_size_fail_threshold: DataSize,
    pub(crate) tombstone_warn_threshold: u64,
    pub(crate) tombstone_failure_threshold: u64,
    pub(crate) query_tombstone_page_limit: Option<u64>,
    pub(crate) unlogged_batch_across_partitions_warn_threshold: u32,
    pub(crate) expiration_date_overflow_policy: ExpirationOverflow,
    pub(crate) cql_duplicate_bind_variable_names_refer_to_same_variable: bool,
    pub(crate) max_page_size: DataSize,
    pub(crate) user_defined_functions_enabled: bool,
    pub(crate) user_defined_functions_warn_timeout: Period,
    pub(crate) user_defined_functions_fail_timeout: Period,
    #[serde(flatten)]
    pub(crate) guardrails: Guardrails,
    pub(crate) api_address: IpAddr,
    pub(crate) api_port: u16,
    pub(crate) prometheus_address: IpAddr,
    pub(crate) prometheus_port: u16,
    pub(crate) stall_watchdog_timeout: Period,
    pub(crate) log_format: LogFormat,
    pub(crate) log_levels: String,
    pub(crate) trace_probability: f64,
}

/// `commitlog_sync`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SyncMode {
    Periodic,
    Batch,
    Group,
}

/// `expiration_date_overflow_policy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExpirationOverflow {
    #[serde(alias = "REJECT")]
    Reject,
    #[serde(alias = "CAP")]
    Cap,
    #[serde(rename = "cap_nowarn", alias = "CAP_NOWARN")]
    CapNoWarn,
}

impl From<ExpirationOverflow> for ceto_node::options::ExpirationOverflow {
    fn from(policy: ExpirationOverflow) -> Self {
        match policy {
            ExpirationOverflow::Reject => Self::Reject,
            ExpirationOverflow::Cap => Self::Cap,
            ExpirationOverflow::CapNoWarn => Self::CapNoWarn,
        }
    }
}

/// `log_format`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl Default for Config {
    fn default() -> Self {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        Self {
            cluster_name: "Test Cluster".to_owned(),
            datacenter: "datacenter1".to_owned(),
            rack: "rack1".to_owned(),
            num_tokens: 16,
            initial_token: None,
            seeds: SeedList::default(),
            auto_bootstrap: true,
            replace_address_first_boot: None,
            phi_convict_threshold: 8.0,
            authenticator: AccessClass::named("AllowAllAuthenticator"),
            authorizer: AccessClass::named("AllowAllAuthorizer"),
            shards: 0,
            pin_shards: true,
            data_file_directories: vec![PathBuf::from("/var/lib/ceto/data")],
            commitlog_directory: None,
            commitlog_sync: SyncMode::Periodic,
            commitlog_sync_period: Period::from_millis(10_000),
            commitlog_sync_group_window: Period::from_millis(10),
            commitlog_segment_size: DataSize::from_mebibytes(32),
            commitlog_total_space: DataSize::from_mebibytes(8192),
            max_mutation_size: None,
            commitlog_compression: None,
            commit_failure_policy: CommitFailurePolicy::Stop,
            commitlog_replay_failure_policy: ReplayFailurePolicy::Stop,
            auto_snapshot: true,
            auto_snapshot_ttl: None,
            incremental_backups: false,
            compaction_throughput: DataRate::from_mebibytes(64),
            concurrent_compactors: 2,
            memory_limit: None,
            memtable_heap_space: None,
            row_cache_size: None,
            file_cache_size: None,
            concurrent_reads: 128,
            listen_address: loopback,
            broadcast_address: None,
            storage_port: 7000,
            internode_compression: LinkCompression::Dc,
            stream_throughput_outbound: DataRate::from_mebibytes(24),
            hinted_handoff_enabled: true,
            hinted_handoff_disabled_datacenters: Vec::new(),
            max_hint_window: Period::from_millis(3 * 3600 * 1000),
            max_hints_size_per_host: DataSize::from_mebibytes(4096),
            hinted_handoff_throttle: None,
            rpc_address: loopback,
            broadcast_rpc_address: None,
            native_transport_port: 9042,
            native_shard_aware_transport_port: 19042,
            native_transport_max_frame_size: DataSize::from_mebibytes(16),
            native_transport_max_concurrent_connections: -1,
            native_transport_max_requests_per_connection: 2048,
            native_transport_max_requests_per_shard: 16_384,
            native_transport_max_output_per_connection: DataSize::from_mebibytes(16),
            native_transport_max_response_data_in_flight: None,
            native_transport_max_request_data_in_flight: None,
            native_transport_max_request_data_in_flight_per_ip: None,
            prepared_statements_cache_entries: 10_000,
            read_request_timeout: Period::from_millis(5_000),
            range_request_timeout: Period::from_millis(10_000),
            write_request_timeout: Period::from_millis(2_000),
            counter_write_request_timeout: Period::from_millis(5_000),
            truncate_request_timeout: Period::from_millis(60_000),
            batch_size_warn_threshold: DataSize::from_kibibytes(5),
            batch_size_fail_threshold: DataSize::from_kibibytes(50),
            tombstone_warn_threshold: 1_000,
            tombstone_failure_threshold: 100_000,
            query_tombstone_page_limit: None,
            unlogged_batch_across_partitions_warn_threshold: 10,
            expiration_date_overflow_policy: ExpirationOverflow::Reject,
            cql_duplicate_bind_variable_names_refer_to_same_variable: false,
            max_page_size: DataSize::from_mebibytes(1),
            user_defined_functions_enabled: false,
            user_defined_functions_warn_timeout: Period::from_millis(20),
            user_defined_functions_fail_timeout: Period::from_millis(100),
            guardrails: Guardrails::default(),
            api_address: loopback,
            api_port: 10_000,
            prometheus_address: loopback,
            prometheus_port: 9180,
            stall_watchdog_timeout: Period::from_millis(30_000),
            log_format: LogFormat::Text,
            log_levels: String::new(),
            trace_probability: 0.0,
        }
    }
}

/// Why a configuration was refused: one line that names the key and the cure.
#[derive(Debug)]
pub(crate) struct ConfigError(String);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads and checks a file.
    pub(crate) fn load(path: &Path) -> Result<Config, ConfigError> {
        #[allow(clippy::disallowed_methods)] // before any shard runs
        let text = std::fs::read(path)
            .map_err(|error| ConfigError(format!("cannot read {}: {error}", path.display())))?;
        let text =
            String::from_utf8(text).map_err(|_| ConfigError(format!("{} is not UTF-8", path.display())))?;
        let parsed = cluster::rackdc(path).and_then(|places| Config::parse_with_notes(&text, &places));
        let (config, notes) = parsed.map_err(|error| ConfigError(format!("{}: {error}", path.display())))?;
        notes
            .iter()
            .for_each(|note| eprintln!("ceto: {}: {note}", path.display()));
        Ok(config)
    }

    /// Parses and checks the text of a file.
    #[cfg(test)]
    pub(crate) fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse_with_notes(text, &[]).map(|(config, _)| config)
    }

    /// Parses and checks the text of a file; with it one line for each key that has another name now. `places`: keys and
    /// values that hold where the file does not have them.
    fn parse_with_notes(
        text: &str,
        places: &[(&'static str, String)],
    ) -> Result<(Config, Vec<String>), ConfigError> {
        let given: Option<serde_json::Map<String, serde_json::Value>> =
            serde_saphyr::from_str(text).map_err(|error| not_yaml(error.without_snippet()))?;
        let mut all = known_settings();
        for (key, value) in places {
            all.insert((*key).to_owned(), value.clone().into());
        }
        let (given, notes) = renamed::to_present_names(given.unwrap_or_default()).map_err(ConfigError)?;
        for (key, value) in given {
            let Some(setting) = all.get_mut(&key) else {
                return Err(unknown_key(&key, all.keys()));
            };
            *setting = value.clone();
            // One key at a time, so that a bad value is reported with its key.
            let single = serde_json::Map::from_iter([(key.clone(), value)]);
            serde_json::from_value::<Config>(single.into())
                .map_err(|error| ConfigError(of_key(&key, &error)))?;
        }
        let config: Config =
            serde_json::from_value(all.into()).map_err(|error| ConfigError(error.to_string()))?;
        config.check()?;
        Ok((config, notes))
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.check_bounds()?;
        let fail = |text: &str| Err(ConfigError(text.to_owned()));
        if self.data_file_directories.len() != 1 {
            return fail(
                "data_file_directories: exactly one folder is supported; join disks with RAID 0 or LVM",
            );
        }
        if !(1..=256).contains(&self.num_tokens) {
            return fail("num_tokens: must be 1 to 256");
        }
        if self.shards > 256 {
            return fail("shards: at most 256 (0: one per core)");
        }
        let segment = self.commitlog_segment_size.bytes();
        if !(1 << 20..=1 << 30).contains(&segment) {
            return fail("commitlog_segment_size: must be 1MiB to 1GiB");
        }
        let mutation_max = self.max_mutation_size.map_or(0, DataSize::bytes);
        if self.max_mutation_size.is_some() && (mutation_max < 1 << 10 || mutation_max > segment / 2) {
            return fail(
                "max_mutation_size: must be at least 1KiB and at most half of commitlog_segment_size",
            );
        }
        if let Some(compression) = &self.commitlog_compression {
            compression.compression().map_err(ConfigError)?;
        }
        if self.commitlog_total_space.bytes() < segment.saturating_mul(4) {
            return fail("commitlog_total_space: must hold at least four segments (commitlog_segment_size)");
        }
        if !(1..=64).contains(&self.concurrent_compactors) {
            return fail("concurrent_compactors: must be 1 to 64");
        }
        if self.memory_limit.is_some_and(|limit| limit.bytes() < 64 << 20) {
            return fail("memory_limit: must be at least 64MiB");
        }
        if self
            .memtable_heap_space
            .is_some_and(|space| space.bytes() < 1 << 20)
        {
            return fail("memtable_heap_space: must be at least 1MiB");
        }
        if self.concurrent_reads == 0 {
            return fail("concurrent_reads: must be at least 1");
        }
        if !(1 << 10..=256 << 20).contains(&self.native_transport_max_frame_size.bytes()) {
            return fail("native_transport_max_frame_size: must be 1KiB to 256MiB");
        }
        if self.batch_size_fail_threshold.bytes() < self.batch_size_warn_threshold.bytes() {
            return fail("batch_size_fail_threshold: must not be below batch_size_warn_threshold");
        }
        if self.native_transport_max_requests_per_connection == 0
            || self.native_transport_max_requests_per_shard == 0
        {
            return fail("native_transport_max_requests_per_connection and _per_shard: must be at least 1");
        }
        Ok(())
    }

    /// `authenticator` and `authorizer`.
    pub(crate) fn access_rules(&self) -> Result<AccessRules, ConfigError> {
        access::access_rules(&self.authenticator, &self.authorizer)
    }

    /// All keys with their values, for `system_views.settings`. `started`: what the file had.
    pub(crate) fn shown(&self, started: &Config) -> Vec<Setting> {
        let (now, started, default) = (self.to_map(), started.to_map(), known_settings());
        let setting = |(name, value): (String, serde_json::Value)| Setting {
            source: match (started.get(&name), default.get(&name)) {
                (before, _) if before != Some(&value) => "live",
                (_, default) if default != Some(&value) => "yaml",
                _ => "default",
            },
            kind: match &value {
                serde_json::Value::Bool(_) => "bool",
                serde_json::Value::Number(number) if number.is_f64() => "float",
                serde_json::Value::Number(_) => "integer",
                serde_json::Value::Array(_) => "list",
                _ => "text",
            },
            value: match value {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            },
            name,
        };
        now.into_iter().map(setting).collect()
    }

    fn to_map(&self) -> serde_json::Map<String, serde_json::Value> {
        match serde_json::to_value(self).expect("a config is plain data") {
            serde_json::Value::Object(settings) => settings,
            _ => serde_json::Map::new(),
        }
    }
}

fn known_settings() -> serde_json::Map<String, serde_json::Value> {
    Config::default().to_map()
}

/// An error that names its key.
fn of_key(key: &str, error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.contains(key) {
        true => text,
        false => format!("{key}: {text}"),
    }
}

/// A known key that is less like an unknown one than this is not what was meant.
const LIKENESS: f64 = 0.5;

fn unknown_key<'a>(key: &str, known: impl Iterator<Item = &'a String>) -> ConfigError {
    let nearest = known.min_by_key(|candidate| strsim::damerau_levenshtein(key, candidate));
    match nearest {
        Some(nearest) if strsim::normalized_damerau_levenshtein(key, nearest) >= LIKENESS => {
            ConfigError(format!("unknown key '{key}'; did you mean '{nearest}'?"))
        }
        _ => ConfigError(format!("unknown key '{key}'; conf/ceto.yaml explains all keys")),
    }
}

/// One line: where, what, and the cure where it is known.
fn not_yaml(error: &serde_saphyr::Error) -> ConfigError {
    let text = match error {
        serde_saphyr::Error::DuplicateMappingKey { key, location } => {
            let key = key.as_deref().unwrap_or("a key");
            format!(
                "line {}: '{key}' is there a second time; remove one of them",
                location.line()
            )
        }
        other => {
            let text = other.to_string();
            text.lines().next().unwrap_or_default().to_owned()
        }
    };
    ConfigError(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_sample_file_holds_every_key_with_its_default() {
        let text = include_str!("../../../../conf/ceto.yaml");
        assert_eq!(Config::parse(text).unwrap(), Config::default());
        for key in known_settings().keys() {
            let is_there = text
                .lines()
                .any(|line| line.trim_start_matches("# ").starts_with(&format!("{key}:")));
            assert!(is_there, "conf/ceto.yaml does not explain {key}");
        }
    }

    #[test]
    fn mistakes_are_named_with_their_cure() {
        let error = |text: &str| Config::parse(text).unwrap_err().to_string();
        assert_eq!(
            error("native_transport_prot: 9042"),
            "unknown key 'native_transport_prot'; did you mean 'native_transport_port'?"
        );
        assert!(error("commitlog_sync_period: 10parsecs").starts_with("commitlog_sync_period: "));
        assert!(error("native_transport_port: 70000").starts_with("native_transport_port: "));
        assert!(error("num_tokens: 0").starts_with("num_tokens: "));
        assert_eq!(
            error("shards: 1\ncluster_name: a\n# and again\nshards: 2\n"),
            "line 4: 'shards' is there a second time; remove one of them"
        );
        assert_eq!(
            error("cluster_name: ["),
            "unclosed bracket '[' at line 1, column 15"
        );
    }

    #[test]
    fn former_names_are_taken_with_a_note() {
        let text = "commitlog_sync_period_in_ms: 2000\ncommitlog_segment_size_in_mb: 64\nmax_mutation_size_in_kb: 512";
        let (config, notes) = Config::parse_with_notes(text, &[]).unwrap();
        assert_eq!(config.commitlog_sync_period, Period::from_millis(2000));
        assert_eq!(config.commitlog_segment_size, DataSize::from_mebibytes(64));
        assert_eq!(config.max_mutation_size, Some(DataSize::from_kibibytes(512)));
        let note = "commitlog_sync_period_in_ms is another name of commitlog_sync_period; write \
                    commitlog_sync_period: 2000ms";
        assert!(notes.iter().any(|found| found == note), "{notes:?}");
        let error = |text: &str| Config::parse(text).unwrap_err().to_string();
        let both = error("commitlog_total_space_in_mb: 64\ncommitlog_total_space: 1GiB");
        assert!(both.contains("given too"), "{both}");
        assert!(error("commitlog_total_space_in_mb: 8GiB").contains("write commitlog_total_space: 10MiB"));
    }

    #[test]
    fn names_of_scylladb_and_keys_without_effect_are_taken_with_a_note() {
        let text = "enable_user_defined_functions: true\nuser_defined_function_time_limit_ms: 50\n\
                    max_concurrent_requests_per_shard: 100\ncompaction_throughput_mb_per_sec: 0\n\
                    query_page_size_in_bytes: 65536\nuser_defined_functions_threads_enabled: false";
        let (config, notes) = Config::parse_with_notes(text, &[]).unwrap();
        assert!(config.user_defined_functions_enabled);
        assert_eq!(
            config.user_defined_functions_fail_timeout,
            Period::from_millis(50)
        );
        assert_eq!(config.native_transport_max_requests_per_shard, 100);
        assert_eq!(config.max_page_size, DataSize::from_kibibytes(64));
        let note = "enable_user_defined_functions is another name of user_defined_functions_enabled; write \
                    user_defined_functions_enabled: true";
        assert!(notes.iter().any(|found| found == note), "{notes:?}");
        assert!(
            notes
                .iter()
                .any(|found| found.contains("_threads_enabled changes nothing")),
            "{notes:?}"
        );
        assert_eq!(notes.len(), 6);
    }

    #[test]
    fn a_compressor_of_the_commitlog_is_written_as_in_cassandra() {
        let text = "commitlog_compression:\n  - class_name: ZstdCompressor\n    parameters:\n      - compression_level: 5";
        let config = Config::parse(text).unwrap();
        let compression = config.commitlog_compression.unwrap().compression().unwrap();
        assert_eq!(
            (compression.codec.name(), compression.level),
            ("ZstdCompressor", 5)
        );
        let plain = "commitlog_compression:\n  - class_name: LZ4Compressor\n    parameters:\n      -";
        assert!(Config::parse(plain).is_ok());
        let error = |text: &str| Config::parse(text).unwrap_err().to_string();
        assert!(
            error("commitlog_compression:\n  - class_name: Rar").contains("known classes are LZ4Compressor")
        );
        assert!(error("max_mutation_size: 20MiB").starts_with("max_mutation_size: "));
        assert!(error("commit_failure_policy: panic").starts_with("commit_failure_policy: "));
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
        assert_eq!(Config::parse("# only a comment\n").unwrap(), Config::default());
    }
}
