//! The parser's state and the small steps every rule is made of.

use crate::CqlError;
use crate::ast::{BindMarker, Name};
use crate::lexer::{self, Keyword, MAX_TOKENS, Token, TokenKind};

/// The longest statement, in bytes.
pub const MAX_STATEMENT_BYTES: usize = 64 << 20;

/// How deep terms, selectors, types and parenthesised relations may nest.
pub const MAX_NESTING: usize = 100;

/// How many operators, fields and elements one expression may chain: each adds a level to its tree.
pub const MAX_OPERATORS: usize = 250;

/// The most bind markers that the protocol can count.
pub const MAX_BIND_MARKERS: usize = u16::MAX as usize;

pub(super) type Parse<T> = Result<T, CqlError>;

pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    /// Never empty; the last is [`TokenKind::End`].
    pub(super) tokens: Vec<Token>,
    /// Index of the token to be parsed next; never beyond the last.
    pub(super) position: usize,
    pub(super) bind_variables: Vec<Option<Name>>,
    /// Markers of one name are one bind variable.
    pub(super) merges_variables: bool,
    depth: usize,
    operators: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Parse<Self> {
        if text.len() > MAX_STATEMENT_BYTES {
            return Err(CqlError::syntax(format!(
                "Statement of {} bytes is longer than the maximum of {MAX_STATEMENT_BYTES} bytes",
                text.len()
            )));
        }
        let tokens = lexer::tokens(text).ok_or_else(|| {
            CqlError::syntax(format!(
                "Statement has more than the maximum of {MAX_TOKENS} tokens"
            ))
        })?;
        Ok(Self {
            text,
            tokens,
            position: 0,
            bind_variables: Vec::new(),
            merges_variables: false,
            depth: 0,
            operators: 0,
        })
    }

    /// The token `ahead` of the next one; the end if there are not so many.
    pub(super) fn token_at(&self, ahead: usize) -> Token {
        let last = self.tokens.len() - 1;
        self.tokens[(self.position + ahead).min(last)]
    }

    /// The kind of the next token.
    pub(super) fn kind(&self) -> TokenKind {
        self.token_at(0).kind
    }

    pub(super) fn kind_at(&self, ahead: usize) -> TokenKind {
        self.token_at(ahead).kind
    }

    /// The text of a token, quotes and all.
    pub(super) fn raw_text(&self, token: Token) -> &'a str {
        &self.text[token.start as usize..token.end as usize]
    }

    pub(super) fn at(&self, kind: TokenKind) -> bool {
        self.kind() == kind
    }

    pub(super) fn at_keyword(&self, keyword: Keyword) -> bool {
        self.kind() == TokenKind::Keyword(keyword)
    }

    pub(super) fn keyword_at(&self, ahead: usize, keyword: Keyword) -> bool {
        self.kind_at(ahead) == TokenKind::Keyword(keyword)
    }

    /// The next token is this word, which is no keyword.
    pub(super) fn word_at(&self, ahead: usize, word: &str) -> bool {
        let token = self.token_at(ahead);
        token.kind == TokenKind::Identifier && self.raw_text(token).eq_ignore_ascii_case(word)
    }

    /// Steps over the next token; stays at the end.
    pub(super) fn advance(&mut self) -> Token {
        let token = self.token_at(0);
        self.position = (self.position + 1).min(self.tokens.len() - 1);
        token
    }

    /// Steps over the next token if it is of this kind.
    pub(super) fn take(&mut self, kind: TokenKind) -> bool {
        let found = self.at(kind);
        if found {
            self.advance();
        }
        found
    }

    pub(super) fn take_keyword(&mut self, keyword: Keyword) -> bool {
        self.take(TokenKind::Keyword(keyword))
    }

    /// Takes a word that is no keyword.
    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.word_at(0, word);
        if found {
            self.advance();
        }
        found
    }

    /// Takes all of the keywords or none.
    pub(super) fn take_keywords(&mut self, keywords: &[Keyword]) -> bool {
        let found = keywords
            .iter()
            .enumerate()
            .all(|(ahead, &keyword)| self.keyword_at(ahead, keyword));
        if found {
            self.position += keywords.len();
        }
        found
    }

    pub(super) fn expect(&mut self, kind: TokenKind) -> Parse<Token> {
        if self.at(kind) {
            Ok(self.advance())
        } else {
            Err(self.mismatched(kind))
        }
    }

    pub(super) fn expect_keyword(&mut self, keyword: Keyword) -> Parse<()> {
        self.expect(TokenKind::Keyword(keyword)).map(|_| ())
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Parse<()> {
        if self.take_word(word) {
            Ok(())
        } else {
            Err(self.no_viable())
        }
    }

    /// `[IF NOT EXISTS]`
    pub(super) fn if_not_exists(&mut self) -> Parse<bool> {
        if !self.take_keyword(Keyword::If) {
            return Ok(false);
        }
        self.expect_keyword(Keyword::Not)?;
        self.expect_keyword(Keyword::Exists)?;
        Ok(true)
    }

    /// `[IF EXISTS]`
    pub(super) fn if_exists(&mut self) -> Parse<bool> {
        if !self.take_keyword(Keyword::If) {
            return Ok(false);
        }
        self.expect_keyword(Keyword::Exists)?;
        Ok(true)
    }

    /// `item (',' item)*`
    pub(super) fn comma_separated<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Parse<T>,
    ) -> Parse<Vec<T>> {
        let mut items = vec![item(self)?];
        while self.take(TokenKind::Comma) {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// `open item (',' item)* close`
    pub(super) fn enclosed<T>(
        &mut self,
        open: TokenKind,
        close: TokenKind,
        item: impl FnMut(&mut Self) -> Parse<T>,
    ) -> Parse<Vec<T>> {
        self.expect(open)?;
        let items = self.comma_separated(item)?;
        self.expect(close)?;
        Ok(items)
    }

    /// `open [item (',' item)*] close`
    pub(super) fn enclosed_or_empty<T>(
        &mut self,
        open: TokenKind,
        close: TokenKind,
        item: impl FnMut(&mut Self) -> Parse<T>,
    ) -> Parse<Vec<T>> {
        if self.at(open) && self.kind_at(1) == close {
            self.position += 2;
            return Ok(Vec::new());
        }
        self.enclosed(open, close, item)
    }

    /// Runs a rule that may contain itself.
    pub(super) fn nested<T>(&mut self, rule: impl FnOnce(&mut Self) -> Parse<T>) -> Parse<T> {
        if self.depth == MAX_NESTING {
            return Err(self.error_at(
                self.token_at(0),
                format!("nested deeper than {MAX_NESTING} levels"),
            ));
        }
        if self.depth == 0 {
            self.operators = 0;
        }
        self.depth += 1;
        let result = rule(self);
        self.depth -= 1;
        result
    }

    /// Counts one more operator in the current expression.
    pub(super) fn chain(&mut self) -> Parse<()> {
        self.operators += 1;
        if self.operators > MAX_OPERATORS {
            let message = format!("more than {MAX_OPERATORS} operators in one expression");
            return Err(self.error_at(self.token_at(0), message));
        }
        Ok(())
    }

    /// Declares a bind variable.
    pub(super) fn declare_variable(&mut self, name: Option<Name>) -> BindMarker {
        let declared = match (self.merges_variables, &name) {
            (true, Some(name)) => {
                let mut names = self.bind_variables.iter();
                names.position(|declared| declared.as_ref() == Some(name))
            }
            _ => None,
        };
        if let Some(index) = declared {
            return BindMarker { index };
        }
        self.bind_variables.push(name);
        BindMarker {
            index: self.bind_variables.len() - 1,
        }
    }
}
