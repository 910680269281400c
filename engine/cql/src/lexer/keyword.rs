//! The words of CQL.
//!
//! A keyword matches in any case. Whether it may also be a name is its [`KeywordClass`], exactly as in Cassandra's
//! grammar: an application that has a column named `role` must find it legal here too.

/// Where a keyword may stand for a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KeywordClass {
    /// Nowhere, unless quoted.
    Reserved,
    /// As any name.
    Basic,
    /// The name of a native type: as any name but a user-defined type's.
    NativeType,
    /// As a column, keyspace or table, but not as a function or user-defined type.
    Column,
}

macro_rules! keywords {
    ($($variant:ident $text:literal $class:ident,)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub(crate) enum Keyword { $($variant,)* }

        /// Every keyword with its lower-case text, sorted by text.
        const KEYWORDS: &[(&str, Keyword)] = &[$(($text, Keyword::$variant),)*];

        impl Keyword {
            pub(crate) fn class(self) -> KeywordClass {
                match self { $(Self::$variant => KeywordClass::$class,)* }
            }

            /// Lower-case text.
            pub(crate) fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

keywords! {
    Access "access" Basic,
    Add "add" Reserved,
    Aggregate "aggregate" Basic,
    Aggregates "aggregates" Basic,
    All "all" Basic,
    Allow "allow" Reserved,
    Alter "alter" Reserved,
    And "and" Reserved,
    Ann "ann" Basic,
    Apply "apply" Reserved,
    As "as" Basic,
    Asc "asc" Reserved,
    Ascii "ascii" NativeType,
    Authorize "authorize" Reserved,
    Batch "batch" Reserved,
    Begin "begin" Reserved,
    Between "between" Basic,
    Bigint "bigint" NativeType,
    Blob "blob" NativeType,
    Boolean "boolean" NativeType,
    By "by" Reserved,
    Called "called" Basic,
    Cast "cast" Column,
    Cidrs "cidrs" Basic,
    Cluster "cluster" Basic,
    Clustering "clustering" Basic,
    Compact "compact" Basic,
    Contains "contains" Basic,
    Count "count" Column,
    Counter "counter" NativeType,
    Create "create" Reserved,
    Custom "custom" Basic,
    Datacenters "datacenters" Basic,
    Date "date" NativeType,
    Decimal "decimal" NativeType,
    Default "default" Basic,
    Delete "delete" Reserved,
    Desc "desc" Reserved,
    Describe "describe" Reserved,
    Distinct "distinct" Column,
    Double "double" NativeType,
    Drop "drop" Reserved,
    Duration "duration" NativeType,
    Entries "entries" Reserved,
    Execute "execute" Reserved,
    Exists "exists" Basic,
    False "false" Reserved,
    Filtering "filtering" Basic,
    Finalfunc "finalfunc" Basic,
    Float "float" NativeType,
    From "from" Reserved,
    Frozen "frozen" Basic,
    Full "full" Reserved,
    Function "function" Basic,
    Functions "functions" Basic,
    Generated "generated" Basic,
    Grant "grant" Reserved,
    Group "group" Basic,
    Hashed "hashed" Basic,
    Identity "identity" Basic,
    If "if" Reserved,
    In "in" Reserved,
    Index "index" Reserved,
    Indexes "indexes" Basic,
    Inet "inet" NativeType,
    Infinity "infinity" Reserved,
    Initcond "initcond" Basic,
    Input "input" Basic,
    Insert "insert" Reserved,
    Int "int" NativeType,
    Internals "internals" Basic,
    Into "into" Reserved,
    Is "is" Reserved,
    Json "json" Column,
    Key "key" Column,
    Keys "keys" Basic,
    Keyspace "keyspace" Reserved,
    Keyspaces "keyspaces" Basic,
    Language "language" Basic,
    Like "like" Basic,
    Limit "limit" Reserved,
    List "list" Basic,
    Login "login" Basic,
    Map "map" Basic,
    Masked "masked" Basic,
    Materialized "materialized" Reserved,
    Maxwritetime "maxwritetime" Column,
    Mbean "mbean" Basic,
    Mbeans "mbeans" Basic,
    Modify "modify" Reserved,
    Nan "nan" Reserved,
    Nologin "nologin" Basic,
    Norecursive "norecursive" Reserved,
    Nosuperuser "nosuperuser" Basic,
    Not "not" Reserved,
    Null "null" Reserved,
    Of "of" Reserved,
    On "on" Reserved,
    Only "only" Basic,
    Options "options" Basic,
    Or "or" Reserved,
    Order "order" Reserved,
    Partition "partition" Basic,
    Password "password" Basic,
    Per "per" Basic,
    Permission "permission" Basic,
    Permissions "permissions" Basic,
    Primary "primary" Reserved,
    Rename "rename" Reserved,
    Replace "replace" Basic,
    Returns "returns" Basic,
    Revoke "revoke" Reserved,
    Role "role" Basic,
    Roles "roles" Basic,
    Schema "schema" Reserved,
    Select "select" Reserved,
    SelectMasked "select_masked" Basic,
    Set "set" Reserved,
    Sfunc "sfunc" Basic,
    Smallint "smallint" NativeType,
    Static "static" Basic,
    Storage "storage" Basic,
    Stype "stype" Basic,
    Superuser "superuser" Basic,
    Superusers "superusers" Basic,
    Table "table" Reserved,
    Tables "tables" Basic,
    Text "text" NativeType,
    Time "time" NativeType,
    Timestamp "timestamp" NativeType,
    Timeuuid "timeuuid" NativeType,
    Tinyint "tinyint" NativeType,
    To "to" Reserved,
    Token "token" Reserved,
    Trigger "trigger" Basic,
    True "true" Reserved,
    Truncate "truncate" Reserved,
    Ttl "ttl" Column,
    Tuple "tuple" Basic,
    Type "type" Basic,
    Types "types" Basic,
    Unlogged "unlogged" Reserved,
    Unmask "unmask" Basic,
    Unset "unset" Basic,
    Update "update" Reserved,
    Use "use" Reserved,
    User "user" Basic,
    Users "users" Basic,
    Using "using" Reserved,
    Uuid "uuid" NativeType,
    Values "values" Basic,
    Varchar "varchar" NativeType,
    Varint "varint" NativeType,
    Vector "vector" Basic,
    View "view" Reserved,
    Where "where" Reserved,
    With "with" Reserved,
    Writetime "writetime" Column,
}

/// For each letter, where the keywords that begin with it start in [`KEYWORDS`]; one more entry closes the last.
const FIRST_LETTER: [usize; 27] = {
    let mut starts = [KEYWORDS.len(); 27];
    let mut i = KEYWORDS.len();
    while i > 0 {
        i -= 1;
        starts[(KEYWORDS[i].0.as_bytes()[0] - b'a') as usize] = i;
    }
    let mut letter = 26;
    while letter > 0 {
        letter -= 1;
        if starts[letter] > starts[letter + 1] {
            starts[letter] = starts[letter + 1];
        }
    }
    starts
};

impl Keyword {
    /// The keyword that `word` spells, if any. `columnfamily` is an old spelling of `table`.
    pub(crate) fn of(word: &str) -> Option<Keyword> {
        let letter = word.as_bytes().first()?.to_ascii_lowercase();
        if !letter.is_ascii_lowercase() {
            return None;
        }
        let letter = usize::from(letter - b'a');
        KEYWORDS[FIRST_LETTER[letter]..FIRST_LETTER[letter + 1]]
            .iter()
            .find(|(text, _)| text.eq_ignore_ascii_case(word))
            .map(|&(_, keyword)| keyword)
            .or_else(|| match word.len() {
                12 if word.eq_ignore_ascii_case("columnfamily") => Some(Self::Table),
                14 if word.eq_ignore_ascii_case("columnfamilies") => Some(Self::Tables),
                _ => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_and_found() {
        assert!(KEYWORDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for &(text, keyword) in KEYWORDS {
            assert_eq!(Keyword::of(text), Some(keyword));
            assert_eq!(Keyword::of(&text.to_ascii_uppercase()), Some(keyword));
            assert_eq!(Keyword::of(&format!("{text}x")), None);
        }
        assert_eq!(Keyword::of("ColumnFamily"), Some(Keyword::Table));
        assert_eq!(Keyword::of(""), None);
        assert_eq!(Keyword::of("_"), None);
    }
}
