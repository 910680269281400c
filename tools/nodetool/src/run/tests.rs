#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::io::Read;
use std::net::TcpListener;
use std::thread::JoinHandle;

use super::*;

/// Serves one canned answer for each expected request line, in order, and ends.
fn serve(exchanges: &[(&'static str, u16, &'static str)]) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let exchanges = exchanges.to_vec();
    let server = std::thread::spawn(move || {
        for (expected, status, body) in exchanges {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let request = String::from_utf8(request).unwrap();
            assert_eq!(request.lines().next().unwrap(), format!("{expected} HTTP/1.0"));
            write!(
                stream,
                "HTTP/1.0 {status} X\r\ncontent-type: application/json\r\n\r\n{body}"
            )
            .unwrap();
        }
    });
    (port, server)
}

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn nodetool(line: &str) -> (u8, String, String) {
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let code = execute(words(line), &mut out, &mut errors);
    (
        code,
        String::from_utf8(out).unwrap(),
        String::from_utf8(errors).unwrap(),
    )
}

fn against(exchanges: &[(&'static str, u16, &'static str)], line: &str) -> (u8, String, String) {
    let (port, server) = serve(exchanges);
    let result = nodetool(&format!("-h 127.0.0.1 -p {port} {line}"));
    server.join().unwrap();
    result
}

const INFO: &str = r#"{"host_id": "77f3f201-6765-4f11-9cdd-8be58c5f8c9e", "gossip_active": true,
    "native_transport_active": true, "load_bytes": 144107, "uncompressed_load_bytes": 179486,
    "generation": 1784962426, "uptime_seconds": 17, "memory_used_bytes": 41943040, "memory_limit_bytes": 2147483648,
    "datacenter": "datacenter1", "rack": "rack1", "row_cache": {"hits": 1, "requests": 4, "capacity_bytes": 54525952},
    "tokens": ["-5", "7"], "shards": 2, "a_key_of_tomorrow": [1]}"#;

#[test]
fn info_has_nodetools_lines() {
    let (code, out, errors) = against(&[("GET /v1/node/info", 200, INFO)], "info");
    assert_eq!((code, errors.as_str()), (0, ""));
    let expected = "\
ID                     : 77f3f201-6765-4f11-9cdd-8be58c5f8c9e
Gossip active          : true
Native Transport active: true
Load                   : 140.73 KiB
Uncompressed load      : 175.28 KiB
Generation No          : 1784962426
Uptime (seconds)       : 17
Heap Memory (MB)       : 40.00 / 2048.00
Off Heap Memory (MB)   : 0.00
Data Center            : datacenter1
Rack                   : rack1
Exceptions             : 0
Key Cache              : entries 0, size 0 bytes, capacity 0 bytes, 0 hits, 0 requests, NaN recent hit rate, 0 save period in seconds
Row Cache              : entries 0, size 0 bytes, capacity 52 MiB, 1 hits, 4 requests, 0.250 recent hit rate, 0 save period in seconds
Counter Cache          : entries 0, size 0 bytes, capacity 0 bytes, 0 hits, 0 requests, NaN recent hit rate, 0 save period in seconds
Percent Repaired       : 100.0%
Token                  : (invoke with -T/--tokens to see all 2 tokens)
Bootstrap state        : COMPLETED
Bootstrap failed       : false
Decommissioning        : false
Decommission failed    : false
Shards                 : 2
";
    assert_eq!(out, expected);
}

#[test]
fn info_says_which_shard_takes_no_writes_and_why() {
    let refused = INFO.replace(
        "\"shards\": 2",
        r#""shards": 2, "write_refusals": [{"shard": 1, "reason": "disk full"}]"#,
    );
    let (_, out, _) = against(&[("GET /v1/node/info", 200, refused.leak())], "info");
    assert!(
        out.ends_with("Shards                 : 2\nWrites refused         : by shard 1: disk full\n"),
        "{out}"
    );
}

