//! CREATE and DROP of functions and aggregates.

use super::{Name, QualifiedName, RawType, Term};

/// `CREATE FUNCTION`
#[derive(Clone, PartialEq, Debug)]
pub struct CreateFunction {
    /// OR REPLACE
    pub or_replace: bool,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// Its name.
    pub name: QualifiedName,
    /// Maybe none.
    pub arguments: Vec<FunctionArgument>,
    /// CALLED ON NULL INPUT; else RETURNS NULL ON NULL INPUT.
    pub called_on_null_input: bool,
    /// RETURNS type
    pub return_type: RawType,
    /// LANGUAGE, lower case.
    pub language: Name,
    /// AS 'body'
    pub body: Box<str>,
}

/// `name type` in the argument list of a function.
#[derive(Clone, PartialEq, Debug)]
pub struct FunctionArgument {
    /// Name of the argument.
    pub name: Name,
    /// Type of the argument.
    pub raw_type: RawType,
}

/// `CREATE AGGREGATE`
#[derive(Clone, PartialEq, Debug)]
pub struct CreateAggregate {
    /// OR REPLACE
    pub or_replace: bool,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// Its name.
    pub name: QualifiedName,
    /// Maybe none.
    pub argument_types: Vec<RawType>,
    /// SFUNC: in the keyspace of the aggregate.
    pub state_function: Name,
    /// STYPE
    pub state_type: RawType,
    /// FINALFUNC: in the keyspace of the aggregate.
    pub final_function: Option<Name>,
    /// INITCOND
    pub initial_condition: Option<Term>,
}

/// `DROP FUNCTION` or `DROP AGGREGATE`
#[derive(Clone, PartialEq, Debug)]
pub struct DropFunction {
    /// Its name.
    pub name: QualifiedName,
    /// IF EXISTS
    pub if_exists: bool,
    /// `(types)`; None when not written, so that the name must be unique.
    pub argument_types: Option<Vec<RawType>>,
}
