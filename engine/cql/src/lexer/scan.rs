//! The scanner: recognises one token at a time.

use super::{Keyword, LexicalFault, Token, TokenKind};

/// Units of a duration such as `1h30m`, longer ones before their prefixes.
const DURATION_UNITS: [&[u8]; 11] = [
    b"mo",
    b"ms",
    b"us",
    "\u{b5}s".as_bytes(),
    b"ns",
    b"y",
    b"w",
    b"d",
    b"h",
    b"m",
    b"s",
];

/// Groups of hexadecimal digits in a UUID.
const UUID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

pub(super) struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    /// Start of what is not scanned yet; always on a character boundary between tokens.
    offset: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            offset: 0,
        }
    }

    /// The next token; [`TokenKind::End`] for ever once the text is used up.
    pub(super) fn next_token(&mut self) -> Token {
        let fault = self.skip_blanks();
        let start = self.offset;
        let kind = match fault {
            Some(fault) => {
                self.offset = self.bytes.len();
                TokenKind::Invalid(fault)
            }
            None => self.scan(),
        };
        Token {
            kind,
            start: start as u32,
            end: self.offset as u32,
        }
    }

    /// The byte at `offset`, or 0 beyond the end (0 begins no token and continues none).
    fn byte(&self, offset: usize) -> u8 {
        self.bytes.get(offset).copied().unwrap_or(0)
    }

    fn rest(&self, offset: usize) -> &'a [u8] {
        self.bytes.get(offset..).unwrap_or(&[])
    }

    /// Steps over white space and comments; a comment that does not end is a fault.
    fn skip_blanks(&mut self) -> Option<LexicalFault> {
        loop {
            match (self.byte(self.offset), self.byte(self.offset + 1)) {
                (b' ' | b'\t' | b'\n' | b'\r', _) => self.offset += 1,
                (b'-', b'-') | (b'/', b'/') => {
                    let rest = self.rest(self.offset);
                    self.offset += rest
                        .iter()
                        .position(|&byte| matches!(byte, b'\n' | b'\r'))
                        .unwrap_or(rest.len());
                }
                (b'/', b'*') => match self.text[self.offset + 2..].find("*/") {
                    Some(length) => self.offset += 2 + length + 2,
                    None => return Some(LexicalFault::Unterminated('/')),
                },
                _ => return None,
            }
        }
    }

    fn scan(&mut self) -> TokenKind {
        let (first, second) = (self.byte(self.offset), self.byte(self.offset + 1));
        let (kind, length) = match first {
            b'a'..=b'z' | b'A'..=b'Z' => return self.scan_word(),
            b'0'..=b'9' => return self.scan_number(),
            b'-' => return self.scan_minus(second),
            b'\'' => return self.scan_quoted('\''),
            b'"' => return self.scan_quoted('"'),
            b'$' if second == b'$' => return self.scan_dollar_string(),
            b'(' => (TokenKind::OpenParenthesis, 1),
            b')' => (TokenKind::CloseParenthesis, 1),
            b'[' => (TokenKind::OpenBracket, 1),
            b']' => (TokenKind::CloseBracket, 1),
            b'{' => (TokenKind::OpenBrace, 1),
            b'}' => (TokenKind::CloseBrace, 1),
            b',' => (TokenKind::Comma, 1),
            b';' => (TokenKind::Semicolon, 1),
            b':' => (TokenKind::Colon, 1),
            b'?' => (TokenKind::Question, 1),
            b'*' => (TokenKind::Star, 1),
            b'/' => (TokenKind::Slash, 1),
            b'%' => (TokenKind::Percent, 1),
            b'.' if second == b'.' => (TokenKind::Range, 2),
            b'.' => (TokenKind::Dot, 1),
            b'+' if second == b'=' => (TokenKind::PlusEqual, 2),
            b'+' => (TokenKind::Plus, 1),
            b'=' => (TokenKind::Equal, 1),
            b'!' if second == b'=' => (TokenKind::NotEqual, 2),
            b'<' if second == b'=' => (TokenKind::LessOrEqual, 2),
            b'<' => (TokenKind::Less, 1),
            b'>' if second == b'=' => (TokenKind::GreaterOrEqual, 2),
            b'>' => (TokenKind::Greater, 1),
            _ => match self.text[self.offset..].chars().next() {
                Some(character) => (TokenKind::Invalid(LexicalFault::Character), character.len_utf8()),
                None => (TokenKind::End, 0),
            },
        };
        self.take(kind, length)
    }

    fn take(&mut self, kind: TokenKind, length: usize) -> TokenKind {
        self.offset += length;
        kind
    }

    fn scan_minus(&mut self, second: u8) -> TokenKind {
        let after = self.offset + 1;
        match second {
            b'0'..=b'9' => return self.scan_number(),
            b'=' => return self.take(TokenKind::MinusEqual, 2),
            b'P' => {
                if let Some(length) = self.iso_duration_length(after) {
                    return self.take(TokenKind::Duration, 1 + length);
                }
            }
            b'n' | b'N' | b'i' | b'I' => {
                let word = &self.text[after..after + self.word_length(after)];
                match Keyword::of(word) {
                    Some(Keyword::Nan) => return self.take(TokenKind::NegativeNan, 1 + word.len()),
                    Some(Keyword::Infinity) => return self.take(TokenKind::NegativeInfinity, 1 + word.len()),
                    _ => {}
                }
            }
            _ => {}
        }
        self.take(TokenKind::Minus, 1)
    }

    fn word_length(&self, offset: usize) -> usize {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        self.rest(offset).iter().take_while(|byte| is_part(byte)).count()
    }

    fn scan_word(&mut self) -> TokenKind {
        if self.is_uuid() {
            return self.take(TokenKind::Uuid, UUID_LENGTH);
        }
        let length = self.word_length(self.offset);
        if self.byte(self.offset) == b'P' {
            match self.iso_duration_length(self.offset) {
                Some(duration) if duration >= length => return self.take(TokenKind::Duration, duration),
                _ => {}
            }
        }
        let word = &self.text[self.offset..self.offset + length];
        let kind = Keyword::of(word).map_or(TokenKind::Identifier, TokenKind::Keyword);
        self.take(kind, length)
    }

    /// A number, duration, UUID or blob; a minus may come first.
    fn scan_number(&mut self) -> TokenKind {
        if self.is_uuid() {
            return self.take(TokenKind::Uuid, UUID_LENGTH);
        }
        if self.byte(self.offset) == b'0' && matches!(self.byte(self.offset + 1), b'x' | b'X') {
            let digits = self
                .rest(self.offset + 2)
                .iter()
                .take_while(|byte| byte.is_ascii_hexdigit())
                .count();
            return self.take(TokenKind::Hex, 2 + digits);
        }
        let sign = usize::from(self.byte(self.offset) == b'-');
        let integer_end = self.skip_digits(self.offset + sign);
        if let Some(end) = self.unit_duration_end(integer_end) {
            return self.take(TokenKind::Duration, end - self.offset);
        }
        let mut end = integer_end;
        if self.byte(end) == b'.' {
            // `1..3` is a range over integers, but `1...3` a range from the float `1.`
            match (self.byte(end + 1), self.byte(end + 2)) {
                (b'.', b'.') => return self.take(TokenKind::Float, end + 1 - self.offset),
                (b'.', _) => return self.take(TokenKind::Integer, end - self.offset),
                _ => end = self.skip_digits(end + 1),
            }
        }
        if matches!(self.byte(end), b'e' | b'E') {
            let sign = usize::from(matches!(self.byte(end + 1), b'+' | b'-'));
            let exponent = self.skip_digits(end + 1 + sign);
            if exponent > end + 1 + sign {
                end = exponent;
            }
        }
        let kind = if end == integer_end {
            TokenKind::Integer
        } else {
            TokenKind::Float
        };
        self.take(kind, end - self.offset)
    }

    fn skip_digits(&self, offset: usize) -> usize {
        offset
            + self
                .rest(offset)
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count()
    }

    /// The end of `unit (digits unit)*` at `offset`.
    fn unit_duration_end(&self, offset: usize) -> Option<usize> {
        let mut end = self.skip_unit(offset)?;
        loop {
            let digits = self.skip_digits(end);
            match self.skip_unit(digits) {
                Some(next) if digits > end => end = next,
                _ => return Some(end),
            }
        }
    }

    fn skip_unit(&self, offset: usize) -> Option<usize> {
        let rest = self.rest(offset);
        let matches = |unit: &&&[u8]| {
            rest.get(..unit.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(unit))
        };
        DURATION_UNITS
            .iter()
            .find(matches)
            .map(|unit| offset + unit.len())
    }

    /// The length of an ISO 8601 duration whose `P` is at `offset`.
    fn iso_duration_length(&self, offset: usize) -> Option<usize> {
        let after = offset + 1;
        let end = self
            .iso_alternative_end(after)
            .or_else(|| self.iso_time_end(after))
            .or_else(|| self.designators_end(after, b"W"))
            .or_else(|| {
                let end = self.designators_end(after, b"YMD")?;
                Some(self.iso_time_end(end).unwrap_or(end))
            })?;
        Some(end - offset)
    }

    /// `0001-02-03T04:05:06`
    fn iso_alternative_end(&self, offset: usize) -> Option<usize> {
        const PATTERN: &[u8] = b"0000-00-00T00:00:00";
        let candidate = self.rest(offset).get(..PATTERN.len())?;
        let fits = |(&byte, &pattern): (&u8, &u8)| match pattern {
            b'0' => byte.is_ascii_digit(),
            _ => byte == pattern,
        };
        candidate
            .iter()
            .zip(PATTERN)
            .all(fits)
            .then_some(offset + PATTERN.len())
    }

    /// `T1H2M3S`, each part optional but one
    fn iso_time_end(&self, offset: usize) -> Option<usize> {
        if self.byte(offset) != b'T' {
            return None;
        }
        self.designators_end(offset + 1, b"HMS")
    }

    /// The end of at least one `digits letter`, the letters a subsequence of `letters`.
    fn designators_end(&self, offset: usize, letters: &[u8]) -> Option<usize> {
        let mut end = offset;
        for &letter in letters {
            let digits = self.skip_digits(end);
            if digits > end && self.byte(digits) == letter {
                end = digits + 1;
            }
        }
        (end > offset).then_some(end)
    }

    fn is_uuid(&self) -> bool {
        let mut offset = self.offset;
        for (i, length) in UUID_GROUPS.into_iter().enumerate() {
            if i > 0 {
                if self.byte(offset) != b'-' {
                    return false;
                }
                offset += 1;
            }
            let is_hex = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
            if !self.bytes.get(offset..offset + length).is_some_and(is_hex) {
                return false;
            }
            offset += length;
        }
        true
    }

    /// `'text'` or `"name"`; the quote is doubled inside.
    fn scan_quoted(&mut self, quote: char) -> TokenKind {
        let content = self.offset + 1;
        let mut end = content;
        loop {
            let Some(length) = self.text[end..].find(quote) else {
                self.offset = self.bytes.len();
                return TokenKind::Invalid(LexicalFault::Unterminated(quote));
            };
            end += length;
            if self.byte(end + 1) != quote as u8 {
                break;
            }
            end += 2;
        }
        self.offset = end + 1;
        match quote {
            '\'' => TokenKind::String,
            _ if end == content => TokenKind::EmptyQuotedName,
            _ => TokenKind::QuotedName,
        }
    }

    fn scan_dollar_string(&mut self) -> TokenKind {
        match self.text[self.offset + 2..].find("$$") {
            Some(length) => self.take(TokenKind::DollarString, 2 + length + 2),
            None => {
                self.offset = self.bytes.len();
                TokenKind::Invalid(LexicalFault::Unterminated('$'))
            }
        }
    }
}

const UUID_LENGTH: usize = 36;
