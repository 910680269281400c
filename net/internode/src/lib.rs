//! Node-to-node messages and their codec, sans-IO.
