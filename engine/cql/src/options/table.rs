//! The options of a table.

use super::property::{Entries, PropertyReader};
use super::{TIME_TO_LIVE_MAX, caching, compaction, compression, format_double, speculative_retry};
use crate::CqlError;
use crate::ast::Properties;
use ceto_model::schema::TableOptions;
use std::collections::BTreeMap;
use uuid::Uuid;

/// The table's identity, which only CREATE TABLE takes.
const ID: &str = "id";

const KNOWN: [&str; 20] = [
    ID,
    "additional_write_policy",
    "allow_auto_snapshot",
    "bloom_filter_fp_chance",
    "caching",
    "cdc",
    "comment",
    "compaction",
    "compression",
    "crc_check_chance",
    "default_time_to_live",
    "extensions",
    "gc_grace_seconds",
    "incremental_backups",
    "max_index_interval",
    "memtable",
    "memtable_flush_period_in_ms",
    "min_index_interval",
    "read_repair",
    "speculative_retry",
];

/// True for the name of an option of CREATE TABLE.
pub fn is_table_property(name: &str) -> bool {
    KNOWN.contains(&name)
}

/// Names of memtable configurations.
const MEMTABLES: [&str; 3] = ["default", "skiplist", "trie"];
/// A bloom filter cannot do better.
const BLOOM_FILTER_FP_CHANCE_MIN: f64 = 6.71e-5;
const BLOOM_FILTER_FP_CHANCE_LEVELED: f64 = 0.1;

/// The options of a new table.
///
/// # Errors
/// `Syntax` for an unknown property or a value of the wrong form, `Config` for one out of range.
pub(crate) fn new_table_options(properties: &Properties) -> Result<TableOptions, CqlError> {
    let mut options = changed(TableOptions::default(), properties)?;
    if properties.get("bloom_filter_fp_chance").is_none() && compaction::is_leveled(&options.compaction) {
        options.bloom_filter_fp_chance = BLOOM_FILTER_FP_CHANCE_LEVELED;
    }
    Ok(options)
}

/// The options of a table that has `previous` ones; what is not written stays.
///
/// # Errors
/// As [`new_table_options`]; and `Config` for an `id`, which cannot change.
pub(crate) fn altered_table_options(
    previous: &TableOptions,
    properties: &Properties,
) -> Result<TableOptions, CqlError> {
    let altered = changed(previous.clone(), properties)?;
    if properties.get(ID).is_some() {
        return Err(CqlError::config("Cannot alter table id."));
    }
    Ok(altered)
}

/// The identity that CREATE TABLE asks for.
pub(crate) fn table_id(properties: &Properties) -> Result<Option<Uuid>, CqlError> {
    let reader = PropertyReader { properties };
    let Some(text) = reader.text(ID)? else {
        return Ok(None);
    };
    let id = Uuid::try_parse(text).map_err(|_| CqlError::config("Invalid table id"))?;
    Ok(Some(id))
}

fn changed(mut options: TableOptions, properties: &Properties) -> Result<TableOptions, CqlError> {
    let reader = PropertyReader::new(properties, &KNOWN)?;
    set_texts(&mut options, &reader)?;
    set_maps(&mut options, &reader)?;
    set_numbers(&mut options, &reader)?;
    if let Some(value) = reader.boolean("allow_auto_snapshot")? {
        options.allow_auto_snapshot = value;
    }
    if let Some(value) = reader.boolean("cdc")? {
        options.cdc = value;
    }
    if let Some(value) = reader.boolean("incremental_backups")? {
        options.incremental_backups = value;
    }
    Ok(options)
}

fn set_texts(options: &mut TableOptions, reader: &PropertyReader<'_>) -> Result<(), CqlError> {
    if let Some(policy) = reader.text("additional_write_policy")? {
        options.additional_write_policy = speculative_retry::canonical_policy(policy)?;
    }
    if let Some(comment) = reader.text("comment")? {
        options.comment = comment.to_owned();
    }
    if let Some(name) = reader.text("memtable")? {
        if !MEMTABLES.contains(&name) {
            return Err(CqlError::config(format!(
                "Memtable configuration \"{name}\" not found."
            )));
        }
        options.memtable = name.to_owned();
    }
    if let Some(strategy) = reader.text("read_repair")? {
        options.read_repair = match strategy.to_ascii_uppercase() {
            upper if upper == "BLOCKING" || upper == "NONE" => upper,
            _ => {
                return Err(CqlError::config(format!(
                    "Invalid value {strategy} for option 'read_repair'"
                )));
            }
        };
    }
    if let Some(policy) = reader.text("speculative_retry")? {
        options.speculative_retry = speculative_retry::canonical_policy(policy)?;
    }
    Ok(())
}

