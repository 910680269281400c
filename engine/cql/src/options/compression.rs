//! `compression = {'class': 'LZ4Compressor', 'chunk_length_in_kb': 16}`.
//!
//! Stored as `{'enabled': 'false'}` or as class by full name, chunk length, the compression ratio if it was set, and the
//! compressor's own options. Older names of options are still read.

use super::number::{format_double, parse_boolean, parse_double};
use super::property::Entries;
use crate::CqlError;
use std::collections::BTreeMap;

const PACKAGE: &str = "org.apache.cassandra.io.compress.";
const CLASS: &str = "class";
const ENABLED: &str = "enabled";
const CHUNK_LENGTH: &str = "chunk_length_in_kb";
const MIN_COMPRESS_RATIO: &str = "min_compress_ratio";
/// What `class` was called before.
const SSTABLE_COMPRESSION: &str = "sstable_compression";
/// What `chunk_length_in_kb` was called before.
const CHUNK_LENGTH_OLD: &str = "chunk_length_kb";
const CHUNK_LENGTH_DEFAULT_KIB: i32 = 16;
/// zstd's own bounds.
const ZSTD_LEVELS: std::ops::RangeInclusive<i32> = -131_072..=22;

/// The options in the form that is stored.
pub(super) fn compression(entries: &Entries) -> Result<BTreeMap<String, String>, CqlError> {
    let mut options: BTreeMap<&str, &str> = entries.iter().map(|(name, value)| (&**name, &**value)).collect();
    let disabled = || Ok(BTreeMap::from([(ENABLED.to_owned(), "false".to_owned())]));
    if options.is_empty() {
        return disabled();
    }
    rename(&mut options, CHUNK_LENGTH_OLD, CHUNK_LENGTH, "chunk length")?;
    if options.get(SSTABLE_COMPRESSION) == Some(&"") {
        return disabled();
    }
    rename(&mut options, SSTABLE_COMPRESSION, CLASS, "compression algorithm")?;
    if !options.remove(ENABLED).is_none_or(parse_boolean) {
        if options.is_empty() {
            return disabled();
        }
        return Err(CqlError::config(format!(
            "If the '{ENABLED}' option is set to false no other options must be specified"
        )));
    }
    let Some(class) = options.remove(CLASS) else {
        return Err(CqlError::config(format!(
            "Missing sub-option '{CLASS}' for the 'compression' option."
        )));
    };
    if class.is_empty() {
        return Err(CqlError::config(format!(
            "The '{CLASS}' option must not be empty. To disable compression use '{ENABLED}' : false"
        )));
    }
    let chunk_length = chunk_length(options.remove(CHUNK_LENGTH))?;
    let ratio = min_compress_ratio(options.remove(MIN_COMPRESS_RATIO))?;
    let class = compressor_class(class)?;
    let mut stored: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in options {
        check_compressor_option(&class, name, value)?;
        stored.insert(name.to_owned(), value.to_owned());
    }
    stored.insert(CLASS.to_owned(), class);
    stored.insert(CHUNK_LENGTH.to_owned(), chunk_length.to_string());
    if ratio != 0.0 {
        stored.insert(MIN_COMPRESS_RATIO.to_owned(), format_double(ratio));
    }
    Ok(stored)
}

/// Takes the option's old name for the new one; both together are refused.
fn rename<'o>(
    options: &mut BTreeMap<&'o str, &'o str>,
    old: &'o str,
    new: &'o str,
    what: &str,
) -> Result<(), CqlError> {
    if let Some(value) = options.remove(old)
        && options.insert(new, value).is_some()
    {
        return Err(CqlError::config(format!(
            "The '{old}' option must not be used if the {what} is already specified by the '{new}' option"
        )));
    }
    Ok(())
}

