//! Order-preserving encoding: order against `compare`, format, hostile bytes.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::CqlType;
use crate::value::samples::{any_type, any_value, typed_values};
use crate::value::{Decimal, Value, ValueError, compare, validate};
use proptest::collection::vec;
use proptest::prelude::*;

fn encoded(cql_type: &CqlType, reversed: bool, wire: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_component(cql_type, reversed, wire, &mut out).unwrap();
    out
}

fn decoded(cql_type: &CqlType, reversed: bool, component: &[u8]) -> Vec<u8> {
    let mut input = component;
    let wire = decode_component(cql_type, reversed, &mut input).unwrap();
    assert!(input.is_empty(), "the component ends itself");
    wire.to_vec()
}

proptest! {
    #[test]
    fn order_is_that_of_the_type((cql_type, wires) in typed_values(2)) {
        let [a, b] = &wires[..] else { unreachable!() };
        let order = compare(&cql_type, a, b);
        prop_assert_eq!(compare(&cql_type, b, a), order.reverse());
        prop_assert_eq!(encoded(&cql_type, false, a).cmp(&encoded(&cql_type, false, b)), order);
        prop_assert_eq!(encoded(&cql_type, true, a).cmp(&encoded(&cql_type, true, b)), order.reverse());
    }

    #[test]
    fn no_component_is_a_prefix_of_another((cql_type, wires) in typed_values(2), reversed: bool) {
        let a = encoded(&cql_type, reversed, &wires[0]);
        let b = encoded(&cql_type, reversed, &wires[1]);
        prop_assert!(a == b || !(a.starts_with(&b) || b.starts_with(&a)));
    }

    #[test]
    fn decoding_answers_an_equal_canonical_value((cql_type, wires) in typed_values(1), reversed: bool) {
        let component = encoded(&cql_type, reversed, &wires[0]);
        let wire = decoded(&cql_type, reversed, &component);
        prop_assert_eq!(validate(&cql_type, &wire), Ok(()));
        prop_assert!(compare(&cql_type, &wire, &wires[0]).is_eq());
        prop_assert_eq!(&encoded(&cql_type, reversed, &wire), &component);
        prop_assert_eq!(decoded(&cql_type, reversed, &component), wire);
    }

    #[test]
    fn hostile_bytes_do_not_panic(cql_type in any_type(), bytes in vec(any::<u8>(), 0..40), reversed: bool) {
        let _ = decode_component(&cql_type, reversed, &mut &bytes[..]);
        let _ = decode_clustering(&[(cql_type.clone(), reversed)], &bytes);
        let mut out = vec![7];
        if encode_component(&cql_type, reversed, &bytes, &mut out).is_err() {
            prop_assert_eq!(out, [7]);
        }
    }

    #[test]
    fn damaged_components_do_not_panic(
        (cql_type, wires) in typed_values(1), at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
    ) {
        let mut component = encoded(&cql_type, false, &wires[0]);
        let at = at.index(component.len());
        component[at] = byte;
        let _ = decode_component(&cql_type, false, &mut &component[..]);
        component.truncate(cut.index(component.len()));
        let _ = decode_component(&cql_type, false, &mut &component[..]);
    }
}

/// Columns, and two rows of values for them.
type Rows = (Vec<(CqlType, bool)>, Vec<Vec<u8>>, Vec<Vec<u8>>);

fn rows() -> impl Strategy<Value = Rows> {
    vec((any_type(), any::<bool>()), 0..4).prop_flat_map(|types| {
        let row = |types: &[(CqlType, bool)]| {
            let wires: Vec<_> = types
                .iter()
                .map(|(cql_type, _)| {
                    let of = cql_type.clone();
                    any_value(cql_type).prop_map(move |value| value.to_wire(&of).unwrap())
                })
                .collect();
            wires
        };
        let (a, b) = (row(&types), row(&types));
        // Often equal in the first columns, so that the later ones decide.
        (Just(types), a, b, 0..4_usize).prop_map(|(types, a, mut b, shared)| {
            let shared = shared.min(a.len());
            b[..shared].clone_from_slice(&a[..shared]);
            (types, a, b)
        })
    })
}

