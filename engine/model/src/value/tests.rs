//! Wire bytes: round trips, checks and their texts, canonical form, hostile bytes.
#![allow(clippy::unwrap_used)]

use super::samples::{any_type, any_value, typed_values};
use super::wire::{put_unsigned_vint, put_vint, take_unsigned_vint, take_vint};
use super::*;
use crate::CqlType;
use proptest::collection::vec;
use proptest::prelude::*;
use std::cmp::Ordering;

proptest! {
    #[test]
    fn values_round_trip((cql_type, wires) in typed_values(1)) {
        prop_assert_eq!(validate(&cql_type, &wires[0]), Ok(()));
        let value = Value::decode(&cql_type, &wires[0]).unwrap();
        prop_assert_eq!(value.to_wire(&cql_type).unwrap(), &wires[0][..]);
        prop_assert_eq!(&*canonical(&cql_type, &wires[0]).unwrap(), &wires[0][..]);
    }

    #[test]
    fn hostile_bytes_do_not_panic(cql_type in any_type(), a in vec(any::<u8>(), 0..40), b in vec(0..5_u8, 0..40)) {
        for bytes in [&a, &b] {
            let valid = validate(&cql_type, bytes);
            prop_assert_eq!(Value::decode(&cql_type, bytes).err(), valid.clone().err());
            prop_assert_eq!(canonical(&cql_type, bytes).err(), valid.err());
        }
        prop_assert_eq!(compare(&cql_type, &a, &b), compare(&cql_type, &b, &a).reverse());
    }

    #[test]
    fn damaged_values_do_not_panic(
        (cql_type, wires) in typed_values(1), at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
    ) {
        let mut wire = wires[0].clone();
        prop_assume!(!wire.is_empty());
        let at = at.index(wire.len());
        wire[at] = byte;
        let _ = Value::decode(&cql_type, &wire);
        let _ = compare(&cql_type, &wire, &wires[0]);
        wire.truncate(cut.index(wire.len()));
        let _ = Value::decode(&cql_type, &wire);
        let _ = compare(&cql_type, &wires[0], &wire);
    }

    #[test]
    fn order_is_transitive((cql_type, mut wires) in typed_values(3)) {
        wires.sort_by(|a, b| compare(&cql_type, a, b));
        prop_assert_ne!(compare(&cql_type, &wires[0], &wires[2]), Ordering::Greater);
        if compare(&cql_type, &wires[0], &wires[2]).is_eq() {
            prop_assert!(compare(&cql_type, &wires[0], &wires[1]).is_eq());
        }
    }

    #[test]
    fn vints_round_trip(value: i64, shift in 0..64_u32) {
        let value = value >> shift;
        let mut out = Vec::new();
        put_vint(&mut out, value);
        put_unsigned_vint(&mut out, value as u64);
        let mut input = &out[..];
        prop_assert_eq!(take_vint(&mut input), Some(value));
        prop_assert_eq!(take_unsigned_vint(&mut input), Some(value as u64));
        prop_assert!(input.is_empty());
        prop_assert_eq!(take_unsigned_vint(&mut &out[..0]), None);
    }

    #[test]
    fn sets_are_sorted(values in any_value(&CqlType::Set { element: CqlType::Int.into(), frozen: true })) {
        let set = CqlType::Set { element: CqlType::Int.into(), frozen: true };
        let Value::Set(elements) = Value::decode(&set, &values.to_wire(&set).unwrap()).unwrap() else {
            unreachable!("a set was encoded")
        };
        let wires: Vec<_> = elements.iter().map(|element| element.to_wire(&CqlType::Int).unwrap()).collect();
        prop_assert!(wires.is_sorted_by(|a, b| compare(&CqlType::Int, a, b).is_lt()));
    }
}

mod text;

