//! Roles, users, identities and permissions.

use super::cursor::{Parse, Parser};
use crate::CqlError;
use crate::ast::{
    AddIdentity, AlterRole, CidrAccess, CreateRole, DatacenterAccess, DropIdentity, DropRole,
    GrantPermissions, GrantRole, ListPermissions, ListRoles, Name, Permission, Resource, RevokePermissions,
    RevokeRole, RoleOptions, Statement,
};
use crate::lexer::{Keyword, TokenKind};

impl Parser<'_> {
    /// After CREATE ROLE.
    pub(super) fn create_role(&mut self) -> Parse<CreateRole> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.role_name()?;
        let mut options = self.optional_role_options()?;
        options.login.get_or_insert(false);
        options.superuser.get_or_insert(false);
        Ok(CreateRole {
            is_user: false,
            name,
            if_not_exists,
            options,
        })
    }

    /// After ALTER ROLE.
    pub(super) fn alter_role(&mut self) -> Parse<AlterRole> {
        let if_exists = self.if_exists()?;
        let name = self.role_name()?;
        Ok(AlterRole {
            is_user: false,
            name,
            if_exists,
            options: self.optional_role_options()?,
        })
    }

    /// After DROP ROLE.
    pub(super) fn drop_role(&mut self) -> Parse<DropRole> {
        let if_exists = self.if_exists()?;
        Ok(DropRole {
            is_user: false,
            name: self.role_name()?,
            if_exists,
        })
    }

    /// After CREATE USER.
    pub(super) fn create_user(&mut self) -> Parse<CreateRole> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.user_name()?;
        let mut options = self.user_options()?;
        options.login = Some(true);
        options.superuser.get_or_insert(false);
        Ok(CreateRole {
            is_user: true,
            name,
            if_not_exists,
            options,
        })
    }

    /// After ALTER USER.
    pub(super) fn alter_user(&mut self) -> Parse<AlterRole> {
        let if_exists = self.if_exists()?;
        let name = self.user_name()?;
        Ok(AlterRole {
            is_user: true,
            name,
            if_exists,
            options: self.user_options()?,
        })
    }

    /// After DROP USER.
    pub(super) fn drop_user(&mut self) -> Parse<DropRole> {
        let if_exists = self.if_exists()?;
        Ok(DropRole {
            is_user: true,
            name: self.user_name()?,
            if_exists,
        })
    }

    /// The name of a user keeps its case, as it did before there were roles.
    fn user_name(&mut self) -> Parse<Name> {
        self.word_or_string(
            "Quoted strings are are not supported for user names and USER is deprecated, please use ROLE",
        )
    }

    /// An identifier as it is, or a string; a quoted name is refused with this text.
    fn word_or_string(&mut self, complaint: &str) -> Parse<Name> {
        match self.kind() {
            TokenKind::Identifier | TokenKind::String | TokenKind::DollarString => {
                let token = self.advance();
                Ok(Name::from(self.unquoted_text(token)))
            }
            TokenKind::QuotedName => Err(CqlError::syntax(complaint)),
            _ => Err(self.no_viable()),
        }
    }

    /// `[WITH PASSWORD 'text'] [SUPERUSER | NOSUPERUSER]`
    fn user_options(&mut self) -> Parse<RoleOptions> {
        let mut options = RoleOptions::default();
        if self.take_keyword(Keyword::With) {
            if self.take_keyword(Keyword::Password) {
                options.password = Some(self.string()?);
            } else if self.take_keyword(Keyword::Hashed) {
                self.expect_keyword(Keyword::Password)?;
                options.hashed_password = Some(self.string()?);
            } else if self.take_keyword(Keyword::Generated) {
                self.expect_keyword(Keyword::Password)?;
                options.generated_password = true;
            } else {
                return Err(self.no_viable());
            }
        }
        if self.take_keyword(Keyword::Superuser) {
            options.superuser = Some(true);
        } else if self.take_keyword(Keyword::Nosuperuser) {
            options.superuser = Some(false);
        }
        Ok(options)
    }

    /// `[WITH option (AND option)*]`
    fn optional_role_options(&mut self) -> Parse<RoleOptions> {
        let mut options = RoleOptions::default();
        if !self.take_keyword(Keyword::With) {
            return Ok(options);
        }
        loop {
            self.role_option(&mut options)?;
            if !self.take_keyword(Keyword::And) {
                break;
            }
        }
        check_passwords(&options)?;
        Ok(options)
    }

    fn role_option(&mut self, options: &mut RoleOptions) -> Parse<()> {
        let TokenKind::Keyword(keyword) = self.kind() else {
            return Err(self.no_viable());
        };
        self.advance();
        match keyword {
            Keyword::Password => {
                self.expect(TokenKind::Equal)?;
                set_once(&mut options.password, self.string()?, "PASSWORD")
            }
            Keyword::Hashed => {
                self.expect_keyword(Keyword::Password)?;
                self.expect(TokenKind::Equal)?;
                set_once(&mut options.hashed_password, self.string()?, "HASHED_PASSWORD")
            }
            Keyword::Generated => {
                self.expect_keyword(Keyword::Password)?;
                options.generated_password = true;
                Ok(())
            }
            Keyword::Options => {
                self.expect(TokenKind::Equal)?;
                set_once(&mut options.custom, self.property_map()?, "OPTIONS")
            }
            Keyword::Superuser => set_once(&mut options.superuser, self.equals_boolean()?, "SUPERUSER"),
            Keyword::Login => set_once(&mut options.login, self.equals_boolean()?, "LOGIN"),
            Keyword::Access => self.access_option(options),
            _ => {
                self.position -= 1;
                Err(self.no_viable())
            }
        }
    }

    /// `= true`, `= false`
    fn equals_boolean(&mut self) -> Parse<bool> {
        self.expect(TokenKind::Equal)?;
        if self.take_keyword(Keyword::True) {
            return Ok(true);
        }
        if self.take_keyword(Keyword::False) {
            Ok(false)
        } else {
            Err(self.no_viable())
        }
    }

    /// After ACCESS.
    fn access_option(&mut self, options: &mut RoleOptions) -> Parse<()> {
        if self.take_keyword(Keyword::To) {
            if self.take_keyword(Keyword::All) {
                self.expect_keyword(Keyword::Datacenters)?;
                options.datacenters = Some(DatacenterAccess::All);
            } else {
                self.expect_keyword(Keyword::Datacenters)?;
                options.datacenters = Some(DatacenterAccess::Only(self.string_set()?));
            }
        } else if self.take_keyword(Keyword::From) {
            if self.take_keyword(Keyword::All) {
                self.expect_keyword(Keyword::Cidrs)?;
                options.cidrs = Some(CidrAccess::All);
            } else {
                self.expect_keyword(Keyword::Cidrs)?;
                options.cidrs = Some(CidrAccess::Only(self.string_set()?));
            }
        } else {
            return Err(self.no_viable());
        }
        Ok(())
    }

    /// `{'a', 'b'}`
    fn string_set(&mut self) -> Parse<Vec<Box<str>>> {
        self.enclosed(TokenKind::OpenBrace, TokenKind::CloseBrace, Self::string)
    }

    /// After ADD IDENTITY.
    pub(super) fn add_identity(&mut self) -> Parse<AddIdentity> {
        let if_not_exists = self.if_not_exists()?;
        let identity = self.identity()?;
        self.expect_keyword(Keyword::To)?;
        self.expect_keyword(Keyword::Role)?;
        Ok(AddIdentity {
            identity,
            role: Name::from(self.identity()?),
            if_not_exists,
        })
    }

    /// After DROP IDENTITY.
    pub(super) fn drop_identity(&mut self) -> Parse<DropIdentity> {
        let if_exists = self.if_exists()?;
        Ok(DropIdentity {
            identity: self.identity()?,
            if_exists,
        })
    }

    fn identity(&mut self) -> Parse<Box<str>> {
        let identity = self.word_or_string("Quoted strings are are not supported for identity")?;
        Ok(Box::from(&*identity))
    }

    /// After GRANT.
    pub(super) fn grant(&mut self) -> Parse<Statement> {
        if !self.permissions_follow() {
            let role = self.role_name()?;
            self.expect_keyword(Keyword::To)?;
            return Ok(Statement::GrantRole(GrantRole {
                role,
                grantee: self.role_name()?,
            }));
        }
        let (permissions, resource) = self.permissions_on_resource()?;
        self.expect_keyword(Keyword::To)?;
        let grantee = self.role_name()?;
        Ok(Statement::GrantPermissions(GrantPermissions {
            permissions,
            resource,
            grantee,
        }))
    }

    /// After REVOKE.
    pub(super) fn revoke(&mut self) -> Parse<Statement> {
        if !self.permissions_follow() {
            let role = self.role_name()?;
            self.expect_keyword(Keyword::From)?;
            return Ok(Statement::RevokeRole(RevokeRole {
                role,
                revokee: self.role_name()?,
            }));
        }
        let (permissions, resource) = self.permissions_on_resource()?;
        self.expect_keyword(Keyword::From)?;
        let revokee = self.role_name()?;
        Ok(Statement::RevokePermissions(RevokePermissions {
            permissions,
            resource,
            revokee,
        }))
    }

    /// A permission comes next, not a role that is called like one.
    fn permissions_follow(&self) -> bool {
        match self.kind() {
            TokenKind::Keyword(Keyword::All | Keyword::Unmask | Keyword::SelectMasked) => matches!(
                self.kind_at(1),
                TokenKind::Comma
                    | TokenKind::Keyword(Keyword::On | Keyword::Permission | Keyword::Permissions)
            ),
            kind => permission_of(kind).is_some(),
        }
    }

    /// `permissions ON resource`
    fn permissions_on_resource(&mut self) -> Parse<(Vec<Permission>, Resource)> {
        let mut permissions = self.permissions()?;
        self.expect_keyword(Keyword::On)?;
        let resource = self.resource()?;
        permissions.retain(|permission| resource.applicable_permissions().contains(permission));
        if permissions.is_empty() {
            return Err(CqlError::syntax(format!(
                "Resource type {} does not support any of the requested permissions",
                resource.family()
            )));
        }
        Ok((permissions, resource))
    }

    /// `ALL [PERMISSIONS]`, `permission [PERMISSION], ..`
    fn permissions(&mut self) -> Parse<Vec<Permission>> {
        if self.take_keyword(Keyword::All) {
            self.take_keyword(Keyword::Permissions);
            return Ok(Permission::ALL.to_vec());
        }
        let mut permissions = self.comma_separated(|parser| {
            let permission = permission_of(parser.kind()).ok_or_else(|| parser.no_viable())?;
            parser.advance();
            parser.take_keyword(Keyword::Permission);
            Ok(permission)
        })?;
        permissions.sort_unstable();
        permissions.dedup();
        Ok(permissions)
    }

    fn resource(&mut self) -> Parse<Resource> {
        let follows = |parser: &Self, word: fn(TokenKind) -> bool| word(parser.kind_at(1));
        match self.kind() {
            TokenKind::Keyword(Keyword::All)
                if follows(self, |kind| matches!(kind, TokenKind::Keyword(_))) =>
            {
                self.advance();
                self.resources_of_a_kind()
            }
            TokenKind::Keyword(Keyword::Keyspace | Keyword::Schema) => {
                self.advance();
                Ok(Resource::Keyspace(self.keyspace_name()?))
            }
            TokenKind::Keyword(Keyword::Table) => {
                self.advance();
                Ok(Resource::Table(self.table_name()?))
            }
            TokenKind::Keyword(Keyword::Role)
                if follows(self, |kind| {
                    kind.is_name() || kind.is_string() || kind == TokenKind::Question
                }) =>
            {
                self.advance();
                Ok(Resource::Role(self.role_name()?))
            }
            TokenKind::Keyword(Keyword::Function) if follows(self, TokenKind::is_function_name) => {
                self.advance();
                let name = self.function_name()?;
                Ok(Resource::Function {
                    name,
                    argument_types: self.argument_types()?,
                })
            }
            TokenKind::Keyword(Keyword::Mbean) if follows(self, TokenKind::is_string) => {
                self.advance();
                Ok(Resource::Mbean {
                    pattern: false,
                    name: self.object_name()?,
                })
            }
            TokenKind::Keyword(Keyword::Mbeans) if follows(self, TokenKind::is_string) => {
                self.advance();
                Ok(Resource::Mbean {
                    pattern: true,
                    name: self.object_name()?,
                })
            }
            _ => Ok(Resource::Table(self.table_name()?)),
        }
    }

    /// After ALL.
    fn resources_of_a_kind(&mut self) -> Parse<Resource> {
        let TokenKind::Keyword(keyword) = self.kind() else {
            return Err(self.no_viable());
        };
        let resource = match keyword {
            Keyword::Keyspaces => Resource::AllKeyspaces,
            Keyword::Roles => Resource::AllRoles,
            Keyword::Mbeans => Resource::AllMbeans,
            Keyword::Functions => Resource::AllFunctions,
            Keyword::Tables => {
                self.advance();
                return Ok(Resource::AllTables(self.in_keyspace()?));
            }
            _ => return Err(self.no_viable()),
        };
        self.advance();
        if resource == Resource::AllFunctions && self.at_keyword(Keyword::In) {
            return Ok(Resource::KeyspaceFunctions(self.in_keyspace()?));
        }
        Ok(resource)
    }

    /// `IN KEYSPACE name`
    fn in_keyspace(&mut self) -> Parse<Name> {
        self.expect_keyword(Keyword::In)?;
        self.expect_keyword(Keyword::Keyspace)?;
        self.keyspace_name()
    }

    /// The name of an MBean.
    fn object_name(&mut self) -> Parse<Box<str>> {
        let name = self.string()?;
        match &*name {
            "" => Err(CqlError::syntax("Empty JMX object name supplied")),
            "*:*" => Err(CqlError::syntax(
                "Please use ALL MBEANS instead of wildcard pattern",
            )),
            _ => Ok(name),
        }
    }

    /// After LIST, when nothing but permissions is left.
    pub(super) fn list_permissions(&mut self) -> Parse<ListPermissions> {
        let permissions = self.permissions()?;
        let resource = if self.take_keyword(Keyword::On) {
            Some(self.resource()?)
        } else {
            None
        };
        let (grantee, recursive) = self.grantee_and_recursion()?;
        Ok(ListPermissions {
            permissions,
            resource,
            grantee,
            recursive,
        })
    }

    /// After LIST ROLES.
    pub(super) fn list_roles(&mut self) -> Parse<ListRoles> {
        let (grantee, recursive) = self.grantee_and_recursion()?;
        Ok(ListRoles { grantee, recursive })
    }

    /// `[OF role] [NORECURSIVE]`
    fn grantee_and_recursion(&mut self) -> Parse<(Option<Name>, bool)> {
        let grantee = if self.take_keyword(Keyword::Of) {
            Some(self.role_name()?)
        } else {
            None
        };
        Ok((grantee, !self.take_keyword(Keyword::Norecursive)))
    }
}

