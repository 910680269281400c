//! Types as text: round trips, known texts, refusals.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::UserTypeField;
use crate::value::samples::any_type;
use proptest::prelude::*;

fn user_type() -> Arc<UserType> {
    let field = |name: &str, cql_type| UserTypeField {
        name: name.into(),
        cql_type,
    };
    let tags = CqlType::List {
        element: CqlType::Text.into(),
        frozen: true,
    };
    Arc::new(UserType {
        keyspace: "ks".into(),
        name: "Address".into(),
        fields: vec![field("street", CqlType::Text), field("tags", tags)],
    })
}

fn resolve(keyspace: &str, name: &str) -> Option<Arc<UserType>> {
    let found = user_type();
    (&*found.keyspace == keyspace && &*found.name == name).then_some(found)
}

fn cql(text: &str) -> Result<CqlType, TypeTextError> {
    parse_cql_type(text, "ks", &resolve)
}

/// The definitions in a type, by name: what a schema would resolve.
fn definitions(cql_type: &CqlType, found: &mut Vec<Arc<UserType>>) {
    match cql_type {
        CqlType::List { element, .. } | CqlType::Set { element, .. } | CqlType::Vector { element, .. } => {
            definitions(element, found);
        }
        CqlType::Map { key, value, .. } => {
            definitions(key, found);
            definitions(value, found);
        }
        CqlType::Tuple(elements) => elements.iter().for_each(|element| definitions(element, found)),
        CqlType::Udt { definition, .. } => found.push(definition.clone()),
        _ => {}
    }
}

proptest! {
    #[test]
    fn cql_text_round_trips(cql_type in any_type()) {
        // All sample definitions have one name, so each type must hold but one.
        let mut found = Vec::new();
        definitions(&cql_type, &mut found);
        found.dedup();
        if found.len() > 1 {
            return Ok(());
        }
        let resolve = |_: &str, _: &str| found.first().cloned();
        prop_assert_eq!(parse_cql_type(&cql_type.to_string(), "ks", &resolve), Ok(cql_type));
    }

    #[test]
    fn marshal_classes_round_trip(cql_type in any_type(), reversed: bool) {
        let text = marshal_class(&cql_type, reversed);
        prop_assert_eq!(parse_marshal_class(&text), Ok((cql_type, reversed)));
    }

    #[test]
    fn any_text_is_survived(text in "[a-z<>(),.:'\" 0-9é]{0,40}", nested in "(FrozenType\\(|ListType\\(|list<|tuple<|int|,|\\)|>|'|\"){0,20}") {
        for text in [text, nested] {
            let _ = cql(&text);
            let _ = parse_marshal_class(&text);
        }
    }
}

#[test]
fn known_cql_texts() {
    let frozen_list = CqlType::List {
        element: CqlType::Int.into(),
        frozen: true,
    };
    assert_eq!(cql("VARCHAR"), Ok(CqlType::Text));
    assert_eq!(
        cql("map<text, frozen<list<int>>>"),
        Ok(CqlType::Map {
            key: CqlType::Text.into(),
            value: frozen_list.clone().into(),
            frozen: false
        })
    );
    assert_eq!(cql(" frozen < list<int> > "), Ok(frozen_list.clone()));
    assert_eq!(
        cql("tuple<int, list<int>>"),
        Ok(CqlType::Tuple([CqlType::Int, frozen_list].into()))
    );
    assert_eq!(
        cql("vector<float, 3>"),
        Ok(CqlType::Vector {
            element: CqlType::Float.into(),
            dimension: 3
        })
    );
    let address = |frozen| CqlType::Udt {
        definition: user_type(),
        frozen,
    };
    assert_eq!(cql("\"Address\""), Ok(address(false)));
    assert_eq!(cql("frozen<ks.\"Address\">"), Ok(address(true)));
    assert_eq!(
        cql("'org.apache.cassandra.db.marshal.Int32Type'"),
        Ok(CqlType::Int)
    );
    assert_eq!(
        cql("'com.example.PointType'"),
        Ok(CqlType::Custom("com.example.PointType".into()))
    );
}

