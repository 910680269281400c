"""nodetool's verbs about compaction and figures, against a node that has something to compact."""

import glob
import json
import os
import re
import threading
import time

import pytest

pytestmark = [pytest.mark.one_variant, pytest.mark.one_driver]

ROWS = 200
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def write(session, value, rows=ROWS):
    insert = session.prepare("INSERT INTO t (k, v) VALUES (?, ?)")
    for key in range(rows):
        session.execute(insert, (key, f"{value} {key}"))


@pytest.fixture
def filled(server, session):
    """A table with three sstables on each shard, which all have all its keys."""
    session.execute("CREATE TABLE t (k int PRIMARY KEY, v text)")
    for generation in range(3):
        write(session, f"value {generation}")
        server.nodetool("flush", session.keyspace, "t")
    return session


def data_files(server, session):
    return glob.glob(os.path.join(server.data, "data", session.keyspace, "t-*", "*-Data.db"))


def figures(server, keyspace):
    """The lines of tablestats for table t, by label; the keyspace's have its name before them."""
    lines = server.nodetool("tablestats", f"{keyspace}.t").splitlines()
    found = {}
    for line in lines:
        label, _, value = line.strip().partition(": ")
        found[("" if line.startswith("\t\t") else "keyspace ") + label] = value
    return found


def history(server, keyspace):
    """Rows of compactionhistory, newest first: the kinds of this keyspace's compactions."""
    lines = server.nodetool("compactionhistory").splitlines()
    assert lines[0] == "Compaction History: "
    if lines[1] == "There is no compaction history":
        return []
    assert lines[1].split() == [
        "id", "keyspace_name", "columnfamily_name", "compacted_at", "bytes_in", "bytes_out", "rows_merged",
        "compaction_properties",
    ]
    row = re.compile(
        rf"{UUID} +(\w+) +(\w+) +\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}} +\d+ +\d+ +\{{[^}}]*\}} +"
        r"\{compaction_type:([^}]*)\}"
    )
    matches = [row.fullmatch(line) for line in lines[2:]]
    assert all(matches), lines
    return [match[3] for match in matches if match[1] == keyspace]


def fails(server, *words):
    with pytest.raises(RuntimeError) as failure:
        server.nodetool(*words)
    return str(failure.value)


def test_compact(server, filled):
    keyspace = filled.keyspace
    before = len(data_files(server, filled))
    assert before >= 3
    assert server.nodetool("compact", keyspace, "t") == ""
    assert int(figures(server, keyspace)["SSTable count"]) < before
    kinds = history(server, keyspace)
    assert kinds and set(kinds) == {"Major Compaction"}
    assert filled.execute("SELECT v FROM t WHERE k = 7").one().v == "value 2 7"
    for words in (["-s"], ["--split-output"], ["-st", "-100", "-et", "100"], ["--start-token", "5"]):
        assert server.nodetool("compact", *words, keyspace, "t") == ""
    assert "Keyspace [nosuch] does not exist" in fails(server, "compact", "nosuch")
    assert "Unknown keyspace/cf pair" in fails(server, "compact", keyspace, "nosuch")
    assert "Can not use split-output here" in fails(server, "compact", "-s", "-st", "5", keyspace)


def test_compact_of_named_files(server, filled):
    files = sorted(data_files(server, filled))
    assert server.nodetool("compact", "--user-defined", *map(os.path.basename, files)) == ""
    assert set(history(server, filled.keyspace)) == {"User Defined Compaction"}
    left = sorted(set(data_files(server, filled)) - set(files))
    assert 0 < len(left) < len(files)
    assert "no Data file" in fails(server, "compact", "--user-defined", "nosuch-Data.db")
    assert "Can not provide tokens" in fails(server, "compact", "--user-defined", "-st", "5", *left)
    assert filled.execute("SELECT count(*) FROM t").one()[0] == ROWS


