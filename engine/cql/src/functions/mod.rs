//! Functions: which there are, native and user-defined, and which one a call means.
//!
//! A function is a value made for one call: where Cassandra has one overload per type, a module here makes the overloads
//! that fit the name and the arguments. The bodies live beside: `time`, `blob`, `math`, `collection`, `vector`,
//! `json`, `mask`; aggregates in `aggregate`.
//!
//! User-defined functions come from the schema and stand beside the native ones as candidates (`user`).
//!
//! Never: a function that reads a clock or draws random numbers by itself; both come from the `PlanContext`, and so does
//! whoever runs the bodies of user-defined functions.

mod aggregate;
mod blob;
pub(crate) mod calendar;
mod collection;
pub(crate) mod json;
mod mask;
mod math;
mod time;
mod user;
mod vector;

pub(crate) use user::{Accumulator, AggregateFunction};

use crate::CqlError;
use crate::ast::QualifiedName;
use crate::expression::{Assignment, Partial};
use crate::plan::PlanContext;
use bytes::Bytes;
use ceto_model::schema::{AggregateDefinition, FunctionDefinition, UserFunctions};
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
    implementation: Implementation,
}

/// What a function is made of.
#[derive(Clone)]
enum Implementation {
    Native(Body),
    User(Arc<FunctionDefinition>),
    /// Only a candidate for a call; it becomes an [`AggregateFunction`] when it is chosen.
    UserAggregate(Arc<AggregateDefinition>),
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
            implementation: Implementation::Native(body),
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
        match &self.implementation {
            Implementation::Native(body) => body(self, arguments, context),
            Implementation::User(definition) => user::call(self, definition, arguments, context),
            Implementation::UserAggregate(_) => Err(self.failure("it is an aggregate")),
        }
    }

    /// Of a user-defined function.
    pub(crate) fn definition(&self) -> Option<&Arc<FunctionDefinition>> {
        match &self.implementation {
            Implementation::User(definition) => Some(definition),
            Implementation::Native(_) | Implementation::UserAggregate(_) => None,
        }
    }

    /// The keyspace that it is in.
    pub(crate) fn keyspace(&self) -> &str {
        match &self.implementation {
            Implementation::Native(_) => "system",
            Implementation::User(definition) => &definition.keyspace,
            Implementation::UserAggregate(definition) => &definition.keyspace,
        }
    }

    fn full_name(&self) -> String {
        format!("{}.{}", self.keyspace(), self.name)
    }

    /// Of rows in the order of its arguments, those with the same result lie together.
    pub(crate) fn is_monotonic(&self) -> bool {
        const MONOTONIC: [&str; 7] = [
            "floor",
            "to_date",
            "to_timestamp",
            "to_unix_timestamp",
            "todate",
            "totimestamp",
            "tounixtimestamp",
        ];
        matches!(self.implementation, Implementation::Native(_)) && MONOTONIC.contains(&&*self.name)
    }

    /// `system.floor : (timestamp, duration) -> timestamp`
    pub(crate) fn signature(&self) -> String {
        let types: Vec<_> = self.argument_types.iter().map(|t| self.shown(t)).collect();
        format!(
            "{} : ({}) -> {}",
            self.full_name(),
            types.join(", "),
            self.shown(&self.return_type)
        )
    }

    /// A type of its signature.
    fn shown(&self, cql_type: &CqlType) -> String {
        match self.implementation {
            Implementation::Native(_) => cql_type.to_string(),
            _ => ceto_model::schema::shown_type(cql_type),
        }
    }

    /// Something went wrong while it ran.
    fn failure(&self, message: impl Into<String>) -> CqlError {
        CqlError::FunctionFailure {
            keyspace: self.keyspace().to_owned(),
            name: self.name.clone(),
            argument_types: self.argument_types.iter().map(|t| self.shown(t)).collect(),
            message: message.into(),
        }
    }
}

/// What a call calls.
pub(crate) enum Callee {
    Scalar(Arc<ScalarFunction>),
    Aggregate(AggregateFunction),
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
/// statement's, for `token`; `user`: the functions of the keyspace that is written, else of the statement's.
pub(crate) fn resolve(
    name: &QualifiedName,
    arguments: &[Partial<'_>],
    natural: &[Option<CqlType>],
    table: Option<&Table>,
    user: Option<&UserFunctions>,
) -> Result<Callee, CqlError> {
    let mut candidates = Vec::new();
    let users = user.map_or_else(Vec::new, |user| user::candidates(user, &name.name));
    if is_native(name) {
        match aggregate::find(&name.name, natural) {
            Ok(Some(aggregate)) => return Ok(Callee::Aggregate(AggregateFunction::Native(aggregate))),
            Err(error) if users.is_empty() => return Err(error),
            Ok(None) | Err(_) => {}
        }
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
    }
    candidates.extend(users);
    let chosen = choose(name, arguments, natural, candidates)?;
    match &chosen.implementation {
        Implementation::UserAggregate(definition) => {
            let aggregate = user::aggregate(definition, user)?;
            Ok(Callee::Aggregate(AggregateFunction::User(Arc::new(aggregate))))
        }
        _ => Ok(Callee::Scalar(Arc::new(chosen))),
    }
}

/// Is there any function of this name, whatever its arguments.
fn unknown(name: &QualifiedName) -> CqlError {
    let instead = match &*name.name {
        "dateof" => ": use toTimestamp",
        "unixtimestampof" => ": use toUnixTimestamp",
        "timeuuid" => ": use now or currentTimeUUID",
        "size" => ": use collection_count",
        "contains" => ": CONTAINS is an operator",
        _ => "",
    };
    CqlError::Invalid(format!("Unknown function '{name}'{instead}"))
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
        check_arguments(arguments, only)?;
        return Ok(candidates.remove(0));
    }
    let signatures = |candidates: &[ScalarFunction]| {
        let signatures: Vec<_> = candidates.iter().map(ScalarFunction::signature).collect();
        signatures.join(", ")
    };
    let known = signatures(&candidates);
    let fit =
        |function: &ScalarFunction| {
            if function.argument_types.len() != arguments.len() {
                return Assignment::Impossible;
            }
            let fits = arguments.iter().zip(&function.argument_types).zip(natural).map(
                |((argument, t), natural)| match argument.assignment(t) {
                    Assignment::Weak if argument.is_typed() && is_same_value_type(natural.as_ref(), t) => {
                        Assignment::Exact
                    }
                    assignment => assignment,
                },
            );
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
        pairs.all(|(natural, t)| natural.is_none() || is_same_value_type(natural.as_ref(), t))
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

/// The values of the two types are the same, whether frozen or not.
fn is_same_value_type(one: Option<&CqlType>, other: &CqlType) -> bool {
    one.is_some_and(|one| one == other || one.freeze() == other.freeze())
}

fn check_arguments(arguments: &[Partial<'_>], function: &ScalarFunction) -> Result<(), CqlError> {
    if arguments.len() != function.argument_types.len() {
        return Err(CqlError::Invalid(format!(
            "Invalid number of arguments in call to function {}: {} required but {} provided",
            function.full_name(),
            function.argument_types.len(),
            arguments.len()
        )));
    }
    for (index, (argument, wanted)) in arguments.iter().zip(&function.argument_types).enumerate() {
        if argument.assignment(wanted) == Assignment::Impossible {
            return Err(CqlError::Invalid(format!(
                "Type error: {} cannot be passed as argument {index} of function {} of type {wanted}",
                argument.raw.text(),
                function.full_name()
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
