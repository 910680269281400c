//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A parsed command line.
#[derive(Parser, Debug)]
#[command(
    name = "ceto sstable",
    about = "Show, check and salvage sstables without a node",
    disable_help_subcommand = true
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Print partitions as JSON, one line each, in the shape of sstabledump
    Dump {
        #[command(flatten)]
        paths: Paths,
        /// Print partition keys only
        #[arg(short = 'e', long)]
        enumerate_keys: bool,
        /// Print this partition only; components of a composite key are joined with ':'
        #[arg(short = 'k', long, value_name = "KEY")]
        key: Vec<String>,
        /// Leave this partition out
        #[arg(short = 'x', long, value_name = "KEY")]
        exclude: Vec<String>,
        /// Print times as numbers
        #[arg(short = 't', long)]
        raw_timestamps: bool,
        /// As sstabledump has it; the output is JSON lines always
        #[arg(short = 'l', long, hide = true)]
        json_lines: bool,
    },
    /// Check all checksums, digests and orders
    Verify {
        #[command(flatten)]
        paths: Paths,
    },
    /// Write new sstables from whatever is readable; the node must not run
    Scrub {
        #[command(flatten)]
        paths: Paths,
    },
    /// Print what sstables say about themselves
    Stats {
        #[command(flatten)]
        paths: Paths,
        /// Seconds of gc grace that the share of droppable tombstones is told for
        #[arg(short = 'g', long, value_name = "SECONDS", default_value_t = 864_000)]
        gc_grace_seconds: u32,
    },
}

/// Which sstables.
#[derive(Args, Debug)]
pub(crate) struct Paths {
    /// Folder of a table, or a file of an sstable (ceto-a-0-1-Data.db)
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
}
