//! The whole benchmark: the echo and the database, each pinned to the same core, loaded in turns from another.
//!
//! Rounds are interleaved (echo, database, echo, database ...) and ratios are taken within a round, so that what else
//! the machine does hits both. Reads come before writes: a flush forced by the writes would move the rows that are read.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ceto_native::ProtocolVersion;
use serde_json::json;

use crate::conversation::FixedSize;
use crate::cql::{self, Cql, Operation};
use crate::figures::{self, Round};
use crate::load::{self, Pace, Plan};
use crate::process::{self, Server};
use crate::sockets::Sockets;

/// Rates of the half load are multiples of this, per second.
const RATE_STEP: u64 = 1000;

/// Arguments of `run`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The server's binary
    #[arg(long, default_value = "target/release/ceto")]
    ceto: PathBuf,
    /// Folder for its data; without it a temporary one
    #[arg(long)]
    data: Option<PathBuf>,
    /// Times that each measurement is made
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of a measurement
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Seconds before each measurement that do not count
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=3600))]
    warm_up: u64,
    /// Connections
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,
    /// Requests in flight per connection in the second workload
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: u16,
    /// Requests per second in the third workload; without it half of what the first one reached
    #[arg(long)]
    rate: Option<u64>,
    /// Rows of the table
    #[arg(long, default_value_t = 10_000)]
    rows: u64,
    /// Native protocol version
    #[arg(long, default_value = "4", value_parser = crate::protocol_version)]
    protocol: ProtocolVersion,
    /// What requests do; both by default
    #[arg(long, value_enum)]
    operation: Option<Operation>,
    /// Core of the servers
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the client
    #[arg(long, default_value_t = 1)]
    client_core: usize,
}

/// Runs everything; a JSON line per workload goes to stdout, all the rest to stderr.
pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let temporary =
        tempfile::tempdir().map_err(|error| format!("cannot create a temporary folder: {error}"))?;
    let data = arguments
        .data
        .clone()
        .unwrap_or_else(|| temporary.path().to_owned());
    let echo = Target::echo(arguments)?;
    let ceto = Target::ceto(arguments, &data)?;
    process::pin(arguments.client_core)?;
    cql::load_rows(ceto.address, arguments.protocol, arguments.rows)?;
    let mut bench = Bench {
        arguments,
        echo,
        ceto,
        sockets: Sockets::new().map_err(|error| format!("io_uring is not available: {error}"))?,
    };
    let operations = arguments
        .operation
        .map_or(vec![Operation::Read, Operation::Write], |one| vec![one]);
    operations
        .into_iter()
        .try_for_each(|operation| bench.measure(operation))
}

/// A server under test.
struct Target {
    server: Server,
    address: SocketAddr,
}

impl Target {
    fn echo(arguments: &Arguments) -> Result<Target, String> {
        let program =
            std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_ports::<1>()?[0]));
        let words = ["echo".to_owned(), "--listen".to_owned(), address.to_string()];
        Ok(Target {
            server: Server::start(&program, &words, arguments.server_core)?,
            address,
        })
    }

    fn ceto(arguments: &Arguments, data: &Path) -> Result<Target, String> {
        let [native, shard_aware, admin, metrics] = free_ports::<4>()?;
        let mut words = vec!["dev".to_owned(), "--data".to_owned(), data.display().to_string()];
        let ports = [
            ("--native-port", native),
            ("--shard-aware-port", shard_aware),
            ("--admin-port", admin),
            ("--metrics-port", metrics),
        ];
        for (name, port) in ports {
            words.extend([name.to_owned(), port.to_string()]);
        }
        let server = Server::start(&arguments.ceto, &words, arguments.server_core)?;
        Ok(Target {
            server,
            address: SocketAddr::from(([127, 0, 0, 1], native)),
        })
    }
}

/// Ports that nobody listens on now.
fn free_ports<const N: usize>() -> Result<[u16; N], String> {
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        *port = listener.local_addr().map_err(|error| error.to_string())?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

struct Bench<'a> {
    arguments: &'a Arguments,
    echo: Target,
    ceto: Target,
    sockets: &'static mut Sockets,
}

/// A workload and its rounds so far.
struct Workload {
    name: String,
    pace: Pace,
    echo: Vec<Round>,
    ceto: Vec<Round>,
}

impl Workload {
    fn new(name: String, pace: Pace) -> Workload {
        Workload {
            name,
            pace,
            echo: Vec::new(),
            ceto: Vec::new(),
        }
    }
}

