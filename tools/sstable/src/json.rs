//! Writing JSON front to back, with typed values.

use ceto_model::value::{put_json_string, to_json};
use ceto_model::{CqlType, Deletion, Timestamp, UnixSeconds};

/// An object or array being written into a text.
pub(crate) struct Json<'a> {
    out: &'a mut String,
    is_first: bool,
    close: char,
}

impl<'a> Json<'a> {
    /// Begins an object.
    pub(crate) fn object(out: &'a mut String) -> Json<'a> {
        Json::begin(out, '{', '}')
    }

    /// Begins an array.
    pub(crate) fn array(out: &'a mut String) -> Json<'a> {
        Json::begin(out, '[', ']')
    }

    fn begin(out: &'a mut String, open: char, close: char) -> Json<'a> {
        out.push(open);
        Json {
            out,
            is_first: true,
            close,
        }
    }

    fn separate(&mut self) {
        if !std::mem::take(&mut self.is_first) {
            self.out.push(',');
        }
    }

    /// The place of the next element of an array.
    pub(crate) fn element(&mut self) -> &mut String {
        self.separate();
        self.out
    }

    /// The place of a field's value.
    pub(crate) fn field(&mut self, name: &str) -> &mut String {
        self.separate();
        put_json_string(name, self.out);
        self.out.push(':');
        self.out
    }

    /// A field with a text.
    pub(crate) fn text(&mut self, name: &str, text: &str) {
        put_json_string(text, self.field(name));
    }

    /// A field with a value that is JSON already.
    pub(crate) fn raw(&mut self, name: &str, json: &str) {
        self.field(name).push_str(json);
    }

    /// Ends it.
    pub(crate) fn end(self) {
        self.out.push(self.close);
    }
}

/// Bytes whose type is not known.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{digits}")
}

/// A value as JSON; hexadecimal when its type is not known or it is not of that type.
pub(crate) fn put_value(cql_type: Option<&CqlType>, wire: &[u8], out: &mut String) {
    match cql_type.and_then(|cql_type| to_json(cql_type, wire).ok()) {
        Some(json) => out.push_str(&json),
        // What a set holds under an element.
        None if wire.is_empty() => out.push_str("\"\""),
        None => put_json_string(&hex(wire), out),
    }
}

/// A value as text.
pub(crate) fn value_text(cql_type: Option<&CqlType>, wire: &[u8]) -> String {
    let mut json = String::new();
    put_value(cql_type, wire, &mut json);
    let inner = json.strip_prefix('"').and_then(|json| json.strip_suffix('"'));
    match inner {
        // A string without escapes is its text; others keep their JSON form.
        Some(text) if !text.contains('\\') => text.to_owned(),
        _ => json,
    }
}

/// How times are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Times {
    /// As numbers: microseconds and seconds.
    pub(crate) raw: bool,
}

impl Times {
    /// A write's timestamp.
    pub(crate) fn timestamp(self, timestamp: Timestamp) -> String {
        if self.raw {
            return timestamp.0.to_string();
        }
        instant(
            timestamp.0.div_euclid(1_000_000),
            timestamp.0.rem_euclid(1_000_000),
        )
    }

    /// A second.
    pub(crate) fn second(self, second: UnixSeconds) -> String {
        match self.raw {
            true => second.0.to_string(),
            false => instant(second.0, 0),
        }
    }

    /// A field `deletion_info`.
    pub(crate) fn deletion(self, name: &str, deletion: Deletion, to: &mut Json<'_>) {
        let mut object = Json::object(to.field(name));
        object.text("marked_deleted", &self.timestamp(deletion.timestamp));
        object.text("local_delete_time", &self.second(deletion.deleted_at));
        object.end();
    }
}

/// A moment as ISO 8601 has it; as a number when it is beyond the years that have four digits.
fn instant(seconds: i64, micros: i64) -> String {
    const SECONDS_A_DAY: i64 = 86_400;
    /// From 0000-03-01 to 1970-01-01.
    const DAYS_TO_EPOCH: i64 = 719_468;
    const DAYS_IN_400_YEARS: i64 = 146_097;
    let days = seconds.div_euclid(SECONDS_A_DAY);
    if !(-DAYS_TO_EPOCH..=2_932_896).contains(&days) {
        return match micros {
            0 => seconds.to_string(),
            micros => format!("{seconds}.{micros:06}"),
        };
    }
    // Years that begin in March have their leap day at the end.
    let day = (days + DAYS_TO_EPOCH).rem_euclid(DAYS_IN_400_YEARS);
    let era = (days + DAYS_TO_EPOCH).div_euclid(DAYS_IN_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = year + era * 400 + next_year;
    let second = seconds.rem_euclid(SECONDS_A_DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = match micros {
        0 => String::new(),
        micros if micros % 1000 == 0 => format!(".{:03}", micros / 1000),
        micros => format!(".{micros:06}"),
    };
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_iso_8601() {
        for (seconds, micros, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (1_700_000_000, 123_456, "2023-11-14T22:13:20.123456Z"),
            (951_782_400, 5000, "2000-02-29T00:00:00.005Z"),
            (-1, 0, "1969-12-31T23:59:59Z"),
            (4_107_542_399, 0, "2100-02-28T23:59:59Z"),
            (i64::MAX, 0, "9223372036854775807"),
        ] {
            assert_eq!(instant(seconds, micros), text);
        }
    }
}
