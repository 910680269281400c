//! The guardrails there are: one line each, from which come their keys in `ceto.yaml`, their defaults, how they are
//! written, and their bounds.
//!
//! A threshold `x` has the keys `x_warn_threshold` and `x_fail_threshold`. Keys, defaults and texts are those of
//! Cassandra 5's cassandra.yaml.

use ceto_model::Consistency;
use serde::de::Error;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::quantity::{DataSize, Period};

/// From where on to warn, and from where on to refuse; [`OFF`]: never.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Threshold {
    /// Beyond it the client is warned.
    pub warn: i64,
    /// Beyond it the request is refused.
    pub fail: i64,
}

/// No threshold.
pub const OFF: i64 = -1;

impl Default for Threshold {
    fn default() -> Self {
        Self { warn: OFF, fail: OFF }
    }
}

/// What a threshold counts, and so how it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unit {
    /// A number; -1 for none.
    Count,
    /// Bytes, as `16KiB`; null for none.
    Bytes,
    /// Milliseconds, as `1d`; null for none.
    Age,
}

/// On which side of a threshold is beyond it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Above,
    Below,
}

/// What a list of names may name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Names {
    TableProperties,
    ConsistencyLevels,
}

/// The kind of a guardrail, by which nodetool shows them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Category {
    /// Allowed or not.
    Flag,
    /// A pair of thresholds.
    Threshold,
    /// Names that are warned of, ignored or refused.
    Values,
}

/// A guardrail as it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Shown {
    /// As nodetool names it: `tables_threshold`, `group_by_enabled`.
    pub name: String,
    /// Which kind.
    pub category: Category,
    /// Its keys with their values, that which fails first.
    pub keys: Vec<(&'static str, Value)>,
}

