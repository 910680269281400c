//! Envelopes to socket bytes. See the module above for the formats.
//!
//! A body is written straight into the output; its header stands before it with a length that is patched at the end.
//! A v5 frame around it is patched in the same way, so a small answer is never copied. Only compression and what does
//! not fit in one frame go through a second buffer.

use bytes::{BufMut, BytesMut};

use super::{
    COMPRESSED_FRAME_HEADER_LENGTH, FRAME_HEADER_LENGTH, LENGTH_BITS, MAX_PAYLOAD_LENGTH, TRAILER_LENGTH,
};
use crate::checksum::{crc24, crc32};
use crate::compression::{Compression, Compressor};
use crate::envelope::{HEADER_LENGTH, Header, MAX_BODY_LENGTH, flags};
use crate::opcode::Opcode;
use crate::request::RequestMessage;
use crate::response::ResponseMessage;
use crate::version::{Dialect, ProtocolVersion};
use crate::violation::{LengthLimit, Violation};

/// Shorter bodies and frames are not compressed: they fit in one packet anyway.
const MIN_COMPRESSED_LENGTH: usize = 256;

/// Where the length stands in a header.
const LENGTH_OFFSET: usize = HEADER_LENGTH - 4;
/// Where the flags stand in a header.
const FLAGS_OFFSET: usize = 1;

/// Encodes the envelopes of one direction of one connection.
pub struct FrameEncoder {
    dialect: Dialect,
    compression: Compression,
    framed: bool,
    compressor: Compressor,
}

impl FrameEncoder {
    /// Speaks `dialect`, not compressed, not framed.
    pub fn new(dialect: impl Into<Dialect>) -> Self {
        FrameEncoder {
            dialect: dialect.into(),
            compression: Compression::None,
            framed: false,
            compressor: Compressor::default(),
        }
    }

    /// What it speaks.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Sets the version of the headers and the extensions of the bodies that follow.
    pub fn set_dialect(&mut self, dialect: impl Into<Dialect>) {
        self.dialect = dialect.into();
    }

    /// Sets what STARTUP has negotiated.
    pub fn set_compression(&mut self, compression: Compression) {
        self.compression = compression;
    }

    /// v5: what follows is in frames. To be called after READY or AUTHENTICATE was written.
    pub fn start_framing(&mut self) {
        self.framed = true;
    }

    /// Starts to append envelopes to `out`. Those that one writer writes share v5 frames where they fit.
    pub fn writer<'a>(&'a mut self, out: &'a mut BytesMut) -> FrameWriter<'a> {
        FrameWriter {
            encoder: self,
            out,
            frame: None,
            envelope: None,
        }
    }

    /// An envelope with a long body, as buffers to be sent one after the other: so long output is never moved, nor a body
    /// copied that needs neither frames nor compression. `prefix` is what stands in the body before `body`.
    ///
    /// On an error nothing is to be sent.
    pub fn large_envelope(
        &mut self,
        opcode: Opcode,
        stream: i16,
        flags: u8,
        prefix: &[u8],
        body: BytesMut,
    ) -> Result<Vec<BytesMut>, Violation> {
        let length = prefix.len() + body.len();
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        if length > MAX_BODY_LENGTH {
            return Err(Violation::TooLarge {
                length: length.into(),
                limit: LengthLimit::Protocol(MAX_BODY_LENGTH),
                stream,
            });
        }
        if !self.framed && self.compression != Compression::None && self.dialect.version < ProtocolVersion::V5
        {
            let mut out = BytesMut::with_capacity(HEADER_LENGTH + prefix.len() + body.len());
            self.writer(&mut out).envelope(opcode, stream, flags, |out| {
                out.extend_from_slice(prefix);
                out.extend_from_slice(&body);
            })?;
            return Ok(vec![out]);
        }
        let mut head = BytesMut::with_capacity(HEADER_LENGTH + prefix.len());
        Header {
            version: self.dialect.version,
            flags,
            stream,
            opcode,
            length,
        }
        .encode(&mut head);
        head.extend_from_slice(prefix);
        Ok(match self.framed {
            false => vec![head, body],
            true => self.frames_of(head, &body),
        })
    }

