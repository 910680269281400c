//! The database's side of the load: one table, prepared point reads and writes of it.
//!
//! A row is a key of 8 bytes and five values of 34: the row that in-process benchmarks of other servers use, so that
//! figures can be set beside theirs. An EXECUTE is encoded once; each request is that body with another key in it.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::BytesMut;
use ceto_model::Consistency;
use ceto_native::{
    Execute, FrameDecoder, FrameEncoder, Opcode, ProtocolVersion, QueryParameters, Request, RequestMessage,
    Response, ResponseMessage, Values,
};

use crate::conversation::{Conversation, Ticket};
use crate::session::Session;

const KEYSPACE: &str = "CREATE KEYSPACE IF NOT EXISTS ceto_perf \
     WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}";
const TABLE: &str = "CREATE TABLE IF NOT EXISTS ceto_perf.wire \
     (key blob PRIMARY KEY, c0 blob, c1 blob, c2 blob, c3 blob, c4 blob)";
const READ: &str = "SELECT c0, c1, c2, c3, c4 FROM ceto_perf.wire WHERE key = ?";
const WRITE: &str = "INSERT INTO ceto_perf.wire (key, c0, c1, c2, c3, c4) VALUES (?, ?, ?, ?, ?, ?)";

/// Bytes of a value, and how many a row has.
const VALUE_LENGTH: usize = 34;
const VALUE_COUNT: usize = 5;
/// Stands for the key in an encoded request; occurs nowhere else in it.
const KEY_PLACEHOLDER: [u8; 8] = [0xfe, 0xdc, 0xba, 0x98, 0xef, 0xcd, 0xab, 0x89];
/// Requests in flight while rows are loaded.
const LOADING_IN_FLIGHT: usize = 128;
/// How an answer to a read begins: rows, metadata left out, five columns, one row.
const ONE_ROW: [u8; 16] = [0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, VALUE_COUNT as u8, 0, 0, 0, 1];
/// How an answer to a write begins: nothing to say.
const VOID: [u8; 4] = [0, 0, 0, 1];

/// What each request of a load does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Operation {
    /// Reads one row by its key.
    Read,
    /// Writes one row.
    Write,
}

impl Operation {
    /// In the names of workloads.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    fn statement(self) -> &'static str {
        match self {
            Self::Read => READ,
            Self::Write => WRITE,
        }
    }

    fn answer(self) -> &'static [u8] {
        match self {
            Self::Read => &ONE_ROW,
            Self::Write => &VOID,
        }
    }
}

/// A body of EXECUTE, and where the key stands in it.
struct Template {
    body: Vec<u8>,
    key: usize,
}

impl Template {
    fn prepare(session: &mut Session, operation: Operation) -> Result<Template, String> {
        let prepared = session.prepare(operation.statement())?;
        let mut values = Values::builder().value(&KEY_PLACEHOLDER);
        if operation == Operation::Write {
            for column in 0..VALUE_COUNT {
                values = values.value(&[b'a' + column as u8; VALUE_LENGTH]);
            }
        }
        let mut parameters = QueryParameters::new(Consistency::LocalOne);
        parameters.values = values.build();
        parameters.skip_metadata = true;
        let request = Request::Execute(Execute {
            id: prepared.id,
            result_metadata_id: prepared.result_metadata_id,
            parameters,
        });
        let mut body = BytesMut::new();
        RequestMessage::new(request).encode(session.encoder.dialect(), &mut body);
        let key = body
            .windows(KEY_PLACEHOLDER.len())
            .position(|window| window == KEY_PLACEHOLDER)
            .expect("the key was encoded");
        Ok(Template {
            body: body.to_vec(),
            key,
        })
    }

    /// Appends requests for these keys, each under its ticket.
    fn write(
        &self,
        encoder: &mut FrameEncoder,
        requests: impl Iterator<Item = (Ticket, u64)>,
        output: &mut BytesMut,
    ) {
        let mut writer = encoder.writer(output);
        for (ticket, key) in requests {
            let body = writer.begin(Opcode::Execute, ticket.cast_signed(), 0);
            let start = body.len() + self.key;
            body.extend_from_slice(&self.body);
            body[start..start + KEY_PLACEHOLDER.len()].copy_from_slice(&key.to_be_bytes());
            writer.end().expect("a short body");
        }
    }
}

