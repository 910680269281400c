//! `string.find`, `match`, `gmatch` and `gsub`: Lua's patterns, matched in counted steps.
//!
//! Lua's own matcher runs inside one instruction, and some patterns take it longer than anyone lives (`a*a*a*a*b` on many
//! `a`). This one follows the same rules (§6.4.1 of the Lua 5.4 manual) and takes a step from the call's for each
//! character it looks at.

use std::cell::Cell;
use std::rc::Rc;

use mlua::{Error, Lua, LuaString, MultiValue, Result, Table, Value};

use super::state::Meter;
use crate::limits::LUA_MEMORY_MAX;

/// Captures of one pattern, as in Lua.
const CAPTURES_MAX: usize = 32;

/// Nested matches, as in Lua.
const DEPTH_MAX: usize = 200;

#[derive(Clone, Copy)]
enum Capture {
    /// From here; not closed yet.
    Open(usize),
    /// `()`
    Position(usize),
    /// Start and end.
    Closed(usize, usize),
}

fn error(text: impl Into<String>) -> Error {
    Error::RuntimeError(text.into())
}

struct Matcher<'a> {
    subject: &'a [u8],
    pattern: &'a [u8],
    captures: Vec<Capture>,
    depth: usize,
    meter: &'a Meter,
}

impl<'a> Matcher<'a> {
    fn new(subject: &'a [u8], pattern: &'a [u8], meter: &'a Meter) -> Self {
        Self {
            subject,
            pattern,
            captures: Vec::new(),
            depth: 0,
            meter,
        }
    }

    /// A match that begins at `from`: where it ends.
    fn match_at(&mut self, from: usize) -> Result<Option<usize>> {
        self.captures.clear();
        self.depth = 0;
        self.run(from, 0)
    }

    fn run(&mut self, at: usize, pattern_at: usize) -> Result<Option<usize>> {
        if self.depth == DEPTH_MAX {
            return Err(error("pattern too complex"));
        }
        self.depth += 1;
        let result = self.step(at, pattern_at);
        self.depth -= 1;
        result
    }

    fn step(&mut self, mut at: usize, mut pattern_at: usize) -> Result<Option<usize>> {
        loop {
            self.meter.take(1)?;
            let Some(&first) = self.pattern.get(pattern_at) else {
                return Ok(Some(at));
            };
            let second = self.pattern.get(pattern_at + 1).copied();
            match (first, second) {
                (b'(', Some(b')')) => return self.capture(Capture::Position(at), at, pattern_at + 2),
                (b'(', _) => return self.capture(Capture::Open(at), at, pattern_at + 1),
                (b')', _) => return self.close(at, pattern_at + 1),
                (b'$', None) => return Ok((at == self.subject.len()).then_some(at)),
                (b'%', Some(b'b')) => match self.balanced(at, pattern_at + 2)? {
                    Some(end) => {
                        at = end;
                        pattern_at += 4;
                        continue;
                    }
                    None => return Ok(None),
                },
                (b'%', Some(b'f')) => {
                    pattern_at += 2;
                    if self.pattern.get(pattern_at) != Some(&b'[') {
                        return Err(error("missing '[' after '%f' in pattern"));
                    }
                    let end = self.class_end(pattern_at)?;
                    let before = at.checked_sub(1).and_then(|before| self.subject.get(before));
                    let before = before.copied().unwrap_or(0);
                    let next = self.subject.get(at).copied().unwrap_or(0);
                    if self.in_set(before, pattern_at, end)? || !self.in_set(next, pattern_at, end)? {
                        return Ok(None);
                    }
                    pattern_at = end;
                    continue;
                }
                (b'%', Some(digit @ b'0'..=b'9')) => match self.repeated(at, digit)? {
                    Some(end) => {
                        at = end;
                        pattern_at += 2;
                        continue;
                    }
                    None => return Ok(None),
                },
                _ => {}
            }
            let end = self.class_end(pattern_at)?;
            match self.pattern.get(end) {
                Some(b'?') => {
                    if self.single(at, pattern_at, end)?
                        && let Some(found) = self.run(at + 1, end + 1)?
                    {
                        return Ok(Some(found));
                    }
                    pattern_at = end + 1;
                }
                Some(b'*') => return self.longest(at, 0, pattern_at, end),
                Some(b'+') => return self.longest(at, 1, pattern_at, end),
                Some(b'-') => return self.shortest(at, pattern_at, end),
                _ if self.single(at, pattern_at, end)? => {
                    at += 1;
                    pattern_at = end;
                }
                _ => return Ok(None),
            }
        }
    }

