//! Sans-IO protocol cores: ring, replication, coordinators.
