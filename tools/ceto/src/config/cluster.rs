//! Keys that say where the cluster is and where this node stands in it.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;

use ceto_node::hints::HintOptions;
use ceto_node::options::InternodeCompression;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Config, ConfigError};

/// Cassandra's bounds of `phi_convict_threshold`.
const PHI_BOUNDS: std::ops::RangeInclusive<f64> = 5.0..=16.0;

/// Seeds at most.
const SEEDS_MAX: usize = 100;

/// Tokens at most, as `num_tokens`.
const TOKENS_MAX: usize = 256;

/// Name of the file beside the configuration that says where a node stands, as Cassandra's snitches read it.
const RACKDC_FILE: &str = "cassandra-rackdc.properties";

/// A list, or its parts in one text with commas between them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Listed<T> {
    Parts(Vec<T>),
    One(T),
}

/// `seeds`: addresses or names, each with or without a port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Listed<String>")]
pub(crate) struct SeedList(pub(crate) Vec<String>);

impl Default for SeedList {
    fn default() -> Self {
        SeedList(vec!["127.0.0.1".to_owned()])
    }
}

impl TryFrom<Listed<String>> for SeedList {
    type Error = String;

    fn try_from(listed: Listed<String>) -> Result<Self, String> {
        let parts = match listed {
            Listed::Parts(parts) => parts,
            Listed::One(text) => text.split(',').map(str::to_owned).collect(),
        };
        let seeds: Vec<String> = parts
            .iter()
            .map(|part| part.trim().to_owned())
            .filter(|part| !part.is_empty())
            .collect();
        match seeds.len() {
            0 => Err("needs at least one address; the first node of a cluster has its own".to_owned()),
            1..=SEEDS_MAX => Ok(SeedList(seeds)),
            _ => Err(format!(
                "at most {SEEDS_MAX} seeds; two or three of each data center are enough"
            )),
        }
    }
}

impl SeedList {
    /// The addresses, with `port` where none is given.
    ///
    /// # Errors
    /// One line that names the seed that cannot be found.
    pub(crate) fn resolve(&self, port: u16) -> Result<Vec<SocketAddr>, String> {
        let resolve = |seed: &String| {
            if let Ok(address) = seed.parse::<SocketAddr>() {
                return Ok(address);
            }
            let bare = seed.trim_start_matches('[').trim_end_matches(']');
            if let Ok(address) = bare.parse::<IpAddr>() {
                return Ok(SocketAddr::new(address, port));
            }
            let text = match seed.contains(':') {
                true => seed.clone(),
                false => format!("{seed}:{port}"),
            };
            let mut found = text
                .to_socket_addrs()
                .map_err(|error| format!("seeds: {seed} cannot be found: {error}"))?;
            found
                .next()
                .ok_or_else(|| format!("seeds: {seed} has no address"))
        };
        self.0.iter().map(resolve).collect()
    }
}

/// `initial_token`: tokens, sorted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Listed<Value>")]
pub(crate) struct TokenList(pub(crate) Vec<i64>);

impl TryFrom<Listed<Value>> for TokenList {
    type Error = String;

    fn try_from(listed: Listed<Value>) -> Result<Self, String> {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let parts: Vec<String> = match &listed {
            Listed::Parts(parts) => parts.iter().map(text).collect(),
            Listed::One(value) => text(value).split(',').map(str::to_owned).collect(),
        };
        let tokens: Result<Vec<i64>, String> = parts
            .iter()
            .map(|part| {
                let part = part.trim();
                part.parse().map_err(|_| {
                    format!("'{part}' is no token; tokens are numbers of 64 bits, with commas between them")
                })
            })
            .collect();
        let mut tokens = tokens?;
        tokens.sort_unstable();
        match tokens.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("token {} is there twice", pair[0])),
            None if tokens.is_empty() || tokens.len() > TOKENS_MAX => {
                Err(format!("must be 1 to {TOKENS_MAX} tokens"))
            }
            None => Ok(TokenList(tokens)),
        }
    }
}

/// `internode_compression`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LinkCompression {
    None,
    Dc,
    All,
}

