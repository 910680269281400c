//! Which rows a DESCRIBE asks for.

use super::function_text::{aggregate_name, aggregate_text, function_name, function_text};
use super::statement_text::{index_text, keyspace_text, table_text, type_name, type_text, view_text};
use crate::access::{AccessControl, AccessElement, access_elements};
use crate::ast::{Describe, DescribeTarget, QualifiedName};
use crate::schema_change::{find_index, in_order_of_use, is_system_keyspace};
use crate::{ColumnSpecification, CqlError};
use bytes::Bytes;
use ceto_model::schema::{AggregateDefinition, FunctionDefinition, IndexDefinition};
use ceto_model::types::quote_identifier;
use ceto_model::value::Value;
use ceto_model::{CqlType, Keyspace, Schema, Table, UserType};
use std::sync::Arc;

/// A DESCRIBE and the session's keyspace.
#[derive(Clone, Debug)]
pub struct DescribeRequest {
    describe: Describe,
    session_keyspace: Option<Arc<str>>,
}

/// The end token of a range, and the addresses of the nodes that have it.
pub type RangeOwners = (String, Vec<String>);

/// What DESCRIBE CLUSTER tells that is not in the schema.
pub struct ClusterDescription<'a> {
    /// Name of the cluster.
    pub name: &'a str,
    /// Class of the partitioner; its package is not shown.
    pub partitioner: &'a str,
    /// Class of the snitch; its package is not shown.
    pub snitch: &'a str,
    /// For a keyspace: the end token of each range, and the addresses of the nodes that have it.
    pub range_ownership: &'a dyn Fn(&str) -> Vec<RangeOwners>,
    /// Roles and what is granted to them; None when who asks may not see them.
    pub access: Option<&'a AccessControl>,
}

/// The rows of a DESCRIBE or a LIST.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribeRows {
    /// Name and type of each column.
    pub columns: Vec<ColumnSpecification>,
    /// The cells of each row, as they are sent; None is null.
    pub rows: Vec<Vec<Option<Bytes>>>,
}

