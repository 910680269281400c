//! CQL: text to plans. Pure.
//!
//! `parser` turns text into `ast`, a tree that says what was written and knows no schema; the rest of the crate
//! asks the schema what it means.
//!
//! Never: a clock, a disk, a peer. A request that is wrong is a [`CqlError`], never a panic.
//!
//! Read next: `ast` for what statements look like, `parser` for how they are recognised.

pub mod ast;
pub mod describe;
mod error;
mod lexer;
mod options;
pub mod parser;
pub mod schema_change;
mod specification;

pub use error::CqlError;
pub use parser::{parse_statement, parse_term, parse_type, parse_where_clause};
pub use schema_change::{SchemaChange, SchemaChangeEvent, SchemaChangeKind, SchemaChangeTarget};
pub use specification::ColumnSpecification;
