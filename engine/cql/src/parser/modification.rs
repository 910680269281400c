//! INSERT, UPDATE, DELETE and BATCH.

use super::cursor::{Parse, Parser};
use crate::CqlError;
use crate::ast::{
    Assignment, AssignmentOperation, Batch, BatchKind, Delete, Deletion, Insert, InsertContent, JsonDefault,
    JsonValue, Literal, LiteralKind, Modification, Name, Term, Update, Using,
};
use crate::lexer::{Keyword, TokenKind};
use std::collections::BTreeMap;

impl Parser<'_> {
    /// After INSERT.
    pub(super) fn insert(&mut self) -> Parse<Insert> {
        self.expect_keyword(Keyword::Into)?;
        let table = self.table_name()?;
        let content = if self.take_keyword(Keyword::Json) {
            let value = self.json_value()?;
            InsertContent::Json {
                value,
                default: self.json_default()?,
            }
        } else if self.at(TokenKind::OpenParenthesis) {
            let (open, close) = (TokenKind::OpenParenthesis, TokenKind::CloseParenthesis);
            let columns = self.enclosed(open, close, Self::column_name)?;
            self.expect_keyword(Keyword::Values)?;
            InsertContent::Values {
                columns,
                values: self.enclosed(open, close, Self::term)?,
            }
        } else {
            return Err(self.no_viable());
        };
        let if_not_exists = self.if_not_exists()?;
        let using = self.optional_using(true)?;
        Ok(Insert {
            table,
            content,
            if_not_exists,
            using,
        })
    }

    fn json_value(&mut self) -> Parse<JsonValue> {
        if self.kind().is_string() {
            return Ok(JsonValue::Literal(self.string()?));
        }
        Ok(JsonValue::Marker(self.marker()?))
    }

    fn json_default(&mut self) -> Parse<JsonDefault> {
        if !self.take_keyword(Keyword::Default) || self.take_keyword(Keyword::Null) {
            return Ok(JsonDefault::Null);
        }
        if self.take_keyword(Keyword::Unset) {
            Ok(JsonDefault::Unset)
        } else {
            Err(self.no_viable())
        }
    }

    /// `[USING TIMESTAMP n AND TTL n AND TIMEOUT d]`, in any order
    fn optional_using(&mut self, with_ttl: bool) -> Parse<Using> {
        let mut using = Using::default();
        if !self.take_keyword(Keyword::Using) {
            return Ok(using);
        }
        loop {
            if self.take_keyword(Keyword::Timestamp) {
                using.timestamp = Some(self.integer_term()?);
            } else if with_ttl && self.take_keyword(Keyword::Ttl) {
                using.ttl = Some(self.integer_term()?);
            } else if self.take_word("timeout") {
                using.timeout = Some(self.literal_or_marker(LiteralKind::Duration)?);
            } else if with_ttl {
                return Err(self.no_viable());
            } else {
                return Err(self.mismatched(TokenKind::Keyword(Keyword::Timestamp)));
            }
            if !self.take_keyword(Keyword::And) {
                return Ok(using);
            }
        }
    }

    /// After UPDATE.
    pub(super) fn update(&mut self) -> Parse<Update> {
        let table = self.table_name()?;
        let using = self.optional_using(true)?;
        self.expect_keyword(Keyword::Set)?;
        let assignments = self.comma_separated(Self::assignment)?;
        check_compatible(&assignments)?;
        self.expect_keyword(Keyword::Where)?;
        let where_clause = self.where_clause()?;
        let condition = self.optional_condition()?;
        Ok(Update {
            table,
            using,
            assignments,
            where_clause,
            condition,
        })
    }

    fn assignment(&mut self) -> Parse<Assignment> {
        let column = self.column_name()?;
        let operation = match self.kind() {
            TokenKind::Equal => {
                self.advance();
                self.column_assignment(&column)?
            }
            TokenKind::PlusEqual => {
                self.advance();
                AssignmentOperation::Add(self.term()?)
            }
            TokenKind::MinusEqual => {
                self.advance();
                AssignmentOperation::Subtract(self.term()?)
            }
            TokenKind::OpenBracket => {
                self.advance();
                let key = self.term()?;
                self.expect(TokenKind::CloseBracket)?;
                self.expect(TokenKind::Equal)?;
                AssignmentOperation::SetElement {
                    key,
                    value: self.term()?,
                }
            }
            TokenKind::Dot => {
                self.advance();
                let field = self.name()?;
                self.expect(TokenKind::Equal)?;
                AssignmentOperation::SetField {
                    field,
                    value: self.term()?,
                }
            }
            _ => return Err(self.no_viable()),
        };
        Ok(Assignment { column, operation })
    }

    /// What follows `column =`.
    fn column_assignment(&mut self, column: &Name) -> Parse<AssignmentOperation> {
        let starts_with_column = self.kind().is_column_name()
            && matches!(
                self.kind_at(1),
                TokenKind::Plus | TokenKind::Minus | TokenKind::Integer
            );
        if starts_with_column {
            return self.column_change(column);
        }
        let term = self.term_before_column()?;
        if !self.take(TokenKind::Plus) {
            return Ok(AssignmentOperation::Set(term));
        }
        if self.column_name()? != *column {
            return Err(CqlError::syntax(
                "Only expressions of the form X = <value> + X are supported.",
            ));
        }
        Ok(AssignmentOperation::Prepend(term))
    }

    /// `column + term`, `column - term`, or `column -3`, whose sign belongs to the number.
    fn column_change(&mut self, column: &Name) -> Parse<AssignmentOperation> {
        let same = self.column_name()? == *column;
        let token = self.advance();
        let (sign, operation) = match token.kind {
            TokenKind::Plus => ("+", AssignmentOperation::Add(self.term()?)),
            TokenKind::Minus => ("-", AssignmentOperation::Subtract(self.term()?)),
            _ => {
                let text = self.raw_text(token);
                let literal = Literal {
                    kind: LiteralKind::Integer,
                    text: Box::from(text),
                };
                let sign = if text.starts_with('-') { "- " } else { "+ " };
                (sign, AssignmentOperation::Add(Term::Literal(literal)))
            }
        };
        if !same {
            return Err(CqlError::syntax(format!(
                "Only expressions of the form X = X {sign}<value> are supported."
            )));
        }
        Ok(operation)
    }

    /// After DELETE.
    pub(super) fn delete(&mut self) -> Parse<Delete> {
        let deletions = if self.at_keyword(Keyword::From) {
            Vec::new()
        } else {
            self.comma_separated(|parser| {
                Ok(Deletion {
                    column: parser.column_name()?,
                    part: parser.column_part()?,
                })
            })?
        };
        self.expect_keyword(Keyword::From)?;
        let table = self.table_name()?;
        let using = self.optional_using(false)?;
        self.expect_keyword(Keyword::Where)?;
        let where_clause = self.where_clause()?;
        let condition = self.optional_condition()?;
        Ok(Delete {
            deletions,
            table,
            using,
            where_clause,
            condition,
        })
    }

    /// After BEGIN.
    pub(super) fn batch(&mut self) -> Parse<Batch> {
        let kind = if self.take_keyword(Keyword::Unlogged) {
            BatchKind::Unlogged
        } else if self.take_keyword(Keyword::Counter) {
            BatchKind::Counter
        } else {
            BatchKind::Logged
        };
        self.expect_keyword(Keyword::Batch)?;
        let using = self.optional_using(true)?;
        let mut statements = Vec::new();
        while !self.take_keyword(Keyword::Apply) {
            statements.push(self.batch_statement()?);
            self.take(TokenKind::Semicolon);
        }
        self.expect_keyword(Keyword::Batch)?;
        Ok(Batch {
            kind,
            using,
            statements,
        })
    }

    fn batch_statement(&mut self) -> Parse<Modification> {
        if self.take_keyword(Keyword::Insert) {
            Ok(Modification::Insert(Box::new(self.insert()?)))
        } else if self.take_keyword(Keyword::Update) {
            Ok(Modification::Update(Box::new(self.update()?)))
        } else if self.take_keyword(Keyword::Delete) {
            Ok(Modification::Delete(Box::new(self.delete()?)))
        } else {
            Err(self.mismatched(TokenKind::Keyword(Keyword::Apply)))
        }
    }
}

/// A column that is set as a whole may not be changed a second time.
fn check_compatible(assignments: &[Assignment]) -> Parse<()> {
    let mut seen: BTreeMap<&Name, bool> = BTreeMap::new();
    for Assignment { column, operation } in assignments {
        let sets_whole = matches!(operation, AssignmentOperation::Set(_));
        match seen.insert(column, sets_whole) {
            Some(set_before) if set_before || sets_whole => {
                return Err(CqlError::syntax(format!(
                    "Multiple incompatible setting of column {column}"
                )));
            }
            _ => {}
        }
    }
    Ok(())
}
