//! Random messages of every kind that survive a round trip in a given dialect.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use ceto_model::{Consistency, CqlType, UserType, UserTypeField, WriteType};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use uuid::Uuid;

use crate::error::{ErrorMessage, ErrorReason, FailureReason, Failures, Progress};
use crate::request::{
    Batch, BatchKind, BatchStatement, Execute, Prepare, Query, QueryParameters, Request, RequestMessage,
    Startup, StatementSource,
};
use crate::response::{
    ColumnSpec, EncodedColumns, Event, EventType, Prepared, PreparedMetadata, Response, ResponseMessage,
    ResponsePrefix, ResultMetadata, RowsEncoder, RowsHeader, SchemaChange, SchemaChangeKind, SchemaTarget,
    StatusChangeKind, TopologyChangeKind,
};
use crate::values::{BoundValue, Values};
use crate::version::{Dialect, Extensions, ProtocolVersion};
use crate::wire::{BytesMap, Reader};

pub(crate) fn dialect() -> impl Strategy<Value = Dialect> {
    (select(&ProtocolVersion::ALL[..]), any::<[bool; 3]>()).prop_map(|(version, [a, b, c])| Dialect {
        version,
        extensions: Extensions {
            rate_limit_error: a,
            lwt_mark: b,
            metadata_id: c,
        },
    })
}

fn text() -> impl Strategy<Value = String> + Clone {
    "[a-zA-Z_ é$]{0,12}"
}

fn texts() -> impl Strategy<Value = Vec<String>> + Clone {
    vec(text(), 0..4)
}

fn blob() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn blobs_map() -> impl Strategy<Value = BytesMap> {
    vec((text(), option::of(blob())), 0..3)
}

fn consistency() -> impl Strategy<Value = Consistency> {
    select(&Consistency::LEVELS[..])
}

fn values(dialect: Dialect, named: bool) -> impl Strategy<Value = Values> {
    let unset = dialect.version > ProtocolVersion::V3;
    let value = prop_oneof![
        1 => Just(BoundValue::Null),
        1 => Just(if unset { BoundValue::Unset } else { BoundValue::Null }),
        4 => blob().prop_map(BoundValue::Value),
    ];
    vec((value, text()), 0..20).prop_map(move |pairs| {
        let (values, names): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let builder = values
            .iter()
            .fold(Values::builder(), |builder, value| builder.bound(value));
        // Without values there is nothing that could say whether they have names.
        if named && !values.is_empty() {
            builder.names(names).build()
        } else {
            builder.build()
        }
    })
}

fn parameters(dialect: Dialect, with_values: bool) -> impl Strategy<Value = QueryParameters> {
    let v5 = dialect.version >= ProtocolVersion::V5;
    let values = any::<bool>()
        .prop_flat_map(move |named| values(dialect, named))
        .prop_map(move |values| if with_values { values } else { Values::default() });
    let serial = select(vec![Consistency::Serial, Consistency::LocalSerial]);
    let v5_only = (option::of(text()), option::of(any::<i32>()));
    (
        consistency(),
        values,
        any::<bool>(),
        option::of(1..i32::MAX),
        option::of(blob()),
        option::of(serial),
        option::of(-i64::MAX..),
        v5_only,
    )
        .prop_map(
            move |(
                consistency,
                values,
                skip_metadata,
                page_size,
                paging_state,
                serial,
                timestamp,
                (keyspace, now),
            )| {
                QueryParameters {
                    consistency,
                    values,
                    skip_metadata,
                    page_size,
                    paging_state,
                    serial_consistency: serial,
                    timestamp,
                    keyspace: keyspace.filter(|_| v5),
                    now_in_seconds: now.filter(|_| v5),
                }
            },
        )
}

fn batch(dialect: Dialect) -> impl Strategy<Value = Batch> {
    let kind = select(vec![BatchKind::Logged, BatchKind::Unlogged, BatchKind::Counter]);
    let source = prop_oneof![
        text().prop_map(StatementSource::Query),
        blob().prop_map(StatementSource::Prepared),
    ];
    let statement =
        (source, values(dialect, false)).prop_map(|(source, values)| BatchStatement { source, values });
    (kind, vec(statement, 0..5), parameters(dialect, false)).prop_map(|(kind, statements, parameters)| {
        Batch {
            kind,
            statements,
            parameters,
        }
    })
}

fn event_type() -> impl Strategy<Value = EventType> {
    select(vec![
        EventType::TopologyChange,
        EventType::StatusChange,
        EventType::SchemaChange,
    ])
}

