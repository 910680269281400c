//! A decoded request to its answer: statement to plan, plan to the pump, results to the wire.
//!
//! `execute` is the second hop of every request. What it needs of the request it takes once, into a [`Request`]'s
//! context; every step gets that context instead of a list of arguments.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ceto_cql::{BatchItem, BoundValue, Plan, PlanContext, Prepared};
use ceto_env::LocalFuture;
use ceto_model::{Consistency, Timestamp, UnixSeconds};
use ceto_native::request::{Batch, BatchKind, Execute, Prepare, Query, QueryParameters, StatementSource};
use ceto_native::response::{PreparedMetadata, ResponsePrefix};
use ceto_native::{Dialect, ErrorMessage, RequestMessage, Response, ResponseMessage, ResultMetadata, Values};

use crate::answer::{cql_error, unprepared};
use crate::connection::ConnectionState;
use crate::functions::Calls;
use crate::login::check_permissions;
use crate::node::Node;
use crate::prepared::{Entry, column_specs};
use crate::response_memory::Share;
use crate::shard_metrics::Operation;
use crate::trace::Trace;

/// What a request is answered with.
pub enum Answer {
    /// A message that is encoded when it is sent.
    Message(Box<ResponseMessage>),
    /// A RESULT that says nothing.
    Void(ResponsePrefix),
    /// A RESULT that is encoded already.
    Result {
        /// What stands before it.
        prefix: ResponsePrefix,
        /// The body.
        body: BytesMut,
        /// The body's part of the memory of answers, while the answer is not written.
        share: Option<Share>,
    },
}

/// What a request has come to as soon as it was started.
pub(crate) enum Started {
    /// Everything that it needed was in memory.
    Done(Result<Answer, ErrorMessage>),
    /// The rest of it.
    Waits(LocalFuture<'static, Result<Answer, ErrorMessage>>),
}

impl Started {
    /// With nothing done yet.
    pub(crate) fn later(rest: impl Future<Output = Result<Answer, ErrorMessage>> + 'static) -> Started {
        Started::Waits(Box::pin(rest))
    }

    async fn outcome(self) -> Result<Answer, ErrorMessage> {
        match self {
            Started::Done(outcome) => outcome,
            Started::Waits(rest) => rest.await,
        }
    }
}

/// What holds for one request as a whole.
pub(crate) struct RequestContext {
    pub(crate) node: Rc<Node>,
    pub(crate) dialect: Dialect,
    pub(crate) consistency: Consistency,
    pub(crate) serial_consistency: Option<Consistency>,
    pub(crate) page_size: Option<u32>,
    pub(crate) paging_state: Option<Bytes>,
    pub(crate) skip_metadata: bool,
    pub(crate) started: Instant,
    pub(crate) now_micros: i64,
    pub(crate) now_seconds: UnixSeconds,
    pub(crate) timestamp: Option<Timestamp>,
    /// What the client's service level gives a request, instead of the timeouts of the configuration.
    pub(crate) timeout: Option<Duration>,
    /// A superuser, whom no guardrail holds.
    pub(crate) is_exempt: bool,
    pub(crate) trace: Option<Rc<Trace>>,
    pub(crate) warnings: std::cell::RefCell<Vec<String>>,
}

impl RequestContext {
    fn new(
        connection: &ConnectionState,
        dialect: Dialect,
        parameters: &QueryParameters,
        trace: Option<Rc<Trace>>,
    ) -> RequestContext {
        let node = connection.node();
        let has_level = node.options.access.requires_login;
        let now_micros = node.next_timestamp();
        let now_seconds = parameters
            .now_in_seconds
            .map_or(now_micros.div_euclid(1_000_000), i64::from);
        RequestContext {
            node: node.clone(),
            dialect,
            consistency: parameters.consistency,
            serial_consistency: parameters.serial_consistency,
            page_size: parameters
                .page_size
                .and_then(|size| u32::try_from(size).ok())
                .filter(|size| *size > 0),
            paging_state: parameters.paging_state.clone(),
            skip_metadata: parameters.skip_metadata,
            started: node.env.clock().now(),
            now_micros,
            now_seconds: UnixSeconds(now_seconds),
            timestamp: parameters.timestamp.map(Timestamp),
            timeout: has_level
                .then(|| connection.performer().service_level().timeout)
                .flatten(),
            is_exempt: has_level && connection.performer().is_superuser(),
            trace,
            warnings: std::cell::RefCell::default(),
        }
    }

