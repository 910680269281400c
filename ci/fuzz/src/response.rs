//! Bodies of responses: `| dialect u8 | opcode u8 | header flags u8 | body |`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ceto_model::{Consistency, CqlType, UserType, UserTypeField, WriteType};
use ceto_native::error::{FailureReason, Failures, Progress};
use ceto_native::response::{
    PreparedMetadata, SchemaChangeKind, SchemaTarget, StatusChangeKind, TopologyChangeKind,
};
use ceto_native::{
    ColumnSpec, Dialect, Direction, EncodedColumns, Envelope, ErrorMessage, ErrorReason, Event, Header,
    Opcode, Prepared, Response, ResponseMessage, ResultMetadata, RowsEncoder, RowsHeader, SchemaChange,
    Violation,
};

use crate::{DIALECT_SETTINGS, dialect};

/// Decodes a body; encoding what was decoded must reach a fixed point after one round. The first round may change
/// bytes: a class name that stands for a CQL type becomes its code, a failure that v3 does not know a timeout.
pub fn run(input: &[u8]) {
    let [setting, opcode, flags, body @ ..] = input else {
        return;
    };
    let dialect = dialect(*setting);
    let Some(opcode) = Opcode::from_code(*opcode).filter(|opcode| opcode.direction() == Direction::Response)
    else {
        return;
    };
    let Ok(message) = decode(dialect, opcode, *flags, Bytes::copy_from_slice(body)) else {
        return;
    };
    if let Response::Rows(rows) = &message.response {
        let columns = rows.metadata.column_count as usize;
        assert!(rows.iter().all(|row| row.cells().count() == columns));
        assert_eq!(rows.iter().count(), rows.row_count() as usize);
    }
    let once = encode(dialect, &message);
    let flags = message.flags(dialect);
    let again = decode(dialect, opcode, flags, once.clone()).expect("what was encoded decodes");
    assert_eq!(encode(dialect, &again), once);
}

fn decode(dialect: Dialect, opcode: Opcode, flags: u8, body: Bytes) -> Result<ResponseMessage, Violation> {
    let header = Header {
        version: dialect.version,
        flags,
        stream: 1,
        opcode,
        length: body.len() as u32,
    };
    ResponseMessage::decode(dialect, &Envelope { header, body })
}

fn encode(dialect: Dialect, message: &ResponseMessage) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(dialect, &mut out);
    out.freeze()
}

/// One response of each kind in every dialect.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for setting in DIALECT_SETTINGS {
        let dialect = dialect(setting);
        for response in responses() {
            let mut message = ResponseMessage::from(response);
            message.prefix.warnings = vec!["a warning".to_owned()];
            let head = [setting, message.response.opcode().code(), message.flags(dialect)];
            seeds.push([&head[..], &encode(dialect, &message)].concat());
        }
        for skip_metadata in [false, true] {
            let head = [setting, Opcode::Result.code(), 0];
            seeds.push([&head[..], &rows(dialect, skip_metadata)].concat());
        }
    }
    seeds
}

fn columns() -> Vec<ColumnSpec> {
    let definition = UserType {
        keyspace: "ks".into(),
        name: "address".into(),
        fields: vec![UserTypeField {
            name: "street".into(),
            cql_type: CqlType::Text,
        }],
    };
    let udt = CqlType::Udt {
        definition: Arc::new(definition),
        frozen: true,
    };
    let list = CqlType::List {
        element: Arc::new(udt),
        frozen: true,
    };
    let types = [
        CqlType::Int,
        CqlType::Duration,
        CqlType::Map {
            key: Arc::new(CqlType::Smallint),
            value: Arc::new(list.clone()),
            frozen: false,
        },
        CqlType::Tuple([CqlType::Date, CqlType::Blob].into()),
        CqlType::Vector {
            element: Arc::new(list),
            dimension: 3,
        },
        CqlType::Custom("com.example.Thing".into()),
    ];
    let column = |(index, cql_type)| ColumnSpec {
        keyspace: "ks".into(),
        table: "t".into(),
        name: format!("c{index}").into(),
        cql_type,
    };
    types.into_iter().enumerate().map(column).collect()
}