    fn capture(&mut self, capture: Capture, at: usize, pattern_at: usize) -> Result<Option<usize>> {
        if self.captures.len() == CAPTURES_MAX {
            return Err(error("too many captures"));
        }
        self.captures.push(capture);
        let count = self.captures.len();
        let found = self.run(at, pattern_at)?;
        if found.is_none() {
            self.captures.truncate(count - 1);
        }
        Ok(found)
    }

    fn close(&mut self, at: usize, pattern_at: usize) -> Result<Option<usize>> {
        let is_open = |capture: &Capture| matches!(capture, Capture::Open(_));
        let Some(index) = self.captures.iter().rposition(is_open) else {
            return Err(error("invalid pattern capture"));
        };
        let Some(slot) = self.captures.get_mut(index) else {
            return Ok(None);
        };
        let open = *slot;
        if let Capture::Open(start) = open {
            *slot = Capture::Closed(start, at);
        }
        let found = self.run(at, pattern_at)?;
        if found.is_none()
            && let Some(slot) = self.captures.get_mut(index)
        {
            *slot = open;
        }
        Ok(found)
    }

    /// Where the single character class that begins at `at` ends.
    fn class_end(&self, at: usize) -> Result<usize> {
        match self.pattern.get(at) {
            Some(b'%') if at + 1 < self.pattern.len() => Ok(at + 2),
            Some(b'%') => Err(error("malformed pattern (ends with '%')")),
            Some(b'[') => {
                let mut end = at + 1;
                if self.pattern.get(end) == Some(&b'^') {
                    end += 1;
                }
                let mut is_first = true;
                loop {
                    match self.pattern.get(end) {
                        None => return Err(error("malformed pattern (missing ']')")),
                        Some(b']') if !is_first => return Ok(end + 1),
                        Some(b'%') => end += 2,
                        Some(_) => end += 1,
                    }
                    is_first = false;
                }
            }
            _ => Ok(at + 1),
        }
    }

    /// The character at `at` is of the class between the two places of the pattern.
    fn single(&self, at: usize, class: usize, class_end: usize) -> Result<bool> {
        let Some(&character) = self.subject.get(at) else {
            return Ok(false);
        };
        self.meter.take(1)?;
        Ok(match self.pattern.get(class) {
            Some(b'.') => true,
            Some(b'%') => self
                .pattern
                .get(class + 1)
                .is_some_and(|class| in_class(character, *class)),
            Some(b'[') => self.in_set(character, class, class_end)?,
            Some(literal) => *literal == character,
            None => false,
        })
    }

    fn in_set(&self, character: u8, set: usize, set_end: usize) -> Result<bool> {
        let mut content = self.pattern.get(set + 1..set_end - 1).unwrap_or_default();
        self.meter.take(content.len() as u64)?;
        let is_negated = content.first() == Some(&b'^');
        if is_negated {
            content = content.get(1..).unwrap_or_default();
        }
        let mut found = false;
        while let Some((&first, rest)) = content.split_first() {
            content = match (first, rest) {
                (b'%', [class, rest @ ..]) => {
                    found |= in_class(character, *class);
                    rest
                }
                (low, [b'-', high, rest @ ..]) => {
                    found |= (low..=*high).contains(&character);
                    rest
                }
                (literal, rest) => {
                    found |= literal == character;
                    rest
                }
            };
        }
        Ok(found != is_negated)
    }

