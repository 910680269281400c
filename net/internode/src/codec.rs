//! Binary form of messages. Integers are varints and byte strings carry their length, as in `ceto_model::codec`.
//!
//! ```text
//! message   ::= version:u8 kind:u8 shard slot serial round body
//! body      ::= mutation                                        kind 1, Mutate
//!             | (nothing)                                       kind 2, MutateAck
//!             | answer:u8 command                               kind 3, Read
//!             | content live_rows tombstones sstables disk      kind 4, ReadResponse with rows
//!             | digest:16                                       kind 5, ReadResponse with digest
//!             | reason:u8                                       kind 6, Failure
//!             | ballot table:16 key:bytes                       kind 16, Prepare
//!             | proposal? proposal?                             kind 17, Promised: accepted, committed
//!             | ballot                                          kind 18, Refused
//!             | proposal                                        kind 19, Propose
//!             | (nothing)                                       kind 20, Accepted
//!             | proposal                                        kind 21, Commit
//!             | (nothing)                                       kind 22, Committed
//!             | reason:u8                                       kind 23, Failed
//!             | table:16 now count (after up_to)*                kind 24, Hash parts of the ring
//!             | count (hash:16 partitions)*                     kind 25, Hashes
//!             | reason:u8                                       kind 26, Failed
//!             | call                                            kinds 32 to 34, Call: see `call`
//!             | went                                            kinds 48 and 49, Called: see `call`
//!             | stream                                          kinds 40, 56 and 57: see `stream`
//! ballot    ::= micros proposer:8
//! proposal  ::= ballot mutation
//! proposal? ::= 0 | 1 proposal
//! command   ::= flags:u8 table:16 target slices [slices] [count column*] now limit*5
//! target    ::= 0 key:bytes | 1 position position
//! position  ::= 0 token | 1 token | 2 key:bytes | 3 key:bytes   before/after token, before/after key
//! slices    ::= count (start:bytes end:bytes)*
//! content   ::= count (order:u8 key:bytes partition)* resume    order 1: rows were read from the last to the first
//! resume    ::= 0 | 1 key:bytes clustering:bytes | 2 position
//! ```
//!
//! A message is refused whole: nothing of it is used before its last byte has been checked.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ceto_model::codec::{
    DecodeError, Decoder, put_bytes, put_mutation, put_partition, put_signed, put_varint,
};
use ceto_model::read::{
    ColumnSelection, IndexSearch, IndexTerms, PartitionResult, ReadWork, ResumePoint, Slices,
};
use ceto_model::{
    ColumnId, DecoratedKey, PartitionKey, PartitionRange, Position, ReadCommand, ReadLimits, ReadResult,
    ReadTarget, RingPosition, Slice, TableId, Token, UnixSeconds,
};

use crate::digest::Digest;
use crate::message::{AnswerKind, ExchangeId, FailureReason, Message, ReadAnswer, RequestId};
use crate::paxos;
use crate::{call, repair, stream};

/// First byte of every message.
pub const VERSION: u8 = 1;

const MUTATE: u8 = 1;
const MUTATE_ACK: u8 = 2;
const READ: u8 = 3;
const READ_DATA: u8 = 4;
const READ_DIGEST: u8 = 5;
const FAILURE: u8 = 6;

const FLAG_REVERSED: u8 = 1;
const FLAG_KEEP_TOMBSTONES: u8 = 2;
const FLAG_BYPASS_CACHE: u8 = 4;
const FLAG_FIRST_PARTITION_SLICES: u8 = 8;
const FLAG_SOME_COLUMNS: u8 = 16;
const FLAG_INDEX: u8 = 32;
const FLAGS_KNOWN: u8 = 63;

/// Capacity taken ahead for a count that the input claims.
const CAPACITY_MAX: usize = 64;

