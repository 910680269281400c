//! The user-defined functions that a prepared statement calls: whether it still means the same after a schema change,
//! and what who runs it must be allowed to execute.

use crate::access::Resource;
use crate::functions::{AggregateFunction, Callee};
use ceto_model::Schema;
use ceto_model::schema::{AggregateDefinition, FunctionDefinition, UserFunctions};
use std::sync::Arc;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct UsedFunctions {
    functions: Vec<Arc<FunctionDefinition>>,
    aggregates: Vec<Arc<AggregateDefinition>>,
    /// Keyspace and name of each call, and how many functions and aggregates had that name.
    names: Vec<(Arc<str>, Arc<str>, usize)>,
    resources: Vec<Resource>,
}

fn overloads(functions: &UserFunctions, name: &str) -> usize {
    functions.functions_named(name).len() + functions.aggregates_named(name).len()
}

impl UsedFunctions {
    /// Takes note of a call, and says of which keyspace it is; None for a native function.
    pub(crate) fn note(&mut self, callee: &Callee, user: Option<&UserFunctions>) -> Option<Arc<str>> {
        let user = user?;
        let (keyspace, name) = match callee {
            Callee::Scalar(function) => {
                let definition = function.definition()?;
                self.add_function(definition);
                (definition.keyspace.clone(), definition.name.clone())
            }
            Callee::Aggregate(AggregateFunction::Native(_)) => return None,
            Callee::Aggregate(AggregateFunction::User(aggregate)) => {
                let definition = &aggregate.definition;
                let parts = aggregate.parts();
                parts
                    .filter_map(|part| part.definition())
                    .for_each(|part| self.add_function(part));
                self.resources.push(Resource::function(
                    &definition.keyspace,
                    &definition.name,
                    &definition.argument_types,
                ));
                self.aggregates.push(definition.clone());
                (definition.keyspace.clone(), definition.name.clone())
            }
        };
        let count = overloads(user, &name);
        self.names.push((keyspace.clone(), name, count));
        Some(keyspace)
    }

    fn add_function(&mut self, definition: &Arc<FunctionDefinition>) {
        self.resources.push(Resource::function(
            &definition.keyspace,
            &definition.name,
            &definition.argument_types,
        ));
        self.functions.push(definition.clone());
    }

    /// No user-defined function is called.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// What EXECUTE is needed on.
    pub(crate) fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// `schema` has the same functions and aggregates, and no others of their names.
    pub(crate) fn are_current(&self, schema: &Schema) -> bool {
        let of = |keyspace: &str| schema.keyspace(keyspace).map(|keyspace| &keyspace.functions);
        let same_function = |used: &Arc<FunctionDefinition>| {
            let now = of(&used.keyspace).and_then(|all| all.function(&used.name, &used.argument_types));
            now.is_some_and(|now| now == used)
        };
        let same_aggregate = |used: &Arc<AggregateDefinition>| {
            let now = of(&used.keyspace).and_then(|all| all.aggregate(&used.name, &used.argument_types));
            now.is_some_and(|now| now == used)
        };
        self.functions.iter().all(same_function)
            && self.aggregates.iter().all(same_aggregate)
            && self.names.iter().all(|(keyspace, name, count)| {
                of(keyspace).is_some_and(|functions| overloads(functions, name) == *count)
            })
    }
}
