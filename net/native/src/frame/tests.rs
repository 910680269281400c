#![allow(clippy::unwrap_used)]

use bytes::{BufMut, Bytes, BytesMut};

use super::{FrameDecoder, FrameEncoder, MAX_PAYLOAD_LENGTH};
use crate::compression::Compression;
use crate::envelope::{Direction, flags};
use crate::error::{ErrorCode, ErrorMessage};
use crate::opcode::Opcode;
use crate::request::{Request, RequestMessage};
use crate::version::ProtocolVersion;
use crate::violation::{LengthLimit, Violation};

const LIMIT: u32 = 1000;

/// OPTIONS of v5 on stream 1.
const OPTIONS: [u8; 9] = [5, 0, 0, 1, 5, 0, 0, 0, 0];

fn decoder() -> FrameDecoder {
    FrameDecoder::new(Direction::Request, LIMIT)
}

fn framed_decoder() -> FrameDecoder {
    let mut decoder = decoder();
    decoder.start_framing();
    decoder
}

fn framed_encoder() -> FrameEncoder {
    let mut encoder = FrameEncoder::new(ProtocolVersion::V5);
    encoder.start_framing();
    encoder
}

fn query_envelope(version: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![version, flags, 0, 9, 7];
    bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A frame with this payload, whatever it is.
fn frame(payload: &[u8], self_contained: bool) -> BytesMut {
    let mut encoder = framed_encoder();
    let mut out = BytesMut::new();
    encoder.writer(&mut out).append_frame(payload, self_contained);
    out
}

#[test]
fn a_frame_as_made_by_an_independent_encoder() {
    let expected = [
        0x09, 0x00, 0x02, 0xa4, 0xc8, 0xc1, 0x05, 0x00, 0x00, 0x01, 0x05, 0x00, 0x00, 0x00, 0x00, 0xb5, 0x55,
        0x74, 0x86,
    ];
    let mut out = BytesMut::new();
    framed_encoder()
        .writer(&mut out)
        .request(1, &RequestMessage::new(Request::Options))
        .unwrap();
    assert_eq!(out[..], expected);
    let mut decoder = framed_decoder();
    decoder.feed(&expected);
    assert_eq!(
        decoder.next_envelope().unwrap().unwrap().header.opcode,
        Opcode::Options
    );
}

#[test]
fn envelopes_of_one_writer_share_a_frame() {
    let expected = [
        0x12, 0x00, 0x02, 0xf6, 0xcb, 0xcf, 0x05, 0x00, 0x00, 0x01, 0x05, 0x00, 0x00, 0x00, 0x00, 0x05, 0x00,
        0x00, 0x01, 0x05, 0x00, 0x00, 0x00, 0x00, 0xb9, 0x76, 0xd9, 0x60,
    ];
    let mut encoder = framed_encoder();
    let mut out = BytesMut::new();
    let mut writer = encoder.writer(&mut out);
    let options = RequestMessage::new(Request::Options);
    writer.request(1, &options).unwrap();
    writer.request(1, &options).unwrap();
    drop(writer);
    assert_eq!(out[..], expected);
    let mut decoder = framed_decoder();
    decoder.feed(&expected);
    assert!(decoder.next_envelope().unwrap().is_some());
    assert!(decoder.next_envelope().unwrap().is_some());
    assert!(decoder.next_envelope().unwrap().is_none());
}

#[test]
fn a_short_payload_in_an_lz4_connection_is_stored() {
    let expected = [
        0x09, 0x00, 0x00, 0x00, 0x04, 0xc2, 0xb8, 0x95, 0x85, 0x00, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x00,
        0xea, 0x89, 0x01, 0x52,
    ];
    let mut encoder = framed_encoder();
    encoder.set_compression(Compression::Lz4);
    let mut out = BytesMut::new();
    encoder
        .writer(&mut out)
        .envelope(Opcode::Ready, 1, 0, |_| ())
        .unwrap();
    assert_eq!(out[..], expected);
    let mut decoder = FrameDecoder::new(Direction::Response, LIMIT);
    decoder.set_compression(Compression::Lz4);
    decoder.start_framing();
    decoder.feed(&expected);
    assert_eq!(
        decoder.next_envelope().unwrap().unwrap().header.opcode,
        Opcode::Ready
    );
}

#[test]
fn a_request_that_lies_whole_in_the_input_is_not_copied() {
    let input = Bytes::from(query_envelope(4, 0, b"body"));
    let mut decoder = decoder();
    decoder.feed_bytes(input.clone());
    let envelope = decoder.next_envelope().unwrap().unwrap();
    assert_eq!(envelope.body.as_ptr(), input[9..].as_ptr());
}

#[test]
fn the_receive_buffer_is_reused_once_its_requests_are_gone() {
    let input = query_envelope(4, 0, &[7; 100]);
    let mut decoder = decoder();
    let mut places = std::collections::BTreeSet::new();
    for _ in 0..10_000 {
        decoder.feed(&input);
        places.insert(decoder.next_envelope().unwrap().unwrap().body.as_ptr());
    }
    let (first, last) = (
        *places.first().unwrap() as usize,
        *places.last().unwrap() as usize,
    );
    assert!(last - first < 4096, "one page, reused");
}

#[test]
fn framing_starts_in_the_middle_of_the_input() {
    let mut input = BytesMut::from(&OPTIONS[..]);
    input.extend_from_slice(&frame(&OPTIONS, true));
    let mut decoder = decoder();
    decoder.feed(&input);
    assert!(decoder.next_envelope().unwrap().is_some());
    decoder.start_framing();
    assert!(decoder.next_envelope().unwrap().is_some());
    assert!(decoder.next_envelope().unwrap().is_none());
}

#[test]
fn a_request_of_an_unknown_version_gets_the_text_that_drivers_look_for() {
    let mut decoder = decoder();
    decoder.feed(&[0x42, 0, 0, 9, 5, 0, 0, 0]);
    assert_eq!(decoder.next_envelope(), Ok(None));
    decoder.feed(&[0]);
    let violation = decoder.next_envelope().unwrap_err();
    assert!(violation.is_fatal());
    assert_eq!(violation.stream(), Some(9));
    let error = ErrorMessage::from(&violation);
    assert_eq!(error.code(), ErrorCode::ProtocolError);
    assert_eq!(
        error.message,
        "Invalid or unsupported protocol version (66); the lowest supported version is 3 and the greatest is 5"
    );
    let mut out = BytesMut::new();
    let mut encoder = FrameEncoder::new(ProtocolVersion::GREATEST);
    encoder.writer(&mut out).response(9, &error.into()).unwrap();
    assert_eq!(out[..5], [0x85, 0, 0, 9, 0]);
    assert_eq!(out[9..13], [0, 0, 0, 0x0A]);
    assert_eq!(
        decoder.next_envelope(),
        Err(violation),
        "a fatal violation is repeated"
    );
}

#[test]
fn a_short_header_of_version_2_is_refused_without_waiting_for_more() {
    let mut decoder = decoder();
    decoder.feed(&[2, 0, 3, 5, 0, 0, 0, 0]);
    assert_eq!(
        decoder.next_envelope(),
        Err(Violation::UnsupportedVersion {
            version: 2,
            stream: 3
        })
    );
}

#[test]
fn a_version_in_beta_is_for_those_who_ask_for_it() {
    let mut refused = decoder();
    refused.feed(&query_envelope(6, 0, b""));
    let violation = refused.next_envelope().unwrap_err();
    assert_eq!(violation.stream(), Some(9));
    assert!(violation.is_fatal());
    assert_eq!(
        violation.to_string(),
        "Beta version of the protocol used (6/v6-beta), but USE_BETA flag is unset"
    );
    let mut accepted = decoder();
    accepted.feed(&query_envelope(6, flags::USE_BETA, b""));
    let header = accepted.next_envelope().unwrap().unwrap().header;
    assert_eq!(header.version, ProtocolVersion::V6);
}

#[test]
fn the_version_of_a_connection_does_not_change() {
    let mut decoder = decoder();
    decoder.feed(&query_envelope(4, 0, b""));
    decoder.feed(&query_envelope(3, 0, b""));
    assert!(decoder.next_envelope().unwrap().is_some());
    assert!(matches!(
        decoder.next_envelope(),
        Err(Violation::VersionChanged { stream: 9, .. })
    ));
}

#[test]
fn a_request_that_is_too_large_is_skipped_without_being_held() {
    for piece in [1, 7, 4000] {
        let mut input = query_envelope(4, 0, &[0; 3000]);
        input.extend(query_envelope(4, 0, b"next"));
        let mut decoder = decoder();
        let mut results = Vec::new();
        for chunk in input.chunks(piece) {
            decoder.feed(chunk);
            loop {
                match decoder.next_envelope() {
                    Ok(None) => break,
                    result => results.push(result),
                }
            }
            assert!(decoder.buffered() <= 9 + LIMIT as usize);
        }
        let [too_large, next] = &results[..] else {
            panic!("{results:?}")
        };
        let violation = too_large.as_ref().unwrap_err();
        assert_eq!(
            *violation,
            Violation::TooLarge {
                length: 3000,
                limit: LIMIT.into(),
                stream: 9
            }
        );
        assert_eq!(
            violation.to_string(),
            "Request is too big: length 3000 exceeds maximum allowed length 1000 (native_transport_max_frame_size)"
        );
        assert!(!violation.is_fatal());
        assert_eq!(next.as_ref().unwrap().as_ref().unwrap().body, "next");
    }
}

#[test]
fn what_is_too_large_before_startup_is_not_blamed_on_the_configuration() {
    let mut decoder = FrameDecoder::new(Direction::Request, LengthLimit::BeforeStartup(LIMIT));
    decoder.feed(&query_envelope(4, 9, &[0; 3000]));
    assert_eq!(
        decoder.next_envelope().unwrap_err().to_string(),
        "Request is too big: length 3000 exceeds maximum allowed length 1000 of messages before STARTUP is answered"
    );
    decoder.set_max_length(2000);
    decoder.feed(&query_envelope(4, 9, &[0; 3000]));
    assert!(
        decoder
            .next_envelope()
            .unwrap_err()
            .to_string()
            .ends_with("2000 (native_transport_max_frame_size)")
    );
}

#[test]
fn a_request_that_is_too_large_is_skipped_in_frames_too() {
    let mut input = frame(&query_envelope(5, 0, &[0; 3000]), true);
    let large = query_envelope(5, 0, &[0; MAX_PAYLOAD_LENGTH + 5]);
    for piece in large.chunks(MAX_PAYLOAD_LENGTH) {
        input.extend_from_slice(&frame(piece, false));
    }
    input.extend_from_slice(&frame(&query_envelope(5, 0, b"next"), true));
    let mut decoder = framed_decoder();
    decoder.feed(&input);
    assert!(matches!(
        decoder.next_envelope(),
        Err(Violation::TooLarge { length: 3000, .. })
    ));
    assert!(matches!(
        decoder.next_envelope(),
        Err(Violation::TooLarge { length: 131_076, .. })
    ));
    assert_eq!(decoder.next_envelope().unwrap().unwrap().body, "next");
}

#[test]
fn an_impossible_length_ends_the_connection() {
    let mut decoder = decoder();
    decoder.feed(&[4, 0, 0, 9, 7, 0xff, 0xff, 0xff, 0xff]);
    let violation = decoder.next_envelope().unwrap_err();
    assert!(violation.is_fatal());
}

#[test]
fn compression_must_be_negotiated() {
    let mut decoder = decoder();
    decoder.feed(&query_envelope(4, flags::COMPRESSED, b"body"));
    decoder.feed(&query_envelope(4, 0, b"next"));
    assert_eq!(
        decoder.next_envelope(),
        Err(Violation::UnexpectedCompression { stream: 9 })
    );
    assert_eq!(decoder.next_envelope().unwrap().unwrap().body, "next");
}

#[test]
fn the_compression_flag_means_nothing_in_frames() {
    let mut decoder = framed_decoder();
    decoder.feed(&frame(&query_envelope(5, flags::COMPRESSED, b"body"), true));
    assert_eq!(decoder.next_envelope().unwrap().unwrap().body, "body");
}

#[test]
fn a_decompressed_body_has_the_same_limit() {
    let mut encoder = FrameEncoder::new(ProtocolVersion::V4);
    encoder.set_compression(Compression::Lz4);
    let mut out = BytesMut::new();
    encoder
        .writer(&mut out)
        .envelope(Opcode::Query, 4, 0, |body| body.put_bytes(0, 3000))
        .unwrap();
    assert!(out.len() < 100);
    let mut decoder = decoder();
    decoder.set_compression(Compression::Lz4);
    decoder.feed(&out);
    let violation = decoder.next_envelope().unwrap_err();
    assert_eq!(
        violation,
        Violation::TooLarge {
            length: 3000,
            limit: LIMIT.into(),
            stream: 4
        }
    );
}

#[test]
fn every_flipped_bit_of_a_frame_is_noticed() {
    let whole = frame(&query_envelope(5, 0, b"a body"), true);
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut decoder = framed_decoder();
        decoder.feed(&bytes);
        match decoder.next_envelope() {
            Err(Violation::FrameHeaderChecksum { .. }) => assert!(bit < 48),
            Err(Violation::FramePayloadChecksum { .. }) => assert!(bit >= 48),
            other => panic!("bit {bit}: {other:?}"),
        }
    }
}

