//! Changes of the schema and of roles, by way of the control thread; and the statements that show them.

use bytes::BytesMut;
use ceto_cluster::replication::{self, ReplicationError};
use ceto_cql::access::{AccessChange, AccessQuery, Performer};
use ceto_cql::describe::{ClusterDescription, DescribeRequest, DescribeRows};
use ceto_cql::{CqlError, SchemaChange, SchemaChangeEvent};
use ceto_internode::HostId;
use ceto_native::response::RowsHeader;
use ceto_native::{EncodedColumns, ErrorMessage, Response, RowsEncoder};

use crate::answer::{cql_error, invalid, overloaded, schema_change};
use crate::control::{ControlRequest, SchemaOutcome};
use crate::execute::{Answer, RequestContext};
use crate::functions::DISABLED;
use crate::node::Node;
use crate::prepared::column_specs;

/// Rows of a view lie on other nodes than those of its base, and nothing takes them there yet.
pub(crate) const VIEWS_NEED_ONE_NODE: &str = "Materialized views are not kept over several nodes yet: a table with views \
    can be written on a node that is alone only. Drop the view, or use a table of your own for it";

/// Asks the control thread for a schema change and waits until every shard has it.
pub(crate) async fn run(
    context: &RequestContext,
    performer: &Performer,
    change: SchemaChange,
) -> Result<Answer, ErrorMessage> {
    let node = &context.node;
    let required = change.required_permissions(&node.schema()).map_err(cql_error)?;
    for (permission, resource) in required {
        performer.check(permission, &resource).map_err(cql_error)?;
    }
    if change.creates_function() && !node.options.functions.enabled {
        return Err(cql_error(CqlError::invalid(DISABLED)));
    }
    if change.creates_view() && node.has_peers() {
        return Err(invalid(VIEWS_NEED_ONE_NODE));
    }
    let change = complete_replication(context, change).map_err(cql_error)?;
    let change = check_guardrails(context, change).map_err(cql_error)?;
    let role = performer.role().cloned();
    let outcome = ask(node, |from, slot| ControlRequest::ChangeSchema {
        change: Box::new(change),
        role,
        from,
        slot,
    });
    match outcome.await? {
        Some(event) => Ok(context.message(Response::SchemaChange(schema_change(&event)))),
        None => Ok(context.message(Response::Void)),
    }
}

/// Asks the control thread for a change of roles and waits until every shard has it.
pub(crate) async fn change_access(
    context: &RequestContext,
    performer: &Performer,
    change: Box<AccessChange>,
) -> Result<Answer, ErrorMessage> {
    let node = &context.node;
    let checked = change.check(performer, &node.schema(), &node.options.datacenter);
    checked.map_err(cql_error)?;
    let role = performer.role().cloned();
    let outcome = ask(node, |from, slot| ControlRequest::ChangeAccess {
        change,
        role,
        from,
        slot,
    });
    outcome.await?;
    Ok(context.message(Response::Void))
}

/// Sends a request to the control thread and waits for its outcome.
async fn ask(
    node: &Node,
    request: impl FnOnce(u16, u32) -> ControlRequest,
) -> Result<Option<SchemaChangeEvent>, ErrorMessage> {
    let (slot, answer) = node.outcomes.open();
    if node.ask_control(request(node.shard(), slot)).is_err() {
        node.outcomes.cancel(slot);
        return Err(overloaded("Too many schema changes are waiting"));
    }
    answer.await.map_err(cql_error)
}

/// Changes that the operator has forbidden, judged by this shard's present schema. What cannot be applied is left to the
/// control thread to refuse. Gives the change back without the options that are to be ignored.
fn check_guardrails(context: &RequestContext, mut change: SchemaChange) -> Result<SchemaChange, CqlError> {
    if context.is_exempt {
        return Ok(change);
    }
    let settings = context.node.settings();
    let guardrails = &settings.guardrails;
    let warnings = &mut *context.warnings.borrow_mut();
    if let Some(given) = change.table_properties() {
        guardrails.check_table_properties(&given, warnings)?;
        let ignored = &guardrails.table_properties_ignored;
        change = change.without_table_properties(|name| ignored.iter().any(|ignored| ignored == name));
    }
    let schema = context.node.schema();
    if let Ok(Some(changed)) = change.apply(&schema, context.now_micros) {
        guardrails.check_change(&schema, &changed, warnings)?;
    }
    Ok(change)
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
    let prepared = replication::prepare(change.keyspace(), &given.0, previous, &context.node.ring());
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
pub(crate) fn describe(
    context: &RequestContext,
    performer: &Performer,
    request: &DescribeRequest,
) -> Result<Answer, ErrorMessage> {
    let node = &context.node;
    let topology = node.topology();
    let address_of = |host: HostId| match topology.peer(host) {
        Some(peer) => peer.rpc.to_string(),
        None => node.options.rpc_address.to_string(),
    };
    let ownership = |keyspace: &str| -> Vec<(String, Vec<String>)> {
        let Some(map) = node.replication(keyspace) else {
            return Vec::new();
        };
        let tokens = topology.ring.tokens().iter();
        let owned = tokens.map(|(token, _)| {
            let replicas = map.replicas(*token).natural().iter();
            let addresses = replicas.map(|replica| address_of(replica.host)).collect();
            (token.0.to_string(), addresses)
        });
        owned.collect()
    };
    let cluster = ClusterDescription {
        name: &node.options.cluster_name,
        partitioner: ceto_model::token::PARTITIONER,
        snitch: "org.apache.cassandra.locator.SimpleSnitch",
        range_ownership: &ownership,
        access: performer.sees_everything().then(|| &**performer.access()),
    };
    let described = request.rows(&node.schema(), &cluster).map_err(cql_error)?;
    Ok(rows(context, &described))
}

/// LIST: rows made from the present roles.
pub(crate) fn list_access(
    context: &RequestContext,
    performer: &Performer,
    query: &AccessQuery,
) -> Result<Answer, ErrorMessage> {
    match query.rows(performer, &context.node.schema()).map_err(cql_error)? {
        Some(listed) => Ok(rows(context, &listed)),
        None => Ok(context.message(Response::Void)),
    }
}

/// The answer that has these rows.
pub(crate) fn rows(context: &RequestContext, described: &DescribeRows) -> Answer {
    let columns = EncodedColumns::encode(context.dialect.version, &column_specs(&described.columns));
    let header = RowsHeader {
        columns: &columns,
        skip_metadata: context.skip_metadata,
        new_metadata_id: None,
    };
    let mut encoder = RowsEncoder::begin(BytesMut::new(), header);
    for row in &described.rows {
        encoder.row(row.iter().map(Option::as_deref));
    }
    Answer::Result {
        prefix: context.prefix(),
        body: encoder.finish(None),
        share: None,
    }
}
