//! Socket bytes to envelopes. See the module above for the formats.

use bytes::{Buf, Bytes, BytesMut};

use super::inflow::Inflow;
use super::{
    COMPRESSED_FRAME_HEADER_LENGTH, CRC24_LENGTH, FRAME_HEADER_LENGTH, LENGTH_BITS, MAX_PAYLOAD_LENGTH,
    TRAILER_LENGTH,
};
use crate::checksum::{crc24, crc32};
use crate::compression::{Compression, decompress_body, decompress_lz4};
use crate::envelope::{Direction, Envelope, HEADER_LENGTH, Header, flags};
use crate::version::ProtocolVersion;
use crate::violation::{LengthLimit, Violation};

/// Bytes of a header of versions 1 and 2.
const LEGACY_HEADER_LENGTH: usize = HEADER_LENGTH - 1;

/// Decodes the envelopes of one direction of one connection.
///
/// Feed it what the socket gives, then call [`FrameDecoder::next_envelope`] until it returns None. It decodes only
/// when asked, so the settings may change between two envelopes of one piece of input.
pub struct FrameDecoder {
    direction: Direction,
    limit: LengthLimit,
    compression: Compression,
    framed: bool,
    version: Option<ProtocolVersion>,
    inflow: Inflow,
    /// Bytes of a body that is too large, still to be skipped.
    skip: u64,
    /// Envelopes of a self-contained frame that are not returned yet.
    payload: Bytes,
    /// The start of an envelope that spans frames.
    partial: BytesMut,
    failed: Option<Violation>,
}

/// See [`FrameDecoder::under_way`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnderWay {
    /// Its stream, once its header has been seen.
    pub stream: Option<i16>,
    /// Bytes of it, header and all.
    pub length: usize,
}

/// The header of a v5 frame.
struct FrameHeader {
    /// Bytes of the payload on the wire.
    length: usize,
    /// Bytes of the payload before compression; 0 if it is not compressed.
    uncompressed: usize,
    self_contained: bool,
}

impl FrameDecoder {
    /// For envelopes of `direction` with bodies of up to `limit`, on the wire and decompressed.
    pub fn new(direction: Direction, limit: impl Into<LengthLimit>) -> Self {
        FrameDecoder {
            direction,
            limit: limit.into(),
            compression: Compression::None,
            framed: false,
            version: None,
            inflow: Inflow::default(),
            skip: 0,
            payload: Bytes::new(),
            partial: BytesMut::new(),
            failed: None,
        }
    }

    /// Sets the greatest length of a body, in bytes, that configuration allows.
    pub fn set_max_length(&mut self, max_length: u32) {
        self.limit = LengthLimit::Configured(max_length);
    }

    /// Sets what STARTUP has negotiated.
    pub fn set_compression(&mut self, compression: Compression) {
        self.compression = compression;
    }

    /// v5: what follows is in frames. To be called at READY or AUTHENTICATE.
    pub fn start_framing(&mut self) {
        self.framed = true;
    }