pub(crate) fn request(dialect: Dialect) -> impl Strategy<Value = RequestMessage> {
    let v5 = dialect.version >= ProtocolVersion::V5;
    let has_metadata_id = dialect.has_metadata_id();
    let request = prop_oneof![
        vec((text(), text()), 0..4).prop_map(|options| Request::Startup(Startup { options })),
        Just(Request::Options),
        (text(), parameters(dialect, true))
            .prop_map(|(query, parameters)| Request::Query(Query { query, parameters })),
        (text(), option::of(text())).prop_map(move |(query, keyspace)| {
            Request::Prepare(Prepare {
                query,
                keyspace: keyspace.filter(|_| v5),
            })
        }),
        (blob(), blob(), parameters(dialect, true)).prop_map(move |(id, metadata_id, parameters)| {
            let result_metadata_id = Some(metadata_id).filter(|_| has_metadata_id);
            Request::Execute(Execute {
                id,
                result_metadata_id,
                parameters,
            })
        }),
        batch(dialect).prop_map(Request::Batch),
        vec(event_type(), 0..3).prop_map(Request::Register),
        option::of(blob()).prop_map(Request::AuthResponse),
    ];
    (any::<bool>(), option::of(blobs_map()), request).prop_map(|(tracing, custom_payload, request)| {
        RequestMessage {
            tracing,
            custom_payload,
            request,
        }
    })
}

/// A type as it is after decoding: frozen inside, not frozen at the top.
pub(crate) fn cql_type() -> impl Strategy<Value = CqlType> {
    let simple = select(vec![
        CqlType::Ascii,
        CqlType::Bigint,
        CqlType::Blob,
        CqlType::Boolean,
        CqlType::Counter,
        CqlType::Date,
        CqlType::Decimal,
        CqlType::Double,
        CqlType::Duration,
        CqlType::Empty,
        CqlType::Float,
        CqlType::Inet,
        CqlType::Int,
        CqlType::Smallint,
        CqlType::Text,
        CqlType::Time,
        CqlType::Timestamp,
        CqlType::Timeuuid,
        CqlType::Tinyint,
        CqlType::Uuid,
        CqlType::Varint,
        CqlType::Custom("com.example.Thing".into()),
    ]);
    let nested = simple.prop_recursive(3, 12, 4, |inner| {
        let element = inner.clone().prop_map(Arc::new);
        let field = ("[a-z]{1,4}", inner.clone()).prop_map(|(name, cql_type)| UserTypeField {
            name: name.into(),
            cql_type,
        });
        let udt = ("[a-z]{1,4}", "[a-zA-Z é]{1,4}", vec(field, 0..4)).prop_map(|(keyspace, name, fields)| {
            let definition = UserType {
                keyspace: keyspace.into(),
                name: name.into(),
                fields,
            };
            CqlType::Udt {
                definition: Arc::new(definition),
                frozen: true,
            }
        });
        prop_oneof![
            element.clone().prop_map(|element| CqlType::List {
                element,
                frozen: true
            }),
            element.clone().prop_map(|element| CqlType::Set {
                element,
                frozen: true
            }),
            (element.clone(), element.clone()).prop_map(|(key, value)| CqlType::Map {
                key,
                value,
                frozen: true
            }),
            vec(inner.clone(), 1..4).prop_map(|elements| CqlType::Tuple(elements.into())),
            (element, 1_u16..).prop_map(|(element, dimension)| CqlType::Vector { element, dimension }),
            udt,
        ]
    });
    nested.prop_map(|cql_type| match cql_type {
        CqlType::List { element, .. } => CqlType::List {
            element,
            frozen: false,
        },
        CqlType::Set { element, .. } => CqlType::Set {
            element,
            frozen: false,
        },
        CqlType::Map { key, value, .. } => CqlType::Map {
            key,
            value,
            frozen: false,
        },
        CqlType::Udt { definition, .. } => CqlType::Udt {
            definition,
            frozen: false,
        },
        other => other,
    })
}

fn columns() -> impl Strategy<Value = Vec<ColumnSpec>> {
    let column = (
        select(vec!["k1", "k2"]),
        select(vec!["t1", "t2"]),
        text(),
        cql_type(),
    );
    vec(column, 1..5).prop_map(|columns| {
        let column = |(keyspace, table, name, cql_type): (&str, &str, String, CqlType)| ColumnSpec {
            keyspace: keyspace.into(),
            table: table.into(),
            name: name.into(),
            cql_type,
        };
        columns.into_iter().map(column).collect()
    })
}

