//! The batch log: a logged batch over several partitions happens in full once it was accepted, whoever dies.
//!
//! ```text
//! coordinator --batch--> two nodes of other racks (system.batches) --then--> all its writes --then--> both: forget it
//!                                    |
//!                                    `-- not told to forget in time: writes it themselves, and forgets it
//! ```
//!
//! The copies are of the coordinator's data center: two on two other racks where there are such, else whatever is alive;
//! this node itself where it is alone in its data center. All of them must have it before the first write begins. A copy is
//! replayed when it is older than twice `write_request_timeout`: its writes carry their timestamps, so it does not
//! matter whether they happen again. What a replica misses then is hinted, and with that the copy has done its part.
//!
//! Never: a batch replayed by a node that knows of no other (its replicas would be this node alone); one scan of the
//! table but at the start, for the shard keeps the keys of what it has.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ceto_cluster::coordinator::{RequestContext as CoordinatorContext, RequestError};
use ceto_env::TaskQueue;
use ceto_internode::{Call, HostId};
use ceto_model::codec::{Decoder, put_mutation, put_varint};
use ceto_model::comparable::encode_clustering;
use ceto_model::{
    Cell as ModelCell, ClusteringKey, ColumnData, Consistency, DecoratedKey, Deletion, Liveness, Mutation,
    PartitionKey, Table, Timestamp, UnixSeconds, WriteType,
};
use ceto_native::ErrorMessage;
use rustc_hash::FxHashMap;
use tracing::{info, warn};

use crate::answer::{invalid, request_error, server_error};
use crate::execute::RequestContext;
use crate::message::ReplicaFailure;
use crate::metrics::{Counter, Samples};
use crate::modify::{at_once, write_one};
use crate::node::Node;
use crate::system::definitions::{BATCHES, SYSTEM};
use crate::topology::{Peer, PeerState};
use crate::trace::time_uuid;

/// Nodes that keep a copy.
const COPIES: usize = 2;
/// Time between looks at copies that nobody has forgotten.
const LOOK_PERIOD: Duration = Duration::from_secs(10);
/// Copies replayed in one look; the rest waits for the next.
const REPLAYS_MAX: usize = 1000;

/// The copies that one shard keeps.
#[derive(Default)]
pub(crate) struct Batchlog {
    /// By key: when this node got it, in microseconds since the epoch.
    kept: RefCell<FxHashMap<DecoratedKey, i64>>,
    is_running: Cell<bool>,
    written: Counter,
    replayed: Counter,
    failed: Counter,
}

impl Batchlog {
    /// Adds everything to `samples`.
    pub(crate) fn add_to(&self, samples: &mut Samples) {
        for (name, help, counter) in [
            (
                "ceto_batchlog_written_total",
                "Logged batches that were written to the batch logs of other nodes.",
                &self.written,
            ),
            (
                "ceto_batchlog_replayed_total",
                "Logged batches of other coordinators that were done here.",
                &self.replayed,
            ),
            (
                "ceto_batchlog_failed_total",
                "Replays of logged batches that failed; they are tried again.",
                &self.failed,
            ),
        ] {
            samples.counter(name, help, &[], counter.get());
        }
        samples.gauge(
            "ceto_batchlog_batches",
            "Copies of logged batches in this shard's batch log.",
            &[],
            self.kept.borrow().len() as f64,
        );
    }
}

/// A batch that others know of.
pub(crate) struct LoggedBatch {
    node: Rc<Node>,
    key: DecoratedKey,
    copies: Vec<HostId>,
}

