//! Guardrails: what an operator forbids, or wants clients to be warned of, beyond what the database could do.
//!
//! Names, thresholds and texts are Cassandra's ([`table`] has them all). What a schema change comes to is judged by the
//! schema before and after it, so no statement can slip past. System keyspaces are exempt, and so are superusers.
//!
//! Never: looks at a row that is stored; storage judges partitions, by the limits it is given here.
//!
//! Read next: `table` for which guardrails there are, `schema_change` for those on the schema, `writes` for those on what
//! is written.

mod schema_change;
pub mod table;
mod writes;

use ceto_cql::{CqlError, StatementFeatures};
use ceto_model::{Consistency, Table};
use ceto_storage::{LoggedAbove, PartitionLimits};

pub use self::table::{Guardrails, Threshold};
use crate::system::definitions::SYSTEM_KEYSPACES;

const INTERSECTION: &str = "Filtering query with intersection on mutable columns at consistency level requiring coordinator reconciliation";
const INTERSECTION_REASON: &str = "Filtering queries involving an intersection on multiple mutable (i.e. non-key) columns over \
     unrepaired data at read consistency levels that would require coordinator reconciliation may violate the guarantees \
     of those consistency levels.";

/// What a client is told beside its answer.
type Warnings = Vec<String>;

impl Guardrails {
    /// A statement on a table of `keyspace`, as it was prepared.
    pub(crate) fn check_statement(
        &self,
        features: StatementFeatures,
        keyspace: &str,
    ) -> Result<(), CqlError> {
        if features == StatementFeatures::default() || is_system(keyspace) {
            return Ok(());
        }
        let flags = [
            (
                features.allow_filtering && !self.allow_filtering_enabled,
                "allow_filtering",
                "Querying with ALLOW FILTERING is not allowed. ALLOW FILTERING can potentially visit all the data in the \
                 table and have unpredictable performance.",
            ),
            (
                features.group_by && !self.group_by_enabled,
                "group_by",
                "GROUP BY functionality is not allowed",
            ),
            (
                features.user_timestamp && !self.user_timestamps_enabled,
                "user_timestamps",
                "User provided timestamps (USING TIMESTAMP) is not allowed",
            ),
            (
                features.list_read && !self.read_before_write_list_operations_enabled,
                "read_before_write_list_operations",
                "List operation requiring read before write is not allowed",
            ),
        ];
        refuse_first(&flags)
    }

    /// A SELECT that tests several columns which can change, on several replicas: each may miss another write, and say no
    /// to a row that they make together.
    pub(crate) fn check_intersection(
        &self,
        features: StatementFeatures,
        level: Consistency,
        keyspace: &str,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        let is_of_one = matches!(level, Consistency::One | Consistency::LocalOne);
        if !features.mutable_intersection || is_of_one || is_system(keyspace) {
            return Ok(());
        }
        let guardrail = "intersect_filtering_query";
        if !self.intersect_filtering_query_enabled {
            return Err(violated(
                guardrail,
                &format!("{INTERSECTION} is not allowed. {INTERSECTION_REASON}"),
            ));
        }
        if self.intersect_filtering_query_warned {
            warnings.push(recommended(guardrail, INTERSECTION, INTERSECTION_REASON));
        }
        Ok(())
    }

    /// What storage logs of the partitions it writes, for nobody waits for that who could be told.
    pub(crate) fn partition_limits(&self) -> PartitionLimits {
        let above = |threshold: Threshold| LoggedAbove {
            warning: u64::try_from(threshold.warn).ok(),
            error: u64::try_from(threshold.fail).ok(),
        };
        PartitionLimits {
            size: above(self.partition_size),
            tombstones: above(self.partition_tombstones),
            exempt: &SYSTEM_KEYSPACES,
        }
    }

    /// Loading sstables into a table.
    pub(crate) fn check_bulk_load(&self) -> Result<(), CqlError> {
        match self.bulk_load_enabled {
            true => Ok(()),
            false => Err(violated(
                "bulk_load_enabled",
                "Bulk loading of SSTables is not allowed. Bulk loading of SSTables might potentially destabilize the node.",
            )),
        }
    }

