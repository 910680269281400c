//! Constants, literals and their texts.

use super::super::samples::{any_value, scalar_type};
use super::super::{Value, compare, format_literal, parse_literal};
use crate::{CqlType, UserType, UserTypeField};
use proptest::prelude::*;
use std::sync::Arc;

proptest! {
    #[test]
    fn scalars_round_trip(
        (cql_type, value) in scalar_type().prop_flat_map(|cql_type| (Just(cql_type.clone()), any_value(&cql_type)))
    ) {
        if value == Value::Empty {
            return Ok(());
        }
        let read = parse_literal(&cql_type, &value.to_text());
        let read = read.map_err(|error| TestCaseError::fail(format!("{value:?}: {error}")))?;
        let (before, after) = (value.to_wire(&cql_type).unwrap(), read.to_wire(&cql_type).unwrap());
        prop_assert!(compare(&cql_type, &before, &after).is_eq(), "{:?} {:?}", value, read);
    }

    #[test]
    fn any_text_is_survived(cql_type in scalar_type(), text in "[-+0-9:.TZPyYmMdDhHsSnu éE]{0,24}", any: String) {
        for text in [text, any] {
            if let Ok(value) = parse_literal(&cql_type, &text) {
                prop_assert!(value.to_wire(&cql_type).is_ok());
            }
        }
    }
}

fn text_of(cql_type: CqlType, text: &str) -> String {
    match parse_literal(&cql_type, text) {
        Ok(value) => value.to_text(),
        Err(error) => format!("error: {error}"),
    }
}

#[track_caller]
fn reads(cql_type: CqlType, pairs: &[(&str, &str)]) {
    for (text, expected) in pairs {
        assert_eq!(text_of(cql_type.clone(), text), *expected, "{cql_type} {text}");
    }
}

#[test]
fn timestamps() {
    let milliseconds = |text: &str| match parse_literal(&CqlType::Timestamp, text) {
        Ok(Value::Timestamp(milliseconds)) => milliseconds,
        other => panic!("{text}: {other:?}"),
    };
    // One instant in many forms.
    for text in [
        "1299038700000",
        "2011-03-02 04:05:00",
        "2011-03-02T04:05Z",
        "2011-03-02 04:05+00",
        "2011-03-02 04:05+0000",
        "2011-03-02 06:05+02:00",
        "2011-03-01T20:05:00.000-0800",
        "2011-03-02 04:05:00 UTC",
        "2011-03-01 20:05 PST",
        "2011-03-02 04:05:00.000000999Z",
    ] {
        assert_eq!(milliseconds(text), 1_299_038_700_000, "{text}");
    }
    assert_eq!(milliseconds("2011-03-02"), 1_299_024_000_000);
    assert_eq!(milliseconds("2011-03-02+0100"), 1_299_020_400_000);
    assert_eq!(milliseconds("1969-12-31T23:59:59.999Z"), -1);
    assert_eq!(milliseconds("-1"), -1);
    reads(
        CqlType::Timestamp,
        &[
            ("2000-02-29T01:02:03.4Z", "2000-02-29T01:02:03.400Z"),
            ("9223372036854775807", "+292278994-08-17T07:12:55.807Z"),
            (
                "2001-02-29",
                "error: Unable to coerce '2001-02-29' to a formatted date (long)",
            ),
            (
                "2011-03-02 25:00",
                "error: Unable to coerce '2011-03-02 25:00' to a formatted date (long)",
            ),
            (
                "2011-03-02 04:05 XYZ",
                "error: Unable to coerce '2011-03-02 04:05 XYZ' to a formatted date (long)",
            ),
            (
                "tomorrow",
                "error: Unable to coerce 'tomorrow' to a formatted date (long)",
            ),
            (
                "9223372036854775808",
                "error: Unable to make long (for date) from: '9223372036854775808'",
            ),
        ],
    );
}