impl LoggedBatch {
    /// Hands a batch to those who are to see to it.
    pub(crate) async fn write(
        context: &RequestContext,
        mutations: &[Mutation],
    ) -> Result<LoggedBatch, ErrorMessage> {
        let node = &context.node;
        check_alive(context, mutations)?;
        let table = batches(node).ok_or_else(|| server_error("system.batches is missing"))?;
        let timestamp = Timestamp(node.next_timestamp());
        let id = time_uuid(timestamp.0, node.env.random());
        let key = DecoratedKey::new(PartitionKey(Bytes::copy_from_slice(id.as_bytes())));
        let copy = Arc::new(encode(&table, key.clone(), mutations, timestamp));
        let copies = choose(node);
        let timeout = node.settings().limits.write_timeout;
        let left = context
            .deadline(timeout)
            .saturating_duration_since(node.env.clock().now());
        let asked = copies
            .iter()
            .map(|host| node.keep_copy(*host, copy.clone(), left));
        let answers = at_once(asked).await;
        let received = answers.iter().filter(|answer| answer.is_ok()).count() as u32;
        let required = copies.len() as u32;
        if received < required {
            let (consistency, write_type) = (level(required), WriteType::BatchLog);
            let error = RequestError::WriteTimeout {
                consistency,
                received,
                required,
                write_type,
            };
            return Err(request_error(node, error.into()));
        }
        node.batchlog.written.increment();
        Ok(LoggedBatch {
            node: node.clone(),
            key,
            copies,
        })
    }

    /// It is done: nobody needs to see to it any more.
    pub(crate) fn forget(self) {
        let LoggedBatch { node, key, copies } = self;
        let Some(table) = batches(&node) else { return };
        let deletion = Arc::new(deletion(&node, &table, key, Timestamp(node.next_timestamp())));
        let timeout = node.settings().limits.write_timeout;
        let told = node.clone();
        let task = async move {
            let told = copies
                .iter()
                .map(|host| told.keep_copy(*host, deletion.clone(), timeout));
            // Who was not told replays it, which changes nothing.
            let _ = at_once(told).await;
        };
        node.env.tasks().spawn(TaskQueue::Statement, Box::pin(task));
    }
}

/// What a copy's acknowledgements amount to.
fn level(copies: u32) -> Consistency {
    match copies {
        1 => Consistency::One,
        _ => Consistency::Two,
    }
}

/// Refuses a batch of which a part cannot be written now.
fn check_alive(context: &RequestContext, mutations: &[Mutation]) -> Result<(), ErrorMessage> {
    let node = &context.node;
    let schema = node.schema();
    for mutation in mutations {
        let table = schema.table_by_id(mutation.table);
        let replication = table.and_then(|table| node.replication(&table.keyspace));
        let Some(replication) = replication else {
            return Err(invalid(format!(
                "Table with id {} does not exist any more",
                mutation.table
            )));
        };
        let coordinator = CoordinatorContext {
            replication: &replication,
            consistency: context.consistency,
            deadline: context.started,
        };
        let checked = node.pump.check_alive(&coordinator, mutation.key.token);
        checked.map_err(|error| request_error(node, error.into()))?;
    }
    Ok(())
}

/// Who keeps copies.
fn choose(node: &Node) -> Vec<HostId> {
    let topology = node.topology();
    let options = &node.options;
    let mut near: Vec<&Peer> = topology
        .peers
        .iter()
        .filter(|peer| peer.is_alive && peer.state != PeerState::Joining)
        .filter(|peer| *peer.datacenter == *options.datacenter)
        .collect();
    if near.is_empty() {
        return vec![HostId(options.host_id)];
    }
    shuffle(&mut near, || node.env.random());
    pick(&near, &options.rack)
        .into_iter()
        .map(|peer| peer.host)
        .collect()
}

fn shuffle<T>(items: &mut [T], mut random: impl FnMut() -> u64) {
    for at in (1..items.len()).rev() {
        items.swap(at, (random() % (at as u64 + 1)) as usize);
    }
}

/// Two of them: on other racks than this node's where there are two such, and on two racks where there are.
fn pick<'a>(near: &[&'a Peer], own_rack: &str) -> Vec<&'a Peer> {
    let elsewhere = near.iter().filter(|peer| *peer.rack != *own_rack);
    let candidates: Vec<&Peer> = match elsewhere.clone().count() >= COPIES {
        true => elsewhere.copied().collect(),
        false => near.to_vec(),
    };
    let Some(first) = candidates.first().copied() else {
        return Vec::new();
    };
    let rest = candidates.iter().skip(1).copied();
    let second = rest
        .clone()
        .find(|peer| peer.rack != first.rack)
        .or_else(|| rest.clone().next());
    std::iter::once(first).chain(second).collect()
}

fn batches(node: &Node) -> Option<Arc<Table>> {
    node.schema().table(SYSTEM, BATCHES).cloned()
}

