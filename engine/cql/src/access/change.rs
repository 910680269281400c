//! Statements that change who may do what.

use super::{AccessControl, Performer, PermissionSet, Resource, Role, ServiceLevel};
use crate::CqlError;
use crate::ast::{self, DatacenterAccess, Permission, Statement};
use ceto_model::Schema;
use std::sync::Arc;

/// What holds for a node as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AccessRules {
    /// Clients have to log in with the password of a role (`authenticator`).
    pub requires_login: bool,
    /// Permissions are asked for (`authorizer`).
    pub authorizes: bool,
}

/// One statement that changes who may do what, ready to be applied.
#[derive(Clone, Debug)]
pub struct AccessChange {
    statement: Statement,
    session_keyspace: Option<Arc<str>>,
}

/// bcrypt hashes: `$2a$`, rounds, `$`, 53 characters.
const HASH_LENGTH: usize = 60;

impl AccessChange {
    /// The change that `statement` asks for; None when it is about something else.
    pub fn prepare(
        statement: &Statement,
        session_keyspace: Option<&str>,
    ) -> Option<Result<AccessChange, CqlError>> {
        match statement {
            Statement::CreateRole(create) => {
                if create.name.is_empty() {
                    return Some(Err(CqlError::invalid("Role name can't be an empty string")));
                }
            }
            Statement::AlterRole(alter) => {
                if alter.options == ast::RoleOptions::default() {
                    return Some(Err(CqlError::invalid("ALTER [ROLE|USER] can't be empty")));
                }
            }
            Statement::CreateServiceLevel(level) | Statement::AlterServiceLevel(level) => {
                if let Err(error) = ServiceLevel::default().with(&level.properties.0) {
                    return Some(Err(error));
                }
            }
            Statement::DropRole(_)
            | Statement::GrantRole(_)
            | Statement::RevokeRole(_)
            | Statement::GrantPermissions(_)
            | Statement::RevokePermissions(_)
            | Statement::DropServiceLevel(_)
            | Statement::AttachServiceLevel(_)
            | Statement::DetachServiceLevel(_) => {}
            _ => return None,
        }
        Some(Ok(AccessChange {
            statement: statement.clone(),
            session_keyspace: session_keyspace.map(Arc::from),
        }))
    }

    /// The password that has to be hashed before the change is applied.
    pub fn password(&self) -> Option<&str> {
        match &self.statement {
            Statement::CreateRole(create) => create.options.password.as_deref(),
            Statement::AlterRole(alter) => alter.options.password.as_deref(),
            _ => None,
        }
    }

    /// The same change with the hash of its password instead.
    #[must_use]
    pub fn with_hash(mut self, hash: &str) -> AccessChange {
        let options = match &mut self.statement {
            Statement::CreateRole(create) => &mut create.options,
            Statement::AlterRole(alter) => &mut alter.options,
            _ => return self,
        };
        options.password = None;
        options.hashed_password = Some(hash.into());
        self
    }

    /// Refuses a change that `apply` would refuse.
    ///
    /// # Errors
    /// As [`AccessChange::apply`].
    pub fn check(&self, performer: &Performer, schema: &Schema, datacenter: &str) -> Result<(), CqlError> {
        self.apply(performer, schema, datacenter).map(drop)
    }

    /// What holds after the change; None when IF EXISTS or IF NOT EXISTS leaves nothing to do. `datacenter`: the only
    /// one there is.
    ///
    /// # Errors
    /// `Unauthorized` for who may not, `Invalid` for what is not there or not possible; Cassandra's texts.
    pub fn apply(
        &self,
        performer: &Performer,
        schema: &Schema,
        datacenter: &str,
    ) -> Result<Option<AccessControl>, CqlError> {
        performer.named()?;
        let step = Step {
            performer,
            before: performer.access(),
            schema,
            session_keyspace: self.session_keyspace.as_deref(),
            datacenter,
        };
        match &self.statement {
            Statement::CreateRole(create) => step.create_role(create),
            Statement::AlterRole(alter) => step.alter_role(alter),
            Statement::DropRole(drop) => step.drop_role(drop),
            Statement::GrantRole(grant) => step.grant_role(grant).map(Some),
            Statement::RevokeRole(revoke) => step.revoke_role(revoke).map(Some),
            Statement::GrantPermissions(grant) => step.grant_permissions(grant).map(Some),
            Statement::RevokePermissions(revoke) => step.revoke_permissions(revoke).map(Some),
            Statement::CreateServiceLevel(level) => step.create_service_level(level),
            Statement::AlterServiceLevel(level) => step.alter_service_level(level).map(Some),
            Statement::DropServiceLevel(drop) => step.drop_service_level(drop),
            Statement::AttachServiceLevel(attach) => step.attach(attach).map(Some),
            Statement::DetachServiceLevel(role) => step.detach(role).map(Some),
            _ => Ok(None),
        }
    }
}