/// Bytes that are no message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// Of another version.
    Version {
        /// The first byte.
        got: u8,
    },
    /// Broken.
    Malformed(DecodeError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { got } => write!(f, "internode message of version {got}, expected {VERSION}"),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

pub(crate) type Decoded<T> = Result<T, DecodeError>;

/// Appends `message`.
pub fn encode(out: &mut Vec<u8>, message: &Message) {
    out.push(VERSION);
    match message {
        Message::Mutate { exchange, mutation } => {
            put_head(out, MUTATE, exchange);
            put_mutation(out, mutation);
        }
        Message::MutateAck { exchange } => put_head(out, MUTATE_ACK, exchange),
        Message::Read {
            exchange,
            kind,
            command,
        } => {
            put_head(out, READ, exchange);
            out.push(u8::from(*kind == AnswerKind::Digest));
            put_command(out, command);
        }
        Message::ReadResponse { exchange, answer } => match answer {
            ReadAnswer::Data(result) => {
                put_head(out, READ_DATA, exchange);
                put_read_content(out, result);
                put_varint(out, result.work.live_rows);
                put_varint(out, result.work.tombstones);
                put_varint(out, u64::from(result.work.sstables));
                put_varint(out, result.work.disk_bytes);
            }
            ReadAnswer::Digest(digest) => {
                put_head(out, READ_DIGEST, exchange);
                out.extend_from_slice(&digest.0.to_be_bytes());
            }
        },
        Message::Failure { exchange, reason } => {
            put_head(out, FAILURE, exchange);
            out.push(reason.code());
        }
        Message::Paxos { exchange, body } => {
            put_head(out, paxos::kind_of(body), exchange);
            paxos::put_body(out, body);
        }
        Message::Repair { exchange, body } => {
            put_head(out, repair::kind_of(body), exchange);
            repair::put_body(out, body);
        }
        Message::Stream { exchange, body } => {
            put_head(out, stream::kind_of(body), exchange);
            stream::put_body(out, body);
        }
        Message::Call { exchange, call } => {
            put_head(out, call::kind_of_call(call), exchange);
            call::put_call(out, call);
        }
        Message::Called { exchange, outcome } => {
            put_head(out, call::kind_of_outcome(outcome), exchange);
            call::put_outcome(out, outcome);
        }
    }
}

/// Reads one message, which is all of `input`.
///
/// # Errors
/// When the version is unknown or anything is malformed.
pub fn decode(input: Bytes) -> Result<Message, Error> {
    let mut decoder = Decoder::new(input);
    let version = decoder.u8("version")?;
    if version != VERSION {
        return Err(Error::Version { got: version });
    }
    let kind = decoder.u8("message kind")?;
    let exchange = decode_exchange(&mut decoder)?;
    let message = match kind {
        MUTATE => Message::Mutate {
            exchange,
            mutation: Arc::new(decoder.mutation()?),
        },
        MUTATE_ACK => Message::MutateAck { exchange },
        READ => Message::Read {
            exchange,
            kind: if decode_bool(&mut decoder, "answer kind")? {
                AnswerKind::Digest
            } else {
                AnswerKind::Data
            },
            command: Arc::new(decode_command(&mut decoder)?),
        },
        READ_DATA => Message::ReadResponse {
            exchange,
            answer: ReadAnswer::Data(decode_result(&mut decoder)?),
        },
        READ_DIGEST => Message::ReadResponse {
            exchange,
            answer: ReadAnswer::Digest(Digest(decoder.uuid("digest")?.as_u128())),
        },
        FAILURE => Message::Failure {
            exchange,
            reason: FailureReason::from_code(decoder.u8("failure reason")?),
        },
        _ => decode_other(kind, exchange, &mut decoder)?,
    };
    decoder.finish("message")?;
    Ok(message)
}

fn decode_other(kind: u8, exchange: ExchangeId, decoder: &mut Decoder) -> Decoded<Message> {
    if let Some(body) = paxos::decode_body(kind, decoder)? {
        return Ok(Message::Paxos { exchange, body });
    }
    if let Some(body) = repair::decode_body(kind, decoder)? {
        return Ok(Message::Repair { exchange, body });
    }
    if let Some(body) = stream::decode_body(kind, decoder)? {
        return Ok(Message::Stream { exchange, body });
    }
    if let Some(call) = call::decode_call(kind, decoder)? {
        return Ok(Message::Call { exchange, call });
    }
    match call::decode_outcome(kind, decoder)? {
        Some(outcome) => Ok(Message::Called { exchange, outcome }),
        None => Err(refuse(decoder, "message kind")),
    }
}

pub(crate) fn refuse(decoder: &Decoder, what: &'static str) -> DecodeError {
    DecodeError {
        what,
        remaining: decoder.remaining(),
    }
}

fn put_head(out: &mut Vec<u8>, kind: u8, exchange: &ExchangeId) {
    out.push(kind);
    put_varint(out, u64::from(exchange.request.shard));
    put_varint(out, u64::from(exchange.request.slot));
    put_varint(out, u64::from(exchange.request.serial));
    put_varint(out, u64::from(exchange.round));
}

fn decode_exchange(decoder: &mut Decoder) -> Decoded<ExchangeId> {
    let shard = decoder.varint("shard")?;
    let request = RequestId {
        shard: u16::try_from(shard).map_err(|_| refuse(decoder, "shard"))?,
        slot: decode_u32(decoder, "slot")?,
        serial: decode_u32(decoder, "serial")?,
    };
    let round = decode_u32(decoder, "round")?;
    Ok(ExchangeId { request, round })
}

pub(crate) fn decode_u32(decoder: &mut Decoder, what: &'static str) -> Decoded<u32> {
    let value = decoder.varint(what)?;
    u32::try_from(value).map_err(|_| refuse(decoder, what))
}

pub(crate) fn decode_bool(decoder: &mut Decoder, what: &'static str) -> Decoded<bool> {
    match decoder.u8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(refuse(decoder, what)),
    }
}

