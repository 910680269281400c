//! similarity_cosine, similarity_euclidean, similarity_dot_product: of two float vectors, between 0 and 1.

use super::{ScalarFunction, decoded, encoded};
use crate::CqlError;
use bytes::Bytes;
use ceto_model::CqlType;
use ceto_model::schema::Similarity;
use ceto_model::value::Value;

pub(super) fn candidates(name: &str, natural: &[Option<CqlType>], out: &mut Vec<ScalarFunction>) {
    if !matches!(
        name,
        "similarity_cosine" | "similarity_euclidean" | "similarity_dot_product"
    ) {
        return;
    }
    let is_vector = |cql_type: &&CqlType| matches!(cql_type, CqlType::Vector { .. });
    // A literal looks like a list; the other argument, or the length, says that it is a vector.
    let vector = natural.iter().flatten().find(is_vector).cloned();
    let vector = vector.unwrap_or_else(|| CqlType::Vector {
        element: CqlType::Float.into(),
        dimension: 1,
    });
    out.push(ScalarFunction::new(
        name,
        vec![vector.clone(), vector],
        CqlType::Float,
        |function, arguments, _| {
            let (left, right) = (floats(function, arguments, 0)?, floats(function, arguments, 1)?);
            if left.len() != right.len() {
                return Err(function.failure("All arguments must have the same vector dimensions"));
            }
            encoded(function, Value::Float(similarity(function, &left, &right)?))
        },
    ));
}

fn floats(
    function: &ScalarFunction,
    arguments: &[Option<Bytes>],
    index: usize,
) -> Result<Vec<f32>, CqlError> {
    let Some(Value::Vector(elements)) = decoded(function, arguments, index)? else {
        return Ok(Vec::new());
    };
    elements
        .into_iter()
        .map(|element| match element {
            Value::Float(number) => Ok(number),
            other => Err(function.failure(format!("a vector of {} has no similarity", other.kind()))),
        })
        .collect()
}

fn similarity(function: &ScalarFunction, left: &[f32], right: &[f32]) -> Result<f32, CqlError> {
    let similarity = match function.name.as_str() {
        "similarity_euclidean" => Similarity::Euclidean,
        "similarity_dot_product" => Similarity::DotProduct,
        _ => Similarity::Cosine,
    };
    let all_zero = || function.failure("Function system.similarity_cosine doesn't support all-zero vectors.");
    similarity.of(left, right).ok_or_else(all_zero)
}