#[test]
fn info_lists_tokens_on_request() {
    let (_, out, _) = against(&[("GET /v1/node/info", 200, INFO)], "info -T");
    assert!(
        out.contains("Token                  : -5\nToken                  : 7\n"),
        "{out}"
    );
}

#[test]
fn status_is_one_table_for_each_datacenter() {
    let status = r#"{"owns_effective": true, "note": "a note", "nodes": [
        {"datacenter": "west", "rack": "r1", "address": "10.0.0.10", "host_id": "77f3f201-6765-4f11-9cdd-8be58c5f8c9e",
         "up": false, "state": "leaving", "tokens": 16, "owns": null},
        {"datacenter": "east", "rack": "rack1", "address": "127.0.0.1", "host_id": "87f3f201-6765-4f11-9cdd-8be58c5f8c9e",
         "up": true, "load_bytes": 144107, "tokens": 16, "owns": 1.0}]}"#;
    let (code, out, _) = against(&[("GET /v1/node/status?keyspace=k", 200, status)], "status k");
    let expected = "\
Datacenter: east
================
Status=Up/Down
|/ State=Normal/Leaving/Joining/Moving
--  Address    Load        Tokens  Owns (effective)  Host ID                               Rack 
UN  127.0.0.1  140.73 KiB  16      100.0%            87f3f201-6765-4f11-9cdd-8be58c5f8c9e  rack1

Datacenter: west
================
Status=Up/Down
|/ State=Normal/Leaving/Joining/Moving
--  Address    Load        Tokens  Owns (effective)  Host ID                               Rack 
DL  10.0.0.10  ?           16      ?                 77f3f201-6765-4f11-9cdd-8be58c5f8c9e  r1   

Note: a note
";
    assert_eq!((code, out.as_str()), (0, expected));
}

const TABLES: &str = r#"{"total_tables": 3, "keyspaces": [
    {"name": "keyspace1", "tables": [
        {"name": "counter1"},
        {"name": "standard1", "sstable_count": 2, "max_sstable_size_bytes": 2048, "space_used_live_bytes": 3072,
         "local_read_count": 4, "local_read_latency_total_us": 6000, "local_write_count": 2,
         "live_cells_per_slice_average": 5.0, "bytes_unrepaired": 3072, "sstables_in_each_level": [1, 1]}]},
    {"name": "system", "tables": [{"name": "local"}]}]}"#;

#[test]
fn tablestats_prints_blocks() {
    let (code, out, _) = against(
        &[("GET /v1/tables/stats", 200, TABLES)],
        "cfstats keyspace1.standard1",
    );
    assert_eq!(code, 0);
    let expected_head = "Total number of tables: 3\n----------------\nKeyspace: keyspace1\n\tRead Count: 4\n\
        \tRead Latency: 1.5 ms\n\tWrite Count: 2\n\tWrite Latency: 0.0 ms\n\tPending Flushes: 0\n\
        \t\tTable: standard1\n\t\tSSTable count: 2\n\t\tOld SSTable count: 0\n\t\tMax SSTable size: 2.000KiB\n\
        \t\tSSTables in each level: [1, 1]\n\t\tSpace used (live): 3072\n";
    assert!(out.starts_with(expected_head), "{out}");
    for line in [
        "\t\tLocal read latency: 1.500 ms",
        "\t\tLocal read/write ratio: 2.00000",
        "\t\tPercent repaired: 0.0",
        "\t\tBytes unrepaired: 3.000KiB",
        "\t\tAverage live cells per slice (last five minutes): 5.0",
        "\t\tAverage tombstones per slice (last five minutes): NaN",
    ] {
        assert!(out.lines().any(|candidate| candidate == line), "{line}\n{out}");
    }
    assert!(out.ends_with("\n\n----------------\n"), "{out}");
    assert!(!out.contains("counter1") && !out.contains("system"), "{out}");
}