impl AccessControl {
    /// What holds after a schema change to `next` that gave some resources other names, and made `created` on behalf of
    /// `creator`: who makes something may do everything with it, and what is gone is nobody's. None when nothing changes.
    pub fn after_schema_change(
        &self,
        next: &Schema,
        renamed: &[(Resource, Resource)],
        created: Vec<Resource>,
        creator: Option<&Arc<str>>,
    ) -> Option<AccessControl> {
        let mut after = self.clone();
        after.rename(renamed);
        after.revoke_where(|resource| !resource.is_in(next));
        if let Some(creator) = creator.filter(|creator| self.roles.contains_key(*creator)) {
            for resource in created {
                let permissions = resource.applicable_permissions();
                after.grant(creator, resource, permissions);
            }
        }
        (after != *self).then_some(after)
    }
}

struct Step<'a> {
    performer: &'a Performer,
    before: &'a AccessControl,
    schema: &'a Schema,
    session_keyspace: Option<&'a str>,
    datacenter: &'a str,
}

type After = Result<AccessControl, CqlError>;
type MaybeAfter = Result<Option<AccessControl>, CqlError>;

impl Step<'_> {
    fn exists(&self, role: &str) -> Result<(), CqlError> {
        if self.before.roles.contains_key(role) {
            return Ok(());
        }
        Err(CqlError::invalid(format!("{role} doesn't exist")))
    }

    /// For statements on roles, whose refusal does not say what is missing.
    fn check_on_role(&self, permission: Permission, resource: &Resource) -> Result<(), CqlError> {
        if self.performer.has(permission, resource) {
            return Ok(());
        }
        Err(CqlError::Unauthorized(format!(
            "{} does not have sufficient privileges to perform the requested operation",
            self.performer.named()?
        )))
    }

    fn check_superuser(&self, refusal: &str) -> Result<(), CqlError> {
        if self.performer.is_superuser() {
            return Ok(());
        }
        Err(CqlError::Unauthorized(refusal.to_owned()))
    }

    fn check_options(&self, options: &ast::RoleOptions) -> Result<(), CqlError> {
        let unsupported = |option: &str| {
            Err(CqlError::invalid(format!(
                "CassandraRoleManager doesn't support {option}"
            )))
        };
        let has_password = options.password.is_some() || options.hashed_password.is_some();
        if has_password && !self.performer.rules().requires_login {
            return unsupported("PASSWORD");
        }
        if options.generated_password {
            return unsupported("GENERATED PASSWORD");
        }
        if options.custom.is_some() {
            return unsupported("OPTIONS");
        }
        if options.cidrs.is_some() {
            return unsupported("ACCESS FROM CIDRS");
        }
        if let Some(hash) = &options.hashed_password
            && !is_hash(hash)
        {
            return Err(CqlError::invalid(
                "Invalid hashed password value. Please use jBcrypt.",
            ));
        }
        if let Some(DatacenterAccess::Only(datacenters)) = &options.datacenters {
            let unknown: Vec<&str> = datacenters
                .iter()
                .map(|name| &**name)
                .filter(|name| *name != self.datacenter)
                .collect();
            if !unknown.is_empty() {
                return Err(CqlError::invalid(format!(
                    "Invalid value(s) for DATACENTERS '{}', All values must be valid datacenters",
                    unknown.join(", ")
                )));
            }
        }
        Ok(())
    }

    fn create_role(&self, create: &ast::CreateRole) -> MaybeAfter {
        self.check_options(&create.options)?;
        let exists = self.before.roles.contains_key(&create.name);
        if exists && !create.if_not_exists {
            return Err(CqlError::invalid(format!("{} already exists", create.name)));
        }
        self.check_on_role(Permission::Create, &Resource::AllRoles)?;
        if create.options.superuser == Some(true) {
            self.check_superuser("Only superusers can create a role with superuser status")?;
        }
        if exists {
            return Ok(None);
        }
        let mut after = self.before.clone();
        let mut role = Role::default();
        set_options(&mut role, &create.options);
        after.roles.insert(create.name.clone(), role);
        if self.performer.rules().authorizes {
            let resource = Resource::Role(create.name.clone());
            let permissions = resource.applicable_permissions();
            after.grant(self.performer.named()?, resource, permissions);
        }
        Ok(Some(after))
    }

    fn alter_role(&self, alter: &ast::AlterRole) -> MaybeAfter {
        self.check_options(&alter.options)?;
        if alter.if_exists && !self.before.roles.contains_key(&alter.name) {
            return Ok(None);
        }
        self.exists(&alter.name)?;
        let performer = self.performer.named()?;
        if alter.options.superuser.is_some() {
            if self.performer.roles().contains(&alter.name) {
                return Err(CqlError::Unauthorized(
                    "You aren't allowed to alter your own superuser status or that of a role granted to you"
                        .to_owned(),
                ));
            }
            self.check_superuser("Only superusers are allowed to alter superuser status")?;
        }
        if !self.performer.is_superuser() {
            if *performer == alter.name {
                // One's own password is one's own.
                let forbidden = match &alter.options {
                    options if options.login.is_some() => Some("LOGIN"),
                    options if options.datacenters.is_some() => Some("DATACENTERS"),
                    _ => None,
                };
                if let Some(option) = forbidden {
                    return Err(CqlError::Unauthorized(format!(
                        "You aren't allowed to alter {option}"
                    )));
                }
            } else {
                self.check_on_role(Permission::Alter, &Resource::Role(alter.name.clone()))?;
            }
        }
        let mut after = self.before.clone();
        if let Some(role) = after.roles.get_mut(&alter.name) {
            set_options(role, &alter.options);
        }
        Ok(Some(after))
    }

    fn drop_role(&self, drop: &ast::DropRole) -> MaybeAfter {
        if !drop.if_exists {
            self.exists(&drop.name)?;
        }
        if *self.performer.named()? == drop.name {
            return Err(CqlError::invalid("Cannot DROP primary role for current login"));
        }
        let resource = Resource::Role(drop.name.clone());
        self.check_on_role(Permission::Drop, &resource)?;
        if self.before.is_superuser(&drop.name) {
            self.check_superuser("Only superusers can drop a role with superuser status")?;
        }
        let mut after = self.before.clone();
        if after.roles.remove(&drop.name).is_none() {
            return Ok(None);
        }
        for role in after.roles.values_mut() {
            role.member_of.remove(&drop.name);
        }
        after.permissions.remove(&drop.name);
        after.revoke_where(|granted| *granted == resource);
        Ok(Some(after))
    }

    fn grant_role(&self, grant: &ast::GrantRole) -> After {
        let (role, grantee) = (&grant.role, &grant.grantee);
        self.exists(role)?;
        self.exists(grantee)?;
        self.check_on_role(Permission::Authorize, &Resource::Role(role.clone()))?;
        let is_member = |member: &Arc<str>, role: &Arc<str>| {
            if self.before.roles_of(member).contains(role) {
                return Err(CqlError::invalid(format!("{member} is a member of {role}")));
            }
            Ok(())
        };
        is_member(grantee, role)?;
        is_member(role, grantee)?;
        let mut after = self.before.clone();
        if let Some(grantee) = after.roles.get_mut(grantee) {
            grantee.member_of.insert(role.clone());
        }
        Ok(after)
    }

    fn revoke_role(&self, revoke: &ast::RevokeRole) -> After {
        let (role, revokee) = (&revoke.role, &revoke.revokee);
        self.exists(role)?;
        self.exists(revokee)?;
        self.check_on_role(Permission::Authorize, &Resource::Role(role.clone()))?;
        let mut after = self.before.clone();
        let member = after.roles.get_mut(revokee);
        if !member.is_some_and(|member| member.member_of.remove(role)) {
            return Err(CqlError::invalid(format!("{revokee} is not a member of {role}")));
        }
        Ok(after)
    }

    /// The resource that a GRANT or REVOKE names, once it is clear that the performer may give or take `permissions` on
    /// it.
    fn resource_of(
        &self,
        verb: &str,
        permissions: &[Permission],
        resource: &ast::Resource,
        role: &str,
    ) -> Result<Resource, CqlError> {
        if !self.performer.rules().authorizes {
            return Err(CqlError::invalid(format!(
                "{verb} operation is not supported by AllowAllAuthorizer"
            )));
        }
        if !self.before.roles.contains_key(role) {
            return Err(CqlError::invalid(format!("Role {role} doesn't exist")));
        }
        let resource = Resource::resolve(resource, self.session_keyspace, self.schema)?;
        let exists = match &resource {
            Resource::Role(role) => self.before.roles.contains_key(role),
            other => other.is_in(self.schema),
        };
        if !exists {
            return Err(CqlError::invalid(format!("Resource {resource} doesn't exist")));
        }
        self.performer.check(Permission::Authorize, &resource)?;
        for permission in permissions {
            self.performer.check(*permission, &resource)?;
        }
        Ok(resource)
    }

    fn grant_permissions(&self, grant: &ast::GrantPermissions) -> After {
        let resource = self.resource_of("GRANT", &grant.permissions, &grant.resource, &grant.grantee)?;
        let permissions: PermissionSet = grant.permissions.iter().copied().collect();
        let mut after = self.before.clone();
        after.grant(&grant.grantee, resource, permissions);
        Ok(after)
    }

    fn revoke_permissions(&self, revoke: &ast::RevokePermissions) -> After {
        let resource = self.resource_of("REVOKE", &revoke.permissions, &revoke.resource, &revoke.revokee)?;
        let mut after = self.before.clone();
        after.revoke(
            &revoke.revokee,
            &resource,
            revoke.permissions.iter().copied().collect(),
        );
        Ok(after)
    }

    fn check_service_levels(&self) -> Result<(), CqlError> {
        self.check_superuser("Only superusers can change service levels")
    }

    fn service_level(&self, name: &str) -> Result<&ServiceLevel, CqlError> {
        let found = self.before.service_levels.get(name);
        found.ok_or_else(|| CqlError::invalid(format!("Service Level {name} doesn't exist.")))
    }

    fn create_service_level(&self, level: &ast::ServiceLevelDefinition) -> MaybeAfter {
        self.check_service_levels()?;
        if self.before.service_levels.contains_key(&level.name) {
            return match level.if_not_exists {
                true => Ok(None),
                false => Err(CqlError::invalid(format!(
                    "Service Level {} already exists.",
                    level.name
                ))),
            };
        }
        let mut after = self.before.clone();
        let created = ServiceLevel::default().with(&level.properties.0)?;
        after.service_levels.insert(level.name.clone(), created);
        Ok(Some(after))
    }

    fn alter_service_level(&self, level: &ast::ServiceLevelDefinition) -> After {
        self.check_service_levels()?;
        let altered = self.service_level(&level.name)?.with(&level.properties.0)?;
        let mut after = self.before.clone();
        after.service_levels.insert(level.name.clone(), altered);
        Ok(after)
    }

    fn drop_service_level(&self, drop: &ast::Drop) -> MaybeAfter {
        self.check_service_levels()?;
        let name = &drop.name.name;
        if drop.if_exists && !self.before.service_levels.contains_key(name) {
            return Ok(None);
        }
        self.service_level(name)?;
        let mut after = self.before.clone();
        after.service_levels.remove(name);
        for role in after.roles.values_mut() {
            if role.service_level.as_ref() == Some(name) {
                role.service_level = None;
            }
        }
        Ok(Some(after))
    }

    fn attach(&self, attach: &ast::AttachServiceLevel) -> After {
        self.check_service_levels()?;
        self.service_level(&attach.service_level)?;
        self.set_service_level(&attach.role, Some(attach.service_level.clone()))
    }

    fn detach(&self, role: &str) -> After {
        self.check_service_levels()?;
        self.set_service_level(role, None)
    }

    fn set_service_level(&self, role: &str, level: Option<Arc<str>>) -> After {
        self.exists(role)?;
        let mut after = self.before.clone();
        if let Some(role) = after.roles.get_mut(role) {
            role.service_level = level;
        }
        Ok(after)
    }
}

fn set_options(role: &mut Role, options: &ast::RoleOptions) {
    if let Some(can_login) = options.login {
        role.can_login = can_login;
    }
    if let Some(is_superuser) = options.superuser {
        role.is_superuser = is_superuser;
    }
    if let Some(hash) = &options.hashed_password {
        role.salted_hash = Some(Arc::from(&**hash));
    }
    match &options.datacenters {
        None => {}
        Some(DatacenterAccess::All) => role.datacenters = None,
        Some(DatacenterAccess::Only(names)) => {
            role.datacenters = Some(names.iter().map(|name| Arc::from(&**name)).collect());
        }
    }
}

/// A bcrypt hash, as this node and Cassandra make them.
fn is_hash(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_version = matches!(bytes, [b'$', b'2', b'a' | b'b' | b'x' | b'y', b'$', ..]);
    let rounds = bytes.get(4..7);
    let is_rounds =
        matches!(rounds, Some([tens, ones, b'$']) if tens.is_ascii_digit() && ones.is_ascii_digit());
    let is_salt = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    bytes.len() == HASH_LENGTH && is_version && is_rounds && bytes[7..].iter().all(is_salt)
}