#[test]
fn a_cut_frame_is_incomplete_at_every_byte() {
    let whole = frame(&query_envelope(5, 0, b"a body"), true);
    for end in 0..whole.len() {
        let mut decoder = framed_decoder();
        decoder.feed(&whole[..end]);
        assert_eq!(decoder.next_envelope(), Ok(None));
        decoder.feed(&whole[end..]);
        assert_eq!(decoder.next_envelope().unwrap().unwrap().body, "a body");
    }
}

#[test]
fn envelopes_end_where_their_frames_end() {
    let envelope = query_envelope(5, 0, b"a body");
    let decode = |frames: &[BytesMut]| {
        let mut decoder = framed_decoder();
        frames.iter().for_each(|frame| decoder.feed(frame));
        loop {
            match decoder.next_envelope() {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(violation) => return Err(violation),
            }
        }
    };
    let boundary = |result: Result<(), Violation>| matches!(result, Err(Violation::FrameBoundary { .. }));
    let cut = |end: usize| &envelope[..end];
    assert!(boundary(decode(&[frame(cut(5), true)])));
    assert!(boundary(decode(&[frame(cut(11), true)])));
    assert!(boundary(decode(&[frame(cut(11), false), frame(&envelope, true)])));
    assert!(boundary(decode(&[
        frame(cut(11), false),
        frame(&envelope, false)
    ])));
    let too_large = query_envelope(5, 0, &[0; 3000]);
    assert!(matches!(
        decode(&[frame(&too_large[..20], false)]),
        Err(Violation::TooLarge { .. })
    ));
    assert_eq!(
        decode(&[frame(cut(3), false), frame(&envelope[3..], false)]),
        Ok(())
    );
    assert_eq!(
        decode(&[frame(&[], true), frame(&[], false), frame(&envelope, false)]),
        Ok(())
    );
}