    /// The frames of the envelope `head` and `body` together, each a buffer.
    fn frames_of(&mut self, mut head: BytesMut, body: &[u8]) -> Vec<BytesMut> {
        let first = body.len().min(MAX_PAYLOAD_LENGTH.saturating_sub(head.len()));
        let (first, rest) = body.split_at(first);
        head.extend_from_slice(first);
        let is_whole = rest.is_empty() && head.len() <= MAX_PAYLOAD_LENGTH;
        let overhead = self.frame_header_length() + TRAILER_LENGTH;
        let pieces = head
            .chunks(MAX_PAYLOAD_LENGTH)
            .chain(rest.chunks(MAX_PAYLOAD_LENGTH));
        let frames = pieces.map(|piece| {
            let mut frame = BytesMut::with_capacity(overhead + piece.len());
            self.writer(&mut frame).append_frame(piece, is_whole);
            frame
        });
        frames.collect()
    }

    fn frame_header_length(&self) -> usize {
        if self.compression == Compression::Lz4 {
            COMPRESSED_FRAME_HEADER_LENGTH
        } else {
            FRAME_HEADER_LENGTH
        }
    }
}

/// Appends envelopes to a buffer. Closes its frame when dropped.
pub struct FrameWriter<'a> {
    encoder: &'a mut FrameEncoder,
    out: &'a mut BytesMut,
    /// Where the open frame starts: its header, not filled in yet.
    frame: Option<usize>,
    /// Where the envelope under way starts.
    envelope: Option<usize>,
}