fn rows(dialect: Dialect) -> impl Strategy<Value = Response> {
    let cells = |count: usize| vec(vec(option::of(blob()), count), 0..6);
    let rows = columns().prop_flat_map(move |columns| {
        let cells = cells(columns.len());
        (Just(columns), cells)
    });
    (rows, any::<bool>(), option::of(blob()), option::of(blob())).prop_map(
        move |((columns, rows), skip_metadata, paging_state, new_metadata_id)| {
            let encoded = EncodedColumns::encode(dialect.version, &columns);
            let new_metadata_id = new_metadata_id.as_deref();
            let header = RowsHeader {
                columns: &encoded,
                skip_metadata,
                new_metadata_id,
            };
            let mut encoder = RowsEncoder::begin(bytes::BytesMut::new(), header);
            for row in &rows {
                encoder.row(row.iter().map(Option::as_deref));
            }
            let body = encoder.finish(paging_state.as_deref()).freeze();
            let mut reader = Reader::new(&body);
            let response = Response::decode(dialect, crate::Opcode::Result, &mut reader);
            let Ok(Response::Rows(decoded)) = response else {
                panic!("no rows: {response:?}")
            };
            let skip = skip_metadata && new_metadata_id.is_none();
            assert_eq!(decoded.metadata.columns, (!skip).then_some(columns));
            assert_eq!(decoded.metadata.paging_state, paging_state);
            let cells = |row: crate::response::Row<'_>| -> Vec<_> {
                row.cells().map(|cell| cell.map(Bytes::copy_from_slice)).collect()
            };
            assert_eq!(decoded.iter().map(cells).collect::<Vec<_>>(), rows);
            Response::Rows(decoded)
        },
    )
}

fn result_metadata() -> impl Strategy<Value = ResultMetadata> {
    option::of(columns()).prop_map(|columns| columns.map_or(ResultMetadata::NONE, ResultMetadata::new))
}

fn prepared(dialect: Dialect) -> impl Strategy<Value = Prepared> {
    let indices = vec(any::<u16>(), 0..3);
    (
        blob(),
        blob(),
        columns(),
        indices,
        any::<bool>(),
        result_metadata(),
    )
        .prop_map(move |(id, metadata_id, columns, indices, conditional, result)| {
            let v4 = dialect.version >= ProtocolVersion::V4;
            Prepared {
                id,
                result_metadata_id: Some(metadata_id).filter(|_| dialect.has_metadata_id()),
                markers: PreparedMetadata {
                    columns,
                    partition_key_indices: if v4 { indices } else { Vec::new() },
                    conditional: conditional && dialect.extensions.lwt_mark,
                },
                result,
            }
        })
}

fn schema_change(dialect: Dialect) -> impl Strategy<Value = SchemaChange> {
    let change = select(vec![
        SchemaChangeKind::Created,
        SchemaChangeKind::Updated,
        SchemaChangeKind::Dropped,
    ]);
    let function = (text(), texts());
    let target = prop_oneof![
        Just(SchemaTarget::Keyspace),
        text().prop_map(SchemaTarget::Table),
        text().prop_map(SchemaTarget::Type),
        function
            .clone()
            .prop_map(|(name, argument_types)| SchemaTarget::Function { name, argument_types }),
        function.prop_map(|(name, argument_types)| SchemaTarget::Aggregate { name, argument_types }),
    ];
    (change, text(), target).prop_map(move |(change, keyspace, target)| match target {
        SchemaTarget::Function { .. } | SchemaTarget::Aggregate { .. }
            if dialect.version < ProtocolVersion::V4 =>
        {
            SchemaChange {
                change: SchemaChangeKind::Updated,
                keyspace,
                target: SchemaTarget::Keyspace,
            }
        }
        target => SchemaChange {
            change,
            keyspace,
            target,
        },
    })
}

fn event(dialect: Dialect) -> impl Strategy<Value = Event> {
    let topology = select(vec![
        TopologyChangeKind::NewNode,
        TopologyChangeKind::RemovedNode,
        TopologyChangeKind::MovedNode,
    ]);
    let status = select(vec![StatusChangeKind::Up, StatusChangeKind::Down]);
    let address = (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from);
    prop_oneof![
        (topology, address.clone()).prop_map(|(change, address)| Event::TopologyChange { change, address }),
        (status, address).prop_map(|(change, address)| Event::StatusChange { change, address }),
        schema_change(dialect).prop_map(Event::SchemaChange),
    ]
}

fn progress() -> impl Strategy<Value = Progress> {
    (consistency(), any::<i32>(), any::<i32>()).prop_map(|(consistency, received, block_for)| Progress {
        consistency,
        received,
        block_for,
    })
}

