//! Who asks for something.

use super::{AccessControl, AccessRules, Resource, ServiceLevel};
use crate::CqlError;
use crate::ast::Permission;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A role, or nobody in particular, with what it may do by one [`AccessControl`].
#[derive(Clone, Debug)]
pub struct Performer {
    access: Arc<AccessControl>,
    rules: AccessRules,
    role: Option<Arc<str>>,
    /// The role and all that is granted to it.
    roles: BTreeSet<Arc<str>>,
    is_superuser: bool,
    service_level: ServiceLevel,
}

impl Performer {
    /// `role`: None when nobody has to log in.
    pub fn new(access: Arc<AccessControl>, rules: AccessRules, role: Option<Arc<str>>) -> Performer {
        let roles = role
            .as_ref()
            .map(|role| access.roles_of(role))
            .unwrap_or_default();
        Performer {
            service_level: role
                .as_ref()
                .map(|role| access.service_level_of(role))
                .unwrap_or_default(),
            is_superuser: roles.iter().any(|role| access.roles[role].is_superuser),
            access,
            rules,
            role,
            roles,
        }
    }

    /// What it is judged by.
    pub fn access(&self) -> &Arc<AccessControl> {
        &self.access
    }

    /// What holds for the whole node.
    pub fn rules(&self) -> AccessRules {
        self.rules
    }

    /// Its role; None for nobody in particular.
    pub fn role(&self) -> Option<&Arc<str>> {
        self.role.as_ref()
    }

    /// Its role and all that is granted to it.
    pub(super) fn roles(&self) -> &BTreeSet<Arc<str>> {
        &self.roles
    }

    /// Its role, or one that is granted to it, is a superuser.
    pub fn is_superuser(&self) -> bool {
        self.is_superuser
    }

    /// The service level of its requests.
    pub fn service_level(&self) -> ServiceLevel {
        self.service_level
    }

    /// May see what is not everybody's to see: a superuser, or anybody where nobody has to log in.
    pub fn sees_everything(&self) -> bool {
        self.is_superuser || !self.rules.requires_login
    }

    /// Its role.
    ///
    /// # Errors
    /// `Unauthorized` for nobody in particular.
    pub(super) fn named(&self) -> Result<&Arc<str>, CqlError> {
        self.role.as_ref().ok_or_else(|| {
            CqlError::Unauthorized(
                "You have to be logged in and not anonymous to perform this request".to_owned(),
            )
        })
    }

    /// Has `permission` on `resource` or on one of its parents.
    pub fn has(&self, permission: Permission, resource: &Resource) -> bool {
        !self.rules.authorizes
            || self.is_superuser
            || self.access.is_granted(&self.roles, permission, resource)
    }

    /// Refuses who has not `permission` on `resource` nor on one of its parents.
    ///
    /// # Errors
    /// `Unauthorized`, naming both.
    pub fn check(&self, permission: Permission, resource: &Resource) -> Result<(), CqlError> {
        if self.has(permission, resource) {
            return Ok(());
        }
        Err(missing_permission(self.role.as_deref(), permission, resource))
    }
}

/// The refusal of somebody who lacks a permission.
pub fn missing_permission(role: Option<&str>, permission: Permission, resource: &Resource) -> CqlError {
    CqlError::Unauthorized(format!(
        "User {} has no {} permission on {resource} or any of its parents",
        role.unwrap_or("anonymous"),
        permission.name()
    ))
}