fn encode(table: &Table, key: DecoratedKey, mutations: &[Mutation], timestamp: Timestamp) -> Mutation {
    let mut content = Vec::new();
    put_varint(&mut content, mutations.len() as u64);
    mutations
        .iter()
        .for_each(|mutation| put_mutation(&mut content, mutation));
    let mut copy = Mutation::new(table.id, key);
    let components: [&[u8]; 0] = [];
    let row_key = encode_clustering(table.clustering_types(), &components);
    let row_key = ClusteringKey(row_key.expect("no components are of no types"));
    let row = copy.partition.row_mut(row_key);
    let expiry = None;
    row.liveness = Some(Liveness { timestamp, expiry });
    for (name, value) in [
        ("mutations", Bytes::from(content)),
        ("version", Bytes::from_static(&[0, 0, 0, 1])),
    ] {
        if let Some(column) = table.column(name) {
            let cell = ModelCell::live(timestamp, value);
            row.merge_column(column.id, ColumnData::Cell(cell));
        }
    }
    copy
}

fn decode(table: &Table, partition: &ceto_model::Partition, now: UnixSeconds) -> Option<Vec<Mutation>> {
    let (_, row) = partition.rows.first()?;
    let cell = |name: &str| match row.column(table.column(name)?.id)? {
        ColumnData::Cell(cell) => cell.value(now),
        ColumnData::Collection(_) => None,
    };
    if cell("version")?[..] != [0, 0, 0, 1] {
        return None;
    }
    let mut decoder = Decoder::new(cell("mutations")?);
    let count = decoder.count("mutations").ok()?;
    let mutations = (0..count)
        .map(|_| decoder.mutation().ok())
        .collect::<Option<Vec<_>>>()?;
    decoder.finish("batch").ok()?;
    Some(mutations)
}

fn deletion(node: &Node, table: &Table, key: DecoratedKey, timestamp: Timestamp) -> Mutation {
    let mut mutation = Mutation::new(table.id, key);
    mutation.partition.deletion = Some(Deletion {
        timestamp,
        deleted_at: UnixSeconds(node.env.clock().unix_seconds()),
    });
    mutation
}

impl Node {
    /// Has a copy, or its deletion, kept by a node, which may be this one.
    async fn keep_copy(
        self: &Rc<Self>,
        host: HostId,
        copy: Arc<Mutation>,
        timeout: Duration,
    ) -> Result<(), ReplicaFailure> {
        match host.0 == self.options.host_id {
            true => self.apply_on_owner(Arc::unwrap_or_clone(copy)).await,
            false => self.call(host, Call::Apply(copy), timeout).await,
        }
    }

    /// Notes what an applied mutation does to this shard's copies.
    pub(crate) fn note_batch(self: &Rc<Self>, mutation: &Mutation) {
        if batches(self).is_none_or(|table| table.id != mutation.table) {
            return;
        }
        let mut kept = self.batchlog.kept.borrow_mut();
        match mutation.partition.deletion {
            Some(_) => kept.remove(&mutation.key),
            None => kept.insert(mutation.key.clone(), self.env.clock().unix_micros()),
        };
        drop(kept);
        self.run_replays();
    }

