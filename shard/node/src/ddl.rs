//! Schema changes, by way of the control thread; and DESCRIBE.

use bytes::BytesMut;
use ceto_cluster::replication::{self, ReplicationError};
use ceto_cql::describe::{ClusterDescription, DescribeRequest};
use ceto_cql::{CqlError, SchemaChange};
use ceto_native::response::RowsHeader;
use ceto_native::{EncodedColumns, ErrorMessage, Response, RowsEncoder};

use crate::answer::{cql_error, overloaded, schema_change};
use crate::control::{ControlRequest, SchemaOutcome};
use crate::execute::{Answer, RequestContext};
use crate::node::Node;
use crate::prepared::column_specs;

/// Asks the control thread for a schema change and waits until every shard has it.
pub(crate) async fn run(context: &RequestContext, change: SchemaChange) -> Result<Answer, ErrorMessage> {
    let node = &context.node;
    let change = complete_replication(context, change).map_err(cql_error)?;
    check_guardrails(context, &change).map_err(cql_error)?;
    let (slot, answer) = node.outcomes.open();
    let request = ControlRequest::ChangeSchema {
        change: Box::new(change),
        from: node.shard(),
        slot,
    };
    if node.ask_control(request).is_err() {
        node.outcomes.cancel(slot);
        return Err(overloaded("Too many schema changes are waiting"));
    }
    match answer.await.map_err(cql_error)? {
        Some(event) => Ok(context.message(Response::SchemaChange(schema_change(&event)))),
        None => Ok(context.message(Response::Void)),
    }
}

/// Changes that the operator has forbidden, judged by this shard's present schema. What cannot be applied is left to the
/// control thread to refuse.
fn check_guardrails(context: &RequestContext, change: &SchemaChange) -> Result<(), CqlError> {
    let schema = context.node.schema();
    let Ok(Some(changed)) = change.apply(&schema, context.now_micros) else {
        return Ok(());
    };
    let warnings = &mut *context.warnings.borrow_mut();
    context
        .node
        .options
        .guardrails
        .check_change(&schema, &changed, warnings)
}

impl Node {
    /// The control thread's answer to a schema change that this shard has asked for.
    pub fn schema_changed(&self, slot: u32, outcome: SchemaOutcome) {
        self.outcomes.answer(slot, outcome);
    }
}

/// Checks replication options against the ring, and fills in what they leave open.
fn complete_replication(context: &RequestContext, change: SchemaChange) -> Result<SchemaChange, CqlError> {
    let Some(given) = change.replication() else {
        return Ok(change);
    };
    let schema = context.node.schema();
    let previous = schema
        .keyspace(change.keyspace())
        .map(|keyspace| &keyspace.replication);
    let prepared = replication::prepare(change.keyspace(), &given.0, previous, context.node.ring());
    let prepared = prepared.map_err(|error| match error {
        ReplicationError::Config(message) => CqlError::Config(message),
        ReplicationError::Invalid(message) => CqlError::Invalid(message),
    })?;
    prepared
        .warnings
        .into_iter()
        .for_each(|warning| context.warn(warning));
    Ok(change.with_replication(prepared.options))
}

/// DESCRIBE: rows made from the present schema.
pub(crate) fn describe(context: &RequestContext, request: &DescribeRequest) -> Result<Answer, ErrorMessage> {
    let node = &context.node;
    let address = node.options.rpc_address.to_string();
    let ownership = |_: &str| -> Vec<(String, Vec<String>)> {
        node.options
            .tokens
            .iter()
            .map(|token| (token.to_string(), vec![address.clone()]))
            .collect()
    };
    let cluster = ClusterDescription {
        name: &node.options.cluster_name,
        partitioner: ceto_model::token::PARTITIONER,
        snitch: "org.apache.cassandra.locator.SimpleSnitch",
        range_ownership: &ownership,
    };
    let described = request.rows(&node.schema(), &cluster).map_err(cql_error)?;
    let columns = EncodedColumns::encode(context.dialect.version, &column_specs(&described.columns));
    let header = RowsHeader {
        columns: &columns,
        skip_metadata: context.skip_metadata,
        new_metadata_id: None,
    };
    let mut encoder = RowsEncoder::begin(BytesMut::new(), header);
    for row in &described.rows {
        encoder.row(row.iter().map(|cell| Some(&cell[..])));
    }
    Ok(Answer::Result {
        prefix: context.prefix(),
        body: encoder.finish(None),
        share: None,
    })
}
