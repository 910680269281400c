//! One connection: opening it, on a chosen shard if need be, and asking one question at a time.
//!
//! What the handshake and the set-up need; under load `lane` takes the connection over.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ceto_model::Consistency;
use ceto_native::{
    Compression, Direction, FrameDecoder, FrameEncoder, ProtocolVersion, Query, QueryParameters, Request,
    RequestMessage, Response, ResponseMessage, Rows, Startup,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::options::Mode;

/// The longest answer that is accepted, in bytes.
const MAXIMUM_ANSWER_BYTES: u32 = 64 << 20;
/// The longest wait for a connection or for an answer during set-up.
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);
/// Source ports tried until one is free.
const SOURCE_PORT_ATTEMPTS: u32 = 256;
/// Source ports are taken from here on: the dynamic range.
const FIRST_SOURCE_PORT: u32 = 49_152;
const LAST_SOURCE_PORT: u32 = 65_535;

/// What a server says of its shards in SUPPORTED.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sharding {
    /// The shard that serves this connection.
    pub(crate) shard: u16,
    pub(crate) shard_count: u16,
    /// The port on which the source port chooses the shard.
    pub(crate) shard_aware_port: Option<u16>,
}

/// An open connection.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) encoder: FrameEncoder,
    pub(crate) decoder: FrameDecoder,
    /// None if the server has no shards, or another way to share tokens among them.
    pub(crate) sharding: Option<Sharding>,
}

impl Connection {
    /// Connects to whichever shard the server chooses.
    pub(crate) async fn open(address: SocketAddr, mode: Mode) -> Result<Connection, String> {
        let stream = within(address, TcpStream::connect(address)).await?;
        Self::start(stream, address, mode).await
    }

    /// Connects to the shard of a node by choosing the source port. `attempt` makes connections to one shard begin
    /// their search for a free port at different places.
    pub(crate) async fn open_to_shard(
        address: SocketAddr,
        shard: u16,
        shard_count: u16,
        attempt: u32,
        mode: Mode,
    ) -> Result<Connection, String> {
        let mut refusal = String::new();
        for index in 0..SOURCE_PORT_ATTEMPTS {
            let port = source_port(shard, shard_count, attempt.wrapping_mul(37).wrapping_add(index));
            match within(address, connect_from(port, address)).await {
                Ok(stream) => {
                    let connection = Self::start(stream, address, mode).await?;
                    let arrived = connection.sharding.map(|sharding| sharding.shard);
                    if arrived != Some(shard) {
                        return Err(format!(
                            "{address}: a connection from port {port} arrived on shard {arrived:?} of \
                             {shard_count} instead of {shard}"
                        ));
                    }
                    return Ok(connection);
                }
                Err(error) if error.contains("in use") || error.contains("not available") => refusal = error,
                Err(error) => return Err(error),
            }
        }
        Err(format!("no free source port for shard {shard}: {refusal}"))
    }

    async fn start(stream: TcpStream, address: SocketAddr, mode: Mode) -> Result<Connection, String> {
        stream
            .set_nodelay(true)
            .map_err(|error| format!("{address}: {error}"))?;
        let mut connection = Connection {
            stream,
            encoder: FrameEncoder::new(mode.version),
            decoder: FrameDecoder::new(Direction::Response, MAXIMUM_ANSWER_BYTES),
            sharding: None,
        };
        connection.sharding = match connection.ask(Request::Options).await? {
            Response::Supported(options) => sharding(&options),
            other => return Err(unexpected("OPTIONS", &other)),
        };
        connection.startup(mode).await?;
        Ok(connection)
    }

