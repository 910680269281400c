//! What a request costs the server's processor, beside a bare io_uring echo on the same core, kernel and sizes.
//!
//! `run` is the benchmark; `echo` and `load` are its parts. Read next: `benchmark` for the method, `load` for the
//! client, `echo` for what the ratio is taken to. See perf/README.md for how to read the figures.

mod benchmark;
mod conversation;
mod cql;
mod echo;
mod figures;
mod load;
mod process;
mod ring;
mod session;
mod sockets;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use ceto_native::ProtocolVersion;
use clap::{Parser, Subcommand};

use cql::{Cql, Operation};
use figures::Round;
use load::{Pace, Plan};
use sockets::Sockets;

/// Server processor time per request, beside a bare io_uring echo.
#[derive(Parser)]
#[command(name = "ceto-perf-wire", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve as the bare echo
    Echo {
        /// Address to listen on
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Load a server that runs already
    Load(LoadArguments),
    /// Load echo and ceto in turns, and print a JSON line per workload
    Run(benchmark::Arguments),
}

#[derive(clap::Args)]
struct LoadArguments {
    /// The server is a bare echo, not a database
    #[arg(long)]
    echo: bool,
    /// Its address
    #[arg(long, default_value = "127.0.0.1:9042")]
    address: SocketAddr,
    /// Its process, whose processor time is counted
    #[arg(long)]
    pid: u32,
    /// Connections
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Requests in flight per connection (closed loop)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: u16,
    /// Requests per second over all connections (open loop), instead of requests in flight
    #[arg(long, conflicts_with = "in_flight")]
    rate: Option<u64>,
    /// Seconds that are measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Seconds before that
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=3600))]
    warm_up: u64,
    /// Core of the client
    #[arg(long)]
    core: Option<usize>,
    /// What requests do
    #[arg(long, value_enum, default_value = "read")]
    operation: Operation,
    /// Rows of the table; written first
    #[arg(long, default_value_t = 10_000)]
    rows: u64,
    /// Native protocol version
    #[arg(long, default_value = "4", value_parser = protocol_version)]
    protocol: ProtocolVersion,
    /// Bytes of a request to the echo
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=65_536))]
    request_length: u32,
    /// Bytes of an answer of the echo
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=65_536))]
    response_length: u32,
}

/// Exit status of a command that was used wrongly.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    let result = match &arguments.command {
        Command::Echo { listen } => echo::serve(*listen),
        Command::Load(arguments) => load_one(arguments),
        Command::Run(arguments) => benchmark::run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ceto-perf-wire: {error}");
            ExitCode::FAILURE
        }
    }
}

fn load_one(arguments: &LoadArguments) -> Result<(), String> {
    if let Some(core) = arguments.core {
        process::pin(core)?;
    }
    let plan = Plan {
        pace: arguments
            .rate
            .map_or(Pace::InFlight(arguments.in_flight), Pace::PerSecond),
        warm_up: Duration::from_secs(arguments.warm_up),
        duration: Duration::from_secs(arguments.seconds),
    };
    let sockets = Sockets::new().map_err(|error| format!("io_uring is not available: {error}"))?;
    let (address, connections) = (arguments.address, usize::from(arguments.connections));
    let measured = if arguments.echo {
        let lengths = (
            arguments.request_length as usize,
            arguments.response_length as usize,
        );
        let peers = benchmark::open_echo(address, lengths, connections)?;
        load::run(sockets, peers, plan, arguments.pid)?
    } else {
        cql::load_rows(address, arguments.protocol, arguments.rows)?;
        let peers = Cql::open(
            address,
            arguments.protocol,
            arguments.operation,
            arguments.rows,
            connections,
        )?;
        load::run(sockets, peers, plan, arguments.pid)?
    };
    println!("{}", Round::new(&measured));
    Ok(())
}

/// `4` or `5`; `3` too.
pub(crate) fn protocol_version(text: &str) -> Result<ProtocolVersion, String> {
    let version = text.parse().ok().and_then(ProtocolVersion::from_number);
    version.ok_or_else(|| "a native protocol version is 3, 4 or 5".to_owned())
}