@pytest.mark.parametrize(
    "words, kind",
    [
        (["scrub", "-ns"], "Scrub"),
        (["scrub", "-s", "-n", "-r", "-j", "2"], "Scrub"),
        (["upgradesstables", "-a"], "Upgrade sstables"),
        (["garbagecollect"], "Remove deleted data"),
        (["garbagecollect", "-g", "CELL", "-j", "1"], "Remove deleted data"),
    ],
)
def test_rewriting_verbs(server, filled, words, kind):
    before = set(data_files(server, filled))
    assert server.nodetool(*words, filled.keyspace, "t") == ""
    # Files go when nobody reads them any more, a moment later.
    deadline = time.monotonic() + 10
    while left := before & set(data_files(server, filled)):
        assert time.monotonic() < deadline, f"not written anew: {left}"
        time.sleep(0.05)
    assert kind in history(server, filled.keyspace)
    assert filled.execute("SELECT count(*) FROM t").one()[0] == ROWS


def test_verbs_with_nothing_to_do(server, filled):
    before = set(data_files(server, filled))
    for words in (["cleanup"], ["cleanup", "-j", "1"], ["upgradesstables"]):
        assert server.nodetool(*words, filled.keyspace, "t") == ""
    assert set(data_files(server, filled)) == before, "all is this node's, and of this version"
    assert "is not a granularity" in fails(server, "garbagecollect", "-g", "PAGE", filled.keyspace)
    for verb in ("cleanup", "scrub", "upgradesstables", "garbagecollect"):
        assert "Keyspace [nosuch] does not exist" in fails(server, verb, "nosuch")


def test_compactionhistory_as_json(server, filled):
    server.nodetool("compact", filled.keyspace)
    rows = json.loads(server.nodetool("compactionhistory", "-F", "json"))["CompactionHistory"]
    (first, *_) = [row for row in rows if row["keyspace_name"] == filled.keyspace]
    assert first["columnfamily_name"] == "t" and first["bytes_in"] > first["bytes_out"] > 0
    assert re.fullmatch(r"\{3:\d+\}", first["rows_merged"])
    assert first["compaction_properties"] == "{compaction_type:Major Compaction}"


def test_compactionstats(server, filled):
    server.nodetool("compact", filled.keyspace)
    found = {}
    for line in server.nodetool("compactionstats").splitlines():
        match = re.match(r"(concurrent compactors|pending tasks|compactions (?:completed|aborted|reduced)|data compacted|"
                         r"mean rate|compaction throughput \(MiB/s\)|compaction backlog) +(\S.*)", line)
        if match:
            found[match[1]] = match[2]
    assert len(found) == 9, found
    assert int(found["compactions completed"]) > 0 and int(found["data compacted"]) > 0
    assert found["compaction throughput (MiB/s)"] == "64.0"
    assert re.fullmatch(r"\d+\.\d\d/hour", found["mean rate"])
    assert re.search(r"data compacted +[\d.]+ (bytes|[KM]iB)", server.nodetool("compactionstats", "-H"))


def test_a_running_compaction_is_shown_and_stopped(server, session):
    """At 1 MiB/s the compaction of some MiB takes long enough to be seen."""
    session.execute("CREATE TABLE t (k int PRIMARY KEY, v blob) WITH compression = {'enabled': false}")
    insert = session.prepare("INSERT INTO t (k, v) VALUES (?, ?)")
    for _ in range(2):
        for key in range(160):
            session.execute(insert, (key, os.urandom(50_000)))
        server.nodetool("flush", session.keyspace)
    before = set(data_files(server, session))
    outcome = []
    server.nodetool("setcompactionthroughput", "1")
    try:
        def compact():
            try:
                outcome.append(server.nodetool("compact", session.keyspace))
            except RuntimeError as error:
                outcome.append(str(error))

        thread = threading.Thread(target=compact)
        thread.start()
        row = re.compile(rf"({UUID}) +Major Compaction +{session.keyspace} +t +\d+ +\d+ +bytes +[\d.]+%")
        deadline = time.monotonic() + 30
        while not (shown := row.search(text := server.nodetool("compactionstats"))):
            assert time.monotonic() < deadline and thread.is_alive(), text
        header = "id +compaction type +keyspace +table +completed +total +unit +progress"
        assert re.search(rf"^{header}$", text, re.MULTILINE)
        assert re.search(r"^active compaction remaining time +\d+h\d\dm\d\ds$", text, re.MULTILINE)
        vtable = server.nodetool("compactionstats", "-V")
        assert re.search(rf"^{session.keyspace} +t +{UUID} +[\d.]+% +Major Compaction", vtable, re.MULTILINE), vtable
        assert server.nodetool("stop", "-id", shown[1]) == ""
        assert server.nodetool("stop", "CLEANUP") == ""
        server.nodetool("stop", "MAJOR_COMPACTION")
        thread.join(30)
        assert not thread.is_alive() and len(outcome) == 1
    finally:
        server.nodetool("setcompactionthroughput", "64")
    assert set(data_files(server, session)) == before, "what was stopped is undone"
    text = server.nodetool("compactionstats")
    assert int(re.search(r"^compactions aborted +(\d+)$", text, re.MULTILINE)[1]) > 0


