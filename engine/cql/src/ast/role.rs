//! Roles, users, identities and permissions.

use super::{Name, QualifiedName, RawType};

/// `CREATE ROLE` or `CREATE USER`
#[derive(Clone, PartialEq, Debug)]
pub struct CreateRole {
    /// Written as USER.
    pub is_user: bool,
    /// Its name.
    pub name: Name,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// LOGIN and SUPERUSER are always set: to false when not written, but CREATE USER sets LOGIN.
    pub options: RoleOptions,
}

/// `ALTER ROLE` or `ALTER USER`
#[derive(Clone, PartialEq, Debug)]
pub struct AlterRole {
    /// Written as USER.
    pub is_user: bool,
    /// Its name.
    pub name: Name,
    /// IF EXISTS
    pub if_exists: bool,
    /// Only what was written.
    pub options: RoleOptions,
}

/// Options of a role; None means not written. At most one of the three password options is set.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RoleOptions {
    /// PASSWORD = 'text'
    pub password: Option<Box<str>>,
    /// HASHED PASSWORD = 'bcrypt hash'
    pub hashed_password: Option<Box<str>>,
    /// GENERATED PASSWORD
    pub generated_password: bool,
    /// SUPERUSER = true | false
    pub superuser: Option<bool>,
    /// LOGIN = true | false
    pub login: Option<bool>,
    /// OPTIONS = {..}: for the role manager.
    pub custom: Option<Vec<(Box<str>, Box<str>)>>,
    /// ACCESS TO ..
    pub datacenters: Option<DatacenterAccess>,
    /// ACCESS FROM ..
    pub cidrs: Option<CidrAccess>,
}

/// Datacenters where a role may log in.
#[derive(Clone, PartialEq, Debug)]
pub enum DatacenterAccess {
    /// ALL DATACENTERS
    All,
    /// DATACENTERS {'a', 'b'}, at least one.
    Only(Vec<Box<str>>),
}

/// CIDR groups from which a role may log in.
#[derive(Clone, PartialEq, Debug)]
pub enum CidrAccess {
    /// ALL CIDRS
    All,
    /// CIDRS {'a', 'b'}, at least one.
    Only(Vec<Box<str>>),
}

/// `DROP ROLE` or `DROP USER`
#[derive(Clone, PartialEq, Debug)]
pub struct DropRole {
    /// Written as USER.
    pub is_user: bool,
    /// Its name.
    pub name: Name,
    /// IF EXISTS
    pub if_exists: bool,
}

/// `GRANT role TO grantee`
#[derive(Clone, PartialEq, Debug)]
pub struct GrantRole {
    /// The role granted.
    pub role: Name,
    /// Who gets it.
    pub grantee: Name,
}

/// `REVOKE role FROM revokee`
#[derive(Clone, PartialEq, Debug)]
pub struct RevokeRole {
    /// The role revoked.
    pub role: Name,
    /// Who loses it.
    pub revokee: Name,
}

/// `GRANT permissions ON resource TO grantee`
#[derive(Clone, PartialEq, Debug)]
pub struct GrantPermissions {
    /// At least one; all of them apply to the resource; each once.
    pub permissions: Vec<Permission>,
    /// On what.
    pub resource: Resource,
    /// To whom.
    pub grantee: Name,
}

/// `REVOKE permissions ON resource FROM revokee`
#[derive(Clone, PartialEq, Debug)]
pub struct RevokePermissions {
    /// At least one; all of them apply to the resource; each once.
    pub permissions: Vec<Permission>,
    /// On what.
    pub resource: Resource,
    /// From whom.
    pub revokee: Name,
}

/// `LIST permissions [ON resource] [OF role] [NORECURSIVE]`
#[derive(Clone, PartialEq, Debug)]
pub struct ListPermissions {
    /// At least one; each once.
    pub permissions: Vec<Permission>,
    /// ON
    pub resource: Option<Resource>,
    /// OF
    pub grantee: Option<Name>,
    /// False after NORECURSIVE.
    pub recursive: bool,
}

/// `LIST ROLES [OF role] [NORECURSIVE]`
#[derive(Clone, PartialEq, Debug)]
pub struct ListRoles {
    /// OF
    pub grantee: Option<Name>,
    /// False after NORECURSIVE.
    pub recursive: bool,
}

