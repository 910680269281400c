//! JSON to values.

use super::super::literal::{parse_hex, parse_integer, parse_literal};
use super::super::{Value, ValueError};
use super::{Json, parse_json};
use crate::CqlType;

/// The value that JSON text is for `cql_type`; None is null. What `fromJson` does.
pub fn from_json_text(cql_type: &CqlType, text: &str) -> Result<Option<Value>, ValueError> {
    let json = parse_json(text)
        .map_err(|error| ValueError::invalid(format!("Could not decode JSON string '{text}': {error}")))?;
    from_json(cql_type, &json)
}

/// The columns of an INSERT JSON and their values, with their names as stored: folded to lower case unless in quotes of
/// their own. When two names become one, the later value counts.
pub fn json_columns(text: &str) -> Result<Vec<(String, Json)>, ValueError> {
    let no_map = |why: String| {
        ValueError::invalid(format!(
            "Could not decode JSON string as a map: {why}. (String was: {text})"
        ))
    };
    match parse_json(text) {
        Ok(Json::Object(members)) => Ok(fold_names(members)),
        Ok(Json::Null) => Err(ValueError::invalid("Got null for INSERT JSON values")),
        Ok(other) => Err(no_map(format!("it is a {}", other.java_class()))),
        Err(error) => Err(no_map(error.to_string())),
    }
}

/// The value that a JSON value is for `cql_type`; None is null.
pub fn from_json(cql_type: &CqlType, json: &Json) -> Result<Option<Value>, ValueError> {
    match json {
        Json::Null => Ok(None),
        json => value_of(cql_type, json).map(Some),
    }
}

fn fold_names(members: Vec<(String, Json)>) -> Vec<(String, Json)> {
    let mut folded = indexmap::IndexMap::<String, Json, rustc_hash::FxBuildHasher>::default();
    for (name, value) in members {
        let inner = name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let name = match inner {
            Some(inner) => inner.to_owned(),
            None => name.to_lowercase(),
        };
        folded.insert(name, value);
    }
    folded.into_iter().collect()
}

fn unexpected(what: &str, json: &Json) -> ValueError {
    ValueError::invalid(format!(
        "Expected {what}, but got a {}: {json}",
        json.java_class()
    ))
}

/// `json` is not null.
fn value_of(cql_type: &CqlType, json: &Json) -> Result<Value, ValueError> {
    let from_text = |text: &str| parse_literal(cql_type, text);
    // A string, in the form of a constant.
    let string = |what: &str| match json {
        Json::String(text) => from_text(text),
        _ => Err(unexpected(what, json)),
    };
    // A number of the range, or a string.
    let integer = |what: &str| match json {
        Json::Number(text) => from_text(text).map_err(|_| unexpected(what, json)),
        _ => string(what),
    };
    // Any number, or a string: the range is checked by the form.
    let number = |what: &str| match json {
        Json::Number(text) => from_text(text),
        _ => string(what),
    };
    match cql_type {
        CqlType::Ascii => string("an ascii string"),
        CqlType::Text => string("a UTF-8 string"),
        CqlType::Blob | CqlType::Composite(_) | CqlType::DynamicComposite(_) | CqlType::Custom(_) => {
            blob_of(json)
        }
        CqlType::Boolean => match json {
            Json::Boolean(value) => Ok(Value::Boolean(*value)),
            _ => string("a boolean value"),
        },
        CqlType::Tinyint => number("a byte value"),
        CqlType::Smallint => number("a short value"),
        CqlType::Int => integer("an int value"),
        CqlType::Bigint | CqlType::Counter => integer("a bigint value"),
        CqlType::Float => number("a float value"),
        CqlType::Double => number("a double value"),
        CqlType::Decimal => match json {
            Json::Number(text) | Json::String(text) => text.parse().ok(),
            _ => None,
        }
        .map(Value::Decimal)
        .ok_or_else(|| not_a_representation(json, "decimal")),
        CqlType::Varint => match json {
            Json::Number(text) | Json::String(text) => parse_integer(text),
            _ => None,
        }
        .map(Value::Varint)
        .ok_or_else(|| not_a_representation(json, "varint")),
        CqlType::Date => string("a string representation of a date value"),
        CqlType::Time => string("a string representation of a time value"),
        CqlType::Timestamp => integer("a long or a datestring representation of a timestamp value"),
        CqlType::Duration => string("a string representation of a duration"),
        CqlType::Inet => string("a string representation of an inet value"),
        CqlType::Uuid => string("a string representation of a uuid"),
        CqlType::Timeuuid => string("a string representation of a timeuuid"),
        CqlType::Empty => string("an empty string"),
        CqlType::List { element, .. } => elements_of(element, json, "a list", "list").map(Value::List),
        CqlType::Set { element, .. } => {
            elements_of(element, json, "a list (representing a set)", "set").map(Value::Set)
        }
        CqlType::Map { key, value, .. } => map_of(key, value, json),
        CqlType::Tuple(types) => tuple_of(types, json),
        CqlType::Udt { .. } => udt_of(cql_type, json),
        CqlType::Vector { element, dimension } => {
            let values = elements_of(element, json, "a list", "list")?;
            if values.len() != usize::from(*dimension) {
                return Err(ValueError::invalid(format!(
                    "List had incorrect size: expected {dimension} but given {}; {json}",
                    values.len()
                )));
            }
            Ok(Value::Vector(values))
        }
    }
}

