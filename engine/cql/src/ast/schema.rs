//! CREATE, ALTER and DROP of keyspaces, tables, types, indexes, materialized views and triggers.

use super::{Name, QualifiedName, RawType, Selection, Term, WhereClause};

/// `WITH a = b AND ..`, in order of appearance; every name once.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Properties(pub Vec<Property>);

impl Properties {
    /// The value of a property, if given.
    pub fn get(&self, name: &str) -> Option<&PropertyValue> {
        self.0
            .iter()
            .find(|property| &*property.name == name)
            .map(|property| &property.value)
    }
}

/// One `name = value`.
#[derive(Clone, PartialEq, Debug)]
pub struct Property {
    /// Name, folded like any identifier.
    pub name: Name,
    /// Value.
    pub value: PropertyValue,
}

/// The value of a [`Property`].
#[derive(Clone, PartialEq, Debug)]
pub enum PropertyValue {
    /// A constant or bare word, as text without quotes.
    Text(Box<str>),
    /// `{'a': 'b', 'c': 1}`, keys and values as text without quotes; every key once.
    Map(Vec<(Box<str>, Box<str>)>),
}

/// `CREATE KEYSPACE`
#[derive(Clone, PartialEq, Debug)]
pub struct CreateKeyspace {
    /// Its name.
    pub name: Name,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// At least one.
    pub properties: Properties,
}

/// `ALTER KEYSPACE`
#[derive(Clone, PartialEq, Debug)]
pub struct AlterKeyspace {
    /// Its name.
    pub name: Name,
    /// IF EXISTS
    pub if_exists: bool,
    /// At least one.
    pub properties: Properties,
}

/// `DROP kind [IF EXISTS] name`
#[derive(Clone, PartialEq, Debug)]
pub struct Drop {
    /// What is dropped.
    pub name: QualifiedName,
    /// IF EXISTS
    pub if_exists: bool,
}

/// `CREATE TABLE`
#[derive(Clone, PartialEq, Debug)]
pub struct CreateTable {
    /// Its name.
    pub name: QualifiedName,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// In order of appearance; names may repeat, which is an Invalid request.
    pub columns: Vec<ColumnDefinition>,
    /// Every PRIMARY KEY written, inline or as a clause: none or several is an Invalid request.
    pub primary_keys: Vec<PrimaryKey>,
    /// WITH
    pub options: TableOptions,
}

/// `name type [STATIC] [MASKED WITH ..]`
#[derive(Clone, PartialEq, Debug)]
pub struct ColumnDefinition {
    /// Name of the column.
    pub name: Name,
    /// Type of the column.
    pub raw_type: RawType,
    /// STATIC
    pub is_static: bool,
    /// MASKED WITH
    pub mask: Option<ColumnMask>,
}

/// `MASKED WITH function(arguments)`
#[derive(Clone, PartialEq, Debug)]
pub struct ColumnMask {
    /// The function; `MASKED WITH DEFAULT` is `system.mask_default`.
    pub function: QualifiedName,
    /// Arguments after the column itself.
    pub arguments: Vec<Term>,
}

/// `PRIMARY KEY ((a, b), c)`
#[derive(Clone, PartialEq, Debug)]
pub struct PrimaryKey {
    /// At least one.
    pub partition_key: Vec<Name>,
    /// Maybe none.
    pub clustering: Vec<Name>,
}

/// What follows WITH on a table or materialized view.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct TableOptions {
    /// `name = value`
    pub properties: Properties,
    /// CLUSTERING ORDER BY, in order of appearance.
    pub clustering_order: Vec<ClusteringOrder>,
    /// COMPACT STORAGE; never set on views.
    pub compact_storage: bool,
}

/// One item of CLUSTERING ORDER BY.
#[derive(Clone, PartialEq, Debug)]
pub struct ClusteringOrder {
    /// The clustering column.
    pub column: Name,
    /// DESC
    pub descending: bool,
}

/// `CREATE TABLE name LIKE source`
#[derive(Clone, PartialEq, Debug)]
pub struct CopyTable {
    /// The new table.
    pub name: QualifiedName,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// The table whose columns it takes over.
    pub source: QualifiedName,
    /// WITH INDEXES
    pub with_indexes: bool,
    /// WITH name = value
    pub properties: Properties,
}

/// `ALTER TABLE`
#[derive(Clone, PartialEq, Debug)]
pub struct AlterTable {
    /// Its name.
    pub name: QualifiedName,
    /// IF EXISTS
    pub if_exists: bool,
    /// What changes.
    pub change: AlterTableChange,
}

