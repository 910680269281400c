//! Values that are passed as numbers of WebAssembly, and which those are.

use ceto_model::CqlType;
use ceto_model::schema::FunctionDefinition;
use wasmi::{Val, ValType};

/// How one value is passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Passing {
    Boolean,
    Tinyint,
    Smallint,
    Int,
    Bigint,
    Float,
    Double,
    /// Wire bytes in memory; an `i64` says where.
    InMemory,
}

impl Passing {
    pub(super) fn of(cql_type: &CqlType, function: &FunctionDefinition) -> Passing {
        if function.called_on_null {
            return Passing::InMemory;
        }
        match cql_type {
            CqlType::Boolean => Passing::Boolean,
            CqlType::Tinyint => Passing::Tinyint,
            CqlType::Smallint => Passing::Smallint,
            CqlType::Int => Passing::Int,
            CqlType::Bigint => Passing::Bigint,
            CqlType::Float => Passing::Float,
            CqlType::Double => Passing::Double,
            _ => Passing::InMemory,
        }
    }

    pub(super) fn wasm_type(self) -> ValType {
        match self {
            Passing::Boolean | Passing::Tinyint | Passing::Smallint | Passing::Int => ValType::I32,
            Passing::Bigint | Passing::InMemory => ValType::I64,
            Passing::Float => ValType::F32,
            Passing::Double => ValType::F64,
        }
    }

    /// The number that a value is. None: it is none, an empty value say, or is passed in memory.
    pub(super) fn number(self, wire: &[u8]) -> Option<Val> {
        Some(match (self, wire) {
            (Passing::Boolean, [byte]) => Val::I32(i32::from(*byte != 0)),
            (Passing::Tinyint, [byte]) => Val::I32(i32::from(byte.cast_signed())),
            (Passing::Smallint, _) => Val::I32(i32::from(i16::from_be_bytes(wire.try_into().ok()?))),
            (Passing::Int, _) => Val::I32(i32::from_be_bytes(wire.try_into().ok()?)),
            (Passing::Bigint, _) => Val::I64(i64::from_be_bytes(wire.try_into().ok()?)),
            (Passing::Float, _) => Val::from(f32::from_be_bytes(wire.try_into().ok()?)),
            (Passing::Double, _) => Val::from(f64::from_be_bytes(wire.try_into().ok()?)),
            _ => return None,
        })
    }

    /// The value that a number is. None: it is another number than this one.
    pub(super) fn wire(self, number: &Val) -> Option<Vec<u8>> {
        Some(match (self, number) {
            (Passing::Boolean, Val::I32(number)) => vec![u8::from(*number != 0)],
            (Passing::Tinyint, Val::I32(number)) => (*number as i8).to_be_bytes().to_vec(),
            (Passing::Smallint, Val::I32(number)) => (*number as i16).to_be_bytes().to_vec(),
            (Passing::Int, Val::I32(number)) => number.to_be_bytes().to_vec(),
            (Passing::Bigint, Val::I64(number)) => number.to_be_bytes().to_vec(),
            (Passing::Float, Val::F32(number)) => number.to_bits().to_be_bytes().to_vec(),
            (Passing::Double, Val::F64(number)) => number.to_bits().to_be_bytes().to_vec(),
            _ => return None,
        })
    }
}