    /// The version of the envelopes so far.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.version
    }

    /// Bytes held that are not returned yet.
    pub fn buffered(&self) -> usize {
        self.inflow.len() + self.payload.len() + self.partial.len()
    }

    /// The envelope whose start has arrived and whose end has not: the bytes that it will have taken when it is complete,
    /// as far as is known. The limit and a frame bound them.
    pub fn under_way(&self) -> Option<UnderWay> {
        if !self.framed {
            let header = self.inflow.peek::<HEADER_LENGTH>().filter(|_| self.skip == 0)?;
            let header = Header::decode(&header, self.direction).ok()?;
            return Some(UnderWay {
                stream: Some(header.stream),
                length: HEADER_LENGTH + header.length as usize,
            });
        }
        if let Some(bytes) = self.partial.first_chunk::<HEADER_LENGTH>() {
            let header = Header::decode(bytes, self.direction).ok()?;
            return Some(UnderWay {
                stream: Some(header.stream),
                length: HEADER_LENGTH + header.length as usize,
            });
        }
        // A frame; what is in it is known when all of it is there.
        (self.inflow.len() > 0).then_some(UnderWay {
            stream: None,
            length: COMPRESSED_FRAME_HEADER_LENGTH + MAX_PAYLOAD_LENGTH + TRAILER_LENGTH,
        })
    }

    /// Drops the envelope that is under way: what of it is still to come is skipped. Nothing happens when its stream
    /// is not known yet.
    pub fn skip_under_way(&mut self) {
        let Some(UnderWay {
            stream: Some(_),
            length,
        }) = self.under_way()
        else {
            return;
        };
        if self.framed {
            self.skip = length.saturating_sub(self.partial.len()) as u64;
            self.partial = BytesMut::new();
        } else {
            self.skip = length as u64;
            self.skip -= self.inflow.discard(self.skip);
        }
    }

    /// Appends received bytes, copied once; the envelopes share that copy.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.inflow.feed(bytes);
    }

    /// Appends received bytes; envelopes that lie whole in them share their memory.
    pub fn feed_bytes(&mut self, bytes: Bytes) {
        self.inflow.feed_bytes(bytes);
    }

    /// The next envelope, or None until more bytes arrive.
    ///
    /// After a violation that is not fatal the next call goes on with the next envelope.
    pub fn next_envelope(&mut self) -> Result<Option<Envelope>, Violation> {
        if let Some(violation) = &self.failed {
            return Err(violation.clone());
        }
        let result = if self.framed {
            self.next_framed()
        } else {
            self.next_raw()
        };
        if let Err(violation) = &result
            && violation.is_fatal()
        {
            self.failed = Some(violation.clone());
        }
        result
    }

    fn next_raw(&mut self) -> Result<Option<Envelope>, Violation> {
        self.skip -= self.inflow.discard(self.skip);
        if self.skip > 0 {
            return Ok(None);
        }
        self.check_legacy_version()?;
        let Some(bytes) = self.inflow.peek::<HEADER_LENGTH>() else {
            return Ok(None);
        };
        let header = self.decode_header(&bytes)?;
        if let Err(violation) = self.check_length(&header) {
            self.skip = HEADER_LENGTH as u64 + u64::from(header.length);
            self.skip -= self.inflow.discard(self.skip);
            return Err(violation);
        }
        let Some(mut body) = self.inflow.take(HEADER_LENGTH + header.length as usize) else {
            return Ok(None);
        };
        body.advance(HEADER_LENGTH);
        if header.has(flags::COMPRESSED) && header.version < ProtocolVersion::V5 {
            body = decompress_body(self.compression, body, self.limit, header.stream)?;
        }
        Ok(Some(Envelope { header, body }))
    }

    /// Versions 1 and 2 have a header of 8 bytes with a stream of one, so a peer that speaks them may never send 9.
    fn check_legacy_version(&self) -> Result<(), Violation> {
        match self.inflow.peek::<LEGACY_HEADER_LENGTH>() {
            Some([first, _, stream, ..]) if first & 0x7f < ProtocolVersion::LOWEST.number() => {
                let stream = i16::from(stream.cast_signed());
                Err(Violation::UnsupportedVersion {
                    version: first & 0x7f,
                    stream,
                })
            }
            _ => Ok(()),
        }
    }

    fn decode_header(&mut self, bytes: &[u8; HEADER_LENGTH]) -> Result<Header, Violation> {
        let header = Header::decode(bytes, self.direction)?;
        match self.version {
            // A server may answer a request of a version it does not serve in a version of its own.
            Some(expected) if expected != header.version && self.direction == Direction::Request => {
                Err(Violation::VersionChanged {
                    got: header.version,
                    expected,
                    stream: header.stream,
                })
            }
            _ => {
                self.version = Some(header.version);
                Ok(header)
            }
        }
    }

    fn check_length(&self, header: &Header) -> Result<(), Violation> {
        if header.length > self.limit.bytes() {
            return Err(Violation::TooLarge {
                length: u64::from(header.length),
                limit: self.limit,
                stream: header.stream,
            });
        }
        Ok(())
    }

    fn next_framed(&mut self) -> Result<Option<Envelope>, Violation> {
        loop {
            if !self.payload.is_empty() {
                return self.next_in_payload().map(Some);
            }
            let Some((header, payload)) = self.next_frame()? else {
                return Ok(None);
            };
            if header.self_contained {
                if self.skip > 0 || !self.partial.is_empty() {
                    return Err(boundary(
                        "a self-contained frame inside an envelope that spans frames",
                    ));
                }
                self.payload = payload;
            } else if let Some(envelope) = self.extend_partial(&payload)? {
                return Ok(Some(envelope));
            }
        }
    }

    /// The next envelope of a self-contained frame, which must hold all of it.
    fn next_in_payload(&mut self) -> Result<Envelope, Violation> {
        let Some(bytes) = self.payload.first_chunk::<HEADER_LENGTH>().copied() else {
            return Err(boundary(
                "a self-contained frame ends inside the header of an envelope",
            ));
        };
        let header = self.decode_header(&bytes)?;
        let end = HEADER_LENGTH + header.length as usize;
        if self.payload.len() < end {
            return Err(boundary("a self-contained frame ends inside an envelope"));
        }
        let mut body = self.payload.split_to(end);
        body.advance(HEADER_LENGTH);
        self.check_length(&header)?;
        Ok(Envelope { header, body })
    }

    /// Adds a payload to the envelope that spans frames; returns that when it is complete.
    fn extend_partial(&mut self, payload: &[u8]) -> Result<Option<Envelope>, Violation> {
        if self.skip > 0 {
            let rest = self.skip.checked_sub(payload.len() as u64);
            self.skip = rest.ok_or_else(|| boundary("a frame goes on after the end of its envelope"))?;
            return Ok(None);
        }
        self.partial.extend_from_slice(payload);
        let Some(bytes) = self.partial.first_chunk::<HEADER_LENGTH>().copied() else {
            return Ok(None);
        };
        let header = self.decode_header(&bytes)?;
        let end = HEADER_LENGTH + header.length as usize;
        let Some(missing) = end.checked_sub(self.partial.len()) else {
            return Err(boundary("a frame goes on after the end of its envelope"));
        };
        if let Err(violation) = self.check_length(&header) {
            self.skip = missing as u64;
            self.partial = BytesMut::new();
            return Err(violation);
        }
        if missing > 0 {
            return Ok(None);
        }
        let mut body = std::mem::take(&mut self.partial).freeze();
        body.advance(HEADER_LENGTH);
        Ok(Some(Envelope { header, body }))
    }

    /// The next frame, checked and decompressed.
    fn next_frame(&mut self) -> Result<Option<(FrameHeader, Bytes)>, Violation> {
        let compressed = self.compression == Compression::Lz4;
        let (header, header_length) = if compressed {
            let Some(bytes) = self.inflow.peek::<COMPRESSED_FRAME_HEADER_LENGTH>() else {
                return Ok(None);
            };
            (
                decode_compressed_frame_header(&bytes)?,
                COMPRESSED_FRAME_HEADER_LENGTH,
            )
        } else {
            let Some(bytes) = self.inflow.peek::<FRAME_HEADER_LENGTH>() else {
                return Ok(None);
            };
            (decode_frame_header(&bytes)?, FRAME_HEADER_LENGTH)
        };
        let Some(mut payload) = self.inflow.take(header_length + header.length + TRAILER_LENGTH) else {
            return Ok(None);
        };
        payload.advance(header_length);
        let trailer = payload.split_off(header.length);
        let expected = trailer
            .first_chunk()
            .map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let got = crc32(&payload);
        if got != expected {
            return Err(Violation::FramePayloadChecksum { expected, got });
        }
        if header.uncompressed > 0 {
            payload = decompress_lz4(&payload, header.uncompressed as u64, None)?;
        }
        Ok(Some((header, payload)))
    }
}

