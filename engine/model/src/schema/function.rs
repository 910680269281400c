//! User-defined functions and aggregates: what the schema knows of them.
//!
//! A definition is text and types. Never: anything compiled, or a language's rules; a body means something only to the crate
//! that runs it.
//!
//! Types of arguments, results and states are kept frozen, for a function is given values as a whole; they are written
//! without `frozen` ([`shown_type`]), as everywhere in Cassandra. A name can be that of several functions whose argument
//! types differ; functions and aggregates share their names.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::types::CqlType;

/// `CREATE FUNCTION`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FunctionDefinition {
    /// Keyspace it belongs to.
    pub keyspace: Arc<str>,
    /// Name as stored (not quoted).
    pub name: Arc<str>,
    /// Names of the arguments, which differ from each other.
    pub argument_names: Vec<Arc<str>>,
    /// One type for each name.
    pub argument_types: Vec<CqlType>,
    /// Type of the result.
    pub return_type: CqlType,
    /// CALLED ON NULL INPUT: runs also when an argument is null; else the result is null then.
    pub called_on_null: bool,
    /// LANGUAGE, lower case.
    pub language: Arc<str>,
    /// Source text.
    pub body: Arc<str>,
}

/// `CREATE AGGREGATE`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AggregateDefinition {
    /// Keyspace it belongs to.
    pub keyspace: Arc<str>,
    /// Name as stored (not quoted).
    pub name: Arc<str>,
    /// Types of the arguments; none for an aggregate that only counts.
    pub argument_types: Vec<CqlType>,
    /// Type of the state.
    pub state_type: CqlType,
    /// Type of the result: of the final function, else of the state.
    pub return_type: CqlType,
    /// The function (state, arguments) -> state, in the same keyspace.
    pub state_function: Arc<str>,
    /// The function (state) -> result, in the same keyspace.
    pub final_function: Option<Arc<str>>,
    /// The state before the first row, in wire bytes; None is null.
    pub initial_condition: Option<Bytes>,
}

impl AggregateDefinition {
    /// Argument types of its state function.
    pub fn state_function_types(&self) -> Vec<CqlType> {
        let state = std::iter::once(&self.state_type);
        state.chain(&self.argument_types).cloned().collect()
    }
}

/// Functions and aggregates of one keyspace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UserFunctions {
    /// By name, the overloads in order of creation. No list is empty.
    functions: BTreeMap<Arc<str>, Vec<Arc<FunctionDefinition>>>,
    /// By name, the overloads in order of creation. No list is empty.
    aggregates: BTreeMap<Arc<str>, Vec<Arc<AggregateDefinition>>>,
}

impl UserFunctions {
    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.aggregates.is_empty()
    }

    /// All functions by name.
    pub fn functions(&self) -> impl Iterator<Item = &Arc<FunctionDefinition>> {
        self.functions.values().flatten()
    }

    /// All aggregates by name.
    pub fn aggregates(&self) -> impl Iterator<Item = &Arc<AggregateDefinition>> {
        self.aggregates.values().flatten()
    }

    /// The functions of a name.
    pub fn functions_named(&self, name: &str) -> &[Arc<FunctionDefinition>] {
        self.functions.get(name).map_or(&[], Vec::as_slice)
    }

    /// The aggregates of a name.
    pub fn aggregates_named(&self, name: &str) -> &[Arc<AggregateDefinition>] {
        self.aggregates.get(name).map_or(&[], Vec::as_slice)
    }

    /// A function by its signature; types as [`FunctionDefinition::argument_types`] has them.
    pub fn function(&self, name: &str, types: &[CqlType]) -> Option<&Arc<FunctionDefinition>> {
        let mut overloads = self.functions_named(name).iter();
        overloads.find(|function| function.argument_types == types)
    }

    /// An aggregate by its signature.
    pub fn aggregate(&self, name: &str, types: &[CqlType]) -> Option<&Arc<AggregateDefinition>> {
        let mut overloads = self.aggregates_named(name).iter();
        overloads.find(|aggregate| aggregate.argument_types == types)
    }

    /// Adds a function, or replaces the one of the same signature.
    pub fn put_function(&mut self, function: FunctionDefinition) {
        let overloads = self.functions.entry(function.name.clone()).or_default();
        let same = |old: &&mut Arc<FunctionDefinition>| old.argument_types == function.argument_types;
        match overloads.iter_mut().find(same) {
            Some(old) => *old = Arc::new(function),
            None => overloads.push(Arc::new(function)),
        }
    }

    /// Adds an aggregate, or replaces the one of the same signature.
    pub fn put_aggregate(&mut self, aggregate: AggregateDefinition) {
        let overloads = self.aggregates.entry(aggregate.name.clone()).or_default();
        let same = |old: &&mut Arc<AggregateDefinition>| old.argument_types == aggregate.argument_types;
        match overloads.iter_mut().find(same) {
            Some(old) => *old = Arc::new(aggregate),
            None => overloads.push(Arc::new(aggregate)),
        }
    }

    /// Removes a function.
    pub fn remove_function(&mut self, name: &str, types: &[CqlType]) {
        if let Some(overloads) = self.functions.get_mut(name) {
            overloads.retain(|function| function.argument_types != types);
            if overloads.is_empty() {
                self.functions.remove(name);
            }
        }
    }

    /// Removes an aggregate.
    pub fn remove_aggregate(&mut self, name: &str, types: &[CqlType]) {
        if let Some(overloads) = self.aggregates.get_mut(name) {
            overloads.retain(|aggregate| aggregate.argument_types != types);
            if overloads.is_empty() {
                self.aggregates.remove(name);
            }
        }
    }
}

/// How a type is written in a signature: without `frozen` around it; a tuple has none of its own.
pub fn shown_type(cql_type: &CqlType) -> String {
    let text = cql_type.to_string();
    let inner = text
        .strip_prefix("frozen<")
        .and_then(|text| text.strip_suffix('>'));
    inner.map_or_else(|| text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_shown_without_the_outer_frozen() {
        let list = |element: CqlType, frozen| CqlType::List {
            element: Arc::new(element),
            frozen,
        };
        let nested = list(list(CqlType::Int, true), true);
        assert_eq!(shown_type(&nested), "list<frozen<list<int>>>");
        assert_eq!(
            shown_type(&CqlType::Tuple(Arc::new([CqlType::Int]))),
            "tuple<int>"
        );
        assert_eq!(shown_type(&CqlType::Text), "text");
    }

    #[test]
    fn overloads_are_told_apart_by_their_types() {
        let function = |types: &[CqlType], body: &str| FunctionDefinition {
            keyspace: "k".into(),
            name: "f".into(),
            argument_names: (0..types.len()).map(|i| format!("a{i}").into()).collect(),
            argument_types: types.to_vec(),
            return_type: CqlType::Int,
            called_on_null: false,
            language: "lua".into(),
            body: body.into(),
        };
        let mut functions = UserFunctions::default();
        functions.put_function(function(&[CqlType::Int], "a"));
        functions.put_function(function(&[CqlType::Text], "b"));
        functions.put_function(function(&[CqlType::Int], "c"));
        let bodies: Vec<&str> = functions.functions().map(|function| &*function.body).collect();
        assert_eq!(bodies, ["c", "b"]);
        functions.remove_function("f", &[CqlType::Int]);
        assert!(functions.function("f", &[CqlType::Int]).is_none());
        functions.remove_function("f", &[CqlType::Text]);
        assert!(functions.is_empty());
    }
}
