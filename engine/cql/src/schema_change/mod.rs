//! Statements that change the schema: a schema to the next schema.
//!
//! Two steps. [`SchemaChange::prepare`] knows the session and refuses what no schema could make right. Then
//! [`SchemaChange::apply`] runs later, where changes have an order, and checks all the rest against the one schema that
//! it replaces; between the two the schema may have changed as it likes.
//!
//! Invariants:
//! - `apply` is a function of its arguments: it reads no clock, draws no random number (a new table's id comes with
//!   `prepare`) and gives the same schema on every node.
//! - A schema that `apply` returns never holds a type that nests deeper than [`ceto_model::type_text::DEPTH_MAX`] or is
//!   larger than [`TYPE_NODES_MAX`], nor a table or type whose user types are not those of its keyspace.
//! - A column id belongs to one name for ever, so cells of a dropped column are never read as another's.
//!
//! Read next: `keyspace`, `create_table`, `alter_table`, `user_type` for the statements; `types` for types as written.

mod aggregate;
mod alter_table;
mod copy_table;
mod create_table;
mod event;
mod function;
mod index;
mod keyspace;
mod names;
mod refusal;
#[cfg(test)]
pub(crate) mod tests;
mod type_use;
pub(crate) mod types;
mod user_type;
mod vector_index;
mod view;

pub use aggregate::initial_condition;
pub use event::{SchemaChangeEvent, SchemaChangeKind, SchemaChangeTarget};
pub(crate) use names::is_system_keyspace;
pub(crate) use type_use::in_order_of_use;
pub use types::TYPE_NODES_MAX;

use crate::CqlError;
use crate::access::{RequiredPermissions, Resource};
use crate::ast::{AlterTableChange as AlterTableAst, Permission, Statement};
use aggregate::CreateAggregateChange;
use alter_table::AlterTableChange;
use ceto_model::Schema;
use ceto_model::schema::ReplicationOptions;
use copy_table::CopyTableChange;
use create_table::CreateTableChange;
use function::{CreateFunctionChange, DropFunctionChange};
use index::CreateIndexChange;
pub(crate) use index::find_index;
use keyspace::{AlterKeyspaceChange, CreateKeyspaceChange};
use smallvec::smallvec;
use std::sync::Arc;
use user_type::{AlterTypeChange, CreateTypeChange};
use uuid::Uuid;
use view::{AlterViewChange, CreateViewChange};

/// One statement that changes the schema, ready to be applied.
#[derive(Clone, Debug)]
pub struct SchemaChange {
    /// The keyspace that changes.
    keyspace: Arc<str>,
    action: Action,
}

/// What a [`SchemaChange`] does to its keyspace.
#[derive(Clone, Debug)]
enum Action {
    CreateKeyspace(CreateKeyspaceChange),
    AlterKeyspace(AlterKeyspaceChange),
    DropKeyspace { if_exists: bool },
    CreateTable(Arc<CreateTableChange>),
    CopyTable(Arc<CopyTableChange>),
    AlterTable(Arc<AlterTableChange>),
    DropTable { name: Arc<str>, if_exists: bool },
    CreateType(Arc<CreateTypeChange>),
    AlterType(Arc<AlterTypeChange>),
    DropType { name: Arc<str>, if_exists: bool },
    CreateIndex(Arc<CreateIndexChange>),
    DropIndex { name: Arc<str>, if_exists: bool },
    CreateView(Arc<CreateViewChange>),
    AlterView(Arc<AlterViewChange>),
    DropView { name: Arc<str>, if_exists: bool },
    CreateFunction(Arc<CreateFunctionChange>),
    DropFunction(Arc<DropFunctionChange>),
    CreateAggregate(Arc<CreateAggregateChange>),
    DropAggregate(Arc<DropFunctionChange>),
}

