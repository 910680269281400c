#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use ceto_model::CqlType;

use super::*;
use crate::envelope::Header;
use crate::version::Extensions;

const V3: ProtocolVersion = ProtocolVersion::V3;
const V4: ProtocolVersion = ProtocolVersion::V4;
const V5: ProtocolVersion = ProtocolVersion::V5;

fn encode(dialect: impl Into<Dialect>, response: &Response) -> Vec<u8> {
    let mut out = BytesMut::new();
    response.encode(dialect.into(), &mut out);
    out.to_vec()
}

fn decode(dialect: impl Into<Dialect>, opcode: Opcode, body: &[u8]) -> Result<Response, Violation> {
    let dialect = dialect.into();
    let header = Header {
        version: dialect.version,
        flags: 0,
        stream: 0,
        opcode,
        length: body.len() as u32,
    };
    let envelope = Envelope {
        header,
        body: Bytes::copy_from_slice(body),
    };
    Ok(ResponseMessage::decode(dialect, &envelope)?.response)
}

fn assert_golden(dialect: impl Into<Dialect>, response: &Response, body: &[u8]) {
    let dialect = dialect.into();
    assert_eq!(encode(dialect, response), body);
    assert_eq!(&decode(dialect, response.opcode(), body).unwrap(), response);
}

fn column(name: &str, cql_type: CqlType) -> ColumnSpec {
    ColumnSpec {
        keyspace: "k".into(),
        table: "t".into(),
        name: name.into(),
        cql_type,
    }
}

#[test]
fn messages_without_structure() {
    assert_golden(V4, &Response::Ready, b"");
    assert_golden(V4, &Response::Void, b"\0\0\0\x01");
    assert_golden(V4, &Response::SetKeyspace("k".into()), b"\0\0\0\x03\0\x01k");
    assert_golden(V4, &Response::AuthSuccess(None), b"\xFF\xFF\xFF\xFF");
    assert_golden(
        V4,
        &Response::AuthChallenge(Some(Bytes::from_static(b"c"))),
        b"\0\0\0\x01c",
    );
    let authenticator = "org.apache.cassandra.auth.PasswordAuthenticator".to_owned();
    let body = [&b"\0\x2F"[..], authenticator.as_bytes()].concat();
    assert_golden(V4, &Response::Authenticate { authenticator }, &body);
    let supported = Response::Supported(vec![("COMPRESSION".into(), vec!["lz4".into(), "snappy".into()])]);
    assert_golden(
        V4,
        &supported,
        b"\0\x01\0\x0BCOMPRESSION\0\x02\0\x03lz4\0\x06snappy",
    );
}

#[test]
fn the_prefix_stands_in_the_order_of_the_specification() {
    let prefix = ResponsePrefix {
        tracing_id: Some(Uuid::from_u128(1)),
        warnings: vec!["w".into()],
        custom_payload: Some(vec![("k".into(), None)]),
    };
    let mut out = BytesMut::new();
    prefix.encode(V4.into(), &mut out);
    assert_eq!(
        &out[..],
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x01\0\x01w\0\x01\0\x01k\xFF\xFF\xFF\xFF"
    );
    assert_eq!(
        prefix.flags(V4.into()),
        flags::TRACING | flags::WARNING | flags::CUSTOM_PAYLOAD
    );
    let mut out = BytesMut::new();
    prefix.encode(V3.into(), &mut out);
    assert_eq!(out.len(), 16);
    assert_eq!(prefix.flags(V3.into()), flags::TRACING);
}

fn rows(header: RowsHeader<'_>, paging_state: Option<&[u8]>) -> Vec<u8> {
    let mut encoder = RowsEncoder::begin(BytesMut::from(&b"before"[..]), header);
    encoder.row([Some(&b"a"[..]), None]);
    encoder.cell_with(|out| out.extend_from_slice(b"bc"));
    encoder.cell(Some(b""));
    encoder.end_row();
    assert_eq!(encoder.rows(), 2);
    encoder.finish(paging_state)[6..].to_vec()
}

