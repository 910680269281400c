#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use ceto_model::Consistency;

use super::*;
use crate::envelope::Header;
use crate::values::{BoundValue, Values};

fn decode(version: ProtocolVersion, opcode: Opcode, body: &[u8]) -> Result<Request, Violation> {
    let header = Header {
        version,
        flags: 0,
        stream: 0,
        opcode,
        length: body.len() as u32,
    };
    let envelope = Envelope {
        header,
        body: Bytes::copy_from_slice(body),
    };
    Ok(RequestMessage::decode(version.into(), &envelope)?.request)
}

fn encode(version: ProtocolVersion, request: Request) -> Vec<u8> {
    let mut out = BytesMut::new();
    RequestMessage::new(request).encode(version.into(), &mut out);
    out.to_vec()
}

fn assert_golden(version: ProtocolVersion, request: Request, body: &[u8]) {
    assert_eq!(decode(version, request.opcode(), body).unwrap(), request);
    assert_eq!(encode(version, request), body);
}

const V3: ProtocolVersion = ProtocolVersion::V3;
const V4: ProtocolVersion = ProtocolVersion::V4;
const V5: ProtocolVersion = ProtocolVersion::V5;

#[test]
fn startup() {
    let body = b"\0\x02\0\x0BCQL_VERSION\0\x053.0.0\0\x0BCOMPRESSION\0\x03lz4";
    let options = vec![
        ("CQL_VERSION".into(), "3.0.0".into()),
        ("COMPRESSION".into(), "lz4".into()),
    ];
    let startup = Startup { options };
    assert_eq!(startup.option(startup_options::CQL_VERSION), Some("3.0.0"));
    assert_eq!(startup.compression(V4), Ok(Compression::Lz4));
    assert_golden(V4, Request::Startup(startup), body);
}

#[test]
fn a_query_without_parameters() {
    let query = Query {
        query: "SELECT 1".into(),
        parameters: QueryParameters::new(Consistency::LocalQuorum),
    };
    assert_golden(V4, Request::Query(query.clone()), b"\0\0\0\x08SELECT 1\0\x06\0");
    assert_golden(V5, Request::Query(query), b"\0\0\0\x08SELECT 1\0\x06\0\0\0\0");
}

#[test]
fn a_query_with_every_parameter() {
    let parameters = QueryParameters {
        values: Values::builder().value(b"v").null().names(["a", "b"]).build(),
        skip_metadata: true,
        page_size: Some(100),
        paging_state: Some(Bytes::from_static(b"ps")),
        serial_consistency: Some(Consistency::LocalSerial),
        timestamp: Some(-2),
        keyspace: Some("k".into()),
        now_in_seconds: Some(3),
        ..QueryParameters::new(Consistency::One)
    };
    let body = b"\0\0\0\x01q\0\x01\0\0\x01\xFF\
        \0\x02\0\x01a\0\0\0\x01v\0\x01b\xFF\xFF\xFF\xFF\
        \0\0\0\x64\0\0\0\x02ps\0\x09\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFE\0\x01k\0\0\0\x03";
    assert_golden(
        V5,
        Request::Query(Query {
            query: "q".into(),
            parameters,
        }),
        body,
    );
}

#[test]
fn prepare_has_flags_in_v5_only() {
    let prepare = |keyspace: Option<&str>| {
        Request::Prepare(Prepare {
            query: "q".into(),
            keyspace: keyspace.map(str::to_owned),
        })
    };
    assert_golden(V4, prepare(None), b"\0\0\0\x01q");
    assert_golden(V5, prepare(None), b"\0\0\0\x01q\0\0\0\0");
    assert_golden(V5, prepare(Some("k")), b"\0\0\0\x01q\0\0\0\x01\0\x01k");
}

#[test]
fn execute_has_a_metadata_id_in_v5() {
    let execute = |id: Option<&'static [u8]>| {
        let parameters = QueryParameters {
            values: Values::builder().value(&[1, 2]).unset().build(),
            ..QueryParameters::new(Consistency::One)
        };
        let result_metadata_id = id.map(Bytes::from_static);
        Request::Execute(Execute {
            id: Bytes::from_static(b"id"),
            result_metadata_id,
            parameters,
        })
    };
    let values = b"\0\x02\0\0\0\x02\x01\x02\xFF\xFF\xFF\xFE";
    assert_golden(V4, execute(None), &[&b"\0\x02id\0\x01\x01"[..], values].concat());
    assert_golden(
        V5,
        execute(Some(b"m")),
        &[&b"\0\x02id\0\x01m\0\x01\0\0\0\x01"[..], values].concat(),
    );
}

