//! Scripts with their answers: each file in `golden` is run, and what it answers must be what stands in it.
//! `UPDATE_EXPECT=1` writes the answers anew.

#![allow(clippy::unwrap_used)]

mod support;

use expect_test::expect_file;

macro_rules! golden {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let script = include_str!(concat!("golden/", stringify!($name), ".cql"));
                expect_file![concat!("golden/", stringify!($name), ".cql")].assert_eq(&support::run_script(script));
            }
        )*
    };
}

golden! {
    batch
    bind
    collections
    compact
    conditions
    counters
    errors
    explain
    filtering
    functions
    group
    indexes
    json
    keys
    order
    paging
    slices
    statics
    time
    user_functions
    vector
    types
}

#[test]
fn variables_of_the_partition_key_are_found_whatever_their_names() {
    let mut database = support::Database::new();
    database
        .run("CREATE TABLE t (a int, b int, c int, PRIMARY KEY ((a, b), c))")
        .unwrap();
    let indices = |text: &str| database.prepare(text).unwrap().partition_key_indices().to_vec();
    assert_eq!(
        indices("SELECT * FROM t WHERE b = :x AND c = :a AND a = :y"),
        [2, 0]
    );
    assert_eq!(indices("INSERT INTO t (c, b, a) VALUES (:a, ?, :b)"), [2, 1]);
    assert!(indices("SELECT * FROM t WHERE a = :a AND b = 1").is_empty());
}