pub(crate) fn decode_key(decoder: &mut Decoder) -> Decoded<DecoratedKey> {
    Ok(DecoratedKey::new(PartitionKey(decoder.bytes("partition key")?)))
}

fn put_position(out: &mut Vec<u8>, position: &RingPosition) {
    match position {
        RingPosition::BeforeToken(token) => {
            out.push(0);
            put_signed(out, token.0);
        }
        RingPosition::AfterToken(token) => {
            out.push(1);
            put_signed(out, token.0);
        }
        RingPosition::BeforeKey(key) => {
            out.push(2);
            put_bytes(out, &key.key.0);
        }
        RingPosition::AfterKey(key) => {
            out.push(3);
            put_bytes(out, &key.key.0);
        }
    }
}

fn decode_position(decoder: &mut Decoder) -> Decoded<RingPosition> {
    Ok(match decoder.u8("ring position")? {
        0 => RingPosition::BeforeToken(Token(decoder.signed("token")?)),
        1 => RingPosition::AfterToken(Token(decoder.signed("token")?)),
        2 => RingPosition::BeforeKey(decode_key(decoder)?),
        3 => RingPosition::AfterKey(decode_key(decoder)?),
        _ => return Err(refuse(decoder, "ring position")),
    })
}

fn put_slices(out: &mut Vec<u8>, slices: &Slices) {
    put_varint(out, slices.len() as u64);
    for slice in slices {
        put_bytes(out, &slice.start.0);
        put_bytes(out, &slice.end.0);
    }
}

fn decode_slices(decoder: &mut Decoder) -> Decoded<Slices> {
    let count = decoder.count("slice count")?;
    let mut slices = Slices::new();
    for _ in 0..count {
        let start = Position(decoder.bytes("slice start")?);
        let end = Position(decoder.bytes("slice end")?);
        slices.push(Slice { start, end });
    }
    Ok(slices)
}

