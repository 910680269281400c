//! CREATE and DROP AGGREGATE.
//!
//! An aggregate names its functions, which are in its keyspace and cannot be dropped as long as it is there; one that is
//! replaced keeps its signature, so the aggregate follows.

use super::event::{SchemaChangeKind, SchemaChangeTarget};
use super::function::{
    DropFunctionChange, Dropped, check_not_frozen, check_replacement, existing_keyspace, resolve, shown_types,
};
use super::type_use::{TypeMap, uses_type, with_definitions};
use super::{Action, SchemaChange, names};
use crate::access::{RequiredPermissions, Resource};
use crate::ast::{CreateAggregate, DropFunction, Permission, RawType, Term};
use crate::bound::BindVariables;
use crate::expression::{Evaluation, prepare_term};
use crate::plan::{PlanContext, RandomSource};
use crate::prepare::{Preparation, UsedFunctions};
use crate::{ColumnSpecification, CqlError};
use bytes::Bytes;
use ceto_model::schema::{AggregateDefinition, shown_type};
use ceto_model::{CqlType, Keyspace, Schema};
use smallvec::smallvec;
use std::sync::Arc;
use uuid::Uuid;

#[derive(Clone, Debug)]
pub(super) struct CreateAggregateChange {
    statement: CreateAggregate,
}

pub(super) fn prepare_create(
    create: &CreateAggregate,
    session_keyspace: Option<&str>,
) -> Result<SchemaChange, CqlError> {
    check_replacement(create.or_replace, create.if_not_exists)?;
    for raw in &create.argument_types {
        check_not_frozen("Argument", raw)?;
    }
    check_not_frozen("State type", &create.state_type)?;
    Ok(SchemaChange {
        keyspace: names::keyspace_of(&create.name, session_keyspace)?,
        action: Action::CreateAggregate(Arc::new(CreateAggregateChange {
            statement: create.clone(),
        })),
    })
}

pub(super) fn prepare_drop(
    drop: &DropFunction,
    session_keyspace: Option<&str>,
) -> Result<SchemaChange, CqlError> {
    Ok(SchemaChange {
        keyspace: names::keyspace_of(&drop.name, session_keyspace)?,
        action: Action::DropAggregate(Arc::new(DropFunctionChange {
            statement: drop.clone(),
        })),
    })
}

/// The signature's use of a user type, in arguments, state or result.
pub(super) fn uses(aggregate: &AggregateDefinition, user_type: &str) -> bool {
    let own = [&aggregate.state_type, &aggregate.return_type];
    let mut types = aggregate.argument_types.iter().chain(own);
    types.any(|cql_type| uses_type(cql_type, user_type))
}

/// The same aggregate, its user types as `types` defines them.
pub(super) fn with_types(aggregate: &AggregateDefinition, types: &TypeMap) -> AggregateDefinition {
    let mut changed = aggregate.clone();
    let own = [&mut changed.state_type, &mut changed.return_type];
    for cql_type in changed.argument_types.iter_mut().chain(own) {
        *cql_type = with_definitions(cql_type, types);
    }
    changed
}

impl CreateAggregateChange {
    fn argument_types(&self, keyspace: &Keyspace) -> Result<Vec<CqlType>, CqlError> {
        let raw_types = self.statement.argument_types.iter();
        raw_types.map(|raw| resolve(keyspace, raw)).collect()
    }

