//! Keyspaces, types and tables as the statements that create them.

use super::text::CqlText;
use crate::options::format_double;
use ceto_model::schema::{CLASS_NAME, Column, DroppedColumn, IndexDefinition, TARGET, TableOptions};
use ceto_model::types::quote_identifier;
use ceto_model::{ColumnKind, Keyspace, Table, UserType};

/// CREATE KEYSPACE, with a semicolon; a virtual keyspace in a comment.
pub fn keyspace_text(keyspace: &Keyspace) -> String {
    let mut text = CqlText::default();
    if keyspace.is_virtual {
        text.add("/*").end_line();
        text.add("Warning: Keyspace ")
            .add_name(&keyspace.name)
            .add(" is a virtual keyspace and cannot be recreated with CQL.")
            .end_line();
        text.add("Structure, for reference:").end_line();
        text.add("VIRTUAL KEYSPACE ")
            .add_name(&keyspace.name)
            .add(";")
            .end_line();
        text.add("*/");
        return text.finish();
    }
    text.add("CREATE KEYSPACE ")
        .add_name(&keyspace.name)
        .add(" WITH replication = {'class': ")
        .add_string(strategy_class(keyspace));
    for (name, value) in &keyspace.replication.0 {
        if name != "class" {
            text.add(", ").add_string(name).add(": ").add_string(value);
        }
    }
    // two spaces, as everyone has them
    text.add("}  AND durable_writes = ")
        .add(&keyspace.durable_writes.to_string())
        .add(";");
    text.finish()
}

/// The class of the replication strategy, short when it is one of the system's.
fn strategy_class(keyspace: &Keyspace) -> &str {
    let class = keyspace.replication.0.get("class").map_or("", String::as_str);
    match class.strip_prefix("org.apache.cassandra.locator.") {
        Some(short) if !short.contains('.') => short,
        _ => class,
    }
}

/// CREATE TYPE, with a semicolon.
pub fn type_text(user_type: &UserType) -> String {
    let mut text = CqlText::default();
    text.add("CREATE TYPE ")
        .add_name(&user_type.keyspace)
        .add(".")
        .add(&type_name(user_type))
        .add(" (")
        .end_line()
        .indent();
    for (i, field) in user_type.fields.iter().enumerate() {
        if i > 0 {
            text.add(",").end_line();
        }
        text.add_name(&field.name)
            .add(" ")
            .add(&field.cql_type.to_string());
    }
    text.end_line().outdent().add(");");
    text.finish()
}

/// A type's name as it is written where it is used.
pub(super) fn type_name(user_type: &UserType) -> String {
    let as_type = ceto_model::CqlType::Udt {
        definition: std::sync::Arc::new(user_type.clone()),
        frozen: false,
    };
    as_type.to_string()
}

/// CREATE TABLE, with a semicolon; a virtual table in a comment. `with_internals`: with its id, and with statements that
/// bring back the memory of its dropped columns.
pub fn table_text(table: &Table, with_internals: bool) -> String {
    let mut text = CqlText::default();
    let name = table_name(table);
    let keyword = if table.is_virtual {
        text.add("/*").end_line();
        text.add(&format!(
            "Warning: Table {name} is a virtual table and cannot be recreated with CQL."
        ))
        .end_line();
        text.add("Structure, for reference:").end_line();
        "VIRTUAL"
    } else {
        "CREATE"
    };
    text.add(keyword)
        .add(" TABLE ")
        .add(&name)
        .add(" (")
        .end_line()
        .indent();
    add_columns(&mut text, table, with_internals);
    text.outdent().add(") WITH ").indent();
    add_options(&mut text, table, with_internals);
    text.outdent();
    if table.is_virtual {
        text.end_line().add("*/");
    }
    if with_internals {
        add_drops(&mut text, table, &name);
    }
    text.finish()
}

