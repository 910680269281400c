//! `speculative_retry` and `additional_write_policy`: when to ask another replica.
//!
//! ```text
//! policy     ::= ALWAYS | NEVER | NONE | percentile | fixed | ( MIN | MAX ) '(' policy ',' policy ')'
//! percentile ::= number ( P | PERCENTILE )        between 0 and 100, both excluded
//! fixed      ::= number MS
//! ```
//! Case does not matter. MIN and MAX take one percentile and one fixed time.

use crate::CqlError;

/// How many digits of a percentile count after the point.
const PERCENTILE_DIGITS: usize = 4;

/// The policy in canonical form: `99p`, `50ms`, `MIN(99p,50ms)`, `ALWAYS`, `NEVER`.
///
/// # Errors
/// `Config`; the option is called speculative_retry, as in Cassandra, whichever of the two it is.
pub(super) fn canonical_policy(text: &str) -> Result<String, CqlError> {
    let upper = text.to_ascii_uppercase();
    match upper.as_str() {
        "ALWAYS" => return Ok("ALWAYS".to_owned()),
        "NEVER" | "NONE" => return Ok("NEVER".to_owned()),
        _ => {}
    }
    if let Some(simple) = simple_policy(&upper, text)? {
        return Ok(simple.to_string());
    }
    let both = ["MIN", "MAX"].into_iter().find_map(|function| {
        let inner = upper
            .strip_prefix(function)?
            .strip_prefix('(')?
            .strip_suffix(')')?;
        Some((function, inner.split_once(',')?))
    });
    let Some((function, (first, second))) = both else {
        return Err(invalid(text));
    };
    let parse = |argument: &str| match simple_policy(argument, argument) {
        Ok(Some(policy)) => Ok(policy),
        _ => Err(invalid(text)),
    };
    // space may stand around the comma
    let (first, second) = (parse(first.trim_end())?, parse(second.trim_start())?);
    match (&first, &second) {
        (Simple::Percentile(_), Simple::Fixed(_)) => Ok(format!("{function}({first},{second})")),
        (Simple::Fixed(_), Simple::Percentile(_)) => Ok(format!("{function}({second},{first})")),
        (same, _) => Err(CqlError::config(format!(
            "Invalid value {text} for option 'speculative_retry': MIN()/MAX() arguments should be of different types, \
             but both are of type {}",
            match same {
                Simple::Percentile(_) => "PERCENTILE",
                Simple::Fixed(_) => "FIXED",
            }
        ))),
    }
}

fn invalid(text: &str) -> CqlError {
    CqlError::config(format!("Invalid value {text} for option 'speculative_retry'"))
}

/// A policy without parts.
enum Simple {
    Percentile(f64),
    /// Milliseconds.
    Fixed(i32),
}

impl std::fmt::Display for Simple {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Percentile(percentile) => {
                let text = format!("{percentile:.PERCENTILE_DIGITS$}");
                let text = text.trim_end_matches('0').trim_end_matches('.');
                write!(
                    f,
                    "{}p",
                    text.strip_prefix("0.")
                        .map_or(text.to_owned(), |rest| format!(".{rest}"))
                )
            }
            Self::Fixed(milliseconds) => write!(f, "{milliseconds}ms"),
        }
    }
}

/// The policy of `upper`; None when it has another form. `text` is what errors show.
fn simple_policy(upper: &str, text: &str) -> Result<Option<Simple>, CqlError> {
    let number = |digits: &str| {
        let is_number =
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        is_number.then(|| digits.parse::<f64>().map_err(|_| invalid(text)))
    };
    let percentile = upper
        .strip_suffix("PERCENTILE")
        .or_else(|| upper.strip_suffix('P'));
    if let Some(percentile) = percentile.and_then(number) {
        let percentile = percentile?;
        // what is stored must be a percentile again
        let rounds_out = format!("{percentile:.PERCENTILE_DIGITS$}")
            .parse()
            .is_ok_and(|r: f64| r <= 0.0 || r >= 100.0);
        if percentile <= 0.0 || percentile >= 100.0 || rounds_out {
            return Err(CqlError::config(format!(
                "Invalid value {text} for PERCENTILE option 'speculative_retry': must be between (0.0 and 100.0)"
            )));
        }
        return Ok(Some(Simple::Percentile(percentile)));
    }
    match upper.strip_suffix("MS").and_then(number) {
        Some(milliseconds) => Ok(Some(Simple::Fixed(milliseconds? as i32))),
        None => Ok(None),
    }
}
