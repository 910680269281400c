//! `caching = {'keys': 'ALL', 'rows_per_partition': 'NONE'}`.

use super::property::Entries;
use crate::CqlError;
use std::collections::BTreeMap;

const KEYS: &str = "keys";
const ROWS_PER_PARTITION: &str = "rows_per_partition";
const ALL: &str = "ALL";
const NONE: &str = "NONE";

/// Both options, one that is not written being NONE.
pub(super) fn caching(entries: &Entries) -> Result<BTreeMap<String, String>, CqlError> {
    let (mut keys, mut rows) = (NONE.to_owned(), NONE.to_owned());
    let mut unknown = Vec::new();
    for (name, value) in entries {
        match &**name {
            KEYS => keys = all_or_none(value)?,
            ROWS_PER_PARTITION => rows = rows_per_partition(value)?,
            other => unknown.push(other),
        }
    }
    if !unknown.is_empty() {
        return Err(CqlError::config(format!(
            "Invalid caching sub-options [{}]: only '{KEYS}' and '{ROWS_PER_PARTITION}' are allowed",
            unknown.join(", ")
        )));
    }
    Ok([(KEYS, keys), (ROWS_PER_PARTITION, rows)]
        .map(|(name, value)| (name.to_owned(), value))
        .into())
}

fn all_or_none(value: &str) -> Result<String, CqlError> {
    match value.to_ascii_uppercase() {
        upper if upper == ALL || upper == NONE => Ok(upper),
        _ => Err(CqlError::config(format!(
            "Invalid value '{value}' for caching sub-option '{KEYS}': only '{ALL}' and '{NONE}' are allowed"
        ))),
    }
}

fn rows_per_partition(value: &str) -> Result<String, CqlError> {
    let invalid = || {
        CqlError::config(format!(
            "Invalid value '{value}' for caching sub-option '{ROWS_PER_PARTITION}': only '{ALL}', '{NONE}', and \
             integer values are allowed"
        ))
    };
    match value.to_ascii_uppercase() {
        upper if upper == ALL || upper == NONE => Ok(upper),
        _ if value.bytes().all(|byte| byte.is_ascii_digit()) => match value.parse::<i32>() {
            Ok(0) => Ok(NONE.to_owned()),
            Ok(i32::MAX) => Ok(ALL.to_owned()),
            Ok(rows) => Ok(rows.to_string()),
            Err(_) => Err(invalid()),
        },
        _ => Err(invalid()),
    }
}
