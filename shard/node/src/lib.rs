//! A node as a library over `env`.
pub mod metrics;
pub mod options;
pub mod slots;
pub mod system;
