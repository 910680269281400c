//! One relation of a WHERE clause: its columns, its operator, its typed right side.

use super::filter::{Filter, FilterTest};
use super::merge::{Bound, Demand, Merged};
use super::{InValues, StatementKind, TupleValue};
use crate::ast::{Name, Operand, Operator, Relation, RelationSubject, Term};
use crate::expression::{Expression, prepare_term, undefined_column};
use crate::prepare::Preparation;
use crate::{ColumnSpecification, CqlError};
use ceto_model::{Column, ColumnKind, CqlType, Table};
use std::sync::Arc;

pub(super) fn prepare(
    preparation: &mut Preparation<'_>,
    table: &Table,
    relation: &Relation,
    kind: StatementKind,
    merged: &mut Merged,
) -> Result<(), CqlError> {
    match &relation.subject {
        RelationSubject::Column(name) => single(preparation, table, relation, name, kind, merged),
        RelationSubject::Columns(names) => multi(preparation, table, relation, names, merged),
        RelationSubject::Token(names) => token(preparation, table, relation, names, kind, merged),
        RelationSubject::Element { column, key } => entry(preparation, table, relation, column, key, merged),
    }
}

fn find<'t>(table: &'t Table, name: &Name) -> Result<(usize, &'t Column), CqlError> {
    let index = table.column_index(name);
    let found = index.and_then(|index| Some((index, table.columns().get(index)?)));
    found.ok_or_else(|| undefined_column(table, name))
}

pub(super) fn unsupported(relation: &Relation) -> CqlError {
    CqlError::Invalid(format!(
        "Unsupported \"{}\" relation: {relation}",
        relation.operator.symbol()
    ))
}

fn single(
    preparation: &mut Preparation<'_>,
    table: &Table,
    relation: &Relation,
    name: &Name,
    kind: StatementKind,
    merged: &mut Merged,
) -> Result<(), CqlError> {
    let (index, column) = find(table, name)?;
    let receiver = ColumnSpecification::of_column(table, column);
    match relation.operator {
        Operator::Contains | Operator::ContainsKey => {
            return contains(preparation, relation, index, column, &receiver, merged);
        }
        Operator::NotEqual
            if matches!(kind, StatementKind::Select { .. }) && !column.cql_type.is_multicell() =>
        {
            return unequal(preparation, relation, index, &receiver, kind, merged);
        }
        Operator::NotEqual | Operator::NotIn | Operator::NotContains | Operator::NotContainsKey => {
            return Err(unsupported(relation));
        }
        Operator::Like => {
            return Err(CqlError::Invalid(format!(
                "LIKE restriction is only supported on properly indexed columns. {relation} is not valid."
            )));
        }
        Operator::IsNotNull => {
            return Err(CqlError::Invalid(format!(
                "Unsupported restriction: {relation}. IS NOT NULL is only valid in the WHERE clause of materialized \
                 views"
            )));
        }
        _ => {}
    }
    if is_slice(relation.operator) && has_duration(&column.cql_type) {
        return Err(CqlError::Invalid(duration_message(&column.cql_type)));
    }
    if column.cql_type.is_multicell() {
        return Err(CqlError::Invalid(match &column.cql_type {
            CqlType::Udt { .. } => format!(
                "Non-frozen UDT column '{name}' ({}) cannot be restricted by any relation",
                column.cql_type
            ),
            other => format!(
                "Collection column '{name}' ({other}) cannot be restricted by a '{}' relation",
                relation.operator.symbol()
            ),
        }));
    }
    for demand in demands(preparation, relation, &receiver, &|preparation, term| {
        prepare_term(preparation, term, &receiver)
    })? {
        merged.add_single(index, column, demand)?;
    }
    Ok(())
}

