//! What a statement uses that an operator may have forbidden.

use super::PreparedKind;
use super::modification::PreparedModification;

/// What guardrails ask of a SELECT, INSERT, UPDATE, DELETE or BATCH.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StatementFeatures {
    /// ALLOW FILTERING.
    pub allow_filtering: bool,
    /// GROUP BY.
    pub group_by: bool,
    /// USING TIMESTAMP.
    pub user_timestamp: bool,
    /// Reads a list before it is written.
    pub list_read: bool,
    /// Tests several columns that can change, with ALLOW FILTERING: replicas that miss one write each may all say no to a
    /// row that they make together.
    pub mutable_intersection: bool,
}

impl StatementFeatures {
    pub(super) fn of(kind: &PreparedKind) -> Self {
        match kind {
            PreparedKind::Select(select) => Self {
                allow_filtering: select.allow_filtering,
                group_by: select.group_by.is_some(),
                mutable_intersection: select.allow_filtering && select.restrictions.intersects_mutable,
                ..Self::default()
            },
            PreparedKind::Modification(modification) => Self::of_modification(modification),
            PreparedKind::Batch(batch) => {
                let all = batch
                    .statements
                    .iter()
                    .map(|statement| Self::of_modification(statement));
                let own = Self {
                    user_timestamp: batch.attributes.timestamp.is_some(),
                    ..Self::default()
                };
                all.fold(own, Self::or)
            }
            PreparedKind::Truncate(_) | PreparedKind::Use(_) | PreparedKind::Other(_) => Self::default(),
        }
    }

    fn of_modification(modification: &PreparedModification) -> Self {
        Self {
            user_timestamp: modification.attributes.timestamp.is_some(),
            list_read: modification
                .operations
                .iter()
                .any(|operation| operation.kind.needs_read()),
            ..Self::default()
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            allow_filtering: self.allow_filtering || other.allow_filtering,
            group_by: self.group_by || other.group_by,
            user_timestamp: self.user_timestamp || other.user_timestamp,
            list_read: self.list_read || other.list_read,
            mutable_intersection: self.mutable_intersection || other.mutable_intersection,
        }
    }
}
