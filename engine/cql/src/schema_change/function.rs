//! CREATE and DROP FUNCTION, and what functions and aggregates have alike.
//!
//! A body is taken as it is: whether it compiles is for the one who runs it to say, before the change is stored.
//!
//! When the definition of a user type changes, a function takes the new one, and keeps its signature otherwise. So the
//! types of a signature are always those of the keyspace, and two signatures are the same when their types are.

use super::event::{SchemaChangeKind, SchemaChangeTarget};
use super::type_use::{TypeMap, uses_type, with_definitions};
use super::types::{TypeScope, resolve_type};
use super::{Action, SchemaChange, keyspace, names};
use crate::CqlError;
use crate::access::{RequiredPermissions, Resource};
use crate::ast::{CreateFunction, DropFunction, Permission, RawType};
use ceto_model::schema::{FunctionDefinition, UserFunctions, shown_type};
use ceto_model::{CqlType, Keyspace, Schema};
use smallvec::smallvec;
use std::collections::BTreeSet;
use std::sync::Arc;
use uuid::Uuid;

/// Languages that bodies can be written in, as they are stored.
const LANGUAGES: [&str; 2] = ["lua", "wasm"];

/// What older releases of ScyllaDB call WebAssembly.
const OLD_WASM: &str = "xwasm";

#[derive(Clone, Debug)]
pub(super) struct CreateFunctionChange {
    statement: CreateFunction,
}

/// DROP FUNCTION or DROP AGGREGATE.
#[derive(Clone, Debug)]
pub(super) struct DropFunctionChange {
    pub(super) statement: DropFunction,
}

