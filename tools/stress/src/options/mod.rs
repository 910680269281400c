//! The command line, in cassandra-stress's words.
//!
//! ```text
//! line    ::= command word* ( option word* )*
//! command ::= "write" | "read" | "mixed" | "counter_write" | "counter_read"
//! option  ::= "-rate" | "-pop" | "-node" | "-port" | "-schema" | "-col" | "-log" | "-mode" | "-errors"
//! word    ::= name | name "=" value | name "(" value ( "," value )* ")"
//! ```
//!
//! An argument in quotes may hold several words. What is not understood is an error that names the word and what
//! stands in its place; nothing is ignored.

mod words;

use std::time::Duration;

use ceto_model::Consistency;

use crate::population::Distribution;
pub(crate) use words::Word;
use words::{count, duration, number, rate};

/// What one operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    /// Writes every column of a row.
    Write,
    /// Reads a row and compares it with what was written.
    Read,
    /// Adds to every counter of a row.
    CounterWrite,
    /// Reads the counters of a row.
    CounterRead,
}

impl Operation {
    pub(crate) const ALL: [Operation; 4] = [Self::Write, Self::Read, Self::CounterWrite, Self::CounterRead];

    /// The name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Write => "WRITE",
            Self::Read => "READ",
            Self::CounterWrite => "COUNTER_WRITE",
            Self::CounterRead => "COUNTER_READ",
        }
    }

    pub(crate) fn is_write(self) -> bool {
        matches!(self, Self::Write | Self::CounterWrite)
    }

    pub(crate) fn is_counter(self) -> bool {
        matches!(self, Self::CounterWrite | Self::CounterRead)
    }
}

/// Operations by weight; never empty, weights never zero.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mix(pub(crate) Vec<(Operation, u64)>);

/// When to empty the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Truncate {
    Never,
    /// Before the run.
    Once,
}

/// How fast to go.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Rate {
    /// Requests in flight at most.
    pub(crate) threads: usize,
    /// Operations per second; without it as many as the threads achieve.
    pub(crate) limit: Option<f64>,
    /// Latency counts from the moment the limit intended, not from the moment of sending.
    pub(crate) open_loop: bool,
}

/// How to speak to the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mode {
    pub(crate) version: ceto_native::ProtocolVersion,
    /// LZ4 on frames (v5) or bodies (v4).
    pub(crate) compressed: bool,
    /// Operating-system threads that drive connections.
    pub(crate) workers: usize,
    /// Connections to each shard from each worker.
    pub(crate) connections_per_shard: usize,
}

/// A keyspace to create when absent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Schema {
    pub(crate) keyspace: String,
    /// Replication options without the class, for example ("replication_factor", "1").
    pub(crate) replication: Vec<(String, String)>,
    pub(crate) strategy: String,
    pub(crate) compaction: Option<Vec<(String, String)>>,
    pub(crate) compression: Option<String>,
}

/// A parsed command line.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Options {
    pub(crate) mix: Mix,
    /// Operations in the run; with a duration and no count, no bound.
    pub(crate) operations: u64,
    pub(crate) duration: Option<Duration>,
    pub(crate) consistency: Consistency,
    pub(crate) warm_up: bool,
    pub(crate) truncate: Truncate,
    pub(crate) rate: Rate,
    pub(crate) population: Distribution,
    pub(crate) nodes: Vec<String>,
    pub(crate) port: u16,
    pub(crate) schema: Schema,
    pub(crate) columns: usize,
    pub(crate) column_bytes: usize,
    pub(crate) log_interval: Duration,
    pub(crate) mode: Mode,
    pub(crate) retries: u32,
    pub(crate) ignore_errors: bool,
}

/// Operations of a run that says neither n= nor duration=.
const DEFAULT_OPERATIONS: u64 = 1_000_000;
/// Rows of a run that says neither -pop nor n=; with n= they are n, so that `read n=1000` finds what `write n=1000` wrote.
const DEFAULT_POPULATION: u64 = 1_000_000;
const DEFAULT_THREADS: usize = 50;
const DEFAULT_RETRIES: u32 = 10;
/// Requests in flight over all workers.
const MAXIMUM_THREADS: usize = 1 << 20;
const MAXIMUM_COLUMNS: usize = 1000;
const MAXIMUM_COLUMN_BYTES: usize = 16 << 20;
const MAXIMUM_WORKERS: usize = 1024;

const COMMANDS: &str = "write, read, mixed, counter_write, counter_read or help";

/// Parses what follows the word `stress`.
pub(crate) fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut words = Vec::new();
    for argument in arguments {
        words.extend(words::split(argument)?);
    }
    let mut words = words.into_iter().peekable();
    let command = words
        .next()
        .ok_or_else(|| format!("a command is required: {COMMANDS}"))?;
    let mut options = defaults(&command)?;
    let mut given = Given::default();
    let mut section: Option<String> = None;
    while let Some(word) = words.next() {
        if word.name.starts_with('-') && word.value.is_none() {
            if !SECTIONS.contains(&word.name.as_str()) {
                return Err(unknown_section(&word.name));
            }
            if words.peek().is_none_or(|next| next.name.starts_with('-')) {
                return Err(format!("{} needs words behind it", word.name));
            }
            section = Some(word.name);
            continue;
        }
        match &section {
            None => options.command_word(&word, &mut given)?,
            Some(section) => options.section_word(section, &word)?,
        }
    }
    if !given.operations && options.duration.is_some() {
        options.operations = u64::MAX;
    }
    if options.population == Distribution::Unset {
        options.population = default_population(&options);
    }
    Ok(options)
}

