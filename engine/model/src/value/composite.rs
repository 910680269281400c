//! Values of the classes CompositeType and DynamicCompositeType: components that each say where they end.
//!
//! ```text
//! composite   | static? | component*                static: ffff, in CompositeType only
//! component   | comparator? | length u16 | value | end of component i8
//! comparator  | 8000 + alias u16 | length u16, class |     in DynamicCompositeType only
//! ```
//!
//! The end of a component is 0; before or after it (-1, 1) only in bounds, where it ends the whole value. A value may have
//! less components than its type. As text, components are divided by colons, `\:` is a colon in one of them, `_` and `!` at the end
//! stand for -1 and 1; those of a dynamic composite begin with alias or class, and `@`.
//!
//! Invariant: recursion follows the declared type. A class that is named in a value may be anything but a dynamic composite, or
//! of one: such values would nest as deep as they like.

use super::{ValueError, parse_literal};
use crate::CqlType;
use crate::type_text::{MARSHAL_PACKAGE, marshal_class, parse_marshal_class};
use std::borrow::Cow;

const STATIC_MARKER: [u8; 2] = [0xff, 0xff];
/// Of a comparator: an alias follows, not the length of a class.
const ALIAS: u16 = 0x8000;

/// One component of a value.
pub(crate) struct Component<'a> {
    pub(crate) cql_type: Cow<'a, CqlType>,
    pub(crate) value: &'a [u8],
    pub(crate) end: i8,
}

/// The components of a value, one after the other; after an error there are no more.
pub(crate) struct Components<'a> {
    cql_type: &'a CqlType,
    rest: &'a [u8],
    index: usize,
    is_static: bool,
}

impl<'a> Components<'a> {
    /// `cql_type` is a composite or a dynamic composite.
    pub(crate) fn new(cql_type: &'a CqlType, wire: &'a [u8]) -> Self {
        let after_marker = match cql_type {
            CqlType::Composite(_) => wire.strip_prefix(&STATIC_MARKER),
            _ => None,
        };
        Self {
            cql_type,
            rest: after_marker.unwrap_or(wire),
            index: 0,
            is_static: after_marker.is_some(),
        }
    }

    /// It begins with the marker of a static column's name; these are before all others.
    pub(crate) fn is_static(&self) -> bool {
        self.is_static
    }

    fn take(&mut self) -> Result<Component<'a>, ValueError> {
        let index = self.index;
        self.index += 1;
        let cql_type = match self.cql_type {
            CqlType::Composite(types) => match types.get(index) {
                Some(found) => Cow::Borrowed(found),
                None => return Err(ValueError::invalid("Too many bytes for comparator")),
            },
            CqlType::DynamicComposite(aliases) => self.take_comparator(aliases, index)?,
            other => return Err(ValueError::invalid(format!("{other} has no components"))),
        };
        let length = self.take_u16().ok_or_else(|| {
            ValueError::invalid(format!(
                "Not enough bytes to read value size of component {index}"
            ))
        })?;
        let Some((value, rest)) = self.rest.split_at_checked(usize::from(length)) else {
            return Err(ValueError::invalid(format!(
                "Not enough bytes to read value of component {index}"
            )));
        };
        let Some((&end, rest)) = rest.split_first() else {
            return Err(ValueError::invalid(format!(
                "Not enough bytes to read the end-of-component byte of component {index}"
            )));
        };
        if end != 0 && !rest.is_empty() {
            return Err(ValueError::invalid(format!(
                "Invalid bytes remaining after an end-of-component at component {index}"
            )));
        }
        self.rest = rest;
        Ok(Component {
            cql_type,
            value,
            end: end.cast_signed(),
        })
    }

    fn take_u16(&mut self) -> Option<u16> {
        let (head, rest) = self.rest.split_first_chunk::<2>()?;
        self.rest = rest;
        Some(u16::from_be_bytes(*head))
    }

    fn take_comparator(
        &mut self,
        aliases: &'a [(u8, CqlType)],
        index: usize,
    ) -> Result<Cow<'a, CqlType>, ValueError> {
        let header = self.take_u16().ok_or_else(|| {
            ValueError::invalid(format!(
                "Not enough bytes to header of the comparator part of component {index}"
            ))
        })?;
        let found = if header & ALIAS != 0 {
            type_of_alias(aliases, header as u8).map(Cow::Borrowed)
        } else {
            let Some((class, rest)) = self.rest.split_at_checked(usize::from(header)) else {
                return Err(ValueError::invalid(format!(
                    "Not enough bytes to read comparator name of component {index}"
                )));
            };
            self.rest = rest;
            std::str::from_utf8(class)
                .ok()
                .and_then(type_of_class)
                .map(Cow::Owned)
        };
        found.ok_or_else(|| ValueError::invalid(format!("Cannot find comparator for component {index}")))
    }
}