fn not_a_representation(json: &Json, noun: &str) -> ValueError {
    ValueError::invalid(format!(
        "Value '{json}' is not a valid representation of a {noun} value"
    ))
}

fn blob_of(json: &Json) -> Result<Value, ValueError> {
    let invalid = |why: String| {
        ValueError::invalid(format!(
            "Value '{json}' is not a valid blob representation: {why}"
        ))
    };
    let Json::String(text) = json else {
        return Err(invalid("it is not a string".to_owned()));
    };
    let Some(digits) = text.strip_prefix("0x") else {
        return Err(invalid(format!(
            "String representation of blob is missing 0x prefix: {text}"
        )));
    };
    match parse_hex(digits) {
        Some(bytes) => Ok(Value::Blob(bytes.into())),
        None => Err(invalid(format!("cannot parse '{digits}' as hex bytes"))),
    }
}

/// A string may hold the JSON of a collection, tuple or UDT: keys of maps are always strings. Passes the JSON inside, or
/// `json` itself, to `read`.
fn unwrapped<T>(json: &Json, read: impl FnOnce(&Json) -> Result<T, ValueError>) -> Result<T, ValueError> {
    match json {
        Json::String(text) => match parse_json(text) {
            Ok(inner) => read(&inner),
            Err(error) => Err(ValueError::invalid(format!(
                "Error decoding JSON string: {error}"
            ))),
        },
        json => read(json),
    }
}

fn elements_of(element: &CqlType, json: &Json, what: &str, noun: &str) -> Result<Vec<Value>, ValueError> {
    unwrapped(json, |json| {
        let Json::Array(elements) = json else {
            return Err(unexpected(what, json));
        };
        elements
            .iter()
            .map(|json| {
                from_json(element, json)?
                    .ok_or_else(|| ValueError::invalid(format!("Invalid null element in {noun}")))
            })
            .collect()
    })
}

fn map_of(key: &CqlType, value: &CqlType, json: &Json) -> Result<Value, ValueError> {
    unwrapped(json, |json| {
        let Json::Object(members) = json else {
            return Err(unexpected("a map", json));
        };
        let entry = |(name, json): &(String, Json)| {
            let value =
                from_json(value, json)?.ok_or_else(|| ValueError::invalid("Invalid null value in map"))?;
            Ok((value_of(key, &Json::String(name.clone()))?, value))
        };
        members
            .iter()
            .map(entry)
            .collect::<Result<_, _>>()
            .map(Value::Map)
    })
}

fn tuple_of(types: &[CqlType], json: &Json) -> Result<Value, ValueError> {
    unwrapped(json, |json| {
        let Json::Array(elements) = json else {
            return Err(unexpected("a list representation of a tuple", json));
        };
        let wrong =
            |how: &str| ValueError::invalid(format!("Tuple {how} items (expected {}): {json}", types.len()));
        if elements.len() > types.len() {
            return Err(wrong("contains extra"));
        }
        if elements.len() < types.len() {
            return Err(wrong("is missing"));
        }
        let values = types
            .iter()
            .zip(elements)
            .map(|(element, json)| from_json(element, json));
        values.collect::<Result<_, _>>().map(Value::Tuple)
    })
}

fn udt_of(cql_type: &CqlType, json: &Json) -> Result<Value, ValueError> {
    let CqlType::Udt { definition, .. } = cql_type else {
        return Err(unexpected("a map", json));
    };
    unwrapped(json, |json| {
        let Json::Object(members) = json else {
            return Err(unexpected("a map", json));
        };
        let members = fold_names(members.clone());
        for (name, _) in &members {
            if !definition.fields.iter().any(|field| *field.name == **name) {
                return Err(ValueError::invalid(format!(
                    "Unknown field '{name}' in value of user defined type {}",
                    definition.name
                )));
            }
        }
        let field_value = |field: &crate::UserTypeField| {
            let member = members.iter().find(|(name, _)| *field.name == **name);
            match member {
                Some((_, json)) => from_json(&field.cql_type, json),
                None => Ok(None),
            }
        };
        definition
            .fields
            .iter()
            .map(field_value)
            .collect::<Result<_, _>>()
            .map(Value::Udt)
    })
}
