//! User-defined functions and aggregates, as calls see them.
//!
//! Who runs a body is not known here: a call gives the definition and wire bytes to the [`FunctionRunner`] of the
//! context.
//!
//! An aggregate is a fold: its state function is called for each row with the state and the row's arguments, and its
//! final function once with the last state. A state function that returns null on null input is not called when the
//! state or an argument is null, and then the state stays as it is.
//!
//! [`FunctionRunner`]: crate::plan::FunctionRunner

use super::aggregate::{NativeAccumulator, NativeAggregate};
use super::{Implementation, ScalarFunction};
use crate::CqlError;
use crate::plan::PlanContext;
use bytes::Bytes;
use ceto_model::CqlType;
use ceto_model::schema::{AggregateDefinition, FunctionDefinition, UserFunctions};
use std::sync::Arc;

/// All functions and aggregates of this name.
pub(super) fn candidates(user: &UserFunctions, name: &str) -> Vec<ScalarFunction> {
    let functions = user.functions_named(name).iter().map(scalar);
    let aggregates = user
        .aggregates_named(name)
        .iter()
        .map(|definition| ScalarFunction {
            name: definition.name.to_string(),
            argument_types: definition.argument_types.clone(),
            return_type: definition.return_type.clone(),
            called_on_null: true,
            implementation: Implementation::UserAggregate(definition.clone()),
        });
    functions.chain(aggregates).collect()
}

fn scalar(definition: &Arc<FunctionDefinition>) -> ScalarFunction {
    ScalarFunction {
        name: definition.name.to_string(),
        argument_types: definition.argument_types.clone(),
        return_type: definition.return_type.clone(),
        called_on_null: definition.called_on_null,
        implementation: Implementation::User(definition.clone()),
    }
}

/// Runs the body.
pub(super) fn call(
    function: &ScalarFunction,
    definition: &Arc<FunctionDefinition>,
    arguments: &[Option<Bytes>],
    context: &PlanContext<'_>,
) -> Result<Option<Bytes>, CqlError> {
    let Some(runner) = context.functions else {
        return Err(function.failure("user-defined functions cannot be used here"));
    };
    let is_empty = |(value, cql_type): (&Option<Bytes>, &CqlType)| {
        let may_be_empty = matches!(cql_type, CqlType::Text | CqlType::Ascii | CqlType::Blob);
        value.as_ref().is_some_and(Bytes::is_empty) && !may_be_empty
    };
    let types = &function.argument_types;
    let result = match arguments.iter().zip(types).any(is_empty) {
        false => runner.run(definition, arguments),
        // A value of zero bytes is null to a body.
        true if !function.called_on_null => return Ok(None),
        true => {
            let each = arguments.iter().zip(types);
            let present =
                each.map(|(value, cql_type)| value.clone().filter(|_| !is_empty((value, cql_type))));
            runner.run(definition, &present.collect::<Vec<_>>())
        }
    };
    result.map_err(|message| function.failure(message))
}

/// A user-defined aggregate with the functions that it is made of.
#[derive(Debug)]
pub(crate) struct UserAggregate {
    pub(crate) definition: Arc<AggregateDefinition>,
    state_function: ScalarFunction,
    final_function: Option<ScalarFunction>,
}

impl UserAggregate {
    /// State function and final function.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &ScalarFunction> {
        std::iter::once(&self.state_function).chain(&self.final_function)
    }
}

/// Finds the functions of an aggregate. Schema changes keep them there as long as the aggregate is.
pub(super) fn aggregate(
    definition: &Arc<AggregateDefinition>,
    user: Option<&UserFunctions>,
) -> Result<UserAggregate, CqlError> {
    let find = |name: &str, types: &[CqlType]| {
        let found = user.and_then(|user| user.function(name, types));
        found.map(scalar).ok_or_else(|| {
            CqlError::Invalid(format!(
                "Aggregate {}.{} cannot be used: its function {name} is missing",
                definition.keyspace, definition.name
            ))
        })
    };
    let state_function = find(&definition.state_function, &definition.state_function_types())?;
    let state = std::slice::from_ref(&definition.state_type);
    let final_function = definition.final_function.as_deref();
    Ok(UserAggregate {
        definition: definition.clone(),
        state_function,
        final_function: final_function.map(|name| find(name, state)).transpose()?,
    })
}

/// Which aggregate.
#[derive(Clone, Debug)]
pub(crate) enum AggregateFunction {
    Native(NativeAggregate),
    User(Arc<UserAggregate>),
}

impl AggregateFunction {
    /// count(*)
    pub(crate) fn count_rows() -> Self {
        Self::Native(NativeAggregate::count_rows())
    }

    pub(crate) fn argument_types(&self) -> Vec<CqlType> {
        match self {
            Self::Native(native) => native.argument_types(),
            Self::User(user) => user.definition.argument_types.clone(),
        }
    }

    pub(crate) fn return_type(&self) -> CqlType {
        match self {
            Self::Native(native) => native.return_type(),
            Self::User(user) => user.definition.return_type.clone(),
        }
    }
}

/// The state of one aggregate over one group.
#[derive(Clone, Debug)]
pub(crate) enum Accumulator {
    Native(NativeAccumulator),
    /// The state in wire bytes; None is null.
    User(Option<Bytes>),
}

impl Accumulator {
    pub(crate) fn new(function: &AggregateFunction) -> Self {
        match function {
            AggregateFunction::Native(native) => Self::Native(NativeAccumulator::new(native)),
            AggregateFunction::User(user) => Self::User(user.definition.initial_condition.clone()),
        }
    }

    /// One more row.
    pub(crate) fn add(
        &mut self,
        function: &AggregateFunction,
        arguments: Vec<Option<Bytes>>,
        context: &PlanContext<'_>,
    ) -> Result<(), CqlError> {
        match (self, function) {
            (Self::Native(accumulator), AggregateFunction::Native(native)) => {
                accumulator.add(native, &arguments)
            }
            (Self::User(state), AggregateFunction::User(user)) => {
                let mut all = arguments;
                all.insert(0, state.clone());
                if user.state_function.called_on_null || all.iter().all(Option::is_some) {
                    *state = user.state_function.call(&all, context)?;
                }
                Ok(())
            }
            _ => unreachable!("an accumulator was made for its function"),
        }
    }

    /// The result.
    pub(crate) fn finish(
        &self,
        function: &AggregateFunction,
        context: &PlanContext<'_>,
    ) -> Result<Option<Bytes>, CqlError> {
        match (self, function) {
            (Self::Native(accumulator), AggregateFunction::Native(native)) => accumulator.finish(native),
            (Self::User(state), AggregateFunction::User(user)) => match &user.final_function {
                Some(final_function) => final_function.call(std::slice::from_ref(state), context),
                None => Ok(state.clone()),
            },
            _ => unreachable!("an accumulator was made for its function"),
        }
    }
}
