//! map_keys, map_values, collection_count, _min, _max, _sum, _avg: on whatever collection the argument is.

use super::aggregate::{NativeAccumulator, NativeAggregate};
use super::{ScalarFunction, first};
use crate::CqlError;
use crate::expression::of_value;
use bytes::Bytes;
use ceto_model::CqlType;
use ceto_model::value::compare;
use ceto_model::value::wire::{Elements, pack_collection};
use std::sync::Arc;

pub(super) fn candidates(
    name: &str,
    natural: &[Option<CqlType>],
    out: &mut Vec<ScalarFunction>,
) -> Result<(), CqlError> {
    if !matches!(
        name,
        "map_keys"
            | "map_values"
            | "collection_count"
            | "collection_min"
            | "collection_max"
            | "collection_sum"
            | "collection_avg"
    ) {
        return Ok(());
    }
    let [Some(collection)] = natural else {
        return Err(CqlError::Invalid(format!(
            "Invalid call to function {name}: it takes one collection of a known type"
        )));
    };
    let element = match collection {
        CqlType::List { element, .. } | CqlType::Set { element, .. } => element.clone(),
        CqlType::Map { value, .. } => value.clone(),
        other => {
            return Err(CqlError::Invalid(format!(
                "Function system.{name} requires a collection argument, but found an argument of type {other}"
            )));
        }
    };
    let whole = vec![collection.clone()];
    let function = match (name, collection) {
        ("map_keys", CqlType::Map { key, .. }) => {
            let keys = CqlType::Set {
                element: key.clone(),
                frozen: false,
            };
            ScalarFunction::new(name, whole, keys, |f, arguments, _| map_part(f, arguments, 0))
        }
        ("map_values", CqlType::Map { value, .. }) => {
            let values = CqlType::List {
                element: value.clone(),
                frozen: false,
            };
            ScalarFunction::new(name, whole, values, |f, arguments, _| map_part(f, arguments, 1))
        }
        ("map_keys" | "map_values", other) => {
            return Err(CqlError::Invalid(format!(
                "Function system.{name} requires a map argument, but found an argument of type {other}"
            )));
        }
        ("collection_count", _) => ScalarFunction::new(name, whole, CqlType::Int, |f, arguments, _| {
            let count = elements(f, arguments)?.len() as i32;
            Ok(Some(Bytes::copy_from_slice(&count.to_be_bytes())))
        }),
        ("collection_min" | "collection_max", _) => {
            ScalarFunction::new(name, whole, extreme_type(collection), |f, arguments, _| {
                extreme(f, arguments)
            })
        }
        _ => {
            let aggregate = fold_of(name, &element)?;
            ScalarFunction::new(name, whole, aggregate.return_type(), fold)
        }
    };
    out.push(function);
    Ok(())
}

/// The element of a set or list, the key of a map.
fn extreme_type(collection: &CqlType) -> CqlType {
    match collection {
        CqlType::Map { key: element, .. } | CqlType::Set { element, .. } | CqlType::List { element, .. } => {
            (**element).clone()
        }
        other => other.clone(),
    }
}

/// Elements; of a map keys and values in turn.
fn parts<'a>(function: &ScalarFunction, wire: &'a [u8]) -> Result<Vec<&'a [u8]>, CqlError> {
    let Some(collection) = function.argument_types.first() else {
        return Ok(Vec::new());
    };
    let elements = Elements::new(collection, wire).map_err(of_value)?;
    elements.collect::<Result<_, _>>().map_err(of_value)
}

/// Elements; of a map its values.
fn elements(function: &ScalarFunction, arguments: &[Option<Bytes>]) -> Result<Vec<Bytes>, CqlError> {
    let wire = first(arguments);
    let all = parts(function, &wire)?
        .into_iter()
        .map(|bytes| wire.slice_ref(bytes));
    Ok(match function.argument_types.first() {
        Some(CqlType::Map { .. }) => all.skip(1).step_by(2).collect(),
        _ => all.collect(),
    })
}

fn map_part(
    function: &ScalarFunction,
    arguments: &[Option<Bytes>],
    offset: usize,
) -> Result<Option<Bytes>, CqlError> {
    let wire = first(arguments);
    let all = parts(function, &wire)?;
    let chosen = all.iter().copied().skip(offset).step_by(2);
    Ok(Some(pack_collection(all.len() / 2, chosen).into()))
}

fn extreme(function: &ScalarFunction, arguments: &[Option<Bytes>]) -> Result<Option<Bytes>, CqlError> {
    let wire = first(arguments);
    let all = parts(function, &wire)?;
    let is_map = matches!(function.argument_types.first(), Some(CqlType::Map { .. }));
    let candidates = all.into_iter().step_by(if is_map { 2 } else { 1 });
    let order = |a: &&[u8], b: &&[u8]| compare(&function.return_type, a, b);
    let found = match function.name.as_str() {
        "collection_min" => candidates.min_by(order),
        _ => candidates.max_by(order),
    };
    Ok(found.map(|bytes| wire.slice_ref(bytes)))
}

fn fold_of(name: &str, element: &Arc<CqlType>) -> Result<NativeAggregate, CqlError> {
    let aggregate = if name == "collection_sum" { "sum" } else { "avg" };
    let found = super::aggregate::find(aggregate, &[Some((**element).clone())])?;
    found.ok_or_else(|| CqlError::Invalid(format!("Function system.{name} requires numeric elements")))
}

fn fold(
    function: &ScalarFunction,
    arguments: &[Option<Bytes>],
    _: &crate::plan::PlanContext<'_>,
) -> Result<Option<Bytes>, CqlError> {
    let element = match function.argument_types.first() {
        Some(CqlType::List { element, .. } | CqlType::Set { element, .. }) => element.clone(),
        Some(CqlType::Map { value, .. }) => value.clone(),
        _ => return Ok(None),
    };
    let aggregate = fold_of(&function.name, &element)?;
    let mut accumulator = NativeAccumulator::new(&aggregate);
    for value in elements(function, arguments)? {
        accumulator.add(&aggregate, &[Some(value)])?;
    }
    accumulator.finish(&aggregate)
}
