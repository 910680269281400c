//! `compaction = {'class': 'SizeTieredCompactionStrategy', ..}`.
//!
//! Each strategy has a list of options, each option a kind of value. Every option is checked on its own, then the few
//! rules that tie two together. IncrementalCompactionStrategy is an extension.

use super::number::{format_double, is_boolean, parse_double};
use super::property::Entries;
use crate::CqlError;
use std::collections::BTreeMap;

const PACKAGE: &str = "org.apache.cassandra.db.compaction.";
const CLASS: &str = "class";
const MIN_THRESHOLD: &str = "min_threshold";
const MAX_THRESHOLD: &str = "max_threshold";
const THRESHOLD_DEFAULTS: [(&str, &str); 2] = [(MIN_THRESHOLD, "4"), (MAX_THRESHOLD, "32")];
const LEVELED: &str = "LeveledCompactionStrategy";

/// What the value of an option may be.
#[derive(Clone, Copy)]
enum Value {
    /// true or false
    Boolean,
    /// An integer of 64 bits, not below the bound.
    Integer { least: i64 },
    /// One of 32 bits.
    Int { least: i32 },
    /// A number, not below the bound.
    Number { least: f64 },
    /// A number between 0 and 1, maybe as a percentage.
    Fraction,
    /// An integer, or `max`.
    IntegerOrMax,
    /// Bytes, maybe with a unit: `1GiB`.
    Size { least: u64 },
    /// One of these words.
    Word(&'static [&'static str]),
    /// `T4, N, L8`: see [`check_scaling_parameters`].
    ScalingParameters,
    /// Only `false`: true would drop live data.
    Unsafe,
}

const MIN_SSTABLE_SIZE: &str = "min_sstable_size";

/// Options of every strategy.
const COMMON: &[(&str, Value)] = &[
    ("enabled", Value::Boolean),
    ("log_all", Value::Boolean),
    ("only_purge_repaired_tombstones", Value::Boolean),
    (
        "provide_overlapping_tombstones",
        Value::Word(&["NONE", "ROW", "CELL"]),
    ),
    ("tombstone_compaction_interval", Value::Integer { least: 0 }),
    ("tombstone_threshold", Value::Number { least: 0.0 }),
    ("unchecked_tombstone_compaction", Value::Boolean),
];

const THRESHOLDS: &[(&str, Value)] = &[
    (MAX_THRESHOLD, Value::Integer { least: i64::MIN }),
    (MIN_THRESHOLD, Value::Integer { least: i64::MIN }),
];

const SIZE_TIERED: &[(&str, Value)] = &[
    (
        "bucket_high",
        Value::Number {
            least: f64::NEG_INFINITY,
        },
    ),
    (
        "bucket_low",
        Value::Number {
            least: f64::NEG_INFINITY,
        },
    ),
    (MIN_SSTABLE_SIZE, Value::Integer { least: 0 }),
];

const TIME_WINDOW: &[(&str, Value)] = &[
    ("compaction_window_size", Value::Int { least: 1 }),
    (
        "compaction_window_unit",
        Value::Word(&["MINUTES", "HOURS", "DAYS"]),
    ),
    (
        "expired_sstable_check_frequency_seconds",
        Value::Integer { least: 0 },
    ),
    (
        "timestamp_resolution",
        Value::Word(&["SECONDS", "MILLISECONDS", "MICROSECONDS", "NANOSECONDS"]),
    ),
    ("unsafe_aggressive_sstable_expiration", Value::Unsafe),
];

const LEVELED_ONLY: &[(&str, Value)] = &[
    ("fanout_size", Value::Int { least: 1 }),
    ("single_sstable_uplevel", Value::Boolean),
    ("sstable_size_in_mb", Value::Int { least: 1 }),
];

const UNIFIED: &[(&str, Value)] = &[
    ("base_shard_count", Value::Int { least: 1 }),
    (
        "expired_sstable_check_frequency_seconds",
        Value::Integer { least: 1 },
    ),
    ("flush_size_override", Value::Size { least: 1 }),
    ("max_sstables_to_compact", Value::Int { least: i32::MIN }),
    (MIN_SSTABLE_SIZE, Value::Size { least: 0 }),
    (
        "overlap_inclusion_method",
        Value::Word(&["NONE", "SINGLE", "TRANSITIVE"]),
    ),
    ("parallelize_output_shards", Value::Boolean),
    ("reserved_threads", Value::IntegerOrMax),
    ("scaling_parameters", Value::ScalingParameters),
    ("sstable_growth", Value::Fraction),
    ("target_sstable_size", Value::Size { least: 1 << 20 }),
    ("unsafe_aggressive_sstable_expiration", Value::Unsafe),
];