pub(super) fn prepare_create(
    create: &CreateFunction,
    session_keyspace: Option<&str>,
) -> Result<SchemaChange, CqlError> {
    check_replacement(create.or_replace, create.if_not_exists)?;
    check_language(&create.language)?;
    let distinct: BTreeSet<_> = create.arguments.iter().map(|argument| &argument.name).collect();
    if distinct.len() != create.arguments.len() {
        let names: Vec<&str> = create.arguments.iter().map(|argument| &*argument.name).collect();
        return Err(CqlError::invalid(format!(
            "Duplicate argument names for given function {} with argument names [{}]",
            create.name.name,
            names.join(", ")
        )));
    }
    for argument in &create.arguments {
        check_not_frozen("Argument", &argument.raw_type)?;
    }
    check_not_frozen("Return type", &create.return_type)?;
    Ok(SchemaChange {
        keyspace: names::keyspace_of(&create.name, session_keyspace)?,
        action: Action::CreateFunction(Arc::new(CreateFunctionChange {
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
        action: Action::DropFunction(Arc::new(DropFunctionChange {
            statement: drop.clone(),
        })),
    })
}

/// Refuses two contradicting clauses.
pub(super) fn check_replacement(or_replace: bool, if_not_exists: bool) -> Result<(), CqlError> {
    match or_replace && if_not_exists {
        true => Err(CqlError::invalid(
            "Cannot use both 'OR REPLACE' and 'IF NOT EXISTS' directives",
        )),
        false => Ok(()),
    }
}

fn check_language(language: &str) -> Result<(), CqlError> {
    if LANGUAGES.contains(&language_stored(language)) {
        return Ok(());
    }
    Err(CqlError::invalid(match language {
        "java" | "javascript" => format!(
            "User-defined functions in {language} are not supported, for there is no Java virtual machine here: write \
             the body in Lua (LANGUAGE lua) or WebAssembly (LANGUAGE wasm)"
        ),
        _ => format!(
            "Unknown language '{language}' of a user-defined function: write the body in Lua (LANGUAGE lua) or \
             WebAssembly (LANGUAGE wasm)"
        ),
    }))
}

fn language_stored(language: &str) -> &str {
    match language {
        OLD_WASM => "wasm",
        other => other,
    }
}

/// Refuses `frozen`, which says nothing in a signature; a tuple may have it.
pub(super) fn check_not_frozen(what: &str, raw: &RawType) -> Result<(), CqlError> {
    match raw {
        RawType::Frozen(inner) if !matches!(**inner, RawType::Tuple(_)) => Err(CqlError::invalid(format!(
            "{what} '{raw}' cannot be frozen; remove frozen<> modifier from '{raw}'"
        ))),
        _ => Ok(()),
    }
}

/// The type of an argument, a result or a state.
pub(super) fn resolve(keyspace: &Keyspace, raw: &RawType) -> Result<CqlType, CqlError> {
    let scope = TypeScope {
        keyspace: &keyspace.name,
        types: &keyspace.types,
    };
    Ok(resolve_type(raw, scope)?.freeze())
}

/// A keyspace that a signature can be in.
pub(super) fn existing_keyspace<'s>(schema: &'s Schema, name: &str) -> Result<&'s Arc<Keyspace>, CqlError> {
    keyspace::existing(schema, name)
}

/// Types as they are announced.
pub(super) fn shown_types(types: &[CqlType]) -> Vec<String> {
    types.iter().map(shown_type).collect()
}

/// The signature's use of a user type, in arguments or result.
pub(super) fn uses(function: &FunctionDefinition, user_type: &str) -> bool {
    let mut types = function.argument_types.iter().chain([&function.return_type]);
    types.any(|cql_type| uses_type(cql_type, user_type))
}

/// The same function, its user types as `types` defines them.
pub(super) fn with_types(function: &FunctionDefinition, types: &TypeMap) -> FunctionDefinition {
    let mut changed = function.clone();
    for cql_type in changed
        .argument_types
        .iter_mut()
        .chain([&mut changed.return_type])
    {
        *cql_type = with_definitions(cql_type, types);
    }
    changed
}

impl CreateFunctionChange {
    fn argument_types(&self, keyspace: &Keyspace) -> Result<Vec<CqlType>, CqlError> {
        let arguments = self.statement.arguments.iter();
        arguments
            .map(|argument| resolve(keyspace, &argument.raw_type))
            .collect()
    }

    /// The function that is there already.
    fn existing<'s>(&self, schema: &'s Schema, keyspace: &str) -> Option<&'s Arc<FunctionDefinition>> {
        let keyspace = schema.keyspace(keyspace)?;
        let types = self.argument_types(keyspace).ok()?;
        keyspace.functions.function(&self.statement.name.name, &types)
    }

    pub(super) fn event(&self, before: &Schema, keyspace: &str) -> (SchemaChangeKind, SchemaChangeTarget) {
        let kind = match self.existing(before, keyspace) {
            Some(_) => SchemaChangeKind::Updated,
            None => SchemaChangeKind::Created,
        };
        let types = before
            .keyspace(keyspace)
            .and_then(|found| self.argument_types(found).ok());
        let target = SchemaChangeTarget::Function {
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
        Ok(match existing {
            Some(function) => {
                let resource = Resource::function(keyspace, &function.name, &function.argument_types);
                smallvec![(Permission::Alter, resource)]
            }
            None => smallvec![(Permission::Create, Resource::KeyspaceFunctions(keyspace.clone()))],
        })
    }

    pub(super) fn created(&self, before: &Schema, keyspace: &Arc<str>) -> Vec<Resource> {
        let found = before.keyspace(keyspace);
        let types = found.and_then(|found| self.argument_types(found).ok());
        match (self.existing(before, keyspace), types) {
            (None, Some(types)) => vec![Resource::function(keyspace, &self.statement.name.name, &types)],
            _ => Vec::new(),
        }
    }
}

