//! Names: which tokens may be one, and how they fold.

use super::cursor::{Parse, Parser};
use crate::CqlError;
use crate::ast::{Name, QualifiedName};
use crate::lexer::{Keyword, KeywordClass, Token, TokenKind};
use std::borrow::Cow;

/// Words that are no keywords, yet no user-defined type may have them as its unquoted name.
const RESERVED_TYPE_NAMES: [&str; 7] = [
    "byte",
    "complex",
    "enum",
    "date",
    "interval",
    "macaddr",
    "bitstring",
];

impl TokenKind {
    /// Identifier, quoted name or any keyword that is not reserved.
    pub(super) fn is_name(self) -> bool {
        match self {
            Self::Identifier | Self::QuotedName => true,
            Self::Keyword(keyword) => keyword.class() != KeywordClass::Reserved,
            _ => false,
        }
    }

    /// [`TokenKind::is_name`] or `""`.
    pub(super) fn is_column_name(self) -> bool {
        self == Self::EmptyQuotedName || self.is_name()
    }

    pub(super) fn is_function_name(self) -> bool {
        match self {
            Self::Identifier | Self::QuotedName | Self::Keyword(Keyword::Token | Keyword::Count) => true,
            Self::Keyword(keyword) => {
                matches!(keyword.class(), KeywordClass::Basic | KeywordClass::NativeType)
            }
            _ => false,
        }
    }

    pub(super) fn is_type_name(self) -> bool {
        match self {
            Self::Identifier | Self::QuotedName | Self::Keyword(Keyword::Key) => true,
            Self::Keyword(keyword) => keyword.class() == KeywordClass::Basic,
            _ => false,
        }
    }

    pub(super) fn is_string(self) -> bool {
        matches!(self, Self::String | Self::DollarString)
    }
}

impl<'a> Parser<'a> {
    /// The content of a string or quoted name, or the text of another token as it is.
    pub(super) fn unquoted_text(&self, token: Token) -> Cow<'a, str> {
        let text = self.raw_text(token);
        match token.kind {
            TokenKind::String => undouble(&text[1..text.len() - 1], '\''),
            TokenKind::QuotedName | TokenKind::EmptyQuotedName => undouble(&text[1..text.len() - 1], '"'),
            TokenKind::DollarString => Cow::Borrowed(&text[2..text.len() - 2]),
            _ => Cow::Borrowed(text),
        }
    }

    /// A token as a name: quoted as it is, else in lower case.
    pub(super) fn fold(&self, token: Token) -> Name {
        let text = self.unquoted_text(token);
        let keeps_case = !matches!(token.kind, TokenKind::Identifier | TokenKind::Keyword(_));
        if keeps_case || !text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Name::from(text)
        } else {
            Name::from(text.to_ascii_lowercase())
        }
    }

    /// A name that is not a column of a table that may be old.
    pub(super) fn name(&mut self) -> Parse<Name> {
        if !self.kind().is_name() {
            return Err(self.no_viable());
        }
        let token = self.advance();
        Ok(self.fold(token))
    }

    /// A column outside of schema statements: may be `""`.
    pub(super) fn column_name(&mut self) -> Parse<Name> {
        if self.take(TokenKind::EmptyQuotedName) {
            return Ok(Name::from(""));
        }
        self.name()
    }

    fn unbindable_name(&mut self, what: &str) -> Parse<Name> {
        if self.at(TokenKind::Question) {
            return Err(CqlError::syntax(format!(
                "Bind variables cannot be used for {what} names"
            )));
        }
        self.name()
    }

    pub(super) fn keyspace_name(&mut self) -> Parse<Name> {
        self.unbindable_name("keyspace")
    }

    pub(super) fn index_name(&mut self) -> Parse<Name> {
        self.unbindable_name("index")
    }

    fn qualified(&mut self, last: impl FnOnce(&mut Self) -> Parse<Name>) -> Parse<QualifiedName> {
        let keyspace = if self.kind_at(1) == TokenKind::Dot {
            let keyspace = self.keyspace_name()?;
            self.expect(TokenKind::Dot)?;
            Some(keyspace)
        } else {
            None
        };
        Ok(QualifiedName {
            keyspace,
            name: last(self)?,
        })
    }

    pub(super) fn table_name(&mut self) -> Parse<QualifiedName> {
        self.qualified(|parser| parser.unbindable_name("table"))
    }

    pub(super) fn qualified_index_name(&mut self) -> Parse<QualifiedName> {
        self.qualified(Self::index_name)
    }

    pub(super) fn type_name(&mut self) -> Parse<QualifiedName> {
        self.qualified(|parser| {
            if !parser.kind().is_type_name() {
                return Err(parser.no_viable());
            }
            let token = parser.advance();
            let text = parser.raw_text(token);
            if RESERVED_TYPE_NAMES.contains(&text) {
                return Err(CqlError::syntax(format!(
                    "Invalid (reserved) user type name {text}"
                )));
            }
            Ok(parser.fold(token))
        })
    }

    pub(super) fn function_name(&mut self) -> Parse<QualifiedName> {
        self.qualified(Self::unqualified_function_name)
    }

    pub(super) fn unqualified_function_name(&mut self) -> Parse<Name> {
        if !self.kind().is_function_name() {
            return Err(self.no_viable());
        }
        let token = self.advance();
        Ok(self.fold(token))
    }

    /// `f(` or `keyspace.f(` comes next.
    pub(super) fn function_call_follows(&self) -> bool {
        self.function_call_follows_at(0)
    }

    pub(super) fn function_call_follows_at(&self, ahead: usize) -> bool {
        let open = |ahead| self.kind_at(ahead) == TokenKind::OpenParenthesis;
        let qualified = self.kind_at(ahead).is_name()
            && self.kind_at(ahead + 1) == TokenKind::Dot
            && self.kind_at(ahead + 2).is_function_name()
            && open(ahead + 3);
        qualified || (self.kind_at(ahead).is_function_name() && open(ahead + 1))
    }

    /// The name of a role: any name, or a string, whose case stays.
    pub(super) fn role_name(&mut self) -> Parse<Name> {
        if self.kind().is_string() {
            let token = self.advance();
            return Ok(Name::from(self.unquoted_text(token)));
        }
        self.unbindable_name("role")
    }

    pub(super) fn string(&mut self) -> Parse<Box<str>> {
        if !self.kind().is_string() {
            return Err(self.mismatched(TokenKind::String));
        }
        let token = self.advance();
        Ok(Box::from(self.unquoted_text(token)))
    }
}

fn undouble(content: &str, quote: char) -> Cow<'_, str> {
    if !content.contains(quote) {
        return Cow::Borrowed(content);
    }
    let doubled = [quote, quote].iter().collect::<String>();
    Cow::Owned(content.replace(&doubled, &quote.to_string()))
}
