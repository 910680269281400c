//! Texts of syntax errors, in the words that Cassandra's users and tests know.
//!
//! `line 1:14 mismatched input 'FORM' expecting K_FROM (SELECT * [FORM] users...)`: lines count from 1, columns from 0
//! in characters; the words around the offending token follow, and a hint where one is known.

use super::cursor::Parser;
use crate::CqlError;
use crate::lexer::{Keyword, LexicalFault, Token, TokenKind};

/// How many tokens before the offending one are shown; a gap between two tokens counts as one, too.
const SNIPPET_BEFORE: usize = 10;

/// How many tokens after the offending one are shown, likewise.
const SNIPPET_AFTER: usize = 2;

/// The longest snippet, in bytes: a string literal may be of any length.
const MAX_SNIPPET_BYTES: usize = 300;

impl Parser<'_> {
    /// The next token is not the only one that fits.
    pub(super) fn mismatched(&self, expected: TokenKind) -> CqlError {
        let found = self.token_at(0);
        let message = format!(
            "mismatched input '{}' expecting {}",
            self.display_text(found),
            expected_text(expected)
        );
        self.error_at(found, message)
    }

    /// The next token is none of those that fit.
    pub(super) fn no_viable(&self) -> CqlError {
        self.no_viable_at(0)
    }

    pub(super) fn no_viable_at(&self, ahead: usize) -> CqlError {
        let found = self.token_at(ahead);
        self.error_at(
            found,
            format!("no viable alternative at input '{}'", self.display_text(found)),
        )
    }

    /// `line L:C message (snippet)`; a lexical fault at the token takes the place of the message.
    pub(super) fn error_at(&self, token: Token, message: String) -> CqlError {
        let start = token.start as usize;
        match token.kind {
            TokenKind::Invalid(LexicalFault::Character) => {
                let message = format!("no viable alternative at character '{}'", self.raw_text(token));
                self.error_at_offset(start, &message, "")
            }
            TokenKind::Invalid(LexicalFault::Unterminated(close)) => {
                let message = format!("mismatched character '<EOF>' expecting '{close}'");
                self.error_at_offset(self.text.len(), &message, "")
            }
            _ => {
                let around = self.snippet(token) + &self.hint(token);
                self.error_at_offset(start, &message, &around)
            }
        }
    }

    fn error_at_offset(&self, offset: usize, message: &str, snippet: &str) -> CqlError {
        let before = &self.text[..offset];
        let line = before.matches('\n').count() + 1;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before[line_start..].chars().count();
        CqlError::Syntax(format!("line {line}:{column} {message}{snippet}"))
    }

    fn display_text(&self, token: Token) -> String {
        match token.kind {
            TokenKind::End => "<EOF>".to_owned(),
            TokenKind::String | TokenKind::DollarString | TokenKind::QuotedName => {
                let text = self.unquoted_text(token);
                clip(&text, MAX_SNIPPET_BYTES).to_owned()
            }
            _ => clip(self.raw_text(token), MAX_SNIPPET_BYTES).to_owned(),
        }
    }

    /// ` (...words before [token] words after...)`, or nothing at the end of the text.
    fn snippet(&self, offending: Token) -> String {
        if offending.kind == TokenKind::End {
            return String::new();
        }
        let (start, end) = (offending.start as usize, offending.end as usize);
        let index = self.tokens.partition_point(|token| token.start < offending.start);
        let from = self.snippet_start(index);
        let to = self.snippet_end(index);
        let at_start = self.text[..from].trim().is_empty();
        let at_end = self.text[to..].trim().is_empty();
        let open = if at_start { "" } else { "..." };
        let close = if at_end { "" } else { "..." };
        let snippet = format!(
            " ({open}{}[{}]{}{close})",
            &self.text[from..start],
            clip(&self.text[start..end], MAX_SNIPPET_BYTES),
            &self.text[end..to]
        );
        snippet.replace(['\n', '\r'], " ")
    }

    fn snippet_start(&self, index: usize) -> usize {
        let mut from = self.tokens[index].start as usize;
        let lowest = from.saturating_sub(MAX_SNIPPET_BYTES);
        let mut left = SNIPPET_BEFORE;
        for token in self.tokens[..index].iter().rev() {
            let gap = usize::from((token.end as usize) < from);
            if left <= gap || (token.start as usize) < lowest {
                let shows_gap = left > 0 && (token.end as usize) >= lowest;
                return if shows_gap { token.end as usize } else { from };
            }
            left -= 1 + gap;
            from = token.start as usize;
        }
        from
    }

    fn snippet_end(&self, index: usize) -> usize {
        let mut to = self.tokens[index].end as usize;
        let highest = to + MAX_SNIPPET_BYTES;
        let mut left = SNIPPET_AFTER;
        for token in &self.tokens[index + 1..] {
            let gap = usize::from(token.start as usize > to);
            if left <= gap || token.end as usize > highest || token.kind == TokenKind::End {
                break;
            }
            left -= 1 + gap;
            to = token.end as usize;
        }
        to
    }
}

/// The longest start of `text` within `bytes` bytes.
fn clip(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What Cassandra's grammar calls the token.
fn expected_text(kind: TokenKind) -> String {
    let text = match kind {
        TokenKind::Keyword(Keyword::Table) => "K_COLUMNFAMILY",
        TokenKind::Keyword(keyword) => return format!("K_{}", keyword.text().to_ascii_uppercase()),
        TokenKind::Identifier => "IDENT",
        TokenKind::QuotedName => "QUOTED_NAME",
        TokenKind::EmptyQuotedName => "EMPTY_QUOTED_NAME",
        TokenKind::String | TokenKind::DollarString => "STRING_LITERAL",
        TokenKind::Integer => "INTEGER",
        TokenKind::Float => "FLOAT",
        TokenKind::Duration => "DURATION",
        TokenKind::Uuid => "UUID",
        TokenKind::Hex => "HEXNUMBER",
        TokenKind::NegativeNan => "K_NEGATIVE_NAN",
        TokenKind::NegativeInfinity => "K_NEGATIVE_INFINITY",
        TokenKind::Question => "QMARK",
        TokenKind::Range => "RANGE",
        TokenKind::End => "EOF",
        TokenKind::Invalid(_) => "nothing",
        TokenKind::Colon => "':'",
        TokenKind::Semicolon => "';'",
        TokenKind::Comma => "','",
        TokenKind::Dot => "'.'",
        TokenKind::OpenParenthesis => "'('",
        TokenKind::CloseParenthesis => "')'",
        TokenKind::OpenBracket => "'['",
        TokenKind::CloseBracket => "']'",
        TokenKind::OpenBrace => "'{'",
        TokenKind::CloseBrace => "'}'",
        TokenKind::Plus => "'+'",
        TokenKind::Minus => "'-'",
        TokenKind::Star => "'*'",
        TokenKind::Slash => "'/'",
        TokenKind::Percent => "'%'",
        TokenKind::PlusEqual => "'+='",
        TokenKind::MinusEqual => "'-='",
        TokenKind::Equal => "'='",
        TokenKind::NotEqual => "'!='",
        TokenKind::Less => "'<'",
        TokenKind::LessOrEqual => "'<='",
        TokenKind::Greater => "'>'",
        TokenKind::GreaterOrEqual => "'>='",
    };
    text.to_owned()
}