    /// Finds the copies that earlier lives of this shard have kept.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) async fn open_batchlog(self: &Rc<Self>) -> Result<(), String> {
        let Some(table) = batches(self) else { return Ok(()) };
        let found = self.read_whole_table(table.id).await?;
        if found.is_empty() {
            return Ok(());
        }
        info!(batches = found.len(), "logged batches wait for their replay");
        let now = self.env.clock().unix_micros();
        let mut kept = self.batchlog.kept.borrow_mut();
        kept.extend(found.into_iter().map(|(key, _)| (key, now)));
        drop(kept);
        self.run_replays();
        Ok(())
    }

    fn run_replays(self: &Rc<Self>) {
        if self.batchlog.is_running.replace(true) {
            return;
        }
        let (node, env) = (Rc::downgrade(self), self.env.clone());
        let task = async move {
            loop {
                env.tasks().sleep(LOOK_PERIOD).await;
                let Some(node) = node.upgrade().filter(|node| !node.is_storage_draining()) else {
                    return;
                };
                node.replay_batches().await;
            }
        };
        self.env.tasks().spawn(TaskQueue::Maintenance, Box::pin(task));
    }

    /// Does what coordinators have not done in time.
    async fn replay_batches(self: &Rc<Self>) {
        let Some(table) = batches(self).filter(|_| self.has_peers()) else {
            return;
        };
        let age = 2 * self.settings().limits.write_timeout;
        let before = self.env.clock().unix_micros() - i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let due: Vec<DecoratedKey> = {
            let kept = self.batchlog.kept.borrow();
            let due = kept.iter().filter(|(_, since)| **since <= before);
            due.map(|(key, _)| key.clone()).take(REPLAYS_MAX).collect()
        };
        for key in due {
            match self.replay_batch(&table, &key).await {
                Ok(()) => {
                    self.batchlog.replayed.increment();
                    let deletion = deletion(self, &table, key, Timestamp(self.next_timestamp()));
                    if let Err(failure) = self.apply_on_owner(deletion).await {
                        warn!(%failure, "a logged batch that is done stays, and is done again");
                    }
                }
                Err(why) => {
                    self.batchlog.failed.increment();
                    warn!("a logged batch cannot be replayed yet: {why}");
                }
            }
        }
    }

    async fn replay_batch(self: &Rc<Self>, table: &Table, key: &DecoratedKey) -> Result<(), String> {
        let slices = std::iter::once(ceto_model::Slice::full()).collect();
        let read = self.read_for_update(table.id, key, slices).await;
        let partition = read.map_err(|error| error.message)?;
        if partition.rows.is_empty() {
            return Ok(());
        }
        let written = partition.rows.iter().filter_map(|(_, row)| row.liveness).next();
        if let Some(liveness) = written {
            // Its deletion has to be newer, whatever this node's clock says.
            self.note_timestamp(liveness.timestamp);
        }
        let now = UnixSeconds(self.env.clock().unix_seconds());
        let Some(mutations) = decode(table, &partition, now) else {
            // Of a later version, or not one: it stays for whoever can read it.
            return Err("its copy cannot be read".to_owned());
        };
        let schema = self.schema();
        let deadline = self.env.clock().now() + self.settings().limits.write_timeout;
        let age_seconds = written.map_or(0, |liveness| now.0 - liveness.timestamp.0 / 1_000_000);
        let wanted = mutations.into_iter().filter(|mutation| {
            let table = schema.table_by_id(mutation.table);
            // After that time the deletions that it could undo may be forgotten.
            table.is_some_and(|table| age_seconds <= i64::from(table.options.gc_grace_seconds))
        });
        // A hint will do: it is kept here then, and the batch done.
        let writes =
            wanted.map(|mutation| write_one(self, Consistency::Any, deadline, WriteType::Batch, mutation));
        for outcome in at_once(writes).await {
            outcome.map_err(|error| error.message)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ceto_model::Token;
    use uuid::Uuid;

    use super::*;

    fn peer(id: u8, rack: &str) -> Peer {
        Peer {
            host: HostId(Uuid::from_u128(u128::from(id))),
            internode: ([127, 0, 0, id], 7000).into(),
            rpc: [127, 0, 0, id].into(),
            native_port: 9042,
            shard_count: 1,
            datacenter: "dc".into(),
            rack: rack.into(),
            tokens: vec![Token(i64::from(id))],
            release_version: "5.0.0".into(),
            schema_version: Uuid::nil(),
            is_alive: true,
            serves_clients: true,
            state: PeerState::Normal,
        }
    }

    fn picked(racks: &[&str]) -> Vec<String> {
        let peers: Vec<Peer> = (2..).zip(racks).map(|(id, rack)| peer(id, rack)).collect();
        let near: Vec<&Peer> = peers.iter().collect();
        let picked = pick(&near, "own").into_iter();
        picked.map(|peer| peer.rack.to_string()).collect()
    }

    #[test]
    fn copies_are_on_two_other_racks_where_there_are() {
        assert_eq!(picked(&["own"]), ["own"]);
        assert_eq!(picked(&["own", "own", "own"]), ["own", "own"]);
        assert_eq!(picked(&["own", "a"]), ["own", "a"]);
        assert_eq!(picked(&["own", "a", "a", "b"]), ["a", "b"]);
        assert_eq!(picked(&["own", "a", "a"]), ["a", "a"]);
        assert_eq!(picked(&["own", "own", "a"]), ["own", "a"]);
    }
}
