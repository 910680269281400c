//! Names that keys had in cassandra.yaml before 4.1, when the unit stood in the name: taken still, with a note.

use serde_json::{Map, Value};

/// A former name, the present one, and the unit of the former's number.
const RENAMED: [(&str, &str, &str); 18] = [
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
];

type Settings = Map<String, Value>;

/// The settings under their present names, and one line for each that had a former one.
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
        let Some((_, present, unit)) = RENAMED.iter().find(|(former, _, _)| *former == key) else {
            settings.insert(key, value);
            continue;
        };
        if names.iter().any(|name| name == present) {
            return Err(format!(
                "{key}: is the former name of {present}, which is given too; remove it"
            ));
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
            "{key} is the former name of {present}; write {present}: {text}"
        ));
        settings.insert((*present).to_owned(), Value::String(text));
    }
    Ok((settings, notes))
}
