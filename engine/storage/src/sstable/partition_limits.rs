//! Partitions that an operator wants to hear of: too large, or with too many tombstones, by what one sstable has of them.
//!
//! Judged when an sstable is written, by a flush or a compaction, for before that nobody knows. So the client whose write
//! it was is long gone, and the log is told.
//!
//! Never: keeps a partition from being written; what is in memory has to get to disk.

use bytes::Bytes;
use ceto_model::value::format_literal;
use ceto_model::{ColumnKind, PartitionKey};

use super::serialization_header::SerializationHeader;

/// From where on a warning is logged, and from where on an error.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct LoggedAbove {
    /// None: never.
    pub warning: Option<u64>,
    /// None: never.
    pub error: Option<u64>,
}

/// What is logged of partitions that are written.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct PartitionLimits {
    /// Bytes, before compression.
    pub size: LoggedAbove,
    /// Deletions of the partition, of ranges, rows and cells.
    pub tombstones: LoggedAbove,
    /// Keyspaces of which nothing is logged.
    pub exempt: &'static [&'static str],
}

const TOO_LARGE: &str = "Too large partitions can cause performance problems.";
const TOO_MANY: &str = "Partitions with too many tombstones can cause performance problems.";

impl PartitionLimits {
    /// Logs what is to be said of one partition; false when that is nothing.
    pub(crate) fn judge(&self, header: &SerializationHeader, key: &[u8], size: u64, tombstones: u64) -> bool {
        if self.exempt.contains(&&*header.keyspace) {
            return false;
        }
        let is_large = self.size.log(size, |kind, threshold| {
            format!(
                "Guardrail partition_size violated: Partition {} has size {size}, this exceeds the {kind} threshold of \
                 {threshold}. {TOO_LARGE}",
                named(header, key)
            )
        });
        let has_many = self.tombstones.log(tombstones, |kind, threshold| {
            format!(
                "Guardrail partition_tombstones violated: Partition {} has {tombstones} tombstones, this exceeds the {kind} \
                 threshold of {threshold}. {TOO_MANY}",
                named(header, key)
            )
        });
        is_large || has_many
    }
}

impl LoggedAbove {
    fn log(self, value: u64, text: impl Fn(&str, u64) -> String) -> bool {
        let beyond = |threshold: &u64| value > *threshold;
        if let Some(threshold) = self.error.filter(beyond) {
            tracing::error!("{}", text("failure", threshold));
        } else if let Some(threshold) = self.warning.filter(beyond) {
            tracing::warn!("{}", text("warning", threshold));
        } else {
            return false;
        }
        true
    }
}

/// `keyspace.table:value:value`.
fn named(header: &SerializationHeader, key: &[u8]) -> String {
    let columns: Vec<_> = header.columns_of(ColumnKind::PartitionKey).collect();
    let key = PartitionKey(Bytes::copy_from_slice(key));
    let components = key.components(columns.len()).unwrap_or_default();
    let texts = components.iter().zip(columns).map(|(component, column)| {
        let cql_type = column.cql_type().map(|(cql_type, _)| cql_type);
        let literal = cql_type.and_then(|cql_type| format_literal(&cql_type, component).ok());
        literal.unwrap_or_else(|| "?".to_owned())
    });
    let key = texts.collect::<Vec<String>>().join(":");
    format!("{}.{}:{key}", header.keyspace, header.table)
}

#[cfg(test)]
mod tests {
    use ceto_model::type_text::marshal_class;
    use ceto_model::{ColumnId, CqlType};

    use super::*;
    use crate::sstable::HeaderColumn;

    #[test]
    fn partitions_beyond_a_threshold_are_logged() {
        let column = HeaderColumn {
            id: ColumnId(0),
            name: "k".into(),
            kind: ColumnKind::PartitionKey,
            type_class: marshal_class(&CqlType::Text, false),
            is_dropped: false,
        };
        let header = SerializationHeader {
            keyspace: "ks".into(),
            table: "t".into(),
            columns: vec![column],
        };
        assert_eq!(named(&header, b"it's"), "ks.t:'it''s'");
        let limits = PartitionLimits {
            size: LoggedAbove {
                warning: Some(10),
                error: Some(20),
            },
            tombstones: LoggedAbove {
                warning: None,
                error: Some(2),
            },
            exempt: &["system"],
        };
        let judged =
            |limits: PartitionLimits, size, tombstones| limits.judge(&header, b"a", size, tombstones);
        assert!(!judged(limits, 10, 2));
        assert!(judged(limits, 11, 0));
        assert!(judged(limits, 30, 0));
        assert!(judged(limits, 0, 3));
        assert!(!judged(PartitionLimits::default(), u64::MAX, u64::MAX));
        let exempt = PartitionLimits {
            exempt: &["ks"],
            ..limits
        };
        assert!(!judged(exempt, 30, 3));
    }
}
