//! Dates and times as text: the proleptic Gregorian calendar in UTC.
//!
//! ```text
//! date       ::= year '-' month '-' day                        year: 4 to 9 digits, or a sign and 4 to 9 digits
//! time       ::= hour ':' minute ':' second ( '.' fraction )?  fraction: 1 to 9 digits
//! timestamp  ::= date ( ( 'T' | ' ' ) hour ':' minute ( ':' second ( '.' fraction )? )? )? zone?
//! zone       ::= 'Z' | ( '+' | '-' ) hh ( ':'? mm )? | ' ' name
//! ```
//!
//! A timestamp without zone is in UTC. Digits of a fraction beyond the unit of the type are dropped.

/// Milliseconds of a day.
pub(super) const DAY_MILLISECONDS: i64 = 86_400_000;
/// Nanoseconds of a day.
pub(super) const DAY_NANOSECONDS: i64 = 86_400_000_000_000;

/// Days of a cycle of 400 years.
const CYCLE_DAYS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;

/// Named zones without rules of their own, and their minutes east of UTC.
const ZONES: &[(&str, i64)] = &[
    ("UTC", 0),
    ("GMT", 0),
    ("UT", 0),
    ("Z", 0),
    ("WET", 0),
    ("CET", 60),
    ("CEST", 120),
    ("EET", 120),
    ("EEST", 180),
    ("EST", -300),
    ("EDT", -240),
    ("CST", -360),
    ("CDT", -300),
    ("MST", -420),
    ("MDT", -360),
    ("PST", -480),
    ("PDT", -420),
];

/// A day of the calendar. The year before 1 is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CalendarDate {
    pub(super) year: i64,
    pub(super) month: i64,
    pub(super) day: i64,
}