const ROWS: &[u8] = b"\0\0\0\x02\0\0\0\x01a\xFF\xFF\xFF\xFF\0\0\0\x02bc\0\0\0\0";

#[test]
fn rows_of_one_table() {
    let columns = EncodedColumns::encode(V4, &[column("x", CqlType::Int), column("y", CqlType::Text)]);
    let header = RowsHeader {
        columns: &columns,
        skip_metadata: false,
        new_metadata_id: None,
    };
    let spec = b"\0\x01k\0\x01t\0\x01x\0\x09\0\x01y\0\x0D";
    let body = rows(header, None);
    assert_eq!(
        body,
        [b"\0\0\0\x02\0\0\0\x01\0\0\0\x02", &spec[..], ROWS].concat()
    );
    let Response::Rows(decoded) = decode(V4, Opcode::Result, &body).unwrap() else {
        panic!()
    };
    assert_eq!(decoded.row_count(), 2);
    let cells: Vec<Vec<Option<&[u8]>>> = decoded.iter().map(|row| row.cells().collect()).collect();
    assert_eq!(cells, [[Some(&b"a"[..]), None], [Some(b"bc"), Some(b"")]]);
    assert_eq!(decoded.iter().nth(1).unwrap().cell(0), Some(&b"bc"[..]));

    let body = rows(header, Some(b"state"));
    assert_eq!(
        body,
        [b"\0\0\0\x02\0\0\0\x03\0\0\0\x02\0\0\0\x05state", &spec[..], ROWS].concat()
    );
}

#[test]
fn rows_without_metadata_and_with_new_metadata() {
    let columns = EncodedColumns::encode(V5, &[column("x", CqlType::Int), column("y", CqlType::Int)]);
    let header = RowsHeader {
        columns: &columns,
        skip_metadata: true,
        new_metadata_id: None,
    };
    assert_eq!(
        rows(header, None),
        [b"\0\0\0\x02\0\0\0\x04\0\0\0\x02", ROWS].concat()
    );
    let header = RowsHeader {
        new_metadata_id: Some(b"id"),
        ..header
    };
    let spec = b"\0\x01k\0\x01t\0\x01x\0\x09\0\x01y\0\x09";
    let expected = [
        b"\0\0\0\x02\0\0\0\x0B\0\0\0\x02\0\0\0\x02ps\0\x02id",
        &spec[..],
        ROWS,
    ]
    .concat();
    assert_eq!(rows(header, Some(b"ps")), expected);
}

#[test]
fn columns_of_two_tables_name_their_table_each() {
    let other = ColumnSpec {
        table: "u".into(),
        ..column("y", CqlType::Int)
    };
    let metadata = ResultMetadata::new(vec![column("x", CqlType::Int), other]);
    let mut out = BytesMut::new();
    metadata.encode(V4, &mut out);
    assert_eq!(
        &out[..],
        b"\0\0\0\0\0\0\0\x02\0\x01k\0\x01t\0\x01x\0\x09\0\x01k\0\x01u\0\x01y\0\x09"
    );
}

#[test]
#[should_panic(expected = "a row has a cell for each column")]
fn a_row_that_is_too_short_is_a_bug() {
    let columns = EncodedColumns::encode(V4, &[column("x", CqlType::Int)]);
    let header = RowsHeader {
        columns: &columns,
        skip_metadata: false,
        new_metadata_id: None,
    };
    let mut encoder = RowsEncoder::begin(BytesMut::new(), header);
    encoder.end_row();
}

#[test]
fn counts_that_the_body_cannot_hold_are_refused() {
    let counts = |columns: u32, rows: u32| {
        [
            b"\0\0\0\x02\0\0\0\x04",
            &columns.to_be_bytes()[..],
            &rows.to_be_bytes()[..],
        ]
        .concat()
    };
    for (columns, rows) in [
        (1, 1),
        (1, i32::MAX as u32),
        (i32::MAX as u32, 1),
        (0, 1),
        (1, u32::MAX),
    ] {
        assert!(
            decode(V4, Opcode::Result, &counts(columns, rows)).is_err(),
            "{columns} {rows}"
        );
    }
    assert!(decode(V4, Opcode::Result, &counts(i32::MAX as u32, 0)).is_ok());
    // A million columns with metadata that is not there.
    let body = b"\0\0\0\x02\0\0\0\x01\0\x10\0\0\0\x01k\0\x01t";
    assert!(matches!(
        decode(V4, Opcode::Result, body),
        Err(Violation::Truncated { .. })
    ));
}