    /// The consistency level of a statement on a table of `keyspace`.
    pub(crate) fn check_consistency(
        &self,
        is_read: bool,
        level: Consistency,
        keyspace: &str,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        let (guardrail, what, disallowed, warned) = match is_read {
            true => (
                "read_consistency_levels",
                "read consistency levels",
                &self.read_consistency_levels_disallowed,
                &self.read_consistency_levels_warned,
            ),
            false => (
                "write_consistency_levels",
                "write consistency levels",
                &self.write_consistency_levels_disallowed,
                &self.write_consistency_levels_warned,
            ),
        };
        if (disallowed.is_empty() && warned.is_empty()) || is_system(keyspace) {
            return Ok(());
        }
        let given = [level.name()];
        check_disallowed(guardrail, what, &given, disallowed)?;
        warn_of_names(guardrail, what, &given, warned, warnings);
        Ok(())
    }

    /// The options that CREATE or ALTER TABLE gives.
    pub(crate) fn check_table_properties(
        &self,
        given: &[&str],
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        let (guardrail, what) = ("table_properties", "Table Properties");
        check_disallowed(guardrail, what, given, &self.table_properties_disallowed)?;
        let ignored = among(given, &self.table_properties_ignored);
        if !ignored.is_empty() {
            let text = format!(
                "Ignoring provided values {} as they are not supported for {what} (ignored values are: {})",
                list(&ignored),
                list(&self.table_properties_ignored)
            );
            warnings.push(violation(guardrail, &text));
        }
        warn_of_names(guardrail, what, given, &self.table_properties_warned, warnings);
        Ok(())
    }

    /// A SELECT that an index answers without a partition.
    pub(crate) fn check_index_query(&self, table: &Table) -> Result<(), CqlError> {
        if self.non_partition_restricted_index_query_enabled || is_system(&table.keyspace) {
            return Ok(());
        }
        Err(violated(
            "non_partition_restricted_index_query_enabled",
            "Non-partition key restricted query is not allowed. Executing a query on secondary indexes without partition \
             key restriction might degrade performance",
        ))
    }

    /// The keys that IN restrictions make, of partitions or of rows.
    pub(crate) fn check_cartesian_product(
        &self,
        table: &Table,
        key: &str,
        count: usize,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        if is_system(&table.keyspace) {
            return Ok(());
        }
        let threshold = self.in_select_cartesian_product;
        threshold.check_maximum("in_select_cartesian_product", count as i64, warnings, |threshold, warns| match warns {
            true => format!(
                "The cartesian product of the IN restrictions on {key} produces {count} values, this exceeds warning \
                 threshold of {threshold}."
            ),
            false => format!(
                "Aborting query because the cartesian product of the IN restrictions on {key} produces {count} values, \
                 this exceeds fail threshold of {threshold}."
            ),
        })
    }

    /// TRUNCATE.
    pub(crate) fn check_truncate(&self) -> Result<(), CqlError> {
        enabled(
            self.drop_truncate_table_enabled,
            "drop_truncate_table_enabled",
            "DROP and TRUNCATE TABLE functionality",
        )
    }

    /// The rows per page that a client asks for.
    pub(crate) fn check_page_size(
        &self,
        table: &Table,
        page_size: u32,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        if is_system(&table.keyspace) {
            return Ok(());
        }
        let name = &table.name;
        self.page_size.check_maximum("page_size", i64::from(page_size), warnings, |threshold, warns| {
            match warns {
                true => format!("Query for table {name} with page size {page_size} exceeds warning threshold of {threshold}."),
                false => format!("Aborting query for table {name}, page size {page_size} exceeds fail threshold of {threshold}."),
            }
        })
    }