impl FrameWriter<'_> {
    /// What the connection speaks.
    pub fn dialect(&self) -> Dialect {
        self.encoder.dialect
    }

    /// Writes one envelope, whose body `fill` appends to the buffer it gets (and must not shorten).
    ///
    /// On an error nothing of the envelope is left in the output.
    pub fn envelope<T>(
        &mut self,
        opcode: Opcode,
        stream: i16,
        flags: u8,
        fill: impl FnOnce(&mut BytesMut) -> T,
    ) -> Result<T, Violation> {
        let result = fill(self.begin(opcode, stream, flags));
        self.end()?;
        Ok(result)
    }

    /// Writes a response.
    pub fn response(&mut self, stream: i16, message: &ResponseMessage) -> Result<(), Violation> {
        let dialect = self.dialect();
        self.envelope(message.response.opcode(), stream, message.flags(dialect), |out| {
            message.encode(dialect, out)
        })
    }

    /// Writes a request.
    pub fn request(&mut self, stream: i16, message: &RequestMessage) -> Result<(), Violation> {
        let dialect = self.dialect();
        self.envelope(message.request.opcode(), stream, message.flags(), |out| {
            message.encode(dialect, out)
        })
    }

    /// Starts an envelope; its body is to be appended to the returned buffer (or later to [`Self::body`]).
    pub fn begin(&mut self, opcode: Opcode, stream: i16, flags: u8) -> &mut BytesMut {
        assert!(
            self.envelope.is_none(),
            "the envelope before this one has been ended"
        );
        if self.encoder.framed && self.frame.is_none() {
            self.frame = Some(self.out.len());
            self.out.put_bytes(0, self.encoder.frame_header_length());
        }
        self.envelope = Some(self.out.len());
        let version = self.encoder.dialect.version;
        let beta = if version.is_beta() { flags::USE_BETA } else { 0 };
        Header {
            version,
            flags: flags | beta,
            stream,
            opcode,
            length: 0,
        }
        .encode(self.out);
        self.out
    }

    /// The buffer that the body of the envelope under way is appended to.
    pub fn body(&mut self) -> &mut BytesMut {
        assert!(self.envelope.is_some(), "an envelope has been begun");
        self.out
    }

    /// Sets flags of the envelope under way, beside those given at its start.
    pub fn add_flags(&mut self, flags: u8) {
        let start = self.envelope.expect("an envelope has been begun");
        self.out[start + FLAGS_OFFSET] |= flags;
    }

    /// Takes the envelope under way back, as if it had never been begun.
    pub fn abandon(&mut self) {
        let start = self.envelope.take().expect("an envelope has been begun");
        self.out.truncate(start);
    }

    /// Ends the envelope under way. If its body is longer than the protocol allows it is taken back.
    pub fn end(&mut self) -> Result<(), Violation> {
        let start = self.envelope.expect("an envelope has been begun");
        let length = self.out.len() - start - HEADER_LENGTH;
        if length as u64 > u64::from(MAX_BODY_LENGTH) {
            let stream = self
                .out
                .get(start + 2..)
                .and_then(<[u8]>::first_chunk)
                .map_or(0, |b| i16::from_be_bytes(*b));
            self.abandon();
            return Err(Violation::TooLarge {
                length: length as u64,
                limit: LengthLimit::Protocol(MAX_BODY_LENGTH),
                stream,
            });
        }
        self.envelope = None;
        if self.frame.is_none()
            && self.encoder.dialect.version < ProtocolVersion::V5
            && length >= MIN_COMPRESSED_LENGTH
            && self.encoder.compressor.compress_body(
                self.encoder.compression,
                self.out,
                start + HEADER_LENGTH,
            )
        {
            self.out[start + FLAGS_OFFSET] |= flags::COMPRESSED;
        }
        let length = u32::try_from(self.out.len() - start - HEADER_LENGTH).expect("checked above");
        self.out[start + LENGTH_OFFSET..start + HEADER_LENGTH].copy_from_slice(&length.to_be_bytes());
        self.bound_frame(start);
        Ok(())
    }

    /// Closes the open frame before it outgrows its greatest length. `last` is where its last envelope starts.
    fn bound_frame(&mut self, last: usize) {
        let Some(frame) = self.frame else { return };
        let payload = frame + self.encoder.frame_header_length();
        if self.out.len() - payload <= MAX_PAYLOAD_LENGTH {
            return;
        }
        let envelope = self.out.split_off(last);
        if last > payload {
            self.close_frame();
        } else {
            self.out.truncate(frame);
            self.frame = None;
        }
        if envelope.len() <= MAX_PAYLOAD_LENGTH {
            self.append_frame(&envelope, true);
        } else {
            for piece in envelope.chunks(MAX_PAYLOAD_LENGTH) {
                self.append_frame(piece, false);
            }
        }
    }

    /// Appends a frame with this payload.
    pub(super) fn append_frame(&mut self, payload: &[u8], self_contained: bool) {
        let frame = self.out.len();
        let header = self.encoder.frame_header_length();
        self.out.reserve(header + payload.len() + TRAILER_LENGTH);
        self.out.put_bytes(0, header);
        self.out.put_slice(payload);
        self.seal(frame, self_contained);
    }

    fn close_frame(&mut self) {
        let Some(frame) = self.frame.take() else { return };
        if self.out.len() == frame + self.encoder.frame_header_length() {
            self.out.truncate(frame); // its only envelope was abandoned
        } else {
            self.seal(frame, true);
        }
    }

    /// Compresses the payload of the frame that starts at `frame` and ends the output, fills in its header and
    /// appends its trailer.
    fn seal(&mut self, frame: usize, self_contained: bool) {
        let self_contained = u64::from(self_contained);
        let payload = frame + self.encoder.frame_header_length();
        if self.encoder.compression == Compression::Lz4 {
            let length = self.out.len() - payload;
            let mut uncompressed = 0;
            if length >= MIN_COMPRESSED_LENGTH
                && let Some(block) = self.encoder.compressor.lz4(&self.out[payload..])
            {
                self.out.truncate(payload);
                self.out.put_slice(block);
                uncompressed = length as u64;
            }
            let length = (self.out.len() - payload) as u64;
            let bits = length | uncompressed << LENGTH_BITS | self_contained << (2 * LENGTH_BITS);
            self.fill_frame_header(frame, &bits.to_le_bytes()[..5]);
        } else {
            let length = (self.out.len() - payload) as u64;
            let bits = length | self_contained << LENGTH_BITS;
            self.fill_frame_header(frame, &bits.to_le_bytes()[..3]);
        }
        let crc = crc32(&self.out[payload..]);
        self.out.put_u32_le(crc);
    }

    fn fill_frame_header(&mut self, frame: usize, bits: &[u8]) {
        let crc = crc24(bits).to_le_bytes();
        let crc_start = frame + bits.len();
        self.out[frame..crc_start].copy_from_slice(bits);
        self.out[crc_start..crc_start + 3].copy_from_slice(&crc[..3]);
    }
}

impl Drop for FrameWriter<'_> {
    fn drop(&mut self) {
        if self.envelope.is_some() {
            self.abandon();
        }
        self.close_frame();
    }
}