#[test]
fn dates_and_times() {
    reads(
        CqlType::Date,
        &[
            ("1970-01-01", "1970-01-01"),
            ("2147483648", "1970-01-01"),
            ("0", "-5877641-06-23"),
            ("4294967295", "+5881580-07-11"),
            ("-5877641-06-23", "-5877641-06-23"),
            (
                "-5877641-06-22",
                "error: Unable to coerce '-5877641-06-22' to a formatted date (long)",
            ),
            (
                "4294967296",
                "error: Unable to make unsigned int (for date) from: '4294967296'",
            ),
            ("-1", "error: Unable to make unsigned int (for date) from: '-1'"),
            (
                "2014-13-01",
                "error: Unable to coerce '2014-13-01' to a formatted date (long)",
            ),
        ],
    );
    assert_eq!(
        parse_literal(&CqlType::Date, "1970-01-02"),
        Ok(Value::Date((1 << 31) + 1))
    );
    reads(
        CqlType::Time,
        &[
            ("07:35:07.000111222", "07:35:07.000111222"),
            ("8:12:54.1", "08:12:54.100000000"),
            ("54321", "00:00:00.000054321"),
            (
                "24:00:00",
                "error: (TimeType) Unable to coerce '24:00:00' to a formatted time (long)",
            ),
            (
                "12:00",
                "error: (TimeType) Unable to coerce '12:00' to a formatted time (long)",
            ),
            (
                "86400000000000",
                "error: Unable to make long (for time) from: '86400000000000'",
            ),
        ],
    );
}

#[test]
fn durations() {
    reads(
        CqlType::Duration,
        &[
            ("1y2mo3w4d5h6m7s8ms9us10ns", "1y2mo25d5h6m7s8ms9us10ns"),
            ("-2MO10h", "-2mo10h"),
            ("12µs", "12us"),
            ("P1Y1M2DT10H5M", "1y1mo2d10h5m"),
            ("-PT10H", "-10h"),
            ("P3W", "21d"),
            ("P0001-01-02T10:05:00", "1y1mo2d10h5m"),
            ("0s", "0ns"),
            ("P", "0ns"),
            ("1x", "error: Unable to convert '1x' to a duration"),
            ("-", "error: Unable to convert '' to a duration"),
            ("PT1D", "error: Unable to convert 'PT1D' to a duration"),
            (
                "P0001-01-02T1",
                "error: Unable to convert 'P0001-01-02T1' to a duration",
            ),
            (
                "1m1h",
                "error: Invalid duration. The minutes should be after hours",
            ),
            (
                "1d1d",
                "error: Invalid duration. The days are specified multiple times",
            ),
            (
                "2147483648mo",
                "error: Invalid duration. The total number of months must be less or equal to 2147483647",
            ),
            (
                "9223372036854775807h",
                "error: Invalid duration. The total number of nanoseconds must be less or equal to 2147483647",
            ),
        ],
    );
}

#[test]
fn numbers() {
    reads(
        CqlType::Int,
        &[("-2147483648", "-2147483648"), ("+5", "5"), ("", "")],
    );
    reads(
        CqlType::Int,
        &[("2147483648", "error: Unable to make int from '2147483648'")],
    );
    reads(
        CqlType::Tinyint,
        &[("128", "error: Unable to make byte from '128'")],
    );
    reads(
        CqlType::Smallint,
        &[("1.5", "error: Unable to make short from '1.5'")],
    );
    reads(
        CqlType::Bigint,
        &[("1_0", "error: Unable to make long from '1_0'")],
    );
    reads(
        CqlType::Varint,
        &[
            (
                "-170141183460469231731687303715884105729",
                "-170141183460469231731687303715884105729",
            ),
            ("1_0", "error: unable to make int from '1_0'"),
            ("+-1", "error: unable to make int from '+-1'"),
        ],
    );
    reads(
        CqlType::Decimal,
        &[
            ("1.00", "1.00"),
            ("-.5", "-0.5"),
            ("1E+3", "1000"),
            ("1.5e-3", "0.0015"),
            ("0E+5", "0"),
            ("1E+2000000", "1E+2000000"),
            ("-12E-2000000", "-1.2E-1999999"),
            (
                "1E+2147483649",
                "error: unable to make BigDecimal from '1E+2147483649'",
            ),
            (".", "error: unable to make BigDecimal from '.'"),
            ("1e", "error: unable to make BigDecimal from '1e'"),
        ],
    );
    reads(
        CqlType::Double,
        &[
            ("1", "1.0"),
            ("123123.123123", "123123.123123"),
            ("1e7", "1.0E7"),
            ("9999999", "9999999.0"),
            ("0.001", "0.001"),
            ("0.00012", "1.2E-4"),
            ("-0.0", "-0.0"),
            ("-Infinity", "-Infinity"),
            ("nan", "NaN"),
            ("inf", "error: Unable to make double from 'inf'"),
        ],
    );
    reads(
        CqlType::Float,
        &[("3.40282349e38", "3.4028235E38"), ("1e39", "Infinity")],
    );
    reads(
        CqlType::Boolean,
        &[
            ("TRUE", "true"),
            ("yes", "error: Unable to make boolean from 'yes'"),
        ],
    );
}

