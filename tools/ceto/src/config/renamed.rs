//! Names that keys have elsewhere: in cassandra.yaml before 4.1, when the unit stood in the name, and in scylla.yaml. They
//! are taken, with a note, where they mean the same; so are keys that need not be here.

use serde_json::{Map, Value};

/// Another name, the one here, and the unit of the other's number; "" where the value is the same.
const RENAMED: [(&str, &str, &str); 30] = [
    ("commitlog_sync_period_in_ms", "commitlog_sync_period", "ms"),
    (
        "commitlog_sync_group_window_in_ms",
        "commitlog_sync_group_window",
        "ms",
    ),
    ("commitlog_segment_size_in_mb", "commitlog_segment_size", "MiB"),
    ("commitlog_total_space_in_mb", "commitlog_total_space", "MiB"),
    ("max_mutation_size_in_kb", "max_mutation_size", "KiB"),
    ("memtable_heap_space_in_mb", "memtable_heap_space", "MiB"),
    ("row_cache_size_in_mb", "row_cache_size", "MiB"),
    ("file_cache_size_in_mb", "file_cache_size", "MiB"),
    (
        "native_transport_max_frame_size_in_mb",
        "native_transport_max_frame_size",
        "MiB",
    ),
    ("max_hint_window_in_ms", "max_hint_window", "ms"),
    ("hinted_handoff_throttle_in_kb", "hinted_handoff_throttle", "KiB"),
    ("read_request_timeout_in_ms", "read_request_timeout", "ms"),
    ("range_request_timeout_in_ms", "range_request_timeout", "ms"),
    ("write_request_timeout_in_ms", "write_request_timeout", "ms"),
    (
        "counter_write_request_timeout_in_ms",
        "counter_write_request_timeout",
        "ms",
    ),
    ("truncate_request_timeout_in_ms", "truncate_request_timeout", "ms"),
    (
        "batch_size_warn_threshold_in_kb",
        "batch_size_warn_threshold",
        "KiB",
    ),
    (
        "batch_size_fail_threshold_in_kb",
        "batch_size_fail_threshold",
        "KiB",
    ),
    (
        "compaction_throughput_mb_per_sec",
        "compaction_throughput",
        "MiB/s",
    ),
    (
        "native_transport_max_concurrent_requests_in_bytes",
        "native_transport_max_request_data_in_flight",
        "B",
    ),
    (
        "native_transport_max_concurrent_requests_in_bytes_per_ip",
        "native_transport_max_request_data_in_flight_per_ip",
        "B",
    ),
    (
        "user_defined_function_warn_timeout",
        "user_defined_functions_warn_timeout",
        "ms",
    ),
    (
        "user_defined_function_fail_timeout",
        "user_defined_functions_fail_timeout",
        "ms",
    ),
    (
        "enable_user_defined_functions",
        "user_defined_functions_enabled",
        "",
    ),
    (
        "compaction_large_partition_warning_threshold_mb",
        "partition_size_warn_threshold",
        "MiB",
    ),
    (
        "compaction_tombstone_warning_threshold",
        "partition_tombstones_warn_threshold",
        "",
    ),
    ("enable_materialized_views", "materialized_views_enabled", ""),
    // ScyllaDB's own.
    (
        "user_defined_function_time_limit_ms",
        "user_defined_functions_fail_timeout",
        "ms",
    ),
    (
        "max_concurrent_requests_per_shard",
        "native_transport_max_requests_per_shard",
        "",
    ),
    ("query_page_size_in_bytes", "max_page_size", "B"),
];

/// Keys of cassandra.yaml that change nothing here, and why.
const WITHOUT_EFFECT: [(&str, &str); 1] = [(
    "user_defined_functions_threads_enabled",
    "functions run in a sandbox on their shard, within a bound of steps, and need no threads",
)];

type Settings = Map<String, Value>;

/// The settings under the names they have here, and one line for each that had another.
pub(super) fn to_present_names(given: Settings) -> Result<(Settings, Vec<String>), String> {
    let mut notes = Vec::new();
    let mut settings = Settings::new();
    let names: Vec<String> = given.keys().cloned().collect();
    for (key, value) in given {
        if key == "seed_provider" {
            if names.iter().any(|name| name == "seeds") {
                return Err("seed_provider: seeds is given too; remove one of them".to_owned());
            }
            settings.insert("seeds".to_owned(), super::cluster::seeds_of_provider(&value)?);
            continue;
        }
        if let Some((_, why)) = WITHOUT_EFFECT.iter().find(|(name, _)| *name == key) {
            notes.push(format!("{key} changes nothing: {why}; remove it"));
            continue;
        }
        let Some((_, present, unit)) = RENAMED.iter().find(|(former, _, _)| *former == key) else {
            settings.insert(key, value);
            continue;
        };
        if names.iter().any(|name| name == present) {
            return Err(format!(
                "{key}: is another name of {present}, which is given too; remove it"
            ));
        }
        if unit.is_empty() {
            notes.push(format!(
                "{key} is another name of {present}; write {present}: {value}"
            ));
            settings.insert((*present).to_owned(), value);
            continue;
        }
        let number = match &value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            return Err(format!(
                "{key}: '{value}' is not a whole number; write {present}: 10{unit} instead"
            ));
        };
        let text = format!("{number}{unit}");
        notes.push(format!(
            "{key} is another name of {present}; write {present}: {text}"
        ));
        settings.insert((*present).to_owned(), Value::String(text));
    }
    Ok((settings, notes))
}
