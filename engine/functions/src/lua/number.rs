//! Varint and decimal in Lua: numbers of any size with arithmetic and comparison.
//!
//! One number is an unscaled integer and a scale. Results with more than [`BITS_MAX`] bits are an error, for one
//! instruction must not take long.

use std::cmp::Ordering;
use std::fmt;
use std::rc::Rc;

use ceto_model::value::Decimal;
use mlua::{Error, Lua, MetaMethod, Result, UserData, UserDataMethods, Value};
use num_bigint::BigInt;

use super::state::Meter;

/// Bits of an unscaled value.
const BITS_MAX: u64 = 1 << 15;

/// Powers of ten that are multiplied by.
const SCALE_DIFFERENCE_MAX: i64 = 4096;

/// Digits behind the point that a division gives at least.
const QUOTIENT_SCALE: i32 = 16;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Number(Decimal);

fn too_large() -> Error {
    Error::RuntimeError(format!("a number has more than {BITS_MAX} bits"))
}

fn power_of_ten(exponent: i64) -> Result<BigInt> {
    match u32::try_from(exponent) {
        Ok(small) if exponent <= SCALE_DIFFERENCE_MAX => Ok(BigInt::from(10).pow(small)),
        _ => Err(too_large()),
    }
}

/// Takes steps for a new number by its size, which bounds what numbers hold beside Lua's own memory.
fn charged(lua: &Lua, number: Number) -> Result<Number> {
    if let Some(meter) = lua.app_data_ref::<Rc<Meter>>() {
        meter.take(16 + number.0.unscaled().bits() / 64)?;
    }
    Ok(number)
}

fn checked(unscaled: BigInt, scale: i64) -> Result<Number> {
    let scale = i32::try_from(scale).map_err(|_| too_large())?;
    if unscaled.bits() > BITS_MAX {
        return Err(too_large());
    }
    Ok(Number(Decimal::new(unscaled, scale)))
}

impl Number {
    pub(super) fn from_integer(number: BigInt) -> Self {
        Self(Decimal::new(number, 0))
    }

    pub(super) fn from_decimal(number: Decimal) -> Self {
        Self(number)
    }

    pub(super) fn into_decimal(self) -> Decimal {
        self.0
    }

    /// The integer that it is; None when it is none, or a very large one.
    pub(super) fn to_integer(&self) -> Option<BigInt> {
        let scale = i64::from(self.0.scale());
        if scale <= 0 {
            return Some(self.0.unscaled() * power_of_ten(-scale).ok()?);
        }
        let unscaled = self.0.unscaled();
        if *unscaled == BigInt::ZERO {
            return Some(BigInt::ZERO);
        }
        let power = power_of_ten(scale).ok()?;
        (unscaled % &power == BigInt::ZERO).then(|| unscaled / &power)
    }

    fn of(value: &Value) -> Result<Number> {
        match value {
            Value::Integer(number) => Ok(Self::from_integer((*number).into())),
            Value::Number(number) => number
                .to_string()
                .parse()
                .map(Self)
                .map_err(|_| Error::RuntimeError(format!("{number} is no decimal"))),
            Value::String(text) if text.as_bytes().len() <= 4096 => text
                .to_string_lossy()
                .trim()
                .parse()
                .map(Self)
                .map_err(|_| Error::RuntimeError("attempt to perform arithmetic on a string".to_owned())),
            Value::UserData(data) => Ok(data.borrow::<Number>()?.clone()),
            other => Err(Error::RuntimeError(format!(
                "attempt to perform arithmetic on a {} value",
                other.type_name()
            ))),
        }
    }

    /// Both unscaled values at the larger scale.
    fn aligned(one: &Number, other: &Number) -> Result<(BigInt, BigInt, i64)> {
        let (scale, other_scale) = (i64::from(one.0.scale()), i64::from(other.0.scale()));
        let common = scale.max(other_scale);
        let raise =
            |number: &Number, scale: i64| Ok::<_, Error>(number.0.unscaled() * power_of_ten(common - scale)?);
        let (one, other) = (raise(one, scale)?, raise(other, other_scale)?);
        if one.bits().max(other.bits()) > BITS_MAX * 2 {
            return Err(too_large());
        }
        Ok((one, other, common))
    }

    fn compare(one: &Number, other: &Number) -> Result<Ordering> {
        let (one, other, _) = Self::aligned(one, other)?;
        Ok(one.cmp(&other))
    }
}