#[test]
fn decimals_for_json_have_exponents_where_java_has_them() {
    let scientific = |text: &str| text.parse::<super::super::Decimal>().unwrap().to_scientific();
    assert_eq!(scientific("1E+3"), "1E+3");
    assert_eq!(scientific("123E+3"), "1.23E+5");
    assert_eq!(scientific("0.000001"), "0.000001");
    assert_eq!(scientific("0.0000001"), "1E-7");
    assert_eq!(scientific("-1.23E-12"), "-1.23E-12");
    assert_eq!(scientific("1000.00"), "1000.00");
}

#[test]
fn other_constants() {
    reads(
        CqlType::Inet,
        &[
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("localhost", "error: Unable to make inet address from 'localhost'"),
        ],
    );
    reads(
        CqlType::Blob,
        &[
            ("0xCAfe", "0xcafe"),
            ("0x", "0x"),
            ("0x1", "error: cannot parse '0x1' as hex bytes"),
        ],
    );
    let (random, timed) = (
        "6bddc89a-5644-41e4-97fc-56847afe9799",
        "6bddc89a-5644-11e4-97fc-56847afe9799",
    );
    reads(
        CqlType::Uuid,
        &[
            (random, random),
            (timed, timed),
            ("abc", "error: Unable to make UUID from 'abc'"),
        ],
    );
    reads(
        CqlType::Timeuuid,
        &[
            (timed, timed),
            (random, "error: TimeUUID supports only version 1 UUIDs"),
            ("abc", "error: Unknown timeuuid representation: abc"),
        ],
    );
    reads(
        CqlType::Ascii,
        &[("é", "error: Invalid ASCII character in string literal: é")],
    );
}

#[test]
fn literals() {
    let frozen = true;
    let definition = Arc::new(UserType {
        keyspace: "ks".into(),
        name: "t".into(),
        fields: ["a", "Big"]
            .map(|name| UserTypeField {
                name: name.into(),
                cql_type: CqlType::Text,
            })
            .into(),
    });
    let check = |cql_type: CqlType, value: Value, expected: &str| {
        assert_eq!(value.to_literal(&cql_type), expected);
        assert_eq!(
            format_literal(&cql_type, &value.to_wire(&cql_type).unwrap()).unwrap(),
            expected
        );
    };
    let text = |text: &str| Value::Text(text.to_owned());
    check(CqlType::Text, text("it's"), "'it''s'");
    check(CqlType::Int, Value::Empty, "null");
    check(
        CqlType::Timestamp,
        Value::Timestamp(0),
        "'1970-01-01T00:00:00.000Z'",
    );
    check(CqlType::Inet, Value::Inet([1, 2, 3, 4].into()), "'1.2.3.4'");
    let list = CqlType::List {
        element: CqlType::Int.into(),
        frozen,
    };
    check(
        list.clone(),
        Value::List(vec![Value::Int(1), Value::Int(2)]),
        "[1, 2]",
    );
    let set = CqlType::Set {
        element: CqlType::Text.into(),
        frozen,
    };
    check(set, Value::Set(vec![text("a"), text("b")]), "{'a', 'b'}");
    let map = CqlType::Map {
        key: CqlType::Int.into(),
        value: list.into(),
        frozen,
    };
    check(
        map,
        Value::Map(vec![(Value::Int(1), Value::List(vec![]))]),
        "{1: []}",
    );
    let tuple = CqlType::Tuple([CqlType::Int, CqlType::Uuid].into());
    check(tuple, Value::Tuple(vec![Some(Value::Int(1)), None]), "(1, null)");
    check(
        CqlType::Udt { definition, frozen },
        Value::Udt(vec![Some(text("x")), None]),
        "{a: 'x', \"Big\": null}",
    );
}
