//! CREATE, ALTER and DROP MATERIALIZED VIEW.

use super::create_table::{already_exists, with_new_table};
use super::type_use::uses_duration;
use super::{Action, SchemaChange, keyspace, names};
use crate::CqlError;
use crate::ast::{
    AlterMaterializedView, CreateMaterializedView, Drop, Name, Properties, RelationSubject, Selectable,
    Selection, WhereClause,
};
use crate::options::{altered_table_options, new_table_options, table_id};
use crate::restrictions::view::ViewRestrictions;
use ceto_model::schema::{TableBuilder, ViewDefinition};
use ceto_model::{Column, ColumnKind, Keyspace, Schema, Table, TableId};
use std::collections::BTreeSet;
use std::sync::Arc;
use uuid::Uuid;

const TIME_TO_LIVE: &str = "default_time_to_live";

/// Why neither a view nor its base may have a `gc_grace_seconds` of 0.
const NEEDS_GRACE: &str = "since this value is used to TTL undelivered updates. Setting gc_grace_seconds too low might \
     cause undelivered updates to expire before being replayed.";

#[derive(Clone, Debug)]
pub(super) struct CreateViewChange {
    pub(super) name: Arc<str>,
    id: Uuid,
    pub(super) create: CreateMaterializedView,
}

impl CreateViewChange {
    /// Name of the base table.
    pub(super) fn base(&self) -> &Arc<str> {
        &self.create.base_table.name
    }
}

#[derive(Clone, Debug)]
pub(super) struct AlterViewChange {
    pub(super) name: Arc<str>,
    if_exists: bool,
    pub(super) properties: Properties,
}

pub(super) fn prepare_create(
    create: &CreateMaterializedView,
    session_keyspace: Option<&str>,
    id: Uuid,
) -> Result<SchemaChange, CqlError> {
    let keyspace = names::keyspace_of(&create.name, session_keyspace)?;
    if create
        .base_table
        .keyspace
        .as_ref()
        .is_some_and(|base| *base != keyspace)
    {
        return Err(CqlError::invalid(
            "Cannot create a materialized view on a table in a different keyspace",
        ));
    }
    Ok(SchemaChange {
        keyspace,
        action: Action::CreateView(Arc::new(CreateViewChange {
            name: create.name.name.clone(),
            id: table_id(&create.options.properties)?.unwrap_or(id),
            create: create.clone(),
        })),
    })
}

pub(super) fn prepare_alter(
    alter: &AlterMaterializedView,
    session_keyspace: Option<&str>,
) -> Result<SchemaChange, CqlError> {
    Ok(SchemaChange {
        keyspace: names::keyspace_of(&alter.name, session_keyspace)?,
        action: Action::AlterView(Arc::new(AlterViewChange {
            name: alter.name.name.clone(),
            if_exists: alter.if_exists,
            properties: alter.properties.clone(),
        })),
    })
}

pub(super) fn prepare_drop(drop: &Drop, session_keyspace: Option<&str>) -> Result<SchemaChange, CqlError> {
    Ok(SchemaChange {
        keyspace: names::keyspace_of(&drop.name, session_keyspace)?,
        action: Action::DropView {
            name: drop.name.name.clone(),
            if_exists: drop.if_exists,
        },
    })
}

