//! What CREATE INDEX asks of an index of vectors.
//!
//! Of Cassandra's options `similarity_function` says what is near. The others are about the making of Cassandra's graph
//! (`maximum_node_connections`, `construction_beam_width`, `optimize_for`): checked, kept, and not followed.

use crate::CqlError;
use ceto_model::schema::{SIMILARITY_FUNCTION, Similarity};
use ceto_model::{Column, CqlType};
use std::collections::BTreeMap;

const CONNECTIONS: &str = "maximum_node_connections";
const BEAM_WIDTH: &str = "construction_beam_width";
const OPTIMIZE_FOR: &str = "optimize_for";
/// Options of an index of vectors.
pub(super) const VECTOR_OPTIONS: [&str; 4] = [SIMILARITY_FUNCTION, CONNECTIONS, BEAM_WIDTH, OPTIMIZE_FOR];

const CONNECTIONS_MAX: i64 = 512;
const BEAM_WIDTH_MAX: i64 = 3200;

/// Checks the options of vectors, and the column when it is one of vectors.
pub(super) fn check_vectors(
    index: &str,
    column: &Column,
    options: &BTreeMap<String, String>,
) -> Result<(), CqlError> {
    let refuse = |text: String| Err(CqlError::Invalid(text));
    let CqlType::Vector { element, dimension } = &column.cql_type else {
        if VECTOR_OPTIONS.iter().any(|name| options.contains_key(*name)) {
            return refuse(format!("CQL type {} cannot have vector options", column.cql_type));
        }
        return Ok(());
    };
    if **element != CqlType::Float {
        return refuse("SAI ANN indexes are only allowed on vector columns with float elements".to_owned());
    }
    if column.is_primary_key() {
        return refuse(format!(
            "Cannot create a storage-attached index on vector column {}: it is part of the primary key",
            column.name
        ));
    }
    for (name, what, max) in [
        (CONNECTIONS, "Maximum number of connections", CONNECTIONS_MAX),
        (BEAM_WIDTH, "Construction beam width", BEAM_WIDTH_MAX),
    ] {
        let Some(text) = options.get(name) else { continue };
        let Ok(number) = text.trim().parse::<i64>() else {
            return refuse(format!("{what} {text} is not a valid integer for index {index}"));
        };
        if number <= 0 || number > max {
            return refuse(format!(
                "{what} for index {index} cannot be <= 0 or > {max}, was {number}"
            ));
        }
    }
    if let Some(text) = options.get(OPTIMIZE_FOR)
        && !["LATENCY", "RECALL"].contains(&text.trim().to_ascii_uppercase().as_str())
    {
        return refuse(format!(
            "optimize_for '{text}' was not recognized for index {index}. Valid values are: LATENCY, RECALL"
        ));
    }
    let similarity = match options.get(SIMILARITY_FUNCTION) {
        None => Some(Similarity::default()),
        Some(text) => Similarity::parse(text),
    };
    match similarity {
        None => refuse(format!(
            "Similarity function {} was not recognized for index {index}. Valid values are: {}",
            options.get(SIMILARITY_FUNCTION).map_or("", |text| text.trim()),
            Similarity::ALL.map(|(name, _)| name).join(", ")
        )),
        Some(Similarity::Cosine) if *dimension == 1 => {
            refuse("Cosine similarity is not supported for single-dimension vectors".to_owned())
        }
        Some(_) => Ok(()),
    }
}
