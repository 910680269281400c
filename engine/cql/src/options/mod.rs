//! What follows WITH on keyspaces and tables: checked, completed and in the form that `system_schema` stores.
//!
//! Options keep their whole meaning in [`TableOptions`](ceto_model::schema::TableOptions); map-valued ones as text, but
//! only text that was checked here: whoever reads `compaction['min_threshold']` finds a number. What is stored is also
//! canonical (classes by full name, defaults written out), so that equal options are equal text.
//!
//! Kinds of errors as in Cassandra: `Syntax` for an unknown property or a value of the wrong form, `Config` for a value
//! out of range.
//!
//! Read next: `table` for the list of options, `compaction`, `compression`, `caching`, `speculative_retry` for the ones
//! that have a language of their own.

mod caching;
mod compaction;
mod compression;
mod number;
mod property;
mod replication;
mod speculative_retry;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use number::format_double;
pub(crate) use property::{Entries, PropertyReader};
pub(crate) use replication::replication_options;
pub use table::is_table_property;
pub(crate) use table::{altered_table_options, new_table_options, table_id};

/// `DEFAULT_TIME_TO_LIVE` and `USING TTL` may not exceed 20 years, in seconds.
pub(crate) const TIME_TO_LIVE_MAX: u32 = 20 * 365 * 24 * 60 * 60;

#[cfg(test)]
pub(crate) use tests::properties as test_properties;
