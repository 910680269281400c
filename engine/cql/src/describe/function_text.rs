//! User-defined functions and aggregates as the statements that create them.

use super::text::CqlText;
use ceto_model::CqlType;
use ceto_model::schema::{AggregateDefinition, FunctionDefinition, shown_type};
use ceto_model::types::quote_identifier;
use ceto_model::value::format_literal;

fn types_text(types: &[CqlType]) -> String {
    types.iter().map(shown_type).collect::<Vec<_>>().join(", ")
}

/// Name and types: what tells overloads apart.
pub(super) fn function_name(function: &FunctionDefinition) -> String {
    let types = types_text(&function.argument_types);
    format!("{}({types})", quote_identifier(&function.name))
}

/// Name and types: what tells overloads apart.
pub(super) fn aggregate_name(aggregate: &AggregateDefinition) -> String {
    let types = types_text(&aggregate.argument_types);
    format!("{}({types})", quote_identifier(&aggregate.name))
}

/// CREATE FUNCTION, with a semicolon.
pub(super) fn function_text(function: &FunctionDefinition) -> String {
    let mut text = CqlText::default();
    text.add("CREATE FUNCTION ")
        .add_name(&function.keyspace)
        .add(".")
        .add_name(&function.name)
        .add("(");
    let arguments: Vec<_> = function
        .argument_names
        .iter()
        .zip(&function.argument_types)
        .collect();
    text.add_list(&arguments, |text, (name, cql_type)| {
        text.add_name(name).add(" ").add(&shown_type(cql_type));
    });
    let null = match function.called_on_null {
        true => "CALLED ON NULL INPUT",
        false => "RETURNS NULL ON NULL INPUT",
    };
    text.add(")").end_line().indent().add(null).end_line();
    text.add("RETURNS ")
        .add(&shown_type(&function.return_type))
        .end_line();
    text.add("LANGUAGE ").add(&function.language).end_line();
    // Dollars cannot be escaped between dollars, nor end what stands before the last two.
    if function.body.contains("$$") || function.body.ends_with('$') {
        text.add("AS ").add_string(&function.body).add(";");
    } else {
        text.add("AS $$").add(&function.body).add("$$;");
    }
    text.finish()
}

/// CREATE AGGREGATE, with a semicolon.
pub(super) fn aggregate_text(aggregate: &AggregateDefinition) -> String {
    let mut text = CqlText::default();
    text.add("CREATE AGGREGATE ")
        .add_name(&aggregate.keyspace)
        .add(".")
        .add(&aggregate_name(aggregate))
        .end_line()
        .indent();
    text.add("SFUNC ").add_name(&aggregate.state_function).end_line();
    text.add("STYPE ").add(&shown_type(&aggregate.state_type));
    if let Some(final_function) = &aggregate.final_function {
        text.end_line().add("FINALFUNC ").add_name(final_function);
    }
    if let Some(condition) = initial_condition_text(aggregate) {
        text.end_line().add("INITCOND ").add(&condition);
    }
    text.add(";");
    text.finish()
}

/// The initial condition as a literal; None where there is none. What is stored is a value of its type.
pub fn initial_condition_text(aggregate: &AggregateDefinition) -> Option<String> {
    let condition = aggregate.initial_condition.as_ref()?;
    format_literal(&aggregate.state_type, condition).ok()
}
