//! The connections of one ring: one multishot receive and at most one send each.
//!
//! A turn takes every completion, lets the [`Handler`] read and write, then sends what was written with one send per
//! connection. The echo and the load are handlers of the same loop, so neither is the better tuned.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};

use bytes::{Buf, BytesMut};
use slab::Slab;

use crate::ring::{Completion, Kind, Ring};

/// Size of a fresh output buffer.
const OUTPUT_BUFFER_SIZE: usize = 16 << 10;

/// What becomes of the bytes of a connection.
pub(crate) trait Handler {
    /// A connection was accepted.
    fn opened(&mut self, _connection: usize) {}

    /// Bytes came; what is appended to `output` is sent at the end of the turn.
    fn received(&mut self, connection: usize, bytes: &[u8], output: &mut BytesMut) -> Result<(), String>;

    /// The peer ended the connection, or it broke.
    fn closed(&mut self, connection: usize) -> Result<(), String>;
}

/// Nobody is interested any more.
struct Leaving;

impl Handler for Leaving {
    fn received(&mut self, _: usize, _: &[u8], _: &mut BytesMut) -> Result<(), String> {
        Ok(())
    }

    fn closed(&mut self, _: usize) -> Result<(), String> {
        Ok(())
    }
}

struct Connection {
    stream: TcpStream,
    /// Written, not sent.
    output: BytesMut,
    /// With the kernel while `is_sending`.
    sending: BytesMut,
    is_sending: bool,
    is_receiving: bool,
    is_ended: bool,
    /// In the list of connections with something to do.
    is_marked: bool,
}

/// Connections on one ring. Lives as long as the process: the kernel may write to its memory.
pub(crate) struct Sockets {
    ring: Ring,
    listener: Option<TcpListener>,
    connections: Slab<Connection>,
    marked: Vec<usize>,
    completions: Vec<Completion>,
}