    /// The aggregate that is there already.
    fn existing<'s>(&self, schema: &'s Schema, keyspace: &str) -> Option<&'s Arc<AggregateDefinition>> {
        let keyspace = schema.keyspace(keyspace)?;
        let types = self.argument_types(keyspace).ok()?;
        keyspace.functions.aggregate(&self.statement.name.name, &types)
    }

    pub(super) fn event(&self, before: &Schema, keyspace: &str) -> (SchemaChangeKind, SchemaChangeTarget) {
        let kind = match self.existing(before, keyspace) {
            Some(_) => SchemaChangeKind::Updated,
            None => SchemaChangeKind::Created,
        };
        let types = before
            .keyspace(keyspace)
            .and_then(|found| self.argument_types(found).ok());
        let target = SchemaChangeTarget::Aggregate {
            name: self.statement.name.name.to_string(),
            argument_types: shown_types(&types.unwrap_or_default()),
        };
        (kind, target)
    }

    pub(super) fn required_permissions(
        &self,
        schema: &Schema,
        keyspace: &Arc<str>,
    ) -> Result<RequiredPermissions, CqlError> {
        let existing = self
            .existing(schema, keyspace)
            .filter(|_| self.statement.or_replace);
        let mut required: RequiredPermissions = match existing {
            Some(aggregate) => {
                let resource = Resource::function(keyspace, &aggregate.name, &aggregate.argument_types);
                smallvec![(Permission::Alter, resource)]
            }
            None => smallvec![(Permission::Create, Resource::KeyspaceFunctions(keyspace.clone()))],
        };
        let Some(found) = schema.keyspace(keyspace) else {
            return Ok(required);
        };
        let state = resolve(found, &self.statement.state_type)?;
        let mut types = vec![state.clone()];
        types.extend(self.argument_types(found)?);
        let execute =
            |name: &str, types: &[CqlType]| (Permission::Execute, Resource::function(keyspace, name, types));
        required.push(execute(&self.statement.state_function, &types));
        if let Some(name) = &self.statement.final_function {
            required.push(execute(name, &[state]));
        }
        Ok(required)
    }

    pub(super) fn created(&self, before: &Schema, keyspace: &Arc<str>) -> Vec<Resource> {
        let found = before.keyspace(keyspace);
        let types = found.and_then(|found| self.argument_types(found).ok());
        match (self.existing(before, keyspace), types) {
            (None, Some(types)) => vec![Resource::function(keyspace, &self.statement.name.name, &types)],
            _ => Vec::new(),
        }
    }

    /// The aggregate, as far as nothing stands against it beside another aggregate.
    fn definition(&self, schema: &Schema, keyspace: &Keyspace) -> Result<AggregateDefinition, CqlError> {
        let statement = &self.statement;
        let argument_types = self.argument_types(keyspace)?;
        let state_type = resolve(keyspace, &statement.state_type)?;
        let mut aggregate = AggregateDefinition {
            keyspace: keyspace.name.clone(),
            name: statement.name.name.clone(),
            argument_types,
            return_type: state_type.clone(),
            state_type,
            state_function: statement.state_function.clone(),
            final_function: statement.final_function.clone(),
            initial_condition: None,
        };
        let functions = &keyspace.functions;
        let shown = |name: &str, types: Vec<&RawType>| {
            let types: Vec<String> = types.into_iter().map(RawType::to_string).collect();
            format!("{}.{name}({})", keyspace.name, types.join(", "))
        };
        let mut raw_types = vec![&statement.state_type];
        raw_types.extend(&statement.argument_types);
        let state_shown = shown(&aggregate.state_function, raw_types);
        let types = aggregate.state_function_types();
        if functions.aggregate(&aggregate.state_function, &types).is_some() {
            return Err(CqlError::invalid(format!(
                "State function {state_shown} isn't a scalar function"
            )));
        }
        let state_function = functions.function(&aggregate.state_function, &types);
        let state_function = state_function
            .ok_or_else(|| CqlError::invalid(format!("State function {state_shown} doesn't exist")))?;
        if state_function.return_type != aggregate.state_type {
            return Err(CqlError::invalid(format!(
                "State function {state_shown} return type must be the same as the first argument type - check STYPE, \
                 argument and return types"
            )));
        }
        if let Some(name) = &aggregate.final_function {
            let shown = shown(name, vec![&statement.state_type]);
            let types = std::slice::from_ref(&aggregate.state_type);
            if functions.aggregate(name, types).is_some() {
                return Err(CqlError::invalid(format!(
                    "Final function {shown} isn't a scalar function"
                )));
            }
            let found = functions.function(name, types);
            let found =
                found.ok_or_else(|| CqlError::invalid(format!("Final function {shown} doesn't exist")))?;
            aggregate.return_type = found.return_type.clone();
        }
        if let Some(term) = &statement.initial_condition {
            aggregate.initial_condition = evaluate(schema, &keyspace.name, term, &aggregate.state_type)?;
            let may_be_empty = matches!(
                aggregate.state_type,
                CqlType::Text | CqlType::Ascii | CqlType::Blob
            );
            if aggregate.initial_condition.as_ref().is_some_and(Bytes::is_empty) && !may_be_empty {
                return Err(CqlError::invalid(
                    "INITCOND must not be empty for all types except TEXT, ASCII, BLOB",
                ));
            }
        }
        if !state_function.called_on_null && aggregate.initial_condition.is_none() {
            return Err(CqlError::invalid(format!(
                "Cannot create aggregate '{}' without INITCOND because state function {}.{} does not accept 'null' \
                 arguments",
                aggregate.name, keyspace.name, aggregate.state_function
            )));
        }
        Ok(aggregate)
    }
}

