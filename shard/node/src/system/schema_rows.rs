//! The schema as rows of `system_schema`, and back.
//!
//! A schema change is written as the difference of two schemas' rows: rows that are new or differ are inserted, rows
//! that are gone are deleted. Reading goes the other way: user types first (they may use each other), then tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ceto_model::DecoratedKey;
use ceto_model::schema::{
    Column, DroppedColumn, IndexDefinition, IndexTarget, ReplicationOptions, TARGET, TableBuilder,
    TableOptions, ViewDefinition,
};
use ceto_model::value::Value;
use ceto_model::{
    ColumnData, ColumnId, ColumnKind, CqlType, Deletion, Keyspace, Mutation, Partition, PartitionKey, Row,
    Schema, Table, TableId, Timestamp, UnixSeconds, UserType, UserTypeField,
};
use uuid::Uuid;

use super::compact;
use super::definitions::{SYSTEM_KEYSPACES, SYSTEM_SCHEMA};
use super::function_rows;
use super::row::{self, StoredRow, SystemRow, text, text_list, text_map, text_set};

/// Tables of `system_schema` that hold what [`rows`] makes.
pub const TABLES: [&str; 9] = [
    "keyspaces",
    "tables",
    "columns",
    "dropped_columns",
    "types",
    "functions",
    "aggregates",
    "indexes",
    "views",
];

/// A type of its CQL text; `udt` finds the user types of the keyspace.
pub fn parse_type(text: &str, udt: &dyn Fn(&str) -> Option<Arc<UserType>>) -> Result<CqlType, String> {
    ceto_model::type_text::parse_cql_type(text, "", &|_, name| udt(name)).map_err(|error| error.to_string())
}

/// The rows of a keyspace, each with the table it belongs to.
pub fn rows(keyspace: &Keyspace) -> Vec<(&'static str, SystemRow)> {
    let mut rows = Vec::new();
    let name = || text(&*keyspace.name);
    rows.push((
        "keyspaces",
        SystemRow::default()
            .with("keyspace_name", name())
            .with("durable_writes", Value::Boolean(keyspace.durable_writes))
            .with("replication", text_map(&keyspace.replication.0)),
    ));
    for user_type in keyspace.types.values() {
        let names = user_type.fields.iter().map(|field| field.name.to_string());
        let types = user_type.fields.iter().map(|field| field.cql_type.to_string());
        rows.push((
            "types",
            SystemRow::default()
                .with("keyspace_name", name())
                .with("type_name", text(&*user_type.name))
                .with("field_names", text_list(names))
                .with("field_types", text_list(types)),
        ));
    }
    rows.extend(function_rows::rows(keyspace));
    for table in keyspace.tables.values() {
        rows.push(match &table.view {
            None => ("tables", table_row(table)),
            Some(view) => ("views", view_row(table, view)),
        });
        let columns = compact::shown_columns(table);
        rows.extend(
            columns
                .iter()
                .map(|column| ("columns", column_row(table, column))),
        );
        rows.extend(
            table
                .dropped
                .iter()
                .map(|column| ("dropped_columns", dropped_row(table, column))),
        );
        let indexes = table.indexes().iter();
        rows.extend(indexes.map(|index| ("indexes", index_row(table, &index.definition))));
    }
    rows
}

fn table_row(table: &Table) -> SystemRow {
    options_row(table)
        .with("table_name", text(&*table.name))
        .with("flags", text_set(compact::flags(table)))
}

fn view_row(table: &Table, view: &ViewDefinition) -> SystemRow {
    options_row(table)
        .with("view_name", text(&*table.name))
        .with("base_table_id", Value::Uuid(view.base.0))
        .with("base_table_name", text(&*view.base_name))
        .with("include_all_columns", Value::Boolean(view.include_all))
        .with("where_clause", text(&*view.where_clause))
}

