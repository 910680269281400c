//! `speculative_retry` and `additional_write_policy` of a table: how long to wait for a replica before another is
//! asked as well.

use std::time::Duration;

/// A policy, as parsed from the table's option.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum SpeculativeRetry {
    /// Never ask another replica.
    Never,
    /// Ask at once.
    Always,
    /// Ask after a fixed time.
    Fixed(Duration),
    /// Ask when the answer takes longer than this percentile (0 to 100) of the table's reads.
    Percentile(f64),
    /// Ask at the earlier of a percentile and a fixed time.
    Min(f64, Duration),
    /// Ask at the later of a percentile and a fixed time.
    Max(f64, Duration),
}

impl SpeculativeRetry {
    /// Parses `NONE`, `NEVER`, `ALWAYS`, `99p`, `99.9PERCENTILE`, `50ms`, `MIN(99p,50ms)`, `MAX(99p,50ms)`, in any case.
    /// None when the text is none of these: Cassandra's error is then
    /// `Specified Speculative Retry Policy [...] is not supported`.
    pub fn parse(text: &str) -> Option<SpeculativeRetry> {
        let text = text.trim().to_ascii_uppercase();
        match &*text {
            "NONE" | "NEVER" => return Some(Self::Never),
            "ALWAYS" => return Some(Self::Always),
            _ => {}
        }
        for (name, combine) in [
            ("MIN", Self::Min as fn(f64, Duration) -> Self),
            ("MAX", Self::Max),
        ] {
            if let Some(arguments) = text.strip_prefix(name) {
                let (a, b) = arguments
                    .trim()
                    .strip_prefix('(')?
                    .strip_suffix(')')?
                    .split_once(',')?;
                return match (parse_percentile(a), parse_fixed(b)) {
                    (Some(percentile), Some(time)) => Some(combine(percentile, time)),
                    _ => Some(combine(parse_percentile(b)?, parse_fixed(a)?)),
                };
            }
        }
        parse_percentile(&text)
            .map(Self::Percentile)
            .or_else(|| parse_fixed(&text).map(Self::Fixed))
    }

    /// How long to wait, given the table's read latency at a percentile; None when it is not known yet or another
    /// replica is never to be asked.
    pub fn wait(self, latency_at: impl Fn(f64) -> Option<Duration>) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::Always => Some(Duration::ZERO),
            Self::Fixed(time) => Some(time),
            Self::Percentile(percentile) => latency_at(percentile),
            Self::Min(percentile, time) => Some(latency_at(percentile).map_or(time, |own| own.min(time))),
            Self::Max(percentile, time) => Some(latency_at(percentile).map_or(time, |own| own.max(time))),
        }
    }
}

fn parse_percentile(text: &str) -> Option<f64> {
    let number = text
        .trim()
        .strip_suffix("PERCENTILE")
        .or_else(|| text.trim().strip_suffix('P'))?;
    let percentile: f64 = number.parse().ok()?;
    (0.0..=100.0).contains(&percentile).then_some(percentile)
}

fn parse_fixed(text: &str) -> Option<Duration> {
    let milliseconds: f64 = text.trim().strip_suffix("MS")?.parse().ok()?;
    Duration::try_from_secs_f64(milliseconds / 1000.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_those_of_cassandra() {
        let milliseconds = Duration::from_millis;
        let cases = [
            ("NONE", Some(SpeculativeRetry::Never)),
            ("never", Some(SpeculativeRetry::Never)),
            ("Always", Some(SpeculativeRetry::Always)),
            ("99p", Some(SpeculativeRetry::Percentile(99.0))),
            ("99.9PERCENTILE", Some(SpeculativeRetry::Percentile(99.9))),
            ("50ms", Some(SpeculativeRetry::Fixed(milliseconds(50)))),
            (
                "MIN(99p,50ms)",
                Some(SpeculativeRetry::Min(99.0, milliseconds(50))),
            ),
            (
                "max(50MS, 99PERCENTILE)",
                Some(SpeculativeRetry::Max(99.0, milliseconds(50))),
            ),
            ("101p", None),
            ("-1ms", None),
            ("MIN(99p)", None),
            ("MIN(99p,98p)", None),
            ("sometimes", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(SpeculativeRetry::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn a_combined_policy_falls_back_to_its_fixed_time() {
        let wait = |text: &str, latency: Option<u64>| {
            let policy = SpeculativeRetry::parse(text).expect("a policy");
            policy.wait(|_| latency.map(Duration::from_millis))
        };
        assert_eq!(wait("MIN(99p,50ms)", None), Some(Duration::from_millis(50)));
        assert_eq!(wait("MIN(99p,50ms)", Some(7)), Some(Duration::from_millis(7)));
        assert_eq!(wait("MAX(99p,50ms)", Some(7)), Some(Duration::from_millis(50)));
        assert_eq!(wait("99p", None), None);
        assert_eq!(wait("ALWAYS", None), Some(Duration::ZERO));
        assert_eq!(wait("NONE", Some(7)), None);
    }
}
