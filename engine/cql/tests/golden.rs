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
    conditions
    counters
    errors
    filtering
    functions
    group
    json
    keys
    order
    paging
    slices
    statics
    time
    types
}
