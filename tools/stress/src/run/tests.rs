//! Whole runs against a server of a few lines, which keeps rows in memory and knows which shard each connection is on.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use ceto_model::Token;
use ceto_model::types::CqlType;
use ceto_native::response::PreparedMetadata;
use ceto_native::{
    ColumnSpec, Compression, Direction, EncodedColumns, ErrorMessage, ErrorReason, Execute, FrameDecoder,
    FrameEncoder, Opcode, Prepared, ProtocolVersion, Request, RequestMessage, Response, ResponseMessage,
    ResultMetadata, RowsEncoder, RowsHeader, Startup,
};

use super::*;
use crate::content;
use crate::measure::Measurements;

const SHARDS: u16 = 3;
const COLUMNS: usize = 2;

/// What the server has seen.
#[derive(Default)]
struct Seen {
    rows: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    executed: u64,
    on_wrong_shard: u64,
    by_shard: BTreeMap<u16, u64>,
    statements: Vec<String>,
}

#[derive(Clone)]
struct Server {
    seen: Arc<Mutex<Seen>>,
    port: u16,
    shard_aware_port: u16,
    /// How long each batch of requests takes.
    delay: Duration,
    /// The n-th execution of all fails.
    failing: Option<u64>,
}

impl Server {
    fn start(delay: Duration, failing: Option<u64>) -> Server {
        let plain = TcpListener::bind("127.0.0.1:0").unwrap();
        let shard_aware = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            seen: Arc::default(),
            port: plain.local_addr().unwrap().port(),
            shard_aware_port: shard_aware.local_addr().unwrap().port(),
            delay,
            failing,
        };
        for (listener, by_port) in [(plain, false), (shard_aware, true)] {
            let server = server.clone();
            std::thread::spawn(move || {
                while let Ok((stream, peer)) = listener.accept() {
                    let shard = if by_port { peer.port() % SHARDS } else { 0 };
                    let server = server.clone();
                    std::thread::spawn(move || Served::new(server, shard).run(stream));
                }
            });
        }
        server
    }

    fn stress(&self, line: &str) -> u8 {
        let words = format!(
            "{line}|-node|127.0.0.1|port={}|-col|n={COLUMNS}|size=20",
            self.port
        );
        run(words.split('|').map(OsString::from))
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

/// One connection.
struct Served {
    server: Server,
    shard: u16,
    encoder: FrameEncoder,
    decoder: FrameDecoder,
}

impl Served {
    fn new(server: Server, shard: u16) -> Served {
        let encoder = FrameEncoder::new(ProtocolVersion::V4);
        Served {
            server,
            shard,
            encoder,
            decoder: FrameDecoder::new(Direction::Request, 1 << 20),
        }
    }

    fn run(&mut self, mut stream: TcpStream) {
        let mut buffer = [0; 1 << 16];
        loop {
            let Ok(count @ 1..) = stream.read(&mut buffer) else {
                return;
            };
            self.decoder.feed(&buffer[..count]);
            let mut out = BytesMut::new();
            let mut executed = false;
            while let Some(envelope) = self.decoder.next_envelope().unwrap() {
                self.encoder.set_dialect(envelope.header.version);
                let message = RequestMessage::decode(self.encoder.dialect(), &envelope).unwrap();
                executed |= envelope.header.opcode == Opcode::Execute;
                self.answer(envelope.header.stream, &message.request, &mut out);
            }
            if executed {
                std::thread::sleep(self.server.delay);
            }
            if stream.write_all(&out).is_err() {
                return;
            }
        }
    }

    fn answer(&mut self, stream: i16, request: &Request, out: &mut BytesMut) {
        let response = match request {
            Request::Options => self.supported(),
            Request::Startup(startup) => return self.startup(stream, startup, out),
            Request::Query(query) => return self.query(stream, &query.query, out),
            Request::Prepare(prepare) => self.prepare(&prepare.query),
            Request::Execute(execute) => return self.execute(stream, execute, out),
            other => panic!("{other:?}"),
        };
        self.write(stream, response, out);
    }

    fn write(&mut self, stream: i16, response: Response, out: &mut BytesMut) {
        self.encoder
            .writer(out)
            .response(stream, &ResponseMessage::from(response))
            .unwrap();
    }

    fn supported(&self) -> Response {
        let option = |name: &str, value: String| (name.to_owned(), vec![value]);
        Response::Supported(vec![
            option("SCYLLA_SHARD", self.shard.to_string()),
            option("SCYLLA_NR_SHARDS", SHARDS.to_string()),
            option("SCYLLA_SHARDING_ALGORITHM", "biased-token-round-robin".to_owned()),
            option("SCYLLA_SHARDING_IGNORE_MSB", "12".to_owned()),
            option(
                "SCYLLA_SHARD_AWARE_PORT",
                self.server.shard_aware_port.to_string(),
            ),
        ])
    }

    fn startup(&mut self, stream: i16, startup: &Startup, out: &mut BytesMut) {
        self.write(stream, Response::Ready, out);
        let compression = startup.compression(self.encoder.dialect().version).unwrap();
        self.encoder.set_compression(compression);
        self.decoder.set_compression(compression);
        if self.encoder.dialect().version == ProtocolVersion::V5 {
            self.encoder.start_framing();
            self.decoder.start_framing();
        }
        assert!(compression == Compression::None || compression == Compression::Lz4);
    }

    fn query(&mut self, stream: i16, text: &str, out: &mut BytesMut) {
        self.server.seen().statements.push(text.to_owned());
        let tokens = [&[0, 0, 0, 2, 0, 0, 0, 1][..], b"5", &[0, 0, 0, 2], b"-7"].concat();
        match text {
            "SELECT cluster_name FROM system.local" => self.rows(stream, &[vec![b"Test".to_vec()]], out),
            "SELECT tokens FROM system.local" => self.rows(stream, &[vec![tokens]], out),
            "SELECT rpc_address FROM system.peers" => self.rows(stream, &[], out),
            _ => self.write(stream, Response::Void, out),
        }
    }

    fn rows(&mut self, stream: i16, rows: &[Vec<Vec<u8>>], out: &mut BytesMut) {
        let width = rows.first().map_or(1, Vec::len);
        let columns = EncodedColumns::encode(self.encoder.dialect().version, &specs(width));
        let mut writer = self.encoder.writer(out);
        let body = writer.begin(Opcode::Result, stream, 0);
        let header = RowsHeader {
            columns: &columns,
            skip_metadata: false,
            new_metadata_id: None,
        };
        let mut encoder = RowsEncoder::begin(std::mem::take(body), header);
        for row in rows {
            encoder.row(row.iter().map(|cell| Some(&cell[..])));
        }
        *body = encoder.finish(None);
        writer.end().unwrap();
    }

    fn prepare(&self, text: &str) -> Response {
        let id = Bytes::from(text.to_owned());
        let markers = PreparedMetadata {
            columns: Vec::new(),
            partition_key_indices: Vec::new(),
            conditional: false,
        };
        let result = ResultMetadata::new(specs(if text.starts_with("SELECT") { COLUMNS } else { 0 }));
        let result_metadata_id = self
            .encoder
            .dialect()
            .has_metadata_id()
            .then(|| Bytes::from_static(b"m"));
        Response::Prepared(Prepared {
            id,
            result_metadata_id,
            markers,
            result,
        })
    }

    fn execute(&mut self, stream: i16, execute: &Execute, out: &mut BytesMut) {
        let values = &execute.parameters.values;
        let key = values.slice(values.len() - 1).unwrap().to_vec();
        let server = self.server.clone();
        let mut seen = server.seen();
        seen.executed += 1;
        *seen.by_shard.entry(self.shard).or_default() += 1;
        if Token::of(&key).shard(SHARDS) != self.shard {
            seen.on_wrong_shard += 1;
        }
        if server.failing == Some(seen.executed) {
            let error = ErrorMessage::new(ErrorReason::Overloaded, "too much");
            return self.write(stream, Response::Error(error), out);
        }
        if execute.id.starts_with(b"SELECT") {
            let rows: Vec<_> = seen.rows.get(&key).cloned().into_iter().collect();
            return self.rows(stream, &rows, out);
        }
        let columns = (0..COLUMNS)
            .map(|index| values.slice(index).unwrap().to_vec())
            .collect();
        seen.rows.insert(key, columns);
        self.write(stream, Response::Void, out);
    }
}

fn specs(width: usize) -> Vec<ColumnSpec> {
    (0..width)
        .map(|index| ColumnSpec {
            keyspace: "k".into(),
            table: "t".into(),
            name: format!("c{index}").into(),
            cql_type: CqlType::Blob,
        })
        .collect()
}

#[test]
fn what_is_written_is_read_on_the_shard_that_owns_it() {
    for mode in [
        "protocolVersion=4",
        "protocolVersion=4|compression=lz4",
        "protocolVersion=5",
        "protocolVersion=5|compression=lz4",
    ] {
        let server = Server::start(Duration::ZERO, None);
        let write =
            format!("write|n=2000|no-warmup|truncate=once|-rate|threads=40|-mode|native|workers=2|{mode}");
        assert_eq!(server.stress(&write), SUCCESS, "{mode}");
        let mut expected = [0; 20];
        content::fill(77, 1, &mut expected);
        {
            let seen = server.seen();
            assert_eq!((seen.executed, seen.rows.len()), (2000, 2000), "{mode}");
            assert_eq!(seen.rows[&content::key(77)[..]][1], expected);
        }
        let read = format!("read|n=500|-pop|dist=uniform(1..2000)|-rate|threads=7|-mode|{mode}");
        assert_eq!(server.stress(&read), SUCCESS, "{mode}");
        let seen = server.seen();
        assert_eq!(
            (seen.executed, seen.on_wrong_shard),
            (2000 + 125 + 500, 0),
            "{mode}"
        );
        assert_eq!(seen.by_shard.len(), usize::from(SHARDS));
        assert!(
            seen.statements
                .iter()
                .any(|text| text == "TRUNCATE \"keyspace1\".standard1")
        );
    }
}

#[test]
fn a_missing_or_another_row_fails_a_read() {
    let server = Server::start(Duration::ZERO, None);
    let read = "read|n=1|no-warmup|-pop|seq=1..1|-errors|retries=0";
    assert_eq!(server.stress(read), FAILURE);
    server
        .seen()
        .rows
        .insert(content::key(1).to_vec(), vec![vec![0; 20]; COLUMNS]);
    assert_eq!(server.stress(read), FAILURE);
    assert_eq!(server.stress("write|n=1|no-warmup"), SUCCESS);
    assert_eq!(server.stress(read), SUCCESS);
}

#[test]
fn errors_are_retried_then_fatal_or_ignored() {
    let failing = || Server::start(Duration::ZERO, Some(50));
    let line = "write|n=100|no-warmup|-errors";
    assert_eq!(failing().stress(&format!("{line}|retries=1")), SUCCESS);
    assert_eq!(failing().stress(&format!("{line}|retries=0")), FAILURE);
    assert_eq!(failing().stress(&format!("{line}|retries=0|ignore")), SUCCESS);
}

/// Latencies of a run whose server takes 20 ms for whatever it reads at once, from one request in flight.
fn waiting(rate: &str) -> Measurements {
    let server = Server::start(Duration::from_millis(20), None);
    let words = format!(
        "write|n=20|no-warmup|-rate|threads=1|{rate}|-node|127.0.0.1|port={}|-col|n={COLUMNS}",
        server.port
    );
    let options = parse(&words.split('|').map(str::to_owned).collect::<Vec<_>>()).unwrap();
    let cluster = runtime().unwrap().block_on(Cluster::open(&options)).unwrap();
    let phase = Phase::new(options.operations, None, 1);
    let (progress, elapsed) = perform(&cluster, &options, &phase, None).unwrap();
    assert!(elapsed >= Duration::from_millis(400), "{elapsed:?}");
    progress.total().clone()
}

#[test]
fn latency_at_a_fixed_rate_counts_the_waiting() {
    // Operation i is due at i * 1 ms and ends at (i + 1) * 20 ms at the earliest.
    let fixed = waiting("fixed=1000/s").total();
    assert!(
        fixed.max_ms() >= 380.0 && fixed.mean_ms() >= 200.0,
        "{} {}",
        fixed.max_ms(),
        fixed.mean_ms()
    );
    let throttled = waiting("throttle=1000/s").total();
    assert!(
        throttled.quantile_ms(0.5) < 200.0,
        "{}",
        throttled.quantile_ms(0.5)
    );
}

#[test]
fn a_duration_ends_a_run() {
    let server = Server::start(Duration::ZERO, None);
    let before = Instant::now();
    assert_eq!(
        server.stress("write|duration=300ms|no-warmup|-rate|threads=4|fixed=100/s"),
        SUCCESS
    );
    assert!(before.elapsed() < Duration::from_secs(5));
    let executed = server.seen().executed;
    assert!((25..=31).contains(&executed), "{executed}");
}

#[test]
fn exit_codes() {
    assert_eq!(run(["help"].map(OsString::from)), SUCCESS);
    assert_eq!(run(["wrte"].map(OsString::from)), MISUSE);
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    assert_eq!(
        run(["write", "-port", &format!("native={free}")].map(OsString::from)),
        FAILURE
    );
}
