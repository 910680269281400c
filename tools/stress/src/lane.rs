//! A connection under load: requests of many operations in flight, answered in any order.
//!
//! Requests that are begun wait in `pending` until [`Lane::send`] encodes them together (in v5 into shared frames) and
//! hands them to the socket in one write.

use std::io::ErrorKind;

use bytes::{BufMut, Bytes, BytesMut};
use ceto_model::Consistency;
use ceto_native::request::parameter_flags;
use ceto_native::wire::{put_bytes, put_consistency, put_short_bytes};
use ceto_native::{
    Envelope, FrameDecoder, FrameEncoder, Opcode, Prepare, ProtocolVersion, Request, Response,
    ResponseMessage,
};
use tokio::net::TcpStream;

use crate::connection::{Connection, unexpected};
use crate::content;
use crate::options::{Operation, Options};
use crate::schema;

/// Requests in flight on one connection at most.
const MAXIMUM_IN_FLIGHT: usize = 1024;
/// Bytes asked of the socket in one read.
const READ_BYTES: usize = 64 << 10;
/// The body of a RESULT that says nothing but success.
const VOID: [u8; 4] = [0, 0, 0, 1];

/// One operation on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    pub(crate) operation: Operation,
    pub(crate) seed: u64,
    /// Where its latency counts from.
    pub(crate) counted_from_ns: u64,
    /// When it was sent last.
    pub(crate) sent_ns: u64,
    /// How often it was sent before.
    pub(crate) attempts: u32,
}

/// A flight that has ended, well or not.
pub(crate) struct Landing {
    pub(crate) flight: Flight,
    pub(crate) outcome: Result<(), String>,
}

/// A prepared operation.
struct Statement {
    operation: Operation,
    id: Bytes,
    result_metadata_id: Option<Bytes>,
}

/// What all lanes of a run have in common.
#[derive(Clone, Copy, Debug)]
struct Shape {
    columns: usize,
    consistency: Consistency,
}

/// See the module.
pub(crate) struct Lane {
    stream: TcpStream,
    encoder: FrameEncoder,
    decoder: FrameDecoder,
    shape: Shape,
    statements: Vec<Statement>,
    /// By stream id.
    flights: Vec<Option<Flight>>,
    free: Vec<i16>,
    pending: Vec<i16>,
    out: BytesMut,
    received: BytesMut,
    /// A column's value, to write or to compare.
    value: Vec<u8>,
}

impl Lane {
    /// Prepares the operations of a run on an open connection.
    pub(crate) async fn new(mut connection: Connection, options: &Options) -> Result<Lane, String> {
        let mut statements = Vec::new();
        for (operation, _) in &options.mix.0 {
            let query = schema::statement(options, *operation);
            let prepare = Prepare {
                query: query.clone(),
                keyspace: None,
            };
            match connection.ask(Request::Prepare(prepare)).await? {
                Response::Prepared(prepared) => statements.push(Statement {
                    operation: *operation,
                    id: prepared.id,
                    result_metadata_id: prepared.result_metadata_id,
                }),
                other => return Err(unexpected(&query, &other)),
            }
        }
        let Connection {
            stream,
            encoder,
            decoder,
            ..
        } = connection;
        Ok(Lane {
            stream,
            encoder,
            decoder,
            shape: Shape {
                columns: options.columns,
                consistency: options.consistency,
            },
            statements,
            flights: vec![None; MAXIMUM_IN_FLIGHT],
            free: (0..MAXIMUM_IN_FLIGHT as i16).rev().collect(),
            pending: Vec::new(),
            out: BytesMut::new(),
            received: BytesMut::new(),
            value: vec![0; options.column_bytes],
        })
    }

