//! What an acceptor has promised, accepted and seen committed, as rows of `system.paxos`.
//!
//! A partition's state lies under the partition's own key, so on the shard that owns it; the table's id is the clustering
//! key. Rows live as long as `gc_grace_seconds` of the table, and three hours at least.
//!
//! Never: a state that cannot be read taken for none.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ceto_cluster::paxos::{AcceptorState, PartitionId};
use ceto_internode::{Ballot, FailureReason, Proposal};
use ceto_model::codec::{Decoder, put_mutation};
use ceto_model::comparable::encode_clustering;
use ceto_model::read::{ColumnSelection, ReadCommand, ReadLimits, ReadTarget};
use ceto_model::{
    Cell, ClusteringKey, ColumnData, Expiry, Liveness, Mutation, Row, Slice, Table, Timestamp, Ttl,
    UnixSeconds,
};
use uuid::Uuid;

use crate::message::ReplicaFailure;
use crate::node::Node;
use crate::system::definitions::{PAXOS, SYSTEM};

/// States are kept for so long at least.
const STATE_TTL_MIN: Duration = Duration::from_secs(3 * 3600);

/// How long acceptors keep the states of a table's partitions.
pub(super) fn state_ttl(table: &Table) -> Duration {
    let grace = u64::from(table.options.gc_grace_seconds);
    STATE_TTL_MIN.max(Duration::from_secs(grace))
}

fn broken(what: &str) -> ReplicaFailure {
    ReplicaFailure::new(
        FailureReason::StorageRefused,
        format!("system.paxos has a {what} that cannot be read"),
    )
}

impl Node {
    fn paxos_table(&self) -> Result<std::sync::Arc<Table>, ReplicaFailure> {
        let table = self.schema().table(SYSTEM, PAXOS).cloned();
        table.ok_or_else(|| ReplicaFailure::new(FailureReason::Unknown, "system.paxos is missing"))
    }

    /// The state of a partition that this shard owns.
    pub(super) async fn load_paxos_state(
        self: &Rc<Self>,
        partition: &PartitionId,
    ) -> Result<AcceptorState, ReplicaFailure> {
        let table = self.paxos_table()?;
        let row_key = row_key(&table, partition);
        let now = UnixSeconds(self.env.clock().unix_seconds());
        let command = ReadCommand {
            table: table.id,
            target: ReadTarget::Partition(partition.key.clone()),
            slices: [Slice::of_row(&row_key)].into_iter().collect(),
            first_partition_slices: None,
            reversed: false,
            columns: ColumnSelection::All,
            now,
            limits: ReadLimits::NONE,
            keep_tombstones: false,
            bypass_cache: false,
            index: None,
        };
        let result = self.read_here(&command).await?;
        let part = result.partitions.into_iter().next();
        let rows = part.map(|part| part.partition.rows).unwrap_or_default();
        match rows.into_iter().find(|(key, _)| *key == row_key) {
            Some((_, row)) => {
                // The next state has to be newer than this one, whatever the clock says.
                if let Some(liveness) = row.liveness {
                    self.note_timestamp(liveness.timestamp);
                }
                decode(&table, partition, &row, now)
            }
            None => Ok(AcceptorState::default()),
        }
    }

    /// Stores the state of a partition that this shard owns; it survives the death of the process when this returns.
    pub(super) async fn store_paxos_state(
        self: &Rc<Self>,
        partition: &PartitionId,
        state: &AcceptorState,
    ) -> Result<(), ReplicaFailure> {
        let table = self.paxos_table()?;
        let schema = self.schema();
        let ttl = schema
            .table_by_id(partition.table)
            .map_or(STATE_TTL_MIN, |table| state_ttl(table));
        let ttl = Ttl(u32::try_from(ttl.as_secs()).map_or(Ttl::MAX.0, |seconds| seconds.min(Ttl::MAX.0)));
        let timestamp = Timestamp(self.next_timestamp());
        let now = UnixSeconds(self.env.clock().unix_seconds());
        let mutation = encode(&table, partition, state, (timestamp, now, ttl));
        self.clone().apply_plainly(mutation).await
    }
}

fn row_key(table: &Table, partition: &PartitionId) -> ClusteringKey {
    let components: [&[u8]; 1] = [partition.table.0.as_bytes()];
    let encoded = encode_clustering(table.clustering_types(), &components);
    ClusteringKey(encoded.expect("a uuid is a value of its type"))
}