impl SchemaChange {
    /// The change that `statement` asks for; None when it is no schema statement.
    ///
    /// `session_keyspace` stands in for a keyspace that is not written; `new_table_id` becomes the identity of a table
    /// that is created without an `id` of its own.
    ///
    /// # Errors
    /// `Invalid` without a keyspace, for what is wrong whatever the schema, and for what cannot be carried out yet;
    /// `Unauthorized` for the keyspaces of the system; `Syntax` and `Config` for the options of a keyspace.
    pub fn prepare(
        statement: &Statement,
        session_keyspace: Option<&str>,
        new_table_id: Uuid,
    ) -> Option<Result<SchemaChange, CqlError>> {
        let change = match statement {
            Statement::CreateKeyspace(create) => keyspace::prepare_create(create),
            Statement::AlterKeyspace(alter) => keyspace::prepare_alter(alter),
            Statement::DropKeyspace(drop) => Ok(SchemaChange {
                keyspace: drop.name.name.clone(),
                action: Action::DropKeyspace {
                    if_exists: drop.if_exists,
                },
            }),
            Statement::CreateTable(create) => create_table::prepare(create, session_keyspace, new_table_id),
            Statement::CopyTable(copy) => copy_table::prepare(copy, session_keyspace, new_table_id),
            Statement::AlterTable(alter) => alter_table::prepare(alter, session_keyspace),
            Statement::DropTable(drop) => {
                names::keyspace_of(&drop.name, session_keyspace).map(|keyspace| SchemaChange {
                    keyspace,
                    action: Action::DropTable {
                        name: drop.name.name.clone(),
                        if_exists: drop.if_exists,
                    },
                })
            }
            Statement::CreateType(create) => user_type::prepare_create(create, session_keyspace),
            Statement::AlterType(alter) => user_type::prepare_alter(alter, session_keyspace),
            Statement::DropType(drop) => {
                names::keyspace_of(&drop.name, session_keyspace).map(|keyspace| SchemaChange {
                    keyspace,
                    action: Action::DropType {
                        name: drop.name.name.clone(),
                        if_exists: drop.if_exists,
                    },
                })
            }
            Statement::CreateIndex(create) => index::prepare(create, session_keyspace, new_table_id),
            Statement::DropIndex(drop) => index::prepare_drop(drop, session_keyspace),
            Statement::CreateMaterializedView(create) => {
                view::prepare_create(create, session_keyspace, new_table_id)
            }
            Statement::AlterMaterializedView(alter) => view::prepare_alter(alter, session_keyspace),
            Statement::DropMaterializedView(drop) => view::prepare_drop(drop, session_keyspace),
            Statement::CreateFunction(create) => function::prepare_create(create, session_keyspace),
            Statement::DropFunction(drop) => function::prepare_drop(drop, session_keyspace),
            Statement::CreateAggregate(create) => aggregate::prepare_create(create, session_keyspace),
            Statement::DropAggregate(drop) => aggregate::prepare_drop(drop, session_keyspace),
            other => return refusal::not_supported(other).map(Err),
        };
        Some(change.and_then(|change| {
            names::check_modifiable(&change.keyspace)?;
            names::check_keyspace_name(&change.keyspace)?;
            Ok(change)
        }))
    }

    /// The schema after the change; None when IF EXISTS or IF NOT EXISTS leaves nothing to do. Its version is nil: the
    /// caller gives it one. `now_micros` (since the Unix epoch) is when columns are dropped that say no time.
    ///
    /// # Errors
    /// When the change contradicts `schema`, with Cassandra's kinds and texts.
    pub fn apply(&self, schema: &Schema, now_micros: i64) -> Result<Option<Schema>, CqlError> {
        let keyspace = &self.keyspace;
        match &self.action {
            Action::CreateKeyspace(create) => keyspace::create(schema, keyspace, create),
            Action::AlterKeyspace(alter) => keyspace::alter(schema, keyspace, alter),
            Action::DropKeyspace { if_exists } => keyspace::drop(schema, keyspace, *if_exists),
            Action::CreateTable(create) => create_table::create(schema, keyspace, create),
            Action::CopyTable(copy) => copy_table::copy(schema, keyspace, copy),
            Action::AlterTable(alter) => alter_table::alter(schema, keyspace, alter, now_micros),
            Action::DropTable { name, if_exists } => {
                alter_table::drop_table(schema, keyspace, name, *if_exists)
            }
            Action::CreateType(create) => user_type::create(schema, keyspace, create),
            Action::AlterType(alter) => user_type::alter(schema, keyspace, alter),
            Action::DropType { name, if_exists } => user_type::drop(schema, keyspace, name, *if_exists),
            Action::CreateIndex(create) => index::create(schema, keyspace, create),
            Action::DropIndex { name, if_exists } => index::drop_index(schema, keyspace, name, *if_exists),
            Action::CreateView(create) => view::create(schema, keyspace, create),
            Action::AlterView(alter) => view::alter(schema, keyspace, alter),
            Action::DropView { name, if_exists } => view::drop_view(schema, keyspace, name, *if_exists),
            Action::CreateFunction(create) => function::create(schema, keyspace, create),
            Action::DropFunction(drop) => function::drop(schema, keyspace, drop),
            Action::CreateAggregate(create) => aggregate::create(schema, keyspace, create),
            Action::DropAggregate(drop) => aggregate::drop(schema, keyspace, drop),
        }
    }

