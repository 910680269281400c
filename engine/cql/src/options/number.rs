//! Numbers as option values, in and out as Java reads and prints them.

/// `Double.toString`: the shortest decimal that reads back, in scientific form outside of [0.001, 10^7).
pub(crate) fn format_double(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || !value.is_finite() || (1e-3..1e7).contains(&magnitude) {
        return format!("{value:?}").replace("inf", "Infinity");
    }
    let text = format!("{value:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

/// `Double.parseDouble`, save hexadecimal forms and type suffixes.
pub(super) fn parse_double(text: &str) -> Option<f64> {
    let text = text.trim();
    let digits = text.trim_start_matches(['+', '-']);
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    match digits {
        "NaN" => Some(f64::NAN),
        "Infinity" if text.starts_with('-') => Some(f64::NEG_INFINITY),
        "Infinity" => Some(f64::INFINITY),
        _ if is_number => text.parse().ok(),
        _ => None,
    }
}

/// `Boolean.parseBoolean`: anything but "true" is false.
pub(super) fn parse_boolean(text: &str) -> bool {
    text.eq_ignore_ascii_case("true")
}

/// "true" or "false" in any case.
pub(super) fn is_boolean(text: &str) -> bool {
    text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
}