const INCREMENTAL: &[(&str, Value)] = &[
    ("space_amplification_goal", Value::Number { least: 1.0 }),
    ("sstable_size_in_mb", Value::Int { least: 1 }),
];

/// The options that a strategy has beside the common ones; None: there is no such strategy.
fn options_of(strategy: &str) -> Option<&'static [&'static [(&'static str, Value)]]> {
    Some(match strategy {
        "SizeTieredCompactionStrategy" => &[THRESHOLDS, SIZE_TIERED],
        LEVELED => &[THRESHOLDS, SIZE_TIERED, LEVELED_ONLY],
        "TimeWindowCompactionStrategy" => &[THRESHOLDS, SIZE_TIERED, TIME_WINDOW],
        "UnifiedCompactionStrategy" => &[UNIFIED],
        "IncrementalCompactionStrategy" => &[THRESHOLDS, SIZE_TIERED, INCREMENTAL],
        _ => return None,
    })
}

/// Whether the stored options are those of leveled compaction, which brings another default for the bloom filter.
pub(super) fn is_leveled(options: &BTreeMap<String, String>) -> bool {
    let class = options.get(CLASS).and_then(|class| class.strip_prefix(PACKAGE));
    class == Some(LEVELED)
}

/// The options in the form that is stored: class by full name, thresholds written out.
pub(super) fn compaction(entries: &Entries) -> Result<BTreeMap<String, String>, CqlError> {
    let mut stored: BTreeMap<String, String> = entries
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    let Some(class) = stored.remove(CLASS) else {
        return Err(CqlError::config(format!(
            "Missing sub-option '{CLASS}' for the 'compaction' option"
        )));
    };
    let class = if class.contains('.') {
        class
    } else {
        format!("{PACKAGE}{class}")
    };
    let found = class
        .strip_prefix(PACKAGE)
        .and_then(|strategy| Some((strategy, options_of(strategy)?)));
    let Some((strategy, own)) = found else {
        return Err(CqlError::config(format!(
            "Unable to find compaction strategy class '{class}'"
        )));
    };
    check_options(strategy, own, &mut stored)?;
    if own
        .iter()
        .any(|group| group.iter().any(|(name, _)| *name == MIN_THRESHOLD))
    {
        for (name, default) in THRESHOLD_DEFAULTS {
            stored
                .entry(name.to_owned())
                .or_insert_with(|| default.to_owned());
        }
        check_thresholds(&stored)?;
        check_buckets(&stored)?;
    }
    check_space_amplification(&stored)?;
    match strategy {
        LEVELED => check_levels(&stored)?,
        "UnifiedCompactionStrategy" => check_smallest(&stored)?,
        _ => {}
    }
    stored.insert(CLASS.to_owned(), class);
    Ok(stored)
}

fn check_options(
    strategy: &str,
    own: &[&[(&str, Value)]],
    options: &mut BTreeMap<String, String>,
) -> Result<(), CqlError> {
    let mut unknown = Vec::new();
    for (name, value) in options.iter_mut() {
        let groups = std::iter::once(&COMMON).chain(own);
        let kind = groups.copied().flatten().find(|(known, _)| known == name);
        match kind {
            Some((_, kind)) => check_value(name, value, *kind)?,
            None => unknown.push(name.as_str()),
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    Err(CqlError::config(format!(
        "Properties specified [{}] are not understood by {strategy}",
        unknown.join(", ")
    )))
}

impl Value {
    /// The bound of an integer.
    fn least(self) -> i64 {
        match self {
            Value::Integer { least } => least,
            Value::Int { least } => least.into(),
            _ => i64::MIN,
        }
    }
}

fn parse_integer(text: &str, kind: Value) -> Result<i64, std::num::ParseIntError> {
    match kind {
        Value::Int { .. } => text.parse::<i32>().map(i64::from),
        _ => text.parse(),
    }
}

fn check_value(name: &str, text: &mut String, kind: Value) -> Result<(), CqlError> {
    let problem = match kind {
        Value::Boolean if is_boolean(text) => return Ok(()),
        Value::Boolean => format!("'{name}' should either be 'true' or 'false', not {text}"),
        Value::Int { .. } | Value::Integer { .. } => match parse_integer(text, kind) {
            Ok(number) if number >= kind.least() => return Ok(()),
            Ok(number) if name == "compaction_window_size" => {
                format!("{number} must be greater than 1 for {name}")
            }
            Ok(number) if kind.least() == 1 => format!("{name} must be larger than 0, but was {number}"),
            Ok(number) => format!("{name} must be non negative: {number}"),
            Err(_) if name == MIN_THRESHOLD || name == MAX_THRESHOLD => {
                format!("Invalid value {text} for '{name}' compaction sub-option - must be an integer")
            }
            Err(_) => format!("{text} is not a parsable int (base10) for {name}"),
        },
        Value::Number { least } => match parse_double(text) {
            Some(number) if number >= least => return Ok(()),
            Some(number) => format!("{name} must be greater than {least}, but was {number:.6}"),
            None => format!("{text} is not a parsable int (base10) for {name}"),
        },
        Value::Fraction => match parse_fraction(text) {
            Some(fraction) if (0.0..=1.0).contains(&fraction) => return Ok(()),
            Some(_) => format!("{name} {text} must be between 0 and 1"),
            None => format!("{name} is not a valid number between 0 and 1: {text}"),
        },
        Value::IntegerOrMax => match text.parse::<i32>() {
            _ if text.eq_ignore_ascii_case("max") => return Ok(()),
            Ok(0..) => return Ok(()),
            _ => format!("{name} {text} must be an integer >= 0 or \"max\""),
        },
        Value::Size { least } => match parse_size(text) {
            Some(size) if size >= least => return Ok(()),
            Some(_) => format!(
                "{name} {text} is not acceptable, size must be at least {}",
                format_size(least)
            ),
            None => format!("{name} is not a valid size in bytes: {text}"),
        },
        Value::Word(words) => {
            let word = text.to_ascii_uppercase();
            if words.contains(&word.as_str()) {
                *text = word;
                return Ok(());
            }
            if name == "provide_overlapping_tombstones" {
                format!(
                    "Invalid value {word} for '{name}' compaction sub-option - must be one of the following [{}].",
                    words.join(", ")
                )
            } else {
                format!("{text} is not valid for {name}")
            }
        }
        Value::ScalingParameters => return check_scaling_parameters(name, text),
        Value::Unsafe if text.eq_ignore_ascii_case("false") => return Ok(()),
        Value::Unsafe if text.eq_ignore_ascii_case("true") => {
            format!("{name} is requested but not allowed: expired data could come back")
        }
        Value::Unsafe => format!("{name} is not 'true' or 'false' ({text})"),
    };
    Err(CqlError::config(problem))
}

/// `0.5` or `50%`
fn parse_fraction(text: &str) -> Option<f64> {
    match text.trim().strip_suffix('%') {
        Some(percent) => parse_double(percent).map(|percent| percent / 100.0),
        None => parse_double(text),
    }
}

const SIZE_UNITS: [(&str, u32); 5] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("B", 0)];

/// `100MiB`, `1.5 GiB`, `1024B`, `1024`
fn parse_size(text: &str) -> Option<u64> {
    let unit = SIZE_UNITS
        .iter()
        .find_map(|(unit, shift)| Some((text.trim().strip_suffix(unit)?, *shift)));
    let (number, shift) = unit.unwrap_or((text.trim(), 0));
    let bytes = parse_double(number.trim())?
        * f64::from(1u32 << shift.min(30))
        * if shift > 30 { 1024.0 } else { 1.0 };
    (bytes >= 0.0 && bytes < i64::MAX as f64).then_some(bytes as u64)
}

/// As Cassandra shows sizes: `1.500GiB`.
fn format_size(bytes: u64) -> String {
    let units = SIZE_UNITS.iter().filter(|(_, shift)| bytes >> shift > 0);
    match units.max_by_key(|(_, shift)| *shift) {
        Some((unit, shift @ 10..)) => format!("{:.3}{unit}", bytes as f64 / (1u64 << shift) as f64),
        _ => format!("{bytes}B"),
    }
}

/// One letter-number pair per level, separated by commas: `T4` tiered with fan-out 4, `L8` leveled with fan-out 8, `N`
/// or `0` in between; a bare integer as the formula behind them has it.
fn check_scaling_parameters(name: &str, text: &str) -> Result<(), CqlError> {
    for parameter in text.split(',').map(str::trim) {
        let fan_out = |digits: &str| digits.parse::<i32>().is_ok_and(|fan_out| fan_out >= 2);
        let fits = match (parameter.get(..1), parameter.get(1..)) {
            _ if parameter == "N" => true,
            (Some("T" | "L"), Some(digits)) => fan_out(digits) && !digits.starts_with('+'),
            _ => parameter.parse::<i32>().is_ok(),
        };
        if !fits {
            return Err(CqlError::config(format!(
                "Scaling parameter {parameter} must match N|L[2-9][0-9]*|T[2-9][0-9]*|-?[0-9]+ for {name}"
            )));
        }
    }
    Ok(())
}

fn check_thresholds(options: &BTreeMap<String, String>) -> Result<(), CqlError> {
    let threshold = |name: &str| {
        let text = options.get(name).map_or("", String::as_str);
        text.parse::<i32>().map_err(|_| {
            CqlError::config(format!(
                "Invalid value {text} for '{name}' compaction sub-option - must be an integer"
            ))
        })
    };
    let (min, max) = (threshold(MIN_THRESHOLD)?, threshold(MAX_THRESHOLD)?);
    let problem = if min <= 0 || max <= 0 {
        "Disabling compaction by setting compaction thresholds to 0 has been removed, set the compaction option \
         'enabled' to false instead."
            .to_owned()
    } else if min <= 1 {
        format!("Min compaction threshold cannot be less than 2 (got {min})")
    } else if min > max {
        format!(
            "Min compaction threshold (got {min}) cannot be greater than max compaction threshold (got {max})"
        )
    } else {
        return Ok(());
    };
    Err(CqlError::config(problem))
}

fn check_buckets(options: &BTreeMap<String, String>) -> Result<(), CqlError> {
    let bound = |name: &str, default: f64| {
        let text = options.get(name);
        text.and_then(|text| parse_double(text)).unwrap_or(default)
    };
    let (low, high) = (bound("bucket_low", 0.5), bound("bucket_high", 1.5));
    if high > low {
        return Ok(());
    }
    Err(CqlError::config(format!(
        "Bucket high value ({}) is less than or equal bucket low value ({})",
        format_double(high),
        format_double(low)
    )))
}

/// The last level's size must be a number of bytes.
fn check_levels(options: &BTreeMap<String, String>) -> Result<(), CqlError> {
    const LAST_LEVEL: i32 = 8;
    let number = |name: &str, default: f64| {
        let text = options.get(name);
        text.and_then(|text| parse_double(text)).unwrap_or(default)
    };
    let size = number("sstable_size_in_mb", 160.0) * f64::from(1 << 20);
    let bytes = number("fanout_size", 10.0).powi(LAST_LEVEL) * size;
    if bytes <= i64::MAX as f64 {
        return Ok(());
    }
    Err(CqlError::config(format!(
        "At most {} bytes may be in a compaction level; your maxSSTableSize must be absurdly high to compute {}",
        i64::MAX,
        format_double(bytes)
    )))
}

/// The smallest sstable that is split must be below what the target size allows.
fn check_smallest(options: &BTreeMap<String, String>) -> Result<(), CqlError> {
    const DEFAULT_TARGET: u64 = 1 << 30;
    let size = |name: &str| options.get(name).and_then(|text| parse_size(text));
    let target = size("target_sstable_size").unwrap_or(DEFAULT_TARGET);
    let limit = (target as f64 * std::f64::consts::FRAC_1_SQRT_2).ceil() as u64;
    match size(MIN_SSTABLE_SIZE) {
        Some(least) if least >= limit => Err(CqlError::config(format!(
            "Invalid configuration, {MIN_SSTABLE_SIZE} ({}) should be less than the target size minimum: {}",
            format_size(least),
            format_size(limit)
        ))),
        _ => Ok(()),
    }
}

fn check_space_amplification(options: &BTreeMap<String, String>) -> Result<(), CqlError> {
    match options
        .get("space_amplification_goal")
        .and_then(|text| parse_double(text))
    {
        Some(goal) if !(goal > 1.0 && goal <= 2.0) => Err(CqlError::config(format!(
            "space_amplification_goal must be greater than 1.0 and not greater than 2.0, but was {}",
            format_double(goal)
        ))),
        _ => Ok(()),
    }
}
