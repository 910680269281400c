//! Text to tokens.
//!
//! One pass over the bytes, no allocation but the token list; a token is its kind and where it lies in the text.
//! Never fails: what is no token becomes a [`TokenKind::Invalid`] that the parser reports when it gets there, so that
//! the first mistake in the text is the one that is told. The last token is always [`TokenKind::End`].
//!
//! Where several kinds match, as in `1d` or `P1Y`, the longest wins, then the more special.

mod keyword;
mod scan;
#[cfg(test)]
mod tests;

pub(crate) use keyword::{Keyword, KeywordClass};
use scan::Scanner;

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TokenKind {
    Keyword(Keyword),
    /// Letters, digits and underscores, a letter first; folds to lower case.
    Identifier,
    /// `"name"`, kept as it is
    QuotedName,
    /// `""`: the column name that old tables may have
    EmptyQuotedName,
    /// `'text'` with doubled quotes inside
    String,
    /// `$$text$$`
    DollarString,
    Integer,
    Float,
    Duration,
    Uuid,
    Hex,
    /// `-NaN`
    NegativeNan,
    /// `-Infinity`
    NegativeInfinity,
    Question,
    Colon,
    Semicolon,
    Comma,
    Dot,
    /// `..`
    Range,
    OpenParenthesis,
    CloseParenthesis,
    OpenBracket,
    CloseBracket,
    OpenBrace,
    CloseBrace,
    Plus,
    Minus,
    Star,
    Slash,
    Percent,
    /// `+=`
    PlusEqual,
    /// `-=`
    MinusEqual,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    End,
    Invalid(LexicalFault),
}

/// Why a stretch of text is no token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LexicalFault {
    /// A character that begins no token.
    Character,
    /// The text ends inside something that this character closes.
    Unterminated(char),
}

/// A token: bytes `start..end` of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// The most tokens of one statement, which bounds the memory that a statement's tree may take.
pub(crate) const MAX_TOKENS: usize = 1 << 20;

/// All tokens of `text`, which must be shorter than 4 GiB, or None if there are more than [`MAX_TOKENS`].
pub(crate) fn tokens(text: &str) -> Option<Vec<Token>> {
    assert!(
        u32::try_from(text.len()).is_ok(),
        "the caller bounds the length of a statement"
    );
    let mut scanner = Scanner::new(text);
    let mut tokens = Vec::with_capacity((text.len() / BYTES_PER_TOKEN).min(MAX_FIRST_ALLOCATION) + 1);
    loop {
        let token = scanner.next_token();
        tokens.push(token);
        if token.kind == TokenKind::End {
            return Some(tokens);
        }
        if tokens.len() > MAX_TOKENS {
            return None;
        }
    }
}

/// What a statement spends on a token with the space before it, about; for the first allocation only.
const BYTES_PER_TOKEN: usize = 4;

/// A text that claims more tokens than this may be one long string.
const MAX_FIRST_ALLOCATION: usize = 1024;