#[test]
fn tablestats_selects() {
    let selected = |line: &str| {
        let (code, out, errors) = against(&[("GET /v1/tables/stats", 200, TABLES)], line);
        let names: Vec<String> = out
            .lines()
            .filter_map(|line| line.strip_prefix("\t\tTable: "))
            .map(str::to_owned)
            .collect();
        (code, names.join(" "), errors)
    };
    let cases = [
        ("tablestats", 0, "counter1 standard1 local", ""),
        ("tablestats system", 0, "local", ""),
        ("tablestats -i keyspace1.counter1", 0, "standard1 local", ""),
        ("tablestats -i system keyspace1.counter1", 0, "standard1", ""),
        ("tablestats nosuch", 1, "", "nodetool: Unknown keyspace: nosuch\n"),
        (
            "tablestats system.nosuch",
            1,
            "",
            "nodetool: Unknown tables: [nosuch] in keyspace: system\n",
        ),
    ];
    for (line, code, names, errors) in cases {
        assert_eq!(
            selected(line),
            (code, names.to_owned(), errors.to_owned()),
            "{line}"
        );
    }
}

#[test]
fn tablestats_writes_json() {
    let (code, out, _) = against(
        &[("GET /v1/tables/stats", 200, TABLES)],
        "tablestats -F json system",
    );
    let document: TableStatistics = serde_json::from_str(&out).unwrap();
    assert_eq!((code, document.keyspaces.len(), document.total_tables), (0, 1, 3));
}

#[test]
fn orders_go_to_each_table() {
    let exchanges = [
        ("POST /v1/node/flush?keyspace=k&table=a", 200, "{}"),
        ("POST /v1/node/flush?keyspace=k&table=b", 200, "{}"),
    ];
    assert_eq!(
        against(&exchanges, "flush k a b"),
        (0, String::new(), String::new())
    );
    assert_eq!(against(&[("POST /v1/node/compact", 200, "{}")], "compact").0, 0);
    assert_eq!(
        against(&[("POST /v1/node/compact?keyspace=k", 200, "{}")], "compact -- k").0,
        0
    );
    assert_eq!(against(&[("POST /v1/node/drain", 200, "{}")], "drain").0, 0);
}

#[test]
fn compaction_verbs_order_what_they_say() {
    let done = |request: &'static str, line: &str| {
        let (code, out, errors) = against(&[(request, 200, "{}")], line);
        assert_eq!((code, out.as_str(), errors.as_str()), (0, "", ""), "{line}");
    };
    done(
        "POST /v1/node/compact?keyspace=k&table=t&split_output=true",
        "compact -s k t",
    );
    done(
        "POST /v1/node/compact?keyspace=k&start_token=-5&end_token=7",
        "compact --start-token -5 --end-token 7 k",
    );
    done(
        "POST /v1/compaction/files?files=a-Data.db%2Cb-Data.db",
        "compact --user-defined a-Data.db b-Data.db",
    );
    done("POST /v1/node/cleanup?keyspace=k", "cleanup -j 2 k");
    done(
        "POST /v1/node/scrub?keyspace=k&table=t",
        "scrub --no-snapshot -s k t",
    );
    done(
        "POST /v1/node/upgradesstables?keyspace=k&all=true",
        "upgradesstables -a k",
    );
    done(
        "POST /v1/node/garbagecollect?granularity=CELL",
        "garbagecollect -g CELL",
    );
    done(
        "POST /v1/compaction/automatic?keyspace=k&enabled=false",
        "disableautocompaction k",
    );
    done(
        "POST /v1/compaction/throughput?bytes_per_second=33554432",
        "setcompactionthroughput 32",
    );
    done(
        "POST /v1/node/compact?keyspace=k&start_token=-5&end_token=7",
        "compact -st -5 -et 7 k",
    );
    done("POST /v1/node/scrub?keyspace=k", "scrub -ns -s -r -j 2 k");
    assert_eq!(nodetool("compact --user-defined").0, 1);
    let (code, _, errors) = nodetool("compact -s -st 5 k");
    assert_eq!(code, 1);
    assert!(errors.contains("Can not use split-output here"), "{errors}");
}

