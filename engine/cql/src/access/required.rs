//! What a statement needs, before it may run: Cassandra's rules.

use super::Resource;
use crate::ast::Permission;
use crate::prepare::modification::PreparedModification;
use crate::prepare::{Prepared, PreparedKind};
use ceto_model::Table;
use smallvec::{SmallVec, smallvec};

/// Permissions, all of which are needed.
pub type RequiredPermissions = SmallVec<[(Permission, Resource); 2]>;

/// Keyspaces whose tables everybody may read: drivers need them.
const READABLE_KEYSPACES: [&str; 2] = ["system_schema", "system_virtual_schema"];
/// Tables of keyspace `system` that everybody may read.
const READABLE_TABLES: [&str; 3] = ["local", "peers", "peers_v2"];

impl Prepared {
    /// What who runs it needs; empty also for statements that decide by themselves, because they need to know more:
    /// those on schema and on roles.
    pub fn required_permissions(&self) -> RequiredPermissions {
        let mut required = self.required_on_tables();
        let executed = self.functions.resources().iter();
        required.extend(executed.map(|function| (Permission::Execute, function.clone())));
        required
    }

    fn required_on_tables(&self) -> RequiredPermissions {
        match &self.kind {
            PreparedKind::Select(select) if is_readable_by_all(&select.table) => SmallVec::new(),
            PreparedKind::Select(select) => smallvec![(Permission::Select, table(&select.table))],
            PreparedKind::Modification(modification) => of_modification(modification),
            PreparedKind::Batch(batch) => {
                let statements = batch.statements.iter();
                let mut all: RequiredPermissions = statements
                    .flat_map(|statement| of_modification(statement))
                    .collect();
                all.sort_unstable();
                all.dedup();
                all
            }
            PreparedKind::Truncate(truncated) => smallvec![(Permission::Modify, table(truncated))],
            PreparedKind::Use(_) | PreparedKind::Other(_) => SmallVec::new(),
        }
    }
}

/// A view is governed by its base table.
fn table(table: &Table) -> Resource {
    let name = table.view.as_ref().map_or(&table.name, |view| &view.base_name);
    Resource::Table(table.keyspace.clone(), name.clone())
}

/// A condition tells what is stored, so it needs what a SELECT does.
fn of_modification(modification: &PreparedModification) -> RequiredPermissions {
    let resource = table(&modification.table);
    let mut required: RequiredPermissions = smallvec![(Permission::Modify, resource.clone())];
    if modification.is_conditional() {
        required.push((Permission::Select, resource));
    }
    required
}

fn is_readable_by_all(table: &Table) -> bool {
    READABLE_KEYSPACES.contains(&&*table.keyspace)
        || (&*table.keyspace == "system" && READABLE_TABLES.contains(&&*table.name))
}
