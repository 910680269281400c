//! Settings of the commitlog that are more than a number.

use std::collections::BTreeMap;

use ceto_node::options;
use serde::{Deserialize, Serialize};

/// `commitlog_compression`: a list of one compressor, as cassandra.yaml writes it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct CommitlogCompression(Vec<Compressor>);

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Compressor {
    class_name: String,
    #[serde(default)]
    parameters: Option<Vec<Option<BTreeMap<String, serde_json::Value>>>>,
}

impl CommitlogCompression {
    /// What storage is told; one line when the class or a parameter is not known.
    pub(crate) fn compression(&self) -> Result<options::Compression, String> {
        let [compressor] = &self.0[..] else {
            return Err("commitlog_compression: exactly one compressor can be given".to_owned());
        };
        let mut parameters = BTreeMap::from([("class".to_owned(), compressor.class_name.clone())]);
        for (key, value) in compressor.parameters.iter().flatten().flatten().flatten() {
            if key != "compression_level" {
                let text = format!(
                    "commitlog_compression: unknown parameter '{key}'; the only one is compression_level"
                );
                return Err(text);
            }
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            parameters.insert(key.clone(), text);
        }
        options::Compression::from_options(&parameters).map_err(|error| {
            let known = "LZ4Compressor, ZstdCompressor, SnappyCompressor, DeflateCompressor";
            format!("commitlog_compression: {error}; known classes are {known}")
        })
    }
}

/// `commit_failure_policy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CommitFailurePolicy {
    Die,
    Stop,
    StopCommit,
    Ignore,
}

impl From<CommitFailurePolicy> for options::CommitFailurePolicy {
    fn from(policy: CommitFailurePolicy) -> Self {
        match policy {
            CommitFailurePolicy::Die => options::CommitFailurePolicy::Die,
            CommitFailurePolicy::Stop => options::CommitFailurePolicy::Stop,
            CommitFailurePolicy::StopCommit => options::CommitFailurePolicy::StopCommit,
            CommitFailurePolicy::Ignore => options::CommitFailurePolicy::Ignore,
        }
    }
}

/// `commitlog_replay_failure_policy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReplayFailurePolicy {
    Stop,
    BestEffort,
    Ignore,
}

impl From<ReplayFailurePolicy> for options::ReplayFailurePolicy {
    fn from(policy: ReplayFailurePolicy) -> Self {
        match policy {
            ReplayFailurePolicy::Stop => options::ReplayFailurePolicy::Stop,
            ReplayFailurePolicy::BestEffort => options::ReplayFailurePolicy::BestEffort,
            ReplayFailurePolicy::Ignore => options::ReplayFailurePolicy::Ignore,
        }
    }
}
