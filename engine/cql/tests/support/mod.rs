//! A database in memory, just enough to execute plans: partitions in ordered maps, reads by `ceto_model::evaluate`.
//!
//! Scripts are CQL with comments. Comments that start with a known word steer the next statement:
//! `-- bind 1, 'a', null, unset` gives values, `-- page 2` reads in pages, `-- wait 10` lets seconds pass. All other
//! comments are answers; a test writes them anew and compares.

#![allow(dead_code)] // each test uses a part of it

use bytes::Bytes;
use ceto_cql::{
    BoundValue, ColumnSpecification, CqlError, FunctionRunner, Plan, PlanContext, Prepared, RandomSource,
    SchemaChange, WriteKind, WritePlan, parse_and_prepare,
};
use ceto_model::counter::counter_update;
use ceto_model::evaluate::evaluate;
use ceto_model::schema::FunctionDefinition;
use ceto_model::value::{format_literal, parse_literal};
use ceto_model::{
    ColumnData, CqlType, DecoratedKey, Partition, ReadCommand, ReadResult, Row, Schema, TableId,
};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use uuid::Uuid;

/// A counter in the clothes of a random source.
pub(crate) struct Sequence(Cell<u64>);

impl RandomSource for Sequence {
    fn next_u64(&self) -> u64 {
        self.0.set(self.0.get() + 1);
        self.0.get().wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Runs a few bodies that say by one word what they do.
struct Bodies;

impl FunctionRunner for Bodies {
    fn run(
        &self,
        function: &Arc<FunctionDefinition>,
        arguments: &[Option<Bytes>],
    ) -> Result<Option<Bytes>, String> {
        let int = |value: &Option<Bytes>| {
            let bytes = value.as_ref().and_then(|value| value.first_chunk::<4>().copied());
            bytes.map_or(0, i32::from_be_bytes)
        };
        let number = |number: i32| Ok(Some(Bytes::copy_from_slice(&number.to_be_bytes())));
        match &*function.body {
            "sum" => number(arguments.iter().map(int).sum()),
            "length" => number(arguments[0].as_ref().map_or(-1, |value| value.len() as i32)),
            "first" => Ok(arguments[0].clone()),
            "last" => Ok(arguments.last().cloned().flatten()),
            body => Err(format!("{body} does not run")),
        }
    }
}

/// Everything in memory.
pub(crate) struct Database {
    pub(crate) schema: Schema,
    pub(crate) tables: BTreeMap<TableId, BTreeMap<DecoratedKey, Partition>>,
    pub(crate) now_micros: i64,
    pub(crate) keyspace: Option<String>,
    random: Sequence,
    leader: Uuid,
}

/// What a statement gave.
#[derive(Default, Debug)]
pub(crate) struct Answer {
    pub(crate) columns: Vec<ColumnSpecification>,
    pub(crate) rows: Vec<Vec<Option<Vec<u8>>>>,
    /// Rows of each page.
    pub(crate) pages: Vec<usize>,
    pub(crate) text: String,
}

impl Database {
    /// With a keyspace `ks`, in use.
    pub(crate) fn new() -> Database {
        let mut database = Database {
            schema: Schema::default(),
            tables: BTreeMap::new(),
            now_micros: 1_700_000_000_000_000,
            keyspace: None,
            random: Sequence(Cell::new(0)),
            leader: Uuid::from_u128(1),
        };
        database
            .run("CREATE KEYSPACE ks WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
            .expect("a keyspace");
        database.keyspace = Some("ks".to_owned());
        database
    }

    pub(crate) fn prepare(&self, text: &str) -> Result<Prepared, CqlError> {
        parse_and_prepare(text, &self.schema, self.keyspace.as_deref())
    }

    pub(crate) fn run(&mut self, text: &str) -> Result<Answer, CqlError> {
        self.execute(text, &[], None)
    }

    pub(crate) fn execute(
        &mut self,
        text: &str,
        values: &[BoundValue],
        page_size: Option<u32>,
    ) -> Result<Answer, CqlError> {
        let prepared = self.prepare(text)?;
        self.now_micros += 1_000;
        let mut answer = Answer {
            columns: prepared.result_columns().to_vec(),
            ..Answer::default()
        };
        let mut state = None;
        loop {
            let next = self.execute_page(&prepared, values, page_size, state.as_deref(), &mut answer)?;
            match next {
                Some(next) => state = Some(next),
                None => return Ok(answer),
            }
        }
    }

    /// The paging state after the first page.
    pub(crate) fn first_page(&mut self, text: &str, page_size: u32) -> Option<Vec<u8>> {
        let prepared = self.prepare(text).expect("a statement");
        let mut answer = Answer::default();
        self.execute_page(&prepared, &[], Some(page_size), None, &mut answer)
            .expect("a page")
    }

    fn execute_page(
        &mut self,
        prepared: &Prepared,
        values: &[BoundValue],
        page_size: Option<u32>,
        paging_state: Option<&[u8]>,
        answer: &mut Answer,
    ) -> Result<Option<Vec<u8>>, CqlError> {
        let random = Sequence(Cell::new(self.random.next_u64()));
        let mut context = PlanContext::new(self.now_micros, &random);
        context.functions = Some(&Bodies);
        context.page_size = page_size;
        context.paging_state = paging_state;
        let plan = prepared.plan(values, &context)?;
        if prepared.explain().is_some() {
            let steps = prepared.explain_steps(&plan, &self.schema, &context);
            let row = |(index, step): (usize, ceto_cql::plan::explain::ExplainStep)| {
                let text = |text: &str| Some(text.as_bytes().to_vec());
                let number = i32::try_from(index + 1).expect("few steps");
                let shard = step
                    .token
                    .map(|token| i32::from(token.shard(2)).to_be_bytes().to_vec());
                vec![
                    Some(number.to_be_bytes().to_vec()),
                    text(step.stage),
                    shard,
                    None,
                    text(&step.detail),
                ]
            };
            answer.rows.extend(steps.into_iter().enumerate().map(row));
            return Ok(None);
        }
        match plan {
            Plan::Read(mut select) => {
                let before = answer.rows.len();
                while let Some(command) = select.command() {
                    let result = self.read(command);
                    select.feed(&result, &context, &mut answer.rows)?;
                }
                select.finish(&context, &mut answer.rows)?;
                assert_eq!(select.row_count() as usize, answer.rows.len() - before);
                answer.pages.push(answer.rows.len() - before);
                return Ok(select.paging_state());
            }
            Plan::Write(write) => self.apply(write),
            Plan::Conditional(conditional) => {
                let results: Vec<ReadResult> =
                    conditional.reads().iter().map(|read| self.read(read)).collect();
                let outcome = conditional.decide(&results, &context)?;
                outcome.write.into_iter().for_each(|write| self.apply(write));
                answer.columns = outcome.columns;
                answer.rows = outcome
                    .rows
                    .into_iter()
                    .map(|row| {
                        row.into_iter()
                            .map(|cell| cell.map(|bytes| bytes.to_vec()))
                            .collect()
                    })
                    .collect();
            }
            Plan::ChangeSchema(change) => self.change_schema(&change, answer)?,
            Plan::Use(keyspace) => self.keyspace = Some(keyspace.to_string()),
            Plan::Truncate(table) => {
                self.tables.remove(&table.id);
            }
            Plan::Describe(_) => answer.text = "described".to_owned(),
            Plan::ChangeAccess(_) | Plan::ListAccess(_) => answer.text = "roles".to_owned(),
        }
        Ok(None)
    }

    fn change_schema(&mut self, change: &SchemaChange, answer: &mut Answer) -> Result<(), CqlError> {
        if let Some(mut schema) = change.apply(&self.schema, self.now_micros)? {
            schema.version = Uuid::from_u128(self.schema.version.as_u128() + 1);
            let event = change.event(&self.schema);
            self.schema = schema;
            answer.text = format!("{:?} {:?}", event.change, event.target).to_lowercase();
        }
        Ok(())
    }

    /// Answers a read with small bounds, so that reads are resumed often.
    fn read(&self, command: &ReadCommand) -> ReadResult {
        let mut command = command.clone();
        command.limits.rows = command.limits.rows.min(3);
        match self.tables.get(&command.table) {
            Some(partitions) => evaluate(&command, partitions),
            None => ReadResult::default(),
        }
    }

    fn apply(&mut self, write: WritePlan) {
        assert!(write.counters.is_empty() || write.kind == WriteKind::Counter);
        for mutation in write.mutations {
            let table = self.tables.entry(mutation.table).or_default();
            let partition = table.entry(mutation.key).or_default();
            let mut normal = mutation.partition.clone();
            normal.normalize();
            assert_eq!(normal, mutation.partition, "mutations are in normal form");
            partition.merge(mutation.partition);
        }
        for update in write.counters {
            let partition = self
                .tables
                .entry(update.table)
                .or_default()
                .entry(update.key)
                .or_default();
            let mut change = Partition::default();
            let (leader, now) = (self.leader, self.now_micros);
            let count = |stored: &Row, increments: Vec<_>, row: &mut Row| {
                for (column, delta) in increments {
                    let stored = match stored.column(column) {
                        Some(ColumnData::Collection(counter)) => Some(counter),
                        _ => None,
                    };
                    let counter = counter_update(stored, leader, delta, now);
                    row.merge_column(column, ColumnData::Collection(counter));
                }
            };
            count(
                &partition.static_row.clone(),
                update.statics,
                &mut change.static_row,
            );
            for (key, increments) in update.rows {
                let stored = partition.rows.iter().find(|(own, _)| *own == key);
                let stored = stored.map(|(_, row)| row.clone()).unwrap_or_default();
                count(&stored, increments, change.row_mut(key));
            }
            partition.merge(change);
        }
    }
}

/// Runs a script; the script with the answers that it gave.
pub(crate) fn run_script(script: &str) -> String {
    let mut database = Database::new();
    let mut out = String::new();
    let (mut binds, mut page) = (None, None);
    let mut statement = String::new();
    for line in script.lines() {
        if let Some(comment) = line.strip_prefix("-- ") {
            let (word, rest) = comment.split_once(' ').unwrap_or((comment, ""));
            match word {
                "bind" => binds = Some(rest.to_owned()),
                "page" => page = rest.parse::<u32>().ok(),
                "wait" => database.now_micros += rest.parse::<i64>().expect("seconds") * 1_000_000,
                "#" => {}
                _ => continue,
            }
            let _ = writeln!(out, "{line}");
            continue;
        }
        let _ = writeln!(out, "{line}");
        statement.push_str(line);
        statement.push('\n');
        let open_batch = statement.starts_with("BEGIN") && !statement.contains("APPLY BATCH");
        if !line.trim_end().ends_with(';') || open_batch {
            continue;
        }
        let text = std::mem::take(&mut statement);
        let answer = answer_of(&mut database, text.trim(), binds.take(), page.take());
        for line in answer.lines() {
            let _ = writeln!(out, "-- = {line}");
        }
    }
    out
}

fn answer_of(database: &mut Database, text: &str, binds: Option<String>, page: Option<u32>) -> String {
    let values = match binds {
        None => Ok(Vec::new()),
        Some(binds) => database.prepare(text).map(|prepared| bind(&prepared, &binds)),
    };
    match values.and_then(|values| database.execute(text, &values, page)) {
        Ok(answer) => show(&answer, page.is_some()),
        Err(error) => {
            let kind = format!("{error:?}");
            format!("{}: {error}", kind.split(['(', ' ']).next().unwrap_or(""))
        }
    }
}

/// Reads comma-separated literals as values of the statement's variables.
fn bind(prepared: &Prepared, binds: &str) -> Vec<BoundValue> {
    let parts = split_outside_brackets(binds);
    let mut types = prepared.variables().iter().map(|variable| &variable.cql_type);
    parts
        .iter()
        .map(|part| match (part.trim(), types.next()) {
            ("unset", _) => BoundValue::Unset,
            ("null", _) => BoundValue::Null,
            (text, Some(cql_type)) => BoundValue::Bytes(wire_of(text, cql_type).into()),
            (text, None) => BoundValue::Bytes(text.as_bytes().to_vec().into()),
        })
        .collect()
}

fn split_outside_brackets(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for character in text.chars() {
        depth += i32::from("([{".contains(character)) - i32::from(")]}".contains(character));
        match (character, depth) {
            (',', 0) => parts.push(String::new()),
            (other, _) => parts.last_mut().expect("a part").push(other),
        }
    }
    parts
}

fn wire_of(text: &str, cql_type: &CqlType) -> Vec<u8> {
    use ceto_model::value::wire::{pack_collection, put_value};
    let inside = || split_outside_brackets(text[1..text.len() - 1].trim());
    match cql_type {
        CqlType::List { element, .. } | CqlType::Set { element, .. } => {
            let elements: Vec<_> = inside()
                .iter()
                .filter(|part| !part.trim().is_empty())
                .map(|part| wire_of(part.trim(), element))
                .collect();
            pack_collection(elements.len(), elements.iter().map(Vec::as_slice))
        }
        CqlType::Map { key, value, .. } => {
            let mut elements = Vec::new();
            for part in inside() {
                let (own_key, own) = part.split_once(':').expect("an entry");
                elements.extend([wire_of(own_key.trim(), key), wire_of(own.trim(), value)]);
            }
            pack_collection(elements.len() / 2, elements.iter().map(Vec::as_slice))
        }
        CqlType::Tuple(types) if text.starts_with('(') => {
            let mut out = Vec::new();
            for (part, cql_type) in inside().iter().zip(types.iter()) {
                put_value(&mut out, Some(&wire_of(part.trim(), cql_type)));
            }
            out
        }
        CqlType::Tuple(_) => Vec::new(),
        scalar => {
            let text = text.trim_matches('\'');
            let value = parse_literal(scalar, text).expect("a literal");
            value.to_wire(scalar).expect("a value of its type")
        }
    }
}

fn show(answer: &Answer, pages: bool) -> String {
    if answer.columns.is_empty() {
        return if answer.text.is_empty() {
            "ok".to_owned()
        } else {
            answer.text.clone()
        };
    }
    let mut out: String = answer
        .columns
        .iter()
        .map(|c| c.name.to_string())
        .collect::<Vec<_>>()
        .join(" | ");
    for row in &answer.rows {
        let cells = row.iter().zip(&answer.columns).map(|(cell, column)| match cell {
            None => "null".to_owned(),
            Some(wire) => format_literal(&column.cql_type, wire).expect("a value of the column's type"),
        });
        let _ = write!(out, "\n{}", cells.collect::<Vec<_>>().join(" | "));
    }
    if answer.rows.is_empty() {
        out.push_str("\n(no rows)");
    }
    if pages {
        let _ = write!(out, "\npages: {:?}", answer.pages);
    }
    out
}