/// Division that rounds down, as Lua's.
fn floor_divide(one: &BigInt, other: &BigInt) -> Result<(BigInt, BigInt)> {
    if *other == BigInt::ZERO {
        return Err(Error::RuntimeError("attempt to divide by zero".to_owned()));
    }
    let (quotient, remainder) = (one / other, one % other);
    let is_below = remainder != BigInt::ZERO && (remainder.sign() != other.sign());
    Ok(match is_below {
        true => (quotient - 1, remainder + other),
        false => (quotient, remainder),
    })
}

fn divide(one: &Number, other: &Number) -> Result<Number> {
    let (one, other, scale) = Number::aligned(one, other)?;
    if other == BigInt::ZERO {
        return Err(Error::RuntimeError("attempt to divide by zero".to_owned()));
    }
    let digits = i64::from(QUOTIENT_SCALE).max(scale);
    let mut quotient = one * power_of_ten(digits)? / other;
    let mut scale = digits;
    let ten = BigInt::from(10);
    while scale > 0 && &quotient % &ten == BigInt::ZERO {
        quotient /= &ten;
        scale -= 1;
    }
    checked(quotient, scale)
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.scale(), self.to_integer()) {
            (0, Some(integer)) => write!(f, "{integer}"),
            _ => write!(f, "{}", self.0),
        }
    }
}

impl UserData for Number {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_function(MetaMethod::Add, |lua, (one, other): (Value, Value)| {
            let (one, other, scale) = Number::aligned(&Number::of(&one)?, &Number::of(&other)?)?;
            charged(lua, checked(one + other, scale)?)
        });
        methods.add_meta_function(MetaMethod::Sub, |lua, (one, other): (Value, Value)| {
            let (one, other, scale) = Number::aligned(&Number::of(&one)?, &Number::of(&other)?)?;
            charged(lua, checked(one - other, scale)?)
        });
        methods.add_meta_function(MetaMethod::Mul, |lua, (one, other): (Value, Value)| {
            let (one, other) = (Number::of(&one)?, Number::of(&other)?);
            if one.0.unscaled().bits().max(other.0.unscaled().bits()) > BITS_MAX {
                return Err(too_large());
            }
            let scale = i64::from(one.0.scale()) + i64::from(other.0.scale());
            charged(lua, checked(one.0.unscaled() * other.0.unscaled(), scale)?)
        });
        methods.add_meta_function(MetaMethod::Div, |lua, (one, other): (Value, Value)| {
            charged(lua, divide(&Number::of(&one)?, &Number::of(&other)?)?)
        });
        methods.add_meta_function(MetaMethod::IDiv, |lua, (one, other): (Value, Value)| {
            let (one, other, _) = Number::aligned(&Number::of(&one)?, &Number::of(&other)?)?;
            charged(lua, checked(floor_divide(&one, &other)?.0, 0)?)
        });
        methods.add_meta_function(MetaMethod::Mod, |lua, (one, other): (Value, Value)| {
            let (one, other, scale) = Number::aligned(&Number::of(&one)?, &Number::of(&other)?)?;
            charged(lua, checked(floor_divide(&one, &other)?.1, scale)?)
        });
        methods.add_meta_function(MetaMethod::Unm, |lua, one: Value| {
            let one = Number::of(&one)?;
            charged(lua, checked(-one.0.unscaled(), i64::from(one.0.scale()))?)
        });
        methods.add_meta_function(MetaMethod::Eq, |_, (one, other): (Value, Value)| {
            let (one, other) = (Number::of(&one)?, Number::of(&other)?);
            Ok(Number::compare(&one, &other)? == Ordering::Equal)
        });
        methods.add_meta_function(MetaMethod::Lt, |_, (one, other): (Value, Value)| {
            let (one, other) = (Number::of(&one)?, Number::of(&other)?);
            Ok(Number::compare(&one, &other)? == Ordering::Less)
        });
        methods.add_meta_function(MetaMethod::Le, |_, (one, other): (Value, Value)| {
            let (one, other) = (Number::of(&one)?, Number::of(&other)?);
            Ok(Number::compare(&one, &other)? != Ordering::Greater)
        });
        methods.add_meta_method(MetaMethod::ToString, |_, number, ()| Ok(number.to_string()));
        methods.add_meta_function(MetaMethod::Concat, |_, (one, other): (Value, Value)| {
            Ok(format!("{}{}", one.to_string()?, other.to_string()?))
        });
    }
}