/// `ADD IDENTITY 'identity' TO ROLE 'role'`
#[derive(Clone, PartialEq, Debug)]
pub struct AddIdentity {
    /// The identity of a certificate.
    pub identity: Box<str>,
    /// The role it logs in as.
    pub role: Name,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
}

/// `DROP IDENTITY 'identity'`
#[derive(Clone, PartialEq, Debug)]
pub struct DropIdentity {
    /// The identity of a certificate.
    pub identity: Box<str>,
    /// IF EXISTS
    pub if_exists: bool,
}

/// What a role may do to a [`Resource`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub enum Permission {
    Create,
    Alter,
    Drop,
    Select,
    Modify,
    Authorize,
    Describe,
    Execute,
    Unmask,
    SelectMasked,
}

impl Permission {
    /// Every permission, in the order in which LIST prints them.
    pub const ALL: [Permission; 10] = [
        Self::Create,
        Self::Alter,
        Self::Drop,
        Self::Select,
        Self::Modify,
        Self::Authorize,
        Self::Describe,
        Self::Execute,
        Self::Unmask,
        Self::SelectMasked,
    ];

    /// Name as written and stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Alter => "ALTER",
            Self::Drop => "DROP",
            Self::Select => "SELECT",
            Self::Modify => "MODIFY",
            Self::Authorize => "AUTHORIZE",
            Self::Describe => "DESCRIBE",
            Self::Execute => "EXECUTE",
            Self::Unmask => "UNMASK",
            Self::SelectMasked => "SELECT_MASKED",
        }
    }
}

/// What permissions are granted on.
#[derive(Clone, PartialEq, Debug)]
pub enum Resource {
    /// ALL KEYSPACES
    AllKeyspaces,
    /// KEYSPACE name
    Keyspace(Name),
    /// ALL TABLES IN KEYSPACE name
    AllTables(Name),
    /// [TABLE] name
    Table(QualifiedName),
    /// ALL ROLES
    AllRoles,
    /// ROLE name
    Role(Name),
    /// ALL FUNCTIONS
    AllFunctions,
    /// ALL FUNCTIONS IN KEYSPACE name
    KeyspaceFunctions(Name),
    /// FUNCTION name(types)
    Function {
        /// Its name.
        name: QualifiedName,
        /// Maybe none.
        argument_types: Vec<RawType>,
    },
    /// ALL MBEANS
    AllMbeans,
    /// MBEAN 'name' or MBEANS 'pattern'
    Mbean {
        /// MBEANS
        pattern: bool,
        /// The object name, not canonical.
        name: Box<str>,
    },
}

impl Resource {
    /// The permissions that mean something on it.
    pub fn applicable_permissions(&self) -> &'static [Permission] {
        use Permission::*;
        match self {
            Self::AllKeyspaces | Self::Keyspace(_) | Self::AllTables(_) => &[
                Create,
                Alter,
                Drop,
                Select,
                Modify,
                Authorize,
                Unmask,
                SelectMasked,
            ],
            Self::Table(_) => &[Alter, Drop, Select, Modify, Authorize, Unmask, SelectMasked],
            Self::AllRoles => &[Create, Alter, Drop, Authorize, Describe],
            Self::Role(_) => &[Alter, Drop, Authorize],
            Self::AllFunctions | Self::KeyspaceFunctions(_) => &[Create, Alter, Drop, Authorize, Execute],
            Self::Function { .. } => &[Alter, Drop, Authorize, Execute],
            Self::AllMbeans | Self::Mbean { .. } => &[Select, Modify, Authorize, Describe, Execute],
        }
    }

    /// The family of the resource, as error texts name it.
    pub fn family(&self) -> &'static str {
        match self {
            Self::AllKeyspaces | Self::Keyspace(_) | Self::AllTables(_) | Self::Table(_) => "DataResource",
            Self::AllRoles | Self::Role(_) => "RoleResource",
            Self::AllFunctions | Self::KeyspaceFunctions(_) | Self::Function { .. } => "FunctionResource",
            Self::AllMbeans | Self::Mbean { .. } => "JMXResource",
        }
    }
}
