//! Types.

use super::cursor::{Parse, Parser};
use crate::CqlError;
use crate::ast::RawType;
use crate::lexer::{Keyword, TokenKind};
use ceto_model::CqlType;

/// The native type that a keyword names.
fn native_type_of(kind: TokenKind) -> Option<CqlType> {
    let TokenKind::Keyword(keyword) = kind else {
        return None;
    };
    Some(match keyword {
        Keyword::Ascii => CqlType::Ascii,
        Keyword::Bigint => CqlType::Bigint,
        Keyword::Blob => CqlType::Blob,
        Keyword::Boolean => CqlType::Boolean,
        Keyword::Counter => CqlType::Counter,
        Keyword::Date => CqlType::Date,
        Keyword::Decimal => CqlType::Decimal,
        Keyword::Double => CqlType::Double,
        Keyword::Duration => CqlType::Duration,
        Keyword::Float => CqlType::Float,
        Keyword::Inet => CqlType::Inet,
        Keyword::Int => CqlType::Int,
        Keyword::Smallint => CqlType::Smallint,
        Keyword::Text | Keyword::Varchar => CqlType::Text,
        Keyword::Time => CqlType::Time,
        Keyword::Timestamp => CqlType::Timestamp,
        Keyword::Timeuuid => CqlType::Timeuuid,
        Keyword::Tinyint => CqlType::Tinyint,
        Keyword::Uuid => CqlType::Uuid,
        Keyword::Varint => CqlType::Varint,
        _ => return None,
    })
}

impl Parser<'_> {
    pub(super) fn native_type(&mut self) -> Parse<CqlType> {
        let native = native_type_of(self.kind()).ok_or_else(|| self.no_viable())?;
        self.advance();
        Ok(native)
    }

    pub(super) fn cql_type(&mut self) -> Parse<RawType> {
        self.nested(Self::cql_type_at_this_level)
    }

    fn cql_type_at_this_level(&mut self) -> Parse<RawType> {
        if self.kind_at(1) != TokenKind::Dot
            && let Some(native) = native_type_of(self.kind())
        {
            self.advance();
            return Ok(RawType::Native(native));
        }
        if self.kind().is_string() {
            return Ok(RawType::Custom(self.string()?));
        }
        if let TokenKind::Keyword(keyword) = self.kind()
            && self.kind_at(1) == TokenKind::Less
            && is_parametric(keyword)
        {
            self.position += 2;
            let parametric = self.type_parameters(keyword)?;
            self.expect(TokenKind::Greater)?;
            return Ok(parametric);
        }
        Ok(RawType::UserType(self.type_name()?))
    }

    fn type_parameters(&mut self, keyword: Keyword) -> Parse<RawType> {
        Ok(match keyword {
            Keyword::List => RawType::List(Box::new(self.cql_type()?)),
            Keyword::Set => RawType::Set(Box::new(self.cql_type()?)),
            Keyword::Map => {
                let key = self.cql_type()?;
                self.expect(TokenKind::Comma)?;
                RawType::Map(Box::new(key), Box::new(self.cql_type()?))
            }
            Keyword::Tuple => RawType::Tuple(self.comma_separated(Self::cql_type)?),
            Keyword::Vector => {
                let element = Box::new(self.cql_type()?);
                self.expect(TokenKind::Comma)?;
                let token = self.expect(TokenKind::Integer)?;
                let text = self.raw_text(token);
                let dimension = text
                    .parse()
                    .map_err(|_| self.error_at(token, format!("vector dimension {text} is out of range")))?;
                RawType::Vector { element, dimension }
            }
            _ => self.frozen_type()?,
        })
    }

    fn frozen_type(&mut self) -> Parse<RawType> {
        let inner = self.cql_type()?;
        if matches!(inner, RawType::Native(_) | RawType::Custom(_)) {
            return Err(CqlError::syntax(format!(
                "frozen<> is only allowed on collections, tuples, and user-defined types (got {inner})"
            )));
        }
        Ok(RawType::Frozen(Box::new(inner)))
    }

    /// How many tokens a type takes that starts `ahead`, if one may start there. Does not check what is between angle
    /// brackets, but that they match.
    pub(super) fn type_length_at(&self, ahead: usize) -> Option<usize> {
        let kind = self.kind_at(ahead);
        if kind.is_name() && self.kind_at(ahead + 1) == TokenKind::Dot {
            return self.kind_at(ahead + 2).is_type_name().then_some(3);
        }
        if let TokenKind::Keyword(keyword) = kind
            && self.kind_at(ahead + 1) == TokenKind::Less
            && is_parametric(keyword)
        {
            return self.angle_brackets_length_at(ahead + 1).map(|length| 1 + length);
        }
        (native_type_of(kind).is_some() || kind.is_type_name() || kind.is_string()).then_some(1)
    }

    fn angle_brackets_length_at(&self, ahead: usize) -> Option<usize> {
        let mut open = 0usize;
        let mut length = 0;
        loop {
            match self.kind_at(ahead + length) {
                TokenKind::Less => open += 1,
                TokenKind::Greater => open -= 1,
                TokenKind::Comma | TokenKind::Dot | TokenKind::Integer | TokenKind::Keyword(Keyword::Set) => {
                }
                kind if kind.is_name() || kind.is_string() => {}
                _ => return None,
            }
            length += 1;
            if open == 0 {
                return Some(length);
            }
        }
    }
}

fn is_parametric(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::List | Keyword::Set | Keyword::Map | Keyword::Tuple | Keyword::Vector | Keyword::Frozen
    )
}
