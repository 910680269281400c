//! A node under test for the Rust driver: the ceto binary on free loopback ports, started and ended by its process id.
//!
//! The binary is `$CETO_BINARY`, or `target/release/ceto` beside the test executable.

#![allow(
    clippy::disallowed_methods,
    reason = "a test harness works on the real clock, sockets and files"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// A running node; killed when dropped.
pub struct Server {
    process: Child,
    /// CQL port.
    pub port: u16,
    metrics_port: u16,
    _folder: TempDir,
}

impl Server {
    /// Starts a node and waits until it serves.
    ///
    /// # Panics
    /// If there is no binary or it does not become ready.
    pub fn start(shards: u16) -> Server {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [port, shard_aware_port, admin_port, metrics_port] = free_ports();
        let mut process = Command::new(binary())
            .args(["dev", "--listen", "127.0.0.1", "--shards", &shards.to_string()])
            .arg("--data")
            .arg(folder.path().join("data"))
            .args([
                "--native-port",
                &port.to_string(),
                "--shard-aware-port",
                &shard_aware_port.to_string(),
            ])
            .args([
                "--admin-port",
                &admin_port.to_string(),
                "--metrics-port",
                &metrics_port.to_string(),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; build it, or set CETO_BINARY", binary().display()));
        let stdout = process.stdout.take().expect("standard output is piped");
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        let server = Server {
            process,
            port,
            metrics_port,
            _folder: folder,
        };
        let line = receiver.recv_timeout(READY_TIMEOUT).unwrap_or_default();
        assert!(
            line.starts_with("ready: CQL "),
            "the server did not become ready: {line:?}"
        );
        server
    }

    /// Where the driver connects to.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Sums of a metric's samples that have this label, by the label's value.
    ///
    /// # Panics
    /// If the metrics cannot be read.
    pub fn metric(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.metrics_port)).expect("the metrics port is open");
        write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").expect("the request is sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the answer is text");
        let mut sums = BTreeMap::new();
        for line in text.lines() {
            let Some((labels, value)) = line
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('{'))
                .and_then(|rest| rest.rsplit_once("} "))
            else {
                continue;
            };
            let prefix = format!("{label}=\"");
            let found = labels
                .split(',')
                .find_map(|pair| pair.strip_prefix(prefix.as_str()));
            if let (Some(found), Ok(value)) = (found, value.parse::<f64>()) {
                *sums.entry(found.trim_end_matches('"').to_owned()).or_default() += value;
            }
        }
        sums
    }

    /// Waits for a condition, for up to 20 seconds.
    ///
    /// # Panics
    /// If it does not come true.
    pub async fn eventually<F: Future<Output = bool>>(&self, what: &str, mut condition: impl FnMut() -> F) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition().await {
            assert!(Instant::now() < deadline, "it did not happen: {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("CETO_BINARY") {
        return PathBuf::from(path);
    }
    // target/<profile>/deps/<test executable>
    let executable = std::env::current_exe().expect("this program has a path");
    let target = executable
        .ancestors()
        .nth(3)
        .expect("tests are built below the target folder");
    target.join("release").join("ceto")
}

fn free_ports() -> [u16; 4] {
    let listeners = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| {
        listener
            .local_addr()
            .expect("a bound socket has an address")
            .port()
    })
}
