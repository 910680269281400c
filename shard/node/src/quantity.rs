//! Amounts with units, as cassandra.yaml writes them since 4.1: `10s`, `200ms`, `32MiB`.

use std::fmt;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A time span: a whole number and `ms`, `s`, `m`, `h` or `d`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Period(Duration);

impl Period {
    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Period {
        Period(Duration::from_millis(millis))
    }

    /// The span.
    pub fn duration(self) -> Duration {
        self.0
    }
}

/// Bytes: a whole number and `B`, `KiB`, `MiB` or `GiB`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataSize(u64);

impl DataSize {
    /// So many bytes.
    pub const fn from_bytes(bytes: u64) -> DataSize {
        DataSize(bytes)
    }

    /// So many KiB.
    pub const fn from_kibibytes(kibibytes: u64) -> DataSize {
        DataSize(kibibytes << 10)
    }

    /// So many MiB.
    pub const fn from_mebibytes(mebibytes: u64) -> DataSize {
        DataSize(mebibytes << 20)
    }

    /// The bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// Bytes per second: a size and `/s`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataRate(DataSize);

impl DataRate {
    /// So many MiB each second.
    pub const fn from_mebibytes(mebibytes: u64) -> DataRate {
        DataRate(DataSize::from_mebibytes(mebibytes))
    }

    /// The bytes of a second.
    pub fn bytes_per_second(self) -> u64 {
        self.0.bytes()
    }
}

const PERIODS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The largest unit that divides the value.
fn format(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let unit = units
        .iter()
        .rev()
        .find(|(_, factor)| value.is_multiple_of(*factor) && value >= *factor);
    let (name, factor) = unit.unwrap_or(&units[0]);
    write!(f, "{}{name}", value / factor)
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        format(f, self.0.as_millis() as u64, &PERIODS[..2])
    }
}

impl fmt::Display for DataSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        format(f, self.0, &SIZES)
    }
}

impl fmt::Display for DataRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

impl Serialize for DataRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DataRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let size = text
            .trim()
            .strip_suffix("/s")
            .and_then(|size| parse(size, &SIZES));
        let wrong = || {
            D::Error::custom(format!(
                "'{text}' is not a rate; write it as 64MiB/s, or 0B/s for no limit"
            ))
        };
        size.map(|bytes| DataRate(DataSize(bytes))).ok_or_else(wrong)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for DataSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A quantity as it stands in the file, also one that lacks its unit.
fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    })
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = written(deserializer)?;
        let millis = parse(&text, &PERIODS);
        let wrong = || {
            D::Error::custom(format!(
                "'{text}' is not a time span; write it as 200ms, 10s, 5m, 1h or 1d"
            ))
        };
        millis.map(Period::from_millis).ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for DataSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = written(deserializer)?;
        let wrong = || {
            D::Error::custom(format!(
                "'{text}' is not a size; write it as 512B, 16KiB, 32MiB or 8GiB"
            ))
        };
        parse(&text, &SIZES).map(DataSize).ok_or_else(wrong)
    }
}