/// The day so many days after 1970-01-01. Years begin in March here, so that the leap day is the last of a year.
pub(super) fn date_of_days(days: i64) -> CalendarDate {
    let days = days + EPOCH_DAYS;
    let cycle = days.div_euclid(CYCLE_DAYS);
    let day_of_cycle = days.rem_euclid(CYCLE_DAYS);
    let year_of_cycle =
        (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = cycle * 400 + year_of_cycle + i64::from(month <= 2);
    CalendarDate { year, month, day }
}

/// Inverse of [`date_of_days`]; the date must exist.
fn days_of_date(date: CalendarDate) -> i64 {
    let march_year = date.year - i64::from(date.month <= 2);
    let cycle = march_year.div_euclid(400);
    let year_of_cycle = march_year.rem_euclid(400);
    let march_month = if date.month > 2 {
        date.month - 3
    } else {
        date.month + 9
    };
    let day_of_year = (153 * march_month + 2) / 5 + date.day - 1;
    let day_of_cycle = year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year;
    cycle * CYCLE_DAYS + day_of_cycle - EPOCH_DAYS
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A text and how much of it is left to read.
struct Reader<'a>(&'a str);

impl Reader<'_> {
    fn take(&mut self, expected: char) -> bool {
        match self.0.strip_prefix(expected) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// A number of `least` to `most` digits, and how many there were.
    fn digits(&mut self, least: usize, most: usize) -> Option<(i64, usize)> {
        let count = self.0.bytes().take(most).take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.0.split_at_checked(count)?;
        if count < least {
            return None;
        }
        self.0 = rest;
        Some((digits.parse().ok()?, count))
    }

    /// A number of one or two digits, below `limit`.
    fn number(&mut self, limit: i64) -> Option<i64> {
        let (number, _) = self.digits(1, 2)?;
        (number < limit).then_some(number)
    }

    /// Days since 1970-01-01.
    fn date(&mut self) -> Option<i64> {
        let sign = if self.take('-') { -1 } else { 1 };
        if sign == 1 {
            self.take('+');
        }
        let year = sign * self.digits(4, 9)?.0;
        self.take('-').then_some(())?;
        let month = self.number(13)?;
        self.take('-').then_some(())?;
        let day = self.number(32)?;
        let exists = month >= 1 && day >= 1 && day <= days_of_month(year, month);
        exists.then(|| days_of_date(CalendarDate { year, month, day }))
    }

    /// After the point: nanoseconds.
    fn fraction(&mut self) -> Option<i64> {
        let (number, count) = self.digits(1, 9)?;
        Some(number * 10_i64.pow(9 - count as u32))
    }

    /// Nanoseconds since midnight; `needs_seconds`: hour and minute alone do not do.
    fn time(&mut self, needs_seconds: bool) -> Option<i64> {
        let hour = self.number(24)?;
        self.take(':').then_some(())?;
        let minute = self.number(60)?;
        let mut second = 0;
        let mut nanoseconds = 0;
        if self.take(':') {
            second = self.number(60)?;
            if self.take('.') {
                nanoseconds = self.fraction()?;
            }
        } else if needs_seconds {
            return None;
        }
        Some(((hour * 60 + minute) * 60 + second) * 1_000_000_000 + nanoseconds)
    }

    /// All that is left, as minutes east of UTC.
    fn zone(&mut self) -> Option<i64> {
        if self.0.is_empty() {
            return Some(0);
        }
        if let Some(name) = self.0.strip_prefix(' ') {
            let name = name.trim_start();
            let found = ZONES.iter().find(|(zone, _)| zone.eq_ignore_ascii_case(name));
            if let Some((_, minutes)) = found {
                return Some(*minutes);
            }
            self.0 = name;
        }
        if self.take('Z') {
            return self.0.is_empty().then_some(0);
        }
        let sign = match (self.take('+'), self.take('-')) {
            (true, false) => 1,
            (false, true) => -1,
            _ => return None,
        };
        let (hours, _) = self.digits(2, 2)?;
        let minutes = if self.0.is_empty() {
            0
        } else {
            self.take(':');
            self.digits(2, 2)?.0
        };
        let fits = self.0.is_empty() && hours <= 18 && minutes < 60;
        fits.then_some(sign * (hours * 60 + minutes))
    }
}

/// A date as days, 2^31 being 1970-01-01. None: no date, or one that does not fit.
pub(super) fn parse_date(text: &str) -> Option<u32> {
    let mut reader = Reader(text);
    let days = reader.date()?;
    if !reader.0.is_empty() {
        return None;
    }
    u32::try_from(days + (1 << 31)).ok()
}

/// A time of day as nanoseconds since midnight.
pub(super) fn parse_time(text: &str) -> Option<i64> {
    let mut reader = Reader(text.trim());
    let nanoseconds = reader.time(true)?;
    reader.0.is_empty().then_some(nanoseconds)
}

/// A date, perhaps with a time and zone, as milliseconds since 1970-01-01T00:00Z.
pub(super) fn parse_timestamp(text: &str) -> Option<i64> {
    let mut reader = Reader(text);
    let days = reader.date()?;
    // After a space, a digit begins a time and anything else a zone.
    let has_time = match reader.0.as_bytes() {
        [b'T', ..] => true,
        [b' ', next, ..] => next.is_ascii_digit(),
        _ => false,
    };
    let milliseconds = if has_time {
        reader.0 = reader.0.get(1..)?;
        reader.time(false)? / 1_000_000
    } else {
        0
    };
    let zone = reader.zone()?;
    let since_1970 =
        i128::from(days) * i128::from(DAY_MILLISECONDS) + i128::from(milliseconds - zone * 60_000);
    i64::try_from(since_1970).ok()
}

/// `2011-02-03`; years beyond four digits have a sign.
pub(super) fn format_date(days_since_1970: i64) -> String {
    let CalendarDate { year, month, day } = date_of_days(days_since_1970);
    match year {
        0..=9999 => format!("{year:04}-{month:02}-{day:02}"),
        _ => format!("{year:+05}-{month:02}-{day:02}"),
    }
}

/// `04:05:06.789000000`
pub(super) fn format_time(nanoseconds: i64) -> String {
    let nanoseconds = nanoseconds.rem_euclid(DAY_NANOSECONDS);
    let (seconds, fraction) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    let (minutes, second) = (seconds / 60, seconds % 60);
    format!(
        "{:02}:{:02}:{second:02}.{fraction:09}",
        minutes / 60,
        minutes % 60
    )
}

/// `2011-02-03T04:05:06.789Z`, `between` being the 'T'.
pub(super) fn format_timestamp(milliseconds: i64, between: char) -> String {
    let date = format_date(milliseconds.div_euclid(DAY_MILLISECONDS));
    let time = format_time(milliseconds.rem_euclid(DAY_MILLISECONDS) * 1_000_000);
    // The time has nine digits after the point.
    let time = time.get(..12).unwrap_or(&time);
    format!("{date}{between}{time}Z")
}