    fn balanced(&self, at: usize, pattern_at: usize) -> Result<Option<usize>> {
        let (Some(&open), Some(&close)) = (self.pattern.get(pattern_at), self.pattern.get(pattern_at + 1))
        else {
            return Err(error("malformed pattern (missing arguments to '%b')"));
        };
        if self.subject.get(at) != Some(&open) {
            return Ok(None);
        }
        let mut depth = 1usize;
        let mut next = at + 1;
        while let Some(&character) = self.subject.get(next) {
            self.meter.take(1)?;
            if character == close {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some(next + 1));
                }
            } else if character == open {
                depth += 1;
            }
            next += 1;
        }
        Ok(None)
    }

    fn repeated(&self, at: usize, digit: u8) -> Result<Option<usize>> {
        let index = usize::from(digit).wrapping_sub(usize::from(b'1'));
        let Some(Capture::Closed(start, end)) = self.captures.get(index) else {
            return Err(error("invalid capture index in pattern"));
        };
        let wanted = self.subject.get(*start..*end).unwrap_or_default();
        self.meter.take(wanted.len() as u64)?;
        let rest = self.subject.get(at..).unwrap_or_default();
        Ok(rest.starts_with(wanted).then(|| at + wanted.len()))
    }

    fn longest(&mut self, at: usize, least: usize, class: usize, class_end: usize) -> Result<Option<usize>> {
        let mut count = 0;
        while self.single(at + count, class, class_end)? {
            count += 1;
        }
        loop {
            if count < least {
                return Ok(None);
            }
            if let Some(found) = self.run(at + count, class_end + 1)? {
                return Ok(Some(found));
            }
            match count.checked_sub(1) {
                Some(fewer) => count = fewer,
                None => return Ok(None),
            }
        }
    }

    fn shortest(&mut self, mut at: usize, class: usize, class_end: usize) -> Result<Option<usize>> {
        loop {
            if let Some(found) = self.run(at, class_end + 1)? {
                return Ok(Some(found));
            }
            if !self.single(at, class, class_end)? {
                return Ok(None);
            }
            at += 1;
        }
    }

    /// A capture as a value; the whole match when there are none.
    fn value(&self, lua: &Lua, index: usize, from: usize, to: usize) -> Result<Value> {
        let (start, end) = match self.captures.get(index) {
            None if index == 0 => (from, to),
            None => return Err(error(format!("invalid capture index %{}", index + 1))),
            Some(Capture::Open(_)) => return Err(error("unfinished capture")),
            Some(Capture::Position(at)) => return Ok(Value::Integer(*at as i64 + 1)),
            Some(Capture::Closed(start, end)) => (*start, *end),
        };
        let text = self.subject.get(start..end).unwrap_or_default();
        self.meter.take(text.len() as u64 / 16)?;
        Ok(Value::String(lua.create_string(text)?))
    }

    /// All captures; the whole match when there are none.
    fn values(&self, lua: &Lua, from: usize, to: usize) -> Result<Vec<Value>> {
        let count = self.captures.len().max(1);
        (0..count).map(|index| self.value(lua, index, from, to)).collect()
    }
}

fn in_class(character: u8, class: u8) -> bool {
    let found = match class.to_ascii_lowercase() {
        b'a' => character.is_ascii_alphabetic(),
        b'c' => character.is_ascii_control(),
        b'd' => character.is_ascii_digit(),
        b'g' => character.is_ascii_graphic(),
        b'l' => character.is_ascii_lowercase(),
        b'p' => character.is_ascii_punctuation(),
        b's' => character.is_ascii_whitespace() || character == 0x0b,
        b'u' => character.is_ascii_uppercase(),
        b'w' => character.is_ascii_alphanumeric(),
        b'x' => character.is_ascii_hexdigit(),
        _ => return class == character,
    };
    found != class.is_ascii_uppercase()
}

/// A position as Lua counts, from 1 or from the end, as an index; None when it is behind the end.
fn start_of(position: Option<i64>, length: usize) -> Option<usize> {
    let position = position.unwrap_or(1);
    let start = match position {
        ..0 => length.saturating_sub(usize::try_from(position.unsigned_abs()).unwrap_or(usize::MAX)),
        0 => 0,
        _ => usize::try_from(position - 1).unwrap_or(usize::MAX),
    };
    (start <= length).then_some(start)
}

