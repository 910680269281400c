//! Values of every type: `| type option | value |`, the type as in the metadata of a result.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ceto_model::value::{Value, canonical, compare, format_literal, validate};
use ceto_model::{CqlType, UserType, UserTypeField};
use ceto_native::ProtocolVersion;
use ceto_native::type_option::{decode_type, encode_type};
use ceto_native::wire::Reader;

/// Checks, decodes, prints and compares a value. What passes the check must survive all of it.
pub fn run(input: &[u8]) {
    let input = Bytes::copy_from_slice(input);
    let mut reader = Reader::new(&input);
    let Ok(cql_type) = decode_type(&mut reader) else {
        return;
    };
    let wire = reader.rest();
    let valid = validate(&cql_type, &wire).is_ok();
    let value = Value::decode(&cql_type, &wire);
    // Neither may panic on what is not valid.
    let literal = format_literal(&cql_type, &wire);
    let canonical_bytes = canonical(&cql_type, &wire).map(|bytes| bytes.into_owned());
    let order = compare(&cql_type, &wire, &wire);
    if !valid {
        return;
    }
    assert_eq!(order, std::cmp::Ordering::Equal, "{cql_type}");
    let value = value.unwrap_or_else(|error| panic!("{cql_type}: valid but not decodable: {error}"));
    literal.unwrap_or_else(|error| panic!("{cql_type}: valid but not printable: {error}"));
    let canonical_bytes =
        canonical_bytes.unwrap_or_else(|error| panic!("{cql_type}: no canonical form: {error}"));
    validate(&cql_type, &canonical_bytes).expect("a canonical value is valid");
    let again = canonical(&cql_type, &canonical_bytes).expect("a canonical value has a canonical form");
    assert_eq!(*again, *canonical_bytes, "{cql_type}");
    let encoded = value
        .to_wire(&cql_type)
        .unwrap_or_else(|error| panic!("{cql_type}: not encodable: {error}"));
    validate(&cql_type, &encoded)
        .unwrap_or_else(|error| panic!("{cql_type}: encoded but not valid: {error}"));
}

/// Values of every kind of type.
pub fn seeds() -> Vec<Vec<u8>> {
    let int = || Arc::new(CqlType::Int);
    let text = || Arc::new(CqlType::Text);
    let definition = UserType {
        keyspace: "ks".into(),
        name: "pair".into(),
        fields: vec![
            UserTypeField {
                name: "a".into(),
                cql_type: CqlType::Int,
            },
            UserTypeField {
                name: "b".into(),
                cql_type: CqlType::Text,
            },
        ],
    };
    let one: [u8; 8] = [0, 0, 0, 4, 0, 0, 0, 1];
    let pair = [&one[..], &[0, 0, 0, 1, b'x']].concat();
    let counted = |items: &[u8]| [&[0, 0, 0, 1][..], items].concat();
    let uuid_v1 = [0, 0, 0, 1, 0, 2, 0x10, 3, 0x80, 4, 5, 6, 7, 8, 9, 10];
    let samples: Vec<(CqlType, Vec<u8>)> = vec![
        (CqlType::Ascii, b"ascii".to_vec()),
        (CqlType::Bigint, vec![1; 8]),
        (CqlType::Blob, vec![1, 2, 3]),
        (CqlType::Boolean, vec![1]),
        (CqlType::Counter, vec![1; 8]),
        (CqlType::Date, vec![0x80, 0, 0, 0]),
        (CqlType::Decimal, vec![0, 0, 0, 2, 0x7f, 1]),
        (CqlType::Double, vec![0x40; 8]),
        (CqlType::Duration, vec![2, 4, 6]),
        (CqlType::Float, vec![0x40; 4]),
        (CqlType::Inet, vec![127, 0, 0, 1]),
        (CqlType::Int, vec![0, 0, 0, 1]),
        (CqlType::Smallint, vec![0, 1]),
        (CqlType::Text, "é".as_bytes().to_vec()),
        (CqlType::Time, vec![0, 0, 0, 0, 1, 1, 1, 1]),
        (CqlType::Timestamp, vec![0, 0, 1, 0x8b, 1, 1, 1, 1]),
        (CqlType::Timeuuid, uuid_v1.to_vec()),
        (CqlType::Tinyint, vec![1]),
        (CqlType::Uuid, uuid_v1.to_vec()),
        (CqlType::Varint, vec![0x80, 1]),
        (
            CqlType::List {
                element: int(),
                frozen: false,
            },
            counted(&one),
        ),
        (
            CqlType::Set {
                element: int(),
                frozen: false,
            },
            counted(&one),
        ),
        (
            CqlType::Map {
                key: int(),
                value: text(),
                frozen: false,
            },
            counted(&pair),
        ),
        (CqlType::Tuple([CqlType::Int, CqlType::Text].into()), pair.clone()),
        (
            CqlType::Udt {
                definition: Arc::new(definition),
                frozen: false,
            },
            pair,
        ),
        (
            CqlType::Vector {
                element: int(),
                dimension: 2,
            },
            vec![0, 0, 0, 1, 0, 0, 0, 2],
        ),
        (
            CqlType::Vector {
                element: text(),
                dimension: 2,
            },
            vec![1, b'x', 2, b'y', b'z'],
        ),
    ];
    let seed = |(cql_type, wire): (CqlType, Vec<u8>)| {
        let mut out = BytesMut::new();
        encode_type(&mut out, ProtocolVersion::V5, &cql_type);
        out.extend_from_slice(&wire);
        out.to_vec()
    };
    samples.into_iter().map(seed).collect()
}