    /// When the request ends that may take `timeout` by the configuration.
    pub(crate) fn deadline(&self, timeout: Duration) -> Instant {
        self.started + self.timeout.unwrap_or(timeout)
    }

    /// Records what the request took until `ended`, now when absent. It began when the event loop took up what had
    /// arrived, so what it waited for others within a turn counts.
    pub(crate) fn record(&self, operation: Operation, ended: Option<Instant>) {
        let ended = ended.unwrap_or_else(|| self.node.env.clock().read());
        let took = ended.saturating_duration_since(self.started);
        self.node.metrics.latency(operation).record(took);
    }

    pub(crate) fn trace(&self, activity: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            trace.event(&self.node, activity());
        }
    }

    pub(crate) fn warn(&self, text: String) {
        self.warnings.borrow_mut().push(text);
    }

    pub(crate) fn prefix(&self) -> ResponsePrefix {
        ResponsePrefix {
            tracing_id: self.trace.as_ref().and_then(|trace| trace.told_id()),
            warnings: self.warnings.take(),
            custom_payload: None,
        }
    }

    pub(crate) fn plan_context<'a>(&'a self, random: &'a NodeRandom<'a>) -> PlanContext<'a> {
        let mut context = PlanContext::new(self.now_micros, random);
        context.functions = Some(&random.calls);
        context.now_seconds = self.now_seconds;
        context.timestamp = self.timestamp;
        context.page_size = self.page_size;
        context.page_bytes_max = self.node.settings().limits.max_page_bytes;
        context.expiration_overflow = self.node.settings().expiration_overflow;
        context.paging_state = self.paging_state.as_deref();
        context
    }

    /// A message with this request's tracing id and warnings.
    pub(crate) fn message(&self, response: Response) -> Answer {
        Answer::Message(Box::new(ResponseMessage {
            prefix: self.prefix(),
            response,
        }))
    }
}

/// The planner's randomness is the shard's, and so is who runs user-defined functions.
pub(crate) struct NodeRandom<'a> {
    node: &'a Node,
    calls: Calls<'a>,
}

impl<'a> NodeRandom<'a> {
    /// For what is evaluated in one piece.
    pub(crate) fn new(node: &'a Node) -> NodeRandom<'a> {
        NodeRandom {
            node,
            calls: Calls::new(node),
        }
    }
}

impl ceto_cql::RandomSource for NodeRandom<'_> {
    fn next_u64(&self) -> u64 {
        self.node.env.random()
    }
}

/// Starts a QUERY, PREPARE, EXECUTE or BATCH. An EXECUTE goes as far as it can without a wait, and without a future.
/// The message is large, so it is only looked at, and taken when there is to be a future.
pub(crate) fn start(
    node: &Rc<Node>,
    connection: &Rc<ConnectionState>,
    message: &mut RequestMessage,
) -> Started {
    let is_drawn = node.draws_trace();
    match &message.request {
        ceto_native::Request::Execute(execute) if !message.tracing && !is_drawn => {
            let dialect = connection.dialect();
            start_execute(node, connection, dialect, execute, None)
                .unwrap_or_else(|error| Started::Done(Err(error)))
        }
        _ => {
            let message = std::mem::replace(message, RequestMessage::new(ceto_native::Request::Options));
            Started::later(execute(node.clone(), connection.clone(), message, is_drawn))
        }
    }
}

/// Runs a QUERY, PREPARE, EXECUTE or BATCH. `is_drawn`: traces it although the client has not asked for that.
async fn execute(
    node: Rc<Node>,
    connection: Rc<ConnectionState>,
    message: RequestMessage,
    is_drawn: bool,
) -> Result<Answer, ErrorMessage> {
    let (node, connection) = (&node, &connection);
    let session = Session {
        keyspace: connection.keyspace(),
        dialect: connection.dialect(),
    };
    let is_asked_for = message.tracing;
    let trace =
        (is_asked_for || is_drawn).then(|| begin_trace(node, connection, &message.request, is_asked_for));
    let outcome = match message.request {
        ceto_native::Request::Query(query) => {
            run_query(node, connection, &session, query, trace.clone()).await
        }
        ceto_native::Request::Execute(execute) => {
            match start_execute(node, connection, session.dialect, &execute, trace.clone()) {
                Ok(started) => started.outcome().await,
                Err(error) => Err(error),
            }
        }
        ceto_native::Request::Batch(batch) => {
            run_batch(node, connection, &session, batch, trace.clone()).await
        }
        ceto_native::Request::Prepare(prepare) => run_prepare(node, &session, prepare, trace.clone()).await,
        _ => unreachable!("connection.rs answers the handshake itself"),
    };
    let Some(trace) = trace else {
        return outcome;
    };
    let answer = outcome.unwrap_or_else(|error| {
        let tracing_id = trace.told_id();
        let prefix = ResponsePrefix {
            tracing_id,
            ..ResponsePrefix::default()
        };
        let response = Response::Error(error);
        Answer::Message(Box::new(ResponseMessage { prefix, response }))
    });
    trace.event(node, "Request complete");
    trace.finish(node.clone()).await;
    Ok(answer)
}