impl<'a> Iterator for Components<'a> {
    type Item = Result<Component<'a>, ValueError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let component = self.take();
        if component.is_err() {
            self.rest = &[];
        }
        Some(component)
    }
}

fn type_of_alias(aliases: &[(u8, CqlType)], alias: u8) -> Option<&CqlType> {
    aliases
        .iter()
        .find(|(known, _)| *known == alias)
        .map(|(_, cql_type)| cql_type)
}

/// The type of a class that a value names, if it may.
pub(crate) fn type_of_class(class: &str) -> Option<CqlType> {
    match parse_marshal_class(class) {
        Ok((cql_type, false)) if cql_type.is_value_of_composite() && !cql_type.holds_dynamic_composite() => {
            Some(cql_type.freeze())
        }
        _ => None,
    }
}

/// The simple name of a component's class, by which components of different types are ordered, and the whole of it.
pub(crate) fn class_names(cql_type: &CqlType) -> (String, String) {
    let class = marshal_class(cql_type, false);
    let simple = class.strip_prefix(MARSHAL_PACKAGE).unwrap_or(&class);
    let simple = simple.split('(').next().unwrap_or_default().to_owned();
    (simple, class)
}

/// Begins the value of a static column's name.
pub(crate) fn put_static_marker(out: &mut Vec<u8>) {
    out.extend_from_slice(&STATIC_MARKER);
}

/// Appends the comparator of a dynamic composite's component: by alias where it has one.
pub(crate) fn put_comparator(aliases: &[(u8, CqlType)], cql_type: &CqlType, out: &mut Vec<u8>) -> Option<()> {
    let header = match aliases.iter().find(|(_, aliased)| aliased == cql_type) {
        Some((alias, _)) => ALIAS | u16::from(*alias),
        None => return put_class(&marshal_class(cql_type, false), out),
    };
    out.extend_from_slice(&header.to_be_bytes());
    Some(())
}

fn put_class(class: &str, out: &mut Vec<u8>) -> Option<()> {
    let length = u16::try_from(class.len())
        .ok()
        .filter(|length| length & ALIAS == 0)?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(class.as_bytes());
    Some(())
}

/// Appends the value and the end of a component. None: it is too long.
pub(crate) fn put_component(value: &[u8], end: i8, out: &mut Vec<u8>) -> Option<()> {
    let length = u16::try_from(value.len()).ok()?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
    out.push(end.cast_unsigned());
    Some(())
}

/// The value that a text is for a composite or dynamic composite.
pub(super) fn parse_composite(cql_type: &CqlType, text: &str) -> Result<Vec<u8>, ValueError> {
    let mut out = Vec::new();
    for (index, part) in split(text).into_iter().enumerate() {
        let last = match part {
            "!" => 1_i8,
            "_" => -1,
            _ => 0,
        };
        if last != 0 {
            // The end of the component before; what follows is not read, as in Cassandra.
            match out.last_mut() {
                Some(end) => *end = last.cast_unsigned(),
                None => return Err(ValueError::invalid(format!("'{text}' has no component to end"))),
            }
            break;
        }
        let (component_type, text) = match cql_type {
            CqlType::Composite(types) => match types.get(index) {
                Some(found) => (Cow::Borrowed(found), part),
                None => {
                    return Err(ValueError::invalid(format!(
                        "'{text}' has more components than {cql_type}"
                    )));
                }
            },
            CqlType::DynamicComposite(aliases) => parse_comparator(aliases, part, &mut out)?,
            other => return Err(ValueError::invalid(format!("{other} has no components"))),
        };
        let value = parse_literal(&component_type, &unescape(text))?.to_wire(&component_type)?;
        put_component(&value, 0, &mut out).ok_or_else(|| {
            ValueError::invalid(format!(
                "Component {index} is {} bytes long, a component has at most {}",
                value.len(),
                u16::MAX
            ))
        })?;
    }
    Ok(out)
}

/// Reads `alias@value` or `class@value`; appends the comparator.
fn parse_comparator<'t, 'p>(
    aliases: &'t [(u8, CqlType)],
    part: &'p str,
    out: &mut Vec<u8>,
) -> Result<(Cow<'t, CqlType>, &'p str), ValueError> {
    let wrong = || ValueError::invalid(format!("Invalid component representation: {part}"));
    let (comparator, text) = part.split_once('@').ok_or_else(wrong)?;
    if let [alias] = *comparator.as_bytes()
        && let Some(cql_type) = type_of_alias(aliases, alias)
    {
        out.extend_from_slice(&(ALIAS | u16::from(alias)).to_be_bytes());
        return Ok((Cow::Borrowed(cql_type), text));
    }
    let cql_type = type_of_class(comparator).ok_or_else(wrong)?;
    put_class(comparator, out).ok_or_else(wrong)?;
    Ok((Cow::Owned(cql_type), text))
}

