//! Tables and values as a test draws them: few different keys and values, so that statements meet each other.

use std::collections::{BTreeMap, BTreeSet};

/// Random numbers of a seed (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `count` - 1.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Type {
    Int,
    Bigint,
    Text,
    Boolean,
    FrozenList,
    List,
    Set,
    Map,
}

impl Type {
    pub(crate) fn cql(self) -> &'static str {
        match self {
            Type::Int => "int",
            Type::Bigint => "bigint",
            Type::Text => "text",
            Type::Boolean => "boolean",
            Type::FrozenList => "frozen<list<int>>",
            Type::List => "list<int>",
            Type::Set => "set<int>",
            Type::Map => "map<int, text>",
        }
    }

    /// Kept as cells under paths.
    pub(crate) fn is_multi_cell(self) -> bool {
        matches!(self, Type::List | Type::Set | Type::Map)
    }

    /// One of few values of the type, never null.
    pub(crate) fn value(self, dice: &mut Dice) -> Value {
        let number = |dice: &mut Dice| Value::Int(dice.below(5) as i32 - 2);
        match self {
            Type::Int => number(dice),
            Type::Bigint => Value::Bigint(*dice.pick(&[-1, 0, 1, 1 << 40])),
            Type::Text => Value::Text((*dice.pick(&["", "a", "aa", "b", "it's"])).to_owned()),
            Type::Boolean => Value::Boolean(dice.one_in(2)),
            Type::FrozenList | Type::List => Value::List((0..dice.below(4)).map(|_| number(dice)).collect()),
            Type::Set => Value::Set((0..dice.below(4)).map(|_| number(dice)).collect()),
            Type::Map => {
                let entries = (0..dice.below(4)).map(|_| (number(dice), Type::Text.value(dice)));
                Value::Map(entries.collect())
            }
        }
    }
}

/// The order of a type's values is that of the variant's content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Value {
    Int(i32),
    Bigint(i64),
    Text(String),
    Boolean(bool),
    List(Vec<Value>),
    Set(BTreeSet<Value>),
    Map(BTreeMap<Value, Value>),
}

impl Value {
    /// As a literal.
    pub(crate) fn cql(&self) -> String {
        let join = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(", ");
        match self {
            Value::Int(number) => number.to_string(),
            Value::Bigint(number) => number.to_string(),
            Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
            Value::Boolean(flag) => flag.to_string(),
            Value::List(items) => format!("[{}]", join(&mut items.iter().map(Value::cql))),
            Value::Set(items) => format!("{{{}}}", join(&mut items.iter().map(Value::cql))),
            Value::Map(entries) => {
                let mut texts = entries
                    .iter()
                    .map(|(key, value)| format!("{}: {}", key.cql(), value.cql()));
                format!("{{{}}}", join(&mut texts))
            }
        }
    }

    /// As the protocol has it.
    pub(crate) fn wire(&self) -> Vec<u8> {
        fn collection<'a>(count: usize, items: impl Iterator<Item = &'a Value>) -> Vec<u8> {
            let mut out = (count as i32).to_be_bytes().to_vec();
            for item in items.map(Value::wire) {
                out.extend((item.len() as i32).to_be_bytes());
                out.extend(item);
            }
            out
        }
        match self {
            Value::Int(number) => number.to_be_bytes().to_vec(),
            Value::Bigint(number) => number.to_be_bytes().to_vec(),
            Value::Text(text) => text.as_bytes().to_vec(),
            Value::Boolean(flag) => vec![u8::from(*flag)],
            Value::List(items) => collection(items.len(), items.iter()),
            Value::Set(items) => collection(items.len(), items.iter()),
            Value::Map(entries) => collection(
                entries.len(),
                entries.iter().flat_map(|(key, value)| [key, value]),
            ),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Partition,
    Clustering { descending: bool },
    Static,
    Regular,
}

#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) cql_type: Type,
    pub(crate) is_indexed: bool,
}

/// Partition key, clustering, static and regular columns, in this order.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) columns: Vec<Column>,
    /// The regular column by which the view `by_value` has the rows.
    pub(crate) viewed: Option<usize>,
    /// Statements may name timestamps that nobody would; then none is conditional, for those write above all that they read.
    pub(crate) has_extremes: bool,
}