/// What of the connection a request needs.
struct Session {
    keyspace: Option<Arc<str>>,
    dialect: Dialect,
}

fn begin_trace(
    node: &Node,
    connection: &ConnectionState,
    request: &ceto_native::Request,
    is_asked_for: bool,
) -> Rc<Trace> {
    let (name, text): (&'static str, Option<&str>) = match request {
        ceto_native::Request::Query(query) => ("Execute CQL3 query", Some(&query.query)),
        ceto_native::Request::Prepare(prepare) => ("Preparing CQL3 query", Some(&prepare.query)),
        ceto_native::Request::Execute(_) => ("Execute CQL3 prepared query", None),
        _ => ("Execute batch of CQL3 queries", None),
    };
    let trace = Trace::begin(node, connection.peer(), name, is_asked_for);
    if let Some(text) = text {
        trace.parameter("query", text);
    }
    trace
}

async fn run_query(
    node: &Rc<Node>,
    connection: &Rc<ConnectionState>,
    session: &Session,
    query: Query,
    trace: Option<Rc<Trace>>,
) -> Result<Answer, ErrorMessage> {
    node.metrics.queries.increment();
    let context = RequestContext::new(connection, session.dialect, &query.parameters, trace);
    let keyspace = query
        .parameters
        .keyspace
        .as_deref()
        .map(Arc::from)
        .or_else(|| session.keyspace.clone());
    context.trace(|| "Parsing and preparing statement".to_owned());
    let statement = prepare_text(node, &query.query, keyspace.as_deref())?;
    let entry = Rc::new(Entry::new(Arc::new(statement), Arc::from(""), keyspace));
    let values = bind(&entry.statement, &query.parameters.values)?;
    start_statement(context, connection, entry, &values, None)?
        .outcome()
        .await
}

fn start_execute(
    node: &Rc<Node>,
    connection: &Rc<ConnectionState>,
    dialect: Dialect,
    execute: &Execute,
    trace: Option<Rc<Trace>>,
) -> Result<Started, ErrorMessage> {
    node.metrics.executes.increment();
    let entry = find_prepared(node, &execute.id, dialect)?;
    let context = RequestContext::new(connection, dialect, &execute.parameters, trace);
    if let Some(trace) = &context.trace {
        trace.parameter("query", &*entry.text);
    }
    let values = bind(&entry.statement, &execute.parameters.values)?;
    start_statement(
        context,
        connection,
        entry,
        &values,
        execute.result_metadata_id.as_ref(),
    )
}

/// Parses and prepares a text against the present schema.
fn prepare_text(node: &Node, text: &str, keyspace: Option<&str>) -> Result<Prepared, ErrorMessage> {
    let merges = node.settings().merges_bind_variables;
    ceto_cql::parse_and_prepare_as(text, &node.schema(), keyspace, merges).map_err(cql_error)
}

/// The statement of an id, prepared again if the schema has changed under it.
fn find_prepared(node: &Node, id: &[u8], dialect: Dialect) -> Result<Rc<Entry>, ErrorMessage> {
    let not_found = || {
        node.metrics.unprepared.increment();
        unprepared(id)
    };
    let entry = node.prepared.get(id).ok_or_else(not_found)?;
    if entry.statement.is_current(&node.schema()) {
        return Ok(entry);
    }
    if entry.statement.is_of_other_columns(&node.schema()) {
        node.prepared.remove(id);
        return Err(not_found());
    }
    let again = prepare_text(node, &entry.text, entry.keyspace.as_deref());
    let Ok(statement) = again else {
        node.prepared.remove(id);
        return Err(not_found());
    };
    let fresh = Entry::new(Arc::new(statement), entry.text.clone(), entry.keyspace.clone());
    let looks_different = fresh.result_metadata_id != entry.result_metadata_id
        || fresh.statement.variables() != entry.statement.variables();
    let id: [u8; 16] = id.try_into().map_err(|_| not_found())?;
    if looks_different && !dialect.has_metadata_id() {
        node.prepared.remove(&id);
        return Err(not_found());
    }
    node.prepared.insert(id, fresh);
    node.prepared.get(&id).ok_or_else(not_found)
}