/// Where `text` occurs.
fn find_plain(subject: &[u8], text: &[u8], from: usize, meter: &Meter) -> Result<Option<usize>> {
    for at in from..=subject.len().saturating_sub(text.len()) {
        let rest = subject.get(at..).unwrap_or_default();
        let common = rest
            .iter()
            .zip(text)
            .take_while(|(one, other)| one == other)
            .count();
        meter.take(1 + common as u64 / 8)?;
        if common == text.len() {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// A pattern without its anchor, and whether it had one.
fn unanchored(pattern: &[u8]) -> (&[u8], bool) {
    match pattern {
        [b'^', rest @ ..] => (rest, true),
        pattern => (pattern, false),
    }
}

/// The first match from `from` on: where it begins and ends.
fn search(matcher: &mut Matcher<'_>, from: usize, is_anchored: bool) -> Result<Option<(usize, usize)>> {
    for start in from..=matcher.subject.len() {
        if let Some(end) = matcher.match_at(start)? {
            return Ok(Some((start, end)));
        }
        if is_anchored {
            break;
        }
    }
    Ok(None)
}

type Subject = (LuaString, LuaString, Option<i64>, Value);

fn find(lua: &Lua, (subject, pattern, position, plain): Subject, meter: &Meter) -> Result<MultiValue> {
    let (subject, pattern) = (subject.as_bytes(), pattern.as_bytes());
    let nothing = || Ok(MultiValue::from_vec(vec![Value::Nil]));
    let Some(from) = start_of(position, subject.len()) else {
        return nothing();
    };
    let is_plain = !matches!(plain, Value::Nil | Value::Boolean(false));
    if is_plain || !pattern.iter().any(|character| b"^$*+?.([%-".contains(character)) {
        return match find_plain(&subject, &pattern, from, meter)? {
            Some(at) => Ok(MultiValue::from_vec(vec![
                Value::Integer(at as i64 + 1),
                Value::Integer((at + pattern.len()) as i64),
            ])),
            None => nothing(),
        };
    }
    let (pattern, is_anchored) = unanchored(&pattern);
    let mut matcher = Matcher::new(&subject, pattern, meter);
    let Some((start, end)) = search(&mut matcher, from, is_anchored)? else {
        return nothing();
    };
    let mut values = vec![Value::Integer(start as i64 + 1), Value::Integer(end as i64)];
    if !matcher.captures.is_empty() {
        values.extend(matcher.values(lua, start, end)?);
    }
    Ok(MultiValue::from_vec(values))
}

fn first_match(lua: &Lua, (subject, pattern, position, _): Subject, meter: &Meter) -> Result<MultiValue> {
    let (subject, pattern) = (subject.as_bytes(), pattern.as_bytes());
    let nothing = || Ok(MultiValue::from_vec(vec![Value::Nil]));
    let Some(from) = start_of(position, subject.len()) else {
        return nothing();
    };
    let (pattern, is_anchored) = unanchored(&pattern);
    let mut matcher = Matcher::new(&subject, pattern, meter);
    match search(&mut matcher, from, is_anchored)? {
        Some((start, end)) => Ok(MultiValue::from_vec(matcher.values(lua, start, end)?)),
        None => nothing(),
    }
}

/// What stands for a match in the result of `gsub`; None: the match stays.
fn replacement(
    lua: &Lua,
    matcher: &Matcher<'_>,
    (start, end): (usize, usize),
    with: &Value,
) -> Result<Option<Vec<u8>>> {
    let value = match with {
        Value::String(text) => return expand(lua, matcher, (start, end), &text.as_bytes()).map(Some),
        Value::Integer(_) | Value::Number(_) => {
            return expand(lua, matcher, (start, end), with.to_string()?.as_bytes()).map(Some);
        }
        Value::Table(table) => table.get::<Value>(matcher.value(lua, 0, start, end)?)?,
        Value::Function(function) => {
            function.call::<Value>(MultiValue::from_vec(matcher.values(lua, start, end)?))?
        }
        other => {
            return Err(error(format!(
                "bad argument #3 to 'gsub' (string/function/table expected, got {})",
                other.type_name()
            )));
        }
    };
    match value {
        Value::Nil | Value::Boolean(false) => Ok(None),
        Value::String(text) => Ok(Some(text.as_bytes().to_vec())),
        Value::Integer(_) | Value::Number(_) => Ok(Some(value.to_string()?.into_bytes())),
        other => Err(error(format!(
            "invalid replacement value (a {})",
            other.type_name()
        ))),
    }
}

/// A replacement with the captures that it names.
fn expand(lua: &Lua, matcher: &Matcher<'_>, (start, end): (usize, usize), text: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut characters = text.iter();
    while let Some(&character) = characters.next() {
        if character != b'%' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some(b'%') => out.push(b'%'),
            Some(b'0') => out.extend_from_slice(matcher.subject.get(start..end).unwrap_or_default()),
            Some(digit @ b'1'..=b'9') => {
                let value = matcher.value(lua, usize::from(digit - b'1'), start, end)?;
                out.extend_from_slice(value.to_string()?.as_bytes());
            }
            _ => return Err(error("invalid use of '%' in replacement string")),
        }
    }
    Ok(out)
}

fn substitute(
    lua: &Lua,
    (subject, pattern, with, most): (LuaString, LuaString, Value, Option<i64>),
    meter: &Meter,
) -> Result<(LuaString, i64)> {
    let (subject, pattern) = (subject.as_bytes(), pattern.as_bytes());
    let (pattern, is_anchored) = unanchored(&pattern);
    let mut matcher = Matcher::new(&subject, pattern, meter);
    let (mut out, mut at, mut count) = (Vec::new(), 0, 0);
    while most.is_none_or(|most| count < most) {
        let found = matcher.match_at(at)?;
        if let Some(end) = found {
            count += 1;
            match replacement(lua, &matcher, (at, end), &with)? {
                Some(new) => {
                    meter.take(new.len() as u64 / 16)?;
                    out.extend_from_slice(&new);
                }
                None => out.extend_from_slice(subject.get(at..end).unwrap_or_default()),
            }
        }
        match found {
            Some(end) if end > at => at = end,
            _ => match subject.get(at) {
                Some(character) => {
                    out.push(*character);
                    at += 1;
                }
                None => break,
            },
        }
        if out.len() > LUA_MEMORY_MAX {
            return Err(Error::MemoryError("not enough memory".to_owned()));
        }
        if is_anchored {
            break;
        }
    }
    out.extend_from_slice(subject.get(at..).unwrap_or_default());
    Ok((lua.create_string(out)?, count))
}

/// Puts the functions into the table `string`.
pub(super) fn install(lua: &Lua, string: &Table, meter: &Rc<Meter>) -> Result<()> {
    let own = meter.clone();
    string.raw_set(
        "find",
        lua.create_function(move |lua, arguments| find(lua, arguments, &own))?,
    )?;
    let own = meter.clone();
    string.raw_set(
        "match",
        lua.create_function(move |lua, arguments| first_match(lua, arguments, &own))?,
    )?;
    let own = meter.clone();
    string.raw_set(
        "gsub",
        lua.create_function(move |lua, arguments| substitute(lua, arguments, &own))?,
    )?;
    let own = meter.clone();
    let all = move |lua: &Lua, (subject, pattern): (LuaString, LuaString)| {
        let meter = own.clone();
        // Where the next search begins, and where the last match ended.
        let (next, last) = (Cell::new(0), Cell::new(None));
        lua.create_function(move |lua, ()| {
            let (subject, pattern) = (subject.as_bytes(), pattern.as_bytes());
            let mut matcher = Matcher::new(&subject, &pattern, &meter);
            for start in next.get()..=subject.len() {
                match matcher.match_at(start)? {
                    Some(end) if Some(end) != last.get() => {
                        next.set(end);
                        last.set(Some(end));
                        return Ok(MultiValue::from_vec(matcher.values(lua, start, end)?));
                    }
                    _ => {}
                }
            }
            next.set(subject.len() + 1);
            Ok(MultiValue::from_vec(vec![Value::Nil]))
        })
    };
    string.raw_set("gmatch", lua.create_function(all)?)
}