#[test]
fn prepared() {
    let prepared = |v4: bool, id: Option<&'static [u8]>| {
        Response::Prepared(Prepared {
            id: Bytes::from_static(b"id"),
            result_metadata_id: id.map(Bytes::from_static),
            markers: PreparedMetadata {
                columns: vec![column("x", CqlType::Int)],
                partition_key_indices: if v4 { vec![0] } else { Vec::new() },
                conditional: false,
            },
            result: ResultMetadata::NONE,
        })
    };
    let spec = b"\0\x01k\0\x01t\0\x01x\0\x09";
    let none = b"\0\0\0\x04\0\0\0\0";
    let head = b"\0\0\0\x04\0\x02id";
    let flags = b"\0\0\0\x01\0\0\0\x01";
    let keys = b"\0\0\0\x01\0\0";
    assert_golden(
        V3,
        &prepared(false, None),
        &[&head[..], flags, spec, none].concat(),
    );
    assert_golden(
        V4,
        &prepared(true, None),
        &[&head[..], flags, keys, spec, none].concat(),
    );
    let body = [&head[..], b"\0\x01m", flags, keys, spec, none].concat();
    assert_golden(V5, &prepared(true, Some(b"m")), &body);
}

#[test]
fn a_conditional_statement_is_marked_for_those_who_ask() {
    let extensions = Extensions {
        lwt_mark: true,
        ..Extensions::default()
    };
    let prepared = Response::Prepared(Prepared {
        id: Bytes::new(),
        result_metadata_id: None,
        markers: PreparedMetadata {
            conditional: true,
            ..PreparedMetadata::default()
        },
        result: ResultMetadata::NONE,
    });
    assert_eq!(encode(V4, &prepared)[6..10], [0, 0, 0, 0]);
    let dialect = Dialect {
        version: V4,
        extensions,
    };
    assert_eq!(encode(dialect, &prepared)[6..10], [0x80, 0, 0, 0]);
    assert_eq!(
        decode(dialect, Opcode::Result, &encode(dialect, &prepared)),
        Ok(prepared)
    );
}

#[test]
fn events() {
    let up = Event::StatusChange {
        change: StatusChangeKind::Up,
        address: ([127, 0, 0, 1], 9042).into(),
    };
    let body = b"\0\x0DSTATUS_CHANGE\0\x02UP\x04\x7F\0\0\x01\0\0\x23\x52";
    assert_golden(V4, &Response::Event(up), body);
    let change = SchemaChange {
        change: SchemaChangeKind::Created,
        keyspace: "k".into(),
        target: SchemaTarget::Table("t".into()),
    };
    let fields = b"\0\x07CREATED\0\x05TABLE\0\x01k\0\x01t";
    assert_golden(
        V3,
        &Response::SchemaChange(change.clone()),
        &[&b"\0\0\0\x05"[..], fields].concat(),
    );
    let body = [&b"\0\x0DSCHEMA_CHANGE"[..], fields].concat();
    assert_golden(V4, &Response::Event(Event::SchemaChange(change)), &body);
}

#[test]
fn a_function_is_an_updated_keyspace_in_v3() {
    let change = SchemaChange {
        change: SchemaChangeKind::Dropped,
        keyspace: "k".into(),
        target: SchemaTarget::Function {
            name: "f".into(),
            argument_types: vec!["int".into()],
        },
    };
    let response = Response::SchemaChange(change);
    assert_eq!(
        encode(V3, &response),
        b"\0\0\0\x05\0\x07UPDATED\0\x08KEYSPACE\0\x01k"
    );
    assert_golden(
        V4,
        &response,
        b"\0\0\0\x05\0\x07DROPPED\0\x08FUNCTION\0\x01k\0\x01f\0\x01\0\x03int",
    );
}
