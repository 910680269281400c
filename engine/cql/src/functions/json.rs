//! to_json and from_json.

use super::{ScalarFunction, decoded, encoded, first};
use crate::CqlError;
use crate::expression::of_value;
use ceto_model::value::Value;
use ceto_model::{CqlType, value};

pub(super) fn candidates(name: &str, natural: &[Option<CqlType>], out: &mut Vec<ScalarFunction>) {
    if !matches!(name, "tojson" | "to_json") {
        return;
    }
    let argument = match natural {
        [Some(known)] => known.clone(),
        _ => CqlType::Text,
    };
    let function = ScalarFunction::new(name, vec![argument], CqlType::Text, |function, arguments, _| {
        let text = match arguments.first() {
            Some(Some(wire)) => {
                let cql_type = function.argument_types.first().unwrap_or(&CqlType::Text);
                value::to_json(cql_type, wire).map_err(of_value)?
            }
            _ => "null".to_owned(),
        };
        Ok(Some(text.into()))
    });
    out.push(function.called_on_null());
}

/// from_json to a value of this type.
pub(super) fn from_json(cql_type: &CqlType) -> ScalarFunction {
    ScalarFunction::new(
        "fromjson",
        vec![CqlType::Text],
        cql_type.clone(),
        |function, arguments, _| {
            let Some(Value::Text(text)) = decoded(function, arguments, 0)? else {
                return Err(CqlError::Invalid(format!(
                    "Could not decode JSON string '{}'",
                    String::from_utf8_lossy(&first(arguments))
                )));
            };
            match value::from_json_text(&function.return_type, &text) {
                Ok(Some(value)) => encoded(function, value),
                Ok(None) => Ok(None),
                Err(error) => Err(function.failure(error.to_string())),
            }
        },
    )
}
