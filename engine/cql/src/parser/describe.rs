//! DESCRIBE.

use super::cursor::{Parse, Parser};
use crate::ast::{Describe, DescribeTarget};
use crate::lexer::{Keyword, TokenKind};

impl Parser<'_> {
    /// After DESCRIBE or DESC.
    pub(super) fn describe(&mut self) -> Parse<Describe> {
        let target = self.describe_target()?;
        let with_internals = self.take_keyword(Keyword::With);
        if with_internals {
            self.expect_keyword(Keyword::Internals)?;
        }
        Ok(Describe {
            target,
            with_internals,
        })
    }

    fn describe_target(&mut self) -> Parse<DescribeTarget> {
        let TokenKind::Keyword(keyword) = self.kind() else {
            return self.describe_named();
        };
        // a keyword may be the keyspace or the name of what is described
        if self.kind_at(1) == TokenKind::Dot {
            return self.describe_named();
        }
        let named_next = self.kind_at(1).is_name();
        match keyword {
            Keyword::Cluster => self.describe_simple(DescribeTarget::Cluster),
            Keyword::Schema => self.describe_simple(DescribeTarget::Schema { full: false }),
            Keyword::Full => {
                self.advance();
                self.expect_keyword(Keyword::Schema)?;
                Ok(DescribeTarget::Schema { full: true })
            }
            Keyword::Keyspaces => self.describe_simple(DescribeTarget::Keyspaces),
            Keyword::Keyspace => self.describe_keyspace(false),
            Keyword::Only if self.keyword_at(1, Keyword::Keyspace) => {
                self.advance();
                self.describe_keyspace(true)
            }
            Keyword::Tables => self.describe_simple(DescribeTarget::Tables),
            Keyword::Table => {
                self.advance();
                Ok(DescribeTarget::Table(self.table_name()?))
            }
            Keyword::Index => {
                self.advance();
                Ok(DescribeTarget::Index(self.qualified_index_name()?))
            }
            Keyword::Materialized => {
                self.advance();
                self.expect_keyword(Keyword::View)?;
                Ok(DescribeTarget::MaterializedView(self.table_name()?))
            }
            Keyword::Types => self.describe_simple(DescribeTarget::Types),
            Keyword::Type if named_next => {
                self.advance();
                Ok(DescribeTarget::Type(self.type_name()?))
            }
            Keyword::Functions => self.describe_simple(DescribeTarget::Functions),
            Keyword::Function if named_next => {
                self.advance();
                Ok(DescribeTarget::Function(self.function_name()?))
            }
            Keyword::Aggregates => self.describe_simple(DescribeTarget::Aggregates),
            Keyword::Aggregate if named_next => {
                self.advance();
                Ok(DescribeTarget::Aggregate(self.function_name()?))
            }
            _ => self.describe_named(),
        }
    }

    fn describe_simple(&mut self, target: DescribeTarget) -> Parse<DescribeTarget> {
        self.advance();
        Ok(target)
    }

    fn describe_keyspace(&mut self, only: bool) -> Parse<DescribeTarget> {
        self.advance();
        let named = self.kind().is_name() || self.at(TokenKind::Question);
        let name = if named { Some(self.keyspace_name()?) } else { None };
        Ok(DescribeTarget::Keyspace { only, name })
    }

    fn describe_named(&mut self) -> Parse<DescribeTarget> {
        Ok(DescribeTarget::Named(self.table_name()?))
    }
}