#[test]
fn known_marshal_classes() {
    let check = |cql_type: CqlType, short: &str| {
        // In the tests' short form, classes have no package.
        let text = marshal_class(&cql_type, false);
        assert_eq!(text.replace(MARSHAL_PACKAGE, ""), short);
        assert_eq!(parse_marshal_class(short), Ok((cql_type, false)));
    };
    let frozen = true;
    let list = CqlType::List {
        element: CqlType::Int.into(),
        frozen,
    };
    check(CqlType::Int, "Int32Type");
    check(
        CqlType::Vector {
            element: CqlType::Float.into(),
            dimension: 3,
        },
        "VectorType(FloatType , 3)",
    );
    check(list.clone(), "FrozenType(ListType(Int32Type))");
    let nested = |frozen| CqlType::Map {
        key: CqlType::Text.into(),
        value: list.clone().into(),
        frozen,
    };
    check(nested(false), "MapType(UTF8Type,FrozenType(ListType(Int32Type)))");
    check(nested(true), "FrozenType(MapType(UTF8Type,ListType(Int32Type)))");
    check(
        CqlType::Tuple([list, CqlType::Text].into()),
        "TupleType(ListType(Int32Type),UTF8Type)",
    );
    check(
        CqlType::Udt {
            definition: user_type(),
            frozen,
        },
        "FrozenType(UserType(ks,41646472657373,737472656574:UTF8Type,74616773:ListType(UTF8Type)))",
    );
    assert_eq!(
        marshal_class(&CqlType::Int, false),
        "org.apache.cassandra.db.marshal.Int32Type"
    );
    assert_eq!(
        parse_marshal_class("ReversedType(LongType)"),
        Ok((CqlType::Bigint, true))
    );
    let frozen_list = CqlType::List {
        element: CqlType::Text.into(),
        frozen: true,
    };
    check(
        CqlType::Composite([CqlType::Int, frozen_list.clone()].into()),
        "CompositeType(Int32Type,FrozenType(ListType(UTF8Type)))",
    );
    check(
        CqlType::DynamicComposite([(b'i', CqlType::Int), (b's', CqlType::Text)].into()),
        "DynamicCompositeType(i=>Int32Type,s=>UTF8Type)",
    );
    check(CqlType::DynamicComposite([].into()), "DynamicCompositeType()");
    assert_eq!(
        parse_marshal_class("CompositeType(Int32Type, ListType(UTF8Type))"),
        Ok((CqlType::Composite([CqlType::Int, frozen_list].into()), false))
    );
    assert_eq!(
        parse_marshal_class("DynamicCompositeType(s => UTF8Type, i=>Int32Type)")
            .unwrap()
            .0
            .to_string(),
        "'org.apache.cassandra.db.marshal.DynamicCompositeType(i=>org.apache.cassandra.db.marshal.Int32Type,\
         s=>org.apache.cassandra.db.marshal.UTF8Type)'"
    );
}

#[test]
fn refusals_say_why_and_where() {
    let check = |text: &str, offset: usize, message: &str| {
        let error = cql(text).unwrap_err();
        assert_eq!(
            (error.offset, error.message.as_str()),
            (offset, message),
            "{text}"
        );
    };
    check("", 0, "expected a type");
    check("list<int", 8, "expected '>'");
    check("list<int>>", 9, "unexpected text after the type");
    check("map<int>", 7, "expected ','");
    check("nope", 4, "Unknown type ks.nope");
    check("other.\"Address\"", 15, "Unknown type other.Address");
    check(
        "frozen<int>",
        10,
        "frozen<> is only allowed on collections, tuples, and user-defined types (got int)",
    );
    check(
        "vector<int, 0>",
        13,
        "vectors may only have positive dimensions; given 0",
    );
    check(
        "vector<int, 70000>",
        17,
        "vectors may have at most 65535 dimensions",
    );
    check("\"Addr", 1, "missing closing \"");
    assert!(parse_marshal_class("ListType(Int32Type").is_err());
    assert!(parse_marshal_class("UserType(ks,zz)").is_err());
    assert!(parse_marshal_class("CompositeType()").is_err());
    assert!(parse_marshal_class("CompositeType(ReversedType(Int32Type))").is_err());
    assert!(parse_marshal_class("CompositeType(CounterColumnType)").is_err());
    assert!(parse_marshal_class("DynamicCompositeType(ab=>Int32Type)").is_err());
    assert!(parse_marshal_class("DynamicCompositeType(a->Int32Type)").is_err());
}

#[test]
fn depth_is_bounded() {
    let nest =
        |open: &str, close: &str, depth: usize| format!("{}int{}", open.repeat(depth), close.repeat(depth));
    assert!(cql(&nest("tuple<", ">", DEPTH_MAX - 1)).is_ok());
    assert!(cql(&nest("tuple<", ">", DEPTH_MAX)).is_err());
    assert!(cql(&nest("frozen<", ">", 100_000)).is_err());
    assert!(parse_marshal_class(&nest("ListType(", ")", 100_000)).is_err());
    // Definitions of definitions, each used twice: found too deep without walking all paths.
    let mut definition = user_type();
    let mut deepest_fine = 0;
    for level in 0..DEPTH_MAX + 8 {
        let cql_type = CqlType::Udt {
            definition: definition.clone(),
            frozen: true,
        };
        let resolved = definition.clone();
        if parse_cql_type("x", "ks", &|_, _| Some(resolved.clone())).is_ok() {
            deepest_fine = level;
        }
        let field = |name: &str| UserTypeField {
            name: name.into(),
            cql_type: cql_type.clone(),
        };
        definition = Arc::new(UserType {
            keyspace: "ks".into(),
            name: "x".into(),
            fields: vec![field("a"), field("b")],
        });
    }
    assert_eq!(deepest_fine, DEPTH_MAX - 3);
}
