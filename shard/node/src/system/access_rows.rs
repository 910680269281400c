//! Roles and what is granted to them as rows of `system_auth`, and back.
//!
//! The tables are Cassandra's, so that what reads them there reads them here. `role_members` and
//! `resource_role_permissons_index` say nothing that the others do not, and are written only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ceto_cql::access::{AccessControl, PermissionSet, Resource, Role, ServiceLevel, WorkloadType};
use ceto_cql::ast::Permission;
use ceto_model::value::Value;
use ceto_model::{DecoratedKey, Mutation, Partition, Schema, Timestamp, UnixSeconds};

use super::definitions::SYSTEM_AUTH;
use super::row::{self, StoredRow, SystemRow, text, text_set};

/// Tables of `system_auth` that [`StoredAccess::build`] reads.
pub const TABLES: [&str; 5] = [
    "roles",
    "role_permissions",
    "network_permissions",
    "role_attributes",
    "service_levels",
];

/// The one attribute of a role.
const SERVICE_LEVEL: &str = "service_level";

fn rows(access: &AccessControl) -> Vec<(&'static str, SystemRow)> {
    let mut rows = Vec::new();
    for (name, role) in &access.roles {
        let names = |names: &BTreeSet<Arc<str>>| text_set(names.iter().map(|name| name.to_string()));
        let salted_hash = role.salted_hash.as_deref().map(text);
        rows.push((
            "roles",
            SystemRow::default()
                .with("role", text(&**name))
                .with("can_login", Value::Boolean(role.can_login))
                .with("is_superuser", Value::Boolean(role.is_superuser))
                .with("member_of", names(&role.member_of))
                .with("salted_hash", salted_hash),
        ));
        rows.extend(role.member_of.iter().map(|granted| {
            let row = SystemRow::default()
                .with("role", text(&**granted))
                .with("member", text(&**name));
            ("role_members", row)
        }));
        if let Some(datacenters) = &role.datacenters {
            let row = SystemRow::default()
                .with("role", text(&**name))
                .with("dcs", names(datacenters));
            rows.push(("network_permissions", row));
        }
        if let Some(level) = &role.service_level {
            let row = SystemRow::default()
                .with("role", text(&**name))
                .with("name", text(SERVICE_LEVEL))
                .with("value", text(&**level));
            rows.push(("role_attributes", row));
        }
    }
    for (role, granted) in &access.permissions {
        for (resource, permissions) in granted {
            let names = permissions.iter().map(|permission| permission.name().to_owned());
            let row = SystemRow::default()
                .with("role", text(&**role))
                .with("resource", text(resource.name()))
                .with("permissions", text_set(names));
            rows.push(("role_permissions", row));
            let row = SystemRow::default()
                .with("resource", text(resource.name()))
                .with("role", text(&**role));
            rows.push(("resource_role_permissons_index", row));
        }
    }
    rows.extend(access.service_levels.iter().map(|(name, level)| {
        let row = SystemRow::default()
            .with("service_level", text(&**name))
            .with("timeout", level.timeout.map(|_| text(level.timeout_text())))
            .with("workload_type", level.workload_type.map(|kind| text(kind.name())));
        ("service_levels", row)
    }));
    rows
}

/// The mutations that turn the stored rows of `old` into those of `new`. `schema` holds the `system_auth` tables.
pub fn difference(
    old: &AccessControl,
    new: &AccessControl,
    schema: &Schema,
    timestamp: Timestamp,
    now: UnixSeconds,
) -> Vec<Mutation> {
    let table = |name: &str| {
        schema
            .table(SYSTEM_AUTH, name)
            .expect("a table of system_auth")
            .clone()
    };
    row::difference(&rows(old), &rows(new), &table, timestamp, now)
}

/// What is stored in `system_auth`: per table of [`TABLES`], its partitions.
#[derive(Default, Debug)]
pub struct StoredAccess(pub BTreeMap<&'static str, Vec<(DecoratedKey, Partition)>>);

impl StoredAccess {
    fn each(&self, schema: &Schema, name: &str, mut row: impl FnMut(&StoredRow<'_>)) {
        let table = schema.table(SYSTEM_AUTH, name).expect("a table of system_auth");
        for (key, partition) in self.0.get(name).into_iter().flatten() {
            for (clustering, content) in &partition.rows {
                if let Some(stored) = StoredRow::new(table, key, clustering, content, UnixSeconds(0)) {
                    row(&stored);
                }
            }
        }
    }

    /// What the rows say. What they name and is not there is left out: a grant to a role that is gone is nobody's.
    pub fn build(&self, schema: &Schema) -> AccessControl {
        let name = |text: String| -> Arc<str> { text.into() };
        let names = |names: Vec<String>| -> BTreeSet<Arc<str>> { names.into_iter().map(name).collect() };
        let mut access = AccessControl::default();
        self.each(schema, "roles", |row| {
            let role = Role {
                can_login: row.boolean("can_login").unwrap_or(false),
                is_superuser: row.boolean("is_superuser").unwrap_or(false),
                salted_hash: Some(row.text("salted_hash"))
                    .filter(|hash| !hash.is_empty())
                    .map(name),
                member_of: row.text_set("member_of").map(names).unwrap_or_default(),
                datacenters: None,
                service_level: None,
            };
            access.roles.insert(name(row.text("role")), role);
        });
        let known: BTreeSet<Arc<str>> = access.roles.keys().cloned().collect();
        for role in access.roles.values_mut() {
            role.member_of.retain(|granted| known.contains(granted));
        }
        self.each(schema, "service_levels", |row| {
            let milliseconds = row.text("timeout");
            let milliseconds = milliseconds.strip_suffix("ms").and_then(|text| text.parse().ok());
            let level = ServiceLevel {
                timeout: milliseconds.map(Duration::from_millis),
                workload_type: WorkloadType::from_name(&row.text("workload_type")),
            };
            access
                .service_levels
                .insert(name(row.text("service_level")), level);
        });
        self.each(schema, "network_permissions", |row| {
            if let Some(role) = access.roles.get_mut(&*row.text("role")) {
                role.datacenters = row.text_set("dcs").map(names);
            }
        });
        self.each(schema, "role_attributes", |row| {
            let level = name(row.text("value"));
            let is_level = row.text("name") == SERVICE_LEVEL && access.service_levels.contains_key(&level);
            if let (Some(role), true) = (access.roles.get_mut(&*row.text("role")), is_level) {
                role.service_level = Some(level);
            }
        });
        self.each(schema, "role_permissions", |row| {
            let role = name(row.text("role"));
            let granted: BTreeSet<String> = row
                .text_set("permissions")
                .unwrap_or_default()
                .into_iter()
                .collect();
            let permissions: PermissionSet = Permission::ALL
                .into_iter()
                .filter(|permission| granted.contains(permission.name()))
                .collect();
            if let (Some(resource), true) =
                (Resource::from_name(&row.text("resource")), known.contains(&role))
            {
                access.grant(&role, resource, permissions);
            }
        });
        access
    }
}
