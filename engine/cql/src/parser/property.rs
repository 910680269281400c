//! `WITH name = value AND ..`

use super::cursor::{Parse, Parser};
use crate::CqlError;
use crate::ast::{ClusteringOrder, Properties, Property, PropertyValue, TableOptions, Term};
use crate::lexer::{Keyword, TokenKind};
use std::collections::BTreeSet;

impl Parser<'_> {
    /// `property (AND property)*`
    pub(super) fn properties(&mut self) -> Parse<Properties> {
        let mut properties = Properties::default();
        loop {
            self.property(&mut properties)?;
            if !self.take_keyword(Keyword::And) {
                return Ok(properties);
            }
        }
    }

    /// `[WITH property (AND property)*]`
    pub(super) fn optional_properties(&mut self) -> Parse<Properties> {
        if self.take_keyword(Keyword::With) {
            self.properties()
        } else {
            Ok(Properties::default())
        }
    }

    /// Adds one `name = value`.
    pub(super) fn property(&mut self, properties: &mut Properties) -> Parse<()> {
        let name = self.name()?;
        self.expect(TokenKind::Equal)?;
        let value = if self.at(TokenKind::OpenBrace) {
            PropertyValue::Map(self.property_map()?)
        } else {
            PropertyValue::Text(self.property_text()?)
        };
        if properties.get(&name).is_some() {
            return Err(CqlError::syntax(format!(
                "Multiple definition for property '{name}'"
            )));
        }
        properties.0.push(Property { name, value });
        Ok(())
    }

    /// A constant, or a keyword that is not reserved.
    fn property_text(&mut self) -> Parse<Box<str>> {
        if let Some(literal) = self.take_literal() {
            return Ok(literal.text);
        }
        if !self.kind().is_name() || !matches!(self.kind(), TokenKind::Keyword(_)) {
            return Err(self.no_viable());
        }
        let token = self.advance();
        Ok(Box::from(self.raw_text(token)))
    }

    /// `{'key': 'value', ..}`, maybe empty
    pub(super) fn property_map(&mut self) -> Parse<Vec<(Box<str>, Box<str>)>> {
        let entries = self.enclosed_or_empty(TokenKind::OpenBrace, TokenKind::CloseBrace, Self::map_entry)?;
        let mut keys = BTreeSet::new();
        let mut map = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let key = constant_text(key, |key| format!("Invalid property name: {key}"))?;
            let value = constant_text(value, |value| {
                format!("Invalid property value: {value} for property: '{key}'")
            })?;
            if !keys.insert(key.clone()) {
                return Err(CqlError::syntax(format!(
                    "Multiple definition for property {key}"
                )));
            }
            map.push((key, value));
        }
        Ok(map)
    }

    /// What may follow WITH on a table, or on a materialized view.
    pub(super) fn optional_table_options(&mut self, is_view: bool) -> Parse<TableOptions> {
        let mut options = TableOptions::default();
        if !self.take_keyword(Keyword::With) {
            return Ok(options);
        }
        loop {
            if self.take_keywords(&[Keyword::Compact, Keyword::Storage]) {
                if is_view {
                    return Err(CqlError::syntax(
                        "COMPACT STORAGE tables are not allowed starting with version 4.0",
                    ));
                }
                options.compact_storage = true;
            } else if self.take_keywords(&[Keyword::Clustering, Keyword::Order]) {
                self.expect_keyword(Keyword::By)?;
                let (open, close) = (TokenKind::OpenParenthesis, TokenKind::CloseParenthesis);
                options
                    .clustering_order
                    .extend(self.enclosed(open, close, Self::clustering_order)?);
            } else {
                self.property(&mut options.properties)?;
            }
            if !self.take_keyword(Keyword::And) {
                return Ok(options);
            }
        }
    }

    /// `column (ASC | DESC)`
    fn clustering_order(&mut self) -> Parse<ClusteringOrder> {
        let column = self.name()?;
        let descending = self.take_keyword(Keyword::Desc);
        if !descending && !self.take_keyword(Keyword::Asc) {
            return Err(self.no_viable());
        }
        Ok(ClusteringOrder { column, descending })
    }
}

/// The text of a term that must be a constant.
fn constant_text(term: Term, complaint: impl FnOnce(&Term) -> String) -> Parse<Box<str>> {
    match term {
        Term::Literal(literal) => Ok(literal.text),
        other => {
            let mut message = complaint(&other);
            if matches!(other, Term::Marker(_)) {
                message.push_str(" (bind variables are not supported in DDL queries)");
            }
            Err(CqlError::syntax(message))
        }
    }
}
