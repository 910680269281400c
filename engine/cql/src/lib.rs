//! CQL: text to plans. Pure.
//!
//! `parser` turns text into `ast`, a tree that says what was written and knows no schema; the rest of the crate
//! asks the schema what it means.
//!
//! Never: a clock, a disk, a peer. A request that is wrong is a [`CqlError`], never a panic.
//!
//! Text goes `parser` -> `prepare` (with a schema) -> `plan` (with values). Read next: `ast` for what statements look like,
//! `parser` for how they are recognised, `plan` for what the node gets.

pub mod access;
pub mod ast;
mod bound;
pub mod describe;
mod error;
mod expression;
mod functions;
mod lexer;
mod options;
mod paging;
pub mod parser;
pub mod plan;
mod prepare;
mod restrictions;
pub mod schema_change;
mod specification;

pub use ast::BatchKind;
pub use bound::BoundValue;
pub use error::CqlError;
pub use options::is_table_property;
pub use parser::{parse_statement, parse_term, parse_type, parse_where_clause};
pub use plan::ExpirationOverflow;
pub use plan::{
    BatchItem, ConditionalWrite, CounterUpdate, FunctionRunner, Outcome, Plan, PlanContext, RandomSource,
    RowIncrements, RowSink, SelectPlan, WriteKind, WritePlan, plan_batch,
};
pub use prepare::modification::is_settings;
pub use prepare::{
    Prepared, StatementFeatures, parse_and_prepare, parse_and_prepare_as, result_metadata_id, statement_id,
};
pub use restrictions::view::ViewFilter;
pub use schema_change::{SchemaChange, SchemaChangeEvent, SchemaChangeKind, SchemaChangeTarget};
pub use specification::ColumnSpecification;