/// A request's values in the order of the statement's variables.
fn bind(statement: &Prepared, values: &Values) -> Result<smallvec::SmallVec<[BoundValue; 8]>, ErrorMessage> {
    let convert = |value: ceto_native::BoundValue| match value {
        ceto_native::BoundValue::Null => BoundValue::Null,
        ceto_native::BoundValue::Unset => BoundValue::Unset,
        ceto_native::BoundValue::Value(bytes) => BoundValue::Bytes(bytes),
    };
    if !values.is_named() {
        let mut bound = smallvec::SmallVec::with_capacity(values.len());
        for value in values.iter() {
            bound.push(convert(value));
        }
        return Ok(bound);
    }
    let named = |variable: &ceto_cql::ColumnSpecification| {
        let value = values.index_of(&variable.name).and_then(|at| values.get(at));
        value.map(convert).unwrap_or(BoundValue::Unset)
    };
    Ok(statement.variables().iter().map(named).collect())
}

async fn run_prepare(
    node: &Rc<Node>,
    session: &Session,
    prepare: Prepare,
    trace: Option<Rc<Trace>>,
) -> Result<Answer, ErrorMessage> {
    node.metrics.prepares.increment();
    let keyspace: Option<Arc<str>> = prepare
        .keyspace
        .as_deref()
        .map(Arc::from)
        .or_else(|| session.keyspace.clone());
    let statement = Arc::new(prepare_text(node, &prepare.query, keyspace.as_deref())?);
    let text: Arc<str> = prepare.query.into();
    let id = ceto_cql::statement_id(&text, keyspace.as_deref());
    let shared = (statement.clone(), text, keyspace);
    node.on_all_shards(move |node| {
        let (statement, text, keyspace) = shared.clone();
        Box::pin(async move {
            if node.prepared.insert(id, Entry::new(statement, text, keyspace)) {
                node.metrics.prepared_evicted.increment();
            }
        })
    })
    .await;
    let result_columns = statement.result_columns();
    let prepared = ceto_native::Prepared {
        id: Bytes::copy_from_slice(&id),
        result_metadata_id: Some(Bytes::copy_from_slice(&ceto_cql::result_metadata_id(
            result_columns,
        ))),
        markers: PreparedMetadata {
            columns: column_specs(statement.variables()),
            partition_key_indices: statement.partition_key_indices().to_vec(),
            conditional: statement.is_conditional(),
        },
        result: if result_columns.is_empty() {
            ResultMetadata::NONE
        } else {
            ResultMetadata::new(column_specs(result_columns))
        },
    };
    let prefix = ResponsePrefix {
        tracing_id: trace.as_ref().and_then(|trace| trace.told_id()),
        ..ResponsePrefix::default()
    };
    let response = Response::Prepared(prepared);
    Ok(Answer::Message(Box::new(ResponseMessage { prefix, response })))
}

/// What the operator has forbidden.
fn check_features(context: &RequestContext, statement: &Prepared) -> Result<(), ErrorMessage> {
    let Some(table) = statement.table().filter(|_| !context.is_exempt) else {
        return Ok(());
    };
    let settings = context.node.settings();
    let guardrails = &settings.guardrails;
    if !statement.is_truncate() {
        let warnings = &mut *context.warnings.borrow_mut();
        let (is_read, level) = (statement.is_select(), context.consistency);
        guardrails
            .check_consistency(is_read, level, &table.keyspace, warnings)
            .map_err(cql_error)?;
        guardrails
            .check_intersection(statement.features(), level, &table.keyspace, warnings)
            .map_err(cql_error)?;
    }
    guardrails
        .check_statement(statement.features(), &table.keyspace)
        .map_err(cql_error)
}

/// Values, collections and timestamps beyond what the operator allows.
pub(crate) fn check_writes(
    context: &RequestContext,
    plan: &ceto_cql::WritePlan,
    user_timestamp: bool,
) -> Result<(), ErrorMessage> {
    if context.is_exempt {
        return Ok(());
    }
    let warnings = &mut *context.warnings.borrow_mut();
    let settings = context.node.settings();
    let schema = context.node.schema();
    settings
        .guardrails
        .check_writes(
            &schema,
            &plan.mutations,
            user_timestamp,
            context.now_micros,
            warnings,
        )
        .map_err(cql_error)
}