const SECTIONS: [&str; 9] = [
    "-rate", "-pop", "-node", "-port", "-schema", "-col", "-log", "-mode", "-errors",
];

fn unknown_section(name: &str) -> String {
    format!("unknown option '{name}': expected one of {}", SECTIONS.join(", "))
}

/// Which words were given that have a default depending on others.
#[derive(Default)]
struct Given {
    operations: bool,
}

fn default_population(options: &Options) -> Distribution {
    let only_writes = options.mix.0.iter().all(|(operation, _)| operation.is_write());
    let last = if options.operations == u64::MAX {
        DEFAULT_POPULATION
    } else {
        options.operations
    };
    if only_writes {
        Distribution::Sequence { first: 1, last }
    } else {
        Distribution::gaussian(1, last)
    }
}

fn defaults(command: &Word) -> Result<Options, String> {
    let mix = match command.name.as_str() {
        "write" => Mix(vec![(Operation::Write, 1)]),
        "read" => Mix(vec![(Operation::Read, 1)]),
        "mixed" => Mix(vec![(Operation::Write, 1), (Operation::Read, 1)]),
        "counter_write" => Mix(vec![(Operation::CounterWrite, 1)]),
        "counter_read" => Mix(vec![(Operation::CounterRead, 1)]),
        other => return Err(format!("unknown command '{other}': expected {COMMANDS}")),
    };
    Ok(Options {
        mix,
        operations: DEFAULT_OPERATIONS,
        duration: None,
        consistency: Consistency::LocalOne,
        warm_up: true,
        truncate: Truncate::Never,
        rate: Rate {
            threads: DEFAULT_THREADS,
            limit: None,
            open_loop: false,
        },
        population: Distribution::Unset,
        nodes: vec!["127.0.0.1".to_owned()],
        port: 9042,
        schema: Schema {
            keyspace: "keyspace1".to_owned(),
            replication: vec![("replication_factor".to_owned(), "1".to_owned())],
            strategy: "SimpleStrategy".to_owned(),
            compaction: None,
            compression: None,
        },
        columns: 5,
        column_bytes: 34,
        log_interval: Duration::from_secs(1),
        mode: Mode {
            version: ceto_native::ProtocolVersion::V4,
            compressed: false,
            workers: 1,
            connections_per_shard: 1,
        },
        retries: DEFAULT_RETRIES,
        ignore_errors: false,
    })
}

impl Options {
    fn command_word(&mut self, word: &Word, given: &mut Given) -> Result<(), String> {
        match word.name.as_str() {
            "n" => {
                self.operations = count(word)?;
                given.operations = true;
            }
            "duration" => self.duration = Some(duration(word)?),
            "cl" => {
                let name = word.required()?;
                self.consistency = Consistency::from_name(&name.to_uppercase())
                    .filter(|consistency| !consistency.is_serial())
                    .ok_or_else(|| format!("cl={name}: not a consistency level"))?;
            }
            "no-warmup" => self.warm_up = false,
            "truncate" => {
                self.truncate = match word.required()? {
                    "never" => Truncate::Never,
                    "once" | "always" => Truncate::Once,
                    other => return Err(format!("truncate={other}: expected never, once or always")),
                };
            }
            "ratio" if self.mix.0.len() > 1 => self.mix = ratio(word)?,
            _ => return Err(word.unknown("n=, duration=, cl=, no-warmup, truncate=, ratio() (mixed only)")),
        }
        Ok(())
    }

    fn section_word(&mut self, section: &str, word: &Word) -> Result<(), String> {
        match section {
            "-rate" => self.rate_word(word),
            "-pop" => self.population_word(word),
            "-node" => self.node_word(word),
            "-port" => match word.name.as_str() {
                "native" => number(word, 1, u16::MAX.into()).map(|port| self.port = port),
                _ => Err(word.unknown("native=")),
            },
            "-schema" => self.schema_word(word),
            "-col" => self.column_word(word),
            "-log" => match word.name.as_str() {
                "interval" => {
                    self.log_interval = duration(word)?;
                    if self.log_interval.is_zero() {
                        Err("interval= must be above zero".to_owned())
                    } else {
                        Ok(())
                    }
                }
                _ => Err(word.unknown("interval=")),
            },
            "-mode" => self.mode_word(word),
            "-errors" => match word.name.as_str() {
                "retries" => number(word, 0, 1000).map(|retries| self.retries = retries),
                "ignore" => {
                    self.ignore_errors = true;
                    Ok(())
                }
                _ => Err(word.unknown("retries=, ignore")),
            },
            other => Err(unknown_section(other)),
        }
    }

