//! What the load says to a server and how it knows the answers: fixed-size messages to the echo, CQL to a database.

use bytes::{BufMut, BytesMut};

use crate::echo::{PREAMBLE_LENGTH, TICKET_LENGTH};

/// Numbers a request among those of its connection that have no answer yet.
pub(crate) type Ticket = u16;

/// Both directions of one connection.
pub(crate) trait Conversation {
    /// Appends one request for each ticket.
    fn ask(&mut self, tickets: &[Ticket], output: &mut BytesMut);

    /// Takes bytes in; pushes the tickets of the answers that are complete. An answer that says anything but what was
    /// asked for is an error: a load that fails is not measured.
    fn hear(&mut self, bytes: &[u8], answered: &mut Vec<Ticket>) -> Result<(), String>;
}

/// Messages of fixed sizes, as [`crate::echo`] describes them.
pub(crate) struct FixedSize {
    request_length: usize,
    response_length: usize,
    is_introduced: bool,
    /// The ticket of the answer under way, and how many of its bytes have come.
    ticket: [u8; TICKET_LENGTH],
    heard: usize,
}

impl FixedSize {
    /// With messages of these sizes, in bytes.
    pub(crate) fn new(request_length: usize, response_length: usize) -> FixedSize {
        FixedSize {
            request_length: request_length.max(TICKET_LENGTH),
            response_length: response_length.max(TICKET_LENGTH),
            is_introduced: false,
            ticket: [0; TICKET_LENGTH],
            heard: 0,
        }
    }
}

impl Conversation for FixedSize {
    fn ask(&mut self, tickets: &[Ticket], output: &mut BytesMut) {
        if !std::mem::replace(&mut self.is_introduced, true) {
            output.reserve(PREAMBLE_LENGTH);
            output.put_u32(u32::try_from(self.request_length).unwrap_or(u32::MAX));
            output.put_u32(u32::try_from(self.response_length).unwrap_or(u32::MAX));
        }
        for ticket in tickets {
            output.put_slice(&ticket.to_be_bytes());
            output.put_bytes(0, self.request_length - TICKET_LENGTH);
        }
    }

    fn hear(&mut self, mut bytes: &[u8], answered: &mut Vec<Ticket>) -> Result<(), String> {
        while !bytes.is_empty() {
            let missing = self.response_length - self.heard;
            let (part, rest) = bytes.split_at(missing.min(bytes.len()));
            for (offset, byte) in part
                .iter()
                .enumerate()
                .take(TICKET_LENGTH.saturating_sub(self.heard))
            {
                self.ticket[self.heard + offset] = *byte;
            }
            self.heard += part.len();
            if self.heard == self.response_length {
                answered.push(Ticket::from_be_bytes(self.ticket));
                self.heard = 0;
            }
            bytes = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn answers_are_known_however_they_are_cut() {
        let answers: Vec<u8> = [7u16, 300, 65_535]
            .iter()
            .flat_map(|ticket| ticket.to_be_bytes().into_iter().chain([9; 3]))
            .collect();
        for piece in 1..answers.len() {
            let mut conversation = FixedSize::new(2, 5);
            let mut answered = Vec::new();
            for bytes in answers.chunks(piece) {
                conversation.hear(bytes, &mut answered).unwrap();
            }
            assert_eq!(answered, [7, 300, 65_535], "in pieces of {piece}");
        }
    }

    #[test]
    fn the_preamble_comes_once() {
        let mut conversation = FixedSize::new(4, 5);
        let mut output = BytesMut::new();
        conversation.ask(&[1], &mut output);
        conversation.ask(&[2], &mut output);
        assert_eq!(&output[..], [0, 0, 0, 4, 0, 0, 0, 5, 0, 1, 0, 0, 0, 2, 0, 0]);
    }
}
