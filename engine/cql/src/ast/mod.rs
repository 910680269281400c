//! The syntax tree: what a statement says, before the schema is asked what it means.
//!
//! Plain data. Names are folded to lower case unless they were quoted, so two equal names are equal strings. Never: a
//! resolved column, type or function; never a source position, since every error that has one is raised while parsing.
//! Nesting is bounded by `parser::MAX_NESTING`, so walking a tree recursively is safe.
//!
//! Read next: `term` for values, `selectable` for what SELECT computes, `modification` and `select` for the
//! statements that touch rows, `schema` and `role` for the others.

mod describe;
mod display;
mod function;
mod modification;
mod name;
mod relation;
mod role;
mod schema;
mod select;
mod selectable;
mod service_level;
mod term;
mod types;

pub use describe::{Describe, DescribeTarget};
pub use function::{CreateAggregate, CreateFunction, DropFunction, FunctionArgument};
pub use modification::{
    Assignment, AssignmentOperation, Batch, BatchKind, ColumnCondition, Condition, Delete, Deletion, Insert,
    InsertContent, JsonDefault, JsonValue, Modification, Update, Using,
};
pub use name::{Name, QualifiedName};
pub use relation::{
    ColumnPart, CustomIndexExpression, Operand, Operator, Relation, RelationSubject, WhereClause,
};
pub use role::{
    AddIdentity, AlterRole, CidrAccess, CreateRole, DatacenterAccess, DropIdentity, DropRole,
    GrantPermissions, GrantRole, ListPermissions, ListRoles, Permission, Resource, RevokePermissions,
    RevokeRole, RoleOptions,
};
pub use schema::{
    AlterColumnMask, AlterKeyspace, AlterMaterializedView, AlterTable, AlterTableChange, AlterType,
    AlterTypeChange, ClusteringOrder, ColumnDefinition, ColumnMask, CopyTable, CreateIndex, CreateKeyspace,
    CreateMaterializedView, CreateTable, CreateTrigger, CreateType, Drop, DropTrigger, FieldDefinition,
    IndexTarget, IndexTargetKind, PrimaryKey, Properties, Property, PropertyValue, TableOptions,
};
pub use select::{Ordering, OrderingKind, Select, Selection, Selector};
pub use selectable::{CellMetadata, Selectable};
pub use service_level::{AttachServiceLevel, ListServiceLevels, ServiceLevelDefinition};
pub use term::{ArithmeticOperator, BindMarker, Literal, LiteralKind, Term};
pub use types::RawType;

/// A parsed statement and the bind variables it declares.
#[derive(Clone, PartialEq, Debug)]
pub struct ParsedStatement {
    /// What is to be done.
    pub statement: Statement,
    /// EXPLAIN stands before it; true: EXPLAIN ANALYZE.
    pub explain: Option<bool>,
    /// One entry per bind marker in order of appearance: its name, or None for `?`. A name used twice occurs twice.
    /// [`BindMarker`] holds an index into this list.
    pub bind_variables: Vec<Option<Name>>,
}

/// Every statement of CQL.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)] // each variant is named by its keywords
pub enum Statement {
    Select(Box<Select>),
    Modification(Modification),
    Batch(Batch),
    Use(Name),
    Truncate(QualifiedName),

    CreateKeyspace(CreateKeyspace),
    AlterKeyspace(AlterKeyspace),
    /// The name has no keyspace part.
    DropKeyspace(Drop),
    CreateTable(Box<CreateTable>),
    /// CREATE TABLE a LIKE b
    CopyTable(CopyTable),
    AlterTable(AlterTable),
    DropTable(Drop),
    CreateType(CreateType),
    AlterType(AlterType),
    DropType(Drop),
    CreateIndex(CreateIndex),
    DropIndex(Drop),
    CreateMaterializedView(Box<CreateMaterializedView>),
    AlterMaterializedView(AlterMaterializedView),
    DropMaterializedView(Drop),
    CreateTrigger(CreateTrigger),
    DropTrigger(DropTrigger),
    CreateFunction(Box<CreateFunction>),
    DropFunction(DropFunction),
    CreateAggregate(Box<CreateAggregate>),
    DropAggregate(DropFunction),

    CreateRole(CreateRole),
    AlterRole(AlterRole),
    DropRole(DropRole),
    GrantRole(GrantRole),
    RevokeRole(RevokeRole),
    GrantPermissions(GrantPermissions),
    RevokePermissions(RevokePermissions),
    ListPermissions(ListPermissions),
    ListRoles(ListRoles),
    /// LIST USERS
    ListUsers,
    /// LIST SUPERUSERS
    ListSuperusers,
    AddIdentity(AddIdentity),
    DropIdentity(DropIdentity),

    CreateServiceLevel(ServiceLevelDefinition),
    AlterServiceLevel(ServiceLevelDefinition),
    /// The name has no keyspace part.
    DropServiceLevel(Drop),
    AttachServiceLevel(AttachServiceLevel),
    /// DETACH SERVICE LEVEL FROM role
    DetachServiceLevel(Name),
    ListServiceLevels(ListServiceLevels),

    Describe(Describe),
}
