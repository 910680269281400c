//! SELECT.

use super::cursor::{Parse, Parser};
use crate::ast::{LiteralKind, Ordering, OrderingKind, Select, Term};
use crate::lexer::{Keyword, TokenKind};

impl Parser<'_> {
    /// After SELECT.
    pub(super) fn select(&mut self) -> Parse<Select> {
        let json = self.take_modifier(Keyword::Json);
        let distinct = self.take_modifier(Keyword::Distinct);
        let selection = self.selection()?;
        self.expect_keyword(Keyword::From)?;
        let table = self.table_name()?;
        let where_clause = self.optional_where_clause()?;
        let group_by = if self.take_keyword(Keyword::Group) {
            self.expect_keyword(Keyword::By)?;
            self.comma_separated(Self::selectable)?
        } else {
            Vec::new()
        };
        let order_by = if self.take_keyword(Keyword::Order) {
            self.expect_keyword(Keyword::By)?;
            self.comma_separated(Self::ordering)?
        } else {
            Vec::new()
        };
        let per_partition_limit = self.per_partition_limit()?;
        let limit = if self.take_keyword(Keyword::Limit) {
            Some(self.integer_term()?)
        } else {
            None
        };
        let allow_filtering = self.take_keyword(Keyword::Allow);
        if allow_filtering {
            self.expect_keyword(Keyword::Filtering)?;
        }
        let bypass_cache = self.take_word("bypass");
        if bypass_cache {
            self.expect_word("cache")?;
        }
        let timeout = self.using_timeout()?;
        Ok(Select {
            json,
            distinct,
            selection,
            table,
            where_clause,
            group_by,
            order_by,
            per_partition_limit,
            limit,
            allow_filtering,
            bypass_cache,
            timeout,
        })
    }

    /// Takes JSON or DISTINCT unless it is a column of that name, which what follows tells.
    fn take_modifier(&mut self, keyword: Keyword) -> bool {
        let is_column = match self.kind_at(1) {
            TokenKind::Comma
            | TokenKind::Dot
            | TokenKind::Plus
            | TokenKind::Slash
            | TokenKind::Percent
            | TokenKind::End
            | TokenKind::Keyword(Keyword::From) => true,
            // `json AS a` against a column called `as`
            TokenKind::Keyword(Keyword::As) => self.kind_at(2).is_name(),
            // `json * 2` against `JSON *`
            TokenKind::Star => !self.keyword_at(2, Keyword::From) && self.kind_at(2) != TokenKind::Comma,
            _ => false,
        };
        !is_column && self.take_keyword(keyword)
    }

    /// `column [ANN OF vector] [ASC | DESC]`
    fn ordering(&mut self) -> Parse<Ordering> {
        let column = self.column_name()?;
        let kind = if self.take_keyword(Keyword::Ann) {
            self.expect_keyword(Keyword::Of)?;
            OrderingKind::NearestTo(self.term()?)
        } else {
            OrderingKind::Value
        };
        let descending = !self.take_keyword(Keyword::Asc) && self.take_keyword(Keyword::Desc);
        Ok(Ordering {
            column,
            kind,
            descending,
        })
    }

    fn per_partition_limit(&mut self) -> Parse<Option<Term>> {
        if !self.take_keyword(Keyword::Per) {
            return Ok(None);
        }
        self.expect_keyword(Keyword::Partition)?;
        self.expect_keyword(Keyword::Limit)?;
        Ok(Some(self.integer_term()?))
    }

    /// `[USING TIMEOUT duration]`
    fn using_timeout(&mut self) -> Parse<Option<Term>> {
        if !self.take_keyword(Keyword::Using) {
            return Ok(None);
        }
        self.expect_word("timeout")?;
        Ok(Some(self.literal_or_marker(LiteralKind::Duration)?))
    }
}
