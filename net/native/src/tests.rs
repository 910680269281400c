//! Round trips of every message in every dialect, through whole connections, and what truncation does to them.

#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use crate::compression::Compression;
use crate::envelope::{Direction, Envelope, Header};
use crate::frame::{FrameDecoder, FrameEncoder};
use crate::opcode::Opcode;
use crate::request::RequestMessage;
use crate::response::ResponseMessage;
use crate::samples;
use crate::version::Dialect;

const LIMIT: u32 = 1 << 20;

fn envelope(dialect: Dialect, opcode: Opcode, flags: u8, body: Bytes) -> Envelope {
    let header = Header {
        version: dialect.version,
        flags,
        stream: 7,
        opcode,
        length: body.len() as u32,
    };
    Envelope { header, body }
}

fn request_envelope(dialect: Dialect, message: &RequestMessage) -> Envelope {
    let mut out = BytesMut::new();
    message.encode(dialect, &mut out);
    envelope(dialect, message.request.opcode(), message.flags(), out.freeze())
}

fn response_envelope(dialect: Dialect, message: &ResponseMessage) -> Envelope {
    let mut out = BytesMut::new();
    message.encode(dialect, &mut out);
    envelope(
        dialect,
        message.response.opcode(),
        message.flags(dialect),
        out.freeze(),
    )
}

/// All that are shorter, then all with one bit changed.
fn mutilations(envelope: &Envelope) -> impl Iterator<Item = Envelope> + '_ {
    let cut = (0..envelope.body.len()).map(|end| envelope.body.slice(..end));
    let flipped = (0..envelope.body.len() * 8).map(|bit| {
        let mut body = envelope.body.to_vec();
        body[bit / 8] ^= 1 << (bit % 8);
        Bytes::from(body)
    });
    cut.chain(flipped).map(|body| Envelope {
        body,
        header: envelope.header,
    })
}

fn in_dialect<T: std::fmt::Debug, S: Strategy<Value = T>>(
    strategy: impl Fn(Dialect) -> S,
) -> impl Strategy<Value = (Dialect, T)> {
    samples::dialect().prop_flat_map(move |dialect| (Just(dialect), strategy(dialect)))
}

fn compression(dialect: Dialect, choice: u8) -> Compression {
    match choice % 3 {
        0 => Compression::None,
        1 if dialect.version.number() < 5 => Compression::Snappy,
        _ => Compression::Lz4,
    }
}

/// Sends the output of `write` through a connection, in pieces of `piece` bytes, and returns the envelopes.
fn connection(
    dialect: Dialect,
    direction: Direction,
    compression: Compression,
    piece: usize,
    write: impl FnOnce(&mut FrameEncoder, &mut BytesMut),
) -> Vec<Envelope> {
    let mut encoder = FrameEncoder::new(dialect);
    let mut decoder = FrameDecoder::new(direction, LIMIT);
    encoder.set_compression(compression);
    decoder.set_compression(compression);
    if dialect.version.number() >= 5 {
        encoder.start_framing();
        decoder.start_framing();
    }
    let mut out = BytesMut::new();
    write(&mut encoder, &mut out);
    let mut envelopes = Vec::new();
    for (index, chunk) in out.chunks(piece).enumerate() {
        if index % 2 == 0 {
            decoder.feed(chunk);
        } else {
            decoder.feed_bytes(Bytes::copy_from_slice(chunk));
        }
        while let Some(envelope) = decoder.next_envelope().unwrap() {
            envelopes.push(envelope);
        }
    }
    assert_eq!(decoder.buffered(), 0);
    envelopes
}

