//! JSON: round trips, Cassandra's forms and texts, hostile text.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::value::samples::typed_values;
use crate::value::{Value, compare};
use crate::{CqlType, UserType, UserTypeField};
use proptest::prelude::*;
use std::sync::Arc;

/// Survives JSON: zero bytes, NaN and infinities do not.
fn has_json(value: &Value) -> bool {
    match value {
        Value::Empty => false,
        Value::Float(number) => number.is_finite(),
        Value::Double(number) => number.is_finite(),
        Value::List(values) | Value::Set(values) | Value::Vector(values) => values.iter().all(has_json),
        Value::Map(entries) => entries
            .iter()
            .all(|(key, value)| has_json(key) && has_json(value)),
        Value::Tuple(values) | Value::Udt(values) => values.iter().flatten().all(has_json),
        _ => true,
    }
}

proptest! {
    #[test]
    fn values_round_trip((cql_type, wires) in typed_values(1)) {
        let value = Value::decode(&cql_type, &wires[0]).unwrap();
        if !has_json(&value) {
            return Ok(());
        }
        let text = to_json(&cql_type, &wires[0]).unwrap();
        let read = from_json_text(&cql_type, &text);
        let read = read.map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?.unwrap();
        let wire = read.to_wire(&cql_type).unwrap();
        prop_assert!(compare(&cql_type, &wire, &wires[0]).is_eq(), "{}", text);
    }

    #[test]
    fn all_output_is_json((cql_type, wires) in typed_values(1)) {
        prop_assert!(parse_json(&to_json(&cql_type, &wires[0]).unwrap()).is_ok());
    }

    #[test]
    fn any_text_is_survived(
        (cql_type, wires) in typed_values(1), any in "[\\[\\]{}:,\"\\\\u0-9a-f.eE truefalsn-]{0,40}", cut: prop::sample::Index,
    ) {
        let _ = from_json_text(&cql_type, &any);
        let mut text = to_json(&cql_type, &wires[0]).unwrap();
        let cut = (0..=cut.index(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        text.truncate(cut);
        let _ = from_json_text(&cql_type, &text);
    }

    #[test]
    fn strings_round_trip(text: String) {
        let mut out = String::new();
        put_json_string(&text, &mut out);
        prop_assert_eq!(parse_json(&out), Ok(Json::String(text)));
    }
}

fn user_type() -> CqlType {
    let field = |name: &str, cql_type| UserTypeField {
        name: name.into(),
        cql_type,
    };
    let set = CqlType::Set {
        element: CqlType::Text.into(),
        frozen: true,
    };
    let fields = vec![
        field("a", CqlType::Int),
        field("Big", CqlType::Uuid),
        field("c", set),
    ];
    let definition = Arc::new(UserType {
        keyspace: "ks".into(),
        name: "t".into(),
        fields,
    });
    CqlType::Udt {
        definition,
        frozen: true,
    }
}

fn map(key: CqlType, value: CqlType) -> CqlType {
    CqlType::Map {
        key: key.into(),
        value: value.into(),
        frozen: true,
    }
}

fn list(element: CqlType) -> CqlType {
    CqlType::List {
        element: element.into(),
        frozen: true,
    }
}

/// What comes back of a JSON text through a type.
fn through(cql_type: &CqlType, text: &str) -> String {
    match from_json_text(cql_type, text) {
        Ok(Some(value)) => to_json(cql_type, &value.to_wire(cql_type).unwrap()).unwrap(),
        Ok(None) => "none".to_owned(),
        Err(error) => format!("error: {error}"),
    }
}

#[track_caller]
fn check(cql_type: CqlType, pairs: &[(&str, &str)]) {
    for (text, expected) in pairs {
        assert_eq!(through(&cql_type, text), *expected, "{cql_type} {text}");
    }
}

#[test]
fn scalars() {
    check(
        CqlType::Int,
        &[
            ("123123", "123123"),
            ("\"123123\"", "123123"),
            ("null", "none"),
            (
                "2147483648",
                "error: Expected an int value, but got a Long: 2147483648",
            ),
            (
                "123.456",
                "error: Expected an int value, but got a Double: 123.456",
            ),
            ("true", "error: Expected an int value, but got a Boolean: true"),
            ("\"xyzz\"", "error: Unable to make int from 'xyzz'"),
        ],
    );
    check(
        CqlType::Bigint,
        &[
            (
                "9223372036854775808",
                "error: Expected a bigint value, but got a BigInteger: 9223372036854775808",
            ),
            (
                "[\"abc\"]",
                "error: Expected a bigint value, but got a ArrayList: [abc]",
            ),
        ],
    );
    check(
        CqlType::Ascii,
        &[("123", "error: Expected an ascii string, but got a Integer: 123")],
    );
    check(
        CqlType::Text,
        &[("\"a\\u2013\\ud800\\udf48\\n\"", "\"a\u{2013}\u{10348}\\n\"")],
    );
    check(
        CqlType::Blob,
        &[
            ("\"0x00000001\"", "\"0x00000001\""),
            (
                "\"123\"",
                "error: Value '123' is not a valid blob representation: \
                 String representation of blob is missing 0x prefix: 123",
            ),
            (
                "\"0x123\"",
                "error: Value '0x123' is not a valid blob representation: cannot parse '123' as hex bytes",
            ),
        ],
    );
    check(
        CqlType::Boolean,
        &[
            ("\"false\"", "false"),
            ("\"abc\"", "error: Unable to make boolean from 'abc'"),
        ],
    );
    check(
        CqlType::Decimal,
        &[
            ("123123.123123", "123123.123123"),
            ("\"-1.23E-12\"", "-1.23E-12"),
            ("1.10", "1.10"),
            (
                "true",
                "error: Value 'true' is not a valid representation of a decimal value",
            ),
        ],
    );
    check(
        CqlType::Varint,
        &[("123123123123123123123", "123123123123123123123")],
    );
    check(CqlType::Double, &[("123123", "123123.0"), ("\"NaN\"", "null")]);
    check(
        CqlType::Date,
        &[(
            "123",
            "error: Expected a string representation of a date value, but got a Integer: 123",
        )],
    );
    check(
        CqlType::Timestamp,
        &[
            ("123123123123", "\"1973-11-26 00:52:03.123Z\""),
            ("\"2014-01-01\"", "\"2014-01-01 00:00:00.000Z\""),
        ],
    );
    check(
        CqlType::Time,
        &[("\"07:35:07.000111222\"", "\"07:35:07.000111222\"")],
    );
    check(CqlType::Duration, &[("\"P1Y1M2DT10H5M\"", "\"1y1mo2d10h5m\"")]);
    check(
        CqlType::Inet,
        &[("\"xyzz\"", "error: Unable to make inet address from 'xyzz'")],
    );
    assert_eq!(to_json(&CqlType::Int, &[]).unwrap(), "\"\"");
}

#[test]
fn nested_values() {
    check(
        list(CqlType::Int),
        &[
            ("[1, 2, 3]", "[1, 2, 3]"),
            ("[\"1\", \"2\"]", "[1, 2]"),
            ("\"[1, 2]\"", "[1, 2]"),
            ("[null]", "error: Invalid null element in list"),
            (
                "{\"a\": 1}",
                "error: Expected a list, but got a LinkedHashMap: {a=1}",
            ),
            (
                "\"x\"",
                "error: Error decoding JSON string: expected a value at offset 0",
            ),
        ],
    );
    let set = CqlType::Set {
        element: CqlType::Int.into(),
        frozen: true,
    };
    check(
        set,
        &[
            ("[3, 1, 3]", "[1, 3]"),
            (
                "1",
                "error: Expected a list (representing a set), but got a Integer: 1",
            ),
        ],
    );
    check(
        map(CqlType::Int, CqlType::Text),
        &[
            ("{\"2\": \"b\", \"1\": \"a\"}", "{\"1\": \"a\", \"2\": \"b\"}"),
            ("{\"1\": null}", "error: Invalid null value in map"),
            ("[]", "error: Expected a map, but got a ArrayList: []"),
        ],
    );
    check(
        map(list(CqlType::Int), CqlType::Int),
        &[("{\"[1, 2]\": 3}", "{\"[1, 2]\": 3}")],
    );
    check(
        map(list(CqlType::Text), CqlType::Int),
        &[(r#"{"[\"a\"]": 3}"#, r#"{"[\"a\"]": 3}"#)],
    );
    let tuple = CqlType::Tuple([CqlType::Int, CqlType::Ascii].into());
    check(
        tuple,
        &[
            ("[1, null]", "[1, null]"),
            ("[1]", "error: Tuple is missing items (expected 2): [1]"),
            (
                "[1, \"a\", 2]",
                "error: Tuple contains extra items (expected 2): [1, a, 2]",
            ),
        ],
    );
    check(
        user_type(),
        &[
            ("{\"a\": 1}", "{\"a\": 1, \"\\\"Big\\\"\": null, \"c\": null}"),
            (
                "{\"A\": 1, \"c\": [\"y\", \"x\"]}",
                "{\"a\": 1, \"\\\"Big\\\"\": null, \"c\": [\"x\", \"y\"]}",
            ),
            (
                "{\"xxx\": 1}",
                "error: Unknown field 'xxx' in value of user defined type t",
            ),
            (
                "{\"Big\": null}",
                "error: Unknown field 'big' in value of user defined type t",
            ),
        ],
    );
    let vector = CqlType::Vector {
        element: CqlType::Float.into(),
        dimension: 2,
    };
    check(
        vector,
        &[
            ("[1, 2.5]", "[1.0, 2.5]"),
            (
                "[1]",
                "error: List had incorrect size: expected 2 but given 1; [1]",
            ),
        ],
    );
}

#[test]
fn names_of_columns() {
    let columns = json_columns(r#"{"K": 1, "\"Exact\"": 2, "v": null, "V": 3}"#).unwrap();
    let number = |text: &str| Json::Number(text.to_owned());
    let expected = [("k", number("1")), ("Exact", number("2")), ("v", number("3"))];
    assert_eq!(columns, expected.map(|(name, json)| (name.to_owned(), json)));
    assert_eq!(
        json_columns("null").unwrap_err().to_string(),
        "Got null for INSERT JSON values"
    );
    assert_eq!(
        json_columns("[1").unwrap_err().to_string(),
        "Could not decode JSON string as a map: expected ',' or ']' at offset 2. (String was: [1)"
    );
}

#[test]
fn what_is_no_json() {
    let offset = |text: &str| parse_json(text).unwrap_err().offset;
    assert_eq!(offset(""), 0);
    assert_eq!(offset("01"), 1);
    assert_eq!(offset("1."), 2);
    assert_eq!(offset("-"), 1);
    assert_eq!(offset("[1,]"), 3);
    assert_eq!(offset("{\"a\" 1}"), 5);
    assert_eq!(offset("nul"), 0);
    assert_eq!(offset("\"a"), 1);
    assert_eq!(offset("\"\u{1}\""), 1);
    assert_eq!(offset("\"\\x\""), 2);
    assert_eq!(offset("\"\\ud800\""), 7);
    assert_eq!(offset("NaN"), 0);
    assert!(parse_json(&"[".repeat(100_000)).is_err());
    let deepest = "[".repeat(JSON_DEPTH_MAX) + &"]".repeat(JSON_DEPTH_MAX);
    assert!(parse_json(&deepest).is_ok());
}
