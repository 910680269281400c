//! Who may do what: roles, what is granted to them, and the statements that ask and change it.
//!
//! [`AccessControl`] is a value, as the schema is: a change makes the next one of it, and every shard decides by the
//! one it has, without a question to anybody. So a permission holds from the answer to GRANT on, and there is no cache
//! of permissions with a validity.
//!
//! Invariants:
//! - Nothing here knows a password: a change that sets one is given its hash.
//! - A role never is a member of itself, over however many others.
//! - No permission outlives its role or its resource.
//!
//! Read next: `resource` for what permissions are granted on, `change` and `list` for the statements, `required` for
//! what statements on data and schema need.

mod change;
mod describe;
mod list;
mod performer;
mod required;
mod resource;
mod role;
mod service_level;
#[cfg(test)]
mod tests;

pub use change::{AccessChange, AccessRules};
pub use describe::{AccessElement, access_elements};
pub use list::AccessQuery;
pub use performer::{Performer, missing_permission};
pub use required::RequiredPermissions;
pub use resource::{PermissionSet, Resource};
pub use role::Role;
pub use service_level::{ServiceLevel, WorkloadType};

use crate::ast::Permission;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All roles, what is granted to them, and the service levels.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AccessControl {
    /// By name.
    pub roles: BTreeMap<Arc<str>, Role>,
    /// What is granted to each role itself; no entry is empty.
    pub permissions: BTreeMap<Arc<str>, BTreeMap<Resource, PermissionSet>>,
    /// By name.
    pub service_levels: BTreeMap<Arc<str>, ServiceLevel>,
}

impl AccessControl {
    /// `role` and all that is granted to it, directly or not; empty when there is no such role.
    pub fn roles_of(&self, role: &str) -> BTreeSet<Arc<str>> {
        let mut found = BTreeSet::new();
        let mut open: Vec<Arc<str>> = vec![role.into()];
        while let Some(name) = open.pop() {
            if let Some(role) = self.roles.get(&name)
                && found.insert(name)
            {
                open.extend(role.member_of.iter().cloned());
            }
        }
        found
    }

    /// The role, or one that is granted to it, is a superuser.
    pub fn is_superuser(&self, role: &str) -> bool {
        let roles = self.roles_of(role);
        roles.iter().any(|name| self.roles[name].is_superuser)
    }

    /// What is granted to `role` itself on `resource` itself.
    fn granted(&self, role: &str, resource: &Resource) -> PermissionSet {
        let of_role = self.permissions.get(role);
        of_role
            .and_then(|granted| granted.get(resource))
            .copied()
            .unwrap_or_default()
    }

    /// One of `roles` has `permission` on `resource` or on one of its parents.
    fn is_granted(&self, roles: &BTreeSet<Arc<str>>, permission: Permission, resource: &Resource) -> bool {
        let mut next = Some(resource.clone());
        while let Some(resource) = next {
            let is_granted = |role: &Arc<str>| self.granted(role, &resource).contains(permission);
            if roles.iter().any(is_granted) {
                return true;
            }
            next = resource.parent();
        }
        false
    }

    /// Adds permissions.
    pub fn grant(&mut self, role: &Arc<str>, resource: Resource, permissions: PermissionSet) {
        if !permissions.is_empty() {
            let granted = self.permissions.entry(role.clone()).or_default();
            granted.entry(resource).or_default().add(permissions);
        }
    }

    /// Takes permissions away.
    fn revoke(&mut self, role: &str, resource: &Resource, permissions: PermissionSet) {
        let Some(granted) = self.permissions.get_mut(role) else {
            return;
        };
        if let Some(set) = granted.get_mut(resource) {
            set.remove(permissions);
            if set.is_empty() {
                granted.remove(resource);
            }
        }
        if granted.is_empty() {
            self.permissions.remove(role);
        }
    }

    /// Everything that is granted on resources that `is_gone` says are no more.
    fn revoke_where(&mut self, is_gone: impl Fn(&Resource) -> bool) {
        for granted in self.permissions.values_mut() {
            granted.retain(|resource, _| !is_gone(resource));
        }
        self.permissions.retain(|_, granted| !granted.is_empty());
    }

    /// What is granted on a resource whose name has changed, under its new name. Pairs of old and new names.
    fn rename(&mut self, renamed: &[(Resource, Resource)]) {
        for granted in self.permissions.values_mut() {
            for (old, new) in renamed {
                if let Some(permissions) = granted.remove(old) {
                    granted.entry(new.clone()).or_default().add(permissions);
                }
            }
        }
    }

    /// The service level of `role`: the strictest of those that are attached to it or to what is granted to it, option by
    /// option.
    pub fn service_level_of(&self, role: &str) -> ServiceLevel {
        let roles = self.roles_of(role);
        let attached = roles
            .iter()
            .filter_map(|name| self.roles[name].service_level.as_ref());
        let levels = attached.filter_map(|level| self.service_levels.get(level));
        levels.fold(ServiceLevel::default(), |strictest, level| {
            strictest.or_stricter(level)
        })
    }
}
