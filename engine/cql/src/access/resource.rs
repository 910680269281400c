//! What permissions are granted on, by the names under which they are stored, which are Cassandra's.

use crate::CqlError;
use crate::ast::{self, Permission};
use crate::schema_change::types::{TypeScope, resolve_frozen_type};
use ceto_model::schema::shown_type;
use ceto_model::type_text::{marshal_class, parse_marshal_class};
use ceto_model::types::quote_identifier;
use ceto_model::{CqlType, Schema};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What a permission is granted on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Resource {
    /// ALL KEYSPACES
    AllKeyspaces,
    /// KEYSPACE
    Keyspace(Arc<str>),
    /// ALL TABLES IN KEYSPACE
    AllTables(Arc<str>),
    /// TABLE
    Table(Arc<str>, Arc<str>),
    /// ALL ROLES
    AllRoles,
    /// ROLE
    Role(Arc<str>),
    /// ALL FUNCTIONS
    AllFunctions,
    /// ALL FUNCTIONS IN KEYSPACE
    KeyspaceFunctions(Arc<str>),
    /// FUNCTION: keyspace, and `name[type^type]` with the types' marshal classes
    Function(Arc<str>, Arc<str>),
    /// ALL MBEANS
    AllMbeans,
    /// MBEAN
    Mbean(Arc<str>),
}

impl Resource {
    /// The resource that a statement names.
    ///
    /// # Errors
    /// `Invalid` for a table without keyspace, and for types that are unknown.
    pub(super) fn resolve(
        written: &ast::Resource,
        session_keyspace: Option<&str>,
        schema: &Schema,
    ) -> Result<Resource, CqlError> {
        let keyspace_of = |name: &ast::QualifiedName| -> Result<Arc<str>, CqlError> {
            let found = name.keyspace.clone().or_else(|| session_keyspace.map(Arc::from));
            found.ok_or_else(crate::prepare::no_keyspace)
        };
        Ok(match written {
            ast::Resource::AllKeyspaces => Self::AllKeyspaces,
            ast::Resource::Keyspace(name) => Self::Keyspace(name.clone()),
            ast::Resource::AllTables(keyspace) => Self::AllTables(keyspace.clone()),
            ast::Resource::Table(name) => Self::Table(keyspace_of(name)?, name.name.clone()),
            ast::Resource::AllRoles => Self::AllRoles,
            ast::Resource::Role(name) => Self::Role(name.clone()),
            ast::Resource::AllFunctions => Self::AllFunctions,
            ast::Resource::KeyspaceFunctions(keyspace) => Self::KeyspaceFunctions(keyspace.clone()),
            ast::Resource::Function { name, argument_types } => {
                let keyspace = keyspace_of(name)?;
                let none = BTreeMap::new();
                let types = schema
                    .keyspace(&keyspace)
                    .map_or(&none, |keyspace| &keyspace.types);
                let scope = TypeScope {
                    keyspace: &keyspace,
                    types,
                };
                let types: Result<Vec<CqlType>, CqlError> = argument_types
                    .iter()
                    .map(|raw| resolve_frozen_type(raw, scope))
                    .collect();
                Self::function(&keyspace, &name.name, &types?)
            }
            ast::Resource::AllMbeans => Self::AllMbeans,
            ast::Resource::Mbean { name, .. } => Self::Mbean(Arc::from(&**name)),
        })
    }

    /// A user-defined function or aggregate.
    pub fn function(keyspace: &Arc<str>, name: &str, argument_types: &[CqlType]) -> Resource {
        let classes = argument_types
            .iter()
            .map(|cql_type| marshal_class(&cql_type.freeze(), false));
        let signature = format!("{name}[{}]", classes.collect::<Vec<_>>().join("^"));
        Self::Function(keyspace.clone(), signature.into())
    }

