//! Dates, times and UUIDs.

use super::{Body, ScalarFunction, calendar, decoded, encoded};
use crate::CqlError;
use crate::plan::{ticks_of_time_uuid, time_uuid_from};
use ceto_model::CqlType::{Bigint, Date, Duration, Time, Timestamp, Timeuuid, Uuid};
use ceto_model::value::{self, Value};

/// The least and the greatest last 8 bytes of a version 1 UUID in the order of timeuuid, whose bytes are signed.
const LOWEST_NODE: u64 = 0x8080_8080_8080_8080;
const HIGHEST_NODE: u64 = 0x7f7f_7f7f_7f7f_7f7f;

pub(super) fn candidates(name: &str, out: &mut Vec<ScalarFunction>) {
    let plain = |argument_types, return_type, body: Body| {
        ScalarFunction::new(name, argument_types, return_type, body)
    };
    match name {
        "uuid" => out.push(plain(vec![], Uuid, |f, _, context| {
            encoded(f, Value::Uuid(context.random_uuid()))
        })),
        "now" | "currenttimeuuid" | "current_timeuuid" => {
            out.push(plain(vec![], Timeuuid, |f, _, context| {
                encoded(f, Value::Timeuuid(context.time_uuid()))
            }));
        }
        "currenttimestamp" | "current_timestamp" => out.push(plain(vec![], Timestamp, |f, _, context| {
            encoded(f, Value::Timestamp(context.now_micros.div_euclid(1_000)))
        })),
        "currentdate" | "current_date" => out.push(plain(vec![], Date, |f, _, context| {
            date(f, context.now_micros.div_euclid(1_000)).and_then(|date| encoded(f, date))
        })),
        "currenttime" | "current_time" => out.push(plain(vec![], Time, |f, _, context| {
            let micros = context.now_micros.rem_euclid(calendar::MILLIS_PER_DAY * 1_000);
            encoded(f, Value::Time(micros * 1_000))
        })),
        "mintimeuuid" | "min_timeuuid" => out.push(plain(vec![Timestamp], Timeuuid, |f, arguments, _| {
            let millis = millis_of(f, decoded(f, arguments, 0)?)?;
            millis.map_or(Ok(None), |millis| {
                bound(f, millis.checked_mul(10_000), LOWEST_NODE)
            })
        })),
        "maxtimeuuid" | "max_timeuuid" => out.push(plain(vec![Timestamp], Timeuuid, |f, arguments, _| {
            let millis = millis_of(f, decoded(f, arguments, 0)?)?;
            let last_tick = |millis: i64| millis.checked_mul(10_000)?.checked_add(9_999);
            millis.map_or(Ok(None), |millis| bound(f, last_tick(millis), HIGHEST_NODE))
        })),
        "totimestamp" | "to_timestamp" => {
            out.extend([Timeuuid, Date].map(|from| {
                plain(vec![from], Timestamp, |f, arguments, _| {
                    let millis = millis_of(f, decoded(f, arguments, 0)?)?;
                    millis.map_or(Ok(None), |millis| encoded(f, Value::Timestamp(millis)))
                })
            }));
        }
        "todate" | "to_date" => {
            out.extend([Timeuuid, Timestamp].map(|from| {
                plain(vec![from], Date, |f, arguments, _| {
                    let millis = millis_of(f, decoded(f, arguments, 0)?)?;
                    millis.map_or(Ok(None), |millis| encoded(f, date(f, millis)?))
                })
            }));
        }
        "tounixtimestamp" | "to_unix_timestamp" => {
            out.extend([Timeuuid, Timestamp, Date].map(|from| {
                plain(vec![from], Bigint, |f, arguments, _| {
                    let millis = millis_of(f, decoded(f, arguments, 0)?)?;
                    millis.map_or(Ok(None), |millis| encoded(f, Value::Bigint(millis)))
                })
            }));
        }
        "floor" => {
            for from in [Timestamp, Timeuuid, Date] {
                let to = if from == Date { Date } else { Timestamp };
                out.push(plain(vec![from.clone(), Duration], to.clone(), floor_date));
                let start = if from == Timeuuid { Timestamp } else { from.clone() };
                out.push(plain(vec![from, Duration, start], to, floor_date));
            }
            out.push(plain(vec![Time, Duration], Time, floor_time));
        }
        _ => {}
    }
}

fn date(function: &ScalarFunction, millis: i64) -> Result<Value, CqlError> {
    let date = calendar::date_of_millis(millis).map(Value::Date);
    date.ok_or_else(|| function.failure("the date is out of range"))
}