/// A keyspace, or what is in one.
enum Element<'s> {
    Keyspace(&'s Keyspace),
    Table(&'s Table),
    Type(&'s UserType),
    Index(&'s Table, &'s IndexDefinition),
    View(&'s Table),
    Function(&'s FunctionDefinition),
    Aggregate(&'s AggregateDefinition),
}

impl Element<'_> {
    /// Keyspace, kind and name.
    fn names(&self) -> [String; 3] {
        let (keyspace, kind, name) = match self {
            Self::Keyspace(keyspace) => (&keyspace.name, "keyspace", quote_identifier(&keyspace.name)),
            Self::Table(table) => (&table.keyspace, "table", quote_identifier(&table.name)),
            Self::Type(user_type) => (&user_type.keyspace, "type", type_name(user_type)),
            Self::Index(table, index) => (&table.keyspace, "index", quote_identifier(&index.name)),
            Self::View(view) => (&view.keyspace, "materialized_view", quote_identifier(&view.name)),
            Self::Function(function) => (&function.keyspace, "function", function_name(function)),
            Self::Aggregate(aggregate) => (&aggregate.keyspace, "aggregate", aggregate_name(aggregate)),
        };
        [quote_identifier(keyspace), kind.to_owned(), name]
    }

    fn text(&self, with_internals: bool) -> String {
        match self {
            Self::Keyspace(keyspace) => keyspace_text(keyspace),
            Self::Table(table) => table_text(table, with_internals),
            Self::Type(user_type) => type_text(user_type),
            Self::Index(table, index) => index_text(table, index),
            Self::View(view) => view_text(view, with_internals),
            Self::Function(function) => function_text(function),
            Self::Aggregate(aggregate) => aggregate_text(aggregate),
        }
    }
}

/// A result column; none belongs to a table, but they say so as if there were one.
fn column(name: &str, cql_type: CqlType) -> ColumnSpecification {
    ColumnSpecification {
        keyspace: "system".into(),
        table: "describe".into(),
        name: name.into(),
        cql_type,
    }
}

fn text_columns(names: &[&str]) -> Vec<ColumnSpecification> {
    names.iter().map(|name| column(name, CqlType::Text)).collect()
}

const LIST_COLUMNS: [&str; 3] = ["keyspace_name", "type", "name"];
const ELEMENT_COLUMNS: [&str; 4] = ["keyspace_name", "type", "name", "create_statement"];
const CLUSTER_COLUMNS: [&str; 3] = ["cluster", "partitioner", "snitch"];

impl DescribeRequest {
    /// `session_keyspace` stands in for a keyspace that is not written, and narrows lists.
    pub fn new(describe: Describe, session_keyspace: Option<Arc<str>>) -> DescribeRequest {
        DescribeRequest {
            describe,
            session_keyspace,
        }
    }

    /// All rows of the result.
    ///
    /// # Errors
    /// `Invalid` when what is to be described does not exist.
    pub fn rows(&self, schema: &Schema, cluster: &ClusterDescription<'_>) -> Result<DescribeRows, CqlError> {
        match &self.describe.target {
            DescribeTarget::Cluster => self.cluster(cluster),
            DescribeTarget::Keyspaces => Ok(list(
                schema.keyspaces().map(|keyspace| Element::Keyspace(keyspace)),
            )),
            DescribeTarget::Tables => {
                Ok(list(self.listed_keyspaces(schema)?.into_iter().flat_map(
                    |keyspace| tables_of(keyspace).map(|table| Element::Table(table)),
                )))
            }
            DescribeTarget::Types => {
                Ok(list(self.listed_keyspaces(schema)?.into_iter().flat_map(
                    |keyspace| keyspace.types.values().map(|user_type| Element::Type(user_type)),
                )))
            }
            DescribeTarget::Functions => {
                let keyspaces = self.listed_keyspaces(schema)?.into_iter();
                Ok(list(keyspaces.flat_map(|keyspace| {
                    keyspace.functions.functions().map(|one| Element::Function(one))
                })))
            }
            DescribeTarget::Aggregates => {
                let keyspaces = self.listed_keyspaces(schema)?.into_iter();
                Ok(list(keyspaces.flat_map(|keyspace| {
                    keyspace.functions.aggregates().map(|one| Element::Aggregate(one))
                })))
            }
            _ => {
                let elements = self.elements(schema)?;
                let row = |element: Element<'_>| {
                    let names = element.names().into_iter();
                    let text = element.text(self.describe.with_internals);
                    names.chain([text]).map(|cell| Some(Bytes::from(cell))).collect()
                };
                let mut rows: Vec<_> = elements.into_iter().map(row).collect();
                if let (DescribeTarget::Schema { .. }, true, Some(access)) = (
                    &self.describe.target,
                    self.describe.with_internals,
                    cluster.access,
                ) {
                    rows.extend(access_elements(access).into_iter().map(access_row));
                }
                Ok(DescribeRows {
                    columns: text_columns(&ELEMENT_COLUMNS),
                    rows,
                })
            }
        }
    }

    /// The session's keyspace, else all.
    fn listed_keyspaces<'s>(&self, schema: &'s Schema) -> Result<Vec<&'s Arc<Keyspace>>, CqlError> {
        match &self.session_keyspace {
            Some(name) => Ok(vec![find_keyspace(schema, name)?]),
            None => Ok(schema.keyspaces().collect()),
        }
    }

    /// What is described with the statements that make it.
    fn elements<'s>(&self, schema: &'s Schema) -> Result<Vec<Element<'s>>, CqlError> {
        let not_found = |what: &str, name: &str, keyspace: &Keyspace| {
            Err(CqlError::invalid(format!(
                "{what} '{name}' not found in '{}'",
                keyspace.name
            )))
        };
        match &self.describe.target {
            DescribeTarget::Schema { full } => Ok(schema
                .keyspaces()
                .filter(|keyspace| *full || !(keyspace.is_virtual || is_system_keyspace(&keyspace.name)))
                .flat_map(|keyspace| keyspace_elements(keyspace))
                .collect()),
            DescribeTarget::Keyspace { only, name } => {
                let keyspace = self.keyspace(schema, name.as_deref())?;
                if *only {
                    return Ok(vec![Element::Keyspace(keyspace)]);
                }
                Ok(keyspace_elements(keyspace))
            }
            DescribeTarget::Table(name) => {
                let keyspace = self.keyspace(schema, name.keyspace.as_deref())?;
                table_element(keyspace, &name.name)
            }
            DescribeTarget::Type(name) => {
                let keyspace = self.keyspace(schema, name.keyspace.as_deref())?;
                match keyspace.types.get(&name.name) {
                    Some(user_type) => Ok(vec![Element::Type(user_type)]),
                    None => not_found("User defined type", &name.name, keyspace),
                }
            }
            DescribeTarget::Index(name) => {
                let keyspace = self.keyspace(schema, name.keyspace.as_deref())?;
                match find_index(keyspace, &name.name) {
                    Some((table, index)) => Ok(vec![Element::Index(table, index)]),
                    None => not_found("Table for existing index", &name.name, keyspace),
                }
            }
            DescribeTarget::MaterializedView(name) => {
                let keyspace = self.keyspace(schema, name.keyspace.as_deref())?;
                match keyspace.tables.get(&name.name).filter(|table| table.is_view()) {
                    Some(view) => Ok(vec![Element::View(view)]),
                    None => not_found("Materialized view", &name.name, keyspace),
                }
            }
            DescribeTarget::Function(name) => {
                let keyspace = self.keyspace(schema, name.keyspace.as_deref())?;
                match keyspace.functions.functions_named(&name.name) {
                    [] => not_found("User defined function", &name.name, keyspace),
                    found => Ok(found.iter().map(|one| Element::Function(one)).collect()),
                }
            }
            DescribeTarget::Aggregate(name) => {
                let keyspace = self.keyspace(schema, name.keyspace.as_deref())?;
                match keyspace.functions.aggregates_named(&name.name) {
                    [] => not_found("User defined aggregate", &name.name, keyspace),
                    found => Ok(found.iter().map(|one| Element::Aggregate(one)).collect()),
                }
            }
            DescribeTarget::Named(name) => self.named_elements(schema, name),
            DescribeTarget::Cluster
            | DescribeTarget::Keyspaces
            | DescribeTarget::Tables
            | DescribeTarget::Types
            | DescribeTarget::Functions
            | DescribeTarget::Aggregates => Ok(Vec::new()),
        }
    }

    /// A name alone: a keyspace, else a table.
    fn named_elements<'s>(
        &self,
        schema: &'s Schema,
        QualifiedName { keyspace, name }: &QualifiedName,
    ) -> Result<Vec<Element<'s>>, CqlError> {
        if keyspace.is_none()
            && let Some(keyspace) = schema.keyspace(name)
        {
            return Ok(keyspace_elements(keyspace));
        }
        let keyspace_name = keyspace
            .as_ref()
            .or(self.session_keyspace.as_ref())
            .unwrap_or(name);
        let keyspace = find_keyspace(schema, keyspace_name)?;
        match keyspace.tables.get(name) {
            Some(view) if view.is_view() => return Ok(vec![Element::View(view)]),
            Some(table) => return Ok(table_elements(keyspace, table).collect()),
            None => {}
        }
        match find_index(keyspace, name) {
            Some((table, index)) => Ok(vec![Element::Index(table, index)]),
            None => Err(CqlError::invalid(format!(
                "'{name}' not found in keyspace '{keyspace_name}'"
            ))),
        }
    }

    /// The keyspace that is written, else the session's.
    fn keyspace<'s>(&self, schema: &'s Schema, written: Option<&str>) -> Result<&'s Arc<Keyspace>, CqlError> {
        match written.or(self.session_keyspace.as_deref()) {
            Some(name) => find_keyspace(schema, name),
            None => Err(CqlError::invalid("No keyspace specified and no current keyspace")),
        }
    }

    fn cluster(&self, cluster: &ClusterDescription<'_>) -> Result<DescribeRows, CqlError> {
        let mut columns = text_columns(&CLUSTER_COLUMNS);
        let without = |package: &str, class: &str| class.strip_prefix(package).unwrap_or(class).to_owned();
        let mut row = vec![
            Bytes::from(cluster.name.to_owned()),
            Bytes::from(without("org.apache.cassandra.dht.", cluster.partitioner)),
            Bytes::from(without("org.apache.cassandra.locator.", cluster.snitch)),
        ];
        let keyspace = self.session_keyspace.as_deref();
        if let Some(keyspace) = keyspace.filter(|keyspace| !is_system_keyspace(keyspace)) {
            let nodes = CqlType::List {
                element: Arc::new(CqlType::Text),
                frozen: true,
            };
            let ownership = CqlType::Map {
                key: Arc::new(CqlType::Text),
                value: Arc::new(nodes),
                frozen: false,
            };
            let mut ranges = (cluster.range_ownership)(keyspace);
            ranges.sort();
            ranges.dedup_by(|one, other| one.0 == other.0);
            let entries = ranges.into_iter().map(|(token, nodes)| {
                let nodes = nodes.into_iter().map(Value::Text);
                (Value::Text(token), Value::List(nodes.collect()))
            });
            let wire = Value::Map(entries.collect())
                .to_wire(&ownership)
                .map_err(|error| CqlError::invalid(error.to_string()))?;
            columns.push(column("range_ownership", ownership));
            row.push(wire.into());
        }
        let row = row.into_iter().map(Some).collect();
        Ok(DescribeRows {
            columns,
            rows: vec![row],
        })
    }
}

