//! DESCRIBE: the schema as rows, and as the CQL that makes it again.
//!
//! Texts are those of Cassandra 5, character by character, because tools read them; and statements in them, given to an
//! empty schema in their order, make what was described (the exceptions are virtual tables, which are in comments).
//!
//! Read next: `request` for which rows a statement asks for, `statement_text` for the text of each element.

mod function_text;
mod request;
mod statement_text;
#[cfg(test)]
mod tests;
mod text;

pub use function_text::initial_condition_text;
pub use request::{ClusterDescription, DescribeRequest, DescribeRows, RangeOwners};
pub use statement_text::{index_text, keyspace_text, table_text, type_text};
