//! What to write instead: hints behind syntax errors, for what other databases and drivers write.
//!
//! A hint is given only where the tokens around the offending one tell what was meant.

use super::cursor::Parser;
use crate::lexer::{Keyword, KeywordClass, Token, TokenKind};

impl Parser<'_> {
    /// `: what to write instead`, or nothing.
    pub(super) fn hint(&self, offending: Token) -> String {
        let index = self.tokens.partition_point(|token| token.start < offending.start);
        let kind = |at: Option<usize>| at.and_then(|at| self.tokens.get(at)).map(|token| token.kind);
        let (previous, next) = (kind(index.checked_sub(1)), kind(index.checked_add(1)));
        let statement = kind(Some(0));
        let before = kind(index.checked_sub(2));
        let defines = matches!(
            statement,
            Some(TokenKind::Keyword(Keyword::Create | Keyword::Alter))
        );
        if previous == Some(TokenKind::Identifier) && before.is_some_and(is_comparison) {
            return ": a word is no value: a text stands in single quotes, a bind marker is ? or :name"
                .to_owned();
        }
        let hint = match offending.kind {
            TokenKind::Keyword(keyword)
                if keyword.class() == KeywordClass::Reserved
                    && (previous == Some(TokenKind::Dot) || next == Some(TokenKind::Dot)) =>
            {
                let name = keyword.text().to_ascii_uppercase();
                return format!(": {name} is a reserved word; as a name it stands in double quotes");
            }
            TokenKind::Keyword(Keyword::Using) if statement == Some(TokenKind::Keyword(Keyword::Update)) => {
                "USING stands before SET"
            }
            TokenKind::Keyword(Keyword::Using) if statement == Some(TokenKind::Keyword(Keyword::Delete)) => {
                "USING stands before WHERE"
            }
            TokenKind::Keyword(Keyword::Or) => {
                "there is no OR: IN, or several queries, ask for one or the other"
            }
            TokenKind::Identifier if self.raw_text(offending).eq_ignore_ascii_case("offset") => {
                "there is no OFFSET: pages go on by the paging state, or by a restriction on the last key"
            }
            TokenKind::Identifier if self.raw_text(offending).eq_ignore_ascii_case("join") => {
                "there are no joins: a table holds what a query needs"
            }
            TokenKind::Greater if previous == Some(TokenKind::Less) && !defines => "not equal is written !=",
            TokenKind::Integer if previous == Some(TokenKind::Question) => {
                "bind markers have no numbers: write ? or :name"
            }
            TokenKind::Range => "values have to be written out",
            _ => return String::new(),
        };
        format!(": {hint}")
    }
}

fn is_comparison(kind: TokenKind) -> bool {
    matches!(
        kind,
        TokenKind::Equal
            | TokenKind::NotEqual
            | TokenKind::Less
            | TokenKind::LessOrEqual
            | TokenKind::Greater
            | TokenKind::GreaterOrEqual
    )
}
