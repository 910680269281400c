//! BATCH: several modifications as one.

use super::Preparation;
use super::modification::{Attributes, PreparedModification};
use crate::CqlError;
use crate::ast::{Batch, BatchKind};
use ceto_model::Table;
use smallvec::SmallVec;
use std::sync::Arc;

/// The refusal of a batch that changes a setting.
pub(crate) fn virtual_in_batch() -> CqlError {
    CqlError::invalid("Modification of a virtual table is not supported in a batch")
}

/// A prepared BATCH.
#[derive(Clone, Debug)]
pub(crate) struct PreparedBatch {
    pub(crate) kind: BatchKind,
    pub(crate) statements: Vec<Arc<PreparedModification>>,
    pub(crate) attributes: Attributes,
}

impl PreparedBatch {
    pub(crate) fn prepare(preparation: &mut Preparation<'_>, batch: &Batch) -> Result<Self, CqlError> {
        let attributes = Attributes::prepare(preparation, &batch.using)?;
        let statements = batch
            .statements
            .iter()
            .map(|statement| PreparedModification::prepare(preparation, statement).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        if statements.iter().any(|statement| statement.table.is_virtual) {
            return Err(virtual_in_batch());
        }
        let prepared = Self {
            kind: batch.kind,
            statements,
            attributes,
        };
        check_kinds(prepared.kind, prepared.statements.iter().map(Arc::as_ref))?;
        prepared.check_attributes()?;
        Ok(prepared)
    }

    /// Some statement has IF.
    pub(crate) fn is_conditional(&self) -> bool {
        self.statements.iter().any(|statement| statement.is_conditional())
    }

    /// Each table once.
    pub(crate) fn tables(&self) -> SmallVec<[Arc<Table>; 1]> {
        let mut tables: SmallVec<[Arc<Table>; 1]> = SmallVec::new();
        for statement in &self.statements {
            if !tables.iter().any(|table| table.id == statement.table.id) {
                tables.push(statement.table.clone());
            }
        }
        tables
    }

    fn check_attributes(&self) -> Result<(), CqlError> {
        let message = if self.attributes.ttl.is_some() {
            "Global TTL on the BATCH statement is not supported."
        } else if self.attributes.timestamp.is_none() {
            return Ok(());
        } else if self.is_conditional() {
            "Cannot provide custom timestamp for conditional BATCH"
        } else if self.kind == BatchKind::Counter {
            "Cannot provide custom timestamp for counter BATCH"
        } else if self
            .statements
            .iter()
            .any(|statement| statement.attributes.timestamp.is_some())
        {
            "Timestamp must be set either on BATCH or individual statements"
        } else {
            return Ok(());
        };
        Err(CqlError::invalid(message))
    }
}

/// Counters go with counters only, and conditions stay within one table.
pub(crate) fn check_kinds<'a>(
    kind: BatchKind,
    statements: impl Iterator<Item = &'a PreparedModification> + Clone,
) -> Result<(), CqlError> {
    let counters = statements.clone().any(PreparedModification::is_counter);
    let others = statements.clone().any(|statement| !statement.is_counter());
    let conditional = statements.clone().any(PreparedModification::is_conditional);
    let message = match kind {
        BatchKind::Logged if counters => "Cannot include a counter statement in a logged batch",
        BatchKind::Counter if others => "Cannot include non-counter statement in a counter batch",
        _ if counters && others => "Counter and non-counter mutations cannot exist in the same batch",
        _ if counters && conditional => "Cannot include a counter statement in a conditional batch",
        _ => {
            let mut tables = statements.map(|statement| statement.table.id);
            let first = tables.next();
            if conditional && tables.any(|table| Some(table) != first) {
                "Batch with conditions cannot span multiple tables"
            } else {
                return Ok(());
            }
        }
    };
    Err(CqlError::invalid(message))
}
