//! From syntax to typed expressions, in two passes that each visit every node once.
//!
//! 1. [`Typing::infer`], bottom up: what has a type of its own (columns, functions, casts) becomes an expression; what
//!    has not (literals, markers, collections of these) stays open, as a [`Partial`].
//! 2. [`Typing::assign`], top down: a receiver's type settles what is open; [`Typing::settle`] does it without one.
//!
//! Overloads are chosen between the passes, by what the arguments can become. So no nesting makes typing repeat itself.

use super::assignment::{Assignment, natural_type};
use super::literal::prepare_literal;
use super::{Expression, Operation, Raw, arithmetic, cast, element};
use crate::ast::{ArithmeticOperator, BindMarker, Literal, Name, QualifiedName, Term};
use crate::functions::{self, AggregateFunction, Callee};
use crate::prepare::Preparation;
use crate::{ColumnSpecification, CqlError};
use ceto_model::{Column, CqlType, Table};
use std::cell::OnceCell;
use std::sync::Arc;

/// An aggregate that a selection asks for.
#[derive(Clone, Debug)]
pub(crate) struct AggregateCall {
    pub(crate) function: AggregateFunction,
    /// Evaluated on each row of the group; none for count(*).
    pub(crate) arguments: Vec<Expression>,
}

/// A term or selectable whose type may still be open.
pub(crate) struct Partial<'r> {
    pub(crate) raw: &'r Raw<'r>,
    pub(crate) kind: PartialKind<'r>,
}

