//! Terms.

use super::cursor::{Parse, Parser};
use crate::ast::{ArithmeticOperator, BindMarker, Literal, LiteralKind, Name, Term};
use crate::lexer::{Keyword, TokenKind};
use std::collections::BTreeMap;

impl TokenKind {
    pub(super) fn additive_operator(self) -> Option<ArithmeticOperator> {
        match self {
            Self::Plus => Some(ArithmeticOperator::Add),
            Self::Minus => Some(ArithmeticOperator::Subtract),
            _ => None,
        }
    }

    pub(super) fn multiplicative_operator(self) -> Option<ArithmeticOperator> {
        match self {
            Self::Star => Some(ArithmeticOperator::Multiply),
            Self::Slash => Some(ArithmeticOperator::Divide),
            Self::Percent => Some(ArithmeticOperator::Modulo),
            _ => None,
        }
    }

    pub(super) fn literal_kind(self) -> Option<LiteralKind> {
        Some(match self {
            Self::String | Self::DollarString => LiteralKind::String,
            Self::Integer => LiteralKind::Integer,
            Self::Float | Self::NegativeNan | Self::NegativeInfinity => LiteralKind::Float,
            Self::Keyword(Keyword::Nan | Keyword::Infinity) => LiteralKind::Float,
            Self::Keyword(Keyword::True | Keyword::False) => LiteralKind::Boolean,
            Self::Duration => LiteralKind::Duration,
            Self::Uuid => LiteralKind::Uuid,
            Self::Hex => LiteralKind::Hex,
            _ => return None,
        })
    }
}

