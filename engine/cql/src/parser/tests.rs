//! Golden tests: `golden/NAME.cql` holds statements separated by blank lines, `golden/NAME.ast` what becomes of each.
//! `UPDATE_EXPECT=1 cargo test -p ceto-cql` writes the latter anew.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::CqlError;
use expect_test::{ExpectFile, expect, expect_file};
use std::fmt::Write;

/// Longest line of a dump that is folded into one.
const FOLDED_LINE: usize = 100;

fn check_golden(statements: &str, expected: ExpectFile) {
    let mut dump = String::new();
    for statement in statements
        .split("\n\n")
        .map(str::trim)
        .filter(|statement| !statement.is_empty())
    {
        let result = match parse_statement(statement) {
            Ok(parsed) if parsed.bind_variables.is_empty() => fold(&format!("{:#?}", parsed.statement)),
            Ok(parsed) => {
                fold(&format!("{:#?}", parsed.statement)) + &format!("\nbinds {:?}", parsed.bind_variables)
            }
            Err(error) => format!("{error:?}"),
        };
        writeln!(dump, "> {}\n{result}\n", statement.replace('\n', "\n> ")).unwrap();
    }
    expected.assert_eq(&dump);
}

/// Joins every block of a pretty debug dump that fits on one line.
fn fold(dump: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in dump.lines() {
        lines.push(line.to_owned());
        let trimmed = line.trim_start();
        if !trimmed.starts_with([')', ']', '}']) {
            continue;
        }
        let indent = line.len() - trimmed.len();
        let open = lines[..lines.len() - 1]
            .iter()
            .rposition(|l| l.len() - l.trim_start().len() == indent)
            .unwrap();
        let inner: Vec<&str> = lines[open + 1..lines.len() - 1]
            .iter()
            .map(|l| l.trim())
            .collect();
        let is_flat = lines[open + 1..lines.len() - 1]
            .iter()
            .all(|l| l.len() - l.trim_start().len() == indent + 4);
        let braces = trimmed.starts_with('}');
        let space = if braces { " " } else { "" };
        let joined = format!(
            "{}{space}{}{space}{trimmed}",
            lines[open],
            inner.join(" ").trim_end_matches(',')
        );
        if is_flat && joined.len() <= FOLDED_LINE {
            lines.truncate(open);
            lines.push(joined);
        }
    }
    lines.join("\n")
}

macro_rules! golden {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check_golden(
                include_str!(concat!("golden/", stringify!($name), ".cql")),
                expect_file![concat!("golden/", stringify!($name), ".ast")],
            );
        })*
    };
}

golden!(select selectors terms relations modifications batches keyspaces tables types indexes views functions roles
    permissions describe service_levels errors);