fn text_of(result: Result<(), ValueError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn vints_of_the_specification() {
    let bytes = |value| {
        let mut out = Vec::new();
        put_unsigned_vint(&mut out, value);
        out
    };
    assert_eq!(bytes(0), [0]);
    assert_eq!(bytes(127), [0x7f]);
    assert_eq!(bytes(128), [0x80, 0x80]);
    assert_eq!(bytes(256_000), [0xc3, 0xe8, 0x00]);
    assert_eq!(
        bytes((1 << 56) - 1),
        [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
    );
    assert_eq!(bytes(u64::MAX), [0xff; 9]);
}

/// The example of the native protocol's specification: 89, -12, 100 and the like are signed vints.
#[test]
fn wire_forms() {
    let check = |cql_type: CqlType, value: Value, wire: &[u8]| {
        assert_eq!(value.to_wire(&cql_type).unwrap(), wire, "{cql_type}");
        assert_eq!(Value::decode(&cql_type, wire).unwrap(), value, "{cql_type}");
    };
    check(CqlType::Varint, Value::Varint(0.into()), &[0x00]);
    check(CqlType::Varint, Value::Varint(127.into()), &[0x7f]);
    check(CqlType::Varint, Value::Varint(128.into()), &[0x00, 0x80]);
    check(CqlType::Varint, Value::Varint((-128).into()), &[0x80]);
    check(CqlType::Varint, Value::Varint((-129).into()), &[0xff, 0x7f]);
    check(
        CqlType::Decimal,
        Value::Decimal("-1.29".parse().unwrap()),
        &[0, 0, 0, 2, 0xff, 0x7f],
    );
    check(CqlType::Date, Value::Date(1 << 31), &[0x80, 0, 0, 0]);
    check(
        CqlType::Duration,
        Value::Duration(Duration::new(1, 2, 3).unwrap()),
        &[2, 4, 6],
    );
    check(
        CqlType::Duration,
        Value::Duration(Duration::new(0, 0, -100_000).unwrap()),
        &[0, 0, 0xc3, 0x0d, 0x3f],
    );
    check(CqlType::Inet, Value::Inet([1, 2, 3, 4].into()), &[1, 2, 3, 4]);
    let map = CqlType::Map {
        key: CqlType::Text.into(),
        value: CqlType::Tinyint.into(),
        frozen: true,
    };
    check(
        map,
        Value::Map(vec![(Value::Text("a".into()), Value::Tinyint(1))]),
        &[0, 0, 0, 1, 0, 0, 0, 1, b'a', 0, 0, 0, 1, 1],
    );
    let floats = CqlType::Vector {
        element: CqlType::Float.into(),
        dimension: 2,
    };
    check(
        floats,
        Value::Vector(vec![Value::Float(1.0), Value::Float(2.0)]),
        &[0x3f, 0x80, 0, 0, 0x40, 0, 0, 0],
    );
    // smallint has one size, but Cassandra writes its length inside vectors.
    let smallints = CqlType::Vector {
        element: CqlType::Smallint.into(),
        dimension: 2,
    };
    check(
        smallints,
        Value::Vector(vec![Value::Smallint(1), Value::Smallint(2)]),
        &[2, 0, 1, 2, 0, 2],
    );
}

#[test]
fn error_texts() {
    let check = |cql_type: CqlType, wire: &[u8], text: &str| {
        assert_eq!(text_of(validate(&cql_type, wire)), text, "{cql_type}");
    };
    check(CqlType::Int, &[1, 2, 3], "Expected 4 or 0 byte int (3)");
    check(CqlType::Bigint, &[1], "Expected 8 or 0 byte long (1)");
    check(CqlType::Tinyint, &[], "Expected 1 byte for a tinyint (0)");
    check(CqlType::Smallint, &[], "Expected 2 bytes for a smallint (0)");
    check(CqlType::Boolean, &[1, 1], "Expected 1 or 0 byte value (2)");
    check(CqlType::Date, &[], "Expected 4 byte long for date (0)");
    check(CqlType::Time, &[], "Expected 8 byte long for time (0)");
    check(CqlType::Timestamp, &[1], "Expected 8 or 0 byte long for date (1)");
    check(CqlType::Float, &[1], "Expected 4 or 0 byte value for a float (1)");
    check(
        CqlType::Double,
        &[1],
        "Expected 8 or 0 byte value for a double (1)",
    );
    check(CqlType::Decimal, &[1], "Expected 0 or at least 4 bytes (1)");
    check(
        CqlType::Inet,
        &[1, 0xab],
        "Expected 4 or 16 byte inetaddress; got 01ab",
    );
    check(CqlType::Uuid, &[1], "UUID should be 16 or 0 bytes (1)");
    check(
        CqlType::Timeuuid,
        &[0x40; 16],
        "Invalid version for TimeUUID type.",
    );
    check(CqlType::Text, &[0xff], "String didn't validate.");
    check(CqlType::Ascii, &[0xc3], "Invalid byte for ascii: -61");
    check(
        CqlType::Duration,
        &[0, 0],
        "Expected at least 3 bytes for a duration (2)",
    );
    check(
        CqlType::Duration,
        &[1, 2, 0],
        "The duration months, days and nanoseconds must be all of the same sign (-1, 1, 0)",
    );
    let list = CqlType::List {
        element: CqlType::Int.into(),
        frozen: false,
    };
    check(list.clone(), &[0, 0, 0, 1], "Not enough bytes to read a list");
    check(
        list.clone(),
        &[0, 0, 0, 0, 1],
        "Unexpected extraneous bytes after list value",
    );
    check(
        list.clone(),
        &[0xff; 4],
        "The data cannot be deserialized as a list",
    );
    check(
        list,
        &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
        "Null value read when not allowed",
    );
    let tuple = CqlType::Tuple([CqlType::Int].into());
    check(
        tuple.clone(),
        &[0, 0],
        "Not enough bytes to read size of 0th component",
    );
    check(
        tuple.clone(),
        &[0, 0, 0, 4, 1],
        "Not enough bytes to read 0th component",
    );
    check(
        tuple,
        &[0xff, 0xff, 0xff, 0xff, 1],
        "Invalid remaining data after end of tuple value",
    );
    let vector = CqlType::Vector {
        element: CqlType::Float.into(),
        dimension: 2,
    };
    check(vector.clone(), &[], "Invalid empty vector value");
    check(
        vector.clone(),
        &[0; 4],
        "Not enough bytes to read a vector<float, 2>",
    );
    check(
        vector,
        &[0; 12],
        "Unexpected 4 extraneous bytes after vector<float, 2> value",
    );
}

#[test]
fn canonical_sorts_what_clients_send() {
    let set = CqlType::Set {
        element: CqlType::Tinyint.into(),
        frozen: true,
    };
    let sent = wire::pack_collection(4, [&[2][..], &[0xff], &[2], &[1]]);
    let stored = wire::pack_collection(3, [&[0xff][..], &[1], &[2]]);
    assert_eq!(canonical(&set, &sent).unwrap(), stored);
    let map = CqlType::Map {
        key: CqlType::Tinyint.into(),
        value: set.into(),
        frozen: true,
    };
    let sent = wire::pack_collection(2, [&[1][..], &[], &[1], &sent]);
    let stored = wire::pack_collection(1, [&[1][..], &stored]);
    assert_eq!(canonical(&map, &sent).unwrap(), stored);
}

#[test]
fn orders_worth_a_word() {
    let less = |cql_type: CqlType, texts: &[&str]| {
        let wires: Vec<_> = texts
            .iter()
            .map(|text| match cql_type {
                CqlType::Decimal => Value::Decimal(text.parse().unwrap()),
                CqlType::Double => Value::Double(text.parse().unwrap()),
                CqlType::Varint => Value::Varint(text.parse().unwrap()),
                _ => Value::Uuid(text.parse().unwrap()),
            })
            .map(|value| value.to_wire(&cql_type).unwrap())
            .collect();
        assert!(
            wires.is_sorted_by(|a, b| compare(&cql_type, a, b).is_lt()),
            "{texts:?}"
        );
    };
    less(
        CqlType::Decimal,
        &["-1E+9", "-2", "-1.5", "0.00", "0.01", "9.99", "1E+1", "11"],
    );
    less(
        CqlType::Varint,
        &["-129", "-128", "-1", "0", "127", "128", "65536"],
    );
    less(
        CqlType::Double,
        &["-inf", "-1", "-0", "0", "1e-300", "inf", "NaN"],
    );
    less(
        CqlType::Uuid,
        &[
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-0000-1000-8000-000000000000",
            "00000000-0001-1000-8000-000000000000",
            "00000000-0000-4000-8000-000000000000",
        ],
    );
    // Bytes 8 to 15 of a timeuuid are signed.
    let with_last = |byte| [0, 0, 0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0, 0, 0, 0, byte];
    assert!(compare(&CqlType::Timeuuid, &with_last(0x80), &with_last(0x7f)).is_lt());
    assert!(compare(&CqlType::Uuid, &with_last(0x80), &with_last(0x7f)).is_gt());
}

#[test]
fn kinds_must_match() {
    let error = Value::Text("a".into()).to_wire(&CqlType::Int).unwrap_err();
    assert_eq!(error.to_string(), "expected a value of type int, found text");
    assert!(Value::Empty.to_wire(&CqlType::Tinyint).is_err());
    assert_eq!(Value::Empty.to_wire(&CqlType::Int).unwrap(), []);
}
