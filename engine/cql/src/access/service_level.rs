//! Service levels: what the requests of a role may take, an extension of CQL that ScyllaDB has too.

use crate::CqlError;
use crate::ast::{Property, PropertyValue};
use std::fmt::Write;
use std::time::Duration;

/// What kind of work a role does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum WorkloadType {
    /// Each request is waited for by somebody.
    Interactive,
    /// Throughput counts.
    Batch,
}

impl WorkloadType {
    /// As written and stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
        }
    }

    /// The opposite of [`WorkloadType::name`].
    pub fn from_name(name: &str) -> Option<WorkloadType> {
        [Self::Interactive, Self::Batch]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// A service level, without its name; what is not set is as without a service level.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServiceLevel {
    /// Time that a request may take; a multiple of a millisecond, more than none.
    pub timeout: Option<Duration>,
    /// Kind of work.
    pub workload_type: Option<WorkloadType>,
}

impl ServiceLevel {
    /// Both at once: the shorter timeout, and interactive rather than batch.
    pub(super) fn or_stricter(self, other: &ServiceLevel) -> ServiceLevel {
        fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            one.into_iter().chain(other).min()
        }
        ServiceLevel {
            timeout: least(self.timeout, other.timeout),
            workload_type: least(self.workload_type, other.workload_type),
        }
    }

    /// `timeout` as text; empty when not set.
    pub fn timeout_text(&self) -> String {
        self.timeout
            .map_or(String::new(), |timeout| format!("{}ms", timeout.as_millis()))
    }

    /// This level with what `properties` set.
    pub(super) fn with(mut self, properties: &[Property]) -> Result<ServiceLevel, CqlError> {
        for property in properties {
            let value = match &property.value {
                PropertyValue::Text(text) => &**text,
                PropertyValue::Map(_) => {
                    return Err(CqlError::invalid(format!(
                        "Service level option {} takes a single value",
                        property.name
                    )));
                }
            };
            match property.name.to_ascii_lowercase().as_str() {
                "timeout" => self.timeout = timeout(value)?,
                "workload_type" => self.workload_type = workload_type(value)?,
                other => {
                    return Err(CqlError::invalid(format!(
                        "Unknown service level option {other}; there are timeout and workload_type"
                    )));
                }
            }
        }
        Ok(self)
    }

    /// `WITH ..`, empty when nothing is set.
    pub(super) fn options_text(&self) -> String {
        let mut text = String::new();
        let mut add = |option: String| {
            let word = if text.is_empty() { " WITH" } else { " AND" };
            let _ = write!(text, "{word} {option}");
        };
        if self.timeout.is_some() {
            add(format!("TIMEOUT = {}", self.timeout_text()));
        }
        if let Some(kind) = self.workload_type {
            add(format!("WORKLOAD_TYPE = '{}'", kind.name()));
        }
        text
    }
}

fn timeout(text: &str) -> Result<Option<Duration>, CqlError> {
    if text.eq_ignore_ascii_case("null") {
        return Ok(None);
    }
    let invalid = |why: &str| CqlError::invalid(format!("Invalid timeout value {text}: {why}"));
    let duration: ceto_model::value::Duration = text
        .parse()
        .map_err(|_| invalid("a duration is needed, as 500ms or 1m"))?;
    if duration.months() != 0 || duration.days() != 0 {
        return Err(invalid("timeout values cannot be expressed in days/months"));
    }
    if duration.nanoseconds() % 1_000_000 != 0 {
        return Err(invalid(
            "timeout values must be expressed in millisecond granularity",
        ));
    }
    if duration.nanoseconds() <= 0 {
        return Err(invalid("timeout values must be more than nothing"));
    }
    Ok(Some(Duration::from_nanos(duration.nanoseconds().unsigned_abs())))
}

fn workload_type(text: &str) -> Result<Option<WorkloadType>, CqlError> {
    if text.eq_ignore_ascii_case("null") || text == "unspecified" {
        return Ok(None);
    }
    match WorkloadType::from_name(text) {
        Some(kind) => Ok(Some(kind)),
        None => Err(CqlError::invalid(format!(
            "Invalid workload type: {text}; there are interactive, batch and unspecified"
        ))),
    }
}
