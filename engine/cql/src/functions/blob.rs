//! `<type>_as_blob`, `blob_as_<type>` and their older names without underscores.

use super::{ScalarFunction, first};
use crate::CqlError;
use ceto_model::{CqlType, value};

const NATIVE_TYPES: [(&str, CqlType); 20] = [
    ("ascii", CqlType::Ascii),
    ("bigint", CqlType::Bigint),
    ("boolean", CqlType::Boolean),
    ("counter", CqlType::Counter),
    ("date", CqlType::Date),
    ("decimal", CqlType::Decimal),
    ("double", CqlType::Double),
    ("duration", CqlType::Duration),
    ("float", CqlType::Float),
    ("inet", CqlType::Inet),
    ("int", CqlType::Int),
    ("smallint", CqlType::Smallint),
    ("text", CqlType::Text),
    ("time", CqlType::Time),
    ("timestamp", CqlType::Timestamp),
    ("timeuuid", CqlType::Timeuuid),
    ("tinyint", CqlType::Tinyint),
    ("uuid", CqlType::Uuid),
    ("varchar", CqlType::Text),
    ("varint", CqlType::Varint),
];

fn native(name: &str) -> Option<CqlType> {
    NATIVE_TYPES
        .iter()
        .find(|(native, _)| *native == name)
        .map(|(_, cql_type)| cql_type.clone())
}

pub(super) fn candidates(name: &str, out: &mut Vec<ScalarFunction>) {
    let to_blob = name
        .strip_suffix("_as_blob")
        .or_else(|| name.strip_suffix("asblob"))
        .and_then(native);
    if let Some(from) = to_blob {
        out.push(ScalarFunction::new(
            name,
            vec![from],
            CqlType::Blob,
            |_, arguments, _| Ok(Some(first(arguments))),
        ));
    }
    let from_blob = name
        .strip_prefix("blob_as_")
        .or_else(|| name.strip_prefix("blobas"))
        .and_then(native);
    if let Some(to) = from_blob {
        out.push(ScalarFunction::new(name, vec![CqlType::Blob], to, |function, arguments, _| {
            let bytes = first(arguments);
            match value::validate(&function.return_type, &bytes) {
                Ok(()) => Ok(Some(bytes)),
                Err(_) => Err(CqlError::Invalid(format!(
                    "In call to function system.{}, value 0x{} is not a valid binary representation for type {}",
                    function.name,
                    super::mask::hex(&bytes),
                    function.return_type
                ))),
            }
        }));
    }
}
