//! `manifest.json` of a snapshot: Cassandra's keys, and what a restore elsewhere may want to know besides.
//!
//! ```text
//! { "files": [Data file...], "created_at": "2026-01-31T12:00:00.000Z", "expires_at": null or likewise,
//!   "ephemeral": false, "table_id": uuid, "shards": 2,
//!   "token_ranges": [{"start": "-9", "end": "9"}...], "schema_checksum": xxh3 in hex of schema.cql,
//!   "checksum": xxh3 in hex of the others, as JSON without spaces }
//! ```
//!
//! A damaged one counts for nothing: above all no snapshot expires by it.

use ceto_model::Table;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::SnapshotNote;

/// Name of the file.
pub(crate) const MANIFEST: &str = "manifest.json";

/// Content of the file. Unknown keys are passed over, missing ones are empty: Cassandra's manifests can be read.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Manifest {
    files: Vec<String>,
    created_at: Option<String>,
    expires_at: Option<String>,
    ephemeral: bool,
    table_id: Option<String>,
    shards: u16,
    token_ranges: Vec<TokenRange>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_checksum: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct TokenRange {
    start: String,
    end: String,
}

impl Manifest {
    pub(super) fn new(mut files: Vec<String>, note: &SnapshotNote, table: &Table, shards: u16) -> Manifest {
        files.sort();
        let range = |(start, end): &(i64, i64)| TokenRange {
            start: start.to_string(),
            end: end.to_string(),
        };
        let mut manifest = Manifest {
            files,
            created_at: Some(instant_text(note.created_at)),
            expires_at: note.expires_at.map(instant_text),
            ephemeral: false,
            table_id: Some(table.id.0.to_string()),
            shards,
            token_ranges: note.token_ranges.iter().map(range).collect(),
            schema_checksum: Some(sum_of(note.schema.as_bytes())),
            checksum: None,
        };
        manifest.checksum = Some(manifest.sum());
        manifest
    }

    fn sum(&self) -> String {
        let others = Manifest {
            checksum: None,
            ..self.clone()
        };
        let text = serde_json::to_string(&others).expect("a manifest is plain data");
        sum_of(text.as_bytes())
    }

    /// Whether this is the schema that was noted; true of every one where none was.
    pub(super) fn is_schema(&self, schema: &[u8]) -> bool {
        self.schema_checksum
            .as_ref()
            .is_none_or(|noted| *noted == sum_of(schema))
    }

    /// Its text.
    pub(super) fn encode(&self) -> String {
        serde_json::to_string_pretty(self).expect("a manifest is plain data")
    }

    /// None when the bytes are no manifest, or a damaged one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Manifest> {
        let manifest: Manifest = serde_json::from_slice(bytes).ok()?;
        // Cassandra's have neither table id nor checksum; one that has either has to have both.
        let is_foreign = manifest.table_id.is_none() && manifest.checksum.is_none();
        (is_foreign || manifest.checksum == Some(manifest.sum())).then_some(manifest)
    }

    pub(super) fn created_at(&self) -> Option<i64> {
        self.created_at.as_deref().and_then(parse_millis)
    }

    pub(super) fn expires_at(&self) -> Option<i64> {
        self.expires_at.as_deref().and_then(parse_millis)
    }

    pub(super) fn is_ephemeral(&self) -> bool {
        self.ephemeral
    }
}

fn sum_of(bytes: &[u8]) -> String {
    format!("{:016x}", xxh3_64(bytes))
}

const DAY_MILLIS: i64 = 86_400_000;

/// Milliseconds since the epoch as `2026-01-31T12:00:00.000Z`.
pub fn instant_text(millis: i64) -> String {
    let (days, of_day) = (millis.div_euclid(DAY_MILLIS), millis.rem_euclid(DAY_MILLIS));
    let (year, month, day) = civil_of_days(days);
    let (seconds, fraction) = (of_day / 1000, of_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z")
}

/// The same back; also without a fraction, or with a longer one.
fn parse_millis(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let fraction: String = fraction.chars().chain("000".chars()).take(3).collect();
    let is_date = (0..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    let is_time = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..=60).contains(&second);
    (is_date && is_time).then_some(())?;
    let seconds = (hour * 60 + minute) * 60 + second;
    Some(days_of_civil(year, month, day) * DAY_MILLIS + seconds * 1000 + fraction.parse::<i64>().ok()?)
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar: years are counted from March,
/// so that the leap day is the last one, in eras of 400 years (146097 days).
fn civil_of_days(days: i64) -> (i64, i64, i64) {
    let since_march_of_0 = days + 719_468;
    let (era, of_era) = (
        since_march_of_0.div_euclid(146_097),
        since_march_of_0.rem_euclid(146_097),
    );
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

fn days_of_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::testing::{TABLE, table_named};

    #[test]
    fn instants_round_trip() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_123, "2000-02-29T00:00:00.123Z"),
            (1_700_000_000_000, "2023-11-14T22:13:20.000Z"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(instant_text(millis), text);
            assert_eq!(parse_millis(text), Some(millis));
        }
        let mut dice = crate::testing::Dice::new(1);
        for _ in 0..2000 {
            let millis = dice.below(250_000_000_000_000) as i64;
            assert_eq!(parse_millis(&instant_text(millis)), Some(millis));
        }
        assert_eq!(parse_millis("2023-11-14T22:13:20Z"), Some(1_700_000_000_000));
        for text in [
            "",
            "yesterday",
            "2023-13-14T22:13:20Z",
            "2023-11-14",
            "2023-11-14T25:00:00Z",
            "a-b-cTd:e:fZ",
        ] {
            assert_eq!(parse_millis(text), None, "{text}");
        }
    }

    #[test]
    fn a_manifest_round_trips_and_cassandras_are_read() {
        let table = table_named(TABLE, "t", |_| {});
        let note = SnapshotNote {
            created_at: 1_700_000_000_000,
            expires_at: Some(1_700_000_060_000),
            schema: String::new(),
            token_ranges: vec![(5, -5)],
        };
        let manifest = Manifest::new(vec!["b".to_owned(), "a".to_owned()], &note, &table, 2);
        let text = manifest.encode();
        for part in [
            r#""files": ["#,
            r#""created_at": "2023-11-14T22:13:20.000Z""#,
            r#""expires_at": "2023-11-14T22:14:20.000Z""#,
            r#""start": "5""#,
        ] {
            assert!(text.contains(part), "{text}");
        }
        let read = Manifest::decode(text.as_bytes()).unwrap();
        assert_eq!(read, manifest);
        assert_eq!(read.expires_at(), Some(1_700_000_060_000));
        let cassandras =
            br#"{"files":["nb-1-big-Data.db"],"created_at":"2023-11-14T22:13:20Z","expires_at":null}"#;
        let read = Manifest::decode(cassandras).unwrap();
        assert_eq!(
            (read.created_at(), read.expires_at()),
            (Some(1_700_000_000_000), None)
        );
        assert_eq!(Manifest::decode(b"[]x"), None);
    }
}
