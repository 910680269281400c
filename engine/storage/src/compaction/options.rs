//! Reading a table's `compaction` option. The CQL layer has checked it and names what is wrong; here a value that cannot
//! be read is the default.

use std::collections::BTreeMap;
use std::str::FromStr;

/// A number or word; the default when it is missing.
pub(super) fn parse<T: FromStr>(options: &BTreeMap<String, String>, name: &str, default: T) -> T {
    options
        .get(name)
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(default)
}

/// `true` or `false`.
pub(super) fn parse_flag(options: &BTreeMap<String, String>, name: &str, default: bool) -> bool {
    match options.get(name) {
        Some(text) => text.eq_ignore_ascii_case("true"),
        None => default,
    }
}

/// Bytes: `100MiB`, `1.5 GiB`, `1024B`, `1024`.
pub(super) fn parse_size(options: &BTreeMap<String, String>, name: &str, default: u64) -> u64 {
    const UNITS: [(&str, f64); 5] = [
        ("KiB", 1024.0),
        ("MiB", 1048576.0),
        ("GiB", 1073741824.0),
        ("TiB", 1099511627776.0),
        ("B", 1.0),
    ];
    let Some(text) = options.get(name).map(|text| text.trim()) else {
        return default;
    };
    let unit = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((text, 1.0));
    match number.trim().parse::<f64>() {
        Ok(number) if number >= 0.0 => (number * factor) as u64,
        _ => default,
    }
}

/// Mebibytes, in bytes; not less than one byte, nor so many that sums of them overflow.
pub(super) fn parse_mebibytes(options: &BTreeMap<String, String>, name: &str, default: f64) -> u64 {
    let size: f64 = parse(options, name, default);
    (size * 1048576.0).clamp(1.0, (1u64 << 50) as f64) as u64
}

/// A share: `0.333` or `33.3%`.
pub(super) fn parse_share(options: &BTreeMap<String, String>, name: &str, default: f64) -> f64 {
    let Some(text) = options.get(name).map(|text| text.trim()) else {
        return default;
    };
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    share
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .unwrap_or(default)
}

/// The options of every strategy.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Common {
    /// Compactions start by themselves.
    pub(crate) is_enabled: bool,
    pub(crate) tombstone_threshold: f64,
    /// Age in seconds below which an sstable is not compacted for its tombstones alone.
    pub(crate) tombstone_compaction_interval: i64,
    pub(crate) unchecked_tombstone_compaction: bool,
    pub(crate) only_purge_repaired_tombstones: bool,
    /// What other sstables shadow is dropped too.
    pub(crate) overlapping_tombstones: Shadowing,
}

/// How much of what other sstables hold shadows data that is compacted without them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shadowing {
    None,
    /// Their partition, range and row tombstones.
    Row,
    /// Also their tombstones and newer values of single cells.
    Cell,
}

impl Common {
    pub(super) fn from_options(options: &BTreeMap<String, String>) -> Common {
        let shadowing = options.get("provide_overlapping_tombstones");
        Common {
            is_enabled: parse_flag(options, "enabled", true),
            tombstone_threshold: parse(options, "tombstone_threshold", 0.2),
            tombstone_compaction_interval: parse(options, "tombstone_compaction_interval", 86_400),
            unchecked_tombstone_compaction: parse_flag(options, "unchecked_tombstone_compaction", false),
            only_purge_repaired_tombstones: parse_flag(options, "only_purge_repaired_tombstones", false),
            overlapping_tombstones: match shadowing.map(|word| word.to_ascii_uppercase()).as_deref() {
                Some("ROW") => Shadowing::Row,
                Some("CELL") => Shadowing::Cell,
                _ => Shadowing::None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares_have_units() {
        let options: BTreeMap<String, String> =
            [("a", "1.5GiB"), ("b", "100 MiB"), ("c", "33.3%"), ("d", "7")]
                .map(|(name, text)| (name.to_owned(), text.to_owned()))
                .into();
        assert_eq!(parse_size(&options, "a", 0), 3 << 29);
        assert_eq!(parse_size(&options, "b", 0), 100 << 20);
        assert_eq!(parse_size(&options, "d", 0), 7);
        assert_eq!(parse_size(&options, "e", 5), 5);
        assert!((parse_share(&options, "c", 0.0) - 0.333).abs() < 1e-9);
        assert_eq!(parse_share(&options, "d", 0.25), 0.25);
    }
}
