//! The command line: options and verbs as nodetool has them.
//!
//! `-h` is the host here, as in nodetool; help is `--help` or the verb `help`. The connection's options are accepted
//! before and after the verb.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::backup::{
    ClearSnapshotArguments, ImportArguments, ListSnapshotsArguments, RefreshArguments, SnapshotArguments,
};
use crate::moves::{DecommissionArguments, RebuildArguments, RemoveNodeArguments};
use crate::settings::{GetGuardrailsArguments, SetGuardrailsArguments};

/// Host of the admin API when none is given.
const DEFAULT_HOST: &str = "127.0.0.1";
/// Port of the admin API when none is given.
const DEFAULT_PORT: u16 = 10000;

/// A parsed command line.
#[derive(Parser, Debug)]
#[command(
    name = "ceto nodetool",
    about = "Manage a running node through its admin API",
    disable_help_flag = true
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help, global = true)]
    help: Option<bool>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Where the admin API is.
#[derive(Args, Debug)]
pub(crate) struct Connection {
    /// Node hostname or ip address
    #[arg(short = 'h', long, global = true, default_value = DEFAULT_HOST, value_name = "HOST")]
    pub(crate) host: String,
    /// Admin API port
    #[arg(short = 'p', long, global = true, default_value_t = DEFAULT_PORT, value_name = "PORT")]
    pub(crate) port: u16,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Print node information (uptime, load, ...)
    Info {
        /// Display all tokens
        #[arg(short = 'T', long)]
        tokens: bool,
    },
    /// Print cluster information (state, load, IDs, ...)
    Status {
        /// Count ownership for this keyspace's replication
        keyspace: Option<String>,
    },
    /// Print the name, nodes, schema versions and keyspaces of the cluster
    Describecluster,
    /// Show the gossip information for the cluster
    Gossipinfo,
    /// Show how sure the failure detector is of each node
    Failuredetector,
    /// Print information about the token ring
    Ring {
        /// Count ownership for this keyspace's replication
        keyspace: Option<String>,
    },
    /// Show the token ranges of a keyspace and who holds them
    Describering {
        /// The keyspace
        keyspace: String,
    },
    /// Make a node that is down no member any more, without moving its data
    Assassinate {
        /// Its address
        address: String,
    },
    /// Leave the cluster: others copy what this node owns, then it is no member any more
    Decommission(DecommissionArguments),
    /// Have a node that is being decommissioned stay
    Abortdecommission {
        /// Its address or host id; this node when absent
        #[arg(long)]
        node: Option<String>,
    },
    /// Remove a node that is down: others copy what it owned
    Removenode(RemoveNodeArguments),
    /// Copy what this node owns from other nodes
    Rebuild(RebuildArguments),
    /// Print what moves between nodes, and how far it is
    Netstats,
    /// Print the release version
    Version {
        /// Also print the version of CetoDB
        #[arg(short, long)]
        verbose: bool,
    },
    /// Print statistics on tables
    #[command(visible_alias = "cfstats")]
    Tablestats(TableStatsArguments),
    /// Flush one or more tables
    Flush(Target),
    /// Force a (major) compaction on one or more tables, or of the given sstables
    Compact(CompactArguments),
    /// Remove partitions that do not belong to the node
    Cleanup(JobsAndTarget),
    /// Write sstables anew without what cannot be read
    Scrub(ScrubArguments),
    /// Write sstables anew that are not as this version and the tables' options have them
    Upgradesstables(UpgradeArguments),
    /// Remove deleted and overwritten data from sstables
    Garbagecollect(GarbageArguments),
    /// Print statistics on compactions
    Compactionstats {
        /// Display bytes in human readable form
        #[arg(short = 'H', long)]
        human_readable: bool,
        /// Print a line of name and value for each of a compaction's figures
        #[arg(short = 'V', long)]
        vtable: bool,
    },
    /// Print the history of compactions
    Compactionhistory {
        /// Display bytes in human readable form
        #[arg(short = 'H', long)]
        human_readable: bool,
        /// Output format
        #[arg(short = 'F', long, value_enum)]
        format: Option<OutputFormat>,
    },
    /// Stop compactions
    Stop {
        /// Only the one of this id
        #[arg(long = "compaction-id", visible_alias = "id", value_name = "COMPACTION-ID")]
        id: Option<String>,
        /// Only those of this type: COMPACTION, MAJOR_COMPACTION, CLEANUP, SCRUB, UPGRADE_SSTABLES, GARBAGE_COLLECT, ...
        #[arg(value_parser = compaction_type, value_name = "COMPACTION_TYPE")]
        kind: Option<String>,
    },
    /// Print what compactions may write
    Getcompactionthroughput {
        /// With fractions of a MiB/s
        #[arg(short = 'd', long = "precise-mib")]
        precise: bool,
    },
    /// Set what compactions may write, in MiB/s, until the next start; 0 for no limit
    Setcompactionthroughput {
        /// MiB/s
        throughput: u64,
    },
    /// Print the addresses of a partition's replicas
    Getendpoints {
        /// Keyspace
        keyspace: String,
        /// Table
        table: String,
        /// Partition key; with : between the values of several columns
        #[arg(allow_hyphen_values = true)]
        key: String,
    },
    /// Print whether hints are kept for nodes that miss writes
    Statushandoff,
    /// Keep hints for nodes that miss writes
    Enablehandoff,
    /// Keep no hints any more, until the next start; those that are kept are delivered
    Disablehandoff,
    /// Deliver no hints for now
    Pausehandoff,
    /// Deliver hints again
    Resumehandoff,
    /// Print for which nodes hints wait
    Listpendinghints,
    /// Remove the hints that wait, of all nodes or of some
    Truncatehints {
        /// Addresses of nodes
        #[arg(value_name = "ENDPOINT")]
        addresses: Vec<String>,
    },
    /// Print what the node may stream to others, in megabits per second
    Getstreamthroughput {
        /// In MiB/s
        #[arg(short, long, conflicts_with = "precise")]
        mib: bool,
        /// With fractions of a megabit
        #[arg(short = 'd', long = "precise-mbit")]
        precise: bool,
    },
    /// Set what the node may stream to others, in megabits per second, until the next start; 0 for no limit
    Setstreamthroughput {
        /// In MiB/s
        #[arg(short, long)]
        mib: bool,
        /// Megabits (or MiB) per second
        #[arg(value_name = "STREAM_THROUGHPUT")]
        throughput: u64,
    },
    /// Print for how many compactions a shard has room at the same time
    Getconcurrentcompactors,
    /// Let compactions of tables start by themselves, until the next start
    Enableautocompaction(Target),
    /// Let compactions of tables start on request only, until the next start
    Disableautocompaction(Target),
    /// Print whether compactions of tables start by themselves
    Statusautocompaction {
        /// One line for each table
        #[arg(short, long)]
        all: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Print runtime configuration of guardrails
    Getguardrailsconfig(GetGuardrailsArguments),
    /// Modify runtime configuration of guardrails, until the next start
    Setguardrailsconfig(SetGuardrailsArguments),
    /// Print the timeout of a type of requests: read, range, write, counterwrite, truncate
    Gettimeout {
        /// The type
        #[arg(value_name = "TIMEOUT_TYPE")]
        kind: String,
    },
    /// Set the timeout of a type of requests, in milliseconds, until the next start
    Settimeout {
        /// The type
        #[arg(value_name = "TIMEOUT_TYPE")]
        kind: String,
        /// Milliseconds
        #[arg(value_name = "TIMEOUT_IN_MS")]
        millis: u64,
    },
    /// Print the part of requests that are traced unasked
    Gettraceprobability,
    /// Trace a part of requests unasked, until the next start
    Settraceprobability {
        /// From 0 to 1
        #[arg(value_name = "VALUE")]
        probability: f64,
    },
    /// Print the levels of logs
    Getlogginglevels,
    /// Set the level of logs of a part, until the next start; without arguments: the default of all
    Setlogginglevel {
        /// A crate or module (`ceto_storage::compaction`), or `ROOT`
        #[arg(value_name = "COMPONENT")]
        component: Option<String>,
        /// trace, debug, info, warn, error or off; without it the part has the level of all others
        level: Option<String>,
    },
    /// Serve clients again
    Enablebinary,
    /// Stop serving clients: close their connections and refuse new ones
    Disablebinary,
    /// Print whether clients are served
    Statusbinary,
    /// Print whether the node takes part in gossip
    Statusgossip,
    /// Flush everything and stop serving clients
    Drain,
    /// What nodetool has and this node has not
    #[command(external_subcommand)]
    Unknown(Vec<String>),
    /// Take a snapshot of specified keyspaces or a snapshot of the specified table
    Snapshot(SnapshotArguments),
    /// List all the snapshots along with the size on disk and true size
    Listsnapshots(ListSnapshotsArguments),
    /// Remove the snapshot with the given name from the given keyspaces
    Clearsnapshot(ClearSnapshotArguments),
    /// Load newly placed SSTables to the system without restart
    Refresh(RefreshArguments),
    /// Import new SSTables to the system
    Import(ImportArguments),
    /// Show progress of a materialized view build
    Viewbuildstatus(ViewBuildStatusArguments),
    /// A full rebuild of native secondary indexes for a given table
    #[command(name = "rebuild_index")]
    RebuildIndex(RebuildIndexArguments),
    /// Enable incremental backup
    Enablebackup,
    /// Disable incremental backup
    Disablebackup,
    /// Status of incremental backup
    Statusbackup,
}

/// `viewbuildstatus`
#[derive(Args, Debug)]
pub(crate) struct ViewBuildStatusArguments {
    /// Keyspace, or keyspace.view
    #[arg(value_name = "KEYSPACE")]
    pub(crate) keyspace: String,
    /// The view
    #[arg(value_name = "VIEW")]
    pub(crate) view: Option<String>,
}

/// `rebuild_index`
#[derive(Args, Debug)]
pub(crate) struct RebuildIndexArguments {
    /// The keyspace, the table, and the indexes' names
    #[arg(value_name = "KEYSPACE TABLE INDEX...")]
    pub(crate) names: Vec<String>,
}

/// What `stop` may name: nodetool's types of operations, of which the last ones never run here.
const COMPACTION_TYPES: [&str; 20] = [
    "COMPACTION",
    "MAJOR_COMPACTION",
    "USER_DEFINED_COMPACTION",
    "TOMBSTONE_COMPACTION",
    "CLEANUP",
    "SCRUB",
    "UPGRADE_SSTABLES",
    "GARBAGE_COLLECT",
    "VALIDATION",
    "ANTICOMPACTION",
    "VERIFY",
    "INDEX_BUILD",
    "VIEW_BUILD",
    "INDEX_SUMMARY",
    "RELOCATE",
    "KEY_CACHE_SAVE",
    "ROW_CACHE_SAVE",
    "COUNTER_CACHE_SAVE",
    "FLUSH",
    "UNKNOWN",
];

fn compaction_type(word: &str) -> Result<String, String> {
    match COMPACTION_TYPES
        .iter()
        .find(|known| known.eq_ignore_ascii_case(word))
    {
        Some(known) => Ok((*known).to_owned()),
        None => Err(format!("it is one of {}", COMPACTION_TYPES[..8].join(", "))),
    }
}

/// The arguments of `tablestats`.
#[derive(Args, Debug, Default)]
pub(crate) struct TableStatsArguments {
    /// Show all but the given keyspaces and tables
    #[arg(short, long)]
    pub(crate) ignore: bool,
    /// Display bytes in human readable form
    #[arg(short = 'H', long)]
    pub(crate) human_readable: bool,
    /// Output format
    #[arg(short = 'F', long, value_enum)]
    pub(crate) format: Option<OutputFormat>,
    /// Keyspaces (keyspace) or tables (keyspace.table)
    #[arg(value_name = "KEYSPACE.TABLE")]
    pub(crate) names: Vec<String>,
}

/// An output format other than the table.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OutputFormat {
    /// The API's document.
    Json,
}

