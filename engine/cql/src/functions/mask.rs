//! mask_null, mask_default, mask_replace, mask_inner, mask_outer, mask_hash: what a reader without permission sees.

use super::{ScalarFunction, decoded, encoded};
use crate::CqlError;
use bytes::Bytes;
use ceto_model::CqlType;
use ceto_model::value::Value;

pub(super) fn candidates(name: &str, natural: &[Option<CqlType>], out: &mut Vec<ScalarFunction>) {
    let known = natural.first().cloned().flatten().unwrap_or(CqlType::Text);
    match (name, natural.len()) {
        ("mask_null", _) => {
            out.push(
                ScalarFunction::new(name, vec![known.clone()], known, |_, _, _| Ok(None)).called_on_null(),
            );
        }
        ("mask_default", _) => {
            let function = ScalarFunction::new(name, vec![known.clone()], known, |function, _, _| {
                default_mask(&function.return_type).map_or(Ok(None), |mask| encoded(function, mask))
            });
            out.push(function.called_on_null());
        }
        ("mask_replace", _) => {
            let types = vec![known.clone(), known.clone()];
            let function = ScalarFunction::new(name, types, known, |_, arguments, _| {
                Ok(arguments.get(1).cloned().flatten())
            });
            out.push(function.called_on_null());
        }
        ("mask_inner" | "mask_outer", 4) => {
            let types = vec![CqlType::Text, CqlType::Int, CqlType::Int, CqlType::Text];
            out.push(ScalarFunction::new(name, types, CqlType::Text, partial).called_on_null());
        }
        ("mask_inner" | "mask_outer", _) => {
            let types = vec![CqlType::Text, CqlType::Int, CqlType::Int];
            out.push(ScalarFunction::new(name, types, CqlType::Text, partial).called_on_null());
        }
        _ => {}
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// A fixed value of each type.
fn default_mask(cql_type: &CqlType) -> Option<Value> {
    Some(match cql_type {
        CqlType::Ascii | CqlType::Text => Value::Text("****".to_owned()),
        CqlType::Blob => Value::Blob(Bytes::new()),
        CqlType::Boolean => Value::Boolean(false),
        CqlType::Tinyint => Value::Tinyint(0),
        CqlType::Smallint => Value::Smallint(0),
        CqlType::Int => Value::Int(0),
        CqlType::Bigint => Value::Bigint(0),
        CqlType::Counter => Value::Counter(0),
        CqlType::Varint => Value::Varint(0.into()),
        CqlType::Decimal => Value::Decimal(ceto_model::value::Decimal::new(0.into(), 0)),
        CqlType::Float => Value::Float(0.0),
        CqlType::Double => Value::Double(0.0),
        CqlType::Date => Value::Date(1 << 31),
        CqlType::Time => Value::Time(0),
        CqlType::Timestamp => Value::Timestamp(0),
        CqlType::Inet => Value::Inet(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)),
        CqlType::Uuid => Value::Uuid(uuid::Uuid::nil()),
        CqlType::List { .. } => Value::List(Vec::new()),
        CqlType::Set { .. } => Value::Set(Vec::new()),
        CqlType::Map { .. } => Value::Map(Vec::new()),
        _ => return None,
    })
}

/// mask_inner keeps the first and last characters, mask_outer hides them; how many of each, the arguments say (null: 0).
fn partial(
    function: &ScalarFunction,
    arguments: &[Option<Bytes>],
    _: &crate::plan::PlanContext<'_>,
) -> Result<Option<Bytes>, CqlError> {
    let Some(Value::Text(text)) = decoded(function, arguments, 0)? else {
        return Ok(None);
    };
    let count = |index| match decoded(function, arguments, index) {
        Ok(Some(Value::Int(number))) => {
            usize::try_from(number).map_err(|_| function.failure("Cannot use negative arguments to mask"))
        }
        Ok(_) => Ok(0),
        Err(error) => Err(error),
    };
    let (begin, end) = (count(1)?, count(2)?);
    let padding = match decoded(function, arguments, 3)? {
        Some(Value::Text(padding)) => {
            let mut characters = padding.chars();
            match (characters.next(), characters.next()) {
                (Some(single), None) => single,
                _ => {
                    return Err(function.failure(format!(
                        "The padding argument for function system.{} should be single-character, but '{padding}' has \
                         {} characters.",
                        function.name,
                        padding.chars().count()
                    )));
                }
            }
        }
        _ => '*',
    };
    let length = text.chars().count();
    let inner = function.name == "mask_inner";
    let masked = text.chars().enumerate().map(|(index, character)| {
        let is_outer = index < begin || index + end >= length;
        if is_outer == inner { character } else { padding }
    });
    encoded(function, Value::Text(masked.collect()))
}