impl From<LinkCompression> for InternodeCompression {
    fn from(compression: LinkCompression) -> Self {
        match compression {
            LinkCompression::None => Self::None,
            LinkCompression::Dc => Self::Datacenters,
            LinkCompression::All => Self::All,
        }
    }
}

impl Config {
    /// What is kept of writes that other nodes have missed.
    pub(crate) fn hints(&self) -> HintOptions {
        HintOptions {
            enabled: self.hinted_handoff_enabled,
            window: self.max_hint_window.duration(),
            size_per_host_max: match self.max_hints_size_per_host.bytes() {
                0 => u64::MAX,
                bytes => bytes,
            },
            throttle: self
                .hinted_handoff_throttle
                .map(|throttle| throttle.bytes())
                .filter(|bytes| *bytes > 0),
            disabled_datacenters: self.hinted_handoff_disabled_datacenters.clone(),
        }
    }

    pub(super) fn check_cluster(&self) -> Result<(), ConfigError> {
        if !PHI_BOUNDS.contains(&self.phi_convict_threshold) {
            return Err(ConfigError("phi_convict_threshold: must be 5 to 16".to_owned()));
        }
        let is_vague = |address: Option<IpAddr>| address.is_some_and(|address| address.is_unspecified());
        if is_vague(self.broadcast_address)
            || is_vague(Some(self.listen_address)) && self.broadcast_address.is_none()
        {
            return Err(ConfigError(
                "broadcast_address: other nodes need an address of this one; 0.0.0.0 is none".to_owned(),
            ));
        }
        if is_vague(self.broadcast_rpc_address)
            || is_vague(Some(self.rpc_address)) && self.broadcast_rpc_address.is_none()
        {
            return Err(ConfigError(
                "broadcast_rpc_address: clients need an address of this node; 0.0.0.0 is none; set it when rpc_address is \
                 0.0.0.0"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

/// The seeds of Cassandra's `seed_provider`.
pub(super) fn seeds_of_provider(value: &Value) -> Result<Value, String> {
    let provider = value.get(0).unwrap_or(value);
    let class = provider
        .get("class_name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if class.rsplit('.').next() != Some("SimpleSeedProvider") {
        return Err(format!(
            "seed_provider: '{class}' is not supported; use SimpleSeedProvider, or write seeds: [address, ...]"
        ));
    }
    let parameters = provider.get("parameters");
    let seeds = parameters.and_then(|parameters| parameters.get(0).unwrap_or(parameters).get("seeds"));
    seeds.cloned().ok_or_else(|| {
        "seed_provider: parameters has no seeds; write seeds: [address, ...] instead".to_owned()
    })
}

/// What `cassandra-rackdc.properties` beside the configuration says, where there is one.
pub(super) fn rackdc(configuration: &Path) -> Result<Vec<(&'static str, String)>, ConfigError> {
    let path = configuration.with_file_name(RACKDC_FILE);
    #[allow(clippy::disallowed_methods)] // before any shard runs
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ConfigError(format!("cannot read {}: {error}", path.display()))),
    };
    parse_rackdc(&text).map_err(|error| ConfigError(format!("{}: {error}", path.display())))
}

fn parse_rackdc(text: &str) -> Result<Vec<(&'static str, String)>, String> {
    let mut places = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let (key, value) = line.split_once(['=', ':']).unwrap_or((line, ""));
        let (key, value) = (key.trim(), value.trim());
        let key = match key {
            "dc" => "datacenter",
            "rack" => "rack",
            // Of no meaning here: links between nodes of one data center are not made in another way.
            "prefer_local" => continue,
            _ => {
                return Err(format!(
                    "line {}: unknown key '{key}'; known are dc and rack",
                    number + 1
                ));
            }
        };
        if value.is_empty() {
            return Err(format!("line {}: {key} has no value", number + 1));
        }
        places.push((key, value.to_owned()));
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn seeds_are_written_in_cassandras_ways() {
        let seeds = |text: &str| Config::parse(text).unwrap().seeds.resolve(7000).unwrap();
        let wanted: Vec<SocketAddr> =
            vec!["10.0.0.1:7000".parse().unwrap(), "10.0.0.2:7001".parse().unwrap()];
        assert_eq!(seeds("seeds: [10.0.0.1, '10.0.0.2:7001']"), wanted);
        assert_eq!(seeds("seeds: 10.0.0.1, 10.0.0.2:7001"), wanted);
        let provider = "seed_provider:\n  - class_name: org.apache.cassandra.locator.SimpleSeedProvider\n    parameters:\n      \
                        - seeds: \"10.0.0.1,10.0.0.2:7001\"";
        assert_eq!(seeds(provider), wanted);
        assert_eq!(
            seeds("seeds: ['::1', '[::2]:9']"),
            ["[::1]:7000".parse().unwrap(), "[::2]:9".parse().unwrap()]
        );
        assert!(error("seeds: []").starts_with("seeds: "));
        assert!(error("seed_provider:\n  - class_name: Mine").contains("not supported"));
        assert!(error("seeds: a\nseed_provider: b").contains("remove one of them"));
        let unknown = SeedList(vec!["no.such.host.invalid".to_owned()])
            .resolve(7000)
            .unwrap_err();
        assert!(
            unknown.contains("no.such.host.invalid cannot be found"),
            "{unknown}"
        );
    }

    #[test]
    fn tokens_and_bounds() {
        let tokens = |text: &str| Config::parse(text).unwrap().initial_token.unwrap().0;
        assert_eq!(tokens("initial_token: -5"), [-5]);
        assert_eq!(tokens("initial_token: 7,-9223372036854775808"), [i64::MIN, 7]);
        assert_eq!(tokens("initial_token: [3, '1']"), [1, 3]);
        assert!(error("initial_token: 1,1").contains("twice"));
        assert!(error("initial_token: x").contains("is no token"));
        assert!(error("phi_convict_threshold: 1").starts_with("phi_convict_threshold: "));
        assert!(error("listen_address: 0.0.0.0").starts_with("broadcast_address: "));
        assert!(error("rpc_address: 0.0.0.0").starts_with("broadcast_rpc_address: "));
        assert!(Config::parse("rpc_address: 0.0.0.0\nbroadcast_rpc_address: 10.0.0.1").is_ok());
    }

    #[test]
    fn hints_and_links() {
        let config = Config::parse(
            "max_hint_window_in_ms: 1000\nhinted_handoff_throttle_in_kb: 2\nmax_hints_size_per_host: 0MiB\n\
             hinted_handoff_disabled_datacenters: [dc2]\ninternode_compression: all",
        )
        .unwrap();
        let hints = config.hints();
        assert_eq!(hints.window, std::time::Duration::from_secs(1));
        assert_eq!((hints.throttle, hints.size_per_host_max), (Some(2048), u64::MAX));
        assert_eq!(hints.disabled_datacenters, ["dc2"]);
        assert!(matches!(
            config.internode_compression.into(),
            InternodeCompression::All
        ));
        let (given, without) = (Config::default().hints(), HintOptions::default());
        assert_eq!((given.window, given.throttle), (without.window, without.throttle));
        assert_eq!(
            (given.enabled, given.size_per_host_max),
            (without.enabled, without.size_per_host_max)
        );
    }

    #[test]
    fn the_rackdc_file_holds_where_the_configuration_is_silent() {
        let places = parse_rackdc("# where\ndc=DC1\n rack = RAC2\nprefer_local=true\n").unwrap();
        let (config, _) = Config::parse_with_notes("rack: mine", &places).unwrap();
        assert_eq!((&*config.datacenter, &*config.rack), ("DC1", "mine"));
        assert!(parse_rackdc("dc").unwrap_err().contains("line 1"));
        assert!(
            parse_rackdc("\ndatacentre=x")
                .unwrap_err()
                .contains("line 2: unknown key")
        );
        let folder = tempfile::tempdir().unwrap();
        assert!(rackdc(&folder.path().join("ceto.yaml")).unwrap().is_empty());
    }
}
