//! The control thread: schema order, admin HTTP API, metrics exposition.