    /// The socket, to wait on.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether another operation can begin.
    pub(crate) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Whether there is something to send that the socket did not take.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.out.is_empty()
    }

    /// The earliest moment at which a request in flight was sent.
    pub(crate) fn oldest_ns(&self) -> Option<u64> {
        self.flights.iter().flatten().map(|flight| flight.sent_ns).min()
    }

    /// Begins an operation; there must be room.
    pub(crate) fn begin(&mut self, flight: Flight) {
        let stream = self.free.pop().expect("there is room for another operation");
        self.flights[stream as usize] = Some(flight);
        self.pending.push(stream);
    }

    /// Sends what has begun since the last call, and what was left then.
    pub(crate) fn send(&mut self) -> Result<(), String> {
        if !self.pending.is_empty() {
            self.encode_pending()?;
        }
        while !self.out.is_empty() {
            match self.stream.try_write(&self.out) {
                Ok(written) => {
                    let _ = self.out.split_to(written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(format!("a connection broke: {error}")),
            }
        }
        Ok(())
    }

    fn encode_pending(&mut self) -> Result<(), String> {
        let version = self.encoder.dialect().version;
        let mut writer = self.encoder.writer(&mut self.out);
        for stream in self.pending.drain(..) {
            let flight = self.flights[stream as usize].expect("what is pending is in flight");
            let statement = self
                .statements
                .iter()
                .find(|statement| statement.operation == flight.operation);
            let statement = statement.expect("every operation of the mix was prepared");
            writer
                .envelope(Opcode::Execute, stream, 0, |body| {
                    put_execute(body, version, statement, flight.seed, self.shape, &mut self.value);
                })
                .map_err(|violation| violation.to_string())?;
        }
        Ok(())
    }

    /// Reads what has arrived and appends what has landed. False if nothing has.
    pub(crate) fn receive(&mut self, landings: &mut Vec<Landing>) -> Result<bool, String> {
        let mut any = false;
        loop {
            self.received.reserve(READ_BYTES);
            match self.stream.try_read_buf(&mut self.received) {
                Ok(0) => return Err("the server closed a connection".to_owned()),
                Ok(count) => {
                    any = true;
                    self.decoder.feed_bytes(self.received.split().freeze());
                    while let Some(envelope) =
                        self.decoder.next_envelope().map_err(|error| error.to_string())?
                    {
                        landings.extend(self.land(&envelope));
                    }
                    if count < READ_BYTES {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(any),
                Err(error) => return Err(format!("a connection broke: {error}")),
            }
        }
    }

    /// The flight that an answer ends; None for an answer that nobody waits for.
    fn land(&mut self, envelope: &Envelope) -> Option<Landing> {
        let stream = envelope.header.stream;
        let flight = self.flights.get_mut(usize::try_from(stream).ok()?)?.take()?;
        self.free.push(stream);
        let outcome = self.judge(flight, envelope);
        Some(Landing { flight, outcome })
    }

    fn judge(&mut self, flight: Flight, envelope: &Envelope) -> Result<(), String> {
        let header = &envelope.header;
        if header.opcode == Opcode::Result && header.flags == 0 && envelope.body[..] == VOID {
            return expect(flight.operation.is_write(), "a read was answered without rows");
        }
        let message =
            ResponseMessage::decode(self.encoder.dialect(), envelope).map_err(|error| error.to_string())?;
        match message.response {
            Response::Void => expect(flight.operation.is_write(), "a read was answered without rows"),
            Response::Rows(rows) if flight.operation == Operation::Read => {
                expect(
                    rows.row_count() == 1,
                    "Data returned was not validated: the row is missing",
                )?;
                let row = rows.iter().next().expect("there is one row");
                for (index, cell) in row.cells().enumerate() {
                    content::fill(flight.seed, index, &mut self.value);
                    expect(
                        cell == Some(&self.value[..]),
                        "Data returned was not validated: the row is another",
                    )?;
                }
                Ok(())
            }
            Response::Rows(rows) => expect(rows.row_count() == 1, "the row is missing"),
            Response::Error(error) => Err(format!("{}: {}", error.code().name(), error.message)),
            other => Err(unexpected(flight.operation.name(), &other)),
        }
    }
}

fn expect(condition: bool, text: &str) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text.to_owned()) }
}

/// Appends the body of an EXECUTE.
fn put_execute(
    body: &mut BytesMut,
    version: ProtocolVersion,
    statement: &Statement,
    seed: u64,
    shape: Shape,
    value: &mut [u8],
) {
    put_short_bytes(body, &statement.id);
    if let Some(id) = &statement.result_metadata_id {
        put_short_bytes(body, id);
    }
    put_consistency(body, shape.consistency);
    let flags = parameter_flags::VALUES | parameter_flags::SKIP_METADATA;
    if version >= ProtocolVersion::V5 {
        body.put_u32(flags);
    } else {
        body.put_u8(flags as u8);
    }
    let columns = if statement.operation.is_write() {
        shape.columns
    } else {
        0
    };
    body.put_u16(columns as u16 + 1);
    for column in 0..columns {
        if statement.operation.is_counter() {
            put_bytes(body, Some(&1_i64.to_be_bytes()));
        } else {
            content::fill(seed, column, value);
            put_bytes(body, Some(value));
        }
    }
    put_bytes(body, Some(&content::key(seed)));
}