#[test]
fn compactions_are_shown_and_stopped() {
    let statistics = r#"{"concurrent_compactors": 2, "completed": 15, "compacted_bytes": 2048,
        "uptime_seconds": 1800, "aborted": 1, "reduced": 0,
        "throughput_bytes_per_second": 67108864, "backlog_bytes": 1024,
        "pending": [{"keyspace": "k", "table": "t", "tasks": 3}],
        "running": [{"id": "77f3f201-6765-4f11-9cdd-8be58c5f8c9e", "compaction_type": "Compaction", "keyspace": "k", "table": "t",
        "completed_bytes": 67108864, "total_bytes": 268435456}]}"#;
    let stats = [("GET /v1/compaction/stats", 200, statistics)];
    let (code, out, _) = against(&stats, "compactionstats");
    let expected = "\
concurrent compactors                2
pending tasks                        3
k                                    t               3
compactions completed                15
data compacted                       2048
compactions aborted                  1
compactions reduced                  0
mean rate                            30.00/hour
compaction throughput (MiB/s)        64.0
compaction backlog                   1024
id                                   compaction type keyspace table completed total     unit  progress
77f3f201-6765-4f11-9cdd-8be58c5f8c9e Compaction      k        t     67108864  268435456 bytes 25.00%
active compaction remaining time     0h00m03s
";
    assert_eq!((code, out.as_str()), (0, expected));
    assert!(
        against(&stats, "compactionstats -H")
            .1
            .contains(" 64 MiB    256 MiB bytes ")
    );
    let history = r#"{"compactions": [{"id": "x", "keyspace": "k", "table": "t", "compacted_at_ms": 1000, "bytes_in": 20,
        "bytes_out": 10, "rows_merged": [[1, 5], [2, 7]], "properties": [["compaction_type", "Compaction"]]}]}"#;
    let (_, out, _) = against(
        &[("GET /v1/compaction/history", 200, history)],
        "compactionhistory",
    );
    let expected = "\
Compaction History: \n\
id keyspace_name columnfamily_name compacted_at            bytes_in bytes_out rows_merged compaction_properties
x  k             t                 1970-01-01T00:00:01.000 20       10        {1:5, 2:7}  {compaction_type:Compaction}
";
    assert_eq!(out, expected);
    let (_, out, _) = against(&[("GET /v1/compaction/history", 200, "{}")], "compactionhistory");
    assert_eq!(out, "Compaction History: \nThere is no compaction history\n");
    let (_, out, _) = against(
        &[("GET /v1/compaction/history", 200, history)],
        "compactionhistory -F json",
    );
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["CompactionHistory"][0]["columnfamily_name"], "t");
    assert_eq!(document["CompactionHistory"][0]["rows_merged"], "{1:5, 2:7}");
    let stopped = |answer| [("POST /v1/compaction/stop?id=77f3", 200, answer)];
    assert_eq!(against(&stopped(r#"{"stopped": 1}"#), "stop -id 77f3").0, 0);
    let (code, _, errors) = against(&stopped(r#"{"stopped": 0}"#), "stop -id 77f3");
    assert_eq!(
        (code, errors.as_str()),
        (1, "nodetool: no compaction with id 77f3 runs\n")
    );
    let stop = [("POST /v1/compaction/stop?type=CLEANUP", 200, r#"{"stopped": 0}"#)];
    assert_eq!(against(&stop, "stop CLEANUP").0, 0);
    assert_eq!(against(&stop, "stop cleanup").0, 0);
    let (code, _, errors) = nodetool("stop NOTHING");
    assert_eq!(code, 2);
    assert!(errors.contains("invalid value 'NOTHING'"), "{errors}");
    let throughput = [(
        "GET /v1/compaction/throughput",
        200,
        r#"{"bytes_per_second": 1572864}"#,
    )];
    let (code, _, errors) = against(&throughput, "getcompactionthroughput");
    assert_eq!(code, 1);
    assert!(errors.contains("Use the -d flag"), "{errors}");
    let of_three_shards = [(
        "GET /v1/compaction/throughput",
        200,
        r#"{"bytes_per_second": 67108866}"#,
    )];
    assert_eq!(
        against(&of_three_shards, "getcompactionthroughput").1,
        "Current compaction throughput: 64 MB/s\n"
    );
    assert_eq!(
        against(&throughput, "getcompactionthroughput -d").1,
        "Current compaction throughput: 1.5 MiB/s\n"
    );
    let tables = r#"{"tables": [{"keyspace": "k", "table": "a", "running": true},
        {"keyspace": "k", "table": "b", "running": false}]}"#;
    let automatic = [("GET /v1/compaction/automatic?keyspace=k", 200, tables)];
    assert_eq!(
        against(&automatic, "statusautocompaction k").1,
        "partially running\n"
    );
    assert_eq!(against(&automatic, "statusautocompaction k a").1, "running\n");
    let listed = "Keyspace Table Status\nk        a     running\nk        b     not running\n";
    assert_eq!(against(&automatic, "statusautocompaction -a k").1, listed);
    assert_eq!(against(&automatic, "statusautocompaction k c").0, 1);
}

#[test]
fn version_is_the_release_version() {
    let document = r#"{"release_version": "5.0.0", "ceto_version": "0.1.0"}"#;
    assert_eq!(
        against(&[("GET /v1/node/version", 200, document)], "version").1,
        "ReleaseVersion: 5.0.0\n"
    );
    let (_, out, _) = against(&[("GET /v1/node/version", 200, document)], "version -v");
    assert_eq!(out, "ReleaseVersion: 5.0.0\nCetoVersion: 0.1.0\n");
}

#[test]
fn a_refusal_is_one_line_and_exit_code_one() {
    let refusal = [(
        "POST /v1/node/flush?keyspace=k",
        404,
        r#"{"error": "Keyspace [k] does not exist."}"#,
    )];
    let expected = (
        1,
        String::new(),
        "nodetool: Keyspace [k] does not exist.\n".to_owned(),
    );
    assert_eq!(against(&refusal, "flush k"), expected);
    let (code, _, errors) = against(&[("POST /v1/node/drain", 500, "<html>")], "drain");
    assert_eq!(
        (code, errors.as_str()),
        (1, "nodetool: the node answered status 500\n")
    );
    let (code, _, errors) = against(&[("GET /v1/node/info", 200, "{")], "info");
    assert!(code == 1 && errors.contains("is not an admin API"), "{errors}");
}

#[test]
fn no_node_is_one_line_and_exit_code_one() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (code, out, errors) = nodetool(&format!("info -p {free}"));
    let expected = format!(
        "nodetool: Failed to connect to '127.0.0.1:{free}' - ConnectException: 'Connection refused'.\n"
    );
    assert_eq!((code, out.as_str(), errors), (1, "", expected));
}

#[test]
fn misuse_is_one_line_and_exit_code_two() {
    for line in [
        "",
        "frobnicate",
        "info --nosuch",
        "-p notaport info",
        "info extra",
        "-h",
    ] {
        let (code, out, errors) = nodetool(line);
        assert_eq!(
            (code, out.as_str(), errors.lines().count()),
            (2, "", 1),
            "{line}: {errors}"
        );
        assert!(errors.starts_with("nodetool: "), "{errors}");
    }
    assert_eq!(nodetool("help").0, 0);
    assert!(nodetool("--help").1.contains("tablestats"));
}

#[test]
fn snapshots_are_taken_listed_and_cleared_with_nodetools_words() {
    let (code, out, errors) = against(
        &[(
            "POST /v1/snapshots?tag=t1&skip_flush=true&ttl_seconds=86400&keyspaces=a%2Cb",
            200,
            "{}",
        )],
        "snapshot -t t1 -sf --ttl 1d a b",
    );
    assert_eq!((code, errors.as_str()), (0, ""));
    assert_eq!(
        out,
        "Requested creating snapshot(s) for [a, b] with snapshot name [t1] and options {skipFlush=true, ttl=1d}\n\
         Snapshot directory: t1\n"
    );
    let (code, out, _) = against(
        &[("POST /v1/snapshots?tag=t2&tables=a.x%2Cb.y", 200, "{}")],
        "snapshot -t t2 -kt a.x,b.y",
    );
    assert_eq!(code, 0);
    assert!(
        out.starts_with("Requested creating snapshot(s) for [a.x,b.y] with"),
        "{out}"
    );
    let (code, out, _) = against(
        &[("POST /v1/snapshots?tag=t3&keyspaces=a&table=x", 200, "{}")],
        "snapshot -cf x -t t3 a",
    );
    assert_eq!((code, out.lines().last()), (0, Some("Snapshot directory: t3")));
    let list = r#"{"snapshots": [
        {"name": "t1", "keyspace": "ks", "table": "t", "true_size_bytes": 0, "disk_size_bytes": 5827,
         "created_at": "2026-01-31T12:00:00.000Z", "expires_at": null, "ephemeral": false}], "total_true_size_bytes": 0}"#;
    let (_, out, _) = against(&[("GET /v1/snapshots", 200, list)], "listsnapshots");
    let expected = "\
Snapshot Details: 
Snapshot name Keyspace name Column family name True size Size on disk Creation time            Expiration time
t1            ks            t                  0 bytes   5.69 KiB     2026-01-31T12:00:00.000Z                

Total TrueDiskSpaceUsed: 0 bytes

";
    assert_eq!(out, expected);
    let (_, out, _) = against(
        &[("GET /v1/snapshots?no_ttl=true", 200, "{}")],
        "listsnapshots -nt",
    );
    assert_eq!(out, "Snapshot Details: \nThere are no snapshots\n");
    let (_, out, _) = against(
        &[("POST /v1/snapshots/clear?tag=t1&keyspaces=ks", 200, "{}")],
        "clearsnapshot -t t1 ks",
    );
    assert_eq!(
        out,
        "Requested clearing snapshot(s) for [ks] with snapshot name [t1]\n"
    );
    let (_, out, _) = against(&[("POST /v1/snapshots/clear", 200, "{}")], "clearsnapshot --all");
    assert_eq!(
        out,
        "Requested clearing snapshot(s) for [all keyspaces] with [all snapshots]\n"
    );
    let (code, _, errors) = nodetool("clearsnapshot");
    assert_eq!(
        (code, errors.as_str()),
        (1, "nodetool: Specify snapshot name or --all\n")
    );
    let (_, out, _) = against(
        &[("GET /v1/backup/status", 200, r#"{"running": false}"#)],
        "statusbackup",
    );
    assert_eq!(out, "not running\n");
}

#[test]
fn sstables_are_loaded_from_every_directory() {
    let (code, out, errors) = against(
        &[
            (
                "POST /v1/tables/import?keyspace=ks&table=t&directory=%2Fa&copy_data=true",
                200,
                "{}",
            ),
            (
                "POST /v1/tables/import?keyspace=ks&table=t&directory=%2Fb&copy_data=true",
                200,
                "{}",
            ),
        ],
        "import --copy-data ks t /a /b",
    );
    assert_eq!((code, out.as_str(), errors.as_str()), (0, "", ""));
    let (code, out, _) = against(
        &[(
            "POST /v1/tables/import?keyspace=ks&table=t&directory=%2Fa&no_verify=true",
            200,
            "{}",
        )],
        "import -q ks t /a",
    );
    assert_eq!(code, 0);
    assert!(out.starts_with("Doing a quick import"), "{out}");
    let (code, _, errors) = against(
        &[(
            "POST /v1/tables/import?keyspace=ks&table=t&directory=a",
            400,
            r#"{"error": "not absolute"}"#,
        )],
        "import ks t a",
    );
    assert_eq!(
        (code, errors.as_str()),
        (
            1,
            "nodetool: Some directories failed to import: a: not absolute\n"
        )
    );
    let (_, out, _) = against(
        &[("POST /v1/tables/refresh?keyspace=ks&table=t", 200, "{}")],
        "refresh ks t",
    );
    assert!(out.contains("deprecated"), "{out}");
}

#[test]
fn rebuild_index() {
    let path = "POST /v1/indexes/rebuild?keyspace=k&table=t&indexes=a%2Ct.b";
    let (code, out, errors) = against(&[(path, 200, "{}")], "rebuild_index k t a t.b");
    assert_eq!((code, out.as_str(), errors.as_str()), (0, "", ""));
    let (code, _, errors) = against(&[], "rebuild_index k t");
    let text = "nodetool: rebuild_index requires ks, cf and idx args\n";
    assert_eq!((code, errors.as_str()), (1, text));
}

#[test]
fn viewbuildstatus() {
    let path = "GET /v1/views/build?keyspace=k&view=v";
    let done = r#"{"host": "127.0.0.1", "status": "SUCCESS"}"#;
    for words in ["viewbuildstatus k v", "viewbuildstatus k.v"] {
        let (code, out, _) = against(&[(path, 200, done)], words);
        assert_eq!((code, out.as_str()), (0, "k.v has finished building\n"));
    }
    let running = r#"{"host": "127.0.0.1", "status": "STARTED", "rows": 5}"#;
    let (code, _, errors) = against(&[(path, 200, running)], "viewbuildstatus k v");
    let expected = "\
nodetool: k.v has not finished building; node status is below.

Host      Info
127.0.0.1 STARTED
";
    assert_eq!((code, errors.as_str()), (1, expected));
    let (code, _, errors) = against(&[], "viewbuildstatus k");
    assert_eq!(
        (code, errors.as_str()),
        (
            1,
            "nodetool: viewbuildstatus requires keyspace and view name arguments\n"
        )
    );
}

#[test]
fn what_may_be_streamed_is_shown_and_set() {
    const SETTINGS: [(&str, &str, &str); 4] = [
        (
            r#"{"settings": [{"name": "stream_throughput_outbound", "value": "24MiB/s"}]}"#,
            "getstreamthroughput -m",
            "24.0 MiB/s",
        ),
        (
            r#"{"settings": [{"name": "stream_throughput_outbound", "value": "24MiB/s"}]}"#,
            "getstreamthroughput -d",
            "201.326592 Mb/s",
        ),
        (
            r#"{"settings": [{"name": "stream_throughput_outbound", "value": "12500000B/s"}]}"#,
            "getstreamthroughput",
            "100 Mb/s",
        ),
        (
            r#"{"settings": [{"name": "stream_throughput_outbound", "value": "0B/s"}]}"#,
            "getstreamthroughput",
            "unlimited",
        ),
    ];
    for (settings, line, shown) in SETTINGS {
        let (_, text, errors) = against(&[("GET /v1/settings", 200, settings)], line);
        assert_eq!(text, format!("Current stream throughput: {shown}\n"), "{errors}");
    }
    let (settings, _, _) = SETTINGS[0];
    let (code, _, errors) = against(&[("GET /v1/settings", 200, settings)], "getstreamthroughput");
    assert!(code == 1 && errors.contains("Use the -d flag"), "{errors}");
    for (request, line) in [
        (
            "POST /v1/settings?stream_throughput_outbound=25000000B%2Fs",
            "setstreamthroughput 200",
        ),
        (
            "POST /v1/settings?stream_throughput_outbound=25165824B%2Fs",
            "setstreamthroughput -m 24",
        ),
    ] {
        assert_eq!(against(&[(request, 200, "{}")], line).0, 0);
    }
}

#[test]
fn nodes_come_and_go() {
    let (code, out, errors) = against(
        &[("POST /v1/cluster/decommission?force=true", 200, "{}")],
        "decommission --force",
    );
    assert_eq!((code, out.as_str(), errors.as_str()), (0, "", ""));
    let plan = r#"{"moves": [{"to": "127.0.0.2", "from": "127.0.0.1", "keyspace": "ks", "share": 0.25}]}"#;
    let (code, out, _) = against(
        &[("POST /v1/cluster/remove?host=77f3&dry_run=true", 200, plan)],
        "removenode 77f3 --dry-run",
    );
    assert_eq!(code, 0);
    assert_eq!(
        out,
        "/127.0.0.2 would copy 25.00% of the ring of keyspace ks from /127.0.0.1\n"
    );
    let joining = r#"{"mode": "JOINING", "moving": {"host_id": "77f3", "address": "127.0.0.4", "is_joining": true},
        "receiving": {"parts": 8, "parts_done": 2, "received_bytes": {"127.0.0.1": 500}, "seconds_left": 6, "has_ended": false}}"#;
    let (code, out, _) = against(&[("GET /v1/cluster/moves", 200, joining)], "netstats");
    assert_eq!(code, 0);
    let expected = "\
Mode: JOINING
/127.0.0.4 (77f3) joins
Receiving
    2 of 8 parts (25.00%), about 6 s left
    500 bytes from /127.0.0.1
";
    assert_eq!(out, expected);
    let idle = r#"{"mode": "NORMAL"}"#;
    let (_, out, _) = against(&[("GET /v1/cluster/moves", 200, idle)], "netstats");
    assert_eq!(out, "Mode: NORMAL\nNot sending any streams.\n");
    let (_, out, _) = against(&[("GET /v1/cluster/moves", 200, idle)], "removenode status");
    assert_eq!(out, "RemovalStatus: No token removals in process.\n");
}

#[test]
fn hints_are_shown_and_ruled() {
    const NONE: &str = r#"{"enabled": false, "disabled_datacenters": ["dc2"], "pending": []}"#;
    let asked = [("GET /v1/hints", 200, NONE)];
    assert_eq!(
        against(&asked, "statushandoff").1,
        "Hinted handoff is not running\nData center dc2 is disabled\n"
    );
    assert_eq!(
        against(&asked, "listpendinghints").1,
        "This node does not have any pending hints\n"
    );
    let some = r#"{"enabled": true, "pending": [
        {"host_id": "77f3", "address": "127.0.0.2", "rack": "r1", "datacenter": "dc1", "is_alive": false, "files": 3,
         "bytes": 2048},
        {"host_id": "88", "files": 1, "bytes": 1}]}"#;
    let (_, text, _) = against(&[("GET /v1/hints", 200, some)], "listpendinghints");
    let words: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(words[1][..6], ["77f3", "127.0.0.2", "r1", "dc1", "DOWN", "3"]);
    assert_eq!(
        words[2][..6],
        ["88", "Unknown", "Unknown", "Unknown", "Unknown", "1"]
    );
    for (request, line) in [
        ("POST /v1/hints/enable?enabled=true", "enablehandoff"),
        ("POST /v1/hints/enable?enabled=false", "disablehandoff"),
        ("POST /v1/hints/pause?paused=true", "pausehandoff"),
        ("POST /v1/hints/pause?paused=false", "resumehandoff"),
        ("POST /v1/hints/truncate", "truncatehints"),
        (
            "POST /v1/hints/truncate?address=127.0.0.2",
            "truncatehints 127.0.0.2",
        ),
    ] {
        assert_eq!(against(&[(request, 200, "{}")], line).0, 0, "{line}");
    }
}

#[test]
fn a_partition_is_found() {
    let asked = [(
        "GET /v1/cluster/endpoints?keyspace=k&table=t&key=-1%3Aa",
        200,
        r#"{"endpoints": ["127.0.0.1", "127.0.0.3"]}"#,
    )];
    assert_eq!(
        against(&asked, "getendpoints k t -1:a").1,
        "127.0.0.1\n127.0.0.3\n"
    );
}