/// What an [`AlterTable`] changes.
#[derive(Clone, PartialEq, Debug)]
pub enum AlterTableChange {
    /// ALTER column TYPE type: no longer supported, but still grammar.
    AlterColumnType {
        /// The column.
        column: Name,
        /// The type asked for.
        raw_type: RawType,
    },
    /// ALTER column MASKED WITH ..; ALTER column DROP MASKED
    AlterMask(AlterColumnMask),
    /// ADD
    AddColumns {
        /// IF NOT EXISTS
        if_not_exists: bool,
        /// At least one.
        columns: Vec<ColumnDefinition>,
    },
    /// DROP
    DropColumns {
        /// IF EXISTS
        if_exists: bool,
        /// At least one.
        columns: Vec<Name>,
        /// USING TIMESTAMP, microseconds: data up to then is dropped.
        timestamp: Option<i64>,
    },
    /// RENAME
    RenameColumns {
        /// IF EXISTS
        if_exists: bool,
        /// From, to; at least one.
        renames: Vec<(Name, Name)>,
    },
    /// DROP COMPACT STORAGE
    DropCompactStorage,
    /// WITH; at least one.
    Properties(Properties),
}

/// `ALTER [IF EXISTS] column MASKED WITH .. | DROP MASKED`
#[derive(Clone, PartialEq, Debug)]
pub struct AlterColumnMask {
    /// IF EXISTS
    pub if_exists: bool,
    /// The column.
    pub column: Name,
    /// None for DROP MASKED.
    pub mask: Option<ColumnMask>,
}

/// `CREATE TYPE`
#[derive(Clone, PartialEq, Debug)]
pub struct CreateType {
    /// Its name.
    pub name: QualifiedName,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// In order of appearance; names may repeat, which is an Invalid request.
    pub fields: Vec<FieldDefinition>,
}

/// `name type` in a user-defined type.
#[derive(Clone, PartialEq, Debug)]
pub struct FieldDefinition {
    /// Name of the field.
    pub name: Name,
    /// Type of the field.
    pub raw_type: RawType,
}

/// `ALTER TYPE`
#[derive(Clone, PartialEq, Debug)]
pub struct AlterType {
    /// Its name.
    pub name: QualifiedName,
    /// IF EXISTS
    pub if_exists: bool,
    /// What changes.
    pub change: AlterTypeChange,
}

/// What an [`AlterType`] changes.
#[derive(Clone, PartialEq, Debug)]
pub enum AlterTypeChange {
    /// ALTER field TYPE type: no longer supported, but still grammar.
    AlterFieldType {
        /// The field.
        field: Name,
        /// The type asked for.
        raw_type: RawType,
    },
    /// ADD field type
    AddField {
        /// IF NOT EXISTS
        if_not_exists: bool,
        /// The field.
        field: FieldDefinition,
    },
    /// RENAME
    RenameFields {
        /// IF EXISTS
        if_exists: bool,
        /// From, to; at least one.
        renames: Vec<(Name, Name)>,
    },
}

/// `CREATE [CUSTOM] INDEX`
#[derive(Clone, PartialEq, Debug)]
pub struct CreateIndex {
    /// CUSTOM
    pub custom: bool,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// Its name, or None for a generated one.
    pub name: Option<Name>,
    /// The indexed table.
    pub table: QualifiedName,
    /// What is indexed; maybe none, which only a custom index may mean.
    pub targets: Vec<IndexTarget>,
    /// USING 'class'
    pub using: Option<Box<str>>,
    /// WITH, maybe empty
    pub properties: Properties,
}

/// One indexed column.
#[derive(Clone, PartialEq, Debug)]
pub struct IndexTarget {
    /// The column.
    pub column: Name,
    /// Which part of it.
    pub kind: IndexTargetKind,
}

/// Which part of a column is indexed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IndexTargetKind {
    /// `a`
    Simple,
    /// `VALUES(a)`
    Values,
    /// `KEYS(a)`
    Keys,
    /// `ENTRIES(a)`
    Entries,
    /// `FULL(a)`
    Full,
}

/// `CREATE MATERIALIZED VIEW`
#[derive(Clone, PartialEq, Debug)]
pub struct CreateMaterializedView {
    /// Its name.
    pub name: QualifiedName,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// What it holds.
    pub selection: Selection,
    /// The base table.
    pub base_table: QualifiedName,
    /// WHERE, maybe empty.
    pub where_clause: WhereClause,
    /// PRIMARY KEY
    pub primary_key: PrimaryKey,
    /// WITH
    pub options: TableOptions,
}

/// `ALTER MATERIALIZED VIEW`
#[derive(Clone, PartialEq, Debug)]
pub struct AlterMaterializedView {
    /// Its name.
    pub name: QualifiedName,
    /// IF EXISTS
    pub if_exists: bool,
    /// At least one.
    pub properties: Properties,
}

/// `CREATE TRIGGER name ON table USING 'class'`
#[derive(Clone, PartialEq, Debug)]
pub struct CreateTrigger {
    /// Its name.
    pub name: Name,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// The table it watches.
    pub table: QualifiedName,
    /// The class.
    pub class: Box<str>,
}

/// `DROP TRIGGER name ON table`
#[derive(Clone, PartialEq, Debug)]
pub struct DropTrigger {
    /// Its name.
    pub name: Name,
    /// IF EXISTS
    pub if_exists: bool,
    /// The table it watches.
    pub table: QualifiedName,
}
