//! `duration`: months, days and nanoseconds, kept apart because months differ in days and days in hours.

use super::ValueError;
use std::fmt;
use std::str::FromStr;

/// A duration. All parts have the same sign, or are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Duration {
    months: i32,
    days: i32,
    nanoseconds: i64,
}

impl Duration {
    /// None when the signs of the parts differ.
    pub fn new(months: i32, days: i32, nanoseconds: i64) -> Option<Self> {
        let none_negative = months >= 0 && days >= 0 && nanoseconds >= 0;
        let none_positive = months <= 0 && days <= 0 && nanoseconds <= 0;
        (none_negative || none_positive).then_some(Self {
            months,
            days,
            nanoseconds,
        })
    }

    /// Months.
    pub fn months(&self) -> i32 {
        self.months
    }

    /// Days.
    pub fn days(&self) -> i32 {
        self.days
    }

    /// Nanoseconds.
    pub fn nanoseconds(&self) -> i64 {
        self.nanoseconds
    }
}

/// A duration grows from its largest unit to its smallest one.
const UNITS: [Unit; 10] = [
    Unit::new("years", "y", 'Y', Part::Months, 12),
    Unit::new("months", "mo", 'M', Part::Months, 1),
    Unit::new("weeks", "w", 'W', Part::Days, 7),
    Unit::new("days", "d", 'D', Part::Days, 1),
    Unit::new("hours", "h", 'H', Part::Nanoseconds, 3_600_000_000_000),
    Unit::new("minutes", "m", 'M', Part::Nanoseconds, 60_000_000_000),
    Unit::new("seconds", "s", 'S', Part::Nanoseconds, 1_000_000_000),
    Unit::new("milliseconds", "ms", '\0', Part::Nanoseconds, 1_000_000),
    Unit::new("microseconds", "us", '\0', Part::Nanoseconds, 1_000),
    Unit::new("nanoseconds", "ns", '\0', Part::Nanoseconds, 1),
];

/// Where in [`UNITS`] those begin that ISO 8601 puts after a 'T'.
const TIME_UNITS: usize = 4;

/// Which part of a duration a unit belongs to.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Months,
    Days,
    Nanoseconds,
}

struct Unit {
    name: &'static str,
    symbol: &'static str,
    iso_designator: char,
    part: Part,
    size: i64,
}

impl Unit {
    const fn new(
        name: &'static str,
        symbol: &'static str,
        iso_designator: char,
        part: Part,
        size: i64,
    ) -> Self {
        Self {
            name,
            symbol,
            iso_designator,
            part,
            size,
        }
    }
}

/// The magnitude of a duration in the making.
#[derive(Default)]
struct Builder {
    months: i64,
    days: i64,
    nanoseconds: i64,
    /// Index of the smallest unit so far, plus one.
    last: usize,
}

impl Builder {
    /// Adds `count` times the unit of that index in [`UNITS`].
    fn add(&mut self, count: i64, index: usize) -> Result<(), ValueError> {
        let Some(unit) = UNITS.get(index) else {
            return Ok(());
        };
        if index < self.last {
            let last = UNITS.get(self.last - 1).map_or("", |unit| unit.name);
            return Err(ValueError::invalid(if index + 1 == self.last {
                format!("Invalid duration. The {last} are specified multiple times")
            } else {
                format!("Invalid duration. The {last} should be after {}", unit.name)
            }));
        }
        self.last = index + 1;
        let (total, limit, name) = match unit.part {
            Part::Months => (&mut self.months, i64::from(i32::MAX), "months"),
            Part::Days => (&mut self.days, i64::from(i32::MAX), "days"),
            Part::Nanoseconds => (&mut self.nanoseconds, i64::MAX, "nanoseconds"),
        };
        match count
            .checked_mul(unit.size)
            .and_then(|more| total.checked_add(more))
        {
            Some(sum) if sum <= limit => {
                *total = sum;
                Ok(())
            }
            // Cassandra names this limit for all three.
            _ => Err(ValueError::invalid(format!(
                "Invalid duration. The total number of {name} must be less or equal to {}",
                i32::MAX
            ))),
        }
    }

    /// None never: `add` keeps the parts within their limits.
    fn build(self, negative: bool) -> Option<Duration> {
        let sign = if negative { -1 } else { 1 };
        let months = i32::try_from(sign * self.months).ok()?;
        let days = i32::try_from(sign * self.days).ok()?;
        Duration::new(months, days, sign * self.nanoseconds)
    }
}

/// Takes digits and their number from the front. None: no digit, or too many.
fn take_number(text: &mut &str) -> Option<i64> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at_checked(length)?;
    *text = rest;
    digits.parse().ok()
}

