//! ceto stress: a load generator with cassandra-stress's words.
