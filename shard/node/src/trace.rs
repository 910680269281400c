//! Tracing of single requests: events collected while a request runs, written to `system_traces` when it has ended.
//!
//! `system_traces` has two replicas, as in Cassandra: a driver reads a trace by way of another node than the one that it traced.
//! Traces are written at ANY; events go before their session on the same links, so that who finds a duration finds them all.
//! A traced request carries a [`Trace`]; others carry none and pay one branch. Rows live for a day. Clients are told the
//! ids of traces that they asked for, not of those that `trace_probability` chose.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use ceto_model::value::Value;
use ceto_model::{Consistency, Expiry, Liveness, Mutation, Schema, Timestamp, Ttl, UnixSeconds, WriteType};
use uuid::Uuid;

use crate::modify::write_one;
use crate::node::Node;
use crate::system::definitions::SYSTEM_TRACES;
use crate::system::row::{SystemRow, text, text_map};

/// How long a trace is kept.
const TRACE_TTL: Ttl = Ttl(24 * 3600);
/// Events of one trace; later ones are dropped.
const EVENTS_MAX: usize = 1000;

/// The trace of one request.
pub(crate) struct Trace {
    /// Of the session.
    id: Uuid,
    /// The client has asked for it.
    is_asked_for: bool,
    started_micros: i64,
    client: SocketAddr,
    request: &'static str,
    parameters: RefCell<BTreeMap<String, String>>,
    events: RefCell<Vec<(Uuid, i32, String)>>,
}

impl Trace {
    /// Begins a trace.
    pub(crate) fn begin(
        node: &Node,
        client: SocketAddr,
        request: &'static str,
        is_asked_for: bool,
    ) -> Rc<Trace> {
        let started_micros = node.env.clock().unix_micros();
        Rc::new(Trace {
            id: time_uuid(started_micros, node.env.random()),
            is_asked_for,
            started_micros,
            client,
            request,
            parameters: RefCell::default(),
            events: RefCell::default(),
        })
    }

    /// What the client is told of it.
    pub(crate) fn told_id(&self) -> Option<Uuid> {
        self.is_asked_for.then_some(self.id)
    }

    /// Notes what is known about the request.
    pub(crate) fn parameter(&self, name: &str, value: impl Into<String>) {
        self.parameters.borrow_mut().insert(name.to_owned(), value.into());
    }

    /// Notes that something happened.
    pub(crate) fn event(&self, node: &Node, activity: impl Into<String>) {
        let mut events = self.events.borrow_mut();
        if events.len() < EVENTS_MAX {
            let elapsed = self.elapsed_micros(node);
            let id = time_uuid(
                self.started_micros + i64::from(elapsed) + events.len() as i64,
                node.env.random(),
            );
            events.push((id, elapsed, activity.into()));
        }
    }

    /// At least one: the shard's monotonic clock may stand still within a turn, so this is the other one.
    fn elapsed_micros(&self, node: &Node) -> i32 {
        let elapsed = node.env.clock().unix_micros() - self.started_micros;
        i32::try_from(elapsed.max(1)).unwrap_or(i32::MAX)
    }

    /// Writes the trace.
    pub(crate) async fn finish(self: Rc<Self>, node: Rc<Node>) {
        let deadline = node.env.clock().now() + node.settings().limits.write_timeout;
        for mutation in self.mutations(&node) {
            let outcome = write_one(&node, Consistency::Any, deadline, WriteType::Simple, mutation).await;
            if let Err(failure) = outcome {
                tracing::warn!(failure = %failure.message, session = %self.id, "a trace could not be written");
                return;
            }
        }
    }

    fn mutations(&self, node: &Node) -> Vec<Mutation> {
        let address = Value::Inet(node.options.rpc_address);
        let port = Value::Int(i32::from(node.options.native_port));
        let thread = format!("shard-{}", node.shard());
        let schema = node.schema();
        let session = SystemRow::default()
            .with("session_id", Value::Uuid(self.id))
            .with("client", Value::Inet(IpAddr::to_canonical(&self.client.ip())))
            .with("command", text("QUERY"))
            .with("coordinator", address.clone())
            .with("coordinator_port", port.clone())
            .with("duration", Value::Int(self.elapsed_micros(node)))
            .with("parameters", text_map(&*self.parameters.borrow()))
            .with("request", text(self.request))
            .with(
                "started_at",
                Value::Timestamp(self.started_micros.div_euclid(1000)),
            );
        let events = self.events.borrow();
        let events = events.iter().map(|(id, elapsed, activity)| {
            SystemRow::default()
                .with("session_id", Value::Uuid(self.id))
                .with("event_id", Value::Timeuuid(*id))
                .with("activity", text(activity))
                .with("source", address.clone())
                .with("source_elapsed", Value::Int(*elapsed))
                .with("source_port", port.clone())
                .with("thread", text(&thread))
        });
        let timestamp = Timestamp(node.next_timestamp());
        let mut mutations: Vec<Mutation> = events
            .map(|row| expiring(&schema, "events", &row, timestamp))
            .collect();
        // The session last: clients wait for its duration, and then all events are there.
        mutations.push(expiring(&schema, "sessions", &session, timestamp));
        mutations
    }
}

fn expiring(schema: &Schema, table: &str, row: &SystemRow, timestamp: Timestamp) -> Mutation {
    let table = schema
        .table(SYSTEM_TRACES, table)
        .expect("a table of system_traces");
    let now = UnixSeconds(timestamp.0.div_euclid(1_000_000));
    let mut mutation = row.insert(table, timestamp, now);
    let expiry = Some(Expiry::after(now, TRACE_TTL));
    for (_, row) in &mut mutation.partition.rows {
        row.liveness = Some(Liveness { timestamp, expiry });
        row.expire_cells(expiry);
    }
    mutation
}

/// A version 1 UUID of a time in microseconds since the Unix epoch.
pub(crate) fn time_uuid(micros: i64, random: u64) -> Uuid {
    /// Between the start of the Gregorian calendar and the Unix epoch, units of 100 ns.
    const GREGORIAN_OFFSET: u64 = 0x01B2_1DD2_1381_4000;
    let ticks = (micros.unsigned_abs() * 10).wrapping_add(GREGORIAN_OFFSET);
    let node = [
        random as u8 | 1,
        (random >> 8) as u8,
        (random >> 16) as u8,
        (random >> 24) as u8,
        0,
        1,
    ];
    Uuid::new_v1(
        uuid::Timestamp::from_gregorian_time(ticks, (random >> 40) as u16),
        &node,
    )
}
