#![allow(clippy::unwrap_used)]

use ceto_cql::{SchemaChange, parse_and_prepare, parse_statement};
use ceto_model::Schema;
use uuid::Uuid;

use super::table::OFF;
use super::*;
use crate::system::definitions::system_schema;

/// The schema after a statement, and what the guardrails say of it.
fn change(guardrails: &Guardrails, schema: &Schema, text: &str) -> (Schema, Result<Warnings, String>) {
    let statement = parse_statement(text).unwrap().statement;
    let id = Uuid::from_u128(
        schema
            .keyspaces()
            .map(|keyspace| keyspace.tables.len() as u128)
            .sum(),
    );
    let change = SchemaChange::prepare(&statement, Some("ks"), id)
        .unwrap()
        .unwrap();
    let changed = change.apply(schema, 1).unwrap().unwrap();
    let mut warnings = Warnings::new();
    let outcome = guardrails.check_change(schema, &changed, &mut warnings);
    (
        changed,
        outcome.map(|()| warnings).map_err(|error| error.to_string()),
    )
}

fn start() -> Schema {
    let mut schema = system_schema();
    for text in [
        "CREATE KEYSPACE ks WITH replication = {'class': 'NetworkTopologyStrategy', 'dc': 1}",
        "CREATE TABLE t (k int PRIMARY KEY, v int)",
        "CREATE TYPE u (a int)",
    ] {
        let (changed, outcome) = change(&Guardrails::default(), &schema, text);
        assert_eq!(outcome, Ok(Vec::new()), "{text}");
        schema = changed;
    }
    schema
}

fn refused(guardrails: &Guardrails, text: &str) -> String {
    change(guardrails, &start(), text).1.unwrap_err()
}

fn allowed(guardrails: &Guardrails, text: &str) -> Warnings {
    change(guardrails, &start(), text).1.unwrap()
}

#[test]
fn an_intersection_of_columns_that_can_change_is_warned_of() {
    let mut schema = start();
    for text in [
        "CREATE TABLE wide (k int, c int, s int static, v int, w int, PRIMARY KEY (k, c))",
        "CREATE INDEX ON wide (v)",
    ] {
        schema = change(&Guardrails::default(), &schema, text).0;
    }
    let judged = |guardrails: &Guardrails, condition: &str, level| {
        let text = format!("SELECT * FROM wide WHERE {condition} ALLOW FILTERING");
        let features = parse_and_prepare(&text, &schema, Some("ks")).unwrap().features();
        let mut warnings = Warnings::new();
        let outcome = guardrails.check_intersection(features, level, "ks", &mut warnings);
        outcome
            .map(|()| warnings.len())
            .map_err(|error| error.to_string())
    };
    let (warned, quorum) = (Guardrails::default(), Consistency::Quorum);
    assert_eq!(judged(&warned, "v = 1 AND w = 2", quorum), Ok(1));
    assert_eq!(judged(&warned, "s = 1 AND w = 2", quorum), Ok(1));
    assert_eq!(judged(&warned, "v = 1 AND w = 2", Consistency::LocalOne), Ok(0));
    assert_eq!(judged(&warned, "w = 2", quorum), Ok(0));
    assert_eq!(judged(&warned, "v = 1", quorum), Ok(0));
    assert_eq!(judged(&warned, "c = 1 AND w = 2", quorum), Ok(0));
    let refused = Guardrails {
        intersect_filtering_query_enabled: false,
        ..Guardrails::default()
    };
    let error = judged(&refused, "v = 1 AND w = 2", quorum).unwrap_err();
    assert!(
        error.starts_with("Guardrail intersect_filtering_query violated: Filtering query with"),
        "{error}"
    );
    assert!(
        error.contains("is not allowed. Filtering queries involving an intersection"),
        "{error}"
    );
    let silent = Guardrails {
        intersect_filtering_query_warned: false,
        ..Guardrails::default()
    };
    assert_eq!(judged(&silent, "v = 1 AND w = 2", quorum), Ok(0));
}

