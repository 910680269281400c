//! Days, months and milliseconds of the proleptic Gregorian calendar in UTC.

use ceto_model::value::Duration;

pub(crate) const MILLIS_PER_DAY: i64 = 86_400_000;
pub(crate) const NANOSECONDS_PER_DAY: i64 = 86_400_000_000_000;
const NANOSECONDS_PER_MILLI: i64 = 1_000_000;
/// The date value of 1970-01-01.
const EPOCH_DATE: i64 = 1 << 31;

/// Milliseconds since the Unix epoch at the start of a date.
pub(crate) fn millis_of_date(date: u32) -> i64 {
    (i64::from(date) - EPOCH_DATE) * MILLIS_PER_DAY
}

/// The date of a time; None beyond the range of dates.
pub(crate) fn date_of_millis(millis: i64) -> Option<u32> {
    u32::try_from(millis.div_euclid(MILLIS_PER_DAY) + EPOCH_DATE).ok()
}

/// `millis` moved by the duration, times `sign`: months first (a day beyond the end of the month becomes its last), then
/// days, then the rest.
pub(crate) fn add(millis: i64, duration: &Duration, sign: i64) -> Option<i64> {
    let moved = add_months(millis, sign.checked_mul(i64::from(duration.months()))?)?;
    let days = sign * i64::from(duration.days());
    let rest = sign.checked_mul(duration.nanoseconds())? / NANOSECONDS_PER_MILLI;
    moved
        .checked_add(days.checked_mul(MILLIS_PER_DAY)?)?
        .checked_add(rest)
}

/// See [`add`].
pub(crate) fn add_months(millis: i64, months: i64) -> Option<i64> {
    if months == 0 {
        return Some(millis);
    }
    let (days, time) = (
        millis.div_euclid(MILLIS_PER_DAY),
        millis.rem_euclid(MILLIS_PER_DAY),
    );
    let (year, month, day) = civil_of_days(days);
    let count = (year * 12 + (month - 1)).checked_add(months)?;
    let (year, month) = (count.div_euclid(12), count.rem_euclid(12) + 1);
    let day = day.min(days_in_month(year, month));
    days_of_civil(year, month, day)?
        .checked_mul(MILLIS_PER_DAY)?
        .checked_add(time)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since the Unix epoch of a date. Years count from March, so that the leap day is a year's last.
fn days_of_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era.checked_mul(146_097)?.checked_add(day_of_era - 719_468)
}

/// Year, month and day of days since the Unix epoch.
fn civil_of_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn civil_days_round_trip() {
        for days in (-800_000..800_000).step_by(37) {
            let (year, month, day) = civil_of_days(days);
            assert_eq!(days_of_civil(year, month, day), Some(days));
        }
        assert_eq!(civil_of_days(0), (1970, 1, 1));
        assert_eq!(civil_of_days(19_782), (2024, 2, 29));
    }

    #[test]
    fn months_end_on_the_last_day() {
        let leap_day = days_of_civil(2024, 2, 29).map(|days| days * MILLIS_PER_DAY + 5);
        let january = days_of_civil(2024, 1, 31).map(|days| days * MILLIS_PER_DAY + 5);
        assert_eq!(january.and_then(|millis| add_months(millis, 1)), leap_day);
    }
}