/// CREATE MATERIALIZED VIEW, with a semicolon. `with_internals`: with its id.
pub(super) fn view_text(table: &Table, with_internals: bool) -> String {
    let mut text = CqlText::default();
    text.add("CREATE MATERIALIZED VIEW ")
        .add(&table_name(table))
        .add(" AS")
        .end_line()
        .indent();
    let definition = table.view.as_deref();
    if definition.is_some_and(|view| view.include_all) {
        text.add("SELECT *");
    } else {
        let columns: Vec<&Column> = table.shown_columns().collect();
        text.add("SELECT ").add_list(&columns, |text, column| {
            text.add_name(&column.name);
        });
    }
    text.end_line().add("FROM ").add_name(&table.keyspace).add(".");
    text.add_name(definition.map_or("", |view| &view.base_name))
        .end_line();
    text.add("WHERE ")
        .add(definition.map_or("", |view| &view.where_clause))
        .end_line();
    text.add(&primary_key(table)).end_line().outdent();
    text.add(" WITH ").indent();
    add_options(&mut text, table, with_internals);
    text.finish()
}

/// CREATE INDEX, with a semicolon.
pub fn index_text(table: &Table, index: &IndexDefinition) -> String {
    let mut text = CqlText::default();
    let mut options = index.options.clone();
    let target = options.remove(TARGET).unwrap_or_default();
    let class = options.remove(CLASS_NAME);
    text.add(if class.is_some() {
        "CREATE CUSTOM INDEX "
    } else {
        "CREATE INDEX "
    })
    .add_name(&index.name)
    .add(" ON ")
    .add(&table_name(table))
    .add(&format!(" ({target})"));
    if let Some(class) = class {
        text.add(" USING ").add_string(&class);
        if !options.is_empty() {
            text.add(" WITH OPTIONS = ").add_map(&options);
        }
    }
    text.add(";");
    text.finish()
}

fn table_name(table: &Table) -> String {
    format!(
        "{}.{}",
        quote_identifier(&table.keyspace),
        quote_identifier(&table.name)
    )
}

/// Name, type and kind of a column.
fn definition(name: &str, cql_type: &ceto_model::CqlType, kind: ColumnKind) -> String {
    let suffix = if kind == ColumnKind::Static { " static" } else { "" };
    format!("{} {cql_type}{suffix}", quote_identifier(name))
}

fn was_dropped(table: &Table, name: &str) -> bool {
    table.dropped.iter().any(|dropped| *dropped.name == *name)
}

/// The lines between the parentheses. A column that was dropped and has come back is added after it is dropped again.
fn add_columns(text: &mut CqlText, table: &Table, with_internals: bool) {
    let key_is_inline = table.partition_key().len() == 1 && table.clustering().is_empty();
    let mut lines = Vec::new();
    for column in table.columns() {
        if with_internals && was_dropped(table, &column.name) {
            continue;
        }
        let mut line = definition(&column.name, &column.cql_type, column.kind);
        if key_is_inline && column.kind == ColumnKind::PartitionKey {
            line.push_str(" PRIMARY KEY");
        }
        lines.push(line);
    }
    if with_internals {
        let dropped = table.dropped.iter();
        lines.extend(dropped.map(|dropped| definition(&dropped.name, &dropped.cql_type, dropped.kind)));
    }
    if !key_is_inline {
        lines.push(primary_key(table));
    }
    let last = lines.len().saturating_sub(1);
    for (i, line) in lines.iter().enumerate() {
        text.add(line).add(if i < last { "," } else { "" }).end_line();
    }
}

fn primary_key(table: &Table) -> String {
    let mut text = CqlText::default();
    let add = |text: &mut CqlText, column: &Column| {
        text.add_name(&column.name);
    };
    text.add("PRIMARY KEY (");
    if table.partition_key().len() > 1 {
        text.add("(").add_list(table.partition_key(), add).add(")");
    } else {
        text.add_list(table.partition_key(), add);
    }
    if !table.shown_clustering().is_empty() {
        text.add(", ").add_list(table.shown_clustering(), add);
    }
    text.add(")");
    text.finish()
}

