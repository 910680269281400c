//! Which user-defined types a type uses, and types with some of them replaced.
//!
//! Definitions are shared, and each may use others several times, so a walk that enters a definition at every place of
//! use can take exponential time. Nothing here does: definitions are entered once, and types refer to them by name.

use ceto_model::{CqlType, UserType};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// User-defined types of one keyspace by name.
pub(crate) type TypeMap = BTreeMap<Arc<str>, Arc<UserType>>;

/// Calls `visit` with the types that a type is directly made of.
fn for_each_part<'t>(cql_type: &'t CqlType, visit: &mut dyn FnMut(&'t CqlType)) {
    match cql_type {
        CqlType::List { element, .. } | CqlType::Set { element, .. } | CqlType::Vector { element, .. } => {
            visit(element);
        }
        CqlType::Map { key, value, .. } => {
            visit(key);
            visit(value);
        }
        CqlType::Tuple(elements) | CqlType::Composite(elements) => elements.iter().for_each(visit),
        CqlType::DynamicComposite(aliases) => aliases.iter().for_each(|(_, aliased)| visit(aliased)),
        _ => {}
    }
}

/// Calls `visit` with the types in a type that consist of no others; definitions are not entered.
pub(super) fn for_each_leaf<'t>(cql_type: &'t CqlType, visit: &mut dyn FnMut(&'t CqlType)) {
    let mut is_leaf = true;
    for_each_part(cql_type, &mut |part| {
        is_leaf = false;
        for_each_leaf(part, visit);
    });
    if is_leaf {
        visit(cql_type);
    }
}

/// The definitions that occur in a type, without those inside other definitions.
pub(super) fn for_each_definition<'t>(cql_type: &'t CqlType, visit: &mut dyn FnMut(&'t Arc<UserType>)) {
    match cql_type {
        CqlType::Udt { definition, .. } => visit(definition),
        other => for_each_part(other, &mut |part| for_each_definition(part, visit)),
    }
}

/// Whether a type is of a user-defined type, directly or through other definitions.
pub(super) fn uses_type(cql_type: &CqlType, name: &str) -> bool {
    let mut entered = BTreeSet::new();
    uses_type_beyond(cql_type, name, &mut entered)
}

fn uses_type_beyond<'t>(cql_type: &'t CqlType, name: &str, entered: &mut BTreeSet<&'t str>) -> bool {
    let mut found = false;
    for_each_definition(cql_type, &mut |definition| {
        found = found
            || &*definition.name == name
            || (entered.insert(&definition.name)
                && definition
                    .fields
                    .iter()
                    .any(|field| uses_type_beyond(&field.cql_type, name, entered)));
    });
    found
}

/// Whether a duration is anywhere inside.
pub(super) fn uses_duration(cql_type: &CqlType) -> bool {
    let mut entered = BTreeSet::new();
    uses_duration_beyond(cql_type, &mut entered)
}

fn uses_duration_beyond<'t>(cql_type: &'t CqlType, entered: &mut BTreeSet<&'t str>) -> bool {
    match cql_type {
        CqlType::Duration => true,
        CqlType::Udt { definition, .. } => {
            entered.insert(&definition.name)
                && definition
                    .fields
                    .iter()
                    .any(|field| uses_duration_beyond(&field.cql_type, entered))
        }
        other => {
            let mut found = false;
            for_each_part(other, &mut |part| {
                found = found || uses_duration_beyond(part, entered)
            });
            found
        }
    }
}

/// How many types a type consists of when every definition is written out where it is used. Saturates.
pub(super) fn expanded_size(cql_type: &CqlType) -> usize {
    expanded_size_knowing(cql_type, &mut BTreeMap::new())
}

fn expanded_size_knowing<'t>(cql_type: &'t CqlType, known: &mut BTreeMap<&'t str, usize>) -> usize {
    let mut size = 1usize;
    match cql_type {
        CqlType::Udt { definition, .. } => {
            if let Some(known) = known.get(&*definition.name) {
                return *known;
            }
            for field in &definition.fields {
                size = size.saturating_add(expanded_size_knowing(&field.cql_type, known));
            }
            known.insert(&definition.name, size);
        }
        other => for_each_part(other, &mut |part| {
            size = size.saturating_add(expanded_size_knowing(part, known));
        }),
    }
    size
}