#[test]
fn an_abandoned_envelope_leaves_no_trace() {
    for framed in [false, true] {
        let mut encoder = FrameEncoder::new(ProtocolVersion::V5);
        if framed {
            encoder.start_framing();
        }
        let mut out = BytesMut::from(&b"before"[..]);
        let mut writer = encoder.writer(&mut out);
        writer.begin(Opcode::Result, 1, 0).extend_from_slice(b"half a bo");
        writer.abandon();
        drop(writer);
        assert_eq!(out, "before");

        let mut writer = encoder.writer(&mut out);
        writer.envelope(Opcode::Ready, 1, 0, |_| ()).unwrap();
        drop(writer);
        let whole = out.clone();
        out.truncate(6);
        let mut writer = encoder.writer(&mut out);
        writer.envelope(Opcode::Ready, 1, 0, |_| ()).unwrap();
        writer.begin(Opcode::Result, 1, 0).extend_from_slice(b"half a bo");
        drop(writer);
        assert_eq!(out, whole);
    }
}

#[test]
fn flags_can_be_added_while_a_body_is_written() {
    let mut encoder = FrameEncoder::new(ProtocolVersion::V4);
    let mut out = BytesMut::new();
    let mut writer = encoder.writer(&mut out);
    writer
        .begin(Opcode::Result, 1, flags::TRACING)
        .extend_from_slice(b"body");
    writer.add_flags(flags::WARNING);
    writer.end().unwrap();
    drop(writer);
    assert_eq!(out[1], flags::TRACING | flags::WARNING);
}