/// `column != value` never chooses what is read: it is a test, so only ALLOW FILTERING lets it be. A column without a
/// value fails it, as it fails every test.
fn unequal(
    preparation: &mut Preparation<'_>,
    relation: &Relation,
    index: usize,
    receiver: &ColumnSpecification,
    kind: StatementKind,
    merged: &mut Merged,
) -> Result<(), CqlError> {
    let Operand::Term(term) = &relation.operand else {
        return Err(unsupported(relation));
    };
    let value = prepare_term(preparation, term, receiver)?;
    let needs_filtering = StatementKind::Select {
        allow_filtering: false,
    };
    if kind == needs_filtering {
        return Err(CqlError::Invalid(format!(
            "Unsupported \"!=\" relation: {relation} without ALLOW FILTERING"
        )));
    }
    merged.filters.push(Filter {
        columns: vec![index],
        test: FilterTest::Compare(Operator::NotEqual, value),
        analysis: None,
    });
    Ok(())
}

fn is_slice(operator: Operator) -> bool {
    operator.is_slice() || operator == Operator::Between
}

fn has_duration(cql_type: &CqlType) -> bool {
    match cql_type {
        CqlType::Duration => true,
        CqlType::List { element, .. } | CqlType::Set { element, .. } | CqlType::Vector { element, .. } => {
            has_duration(element)
        }
        CqlType::Map { key, value, .. } => has_duration(key) || has_duration(value),
        CqlType::Tuple(elements) => elements.iter().any(has_duration),
        CqlType::Udt { definition, .. } => definition
            .fields
            .iter()
            .any(|field| has_duration(&field.cql_type)),
        _ => false,
    }
}

fn duration_message(cql_type: &CqlType) -> String {
    match cql_type {
        CqlType::Duration => "Slice restrictions are not supported on duration columns".to_owned(),
        CqlType::Tuple(_) => "Slice restrictions are not supported on tuples containing durations".to_owned(),
        CqlType::Udt { .. } => "Slice restrictions are not supported on UDTs containing durations".to_owned(),
        _ => "Slice restrictions are not supported on collections containing durations".to_owned(),
    }
}