impl Duration {
    /// `1y2mo3w4d5h6m7s8ms9us10ns`: units from large to small, each at most once, no blanks.
    fn parse_units(source: &str, builder: &mut Builder) -> Option<Result<(), ValueError>> {
        let mut rest = source;
        while !rest.is_empty() {
            let number = take_number(&mut rest)?;
            let length = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let (symbol, after) = rest.split_at_checked(length)?;
            rest = after;
            let symbol = symbol.to_lowercase();
            let symbol = if symbol == "µs" || symbol == "μs" {
                "us"
            } else {
                &symbol
            };
            let index = UNITS.iter().position(|unit| unit.symbol == symbol)?;
            if let Err(error) = builder.add(number, index) {
                return Some(Err(error));
            }
        }
        (!source.is_empty()).then_some(Ok(()))
    }

    /// After the P: `1Y2M3DT4H5M6S` or `3W`.
    fn parse_iso(source: &str, builder: &mut Builder) -> Option<Result<(), ValueError>> {
        let mut rest = source;
        let mut in_time = false;
        if let Some(weeks) = source.strip_suffix('W') {
            let mut weeks = weeks;
            let number = take_number(&mut weeks)?;
            return weeks.is_empty().then(|| builder.add(number, 2));
        }
        let mut next = 0;
        while !rest.is_empty() {
            if !in_time && rest.starts_with('T') {
                in_time = true;
                next = TIME_UNITS;
                rest = rest.get(1..)?;
                continue;
            }
            let number = take_number(&mut rest)?;
            let designator = rest.chars().next()?;
            rest = rest.get(1..)?;
            let candidates = if in_time { next..7 } else { next..TIME_UNITS };
            let index = candidates.into_iter().find(|&index| {
                index != 2
                    && UNITS
                        .get(index)
                        .is_some_and(|unit| unit.iso_designator == designator)
            })?;
            next = index + 1;
            if let Err(error) = builder.add(number, index) {
                return Some(Err(error));
            }
        }
        Some(Ok(()))
    }

    /// After the P: `0001-02-03T04:05:06`.
    fn parse_iso_alternative(source: &str, builder: &mut Builder) -> Option<Result<(), ValueError>> {
        let mut rest = source;
        for (width, end, index) in [
            (4, "-", 0),
            (2, "-", 1),
            (2, "T", 3),
            (2, ":", 4),
            (2, ":", 5),
            (2, "", 6),
        ] {
            let (digits, after) = rest.split_at_checked(width)?;
            let number = digits
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| digits.parse().ok())??;
            rest = after.strip_prefix(end)?;
            if let Err(error) = builder.add(number, index) {
                return Some(Err(error));
            }
        }
        rest.is_empty().then_some(Ok(()))
    }
}

impl FromStr for Duration {
    type Err = ValueError;

    /// One of the three forms, with a '-' before it for a negative duration:
    /// `1y2mo3w4d5h6m7s8ms9us10ns` | `P1Y2M3DT4H5M6S` or `P3W` | `P0001-02-03T04:05:06`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let source = text.strip_prefix('-').unwrap_or(text);
        let negative = source.len() != text.len();
        let mut builder = Builder::default();
        let parsed = match source.strip_prefix('P') {
            Some(iso) if iso.contains('-') => Self::parse_iso_alternative(iso, &mut builder),
            Some(iso) => Self::parse_iso(iso, &mut builder),
            None => Self::parse_units(source, &mut builder),
        };
        let no_duration = || ValueError::invalid(format!("Unable to convert '{source}' to a duration"));
        parsed.ok_or_else(no_duration)??;
        builder.build(negative).ok_or_else(no_duration)
    }
}

impl fmt::Display for Duration {
    /// `1y2mo4d5h6m7s8ms9us10ns`, without units that are zero; `0ns` when all are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return f.write_str("0ns");
        }
        if self.months < 0 || self.days < 0 || self.nanoseconds < 0 {
            f.write_str("-")?;
        }
        let mut write = |part: Part, mut magnitude: u64| {
            for unit in UNITS
                .iter()
                .filter(|unit| unit.part == part && unit.symbol != "w")
            {
                let size = unit.size.unsigned_abs();
                if magnitude >= size {
                    write!(f, "{}{}", magnitude / size, unit.symbol)?;
                    magnitude %= size;
                }
            }
            Ok(())
        };
        write(Part::Months, u64::from(self.months.unsigned_abs()))?;
        write(Part::Days, u64::from(self.days.unsigned_abs()))?;
        write(Part::Nanoseconds, self.nanoseconds.unsigned_abs())
    }
}
