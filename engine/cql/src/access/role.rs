//! One role.

use std::collections::BTreeSet;
use std::sync::Arc;

/// A role, without its name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Role {
    /// May log in.
    pub can_login: bool,
    /// May do everything.
    pub is_superuser: bool,
    /// bcrypt hash of its password; none: no password lets it in.
    pub salted_hash: Option<Arc<str>>,
    /// Roles that are granted to it.
    pub member_of: BTreeSet<Arc<str>>,
    /// Datacenters where it may log in; None: in all.
    pub datacenters: Option<BTreeSet<Arc<str>>>,
    /// The service level that is attached to it.
    pub service_level: Option<Arc<str>>,
}