    /// What the client and those registered for schema events are told. `before`: the schema that the change was applied
    /// to.
    pub fn event(&self, before: &Schema) -> SchemaChangeEvent {
        let keyspace_target = SchemaChangeTarget::Keyspace;
        let table = |name: &Arc<str>| SchemaChangeTarget::Table(name.to_string());
        let user_type = |name: &Arc<str>| SchemaChangeTarget::Type(name.to_string());
        let (change, target) = match &self.action {
            Action::CreateKeyspace(_) => (SchemaChangeKind::Created, keyspace_target),
            Action::AlterKeyspace(_) => (SchemaChangeKind::Updated, keyspace_target),
            Action::DropKeyspace { .. } => (SchemaChangeKind::Dropped, keyspace_target),
            Action::CreateTable(create) => (SchemaChangeKind::Created, table(&create.name)),
            Action::CopyTable(copy) => (SchemaChangeKind::Created, table(&copy.name)),
            Action::AlterTable(alter) => (SchemaChangeKind::Updated, table(&alter.name)),
            Action::DropTable { name, .. } => (SchemaChangeKind::Dropped, table(name)),
            Action::CreateType(create) => (SchemaChangeKind::Created, user_type(&create.name)),
            Action::AlterType(alter) => (SchemaChangeKind::Updated, user_type(&alter.name)),
            Action::DropType { name, .. } => (SchemaChangeKind::Dropped, user_type(name)),
            Action::CreateIndex(create) => (SchemaChangeKind::Updated, table(&create.table)),
            Action::DropIndex { name, .. } => {
                let keyspace = before.keyspace(&self.keyspace);
                let found = keyspace.and_then(|keyspace| find_index(keyspace, name));
                let target = found.map_or(keyspace_target, |(indexed, _)| table(&indexed.name));
                (SchemaChangeKind::Updated, target)
            }
            Action::CreateView(create) => (SchemaChangeKind::Created, table(&create.name)),
            Action::AlterView(alter) => (SchemaChangeKind::Updated, table(&alter.name)),
            Action::DropView { name, .. } => (SchemaChangeKind::Dropped, table(name)),
            Action::CreateFunction(create) => create.event(before, &self.keyspace),
            Action::DropFunction(drop) => (SchemaChangeKind::Dropped, drop.function(before, &self.keyspace)),
            Action::CreateAggregate(create) => create.event(before, &self.keyspace),
            Action::DropAggregate(drop) => {
                (SchemaChangeKind::Dropped, drop.aggregate(before, &self.keyspace))
            }
        };
        SchemaChangeEvent {
            change,
            keyspace: self.keyspace.to_string(),
            target,
        }
    }

    /// What who asks for the change needs, if it is about something that exists in `schema`.
    ///
    /// # Errors
    /// `Invalid` when the types of a function are not there.
    pub fn required_permissions(&self, schema: &Schema) -> Result<RequiredPermissions, CqlError> {
        match &self.action {
            Action::CreateFunction(create) => create.required_permissions(schema, &self.keyspace),
            Action::CreateAggregate(create) => create.required_permissions(schema, &self.keyspace),
            Action::DropFunction(drop) | Action::DropAggregate(drop) => {
                drop.required_permissions(schema, &self.keyspace)
            }
            _ => Ok(smallvec![self.required_permission(schema)]),
        }
    }

    fn required_permission(&self, schema: &Schema) -> (Permission, Resource) {
        let keyspace = || Resource::Keyspace(self.keyspace.clone());
        let table = |name: &Arc<str>| Resource::Table(self.keyspace.clone(), name.clone());
        // A view is governed by its base.
        let base_of = |name: &Arc<str>| {
            let view = schema
                .table(&self.keyspace, name)
                .and_then(|table| table.view.as_ref());
            view.map_or_else(|| name.clone(), |view| view.base_name.clone())
        };
        match &self.action {
            Action::CreateKeyspace(_) => (Permission::Create, Resource::AllKeyspaces),
            Action::AlterKeyspace(_) => (Permission::Alter, keyspace()),
            Action::DropKeyspace { .. } => (Permission::Drop, keyspace()),
            Action::CreateTable(_) | Action::CopyTable(_) => {
                (Permission::Create, Resource::AllTables(self.keyspace.clone()))
            }
            Action::AlterTable(alter) => (Permission::Alter, table(&alter.name)),
            Action::DropTable { name, .. } => (Permission::Drop, table(name)),
            Action::CreateType(_) => (Permission::Create, keyspace()),
            Action::AlterType(_) => (Permission::Alter, keyspace()),
            Action::DropType { .. } => (Permission::Drop, keyspace()),
            Action::CreateIndex(create) => (Permission::Alter, table(&create.table)),
            Action::DropIndex { name, .. } => {
                let keyspace_of_index = schema.keyspace(&self.keyspace);
                let found = keyspace_of_index.and_then(|keyspace| find_index(keyspace, name));
                let resource = found.map_or_else(keyspace, |(indexed, _)| table(&indexed.name));
                (Permission::Alter, resource)
            }
            Action::CreateView(create) => (Permission::Alter, table(create.base())),
            Action::AlterView(alter) => (Permission::Alter, table(&base_of(&alter.name))),
            Action::DropView { name, .. } => (Permission::Alter, table(&base_of(name))),
            Action::CreateFunction(_)
            | Action::CreateAggregate(_)
            | Action::DropFunction(_)
            | Action::DropAggregate(_) => (
                Permission::Alter,
                Resource::KeyspaceFunctions(self.keyspace.clone()),
            ),
        }
    }