proptest! {
    #[test]
    fn requests_survive((dialect, message) in in_dialect(samples::request)) {
        let envelope = request_envelope(dialect, &message);
        prop_assert_eq!(RequestMessage::decode(dialect, &envelope).unwrap(), message);
    }

    #[test]
    fn responses_survive((dialect, message) in in_dialect(samples::response)) {
        let envelope = response_envelope(dialect, &message);
        prop_assert_eq!(ResponseMessage::decode(dialect, &envelope).unwrap(), message);
    }

    #[test]
    fn a_mutilated_request_is_refused_or_is_another((dialect, message) in in_dialect(samples::request)) {
        for envelope in mutilations(&request_envelope(dialect, &message)) {
            if let Ok(other) = RequestMessage::decode(dialect, &envelope) {
                let again = request_envelope(dialect, &other);
                prop_assert_eq!(RequestMessage::decode(dialect, &again).unwrap(), other);
            }
        }
    }

    #[test]
    fn a_mutilated_response_is_refused_or_is_another((dialect, message) in in_dialect(samples::response)) {
        for envelope in mutilations(&response_envelope(dialect, &message)) {
            if let Ok(other) = ResponseMessage::decode(dialect, &envelope) {
                // Walks over what is decoded lazily.
                let _ = format!("{other:?}");
                let mut out = BytesMut::new();
                other.encode(dialect, &mut out);
            }
        }
    }

    #[test]
    fn a_cut_request_is_refused((dialect, message) in in_dialect(samples::request)) {
        let whole = request_envelope(dialect, &message);
        for end in 0..whole.body.len() {
            let envelope = Envelope { body: whole.body.slice(..end), header: whole.header };
            prop_assert!(RequestMessage::decode(dialect, &envelope).is_err());
        }
    }

    #[test]
    fn requests_survive_a_connection(
        (dialect, messages) in in_dialect(|dialect| prop::collection::vec(samples::request(dialect), 1..8)),
        choice in any::<u8>(),
        piece in 1_usize..200,
    ) {
        let compression = compression(dialect, choice);
        let envelopes = connection(dialect, Direction::Request, compression, piece, |encoder, out| {
            for (stream, pair) in messages.chunks(2).enumerate() {
                let mut writer = encoder.writer(out);
                for message in pair {
                    writer.request(stream as i16, message).unwrap();
                }
            }
        });
        prop_assert_eq!(envelopes.len(), messages.len());
        for (index, (envelope, message)) in envelopes.iter().zip(&messages).enumerate() {
            prop_assert_eq!(usize::try_from(envelope.header.stream).unwrap(), index / 2);
            prop_assert_eq!(&RequestMessage::decode(dialect, envelope).unwrap(), message);
        }
    }

    #[test]
    fn responses_survive_a_connection(
        (dialect, messages) in in_dialect(|dialect| prop::collection::vec(samples::response(dialect), 1..8)),
        choice in any::<u8>(),
        piece in 1_usize..200,
    ) {
        let compression = compression(dialect, choice);
        let envelopes = connection(dialect, Direction::Response, compression, piece, |encoder, out| {
            let mut writer = encoder.writer(out);
            for (stream, message) in messages.iter().enumerate() {
                writer.response(stream as i16, message).unwrap();
            }
        });
        prop_assert_eq!(envelopes.len(), messages.len());
        for (envelope, message) in envelopes.iter().zip(&messages) {
            prop_assert_eq!(&ResponseMessage::decode(dialect, envelope).unwrap(), message);
        }
    }

    #[test]
    fn bodies_of_any_size_survive_a_connection(
        dialect in samples::dialect(),
        lengths in prop::collection::vec(prop_oneof![0_usize..300, 131_000_usize..131_100, 0_usize..600_000], 1..5),
        choice in any::<u8>(),
        piece in 1_usize..100_000,
        noise in any::<bool>(),
    ) {
        // Either compressible or not.
        let mut state = 1_u64;
        let bodies: Vec<Vec<u8>> = lengths.iter().map(|&length| (0..length).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if noise { (state >> 56) as u8 } else { (state >> 62) as u8 }
        }).collect()).collect();
        let compression = compression(dialect, choice);
        let envelopes = connection(dialect, Direction::Response, compression, piece, |encoder, out| {
            let mut writer = encoder.writer(out);
            for body in &bodies {
                writer.envelope(Opcode::Result, 3, 0, |out| out.extend_from_slice(body)).unwrap();
            }
        });
        let bytes: Vec<Bytes> = envelopes.into_iter().map(|envelope| envelope.body).collect();
        prop_assert_eq!(bytes, bodies);
    }
}
