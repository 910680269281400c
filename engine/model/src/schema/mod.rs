//! The schema: keyspaces, tables, columns, user types, as immutable snapshots.
//!
//! A [`Schema`] never changes; a schema change makes a new one that shares what did not change. Each has a version,
//! which all nodes agree on. Never: text of statements, or anything about where data lies.

mod function;
mod index;
mod keyspace;
mod table;
mod view;

pub use function::{AggregateDefinition, FunctionDefinition, UserFunctions, shown_type};
pub use index::{
    CLASS_NAME, IndexDefinition, IndexTarget, SIMILARITY_FUNCTION, Similarity, TARGET, floats,
    is_storage_attached,
};
pub use keyspace::{Keyspace, ReplicationOptions};
pub use table::{Column, ColumnKind, DroppedColumn, Table, TableBuilder, TableId, TableOptions};
pub use view::ViewDefinition;

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use uuid::Uuid;

use crate::view::View;

/// Everything that is defined at one schema version.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// Identity of this state; equal on all nodes that have it.
    pub version: Uuid,
    keyspaces: BTreeMap<Arc<str>, Arc<Keyspace>>,
    tables: FxHashMap<TableId, Arc<Table>>,
    /// Materialized views by their base, as writes to it need them.
    views: FxHashMap<TableId, Arc<[View]>>,
}

impl Schema {
    /// All keyspaces by name.
    pub fn keyspaces(&self) -> impl Iterator<Item = &Arc<Keyspace>> {
        self.keyspaces.values()
    }

    /// A keyspace.
    pub fn keyspace(&self, name: &str) -> Option<&Arc<Keyspace>> {
        self.keyspaces.get(name)
    }

    /// A table by name.
    pub fn table(&self, keyspace: &str, name: &str) -> Option<&Arc<Table>> {
        self.keyspaces.get(keyspace)?.tables.get(name)
    }

    /// A table by identity.
    pub fn table_by_id(&self, id: TableId) -> Option<&Arc<Table>> {
        self.tables.get(&id)
    }

    /// All tables, in no order.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values()
    }

    /// What a write to a table means for its materialized views. Empty for most tables.
    pub fn views_of(&self, base: TableId) -> Option<&Arc<[View]>> {
        self.views.get(&base)
    }

    /// The schema with `keyspace` added or replaced (tables included).
    pub fn with_keyspace(&self, keyspace: Keyspace, version: Uuid) -> Schema {
        let mut next = self.without_keyspace(&keyspace.name, version);
        for table in keyspace.tables.values() {
            next.tables.insert(table.id, table.clone());
        }
        let mut views: FxHashMap<TableId, Vec<View>> = FxHashMap::default();
        for table in keyspace.tables.values() {
            if let Some(definition) = &table.view
                && let Some(base) = next.tables.get(&definition.base)
                && let Some(view) = View::new(table, base)
            {
                views.entry(base.id).or_default().push(view);
            }
        }
        next.views
            .extend(views.into_iter().map(|(base, views)| (base, views.into())));
        next.keyspaces.insert(keyspace.name.clone(), Arc::new(keyspace));
        next
    }

    /// The schema without a keyspace.
    pub fn without_keyspace(&self, name: &str, version: Uuid) -> Schema {
        let mut next = self.clone();
        next.version = version;
        if let Some(old) = next.keyspaces.remove(name) {
            for table in old.tables.values() {
                next.tables.remove(&table.id);
                next.views.remove(&table.id);
            }
        }
        next
    }
}
