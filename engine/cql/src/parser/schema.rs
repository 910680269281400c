//! CREATE and ALTER of keyspaces, types, indexes and triggers; every plain DROP.

use super::cursor::{Parse, Parser};
use crate::ast::{
    AlterKeyspace, AlterType, AlterTypeChange, CreateIndex, CreateKeyspace, CreateTrigger, CreateType, Drop,
    DropTrigger, FieldDefinition, IndexTarget, IndexTargetKind, QualifiedName,
};
use crate::lexer::{Keyword, TokenKind};

impl Parser<'_> {
    /// KEYSPACE, or SCHEMA as older versions of CQL say.
    pub(super) fn take_keyspace_keyword(&mut self) -> bool {
        self.take_keyword(Keyword::Keyspace) || self.take_keyword(Keyword::Schema)
    }

    /// After CREATE KEYSPACE.
    pub(super) fn create_keyspace(&mut self) -> Parse<CreateKeyspace> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.keyspace_name()?;
        self.expect_keyword(Keyword::With)?;
        Ok(CreateKeyspace {
            name,
            if_not_exists,
            properties: self.properties()?,
        })
    }

    /// After ALTER KEYSPACE.
    pub(super) fn alter_keyspace(&mut self) -> Parse<AlterKeyspace> {
        let if_exists = self.if_exists()?;
        let name = self.keyspace_name()?;
        self.expect_keyword(Keyword::With)?;
        Ok(AlterKeyspace {
            name,
            if_exists,
            properties: self.properties()?,
        })
    }

    /// After DROP KEYSPACE, DROP TABLE, ..
    pub(super) fn drop_named(&mut self, name: impl FnOnce(&mut Self) -> Parse<QualifiedName>) -> Parse<Drop> {
        let if_exists = self.if_exists()?;
        Ok(Drop {
            name: name(self)?,
            if_exists,
        })
    }

    /// A keyspace's name where a qualified one is stored.
    pub(super) fn keyspace_name_alone(&mut self) -> Parse<QualifiedName> {
        Ok(QualifiedName {
            keyspace: None,
            name: self.keyspace_name()?,
        })
    }

    /// After CREATE TYPE.
    pub(super) fn create_type(&mut self) -> Parse<CreateType> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.type_name()?;
        self.expect(TokenKind::OpenParenthesis)?;
        let mut fields = vec![self.field_definition()?];
        while self.take(TokenKind::Comma) {
            // a comma may come last, or twice
            if !matches!(self.kind(), TokenKind::Comma | TokenKind::CloseParenthesis) {
                fields.push(self.field_definition()?);
            }
        }
        self.expect(TokenKind::CloseParenthesis)?;
        Ok(CreateType {
            name,
            if_not_exists,
            fields,
        })
    }

    fn field_definition(&mut self) -> Parse<FieldDefinition> {
        Ok(FieldDefinition {
            name: self.name()?,
            raw_type: self.cql_type()?,
        })
    }

    /// After ALTER TYPE.
    pub(super) fn alter_type(&mut self) -> Parse<AlterType> {
        let if_exists = self.if_exists()?;
        let name = self.type_name()?;
        let change = if self.take_keyword(Keyword::Alter) {
            let field = self.name()?;
            self.expect_keyword(Keyword::Type)?;
            AlterTypeChange::AlterFieldType {
                field,
                raw_type: self.cql_type()?,
            }
        } else if self.take_keyword(Keyword::Add) {
            let if_not_exists = self.if_not_exists()?;
            AlterTypeChange::AddField {
                if_not_exists,
                field: self.field_definition()?,
            }
        } else if self.take_keyword(Keyword::Rename) {
            let if_exists = self.if_exists()?;
            AlterTypeChange::RenameFields {
                if_exists,
                renames: self.renames()?,
            }
        } else {
            return Err(self.no_viable());
        };
        Ok(AlterType {
            name,
            if_exists,
            change,
        })
    }

    /// After CREATE [CUSTOM] INDEX.
    pub(super) fn create_index(&mut self, custom: bool) -> Parse<CreateIndex> {
        let if_not_exists = self.if_not_exists()?;
        let name = if self.at_keyword(Keyword::On) {
            None
        } else {
            Some(self.index_name()?)
        };
        self.expect_keyword(Keyword::On)?;
        let table = self.table_name()?;
        let (open, close) = (TokenKind::OpenParenthesis, TokenKind::CloseParenthesis);
        let targets = self.enclosed_or_empty(open, close, Self::index_target)?;
        let using = if self.take_keyword(Keyword::Using) {
            Some(self.string()?)
        } else {
            None
        };
        let properties = self.optional_properties()?;
        Ok(CreateIndex {
            custom,
            if_not_exists,
            name,
            table,
            targets,
            using,
            properties,
        })
    }

    /// `a`, `KEYS(a)`, ..
    fn index_target(&mut self) -> Parse<IndexTarget> {
        let kind = match self.kind() {
            TokenKind::Keyword(Keyword::Values) => IndexTargetKind::Values,
            TokenKind::Keyword(Keyword::Keys) => IndexTargetKind::Keys,
            TokenKind::Keyword(Keyword::Entries) => IndexTargetKind::Entries,
            TokenKind::Keyword(Keyword::Full) => IndexTargetKind::Full,
            _ => IndexTargetKind::Simple,
        };
        if kind == IndexTargetKind::Simple || self.kind_at(1) != TokenKind::OpenParenthesis {
            return Ok(IndexTarget {
                column: self.column_name()?,
                kind: IndexTargetKind::Simple,
            });
        }
        self.position += 2;
        let column = self.column_name()?;
        self.expect(TokenKind::CloseParenthesis)?;
        Ok(IndexTarget { column, kind })
    }

    /// After CREATE TRIGGER.
    pub(super) fn create_trigger(&mut self) -> Parse<CreateTrigger> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.name()?;
        self.expect_keyword(Keyword::On)?;
        let table = self.table_name()?;
        self.expect_keyword(Keyword::Using)?;
        Ok(CreateTrigger {
            name,
            if_not_exists,
            table,
            class: self.string()?,
        })
    }

    /// After DROP TRIGGER.
    pub(super) fn drop_trigger(&mut self) -> Parse<DropTrigger> {
        let if_exists = self.if_exists()?;
        let name = self.name()?;
        self.expect_keyword(Keyword::On)?;
        Ok(DropTrigger {
            name,
            if_exists,
            table: self.table_name()?,
        })
    }
}
