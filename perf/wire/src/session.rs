//! A CQL connection while it is set up: one request at a time, blocking. The load takes its socket over afterwards.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ceto_model::Consistency;
use ceto_native::{
    Direction, FrameDecoder, FrameEncoder, Prepare, ProtocolVersion, Query, QueryParameters, Request,
    RequestMessage, Response, ResponseMessage, Startup,
};

/// The longest answer that is accepted, in bytes.
const MAXIMUM_ANSWER_BYTES: u32 = 16 << 20;
/// The longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A prepared statement as the server named it.
pub(crate) struct PreparedId {
    pub(crate) id: Bytes,
    pub(crate) result_metadata_id: Option<Bytes>,
}

/// An open connection.
pub(crate) struct Session {
    pub(crate) stream: TcpStream,
    pub(crate) encoder: FrameEncoder,
    pub(crate) decoder: FrameDecoder,
}

impl Session {
    /// Connects and agrees on the version.
    pub(crate) fn open(address: SocketAddr, version: ProtocolVersion) -> Result<Session, String> {
        let stream =
            TcpStream::connect(address).map_err(|error| format!("cannot connect to {address}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        stream
            .set_read_timeout(Some(ANSWER_TIMEOUT))
            .map_err(|error| error.to_string())?;
        let mut session = Session {
            stream,
            encoder: FrameEncoder::new(version),
            decoder: FrameDecoder::new(Direction::Response, MAXIMUM_ANSWER_BYTES),
        };
        let options = vec![("CQL_VERSION".to_owned(), "3.0.0".to_owned())];
        match session.ask(Request::Startup(Startup { options }))? {
            Response::Ready => {}
            other => return Err(format!("STARTUP was answered with {:?}", other.opcode())),
        }
        if version >= ProtocolVersion::V5 {
            session.encoder.start_framing();
            session.decoder.start_framing();
        }
        Ok(session)
    }

    /// Runs a statement.
    pub(crate) fn query(&mut self, text: &str) -> Result<Response, String> {
        let parameters = QueryParameters::new(Consistency::One);
        self.ask(Request::Query(Query {
            query: text.to_owned(),
            parameters,
        }))
    }

    /// Prepares a statement.
    pub(crate) fn prepare(&mut self, text: &str) -> Result<PreparedId, String> {
        match self.ask(Request::Prepare(Prepare {
            query: text.to_owned(),
            keyspace: None,
        }))? {
            Response::Prepared(prepared) => Ok(PreparedId {
                id: prepared.id,
                result_metadata_id: prepared.result_metadata_id,
            }),
            other => Err(format!("PREPARE was answered with {:?}", other.opcode())),
        }
    }

    /// One request and its answer; an ERROR is an error.
    pub(crate) fn ask(&mut self, request: Request) -> Result<Response, String> {
        let mut output = BytesMut::new();
        self.encoder
            .writer(&mut output)
            .request(0, &RequestMessage::new(request))
            .map_err(|violation| violation.to_string())?;
        self.send(&output)?;
        self.answer()
    }

    /// Sends bytes that were made with the encoder.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream
            .write_all(bytes)
            .map_err(|error| format!("cannot send: {error}"))
    }

    /// The next answer; an ERROR is an error.
    pub(crate) fn answer(&mut self) -> Result<Response, String> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(envelope) = self
                .decoder
                .next_envelope()
                .map_err(|violation| violation.to_string())?
            {
                let message = ResponseMessage::decode(self.encoder.dialect(), &envelope);
                return match message.map_err(|violation| violation.to_string())?.response {
                    Response::Error(error) => Err(format!("{}: {}", error.code().name(), error.message)),
                    response => Ok(response),
                };
            }
            let length = self
                .stream
                .read(&mut buffer)
                .map_err(|error| format!("no answer: {error}"))?;
            match buffer.get(..length) {
                None | Some([]) => return Err("the server closed the connection".to_owned()),
                Some(bytes) => self.decoder.feed(bytes),
            }
        }
    }
}
