//! The bare echo server: what any server on this ring has to spend on a request before it does anything for it.
//!
//! ```text
//!   preamble of a connection   | request length u32 | response length u32 |
//!   request                    | ticket 2 bytes | anything | as long as the preamble said
//!   response                   | ticket 2 bytes | zeros    | as long as the preamble said
//! ```

use std::net::{SocketAddr, TcpListener};

use bytes::{BufMut, BytesMut};

use crate::sockets::{Handler, Sockets};

/// Bytes of the preamble.
pub(crate) const PREAMBLE_LENGTH: usize = 8;
/// Bytes of a ticket: what an answer is known by.
pub(crate) const TICKET_LENGTH: usize = 2;
/// The longest message, in bytes.
const MAXIMUM_LENGTH: u32 = 1 << 20;

/// Serves `listen` until killed. Prints one line when clients can come.
pub(crate) fn serve(listen: SocketAddr) -> Result<(), String> {
    let listener =
        TcpListener::bind(listen).map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let sockets = Sockets::new().map_err(|error| format!("io_uring is not available: {error}"))?;
    sockets.listen(listener).map_err(|error| error.to_string())?;
    println!("ready: echo {address}");
    let mut echo = Echo { peers: Vec::new() };
    loop {
        sockets.turn(true, &mut echo)?;
    }
}

/// One connection.
#[derive(Default)]
struct Peer {
    request_length: usize,
    response_length: usize,
    /// The start of a message whose end has not come.
    partial: Vec<u8>,
}

struct Echo {
    /// By the number of the connection.
    peers: Vec<Peer>,
}

impl Handler for Echo {
    fn opened(&mut self, connection: usize) {
        if self.peers.len() <= connection {
            self.peers.resize_with(connection + 1, Peer::default);
        }
        self.peers[connection] = Peer::default();
    }

    fn received(&mut self, connection: usize, bytes: &[u8], output: &mut BytesMut) -> Result<(), String> {
        let peer = &mut self.peers[connection];
        if peer.partial.is_empty() {
            let rest = peer.answer(bytes, output)?;
            peer.partial.extend_from_slice(rest);
        } else {
            let mut whole = std::mem::take(&mut peer.partial);
            whole.extend_from_slice(bytes);
            let rest = peer.answer(&whole, output)?.len();
            whole.drain(..whole.len() - rest);
            peer.partial = whole;
        }
        Ok(())
    }

    fn closed(&mut self, _: usize) -> Result<(), String> {
        Ok(())
    }
}

impl Peer {
    /// Answers every whole request; returns what is left.
    fn answer<'b>(&mut self, mut bytes: &'b [u8], output: &mut BytesMut) -> Result<&'b [u8], String> {
        if self.request_length == 0 {
            let Some((preamble, rest)) = bytes.split_first_chunk::<PREAMBLE_LENGTH>() else {
                return Ok(bytes);
            };
            let [a, b, c, d, e, f, g, h] = *preamble;
            let lengths = [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])];
            if lengths
                .iter()
                .any(|length| *length < TICKET_LENGTH as u32 || *length > MAXIMUM_LENGTH)
            {
                return Err(format!("a preamble asks for messages of {lengths:?} bytes"));
            }
            [self.request_length, self.response_length] = lengths.map(|length| length as usize);
            bytes = rest;
        }
        while let Some((request, rest)) = bytes.split_at_checked(self.request_length) {
            output.put_slice(&request[..TICKET_LENGTH]);
            output.put_bytes(0, self.response_length - TICKET_LENGTH);
            bytes = rest;
        }
        Ok(bytes)
    }
}