fn put_command(out: &mut Vec<u8>, command: &ReadCommand) {
    let flag = |set, flag| if set { flag } else { 0 };
    out.push(
        flag(command.reversed, FLAG_REVERSED)
            | flag(command.keep_tombstones, FLAG_KEEP_TOMBSTONES)
            | flag(command.bypass_cache, FLAG_BYPASS_CACHE)
            | flag(
                command.first_partition_slices.is_some(),
                FLAG_FIRST_PARTITION_SLICES,
            )
            | flag(command.columns != ColumnSelection::All, FLAG_SOME_COLUMNS)
            | flag(command.index.is_some(), FLAG_INDEX),
    );
    out.extend_from_slice(command.table.0.as_bytes());
    match &command.target {
        ReadTarget::Partition(key) => {
            out.push(0);
            put_bytes(out, &key.key.0);
        }
        ReadTarget::Range(range) => {
            out.push(1);
            put_position(out, &range.start);
            put_position(out, &range.end);
        }
    }
    put_slices(out, &command.slices);
    command
        .first_partition_slices
        .iter()
        .for_each(|slices| put_slices(out, slices));
    if let ColumnSelection::Only(columns) = &command.columns {
        put_varint(out, columns.len() as u64);
        columns.iter().for_each(|id| put_varint(out, u64::from(id.0)));
    }
    put_signed(out, command.now.0);
    let limits = &command.limits;
    for limit in [
        limits.rows,
        limits.rows_per_partition,
        limits.partitions,
        limits.bytes,
        limits.tombstones,
    ] {
        put_varint(out, limit);
    }
    if let Some(search) = &command.index {
        out.extend_from_slice(search.index.0.as_bytes());
        match &search.terms {
            IndexTerms::Value(value) => {
                out.push(0);
                put_bytes(out, value);
            }
            IndexTerms::Between(start, end) => {
                out.push(1);
                put_bytes(out, &start.0);
                put_bytes(out, &end.0);
            }
            IndexTerms::Nearest { vector, count } => {
                out.push(2);
                put_bytes(out, vector);
                put_varint(out, u64::from(*count));
            }
        }
    }
}

fn decode_index(decoder: &mut Decoder) -> Decoded<IndexSearch> {
    let index = TableId(decoder.uuid("index id")?);
    let terms = match decoder.u8("index terms")? {
        0 => IndexTerms::Value(decoder.bytes("indexed value")?),
        1 => IndexTerms::Between(
            Position(decoder.bytes("start of indexed values")?),
            Position(decoder.bytes("end of indexed values")?),
        ),
        2 => IndexTerms::Nearest {
            vector: decoder.bytes("vector")?,
            count: u32::try_from(decoder.varint("number of nearest rows")?)
                .map_err(|_| refuse(decoder, "number of nearest rows"))?,
        },
        _ => return Err(refuse(decoder, "index terms")),
    };
    Ok(IndexSearch { index, terms })
}

fn decode_command(decoder: &mut Decoder) -> Decoded<ReadCommand> {
    let flags = decoder.u8("command flags")?;
    if flags & !FLAGS_KNOWN != 0 {
        return Err(refuse(decoder, "command flags"));
    }
    let table = TableId(decoder.uuid("table id")?);
    let target = if decode_bool(decoder, "read target")? {
        ReadTarget::Range(PartitionRange {
            start: decode_position(decoder)?,
            end: decode_position(decoder)?,
        })
    } else {
        ReadTarget::Partition(decode_key(decoder)?)
    };
    let slices = decode_slices(decoder)?;
    let first_partition_slices = if flags & FLAG_FIRST_PARTITION_SLICES != 0 {
        Some(decode_slices(decoder)?)
    } else {
        None
    };
    let columns = if flags & FLAG_SOME_COLUMNS != 0 {
        ColumnSelection::Only(decode_columns(decoder)?)
    } else {
        ColumnSelection::All
    };
    Ok(ReadCommand {
        table,
        target,
        slices,
        first_partition_slices,
        reversed: flags & FLAG_REVERSED != 0,
        columns,
        now: UnixSeconds(decoder.signed("now")?),
        limits: ReadLimits {
            rows: decoder.varint("row limit")?,
            rows_per_partition: decoder.varint("row limit per partition")?,
            partitions: decoder.varint("partition limit")?,
            bytes: decoder.varint("byte limit")?,
            tombstones: decoder.varint("tombstone limit")?,
        },
        keep_tombstones: flags & FLAG_KEEP_TOMBSTONES != 0,
        bypass_cache: flags & FLAG_BYPASS_CACHE != 0,
        index: match flags & FLAG_INDEX {
            0 => None,
            _ => Some(Box::new(decode_index(decoder)?)),
        },
    })
}