impl Sockets {
    /// No connections yet.
    pub(crate) fn new() -> io::Result<&'static mut Sockets> {
        Ok(Box::leak(Box::new(Sockets {
            ring: Ring::new()?,
            listener: None,
            connections: Slab::new(),
            marked: Vec::new(),
            completions: Vec::new(),
        })))
    }

    /// Accepts what comes to `listener`.
    pub(crate) fn listen(&mut self, listener: TcpListener) -> io::Result<()> {
        self.ring.accept(listener.as_raw_fd())?;
        self.listener = Some(listener);
        Ok(())
    }

    /// Takes a connected socket over; returns its number.
    pub(crate) fn add(&mut self, stream: TcpStream) -> io::Result<usize> {
        stream.set_nodelay(true)?;
        let socket = stream.as_raw_fd();
        let connection = self.connections.insert(Connection {
            stream,
            output: BytesMut::with_capacity(OUTPUT_BUFFER_SIZE),
            sending: BytesMut::with_capacity(OUTPUT_BUFFER_SIZE),
            is_sending: false,
            is_receiving: true,
            is_ended: false,
            is_marked: false,
        });
        self.ring.receive(connection, socket)?;
        Ok(connection)
    }

    /// Where to write for a connection outside of [`Handler::received`]; sent at the next turn.
    pub(crate) fn output(&mut self, connection: usize) -> &mut BytesMut {
        mark(&mut self.connections, &mut self.marked, connection);
        &mut self.connections[connection].output
    }

    /// Ends every connection, and returns when the kernel is through with them. The next is number 0 again.
    pub(crate) fn close_all(&mut self) -> Result<(), String> {
        for (_, connection) in &self.connections {
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
        while !self.connections.is_empty() {
            self.turn(false, &mut Leaving)?;
        }
        self.connections = Slab::new();
        Ok(())
    }

    /// Sends what was written, and serves what comes: what is there, or with `wait` at least one completion.
    pub(crate) fn turn(&mut self, wait: bool, handler: &mut impl Handler) -> Result<(), String> {
        self.flush(handler)?;
        let outcome = if wait {
            self.ring.wait()
        } else {
            self.ring.submit()
        };
        outcome.map_err(|error| format!("the ring failed: {error}"))?;
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.reap(&mut completions);
        for completion in completions.drain(..) {
            match completion.kind() {
                Kind::Accept => self.accepted(completion, handler)?,
                Kind::Receive => self.received(completion, handler)?,
                Kind::Send => self.sent(completion),
            }
        }
        self.completions = completions;
        Ok(())
    }

    fn accepted(&mut self, completion: Completion, handler: &mut impl Handler) -> Result<(), String> {
        if completion.result >= 0 {
            // SAFETY: the kernel has just opened this descriptor for us; nothing else owns it.
            let stream = unsafe { TcpStream::from_raw_fd(completion.result) };
            let connection = self
                .add(stream)
                .map_err(|error| format!("cannot accept: {error}"))?;
            handler.opened(connection);
        }
        match (&self.listener, completion.more()) {
            (Some(listener), false) => {
                let listener = listener.as_raw_fd();
                self.ring
                    .accept(listener)
                    .map_err(|error| format!("cannot accept: {error}"))
            }
            _ => Ok(()),
        }
    }

    fn received(&mut self, completion: Completion, handler: &mut impl Handler) -> Result<(), String> {
        let number = completion.connection();
        let connection = &mut self.connections[number];
        if !completion.more() {
            connection.is_receiving = false;
            mark(&mut self.connections, &mut self.marked, number);
        }
        let connection = &mut self.connections[number];
        match (completion.result, completion.buffer()) {
            (length @ 1.., Some(buffer)) => {
                let bytes = self.ring.received(buffer, length as usize);
                if !connection.is_ended {
                    handler.received(number, bytes, &mut connection.output)?;
                }
                self.ring.give_back(buffer);
                mark(&mut self.connections, &mut self.marked, number);
            }
            (result, _) if result == -libc::ENOBUFS => {}
            _ => {
                connection.is_ended = true;
                mark(&mut self.connections, &mut self.marked, number);
            }
        }
        Ok(())
    }

    fn sent(&mut self, completion: Completion) {
        let number = completion.connection();
        let connection = &mut self.connections[number];
        connection.is_sending = false;
        match usize::try_from(completion.result) {
            Ok(length) => connection.sending.advance(length.min(connection.sending.len())),
            Err(_) => connection.is_ended = true,
        }
        if connection.is_ended || !connection.sending.is_empty() || !connection.output.is_empty() {
            mark(&mut self.connections, &mut self.marked, number);
        }
    }

    fn flush(&mut self, handler: &mut impl Handler) -> Result<(), String> {
        for number in std::mem::take(&mut self.marked) {
            let connection = &mut self.connections[number];
            connection.is_marked = false;
            if connection.is_ended {
                if !connection.is_sending && !connection.is_receiving {
                    self.connections.remove(number);
                    handler.closed(number)?;
                } else {
                    let _ = connection.stream.shutdown(Shutdown::Both);
                }
                continue;
            }
            let socket = connection.stream.as_raw_fd();
            if !connection.is_receiving {
                connection.is_receiving = true;
                self.ring
                    .receive(number, socket)
                    .map_err(|error| format!("cannot receive: {error}"))?;
            }
            if !connection.is_sending {
                if connection.sending.is_empty() {
                    std::mem::swap(&mut connection.sending, &mut connection.output);
                }
                if !connection.sending.is_empty() {
                    connection.is_sending = true;
                    // SAFETY: `sending` is not touched until the completion, which also keeps the connection.
                    let outcome = unsafe { self.ring.send(number, socket, &connection.sending) };
                    outcome.map_err(|error| format!("cannot send: {error}"))?;
                }
            }
        }
        Ok(())
    }
}

fn mark(connections: &mut Slab<Connection>, marked: &mut Vec<usize>, number: usize) {
    let connection = &mut connections[number];
    if !std::mem::replace(&mut connection.is_marked, true) {
        marked.push(number);
    }
}