pub(super) fn create(
    schema: &Schema,
    keyspace_name: &str,
    change: &CreateViewChange,
) -> Result<Option<Schema>, CqlError> {
    let create = &change.create;
    let (name, base_name) = (&change.name, &create.base_table.name);
    let keyspace = keyspace::existing(schema, keyspace_name)?;
    let Some(base) = keyspace.tables.get(base_name) else {
        return Err(CqlError::Invalid(format!(
            "Base table '{base_name}' doesn't exist"
        )));
    };
    match keyspace.tables.get(name) {
        Some(table) if !table.is_view() => {
            return Err(CqlError::Invalid(format!(
                "Cannot create materialized view '{name}' - a table with the same name already exists"
            )));
        }
        Some(_) => return already_exists(keyspace_name, name, create.if_not_exists),
        None => {}
    }
    if base.is_counter {
        return Err(CqlError::invalid(
            "Materialized views are not supported on counter tables",
        ));
    }
    if base.is_view() {
        return Err(CqlError::invalid(
            "Materialized views cannot be created against other materialized views",
        ));
    }
    if base.options.gc_grace_seconds == 0 {
        return Err(CqlError::Invalid(format!(
            "Cannot create materialized view '{name}' for base table '{base_name}' with gc_grace_seconds of 0, \
             {NEEDS_GRACE}"
        )));
    }
    let selected = selected_columns(base, create)?;
    check_key(base, create, &selected)?;
    check_where(schema, base, create)?;
    let options = new_table_options(&create.options.properties)?;
    if create.options.properties.get(TIME_TO_LIVE).is_some() && options.default_time_to_live != 0 {
        return Err(CqlError::invalid(
            "Cannot set default_time_to_live for a materialized view. Data in a materialized view always expire at the \
             same time than the corresponding data in the parent table.",
        ));
    }
    let mut builder = TableBuilder::new(TableId(change.id), &keyspace.name, name);
    builder.options = options;
    builder.view = Some(Arc::new(ViewDefinition {
        base: base.id,
        base_name: base.name.clone(),
        include_all: create.selection == Selection::All,
        where_clause: create.where_clause.to_string().into(),
    }));
    add_columns(&mut builder, base, create, &selected);
    let view = Table::view_of(base, builder).expect("all columns are the base's");
    Ok(Some(with_new_table(schema, keyspace, view)?))
}

/// The columns of the base that the view has, none of them static.
fn selected_columns<'b>(
    base: &'b Table,
    create: &CreateMaterializedView,
) -> Result<Vec<&'b Column>, CqlError> {
    let mut selected: Vec<&Column> = Vec::new();
    match &create.selection {
        Selection::All => selected.extend(base.columns()),
        Selection::AllAnd(_) => {
            return Err(CqlError::invalid(
                "Cannot select anything beside * when defining a materialized view: * has all columns",
            ));
        }
        Selection::Selectors(selectors) => {
            for selector in selectors {
                if let Some(alias) = &selector.alias {
                    return Err(CqlError::Invalid(format!(
                        "Cannot use aliases when defining a materialized view (got {} as {alias})",
                        selector.selectable
                    )));
                }
                let Selectable::Column(name) = &selector.selectable else {
                    return Err(CqlError::Invalid(format!(
                        "Can only select columns by name when defining a materialized view (got {})",
                        selector.selectable
                    )));
                };
                let column = base
                    .column(name)
                    .ok_or_else(|| crate::expression::undefined_column(base, name))?;
                if selected.iter().all(|other| other.id != column.id) {
                    selected.push(column);
                }
            }
        }
    }
    match selected.iter().find(|column| column.kind == ColumnKind::Static) {
        Some(column) => Err(CqlError::Invalid(format!(
            "Cannot include static column '{}' in materialized view '{}'",
            column.name, create.name.name
        ))),
        None => Ok(selected),
    }
}

fn check_key(base: &Table, create: &CreateMaterializedView, selected: &[&Column]) -> Result<(), CqlError> {
    let (view, key) = (&create.name.name, &create.primary_key);
    let names = || key.partition_key.iter().chain(&key.clustering);
    let mut seen: BTreeSet<&Name> = BTreeSet::new();
    for name in names() {
        let column = base
            .column(name)
            .filter(|column| selected.iter().any(|other| other.id == column.id));
        let problem = match column {
            None => {
                format!("Unknown column '{name}' referenced in PRIMARY KEY for materialized view '{view}'")
            }
            Some(_) if !seen.insert(name) => {
                format!("Duplicate column '{name}' in PRIMARY KEY clause for materialized view '{view}'")
            }
            Some(column) if column.cql_type.is_multicell() => {
                let kind = match column.cql_type.is_collection() {
                    true => "collection",
                    false => "user-defined",
                };
                format!(
                    "Invalid non-frozen {kind} type '{}' for PRIMARY KEY column '{name}'",
                    column.cql_type
                )
            }
            Some(column) if uses_duration(&column.cql_type) => {
                format!("duration type is not supported for PRIMARY KEY column '{name}'")
            }
            Some(_) => continue,
        };
        return Err(CqlError::Invalid(problem));
    }
    let order = &create.options.clustering_order;
    let ordered = order.iter().map(|order| &order.column);
    if !order.is_empty() && !ordered.eq(&key.clustering) {
        return Err(CqlError::invalid(
            "Clustering key columns must exactly match columns in CLUSTERING ORDER BY directive",
        ));
    }
    let is_missing = |column: &&Column| column.is_primary_key() && !seen.contains(&column.name);
    let missing: Vec<&str> = base
        .columns()
        .iter()
        .filter(is_missing)
        .map(|column| &*column.name)
        .collect();
    if !missing.is_empty() {
        return Err(CqlError::Invalid(format!(
            "Cannot create materialized view '{view}' without primary key columns {} from base table '{}'",
            missing.join(", "),
            base.name
        )));
    }
    let is_other = |name: &&Name| base.column(name).is_some_and(|column| !column.is_primary_key());
    let others: Vec<&str> = names().filter(is_other).map(|name| &**name).collect();
    if others.len() > 1 {
        return Err(CqlError::Invalid(format!(
            "Cannot include more than one non-primary key column in materialized view primary key (got {})",
            others.join(", ")
        )));
    }
    Ok(())
}

