//! JSON text to a tree (RFC 8259).

use std::fmt;

/// How deep arrays and objects may nest; more than any type can.
pub const JSON_DEPTH_MAX: usize = 64;

/// A JSON value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Json {
    /// null
    Null,
    /// true or false
    Boolean(bool),
    /// A number, as written.
    Number(String),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object: its members in order, each name once, with the last value written for it.
    Object(Vec<(String, Json)>),
}

/// A text is no JSON.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JsonError {
    /// Where it went wrong: offset in bytes.
    pub offset: usize,
    /// What was expected or is not allowed there.
    pub message: &'static str,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}", self.message, self.offset)
    }
}

impl std::error::Error for JsonError {}

/// Reads one JSON value; nothing but blanks may stand around it.
pub fn parse_json(text: &str) -> Result<Json, JsonError> {
    let mut parser = Parser { text, offset: 0 };
    let value = parser.value(JSON_DEPTH_MAX)?;
    parser.skip_blanks();
    if parser.offset < text.len() {
        return Err(parser.error("unexpected text after the value"));
    }
    Ok(value)
}

impl Json {
    /// The Java class that Cassandra's texts name for such a value.
    pub(super) fn java_class(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "Boolean",
            Self::Number(text) if text.contains(['.', 'e', 'E']) => "Double",
            Self::Number(text) if text.parse::<i32>().is_ok() => "Integer",
            Self::Number(text) if text.parse::<i64>().is_ok() => "Long",
            Self::Number(_) => "BigInteger",
            Self::String(_) => "String",
            Self::Array(_) => "ArrayList",
            Self::Object(_) => "LinkedHashMap",
        }
    }
}

impl fmt::Display for Json {
    /// As Java prints such a value: no quotes, `[a, b]`, `{name=value}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Number(text) | Self::String(text) => f.write_str(text),
            Self::Array(elements) => {
                f.write_str("[")?;
                for (index, element) in elements.iter().enumerate() {
                    write!(f, "{}{element}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Self::Object(members) => {
                f.write_str("{")?;
                for (index, (name, value)) in members.iter().enumerate() {
                    write!(f, "{}{name}={value}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    offset: usize,
}

impl Parser<'_> {
    fn error(&self, message: &'static str) -> JsonError {
        JsonError {
            offset: self.offset,
            message,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.offset).copied()
    }

    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.offset += 1;
        }
    }

    /// Takes `expected`, after blanks, if it is next.
    fn take(&mut self, expected: u8) -> bool {
        self.skip_blanks();
        let found = self.peek() == Some(expected);
        self.offset += usize::from(found);
        found
    }

    fn word(&mut self, word: &str, value: Json) -> Result<Json, JsonError> {
        if self
            .text
            .as_bytes()
            .get(self.offset..)
            .unwrap_or_default()
            .starts_with(word.as_bytes())
        {
            self.offset += word.len();
            Ok(value)
        } else {
            Err(self.error("expected a value"))
        }
    }

    /// `depth`: so many levels may still be opened.
    fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.skip_blanks();
        match self.peek() {
            Some(b'n') => self.word("null", Json::Null),
            Some(b't') => self.word("true", Json::Boolean(true)),
            Some(b'f') => self.word("false", Json::Boolean(false)),
            Some(b'"') => self.string().map(Json::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'[' | b'{') if depth == 0 => Err(self.error("nested too deep")),
            Some(b'[') => self.array(depth - 1),
            Some(b'{') => self.object(depth - 1),
            _ => Err(self.error("expected a value")),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.offset += 1;
        let mut elements = Vec::new();
        if self.take(b']') {
            return Ok(Json::Array(elements));
        }
        loop {
            elements.push(self.value(depth)?);
            if self.take(b']') {
                return Ok(Json::Array(elements));
            }
            if !self.take(b',') {
                return Err(self.error("expected ',' or ']'"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.offset += 1;
        // The map finds names again without walking all members.
        let mut members = indexmap::IndexMap::<String, Json, rustc_hash::FxBuildHasher>::default();
        if self.take(b'}') {
            return Ok(Json::Object(Vec::new()));
        }
        loop {
            self.skip_blanks();
            if self.peek() != Some(b'"') {
                return Err(self.error("expected the name of a member"));
            }
            let name = self.string()?;
            if !self.take(b':') {
                return Err(self.error("expected ':'"));
            }
            members.insert(name, self.value(depth)?);
            if self.take(b'}') {
                return Ok(Json::Object(members.into_iter().collect()));
            }
            if !self.take(b',') {
                return Err(self.error("expected ',' or '}'"));
            }
        }
    }

    /// `-? ( 0 | [1-9][0-9]* ) ( . [0-9]+ )? ( [eE] [+-]? [0-9]+ )?`
    fn number(&mut self) -> Result<Json, JsonError> {
        let start = self.offset;
        self.offset += usize::from(self.peek() == Some(b'-'));
        match self.peek() {
            Some(b'0') => self.offset += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.offset += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.offset += 1;
            self.offset += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        let text = self.text.get(start..self.offset).unwrap_or_default();
        Ok(Json::Number(text.to_owned()))
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.offset;
        while let Some(b'0'..=b'9') = self.peek() {
            self.offset += 1;
        }
        if self.offset == start {
            Err(self.error("expected a digit"))
        } else {
            Ok(())
        }
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.offset += 1;
        let mut out = String::new();
        loop {
            let rest = self.text.get(self.offset..).unwrap_or_default();
            let plain = rest
                .find(|c: char| c == '"' || c == '\\' || c < ' ')
                .ok_or_else(|| self.error("missing closing '\"'"))?;
            out.push_str(rest.get(..plain).unwrap_or_default());
            self.offset += plain;
            match self.peek() {
                Some(b'"') => {
                    self.offset += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.offset += 1;
                    out.push(self.escaped()?);
                }
                _ => return Err(self.error("control characters must be escaped")),
            }
        }
    }

    /// The character that an escape sequence stands for, after its backslash.
    fn escaped(&mut self) -> Result<char, JsonError> {
        let Some(kind) = self.peek() else {
            return Err(self.error("missing closing '\"'"));
        };
        let character = match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.offset += 1;
                return self.unicode();
            }
            _ => return Err(self.error("not an escape sequence")),
        };
        self.offset += 1;
        Ok(character)
    }

    /// The character of a `\uXXXX`, or of two of them for one beyond 16 bits; after the first `\u`.
    fn unicode(&mut self) -> Result<char, JsonError> {
        let first = self.four_digits()?;
        if let Some(character) = char::from_u32(first) {
            return Ok(character);
        }
        let lone = self.error("half a surrogate pair");
        if self.text.as_bytes().get(self.offset..self.offset + 2) != Some(b"\\u") {
            return Err(lone);
        }
        self.offset += 2;
        let second = self.four_digits()?;
        match (first, second) {
            (0xd800..=0xdbff, 0xdc00..=0xdfff) => {
                char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).ok_or(lone)
            }
            _ => Err(lone),
        }
    }

    fn four_digits(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.get(self.offset..self.offset + 4);
        let number = digits
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or_else(|| self.error("expected four hexadecimal digits"))?;
        self.offset += 4;
        Ok(number)
    }
}
