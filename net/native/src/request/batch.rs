//! BATCH.
//!
//! ```text
//! | kind u8: 0 logged, 1 unlogged, 2 counter | count u16 | statement* | parameters |
//! statement | 0 u8 | query [long string] | values |
//!           | 1 u8 | prepared id [short bytes] | values |
//! ```
//!
//! The parameters are those of QUERY; their values, metadata and paging flags mean nothing here. Names of values
//! cannot work, for their flag comes after the values; the flag is ignored, as Cassandra does.

use bytes::{BufMut, Bytes, BytesMut};

use super::parameters::QueryParameters;
use crate::values::Values;
use crate::version::Dialect;
use crate::violation::Violation;
use crate::wire::{Reader, put_long_string, put_short_bytes};

const QUERY: u8 = 0;
const PREPARED: u8 = 1;

/// What a batch guarantees.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BatchKind {
    /// All or nothing, in the end.
    Logged,
    /// Nothing.
    Unlogged,
    /// Counter updates only.
    Counter,
}

/// BATCH.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// What it guarantees.
    pub kind: BatchKind,
    /// In the order of the wire.
    pub statements: Vec<BatchStatement>,
    /// How to run it.
    pub parameters: QueryParameters,
}

/// One statement of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BatchStatement {
    /// Text or id.
    pub source: StatementSource,
    /// Of its bind markers.
    pub values: Values,
}

/// How a statement is given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StatementSource {
    /// As text.
    Query(String),
    /// By the id of a prepared statement.
    Prepared(Bytes),
}

impl Batch {
    pub(super) fn decode(
        dialect: Dialect,
        reader: &mut Reader<'_>,
        body: &Bytes,
    ) -> Result<Batch, Violation> {
        let reading = "the kind of a batch";
        let kind = match reader.u8(reading)? {
            0 => BatchKind::Logged,
            1 => BatchKind::Unlogged,
            2 => BatchKind::Counter,
            code => {
                let code = i64::from(code);
                return Err(Violation::UnknownCode {
                    reading,
                    offset: reader.position(),
                    code,
                });
            }
        };
        let count = usize::from(reader.u16("the number of statements of a batch")?);
        let mut statements = Vec::with_capacity(reader.capacity(count, 5));
        for _ in 0..count {
            statements.push(BatchStatement::decode(dialect, reader, body)?);
        }
        let parameters = QueryParameters::decode(dialect, reader, body)?;
        Ok(Batch {
            kind,
            statements,
            parameters,
        })
    }

    pub(super) fn encode(&self, dialect: Dialect, out: &mut BytesMut) {
        out.put_u8(match self.kind {
            BatchKind::Logged => 0,
            BatchKind::Unlogged => 1,
            BatchKind::Counter => 2,
        });
        out.put_u16(u16::try_from(self.statements.len()).expect("a batch has fewer than 65536 statements"));
        for statement in &self.statements {
            match &statement.source {
                StatementSource::Query(query) => {
                    out.put_u8(QUERY);
                    put_long_string(out, query);
                }
                StatementSource::Prepared(id) => {
                    out.put_u8(PREPARED);
                    put_short_bytes(out, id);
                }
            }
            statement.values.encode(out);
        }
        self.parameters.encode(dialect, out);
    }
}

impl BatchStatement {
    fn decode(dialect: Dialect, reader: &mut Reader<'_>, body: &Bytes) -> Result<BatchStatement, Violation> {
        let reading = "the kind of a statement in a batch, which must be 0 or 1";
        let source = match reader.u8(reading)? {
            QUERY => StatementSource::Query(reader.long_string("a query")?.to_owned()),
            PREPARED => StatementSource::Prepared(reader.short_bytes("the id of a prepared statement")?),
            code => {
                let code = i64::from(code);
                return Err(Violation::UnknownCode {
                    reading,
                    offset: reader.position(),
                    code,
                });
            }
        };
        let values = Values::decode(reader, body, dialect, false)?;
        Ok(BatchStatement { source, values })
    }
}