/// What a comparison, IN or BETWEEN demands. `value` prepares one term of the right side.
fn demands<T>(
    preparation: &mut Preparation<'_>,
    relation: &Relation,
    receiver: &ColumnSpecification,
    value: &dyn Fn(&mut Preparation<'_>, &Term) -> Result<T, CqlError>,
) -> Result<Vec<Demand<T>>, CqlError> {
    let lower = |value, inclusive| Demand::Slice {
        lower: Some(Bound { value, inclusive }),
        upper: None,
    };
    let upper = |value, inclusive| Demand::Slice {
        lower: None,
        upper: Some(Bound { value, inclusive }),
    };
    match (&relation.operand, relation.operator) {
        (Operand::Term(term), operator) => {
            let value = value(preparation, term)?;
            Ok(vec![match operator {
                Operator::Equal => Demand::Equal(value),
                Operator::Less => upper(value, false),
                Operator::LessOrEqual => upper(value, true),
                Operator::Greater => lower(value, false),
                Operator::GreaterOrEqual => lower(value, true),
                _ => return Err(unsupported(relation)),
            }])
        }
        (Operand::Terms(terms), Operator::Between) => match terms.as_slice() {
            [from, to] => Ok(vec![
                lower(value(preparation, from)?, true),
                upper(value(preparation, to)?, true),
            ]),
            _ => Err(unsupported(relation)),
        },
        (Operand::Terms(terms), Operator::In) => match terms.as_slice() {
            [single] => Ok(vec![Demand::Equal(value(preparation, single)?)]),
            _ => {
                let values = terms.iter().map(|term| value(preparation, term));
                Ok(vec![Demand::In(InValues::List(
                    values.collect::<Result<_, _>>()?,
                ))])
            }
        },
        (Operand::InMarker(marker), Operator::In) => {
            let element = receiver.cql_type.freeze();
            let list = receiver.derived(
                format!(
                    "in({})",
                    receiver.name.trim_start_matches('(').trim_end_matches(')')
                ),
                CqlType::List {
                    element: Arc::new(element.clone()),
                    frozen: false,
                },
            );
            let list = preparation.bind(*marker, &list);
            Ok(vec![Demand::In(InValues::Bound { list, element })])
        }
        _ => Err(unsupported(relation)),
    }
}

fn contains(
    preparation: &mut Preparation<'_>,
    relation: &Relation,
    index: usize,
    column: &Column,
    receiver: &ColumnSpecification,
    merged: &mut Merged,
) -> Result<(), CqlError> {
    let is_key = relation.operator == Operator::ContainsKey;
    let (name, element) = match (&column.cql_type, is_key) {
        (CqlType::Map { key, .. }, true) => (format!("key({})", column.name), key),
        (CqlType::Map { value, .. }, false) => (format!("value({})", column.name), value),
        (CqlType::List { element, .. } | CqlType::Set { element, .. }, false) => {
            (format!("value({})", column.name), element)
        }
        (CqlType::List { .. } | CqlType::Set { .. }, true) => {
            return Err(CqlError::Invalid(format!(
                "Cannot use CONTAINS KEY on non-map column {}",
                column.name
            )));
        }
        _ => {
            return Err(CqlError::Invalid(format!(
                "Cannot use {} on non-collection column {}",
                relation.operator.symbol(),
                column.name
            )));
        }
    };
    let Operand::Term(term) = &relation.operand else {
        return Err(unsupported(relation));
    };
    let value = prepare_term(preparation, term, &receiver.derived(name, (**element).clone()))?;
    if merged.single.iter().any(|(own, _)| *own == index) {
        return Err(CqlError::Invalid(format!(
            "Collection column {} can only be restricted by CONTAINS, CONTAINS KEY, or map-entry equality",
            column.name
        )));
    }
    merged.filters.push(Filter {
        columns: vec![index],
        test: if is_key {
            FilterTest::ContainsKey(value)
        } else {
            FilterTest::Contains(value)
        },
        analysis: None,
    });
    Ok(())
}

fn entry(
    preparation: &mut Preparation<'_>,
    table: &Table,
    relation: &Relation,
    name: &Name,
    key: &Term,
    merged: &mut Merged,
) -> Result<(), CqlError> {
    let (index, column) = find(table, name)?;
    let receiver = ColumnSpecification::of_column(table, column);
    let CqlType::Map {
        key: key_type,
        value: value_type,
        frozen,
    } = &column.cql_type
    else {
        return Err(CqlError::Invalid(match &column.cql_type {
            CqlType::List { .. } => {
                format!("Indexes on list entries ({name}[index] = value) are not currently supported.")
            }
            _ => format!("Column {name} cannot be used as a map"),
        }));
    };
    if *frozen {
        return Err(CqlError::Invalid(format!(
            "Map-entry equality predicates on frozen map column {name} are not supported"
        )));
    }
    let (Operator::Equal, Operand::Term(term)) = (relation.operator, &relation.operand) else {
        return Err(CqlError::invalid(
            "Only EQ relations are supported on map entries",
        ));
    };
    let key_receiver = receiver.derived(format!("key({name})"), (**key_type).clone());
    let value_receiver = receiver.derived(format!("value({name})"), (**value_type).clone());
    let key = prepare_term(preparation, key, &key_receiver)?;
    let value = prepare_term(preparation, term, &value_receiver)?;
    merged.filters.push(Filter {
        columns: vec![index],
        test: FilterTest::Entry { key, value },
        analysis: None,
    });
    Ok(())
}

fn multi(
    preparation: &mut Preparation<'_>,
    table: &Table,
    relation: &Relation,
    names: &[Name],
    merged: &mut Merged,
) -> Result<(), CqlError> {
    if matches!(relation.operator, Operator::NotEqual | Operator::NotIn) {
        return Err(unsupported(relation));
    }
    let mut indices = Vec::with_capacity(names.len());
    let mut receivers = Vec::with_capacity(names.len());
    for name in names {
        let (index, column) = find(table, name)?;
        if column.kind != ColumnKind::Clustering {
            return Err(CqlError::Invalid(format!(
                "Multi-column relations can only be applied to clustering columns but was applied to: {name}"
            )));
        }
        if indices.contains(&index) {
            return Err(CqlError::Invalid(format!(
                "Column \"{name}\" appeared twice in a relation: {relation}"
            )));
        }
        if indices.last().is_some_and(|last| index != last + 1) {
            return Err(CqlError::Invalid(format!(
                "Clustering columns must appear in the PRIMARY KEY order in multi-column relations: {relation}"
            )));
        }
        indices.push(index);
        receivers.push(ColumnSpecification::of_column(table, column));
    }
    let joined = names.iter().map(|name| &**name).collect::<Vec<_>>().join(",");
    let types: Arc<[CqlType]> = receivers
        .iter()
        .map(|receiver| receiver.cql_type.clone())
        .collect();
    let receiver = ColumnSpecification::new(table, format!("({joined})"), CqlType::Tuple(types));
    let value = |preparation: &mut Preparation<'_>, term: &Term| match term {
        Term::Tuple(elements) => {
            if elements.len() != receivers.len() {
                return Err(CqlError::Invalid(format!(
                    "Expected {} elements in value tuple, but got {}: {term}",
                    receivers.len(),
                    elements.len()
                )));
            }
            let elements = elements.iter().zip(&receivers);
            let prepared = elements.map(|(element, receiver)| prepare_term(preparation, element, receiver));
            Ok(TupleValue::Elements(prepared.collect::<Result<_, _>>()?))
        }
        whole => {
            let tuple = prepare_term(preparation, whole, &receiver)?;
            Ok(match tuple {
                Expression::Construct { elements, .. } => TupleValue::Elements(elements),
                tuple => TupleValue::Whole {
                    tuple,
                    count: receivers.len(),
                },
            })
        }
    };
    for demand in demands(preparation, relation, &receiver, &value)? {
        merged.add_multi(indices.clone(), &joined, demand)?;
    }
    Ok(())
}

