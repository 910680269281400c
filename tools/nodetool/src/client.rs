//! A client for the admin API: one request, one connection, one JSON answer.
//!
//! HTTP/1.0 requests, so that an answer is never chunked and the connection ends with it. Never reads more than
//! [`MAXIMUM_ANSWER_BYTES`], never waits longer than [`CONNECT_TIMEOUT`] for a connection; an answer may take its
//! time, because a flush or a compaction may.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::api::Failure;
use crate::arguments::Connection;

/// The longest answer that is read.
const MAXIMUM_ANSWER_BYTES: u64 = 256 << 20;
/// The longest wait for a connection, for each address of the host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum Error {
    /// No connection.
    Connect { endpoint: String, error: io::Error },
    /// The connection broke, or the answer was too long.
    Exchange { endpoint: String, error: io::Error },
    /// Not an HTTP answer, or not the JSON expected.
    Malformed { endpoint: String, detail: String },
    /// The node said no.
    Refused { status: u16, text: String },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { endpoint, error } => {
                write!(
                    f,
                    "Failed to connect to '{endpoint}' - ConnectException: '{}'.",
                    reason(error)
                )
            }
            Self::Exchange { endpoint, error } => {
                write!(f, "Connection to '{endpoint}' was lost - {}.", reason(error))
            }
            Self::Malformed { endpoint, detail } => write!(f, "'{endpoint}' is not an admin API: {detail}"),
            Self::Refused { status, text } if text.is_empty() => {
                write!(f, "the node answered status {status}")
            }
            Self::Refused { text, .. } => f.write_str(text),
        }
    }
}

/// The system's words without the number behind them.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// The admin API of one node.
pub(crate) struct Client {
    host: String,
    port: u16,
}

impl Client {
    pub(crate) fn new(connection: &Connection) -> Self {
        Client {
            host: connection.host.clone(),
            port: connection.port,
        }
    }

    /// Reads a document.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, Error> {
        self.exchange("GET", path, query)
    }

    /// Orders something and waits until it is done.
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, Error> {
        self.exchange("POST", path, query)
    }

    fn endpoint(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn exchange<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, Error> {
        let endpoint = self.endpoint();
        let mut stream = self.connect().map_err(|error| Error::Connect {
            endpoint: endpoint.clone(),
            error,
        })?;
        let answer = converse(&mut stream, &request(method, path, query, &endpoint)).map_err(|error| {
            Error::Exchange {
                endpoint: endpoint.clone(),
                error,
            }
        })?;
        let malformed = |detail: String| Error::Malformed {
            endpoint: endpoint.clone(),
            detail,
        };
        let (status, body) = split(&answer).ok_or_else(|| malformed("the answer is not HTTP".to_owned()))?;
        if status >= 400 {
            let text = serde_json::from_slice::<Failure>(body).map(|failure| failure.error);
            return Err(Error::Refused {
                status,
                text: text.unwrap_or_default(),
            });
        }
        serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        let addresses: Vec<SocketAddr> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

fn request(method: &str, path: &str, query: &[(&str, &str)], endpoint: &str) -> String {
    let mut target = path.to_owned();
    for (index, (key, value)) in query.iter().enumerate() {
        target.push(if index == 0 { '?' } else { '&' });
        target.push_str(key);
        target.push('=');
        target.push_str(&percent_encode(value));
    }
    format!(
        "{method} {target} HTTP/1.0\r\nHost: {endpoint}\r\nAccept: application/json\r\nContent-Length: 0\r\n\r\n"
    )
}

fn percent_encode(value: &str) -> String {
    let mut encoded = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn converse(stream: &mut TcpStream, request: &str) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAXIMUM_ANSWER_BYTES + 1).read_to_end(&mut answer)?;
    if answer.len() as u64 > MAXIMUM_ANSWER_BYTES {
        let text = format!("the answer is longer than {MAXIMUM_ANSWER_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(answer)
}

/// Status and body of an answer.
fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(answer.get(..end)?).ok()?;
    let mut words = head.lines().next()?.split_ascii_whitespace();
    if !words.next()?.starts_with("HTTP/1.") {
        return None;
    }
    Some((words.next()?.parse().ok()?, answer.get(end + 4..)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn answers_are_split() {
        assert_eq!(
            split(b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n{}"),
            Some((200, &b"{}"[..]))
        );
        assert_eq!(split(b"HTTP/1.0 404 Not Found\r\n\r\n"), Some((404, &b""[..])));
        for malformed in [
            &b""[..],
            b"HTTP/1.1",
            b"HTTP/1.1\r\n\r\n",
            b"SSH-2.0-x\r\n\r\n",
            b"\xff\r\n\r\n",
        ] {
            assert_eq!(split(malformed), None, "{malformed:?}");
        }
    }

    #[test]
    fn names_are_encoded() {
        let text = request(
            "GET",
            "/v1/tables/stats",
            &[("keyspace", "Ä b"), ("table", "t")],
            "h:1",
        );
        assert!(
            text.starts_with("GET /v1/tables/stats?keyspace=%C3%84%20b&table=t HTTP/1.0\r\n"),
            "{text}"
        );
    }
}
