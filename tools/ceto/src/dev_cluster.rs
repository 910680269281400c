//! `ceto dev --nodes N`: a cluster on one machine, each node a process of its own on the next loopback address.
//!
//! The first node founds the cluster, the others join it one after the other. This process only starts them, says what
//! became of each, and ends them when it is told to end. A node that ends by itself (or is killed) stays away: that is
//! what one starts a cluster on one machine for.

#![allow(clippy::disallowed_methods)] // no shard runs in this process

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::dev::{DevArguments, TEMPORARY_PREFIX};
use crate::start::StartError;

/// How long a node has to be ready, on a slow machine.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long nodes have to drain.
const END_TIMEOUT: Duration = Duration::from_secs(40);

/// Between two looks at the nodes.
const POLL: Duration = Duration::from_millis(50);

struct NodeProcess {
    number: u8,
    address: IpAddr,
    child: Child,
    has_ended: bool,
}

/// Starts the nodes, and runs until SIGTERM or SIGINT.
pub(crate) fn run(arguments: &DevArguments) -> Result<(), StartError> {
    let IpAddr::V4(first) = arguments.listen else {
        return Err(StartError::Usage(
            "--nodes needs a --listen address like 127.0.0.1: the nodes take the addresses that follow it"
                .to_owned(),
        ));
    };
    let last = u32::from(first).checked_add(u32::from(arguments.nodes) - 1);
    if !last.is_some_and(|last| Ipv4Addr::from(last).is_loopback() && Ipv4Addr::from(last).octets()[3] != 255)
    {
        return Err(StartError::Usage(format!(
            "there are no {} loopback addresses from {first} on; choose another --listen",
            arguments.nodes
        )));
    }
    let temporary = match &arguments.data {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix(TEMPORARY_PREFIX)
                .tempdir()
                .map_err(|error| {
                    StartError::Failed(format!(
                        "cannot create a temporary folder: {error}; give one with --data"
                    ))
                })?,
        ),
    };
    let folder: PathBuf = match (&arguments.data, &temporary) {
        (Some(data), _) => data.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => return Err(StartError::Failed("no data folder".to_owned())),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::Failed(error.to_string()))?;
    let mut nodes = Vec::new();
    let outcome = runtime.block_on(serve(arguments, first, &folder, &mut nodes));
    end(&mut nodes);
    outcome
}

async fn serve(
    arguments: &DevArguments,
    first: Ipv4Addr,
    folder: &Path,
    nodes: &mut Vec<NodeProcess>,
) -> Result<(), StartError> {
    let failed = |error: std::io::Error| StartError::Failed(error.to_string());
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let started = Instant::now();
    for number in 1..=arguments.nodes {
        let address = IpAddr::V4(Ipv4Addr::from(u32::from(first) + u32::from(number) - 1));
        let (node, ready) = start(arguments, first, folder, number, address)?;
        nodes.push(node);
        tokio::select! {
            ready = tokio::time::timeout(READY_TIMEOUT, ready) => match ready {
                Ok(Ok(Some(line))) => say(&format!("node {number}: {line}")),
                Ok(_) => return Err(StartError::Failed(format!("node {number} on {address} did not start; the lines above say why"))),
                Err(_) => return Err(StartError::Failed(format!("node {number} on {address} was not ready in time"))),
            },
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
    say(&format!(
        "ready: {} nodes, CQL {first}:{} (pid {}, {} ms)",
        arguments.nodes,
        arguments.native_port,
        std::process::id(),
        started.elapsed().as_millis()
    ));
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            () = tokio::time::sleep(POLL) => {}
        }
        for node in nodes.iter_mut().filter(|node| !node.has_ended) {
            if let Ok(Some(status)) = node.child.try_wait() {
                node.has_ended = true;
                say(&format!("node {}: ended ({status})", node.number));
            }
        }
        if nodes.iter().all(|node| node.has_ended) {
            return Err(StartError::Failed("all nodes have ended".to_owned()));
        }
    }
}

type Ready = tokio::task::JoinHandle<Option<String>>;

fn start(
    arguments: &DevArguments,
    seed: Ipv4Addr,
    folder: &Path,
    number: u8,
    address: IpAddr,
) -> Result<(NodeProcess, Ready), StartError> {
    let failed =
        |error: std::io::Error| StartError::Failed(format!("node {number} cannot be started: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command
        .args(["dev", "--leashed"])
        .args(["--listen", &address.to_string(), "--seed", &seed.to_string()])
        .args(["--shards", &arguments.shards.to_string()])
        .args(["--native-port", &arguments.native_port.to_string()])
        .args(["--shard-aware-port", &arguments.shard_aware_port.to_string()])
        .args(["--admin-port", &arguments.admin_port.to_string()])
        .args(["--metrics-port", &arguments.metrics_port.to_string()])
        .args(["--storage-port", &arguments.storage_port.to_string()])
        .args(["--datacenter", &arguments.datacenter, "--rack", &arguments.rack])
        .arg("--data")
        .arg(folder.join(format!("node{number}")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if arguments.auth {
        command.arg("--auth");
    }
    let mut child = command.spawn().map_err(failed)?;
    let output = child.stdout.take();
    let ready = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(output?).lines();
        let line = lines.next()?.ok();
        // What else it says is nobody's, but it must be able to say it.
        std::thread::spawn(move || lines.for_each(drop));
        line
    });
    let node = NodeProcess {
        number,
        address,
        child,
        has_ended: false,
    };
    Ok((node, ready))
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody may be reading; that is no reason to end.
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Has all nodes drain, the last first, and kills what does not end.
fn end(nodes: &mut [NodeProcess]) {
    let deadline = Instant::now() + END_TIMEOUT;
    for node in nodes.iter_mut().rev().filter(|node| !node.has_ended) {
        ceto_runtime::terminate(node.child.id());
    }
    for node in nodes.iter_mut().filter(|node| !node.has_ended) {
        loop {
            match node.child.try_wait() {
                Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
                Ok(None) => {
                    say(&format!(
                        "node {} on {} does not end; it is killed",
                        node.number, node.address
                    ));
                    // It may have ended in between.
                    let _ = node.child.kill();
                    let _ = node.child.wait();
                    break;
                }
                Ok(Some(_)) | Err(_) => break,
            }
        }
    }
}
