//! Parameters of QUERY and EXECUTE; the end of BATCH has the same form.
//!
//! ```text
//! | consistency u16 | flags: v3, v4 u8, v5 u32 |
//! | 0x01 values | 0x04 page size i32 | 0x08 paging state [bytes] | 0x10 serial consistency u16 |
//! | 0x20 timestamp i64 | 0x80 keyspace [string] | 0x100 now in seconds i32 |
//!
//! 0x02 skip metadata    0x40 values have names
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use ceto_model::Consistency;

use crate::values::Values;
use crate::version::{Dialect, ProtocolVersion};
use crate::violation::Violation;
use crate::wire::{Reader, put_bytes, put_consistency, put_string};

/// Flags of the parameters.
pub mod parameter_flags {
    /// Values follow.
    pub const VALUES: u32 = 0x01;
    /// The result needs no metadata.
    pub const SKIP_METADATA: u32 = 0x02;
    /// A page size follows.
    pub const PAGE_SIZE: u32 = 0x04;
    /// A paging state follows.
    pub const PAGING_STATE: u32 = 0x08;
    /// A serial consistency follows.
    pub const SERIAL_CONSISTENCY: u32 = 0x10;
    /// A timestamp follows.
    pub const TIMESTAMP: u32 = 0x20;
    /// Values have names.
    pub const NAMES: u32 = 0x40;
    /// A keyspace follows (v5).
    pub const KEYSPACE: u32 = 0x80;
    /// The time by which to judge expiry follows (v5).
    pub const NOW_IN_SECONDS: u32 = 0x100;
}

use parameter_flags::{
    KEYSPACE, NAMES, NOW_IN_SECONDS, PAGE_SIZE, PAGING_STATE, SERIAL_CONSISTENCY, SKIP_METADATA, TIMESTAMP,
    VALUES,
};

/// How to run a statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueryParameters {
    /// How many replicas must answer.
    pub consistency: Consistency,
    /// Of the bind markers.
    pub values: Values,
    /// The client has the metadata of the result.
    pub skip_metadata: bool,
    /// Most rows in one page, at least 1; None: all rows in one page.
    pub page_size: Option<i32>,
    /// Where an earlier page ended.
    pub paging_state: Option<Bytes>,
    /// Of the Paxos phase; SERIAL or LOCAL_SERIAL.
    pub serial_consistency: Option<Consistency>,
    /// Of the writes, in microseconds since 1970; never `i64::MIN`.
    pub timestamp: Option<i64>,
    /// Instead of that of the connection (v5).
    pub keyspace: Option<String>,
    /// Instead of the server's clock when expiry is judged, in seconds since 1970 (v5).
    pub now_in_seconds: Option<i32>,
}

impl QueryParameters {
    /// At this consistency, without anything else.
    pub fn new(consistency: Consistency) -> QueryParameters {
        QueryParameters {
            consistency,
            values: Values::default(),
            skip_metadata: false,
            page_size: None,
            paging_state: None,
            serial_consistency: None,
            timestamp: None,
            keyspace: None,
            now_in_seconds: None,
        }
    }

    pub(super) fn decode(
        dialect: Dialect,
        reader: &mut Reader<'_>,
        body: &Bytes,
    ) -> Result<QueryParameters, Violation> {
        let mut parameters = QueryParameters::new(reader.consistency()?);
        let reading = "the flags of a query";
        let flags = if dialect.version >= ProtocolVersion::V5 {
            reader.u32(reading)?
        } else {
            // The bit of the keyspace means nothing before v5.
            u32::from(reader.u8(reading)?) & !KEYSPACE
        };
        if flags & VALUES != 0 {
            parameters.values = Values::decode(reader, body, dialect, flags & NAMES != 0)?;
        }
        parameters.skip_metadata = flags & SKIP_METADATA != 0;
        if flags & !(VALUES | NAMES | SKIP_METADATA) != 0 {
            parameters.decode_options(flags, reader)?;
        }
        Ok(parameters)
    }