fn error_of(text: &str) -> String {
    match parse_statement(text) {
        Err(CqlError::Syntax(message)) => message,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn positions_count_characters_and_lines() {
    expect!["line 1:0 no viable alternative at input 'SELEC' ([SELEC] *...)"]
        .assert_eq(&error_of("SELEC * FROM t"));
    expect!["line 1:7 no viable alternative at character 'é'"].assert_eq(&error_of("SELECT é FROM t"));
    expect!["line 3:5 mismatched input 'FORM' expecting K_FROM (SELECT 'é',   'é' [FORM] t)"]
        .assert_eq(&error_of("SELECT 'é',\n\n 'é' FORM t"));
}

#[test]
fn nesting_is_bounded() {
    let nested =
        |open: &str, close: &str, levels: usize| format!("{}1{}", open.repeat(levels), close.repeat(levels));
    for (open, close) in [
        ("[", "]"),
        ("(", ")"),
        ("{", "}"),
        ("f(", ")"),
        ("{1:", "}"),
        ("(int)", ""),
        ("[-(1+", ")]"),
    ] {
        for levels in [101, 10_000, 100_000] {
            let term = nested(open, close, levels);
            for statement in [
                format!("SELECT {term} FROM t"),
                format!("INSERT INTO t (a) VALUES ({term})"),
                format!("UPDATE t SET a = {term} WHERE k = 0"),
            ] {
                assert!(
                    error_of(&statement).contains("nested deeper than 100 levels"),
                    "{open}"
                );
            }
        }
    }
    parse_statement(&format!("INSERT INTO t (a) VALUES ({})", nested("[", "]", 98))).unwrap();
    parse_statement(&format!("SELECT {} FROM t", nested("(", ")", 98))).unwrap();
    let relation = |levels| {
        format!(
            "SELECT * FROM t WHERE {}k = 1{}",
            "(".repeat(levels),
            ")".repeat(levels)
        )
    };
    parse_statement(&relation(99)).unwrap();
    assert!(error_of(&relation(200_000)).contains("nested deeper than 100 levels"));
    let deep_type = |levels| {
        format!(
            "CREATE TABLE t (k {}int{})",
            "list<".repeat(levels),
            ">".repeat(levels)
        )
    };
    parse_statement(&deep_type(99)).unwrap();
    assert!(error_of(&deep_type(200_000)).contains("nested deeper than 100 levels"));
    assert!(error_of(&format!("SELECT {}a FROM t", "- ".repeat(200_000))).contains("nested deeper"));
}

#[test]
fn chains_are_bounded() {
    for statement in [
        format!("SELECT {}1 FROM t", "1 + ".repeat(300_000)),
        format!("SELECT a{} FROM t", ".a".repeat(300_000)),
        format!("SELECT a{} FROM t", "[1]".repeat(300_000)),
        format!("SELECT * FROM t WHERE a = {}1", "1 * ".repeat(300_000)),
    ] {
        assert!(error_of(&statement).contains("more than 250 operators in one expression"));
    }
    // the bound is for one expression, not for a statement
    let sums = vec!["1 + 1 + 1 + 1"; 1000].join(", ");
    parse_statement(&format!("SELECT {sums} FROM t")).unwrap();
}

#[test]
fn markers_and_length_are_bounded() {
    let markers = |count| format!("SELECT * FROM t WHERE a IN ({})", vec!["?"; count].join(","));
    parse_statement(&markers(MAX_BIND_MARKERS)).unwrap();
    assert_eq!(
        parse_statement(&markers(MAX_BIND_MARKERS + 1)),
        Err(CqlError::invalid(
            "Too many markers(?). 65536 markers exceed the allowed maximum of 65535"
        ))
    );
    let one_too_many = "(".repeat(crate::lexer::MAX_TOKENS + 1);
    assert!(error_of(&one_too_many).contains("more than the maximum of 1048576 tokens"));
    let long = " ".repeat(MAX_STATEMENT_BYTES + 1);
    assert!(error_of(&long).contains("is longer than the maximum of 67108864 bytes"));
}

#[test]
fn parts_of_statements() {
    assert_eq!(
        parse_type("frozen<map<text, \"Ks\".\"T\">>").unwrap().to_string(),
        "frozen<map<text, \"Ks\".\"T\">>"
    );
    for term in [
        "{'a''b': (1, -1.5)}",
        "\"F\"(ks.\"select\"(1), token(2))",
        "{a: 1, \"B\": - f()}",
        "(int) 1 + CAST(2 AS text)",
    ] {
        assert_eq!(parse_term(term).unwrap().to_string(), term);
    }
    let text = "a IS NOT NULL AND \"B\" > 1 AND (c, d) IN ((1, 2)) AND token(e) <= token(1) AND f[0] = 'x'";
    let clause = parse_where_clause(text).unwrap();
    assert_eq!(clause.to_string(), text);
    assert_eq!(parse_where_clause(&clause.to_string()).unwrap(), clause);
    assert!(parse_type("int int").is_err());
    assert!(parse_term("?").is_err());
}

mod arbitrary {
    use super::*;
    use proptest::prelude::*;

    /// Pieces that get further into the grammar than random characters do.
    const WORDS: &str = "SELECT|INSERT INTO|UPDATE|DELETE|FROM|WHERE|SET|VALUES|AND|IF|EXISTS|NOT|NULL|IN|CONTAINS|KEY|\
        TOKEN|CREATE|ALTER|DROP|TABLE|TYPE|KEYSPACE|INDEX|ON|USING|TIMESTAMP|TTL|WITH|PRIMARY KEY|CLUSTERING ORDER BY|\
        FUNCTION|AGGREGATE|ROLE|USER|GRANT|REVOKE|LIST|ALL|PERMISSIONS|DESCRIBE|BEGIN BATCH|APPLY BATCH|JSON|DISTINCT|\
        CAST|AS|int|list<|frozen<|map<|>|[(]|[)]|\\[|\\]|\\{|\\}|,|\\.|\\.\\.|;|:|[?]|=|<|>=|[+]|-|[*]|/|1|-1|1\\.5|'a'|\
        \\$\\$b\\$\\$|\"Q\"|\"\"|a|b|1h|0xff|true|NaN|SERVICE LEVEL|MATERIALIZED VIEW|@|'|\"";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// No text makes the parser panic; what it accepts, it accepts again.
        #[test]
        fn never_panics(text in "(?s).{0,80}") {
            let _ = parse_statement(&text);
        }

        #[test]
        fn never_panics_on_words(words in proptest::collection::vec(WORDS, 0..30)) {
            let text = words.join(" ");
            let first = parse_statement(&text);
            prop_assert_eq!(&first, &parse_statement(&text));
            if let Err(error) = first {
                prop_assert!(!error.to_string().is_empty());
            }
        }

        /// Cutting a statement short or tearing a piece out gives an error or a tree, never a panic.
        #[test]
        fn never_panics_on_torn_statements(which in 0usize..200, from in 0usize..400, length in 0usize..40) {
            let statements: Vec<&str> = GOLDEN_STATEMENTS.iter().flat_map(|file| file.split("\n\n")).collect();
            let statement = statements[which % statements.len()];
            let characters: Vec<char> = statement.chars().collect();
            let from = from.min(characters.len());
            let to = (from + length).min(characters.len());
            let torn: String = characters[..from].iter().chain(&characters[to..]).collect();
            let _ = parse_statement(&torn);
        }

        /// A term prints as text that parses to the same term.
        #[test]
        fn terms_print_as_they_parse(words in proptest::collection::vec(WORDS, 1..8)) {
            if let Ok(term) = parse_term(&words.join(" ")) {
                prop_assert_eq!(parse_term(&term.to_string()).unwrap(), term);
            }
        }
    }

    const GOLDEN_STATEMENTS: [&str; 5] = [
        include_str!("golden/select.cql"),
        include_str!("golden/modifications.cql"),
        include_str!("golden/tables.cql"),
        include_str!("golden/roles.cql"),
        include_str!("golden/functions.cql"),
    ];
}
