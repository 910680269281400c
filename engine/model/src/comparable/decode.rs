//! Order-preserving bytes back to wire bytes. The format is in the module above.

use super::{COMPONENT, EMPTY, EMPTY_REVERSED, KEY_END, NULL, SHORT_EXPONENT, SHORT_VARINT};
use crate::CqlType;
use crate::type_text::marshal_class;
use crate::value::composite::{put_comparator, put_component, put_static_marker, type_of_class};
use crate::value::wire::{put_unsigned_vint, vector_element_size};
use crate::value::{ValueError, minimal_varint, unordered_timeuuid, unordered_uuid};
use bytes::Bytes;
use num_bigint::BigInt;

/// Takes one component from the front of `input` and answers the wire bytes of its value.
///
/// Error: [`ValueError::Corrupt`] when no encoder wrote these bytes; `input` stays where it was.
pub fn decode_component(cql_type: &CqlType, reversed: bool, input: &mut &[u8]) -> Result<Bytes, ValueError> {
    let mut out = Vec::with_capacity(cql_type.fixed_size().unwrap_or_default().min(input.len()));
    decode_component_into(cql_type, reversed, input, &mut out)?;
    Ok(out.into())
}

/// As [`decode_component`], appending the wire bytes to `out`. After an error `out` holds a part of them.
pub fn decode_component_into(
    cql_type: &CqlType,
    reversed: bool,
    input: &mut &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let (header, rest) = input.split_first().ok_or(END_OF_BYTES)?;
    let mut source = Source {
        rest,
        mask: if reversed { 0xff } else { 0 },
    };
    match *header {
        COMPONENT => source.payload(cql_type, out)?,
        EMPTY if !reversed => {}
        EMPTY_REVERSED if reversed => {}
        _ => return Err(ValueError::Corrupt("not the first byte of a component")),
    }
    *input = source.rest;
    Ok(())
}

const MORE_COMPONENTS: ValueError = ValueError::Corrupt("more than the composite can have");
const END_OF_BYTES: ValueError = ValueError::Corrupt("unexpected end");

/// Decimals below 10^this whose last digits are zeros come back without exponent: 100, not 1E+2.
const PLAIN_EXPONENT: i64 = 64;

/// More trailing zeros than this no encoder has stripped: keys are limited to 65535 bytes.
const STRIPPED_ZEROS_MAX: i64 = 200_000;

/// Bytes to decode; each is complemented by `mask`.
struct Source<'a> {
    rest: &'a [u8],
    mask: u8,
}