/// See [`Partial`].
pub(crate) enum PartialKind<'r> {
    /// Nothing is open.
    Typed(Expression, CqlType),
    Literal(&'r Literal),
    Null,
    Marker(BindMarker),
    Tuple(Vec<Partial<'r>>),
    List(Vec<Partial<'r>>),
    Set(Vec<Partial<'r>>),
    Map(Vec<(Partial<'r>, Partial<'r>)>),
    /// A UDT; or a map too, when all keys might be columns.
    UserType {
        fields: Vec<(&'r Name, Partial<'r>)>,
        is_map: bool,
    },
    Operation {
        operator: ArithmeticOperator,
        left: Box<Partial<'r>>,
        right: Box<Partial<'r>>,
    },
    Negation(Box<Partial<'r>>),
    /// fromJson of this text: whatever the receiver wants.
    FromJson(Box<Expression>),
}

impl Partial<'_> {
    /// Nothing of its type is open.
    pub(crate) fn is_typed(&self) -> bool {
        matches!(self.kind, PartialKind::Typed(..))
    }

    /// Some part of it has a type of its own, so that literals beside it have one too.
    fn has_type(&self) -> bool {
        match &self.kind {
            PartialKind::Typed(..) => true,
            PartialKind::Literal(_)
            | PartialKind::Null
            | PartialKind::Marker(_)
            | PartialKind::FromJson(_) => false,
            PartialKind::Tuple(elements) => !elements.is_empty() && elements.iter().all(Self::has_type),
            PartialKind::List(elements) | PartialKind::Set(elements) => elements.iter().any(Self::has_type),
            PartialKind::Map(entries) => {
                entries.iter().any(|(key, _)| key.has_type())
                    && entries.iter().any(|(_, value)| value.has_type())
            }
            PartialKind::UserType { fields, .. } => fields.iter().any(|(_, value)| value.has_type()),
            PartialKind::Operation { left, right, .. } => left.has_type() || right.has_type(),
            PartialKind::Negation(operand) => operand.has_type(),
        }
    }
}

/// The typing of one expression.
pub(crate) struct Typing<'a, 's> {
    pub(crate) preparation: &'a mut Preparation<'s>,
    /// Whose columns may be named; None where no column may be.
    pub(crate) table: Option<&'a Arc<Table>>,
    /// Where aggregates go; None where none may be.
    pub(crate) aggregates: Option<&'a mut Vec<AggregateCall>>,
}

/// A term that stands for `receiver`, without columns.
pub(crate) fn prepare_term(
    preparation: &mut Preparation<'_>,
    term: &Term,
    receiver: &ColumnSpecification,
) -> Result<Expression, CqlError> {
    let raw = Raw::from(term);
    let mut typing = Typing {
        preparation,
        table: None,
        aggregates: None,
    };
    let partial = typing.infer(&raw)?;
    typing.assign(partial, receiver)
}

impl Typing<'_, '_> {
    /// First pass.
    pub(crate) fn infer<'r>(&mut self, raw: &'r Raw<'r>) -> Result<Partial<'r>, CqlError> {
        let kind = match raw {
            Raw::Literal(literal) => PartialKind::Literal(literal),
            Raw::Null => PartialKind::Null,
            Raw::Marker(marker) => PartialKind::Marker(*marker),
            Raw::Column(name) => {
                let (index, column) = self.column(name)?;
                PartialKind::Typed(Expression::Column(index), column.cql_type.clone())
            }
            Raw::CountRows => self.aggregate(AggregateFunction::count_rows(), Vec::new())?,
            Raw::CellMetadata { kind, operand } => self.cell_metadata(*kind, operand)?,
            Raw::Cast { operand, target } => {
                let partial = self.infer(operand)?;
                let (operand, from) = self.settle_operand_of_cast(partial, target)?;
                if from == **target {
                    return Ok(Partial {
                        raw,
                        kind: PartialKind::Typed(operand, from),
                    });
                }
                cast::check(&from, target)?;
                let expression = Expression::Cast {
                    from,
                    to: (*target).clone(),
                    operand: Box::new(operand),
                };
                PartialKind::Typed(expression, (*target).clone())
            }
            Raw::Function {
                name,
                resolved,
                arguments,
            } => self.function(name, resolved, arguments)?,
            Raw::Operation {
                operator,
                left,
                right,
            } => {
                let (left, right) = (self.infer(left)?, self.infer(right)?);
                self.operation(*operator, left, right)?
            }
            Raw::Negation(operand) => {
                let operand = self.infer(operand)?;
                match operand.kind {
                    PartialKind::Typed(expression, cql_type) => {
                        arithmetic::check_negation(&cql_type)?;
                        let expression = Expression::Negation {
                            cql_type: cql_type.clone(),
                            operand: Box::new(expression),
                        };
                        PartialKind::Typed(expression, cql_type)
                    }
                    _ => PartialKind::Negation(Box::new(operand)),
                }
            }
            Raw::Field { operand, field } => {
                let partial = self.infer(operand)?;
                let (operand, cql_type) = self.settle(partial)?;
                let (index, field_type) = element::find_field(&cql_type, field)?;
                let expression = Expression::Field {
                    operand: Box::new(operand),
                    index,
                };
                PartialKind::Typed(expression, field_type)
            }
            Raw::Element { operand, key } => self.element(operand, key)?,
            Raw::Slice { operand, from, to } => self.slice(operand, from.as_deref(), to.as_deref())?,
            Raw::TypeHint { raw_type, operand } => {
                let cql_type = self.preparation.resolve_type(raw_type)?;
                let partial = self.infer(operand)?;
                if partial.assignment(&cql_type) == Assignment::Impossible {
                    return Err(CqlError::Invalid(format!(
                        "Cannot assign value {} to a value of type {cql_type}",
                        partial.raw.text()
                    )));
                }
                let receiver = self.receiver(&raw.text(), cql_type.clone());
                PartialKind::Typed(self.assign(partial, &receiver)?, cql_type)
            }
            Raw::Tuple(elements) => PartialKind::Tuple(self.infer_all(elements)?),
            Raw::List(elements) => PartialKind::List(self.infer_all(elements)?),
            Raw::Set(elements) => PartialKind::Set(self.infer_all(elements)?),
            Raw::Map(entries) => match raw.as_user_type() {
                Some(_) => PartialKind::UserType {
                    fields: entries
                        .iter()
                        .filter_map(|(key, value)| match key {
                            Raw::Column(name) => Some((*name, value)),
                            _ => None,
                        })
                        .map(|(name, value)| Ok((name, self.infer(value)?)))
                        .collect::<Result<_, CqlError>>()?,
                    is_map: true,
                },
                None => PartialKind::Map(
                    entries
                        .iter()
                        .map(|(key, value)| Ok((self.infer(key)?, self.infer(value)?)))
                        .collect::<Result<_, CqlError>>()?,
                ),
            },
            Raw::UserType(fields) => PartialKind::UserType {
                fields: fields
                    .iter()
                    .map(|(name, value)| Ok((*name, self.infer(value)?)))
                    .collect::<Result<_, CqlError>>()?,
                is_map: false,
            },
        };
        Ok(Partial { raw, kind })
    }

    fn infer_all<'r>(&mut self, raws: &'r [Raw<'r>]) -> Result<Vec<Partial<'r>>, CqlError> {
        raws.iter().map(|raw| self.infer(raw)).collect()
    }

    /// Second pass: the value of `receiver`.
    pub(crate) fn assign(
        &mut self,
        partial: Partial<'_>,
        receiver: &ColumnSpecification,
    ) -> Result<Expression, CqlError> {
        let raw = partial.raw;
        let invalid = |what: &str| {
            Err(CqlError::Invalid(format!(
                "Invalid {what} literal for {} of type {}",
                receiver.name, receiver.cql_type
            )))
        };
        match partial.kind {
            PartialKind::Typed(expression, own) => {
                if super::assignment::type_assignment(&receiver.cql_type, &own) == Assignment::Impossible {
                    return Err(mismatch(raw, &own, receiver));
                }
                Ok(expression)
            }
            PartialKind::Null if receiver.cql_type == CqlType::Counter => Err(CqlError::invalid(
                "Invalid null value for counter increment/decrement",
            )),
            PartialKind::Null => Ok(Expression::Constant(None)),
            PartialKind::Marker(marker) => {
                self.preparation.variables.bind(marker, receiver);
                Ok(Expression::Bind(marker.index))
            }
            PartialKind::Literal(literal) => {
                Ok(Expression::Constant(Some(prepare_literal(literal, receiver)?)))
            }
            PartialKind::FromJson(operand) => {
                let function = functions::from_json(&receiver.cql_type);
                Ok(Expression::Function {
                    function: Arc::new(function),
                    arguments: vec![*operand],
                })
            }
            PartialKind::Operation {
                operator,
                left,
                right,
            } => {
                let own = receiver.cql_type.clone();
                let partner = arithmetic::right_of(operator, &own);
                let left = self.assign(*left, &receiver.derived("left operand".to_owned(), own.clone()))?;
                let right_receiver = receiver.derived("right operand".to_owned(), partner.clone());
                let right = self.assign(*right, &right_receiver)?;
                typed_operation(operator, (left, own), (right, partner)).map(|(expression, _)| expression)
            }
            PartialKind::Negation(operand) => {
                arithmetic::check_negation(&receiver.cql_type)?;
                Ok(Expression::Negation {
                    cql_type: receiver.cql_type.clone(),
                    operand: Box::new(self.assign(*operand, receiver)?),
                })
            }
            PartialKind::List(elements) => match &receiver.cql_type {
                CqlType::List { element, .. } => {
                    let element = receiver.derived(format!("value({})", receiver.name), (**element).clone());
                    self.construct(
                        receiver,
                        "list",
                        elements.into_iter().map(|e| (e, element.clone())),
                    )
                }
                CqlType::Vector { element, dimension } => {
                    if elements.len() != usize::from(*dimension) {
                        return Err(CqlError::Invalid(format!(
                            "Invalid vector literal for {} of type {}; expected {dimension} elements, but given {}",
                            receiver.name,
                            receiver.cql_type,
                            elements.len()
                        )));
                    }
                    let element = receiver.derived(format!("value({})", receiver.name), (**element).clone());
                    self.construct(
                        receiver,
                        "vector",
                        elements.into_iter().map(|e| (e, element.clone())),
                    )
                }
                _ => invalid("list"),
            },
            PartialKind::Set(elements) => match &receiver.cql_type {
                CqlType::Set { element, .. } => {
                    let element = receiver.derived(format!("value({})", receiver.name), (**element).clone());
                    self.construct(
                        receiver,
                        "set",
                        elements.into_iter().map(|e| (e, element.clone())),
                    )
                }
                CqlType::Map { .. } if elements.is_empty() => {
                    self.construct(receiver, "map", std::iter::empty())
                }
                CqlType::Map { .. } => invalid("set"),
                _ => invalid("set"),
            },
            PartialKind::Map(entries) => match &receiver.cql_type {
                CqlType::Map { key, value, .. } => {
                    let key = receiver.derived(format!("key({})", receiver.name), (**key).clone());
                    let value = receiver.derived(format!("value({})", receiver.name), (**value).clone());
                    let elements = entries
                        .into_iter()
                        .flat_map(|(k, v)| [(k, key.clone()), (v, value.clone())]);
                    self.construct(receiver, "map", elements)
                }
                _ => invalid("map"),
            },
            PartialKind::UserType { fields, is_map } => match &receiver.cql_type {
                CqlType::Udt { definition, .. } => self.user_type(receiver, &definition.clone(), fields),
                CqlType::Map { .. } if is_map => self.map_of_columns(receiver, fields),
                _ => invalid(if is_map { "map" } else { "user type" }),
            },
            PartialKind::Tuple(mut elements) => match &receiver.cql_type {
                CqlType::Tuple(types) => {
                    if elements.len() > types.len() {
                        return Err(CqlError::Invalid(format!(
                            "Invalid tuple literal for {}: too many elements. Type {} expects {} but got {}",
                            receiver.name,
                            receiver.cql_type,
                            types.len(),
                            elements.len()
                        )));
                    }
                    let receivers: Vec<_> = (types.iter().enumerate())
                        .map(|(i, t)| receiver.derived(format!("{}[{i}]", receiver.name), t.clone()))
                        .collect();
                    self.construct(receiver, "tuple", elements.into_iter().zip(receivers))
                }
                _ if elements.len() == 1 => match elements.pop() {
                    Some(single) => self.assign(single, receiver),
                    None => invalid("tuple"),
                },
                _ => invalid("tuple"),
            },
        }
    }

    /// A collection literal; constant when all its elements are.
    fn construct<'r>(
        &mut self,
        receiver: &ColumnSpecification,
        what: &str,
        elements: impl Iterator<Item = (Partial<'r>, ColumnSpecification)>,
    ) -> Result<Expression, CqlError> {
        let mut prepared = Vec::with_capacity(elements.size_hint().0);
        for (at, (partial, element)) in elements.enumerate() {
            if partial.assignment(&element.cql_type) == Assignment::Impossible {
                let part = match what {
                    "tuple" => format!("component {at}"),
                    "map" if at % 2 == 0 => format!("key {}", partial.raw.text()),
                    _ => format!("value {}", partial.raw.text()),
                };
                return Err(CqlError::Invalid(format!(
                    "Invalid {what} literal for {}: {part} is not of type {}",
                    receiver.name, element.cql_type
                )));
            }
            prepared.push(self.assign(partial, &element)?);
        }
        fold_construct(&receiver.cql_type, prepared)
    }

    fn user_type(
        &mut self,
        receiver: &ColumnSpecification,
        definition: &ceto_model::UserType,
        fields: Vec<(&Name, Partial<'_>)>,
    ) -> Result<Expression, CqlError> {
        let known = |name: &Name| definition.fields.iter().position(|field| field.name == *name);
        let mut elements = vec![Expression::Constant(None); definition.fields.len()];
        for (name, partial) in fields {
            let Some((index, field)) = known(name).and_then(|i| Some((i, definition.fields.get(i)?))) else {
                return Err(CqlError::Invalid(format!(
                    "Unknown field '{name}' in value of user defined type {}",
                    definition.name
                )));
            };
            let field = receiver.derived(format!("{}.{name}", receiver.name), field.cql_type.clone());
            if partial.assignment(&field.cql_type) == Assignment::Impossible {
                return Err(CqlError::Invalid(format!(
                    "Invalid user type literal for {}: field {name} is not of type {}",
                    receiver.name, field.cql_type
                )));
            }
            let expression = self.assign(partial, &field)?;
            if let Some(slot) = elements.get_mut(index) {
                *slot = expression;
            }
        }
        fold_construct(&receiver.cql_type, elements)
    }

    /// `{a: b}` where `a` is a column.
    fn map_of_columns(
        &mut self,
        receiver: &ColumnSpecification,
        fields: Vec<(&Name, Partial<'_>)>,
    ) -> Result<Expression, CqlError> {
        let CqlType::Map { value, .. } = &receiver.cql_type else {
            return Err(CqlError::Invalid(format!("{} is no map", receiver.name)));
        };
        let value = receiver.derived(format!("value({})", receiver.name), (**value).clone());
        let mut elements = Vec::with_capacity(fields.len() * 2);
        for (name, partial) in fields {
            elements.push(Expression::Column(self.column(name)?.0));
            elements.push(self.assign(partial, &value)?);
        }
        fold_construct(&receiver.cql_type, elements)
    }

    /// Second pass without a receiver. A literal alone has no type.
    pub(crate) fn settle(&mut self, partial: Partial<'_>) -> Result<(Expression, CqlType), CqlError> {
        match self.natural(&partial).filter(|_| partial.has_type()) {
            Some(cql_type) => {
                let receiver = self.receiver(&partial.raw.text(), cql_type.clone());
                Ok((self.assign(partial, &receiver)?, cql_type))
            }
            None => Err(cannot_infer(&partial)),
        }
    }

    /// As [`Self::settle`]; a literal has its natural type.
    fn settle_operand_of_cast(
        &mut self,
        partial: Partial<'_>,
        target: &CqlType,
    ) -> Result<(Expression, CqlType), CqlError> {
        match (&partial.kind, self.natural(&partial)) {
            (PartialKind::Marker(_), _) => Err(ambiguous_cast(target)),
            (PartialKind::Literal(_) | PartialKind::Negation(_), Some(cql_type)) => {
                let receiver = self.receiver(&partial.raw.text(), cql_type.clone());
                Ok((self.assign(partial, &receiver)?, cql_type))
            }
            _ => self.settle(partial),
        }
    }

    /// The type that this has when nothing else says it: None for null and bind markers.
    pub(crate) fn natural(&self, partial: &Partial<'_>) -> Option<CqlType> {
        let first = |elements: &[Partial<'_>]| elements.iter().find_map(|e| self.natural(e));
        let frozen = true;
        match &partial.kind {
            PartialKind::Typed(_, cql_type) => Some(cql_type.clone()),
            PartialKind::Literal(literal) => Some(natural_type(literal.kind, &literal.text)),
            PartialKind::Null | PartialKind::Marker(_) | PartialKind::FromJson(_) => None,
            PartialKind::Operation { left, right, .. } => match (self.natural(left), self.natural(right)) {
                (Some(left), Some(right)) => arithmetic::common_type(&left, &right),
                (left, right) => left.or(right),
            },
            PartialKind::Negation(operand) => self.natural(operand),
            PartialKind::Tuple(elements) => match elements.as_slice() {
                [single] => self.natural(single),
                _ => elements
                    .iter()
                    .map(|e| self.natural(e))
                    .collect::<Option<Vec<_>>>()
                    .map(|types| CqlType::Tuple(types.into())),
            },
            PartialKind::List(elements) => first(elements).map(|element| CqlType::List {
                element: Arc::new(element),
                frozen,
            }),
            PartialKind::Set(elements) => first(elements).map(|element| CqlType::Set {
                element: Arc::new(element),
                frozen,
            }),
            PartialKind::Map(entries) => Some(CqlType::Map {
                key: Arc::new(entries.iter().find_map(|(key, _)| self.natural(key))?),
                value: Arc::new(entries.iter().find_map(|(_, value)| self.natural(value))?),
                frozen,
            }),
            PartialKind::UserType { fields, is_map } => {
                let (name, _) = fields.first().filter(|_| *is_map)?;
                let key = self.table?.column(name)?.cql_type.clone();
                Some(CqlType::Map {
                    key: Arc::new(key),
                    value: Arc::new(fields.iter().find_map(|(_, value)| self.natural(value))?),
                    frozen,
                })
            }
        }
    }

    fn function<'r>(
        &mut self,
        name: &QualifiedName,
        resolved: &OnceCell<Arc<str>>,
        arguments: &'r [Raw<'r>],
    ) -> Result<PartialKind<'r>, CqlError> {
        let count = self.aggregates.as_ref().map_or(0, |aggregates| aggregates.len());
        let mut partials = self.infer_all(arguments)?;
        let nested = self.aggregates.as_ref().map_or(0, |aggregates| aggregates.len()) > count;
        if functions::is_from_json(name) {
            let [_] = partials.as_slice() else {
                return Err(CqlError::Invalid(format!("Unknown function '{name}'")));
            };
            let argument = partials.remove(0);
            let receiver = self.receiver(&format!("arg0({name})"), CqlType::Text);
            let text = self.assign(argument, &receiver)?;
            return Ok(PartialKind::FromJson(Box::new(text)));
        }
        let natural: Vec<_> = partials.iter().map(|partial| self.natural(partial)).collect();
        let user = self.preparation.user_functions(name);
        let table = self.preparation.table.as_deref();
        let callee = functions::resolve(name, &partials, &natural, table, user)?;
        let keyspace = self.preparation.used.note(&callee, user);
        // A call is typed once, so nothing is there yet.
        let _ = keyspace.map(|keyspace| resolved.set(keyspace));
        let (argument_types, return_type) = match &callee {
            Callee::Scalar(function) => (function.argument_types.clone(), function.return_type.clone()),
            Callee::Aggregate(function) => (function.argument_types(), function.return_type()),
        };
        let mut prepared = Vec::with_capacity(partials.len());
        for (index, (partial, cql_type)) in partials.into_iter().zip(argument_types).enumerate() {
            let receiver = self.receiver(&format!("arg{index}({name})"), cql_type);
            prepared.push(self.assign(partial, &receiver)?);
        }
        match callee {
            Callee::Scalar(function) => {
                let expression = Expression::Function {
                    function,
                    arguments: prepared,
                };
                Ok(PartialKind::Typed(expression, return_type))
            }
            Callee::Aggregate(_) if nested => Err(CqlError::invalid(
                "aggregate functions cannot be used as arguments of aggregate functions",
            )),
            Callee::Aggregate(function) => self.aggregate(function, prepared),
        }
    }

    fn aggregate<'r>(
        &mut self,
        function: AggregateFunction,
        arguments: Vec<Expression>,
    ) -> Result<PartialKind<'r>, CqlError> {
        let Some(aggregates) = self.aggregates.as_mut() else {
            return Err(CqlError::invalid(
                "Aggregation function are not supported in the where clause",
            ));
        };
        let return_type = function.return_type();
        aggregates.push(AggregateCall { function, arguments });
        Ok(PartialKind::Typed(
            Expression::Aggregate(aggregates.len() - 1),
            return_type,
        ))
    }

    fn operation<'r>(
        &mut self,
        operator: ArithmeticOperator,
        left: Partial<'r>,
        right: Partial<'r>,
    ) -> Result<PartialKind<'r>, CqlError> {
        let own = |partial: &Partial<'_>| match &partial.kind {
            PartialKind::Typed(_, cql_type) => Some(cql_type.clone()),
            _ => None,
        };
        let (left_type, right_type) = match (own(&left), own(&right)) {
            // What a known duration is added to is for the receiver to say.
            (None, None | Some(CqlType::Duration)) => {
                let (left, right) = (Box::new(left), Box::new(right));
                return Ok(PartialKind::Operation {
                    operator,
                    left,
                    right,
                });
            }
            (Some(left), Some(right)) => (left, right),
            (Some(known), None) => {
                let other = arithmetic::partner(&known, &right, self.natural(&right));
                (known, other)
            }
            (None, Some(known)) => {
                let other = arithmetic::partner(&known, &left, self.natural(&left));
                (other, known)
            }
        };
        let left_receiver = self.receiver("left operand", left_type.clone());
        let right_receiver = self.receiver("right operand", right_type.clone());
        let left = (self.assign(left, &left_receiver)?, left_type);
        let right = (self.assign(right, &right_receiver)?, right_type);
        let (expression, result_type) = typed_operation(operator, left, right)?;
        Ok(PartialKind::Typed(expression, result_type))
    }

    pub(super) fn column(&self, name: &Name) -> Result<(usize, &Column), CqlError> {
        let Some(table) = self.table else {
            return Err(CqlError::Invalid(format!(
                "Invalid reference to column {name} here"
            )));
        };
        let index = table.column_index(name);
        index
            .and_then(|index| Some((index, table.columns().get(index)?)))
            .ok_or_else(|| undefined_column(table, name))
    }

    pub(super) fn receiver(&self, name: &str, cql_type: CqlType) -> ColumnSpecification {
        let (keyspace, table) = match self.table {
            Some(table) => (table.keyspace.clone(), table.name.clone()),
            None => self.preparation.subject(),
        };
        ColumnSpecification {
            keyspace,
            table,
            name: name.into(),
            cql_type,
        }
    }
}

