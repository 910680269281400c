//! Where parsing starts: whole statements, and the parts of statements that the schema stores as text.

use super::cursor::{MAX_BIND_MARKERS, Parse, Parser};
use crate::CqlError;
use crate::ast::{Modification, ParsedStatement, RawType, Statement, Term, WhereClause};
use crate::lexer::{Keyword, TokenKind};

/// Parses one statement; any number of semicolons may follow it.
pub fn parse_statement(text: &str) -> Result<ParsedStatement, CqlError> {
    parse_statement_as(text, false)
}

/// As [`parse_statement`]; `merges_variables`: markers of one name are one bind variable.
pub(crate) fn parse_statement_as(text: &str, merges_variables: bool) -> Result<ParsedStatement, CqlError> {
    let mut parser = Parser::new(text)?;
    parser.merges_variables = merges_variables;
    // No words that are reserved: a statement begins with neither.
    let explain = parser.take_word("explain").then(|| parser.take_word("analyze"));
    let statement = parser.statement()?;
    while parser.take(TokenKind::Semicolon) {}
    parser.expect(TokenKind::End)?;
    let bind_variables = parser.bind_variables;
    if bind_variables.len() > MAX_BIND_MARKERS {
        return Err(CqlError::invalid(format!(
            "Too many markers(?). {} markers exceed the allowed maximum of {MAX_BIND_MARKERS}",
            bind_variables.len()
        )));
    }
    Ok(ParsedStatement {
        statement,
        explain,
        bind_variables,
    })
}

/// Parses a type, as the schema tables store it.
pub fn parse_type(text: &str) -> Result<RawType, CqlError> {
    parse_whole(text, Parser::cql_type)
}

/// Parses a term without bind markers, such as a stored initial condition or mask argument.
pub fn parse_term(text: &str) -> Result<Term, CqlError> {
    parse_whole(text, Parser::term)
}

/// Parses what follows WHERE, without bind markers, as the schema tables store it for materialized views.
pub fn parse_where_clause(text: &str) -> Result<WhereClause, CqlError> {
    parse_whole(text, Parser::where_clause)
}

fn parse_whole<'a, T>(text: &'a str, rule: impl FnOnce(&mut Parser<'a>) -> Parse<T>) -> Result<T, CqlError> {
    let mut parser = Parser::new(text)?;
    let whole = rule(&mut parser)?;
    parser.expect(TokenKind::End)?;
    if !parser.bind_variables.is_empty() {
        return Err(CqlError::syntax("Bind variables are not allowed here"));
    }
    Ok(whole)
}

