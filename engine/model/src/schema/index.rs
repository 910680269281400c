//! What a secondary index is defined to be.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::TableId;
use crate::types::CqlType;

/// Name of the option that says what is indexed.
pub const TARGET: &str = "target";
/// Name of the option that says which class of index it is.
pub const CLASS_NAME: &str = "class_name";

/// Name of the option that says how vectors are compared.
pub const SIMILARITY_FUNCTION: &str = "similarity_function";

/// How alike two vectors are: between 0 and 1 as in Cassandra (a dot product of vectors that are not of length one may lie
/// outside).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Similarity {
    /// By the angle between them.
    #[default]
    Cosine,
    /// By the dot product.
    DotProduct,
    /// By the distance.
    Euclidean,
}

impl Similarity {
    /// Every one, by name.
    pub const ALL: [(&'static str, Similarity); 3] = [
        ("COSINE", Self::Cosine),
        ("DOT_PRODUCT", Self::DotProduct),
        ("EUCLIDEAN", Self::Euclidean),
    ];

    /// By its name, in any case of letters.
    pub fn parse(name: &str) -> Option<Similarity> {
        let found = Self::ALL
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name.trim()));
        found.map(|(_, similarity)| *similarity)
    }

    /// Of two vectors of the same length; None for the angle to a vector of length zero.
    pub fn of(self, left: &[f32], right: &[f32]) -> Option<f32> {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        Some(match self {
            Self::Euclidean => {
                let squares: f32 = left.iter().zip(right).map(|(a, b)| (a - b) * (a - b)).sum();
                1.0 / (1.0 + squares)
            }
            Self::DotProduct => (1.0 + dot(left, right)) / 2.0,
            Self::Cosine => {
                let norms = (dot(left, left) * dot(right, right)).sqrt();
                if norms == 0.0 {
                    return None;
                }
                (1.0 + dot(left, right) / norms) / 2.0
            }
        })
    }
}

/// The numbers of a `vector<float, n>` as it stands on the wire; None when it is not of so many floats.
pub fn floats(wire: &[u8], dimension: usize) -> Option<Vec<f32>> {
    let (numbers, rest) = wire.as_chunks::<4>();
    let is_whole = rest.is_empty() && numbers.len() == dimension;
    is_whole.then(|| numbers.iter().map(|bytes| f32::from_be_bytes(*bytes)).collect())
}

/// `CREATE INDEX`, as stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexDefinition {
    /// Name as stored (not quoted); one of its keyspace.
    pub name: Arc<str>,
    /// Identity of the hidden table that holds the entries: an index made again is another one.
    pub id: TableId,
    /// The indexed column.
    pub column: Arc<str>,
    /// What of it.
    pub target: IndexTarget,
    /// As in `system_schema.indexes`, with `target`, and for a custom index `class_name`.
    pub options: BTreeMap<String, String>,
}

/// Which part of a column is indexed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IndexTarget {
    /// The value.
    Simple,
    /// The elements of a collection; of a map its values.
    Values,
    /// The keys of a map.
    Keys,
    /// The entries of a map.
    Entries,
    /// A frozen collection as a whole.
    Full,
}

impl IndexTarget {
    /// As in `values(column)`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Values => "values",
            Self::Keys => "keys",
            Self::Entries => "entries",
            Self::Full => "full",
        }
    }

    /// Taken apart from the text of the option `target`: the part and the column.
    pub fn parse(text: &str) -> (IndexTarget, Arc<str>) {
        let kinds = [Self::Values, Self::Keys, Self::Entries, Self::Full];
        for kind in kinds {
            let inner = text.strip_prefix(kind.name());
            let inner = inner.and_then(|rest| rest.strip_prefix('(')?.strip_suffix(')'));
            if let Some(inner) = inner {
                return (kind, unquoted(inner));
            }
        }
        (Self::Simple, unquoted(text))
    }
}

fn unquoted(text: &str) -> Arc<str> {
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner {
        Some(inner) => inner.replace("\"\"", "\"").into(),
        None => text.into(),
    }
}

impl IndexDefinition {
    /// As in `system_schema.indexes.kind`.
    pub fn kind(&self) -> &'static str {
        if self.is_custom() { "CUSTOM" } else { "COMPOSITES" }
    }

    /// `CREATE CUSTOM INDEX`, or any with `USING`.
    pub fn is_custom(&self) -> bool {
        self.options.contains_key(CLASS_NAME)
    }

    /// Storage-attached: several of them answer a query together, and numbers are found by ranges.
    pub fn is_storage_attached(&self) -> bool {
        self.options
            .get(CLASS_NAME)
            .is_some_and(|class| is_storage_attached(class))
    }

    fn flag(&self, name: &str, default: bool) -> bool {
        let written = self.options.get(name).map(|value| value.trim());
        written.map_or(default, |value| value.eq_ignore_ascii_case("true"))
    }

    /// `case_sensitive`
    pub fn is_case_sensitive(&self) -> bool {
        self.flag("case_sensitive", true)
    }

    /// Text is not compared as it is.
    pub fn is_analyzed(&self) -> bool {
        !self.is_case_sensitive() || self.flag("normalize", false) || self.flag("ascii", false)
    }

    /// `similarity_function` of an index of vectors; None when it is none that there is.
    pub fn similarity(&self) -> Option<Similarity> {
        match self.options.get(SIMILARITY_FUNCTION) {
            None => Some(Similarity::Cosine),
            Some(name) => Similarity::parse(name),
        }
    }

    /// A value in the form in which it is compared.
    pub fn analyzed<'v>(&self, cql_type: &CqlType, value: &'v [u8]) -> Cow<'v, [u8]> {
        if !self.is_analyzed() || !matches!(cql_type, CqlType::Text | CqlType::Ascii) {
            return Cow::Borrowed(value);
        }
        let Ok(text) = std::str::from_utf8(value) else {
            return Cow::Borrowed(value);
        };
        let mut text = Cow::Borrowed(text);
        if !self.is_case_sensitive() {
            text = Cow::Owned(text.to_lowercase());
        }
        if self.flag("normalize", false) {
            text = Cow::Owned(crate::value::analysis::normalized(&text));
        }
        if self.flag("ascii", false) {
            text = Cow::Owned(crate::value::analysis::folded(&text));
        }
        Cow::Owned(text.into_owned().into_bytes())
    }
}

/// The class of a storage-attached index, by any of its names.
pub fn is_storage_attached(class: &str) -> bool {
    class.eq_ignore_ascii_case("sai")
        || class.eq_ignore_ascii_case("StorageAttachedIndex")
        || class == "org.apache.cassandra.index.sai.StorageAttachedIndex"
}