impl Bench<'_> {
    fn measure(&mut self, operation: Operation) -> Result<(), String> {
        let lengths = cql::lengths(self.ceto.address, self.arguments.protocol, operation)?;
        let connections = self.arguments.connections;
        let in_flight = self.arguments.in_flight;
        let name = operation.name();
        eprintln!(
            "{name}: requests of {} bytes, answers of {}",
            lengths.0, lengths.1
        );
        let mut workloads = vec![
            Workload::new(format!("{name}-{connections}x1"), Pace::InFlight(1)),
            Workload::new(
                format!("{name}-{connections}x{in_flight}"),
                Pace::InFlight(in_flight),
            ),
        ];
        for round in 0..self.arguments.rounds {
            if round == 0 {
                let first = &mut workloads[0];
                self.round(first, operation, lengths)?;
                let rate = self.arguments.rate.unwrap_or_else(|| half(&first.ceto));
                workloads.push(Workload::new(format!("{name}-half-load"), Pace::PerSecond(rate)));
            }
            for workload in &mut workloads {
                if workload.ceto.len() <= round as usize {
                    self.round(workload, operation, lengths)?;
                }
            }
        }
        for workload in &workloads {
            self.report(workload, lengths);
        }
        Ok(())
    }

    /// One measurement of each server.
    fn round(
        &mut self,
        workload: &mut Workload,
        operation: Operation,
        lengths: (usize, usize),
    ) -> Result<(), String> {
        let arguments = self.arguments;
        let plan = Plan {
            pace: workload.pace,
            warm_up: Duration::from_secs(arguments.warm_up),
            duration: Duration::from_secs(arguments.seconds),
        };
        let connections = usize::from(arguments.connections);
        let peers = open_echo(self.echo.address, lengths, connections)?;
        let echo = Round::new(&load::run(self.sockets, peers, plan, self.echo.server.id())?);
        eprintln!("{:16} echo {echo}", workload.name);
        let peers = Cql::open(
            self.ceto.address,
            arguments.protocol,
            operation,
            arguments.rows,
            connections,
        )?;
        let ceto = Round::new(&load::run(self.sockets, peers, plan, self.ceto.server.id())?);
        eprintln!(
            "{:16} ceto {ceto}  ratio {:.2}",
            workload.name,
            ceto.server_us / echo.server_us
        );
        workload.echo.push(echo);
        workload.ceto.push(ceto);
        Ok(())
    }

    fn report(&self, workload: &Workload, lengths: (usize, usize)) {
        let (in_flight, rate) = match workload.pace {
            Pace::InFlight(in_flight) => (Some(in_flight), None),
            Pace::PerSecond(rate) => (None, Some(rate)),
        };
        let line = json!({
            "benchmark": "wire",
            "workload": workload.name,
            "protocol": self.arguments.protocol.number(),
            "connections": self.arguments.connections,
            "in_flight": in_flight,
            "rate": rate,
            "request_bytes": lengths.0,
            "response_bytes": lengths.1,
            "rounds": self.arguments.rounds,
            "seconds": self.arguments.seconds,
            "echo": figures::summary(&workload.echo),
            "ceto": figures::summary(&workload.ceto),
            "ratio": figures::ratios(&workload.ceto, &workload.echo),
        });
        println!("{line}");
        let cpu = figures::ratio(&workload.ceto, &workload.echo, |round| round.server_us);
        let p99 = figures::ratio(&workload.ceto, &workload.echo, |round| round.p99_us);
        if let (Some(cpu), Some(p99)) = (cpu, p99) {
            eprintln!(
                "{:16} server time per operation, ceto over echo: {:.2} ({:.2} to {:.2}); p99: {:.2} ({:.2} to {:.2})",
                workload.name, cpu.median, cpu.lowest, cpu.highest, p99.median, p99.lowest, p99.highest
            );
        }
    }
}

/// Connections to the echo.
pub(crate) fn open_echo(
    address: SocketAddr,
    (request, response): (usize, usize),
    count: usize,
) -> Result<Vec<(TcpStream, FixedSize)>, String> {
    let connect = |_| {
        let stream =
            TcpStream::connect(address).map_err(|error| format!("cannot connect to {address}: {error}"))?;
        Ok((stream, FixedSize::new(request, response)))
    };
    (0..count).map(connect).collect()
}

/// Half of the throughput of the first round.
fn half(rounds: &[Round]) -> u64 {
    let reached = rounds.first().map_or(0.0, |round| round.operations_per_second);
    ((reached / 2.0) as u64 / RATE_STEP * RATE_STEP).max(RATE_STEP)
}
