//! Tokens to syntax tree: recursive descent over all of CQL 3.4.7.
//!
//! One method per rule of the grammar. A rule decides by looking a few tokens ahead and never goes back; the only
//! longer look is over a type in parentheses, to tell `(list<int>) [1]` from a tuple, and it is linear.
//!
//! Never: recursion deeper than the named bounds allow, whatever the text. Never: a schema look-up.
//!
//! Errors read like Cassandra's: `mismatched input` where one token would have fitted, `no viable alternative` where
//! several would. Beyond Cassandra 5.0 it accepts what later versions do (BETWEEN, NOT IN, NOT CONTAINS, CREATE TABLE
//! LIKE, GENERATED PASSWORD) and some extensions: USING TIMEOUT, BYPASS CACHE, service levels.
//!
//! Read next: `cursor` for the machinery, `statement` for where it starts.

mod cursor;
mod describe;
mod function;
mod hint;
mod modification;
mod name;
mod property;
mod relation;
mod role;
mod schema;
mod select;
mod selectable;
mod service_level;
mod statement;
mod syntax_error;
mod table;
mod term;
mod types;

#[cfg(test)]
mod tests;

pub use cursor::{MAX_BIND_MARKERS, MAX_NESTING, MAX_OPERATORS, MAX_STATEMENT_BYTES};
pub(crate) use statement::parse_statement_as;
pub use statement::{parse_statement, parse_term, parse_type, parse_where_clause};