#[test]
fn batch() {
    let statements = vec![
        BatchStatement {
            source: StatementSource::Query("q".into()),
            values: Values::from_iter([BoundValue::Value(Bytes::from_static(b"v"))]),
        },
        BatchStatement {
            source: StatementSource::Prepared(Bytes::from_static(b"id")),
            values: Values::default(),
        },
    ];
    let parameters = QueryParameters {
        timestamp: Some(5),
        ..QueryParameters::new(Consistency::Quorum)
    };
    let batch = Batch {
        kind: BatchKind::Unlogged,
        statements,
        parameters,
    };
    let body = b"\x01\0\x02\0\0\0\0\x01q\0\x01\0\0\0\x01v\x01\0\x02id\0\0\0\x04\x20\0\0\0\0\0\0\0\x05";
    assert_golden(V3, Request::Batch(batch), body);
}

#[test]
fn register_and_authentication() {
    let body = b"\0\x02\0\x0FTOPOLOGY_CHANGE\0\x0DSTATUS_CHANGE";
    assert_golden(
        V4,
        Request::Register(vec![EventType::TopologyChange, EventType::StatusChange]),
        body,
    );
    let error = decode(V4, Opcode::Register, b"\0\x01\0\x03FOO").unwrap_err();
    assert_eq!(error.to_string(), "Invalid value 'FOO' for an event type");
    let token = Bytes::from_static(b"\0user\0pass");
    assert_golden(V4, Request::AuthResponse(Some(token)), b"\0\0\0\x0A\0user\0pass");
    assert_golden(V4, Request::AuthResponse(None), b"\xFF\xFF\xFF\xFF");
    assert_golden(V4, Request::Options, b"");
}

#[test]
fn every_negative_length_is_null_in_v3() {
    let body = b"\0\0\0\x01q\0\x01\x01\0\x02\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFE";
    let Request::Query(query) = decode(V3, Opcode::Query, body).unwrap() else {
        panic!()
    };
    let values: Vec<_> = query.parameters.values.iter().collect();
    assert_eq!(values, [BoundValue::Null, BoundValue::Null]);
    let Request::Query(query) = decode(V4, Opcode::Query, body).unwrap() else {
        panic!()
    };
    let values: Vec<_> = query.parameters.values.iter().collect();
    assert_eq!(values, [BoundValue::Null, BoundValue::Unset]);
    let body = b"\0\0\0\x01q\0\x01\x01\0\x01\xFF\xFF\xFF\xFD";
    assert!(matches!(
        decode(V4, Opcode::Query, body),
        Err(Violation::InvalidLength { length: -3, .. })
    ));
}

#[test]
fn values_share_the_memory_of_the_request() {
    let body = Bytes::from_static(b"\0\x02id\0\x01\x01\0\x01\0\0\0\x03abc");
    let header = Header {
        version: V4,
        flags: 0,
        stream: 0,
        opcode: Opcode::Execute,
        length: body.len() as u32,
    };
    let envelope = Envelope {
        header,
        body: body.clone(),
    };
    let message = RequestMessage::decode(V4.into(), &envelope).unwrap();
    let Request::Execute(execute) = message.request else {
        panic!()
    };
    let Some(BoundValue::Value(value)) = execute.parameters.values.get(0) else {
        panic!()
    };
    assert_eq!(value, "abc");
    assert_eq!(value.as_ptr(), body[13..].as_ptr());
    assert_eq!(execute.parameters.values.slice(0), Some(&b"abc"[..]));
}

#[test]
fn parameters_out_of_range_are_refused() {
    let refused = |body: &[u8]| matches!(decode(V4, Opcode::Query, body), Err(Violation::OutOfRange { .. }));
    assert!(refused(b"\0\0\0\x01q\0\x01\x04\0\0\0\0"), "page size 0");
    assert!(refused(b"\0\0\0\x01q\0\x01\x10\0\x01"), "serial consistency ONE");
    assert!(
        refused(b"\0\0\0\x01q\0\x01\x20\x80\0\0\0\0\0\0\0"),
        "the least timestamp"
    );
    assert!(matches!(
        decode(V4, Opcode::Query, b"\0\0\0\x01q\0\x0B\0"),
        Err(Violation::UnknownCode { code: 11, .. })
    ));
    let Request::Query(query) = decode(V4, Opcode::Query, b"\0\0\0\x01q\0\x01\x04\xFF\xFF\xFF\xFF").unwrap()
    else {
        panic!()
    };
    assert_eq!(query.parameters.page_size, None);
}

#[test]
fn what_stands_behind_a_message_is_ignored() {
    assert_eq!(decode(V4, Opcode::Options, b"more"), Ok(Request::Options));
}