fn set_maps(options: &mut TableOptions, reader: &PropertyReader<'_>) -> Result<(), CqlError> {
    if let Some(entries) = reader.map("caching")? {
        options.caching = caching::caching(entries)?;
    }
    if let Some(entries) = reader.map("compaction")? {
        options.compaction = compaction::compaction(entries)?;
    }
    if let Some(entries) = reader.map("compression")? {
        options.compression = compression::compression(entries)?;
    }
    if let Some(entries) = reader.map("extensions")? {
        options.extensions = extensions(entries);
    }
    Ok(())
}

/// Bytes by name: `0x` and hexadecimal digits, else the text itself.
fn extensions(entries: &Entries) -> BTreeMap<String, Vec<u8>> {
    let bytes = |text: &str| {
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let decoded = digits.and_then(|digits| {
            let digits = digits.as_bytes();
            let pairs = digits.chunks(2).map(|pair| {
                let pair = str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
                let is_hexadecimal = pair.bytes().all(|digit| digit.is_ascii_hexdigit());
                is_hexadecimal.then(|| u8::from_str_radix(pair, 16).ok())?
            });
            pairs.collect::<Option<Vec<u8>>>()
        });
        decoded.unwrap_or_else(|| text.as_bytes().to_vec())
    };
    entries
        .iter()
        .map(|(name, value)| (name.to_string(), bytes(value)))
        .collect()
}

fn set_numbers(options: &mut TableOptions, reader: &PropertyReader<'_>) -> Result<(), CqlError> {
    if let Some(chance) = reader.double("bloom_filter_fp_chance")? {
        if !(chance > BLOOM_FILTER_FP_CHANCE_MIN && chance <= 1.0) {
            return Err(CqlError::config(format!(
                "bloom_filter_fp_chance must be larger than {} and less than or equal to 1.0 (got {})",
                format_double(BLOOM_FILTER_FP_CHANCE_MIN),
                format_double(chance)
            )));
        }
        options.bloom_filter_fp_chance = chance;
    }
    if let Some(chance) = reader.double("crc_check_chance")? {
        if !(0.0..=1.0).contains(&chance) {
            return Err(CqlError::config(format!(
                "crc_check_chance must be larger than or equal to 0 and smaller than or equal to 1.0 (got {})",
                format_double(chance)
            )));
        }
        options.crc_check_chance = chance;
    }
    let integer = |name: &str, field: &mut u32, least: u32| {
        let Some(number) = reader.integer(name)? else {
            return Ok(());
        };
        match u32::try_from(number) {
            Ok(number) if number >= least => *field = number,
            _ => {
                return Err(CqlError::config(format!(
                    "{name} must be greater than or equal to {least} (got {number})"
                )));
            }
        }
        Ok(())
    };
    integer("default_time_to_live", &mut options.default_time_to_live, 0)?;
    integer("gc_grace_seconds", &mut options.gc_grace_seconds, 0)?;
    integer("min_index_interval", &mut options.min_index_interval, 1)?;
    let max_index_interval = reader.integer("max_index_interval")?;
    let (min, max) = (
        i64::from(options.min_index_interval),
        max_index_interval.map_or(i64::from(options.max_index_interval), i64::from),
    );
    if max < min {
        return Err(CqlError::config(format!(
            "max_index_interval must be greater than or equal to min_index_interval ({min}) (got {max})"
        )));
    }
    if let Some(max) = max_index_interval {
        options.max_index_interval = max.unsigned_abs();
    }
    integer(
        "memtable_flush_period_in_ms",
        &mut options.memtable_flush_period_in_ms,
        0,
    )?;
    if options.default_time_to_live > TIME_TO_LIVE_MAX {
        return Err(CqlError::config(format!(
            "default_time_to_live must be less than or equal to {TIME_TO_LIVE_MAX} (got {})",
            options.default_time_to_live
        )));
    }
    Ok(())
}
