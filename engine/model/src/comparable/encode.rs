//! Wire bytes to order-preserving bytes. The format is in the module above.

use super::{COMPONENT, EMPTY, EMPTY_REVERSED, KEY_END, NULL, SHORT_EXPONENT, SHORT_VARINT};
use crate::CqlType;
use crate::value::composite::{Components, class_names};
use crate::value::wire::{Elements, take_component, take_vector_element, vector_element_size};
use crate::value::{
    Normalized, ValueError, minimal_varint, ordered_double, ordered_float, ordered_timeuuid, ordered_uuid,
};
use smallvec::{Array, SmallVec};

/// A buffer that an encoding is appended to.
pub trait Sink {
    /// Appends one byte.
    fn put(&mut self, byte: u8);
    /// Appends bytes.
    fn put_slice(&mut self, bytes: &[u8]);
    /// How many bytes it holds.
    fn size(&self) -> usize;
    /// What was appended since it held `start` bytes.
    fn tail(&mut self, start: usize) -> &mut [u8];
    /// Forgets all but the first `size` bytes.
    fn cut(&mut self, size: usize);
}

impl Sink for Vec<u8> {
    fn put(&mut self, byte: u8) {
        self.push(byte);
    }
    fn put_slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
    fn size(&self) -> usize {
        self.len()
    }
    fn tail(&mut self, start: usize) -> &mut [u8] {
        self.get_mut(start..).unwrap_or_default()
    }
    fn cut(&mut self, size: usize) {
        self.truncate(size);
    }
}

impl<A: Array<Item = u8>> Sink for SmallVec<A> {
    fn put(&mut self, byte: u8) {
        self.push(byte);
    }
    fn put_slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
    fn size(&self) -> usize {
        self.len()
    }
    fn tail(&mut self, start: usize) -> &mut [u8] {
        self.get_mut(start..).unwrap_or_default()
    }
    fn cut(&mut self, size: usize) {
        self.truncate(size);
    }
}

/// Appends the component for a value of `cql_type`, given as wire bytes; `reversed` for a descending clustering column.
///
/// Error, with nothing appended: `wire` is not of a length or structure that the type has. Contents (UTF-8, version of
/// a UUID) are not checked; [`crate::value::validate`] does that.
pub fn encode_component(
    cql_type: &CqlType,
    reversed: bool,
    wire: &[u8],
    out: &mut impl Sink,
) -> Result<(), ValueError> {
    if wire.is_empty() {
        out.put(if reversed { EMPTY_REVERSED } else { EMPTY });
        return Ok(());
    }
    let start = out.size();
    out.put(COMPONENT);
    if put_payload(cql_type, wire, out).is_none() {
        out.cut(start);
        return Err(ValueError::invalid(format!(
            "{} bytes are no value of type {cql_type}",
            wire.len()
        )));
    }
    if reversed {
        for byte in out.tail(start + 1) {
            *byte = !*byte;
        }
    }
    Ok(())
}

/// Appends the payload of a value that is not of zero bytes. None: no value of the type.
fn put_payload(cql_type: &CqlType, wire: &[u8], out: &mut impl Sink) -> Option<()> {
    match cql_type {
        CqlType::Int => put_signed::<4>(wire, out)?,
        CqlType::Bigint | CqlType::Counter | CqlType::Timestamp => put_signed::<8>(wire, out)?,
        CqlType::Text | CqlType::Ascii | CqlType::Blob | CqlType::Custom(_) | CqlType::Duration => {
            put_escaped(wire, out)
        }
        CqlType::Timeuuid => out.put_slice(&ordered_timeuuid(wire.try_into().ok()?).to_be_bytes()),
        CqlType::Uuid => out.put_slice(&ordered_uuid(wire.try_into().ok()?).to_be_bytes()),
        CqlType::Smallint => put_signed::<2>(wire, out)?,
        CqlType::Tinyint => put_signed::<1>(wire, out)?,
        CqlType::Boolean => match wire {
            [byte] => out.put(u8::from(*byte != 0)),
            _ => return None,
        },
        CqlType::Date => out.put_slice(&<[u8; 4]>::try_from(wire).ok()?),
        CqlType::Time => out.put_slice(&<[u8; 8]>::try_from(wire).ok()?),
        CqlType::Float => out.put_slice(&ordered_float(wire.try_into().ok()?).to_be_bytes()),
        CqlType::Double => out.put_slice(&ordered_double(wire.try_into().ok()?).to_be_bytes()),
        CqlType::Inet => put_inet(wire, out)?,
        CqlType::Varint => put_varint(minimal_varint(wire), out)?,
        CqlType::Decimal => put_decimal(&Normalized::from_wire(wire)?, out),
        CqlType::List { element, .. } | CqlType::Set { element, .. } => {
            for bytes in Elements::new(cql_type, wire).ok()? {
                encode_component(element, false, bytes.ok()?, out).ok()?;
            }
            out.put(KEY_END);
        }
        CqlType::Map { key, value, .. } => {
            let (mut now, mut then) = (key, value);
            for bytes in Elements::new(cql_type, wire).ok()? {
                encode_component(now, false, bytes.ok()?, out).ok()?;
                std::mem::swap(&mut now, &mut then);
            }
            out.put(KEY_END);
        }
        CqlType::Tuple(types) => put_fields(types.iter(), wire, out)?,
        CqlType::Udt { definition, .. } => {
            put_fields(definition.fields.iter().map(|field| &field.cql_type), wire, out)?;
        }
        CqlType::Composite(_) | CqlType::DynamicComposite(_) => put_composite(cql_type, wire, out)?,
        CqlType::Vector { element, dimension } => put_vector(element, *dimension, wire, out)?,
        CqlType::Empty => return None,
    }
    Some(())
}

