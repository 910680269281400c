//! Native functions: which there are, and which one a call means.
//!
//! A function is a value made for one call: where Cassandra has one overload per type, a module here makes the overloads
//! that fit the name and the arguments. The bodies live beside: `time`, `blob`, `math`, `collection`, `vector`,
//! `json`, `mask`; aggregates in `aggregate`.
//!
//! Never: a function that reads a clock or draws random numbers by itself; both come from the `PlanContext`.

mod aggregate;
mod blob;
pub(crate) mod calendar;
mod collection;
pub(crate) mod json;
mod mask;
mod math;
mod time;
mod vector;

pub(crate) use aggregate::{Accumulator, AggregateFunction};

use crate::CqlError;
use crate::ast::QualifiedName;
use crate::expression::{Assignment, Partial};
use crate::plan::PlanContext;
use bytes::Bytes;
use ceto_model::value::Value;
use ceto_model::{CqlType, PartitionKey, Table, Token};
use std::fmt;
use std::sync::Arc;

/// What a function does with the wire bytes of its arguments.
pub(crate) type Body =
    fn(&ScalarFunction, &[Option<Bytes>], &PlanContext<'_>) -> Result<Option<Bytes>, CqlError>;

/// A function of values of one row.
#[derive(Clone)]
pub(crate) struct ScalarFunction {
    pub(crate) name: String,
    pub(crate) argument_types: Vec<CqlType>,
    pub(crate) return_type: CqlType,
    /// Runs also when an argument is null; else the result is null then.
    pub(crate) called_on_null: bool,
    body: Body,
}

impl fmt::Debug for ScalarFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.signature())
    }
}

impl ScalarFunction {
    fn new(name: &str, argument_types: Vec<CqlType>, return_type: CqlType, body: Body) -> Self {
        Self {
            name: name.to_owned(),
            argument_types,
            return_type,
            called_on_null: false,
            body,
        }
    }

    fn called_on_null(mut self) -> Self {
        self.called_on_null = true;
        self
    }

    /// Runs it.
    pub(crate) fn call(
        &self,
        arguments: &[Option<Bytes>],
        context: &PlanContext<'_>,
    ) -> Result<Option<Bytes>, CqlError> {
        if !self.called_on_null && arguments.iter().any(Option::is_none) {
            return Ok(None);
        }
        (self.body)(self, arguments, context)
    }

    fn signature(&self) -> String {
        let types: Vec<_> = self.argument_types.iter().map(CqlType::to_string).collect();
        format!(
            "system.{} : ({}) -> {}",
            self.name,
            types.join(", "),
            self.return_type
        )
    }

    /// Something went wrong while it ran.
    fn failure(&self, message: impl Into<String>) -> CqlError {
        CqlError::FunctionFailure {
            keyspace: "system".to_owned(),
            name: self.name.clone(),
            argument_types: self.argument_types.iter().map(CqlType::to_string).collect(),
            message: message.into(),
        }
    }
}

/// What a call calls.
pub(crate) enum Callee {
    Scalar(Arc<ScalarFunction>),
    Aggregate(AggregateFunction),
}

/// `keyspace.name`; native functions are in `system`.
pub(crate) fn full_name(name: &QualifiedName) -> String {
    format!("{}.{}", name.keyspace.as_deref().unwrap_or("system"), name.name)
}

/// The function whose result type is the receiver's.
pub(crate) fn is_from_json(name: &QualifiedName) -> bool {
    is_native(name) && matches!(&*name.name, "fromjson" | "from_json")
}

/// fromJson for a value of this type.
pub(crate) fn from_json(cql_type: &CqlType) -> ScalarFunction {
    json::from_json(cql_type)
}

fn is_native(name: &QualifiedName) -> bool {
    name.keyspace
        .as_deref()
        .is_none_or(|keyspace| keyspace == "system")
}