    /// What has all that is granted on it granted on this too.
    pub fn parent(&self) -> Option<Resource> {
        Some(match self {
            Self::AllKeyspaces | Self::AllRoles | Self::AllFunctions | Self::AllMbeans => return None,
            Self::Keyspace(_) => Self::AllKeyspaces,
            Self::AllTables(keyspace) => Self::Keyspace(keyspace.clone()),
            Self::Table(keyspace, _) => Self::AllTables(keyspace.clone()),
            Self::Role(_) => Self::AllRoles,
            Self::KeyspaceFunctions(_) => Self::AllFunctions,
            Self::Function(keyspace, _) => Self::KeyspaceFunctions(keyspace.clone()),
            Self::Mbean(_) => Self::AllMbeans,
        })
    }

    /// The name under which it is stored.
    pub fn name(&self) -> String {
        match self {
            Self::AllKeyspaces => "data".to_owned(),
            Self::Keyspace(keyspace) => format!("data/{keyspace}"),
            Self::AllTables(keyspace) => format!("data/{keyspace}/*"),
            Self::Table(keyspace, table) => format!("data/{keyspace}/{table}"),
            Self::AllRoles => "roles".to_owned(),
            Self::Role(role) => format!("roles/{role}"),
            Self::AllFunctions => "functions".to_owned(),
            Self::KeyspaceFunctions(keyspace) => format!("functions/{keyspace}"),
            Self::Function(keyspace, signature) => format!("functions/{keyspace}/{signature}"),
            Self::AllMbeans => "mbean".to_owned(),
            Self::Mbean(name) => format!("mbean/{name}"),
        }
    }

    /// The opposite of [`Resource::name`].
    pub fn from_name(name: &str) -> Option<Resource> {
        let (root, rest) = match name.split_once('/') {
            Some((root, rest)) => (root, Some(rest)),
            None => (name, None),
        };
        Some(match (root, rest) {
            ("data", None) => Self::AllKeyspaces,
            ("data", Some(rest)) => match rest.split_once('/') {
                None => Self::Keyspace(rest.into()),
                Some((keyspace, "*")) => Self::AllTables(keyspace.into()),
                Some((keyspace, table)) => Self::Table(keyspace.into(), table.into()),
            },
            ("roles", None) => Self::AllRoles,
            ("roles", Some(role)) => Self::Role(role.into()),
            ("functions", None) => Self::AllFunctions,
            ("functions", Some(rest)) => match rest.split_once('/') {
                None => Self::KeyspaceFunctions(rest.into()),
                Some((keyspace, signature)) => Self::Function(keyspace.into(), signature.into()),
            },
            ("mbean", None) => Self::AllMbeans,
            ("mbean", Some(name)) => Self::Mbean(name.into()),
            _ => return None,
        })
    }

    /// The permissions that mean something on it.
    pub fn applicable_permissions(&self) -> PermissionSet {
        let nothing = || Arc::from("");
        let written = match self {
            Self::AllKeyspaces | Self::Keyspace(_) | Self::AllTables(_) => ast::Resource::AllKeyspaces,
            Self::Table(..) => ast::Resource::Table(ast::QualifiedName {
                keyspace: None,
                name: nothing(),
            }),
            Self::AllRoles => ast::Resource::AllRoles,
            Self::Role(_) => ast::Resource::Role(nothing()),
            Self::AllFunctions | Self::KeyspaceFunctions(_) => ast::Resource::AllFunctions,
            Self::Function(..) => ast::Resource::Function {
                name: ast::QualifiedName {
                    keyspace: None,
                    name: nothing(),
                },
                argument_types: Vec::new(),
            },
            Self::AllMbeans | Self::Mbean(_) => ast::Resource::AllMbeans,
        };
        written.applicable_permissions().iter().copied().collect()
    }

