//! count, min, max, sum, avg: functions of the rows of a group.

use crate::CqlError;
use crate::ast::ArithmeticOperator;
use crate::expression::number::{convert, is_numeric, to_decimal, to_integer};
use crate::expression::{decimals, of_value};
use bytes::Bytes;
use ceto_model::CqlType;
use ceto_model::value::{Decimal, Value, compare};
use num_bigint::BigInt;

/// Which aggregate, of values of which type.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct NativeAggregate {
    kind: Kind,
    /// Of the argument; not used by count(*).
    argument: CqlType,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    CountRows,
    Count,
    Min,
    Max,
    Sum,
    Average,
}

/// The aggregate of this name for an argument of this type; None when the name is none of an aggregate.
pub(super) fn find(name: &str, natural: &[Option<CqlType>]) -> Result<Option<NativeAggregate>, CqlError> {
    let kind = match name {
        "count" => Kind::Count,
        "min" => Kind::Min,
        "max" => Kind::Max,
        "sum" => Kind::Sum,
        "avg" => Kind::Average,
        _ => return Ok(None),
    };
    let [argument] = natural else {
        return Err(CqlError::Invalid(format!(
            "Invalid number of arguments in call to function system.{name}: 1 required but {} provided",
            natural.len()
        )));
    };
    let Some(argument) = argument.clone() else {
        return Err(CqlError::Invalid(format!(
            "Cannot infer the type of the argument of function system.{name} (try using a cast to force a type)"
        )));
    };
    if matches!(kind, Kind::Sum | Kind::Average) && !is_numeric(&argument) {
        return Err(CqlError::Invalid(format!(
            "Invalid call to function {name}, none of its type signatures match: an argument of type {argument} is \
             not numeric"
        )));
    }
    Ok(Some(NativeAggregate { kind, argument }))
}

impl NativeAggregate {
    /// count(*)
    pub(crate) fn count_rows() -> Self {
        Self {
            kind: Kind::CountRows,
            argument: CqlType::Empty,
        }
    }

    pub(crate) fn argument_types(&self) -> Vec<CqlType> {
        match self.kind {
            Kind::CountRows => Vec::new(),
            _ => vec![self.argument.clone()],
        }
    }

    pub(crate) fn return_type(&self) -> CqlType {
        match self.kind {
            Kind::CountRows | Kind::Count => CqlType::Bigint,
            _ => self.argument.clone(),
        }
    }

    /// Sums and averages are computed in this type: exact, and wide enough for any number of rows.
    fn sum_type(&self) -> CqlType {
        match (&self.argument, self.kind) {
            (CqlType::Float | CqlType::Double | CqlType::Decimal, Kind::Average) => CqlType::Decimal,
            (CqlType::Float | CqlType::Double, _) => CqlType::Double,
            (CqlType::Decimal, _) => CqlType::Decimal,
            _ => CqlType::Varint,
        }
    }
}

/// The state of one aggregate over one group.
#[derive(Clone, Debug)]
pub(crate) struct NativeAccumulator {
    count: i64,
    extreme: Option<Bytes>,
    integers: BigInt,
    decimals: Decimal,
    doubles: f64,
    /// A NaN or infinity, which no decimal can hold.
    special: Option<f64>,
}

impl NativeAccumulator {
    pub(crate) fn new(_: &NativeAggregate) -> Self {
        Self {
            count: 0,
            extreme: None,
            integers: BigInt::ZERO,
            decimals: Decimal::new(BigInt::ZERO, 0),
            doubles: 0.0,
            special: None,
        }
    }

    /// One more row.
    pub(crate) fn add(
        &mut self,
        function: &NativeAggregate,
        arguments: &[Option<Bytes>],
    ) -> Result<(), CqlError> {
        if function.kind == Kind::CountRows {
            self.count += 1;
            return Ok(());
        }
        let Some(Some(value)) = arguments.first() else {
            return Ok(());
        };
        match function.kind {
            Kind::CountRows | Kind::Count => self.count += 1,
            Kind::Min | Kind::Max => {
                let wanted = match function.kind {
                    Kind::Min => std::cmp::Ordering::Less,
                    _ => std::cmp::Ordering::Greater,
                };
                let better = |old: &Bytes| compare(&function.argument, value, old) == wanted;
                if self.extreme.as_ref().is_none_or(better) {
                    self.extreme = Some(value.clone());
                }
            }
            Kind::Sum | Kind::Average => self.add_number(function, value)?,
        }
        Ok(())
    }

    fn add_number(&mut self, function: &NativeAggregate, value: &Bytes) -> Result<(), CqlError> {
        let own = Value::decode(&function.argument, value).map_err(of_value)?;
        let special = match own {
            Value::Float(number) if !number.is_finite() => Some(f64::from(number)),
            Value::Double(number) if !number.is_finite() => Some(number),
            Value::Empty => return Ok(()),
            _ => None,
        };
        self.count += 1;
        match (function.sum_type(), special) {
            (CqlType::Decimal, Some(special)) => self.special = Some(self.special.unwrap_or(0.0) + special),
            (CqlType::Decimal, None) => {
                let sum = decimals(ArithmeticOperator::Add, &self.decimals, &to_decimal(&own)?);
                self.decimals = sum.map_err(CqlError::Invalid)?;
            }
            (CqlType::Double, _) => self.doubles += crate::expression::number::to_f64(&own),
            _ => self.integers += to_integer(&own)?,
        }
        Ok(())
    }

    /// The result. Sums of integers wrap as the type does; averages of integers are cut off.
    pub(crate) fn finish(&self, function: &NativeAggregate) -> Result<Option<Bytes>, CqlError> {
        match function.kind {
            Kind::CountRows | Kind::Count => Ok(Some(Bytes::copy_from_slice(&self.count.to_be_bytes()))),
            Kind::Min | Kind::Max => Ok(self.extreme.clone()),
            Kind::Sum | Kind::Average => self.finish_number(function),
        }
    }

    fn finish_number(&self, function: &NativeAggregate) -> Result<Option<Bytes>, CqlError> {
        let divide = function.kind == Kind::Average && self.count > 0;
        let sum_type = function.sum_type();
        let result = match &sum_type {
            CqlType::Decimal => match self.special {
                Some(special) => {
                    let wire = special.to_be_bytes();
                    return to_wire(function, convert(&CqlType::Double, &function.argument, &wire)?);
                }
                None if divide => {
                    let count = Decimal::new(self.count.into(), 0);
                    let average = decimals(ArithmeticOperator::Divide, &self.decimals, &count);
                    Value::Decimal(average.map_err(CqlError::Invalid)?)
                }
                None => Value::Decimal(self.decimals.clone()),
            },
            CqlType::Double => Value::Double(self.doubles),
            _ if divide => Value::Varint(&self.integers / self.count),
            _ => Value::Varint(self.integers.clone()),
        };
        let wire = result.to_wire(&sum_type).map_err(of_value)?;
        to_wire(function, convert(&sum_type, &function.argument, &wire)?)
    }
}

fn to_wire(function: &NativeAggregate, value: Option<Value>) -> Result<Option<Bytes>, CqlError> {
    let wire = value.map(|value| value.to_wire(&function.argument).map_err(of_value));
    Ok(wire.transpose()?.map(Bytes::from))
}
