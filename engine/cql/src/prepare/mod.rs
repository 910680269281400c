//! Statement text, a schema and a keyspace to a [`Prepared`] statement: everything that can be known before there are
//! values.
//!
//! A prepared statement never changes and is shared by `Arc` between all requests of a shard. It holds the tables
//! that it was prepared against: when the schema replaces one of them, [`Prepared::is_current`] says so and it must be
//! prepared again.
//!
//! Read next: `select` and `modification` for what preparing means, [`crate::plan`] for what happens with values.

pub(crate) mod assignment;
pub(crate) mod batch;
mod features;
mod functions;
pub(crate) mod grouping;
pub(crate) mod insert_json;
pub(crate) mod modification;
pub(crate) mod nearest;
pub(crate) mod select;
pub(crate) mod selection;

pub use features::StatementFeatures;
pub(crate) use functions::UsedFunctions;

use crate::access::AccessChange;
use crate::ast::{BindMarker, QualifiedName, RawType, Statement};
use crate::bound::{BindVariables, ValueCheck};
use crate::plan::explain::{Explain, explain_columns};
use crate::schema_change::types::{TypeScope, resolve_frozen_type};
use crate::{ColumnSpecification, CqlError, SchemaChange};
use batch::PreparedBatch;
use ceto_model::schema::UserFunctions;
use ceto_model::{CqlType, Schema, Table, TableId};
use md5::{Digest, Md5};
use modification::PreparedModification;
use select::PreparedSelect;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// A statement that is ready for values.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(crate) kind: PreparedKind,
    variables: Vec<ColumnSpecification>,
    value_checks: Vec<ValueCheck>,
    partition_key_indices: Vec<u16>,
    pub(crate) tables: SmallVec<[Arc<Table>; 1]>,
    schema_version: Uuid,
    features: StatementFeatures,
    pub(crate) functions: UsedFunctions,
    pub(crate) explain: Option<Box<Explain>>,
    /// What EXPLAIN answers with.
    explain_columns: Vec<ColumnSpecification>,
}

/// What a [`Prepared`] does.
#[derive(Clone, Debug)]
pub(crate) enum PreparedKind {
    Select(Arc<PreparedSelect>),
    Modification(Arc<PreparedModification>),
    Batch(Arc<PreparedBatch>),
    Truncate(Arc<Table>),
    Use(Arc<str>),
    /// Resolved against the schema only when it is executed.
    Other(Arc<OtherStatement>),
}

/// A statement without bind variables that asks or changes the schema.
#[derive(Debug)]
pub(crate) struct OtherStatement {
    pub(crate) statement: Statement,
    pub(crate) keyspace: Option<Arc<str>>,
}

/// What preparing works with.
pub(crate) struct Preparation<'s> {
    pub(crate) schema: &'s Schema,
    /// The session's keyspace.
    pub(crate) keyspace: Option<&'s str>,
    pub(crate) variables: BindVariables,
    /// The statement's table, once it is known.
    pub(crate) table: Option<Arc<Table>>,
    /// User-defined functions that it calls.
    pub(crate) used: UsedFunctions,
}

/// Parses and prepares. `keyspace`: the session's.
pub fn parse_and_prepare(text: &str, schema: &Schema, keyspace: Option<&str>) -> Result<Prepared, CqlError> {
    parse_and_prepare_as(text, schema, keyspace, false)
}

/// As [`parse_and_prepare`]; `merges_variables`: bind markers of one name stand for one value, which is given once.
pub fn parse_and_prepare_as(
    text: &str,
    schema: &Schema,
    keyspace: Option<&str>,
    merges_variables: bool,
) -> Result<Prepared, CqlError> {
    let parsed = crate::parser::parse_statement_as(text, merges_variables)?;
    let mut preparation = Preparation {
        schema,
        keyspace,
        variables: BindVariables::new(parsed.bind_variables),
        table: None,
        used: UsedFunctions::default(),
    };
    let explain = match parsed.explain {
        None => None,
        Some(analyze) => Some(Box::new(Explain::new(analyze, &parsed.statement)?)),
    };
    let kind = preparation.prepare(parsed.statement)?;
    let columns_of_variables = preparation.variables.columns();
    let variables = preparation.variables.finish()?;
    let tables = match &kind {
        PreparedKind::Select(select) => SmallVec::from_buf([select.table.clone()]),
        PreparedKind::Modification(modification) => SmallVec::from_buf([modification.table.clone()]),
        PreparedKind::Batch(batch) => batch.tables(),
        PreparedKind::Truncate(table) => SmallVec::from_buf([table.clone()]),
        PreparedKind::Use(_) | PreparedKind::Other(_) => SmallVec::new(),
    };
    let partition_key_indices = match tables.first() {
        Some(table) => partition_key_indices(table, &variables, &columns_of_variables),
        None => Vec::new(),
    };
    Ok(Prepared {
        explain_columns: explain.as_ref().map(|_| explain_columns()).unwrap_or_default(),
        explain,
        features: StatementFeatures::of(&kind),
        kind,
        value_checks: variables
            .iter()
            .map(|variable| ValueCheck::of(&variable.cql_type))
            .collect(),
        variables,
        partition_key_indices,
        tables,
        schema_version: schema.version,
        functions: preparation.used,
    })
}