    /// Present in `schema`; roles and MBeans are not asked here.
    pub(super) fn is_in(&self, schema: &Schema) -> bool {
        match self {
            Self::Keyspace(keyspace) | Self::AllTables(keyspace) | Self::KeyspaceFunctions(keyspace) => {
                schema.keyspace(keyspace).is_some()
            }
            Self::Table(keyspace, table) => schema.table(keyspace, table).is_some(),
            Self::Function(name, _) => schema.keyspace(name).is_some_and(|keyspace| {
                let functions = keyspace.functions.functions();
                let functions = functions.map(|one| Self::function(name, &one.name, &one.argument_types));
                let aggregates = keyspace.functions.aggregates();
                let aggregates = aggregates.map(|one| Self::function(name, &one.name, &one.argument_types));
                functions.chain(aggregates).any(|resource| resource == *self)
            }),
            _ => true,
        }
    }

    /// As GRANT takes it.
    pub(super) fn cql_text(&self) -> String {
        let quote = |name: &Arc<str>| quote_identifier(name);
        match self {
            Self::AllKeyspaces => "ALL KEYSPACES".to_owned(),
            Self::Keyspace(keyspace) => format!("KEYSPACE {}", quote(keyspace)),
            Self::AllTables(keyspace) => format!("ALL TABLES IN KEYSPACE {}", quote(keyspace)),
            Self::Table(keyspace, table) => format!("{}.{}", quote(keyspace), quote(table)),
            Self::AllRoles => "ALL ROLES".to_owned(),
            Self::Role(role) => format!("ROLE {}", quote(role)),
            Self::AllFunctions => "ALL FUNCTIONS".to_owned(),
            Self::KeyspaceFunctions(keyspace) => format!("ALL FUNCTIONS IN KEYSPACE {}", quote(keyspace)),
            Self::Function(keyspace, signature) => {
                let (name, types) = cql_signature(signature);
                format!("FUNCTION {}.{}({types})", quote(keyspace), quote_identifier(name))
            }
            Self::AllMbeans => "ALL MBEANS".to_owned(),
            Self::Mbean(name) => format!("MBEAN '{}'", name.replace('\'', "''")),
        }
    }
}

/// `name[class^class]` as a name and CQL types.
fn cql_signature(signature: &str) -> (&str, String) {
    let (name, classes) = signature
        .strip_suffix(']')
        .and_then(|text| text.rsplit_once('['))
        .unwrap_or((signature, ""));
    let types = classes.split('^').filter(|class| !class.is_empty());
    let text =
        |class: &str| parse_marshal_class(class).map_or(class.to_owned(), |(found, _)| shown_type(&found));
    (name, types.map(text).collect::<Vec<_>>().join(", "))
}

/// As errors and LIST show it.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllKeyspaces => f.write_str("<all keyspaces>"),
            Self::Keyspace(keyspace) => write!(f, "<keyspace {keyspace}>"),
            Self::AllTables(keyspace) => write!(f, "<all tables in {keyspace}>"),
            Self::Table(keyspace, table) => write!(f, "<table {keyspace}.{table}>"),
            Self::AllRoles => f.write_str("<all roles>"),
            Self::Role(role) => write!(f, "<role {role}>"),
            Self::AllFunctions => f.write_str("<all functions>"),
            Self::KeyspaceFunctions(keyspace) => write!(f, "<all functions in {keyspace}>"),
            Self::Function(keyspace, signature) => {
                let (name, types) = cql_signature(signature);
                write!(f, "<function {keyspace}.{name}({types})>")
            }
            Self::AllMbeans => f.write_str("<all mbeans>"),
            Self::Mbean(name) => write!(f, "<mbean {name}>"),
        }
    }
}

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct PermissionSet(u16);

impl PermissionSet {
    /// Has it.
    pub fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u16) != 0
    }

    /// Has none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds those of `other`.
    pub fn add(&mut self, other: PermissionSet) {
        self.0 |= other.0;
    }

    /// Removes those of `other`.
    pub fn remove(&mut self, other: PermissionSet) {
        self.0 &= !other.0;
    }

    /// In the order in which LIST prints them.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL
            .into_iter()
            .filter(move |permission| self.contains(*permission))
    }
}

impl FromIterator<Permission> for PermissionSet {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(
            permissions
                .into_iter()
                .fold(0, |set, permission| set | 1 << permission as u16),
        )
    }
}

impl fmt::Debug for PermissionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