def test_stop_of_nothing(server):
    assert server.nodetool("stop") == ""
    assert server.nodetool("stop", "COMPACTION") == ""
    assert "no compaction with id nonsense runs" in fails(server, "stop", "--compaction-id", "nonsense")
    assert "invalid value 'NONSENSE'" in fails(server, "stop", "NONSENSE")


def test_throughput(server):
    assert server.nodetool("getcompactionthroughput") == "Current compaction throughput: 64 MB/s\n"
    try:
        for limit in ("32", "0"):
            assert server.nodetool("setcompactionthroughput", limit) == ""
            assert server.nodetool("getcompactionthroughput") == f"Current compaction throughput: {limit} MB/s\n"
        assert server.nodetool("getcompactionthroughput", "-d") == "Current compaction throughput: 0.0 MiB/s\n"
        assert "throttling disabled (0)" in server.nodetool("compactionstats")
    finally:
        server.nodetool("setcompactionthroughput", "64")
    text = server.nodetool("getconcurrentcompactors")
    assert re.fullmatch(r"Current concurrent compactors in the system is: \n\d+\n", text)


def test_automatic_compaction(server, filled):
    keyspace = filled.keyspace
    assert server.nodetool("statusautocompaction", keyspace, "t") == "running\n"
    server.nodetool("disableautocompaction", keyspace, "t")
    try:
        assert server.nodetool("statusautocompaction", keyspace, "t") == "not running\n"
        assert server.nodetool("statusautocompaction") == "partially running\n"
        rows = server.nodetool("statusautocompaction", "-a", keyspace).splitlines()
        assert [row.split(maxsplit=2) for row in rows] == [
            ["Keyspace", "Table", "Status"], [keyspace, "t", "not running"],
        ]
    finally:
        server.nodetool("enableautocompaction", keyspace, "t")
    assert server.nodetool("statusautocompaction", keyspace) == "running\n"


def test_tablestats_times_reads_and_writes(server, filled):
    for key in range(20):
        filled.execute(f"SELECT v FROM t WHERE k = {key}")
    found = figures(server, filled.keyspace)
    assert int(found["Local read count"]) == 20 and int(found["Local write count"]) == 3 * ROWS
    for label in ("Local read latency", "Local write latency"):
        assert 0 < float(found[label].removesuffix(" ms")) < 1000, found
    assert 0 < float(found["keyspace Read Latency"].removesuffix(" ms")) < 1000
    assert int(found["SSTable count"]) > 0


def test_info_status_and_version(server, filled):
    info = dict(re.split(r" *: ", line, maxsplit=1) for line in server.nodetool("info").splitlines())
    assert info["Native Transport active"] == "true" and info["Exceptions"] == "0"
    assert re.fullmatch(UUID, info["ID"]) and info["Shards"] == "2"
    assert "Writes refused" not in info and server.readiness() == (200, {"status": "ready"})
    assert re.search(r"^UN +127\.0\.0\.1 ", server.nodetool("status", filled.keyspace), re.MULTILINE)
    assert server.nodetool("version") == "ReleaseVersion: 5.0.0\n"
