//! A prepared statement and values to a [`Plan`]: what the node has to do.
//!
//! Planning is pure: the same statement, values and [`PlanContext`] give the same plan. A write plan holds mutations; a
//! read plan is a small state machine that asks for one read after the other and turns the answers into result rows.
//!
//! Read next: `select` for reads, `write` for writes, [`crate::schema_change`] for the rest.

mod cells;
mod condition;
mod context;
mod expiration;
pub mod explain;
mod group;
mod indexed;
mod ranking;
mod result_builder;
mod result_row;
mod row_view;
mod select;
mod write;

pub use condition::{ConditionalWrite, Outcome};
pub use context::{FunctionRunner, PlanContext, RandomSource};
pub use expiration::ExpirationOverflow;
pub use result_row::RowSink;
pub use select::SelectPlan;
pub use write::{BatchItem, CounterUpdate, RowIncrements, WriteKind, WritePlan, plan_batch};

pub(crate) use context::{ticks_of_time_uuid, time_uuid_from};
pub(crate) use select::check_limit;

use crate::access::{AccessChange, AccessQuery};
use crate::ast::Statement;
use crate::bound::check_values;
use crate::describe::DescribeRequest;
use crate::prepare::{Prepared, PreparedKind};
use crate::{BoundValue, CqlError, SchemaChange};
use ceto_model::Table;
use std::sync::Arc;

/// What to do.
#[derive(Debug)]
pub enum Plan {
    /// Apply mutations, then answer Void.
    Write(WritePlan),
    /// Read, then apply mutations if the conditions hold.
    Conditional(Box<ConditionalWrite>),
    /// Read; answer Rows.
    Read(Box<SelectPlan>),
    /// Apply to the newest schema, answer Schema_change (or Void when nothing was to be done).
    ChangeSchema(SchemaChange),
    /// Answer Set_keyspace.
    Use(Arc<str>),
    /// Drop all data of the table, answer Void.
    Truncate(Arc<Table>),
    /// Answer Rows made from the schema.
    Describe(DescribeRequest),
    /// Apply to what holds for roles now, answer Void.
    ChangeAccess(Box<AccessChange>),
    /// Answer Rows made from what holds for roles.
    ListAccess(Box<AccessQuery>),
}

impl Prepared {
    /// What to do for these values, one per variable.
    pub fn plan(&self, values: &[BoundValue], context: &PlanContext<'_>) -> Result<Plan, CqlError> {
        let values = check_values(self, values)?;
        match &self.kind {
            PreparedKind::Select(select) => SelectPlan::new(select.clone(), &values, context).map(Plan::Read),
            PreparedKind::Modification(modification) => write::plan_single(modification, &values, context),
            PreparedKind::Batch(batch) => write::plan_prepared_batch(batch, &values, context),
            PreparedKind::Truncate(table) => Ok(Plan::Truncate(table.clone())),
            PreparedKind::Use(keyspace) => Ok(Plan::Use(keyspace.clone())),
            PreparedKind::Other(other) => plan_other(&other.statement, other.keyspace.as_ref(), context),
        }
    }
}

fn plan_other(
    statement: &Statement,
    keyspace: Option<&Arc<str>>,
    context: &PlanContext<'_>,
) -> Result<Plan, CqlError> {
    if let Statement::Describe(describe) = statement {
        return Ok(Plan::Describe(DescribeRequest::new(
            describe.clone(),
            keyspace.cloned(),
        )));
    }
    let session_keyspace = keyspace.map(|name| &**name);
    if let Some(change) = AccessChange::prepare(statement, session_keyspace) {
        return Ok(Plan::ChangeAccess(Box::new(change?)));
    }
    if let Some(query) = AccessQuery::prepare(statement, session_keyspace) {
        return Ok(Plan::ListAccess(Box::new(query)));
    }
    match SchemaChange::prepare(statement, session_keyspace, context.time_uuid()) {
        Some(change) => change.map(Plan::ChangeSchema),
        None => Err(CqlError::invalid("This statement is not supported yet")),
    }
}