pub(super) fn create(
    schema: &Schema,
    keyspace_name: &str,
    create: &CreateFunctionChange,
) -> Result<Option<Schema>, CqlError> {
    let statement = &create.statement;
    let keyspace = existing_keyspace(schema, keyspace_name)?;
    let name = &statement.name.name;
    let function = FunctionDefinition {
        keyspace: keyspace.name.clone(),
        name: name.clone(),
        argument_names: statement
            .arguments
            .iter()
            .map(|argument| argument.name.clone())
            .collect(),
        argument_types: create.argument_types(keyspace)?,
        return_type: resolve(keyspace, &statement.return_type)?,
        called_on_null: statement.called_on_null_input,
        language: language_stored(&statement.language).into(),
        body: (*statement.body).into(),
    };
    let functions = &keyspace.functions;
    if functions.aggregate(name, &function.argument_types).is_some() {
        return Err(CqlError::invalid(format!(
            "Function '{name}' cannot replace an aggregate"
        )));
    }
    if let Some(existing) = functions.function(name, &function.argument_types) {
        if statement.if_not_exists {
            return Ok(None);
        }
        if !statement.or_replace {
            return Err(CqlError::invalid(format!("Function '{name}' already exists")));
        }
        if existing.called_on_null != function.called_on_null {
            let wanted = match existing.called_on_null {
                true => "CALLED ON NULL INPUT",
                false => "RETURNS NULL ON NULL INPUT",
            };
            return Err(CqlError::invalid(format!(
                "Function '{name}' must have {wanted} directive"
            )));
        }
        if existing.return_type != function.return_type {
            return Err(CqlError::invalid(format!(
                "Cannot replace function '{name}', the new return type {} is not compatible with the return type {} of \
                 existing function",
                shown_type(&function.return_type),
                shown_type(&existing.return_type)
            )));
        }
    }
    let mut keyspace = Keyspace::clone(keyspace);
    keyspace.functions.put_function(function);
    Ok(Some(schema.with_keyspace(keyspace, Uuid::nil())))
}

/// What a DROP means.
pub(super) enum Dropped {
    /// The argument types of what is dropped.
    Types(Vec<CqlType>),
    /// There is nothing of this name and these types.
    Nothing,
}

impl DropFunctionChange {
    /// `keyspace.name`, with types where they are written.
    pub(super) fn shown(&self, keyspace: &str) -> String {
        let name = format!("{keyspace}.{}", self.statement.name.name);
        match &self.statement.argument_types {
            None => name,
            Some(types) => {
                let types: Vec<String> = types.iter().map(RawType::to_string).collect();
                format!("{name}({})", types.join(", "))
            }
        }
    }

    /// The types that are written; None when there are none.
    fn written_types(&self, keyspace: &Keyspace) -> Result<Option<Vec<CqlType>>, CqlError> {
        let Some(raw_types) = &self.statement.argument_types else {
            return Ok(None);
        };
        let types = raw_types.iter().map(|raw| {
            check_not_frozen("Argument", raw)?;
            resolve(keyspace, raw)
        });
        types.collect::<Result<_, _>>().map(Some)
    }

    /// Which of the `candidates` is meant; `statement` is DROP FUNCTION or DROP AGGREGATE.
    pub(super) fn choose(
        &self,
        keyspace: &Keyspace,
        statement: &str,
        mut candidates: impl Iterator<Item = Vec<CqlType>>,
    ) -> Result<Dropped, CqlError> {
        let name = &self.statement.name.name;
        let functions = &keyspace.functions;
        let all = functions.functions_named(name).len() + functions.aggregates_named(name).len();
        let found = match self.written_types(keyspace)? {
            Some(types) => candidates.find(|candidate| *candidate == types),
            None if all > 1 => {
                let described = statement.replace("DROP", "DESCRIBE");
                return Err(CqlError::invalid(format!(
                    "'{statement} {name}' matches multiple function definitions; specify the argument types by issuing \
                     a statement like '{statement} {name} (type, type, ...)'. You can use cqlsh '{described} {name}' \
                     command to find all overloads"
                )));
            }
            None => candidates.next(),
        };
        Ok(found.map_or(Dropped::Nothing, Dropped::Types))
    }