/// What tables and views have alike.
fn options_row(table: &Table) -> SystemRow {
    let options = &table.options;
    let int = |value: u32| Value::Int(i32::try_from(value).unwrap_or(i32::MAX));
    let extensions = options
        .extensions
        .iter()
        .map(|(k, v)| (text(k), Value::Blob(v.clone().into())));
    SystemRow::default()
        .with("keyspace_name", text(&*table.keyspace))
        .with("id", Value::Uuid(table.id.0))
        .with("additional_write_policy", text(&options.additional_write_policy))
        .with("allow_auto_snapshot", Value::Boolean(options.allow_auto_snapshot))
        .with(
            "bloom_filter_fp_chance",
            Value::Double(options.bloom_filter_fp_chance),
        )
        .with("caching", text_map(&options.caching))
        .with("cdc", Value::Boolean(options.cdc))
        .with("comment", text(&options.comment))
        .with("compaction", text_map(&options.compaction))
        .with("compression", text_map(&options.compression))
        .with("crc_check_chance", Value::Double(options.crc_check_chance))
        .with("dclocal_read_repair_chance", Value::Double(0.0))
        .with("default_time_to_live", int(options.default_time_to_live))
        .with("extensions", Value::Map(extensions.collect()))
        .with("gc_grace_seconds", int(options.gc_grace_seconds))
        .with("incremental_backups", Value::Boolean(options.incremental_backups))
        .with("max_index_interval", int(options.max_index_interval))
        .with("memtable", text(&options.memtable))
        .with(
            "memtable_flush_period_in_ms",
            int(options.memtable_flush_period_in_ms),
        )
        .with("min_index_interval", int(options.min_index_interval))
        .with("read_repair", text(&options.read_repair))
        .with("read_repair_chance", Value::Double(0.0))
        .with("speculative_retry", text(&options.speculative_retry))
}

/// The `clustering_order` and `position` that drivers expect of a column.
pub(super) fn order_and_position(column: &Column) -> (&'static str, i32) {
    match (column.kind, column.descending) {
        (ColumnKind::Clustering, true) => ("desc", i32::from(column.position)),
        (ColumnKind::Clustering, false) => ("asc", i32::from(column.position)),
        (ColumnKind::PartitionKey, _) => ("none", i32::from(column.position)),
        _ => ("none", -1),
    }
}

pub(super) fn column_row(table: &Table, column: &Column) -> SystemRow {
    let (order, position) = order_and_position(column);
    SystemRow::default()
        .with("keyspace_name", text(&*table.keyspace))
        .with("table_name", text(&*table.name))
        .with("column_name", text(&*column.name))
        .with("clustering_order", text(order))
        .with(
            "column_name_bytes",
            Value::Blob(column.name.as_bytes().to_vec().into()),
        )
        .with("kind", text(column.kind.name()))
        .with("position", Value::Int(position))
        .with("type", text(column.cql_type.to_string()))
        .with("column_id", Value::Int(column.id.0 as i32))
}

fn dropped_row(table: &Table, column: &DroppedColumn) -> SystemRow {
    SystemRow::default()
        .with("keyspace_name", text(&*table.keyspace))
        .with("table_name", text(&*table.name))
        .with("column_name", text(&*column.name))
        .with(
            "dropped_time",
            Value::Timestamp(column.dropped_at.div_euclid(1000)),
        )
        .with("kind", text(column.kind.name()))
        .with("type", text(column.cql_type.to_string()))
        .with("column_id", Value::Int(column.id.0 as i32))
}

fn index_row(table: &Table, index: &IndexDefinition) -> SystemRow {
    SystemRow::default()
        .with("keyspace_name", text(&*table.keyspace))
        .with("table_name", text(&*table.name))
        .with("index_name", text(&*index.name))
        .with("kind", text(index.kind()))
        .with("options", text_map(&index.options))
        .with("table_id", Value::Uuid(index.id.0))
}

/// The mutations that turn the stored rows of `old` into those of `new`. `schema` holds the `system_schema` tables.
pub fn difference(
    old: Option<&Keyspace>,
    new: Option<&Keyspace>,
    schema: &Schema,
    timestamp: Timestamp,
    now: UnixSeconds,
) -> Vec<Mutation> {
    let table = |name: &str| {
        schema
            .table(SYSTEM_SCHEMA, name)
            .expect("a table of system_schema")
            .clone()
    };
    if let (Some(old), None) = (old, new) {
        let key = DecoratedKey::new(PartitionKey::from_components(&[old.name.as_bytes()]));
        let deletion = |name: &str| {
            let mut mutation = Mutation::new(table(name).id, key.clone());
            mutation.partition.deletion = Some(Deletion {
                timestamp,
                deleted_at: now,
            });
            mutation
        };
        return TABLES.map(deletion).into();
    }
    let old_rows = old.map(rows).unwrap_or_default();
    let new_rows = new.map(rows).unwrap_or_default();
    row::difference(&old_rows, &new_rows, &table, timestamp, now)
}

/// Identity of a schema's content: equal on every node that has the same.
pub fn version(schema: &Schema) -> Uuid {
    let mut content = Vec::new();
    for keyspace in schema.keyspaces().filter(|keyspace| !keyspace.is_virtual) {
        for mutation in difference(None, Some(keyspace), schema, Timestamp(1), UnixSeconds(0)) {
            ceto_model::codec::put_mutation(&mut content, &mutation);
        }
    }
    Uuid::new_v3(&Uuid::NAMESPACE_OID, &content)
}

