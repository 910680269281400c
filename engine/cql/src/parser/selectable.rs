//! What SELECT computes.

use super::cursor::{Parse, Parser};
use crate::ast::{CellMetadata, Selectable, Selection, Selector, Term};
use crate::lexer::{Keyword, TokenKind};

impl Parser<'_> {
    /// `*` or selectors
    pub(super) fn selection(&mut self) -> Parse<Selection> {
        if self.take(TokenKind::Star) {
            return Ok(if self.take(TokenKind::Comma) {
                Selection::AllAnd(self.comma_separated(Self::selector)?)
            } else {
                Selection::All
            });
        }
        Ok(Selection::Selectors(self.comma_separated(Self::selector)?))
    }

    fn selector(&mut self) -> Parse<Selector> {
        let selectable = self.selectable()?;
        let alias = if self.take_keyword(Keyword::As) {
            Some(self.name()?)
        } else {
            None
        };
        Ok(Selector { selectable, alias })
    }

    pub(super) fn selectable(&mut self) -> Parse<Selectable> {
        self.nested(Self::additive_selectable)
    }

    fn additive_selectable(&mut self) -> Parse<Selectable> {
        let mut left = self.multiplicative_selectable()?;
        while let Some(operator) = self.kind().additive_operator() {
            self.chain()?;
            self.advance();
            let right = Box::new(self.multiplicative_selectable()?);
            left = Selectable::Operation {
                operator,
                left: Box::new(left),
                right,
            };
        }
        Ok(left)
    }

    fn multiplicative_selectable(&mut self) -> Parse<Selectable> {
        let mut left = self.signed_selectable()?;
        while let Some(operator) = self.kind().multiplicative_operator() {
            self.chain()?;
            self.advance();
            let right = Box::new(self.signed_selectable()?);
            left = Selectable::Operation {
                operator,
                left: Box::new(left),
                right,
            };
        }
        Ok(left)
    }

    fn signed_selectable(&mut self) -> Parse<Selectable> {
        if self.take(TokenKind::Minus) {
            return Ok(Selectable::Negation(Box::new(
                self.nested(Self::signed_selectable)?,
            )));
        }
        let operand = self.simple_selectable()?;
        self.selectable_parts(operand)
    }

    /// `operand (.field | [key] | [from..to])*`
    fn selectable_parts(&mut self, mut operand: Selectable) -> Parse<Selectable> {
        loop {
            if self.take(TokenKind::Dot) {
                self.chain()?;
                operand = Selectable::Field {
                    operand: Box::new(operand),
                    field: self.name()?,
                };
            } else if self.take(TokenKind::OpenBracket) {
                self.chain()?;
                operand = self.element_or_slice(Box::new(operand))?;
                self.expect(TokenKind::CloseBracket)?;
            } else {
                return Ok(operand);
            }
        }
    }

    fn element_or_slice(&mut self, operand: Box<Selectable>) -> Parse<Selectable> {
        if self.take(TokenKind::Range) {
            return Ok(Selectable::Slice {
                operand,
                from: None,
                to: Some(self.term()?),
            });
        }
        let key = self.term()?;
        if !self.take(TokenKind::Range) {
            return Ok(Selectable::Element { operand, key });
        }
        let to = if self.at(TokenKind::CloseBracket) {
            None
        } else {
            Some(self.term()?)
        };
        Ok(Selectable::Slice {
            operand,
            from: Some(key),
            to,
        })
    }

    fn simple_selectable(&mut self) -> Parse<Selectable> {
        if let Some(literal) = self.take_literal() {
            return Ok(Selectable::Term(Term::Literal(literal)));
        }
        match self.kind() {
            TokenKind::Question | TokenKind::Colon => Ok(Selectable::Term(Term::Marker(self.marker()?))),
            TokenKind::Keyword(Keyword::Null) => {
                self.advance();
                Ok(Selectable::Term(Term::Null))
            }
            TokenKind::OpenParenthesis => self.parenthesis_selectable(),
            TokenKind::OpenBracket => {
                let elements = self.enclosed_or_empty(
                    TokenKind::OpenBracket,
                    TokenKind::CloseBracket,
                    Self::selectable,
                )?;
                Ok(Selectable::List(elements))
            }
            TokenKind::OpenBrace => self.brace_selectable(),
            _ => self.column_or_call(),
        }
    }

    fn parenthesis_selectable(&mut self) -> Parse<Selectable> {
        if self.selectable_type_hint_follows() {
            self.expect(TokenKind::OpenParenthesis)?;
            let raw_type = self.cql_type()?;
            self.expect(TokenKind::CloseParenthesis)?;
            let operand = Box::new(self.nested(Self::simple_selectable)?);
            return Ok(Selectable::TypeHint { raw_type, operand });
        }
        let elements = self.enclosed(
            TokenKind::OpenParenthesis,
            TokenKind::CloseParenthesis,
            Self::selectable,
        )?;
        Ok(Selectable::Tuple(elements))
    }

    /// `(type)` and the start of a selectable come next.
    fn selectable_type_hint_follows(&self) -> bool {
        self.type_length_at(1).is_some_and(|length| {
            let close = 1 + length;
            self.kind_at(close) == TokenKind::CloseParenthesis && self.simple_selectable_starts_at(close + 1)
        })
    }

    fn simple_selectable_starts_at(&self, ahead: usize) -> bool {
        let kind = self.kind_at(ahead);
        // `(a) AS b` and `(a)[1]` select a column in parentheses
        (kind.is_name() && kind != TokenKind::Keyword(Keyword::As))
            || kind.literal_kind().is_some()
            || self.function_call_follows_at(ahead)
            || matches!(
                kind,
                TokenKind::Question
                    | TokenKind::Colon
                    | TokenKind::OpenBrace
                    | TokenKind::OpenBracket
                    | TokenKind::OpenParenthesis
                    | TokenKind::Keyword(Keyword::Null)
            )
    }

    fn brace_selectable(&mut self) -> Parse<Selectable> {
        self.expect(TokenKind::OpenBrace)?;
        if self.take(TokenKind::CloseBrace) {
            return Ok(Selectable::Set(Vec::new()));
        }
        let first = self.selectable()?;
        let braced = if self.take(TokenKind::Colon) {
            let mut entries = vec![(first, self.selectable()?)];
            while self.take(TokenKind::Comma) {
                let key = self.selectable()?;
                self.expect(TokenKind::Colon)?;
                entries.push((key, self.selectable()?));
            }
            Selectable::MapOrUserType(entries)
        } else {
            let mut elements = vec![first];
            while self.take(TokenKind::Comma) {
                elements.push(self.selectable()?);
            }
            Selectable::Set(elements)
        };
        self.expect(TokenKind::CloseBrace)?;
        Ok(braced)
    }

    fn column_or_call(&mut self) -> Parse<Selectable> {
        let call = self.kind_at(1) == TokenKind::OpenParenthesis;
        match self.kind() {
            TokenKind::Keyword(Keyword::Count) if call && self.kind_at(2) == TokenKind::Star => {
                self.position += 3;
                self.expect(TokenKind::CloseParenthesis)?;
                Ok(Selectable::CountRows)
            }
            TokenKind::Keyword(Keyword::Writetime) if call => self.cell_metadata(CellMetadata::Writetime),
            TokenKind::Keyword(Keyword::Maxwritetime) if call => {
                self.cell_metadata(CellMetadata::MaxWritetime)
            }
            TokenKind::Keyword(Keyword::Ttl) if call => self.cell_metadata(CellMetadata::Ttl),
            TokenKind::Keyword(Keyword::Cast) if call => self.cast_selectable(),
            _ if self.function_call_follows() => {
                let name = self.function_name()?;
                let arguments = self.enclosed_or_empty(
                    TokenKind::OpenParenthesis,
                    TokenKind::CloseParenthesis,
                    Self::selectable,
                )?;
                Ok(Selectable::Function { name, arguments })
            }
            _ => Ok(Selectable::Column(self.name()?)),
        }
    }

    fn cell_metadata(&mut self, kind: CellMetadata) -> Parse<Selectable> {
        self.position += 2;
        let column = Selectable::Column(self.name()?);
        let operand = Box::new(self.selectable_parts(column)?);
        self.expect(TokenKind::CloseParenthesis)?;
        Ok(Selectable::CellMetadata { kind, operand })
    }

    fn cast_selectable(&mut self) -> Parse<Selectable> {
        self.position += 2;
        let operand = Box::new(self.selectable()?);
        self.expect_keyword(Keyword::As)?;
        let target = self.native_type()?;
        self.expect(TokenKind::CloseParenthesis)?;
        Ok(Selectable::Cast { operand, target })
    }
}