    pub(super) fn function(&self, before: &Schema, keyspace: &str) -> SchemaChangeTarget {
        SchemaChangeTarget::Function {
            name: self.statement.name.name.to_string(),
            argument_types: self.shown_dropped(before, keyspace, |functions, name| {
                let named = functions.functions_named(name).iter();
                named.map(|function| function.argument_types.clone()).collect()
            }),
        }
    }

    pub(super) fn aggregate(&self, before: &Schema, keyspace: &str) -> SchemaChangeTarget {
        SchemaChangeTarget::Aggregate {
            name: self.statement.name.name.to_string(),
            argument_types: self.shown_dropped(before, keyspace, |functions, name| {
                let named = functions.aggregates_named(name).iter();
                named.map(|aggregate| aggregate.argument_types.clone()).collect()
            }),
        }
    }

    fn shown_dropped(
        &self,
        before: &Schema,
        keyspace: &str,
        candidates: impl FnOnce(&UserFunctions, &str) -> Vec<Vec<CqlType>>,
    ) -> Vec<String> {
        let Some(keyspace) = before.keyspace(keyspace) else {
            return Vec::new();
        };
        let candidates = candidates(&keyspace.functions, &self.statement.name.name);
        match self.choose(keyspace, "DROP", candidates.into_iter()) {
            Ok(Dropped::Types(types)) => shown_types(&types),
            Ok(Dropped::Nothing) | Err(_) => Vec::new(),
        }
    }

    /// DROP on what is dropped, when that is clear.
    pub(super) fn required_permissions(
        &self,
        schema: &Schema,
        keyspace: &Arc<str>,
    ) -> Result<RequiredPermissions, CqlError> {
        let Some(found) = schema.keyspace(keyspace) else {
            return Ok(smallvec![]);
        };
        let name = &self.statement.name.name;
        let functions = found.functions.functions_named(name).iter();
        let functions = functions.map(|function| function.argument_types.clone());
        let aggregates = found.functions.aggregates_named(name).iter();
        let aggregates = aggregates.map(|aggregate| aggregate.argument_types.clone());
        Ok(
            match self.choose(found, "DROP FUNCTION", functions.chain(aggregates))? {
                Dropped::Types(types) => {
                    smallvec![(Permission::Drop, Resource::function(keyspace, name, &types))]
                }
                Dropped::Nothing => smallvec![],
            },
        )
    }
}

pub(super) fn drop(
    schema: &Schema,
    keyspace_name: &str,
    drop: &DropFunctionChange,
) -> Result<Option<Schema>, CqlError> {
    let shown = drop.shown(keyspace_name);
    let name = &drop.statement.name.name;
    let missing = || match drop.statement.if_exists {
        true => Ok(None),
        false => Err(CqlError::invalid(format!("Function '{shown}' doesn't exist"))),
    };
    let Some(keyspace) = schema.keyspace(keyspace_name) else {
        return missing();
    };
    let candidates = keyspace.functions.functions_named(name).iter();
    let candidates = candidates.map(|function| function.argument_types.clone());
    let Dropped::Types(types) = drop.choose(keyspace, "DROP FUNCTION", candidates)? else {
        return missing();
    };
    let aggregates = keyspace.functions.aggregates().filter(|aggregate| {
        let is_state = aggregate.state_function == *name && aggregate.state_function_types() == types;
        let is_final = aggregate.final_function.as_ref() == Some(name)
            && types == std::slice::from_ref(&aggregate.state_type);
        is_state || is_final
    });
    let names: Vec<String> = aggregates
        .map(|aggregate| format!("{keyspace_name}.{}", aggregate.name))
        .collect();
    if !names.is_empty() {
        return Err(CqlError::invalid(format!(
            "Function '{shown}' is still referenced by aggregates {}",
            names.join(", ")
        )));
    }
    let mut keyspace = Keyspace::clone(keyspace);
    keyspace.functions.remove_function(name, &types);
    Ok(Some(schema.with_keyspace(keyspace, Uuid::nil())))
}
