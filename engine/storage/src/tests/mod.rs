//! Tests of the whole engine on a machine in memory.
#![allow(clippy::unwrap_used)]

mod commitlog;
mod compaction;
mod crash;
mod damage;
mod dropped;
mod expiry;
mod flips;
mod full_disk;
mod index;
mod limits;
mod lower_bound;
mod memory;
mod poison;
mod purge;
mod reshard;
mod row_cache;
mod snapshot;
mod together;
mod truncation;
mod upkeep;
mod vector;
mod workload;

use std::collections::BTreeMap;

use ceto_model::{DecoratedKey, Mutation, Partition};

/// What should be stored.
type Model = BTreeMap<DecoratedKey, Partition>;

fn apply(model: &mut Model, write: &Mutation) {
    model
        .entry(write.key.clone())
        .or_default()
        .merge(write.partition.clone());
}