/// Parts between colons that no backslash is before.
fn split(text: &str) -> Vec<&str> {
    if text.is_empty() {
        return Vec::new();
    }
    let mut parts = Vec::new();
    let (mut start, mut before) = (0, ' ');
    for (at, character) in text.char_indices() {
        if character == ':' && before != '\\' {
            parts.extend(text.get(start..at));
            start = at + 1;
        }
        before = character;
    }
    parts.extend(text.get(start..));
    parts
}

/// A `!` at the end of a component keeps it from being taken for something else.
fn unescape(part: &str) -> String {
    let plain = part.replace("\\:", ":");
    plain.strip_suffix('!').map(str::to_owned).unwrap_or(plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::value::{compare, validate};
    use std::cmp::Ordering;

    fn pair() -> CqlType {
        CqlType::Composite([CqlType::Ascii, CqlType::Int].into())
    }

    fn dynamic() -> CqlType {
        CqlType::DynamicComposite([(b'i', CqlType::Int), (b's', CqlType::Text)].into())
    }

    #[test]
    fn text_becomes_components() {
        let wire = parse_composite(&pair(), "abc:123").unwrap();
        assert_eq!(wire, b"\0\x03abc\0\0\x04\0\0\0\x7b\0");
        assert_eq!(parse_composite(&pair(), "abc").unwrap(), b"\0\x03abc\0");
        assert_eq!(parse_composite(&pair(), r"a\:b").unwrap(), b"\0\x03a:b\0");
        assert_eq!(parse_composite(&pair(), "a:!").unwrap(), b"\0\x01a\x01");
        assert_eq!(parse_composite(&pair(), "a:_").unwrap(), b"\0\x01a\xff");
        assert_eq!(parse_composite(&pair(), "").unwrap(), b"");
        assert!(parse_composite(&pair(), "a:b").is_err());
        assert!(parse_composite(&pair(), "a:1:2").is_err());
        let wire = parse_composite(&dynamic(), "i@1:UTF8Type@x").unwrap();
        assert_eq!(wire, b"\x80i\0\x04\0\0\0\x01\0\0\x08UTF8Type\0\x01x\0");
        validate(&dynamic(), &wire).unwrap();
        assert!(parse_composite(&dynamic(), "x").is_err());
        assert!(parse_composite(&dynamic(), "q@x").is_err());
    }

    #[test]
    fn what_is_no_value_is_told_as_cassandra_tells_it() {
        let told = |cql_type: &CqlType, wire: &[u8]| validate(cql_type, wire).unwrap_err().to_string();
        assert_eq!(
            told(&pair(), b"\0"),
            "Not enough bytes to read value size of component 0"
        );
        assert_eq!(
            told(&pair(), b"\0\x02a"),
            "Not enough bytes to read value of component 0"
        );
        assert_eq!(
            told(&pair(), b"\0\x01a"),
            "Not enough bytes to read the end-of-component byte of component 0"
        );
        assert_eq!(
            told(&pair(), b"\0\x01a\x01\0\x01b\0"),
            "Invalid bytes remaining after an end-of-component at component 0"
        );
        assert_eq!(
            told(&pair(), b"\0\x01a\0\0\0\0\0\0\0"),
            "Too many bytes for comparator"
        );
        assert_eq!(
            told(&dynamic(), b"\x80q\0\0\0"),
            "Cannot find comparator for component 0"
        );
        let nested = b"\0\x16DynamicCompositeType()\0\0\0";
        assert_eq!(told(&dynamic(), nested), "Cannot find comparator for component 0");
    }

    #[test]
    fn order_is_component_by_component() {
        let order = |cql_type: &CqlType, a: &str, b: &str| {
            let wire = |text| parse_composite(cql_type, text).unwrap();
            compare(cql_type, &wire(a), &wire(b))
        };
        assert_eq!(order(&pair(), "b:-1", "b:1"), Ordering::Less);
        assert_eq!(order(&pair(), "b", "b:-1"), Ordering::Less);
        assert_eq!(order(&pair(), "b", "b:!"), Ordering::Less);
        assert_eq!(order(&pair(), "b:!", "b:1"), Ordering::Greater);
        assert_eq!(order(&pair(), "b:_", "b"), Ordering::Less);
        // By the name of the class, then by value; an alias is its class.
        assert_eq!(order(&dynamic(), "i@9", "s@1"), Ordering::Less);
        assert_eq!(order(&dynamic(), "i@1", "Int32Type@1"), Ordering::Equal);
        let marked = [&STATIC_MARKER[..], b"\0\x01z\0"].concat();
        validate(&pair(), &marked).unwrap();
        assert_eq!(compare(&pair(), &marked, b"\0\x01a\0"), Ordering::Less);
    }
}