    async fn startup(&mut self, mode: Mode) -> Result<(), String> {
        let mut options = vec![
            ("CQL_VERSION".to_owned(), "3.0.0".to_owned()),
            ("DRIVER_NAME".to_owned(), "ceto-stress".to_owned()),
            ("DRIVER_VERSION".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ];
        if mode.compressed {
            options.push(("COMPRESSION".to_owned(), "lz4".to_owned()));
        }
        match self.ask(Request::Startup(Startup { options })).await? {
            Response::Ready => {}
            other => return Err(unexpected("STARTUP", &other)),
        }
        if mode.compressed {
            self.encoder.set_compression(Compression::Lz4);
            self.decoder.set_compression(Compression::Lz4);
        }
        if mode.version >= ProtocolVersion::V5 {
            self.encoder.start_framing();
            self.decoder.start_framing();
        }
        Ok(())
    }

    /// Sends one request and waits for its answer; an ERROR is an answer.
    pub(crate) async fn ask(&mut self, request: Request) -> Result<Response, String> {
        let mut out = BytesMut::new();
        let message = RequestMessage::new(request);
        self.encoder
            .writer(&mut out)
            .request(0, &message)
            .map_err(|violation| violation.to_string())?;
        let exchange = async {
            self.stream
                .write_all(&out)
                .await
                .map_err(|error| error.to_string())?;
            self.answer().await
        };
        match tokio::time::timeout(SETUP_TIMEOUT, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", SETUP_TIMEOUT.as_secs())),
        }
    }

    async fn answer(&mut self) -> Result<Response, String> {
        let mut received = BytesMut::with_capacity(16 << 10);
        loop {
            let next = self
                .decoder
                .next_envelope()
                .map_err(|violation| violation.to_string())?;
            if let Some(envelope) = next {
                let message = ResponseMessage::decode(self.encoder.dialect(), &envelope);
                return message
                    .map(|message| message.response)
                    .map_err(|violation| violation.to_string());
            }
            received.clear();
            let count = self
                .stream
                .read_buf(&mut received)
                .await
                .map_err(|error| error.to_string())?;
            if count == 0 {
                return Err("the server closed the connection".to_owned());
            }
            self.decoder.feed(&received);
        }
    }

    /// Runs a statement; an ERROR is an error.
    pub(crate) async fn query(&mut self, text: &str) -> Result<Response, String> {
        let parameters = QueryParameters::new(Consistency::One);
        let query = Query {
            query: text.to_owned(),
            parameters,
        };
        match self.ask(Request::Query(query)).await? {
            Response::Error(error) => Err(format!("{}: {} ({text})", error.code().name(), error.message)),
            response => Ok(response),
        }
    }

    /// The rows of a statement.
    pub(crate) async fn rows(&mut self, text: &str) -> Result<Rows, String> {
        match self.query(text).await? {
            Response::Rows(rows) => Ok(rows),
            other => Err(unexpected(text, &other)),
        }
    }
}

/// A text for an answer that does not fit its request.
pub(crate) fn unexpected(request: &str, response: &Response) -> String {
    match response {
        Response::Error(error) => format!("{request}: {}: {}", error.code().name(), error.message),
        Response::Authenticate { authenticator } => {
            format!(
                "{request}: the server asks for credentials ({authenticator}), which stress does not send"
            )
        }
        other => format!("{request}: unexpected answer {:?}", other.opcode()),
    }
}

async fn within<T>(address: SocketAddr, attempt: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(SETUP_TIMEOUT, attempt).await {
        Ok(result) => result.map_err(|error| format!("failed to connect to {address}: {error}")),
        Err(_) => Err(format!(
            "failed to connect to {address} within {} s",
            SETUP_TIMEOUT.as_secs()
        )),
    }
}

async fn connect_from(port: u16, address: SocketAddr) -> io::Result<TcpStream> {
    let (socket, any) = match address {
        SocketAddr::V4(_) => (TcpSocket::new_v4()?, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        SocketAddr::V6(_) => (TcpSocket::new_v6()?, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    socket.bind(SocketAddr::new(any, port))?;
    socket.connect(address).await
}

/// The `index`-th source port that leads to a shard; starts again when the range is used up.
fn source_port(shard: u16, shard_count: u16, index: u32) -> u16 {
    let (shard, count) = (u32::from(shard), u32::from(shard_count.max(1)));
    let first = FIRST_SOURCE_PORT.next_multiple_of(count) + shard;
    let choices = ((LAST_SOURCE_PORT - first.min(LAST_SOURCE_PORT)) / count).max(1);
    u16::try_from(first + index % choices * count).unwrap_or(u16::MAX)
}

/// The shards a server announces, if it shares tokens among them as [`ceto_model::Token::shard`] does.
fn sharding(options: &[(String, Vec<String>)]) -> Option<Sharding> {
    let value = |name: &str| {
        let (_, values) = options.iter().find(|(key, _)| key == name)?;
        values.first().map(String::as_str)
    };
    let ignored_bits: u32 = value("SCYLLA_SHARDING_IGNORE_MSB")?.parse().ok()?;
    let known = value("SCYLLA_SHARDING_ALGORITHM") == Some("biased-token-round-robin")
        && ignored_bits == ceto_model::token::SHARDING_IGNORE_MSB;
    known.then_some(())?;
    Some(Sharding {
        shard: value("SCYLLA_SHARD")?.parse().ok()?,
        shard_count: value("SCYLLA_NR_SHARDS")?
            .parse()
            .ok()
            .filter(|count| *count > 0)?,
        shard_aware_port: value("SCYLLA_SHARD_AWARE_PORT").and_then(|port| port.parse().ok()),
    })
}

/// An inet value of a row.
pub(crate) fn inet(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The elements of a serialised list or set, in the form of protocol 3 and later.
pub(crate) fn elements(value: &[u8]) -> Option<Vec<Bytes>> {
    let (count, mut rest) = value.split_first_chunk::<4>()?;
    let mut elements = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (element, after) = after.split_at_checked(usize::try_from(i32::from_be_bytes(*length)).ok()?)?;
        elements.push(Bytes::copy_from_slice(element));
        rest = after;
    }
    Some(elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_ports_lead_to_their_shard() {
        for count in [1, 2, 3, 7, 64, 255] {
            for shard in 0..count {
                for index in [0, 1, 100, 100_000] {
                    let port = source_port(shard, count, index);
                    assert!(u32::from(port) >= FIRST_SOURCE_PORT);
                    assert_eq!(port % count, shard, "{shard}/{count} {index}");
                }
            }
        }
    }

    #[test]
    fn lists_are_read_and_never_trusted() {
        let list = [0, 0, 0, 2, 0, 0, 0, 1, b'a', 0, 0, 0, 2, b'b', b'c'];
        assert_eq!(
            elements(&list),
            Some(vec![Bytes::from_static(b"a"), Bytes::from_static(b"bc")])
        );
        for length in 0..list.len() {
            assert_eq!(elements(&list[..length]), None);
        }
        assert_eq!(elements(&[0xff; 8]), None);
    }

    #[test]
    fn shards_are_known_only_by_their_algorithm() {
        let option = |name: &str, value: &str| (name.to_owned(), vec![value.to_owned()]);
        let mut options = vec![
            option("SCYLLA_SHARD", "1"),
            option("SCYLLA_NR_SHARDS", "2"),
            option("SCYLLA_SHARDING_ALGORITHM", "biased-token-round-robin"),
            option("SCYLLA_SHARDING_IGNORE_MSB", "12"),
        ];
        let known = Sharding {
            shard: 1,
            shard_count: 2,
            shard_aware_port: None,
        };
        assert_eq!(sharding(&options), Some(known));
        options.push(option("SCYLLA_SHARD_AWARE_PORT", "19042"));
        assert_eq!(
            sharding(&options),
            Some(Sharding {
                shard_aware_port: Some(19042),
                ..known
            })
        );
        options[3] = option("SCYLLA_SHARDING_IGNORE_MSB", "11");
        assert_eq!(sharding(&options), None);
        assert_eq!(sharding(&[]), None);
    }
}