/// The type with `change` made of every user-defined type in it, given its definition and whether it is frozen.
fn map_definitions(cql_type: &CqlType, change: &mut dyn FnMut(&Arc<UserType>, bool) -> CqlType) -> CqlType {
    match cql_type {
        CqlType::List { element, frozen } => CqlType::List {
            element: Arc::new(map_definitions(element, change)),
            frozen: *frozen,
        },
        CqlType::Set { element, frozen } => CqlType::Set {
            element: Arc::new(map_definitions(element, change)),
            frozen: *frozen,
        },
        CqlType::Map { key, value, frozen } => CqlType::Map {
            key: Arc::new(map_definitions(key, change)),
            value: Arc::new(map_definitions(value, change)),
            frozen: *frozen,
        },
        CqlType::Tuple(elements) => CqlType::Tuple(
            elements
                .iter()
                .map(|element| map_definitions(element, change))
                .collect(),
        ),
        CqlType::Vector { element, dimension } => CqlType::Vector {
            element: Arc::new(map_definitions(element, change)),
            dimension: *dimension,
        },
        CqlType::Composite(elements) => CqlType::Composite(
            elements
                .iter()
                .map(|element| map_definitions(element, change))
                .collect(),
        ),
        CqlType::DynamicComposite(aliases) => CqlType::DynamicComposite(
            aliases
                .iter()
                .map(|(alias, aliased)| (*alias, map_definitions(aliased, change)))
                .collect(),
        ),
        CqlType::Udt { definition, frozen } => change(definition, *frozen),
        other => other.clone(),
    }
}

/// The type with its user-defined types as `types` defines them; those it does not define stay as they are.
pub(super) fn with_definitions(cql_type: &CqlType, types: &TypeMap) -> CqlType {
    map_definitions(cql_type, &mut |definition, frozen| CqlType::Udt {
        definition: types.get(&definition.name).unwrap_or(definition).clone(),
        frozen,
    })
}

/// The type with tuples in the place of user-defined types, so that it outlives their definitions.
pub(super) fn without_definitions(cql_type: &CqlType) -> CqlType {
    without_definitions_knowing(cql_type, &mut BTreeMap::new())
}

fn without_definitions_knowing(cql_type: &CqlType, known: &mut BTreeMap<Arc<str>, CqlType>) -> CqlType {
    map_definitions(cql_type, &mut |definition, _| {
        if let Some(tuple) = known.get(&definition.name) {
            return tuple.clone();
        }
        let fields = definition.fields.iter();
        let elements = fields.map(|field| without_definitions_knowing(&field.cql_type, known).freeze());
        let tuple = CqlType::Tuple(elements.collect());
        known.insert(definition.name.clone(), tuple.clone());
        tuple
    })
}

/// The types in an order in which each comes after those it uses; otherwise by name.
pub(crate) fn in_order_of_use(types: &TypeMap) -> Vec<&Arc<UserType>> {
    let mut entered = BTreeSet::new();
    let mut ordered = Vec::with_capacity(types.len());
    for user_type in types.values() {
        add_after_used(user_type, types, &mut entered, &mut ordered);
    }
    ordered
}

fn add_after_used<'t>(
    user_type: &'t Arc<UserType>,
    types: &'t TypeMap,
    entered: &mut BTreeSet<&'t str>,
    ordered: &mut Vec<&'t Arc<UserType>>,
) {
    if !entered.insert(&user_type.name) {
        return;
    }
    for field in &user_type.fields {
        for_each_definition(&field.cql_type, &mut |used| {
            if let Some(used) = types.get(&used.name) {
                add_after_used(used, types, entered, ordered);
            }
        });
    }
    ordered.push(user_type);
}