/// KiB.
fn chunk_length(text: Option<&str>) -> Result<i32, CqlError> {
    let Some(text) = text else {
        return Ok(CHUNK_LENGTH_DEFAULT_KIB);
    };
    let Ok(length) = text.parse::<i32>() else {
        return Err(CqlError::config(format!("Invalid value for {CHUNK_LENGTH}")));
    };
    if length > i32::MAX / 1024 {
        return Err(CqlError::config(format!(
            "Value of {CHUNK_LENGTH} is too large ({length})"
        )));
    }
    if length <= 0 {
        return Err(CqlError::config(format!(
            "Invalid negative or null {CHUNK_LENGTH}"
        )));
    }
    if length.count_ones() != 1 {
        return Err(CqlError::config(format!("{CHUNK_LENGTH} must be a power of 2")));
    }
    Ok(length)
}

/// 0: whatever the ratio, the chunk is stored compressed.
fn min_compress_ratio(text: Option<&str>) -> Result<f64, CqlError> {
    let Some(text) = text else {
        return Ok(0.0);
    };
    match parse_double(text) {
        Some(ratio) if ratio < 0.0 => Err(CqlError::config(format!("Invalid negative {MIN_COMPRESS_RATIO}"))),
        Some(ratio) if ratio == 0.0 || (ratio >= 1.0 && ratio.is_finite()) => Ok(ratio),
        Some(_) => Err(CqlError::config(format!(
            "{MIN_COMPRESS_RATIO} can either be 0 or greater than or equal to 1"
        ))),
        None => Err(CqlError::config(format!(
            "Invalid value {text} for {MIN_COMPRESS_RATIO}"
        ))),
    }
}

fn compressor_class(class: &str) -> Result<String, CqlError> {
    let full = if class.contains('.') {
        class.to_owned()
    } else {
        format!("{PACKAGE}{class}")
    };
    match full.strip_prefix(PACKAGE) {
        Some(
            "LZ4Compressor"
            | "SnappyCompressor"
            | "DeflateCompressor"
            | "ZstdCompressor"
            | "ZstdDictionaryCompressor"
            | "NoopCompressor",
        ) => Ok(full),
        _ => Err(CqlError::config(format!(
            "Could not create Compression for type {full}"
        ))),
    }
}

/// What a compressor takes beside the chunk length.
fn check_compressor_option(class: &str, name: &str, value: &str) -> Result<(), CqlError> {
    match (class.strip_prefix(PACKAGE), name) {
        (Some("LZ4Compressor"), "lz4_compressor_type") => match value {
            "fast" | "high" => Ok(()),
            _ => Err(CqlError::config(format!(
                "Invalid compressor type '{value}' specified for LZ4 parameter '{name}'. Valid options are [high, fast]."
            ))),
        },
        (Some("LZ4Compressor"), "lz4_high_compressor_level") => match value.parse() {
            Ok(1..=17) => Ok(()),
            _ => Err(CqlError::config(format!(
                "Invalid value [{value}] for parameter '{name}'. Value must be between 1 and 17."
            ))),
        },
        (Some(zstd @ ("ZstdCompressor" | "ZstdDictionaryCompressor")), "compression_level") => {
            match value.parse() {
                Ok(level) if ZSTD_LEVELS.contains(&level) => Ok(()),
                _ => Err(CqlError::config(format!(
                    "{zstd}.create() threw an error: java.lang.IllegalArgumentException {name}={value} is invalid"
                ))),
            }
        }
        (
            Some("ZstdDictionaryCompressor"),
            "training_max_dictionary_size" | "training_max_total_sample_size",
        ) => match is_size(value) {
            true => Ok(()),
            false => Err(CqlError::config(format!(
                "Unable to set value to parameter {name}: {value}. It has to be a size such as 64KiB or 10MiB"
            ))),
        },
        _ => Err(CqlError::config(format!("Unknown compression options {name}"))),
    }
}

/// A positive number of bytes with its unit.
fn is_size(text: &str) -> bool {
    let number = ["KiB", "MiB", "B"]
        .iter()
        .find_map(|unit| text.strip_suffix(unit));
    number.is_some_and(|number| number.parse::<u32>().is_ok_and(|number| number > 0))
}