/// Stored rows of `system_schema` that make no schema.
#[derive(Debug)]
pub struct SchemaError(pub String);

impl std::fmt::Display for SchemaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the stored schema cannot be read: {}", self.0)
    }
}

impl std::error::Error for SchemaError {}

/// What is stored in `system_schema`: per table of [`TABLES`], its partitions.
#[derive(Default, Debug)]
pub struct StoredSchema(pub BTreeMap<&'static str, Vec<(DecoratedKey, Partition)>>);

impl StoredSchema {
    pub(super) fn each(
        &self,
        system: &Schema,
        name: &str,
        mut row: impl FnMut(&StoredRow<'_>) -> Result<(), SchemaError>,
    ) -> Result<(), SchemaError> {
        let table = system
            .table(SYSTEM_SCHEMA, name)
            .expect("a table of system_schema");
        for (key, partition) in self.0.get(name).into_iter().flatten() {
            for (clustering, content) in &partition.rows {
                let stored = StoredRow::new(table, key, clustering, content, UnixSeconds(0))
                    .ok_or_else(|| SchemaError(format!("system_schema.{name} has a malformed key")))?;
                row(&stored)?;
            }
        }
        Ok(())
    }

    /// Names of the system keyspaces whose stored rows are those of `system`.
    pub fn system_keyspaces(&self, system: &Schema) -> BTreeSet<String> {
        let keyspaces = system.keyspaces().filter(|keyspace| !keyspace.is_virtual);
        let is_described = |keyspace: &&Arc<Keyspace>| {
            let wanted = difference(None, Some(keyspace), system, Timestamp(1), UnixSeconds(0));
            wanted.iter().all(|mutation| {
                let table = system
                    .table_by_id(mutation.table)
                    .expect("a table of system_schema");
                let stored = self
                    .0
                    .get(&*table.name)
                    .into_iter()
                    .flatten()
                    .find(|(key, _)| *key == mutation.key);
                stored.is_some_and(|(_, partition)| has_same_values(&mutation.partition, partition))
            })
        };
        keyspaces
            .filter(is_described)
            .map(|keyspace| keyspace.name.to_string())
            .collect()
    }

    /// The schema: `system` and the stored keyspaces.
    pub fn build(&self, system: &Schema) -> Result<Schema, SchemaError> {
        let mut keyspaces: BTreeMap<String, Keyspace> = BTreeMap::new();
        self.each(system, "keyspaces", |row| {
            let name = row.text("keyspace_name");
            if !SYSTEM_KEYSPACES.contains(&&*name) {
                let keyspace = Keyspace {
                    name: name.as_str().into(),
                    durable_writes: row.boolean("durable_writes").unwrap_or(true),
                    replication: ReplicationOptions(row.text_map("replication").into_iter().collect()),
                    tables: BTreeMap::new(),
                    types: BTreeMap::new(),
                    functions: Default::default(),
                    is_virtual: false,
                };
                keyspaces.insert(name, keyspace);
            }
            Ok(())
        })?;
        self.add_types(system, &mut keyspaces)?;
        self.add_functions(system, &mut keyspaces)?;
        self.add_tables(system, &mut keyspaces)?;
        let mut schema = keyspaces.into_values().fold(system.clone(), |schema, keyspace| {
            schema.with_keyspace(keyspace, Uuid::nil())
        });
        schema.version = version(&schema);
        Ok(schema)
    }

    fn add_types(
        &self,
        system: &Schema,
        keyspaces: &mut BTreeMap<String, Keyspace>,
    ) -> Result<(), SchemaError> {
        let mut waiting = Vec::new();
        self.each(system, "types", |row| {
            let fields: Vec<_> = row
                .text_list("field_names")
                .into_iter()
                .zip(row.text_list("field_types"))
                .collect();
            waiting.push((row.text("keyspace_name"), row.text("type_name"), fields));
            Ok(())
        })?;
        // A type may use another one; each pass resolves at least one, or there is an unknown name.
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut unresolved = Vec::new();
            for (keyspace_name, name, fields) in waiting {
                let Some(keyspace) = keyspaces.get_mut(&keyspace_name) else {
                    continue;
                };
                let resolved: Result<Vec<_>, _> = fields
                    .iter()
                    .map(|(field, text)| {
                        let cql_type = parse_type(text, &|name| keyspace.types.get(name).cloned())?;
                        Ok::<_, String>(UserTypeField {
                            name: field.as_str().into(),
                            cql_type,
                        })
                    })
                    .collect();
                match resolved {
                    Ok(fields) => {
                        let definition = UserType {
                            keyspace: keyspace.name.clone(),
                            name: name.as_str().into(),
                            fields,
                        };
                        keyspace
                            .types
                            .insert(definition.name.clone(), Arc::new(definition));
                    }
                    Err(_) => unresolved.push((keyspace_name, name, fields)),
                }
            }
            if unresolved.len() == before {
                let names: Vec<_> = unresolved.iter().map(|(k, t, _)| format!("{k}.{t}")).collect();
                return Err(SchemaError(format!(
                    "types that use unknown types: {}",
                    names.join(", ")
                )));
            }
            waiting = unresolved;
        }
        Ok(())
    }

    fn add_tables(
        &self,
        system: &Schema,
        keyspaces: &mut BTreeMap<String, Keyspace>,
    ) -> Result<(), SchemaError> {
        let mut builders: BTreeMap<(String, String), TableBuilder> = BTreeMap::new();
        self.each(system, "tables", |row| {
            let (keyspace, name) = (row.text("keyspace_name"), row.text("table_name"));
            let id = row
                .uuid("id")
                .ok_or_else(|| SchemaError(format!("{keyspace}.{name} has no id")))?;
            let mut builder = TableBuilder::new(TableId(id), &keyspace, &name);
            builder.options = options_of(row);
            builder.is_compact = row
                .text_set("flags")
                .is_some_and(|flags| compact::is_compact(&flags));
            builders.insert((keyspace, name), builder);
            Ok(())
        })?;
        self.each(system, "views", |row| {
            let (keyspace, name) = (row.text("keyspace_name"), row.text("view_name"));
            let (Some(id), Some(base)) = (row.uuid("id"), row.uuid("base_table_id")) else {
                return Err(SchemaError(format!("the view {keyspace}.{name} has no id")));
            };
            let mut builder = TableBuilder::new(TableId(id), &keyspace, &name);
            builder.options = options_of(row);
            builder.view = Some(Arc::new(ViewDefinition {
                base: TableId(base),
                base_name: row.text("base_table_name").as_str().into(),
                include_all: row.boolean("include_all_columns").unwrap_or(false),
                where_clause: row.text("where_clause").as_str().into(),
            }));
            builders.insert((keyspace, name), builder);
            Ok(())
        })?;
        let typed = |row: &StoredRow<'_>, keyspaces: &BTreeMap<String, Keyspace>| {
            let keyspace = row.text("keyspace_name");
            let types = keyspaces.get(&keyspace).map(|keyspace| &keyspace.types);
            let parsed = parse_type(&row.text("type"), &|name| types?.get(name).cloned());
            parsed.map_err(|error| {
                SchemaError(format!(
                    "column {} of {keyspace}.{}: {error}",
                    row.text("column_name"),
                    row.text("table_name")
                ))
            })
        };
        self.each(system, "columns", |row| {
            let Some(builder) = builders.get_mut(&(row.text("keyspace_name"), row.text("table_name"))) else {
                return Ok(());
            };
            if row.int("column_id") == Some(compact::MADE_UP_STORED) {
                return Ok(());
            }
            let id = column_id(row)?;
            builder.next_column_id = builder.next_column_id.max(id.0 + 1);
            builder.columns.push(Column {
                id,
                name: row.text("column_name").as_str().into(),
                kind: compact::stored_kind(builder.is_compact, kind_of(row)?),
                position: row
                    .int("position")
                    .and_then(|p| u16::try_from(p).ok())
                    .unwrap_or(0),
                cql_type: typed(row, keyspaces)?,
                descending: row.text("clustering_order") == "desc",
                is_hidden: false,
            });
            Ok(())
        })?;
        self.each(system, "dropped_columns", |row| {
            let Some(builder) = builders.get_mut(&(row.text("keyspace_name"), row.text("table_name"))) else {
                return Ok(());
            };
            let id = column_id(row)?;
            builder.next_column_id = builder.next_column_id.max(id.0 + 1);
            builder.dropped.push(DroppedColumn {
                id,
                name: row.text("column_name").as_str().into(),
                kind: kind_of(row)?,
                cql_type: typed(row, keyspaces)?,
                dropped_at: row.timestamp("dropped_time").unwrap_or(0).saturating_mul(1000),
            });
            Ok(())
        })?;
        self.each(system, "indexes", |row| {
            let Some(builder) = builders.get_mut(&(row.text("keyspace_name"), row.text("table_name"))) else {
                return Ok(());
            };
            let name = row.text("index_name");
            let id = row.uuid("table_id");
            let id = id.ok_or_else(|| SchemaError(format!("index {name} has no id")))?;
            let options: BTreeMap<String, String> = row.text_map("options").into_iter().collect();
            let (target, column) = IndexTarget::parse(options.get(TARGET).map_or("", String::as_str));
            builder.indexes.push(IndexDefinition {
                name: name.as_str().into(),
                id: TableId(id),
                column,
                target,
                options,
            });
            Ok(())
        })?;
        // A view is made of its base.
        let mut builders: Vec<_> = builders.into_iter().collect();
        builders.sort_by_key(|(_, builder)| builder.view.is_some());
        for ((keyspace_name, name), builder) in builders {
            let Some(keyspace) = keyspaces.get_mut(&keyspace_name) else {
                continue;
            };
            if !builder
                .columns
                .iter()
                .any(|column| column.kind == ColumnKind::PartitionKey)
            {
                return Err(SchemaError(format!(
                    "{keyspace_name}.{name} has no partition key"
                )));
            }
            let table = match builder.view.clone() {
                None => Some(builder.build()),
                Some(view) => {
                    let base = keyspace.tables.values().find(|table| table.id == view.base);
                    base.and_then(|base| Table::view_of(base, builder))
                }
            };
            let Some(table) = table else {
                return Err(SchemaError(format!(
                    "the base table of the view {keyspace_name}.{name} is missing or has other columns"
                )));
            };
            keyspace.tables.insert(name.as_str().into(), Arc::new(table));
        }
        Ok(())
    }
}