    fn decode_options(&mut self, flags: u32, reader: &mut Reader<'_>) -> Result<(), Violation> {
        if flags & PAGE_SIZE != 0 {
            self.page_size = decode_page_size(reader)?;
        }
        if flags & PAGING_STATE != 0 {
            self.paging_state = reader.bytes("a paging state")?;
        }
        if flags & SERIAL_CONSISTENCY != 0 {
            self.serial_consistency = Some(decode_serial_consistency(reader)?);
        }
        if flags & TIMESTAMP != 0 {
            self.timestamp = Some(decode_timestamp(reader)?);
        }
        if flags & KEYSPACE != 0 {
            self.keyspace = Some(reader.string("a keyspace")?.to_owned());
        }
        if flags & NOW_IN_SECONDS != 0 {
            self.now_in_seconds = Some(reader.i32("the time of a query")?);
        }
        Ok(())
    }

    fn flags(&self, dialect: Dialect) -> u32 {
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        let v5 = dialect.version >= ProtocolVersion::V5;
        flag(!self.values.is_empty(), VALUES)
            | flag(!self.values.is_empty() && self.values.is_named(), NAMES)
            | flag(self.skip_metadata, SKIP_METADATA)
            | flag(self.page_size.is_some(), PAGE_SIZE)
            | flag(self.paging_state.is_some(), PAGING_STATE)
            | flag(self.serial_consistency.is_some(), SERIAL_CONSISTENCY)
            | flag(self.timestamp.is_some(), TIMESTAMP)
            | flag(v5 && self.keyspace.is_some(), KEYSPACE)
            | flag(v5 && self.now_in_seconds.is_some(), NOW_IN_SECONDS)
    }

    /// Appends the parameters. Keyspace and time are left out before v5.
    pub(super) fn encode(&self, dialect: Dialect, out: &mut BytesMut) {
        put_consistency(out, self.consistency);
        let flags = self.flags(dialect);
        match u8::try_from(flags) {
            Ok(flags) if dialect.version < ProtocolVersion::V5 => out.put_u8(flags),
            _ => out.put_u32(flags),
        }
        if flags & VALUES != 0 {
            self.values.encode(out);
        }
        if let Some(page_size) = self.page_size {
            out.put_i32(page_size);
        }
        if let Some(state) = &self.paging_state {
            put_bytes(out, Some(state));
        }
        if let Some(consistency) = self.serial_consistency {
            put_consistency(out, consistency);
        }
        if let Some(timestamp) = self.timestamp {
            out.put_i64(timestamp);
        }
        if let Some(keyspace) = &self.keyspace
            && flags & KEYSPACE != 0
        {
            put_string(out, keyspace);
        }
        if let Some(now) = self.now_in_seconds
            && flags & NOW_IN_SECONDS != 0
        {
            out.put_i32(now);
        }
    }
}

/// Zero is refused, as Cassandra does; a negative size asks for no paging.
fn decode_page_size(reader: &mut Reader<'_>) -> Result<Option<i32>, Violation> {
    match reader.i32("a page size")? {
        0 => Err(Violation::OutOfRange {
            reading: "The page size cannot be 0",
            value: 0,
        }),
        size => Ok(Some(size).filter(|&size| size > 0)),
    }
}

fn decode_serial_consistency(reader: &mut Reader<'_>) -> Result<Consistency, Violation> {
    let consistency = reader.consistency()?;
    if !consistency.is_serial() {
        let reading = "The serial consistency must be SERIAL or LOCAL_SERIAL";
        return Err(Violation::OutOfRange {
            reading,
            value: i64::from(consistency.code()),
        });
    }
    Ok(consistency)
}

/// `i64::MIN` marks the absence of a timestamp in Cassandra.
fn decode_timestamp(reader: &mut Reader<'_>) -> Result<i64, Violation> {
    match reader.i64("a timestamp")? {
        i64::MIN => Err(Violation::OutOfRange {
            reading: "Out of bound timestamp, must be in [-9223372036854775807, 9223372036854775807]",
            value: i64::MIN,
        }),
        timestamp => Ok(timestamp),
    }
}