fn bound(function: &ScalarFunction, ticks: Option<i64>, node: u64) -> Result<Option<bytes::Bytes>, CqlError> {
    let ticks = ticks.ok_or_else(|| function.failure("the timestamp is out of range"))?;
    encoded(function, Value::Timeuuid(time_uuid_from(ticks, node)))
}

/// Milliseconds since the Unix epoch of a date, timestamp or timeuuid.
fn millis_of(function: &ScalarFunction, value: Option<Value>) -> Result<Option<i64>, CqlError> {
    match value {
        None => Ok(None),
        Some(Value::Timestamp(millis)) => Ok(Some(millis)),
        Some(Value::Date(date)) => Ok(Some(calendar::millis_of_date(date))),
        Some(Value::Timeuuid(uuid)) if uuid.get_version_num() == 1 => {
            Ok(Some(ticks_of_time_uuid(uuid).div_euclid(10_000)))
        }
        Some(other) => Err(function.failure(format!("a {} has no time", other.kind()))),
    }
}

fn duration_of(function: &ScalarFunction, value: Option<Value>) -> Result<Option<value::Duration>, CqlError> {
    match value {
        Some(Value::Duration(duration)) => {
            let parts = [
                i64::from(duration.months()),
                i64::from(duration.days()),
                duration.nanoseconds(),
            ];
            if parts.iter().any(|part| *part < 0) || parts.iter().all(|part| *part == 0) {
                return Err(
                    function.failure("Negative or zero durations are not supported by the floor function")
                );
            }
            Ok(Some(duration))
        }
        _ => Ok(None),
    }
}

fn floor_date(
    function: &ScalarFunction,
    arguments: &[Option<bytes::Bytes>],
    _: &crate::plan::PlanContext<'_>,
) -> Result<Option<bytes::Bytes>, CqlError> {
    let Some(millis) = millis_of(function, decoded(function, arguments, 0)?)? else {
        return Ok(None);
    };
    let Some(duration) = duration_of(function, decoded(function, arguments, 1)?)? else {
        return Ok(None);
    };
    let start = millis_of(function, decoded(function, arguments, 2)?)?.unwrap_or(0);
    if millis < start {
        return Err(function.failure("The floor function starting time is greater than the provided time"));
    }
    let by_date = function.return_type == Date;
    if by_date && duration.nanoseconds() != 0 {
        return Err(function.failure(
            "The floor on date values cannot be computed for the duration: its precision is below 1 day",
        ));
    }
    if duration.nanoseconds() % 1_000_000 != 0 {
        return Err(function.failure(
            "The floor on timestamp values cannot be computed: the duration precision is below 1 millisecond",
        ));
    }
    let floor = floor_millis(millis, &duration, start).ok_or_else(|| function.failure("out of range"))?;
    encoded(
        function,
        if by_date {
            date(function, floor)?
        } else {
            Value::Timestamp(floor)
        },
    )
}

/// The last point of `start + n * duration` that is not after `millis`.
fn floor_millis(millis: i64, duration: &value::Duration, start: i64) -> Option<i64> {
    let fixed = i64::from(duration.days()) * calendar::MILLIS_PER_DAY + duration.nanoseconds() / 1_000_000;
    if duration.months() == 0 {
        return millis.checked_sub(millis.checked_sub(start)?.rem_euclid(fixed));
    }
    let point = |n: i64| {
        let months = n.checked_mul(i64::from(duration.months()))?;
        calendar::add_months(start, months)?.checked_add(n.checked_mul(fixed)?)
    };
    // Binary search: points grow with n; a month has at least 28 days.
    let (mut low, mut high) = (
        0,
        millis.checked_sub(start)? / (28 * calendar::MILLIS_PER_DAY) + 1,
    );
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if point(middle).is_some_and(|at| at <= millis) {
            low = middle;
        } else {
            high = middle;
        }
    }
    match point(high) {
        Some(at) if at <= millis => Some(at),
        _ => point(low),
    }
}

fn floor_time(
    function: &ScalarFunction,
    arguments: &[Option<bytes::Bytes>],
    _: &crate::plan::PlanContext<'_>,
) -> Result<Option<bytes::Bytes>, CqlError> {
    let Some(Value::Time(nanoseconds)) = decoded(function, arguments, 0)? else {
        return Ok(None);
    };
    let Some(duration) = duration_of(function, decoded(function, arguments, 1)?)? else {
        return Ok(None);
    };
    if duration.months() != 0
        || duration.days() != 0
        || duration.nanoseconds() > calendar::NANOSECONDS_PER_DAY
    {
        return Err(function
            .failure("For time values, the floor can only be computed for durations smaller than a day"));
    }
    encoded(
        function,
        Value::Time(nanoseconds - nanoseconds % duration.nanoseconds()),
    )
}