/// The identity of a statement: equal on all nodes for the same text and session keyspace.
pub fn statement_id(text: &str, keyspace: Option<&str>) -> [u8; 16] {
    let mut hash = Md5::new();
    hash.update(keyspace.unwrap_or("").as_bytes());
    hash.update(text.as_bytes());
    hash.finalize().into()
}

/// The identity of result metadata: changes when the columns of the result do.
pub fn result_metadata_id(columns: &[ColumnSpecification]) -> [u8; 16] {
    let mut hash = Md5::new();
    for column in columns {
        for part in [
            &*column.keyspace,
            &column.table,
            &column.name,
            &column.cql_type.to_string(),
        ] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
    }
    hash.finalize().into()
}

impl Prepared {
    /// The bind variables in order of appearance.
    pub fn variables(&self) -> &[ColumnSpecification] {
        &self.variables
    }

    /// By variable: how its value is checked.
    pub(crate) fn value_checks(&self) -> &[ValueCheck] {
        &self.value_checks
    }

    /// Which variables are the partition key's columns, in key order; empty unless all of them are variables.
    pub fn partition_key_indices(&self) -> &[u16] {
        &self.partition_key_indices
    }

    /// The columns of the result; empty when there is none. Conditional statements answer with columns that depend on
    /// the outcome, and these are not told here.
    pub fn result_columns(&self) -> &[ColumnSpecification] {
        if self.explain.is_some() {
            return &self.explain_columns;
        }
        match &self.kind {
            PreparedKind::Select(select) => &select.result_columns,
            _ => &[],
        }
    }

    /// The tables that it reads or writes.
    pub fn tables(&self) -> impl Iterator<Item = TableId> + '_ {
        self.tables.iter().map(|table| table.id)
    }

    /// The keyspace and name of the first table, for permissions, metrics and audit.
    pub fn table(&self) -> Option<&Arc<Table>> {
        self.tables.first()
    }

    /// What guardrails ask.
    pub fn features(&self) -> StatementFeatures {
        self.features
    }

    /// Calls user-defined functions.
    pub fn calls_functions(&self) -> bool {
        !self.functions.is_empty()
    }

    /// SELECT.
    pub fn is_select(&self) -> bool {
        matches!(self.kind, PreparedKind::Select(_))
    }

    /// TRUNCATE.
    pub fn is_truncate(&self) -> bool {
        matches!(self.kind, PreparedKind::Truncate(_))
    }

    /// INSERT, UPDATE, DELETE, BATCH with IF.
    pub fn is_conditional(&self) -> bool {
        if self.explain.is_some() {
            return false;
        }
        match &self.kind {
            PreparedKind::Modification(modification) => modification.is_conditional(),
            PreparedKind::Batch(batch) => batch.is_conditional(),
            _ => false,
        }
    }

    /// May be part of a batch.
    pub fn is_modification(&self) -> bool {
        matches!(self.kind, PreparedKind::Modification(_)) && self.explain.is_none()
    }

    /// Still means the same under `schema`. False: prepare the text again.
    pub fn is_current(&self, schema: &Schema) -> bool {
        if self.schema_version == schema.version {
            return true;
        }
        match self.kind {
            // Nothing of the schema is held.
            PreparedKind::Other(_) => true,
            PreparedKind::Use(_) => false,
            _ => {
                let is_same = |table: &Arc<Table>| {
                    let now = schema.table_by_id(table.id);
                    now.is_some_and(|now| Arc::ptr_eq(now, table))
                };
                self.tables.iter().all(is_same) && self.functions.are_current(schema)
            }
        }
    }

    /// A table that it uses is gone, or has other columns or more or less indexes: values and results may mean something else than
    /// the client knows, so the client has to prepare it again. Cassandra's rule.
    pub fn is_of_other_columns(&self, schema: &Schema) -> bool {
        self.tables
            .iter()
            .any(|table| match schema.table_by_id(table.id) {
                None => true,
                Some(now) => now.columns() != table.columns() || now.indexes().len() != table.indexes().len(),
            })
    }
}

/// `columns`: what each variable stands for, whatever its own name.
fn partition_key_indices(
    table: &Table,
    variables: &[ColumnSpecification],
    columns: &[SmallVec<[Arc<str>; 1]>],
) -> Vec<u16> {
    let of_column = |name: &str| {
        let found = variables.iter().zip(columns).position(|(variable, columns)| {
            columns.iter().any(|column| **column == *name)
                && variable.table == table.name
                && variable.keyspace == table.keyspace
        });
        found.and_then(|index| u16::try_from(index).ok())
    };
    let indices: Option<Vec<u16>> = table
        .partition_key()
        .iter()
        .map(|column| of_column(&column.name))
        .collect();
    indices.unwrap_or_default()
}