fn failures(dialect: Dialect) -> impl Strategy<Value = Failures> {
    let reason = (any::<IpAddr>(), any::<u16>().prop_map(FailureReason));
    vec(reason, 0..3).prop_map(move |reasons| {
        let failures = Failures::new(reasons);
        if dialect.version >= ProtocolVersion::V5 {
            return failures;
        }
        Failures {
            reasons: Vec::new(),
            ..failures
        }
    })
}

/// An error that its dialect can express.
pub(crate) fn error(dialect: Dialect) -> impl Strategy<Value = ErrorMessage> {
    let v5 = dialect.version >= ProtocolVersion::V5;
    let write_type = select(&WriteType::ALL[..]);
    let plain = select(vec![
        ErrorReason::Server,
        ErrorReason::Protocol,
        ErrorReason::BadCredentials,
        ErrorReason::Overloaded,
        ErrorReason::IsBootstrapping,
        ErrorReason::Truncate,
        ErrorReason::CdcWriteFailure,
        ErrorReason::Syntax,
        ErrorReason::Unauthorized,
        ErrorReason::Invalid,
        ErrorReason::Config,
    ]);
    let reason = prop_oneof![
        plain,
        (consistency(), any::<i32>(), any::<i32>()).prop_map(|(consistency, required, alive)| {
            ErrorReason::Unavailable {
                consistency,
                required,
                alive,
            }
        }),
        (progress(), write_type.clone(), option::of(any::<u16>())).prop_map(
            move |(progress, write_type, contentions)| {
                let contentions = contentions.filter(|_| v5 && write_type == WriteType::Cas);
                ErrorReason::WriteTimeout {
                    progress,
                    write_type,
                    contentions,
                }
            }
        ),
        (progress(), any::<bool>()).prop_map(|(progress, data_present)| ErrorReason::ReadTimeout {
            progress,
            data_present
        }),
        (progress(), failures(dialect), any::<bool>()).prop_map(|(progress, failures, data_present)| {
            ErrorReason::ReadFailure {
                progress,
                failures,
                data_present,
            }
        }),
        (text(), text(), texts()).prop_map(|(keyspace, function, argument_types)| {
            ErrorReason::FunctionFailure {
                keyspace,
                function,
                argument_types,
            }
        }),
        (progress(), failures(dialect), write_type).prop_map(|(progress, failures, write_type)| {
            ErrorReason::WriteFailure {
                progress,
                failures,
                write_type,
            }
        }),
        progress().prop_map(|progress| ErrorReason::CasWriteUnknown { progress }),
        (text(), text()).prop_map(|(keyspace, table)| ErrorReason::AlreadyExists { keyspace, table }),
        blob().prop_map(|id| ErrorReason::Unprepared { id }),
        any::<[bool; 2]>().prop_map(|[write, rejected_by_coordinator]| ErrorReason::RateLimit {
            write,
            rejected_by_coordinator,
        }),
    ];
    (reason, text()).prop_map(move |(reason, message)| {
        // What the dialect cannot express has tests of its own.
        let reason = reason.fallback(dialect).unwrap_or(reason);
        ErrorMessage { reason, message }
    })
}

pub(crate) fn response(dialect: Dialect) -> impl Strategy<Value = ResponseMessage> {
    let response = prop_oneof![
        error(dialect).prop_map(Response::Error),
        Just(Response::Ready),
        text().prop_map(|authenticator| Response::Authenticate { authenticator }),
        vec((text(), texts()), 0..4).prop_map(Response::Supported),
        Just(Response::Void),
        rows(dialect),
        text().prop_map(Response::SetKeyspace),
        prepared(dialect).prop_map(Response::Prepared),
        schema_change(dialect).prop_map(Response::SchemaChange),
        event(dialect).prop_map(Response::Event),
        option::of(blob()).prop_map(Response::AuthChallenge),
        option::of(blob()).prop_map(Response::AuthSuccess),
    ];
    let tracing_id = option::of(any::<u128>().prop_map(Uuid::from_u128));
    (tracing_id, texts(), option::of(blobs_map()), response).prop_map(
        move |(tracing_id, warnings, custom_payload, response)| {
            let v4 = dialect.version >= ProtocolVersion::V4;
            let prefix = ResponsePrefix {
                tracing_id,
                warnings: if v4 { warnings } else { Vec::new() },
                custom_payload: custom_payload.filter(|_| v4),
            };
            ResponseMessage { prefix, response }
        },
    )
}
