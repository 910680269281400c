//! `replication = {...}` of CREATE and ALTER KEYSPACE: what Cassandra 5 accepts, in its order of checks and its words.
//!
//! Deviations, each deliberate: a `replication_factor` that is no number is refused even for NetworkTopologyStrategy,
//! where Cassandra forgets it silently.

use std::fmt;

use ceto_model::schema::ReplicationOptions;
use indexmap::IndexMap;

use super::Strategy;
use crate::ring::Ring;

const CLASS: &str = "class";
const REPLICATION_FACTOR: &str = "replication_factor";
const PACKAGE: &str = "org.apache.cassandra.locator.";
/// Cassandra's `default_keyspace_rf`.
const REPLICATION_FACTOR_DEFAULT: &str = "1";

/// Options that cannot be; each text is the client's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplicationError {
    /// Code 0x2300, Config_error.
    Config(String),
    /// Code 0x2200, Invalid.
    Invalid(String),
}

impl fmt::Display for ReplicationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(message) | Self::Invalid(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for ReplicationError {}

fn config<T>(message: impl Into<String>) -> Result<T, ReplicationError> {
    Err(ReplicationError::Config(message.into()))
}

/// Options ready for the schema.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prepared {
    /// Class by full name, defaults filled in.
    pub options: ReplicationOptions,
    /// What they mean.
    pub strategy: Strategy,
    /// For the client, as warnings of its response.
    pub warnings: Vec<String>,
}

/// Checks the options of a CREATE or ALTER KEYSPACE (`previous`: what the keyspace had) against the ring and fills in
/// what Cassandra fills in: the default replication factor, and for NetworkTopologyStrategy the data centers that a
/// bare `replication_factor` stands for.
///
/// # Errors
/// With the client's error when the options are refused.
pub fn prepare(
    keyspace: &str,
    options: &IndexMap<String, String>,
    previous: Option<&ReplicationOptions>,
    ring: &Ring,
) -> Result<Prepared, ReplicationError> {
    let mut options = options.clone();
    let Some(class) = options.shift_remove(CLASS) else {
        return config("Missing replication strategy class");
    };
    let class = full_class_name(&class)?;
    let empty = IndexMap::new();
    let previous = previous.map_or(&empty, |previous| &previous.0);
    match class {
        Class::Local => {
            let message =
                "Unable to use given strategy class: LocalStrategy is reserved for internal use.".to_owned();
            return Err(ReplicationError::Invalid(message));
        }
        Class::Simple => fill_in_simple(&mut options, previous),
        Class::NetworkTopology => fill_in_network_topology(&mut options, previous, ring)?,
    }
    let strategy = class.strategy(&options)?;
    check_names(keyspace, class, &options, ring)?;
    let mut full = IndexMap::from([(CLASS.to_owned(), strategy.class_name().to_owned())]);
    full.extend(options);
    Ok(Prepared {
        options: ReplicationOptions(full),
        warnings: warnings(keyspace, &strategy, ring),
        strategy,
    })
}

/// The strategy of options that were prepared once.
pub(super) fn strategy_of(options: &ReplicationOptions) -> Result<Strategy, ReplicationError> {
    let mut options = options.0.clone();
    let class = options.shift_remove(CLASS).unwrap_or_default();
    full_class_name(&class)?.strategy(&options)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Local,
    Simple,
    NetworkTopology,
}

fn full_class_name(name: &str) -> Result<Class, ReplicationError> {
    let full = if name.contains('.') {
        name.to_owned()
    } else {
        format!("{PACKAGE}{name}")
    };
    match full.strip_prefix(PACKAGE) {
        Some("LocalStrategy") => Ok(Class::Local),
        Some("SimpleStrategy") => Ok(Class::Simple),
        Some("NetworkTopologyStrategy") => Ok(Class::NetworkTopology),
        Some("OldNetworkTopologyStrategy") => config(
            "The support for the OldNetworkTopologyStrategy has been removed in C* version 4.0. The keyspace \
             strategy should be switch to NetworkTopologyStrategy",
        ),
        _ => config(format!("Unable to find replication strategy class '{full}'")),
    }
}

impl Class {
    fn simple_name(self) -> &'static str {
        match self {
            Self::Local => "LocalStrategy",
            Self::Simple => "SimpleStrategy",
            Self::NetworkTopology => "NetworkTopologyStrategy",
        }
    }

    fn strategy(self, options: &IndexMap<String, String>) -> Result<Strategy, ReplicationError> {
        match self {
            Self::Local => Ok(Strategy::Local),
            Self::Simple => match options.get(REPLICATION_FACTOR) {
                None => config("SimpleStrategy requires a replication_factor strategy option."),
                Some(text) => Ok(Strategy::Simple {
                    replication_factor: parse_replication_factor(text)?,
                }),
            },
            Self::NetworkTopology => {
                let mut datacenters = Vec::with_capacity(options.len());
                for (name, text) in options {
                    if name.eq_ignore_ascii_case(REPLICATION_FACTOR) {
                        return config(
                            "replication_factor should not appear as an option at construction time for \
                             NetworkTopologyStrategy",
                        );
                    }
                    datacenters.push((name.clone(), parse_replication_factor(text)?));
                }
                Ok(Strategy::NetworkTopology { datacenters })
            }
        }
    }
}