fn boundary(reason: &'static str) -> Violation {
    Violation::FrameBoundary { reason }
}

fn decode_frame_header(bytes: &[u8; FRAME_HEADER_LENGTH]) -> Result<FrameHeader, Violation> {
    let [b0, b1, b2, crc @ ..] = *bytes;
    check_crc24(&[b0, b1, b2], crc)?;
    let bits = u64::from(u32::from_le_bytes([b0, b1, b2, 0]));
    Ok(FrameHeader {
        length: bits as usize & MAX_PAYLOAD_LENGTH,
        uncompressed: 0,
        self_contained: bits >> LENGTH_BITS & 1 == 1,
    })
}

fn decode_compressed_frame_header(
    bytes: &[u8; COMPRESSED_FRAME_HEADER_LENGTH],
) -> Result<FrameHeader, Violation> {
    let [b0, b1, b2, b3, b4, crc @ ..] = *bytes;
    check_crc24(&[b0, b1, b2, b3, b4], crc)?;
    let bits = u64::from_le_bytes([b0, b1, b2, b3, b4, 0, 0, 0]);
    Ok(FrameHeader {
        length: bits as usize & MAX_PAYLOAD_LENGTH,
        uncompressed: (bits >> LENGTH_BITS) as usize & MAX_PAYLOAD_LENGTH,
        self_contained: bits >> (2 * LENGTH_BITS) & 1 == 1,
    })
}

fn check_crc24(header: &[u8], [c0, c1, c2]: [u8; CRC24_LENGTH]) -> Result<(), Violation> {
    let expected = u32::from_le_bytes([c0, c1, c2, 0]);
    let got = crc24(header);
    if got != expected {
        return Err(Violation::FrameHeaderChecksum { expected, got });
    }
    Ok(())
}