fn rows(dialect: Dialect, skip_metadata: bool) -> Vec<u8> {
    let columns = EncodedColumns::encode(dialect.version, &columns());
    let header = RowsHeader {
        columns: &columns,
        skip_metadata,
        new_metadata_id: None,
    };
    let mut encoder = RowsEncoder::begin(BytesMut::new(), header);
    for row in 0..3_u8 {
        encoder.row((0..columns.count()).map(|column| (column != 2).then_some(&[7; 5][..usize::from(row)])));
    }
    encoder.finish(Some(b"state")).to_vec()
}

fn responses() -> Vec<Response> {
    let progress = Progress {
        consistency: Consistency::Quorum,
        received: 1,
        block_for: 2,
    };
    let failures = Failures::new(vec![([127, 0, 0, 1].into(), FailureReason::TIMEOUT)]);
    let address = ([127, 0, 0, 1], 9042).into();
    let function = SchemaTarget::Function {
        name: "f".to_owned(),
        argument_types: vec!["int".to_owned()],
    };
    let reasons = [
        ErrorReason::Server,
        ErrorReason::Unavailable {
            consistency: Consistency::All,
            required: 3,
            alive: 2,
        },
        ErrorReason::WriteTimeout {
            progress,
            write_type: WriteType::Cas,
            contentions: Some(2),
        },
        ErrorReason::ReadTimeout {
            progress,
            data_present: true,
        },
        ErrorReason::ReadFailure {
            progress,
            failures: failures.clone(),
            data_present: false,
        },
        ErrorReason::WriteFailure {
            progress,
            failures,
            write_type: WriteType::BatchLog,
        },
        ErrorReason::FunctionFailure {
            keyspace: "ks".into(),
            function: "f".into(),
            argument_types: vec!["int".into()],
        },
        ErrorReason::CasWriteUnknown { progress },
        ErrorReason::AlreadyExists {
            keyspace: "ks".into(),
            table: "t".into(),
        },
        ErrorReason::Unprepared {
            id: Bytes::from_static(&[1; 16]),
        },
        ErrorReason::RateLimit {
            write: true,
            rejected_by_coordinator: true,
        },
    ];
    let errors = reasons.map(|reason| Response::Error(ErrorMessage::new(reason, "a message")));
    let change = |target| SchemaChange {
        change: SchemaChangeKind::Created,
        keyspace: "ks".to_owned(),
        target,
    };
    let prepared = Prepared {
        id: Bytes::from_static(&[1; 16]),
        result_metadata_id: Some(Bytes::from_static(&[2; 16])),
        markers: PreparedMetadata {
            columns: columns(),
            partition_key_indices: vec![1, 0],
            conditional: true,
        },
        result: ResultMetadata::new(columns()),
    };
    let others = [
        Response::Ready,
        Response::Authenticate {
            authenticator: "org.apache.cassandra.auth.PasswordAuthenticator".to_owned(),
        },
        Response::Supported(vec![("COMPRESSION".to_owned(), vec!["lz4".to_owned()])]),
        Response::Void,
        Response::SetKeyspace("ks".to_owned()),
        Response::Prepared(prepared),
        Response::SchemaChange(change(SchemaTarget::Table("t".to_owned()))),
        Response::SchemaChange(change(function)),
        Response::Event(Event::TopologyChange {
            change: TopologyChangeKind::NewNode,
            address,
        }),
        Response::Event(Event::StatusChange {
            change: StatusChangeKind::Up,
            address,
        }),
        Response::Event(Event::SchemaChange(change(SchemaTarget::Keyspace))),
        Response::AuthChallenge(None),
        Response::AuthSuccess(Some(Bytes::from_static(b"token"))),
    ];
    errors.into_iter().chain(others).collect()
}
