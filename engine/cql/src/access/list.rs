//! LIST: what roles, permissions and service levels there are.

use super::{AccessControl, Performer, Resource, Role};
use crate::ast::{self, ListServiceLevels, Permission, Statement};
use crate::describe::DescribeRows;
use crate::{ColumnSpecification, CqlError};
use bytes::Bytes;
use ceto_model::value::Value;
use ceto_model::{CqlType, Schema};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A LIST statement.
#[derive(Clone, Debug)]
pub struct AccessQuery {
    statement: Statement,
    session_keyspace: Option<Arc<str>>,
}

impl AccessQuery {
    /// None when `statement` is no LIST.
    pub fn prepare(statement: &Statement, session_keyspace: Option<&str>) -> Option<AccessQuery> {
        matches!(
            statement,
            Statement::ListRoles(_)
                | Statement::ListUsers
                | Statement::ListSuperusers
                | Statement::ListPermissions(_)
                | Statement::ListServiceLevels(_)
        )
        .then(|| AccessQuery {
            statement: statement.clone(),
            session_keyspace: session_keyspace.map(Arc::from),
        })
    }

    /// All rows, by what `performer` may see; None for the answer without rows that Cassandra gives to some questions.
    ///
    /// # Errors
    /// `Unauthorized` for who may not ask, `Invalid` for what is not there.
    pub fn rows(&self, performer: &Performer, schema: &Schema) -> Result<Option<DescribeRows>, CqlError> {
        performer.named()?;
        match &self.statement {
            Statement::ListRoles(list) => roles(list, performer),
            Statement::ListUsers => Ok(Some(users(performer.access()))),
            Statement::ListSuperusers => superusers(performer),
            Statement::ListPermissions(list) => self.permissions(list, performer, schema),
            Statement::ListServiceLevels(list) => service_levels(list, performer.access()).map(Some),
            _ => Ok(None),
        }
    }

    fn permissions(
        &self,
        list: &ast::ListPermissions,
        performer: &Performer,
        schema: &Schema,
    ) -> Result<Option<DescribeRows>, CqlError> {
        let access = performer.access();
        if !performer.rules().authorizes {
            return Err(CqlError::invalid(
                "LIST PERMISSIONS operation is not supported by AllowAllAuthorizer",
            ));
        }
        let mut resources: Option<BTreeSet<Resource>> = None;
        if let Some(written) = &list.resource {
            let resource = Resource::resolve(written, self.session_keyspace.as_deref(), schema)?;
            let exists = match &resource {
                Resource::Role(role) => access.roles.contains_key(role),
                other => other.is_in(schema),
            };
            if !exists {
                return Err(CqlError::invalid(format!("{resource} doesn't exist")));
            }
            let mut chain = BTreeSet::new();
            let mut next = Some(resource);
            while let Some(resource) = next {
                next = resource.parent().filter(|_| list.recursive);
                chain.insert(resource);
            }
            resources = Some(chain);
        }
        if let Some(grantee) = &list.grantee
            && !access.roles.contains_key(grantee)
        {
            return Err(CqlError::invalid(format!("<role {grantee}> doesn't exist")));
        }
        let is_own = list
            .grantee
            .as_ref()
            .is_some_and(|grantee| performer.roles().contains(grantee));
        if !(performer.is_superuser() || is_own) {
            let whose = list.grantee.as_deref().unwrap_or("everyone");
            return Err(CqlError::Unauthorized(format!(
                "You are not authorized to view {whose}'s permissions"
            )));
        }
        let grantees = list.grantee.as_ref().map(|grantee| access.roles_of(grantee));
        let mut rows = Vec::new();
        for (role, granted) in &access.permissions {
            if grantees.as_ref().is_some_and(|grantees| !grantees.contains(role)) {
                continue;
            }
            for (resource, permissions) in granted {
                if resources
                    .as_ref()
                    .is_some_and(|resources| !resources.contains(resource))
                {
                    continue;
                }
                let wanted = permissions
                    .iter()
                    .filter(|permission| list.permissions.contains(permission));
                rows.extend(wanted.map(|permission| {
                    let cells = [
                        role.to_string(),
                        role.to_string(),
                        resource.to_string(),
                        permission.name().to_owned(),
                    ];
                    cells.map(|cell| Some(Bytes::from(cell))).to_vec()
                }));
            }
        }
        let columns = ["role", "username", "resource", "permission"];
        let columns = columns.map(|name| column("permissions", name, CqlType::Text));
        Ok((!rows.is_empty()).then(|| DescribeRows {
            columns: columns.to_vec(),
            rows,
        }))
    }
}

fn column(table: &str, name: &str, cql_type: CqlType) -> ColumnSpecification {
    ColumnSpecification {
        keyspace: "system_auth".into(),
        table: table.into(),
        name: name.into(),
        cql_type,
    }
}

fn boolean(value: bool) -> Option<Bytes> {
    Some(Bytes::from_static(if value { &[1] } else { &[0] }))
}

fn text(value: impl Into<String>) -> Option<Bytes> {
    Some(Bytes::from(value.into()))
}