macro_rules! guardrails {
    (
        thresholds { $($(#[$threshold_doc:meta])* $threshold:ident: $unit:ident $side:ident, $warn:expr, $fail:expr;)* }
        flags { $($(#[$flag_doc:meta])* $flag:ident = $on:expr;)* }
        names { $($(#[$names_doc:meta])* $names:ident: $kind:ident;)* }
    ) => {
        /// The guardrails of a node; by default hardly any.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct Guardrails {
            $($(#[$threshold_doc])* pub $threshold: Threshold,)*
            $($(#[$flag_doc])* pub $flag: bool,)*
            $($(#[$names_doc])* pub $names: Vec<String>,)*
        }

        impl Default for Guardrails {
            fn default() -> Self {
                Self {
                    $($threshold: Threshold { warn: $warn, fail: $fail },)*
                    $($flag: $on,)*
                    $($names: Vec::new(),)*
                }
            }
        }

        impl Guardrails {
            /// All of them, as they stand.
            pub fn shown(&self) -> Vec<Shown> {
                vec![
                    $(Shown {
                        name: concat!(stringify!($threshold), "_threshold").to_owned(),
                        category: Category::Threshold,
                        keys: vec![
                            (
                                concat!(stringify!($threshold), "_fail_threshold"),
                                Unit::$unit.write(self.$threshold.fail),
                            ),
                            (
                                concat!(stringify!($threshold), "_warn_threshold"),
                                Unit::$unit.write(self.$threshold.warn),
                            ),
                        ],
                    },)*
                    $(Shown {
                        name: stringify!($flag).to_owned(),
                        category: Category::Flag,
                        keys: vec![(stringify!($flag), json!(self.$flag))],
                    },)*
                    $(Shown {
                        name: stringify!($names).to_owned(),
                        category: Category::Values,
                        keys: vec![(stringify!($names), json!(self.$names))],
                    },)*
                ]
            }

            /// Sets one key; None when it is no guardrail's.
            fn set(&mut self, key: &str, value: &Value) -> Option<Result<(), String>> {
                $(
                    if key == concat!(stringify!($threshold), "_warn_threshold") {
                        return Some(Unit::$unit.read(key, value).map(|warn| self.$threshold.warn = warn));
                    }
                    if key == concat!(stringify!($threshold), "_fail_threshold") {
                        return Some(Unit::$unit.read(key, value).map(|fail| self.$threshold.fail = fail));
                    }
                )*
                $(if key == stringify!($flag) {
                    let read = value.as_bool().ok_or_else(|| format!("{key}: '{value}' is neither true nor false"));
                    return Some(read.map(|on| self.$flag = on));
                })*
                $(if key == stringify!($names) {
                    return Some(Names::$kind.read(key, value).map(|names| self.$names = names));
                })*
                None
            }

            /// Refuses thresholds that contradict each other.
            ///
            /// # Errors
            /// One line that names the keys.
            pub fn check(&self) -> Result<(), String> {
                $(check_order(stringify!($threshold), Side::$side, self.$threshold)?;)*
                Ok(())
            }
        }
    };
}

guardrails! {
    thresholds {
        /// Keyspaces, without those of the system.
        keyspaces: Count Above, OFF, OFF;
        /// Tables, without those of the system.
        tables: Count Above, OFF, OFF;
        /// Columns of a table.
        columns_per_table: Count Above, OFF, OFF;
        /// Indexes of a table.
        secondary_indexes_per_table: Count Above, OFF, OFF;
        /// Views of a table.
        materialized_views_per_table: Count Above, OFF, OFF;
        /// Fields of a user type.
        fields_per_udt: Count Above, OFF, OFF;
        /// Dimensions of a vector.
        vector_dimensions: Count Above, OFF, OFF;
        /// Rows of a page.
        page_size: Count Above, OFF, OFF;
        /// Partitions that a SELECT names.
        partition_keys_in_select: Count Above, OFF, OFF;
        /// Keys that the IN restrictions of a SELECT make together.
        in_select_cartesian_product: Count Above, OFF, OFF;
        /// Elements of a collection that is written.
        items_per_collection: Count Above, OFF, OFF;
        /// Replication factors.
        minimum_replication_factor: Count Below, OFF, OFF;
        /// Replication factors.
        maximum_replication_factor: Count Above, OFF, OFF;
        /// Bytes of a partition, as an sstable has it.
        partition_size: Bytes Above, OFF, OFF;
        /// Tombstones of a partition, as an sstable has it.
        partition_tombstones: Count Above, OFF, OFF;
        /// Bytes of a value that is written.
        column_value_size: Bytes Above, OFF, OFF;
        /// Bytes of a collection that is written.
        collection_size: Bytes Above, OFF, OFF;
        /// Bytes of a text that a storage-attached index takes.
        sai_string_term_size: Bytes Above, 1 << 10, 8 << 10;
        /// Bytes of a frozen value that a storage-attached index takes.
        sai_frozen_term_size: Bytes Above, 1 << 10, 8 << 10;
        /// Bytes of a vector that a storage-attached index takes.
        sai_vector_term_size: Bytes Above, 16 << 10, 32 << 10;
        /// How far in the future a client's timestamp may be.
        maximum_timestamp: Age Above, OFF, OFF;
        /// How far in the past a client's timestamp may be.
        minimum_timestamp: Age Above, OFF, OFF;
    }
    flags {
        /// ALLOW FILTERING.
        allow_filtering_enabled = true;
        /// ALTER TABLE that changes columns.
        alter_table_enabled = true;
        /// New tables with COMPACT STORAGE.
        compact_tables_enabled = true;
        /// DROP KEYSPACE.
        drop_keyspace_enabled = true;
        /// DROP TABLE and TRUNCATE.
        drop_truncate_table_enabled = true;
        /// GROUP BY.
        group_by_enabled = true;
        /// Loading sstables into a table.
        bulk_load_enabled = true;
        /// Tests of several columns that can change, at a consistency level of several replicas.
        intersect_filtering_query_enabled = true;
        /// A warning of it.
        intersect_filtering_query_warned = true;
        /// CREATE MATERIALIZED VIEW.
        materialized_views_enabled = true;
        /// A query by indexes that does not name the partition.
        non_partition_restricted_index_query_enabled = true;
        /// List operations that read first.
        read_before_write_list_operations_enabled = true;
        /// CREATE INDEX.
        secondary_indexes_enabled = true;
        /// SimpleStrategy.
        simplestrategy_enabled = true;
        /// Tables without compression.
        uncompressed_tables_enabled = true;
        /// USING TIMESTAMP.
        user_timestamps_enabled = true;
        /// New columns of vectors.
        vector_type_enabled = true;
        /// Time windows without a default time to live.
        zero_ttl_on_twcs_enabled = true;
        /// A warning of it.
        zero_ttl_on_twcs_warned = true;
    }
    names {
        /// Consistency levels of reads.
        read_consistency_levels_disallowed: ConsistencyLevels;
        /// Consistency levels of reads.
        read_consistency_levels_warned: ConsistencyLevels;
        /// Options of CREATE and ALTER TABLE.
        table_properties_disallowed: TableProperties;
        /// Options of CREATE and ALTER TABLE.
        table_properties_ignored: TableProperties;
        /// Options of CREATE and ALTER TABLE.
        table_properties_warned: TableProperties;
        /// Consistency levels of writes.
        write_consistency_levels_disallowed: ConsistencyLevels;
        /// Consistency levels of writes.
        write_consistency_levels_warned: ConsistencyLevels;
    }
}

impl Unit {
    fn write(self, amount: i64) -> Value {
        match (self, u64::try_from(amount)) {
            (Unit::Count, _) => json!(amount),
            (_, Err(_)) => Value::Null,
            (Unit::Bytes, Ok(bytes)) => json!(DataSize::from_bytes(bytes).to_string()),
            (Unit::Age, Ok(millis)) => json!(Period::from_millis(millis).to_string()),
        }
    }

    fn read(self, key: &str, value: &Value) -> Result<i64, String> {
        let of_key = |error: serde_json::Error| format!("{key}: {error}");
        let bounded = |amount: u64| i64::try_from(amount).map_err(|_| format!("{key}: {amount} is too much"));
        let amount = match self {
            Unit::Count => match value.as_i64() {
                Some(OFF) => return Ok(OFF),
                Some(number) => number,
                None => return Err(format!("{key}: '{value}' is not a whole number; -1 is none")),
            },
            _ if value.is_null() => return Ok(OFF),
            Unit::Bytes => bounded(DataSize::deserialize(value).map_err(of_key)?.bytes())?,
            Unit::Age => {
                let millis = Period::deserialize(value).map_err(of_key)?.duration().as_millis();
                bounded(u64::try_from(millis).unwrap_or(u64::MAX))?
            }
        };
        match amount {
            0 if self == Unit::Count => Err(format!(
                "Invalid value for {key}: 0 is not allowed; if attempting to disable use -1"
            )),
            ..0 => Err(format!(
                "Invalid value {amount} for {key}: negative values are not allowed, outside of -1 which disables the \
                 guardrail"
            )),
            amount => Ok(amount),
        }
    }
}

impl Names {
    /// A list, or names with commas between them.
    fn read(self, key: &str, value: &Value) -> Result<Vec<String>, String> {
        let wrong = || format!("{key}: '{value}' is not a list of names");
        let given: Vec<&str> = match value {
            Value::Null => Vec::new(),
            Value::String(text) => text.split(',').collect(),
            Value::Array(values) => values
                .iter()
                .map(Value::as_str)
                .collect::<Option<_>>()
                .ok_or_else(wrong)?,
            _ => return Err(wrong()),
        };
        let mut names: Vec<String> = given.iter().map(|name| self.normal(name.trim())).collect();
        names.retain(|name| !name.is_empty());
        names.sort_unstable();
        names.dedup();
        let unknown: Vec<&str> = names
            .iter()
            .filter(|name| !self.is_known(name))
            .map(String::as_str)
            .collect();
        match (unknown.is_empty(), self) {
            (true, _) => Ok(names),
            (false, Names::TableProperties) => Err(format!(
                "Invalid value for {key}: {unknown:?} do not parse as valid table properties"
            )),
            (false, Names::ConsistencyLevels) => Err(format!(
                "Invalid value for {key}: {unknown:?} do not parse as valid consistency levels"
            )),
        }
    }

    fn normal(self, name: &str) -> String {
        match self {
            Names::TableProperties => name.to_ascii_lowercase(),
            Names::ConsistencyLevels => name.to_ascii_uppercase(),
        }
    }

    fn is_known(self, name: &str) -> bool {
        match self {
            Names::TableProperties => ceto_cql::is_table_property(name),
            Names::ConsistencyLevels => Consistency::LEVELS.iter().any(|level| level.name() == name),
        }
    }
}

fn check_order(name: &str, side: Side, threshold: Threshold) -> Result<(), String> {
    let Threshold { warn, fail } = threshold;
    let (is_crossed, order) = match side {
        Side::Above => (fail < warn, "lower"),
        Side::Below => (fail > warn, "greater"),
    };
    match warn != OFF && fail != OFF && is_crossed {
        true => Err(format!(
            "The warn threshold {warn} for {name}_warn_threshold should be {order} than the fail threshold {fail}"
        )),
        false => Ok(()),
    }
}

impl Serialize for Guardrails {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let keys: Vec<(&str, Value)> = self.shown().into_iter().flat_map(|shown| shown.keys).collect();
        let mut map = serializer.serialize_map(Some(keys.len()))?;
        for (key, value) in &keys {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Guardrails {
    /// Takes the keys that are a guardrail's and leaves the others.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Map::deserialize(deserializer)?;
        let mut guardrails = Guardrails::default();
        for (key, value) in &given {
            guardrails
                .set(key, value)
                .unwrap_or(Ok(()))
                .map_err(D::Error::custom)?;
        }
        Ok(guardrails)
    }
}