fn token(
    preparation: &mut Preparation<'_>,
    table: &Table,
    relation: &Relation,
    names: &[Name],
    kind: StatementKind,
    merged: &mut Merged,
) -> Result<(), CqlError> {
    for name in names {
        find(table, name)?;
    }
    let key: Vec<&str> = table.partition_key().iter().map(|column| &*column.name).collect();
    let given: Vec<&str> = names.iter().map(|name| &**name).collect();
    if !matches!(kind, StatementKind::Select { .. }) {
        return Err(CqlError::Invalid(format!(
            "The token function cannot be used in WHERE clauses for {} statements",
            kind.name()
        )));
    }
    if key.iter().any(|name| !given.contains(name)) {
        return Err(CqlError::invalid(
            "The token() function must be applied to all partition key components or none of them",
        ));
    }
    if (1..given.len()).any(|at| given.get(..at).is_some_and(|before| before.contains(&given[at]))) {
        return Err(CqlError::invalid(
            "The token() function contains duplicate partition key components",
        ));
    }
    if given.iter().any(|name| !key.contains(name)) {
        return Err(CqlError::invalid(
            "The token() function must contains only partition key components",
        ));
    }
    if given != key {
        return Err(CqlError::Invalid(format!(
            "The token function arguments must be in the partition key order: {}",
            key.join(", ")
        )));
    }
    if matches!(relation.operator, Operator::NotEqual | Operator::NotIn) {
        return Err(unsupported(relation));
    }
    if relation.operator == Operator::In {
        return Err(CqlError::Invalid(format!(
            "{} cannot be used with the token function",
            relation.operator.symbol()
        )));
    }
    let receiver = ColumnSpecification::new(table, "partition key token", CqlType::Bigint);
    let value = |preparation: &mut Preparation<'_>, term: &Term| prepare_term(preparation, term, &receiver);
    for demand in demands(preparation, relation, &receiver, &value)? {
        merged.add_token(&format!("token({})", key.join(", ")), demand)?;
    }
    Ok(())
}
