//! Frames and envelopes of a connection.
//!
//! ```text
//! | settings u8 | piece length u8 | stream bytes |
//! settings: bits 0, 1 compression   bit 2 framed   bit 3 response   bit 4 wrap the bytes in valid frames
//! ```
//!
//! With bit 4 the input is cut into payloads whose frames have right checksums, which mutation would not find.

use bytes::{BufMut, Bytes, BytesMut};
use ceto_native::checksum::{crc24, crc32};
use ceto_native::{
    Compression, Direction, Envelope, FrameDecoder, FrameEncoder, Opcode, ProtocolVersion, Violation,
};

const LIMIT: u32 = 64 << 10;
const FRAMED: u8 = 4;
const RESPONSE: u8 = 8;
const WRAPPED: u8 = 16;

/// Decodes a stream in one piece and in small ones.
pub fn run(input: &[u8]) {
    let [settings, piece, stream @ ..] = input else {
        return;
    };
    let wrapped;
    let stream = if settings & WRAPPED != 0 {
        wrapped = wrap(settings & 3 == 1, stream);
        &wrapped[..]
    } else {
        stream
    };
    let whole = decode(*settings, stream, stream.len().max(1));
    let pieces = decode(*settings, stream, usize::from(*piece).max(1));
    assert_eq!(
        whole, pieces,
        "the meaning of a stream does not depend on how it arrives"
    );
}

/// Everything the decoder says until it needs more or gives up.
fn decode(settings: u8, stream: &[u8], piece: usize) -> Vec<Result<Envelope, Violation>> {
    let direction = if settings & RESPONSE != 0 {
        Direction::Response
    } else {
        Direction::Request
    };
    let mut decoder = FrameDecoder::new(direction, LIMIT);
    decoder.set_compression(compression(settings));
    if settings & (FRAMED | WRAPPED) != 0 {
        decoder.start_framing();
    }
    let mut results = Vec::new();
    for (index, chunk) in stream.chunks(piece).enumerate() {
        if index % 3 == 0 {
            decoder.feed_bytes(Bytes::copy_from_slice(chunk));
        } else {
            decoder.feed(chunk);
        }
        loop {
            match decoder.next_envelope() {
                Ok(None) => break,
                Ok(Some(envelope)) => results.push(Ok(envelope)),
                Err(violation) => {
                    let fatal = violation.is_fatal();
                    results.push(Err(violation));
                    if fatal {
                        return results;
                    }
                }
            }
        }
        let held = LIMIT as usize + 9 + 2 * (1 << 17) + chunk.len();
        assert!(decoder.buffered() <= held, "{} bytes held", decoder.buffered());
    }
    results
}

fn compression(settings: u8) -> Compression {
    match settings & 3 {
        1 => Compression::Lz4,
        2 if settings & (FRAMED | WRAPPED) == 0 => Compression::Snappy,
        _ => Compression::None,
    }
}

/// Frames of right checksums around payloads: `| self-contained u8 | length u8 | payload |`, again and again.
fn wrap(lz4: bool, mut input: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    while let [self_contained, length, rest @ ..] = input {
        let (payload, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        input = rest;
        let self_contained = u64::from(self_contained & 1);
        let length = payload.len() as u64;
        let (bits, header_length) = if lz4 {
            // The uncompressed length comes from the payload, which is compressed only by chance.
            let uncompressed = payload
                .first_chunk()
                .map_or(0, |b| u64::from(u16::from_le_bytes(*b)));
            (length | uncompressed << 17 | self_contained << 34, 5)
        } else {
            (length | self_contained << 17, 3)
        };
        let header = &bits.to_le_bytes()[..header_length];
        out.put_slice(header);
        out.put_slice(&crc24(header).to_le_bytes()[..3]);
        out.put_slice(payload);
        out.put_u32_le(crc32(payload));
    }
    out
}

/// Streams of a few envelopes in every setting.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for settings in 0..16_u8 {
        let framed = settings & FRAMED != 0;
        if settings & 3 == 3 || framed && settings & 3 == 2 {
            continue;
        }
        for version in ProtocolVersion::ALL {
            if framed && version < ProtocolVersion::V5 {
                continue;
            }
            seeds.push(seed(settings, version));
        }
    }
    let envelope = [5, 0, 0, 1, 5, 0, 0, 0, 2, 7, 7];
    for settings in [WRAPPED, WRAPPED | 1] {
        seeds.push([&[settings, 3, 1, 11][..], &envelope, &[1, 11], &envelope].concat());
        seeds.push([&[settings, 3, 0, 5][..], &envelope[..5], &[0, 6], &envelope[5..]].concat());
    }
    seeds
}

fn seed(settings: u8, version: ProtocolVersion) -> Vec<u8> {
    let opcode = if settings & RESPONSE != 0 {
        Opcode::Result
    } else {
        Opcode::Query
    };
    let mut encoder = FrameEncoder::new(version);
    encoder.set_compression(compression(settings));
    if settings & FRAMED != 0 {
        encoder.start_framing();
    }
    let mut out = BytesMut::from(&[settings, 7][..]);
    for length in [0, 40, 400] {
        let mut writer = encoder.writer(&mut out);
        for stream in 0..2 {
            let body = |out: &mut BytesMut| out.put_bytes(stream as u8, length);
            writer.envelope(opcode, stream, 0, body).expect("a short body");
        }
    }
    out.to_vec()
}
