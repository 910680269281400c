//! Bodies of requests: `| dialect u8 | opcode u8 | header flags u8 | body |`.

use bytes::{Bytes, BytesMut};
use ceto_model::Consistency;
use ceto_native::request::{BatchKind, BatchStatement, StatementSource};
use ceto_native::{
    Batch, Dialect, Direction, Envelope, EventType, Execute, Header, Opcode, Prepare, Query, QueryParameters,
    Request, RequestMessage, Startup, Values,
};

use crate::{DIALECT_SETTINGS, dialect};

/// Decodes a body; what decodes must be the same after encoding and decoding again.
pub fn run(input: &[u8]) {
    let [setting, opcode, flags, body @ ..] = input else {
        return;
    };
    let dialect = dialect(*setting);
    let Some(opcode) = Opcode::from_code(*opcode).filter(|opcode| opcode.direction() == Direction::Request)
    else {
        return;
    };
    let Ok(message) = decode(dialect, opcode, *flags, Bytes::copy_from_slice(body)) else {
        return;
    };
    let mut out = BytesMut::new();
    message.encode(dialect, &mut out);
    let again = decode(dialect, opcode, message.flags(), out.freeze()).expect("what was encoded decodes");
    assert_eq!(message, again);
}

fn decode(
    dialect: Dialect,
    opcode: Opcode,
    flags: u8,
    body: Bytes,
) -> Result<RequestMessage, ceto_native::Violation> {
    let header = Header {
        version: dialect.version,
        flags,
        stream: 1,
        opcode,
        length: body.len() as u32,
    };
    RequestMessage::decode(dialect, &Envelope { header, body })
}

/// One request of each kind in every dialect.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for setting in DIALECT_SETTINGS {
        for request in requests() {
            let custom_payload = Some(vec![("key".to_owned(), Some(Bytes::from_static(b"value")))]);
            for custom_payload in [None, custom_payload] {
                let message = RequestMessage {
                    tracing: true,
                    custom_payload,
                    request: request.clone(),
                };
                let mut out =
                    BytesMut::from(&[setting, message.request.opcode().code(), message.flags()][..]);
                message.encode(dialect(setting), &mut out);
                seeds.push(out.to_vec());
            }
        }
    }
    seeds
}

fn requests() -> Vec<Request> {
    let values = Values::builder().value(b"first").null().value(b"").build();
    let named = Values::builder().value(b"first").null().names(["a", "b"]).build();
    let parameters = |values: Values| QueryParameters {
        values,
        skip_metadata: true,
        page_size: Some(5000),
        paging_state: Some(Bytes::from_static(b"state")),
        serial_consistency: Some(Consistency::LocalSerial),
        timestamp: Some(1_700_000_000_000_000),
        keyspace: Some("ks".to_owned()),
        now_in_seconds: Some(1_700_000_000),
        ..QueryParameters::new(Consistency::LocalQuorum)
    };
    let query = "SELECT a FROM t WHERE k = ?".to_owned();
    let statements = vec![
        BatchStatement {
            source: StatementSource::Query(query.clone()),
            values: values.clone(),
        },
        BatchStatement {
            source: StatementSource::Prepared(Bytes::from_static(&[3; 16])),
            values: values.clone(),
        },
    ];
    let options = vec![
        ("CQL_VERSION".to_owned(), "3.0.0".to_owned()),
        ("COMPRESSION".to_owned(), "lz4".to_owned()),
    ];
    vec![
        Request::Startup(Startup { options }),
        Request::Options,
        Request::Query(Query {
            query: query.clone(),
            parameters: parameters(named),
        }),
        Request::Prepare(Prepare {
            query,
            keyspace: Some("ks".to_owned()),
        }),
        Request::Execute(Execute {
            id: Bytes::from_static(&[1; 16]),
            result_metadata_id: Some(Bytes::from_static(&[2; 16])),
            parameters: parameters(values),
        }),
        Request::Batch(Batch {
            kind: BatchKind::Logged,
            statements,
            parameters: parameters(Values::default()),
        }),
        Request::Register(vec![EventType::SchemaChange, EventType::StatusChange]),
        Request::AuthResponse(Some(Bytes::from_static(b"\0user\0password"))),
    ]
}
