//! What a connection sends: answers, errors, events.

use bytes::BytesMut;
use ceto_native::response::ResponsePrefix;
use ceto_native::{ErrorMessage, ErrorReason, Event, Opcode, Response, ResponseMessage, Violation};

use super::{ConnectionState, Stage, event_bit};
use crate::execute::Answer;

/// A body of so many bytes is handed to the socket instead of copied.
const LARGE_ANSWER: usize = 64 << 10;

impl ConnectionState {
    pub(super) fn answer(&self, stream: i16, answer: Answer) {
        match answer {
            Answer::Message(message) => self.respond(stream, &message),
            Answer::Void(prefix) => {
                let response = Response::Void;
                self.respond(stream, &ResponseMessage { prefix, response });
            }
            Answer::Result { prefix, body, share } if body.len() >= LARGE_ANSWER => {
                self.send_large(stream, &prefix, body);
                drop(share);
            }
            Answer::Result { prefix, body, share } => {
                let dialect = self.dialect();
                let flags = prefix.flags(dialect);
                self.send(stream, Opcode::Result, flags, |out| {
                    prefix.encode(dialect, out);
                    out.extend_from_slice(&body);
                });
                self.node.spare_body.give(body);
                // From here on the socket's bytes count instead.
                drop(share);
            }
        }
    }

    /// Hands the socket a long body without moving it.
    fn send_large(&self, stream: i16, prefix: &ResponsePrefix, body: BytesMut) {
        if self.is_closed() {
            return;
        }
        let dialect = self.dialect();
        let mut encoded_prefix = BytesMut::new();
        prefix.encode(dialect, &mut encoded_prefix);
        let flags = prefix.flags(dialect);
        let buffers =
            self.encoder
                .borrow_mut()
                .large_envelope(Opcode::Result, stream, flags, &encoded_prefix, body);
        match buffers {
            Ok(buffers) => {
                for buffer in buffers {
                    self.node.metrics.bytes_sent.add(buffer.len() as u64);
                    self.socket.write_buffer(buffer);
                }
                self.settle();
            }
            Err(violation) => self.too_large(stream, &violation),
        }
    }

    fn too_large(&self, stream: i16, violation: &Violation) {
        let message =
            format!("The answer is too large for the protocol: {violation}; use a smaller page size");
        self.respond(
            stream,
            &ErrorMessage {
                message,
                reason: ErrorReason::Server,
            }
            .into(),
        );
    }

    /// Sends a message.
    pub fn respond(&self, stream: i16, message: &ResponseMessage) {
        if let Response::Error(error) = &message.response {
            self.node.metrics.count_error(error.reason.code());
        }
        let dialect = self.dialect();
        self.send(stream, message.response.opcode(), message.flags(dialect), |out| {
            message.encode(dialect, out)
        });
    }

    fn send(&self, stream: i16, opcode: Opcode, flags: u8, fill: impl Fn(&mut BytesMut)) {
        if self.stage.get() == Stage::Closed {
            return;
        }
        let mut encoder = self.encoder.borrow_mut();
        let mut too_large = None;
        self.socket.write_with(&mut |out| {
            let before = out.len();
            let mut writer = encoder.writer(out);
            if let Err(violation) = writer.envelope(opcode, stream, flags, &fill) {
                too_large = Some(violation);
            }
            drop(writer);
            self.node.metrics.bytes_sent.add((out.len() - before) as u64);
        });
        drop(encoder);
        self.settle();
        if let Some(violation) = too_large {
            self.too_large(stream, &violation);
        }
    }

    /// Sends an event if the client has registered for its type.
    pub fn notify(&self, event: &Event) {
        if self.stage.get() == Stage::Ready && self.events.get() & event_bit(event.event_type()) != 0 {
            self.respond(-1, &Response::Event(event.clone()).into());
        }
    }
}