fn find_keyspace<'s>(schema: &'s Schema, name: &str) -> Result<&'s Arc<Keyspace>, CqlError> {
    let found = schema.keyspace(name);
    found.ok_or_else(|| CqlError::invalid(format!("'{name}' not found in keyspaces")))
}

fn table_element<'s>(keyspace: &'s Keyspace, name: &str) -> Result<Vec<Element<'s>>, CqlError> {
    match keyspace.tables.get(name).filter(|table| !table.is_view()) {
        Some(table) => Ok(table_elements(keyspace, table).collect()),
        None => Err(CqlError::invalid(format!(
            "Table '{name}' not found in keyspace '{}'",
            keyspace.name
        ))),
    }
}

/// Tables without views.
fn tables_of(keyspace: &Keyspace) -> impl Iterator<Item = &Arc<Table>> {
    keyspace.tables.values().filter(|table| !table.is_view())
}

/// A table, its indexes and its views.
fn table_elements<'s>(keyspace: &'s Keyspace, table: &'s Table) -> impl Iterator<Item = Element<'s>> {
    let indexes = table.indexes().iter();
    let views = keyspace.views_of(table.id);
    std::iter::once(Element::Table(table))
        .chain(indexes.map(|index| Element::Index(table, &index.definition)))
        .chain(views.map(|view| Element::View(view)))
}

