#![allow(clippy::unwrap_used)]

use bytes::{BufMut, Bytes, BytesMut};
use ceto_model::Consistency;

use super::*;
use crate::version::Extensions;

fn encode(dialect: impl Into<Dialect>, reason: ErrorReason) -> Bytes {
    let mut out = BytesMut::new();
    ErrorMessage::new(reason, "no").encode(dialect.into(), &mut out);
    out.freeze()
}

/// A body of this code with the message "no".
fn body(code: u32, rest: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32(code);
    out.put_slice(&[0, 2, b'n', b'o']);
    out.put_slice(rest);
    out.freeze()
}

fn progress() -> Progress {
    Progress {
        consistency: Consistency::Quorum,
        received: 1,
        block_for: 2,
    }
}

const PROGRESS: [u8; 10] = [0, 4, 0, 0, 0, 1, 0, 0, 0, 2];

fn with_progress(rest: &[u8]) -> Vec<u8> {
    [&PROGRESS[..], rest].concat()
}

const V3: ProtocolVersion = ProtocolVersion::V3;
const V4: ProtocolVersion = ProtocolVersion::V4;
const V5: ProtocolVersion = ProtocolVersion::V5;

#[test]
fn codes_map_both_ways() {
    for code in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_code(code.code()), Some(code));
    }
}

#[test]
fn errors_without_a_body() {
    for (reason, code) in [
        (ErrorReason::Server, 0x0000),
        (ErrorReason::Protocol, 0x000A),
        (ErrorReason::BadCredentials, 0x0100),
        (ErrorReason::Overloaded, 0x1001),
        (ErrorReason::IsBootstrapping, 0x1002),
        (ErrorReason::Truncate, 0x1003),
        (ErrorReason::Syntax, 0x2000),
        (ErrorReason::Unauthorized, 0x2100),
        (ErrorReason::Invalid, 0x2200),
        (ErrorReason::Config, 0x2300),
    ] {
        for version in ProtocolVersion::ALL {
            assert_eq!(encode(version, reason.clone()), body(code, &[]));
        }
    }
    assert_eq!(encode(V4, ErrorReason::CdcWriteFailure), body(0x1600, &[]));
}

#[test]
fn unavailable() {
    let reason = ErrorReason::Unavailable {
        consistency: Consistency::LocalQuorum,
        required: 2,
        alive: 1,
    };
    assert_eq!(encode(V4, reason), body(0x1000, &[0, 6, 0, 0, 0, 2, 0, 0, 0, 1]));
}

#[test]
fn timeouts() {
    let write = ErrorReason::WriteTimeout {
        progress: progress(),
        write_type: WriteType::Simple,
        contentions: None,
    };
    assert_eq!(encode(V4, write), body(0x1100, &with_progress(b"\0\x06SIMPLE")));
    let cas = ErrorReason::WriteTimeout {
        progress: progress(),
        write_type: WriteType::Cas,
        contentions: Some(7),
    };
    assert_eq!(
        encode(V4, cas.clone()),
        body(0x1100, &with_progress(b"\0\x03CAS"))
    );
    assert_eq!(encode(V5, cas), body(0x1100, &with_progress(b"\0\x03CAS\0\x07")));
    let read = ErrorReason::ReadTimeout {
        progress: progress(),
        data_present: true,
    };
    assert_eq!(encode(V3, read), body(0x1200, &with_progress(&[1])));
}

#[test]
fn failures_are_counted_in_v4_and_listed_in_v5() {
    let failures = Failures::new(vec![
        ([127, 0, 0, 1].into(), FailureReason::TIMEOUT),
        ([127, 0, 0, 2].into(), FailureReason::READ_TOO_MANY_TOMBSTONES),
    ]);
    let map = [0, 0, 0, 2, 4, 127, 0, 0, 1, 0, 2, 4, 127, 0, 0, 2, 0, 1];
    let read = ErrorReason::ReadFailure {
        progress: progress(),
        failures: failures.clone(),
        data_present: false,
    };
    assert_eq!(encode(V3, read.clone()), body(0x1200, &with_progress(&[0])));
    assert_eq!(
        encode(V4, read.clone()),
        body(0x1300, &with_progress(&[0, 0, 0, 2, 0]))
    );
    assert_eq!(
        encode(V5, read),
        body(0x1300, &with_progress(&[&map[..], &[0]].concat()))
    );
    let write = ErrorReason::WriteFailure {
        progress: progress(),
        failures,
        write_type: WriteType::UnloggedBatch,
    };
    let name = b"\0\x0EUNLOGGED_BATCH";
    assert_eq!(encode(V3, write.clone()), body(0x1100, &with_progress(name)));
    assert_eq!(
        encode(V4, write.clone()),
        body(0x1500, &with_progress(&[&[0, 0, 0, 2], &name[..]].concat()))
    );
    assert_eq!(
        encode(V5, write),
        body(0x1500, &with_progress(&[&map[..], name].concat()))
    );
}

#[test]
fn an_unknown_cas_result_is_a_timeout_before_v5() {
    let reason = ErrorReason::CasWriteUnknown { progress: progress() };
    assert_eq!(
        encode(V4, reason.clone()),
        body(0x1100, &with_progress(b"\0\x03CAS"))
    );
    assert_eq!(encode(V5, reason), body(0x1700, &PROGRESS));
}

#[test]
fn function_failures_are_invalid_requests_in_v3() {
    let reason = ErrorReason::FunctionFailure {
        keyspace: "k".into(),
        function: "f".into(),
        argument_types: vec!["int".into()],
    };
    assert_eq!(encode(V3, reason.clone()), body(0x2200, &[]));
    assert_eq!(encode(V4, reason), body(0x1400, b"\0\x01k\0\x01f\0\x01\0\x03int"));
    assert_eq!(encode(V3, ErrorReason::CdcWriteFailure), body(0x2200, &[]));
}

#[test]
fn what_exists_and_what_is_not_prepared() {
    let reason = ErrorReason::AlreadyExists {
        keyspace: "k".into(),
        table: String::new(),
    };
    assert_eq!(encode(V4, reason), body(0x2400, b"\0\x01k\0\0"));
    let reason = ErrorReason::Unprepared {
        id: Bytes::from_static(b"id"),
    };
    assert_eq!(encode(V4, reason), body(0x2500, b"\0\x02id"));
}

#[test]
fn a_rate_limit_is_a_configuration_error_unless_negotiated() {
    let reason = ErrorReason::RateLimit {
        write: true,
        rejected_by_coordinator: false,
    };
    assert_eq!(encode(V4, reason.clone()), body(0x2300, &[]));
    let extensions = Extensions {
        rate_limit_error: true,
        ..Extensions::default()
    };
    assert_eq!(
        encode(
            Dialect {
                version: V4,
                extensions
            },
            reason
        ),
        body(0xF000, &[1, 0])
    );
}