fn check_where(schema: &Schema, base: &Arc<Table>, create: &CreateMaterializedView) -> Result<(), CqlError> {
    let clause = &create.where_clause;
    let is_token = |subject: &RelationSubject| matches!(subject, RelationSubject::Token(_));
    if clause
        .relations
        .iter()
        .any(|relation| is_token(&relation.subject))
    {
        return Err(CqlError::invalid(
            "Cannot use token relation when defining a materialized view",
        ));
    }
    if !clause.expressions.is_empty() {
        return Err(CqlError::Invalid(format!(
            "WHERE clause for materialized view '{}' cannot contain custom index expressions",
            create.name.name
        )));
    }
    let restrictions = ViewRestrictions::prepare(schema, base, clause)?;
    let key = &create.primary_key;
    let names = || key.partition_key.iter().chain(&key.clustering);
    let indices: BTreeSet<usize> = names().filter_map(|name| base.column_index(name)).collect();
    let is_free = |name: &&Name| {
        let index = base.column_index(name);
        !index.is_some_and(|index| restrictions.restricted.contains(&index))
    };
    let free: Vec<&str> = names().filter(is_free).map(|name| &**name).collect();
    if !free.is_empty() {
        return Err(CqlError::Invalid(format!(
            "Primary key columns {} must be restricted with 'IS NOT NULL' or otherwise",
            free.join(", ")
        )));
    }
    let illegal: Vec<&str> = restrictions
        .filtered
        .difference(&indices)
        .filter_map(|index| base.columns().get(*index))
        .map(|column| &*column.name)
        .collect();
    if !illegal.is_empty() {
        return Err(CqlError::Invalid(format!(
            "Non-primary key columns can only be restricted with 'IS NOT NULL' (got: {} restricted illegally)",
            illegal.join(",")
        )));
    }
    Ok(())
}

fn add_columns(
    builder: &mut TableBuilder,
    base: &Table,
    create: &CreateMaterializedView,
    selected: &[&Column],
) {
    let key = &create.primary_key;
    let parts = [
        (&key.partition_key, ColumnKind::PartitionKey),
        (&key.clustering, ColumnKind::Clustering),
    ];
    for (names, kind) in parts {
        for (position, name) in names.iter().enumerate() {
            let column = base.column(name).expect("the key was checked");
            let written = create
                .options
                .clustering_order
                .iter()
                .find(|order| order.column == *name);
            let descending = written.map_or(column.descending, |order| order.descending);
            builder.columns.push(Column {
                kind,
                position: position as u16,
                descending: kind == ColumnKind::Clustering && descending,
                ..column.clone()
            });
        }
    }
    for column in selected {
        if builder.columns.iter().all(|other| other.id != column.id) {
            builder.columns.push(Column {
                kind: ColumnKind::Regular,
                position: 0,
                descending: false,
                ..(*column).clone()
            });
        }
    }
}

