//! `decimal`: an integer of any size and the number of its digits after the decimal point.
//!
//! Numerically equal decimals may differ in scale (1.0 and 1.00): `==` is of the representation, [`Decimal::compare`] of
//! the number. No operation expands an exponent: 1E+2000000000 costs a few bytes.

use num_bigint::{BigInt, Sign};
use smallvec::SmallVec;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// unscaled * 10^-scale.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Decimal {
    unscaled: BigInt,
    scale: i32,
}

/// Plain notation is used while it needs at most so many zeros beside the digits, else scientific notation.
const PLAIN_ZEROS: i64 = 1024;

/// The number as sign * 0.DIGITS * 10^exponent, digits as ASCII, neither first nor last of them '0'.
pub(crate) struct Normalized {
    pub(crate) negative: bool,
    pub(crate) exponent: i64,
    /// Empty for zero.
    pub(crate) digits: SmallVec<[u8; 40]>,
}

impl Decimal {
    /// unscaled * 10^-scale.
    pub fn new(unscaled: BigInt, scale: i32) -> Self {
        Self { unscaled, scale }
    }

    /// All digits of the number, as an integer.
    pub fn unscaled(&self) -> &BigInt {
        &self.unscaled
    }

    /// How many of the digits stand after the decimal point; negative: zeros to append.
    pub fn scale(&self) -> i32 {
        self.scale
    }

    /// None: fewer than 4 bytes.
    pub(crate) fn from_wire(wire: &[u8]) -> Option<Self> {
        let (scale, unscaled) = wire.split_first_chunk::<4>()?;
        Some(Self {
            unscaled: BigInt::from_signed_bytes_be(unscaled),
            scale: i32::from_be_bytes(*scale),
        })
    }

    pub(crate) fn put_wire(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.scale.to_be_bytes());
        out.extend_from_slice(&self.unscaled.to_signed_bytes_be());
    }

    /// The order of the numbers: 1.0 equals 1.00.
    pub fn compare(&self, other: &Decimal) -> Ordering {
        if self.scale == other.scale {
            return self.unscaled.cmp(&other.unscaled);
        }
        Normalized::of(&self.unscaled, self.scale).compare(&Normalized::of(&other.unscaled, other.scale))
    }
}

impl Normalized {
    /// Of wire bytes; without allocation while the number fits 128 bits. None: fewer than 4 bytes.
    pub(crate) fn from_wire(wire: &[u8]) -> Option<Self> {
        let (scale, unscaled) = wire.split_first_chunk::<4>()?;
        let scale = i32::from_be_bytes(*scale);
        if unscaled.len() > 16 {
            return Some(Self::of(&BigInt::from_signed_bytes_be(unscaled), scale));
        }
        let negative = unscaled.first().is_some_and(|byte| byte & 0x80 != 0);
        let sign_extension = if negative { -1 } else { 0 };
        let number = unscaled.iter().fold(sign_extension, |number: i128, &byte| {
            number << 8 | i128::from(byte)
        });
        Some(Self::of_magnitude(negative, number.unsigned_abs(), scale))
    }

    fn of(unscaled: &BigInt, scale: i32) -> Self {
        let negative = unscaled.sign() == Sign::Minus;
        match u128::try_from(unscaled.magnitude()) {
            Ok(magnitude) => Self::of_magnitude(negative, magnitude, scale),
            Err(_) => {
                let digits = unscaled.magnitude().to_str_radix(10);
                Self::of_digits(negative, SmallVec::from_slice(digits.as_bytes()), scale)
            }
        }
    }

    fn of_magnitude(negative: bool, mut magnitude: u128, scale: i32) -> Self {
        let mut digits = SmallVec::new();
        while magnitude != 0 {
            digits.push(b'0' + (magnitude % 10) as u8);
            magnitude /= 10;
        }
        digits.reverse();
        Self::of_digits(negative, digits, scale)
    }

    /// `digits` do not start with '0'.
    fn of_digits(negative: bool, mut digits: SmallVec<[u8; 40]>, scale: i32) -> Self {
        let exponent = digits.len() as i64 - i64::from(scale);
        let significant = digits
            .iter()
            .rposition(|&digit| digit != b'0')
            .map_or(0, |last| last + 1);
        digits.truncate(significant);
        Self {
            negative,
            exponent: if digits.is_empty() { 0 } else { exponent },
            digits,
        }
    }

    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.digits.is_empty(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let magnitude = || (self.exponent, &self.digits).cmp(&(other.exponent, &other.digits));
        sign(self).cmp(&sign(other)).then_with(|| match sign(self) {
            0 => Ordering::Equal,
            1 => magnitude(),
            _ => magnitude().reverse(),
        })
    }
}

/// Why a text is no decimal number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotADecimal;

impl FromStr for Decimal {
    type Err = NotADecimal;

    /// Digits with at most one point among them, a sign before, an exponent behind.
    fn from_str(text: &str) -> Result<Self, NotADecimal> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(NotADecimal);
                }
                (mantissa, exponent.parse::<i64>().map_err(|_| NotADecimal)?)
            }
            None => (text, 0),
        };
        let (negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotADecimal);
        }
        let scale = (fraction.len() as i64).checked_sub(exponent).ok_or(NotADecimal)?;
        let unscaled = BigInt::parse_bytes(digits.as_bytes(), 10).ok_or(NotADecimal)?;
        Ok(Self {
            unscaled: if negative { -unscaled } else { unscaled },
            scale: i32::try_from(scale).map_err(|_| NotADecimal)?,
        })
    }
}

impl fmt::Display for Decimal {
    /// Plain notation, or scientific when that would need more than a thousand zeros. Parses to the same scale, but for
    /// a negative one, whose zeros become digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.unscaled.magnitude().to_string();
        let zeros = match self.scale {
            scale if scale < 0 => -i64::from(scale),
            scale => i64::from(scale) - digits.len() as i64 + 1,
        };
        if zeros > PLAIN_ZEROS {
            return self.write_scientific(f, &digits);
        }
        let sign = if self.unscaled.sign() == Sign::Minus {
            "-"
        } else {
            ""
        };
        if self.scale <= 0 {
            let zeros = if digits == "0" { 0 } else { zeros.max(0) as usize };
            return write!(
                f,
                "{sign}{digits}{}",
                "0".repeat(if self.scale < 0 { zeros } else { 0 })
            );
        }
        let padded = format!("{}{digits}", "0".repeat(zeros.max(0) as usize));
        let (whole, fraction) = padded.split_at(padded.len() - self.scale as usize);
        write!(f, "{sign}{whole}.{fraction}")
    }
}

impl Decimal {
    /// As Java's `BigDecimal.toString`: plain while that needs few zeros, else one digit before the point and an
    /// exponent. The form of JSON.
    pub fn to_scientific(&self) -> String {
        let digits = self.unscaled.magnitude().to_string();
        let adjusted = digits.len() as i64 - 1 - i64::from(self.scale);
        if self.scale >= 0 && adjusted >= -6 {
            return self.to_string();
        }
        struct Scientific<'a>(&'a Decimal, &'a str);
        impl fmt::Display for Scientific<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write_scientific(f, self.1)
            }
        }
        Scientific(self, &digits).to_string()
    }

    /// `digits` of the magnitude.
    fn write_scientific(&self, f: &mut fmt::Formatter<'_>, digits: &str) -> fmt::Result {
        let sign = if self.unscaled.sign() == Sign::Minus {
            "-"
        } else {
            ""
        };
        let exponent = digits.len() as i64 - 1 - i64::from(self.scale);
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        write!(f, "{sign}{first}{point}{rest}E{exponent:+}")
    }
}