fn compare_rows(types: &[(CqlType, bool)], a: &[Vec<u8>], b: &[Vec<u8>]) -> std::cmp::Ordering {
    types
        .iter()
        .zip(a.iter().zip(b))
        .map(|((cql_type, reversed), (a, b))| {
            let order = compare(cql_type, a, b);
            if *reversed { order.reverse() } else { order }
        })
        .find(|order| order.is_ne())
        .unwrap_or(std::cmp::Ordering::Equal)
}

proptest! {
    #[test]
    fn keys_and_bounds_compare((types, a, b) in rows(), length in 0..4_usize) {
        let key = encode_clustering(&types, &a).unwrap();
        let other = encode_clustering(&types, &b).unwrap();
        prop_assert_eq!(key.cmp(&other), compare_rows(&types, &a, &b));

        let length = length.min(types.len());
        let prefix = encode_prefix(&types, &b[..length]).unwrap();
        let (before, after) = (bound_before(&prefix), bound_after(&prefix));
        // A row of the prefix lies between the bounds, any other row on the side of its components.
        let side = compare_rows(&types[..length], &a, &b[..length]);
        prop_assert_eq!(key.cmp(&before), side.then(std::cmp::Ordering::Greater));
        prop_assert_eq!(key.cmp(&after), side.then(std::cmp::Ordering::Less));
    }

    #[test]
    fn keys_and_bounds_decode((types, row, _) in rows(), length in 0..4_usize) {
        let key = encode_clustering(&types, &row).unwrap();
        let components = decode_clustering(&types, &key).unwrap();
        prop_assert_eq!(encode_clustering(&types, &components).unwrap(), key);

        let length = length.min(types.len());
        let prefix = encode_prefix(&types, &row[..length]).unwrap();
        let (components, last) = decode_prefix(&types, &bound_after(&prefix)).unwrap();
        prop_assert_eq!(last, BOUND_AFTER);
        prop_assert_eq!(encode_prefix(&types, &components).unwrap(), prefix);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The format is on disk: these bytes may never change.
#[test]
fn format() {
    let wire = |cql_type: &CqlType, value: Value| value.to_wire(cql_type).unwrap();
    let check = |cql_type: CqlType, value: Value, expected: &str| {
        let wire = wire(&cql_type, value);
        assert_eq!(hex(&encoded(&cql_type, false, &wire)), expected, "{cql_type}");
        assert_eq!(
            decoded(&cql_type, false, &encoded(&cql_type, false, &wire)),
            wire,
            "{cql_type}"
        );
    };
    let decimal = |text: &str| Value::Decimal(text.parse::<Decimal>().unwrap());
    check(CqlType::Int, Value::Int(-1), "407fffffff");
    check(CqlType::Int, Value::Empty, "3f");
    check(CqlType::Tinyint, Value::Tinyint(1), "4081");
    check(CqlType::Bigint, Value::Bigint(1), "408000000000000001");
    check(CqlType::Boolean, Value::Boolean(true), "4001");
    check(CqlType::Double, Value::Double(1.0), "40bff0000000000000");
    check(CqlType::Float, Value::Float(-1.0), "40407fffff");
    check(CqlType::Text, Value::Text("a\u{0}b".into()), "406101016200");
    check(CqlType::Text, Value::Text(String::new()), "3f");
    check(CqlType::Inet, Value::Inet([127, 0, 0, 1].into()), "407f00000100");
    check(CqlType::Varint, Value::Varint(300.into()), "4082012c");
    check(CqlType::Varint, Value::Varint((-300).into()), "407dfed4");
    check(CqlType::Decimal, decimal("0"), "4080");
    check(CqlType::Decimal, decimal("12.5"), "4081820d3300");
    check(CqlType::Decimal, decimal("-12.5"), "407f7df2ccff");
    check(
        CqlType::Decimal,
        decimal("1E-100"),
        "408100 7fffffffffffff9d 0b00".replace(' ', "").as_str(),
    );
    let uuid = |text: &str| uuid::Uuid::parse_str(text).unwrap();
    check(
        CqlType::Timeuuid,
        Value::Timeuuid(uuid("01234567-89ab-1cde-8011-223344556677")),
        "401cde89ab012345670091a2b3c4d5e6f7",
    );
    check(
        CqlType::Uuid,
        Value::Uuid(uuid("01234567-89ab-4cde-8011-223344556677")),
        "4040123456789abcde8011223344556677",
    );
    let tuple = CqlType::Tuple([CqlType::Int, CqlType::Text, CqlType::Int].into());
    check(
        tuple.clone(),
        Value::Tuple(vec![None, Some(Value::Text("a".into())), None]),
        "403e40610038",
    );
    let list = CqlType::List {
        element: CqlType::Text.into(),
        frozen: true,
    };
    check(
        list,
        Value::List(vec![Value::Text("a".into()), Value::Text(String::new())]),
        "404061003f38",
    );
    let vector = CqlType::Vector {
        element: CqlType::Float.into(),
        dimension: 2,
    };
    check(
        vector,
        Value::Vector(vec![Value::Float(0.0), Value::Float(1.0)]),
        "4080000000bf800000",
    );

    let int = wire(&CqlType::Int, Value::Int(1));
    assert_eq!(hex(&encoded(&CqlType::Int, true, &int)), "407ffffffe");
    assert_eq!(hex(&encoded(&CqlType::Int, true, &[])), "41");
    let key = encode_clustering(&[(CqlType::Int, false), (CqlType::Text, true)], &[&int[..], b"a"]).unwrap();
    assert_eq!(hex(&key), "4080000001409eff38");
    assert_eq!(hex(&encode_clustering::<Vec<u8>>(&[], &[]).unwrap()), "38");
}

#[test]
fn canonical_numbers_come_back() {
    let through = |text: &str| {
        let wire = Value::Decimal(text.parse().unwrap())
            .to_wire(&CqlType::Decimal)
            .unwrap();
        let back = decoded(
            &CqlType::Decimal,
            false,
            &encoded(&CqlType::Decimal, false, &wire),
        );
        Decimal::from_wire(&back).unwrap().to_scientific()
    };
    assert_eq!(through("1.00"), "1");
    assert_eq!(through("100"), "100");
    assert_eq!(through("1E+2"), "100");
    assert_eq!(through("-0.00"), "0");
    assert_eq!(through("1E+2000000000"), "1E+2000000000");
    assert_eq!(through("10E+2147483647"), "1E+2147483648");
    assert_eq!(
        decoded(
            &CqlType::Varint,
            false,
            &encoded(&CqlType::Varint, false, &[0, 0, 5])
        ),
        [5]
    );
    assert_eq!(
        decoded(&CqlType::Boolean, false, &encoded(&CqlType::Boolean, false, &[9])),
        [1]
    );
    let nan = 0xffc0_0001_u32.to_be_bytes();
    let back = decoded(&CqlType::Float, false, &encoded(&CqlType::Float, false, &nan));
    assert_eq!(back, f32::NAN.to_be_bytes());
}

#[test]
fn a_short_tuple_gets_its_nulls() {
    let tuple = CqlType::Tuple([CqlType::Int, CqlType::Int].into());
    let short = [0, 0, 0, 4, 0, 0, 0, 1];
    let full = [0, 0, 0, 4, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(decoded(&tuple, false, &encoded(&tuple, false, &short)), full);
    assert_eq!(encoded(&tuple, false, &full), encoded(&tuple, false, &short));
}

#[test]
fn corrupt_bytes_are_refused() {
    let refused = |cql_type: CqlType, bytes: &[u8]| {
        let mut input = bytes;
        let result = decode_component(&cql_type, false, &mut input);
        assert!(
            matches!(result, Err(ValueError::Corrupt(_))),
            "{cql_type} {bytes:?}: {result:?}"
        );
        assert_eq!(input, bytes);
    };
    refused(CqlType::Int, &[]);
    refused(CqlType::Int, &[0x41]);
    refused(CqlType::Int, &[0x40, 0, 0, 0]);
    refused(CqlType::Boolean, &[0x40, 2]);
    refused(CqlType::Text, &[0x40, b'a']);
    refused(CqlType::Text, &[0x40, 1, 3, 0]);
    refused(CqlType::Varint, &[0x40, 0xff, 0xff, 0xff, 0xff, 0xff]);
    refused(CqlType::Varint, &[0x40, 0x82, 0, 1]);
    refused(
        CqlType::Decimal,
        &[0x40, 0x81, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 2, 0],
    );
    refused(CqlType::Decimal, &[0x40, 0x81, 0x80, 1, 2, 0]);
    let types = [(CqlType::Int, false)];
    assert!(decode_clustering(&types, &[0x20]).is_err());
    assert!(decode_clustering(&types, &[0x40, 0x80, 0, 0, 1, 0x38, 0x38]).is_err());
}