    fn rate_word(&mut self, word: &Word) -> Result<(), String> {
        match word.name.as_str() {
            "threads" => self.rate.threads = number(word, 1, MAXIMUM_THREADS as u64)?,
            "fixed" => (self.rate.limit, self.rate.open_loop) = (Some(rate(word)?), true),
            "throttle" => (self.rate.limit, self.rate.open_loop) = (Some(rate(word)?), false),
            _ => return Err(word.unknown("threads=, fixed=, throttle=")),
        }
        Ok(())
    }

    fn population_word(&mut self, word: &Word) -> Result<(), String> {
        match word.name.as_str() {
            "seq" => {
                let (first, last) = words::range(word.required()?)
                    .ok_or_else(|| format!("{word}: expected seq=FIRST..LAST, FIRST not above LAST"))?;
                self.population = Distribution::Sequence { first, last };
            }
            "dist" => self.population = words::distribution(word.required()?)?,
            _ => return Err(word.unknown("seq=, dist=")),
        }
        Ok(())
    }

    fn node_word(&mut self, word: &Word) -> Result<(), String> {
        match (word.name.as_str(), &word.value) {
            ("port", Some(_)) => self.port = number(word, 1, u16::MAX.into())?,
            (names, None) => {
                self.nodes = names
                    .split(',')
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect();
                if self.nodes.is_empty() {
                    return Err("-node: expected HOST,HOST...".to_owned());
                }
            }
            _ => return Err(word.unknown("HOST,HOST..., port=")),
        }
        Ok(())
    }

    fn schema_word(&mut self, word: &Word) -> Result<(), String> {
        match word.name.as_str() {
            "keyspace" => {
                let name = word.required()?;
                if name.is_empty()
                    || !name
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                {
                    return Err(format!("keyspace={name}: letters, digits and _ only"));
                }
                self.schema.keyspace = name.to_owned();
            }
            "replication" => self.replication(word)?,
            "compaction" => self.schema.compaction = Some(words::pairs(word)?),
            "compression" => self.schema.compression = Some(word.required()?.to_owned()),
            _ => return Err(word.unknown("keyspace=, replication(), compaction(), compression=")),
        }
        Ok(())
    }

    fn replication(&mut self, word: &Word) -> Result<(), String> {
        let mut replication = Vec::new();
        for (name, value) in words::pairs(word)? {
            match name.as_str() {
                "strategy" => self.schema.strategy = value,
                "factor" => replication.push(("replication_factor".to_owned(), value)),
                _ => replication.push((name, value)),
            }
        }
        if !replication.is_empty() {
            self.schema.replication = replication;
        }
        Ok(())
    }

    fn column_word(&mut self, word: &Word) -> Result<(), String> {
        match word.name.as_str() {
            "n" => self.columns = words::fixed(word, 1, MAXIMUM_COLUMNS)?,
            "size" => self.column_bytes = words::fixed(word, 0, MAXIMUM_COLUMN_BYTES)?,
            _ => return Err(word.unknown("n=, size=")),
        }
        Ok(())
    }

    fn mode_word(&mut self, word: &Word) -> Result<(), String> {
        match (word.name.as_str(), &word.value) {
            ("native" | "cql3" | "prepared", None) => {}
            ("protocolVersion", Some(_)) => {
                let version: u8 = number(word, 0, 255)?;
                self.mode.version = ceto_native::ProtocolVersion::from_number(version)
                    .ok_or_else(|| format!("{word}: expected 3, 4 or 5"))?;
            }
            ("compression", Some(value)) => {
                self.mode.compressed = match value.as_str() {
                    "lz4" => true,
                    "none" => false,
                    _ => return Err(format!("{word}: expected lz4 or none")),
                };
            }
            ("connectionsPerHost" | "connectionsPerShard", Some(_)) => {
                self.mode.connections_per_shard = number(word, 1, 1024)?;
            }
            ("workers", Some(_)) => self.mode.workers = number(word, 1, MAXIMUM_WORKERS as u64)?,
            _ => {
                let expected = "native, protocolVersion=, compression=, connectionsPerShard=, workers=";
                return Err(word.unknown(expected));
            }
        }
        Ok(())
    }
}

fn ratio(word: &Word) -> Result<Mix, String> {
    let mut mix = Vec::new();
    for (name, weight) in words::pairs(word)? {
        let operation = match name.as_str() {
            "write" => Operation::Write,
            "read" => Operation::Read,
            "counter_write" => Operation::CounterWrite,
            "counter_read" => Operation::CounterRead,
            _ => return Err(format!("{word}: '{name}' is not an operation")),
        };
        match weight.parse::<u32>() {
            Ok(0) => {}
            Ok(weight) => mix.push((operation, u64::from(weight))),
            Err(_) => return Err(format!("{word}: '{weight}' is not a whole number")),
        }
    }
    if mix.is_empty() {
        Err(format!("{word}: no operation has a weight"))
    } else {
        Ok(Mix(mix))
    }
}

#[cfg(test)]
mod tests;