/// Where a role may log in.
fn datacenters(role: &Role) -> String {
    match &role.datacenters {
        _ if !role.can_login => "n/a".to_owned(),
        None => "ALL".to_owned(),
        Some(names) => names.iter().map(|name| &**name).collect::<Vec<_>>().join(", "),
    }
}

fn roles(list: &ast::ListRoles, performer: &Performer) -> Result<Option<DescribeRows>, CqlError> {
    let access = performer.access();
    if let Some(grantee) = &list.grantee
        && !access.roles.contains_key(grantee)
    {
        return Err(CqlError::invalid(format!("<role {grantee}> doesn't exist")));
    }
    let may_see_all = performer.has(Permission::Describe, &Resource::AllRoles);
    let whose = match &list.grantee {
        None if may_see_all => None,
        None => Some(performer.named()?),
        Some(grantee) if may_see_all || performer.roles().contains(grantee) => Some(grantee),
        Some(grantee) => {
            return Err(CqlError::Unauthorized(format!(
                "You are not authorized to view roles granted to {grantee} "
            )));
        }
    };
    let names: BTreeSet<Arc<str>> = match whose {
        None => access.roles.keys().cloned().collect(),
        Some(role) if list.recursive => access.roles_of(role),
        Some(role) => {
            let direct = access.roles.get(role).into_iter();
            direct
                .flat_map(|role| role.member_of.iter().cloned())
                .chain([role.clone()])
                .collect()
        }
    };
    let options = CqlType::Map {
        key: Arc::new(CqlType::Text),
        value: Arc::new(CqlType::Text),
        frozen: true,
    };
    let no_options = Value::Map(Vec::new())
        .to_wire(&options)
        .map_err(|error| CqlError::invalid(error.to_string()))?;
    let no_options = Bytes::from(no_options);
    let found = names
        .iter()
        .filter_map(|name| access.roles.get(name).map(|role| (name, role)));
    let rows = found.map(|(name, role)| {
        vec![
            text(&**name),
            boolean(role.is_superuser),
            boolean(role.can_login),
            Some(no_options.clone()),
            text(datacenters(role)),
        ]
    });
    Ok(Some(DescribeRows {
        rows: rows.collect(),
        columns: vec![
            column("roles", "role", CqlType::Text),
            column("roles", "super", CqlType::Boolean),
            column("roles", "login", CqlType::Boolean),
            column("roles", "options", options),
            column("roles", "datacenters", CqlType::Text),
        ],
    }))
}

/// Roles that may log in, as LIST USERS shows them.
fn users(access: &AccessControl) -> DescribeRows {
    let users = access.roles.iter().filter(|(_, role)| role.can_login);
    let row = |(name, role): (&Arc<str>, &Role)| {
        let is_superuser = access.is_superuser(name);
        vec![text(&**name), boolean(is_superuser), text(datacenters(role))]
    };
    DescribeRows {
        rows: users.map(row).collect(),
        columns: vec![
            column("users", "name", CqlType::Text),
            column("users", "super", CqlType::Boolean),
            column("users", "datacenters", CqlType::Text),
        ],
    }
}

fn superusers(performer: &Performer) -> Result<Option<DescribeRows>, CqlError> {
    let access = performer.access();
    if !performer.has(Permission::Describe, &Resource::AllRoles) {
        return Err(CqlError::Unauthorized(
            "You are not authorized to view superuser details".to_owned(),
        ));
    }
    let names = access.roles.keys().filter(|name| access.is_superuser(name));
    Ok(Some(DescribeRows {
        rows: names.map(|name| vec![text(&**name)]).collect(),
        columns: vec![column("roles", "role", CqlType::Text)],
    }))
}

fn service_levels(list: &ListServiceLevels, access: &AccessControl) -> Result<DescribeRows, CqlError> {
    let column = |name: &str| column("service_levels", name, CqlType::Text);
    let is_level = matches!(list, ListServiceLevels::All | ListServiceLevels::One(_));
    if is_level {
        let levels = access
            .service_levels
            .iter()
            .filter(|(name, _)| !matches!(list, ListServiceLevels::One(one) if one != *name));
        let rows: Vec<_> = levels
            .map(|(name, level)| {
                vec![
                    text(&**name),
                    level.timeout.and_then(|_| text(level.timeout_text())),
                    level.workload_type.and_then(|kind| text(kind.name())),
                ]
            })
            .collect();
        if let (ListServiceLevels::One(name), true) = (list, rows.is_empty()) {
            return Err(CqlError::invalid(format!("Service Level {name} doesn't exist.")));
        }
        return Ok(DescribeRows {
            columns: ["service_level", "timeout", "workload_type"].map(column).to_vec(),
            rows,
        });
    }
    if let ListServiceLevels::AttachedTo(role) = list
        && !access.roles.contains_key(role)
    {
        return Err(CqlError::invalid(format!("{role} doesn't exist")));
    }
    let attached = access.roles.iter().filter_map(|(name, role)| {
        let is_asked = !matches!(list, ListServiceLevels::AttachedTo(one) if one != name);
        let level = role.service_level.as_ref().filter(|_| is_asked)?;
        Some(vec![text(&**name), text(&**level)])
    });
    Ok(DescribeRows {
        columns: ["role", "service_level"].map(column).to_vec(),
        rows: attached.collect(),
    })
}