fn permission_of(kind: TokenKind) -> Option<Permission> {
    let TokenKind::Keyword(keyword) = kind else {
        return None;
    };
    Some(match keyword {
        Keyword::Create => Permission::Create,
        Keyword::Alter => Permission::Alter,
        Keyword::Drop => Permission::Drop,
        Keyword::Select => Permission::Select,
        Keyword::Modify => Permission::Modify,
        Keyword::Authorize => Permission::Authorize,
        Keyword::Describe => Permission::Describe,
        Keyword::Execute => Permission::Execute,
        Keyword::Unmask => Permission::Unmask,
        Keyword::SelectMasked => Permission::SelectMasked,
        _ => return None,
    })
}

fn set_once<T>(option: &mut Option<T>, value: T, name: &str) -> Parse<()> {
    if option.replace(value).is_some() {
        return Err(CqlError::syntax(format!(
            "Multiple definition for property '{name}'"
        )));
    }
    Ok(())
}

fn check_passwords(options: &RoleOptions) -> Parse<()> {
    let given = [
        (options.password.is_some(), "password"),
        (options.hashed_password.is_some(), "hashed password"),
        (options.generated_password, "generated password"),
    ];
    let mut names = given
        .iter()
        .filter(|(is_given, _)| *is_given)
        .map(|(_, name)| name);
    if let (Some(first), Some(second)) = (names.next(), names.next()) {
        return Err(CqlError::syntax(format!(
            "Options '{first}' and '{second}' are mutually exclusive"
        )));
    }
    Ok(())
}
