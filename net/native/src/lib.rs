//! CQL native protocol v3, v4 and v5: bytes to typed messages, sans-IO.