impl Parser<'_> {
    fn statement(&mut self) -> Parse<Statement> {
        if self.take_word("attach") {
            return Ok(Statement::AttachServiceLevel(self.attach_service_level()?));
        }
        if self.take_word("detach") {
            return self.detach_service_level();
        }
        let TokenKind::Keyword(keyword) = self.kind() else {
            return Err(self.no_viable());
        };
        self.advance();
        match keyword {
            Keyword::Select => Ok(Statement::Select(Box::new(self.select()?))),
            Keyword::Insert => Ok(Statement::Modification(Modification::Insert(Box::new(
                self.insert()?,
            )))),
            Keyword::Update => Ok(Statement::Modification(Modification::Update(Box::new(
                self.update()?,
            )))),
            Keyword::Delete => Ok(Statement::Modification(Modification::Delete(Box::new(
                self.delete()?,
            )))),
            Keyword::Begin => Ok(Statement::Batch(self.batch()?)),
            Keyword::Use => Ok(Statement::Use(self.keyspace_name()?)),
            Keyword::Truncate => {
                self.take_keyword(Keyword::Table);
                Ok(Statement::Truncate(self.table_name()?))
            }
            Keyword::Create => self.create(),
            Keyword::Alter => self.alter(),
            Keyword::Drop => self.drop_statement(),
            Keyword::Grant => self.grant(),
            Keyword::Revoke => self.revoke(),
            Keyword::List => self.list(),
            Keyword::Add => {
                self.expect_keyword(Keyword::Identity)?;
                Ok(Statement::AddIdentity(self.add_identity()?))
            }
            Keyword::Describe | Keyword::Desc => Ok(Statement::Describe(self.describe()?)),
            _ => {
                self.position -= 1;
                Err(self.no_viable())
            }
        }
    }

    fn create(&mut self) -> Parse<Statement> {
        if self.take_keyspace_keyword() {
            return Ok(Statement::CreateKeyspace(self.create_keyspace()?));
        }
        if self.take_service_level() {
            return Ok(Statement::CreateServiceLevel(self.create_service_level()?));
        }
        let or_replace = self.take_keywords(&[Keyword::Or, Keyword::Replace]);
        if self.take_keyword(Keyword::Function) {
            return Ok(Statement::CreateFunction(Box::new(
                self.create_function(or_replace)?,
            )));
        }
        if self.take_keyword(Keyword::Aggregate) {
            return Ok(Statement::CreateAggregate(Box::new(
                self.create_aggregate(or_replace)?,
            )));
        }
        let TokenKind::Keyword(keyword) = self.kind() else {
            return Err(self.no_viable());
        };
        self.advance();
        match keyword {
            Keyword::Table if !or_replace => self.create_table(),
            Keyword::Type if !or_replace => Ok(Statement::CreateType(self.create_type()?)),
            Keyword::Index if !or_replace => Ok(Statement::CreateIndex(self.create_index(false)?)),
            Keyword::Custom if !or_replace => {
                self.expect_keyword(Keyword::Index)?;
                Ok(Statement::CreateIndex(self.create_index(true)?))
            }
            Keyword::Materialized if !or_replace => {
                self.expect_keyword(Keyword::View)?;
                Ok(Statement::CreateMaterializedView(Box::new(
                    self.create_materialized_view()?,
                )))
            }
            Keyword::Trigger if !or_replace => Ok(Statement::CreateTrigger(self.create_trigger()?)),
            Keyword::Role if !or_replace => Ok(Statement::CreateRole(self.create_role()?)),
            Keyword::User if !or_replace => Ok(Statement::CreateRole(self.create_user()?)),
            _ => {
                self.position -= 1;
                Err(self.no_viable())
            }
        }
    }

    fn alter(&mut self) -> Parse<Statement> {
        if self.take_keyspace_keyword() {
            return Ok(Statement::AlterKeyspace(self.alter_keyspace()?));
        }
        if self.take_service_level() {
            return Ok(Statement::AlterServiceLevel(
                self.service_level_definition(false)?,
            ));
        }
        let TokenKind::Keyword(keyword) = self.kind() else {
            return Err(self.no_viable());
        };
        self.advance();
        match keyword {
            Keyword::Table => Ok(Statement::AlterTable(self.alter_table()?)),
            Keyword::Type => Ok(Statement::AlterType(self.alter_type()?)),
            Keyword::Materialized => {
                self.expect_keyword(Keyword::View)?;
                Ok(Statement::AlterMaterializedView(self.alter_materialized_view()?))
            }
            Keyword::Role => Ok(Statement::AlterRole(self.alter_role()?)),
            Keyword::User => Ok(Statement::AlterRole(self.alter_user()?)),
            _ => {
                self.position -= 1;
                Err(self.no_viable())
            }
        }
    }

    fn drop_statement(&mut self) -> Parse<Statement> {
        if self.take_keyspace_keyword() {
            return Ok(Statement::DropKeyspace(
                self.drop_named(Self::keyspace_name_alone)?,
            ));
        }
        if self.take_service_level() {
            return Ok(Statement::DropServiceLevel(
                self.drop_named(Self::service_level_alone)?,
            ));
        }
        let TokenKind::Keyword(keyword) = self.kind() else {
            return Err(self.no_viable());
        };
        self.advance();
        match keyword {
            Keyword::Table => Ok(Statement::DropTable(self.drop_named(Self::table_name)?)),
            Keyword::Type => Ok(Statement::DropType(self.drop_named(Self::type_name)?)),
            Keyword::Index => Ok(Statement::DropIndex(self.drop_named(Self::qualified_index_name)?)),
            Keyword::Materialized => {
                self.expect_keyword(Keyword::View)?;
                Ok(Statement::DropMaterializedView(
                    self.drop_named(Self::table_name)?,
                ))
            }
            Keyword::Trigger => Ok(Statement::DropTrigger(self.drop_trigger()?)),
            Keyword::Function => Ok(Statement::DropFunction(self.drop_function()?)),
            Keyword::Aggregate => Ok(Statement::DropAggregate(self.drop_function()?)),
            Keyword::Role => Ok(Statement::DropRole(self.drop_role()?)),
            Keyword::User => Ok(Statement::DropRole(self.drop_user()?)),
            Keyword::Identity => Ok(Statement::DropIdentity(self.drop_identity()?)),
            _ => {
                self.position -= 1;
                Err(self.no_viable())
            }
        }
    }

    fn list(&mut self) -> Parse<Statement> {
        if self.take_keyword(Keyword::Users) {
            return Ok(Statement::ListUsers);
        }
        if self.take_keyword(Keyword::Superusers) {
            return Ok(Statement::ListSuperusers);
        }
        if self.take_keyword(Keyword::Roles) {
            return Ok(Statement::ListRoles(self.list_roles()?));
        }
        match self.list_service_levels()? {
            Some(list) => Ok(Statement::ListServiceLevels(list)),
            None => Ok(Statement::ListPermissions(self.list_permissions()?)),
        }
    }
}