/// A keyspace and all that it holds, each after what it needs.
fn keyspace_elements(keyspace: &Keyspace) -> Vec<Element<'_>> {
    let types = in_order_of_use(&keyspace.types);
    let types = types.into_iter().map(|user_type| Element::Type(user_type));
    let functions = keyspace.functions.functions().map(|one| Element::Function(one));
    let aggregates = keyspace.functions.aggregates().map(|one| Element::Aggregate(one));
    let tables = tables_of(keyspace).flat_map(|table| table_elements(keyspace, table));
    std::iter::once(Element::Keyspace(keyspace))
        .chain(types)
        .chain(functions)
        .chain(aggregates)
        .chain(tables)
        .collect()
}

/// A role, grant or service level: in no keyspace.
fn access_row(element: AccessElement) -> Vec<Option<Bytes>> {
    let text = |text: String| Some(Bytes::from(text));
    vec![
        None,
        text(element.kind.to_owned()),
        text(element.name),
        text(element.text),
    ]
}

/// Names only.
fn list<'s>(elements: impl Iterator<Item = Element<'s>>) -> DescribeRows {
    let row = |element: Element<'s>| element.names().map(|name| Some(Bytes::from(name))).to_vec();
    DescribeRows {
        columns: text_columns(&LIST_COLUMNS),
        rows: elements.map(row).collect(),
    }
}