impl Table {
    pub(crate) fn draw(dice: &mut Dice) -> Table {
        let mut columns: Vec<Column> = Vec::new();
        let mut add = |prefix: &str, kind: Kind, cql_type: Type| {
            let name = format!("{prefix}{}", columns.len());
            columns.push(Column {
                name,
                kind,
                cql_type,
                is_indexed: false,
            });
        };
        for _ in 0..1 + dice.below(2) {
            add(
                "k",
                Kind::Partition,
                *dice.pick(&[Type::Int, Type::Text, Type::Boolean]),
            );
        }
        let clustering = *dice.pick(&[0, 1, 1, 2, 2, 3]);
        for _ in 0..clustering {
            let types = [Type::Int, Type::Int, Type::Text, Type::Bigint, Type::FrozenList];
            let descending = dice.one_in(2);
            add("c", Kind::Clustering { descending }, *dice.pick(&types));
        }
        let scalars = [
            Type::Int,
            Type::Text,
            Type::Bigint,
            Type::Boolean,
            Type::FrozenList,
        ];
        let all = [&scalars[..], &[Type::List, Type::Set, Type::Map]].concat();
        if clustering > 0 {
            for _ in 0..dice.below(3) {
                add("s", Kind::Static, *dice.pick(&all));
            }
        }
        for _ in 0..1 + dice.below(4) {
            add("v", Kind::Regular, *dice.pick(&all));
        }
        let mut table = Table {
            columns,
            viewed: None,
            has_extremes: dice.one_in(4),
        };
        let scalars: Vec<usize> = table
            .of(|kind| kind == Kind::Regular)
            .filter(|column| !table.columns[*column].cql_type.is_multi_cell())
            .collect();
        if !scalars.is_empty() {
            table.viewed = dice.one_in(3).then(|| *dice.pick(&scalars));
            if dice.one_in(2) {
                let indexed = *dice.pick(&scalars);
                table.columns[indexed].is_indexed = true;
            }
        }
        table
    }

    /// The numbers of the columns of a kind.
    pub(crate) fn of(&self, is_wanted: impl Fn(Kind) -> bool) -> impl Iterator<Item = usize> {
        let wanted: Vec<usize> = (0..self.columns.len())
            .filter(|column| is_wanted(self.columns[*column].kind))
            .collect();
        wanted.into_iter()
    }

    pub(crate) fn partition_key(&self) -> impl Iterator<Item = usize> {
        self.of(|kind| kind == Kind::Partition)
    }

    pub(crate) fn clustering(&self) -> impl Iterator<Item = usize> {
        self.of(|kind| matches!(kind, Kind::Clustering { .. }))
    }

    pub(crate) fn name(&self, column: usize) -> &str {
        &self.columns[column].name
    }

    /// One of few keys.
    pub(crate) fn draw_key(&self, dice: &mut Dice) -> Vec<Value> {
        let columns = self.partition_key();
        columns.map(|column| self.draw_key_part(dice, column)).collect()
    }

    /// A key of one column may not be empty.
    pub(crate) fn draw_key_part(&self, dice: &mut Dice, column: usize) -> Value {
        loop {
            let value = self.columns[column].cql_type.value(dice);
            if self.partition_key().count() > 1 || !value.wire().is_empty() {
                return value;
            }
        }
    }

    pub(crate) fn draw_clustering(&self, dice: &mut Dice) -> Vec<Value> {
        let columns = self.clustering();
        columns
            .map(|column| self.columns[column].cql_type.value(dice))
            .collect()
    }

    /// The statements that create it and what belongs to it.
    pub(crate) fn statements(&self) -> Vec<String> {
        let names = |columns: &mut dyn Iterator<Item = usize>| {
            columns
                .map(|column| self.name(column).to_owned())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let definitions: Vec<String> = self
            .columns
            .iter()
            .map(|column| {
                let mark = if column.kind == Kind::Static {
                    " static"
                } else {
                    ""
                };
                format!("{} {}{mark}", column.name, column.cql_type.cql())
            })
            .collect();
        let (partition, clustering) = (names(&mut self.partition_key()), names(&mut self.clustering()));
        let mut order: Vec<String> = Vec::new();
        for column in &self.columns {
            if let Kind::Clustering { descending } = column.kind {
                order.push(format!(
                    "{} {}",
                    column.name,
                    if descending { "DESC" } else { "ASC" }
                ));
            }
        }
        let (clustering, order) = match order.is_empty() {
            true => (String::new(), String::new()),
            false => (
                format!(", {clustering}"),
                format!(" WITH CLUSTERING ORDER BY ({})", order.join(", ")),
            ),
        };
        let definitions = definitions.join(", ");
        let mut statements = vec![format!(
            "CREATE TABLE ks.t ({definitions}, PRIMARY KEY (({partition}){clustering})){order}"
        )];
        for column in self.columns.iter().filter(|column| column.is_indexed) {
            let target = match column.cql_type {
                Type::FrozenList => format!("full({})", column.name),
                _ => column.name.clone(),
            };
            statements.push(format!("CREATE INDEX ON ks.t ({target})"));
        }
        if let Some(viewed) = self.viewed {
            let keys: Vec<usize> = std::iter::once(viewed)
                .chain(self.partition_key())
                .chain(self.clustering())
                .collect();
            let tests: Vec<String> = keys
                .iter()
                .map(|column| format!("{} IS NOT NULL", self.name(*column)))
                .collect();
            let shown = self.of(|kind| kind != Kind::Static);
            statements.push(format!(
                "CREATE MATERIALIZED VIEW ks.by_value AS SELECT {} FROM ks.t WHERE {} PRIMARY KEY ({})",
                names(&mut shown.into_iter()),
                tests.join(" AND "),
                names(&mut keys.into_iter()),
            ));
        }
        statements
    }
}
