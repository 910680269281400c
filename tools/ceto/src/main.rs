//! `ceto`: the one binary. Each subcommand is a library; this file only chooses.

mod config;
mod dev;
mod dev_cluster;
mod identity;
mod logging;
mod memory;
mod runtime_metrics;
mod server;
mod start;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: ceto_runtime::Allocator = ceto_runtime::Allocator;

/// A shard-per-core, Cassandra-compatible distributed database.
#[derive(Parser)]
#[command(name = "ceto", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start one node, or several, on loopback, without configuration, for development
    Dev(dev::DevArguments),
    /// Start a node as its configuration file says
    Server(server::ServerArguments),
    /// Ask or tell a running node something, with nodetool's words
    #[command(disable_help_flag = true)]
    Nodetool {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Show, check and salvage sstables without a node
    #[command(disable_help_flag = true)]
    Sstable {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Load a node, with cassandra-stress's words
    #[command(disable_help_flag = true)]
    Stress {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// Exit status of a command that was used wrongly.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let result = match arguments.command {
        Command::Dev(arguments) => dev::run(&arguments),
        Command::Server(arguments) => server::run(&arguments),
        Command::Nodetool { arguments } => return ExitCode::from(ceto_nodetool::run(arguments)),
        Command::Sstable { arguments } => return ExitCode::from(ceto_sstable::run(arguments)),
        Command::Stress { arguments } => return ExitCode::from(ceto_stress::run(arguments)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(start::StartError::Usage(text)) => {
            eprintln!("ceto: {text}");
            ExitCode::from(EXIT_USAGE)
        }
        Err(start::StartError::Failed(text)) => {
            eprintln!("ceto: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Help and version go to stdout; a mistake is one line on stderr.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        print!("{error}");
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        eprintln!("ceto: a command is required (see `ceto --help`)");
        return ExitCode::from(EXIT_USAGE);
    }
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    eprintln!("ceto: {} (see `ceto --help`)", line.trim_start_matches("error: "));
    ExitCode::from(EXIT_USAGE)
}