impl<'s> Preparation<'s> {
    fn prepare(&mut self, statement: Statement) -> Result<PreparedKind, CqlError> {
        match statement {
            Statement::Select(select) => {
                let table = self.find_table(&select.table)?;
                Ok(PreparedKind::Select(Arc::new(PreparedSelect::prepare(
                    self, table, &select,
                )?)))
            }
            Statement::Modification(modification) => {
                let prepared = PreparedModification::prepare(self, &modification)?;
                Ok(PreparedKind::Modification(Arc::new(prepared)))
            }
            Statement::Batch(batch) => Ok(PreparedKind::Batch(Arc::new(PreparedBatch::prepare(
                self, &batch,
            )?))),
            Statement::Truncate(name) => {
                let table = self.find_table(&name)?;
                if table.is_virtual {
                    return Err(CqlError::invalid("Cannot truncate virtual tables"));
                }
                if table.is_view() {
                    return Err(CqlError::invalid(
                        "Cannot TRUNCATE materialized view directly; must truncate base table instead",
                    ));
                }
                modification::check_writable(&table)?;
                Ok(PreparedKind::Truncate(table))
            }
            Statement::Use(keyspace) => match self.schema.keyspace(&keyspace) {
                Some(found) => Ok(PreparedKind::Use(found.name.clone())),
                None => Err(CqlError::Invalid(format!("Keyspace '{keyspace}' does not exist"))),
            },
            statement => {
                if matches!(statement, Statement::CreateMaterializedView(_))
                    && !self.variables.columns().is_empty()
                {
                    return Err(CqlError::invalid(
                        "Bind variables are not allowed in CREATE MATERIALIZED VIEW statements",
                    ));
                }
                if !matches!(statement, Statement::Describe(_)) {
                    // What is wrong whatever the schema is told at once; the rest when the change is carried out.
                    SchemaChange::prepare(&statement, self.keyspace, Uuid::nil()).transpose()?;
                    AccessChange::prepare(&statement, self.keyspace).transpose()?;
                }
                Ok(PreparedKind::Other(Arc::new(OtherStatement {
                    statement,
                    keyspace: self.keyspace.map(Arc::from),
                })))
            }
        }
    }

    /// The table of a statement, which becomes the preparation's.
    pub(crate) fn find_table(&mut self, name: &QualifiedName) -> Result<Arc<Table>, CqlError> {
        let table = find_table(self.schema, self.keyspace, name)?;
        self.table = Some(table.clone());
        Ok(table)
    }

    /// A type as written, for a value as a whole.
    pub(crate) fn resolve_type(&self, raw: &RawType) -> Result<CqlType, CqlError> {
        let own = self.table.as_ref().map(|table| &*table.keyspace);
        let keyspace = own.or(self.keyspace).unwrap_or_default();
        let none = BTreeMap::new();
        let types = self
            .schema
            .keyspace(keyspace)
            .map_or(&none, |keyspace| &keyspace.types);
        resolve_frozen_type(raw, TypeScope { keyspace, types })
    }

    /// User-defined functions that a name may mean: of the keyspace that is written, else of the statement's.
    pub(crate) fn user_functions(&self, name: &QualifiedName) -> Option<&'s UserFunctions> {
        let own = self.table.as_ref().map(|table| &*table.keyspace);
        let keyspace = name.keyspace.as_deref().or(own).or(self.keyspace)?;
        let functions = &self.schema.keyspace(keyspace)?.functions;
        (!functions.is_empty()).then_some(functions)
    }

    /// Keyspace and name of the statement's table, for the metadata of bind variables.
    pub(crate) fn subject(&self) -> (Arc<str>, Arc<str>) {
        match &self.table {
            Some(table) => (table.keyspace.clone(), table.name.clone()),
            None => ("".into(), "".into()),
        }
    }

    /// A bind marker that stands for `receiver`.
    pub(crate) fn bind(
        &mut self,
        marker: BindMarker,
        receiver: &ColumnSpecification,
    ) -> crate::expression::Expression {
        self.variables.bind(marker, receiver);
        crate::expression::Expression::Bind(marker.index)
    }
}

/// A table by name.
pub(crate) fn find_table(
    schema: &Schema,
    keyspace: Option<&str>,
    name: &QualifiedName,
) -> Result<Arc<Table>, CqlError> {
    let keyspace = match (name.keyspace.as_deref(), keyspace) {
        (Some(keyspace), _) | (None, Some(keyspace)) => keyspace,
        (None, None) => return Err(no_keyspace()),
    };
    let Some(found) = schema.keyspace(keyspace) else {
        return Err(CqlError::Invalid(format!("keyspace {keyspace} does not exist")));
    };
    match found.tables.get(&name.name) {
        Some(table) => Ok(table.clone()),
        None => Err(CqlError::Invalid(format!("table {} does not exist", name.name))),
    }
}

/// Neither the statement nor the session names a keyspace.
pub(crate) fn no_keyspace() -> CqlError {
    CqlError::invalid(
        "No keyspace has been specified. USE a keyspace, or explicitly specify keyspace.tablename",
    )
}