fn add_options(text: &mut CqlText, table: &Table, with_internals: bool) {
    if table.is_compact {
        text.add("COMPACT STORAGE").end_line().add("AND ");
    }
    if with_internals {
        text.add(&format!("ID = {}", table.id)).end_line().add("AND ");
    }
    if !table.shown_clustering().is_empty() {
        text.add("CLUSTERING ORDER BY (")
            .add_list(table.shown_clustering(), |text, column| {
                text.add_name(&column.name)
                    .add(if column.descending { " DESC" } else { " ASC" });
            })
            .add(")")
            .end_line()
            .add("AND ");
    }
    if table.is_virtual {
        text.add("comment = ").add_string(&table.options.comment);
    } else {
        add_stored_options(text, &table.options, table.is_view());
    }
    text.add(";");
}

/// By name, save that `memtable` comes earlier, as in Cassandra.
fn add_stored_options(text: &mut CqlText, options: &TableOptions, is_view: bool) {
    let mut separator = "";
    let mut option = |text: &mut CqlText, name: &str| {
        if !separator.is_empty() {
            text.end_line();
        }
        text.add(separator).add(name).add(" = ");
        separator = "AND ";
    };
    option(text, "additional_write_policy");
    text.add_string(&options.additional_write_policy);
    option(text, "allow_auto_snapshot");
    text.add(&options.allow_auto_snapshot.to_string());
    option(text, "bloom_filter_fp_chance");
    text.add(&format_double(options.bloom_filter_fp_chance));
    option(text, "caching");
    text.add_map(&options.caching);
    option(text, "cdc");
    text.add(&options.cdc.to_string());
    option(text, "comment");
    text.add_string(&options.comment);
    option(text, "compaction");
    text.add_map(&options.compaction);
    option(text, "compression");
    text.add_map(&options.compression);
    option(text, "memtable");
    text.add_string(&options.memtable);
    option(text, "crc_check_chance");
    text.add(&format_double(options.crc_check_chance));
    if !is_view {
        option(text, "default_time_to_live");
        text.add(&options.default_time_to_live.to_string());
    }
    option(text, "extensions");
    add_extensions(text, options);
    option(text, "gc_grace_seconds");
    text.add(&options.gc_grace_seconds.to_string());
    option(text, "incremental_backups");
    text.add(&options.incremental_backups.to_string());
    option(text, "max_index_interval");
    text.add(&options.max_index_interval.to_string());
    option(text, "memtable_flush_period_in_ms");
    text.add(&options.memtable_flush_period_in_ms.to_string());
    option(text, "min_index_interval");
    text.add(&options.min_index_interval.to_string());
    option(text, "read_repair");
    text.add_string(&options.read_repair);
    option(text, "speculative_retry");
    text.add_string(&options.speculative_retry);
}

fn add_extensions(text: &mut CqlText, options: &TableOptions) {
    text.add("{");
    for (i, (name, value)) in options.extensions.iter().enumerate() {
        if i > 0 {
            text.add(", ");
        }
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        text.add_string(name).add(": 0x").add(&hex);
    }
    text.add("}");
}

/// What drops columns again that were dropped, and adds those that have come back.
fn add_drops(text: &mut CqlText, table: &Table, name: &str) {
    for DroppedColumn {
        name: column,
        dropped_at,
        ..
    } in &table.dropped
    {
        text.end_line().add(&format!(
            "ALTER TABLE {name} DROP {} USING TIMESTAMP {dropped_at};",
            quote_identifier(column)
        ));
        if let Some(back) = table.column(column) {
            let definition = definition(&back.name, &back.cql_type, back.kind);
            text.end_line()
                .add(&format!("ALTER TABLE {name} ADD {definition};"));
        }
    }
}