/// `3`, or `3/0`: transient replicas are not offered.
fn parse_replication_factor(text: &str) -> Result<u32, ReplicationError> {
    let number = |text: &str| match text.parse::<i32>() {
        Ok(number) => Ok(number),
        Err(_) => config(format!("For input string: \"{text}\"")),
    };
    let replicas = match text.split_once('/') {
        None => number(text)?,
        Some((_, transient)) if transient.contains('/') => {
            return config("Replication factor format is <replicas> or <replicas>/<transient>");
        }
        Some((replicas, transient)) => {
            let (replicas, transient) = (number(replicas)?, number(transient)?);
            if transient != 0 {
                return config("Transient replication is not enabled on this node");
            }
            replicas
        }
    };
    match u32::try_from(replicas) {
        Ok(replicas) => Ok(replicas),
        Err(_) => config(format!(
            "Replication factor must be non-negative, found {replicas}"
        )),
    }
}

fn default_replication_factor(previous: &IndexMap<String, String>) -> String {
    previous
        .get(REPLICATION_FACTOR)
        .map_or(REPLICATION_FACTOR_DEFAULT, String::as_str)
        .to_owned()
}

fn fill_in_simple(options: &mut IndexMap<String, String>, previous: &IndexMap<String, String>) {
    if !options.contains_key(REPLICATION_FACTOR) {
        options.insert(
            REPLICATION_FACTOR.to_owned(),
            default_replication_factor(previous),
        );
    }
}

/// A bare `replication_factor` stands for every data center that is not named; an ALTER that uses it leaves alone
/// what the keyspace had.
fn fill_in_network_topology(
    options: &mut IndexMap<String, String>,
    previous: &IndexMap<String, String>,
    ring: &Ring,
) -> Result<(), ReplicationError> {
    if options.is_empty() {
        options.insert(
            REPLICATION_FACTOR.to_owned(),
            default_replication_factor(previous),
        );
    }
    if let Some(everywhere) = options.shift_remove(REPLICATION_FACTOR) {
        let everywhere = parse_replication_factor(&everywhere)?.to_string();
        let kept = previous
            .iter()
            .filter(|(name, _)| *name != REPLICATION_FACTOR && *name != CLASS);
        for (name, replicas) in kept {
            options.entry(name.clone()).or_insert_with(|| replicas.clone());
        }
        for name in ring.datacenter_names() {
            options
                .entry(name.to_string())
                .or_insert_with(|| everywhere.clone());
        }
    }
    options.retain(|_, replicas| replicas != "0");
    Ok(())
}

fn check_names(
    keyspace: &str,
    class: Class,
    options: &IndexMap<String, String>,
    ring: &Ring,
) -> Result<(), ReplicationError> {
    if class == Class::NetworkTopology && options.is_empty() {
        return config("Configuration for at least one datacenter must be present");
    }
    let is_known = |name: &str| match class {
        Class::Local => false,
        Class::Simple => name == REPLICATION_FACTOR,
        Class::NetworkTopology => ring.datacenter(name).is_some(),
    };
    match options.keys().find(|name| !is_known(name)) {
        None => Ok(()),
        Some(name) => {
            let known: Vec<&str> = match class {
                Class::NetworkTopology => ring.datacenter_names().map(|name| &**name).collect(),
                Class::Local | Class::Simple => Vec::new(),
            };
            let known = match known.is_empty() {
                true => String::new(),
                false => format!(": the data centers of the cluster are {}", known.join(", ")),
            };
            config(format!(
                "Unrecognized strategy option {{{name}}} passed to {} for keyspace {keyspace}{known}",
                class.simple_name()
            ))
        }
    }
}

fn warnings(keyspace: &str, strategy: &Strategy, ring: &Ring) -> Vec<String> {
    let warning = |replicas: u32, nodes: usize| {
        (nodes != 0 && replicas as usize > nodes).then(|| {
            format!(
                "Your replication factor {replicas} for keyspace {keyspace} is higher than the number of nodes {nodes}"
            )
        })
    };
    match strategy {
        Strategy::Local => Vec::new(),
        Strategy::Simple { replication_factor } => {
            let nodes = ring.nodes().iter().filter(|node| !node.tokens.is_empty());
            warning(*replication_factor, nodes.count()).into_iter().collect()
        }
        Strategy::NetworkTopology { datacenters } => datacenters
            .iter()
            .filter_map(|(name, replicas)| {
                let nodes = ring.node_count(ring.datacenter(name)?);
                warning(*replicas, nodes).map(|text| format!("{text} for datacenter {name}"))
            })
            .collect(),
    }
}