#[test]
fn sstables_are_loaded_only_where_that_is_allowed() {
    assert!(Guardrails::default().check_bulk_load().is_ok());
    let refused = Guardrails {
        bulk_load_enabled: false,
        ..Guardrails::default()
    };
    let error = refused.check_bulk_load().unwrap_err().to_string();
    assert!(
        error.starts_with("Guardrail bulk_load_enabled violated: Bulk loading of SSTables is not allowed.")
    );
}

#[test]
fn thresholds_warn_and_fail() {
    let one_two = Threshold { warn: 1, fail: 2 };
    let guardrails = Guardrails {
        columns_per_table: Threshold { warn: 2, fail: 3 },
        tables: one_two,
        fields_per_udt: one_two,
        keyspaces: one_two,
        ..Guardrails::default()
    };
    assert_eq!(
        allowed(&guardrails, "ALTER TABLE t ADD w int"),
        [
            "Guardrail columns_per_table violated: The table t has 3 columns, this exceeds the warning threshold of 2."
        ]
    );
    assert_eq!(
        refused(&guardrails, "ALTER TABLE t ADD (w int, x int)"),
        "Guardrail columns_per_table violated: Tables cannot have more than 3 columns, but 4 provided for table t"
    );
    assert_eq!(
        allowed(&guardrails, "CREATE TABLE s (k int PRIMARY KEY)"),
        [
            "Guardrail tables violated: Creating table s, current number of tables 2 exceeds warning threshold of 1."
        ]
    );
    assert_eq!(allowed(&guardrails, "ALTER TYPE u ADD b int").len(), 1);
    assert_eq!(
        refused(&guardrails, "CREATE TYPE w (a int, b int, c int)"),
        "Guardrail fields_per_udt violated: User types cannot have more than 2 columns, but 3 provided for user type w"
    );
    let second =
        "CREATE KEYSPACE second WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}";
    assert_eq!(allowed(&guardrails, second).len(), 1);
    assert!(allowed(&guardrails, "ALTER TABLE t WITH comment = 'x'").is_empty());
}

#[test]
fn replication_factors_have_a_minimum_and_a_maximum() {
    let guardrails = Guardrails {
        minimum_replication_factor: Threshold { warn: 3, fail: 2 },
        maximum_replication_factor: Threshold { warn: 4, fail: 5 },
        ..Guardrails::default()
    };
    let create = |factor: &str| {
        format!(
            "CREATE KEYSPACE n WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': {factor}}}"
        )
    };
    assert!(refused(&guardrails, &create("1")).ends_with("below the failure threshold of 2."));
    assert_eq!(
        allowed(&guardrails, &create("2")),
        [
            "Guardrail minimum_replication_factor violated: The keyspace n has a replication factor of 2, below the warning \
          threshold of 3."
        ]
    );
    assert!(allowed(&guardrails, &create("3")).is_empty());
    assert!(refused(&guardrails, &create("6")).ends_with("above the failure threshold of 5."));
}

#[test]
fn features_can_be_forbidden() {
    let none = Guardrails {
        alter_table_enabled: false,
        compact_tables_enabled: false,
        drop_keyspace_enabled: false,
        drop_truncate_table_enabled: false,
        simplestrategy_enabled: false,
        uncompressed_tables_enabled: false,
        ..Guardrails::default()
    };
    let cases = [
        ("ALTER TABLE t ADD w int", "alter_table"),
        ("ALTER TABLE t RENAME k TO l", "alter_table"),
        (
            "CREATE TABLE c (k int PRIMARY KEY, v int) WITH COMPACT STORAGE",
            "compact_tables",
        ),
        ("DROP KEYSPACE ks", "drop_keyspace_enabled"),
        ("DROP TABLE t", "drop_truncate_table_enabled"),
        (
            "ALTER KEYSPACE ks WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
            "simplestrategy",
        ),
        (
            "CREATE TABLE c (k int PRIMARY KEY) WITH compression = {'enabled': false}",
            "uncompressed_tables_enabled",
        ),
        (
            "ALTER TABLE t WITH compression = {'enabled': false}",
            "uncompressed_tables_enabled",
        ),
    ];
    for (text, guardrail) in cases {
        let error = refused(&none, text);
        assert!(
            error.starts_with(&format!("Guardrail {guardrail} violated: ")),
            "{text}: {error}"
        );
        assert!(error.ends_with(" is not allowed"), "{text}: {error}");
        assert!(allowed(&Guardrails::default(), text).is_empty(), "{text}");
    }
    for text in [
        "ALTER TABLE t WITH comment = 'x'",
        "CREATE TABLE c (k int PRIMARY KEY)",
        "DROP TYPE u",
    ] {
        assert!(allowed(&none, text).is_empty(), "{text}");
    }
}

