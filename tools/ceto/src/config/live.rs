//! Keys that can change while the node runs: which, and the settings that a change leads to.
//!
//! A value is written as in the file. A change is judged like a file that has it.

use serde_json::Value;

use super::{Config, ConfigError, known_settings, renamed, unknown_key};

/// Keys that the node looks at again and again; all guardrails are such keys too.
const LIVE: [&str; 22] = [
    "batch_size_fail_threshold",
    "batch_size_warn_threshold",
    "compaction_throughput",
    "counter_write_request_timeout",
    "cql_duplicate_bind_variable_names_refer_to_same_variable",
    "expiration_date_overflow_policy",
    "incremental_backups",
    "log_levels",
    "max_page_size",
    "native_transport_max_output_per_connection",
    "native_transport_max_requests_per_connection",
    "native_transport_max_requests_per_shard",
    "query_tombstone_page_limit",
    "range_request_timeout",
    "read_request_timeout",
    "stream_throughput_outbound",
    "tombstone_failure_threshold",
    "tombstone_warn_threshold",
    "trace_probability",
    "truncate_request_timeout",
    "unlogged_batch_across_partitions_warn_threshold",
    "write_request_timeout",
];

impl Config {
    /// The configuration with some keys changed.
    pub(crate) fn with(&self, changes: &[(String, String)]) -> Result<Config, ConfigError> {
        let mut all = self.to_map();
        let mut given = serde_json::Map::new();
        for (key, text) in changes {
            if given.insert(key.clone(), parse_value(key, text)?).is_some() {
                return Err(ConfigError(format!("{key}: is given twice")));
            }
        }
        let (given, _) = renamed::to_present_names(given).map_err(ConfigError)?;
        let guardrails = serde_json::to_value(&self.guardrails).unwrap_or_default();
        for (key, value) in given {
            let Some(setting) = all.get_mut(&key) else {
                return Err(unknown_key(&key, known_settings().keys()));
            };
            if !LIVE.contains(&&*key) && guardrails.get(&key).is_none() {
                return Err(ConfigError(format!(
                    "{key} cannot change while the node runs: change it in ceto.yaml and restart the node"
                )));
            }
            *setting = match (&*setting, value) {
                // As booleans are written too.
                (Value::Bool(_), Value::Number(number)) if number.as_u64() == Some(0) => Value::Bool(false),
                (Value::Bool(_), Value::Number(number)) if number.as_u64() == Some(1) => Value::Bool(true),
                (_, value) => value,
            };
            let single = serde_json::Map::from_iter([(key.clone(), setting.clone())]);
            serde_json::from_value::<Config>(single.into())
                .map_err(|error| ConfigError(super::of_key(&key, &error)))?;
        }
        let config: Config =
            serde_json::from_value(all.into()).map_err(|error| ConfigError(error.to_string()))?;
        config.check()?;
        Ok(config)
    }
}

/// A value as YAML has it.
fn parse_value(key: &str, text: &str) -> Result<Value, ConfigError> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str(text)
        .map_err(|_| ConfigError(format!("{key}: '{text}' is no value; write it as in ceto.yaml")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn changed(changes: &[(&str, &str)]) -> Result<Config, String> {
        let changes: Vec<(String, String)> = changes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Config::default()
            .with(&changes)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_written_as_in_the_file() {
        let config = changed(&[
            ("read_request_timeout", "250ms"),
            ("tombstone_warn_threshold", "5"),
            ("query_tombstone_page_limit", "10"),
            ("allow_filtering_enabled", "0"),
            ("column_value_size_fail_threshold", "1MiB"),
            ("read_consistency_levels_disallowed", "[any, one]"),
            ("table_properties_warned", "comment,CDC"),
        ])
        .unwrap();
        assert_eq!(config.read_request_timeout.duration().as_millis(), 250);
        assert_eq!(config.tombstone_warn_threshold, 5);
        assert_eq!(config.query_tombstone_page_limit, Some(10));
        assert!(!config.guardrails.allow_filtering_enabled);
        assert_eq!(config.guardrails.column_value_size.fail, 1 << 20);
        assert_eq!(
            config.guardrails.read_consistency_levels_disallowed,
            ["ANY", "ONE"]
        );
        assert_eq!(config.guardrails.table_properties_warned, ["cdc", "comment"]);
        let back = config.with(&[("query_tombstone_page_limit".to_owned(), "null".to_owned())]);
        assert_eq!(back.unwrap().query_tombstone_page_limit, None);
    }

    #[test]
    fn all_settings_have_a_source() {
        let started = Config::parse("tables_warn_threshold: 7").unwrap();
        let now = started
            .with(&[("tables_fail_threshold".to_owned(), "9".to_owned())])
            .unwrap();
        let shown = now.shown(&started);
        let of = |name: &str| {
            let found = shown.iter().find(|setting| setting.name == name).unwrap();
            (found.value.as_str(), found.kind, found.source)
        };
        assert_eq!(of("tables_warn_threshold"), ("7", "integer", "yaml"));
        assert_eq!(of("tables_fail_threshold"), ("9", "integer", "live"));
        assert_eq!(of("group_by_enabled"), ("true", "bool", "default"));
        assert_eq!(shown.len(), known_settings().len());
    }

    #[test]
    fn what_cannot_change_or_contradicts_is_refused() {
        let refused = |changes: &[(&str, &str)]| changed(changes).unwrap_err();
        assert_eq!(
            refused(&[("num_tokens", "4")]),
            "num_tokens cannot change while the node runs: change it in ceto.yaml and restart the node"
        );
        assert!(refused(&[("tables_wran_threshold", "4")]).contains("did you mean 'tables_warn_threshold'?"));
        assert_eq!(
            refused(&[("tables_warn_threshold", "4"), ("tables_fail_threshold", "3")]),
            "The warn threshold 4 for tables_warn_threshold should be lower than the fail threshold 3"
        );
        assert_eq!(
            refused(&[("keyspaces_warn_threshold", "-20")]),
            "Invalid value -20 for keyspaces_warn_threshold: negative values are not allowed, outside of -1 which \
             disables the guardrail"
        );
        assert!(refused(&[("read_request_timeout", "1ms")]).contains("at least 10ms"));
        assert!(refused(&[("group_by_enabled", "maybe")]).contains("neither true nor false"));
        assert!(refused(&[("table_properties_warned", "colour")]).contains("valid table properties"));
        assert!(refused(&[("group_by_enabled", "true"), ("group_by_enabled", "false")]).contains("twice"));
    }
}