/// The rows of `stored` are those of `wanted`, whatever their timestamps.
fn has_same_values(wanted: &Partition, stored: &Partition) -> bool {
    let values = |partition: &Partition| -> Vec<_> {
        let live = |row: &Row| {
            let cells = row.columns.iter().filter_map(|(id, data)| match data {
                ColumnData::Cell(cell) => cell.value(UnixSeconds(0)).map(|value| (*id, value)),
                ColumnData::Collection(_) => None,
            });
            cells.collect::<Vec<_>>()
        };
        partition
            .rows
            .iter()
            .map(|(key, row)| (key.clone(), live(row)))
            .collect()
    };
    values(wanted) == values(stored)
}

fn column_id(row: &StoredRow<'_>) -> Result<ColumnId, SchemaError> {
    let id = row.int("column_id").and_then(|id| u32::try_from(id).ok());
    id.map(ColumnId)
        .ok_or_else(|| SchemaError(format!("column {} has no id", row.text("column_name"))))
}

fn kind_of(row: &StoredRow<'_>) -> Result<ColumnKind, SchemaError> {
    let kinds = [
        ColumnKind::PartitionKey,
        ColumnKind::Clustering,
        ColumnKind::Static,
        ColumnKind::Regular,
    ];
    let kind = row.text("kind");
    kinds
        .into_iter()
        .find(|k| k.name() == kind)
        .ok_or_else(|| SchemaError(format!("unknown column kind '{kind}'")))
}

