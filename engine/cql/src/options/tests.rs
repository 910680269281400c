#![allow(clippy::unwrap_used)]

use super::*;
use crate::ast::{AlterTableChange, Properties, Statement};
use crate::parse_statement;
use ceto_model::schema::TableOptions;

pub(crate) fn properties(text: &str) -> Properties {
    match parse_statement(&format!("ALTER TABLE t WITH {text}"))
        .unwrap()
        .statement
    {
        Statement::AlterTable(alter) => match alter.change {
            AlterTableChange::Properties(properties) => properties,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_properties_are_the_defaults() {
    assert_eq!(
        new_table_options(&Properties::default()).unwrap(),
        TableOptions::default()
    );
}

/// What is stored is accepted again, and as it is: defaults of the model included.
#[test]
fn stored_maps_are_canonical() {
    let map = |map: &std::collections::BTreeMap<String, String>| {
        let entries: Vec<String> = map
            .iter()
            .map(|(name, value)| format!("'{name}': '{value}'"))
            .collect();
        format!("{{{}}}", entries.join(", "))
    };
    for text in [
        "gc_grace_seconds = 1",
        "compaction = {'class': 'LeveledCompactionStrategy', 'fanout_size': 4}",
        "compaction = {'class': 'UnifiedCompactionStrategy', 'overlap_inclusion_method': 'none'}",
        "compression = {'class': 'DeflateCompressor', 'min_compress_ratio': '1.5'}",
        "compression = {'class': 'ZstdDictionaryCompressor', 'training_max_dictionary_size': '64KiB'}",
        "compression = {}",
        "caching = {}",
    ] {
        let options = new_table_options(&properties(text)).unwrap();
        let again = format!(
            "compaction = {} AND compression = {} AND caching = {} AND speculative_retry = '{}'",
            map(&options.compaction),
            map(&options.compression),
            map(&options.caching),
            options.speculative_retry
        );
        assert_eq!(
            altered_table_options(&options, &properties(&again)).unwrap(),
            options
        );
    }
}

#[test]
fn numbers_print_as_java_prints_them() {
    for (value, text) in [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (0.01, "0.01"),
        (0.001, "0.001"),
        (0.000_999, "9.99E-4"),
        (6.71e-5, "6.71E-5"),
        (1e-4, "1.0E-4"),
        (9_999_999.0, "9999999.0"),
        (1e7, "1.0E7"),
        (-1.25e10, "-1.25E10"),
        (f64::NAN, "NaN"),
        (f64::NEG_INFINITY, "-Infinity"),
    ] {
        assert_eq!(format_double(value), text);
        let read = number::parse_double(text).unwrap();
        assert!(read == value || (read.is_nan() && value.is_nan()));
    }
    for text in ["", "-", "inf", "nan", "1_0", "0x1", "--1", "1e"] {
        assert_eq!(number::parse_double(text), None, "{text}");
    }
}

#[test]
fn policies_have_one_form() {
    for (text, canonical) in [
        ("99p", "99p"),
        ("99.0PERCENTILE", "99p"),
        ("99.99999p", "100p"),
        ("0.12345p", ".1235p"),
        ("10MS", "10ms"),
        ("10.9ms", "10ms"),
        ("always", "ALWAYS"),
        ("None", "NEVER"),
        ("max(5ms , 95.5p)", "MAX(95.5p,5ms)"),
    ] {
        match speculative_retry::canonical_policy(text) {
            Ok(found) => {
                assert_eq!(found, canonical, "{text}");
                assert_eq!(speculative_retry::canonical_policy(&found).unwrap(), found);
            }
            // rounds to what would be refused when it is read again
            Err(_) => assert_eq!(canonical, "100p", "{text}"),
        }
    }
    for text in [
        "",
        "p",
        "ms",
        ".p",
        "-1ms",
        "1 ms",
        "MIN(1ms,2p",
        "MIN(1ms,2p,3p)",
        "AVG(1ms,2p)",
        " 99p",
    ] {
        assert!(speculative_retry::canonical_policy(text).is_err(), "{text}");
    }
}

#[test]
fn sizes_of_dictionaries_have_units() {
    let with = |option: &str| {
        let text = format!("compression = {{'class': 'ZstdDictionaryCompressor', {option}}}");
        new_table_options(&properties(&text))
    };
    assert!(with("'training_max_total_sample_size': '10MiB'").is_ok());
    for wrong in ["'64'", "'KiB'", "'0KiB'", "'-1KiB'", "'64KB'"] {
        let error = with(&format!("'training_max_dictionary_size': {wrong}")).unwrap_err();
        assert!(
            format!("{error:?}").contains("training_max_dictionary_size"),
            "{error:?}"
        );
    }
    let text = "compression = {'class': 'ZstdCompressor', 'training_max_dictionary_size': '64KiB'}";
    assert!(new_table_options(&properties(text)).is_err());
}

#[test]
fn sizes_of_sstables_are_ones_that_can_be() {
    let with = |options: &str| new_table_options(&properties(&format!("compaction = {{{options}}}")));
    for fine in [
        "'class': 'LeveledCompactionStrategy', 'fanout_size': 12, 'sstable_size_in_mb': 1000",
        "'class': 'UnifiedCompactionStrategy', 'min_sstable_size': '724MiB'",
        "'class': 'UnifiedCompactionStrategy', 'min_sstable_size': '2GiB', 'target_sstable_size': '4GiB'",
    ] {
        assert!(with(fine).is_ok(), "{fine}");
    }
    for (wrong, problem) in [
        (
            "'class': 'LeveledCompactionStrategy', 'sstable_size_in_mb': 9999999999",
            "9999999999 is not a parsable int (base10) for sstable_size_in_mb",
        ),
        (
            "'class': 'LeveledCompactionStrategy', 'fanout_size': 1000000000",
            "your maxSSTableSize must be absurdly high",
        ),
        (
            "'class': 'UnifiedCompactionStrategy', 'min_sstable_size': '2GiB'",
            "min_sstable_size (2.000GiB) should be less than the target size minimum: 724.077MiB",
        ),
    ] {
        let error = with(wrong).unwrap_err();
        assert!(format!("{error:?}").contains(problem), "{error:?}");
    }
}