/// Creates the schema and writes `rows` rows.
pub(crate) fn load_rows(address: SocketAddr, version: ProtocolVersion, rows: u64) -> Result<(), String> {
    let mut session = Session::open(address, version)?;
    session.query(KEYSPACE)?;
    session.query(TABLE)?;
    let template = Template::prepare(&mut session, Operation::Write)?;
    let keys: Vec<u64> = (0..rows).collect();
    for keys in keys.chunks(LOADING_IN_FLIGHT) {
        let mut output = BytesMut::new();
        let requests = keys
            .iter()
            .enumerate()
            .map(|(ticket, key)| (ticket as Ticket, *key));
        template.write(&mut session.encoder, requests, &mut output);
        session.send(&output)?;
        for _ in keys {
            match session.answer()? {
                Response::Void => {}
                other => return Err(format!("a write was answered with {:?}", other.opcode())),
            }
        }
    }
    Ok(())
}

/// How many bytes a request and its answer have on the wire.
pub(crate) fn lengths(
    address: SocketAddr,
    version: ProtocolVersion,
    operation: Operation,
) -> Result<(usize, usize), String> {
    let mut session = Session::open(address, version)?;
    let template = Template::prepare(&mut session, operation)?;
    let mut request = BytesMut::new();
    template.write(&mut session.encoder, std::iter::once((0, 0)), &mut request);
    session.send(&request)?;
    let response = session.answer()?;
    // The server encodes as this side does.
    let mut answer = BytesMut::new();
    session
        .encoder
        .writer(&mut answer)
        .response(0, &ResponseMessage::from(response))
        .map_err(|violation| violation.to_string())?;
    Ok((request.len(), answer.len()))
}

/// One connection of the load.
pub(crate) struct Cql {
    encoder: FrameEncoder,
    decoder: FrameDecoder,
    template: Rc<Template>,
    answer: &'static [u8],
    rows: u64,
    random: u64,
}

impl Cql {
    /// Opens `count` connections that read or write rows 0 to `rows` at random.
    pub(crate) fn open(
        address: SocketAddr,
        version: ProtocolVersion,
        operation: Operation,
        rows: u64,
        count: usize,
    ) -> Result<Vec<(std::net::TcpStream, Cql)>, String> {
        let mut opened = Vec::with_capacity(count);
        for number in 0..count {
            let mut session = Session::open(address, version)?;
            let template = Rc::new(Template::prepare(&mut session, operation)?);
            let Session {
                stream,
                encoder,
                decoder,
            } = session;
            let random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number as u64 + 1);
            let cql = Cql {
                encoder,
                decoder,
                template,
                answer: operation.answer(),
                rows: rows.max(1),
                random,
            };
            opened.push((stream, cql));
        }
        Ok(opened)
    }
}

impl Conversation for Cql {
    fn ask(&mut self, tickets: &[Ticket], output: &mut BytesMut) {
        let (random, rows) = (&mut self.random, self.rows);
        let requests = tickets.iter().map(|ticket| {
            // xorshift64, scaled to the number of rows
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            (*ticket, ((u128::from(*random) * u128::from(rows)) >> 64) as u64)
        });
        self.template.write(&mut self.encoder, requests, output);
    }

    fn hear(&mut self, bytes: &[u8], answered: &mut Vec<Ticket>) -> Result<(), String> {
        self.decoder.feed(bytes);
        while let Some(envelope) = self
            .decoder
            .next_envelope()
            .map_err(|violation| violation.to_string())?
        {
            if envelope.header.opcode != Opcode::Result || !envelope.body.starts_with(self.answer) {
                let response = ResponseMessage::decode(self.encoder.dialect(), &envelope);
                return Err(format!("an answer is not what was asked for: {response:?}"));
            }
            answered.push(envelope.header.stream.cast_unsigned());
        }
        Ok(())
    }
}