#[test]
fn statements_are_judged_by_what_they_use() {
    let none = Guardrails {
        allow_filtering_enabled: false,
        group_by_enabled: false,
        read_before_write_list_operations_enabled: false,
        user_timestamps_enabled: false,
        ..Guardrails::default()
    };
    let (schema, _) = change(
        &none,
        &start(),
        "CREATE TABLE l (k int, c int, l list<int>, PRIMARY KEY (k, c))",
    );
    let check = |text: &str| {
        let features = parse_and_prepare(text, &schema, Some("ks")).unwrap().features();
        assert_eq!(Guardrails::default().check_statement(features, "ks"), Ok(()));
        assert_eq!(none.check_statement(features, "system"), Ok(()));
        none.check_statement(features, "ks")
            .map_err(|error| error.to_string())
    };
    for (text, guardrail) in [
        ("SELECT * FROM l WHERE c = 1 ALLOW FILTERING", "allow_filtering"),
        ("SELECT k FROM l GROUP BY k", "group_by"),
        (
            "INSERT INTO l (k, c) VALUES (1, 1) USING TIMESTAMP 1",
            "user_timestamps",
        ),
        (
            "BEGIN BATCH INSERT INTO t (k) VALUES (1); UPDATE l USING TIMESTAMP 1 SET l = [] WHERE k = 1 AND c = 1; \
             APPLY BATCH",
            "user_timestamps",
        ),
        (
            "UPDATE l SET l[0] = 1 WHERE k = 1 AND c = 1",
            "read_before_write_list_operations",
        ),
        (
            "UPDATE l SET l = l - [1] WHERE k = 1 AND c = 1",
            "read_before_write_list_operations",
        ),
    ] {
        let error = check(text).unwrap_err();
        assert!(
            error.starts_with(&format!("Guardrail {guardrail} violated: ")),
            "{text}: {error}"
        );
    }
    for text in [
        "SELECT * FROM l",
        "UPDATE l SET l = l + [1] WHERE k = 1 AND c = 1",
        "TRUNCATE l",
    ] {
        assert_eq!(check(text), Ok(()), "{text}");
    }
}

#[test]
fn pages_and_partitions_are_bounded() {
    let guardrails = Guardrails {
        page_size: Threshold { warn: 10, fail: 20 },
        partition_keys_in_select: Threshold { warn: -1, fail: 2 },
        ..Guardrails::default()
    };
    let schema = start();
    let table = schema.table("ks", "t").unwrap();
    let mut warnings = Warnings::new();
    assert_eq!(guardrails.check_page_size(table, 10, &mut warnings), Ok(()));
    assert!(warnings.is_empty());
    assert_eq!(guardrails.check_page_size(table, 11, &mut warnings), Ok(()));
    assert_eq!(
        warnings,
        [
            "Guardrail page_size violated: Query for table t with page size 11 exceeds warning threshold of 10."
        ]
    );
    assert!(guardrails.check_page_size(table, 21, &mut warnings).is_err());
    assert_eq!(guardrails.check_partition_keys(table, 2, &mut warnings), Ok(()));
    assert!(guardrails.check_partition_keys(table, 3, &mut warnings).is_err());
    let system = schema.table("system", "local").unwrap();
    assert_eq!(guardrails.check_page_size(system, 100, &mut warnings), Ok(()));
}

