//! Deterministic simulation of the cluster layer: network, clock, workload, checkers.
