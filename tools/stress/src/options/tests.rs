#![allow(clippy::unwrap_used)]

use super::*;

fn options(line: &[&str]) -> Options {
    let line: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
    parse(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

fn refusal(line: &str) -> String {
    let line: Vec<String> = line.split('|').map(str::to_owned).collect();
    parse(&line).expect_err("misuse")
}

#[test]
fn a_full_line() {
    let parsed = options(&[
        "mixed",
        "ratio(write=1,read=3)",
        "n=1M",
        "cl=quorum",
        "no-warmup",
        "-rate",
        "threads=200",
        "fixed=20000/s",
        "-pop",
        "dist=uniform(1..5M)",
        "-node",
        "10.0.0.1,10.0.0.2",
        "port=19142",
        "-schema",
        "replication(strategy=NetworkTopologyStrategy, dc1=3) keyspace=load compaction(strategy=X)",
        "-col",
        "n=fixed(2)",
        "size=FIXED(100)",
        "-log",
        "interval=500ms",
        "-mode",
        "native",
        "cql3",
        "protocolVersion=5",
        "workers=2",
        "-errors",
        "ignore",
        "retries=0",
    ]);
    assert_eq!(parsed.mix, Mix(vec![(Operation::Write, 1), (Operation::Read, 3)]));
    assert_eq!(
        (parsed.operations, parsed.consistency, parsed.warm_up),
        (1_000_000, Consistency::Quorum, false)
    );
    assert_eq!(
        parsed.rate,
        Rate {
            threads: 200,
            limit: Some(20_000.0),
            open_loop: true
        }
    );
    assert_eq!(
        parsed.population,
        Distribution::Uniform {
            first: 1,
            last: 5_000_000
        }
    );
    assert_eq!((parsed.nodes.len(), parsed.port), (2, 19142));
    assert_eq!(parsed.schema.strategy, "NetworkTopologyStrategy");
    assert_eq!(
        parsed.schema.replication,
        vec![("dc1".to_owned(), "3".to_owned())]
    );
    assert_eq!(parsed.schema.keyspace, "load");
    assert_eq!((parsed.columns, parsed.column_bytes), (2, 100));
    assert_eq!(parsed.log_interval, Duration::from_millis(500));
    assert_eq!((parsed.mode.version.number(), parsed.mode.workers), (5, 2));
    assert_eq!((parsed.ignore_errors, parsed.retries), (true, 0));
}

#[test]
fn defaults_depend_on_the_command() {
    let write = options(&["write", "n=300"]);
    assert_eq!(write.population, Distribution::Sequence { first: 1, last: 300 });
    let read = options(&["read", "n=300"]);
    assert!(matches!(
        read.population,
        Distribution::Gaussian {
            first: 1,
            last: 300,
            ..
        }
    ));
    let timed = options(&["read", "duration=10s"]);
    assert!(matches!(
        timed.population,
        Distribution::Gaussian {
            first: 1,
            last: 1_000_000,
            ..
        }
    ));
    let timed = options(&["write", "duration=5m"]);
    assert_eq!(
        (timed.operations, timed.duration),
        (u64::MAX, Some(Duration::from_secs(300)))
    );
    assert_eq!(options(&["write", "duration=1s", "n=10"]).operations, 10);
    let throttled = options(&["write", "-rate", "throttle=1K/s"]);
    assert_eq!(
        (throttled.rate.limit, throttled.rate.open_loop),
        (Some(1000.0), false)
    );
}

#[test]
fn misuse_is_named() {
    for (line, text) in [
        ("", "a command is required"),
        ("wite", "unknown command 'wite'"),
        ("write|m=5", "unknown word 'm=5'"),
        ("write|n=0", "expected a number"),
        ("write|n=99999999999B", "expected a number"),
        ("write|ratio(read=1)", "unknown word"),
        ("mixed|ratio(read=0)", "no operation has a weight"),
        ("mixed|ratio(red=1)", "'red' is not an operation"),
        ("write|cl=SERIAL", "not a consistency level"),
        ("write|-rate|threads=0", "expected a number from 1"),
        ("write|-rate|fixed=fast", "expected a rate"),
        ("write|-pop|seq=5..1", "FIRST not above LAST"),
        ("write|-pop|dist=pareto(1..2)", "expected fixed(N)"),
        ("write|-pop|dist=gaussian(1..2,nan,1)", "expected fixed(N)"),
        ("write|-node|,", "expected HOST"),
        ("write|-schema|replication(factor=1", "'(' without ')'"),
        ("write|-schema|keyspace=a\"b", "letters, digits"),
        ("write|-mode|protocolVersion=2", "expected 3, 4 or 5"),
        ("write|-log|interval=0s", "above zero"),
        ("write|-graph|file=x", "unknown option '-graph'"),
        ("write|n=10|-graph", "unknown option '-graph'"),
        ("write|-rate", "-rate needs words behind it"),
        ("write|-rate|-node|127.0.0.1", "-rate needs words behind it"),
    ] {
        let refused = refusal(line);
        assert!(refused.contains(text), "{line}: {refused}");
        assert_eq!(refused.lines().count(), 1);
    }
}