/// An initial condition is the same for ever.
struct NoRandomness;

impl RandomSource for NoRandomness {
    fn next_u64(&self) -> u64 {
        0
    }
}

fn evaluate(
    schema: &Schema,
    keyspace: &str,
    term: &Term,
    state_type: &CqlType,
) -> Result<Option<Bytes>, CqlError> {
    let mut preparation = Preparation {
        schema,
        keyspace: Some(keyspace),
        variables: BindVariables::new(Vec::new()),
        table: None,
        used: UsedFunctions::default(),
    };
    let receiver = ColumnSpecification {
        keyspace: keyspace.into(),
        table: "--dummy--".into(),
        name: "(aggregate_initcond)".into(),
        cql_type: state_type.clone(),
    };
    let expression = prepare_term(&mut preparation, term, &receiver)?;
    let context = PlanContext::new(0, &NoRandomness);
    let value = expression.value(&Evaluation::new(&[], &context))?;
    if let Some(value) = &value {
        ceto_model::value::validate(state_type, value).map_err(|_| {
            CqlError::invalid(format!(
                "Invalid value for INITCOND of type {}",
                shown_type(state_type)
            ))
        })?;
    }
    Ok(value)
}

/// The initial condition that is stored as `text`; `schema` has the types of `keyspace`.
///
/// # Errors
/// When the text is no value of the type.
pub fn initial_condition(
    text: &str,
    schema: &Schema,
    keyspace: &str,
    state_type: &CqlType,
) -> Result<Option<Bytes>, CqlError> {
    evaluate(schema, keyspace, &crate::parse_term(text)?, state_type)
}

pub(super) fn create(
    schema: &Schema,
    keyspace_name: &str,
    create: &CreateAggregateChange,
) -> Result<Option<Schema>, CqlError> {
    let statement = &create.statement;
    let name = &statement.name.name;
    let keyspace = existing_keyspace(schema, keyspace_name)?;
    let aggregate = create.definition(schema, keyspace)?;
    let functions = &keyspace.functions;
    if functions.function(name, &aggregate.argument_types).is_some() {
        return Err(CqlError::invalid(format!(
            "Aggregate '{name}' cannot replace a function"
        )));
    }
    if let Some(existing) = functions.aggregate(name, &aggregate.argument_types) {
        if statement.if_not_exists {
            return Ok(None);
        }
        if !statement.or_replace {
            return Err(CqlError::invalid(format!("Aggregate '{name}' already exists")));
        }
        if existing.return_type != aggregate.return_type {
            return Err(CqlError::invalid(format!(
                "Cannot replace aggregate '{name}', the new return type {} isn't compatible with the return type {} of \
                 existing function",
                shown_type(&aggregate.return_type),
                shown_type(&existing.return_type)
            )));
        }
    }
    let mut keyspace = Keyspace::clone(keyspace);
    keyspace.functions.put_aggregate(aggregate);
    Ok(Some(schema.with_keyspace(keyspace, Uuid::nil())))
}

pub(super) fn drop(
    schema: &Schema,
    keyspace_name: &str,
    drop: &DropFunctionChange,
) -> Result<Option<Schema>, CqlError> {
    let name = &drop.statement.name.name;
    let missing = || match drop.statement.if_exists {
        true => Ok(None),
        false => Err(CqlError::invalid(format!(
            "Aggregate '{}' doesn't exist",
            drop.shown(keyspace_name)
        ))),
    };
    let Some(keyspace) = schema.keyspace(keyspace_name) else {
        return missing();
    };
    let candidates = keyspace.functions.aggregates_named(name).iter();
    let candidates = candidates.map(|aggregate| aggregate.argument_types.clone());
    let Dropped::Types(types) = drop.choose(keyspace, "DROP AGGREGATE", candidates)? else {
        return missing();
    };
    let mut keyspace = Keyspace::clone(keyspace);
    keyspace.functions.remove_aggregate(name, &types);
    Ok(Some(schema.with_keyspace(keyspace, Uuid::nil())))
}