    /// What the change makes that permissions can be granted on. `before`: the schema that the change is applied to.
    pub fn created(&self, before: &Schema) -> Vec<Resource> {
        let table = |name: &Arc<str>| vec![Resource::Table(self.keyspace.clone(), name.clone())];
        match &self.action {
            Action::CreateKeyspace(_) => vec![
                Resource::Keyspace(self.keyspace.clone()),
                Resource::KeyspaceFunctions(self.keyspace.clone()),
            ],
            Action::CreateTable(create) => table(&create.name),
            Action::CopyTable(copy) => table(&copy.name),
            Action::CreateFunction(create) => create.created(before, &self.keyspace),
            Action::CreateAggregate(create) => create.created(before, &self.keyspace),
            _ => Vec::new(),
        }
    }

    /// What permissions know by another name after the change: functions and aggregates that take a type which ALTER TYPE
    /// changes, for its fields are part of the name. Each with its old and its new name.
    pub fn renamed(&self, before: &Schema, after: &Schema) -> Vec<(Resource, Resource)> {
        let keyspaces = (before.keyspace(&self.keyspace), after.keyspace(&self.keyspace));
        match (&self.action, keyspaces) {
            (Action::AlterType(_), (Some(before), Some(after))) => user_type::renamed(before, after),
            _ => Vec::new(),
        }
    }

    /// Makes a user-defined function or aggregate.
    pub fn creates_function(&self) -> bool {
        matches!(
            self.action,
            Action::CreateFunction(_) | Action::CreateAggregate(_)
        )
    }

    /// Makes a materialized view.
    pub fn creates_view(&self) -> bool {
        matches!(self.action, Action::CreateView(_))
    }

    /// The options that CREATE or ALTER TABLE, or one of a view, writes; None for other statements.
    pub fn table_properties(&self) -> Option<Vec<&str>> {
        let properties = match &self.action {
            Action::CreateTable(create) => &create.create.options.properties,
            Action::CopyTable(copy) => &copy.properties,
            Action::AlterTable(alter) => match &alter.change {
                AlterTableAst::Properties(properties) => properties,
                _ => return None,
            },
            Action::CreateView(create) => &create.create.options.properties,
            Action::AlterView(alter) => &alter.properties,
            _ => return None,
        };
        Some(properties.0.iter().map(|property| &*property.name).collect())
    }

    /// The same change without the options that `is_ignored` names.
    #[must_use]
    pub fn without_table_properties(mut self, is_ignored: impl Fn(&str) -> bool) -> SchemaChange {
        let properties = match &mut self.action {
            Action::CreateTable(create) => Some(&mut Arc::make_mut(create).create.options.properties),
            Action::CopyTable(copy) => Some(&mut Arc::make_mut(copy).properties),
            Action::AlterTable(alter) => match &mut Arc::make_mut(alter).change {
                AlterTableAst::Properties(properties) => Some(properties),
                _ => None,
            },
            Action::CreateView(create) => Some(&mut Arc::make_mut(create).create.options.properties),
            Action::AlterView(alter) => Some(&mut Arc::make_mut(alter).properties),
            _ => None,
        };
        if let Some(properties) = properties {
            properties.0.retain(|property| !is_ignored(&property.name));
        }
        self
    }

    /// Name of the keyspace that changes.
    pub fn keyspace(&self) -> &str {
        &self.keyspace
    }

    /// The replication that CREATE or ALTER KEYSPACE gives, its class by full name. What the options mean for the ring
    /// is not checked here.
    pub fn replication(&self) -> Option<&ReplicationOptions> {
        match &self.action {
            Action::CreateKeyspace(create) => Some(&create.replication),
            Action::AlterKeyspace(alter) => alter.replication.as_ref(),
            _ => None,
        }
    }

    /// The same change with another replication, as whoever knows the ring has completed it. Nothing changes for other
    /// statements than CREATE and ALTER KEYSPACE.
    #[must_use]
    pub fn with_replication(mut self, replication: ReplicationOptions) -> SchemaChange {
        match &mut self.action {
            Action::CreateKeyspace(create) => create.replication = replication,
            Action::AlterKeyspace(alter) => alter.replication = Some(replication),
            _ => {}
        }
        self
    }
}