    /// The partitions that a SELECT names.
    pub(crate) fn check_partition_keys(
        &self,
        table: &Table,
        count: usize,
        warnings: &mut Warnings,
    ) -> Result<(), CqlError> {
        if is_system(&table.keyspace) {
            return Ok(());
        }
        let name = &table.name;
        let value = count as i64;
        let threshold = self.partition_keys_in_select;
        threshold.check_maximum("partition_keys_in_select", value, warnings, |threshold, warns| match warns {
            true => format!(
                "Query with partition keys in IN clause on table {name}, with number of partition keys {count} exceeds \
                 warning threshold of {threshold}."
            ),
            false => format!(
                "Aborting query with partition keys in IN clause on table {name}, number of partition keys {count} exceeds \
                 fail threshold of {threshold}."
            ),
        })
    }
}

impl Threshold {
    fn is_on(self) -> bool {
        self.warn >= 0 || self.fail >= 0
    }

    fn check_maximum(
        self,
        guardrail: &str,
        value: i64,
        warnings: &mut Warnings,
        text: impl Fn(i64, bool) -> String,
    ) -> Result<(), CqlError> {
        self.check(guardrail, |threshold| value > threshold, warnings, text)
    }

    fn check_minimum(
        self,
        guardrail: &str,
        value: i64,
        warnings: &mut Warnings,
        text: impl Fn(i64, bool) -> String,
    ) -> Result<(), CqlError> {
        self.check(guardrail, |threshold| value < threshold, warnings, text)
    }

    fn check(
        self,
        guardrail: &str,
        is_beyond: impl Fn(i64) -> bool,
        warnings: &mut Warnings,
        text: impl Fn(i64, bool) -> String,
    ) -> Result<(), CqlError> {
        let is_beyond = |threshold: i64| threshold >= 0 && is_beyond(threshold);
        if is_beyond(self.fail) {
            return Err(violated(guardrail, &text(self.fail, false)));
        }
        if is_beyond(self.warn) {
            warnings.push(violation(guardrail, &text(self.warn, true)));
        }
        Ok(())
    }
}

fn is_system(keyspace: &str) -> bool {
    SYSTEM_KEYSPACES.contains(&keyspace)
}

fn enabled(is_enabled: bool, guardrail: &str, what: &str) -> Result<(), CqlError> {
    match is_enabled {
        true => Ok(()),
        false => Err(violated(guardrail, &format!("{what} is not allowed"))),
    }
}

/// The first that is set.
fn refuse_first(flags: &[(bool, &str, &str)]) -> Result<(), CqlError> {
    match flags.iter().find(|(is_violated, ..)| *is_violated) {
        Some((_, guardrail, text)) => Err(violated(guardrail, text)),
        None => Ok(()),
    }
}

/// Those of `given` that `names` has.
fn among<'g>(given: &[&'g str], names: &[String]) -> Vec<&'g str> {
    let is_named = |name: &&str| names.iter().any(|other| other == name);
    given.iter().copied().filter(is_named).collect()
}

/// Names as a set is written.
fn list<S: AsRef<str>>(names: &[S]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    format!("[{}]", names.join(", "))
}

fn check_disallowed(
    guardrail: &str,
    what: &str,
    given: &[&str],
    disallowed: &[String],
) -> Result<(), CqlError> {
    match among(given, disallowed) {
        found if found.is_empty() => Ok(()),
        found => Err(violated(
            guardrail,
            &format!(
                "Provided values {} are not allowed for {what} (disallowed values are: {})",
                list(&found),
                list(disallowed)
            ),
        )),
    }
}

fn warn_of_names(guardrail: &str, what: &str, given: &[&str], warned: &[String], warnings: &mut Warnings) {
    let found = among(given, warned);
    if !found.is_empty() {
        let text = format!(
            "Provided values {} are not recommended for {what} (warned values are: {})",
            list(&found),
            list(warned)
        );
        warnings.push(violation(guardrail, &text));
    }
}

/// A warning of something that is allowed all the same.
fn recommended(guardrail: &str, what: &str, reason: &str) -> String {
    violation(guardrail, &format!("{what} is not recommended. {reason}"))
}

fn violated(guardrail: &str, text: &str) -> CqlError {
    CqlError::Invalid(violation(guardrail, text))
}

fn violation(guardrail: &str, text: &str) -> String {
    format!("Guardrail {guardrail} violated: {text}")
}

#[cfg(test)]
mod tests;