/// What `flush` and `compact` work on: everything, a keyspace, or tables of it.
#[derive(Args, Debug)]
pub(crate) struct Target {
    /// The keyspace; all when absent
    pub(crate) keyspace: Option<String>,
    /// Its tables; all when absent
    pub(crate) tables: Vec<String>,
}

/// The arguments of `compact`.
#[derive(Args, Debug)]
pub(crate) struct CompactArguments {
    /// Do not write one sstable, but each half as large as the one before (size-tiered tables)
    #[arg(short = 's', long)]
    pub(crate) split_output: bool,
    /// Compact the named Data files with each other
    #[arg(long)]
    pub(crate) user_defined: bool,
    /// Only sstables that have something at this token or behind it
    #[arg(long, visible_alias = "st", value_name = "TOKEN", allow_hyphen_values = true)]
    pub(crate) start_token: Option<i64>,
    /// Only sstables that have something at this token or before it
    #[arg(long, visible_alias = "et", value_name = "TOKEN", allow_hyphen_values = true)]
    pub(crate) end_token: Option<i64>,
    /// A keyspace and its tables, or Data files
    #[arg(value_name = "KEYSPACE TABLES | FILES")]
    pub(crate) names: Vec<String>,
}

/// Tables, and how many sstables at a time.
#[derive(Args, Debug)]
pub(crate) struct JobsAndTarget {
    /// Taken as nodetool's; every shard works on one sstable at a time
    #[arg(short, long, value_name = "JOBS")]
    pub(crate) jobs: Option<u32>,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// The arguments of `scrub`.
#[derive(Args, Debug)]
pub(crate) struct ScrubArguments {
    /// Taken as nodetool's; no snapshot is made
    #[arg(long, visible_alias = "ns")]
    pub(crate) no_snapshot: bool,
    /// Taken as nodetool's; what cannot be read is always passed over
    #[arg(short, long)]
    pub(crate) skip_corrupted: bool,
    /// Taken as nodetool's; values are not looked into
    #[arg(short, long)]
    pub(crate) no_validate: bool,
    /// Taken as nodetool's; there are no overflowed times to live here
    #[arg(short, long)]
    pub(crate) reinsert_overflowed_ttl: bool,
    #[command(flatten)]
    pub(crate) rest: JobsAndTarget,
}

/// The arguments of `upgradesstables`.
#[derive(Args, Debug)]
pub(crate) struct UpgradeArguments {
    /// All sstables
    #[arg(short = 'a', long)]
    pub(crate) include_all_sstables: bool,
    #[command(flatten)]
    pub(crate) rest: JobsAndTarget,
}

/// The arguments of `garbagecollect`.
#[derive(Args, Debug)]
pub(crate) struct GarbageArguments {
    /// ROW: what whole rows or more shadow; CELL: single cells too
    #[arg(short, long, value_name = "GRANULARITY", default_value = "ROW")]
    pub(crate) granularity: String,
    #[command(flatten)]
    pub(crate) rest: JobsAndTarget,
}

/// Parses what follows the word `nodetool`.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
    let words = arguments.into_iter().map(crate::backup::two_letter_option);
    Arguments::try_parse_from(std::iter::once(OsString::from("ceto nodetool")).chain(words))
}
