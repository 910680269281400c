//! The tables of cassandra-stress and the statements on them.

use crate::options::{Operation, Options, Schema};

const TABLE: &str = "standard1";
const COUNTER_TABLE: &str = "counter1";

/// The statements that create what a run needs, each harmless when it is there.
pub(crate) fn definitions(options: &Options) -> Vec<String> {
    let mut statements = vec![keyspace(&options.schema)];
    let has = |counter| {
        options
            .mix
            .0
            .iter()
            .any(|(operation, _)| operation.is_counter() == counter)
    };
    if has(false) {
        statements.push(table(options, TABLE, "blob"));
    }
    if has(true) {
        statements.push(table(options, COUNTER_TABLE, "counter"));
    }
    statements
}

/// The statements that empty the tables of a run.
pub(crate) fn truncations(options: &Options) -> Vec<String> {
    let mut tables: Vec<&str> = options
        .mix
        .0
        .iter()
        .map(|(operation, _)| table_of(*operation))
        .collect();
    tables.dedup();
    tables
        .iter()
        .map(|table| format!("TRUNCATE {}.{table}", quoted(&options.schema.keyspace)))
        .collect()
}

/// The statement of an operation. A write binds its columns, then the key; a read binds the key.
pub(crate) fn statement(options: &Options, operation: Operation) -> String {
    let table = format!("{}.{}", quoted(&options.schema.keyspace), table_of(operation));
    let columns = |form: fn(usize) -> String| (0..options.columns).map(form).collect::<Vec<_>>().join(", ");
    match operation {
        Operation::Write => {
            format!(
                "UPDATE {table} SET {} WHERE key = ?",
                columns(|index| format!("\"C{index}\" = ?"))
            )
        }
        Operation::CounterWrite => {
            let assignments = columns(|index| format!("\"C{index}\" = \"C{index}\" + ?"));
            format!("UPDATE {table} SET {assignments} WHERE key = ?")
        }
        Operation::Read | Operation::CounterRead => {
            format!(
                "SELECT {} FROM {table} WHERE key = ?",
                columns(|index| format!("\"C{index}\""))
            )
        }
    }
}

fn table_of(operation: Operation) -> &'static str {
    if operation.is_counter() {
        COUNTER_TABLE
    } else {
        TABLE
    }
}

fn keyspace(schema: &Schema) -> String {
    let class = [("class".to_owned(), schema.strategy.clone())];
    let replication = map(class.iter().chain(&schema.replication));
    format!(
        "CREATE KEYSPACE IF NOT EXISTS {} WITH replication = {replication}",
        quoted(&schema.keyspace)
    )
}

fn table(options: &Options, name: &str, column_type: &str) -> String {
    let columns: Vec<String> = (0..options.columns)
        .map(|index| format!("\"C{index}\" {column_type}"))
        .collect();
    let keyspace = quoted(&options.schema.keyspace);
    let mut text = format!(
        "CREATE TABLE IF NOT EXISTS {keyspace}.{name} (key blob PRIMARY KEY, {}) WITH compression = {}",
        columns.join(", "),
        match &options.schema.compression {
            None => "{'enabled': 'false'}".to_owned(),
            Some(class) => map([("class".to_owned(), class.clone())].iter()),
        }
    );
    if let Some(compaction) = &options.schema.compaction {
        let pairs: Vec<(String, String)> = compaction
            .iter()
            .map(|(name, value)| {
                (
                    if name == "strategy" {
                        "class".to_owned()
                    } else {
                        name.clone()
                    },
                    value.clone(),
                )
            })
            .collect();
        text.push_str(&format!(" AND compaction = {}", map(pairs.iter())));
    }
    text
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

fn map<'a>(pairs: impl Iterator<Item = &'a (String, String)>) -> String {
    let entries: Vec<String> = pairs
        .map(|(name, value)| format!("'{}': '{}'", name.replace('\'', "''"), value.replace('\'', "''")))
        .collect();
    format!("{{{}}}", entries.join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::options::parse;

    fn options(line: &str) -> Options {
        parse(&line.split('|').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_default_schema_is_that_of_cassandra_stress() {
        let definitions = definitions(&options("write|-col|n=2"));
        assert_eq!(
            definitions,
            [
                "CREATE KEYSPACE IF NOT EXISTS \"keyspace1\" WITH replication = \
                 {'class': 'SimpleStrategy', 'replication_factor': '1'}",
                "CREATE TABLE IF NOT EXISTS \"keyspace1\".standard1 (key blob PRIMARY KEY, \"C0\" blob, \
                 \"C1\" blob) WITH compression = {'enabled': 'false'}",
            ]
        );
    }

    #[test]
    fn the_schema_follows_the_words() {
        let line = "mixed|ratio(read=1,counter_write=1)|-col|n=1|-schema|keyspace=k \
            replication(strategy=NetworkTopologyStrategy,dc1=3) compression=LZ4Compressor compaction(strategy=X,a=1)";
        let definitions = definitions(&options(line));
        let ending =
            "WITH compression = {'class': 'LZ4Compressor'} AND compaction = {'class': 'X', 'a': '1'}";
        assert!(
            definitions[0].ends_with("{'class': 'NetworkTopologyStrategy', 'dc1': '3'}"),
            "{definitions:?}"
        );
        assert!(
            definitions[1].contains("\"k\".standard1") && definitions[1].ends_with(ending),
            "{definitions:?}"
        );
        assert!(
            definitions[2].contains("\"k\".counter1 (key blob PRIMARY KEY, \"C0\" counter)"),
            "{definitions:?}"
        );
        assert_eq!(
            truncations(&options(line)),
            ["TRUNCATE \"k\".standard1", "TRUNCATE \"k\".counter1"]
        );
    }

    #[test]
    fn statements() {
        let options = options("write|-col|n=2");
        let cases = [
            (
                Operation::Write,
                "UPDATE \"keyspace1\".standard1 SET \"C0\" = ?, \"C1\" = ? WHERE key = ?",
            ),
            (
                Operation::Read,
                "SELECT \"C0\", \"C1\" FROM \"keyspace1\".standard1 WHERE key = ?",
            ),
            (
                Operation::CounterWrite,
                "UPDATE \"keyspace1\".counter1 SET \"C0\" = \"C0\" + ?, \"C1\" = \"C1\" + ? WHERE key = ?",
            ),
            (
                Operation::CounterRead,
                "SELECT \"C0\", \"C1\" FROM \"keyspace1\".counter1 WHERE key = ?",
            ),
        ];
        for (operation, text) in cases {
            assert_eq!(statement(&options, operation), text);
        }
    }
}