fn decode_columns(decoder: &mut Decoder) -> Decoded<Vec<ColumnId>> {
    let count = decoder.count("column count")?;
    let mut columns: Vec<ColumnId> = Vec::with_capacity(count.min(CAPACITY_MAX));
    for _ in 0..count {
        let id = ColumnId(decode_u32(decoder, "column id")?);
        if columns.last().is_some_and(|last| *last >= id) {
            return Err(refuse(decoder, "column order"));
        }
        columns.push(id);
    }
    Ok(columns)
}

/// Appends what replicas must agree on: partitions and the place where the read stopped.
pub(crate) fn put_read_content(out: &mut Vec<u8>, result: &ReadResult) {
    put_varint(out, result.partitions.len() as u64);
    for PartitionResult { key, partition } in &result.partitions {
        let descending = matches!(&partition.rows[..], [(first, _), .., (last, _)] if first > last);
        out.push(u8::from(descending));
        put_bytes(out, &key.key.0);
        if descending {
            let mut ascending = partition.clone();
            ascending.rows.reverse();
            put_partition(out, &ascending);
        } else {
            put_partition(out, partition);
        }
    }
    put_resume(out, result.resume.as_ref());
}

/// Appends the place where a read stopped.
pub(crate) fn put_resume(out: &mut Vec<u8>, resume: Option<&ResumePoint>) {
    match resume {
        None => out.push(0),
        Some(ResumePoint::Inside(key, at)) => {
            out.push(1);
            put_bytes(out, &key.key.0);
            put_bytes(out, &at.0);
        }
        Some(ResumePoint::Ring(position)) => {
            out.push(2);
            put_position(out, position);
        }
    }
}

fn decode_result(decoder: &mut Decoder) -> Decoded<ReadResult> {
    let content = decode_read_content(decoder)?;
    let work = ReadWork {
        live_rows: decoder.varint("live rows")?,
        tombstones: decoder.varint("tombstones")?,
        sstables: decode_u32(decoder, "sstables")?,
        disk_bytes: decoder.varint("disk bytes")?,
    };
    Ok(ReadResult { work, ..content })
}

/// Reads what [`put_read_content`] has put.
pub(crate) fn decode_read_content(decoder: &mut Decoder) -> Decoded<ReadResult> {
    let count = decoder.count("partition count")?;
    let mut partitions = Vec::with_capacity(count.min(CAPACITY_MAX));
    for _ in 0..count {
        let descending = decode_bool(decoder, "row order")?;
        let key = decode_key(decoder)?;
        let mut partition = decoder.partition()?;
        if descending {
            partition.rows.reverse();
        }
        partitions.push(PartitionResult { key, partition });
    }
    Ok(ReadResult {
        partitions,
        resume: decode_resume(decoder)?,
        work: ReadWork::default(),
    })
}

pub(crate) fn decode_resume(decoder: &mut Decoder) -> Decoded<Option<ResumePoint>> {
    Ok(match decoder.u8("resume point")? {
        0 => None,
        1 => Some(ResumePoint::Inside(
            decode_key(decoder)?,
            Position(decoder.bytes("bound of rows")?),
        )),
        2 => Some(ResumePoint::Ring(decode_position(decoder)?)),
        _ => return Err(refuse(decoder, "resume point")),
    })
}
