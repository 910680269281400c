//! Tests of the whole engine on a machine in memory.
#![allow(clippy::unwrap_used)]

mod workload;