fn start_statement(
    context: RequestContext,
    connection: &Rc<ConnectionState>,
    entry: Rc<Entry>,
    values: &[BoundValue],
    client_metadata_id: Option<&Bytes>,
) -> Result<Started, ErrorMessage> {
    check_permissions(connection, &entry.statement)?;
    check_features(&context, &entry.statement)?;
    let random = NodeRandom::new(&context.node);
    let plan_context = context.plan_context(&random);
    let plan = entry.statement.plan(values, &plan_context).map_err(cql_error)?;
    context.warnings.borrow_mut().extend(plan_context.take_warnings());
    if entry.statement.explain().is_some() {
        return Ok(Started::later(async move {
            crate::explain::run(&context, &entry.statement, plan).await
        }));
    }
    Ok(match plan {
        Plan::Read(select) => crate::select::start(context, connection, entry, select, client_metadata_id)?,
        Plan::Write(write)
            if entry
                .statement
                .table()
                .is_some_and(|table| ceto_cql::is_settings(table)) =>
        {
            Started::later(async move { crate::settings::change(&context, write).await })
        }
        Plan::Write(write) => {
            let user_timestamp = entry.statement.features().user_timestamp;
            check_writes(&context, &write, user_timestamp)?;
            crate::modify::start(context, write)
        }
        Plan::Conditional(conditional) => {
            Started::later(async move { crate::conditional::run(&context, conditional).await })
        }
        Plan::Use(keyspace) => {
            connection.set_keyspace(keyspace.clone());
            Started::Done(Ok(context.message(Response::SetKeyspace(keyspace.to_string()))))
        }
        Plan::Truncate(table) => {
            if !context.is_exempt {
                let allowed = context.node.settings().guardrails.check_truncate();
                allowed.map_err(cql_error)?;
            }
            Started::later(async move { crate::truncate::run(&context, table.id).await })
        }
        Plan::ChangeSchema(change) => {
            let performer = connection.performer();
            Started::later(async move { crate::ddl::run(&context, &performer, change).await })
        }
        Plan::ChangeAccess(change) => {
            let performer = connection.performer();
            Started::later(async move { crate::ddl::change_access(&context, &performer, change).await })
        }
        Plan::ListAccess(query) => {
            Started::Done(crate::ddl::list_access(&context, &connection.performer(), &query))
        }
        Plan::Describe(describe) => {
            Started::Done(crate::ddl::describe(&context, &connection.performer(), &describe))
        }
    })
}

async fn run_batch(
    node: &Rc<Node>,
    connection: &Rc<ConnectionState>,
    session: &Session,
    batch: Batch,
    trace: Option<Rc<Trace>>,
) -> Result<Answer, ErrorMessage> {
    node.metrics.batches.increment();
    let context = RequestContext::new(connection, session.dialect, &batch.parameters, trace);
    let keyspace: Option<Arc<str>> = batch
        .parameters
        .keyspace
        .as_deref()
        .map(Arc::from)
        .or_else(|| session.keyspace.clone());
    let mut statements = Vec::new();
    for statement in &batch.statements {
        let prepared = match &statement.source {
            StatementSource::Query(text) => Arc::new(prepare_text(node, text, keyspace.as_deref())?),
            StatementSource::Prepared(id) => find_prepared(node, id, session.dialect)?.statement.clone(),
        };
        check_permissions(connection, &prepared)?;
        check_features(&context, &prepared)?;
        let values = bind(&prepared, &statement.values)?;
        statements.push((prepared, values));
    }
    let kind = match batch.kind {
        BatchKind::Logged => ceto_cql::BatchKind::Logged,
        BatchKind::Unlogged => ceto_cql::BatchKind::Unlogged,
        BatchKind::Counter => ceto_cql::BatchKind::Counter,
    };
    let items: Vec<BatchItem<'_>> = statements
        .iter()
        .map(|(prepared, values)| BatchItem {
            prepared: prepared.as_ref(),
            values,
        })
        .collect();
    let random = NodeRandom::new(node);
    let plan_context = context.plan_context(&random);
    let plan = ceto_cql::plan_batch(kind, &items, &plan_context).map_err(cql_error)?;
    context.warnings.borrow_mut().extend(plan_context.take_warnings());
    match plan {
        Plan::Write(write) => {
            let user_timestamp = statements
                .iter()
                .any(|(prepared, _)| prepared.features().user_timestamp);
            check_writes(&context, &write, user_timestamp)?;
            crate::modify::start(context, write).outcome().await
        }
        Plan::Conditional(conditional) => crate::conditional::run(&context, conditional).await,
        _ => Err(crate::answer::server_error(
            "a batch was planned as something else",
        )),
    }
}