/// Two's complement of N bytes: flips the sign bit.
fn put_signed<const N: usize>(wire: &[u8], out: &mut impl Sink) -> Option<()> {
    let mut bytes: [u8; N] = wire.try_into().ok()?;
    *bytes.first_mut()? ^= 0x80;
    out.put_slice(&bytes);
    Some(())
}

/// Bytes without 00, ended by 00.
fn put_escaped(bytes: &[u8], out: &mut impl Sink) {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&byte| byte <= 1) {
        let (plain, special) = rest.split_at(at);
        out.put_slice(plain);
        let Some((&byte, after)) = special.split_first() else {
            break;
        };
        out.put_slice(&[1, byte + 1]);
        rest = after;
    }
    out.put_slice(rest);
    out.put(0);
}

fn put_inet(wire: &[u8], out: &mut impl Sink) -> Option<()> {
    let (head, tail) = wire.split_first_chunk::<4>()?;
    out.put_slice(head);
    match tail.len() {
        0 => out.put(0),
        12 => {
            out.put(1);
            out.put_slice(tail);
        }
        _ => return None,
    }
    Some(())
}

/// `minimal`: without needless sign bytes, at least one byte.
fn put_varint(minimal: &[u8], out: &mut impl Sink) -> Option<()> {
    let negative = *minimal.first()? >= 0x80;
    let length = u32::try_from(minimal.len()).ok()?;
    match u8::try_from(length) {
        Ok(short) if usize::from(short) <= SHORT_VARINT => {
            out.put(if negative { 0x7f - short } else { 0x80 + short });
        }
        _ => {
            out.put(if negative { 0x00 } else { 0xff });
            let length = if negative { !length } else { length };
            out.put_slice(&length.to_be_bytes());
        }
    }
    out.put_slice(minimal);
    Some(())
}

fn put_decimal(number: &Normalized, out: &mut impl Sink) {
    if number.digits.is_empty() {
        out.put(0x80);
        return;
    }
    out.put(if number.negative { 0x7f } else { 0x81 });
    let start = out.size();
    let exponent = number.exponent;
    if exponent.abs() <= SHORT_EXPONENT {
        out.put((0x80 + exponent) as u8);
    } else {
        out.put(if exponent < 0 { 0x00 } else { 0xff });
        out.put_slice(&(exponent ^ i64::MIN).to_be_bytes());
    }
    for pair in number.digits.chunks(2) {
        let digit = |index: usize| pair.get(index).map_or(0, |digit| digit - b'0');
        out.put(1 + digit(0) * 10 + digit(1));
    }
    out.put(0);
    if number.negative {
        for byte in out.tail(start) {
            *byte = !*byte;
        }
    }
}

fn put_fields<'t>(types: impl Iterator<Item = &'t CqlType>, wire: &[u8], out: &mut impl Sink) -> Option<()> {
    let mut rest = wire;
    // Nulls are written only when a value follows them.
    let mut nulls = 0;
    for field_type in types {
        match take_component(&mut rest, String::new).ok()? {
            None | Some(None) => nulls += 1,
            Some(Some(bytes)) => {
                (0..std::mem::take(&mut nulls)).for_each(|_| out.put(NULL));
                encode_component(field_type, false, bytes, out).ok()?;
            }
        }
    }
    out.put(KEY_END);
    rest.is_empty().then_some(())
}

fn put_composite(cql_type: &CqlType, wire: &[u8], out: &mut impl Sink) -> Option<()> {
    let components = Components::new(cql_type, wire);
    out.put(u8::from(!components.is_static()));
    for component in components {
        let component = component.ok()?;
        if matches!(cql_type, CqlType::DynamicComposite(_)) {
            let (simple, class) = class_names(&component.cql_type);
            out.put(COMPONENT);
            put_escaped(simple.as_bytes(), out);
            put_escaped(class.as_bytes(), out);
        }
        encode_component(&component.cql_type, false, component.value, out).ok()?;
        out.put(component.end.cast_unsigned() ^ 0x80);
    }
    out.put(KEY_END);
    Some(())
}

fn put_vector(element: &CqlType, dimension: u16, wire: &[u8], out: &mut impl Sink) -> Option<()> {
    let size = vector_element_size(element);
    let mut rest = wire;
    for _ in 0..dimension {
        let bytes = take_vector_element(&mut rest, size)?;
        match size {
            Some(_) => put_payload(element, bytes, out)?,
            None => encode_component(element, false, bytes, out).ok()?,
        }
    }
    rest.is_empty().then_some(())
}