impl Parser<'_> {
    pub(super) fn term(&mut self) -> Parse<Term> {
        self.nested(|parser| parser.additive_term(false))
    }

    /// A term that a `+ column` may follow, as in `list = [1] + list`.
    pub(super) fn term_before_column(&mut self) -> Parse<Term> {
        self.nested(|parser| parser.additive_term(true))
    }

    fn additive_term(&mut self, stops_before_column: bool) -> Parse<Term> {
        let mut left = self.multiplicative_term()?;
        while let Some(operator) = self.kind().additive_operator() {
            if stops_before_column && self.kind_at(1).is_column_name() && !self.function_call_follows_at(1) {
                break;
            }
            self.chain()?;
            self.advance();
            let right = Box::new(self.multiplicative_term()?);
            left = Term::Operation {
                operator,
                left: Box::new(left),
                right,
            };
        }
        Ok(left)
    }

    fn multiplicative_term(&mut self) -> Parse<Term> {
        let mut left = self.signed_term()?;
        while let Some(operator) = self.kind().multiplicative_operator() {
            self.chain()?;
            self.advance();
            let right = Box::new(self.signed_term()?);
            left = Term::Operation {
                operator,
                left: Box::new(left),
                right,
            };
        }
        Ok(left)
    }

    fn signed_term(&mut self) -> Parse<Term> {
        if self.take(TokenKind::Minus) {
            return Ok(Term::Negation(Box::new(self.simple_term()?)));
        }
        self.simple_term()
    }

    fn simple_term(&mut self) -> Parse<Term> {
        if let Some(literal) = self.take_literal() {
            return Ok(Term::Literal(literal));
        }
        match self.kind() {
            TokenKind::Question | TokenKind::Colon => Ok(Term::Marker(self.marker()?)),
            TokenKind::Keyword(Keyword::Null) => {
                self.advance();
                Ok(Term::Null)
            }
            TokenKind::OpenBracket => {
                let elements =
                    self.enclosed_or_empty(TokenKind::OpenBracket, TokenKind::CloseBracket, Self::term)?;
                Ok(Term::List(elements))
            }
            TokenKind::OpenBrace => self.brace_term(),
            TokenKind::OpenParenthesis => self.parenthesis_term(),
            TokenKind::Keyword(Keyword::Cast) if self.kind_at(1) == TokenKind::OpenParenthesis => {
                self.cast_term()
            }
            _ => self.function_term(),
        }
    }

    pub(super) fn take_literal(&mut self) -> Option<Literal> {
        let kind = self.kind().literal_kind()?;
        let token = self.advance();
        let text = match token.kind {
            TokenKind::NegativeNan | TokenKind::Keyword(Keyword::Nan) => Box::from("NaN"),
            TokenKind::NegativeInfinity => Box::from("-Infinity"),
            TokenKind::Keyword(Keyword::Infinity) => Box::from("Infinity"),
            _ => Box::from(self.unquoted_text(token)),
        };
        Some(Literal { kind, text })
    }

    /// `?` or `:name`
    pub(super) fn marker(&mut self) -> Parse<BindMarker> {
        if self.take(TokenKind::Question) {
            return Ok(self.declare_variable(None));
        }
        if !self.take(TokenKind::Colon) {
            return Err(self.no_viable());
        }
        let name = self.name()?;
        Ok(self.declare_variable(Some(name)))
    }

    /// An integer literal or a bind marker.
    pub(super) fn integer_term(&mut self) -> Parse<Term> {
        self.literal_or_marker(LiteralKind::Integer)
    }

    /// A literal of this kind or a bind marker.
    pub(super) fn literal_or_marker(&mut self, kind: LiteralKind) -> Parse<Term> {
        if self.kind().literal_kind() == Some(kind)
            && let Some(literal) = self.take_literal()
        {
            return Ok(Term::Literal(literal));
        }
        Ok(Term::Marker(self.marker()?))
    }

    /// A set, map or user-defined type.
    fn brace_term(&mut self) -> Parse<Term> {
        self.expect(TokenKind::OpenBrace)?;
        if self.take(TokenKind::CloseBrace) {
            return Ok(Term::Set(Vec::new()));
        }
        if self.kind().is_name() && self.kind_at(1) == TokenKind::Colon {
            return self.user_type_fields();
        }
        let first = self.term()?;
        let braced = if self.take(TokenKind::Colon) {
            let mut entries = vec![(first, self.term()?)];
            while self.take(TokenKind::Comma) {
                entries.push(self.map_entry()?);
            }
            Term::Map(entries)
        } else {
            let mut elements = vec![first];
            while self.take(TokenKind::Comma) {
                elements.push(self.term()?);
            }
            Term::Set(elements)
        };
        self.expect(TokenKind::CloseBrace)?;
        Ok(braced)
    }

    /// `key ':' value`
    pub(super) fn map_entry(&mut self) -> Parse<(Term, Term)> {
        let key = self.term()?;
        self.expect(TokenKind::Colon)?;
        Ok((key, self.term()?))
    }

    fn user_type_fields(&mut self) -> Parse<Term> {
        let mut fields: Vec<(Name, Term)> = Vec::new();
        loop {
            let name = self.name()?;
            self.expect(TokenKind::Colon)?;
            let value = self.term()?;
            fields.push((name, value));
            if !self.take(TokenKind::Comma) {
                break;
            }
        }
        self.expect(TokenKind::CloseBrace)?;
        Ok(Term::UserType(last_of_each(fields)))
    }

    /// A tuple, or a type hint and what it hints at.
    fn parenthesis_term(&mut self) -> Parse<Term> {
        if !self.type_hint_follows() {
            return self.tuple_term();
        }
        self.expect(TokenKind::OpenParenthesis)?;
        let raw_type = self.cql_type()?;
        self.expect(TokenKind::CloseParenthesis)?;
        let term = Box::new(self.nested(Self::simple_term)?);
        Ok(Term::TypeHint { raw_type, term })
    }

    /// `(a, b)`
    pub(super) fn tuple_term(&mut self) -> Parse<Term> {
        let elements = self.enclosed(
            TokenKind::OpenParenthesis,
            TokenKind::CloseParenthesis,
            Self::term,
        )?;
        Ok(Term::Tuple(elements))
    }

    /// `(type)` and the start of a term come next.
    fn type_hint_follows(&self) -> bool {
        self.type_length_at(1).is_some_and(|length| {
            let close = 1 + length;
            self.kind_at(close) == TokenKind::CloseParenthesis && self.simple_term_starts_at(close + 1)
        })
    }

    fn simple_term_starts_at(&self, ahead: usize) -> bool {
        let kind = self.kind_at(ahead);
        kind.literal_kind().is_some()
            || matches!(
                kind,
                TokenKind::Question
                    | TokenKind::Colon
                    | TokenKind::OpenBracket
                    | TokenKind::OpenBrace
                    | TokenKind::OpenParenthesis
                    | TokenKind::Keyword(Keyword::Null)
            )
            || (kind == TokenKind::Keyword(Keyword::Cast)
                && self.kind_at(ahead + 1) == TokenKind::OpenParenthesis)
            || self.function_call_follows_at(ahead)
    }

    /// `CAST(a AS type)`
    fn cast_term(&mut self) -> Parse<Term> {
        self.position += 2;
        let term = Box::new(self.nested(Self::simple_term)?);
        self.expect_keyword(Keyword::As)?;
        let target = self.native_type()?;
        self.expect(TokenKind::CloseParenthesis)?;
        Ok(Term::Cast { term, target })
    }

    fn function_term(&mut self) -> Parse<Term> {
        if !self.function_call_follows() {
            // a bare name is blamed on what follows it
            let ahead = usize::from(self.kind().is_function_name());
            return Err(self.no_viable_at(ahead));
        }
        let name = self.function_name()?;
        let arguments = self.enclosed_or_empty(
            TokenKind::OpenParenthesis,
            TokenKind::CloseParenthesis,
            Self::term,
        )?;
        Ok(Term::Function { name, arguments })
    }
}

/// Every field once, at its first place with its last value.
fn last_of_each(fields: Vec<(Name, Term)>) -> Vec<(Name, Term)> {
    let mut places: BTreeMap<Name, usize> = BTreeMap::new();
    let mut unique: Vec<(Name, Term)> = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        let place = *places.entry(name.clone()).or_insert(unique.len());
        match unique.get_mut(place) {
            Some(entry) => entry.1 = value,
            None => unique.push((name, value)),
        }
    }
    unique
}