/// The function that a call means. `natural`: the types of the arguments, as far as they are known; `table` is the
/// statement's, for `token`.
pub(crate) fn resolve(
    name: &QualifiedName,
    arguments: &[Partial<'_>],
    natural: &[Option<CqlType>],
    table: Option<&Table>,
) -> Result<Callee, CqlError> {
    if !is_native(name) {
        return Err(unknown(name));
    }
    if let Some(aggregate) = aggregate::find(&name.name, natural)? {
        return Ok(Callee::Aggregate(aggregate));
    }
    let mut candidates = Vec::new();
    if &*name.name == "token" {
        candidates.extend(table.map(token));
    }
    time::candidates(&name.name, &mut candidates);
    blob::candidates(&name.name, &mut candidates);
    math::candidates(&name.name, &mut candidates);
    collection::candidates(&name.name, natural, &mut candidates)?;
    vector::candidates(&name.name, natural, &mut candidates);
    json::candidates(&name.name, natural, &mut candidates);
    mask::candidates(&name.name, natural, &mut candidates);
    choose(name, arguments, natural, candidates).map(|function| Callee::Scalar(Arc::new(function)))
}

/// Is there any function of this name, whatever its arguments.
fn unknown(name: &QualifiedName) -> CqlError {
    CqlError::Invalid(format!("Unknown function '{name}'"))
}

fn choose(
    name: &QualifiedName,
    arguments: &[Partial<'_>],
    natural: &[Option<CqlType>],
    mut candidates: Vec<ScalarFunction>,
) -> Result<ScalarFunction, CqlError> {
    if candidates.is_empty() {
        return Err(unknown(name));
    }
    if let [only] = candidates.as_slice() {
        check_arguments(name, arguments, only)?;
        return Ok(candidates.remove(0));
    }
    let signatures = |candidates: &[ScalarFunction]| {
        let signatures: Vec<_> = candidates.iter().map(ScalarFunction::signature).collect();
        signatures.join(", ")
    };
    let known = signatures(&candidates);
    let fit = |function: &ScalarFunction| {
        if function.argument_types.len() != arguments.len() {
            return Assignment::Impossible;
        }
        let fits = arguments
            .iter()
            .zip(&function.argument_types)
            .map(|(argument, t)| argument.assignment(t));
        fits.min().unwrap_or(Assignment::Exact)
    };
    candidates.retain(|function| fit(function) != Assignment::Impossible);
    if candidates.is_empty() {
        return Err(CqlError::Invalid(format!(
            "Invalid call to function {name}, none of its type signatures match (known type signatures: {known})"
        )));
    }
    if let Some(exact) = candidates
        .iter()
        .position(|function| fit(function) == Assignment::Exact)
    {
        return Ok(candidates.swap_remove(exact));
    }
    let by_nature = candidates.iter().position(|function| {
        let mut pairs = natural.iter().zip(&function.argument_types);
        pairs.all(|(natural, t)| natural.as_ref().is_none_or(|natural| natural == t))
    });
    match (candidates.len(), by_nature) {
        (1, _) => Ok(candidates.swap_remove(0)),
        (_, Some(index)) if natural.iter().any(Option::is_some) => Ok(candidates.swap_remove(index)),
        _ => Err(CqlError::Invalid(format!(
            "Ambiguous call to function {name} (can be matched by following signatures: {}): use type casts to \
             disambiguate",
            signatures(&candidates)
        ))),
    }
}

fn check_arguments(
    name: &QualifiedName,
    arguments: &[Partial<'_>],
    function: &ScalarFunction,
) -> Result<(), CqlError> {
    if arguments.len() != function.argument_types.len() {
        return Err(CqlError::Invalid(format!(
            "Invalid number of arguments in call to function {}: {} required but {} provided",
            full_name(name),
            function.argument_types.len(),
            arguments.len()
        )));
    }
    for (index, (argument, wanted)) in arguments.iter().zip(&function.argument_types).enumerate() {
        if argument.assignment(wanted) == Assignment::Impossible {
            return Err(CqlError::Invalid(format!(
                "Type error: {} cannot be passed as argument {index} of function {} of type {wanted}",
                argument.raw.text(),
                full_name(name)
            )));
        }
    }
    Ok(())
}

/// The token of a partition key of `table`.
fn token(table: &Table) -> ScalarFunction {
    let types = table.partition_key().iter().map(|column| column.cql_type.clone());
    ScalarFunction::new("token", types.collect(), CqlType::Bigint, |_, arguments, _| {
        let components: Vec<&Bytes> = arguments.iter().flatten().collect();
        let token = Token::of(&PartitionKey::from_components(&components).0);
        Ok(Some(Bytes::copy_from_slice(&token.0.to_be_bytes())))
    })
}

/// The only argument of a function that is not called on null.
fn first(arguments: &[Option<Bytes>]) -> Bytes {
    arguments.first().cloned().flatten().unwrap_or_default()
}

/// An argument, decoded; None when it is missing or has zero bytes.
fn decoded(
    function: &ScalarFunction,
    arguments: &[Option<Bytes>],
    index: usize,
) -> Result<Option<Value>, CqlError> {
    let (Some(Some(bytes)), Some(cql_type)) = (arguments.get(index), function.argument_types.get(index))
    else {
        return Ok(None);
    };
    match Value::decode(cql_type, bytes).map_err(crate::expression::of_value)? {
        Value::Empty => Ok(None),
        value => Ok(Some(value)),
    }
}

/// A result.
fn encoded(function: &ScalarFunction, value: Value) -> Result<Option<Bytes>, CqlError> {
    let wire = value
        .to_wire(&function.return_type)
        .map_err(crate::expression::of_value)?;
    Ok(Some(wire.into()))
}