#[test]
fn vectors_indexes_and_time_windows_have_their_guardrails() {
    let guardrails = Guardrails {
        vector_dimensions: Threshold { warn: 2, fail: 4 },
        secondary_indexes_per_table: Threshold { warn: OFF, fail: 1 },
        ..Guardrails::default()
    };
    assert_eq!(
        refused(
            &guardrails,
            "CREATE TABLE e (k int PRIMARY KEY, v vector<float, 5>)"
        ),
        "Guardrail vector_dimensions violated: v has a vector of 5 dimensions, this exceeds the failure threshold of 4."
    );
    assert_eq!(
        allowed(&guardrails, "ALTER TABLE t ADD w vector<float, 3>").len(),
        1
    );
    let (with_one, outcome) = change(&guardrails, &start(), "CREATE INDEX i ON t (v)");
    assert_eq!(outcome, Ok(Vec::new()));
    let (with_column, _) = change(&guardrails, &with_one, "ALTER TABLE t ADD w int");
    assert_eq!(
        change(&guardrails, &with_column, "CREATE INDEX j ON t (w)").1,
        Err(
            "Guardrail secondary_indexes_per_table violated: Tables cannot have more than 1 secondary indexes, aborting the \
             creation of secondary index j on table t"
                .to_owned()
        )
    );
    let windows =
        "CREATE TABLE w (k int PRIMARY KEY) WITH compaction = {'class': 'TimeWindowCompactionStrategy'}";
    let warnings = allowed(&guardrails, windows);
    assert!(warnings[0].starts_with(
        "Guardrail zero_ttl_on_twcs violated: 0 default_time_to_live on a table with TimeWindowCompactionStrategy compaction \
         strategy is not recommended. It is suspicious"
    ));
    assert!(allowed(&guardrails, &format!("{windows} AND default_time_to_live = 60")).is_empty());
    let none = Guardrails {
        vector_type_enabled: false,
        secondary_indexes_enabled: false,
        zero_ttl_on_twcs_enabled: false,
        ..Guardrails::default()
    };
    assert_eq!(
        refused(&none, "ALTER TABLE t ADD w vector<float, 3>"),
        "Guardrail vector_type violated: Vector type is not allowed"
    );
    assert_eq!(
        refused(&none, "CREATE INDEX ON t (v)"),
        "Guardrail secondary_indexes violated: Creating secondary indexes is not allowed"
    );
    assert!(refused(&none, windows).contains("compaction strategy is not allowed. It is"));
}

#[test]
fn names_are_refused_or_warned_of() {
    let guardrails = Guardrails {
        read_consistency_levels_disallowed: vec!["ALL".to_owned()],
        read_consistency_levels_warned: vec!["ONE".to_owned(), "TWO".to_owned()],
        table_properties_disallowed: vec!["cdc".to_owned()],
        table_properties_ignored: vec!["comment".to_owned()],
        ..Guardrails::default()
    };
    let mut warnings = Warnings::new();
    let mut check = |level, keyspace| {
        let outcome = guardrails.check_consistency(true, level, keyspace, &mut warnings);
        outcome.map_err(|error| error.to_string())
    };
    assert_eq!(
        check(Consistency::All, "ks"),
        Err(
            "Guardrail read_consistency_levels violated: Provided values [ALL] are not allowed for read consistency levels \
             (disallowed values are: [ALL])"
                .to_owned()
        )
    );
    assert_eq!(check(Consistency::All, "system"), Ok(()));
    assert_eq!(check(Consistency::One, "ks"), Ok(()));
    assert_eq!(
        warnings,
        [
            "Guardrail read_consistency_levels violated: Provided values [ONE] are not recommended for read consistency levels \
             (warned values are: [ONE, TWO])"
        ]
    );
    let mut warnings = Warnings::new();
    let refusal = guardrails.check_table_properties(&["cdc", "comment"], &mut warnings);
    assert!(
        refusal
            .unwrap_err()
            .to_string()
            .contains("Provided values [cdc] are not allowed")
    );
    guardrails
        .check_table_properties(&["comment"], &mut warnings)
        .unwrap();
    assert!(
        warnings[0]
            .contains("Ignoring provided values [comment] as they are not supported for Table Properties")
    );
}
