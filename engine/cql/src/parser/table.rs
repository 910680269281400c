//! CREATE and ALTER of tables and materialized views.

use super::cursor::{Parse, Parser};
use crate::ast::{
    AlterColumnMask, AlterMaterializedView, AlterTable, AlterTableChange, ColumnDefinition, ColumnMask,
    CopyTable, CreateMaterializedView, CreateTable, Name, PrimaryKey, Properties, QualifiedName, Statement,
};
use crate::lexer::{Keyword, TokenKind};

/// Where native functions live.
const NATIVE_KEYSPACE: &str = "system";

impl Parser<'_> {
    /// After CREATE TABLE.
    pub(super) fn create_table(&mut self) -> Parse<Statement> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.table_name()?;
        if self.take_keyword(Keyword::Like) {
            return Ok(Statement::CopyTable(self.copy_table(name, if_not_exists)?));
        }
        let mut columns = Vec::new();
        let mut primary_keys = Vec::new();
        self.expect(TokenKind::OpenParenthesis)?;
        self.table_item(&mut columns, &mut primary_keys)?;
        while self.take(TokenKind::Comma) {
            // a comma may come last, or twice
            if !matches!(self.kind(), TokenKind::Comma | TokenKind::CloseParenthesis) {
                self.table_item(&mut columns, &mut primary_keys)?;
            }
        }
        self.expect(TokenKind::CloseParenthesis)?;
        let options = self.optional_table_options(false)?;
        let table = CreateTable {
            name,
            if_not_exists,
            columns,
            primary_keys,
            options,
        };
        Ok(Statement::CreateTable(Box::new(table)))
    }

    /// A column, or the PRIMARY KEY clause.
    fn table_item(
        &mut self,
        columns: &mut Vec<ColumnDefinition>,
        primary_keys: &mut Vec<PrimaryKey>,
    ) -> Parse<()> {
        if self.at_keyword(Keyword::Primary) {
            primary_keys.push(self.primary_key()?);
            return Ok(());
        }
        let column = self.column_definition()?;
        if self.take_keyword(Keyword::Primary) {
            self.expect_keyword(Keyword::Key)?;
            primary_keys.push(PrimaryKey {
                partition_key: vec![column.name.clone()],
                clustering: Vec::new(),
            });
        }
        columns.push(column);
        Ok(())
    }

    /// `name type [STATIC] [MASKED WITH ..]`
    fn column_definition(&mut self) -> Parse<ColumnDefinition> {
        let name = self.name()?;
        let raw_type = self.cql_type()?;
        let is_static = self.take_keyword(Keyword::Static);
        let mask = if self.at_keyword(Keyword::Masked) {
            Some(self.column_mask()?)
        } else {
            None
        };
        Ok(ColumnDefinition {
            name,
            raw_type,
            is_static,
            mask,
        })
    }

    /// `MASKED WITH DEFAULT`, `MASKED WITH function(arguments)`
    fn column_mask(&mut self) -> Parse<ColumnMask> {
        self.expect_keyword(Keyword::Masked)?;
        self.expect_keyword(Keyword::With)?;
        if self.at_keyword(Keyword::Default) && !self.function_call_follows() {
            self.advance();
            let function = QualifiedName {
                keyspace: Some(Name::from(NATIVE_KEYSPACE)),
                name: Name::from("mask_default"),
            };
            return Ok(ColumnMask {
                function,
                arguments: Vec::new(),
            });
        }
        let function = self.function_name()?;
        let (open, close) = (TokenKind::OpenParenthesis, TokenKind::CloseParenthesis);
        Ok(ColumnMask {
            function,
            arguments: self.enclosed_or_empty(open, close, Self::term)?,
        })
    }

    /// `PRIMARY KEY (a, b)`, `PRIMARY KEY ((a, b), c)`
    fn primary_key(&mut self) -> Parse<PrimaryKey> {
        let (open, close) = (TokenKind::OpenParenthesis, TokenKind::CloseParenthesis);
        self.expect_keyword(Keyword::Primary)?;
        self.expect_keyword(Keyword::Key)?;
        self.expect(open)?;
        let partition_key = if self.at(open) {
            self.enclosed(open, close, Self::name)?
        } else {
            vec![self.name()?]
        };
        let mut clustering = Vec::new();
        while self.take(TokenKind::Comma) {
            clustering.push(self.name()?);
        }
        self.expect(close)?;
        Ok(PrimaryKey {
            partition_key,
            clustering,
        })
    }

    /// After CREATE TABLE name LIKE.
    fn copy_table(&mut self, name: QualifiedName, if_not_exists: bool) -> Parse<CopyTable> {
        let source = self.table_name()?;
        let mut with_indexes = false;
        let mut properties = Properties::default();
        if self.take_keyword(Keyword::With) {
            loop {
                if self.at_keyword(Keyword::Indexes) && self.kind_at(1) != TokenKind::Equal {
                    self.advance();
                    with_indexes = true;
                } else {
                    self.property(&mut properties)?;
                }
                if !self.take_keyword(Keyword::And) {
                    break;
                }
            }
        }
        Ok(CopyTable {
            name,
            if_not_exists,
            source,
            with_indexes,
            properties,
        })
    }

    /// After ALTER TABLE.
    pub(super) fn alter_table(&mut self) -> Parse<AlterTable> {
        let if_exists = self.if_exists()?;
        let name = self.table_name()?;
        let change = match self.kind() {
            TokenKind::Keyword(Keyword::Alter) => {
                self.advance();
                self.alter_column()?
            }
            TokenKind::Keyword(Keyword::Add) => {
                self.advance();
                let if_not_exists = self.if_not_exists()?;
                let columns = self.one_or_parenthesised(Self::column_definition)?;
                AlterTableChange::AddColumns {
                    if_not_exists,
                    columns,
                }
            }
            TokenKind::Keyword(Keyword::Drop) => {
                self.advance();
                self.drop_columns()?
            }
            TokenKind::Keyword(Keyword::Rename) => {
                self.advance();
                let if_exists = self.if_exists()?;
                AlterTableChange::RenameColumns {
                    if_exists,
                    renames: self.renames()?,
                }
            }
            TokenKind::Keyword(Keyword::With) => {
                self.advance();
                AlterTableChange::Properties(self.properties()?)
            }
            _ => return Err(self.no_viable()),
        };
        Ok(AlterTable {
            name,
            if_exists,
            change,
        })
    }

    /// `item` or `(item, item)`
    fn one_or_parenthesised<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parse<T>) -> Parse<Vec<T>> {
        if self.at(TokenKind::OpenParenthesis) {
            return self.enclosed(TokenKind::OpenParenthesis, TokenKind::CloseParenthesis, item);
        }
        Ok(vec![item(self)?])
    }

    fn alter_column(&mut self) -> Parse<AlterTableChange> {
        let if_exists = self.if_exists()?;
        let column = self.column_name()?;
        if !if_exists && self.take_keyword(Keyword::Type) {
            return Ok(AlterTableChange::AlterColumnType {
                column,
                raw_type: self.cql_type()?,
            });
        }
        let mask = if self.take_keyword(Keyword::Drop) {
            self.expect_keyword(Keyword::Masked)?;
            None
        } else if self.at_keyword(Keyword::Masked) {
            Some(self.column_mask()?)
        } else {
            return Err(self.no_viable());
        };
        Ok(AlterTableChange::AlterMask(AlterColumnMask {
            if_exists,
            column,
            mask,
        }))
    }

    fn drop_columns(&mut self) -> Parse<AlterTableChange> {
        if self.take_keywords(&[Keyword::Compact, Keyword::Storage]) {
            return Ok(AlterTableChange::DropCompactStorage);
        }
        let if_exists = self.if_exists()?;
        let columns = self.one_or_parenthesised(Self::name)?;
        let timestamp = if self.take_keyword(Keyword::Using) {
            self.expect_keyword(Keyword::Timestamp)?;
            let token = self.expect(TokenKind::Integer)?;
            let text = self.raw_text(token);
            let timestamp = text
                .parse()
                .map_err(|_| self.error_at(token, format!("timestamp {text} is out of range")))?;
            Some(timestamp)
        } else {
            None
        };
        Ok(AlterTableChange::DropColumns {
            if_exists,
            columns,
            timestamp,
        })
    }

    /// `from TO to (AND from TO to)*`
    pub(super) fn renames(&mut self) -> Parse<Vec<(Name, Name)>> {
        let mut renames = Vec::new();
        loop {
            let from = self.name()?;
            self.expect_keyword(Keyword::To)?;
            renames.push((from, self.name()?));
            if !self.take_keyword(Keyword::And) {
                return Ok(renames);
            }
        }
    }

    /// After CREATE MATERIALIZED VIEW.
    pub(super) fn create_materialized_view(&mut self) -> Parse<CreateMaterializedView> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.table_name()?;
        self.expect_keyword(Keyword::As)?;
        self.expect_keyword(Keyword::Select)?;
        let selection = self.selection()?;
        self.expect_keyword(Keyword::From)?;
        let base_table = self.table_name()?;
        let where_clause = self.optional_where_clause()?;
        let primary_key = self.primary_key()?;
        let options = self.optional_table_options(true)?;
        Ok(CreateMaterializedView {
            name,
            if_not_exists,
            selection,
            base_table,
            where_clause,
            primary_key,
            options,
        })
    }

    /// After ALTER MATERIALIZED VIEW.
    pub(super) fn alter_materialized_view(&mut self) -> Parse<AlterMaterializedView> {
        let if_exists = self.if_exists()?;
        let name = self.table_name()?;
        self.expect_keyword(Keyword::With)?;
        Ok(AlterMaterializedView {
            name,
            if_exists,
            properties: self.properties()?,
        })
    }
}