impl Source<'_> {
    fn byte(&mut self) -> Result<u8, ValueError> {
        let (&byte, rest) = self.rest.split_first().ok_or(END_OF_BYTES)?;
        self.rest = rest;
        Ok(byte ^ self.mask)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ValueError> {
        let (&bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(END_OF_BYTES)?;
        self.rest = rest;
        Ok(bytes.map(|byte| byte ^ self.mask))
    }

    fn copy(&mut self, length: usize, out: &mut Vec<u8>) -> Result<(), ValueError> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(END_OF_BYTES)?;
        self.rest = rest;
        out.extend(bytes.iter().map(|byte| byte ^ self.mask));
        Ok(())
    }

    fn payload(&mut self, cql_type: &CqlType, out: &mut Vec<u8>) -> Result<(), ValueError> {
        match cql_type {
            CqlType::Int => self.signed::<4>(out),
            CqlType::Bigint | CqlType::Counter | CqlType::Timestamp => self.signed::<8>(out),
            CqlType::Text | CqlType::Ascii | CqlType::Blob | CqlType::Custom(_) | CqlType::Duration => {
                self.escaped(out)
            }
            CqlType::Timeuuid => {
                out.extend_from_slice(&unordered_timeuuid(self.array()?));
                Ok(())
            }
            CqlType::Uuid => {
                out.extend_from_slice(&unordered_uuid(self.array()?));
                Ok(())
            }
            CqlType::Smallint => self.signed::<2>(out),
            CqlType::Tinyint => self.signed::<1>(out),
            CqlType::Boolean => match self.byte()? {
                byte @ (0 | 1) => {
                    out.push(byte);
                    Ok(())
                }
                _ => Err(ValueError::Corrupt("not a boolean")),
            },
            CqlType::Date => self.copy(4, out),
            CqlType::Time => self.copy(8, out),
            CqlType::Float => {
                let bits = u32::from_be_bytes(self.array()?);
                let bits = if bits >> 31 == 0 { !bits } else { bits ^ 1 << 31 };
                out.extend_from_slice(&bits.to_be_bytes());
                Ok(())
            }
            CqlType::Double => {
                let bits = u64::from_be_bytes(self.array()?);
                let bits = if bits >> 63 == 0 { !bits } else { bits ^ 1 << 63 };
                out.extend_from_slice(&bits.to_be_bytes());
                Ok(())
            }
            CqlType::Inet => {
                self.copy(4, out)?;
                match self.byte()? {
                    0 => Ok(()),
                    1 => self.copy(12, out),
                    _ => Err(ValueError::Corrupt("not an address")),
                }
            }
            CqlType::Varint => self.varint(out),
            CqlType::Decimal => self.decimal(out),
            CqlType::List { element, .. } | CqlType::Set { element, .. } => {
                self.collection(element, None, out)
            }
            CqlType::Map { key, value, .. } => self.collection(key, Some(value), out),
            CqlType::Tuple(types) => self.fields(types.iter(), out),
            CqlType::Udt { definition, .. } => {
                self.fields(definition.fields.iter().map(|field| &field.cql_type), out)
            }
            CqlType::Composite(types) => self.composite(types, out),
            CqlType::DynamicComposite(aliases) => self.dynamic_composite(aliases, out),
            CqlType::Vector { element, dimension } => {
                let is_fixed = vector_element_size(element).is_some();
                for _ in 0..*dimension {
                    if is_fixed {
                        self.payload(element, out)?;
                        continue;
                    }
                    let mut inner = Vec::new();
                    let header = self.byte()?;
                    self.element(header, element, &mut inner)?;
                    put_unsigned_vint(out, inner.len() as u64);
                    out.extend_from_slice(&inner);
                }
                Ok(())
            }
            CqlType::Empty => Err(ValueError::Corrupt("bytes of the type of no value")),
        }
    }

    /// A component inside a component, after its first byte.
    fn element(&mut self, header: u8, cql_type: &CqlType, out: &mut Vec<u8>) -> Result<(), ValueError> {
        match header {
            COMPONENT => self.payload(cql_type, out),
            EMPTY => Ok(()),
            _ => Err(ValueError::Corrupt("not the first byte of an element")),
        }
    }

    /// As [`Self::element`], with its length before it.
    fn element_with_length(
        &mut self,
        header: u8,
        cql_type: &CqlType,
        out: &mut Vec<u8>,
    ) -> Result<(), ValueError> {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        self.element(header, cql_type, out)?;
        let length = out.len() - at - 4;
        write_i32_at(out, at, length)
    }

    fn signed<const N: usize>(&mut self, out: &mut Vec<u8>) -> Result<(), ValueError> {
        let mut bytes = self.array::<N>()?;
        if let Some(first) = bytes.first_mut() {
            *first ^= 0x80;
        }
        out.extend_from_slice(&bytes);
        Ok(())
    }

    fn escaped(&mut self, out: &mut Vec<u8>) -> Result<(), ValueError> {
        loop {
            let mask = self.mask;
            let plain = self
                .rest
                .iter()
                .position(|&byte| byte ^ mask <= 1)
                .ok_or(END_OF_BYTES)?;
            self.copy(plain, out)?;
            if self.byte()? == 0 {
                return Ok(());
            }
            match self.byte()? {
                byte @ (1 | 2) => out.push(byte - 1),
                _ => return Err(ValueError::Corrupt("not an escaped byte")),
            }
        }
    }

    fn varint(&mut self, out: &mut Vec<u8>) -> Result<(), ValueError> {
        let header = self.byte()?;
        let length = match header {
            0x00 => !u32::from_be_bytes(self.array()?) as usize,
            0xff => u32::from_be_bytes(self.array()?) as usize,
            1..=0x7f => usize::from(0x7f - header),
            _ => usize::from(header - 0x80),
        };
        let start = out.len();
        self.copy(length, out)?;
        let bytes = out.get(start..).unwrap_or_default();
        let is_long = matches!(header, 0x00 | 0xff);
        let fits = match bytes.first() {
            Some(first) => (*first >= 0x80) == (header < 0x80),
            None => false,
        };
        if !fits || minimal_varint(bytes).len() != length || is_long != (length > SHORT_VARINT) {
            return Err(ValueError::Corrupt("not a varint"));
        }
        Ok(())
    }

    fn decimal(&mut self, out: &mut Vec<u8>) -> Result<(), ValueError> {
        let corrupt = ValueError::Corrupt("not a decimal");
        let negative = match self.byte()? {
            0x80 => {
                out.extend_from_slice(&[0; 5]);
                return Ok(());
            }
            0x81 => false,
            0x7f => true,
            _ => return Err(corrupt),
        };
        let outer_mask = self.mask;
        if negative {
            self.mask = !self.mask;
        }
        let exponent = match self.byte()? {
            0x00 | 0xff => i64::from_be_bytes(self.array()?) ^ i64::MIN,
            byte => match i64::from(byte) - 0x80 {
                exponent if exponent.abs() <= SHORT_EXPONENT => exponent,
                _ => return Err(corrupt),
            },
        };
        let mut digits = Vec::new();
        loop {
            match self.byte()? {
                0 => break,
                pair @ 1..=100 => digits.extend([b'0' + (pair - 1) / 10, b'0' + (pair - 1) % 10]),
                _ => return Err(corrupt),
            }
        }
        self.mask = outer_mask;
        if digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.first().is_none_or(|&digit| digit == b'0') || digits.last() == Some(&b'0') {
            return Err(corrupt);
        }
        let length = digits.len() as i64;
        let mut scale = length.checked_sub(exponent).ok_or(corrupt.clone())?;
        let wanted = if scale < 0 && exponent <= PLAIN_EXPONENT {
            0
        } else {
            i64::from(i32::MIN)
        };
        if scale < wanted {
            if wanted - scale > STRIPPED_ZEROS_MAX {
                return Err(corrupt);
            }
            digits.resize((length + wanted - scale) as usize, b'0');
            scale = wanted;
        }
        let scale = i32::try_from(scale).map_err(|_| corrupt.clone())?;
        let magnitude = BigInt::parse_bytes(&digits, 10).ok_or(corrupt)?;
        let unscaled = if negative { -magnitude } else { magnitude };
        out.extend_from_slice(&scale.to_be_bytes());
        out.extend_from_slice(&unscaled.to_signed_bytes_be());
        Ok(())
    }

    fn collection(
        &mut self,
        element: &CqlType,
        map_value: Option<&CqlType>,
        out: &mut Vec<u8>,
    ) -> Result<(), ValueError> {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        let mut count = 0;
        loop {
            let header = self.byte()?;
            if header == KEY_END {
                return write_i32_at(out, at, count);
            }
            self.element_with_length(header, element, out)?;
            if let Some(value) = map_value {
                let header = self.byte()?;
                self.element_with_length(header, value, out)?;
            }
            count += 1;
        }
    }

    fn composite(&mut self, types: &[CqlType], out: &mut Vec<u8>) -> Result<(), ValueError> {
        match self.byte()? {
            0 => put_static_marker(out),
            1 => {}
            _ => return Err(ValueError::Corrupt("not the first byte of a composite")),
        }
        let mut types = types.iter();
        loop {
            let header = self.byte()?;
            if header == KEY_END {
                return Ok(());
            }
            let component_type = types.next().ok_or(MORE_COMPONENTS)?;
            self.component_with_end(header, component_type, out)?;
        }
    }

    fn dynamic_composite(&mut self, aliases: &[(u8, CqlType)], out: &mut Vec<u8>) -> Result<(), ValueError> {
        if self.byte()? != 1 {
            return Err(ValueError::Corrupt("not the first byte of a dynamic composite"));
        }
        loop {
            match self.byte()? {
                KEY_END => return Ok(()),
                COMPONENT => {}
                _ => return Err(ValueError::Corrupt("not the first byte of a class")),
            }
            self.escaped(&mut Vec::new())?;
            let mut class = Vec::new();
            self.escaped(&mut class)?;
            let component_type = std::str::from_utf8(&class)
                .ok()
                .and_then(|class| aliased_or_class(aliases, class))
                .ok_or(ValueError::Corrupt("not a class of a component"))?;
            put_comparator(aliases, &component_type, out).ok_or(MORE_COMPONENTS)?;
            let header = self.byte()?;
            self.component_with_end(header, &component_type, out)?;
        }
    }

    fn component_with_end(
        &mut self,
        header: u8,
        cql_type: &CqlType,
        out: &mut Vec<u8>,
    ) -> Result<(), ValueError> {
        let mut value = Vec::new();
        self.element(header, cql_type, &mut value)?;
        let end = (self.byte()? ^ 0x80).cast_signed();
        put_component(&value, end, out).ok_or(MORE_COMPONENTS)
    }

    fn fields<'t>(
        &mut self,
        types: impl Iterator<Item = &'t CqlType>,
        out: &mut Vec<u8>,
    ) -> Result<(), ValueError> {
        let mut header = self.byte()?;
        for field_type in types {
            match header {
                // Trailing nulls were left out.
                KEY_END => {
                    out.extend_from_slice(&(-1_i32).to_be_bytes());
                    continue;
                }
                NULL => out.extend_from_slice(&(-1_i32).to_be_bytes()),
                _ => self.element_with_length(header, field_type, out)?,
            }
            header = self.byte()?;
        }
        match header {
            KEY_END => Ok(()),
            _ => Err(ValueError::Corrupt("more elements than the tuple has")),
        }
    }
}

/// The type of a class in a dynamic composite; only by an alias may it be what a class in a value may not be.
fn aliased_or_class(aliases: &[(u8, CqlType)], class: &str) -> Option<CqlType> {
    let mut aliased = aliases.iter().map(|(_, aliased)| aliased);
    match aliased.find(|aliased| marshal_class(aliased, false) == class) {
        Some(aliased) => Some(aliased.clone()),
        None => type_of_class(class),
    }
}

fn write_i32_at(out: &mut [u8], at: usize, value: usize) -> Result<(), ValueError> {
    let value = i32::try_from(value).map_err(|_| ValueError::Corrupt("longer than any value"))?;
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_be_bytes());
    }
    Ok(())
}