fn find<'s>(schema: &'s Schema, keyspace: &str, name: &str) -> Option<(&'s Arc<Keyspace>, &'s Arc<Table>)> {
    let keyspace = schema.keyspace(keyspace)?;
    let view = keyspace.tables.get(name).filter(|table| table.is_view())?;
    Some((keyspace, view))
}

fn missing(keyspace: &str, name: &str, if_exists: bool) -> Result<Option<Schema>, CqlError> {
    if if_exists {
        return Ok(None);
    }
    Err(CqlError::Invalid(format!(
        "Materialized view '{keyspace}.{name}' doesn't exist"
    )))
}

pub(super) fn alter(
    schema: &Schema,
    keyspace_name: &str,
    alter: &AlterViewChange,
) -> Result<Option<Schema>, CqlError> {
    let Some((keyspace, view)) = find(schema, keyspace_name, &alter.name) else {
        return missing(keyspace_name, &alter.name, alter.if_exists);
    };
    let mut builder = view.to_builder();
    builder.options = altered_table_options(&view.options, &alter.properties)?;
    if builder.options.gc_grace_seconds == 0 {
        return Err(CqlError::Invalid(format!(
            "Cannot alter gc_grace_seconds of a materialized view to 0, {NEEDS_GRACE}"
        )));
    }
    if builder.options.default_time_to_live > 0 {
        return Err(CqlError::invalid(
            "Forbidden default_time_to_live detected for a materialized view. Data in a materialized view always \
             expire at the same time than the corresponding data in the parent table. default_time_to_live must be set \
             to zero, see CASSANDRA-12868 for more information",
        ));
    }
    let altered = builder.build();
    if altered == **view {
        return Ok(None);
    }
    let mut keyspace = Keyspace::clone(keyspace);
    keyspace.tables.insert(altered.name.clone(), Arc::new(altered));
    Ok(Some(schema.with_keyspace(keyspace, Uuid::nil())))
}

pub(super) fn drop_view(
    schema: &Schema,
    keyspace_name: &str,
    name: &str,
    if_exists: bool,
) -> Result<Option<Schema>, CqlError> {
    let Some((keyspace, _)) = find(schema, keyspace_name, name) else {
        return missing(keyspace_name, name, if_exists);
    };
    let mut keyspace = Keyspace::clone(keyspace);
    keyspace.tables.remove(name);
    Ok(Some(schema.with_keyspace(keyspace, Uuid::nil())))
}

/// Refuses options that a table with views cannot have.
pub(super) fn check_base_options(
    keyspace: &Keyspace,
    base: &Table,
    gc_grace_seconds: u32,
) -> Result<(), CqlError> {
    if gc_grace_seconds == 0 && keyspace.views_of(base.id).next().is_some() {
        return Err(CqlError::Invalid(format!(
            "Cannot alter gc_grace_seconds of the base table of a materialized view to 0, {NEEDS_GRACE}"
        )));
    }
    Ok(())
}

/// Carries the renaming of a column into the clauses of the views of its table.
pub(super) fn rename_in_clauses(
    keyspace: &mut Keyspace,
    base: &Table,
    renames: &[(Name, Name)],
) -> Result<(), CqlError> {
    for table in keyspace.tables.values_mut() {
        let Some(view) = table.view.as_ref().filter(|view| view.base == base.id) else {
            continue;
        };
        let mut clause = crate::parse_where_clause(&view.where_clause)?;
        renames
            .iter()
            .filter(|(from, _)| base.column(from).is_some())
            .for_each(|(from, to)| rename(&mut clause, from, to));
        let mut builder = table.to_builder();
        builder.view = Some(Arc::new(ViewDefinition {
            where_clause: clause.to_string().into(),
            ..ViewDefinition::clone(view)
        }));
        *table = Arc::new(builder.build());
    }
    Ok(())
}

fn rename(clause: &mut WhereClause, from: &Name, to: &Name) {
    for relation in &mut clause.relations {
        let names: &mut [Name] = match &mut relation.subject {
            RelationSubject::Column(name) => std::slice::from_mut(name),
            RelationSubject::Columns(names) | RelationSubject::Token(names) => names,
            RelationSubject::Element { column, .. } => std::slice::from_mut(column),
        };
        for name in names.iter_mut().filter(|name| *name == from) {
            *name = to.clone();
        }
    }
}
