//! The parts of a command line: words, and the numbers, times and distributions in them.

use std::fmt;
use std::time::Duration;

use crate::population::Distribution;

/// `name`, `name=value` or `name(value)`; the value keeps inner parentheses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Word {
    pub(crate) name: String,
    pub(crate) value: Option<String>,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl Word {
    fn new(text: &str) -> Word {
        let equals = text.find('=');
        let parenthesis = text.find('(').filter(|_| text.ends_with(')'));
        match (equals, parenthesis) {
            (equals, Some(open)) if equals.is_none_or(|equals| open < equals) => Word {
                name: text[..open].to_owned(),
                value: Some(text[open + 1..text.len() - 1].to_owned()),
            },
            (Some(equals), _) => Word {
                name: text[..equals].to_owned(),
                value: Some(text[equals + 1..].to_owned()),
            },
            (None, _) => Word {
                name: text.to_owned(),
                value: None,
            },
        }
    }

    pub(crate) fn required(&self) -> Result<&str, String> {
        self.value
            .as_deref()
            .ok_or_else(|| format!("{}= needs a value", self.name))
    }

    pub(crate) fn unknown(&self, expected: &str) -> String {
        format!("unknown word '{self}': expected {expected}")
    }
}

/// The words of one argument: separated by spaces that are not within parentheses.
pub(crate) fn split(argument: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let (mut text, mut depth) = (String::new(), 0_usize);
    for character in argument.chars() {
        match character {
            '(' => depth += 1,
            ')' => {
                depth = depth
                    .checked_sub(1)
                    .ok_or_else(|| format!("{argument}: ')' without '('"))?
            }
            _ => {}
        }
        if !character.is_whitespace() {
            text.push(character);
        } else if depth == 0 && !text.is_empty() {
            words.push(Word::new(&std::mem::take(&mut text)));
        }
    }
    if depth > 0 {
        return Err(format!("{argument}: '(' without ')'"));
    }
    if !text.is_empty() {
        words.push(Word::new(&text));
    }
    Ok(words)
}

/// `name=value` pairs of a word in parentheses.
pub(crate) fn pairs(word: &Word) -> Result<Vec<(String, String)>, String> {
    let values = word.required()?.split(',').filter(|pair| !pair.is_empty());
    values
        .map(|pair| {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("{word}: '{pair}' is not name=value"))?;
            Ok((name.to_owned(), value.replace('\'', "")))
        })
        .collect()
}

/// A whole number with an optional K, M or B behind it.
fn scaled(text: &str) -> Option<u64> {
    let (digits, factor) = match text.as_bytes().last()?.to_ascii_lowercase() {
        b'k' => (&text[..text.len() - 1], 1_000),
        b'm' => (&text[..text.len() - 1], 1_000_000),
        b'b' => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// A number of operations, at least one.
pub(crate) fn count(word: &Word) -> Result<u64, String> {
    scaled(word.required()?)
        .filter(|count| *count > 0)
        .ok_or_else(|| format!("{word}: expected a number such as 1000, 10K or 1M"))
}

/// A whole number between bounds, both included.
pub(crate) fn number<T: TryFrom<u64>>(word: &Word, least: u64, most: u64) -> Result<T, String> {
    scaled(word.required()?)
        .filter(|number| (least..=most).contains(number))
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("{word}: expected a number from {least} to {most}"))
}

/// A number, also in the form `fixed(number)`.
pub(crate) fn fixed(word: &Word, least: usize, most: usize) -> Result<usize, String> {
    let value = word.required()?;
    let inner = Word::new(value);
    let text = if inner.name.eq_ignore_ascii_case("fixed") {
        inner.value.as_deref().unwrap_or("")
    } else {
        value
    };
    number(
        &Word {
            name: word.name.clone(),
            value: Some(text.to_owned()),
        },
        least as u64,
        most as u64,
    )
}

/// Operations per second: `1000/s`.
pub(crate) fn rate(word: &Word) -> Result<f64, String> {
    let value = word.required()?;
    let number = value.strip_suffix("/s").unwrap_or(value);
    scaled(number)
        .filter(|rate| *rate > 0)
        .map(|rate| rate as f64)
        .ok_or_else(|| format!("{word}: expected a rate such as 1000/s"))
}

/// A time: `500ms`, `10s`, `5m`, `1h`; a bare number is seconds.
pub(crate) fn duration(word: &Word) -> Result<Duration, String> {
    let text = word.required()?;
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "ms" => Some(1),
        "" | "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    unit_ms
        .zip(digits.parse::<u64>().ok())
        .and_then(|(unit_ms, number)| number.checked_mul(unit_ms))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{word}: expected a time such as 500ms, 10s, 5m or 1h"))
}

/// `FIRST..LAST`, FIRST not above LAST.
pub(crate) fn range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.split_once("..")?;
    let (first, last) = (scaled(first)?, scaled(last)?);
    (first <= last).then_some((first, last))
}

const DISTRIBUTIONS: &str = "fixed(N), uniform(A..B), gaussian(A..B), gaussian(A..B,DEVIATIONS), \
    gaussian(A..B,MEAN,DEVIATION) or exp(A..B)";

/// A distribution as in `dist=uniform(1..1M)`.
pub(crate) fn distribution(text: &str) -> Result<Distribution, String> {
    let word = Word::new(text);
    let malformed = || format!("dist={text}: expected {DISTRIBUTIONS}");
    let value = word.value.as_deref().ok_or_else(malformed)?;
    let mut parts = value.split(',');
    let bounds = parts.next().unwrap_or_default();
    let numbers: Vec<f64> = parts
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|_| malformed())?;
    if numbers.iter().any(|number| !number.is_finite()) {
        return Err(malformed());
    }
    let bounds = || range(bounds).ok_or_else(malformed);
    match (word.name.to_ascii_lowercase().as_str(), numbers.as_slice()) {
        ("fixed", []) => {
            let at = scaled(value).ok_or_else(malformed)?;
            Ok(Distribution::Uniform { first: at, last: at })
        }
        ("uniform", []) => bounds().map(|(first, last)| Distribution::Uniform { first, last }),
        ("gaussian" | "normal" | "gauss" | "norm", []) => {
            bounds().map(|(first, last)| Distribution::gaussian(first, last))
        }
        ("gaussian" | "normal" | "gauss" | "norm", [deviations]) if *deviations > 0.0 => {
            bounds().map(|(first, last)| Distribution::gaussian_of_deviations(first, last, *deviations))
        }
        ("gaussian" | "normal" | "gauss" | "norm", [mean, deviation]) if *deviation > 0.0 => {
            bounds().map(|(first, last)| Distribution::Gaussian {
                first,
                last,
                mean: *mean,
                deviation: *deviation,
            })
        }
        ("exp", []) => bounds().map(|(first, last)| Distribution::Exponential { first, last }),
        _ => Err(malformed()),
    }
}