fn options_of(row: &StoredRow<'_>) -> TableOptions {
    let default = TableOptions::default();
    let number = |name: &str, default: u32| {
        row.int(name)
            .and_then(|v| u32::try_from(v).ok())
            .unwrap_or(default)
    };
    TableOptions {
        additional_write_policy: row.text("additional_write_policy"),
        allow_auto_snapshot: row
            .boolean("allow_auto_snapshot")
            .unwrap_or(default.allow_auto_snapshot),
        bloom_filter_fp_chance: row
            .double("bloom_filter_fp_chance")
            .unwrap_or(default.bloom_filter_fp_chance),
        caching: row.text_map("caching").into_iter().collect(),
        cdc: row.boolean("cdc").unwrap_or(default.cdc),
        comment: row.text("comment"),
        compaction: row.text_map("compaction").into_iter().collect(),
        compression: row.text_map("compression").into_iter().collect(),
        crc_check_chance: row.double("crc_check_chance").unwrap_or(default.crc_check_chance),
        default_time_to_live: number("default_time_to_live", default.default_time_to_live),
        extensions: row.blob_map("extensions").into_iter().collect(),
        gc_grace_seconds: number("gc_grace_seconds", default.gc_grace_seconds),
        incremental_backups: row
            .boolean("incremental_backups")
            .unwrap_or(default.incremental_backups),
        max_index_interval: number("max_index_interval", default.max_index_interval),
        memtable: row.text("memtable"),
        memtable_flush_period_in_ms: number(
            "memtable_flush_period_in_ms",
            default.memtable_flush_period_in_ms,
        ),
        min_index_interval: number("min_index_interval", default.min_index_interval),
        read_repair: row.text("read_repair"),
        speculative_retry: row.text("speculative_retry"),
    }
}
