//! User-defined functions and aggregates as rows of `system_schema`, and back.

use std::collections::BTreeMap;

use ceto_cql::describe::initial_condition_text;
use ceto_cql::schema_change::initial_condition;
use ceto_model::schema::{AggregateDefinition, FunctionDefinition, shown_type};
use ceto_model::value::Value;
use ceto_model::{CqlType, Keyspace, Schema};
use uuid::Uuid;

use super::row::{StoredRow, SystemRow, text, text_list};
use super::schema_rows::{SchemaError, StoredSchema, parse_type};

/// The rows of a keyspace, each with the table it belongs to.
pub(super) fn rows(keyspace: &Keyspace) -> Vec<(&'static str, SystemRow)> {
    let functions = keyspace.functions.functions();
    let functions = functions.map(|function| ("functions", function_row(function)));
    let aggregates = keyspace.functions.aggregates();
    let aggregates = aggregates.map(|aggregate| ("aggregates", aggregate_row(aggregate)));
    functions.chain(aggregates).collect()
}

fn types(types: &[CqlType]) -> Value {
    text_list(types.iter().map(shown_type))
}

fn function_row(function: &FunctionDefinition) -> SystemRow {
    let names = function.argument_names.iter().map(|name| name.to_string());
    SystemRow::default()
        .with("keyspace_name", text(&*function.keyspace))
        .with("function_name", text(&*function.name))
        .with("argument_types", types(&function.argument_types))
        .with("argument_names", text_list(names))
        .with("body", text(&*function.body))
        .with("called_on_null_input", Value::Boolean(function.called_on_null))
        .with("language", text(&*function.language))
        .with("return_type", text(shown_type(&function.return_type)))
}

fn aggregate_row(aggregate: &AggregateDefinition) -> SystemRow {
    SystemRow::default()
        .with("keyspace_name", text(&*aggregate.keyspace))
        .with("aggregate_name", text(&*aggregate.name))
        .with("argument_types", types(&aggregate.argument_types))
        .with("final_func", aggregate.final_function.as_deref().map(text))
        .with("initcond", initial_condition_text(aggregate).map(text))
        .with("return_type", text(shown_type(&aggregate.return_type)))
        .with("state_func", text(&*aggregate.state_function))
        .with("state_type", text(shown_type(&aggregate.state_type)))
}

impl StoredSchema {
    /// Adds the stored functions and aggregates; the types of the keyspaces are there already.
    pub(super) fn add_functions(
        &self,
        system: &Schema,
        keyspaces: &mut BTreeMap<String, Keyspace>,
    ) -> Result<(), SchemaError> {
        self.each(system, "functions", |row| {
            let (keyspace_name, name) = (row.text("keyspace_name"), row.text("function_name"));
            let Some(keyspace) = keyspaces.get_mut(&keyspace_name) else {
                return Ok(());
            };
            let names = row.text_list("argument_names");
            let argument_types = parse_all(keyspace, &name, &row.text_list("argument_types"))?;
            if names.len() != argument_types.len() {
                return Err(SchemaError(format!(
                    "the function {keyspace_name}.{name} has {} argument names and {} types",
                    names.len(),
                    argument_types.len()
                )));
            }
            let function = FunctionDefinition {
                keyspace: keyspace.name.clone(),
                name: name.as_str().into(),
                argument_names: names.into_iter().map(Into::into).collect(),
                argument_types,
                return_type: parse_of(keyspace, &name, &row.text("return_type"))?,
                called_on_null: row.boolean("called_on_null_input").unwrap_or(false),
                language: row.text("language").into(),
                body: row.text("body").into(),
            };
            keyspace.functions.put_function(function);
            Ok(())
        })?;
        self.each(system, "aggregates", |row| {
            let Some(keyspace) = keyspaces.get_mut(&row.text("keyspace_name")) else {
                return Ok(());
            };
            let aggregate = stored_aggregate(keyspace, row)?;
            keyspace.functions.put_aggregate(aggregate);
            Ok(())
        })
    }
}

fn stored_aggregate(keyspace: &Keyspace, row: &StoredRow<'_>) -> Result<AggregateDefinition, SchemaError> {
    let name = row.text("aggregate_name");
    let state_type = parse_of(keyspace, &name, &row.text("state_type"))?;
    let condition = Some(row.text("initcond")).filter(|condition| !condition.is_empty());
    let schema = Schema::default().with_keyspace(keyspace.clone(), Uuid::nil());
    let evaluate = |condition: String| {
        initial_condition(&condition, &schema, &keyspace.name, &state_type).map_err(|error| {
            SchemaError(format!(
                "the initial condition of the aggregate {}.{name}: {error}",
                keyspace.name
            ))
        })
    };
    let initial_condition = condition.map(evaluate).transpose()?.flatten();
    let final_function = row.text("final_func");
    Ok(AggregateDefinition {
        keyspace: keyspace.name.clone(),
        argument_types: parse_all(keyspace, &name, &row.text_list("argument_types"))?,
        return_type: parse_of(keyspace, &name, &row.text("return_type"))?,
        state_function: row.text("state_func").into(),
        final_function: (!final_function.is_empty()).then(|| final_function.into()),
        name: name.into(),
        initial_condition,
        state_type,
    })
}

fn parse_of(keyspace: &Keyspace, function: &str, text: &str) -> Result<CqlType, SchemaError> {
    let parsed = parse_type(text, &|name| keyspace.types.get(name).cloned());
    let parsed =
        parsed.map_err(|error| SchemaError(format!("function {}.{function}: {error}", keyspace.name)))?;
    Ok(parsed.freeze())
}

fn parse_all(keyspace: &Keyspace, function: &str, texts: &[String]) -> Result<Vec<CqlType>, SchemaError> {
    texts
        .iter()
        .map(|text| parse_of(keyspace, function, text))
        .collect()
}