/// A name that the table does not have.
pub(crate) fn undefined_column(table: &Table, name: &str) -> CqlError {
    CqlError::Invalid(format!(
        "Undefined column name {} in table {}.{}",
        ceto_model::types::quote_identifier(name),
        ceto_model::types::quote_identifier(&table.keyspace),
        ceto_model::types::quote_identifier(&table.name)
    ))
}

/// A bind marker could be of any type that there is a cast from.
fn ambiguous_cast(target: &CqlType) -> CqlError {
    let name = target.to_string();
    let (first, rest) = name.split_at_checked(1).unwrap_or_default();
    CqlError::Invalid(format!(
        "Ambiguous call to function system.castAs{}{rest}: use type hint to disambiguate, example '({name}) ?'",
        first.to_uppercase()
    ))
}

fn cannot_infer(partial: &Partial<'_>) -> CqlError {
    if let (PartialKind::FromJson(_), Raw::Function { name, .. }) = (&partial.kind, partial.raw) {
        return CqlError::Invalid(format!(
            "{}() cannot be used in the selection clause of a SELECT statement",
            name.name
        ));
    }
    CqlError::Invalid(format!(
        "Cannot infer type for term {} in selection clause (try using a cast to force a type)",
        partial.raw.text()
    ))
}

fn mismatch(raw: &Raw<'_>, own: &CqlType, receiver: &ColumnSpecification) -> CqlError {
    CqlError::Invalid(match raw {
        Raw::Function { name, resolved, .. } => format!(
            "Type error: cannot assign result of function {}.{} (type {own}) to {} (type {})",
            Raw::keyspace_of(name, resolved),
            name.name,
            receiver.name,
            receiver.cql_type
        ),
        _ => format!(
            "Cannot assign value {} to {} of type {}",
            raw.text(),
            receiver.name,
            receiver.cql_type
        ),
    })
}

fn typed_operation(
    operator: ArithmeticOperator,
    (left, left_type): (Expression, CqlType),
    (right, right_type): (Expression, CqlType),
) -> Result<(Expression, CqlType), CqlError> {
    let result_type = arithmetic::result_type(operator, &left_type, &right_type)?;
    let operation = Operation {
        operator,
        left,
        left_type,
        right,
        right_type,
        result_type: result_type.clone(),
    };
    Ok((Expression::Operation(Box::new(operation)), result_type))
}

/// Builds constants right away.
fn fold_construct(cql_type: &CqlType, elements: Vec<Expression>) -> Result<Expression, CqlError> {
    if !elements.iter().all(Expression::is_constant) {
        return Ok(Expression::Construct {
            cql_type: cql_type.clone(),
            elements,
        });
    }
    let values: Vec<_> = elements
        .into_iter()
        .map(|element| match element {
            Expression::Constant(value) => value.into(),
            _ => crate::BoundValue::Null,
        })
        .collect();
    super::construct_from(cql_type, &values).map(|bytes| Expression::Constant(Some(bytes)))
}
