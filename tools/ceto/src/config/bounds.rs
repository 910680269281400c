//! Limits of settings, and settings that contradict each other: found before anything starts.

use super::{Config, ConfigError, DataSize, Period};

/// A request that may take less than this cannot be served; Cassandra's bound.
const LOWEST_TIMEOUT_MS: u128 = 10;
/// A shorter watchdog would end the node for one slow disk request.
const LOWEST_WATCHDOG_MS: u128 = 1_000;

/// A page holds at least one row; less than this is a slip of the pen.
const PAGE_SIZE_LOWEST: DataSize = DataSize::from_kibibytes(1);

impl Config {
    pub(super) fn check_bounds(&self) -> Result<(), ConfigError> {
        self.access_rules()?;
        self.check_cluster()?;
        self.check_timeouts()?;
        self.check_ports()?;
        let at_least = |key: &str, value: u64, least: u64| match value < least {
            true => Err(ConfigError(format!("{key}: must be at least {least}"))),
            false => Ok(()),
        };
        at_least(
            "prepared_statements_cache_entries",
            self.prepared_statements_cache_entries.into(),
            1,
        )?;
        if !(0.0..=1.0).contains(&self.trace_probability) {
            return Err(ConfigError(
                "trace_probability: must be between 0 and 1".to_owned(),
            ));
        }
        if let Err(reason) = crate::logging::check_levels(&self.log_levels) {
            return Err(ConfigError(format!(
                "log_levels: {reason}; write info, or debug,ceto_storage=trace"
            )));
        }
        if self.max_page_size.bytes() < PAGE_SIZE_LOWEST.bytes() {
            return Err(ConfigError("max_page_size: must be at least 1KiB".to_owned()));
        }
        if self.native_transport_max_concurrent_connections == 0
            || self.native_transport_max_concurrent_connections < -1
        {
            return Err(ConfigError(
                "native_transport_max_concurrent_connections: must be at least 1, or -1 for no limit"
                    .to_owned(),
            ));
        }
        if self.tombstone_failure_threshold < self.tombstone_warn_threshold {
            return Err(ConfigError(
                "tombstone_failure_threshold: must not be below tombstone_warn_threshold".to_owned(),
            ));
        }
        if self.query_tombstone_page_limit == Some(0) {
            return Err(ConfigError(
                "query_tombstone_page_limit: must be at least 1, or null for tombstone_failure_threshold"
                    .to_owned(),
            ));
        }
        self.guardrails.check().map_err(ConfigError)
    }

    fn check_timeouts(&self) -> Result<(), ConfigError> {
        let timeouts: [(&str, &Period, u128); 6] = [
            (
                "read_request_timeout",
                &self.read_request_timeout,
                LOWEST_TIMEOUT_MS,
            ),
            (
                "range_request_timeout",
                &self.range_request_timeout,
                LOWEST_TIMEOUT_MS,
            ),
            (
                "write_request_timeout",
                &self.write_request_timeout,
                LOWEST_TIMEOUT_MS,
            ),
            (
                "counter_write_request_timeout",
                &self.counter_write_request_timeout,
                LOWEST_TIMEOUT_MS,
            ),
            (
                "truncate_request_timeout",
                &self.truncate_request_timeout,
                LOWEST_TIMEOUT_MS,
            ),
            (
                "stall_watchdog_timeout",
                &self.stall_watchdog_timeout,
                LOWEST_WATCHDOG_MS,
            ),
        ];
        match timeouts
            .iter()
            .find(|(_, period, least)| period.duration().as_millis() < *least)
        {
            Some((key, _, least)) => Err(ConfigError(format!("{key}: must be at least {least}ms"))),
            None => Ok(()),
        }
    }

    /// Two listeners of one address cannot share a port.
    fn check_ports(&self) -> Result<(), ConfigError> {
        let listeners = [
            (
                "native_transport_port",
                self.rpc_address,
                self.native_transport_port,
            ),
            (
                "native_shard_aware_transport_port",
                self.rpc_address,
                self.native_shard_aware_transport_port,
            ),
            ("api_port", self.api_address, self.api_port),
            ("prometheus_port", self.prometheus_address, self.prometheus_port),
        ];
        for (at, (key, address, port)) in listeners.iter().enumerate() {
            let same = |(_, other_address, other_port): &&(&str, std::net::IpAddr, u16)| {
                *port != 0
                    && port == other_port
                    && (address == other_address
                        || address.is_unspecified()
                        || other_address.is_unspecified())
            };
            if let Some((other, ..)) = listeners.iter().take(at).find(same) {
                return Err(ConfigError(format!(
                    "{key}: port {port} is taken by {other}; choose another"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        let error = |text: &str| Config::parse(text).unwrap_err().to_string();
        for (text, expected) in [
            (
                "read_request_timeout: 0ms",
                "read_request_timeout: must be at least 10ms",
            ),
            (
                "stall_watchdog_timeout: 1ms",
                "stall_watchdog_timeout: must be at least 1000ms",
            ),
            (
                "keyspaces_warn_threshold: 5\nkeyspaces_fail_threshold: 2",
                "The warn threshold 5 for keyspaces_warn_threshold should be lower than the fail threshold 2",
            ),
            (
                "minimum_replication_factor_warn_threshold: 2\nminimum_replication_factor_fail_threshold: 3",
                "The warn threshold 2 for minimum_replication_factor_warn_threshold should be greater than the fail threshold 3",
            ),
            ("max_page_size: 0B", "max_page_size: must be at least 1KiB"),
            (
                "prepared_statements_cache_entries: 0",
                "prepared_statements_cache_entries: must be at least 1",
            ),
            (
                "api_port: 9042",
                "api_port: port 9042 is taken by native_transport_port; choose another",
            ),
        ] {
            assert_eq!(error(text), expected);
        }
        assert!(error("native_transport_max_concurrent_connections: 0").contains("at least 1, or -1"));
        assert!(error("tombstone_warn_threshold: 200000").starts_with("tombstone_failure_threshold: "));
        assert!(Config::parse("api_port: 9042\napi_address: 127.0.0.2").is_ok());
        assert!(Config::parse("native_transport_max_concurrent_connections: -1").is_ok());
    }
}
