//! The command line: options and verbs as nodetool has them.
//!
//! `-h` is the host here, as in nodetool; help is `--help` or the verb `help`. The connection's options are accepted
//! before and after the verb.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::backup::{
    ClearSnapshotArguments, ImportArguments, ListSnapshotsArguments, RefreshArguments, SnapshotArguments,
};

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
    /// Force a (major) compaction on one or more tables
    Compact(Target),
    /// Flush everything and stop serving clients
    Drain,
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
    /// Enable incremental backup
    Enablebackup,
    /// Disable incremental backup
    Disablebackup,
    /// Status of incremental backup
    Statusbackup,
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

/// Parses what follows the word `nodetool`.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
    let words = arguments.into_iter().map(crate::backup::two_letter_option);
    Arguments::try_parse_from(std::iter::once(OsString::from("ceto nodetool")).chain(words))
}