fn encode(
    table: &Table,
    partition: &PartitionId,
    state: &AcceptorState,
    (timestamp, now, ttl): (Timestamp, UnixSeconds, Ttl),
) -> Mutation {
    let ballot = |ballot: Ballot| Bytes::copy_from_slice(ballot.to_timeuuid().as_bytes());
    let content = |proposal: &Proposal| {
        let mut bytes = Vec::new();
        put_mutation(&mut bytes, &proposal.mutation);
        Bytes::from(bytes)
    };
    let (accepted, committed) = (state.accepted.as_ref(), state.committed.as_ref());
    let values = [
        ("in_progress_ballot", Some(ballot(state.promised))),
        (
            "proposal_ballot",
            accepted.map(|accepted| ballot(accepted.ballot)),
        ),
        ("proposal", accepted.map(content)),
        (
            "most_recent_commit_at",
            committed.map(|committed| ballot(committed.ballot)),
        ),
        ("most_recent_commit", committed.map(content)),
    ];
    let mut mutation = Mutation::new(table.id, partition.key.clone());
    let row = mutation.partition.row_mut(row_key(table, partition));
    let expiry = Some(Expiry::after(now, ttl));
    row.liveness = Some(Liveness { timestamp, expiry });
    for (name, value) in values {
        let column = table.column(name).expect("a column of system.paxos");
        let cell = match value {
            Some(value) => Cell::live(timestamp, value),
            None => Cell::tombstone(timestamp, now),
        };
        row.merge_column(column.id, ColumnData::Cell(cell));
    }
    row.expire_cells(expiry);
    mutation
}

fn decode(
    table: &Table,
    partition: &PartitionId,
    row: &Row,
    now: UnixSeconds,
) -> Result<AcceptorState, ReplicaFailure> {
    let cell = |name: &str| match row.column(table.column(name)?.id)? {
        ColumnData::Cell(cell) => cell.value(now),
        ColumnData::Collection(_) => None,
    };
    let ballot = |name: &str| -> Result<Option<Ballot>, ReplicaFailure> {
        let Some(bytes) = cell(name) else { return Ok(None) };
        let uuid = Uuid::from_slice(&bytes).map_err(|_| broken("ballot"))?;
        Ballot::from_timeuuid(uuid)
            .map(Some)
            .ok_or_else(|| broken("ballot"))
    };
    let proposal = |at: &str, content: &str| -> Result<Option<Proposal>, ReplicaFailure> {
        let (ballot, bytes) = match (ballot(at)?, cell(content)) {
            (Some(ballot), Some(bytes)) => (ballot, bytes),
            (None, None) => return Ok(None),
            _ => return Err(broken("proposal")),
        };
        let mut decoder = Decoder::new(bytes);
        let mutation = decoder.mutation().map_err(|_| broken("proposal"))?;
        decoder.finish("proposal").map_err(|_| broken("proposal"))?;
        if mutation.table != partition.table || mutation.key != partition.key {
            return Err(broken("proposal"));
        }
        let mutation = mutation.into();
        Ok(Some(Proposal { ballot, mutation }))
    };
    Ok(AcceptorState {
        promised: ballot("in_progress_ballot")?.ok_or_else(|| broken("ballot"))?,
        accepted: proposal("proposal_ballot", "proposal")?,
        committed: proposal("most_recent_commit_at", "most_recent_commit")?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ceto_model::{ColumnId, DecoratedKey, PartitionKey, TableId};

    use super::*;
    use crate::system::definitions::system_schema;

    #[test]
    fn states_come_back_and_newer_ones_hide_older_ones() {
        let schema = system_schema();
        let table = schema.table(SYSTEM, PAXOS).unwrap();
        let partition = PartitionId {
            table: TableId(Uuid::from_u128(3)),
            key: DecoratedKey::new(PartitionKey(vec![1, 2].into())),
        };
        let proposal = |micros| {
            let mut mutation = Mutation::new(partition.table, partition.key.clone());
            let row = mutation
                .partition
                .row_mut(ClusteringKey(vec![0x40, 1, 0x38].into()));
            let cell = Cell::live(Timestamp(micros), vec![9].into());
            row.merge_column(ColumnId(4), ColumnData::Cell(cell));
            Proposal {
                ballot: Ballot { micros, proposer: 5 },
                mutation: mutation.into(),
            }
        };
        let promised = |micros| Ballot { micros, proposer: 8 };
        let states = [
            AcceptorState {
                promised: promised(1_700_000_000_000_001),
                ..AcceptorState::default()
            },
            AcceptorState {
                promised: promised(1_700_000_000_000_003),
                accepted: Some(proposal(1_700_000_000_000_003)),
                committed: Some(proposal(1_700_000_000_000_002)),
            },
            AcceptorState {
                promised: promised(1_700_000_000_000_004),
                accepted: None,
                committed: Some(proposal(1_700_000_000_000_004)),
            },
        ];
        let now = UnixSeconds(1_700_000_000);
        let mut stored = Row::default();
        for (at, state) in states.iter().enumerate() {
            let times = (Timestamp(at as i64 + 1), now, Ttl(60));
            let mut mutation = encode(table, &partition, state, times);
            assert_eq!(mutation.key, partition.key);
            stored.merge(mutation.partition.rows.remove(0).1);
            assert_eq!(&decode(table, &partition, &stored, now).unwrap(), state);
        }
        let other = PartitionId {
            table: TableId(Uuid::from_u128(4)),
            ..partition.clone()
        };
        assert!(decode(table, &other, &stored, now).is_err());
    }
}
