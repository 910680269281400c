"""Settings that change while the node runs: system.config, guardrails, nodetool."""

import socket
import subprocess

import pytest
from cassandra import ConsistencyLevel, InvalidRequest
from cassandra.query import SimpleStatement

from conftest import connect
from server import Server, binary

pytestmark = [pytest.mark.one_variant, pytest.mark.one_driver]


def refused(server, *words):
    done = subprocess.run(
        [binary(), "nodetool", "-p", str(server.admin_port), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done
    return done.stderr


def log(server):
    with open(server.log_path, errors="replace") as lines:
        return lines.read()


@pytest.fixture
def setting(session):
    """Changes settings and puts them back."""
    before = {}
    select = session.prepare("SELECT value, type, source FROM system.config WHERE name = ?")
    update = session.prepare("UPDATE system.config SET value = ? WHERE name = ?")

    def change(name, value):
        row = session.execute(select, [name]).one()
        before.setdefault(name, row.value)
        session.execute(update, [value, name])
        return session.execute(select, [name]).one()

    yield change
    for name, value in before.items():
        session.execute(update, [value, name])


def test_a_setting_changes_on_every_shard(server, session, setting):
    assert setting("tombstone_warn_threshold", "7") == ("7", "integer", "live")
    shown = session.execute("SELECT value FROM system_views.settings WHERE name = 'tombstone_warn_threshold'").one()
    assert shown.value == "7"
    session.execute("CREATE TABLE t (k int PRIMARY KEY)")
    setting("table_properties_disallowed", "[comment]")
    for _ in range(8):
        with pytest.raises(InvalidRequest, match=r"Provided values \[comment\] are not allowed for Table Properties"):
            session.execute("ALTER TABLE t WITH comment = 'x'")
    assert server.nodetool("getguardrailsconfig", "table_properties_disallowed") == "[comment]\n"


@pytest.mark.parametrize(
    "statement,answer",
    [
        ("UPDATE system.config SET value = '3' WHERE name = 'num_tokens'", "cannot change while the node runs"),
        ("UPDATE system.config SET value = '3' WHERE name = 'read_request_timeot'", "did you mean 'read_request_timeout'"),
        ("UPDATE system.config SET value = 'x' WHERE name = 'read_request_timeout'", "'x' is not a time span"),
        ("UPDATE system.config SET source = 'x' WHERE name = 'read_request_timeout'", "system.config takes UPDATE"),
        ("DELETE FROM system.config WHERE name = 'read_request_timeout'", "system.config takes UPDATE"),
        ("UPDATE system.config SET value = '3' WHERE name = 'x' IF EXISTS", "Conditional updates are not supported"),
        ("BEGIN BATCH UPDATE system.config SET value = '3' WHERE name = 'x'; APPLY BATCH", "not supported in a batch"),
        ("UPDATE system_views.settings SET value = 'x' WHERE name = 'x'", "not supported by virtual tables"),
    ],
)
def test_what_cannot_change_is_refused(session, statement, answer):
    with pytest.raises(InvalidRequest, match=answer):
        session.execute(statement)


def test_guardrails_of_storage(server, session):
    keyspace = session.keyspace
    session.execute("CREATE TABLE t (k int, c int, v int, w int, PRIMARY KEY (k, c))")
    try:
        server.nodetool("setguardrailsconfig", "partition_tombstones_threshold", "3", "1")
        for c in range(2):
            session.execute("DELETE FROM t WHERE k = 7 AND c = %s", [c])
        server.nodetool("flush", keyspace, "t")
        server.nodetool("setguardrailsconfig", "bulk_load_enabled", "false")
        assert "Bulk loading of SSTables is not allowed" in refused(server, "refresh", keyspace, "t")
    finally:
        server.nodetool("setguardrailsconfig", "partition_tombstones_threshold", "-1", "-1")
        server.nodetool("setguardrailsconfig", "bulk_load_enabled", "true")
    assert f"Partition {keyspace}.t:7 has 2 tombstones, this exceeds the warning threshold of 1" in log(server)
    session.execute("INSERT INTO t (k, c, v, w) VALUES (1, 1, 1, 1)")
    for condition, warned in {"v = 1 AND c = 1": False, "v = 1 AND w = 1": True}.items():
        text = f"SELECT * FROM t WHERE {condition} ALLOW FILTERING"
        read = session.execute_async(SimpleStatement(text, consistency_level=ConsistencyLevel.QUORUM))
        assert len(list(read.result())) == 1
        assert any("intersect_filtering_query" in text for text in read.warnings or []) == warned


def test_guardrails_by_nodetool(server, session):
    session.execute("CREATE TABLE t (k int PRIMARY KEY, v text, l list<int>)")
    try:
        server.nodetool("setguardrailsconfig", "items_per_collection_threshold", "3", "2")
        assert server.nodetool("getguardrailsconfig", "items_per_collection_threshold") == "[3, 2]\n"
        assert server.nodetool("getguardrailsconfig", "items_per_collection_warn_threshold") == "2\n"
        warned = session.execute_async("INSERT INTO t (k, l) VALUES (1, [1, 2, 3])")
        warned.result()
        assert warned.warnings == [
            "Guardrail items_per_collection violated: Detected collection l with 3 items, this exceeds the warning "
            "threshold of 2."
        ]
        with pytest.raises(InvalidRequest, match="l with 4 items, this exceeds the failure threshold of 3"):
            session.execute("INSERT INTO t (k, l) VALUES (1, [1, 2, 3, 4])")
        server.nodetool("setguardrailsconfig", "column_value_size_threshold", "64B", "null")
        with pytest.raises(InvalidRequest, match="Value of column 'v' has size 100, this exceeds the failure threshold"):
            session.execute("INSERT INTO t (k, v) VALUES (1, %s)", ["x" * 100])
        server.nodetool("setguardrailsconfig", "maximum_timestamp_threshold", "1d", "null")
        with pytest.raises(InvalidRequest, match="after the maximum allowable failure threshold"):
            session.execute("INSERT INTO t (k) VALUES (1) USING TIMESTAMP 99999999999999999")
        server.nodetool("setguardrailsconfig", "in_select_cartesian_product_threshold", "2", "-1")
        with pytest.raises(InvalidRequest, match="cartesian product of the IN restrictions on partition key produces 3"):
            session.execute("SELECT * FROM t WHERE k IN (1, 2, 3)")
        server.nodetool("setguardrailsconfig", "read_consistency_levels_disallowed", "ALL", "TWO")
        with pytest.raises(InvalidRequest, match=r"Provided values \[ALL\] are not allowed for read consistency levels"):
            session.execute(SimpleStatement("SELECT * FROM t", consistency_level=ConsistencyLevel.ALL))
    finally:
        server.nodetool("setguardrailsconfig", "items_per_collection_threshold", "-1", "-1")
        server.nodetool("setguardrailsconfig", "column_value_size_threshold", "null", "null")
        server.nodetool("setguardrailsconfig", "maximum_timestamp_threshold", "null", "null")
        server.nodetool("setguardrailsconfig", "in_select_cartesian_product_threshold", "-1", "-1")
        server.nodetool("setguardrailsconfig", "read_consistency_levels_disallowed", "null")
    flags = server.nodetool("getguardrailsconfig", "-c", "flags").splitlines()
    assert flags[0].split() == ["allow_filtering_enabled", "true"]
    assert "keyspaces_fail_threshold" in server.nodetool("getguardrailsconfig", "--expand")
    assert "Guardrail non_sense not found." in refused(server, "setguardrailsconfig", "non_sense", "10")
    assert "expecting 2 argument values. Getting 1 instead" in refused(
        server, "setguardrailsconfig", "keyspaces_threshold", "10"
    )
    assert "negative values are not allowed" in refused(
        server, "setguardrailsconfig", "keyspaces_threshold", "-10", "-20"
    )


def test_timeouts_by_nodetool(server, session):
    assert server.nodetool("gettimeout", "read") == "Current timeout for type read: 5000 ms\n"
    server.nodetool("settimeout", "read", "4321")
    assert server.nodetool("gettimeout", "read") == "Current timeout for type read: 4321 ms\n"
    server.nodetool("settimeout", "read", "5000")
    server.nodetool("setcompactionthroughput", "16")
    row = session.execute("SELECT value FROM system.config WHERE name = 'compaction_throughput'").one()
    assert row.value == "16MiB/s"
    assert "16 MB/s" in server.nodetool("getcompactionthroughput") or "16" in server.nodetool("getcompactionthroughput")
    server.nodetool("setcompactionthroughput", "64")
    assert server.nodetool("getstreamthroughput", "-m") == "Current stream throughput: 24.0 MiB/s\n"
    server.nodetool("setstreamthroughput", "200")
    assert server.nodetool("getstreamthroughput") == "Current stream throughput: 200 Mb/s\n"
    server.nodetool("setstreamthroughput", "-m", "24")


def test_hints_by_nodetool(server):
    assert server.nodetool("statushandoff") == "Hinted handoff is running\n"
    server.nodetool("disablehandoff")
    assert server.nodetool("statushandoff") == "Hinted handoff is not running\n"
    server.nodetool("enablehandoff")
    for verb in ["pausehandoff", "resumehandoff", "truncatehints"]:
        assert server.nodetool(verb) == ""
    assert server.nodetool("listpendinghints") == "This node does not have any pending hints\n"
    assert "127.0.0.99" in refused(server, "truncatehints", "127.0.0.99")


def test_levels_of_logs_by_nodetool(server):
    def levels():
        lines = server.nodetool("getlogginglevels").splitlines()
        assert lines[1].split() == ["Logger", "Name", "Log", "Level"]
        return dict(line.split() for line in lines[2:])

    def changes_logged():
        before = log(server).count("settings changed")
        server.nodetool("settimeout", "read", "5000")
        return log(server).count("settings changed") - before

    start = levels()
    assert "ROOT" in start
    server.nodetool("setlogginglevel", "ceto_control::settings", "INFO")
    assert levels() == {**start, "ceto_control::settings": "INFO"}
    assert changes_logged() == 1
    server.nodetool("setlogginglevel", "ceto_control::settings", "OFF")
    assert changes_logged() == 0
    server.nodetool("setlogginglevel", "root", "error")
    assert levels() == {**start, "ROOT": "ERROR", "ceto_control::settings": "OFF"}
    assert "log_levels" in refused(server, "setlogginglevel", "ceto_control", "loud")
    server.nodetool("setlogginglevel")
    assert "ceto_control::settings" not in levels()


def test_requests_are_traced_by_chance(server, session):
    assert server.nodetool("gettraceprobability") == "Current trace probability: 0.0\n"
    assert "between 0 and 1" in refused(server, "settraceprobability", "1.5")
    server.nodetool("settraceprobability", "1")
    assert server.nodetool("gettraceprobability") == "Current trace probability: 1.0\n"
    try:
        prepared = session.prepare("SELECT key FROM system.local WHERE key = ?")
        result = session.execute(prepared, ["local"])
        assert result.response_future.get_all_query_traces() == []
        session.execute("SELECT cluster_name FROM system.local")
    finally:
        server.nodetool("settraceprobability", "0")
    sessions = list(session.execute("SELECT request, parameters FROM system_traces.sessions"))
    assert "Execute CQL3 prepared query" in {row.request for row in sessions}
    assert "SELECT cluster_name FROM system.local" in {row.parameters.get("query") for row in sessions}
    count = len(sessions)
    session.execute("SELECT cluster_name FROM system.local")
    assert len(list(session.execute("SELECT request FROM system_traces.sessions"))) == count


def test_pages_end_after_tombstones(session, setting):
    session.execute("CREATE TABLE t (k int, c int, PRIMARY KEY (k, c))")
    for clustering in range(25):
        session.execute("DELETE FROM t WHERE k = 1 AND c = %s", [clustering])
    session.execute("INSERT INTO t (k, c) VALUES (1, 30)")
    setting("query_tombstone_page_limit", "10")
    pages = []
    result = session.execute(SimpleStatement("SELECT c FROM t WHERE k = 1", fetch_size=100))
    while True:
        pages.append([row.c for row in result.current_rows])
        if not result.has_more_pages:
            break
        result.fetch_next_page()
    assert pages == [[], [], [30]]
    # What has no pages is not cut.
    assert session.execute("SELECT count(*) FROM t WHERE k = 1").one()[0] == 1


def test_bind_markers_of_one_name(session, setting):
    session.execute("CREATE TABLE t (k int, c int, PRIMARY KEY (k, c))")
    session.execute("INSERT INTO t (k, c) VALUES (1, 1)")
    assert len(session.prepare("SELECT c FROM t WHERE c = :x AND k = :x").column_metadata) == 2
    setting("cql_duplicate_bind_variable_names_refer_to_same_variable", "true")
    merged = session.prepare("SELECT k FROM t WHERE c = :x AND k = :x")
    assert (len(merged.column_metadata), merged.routing_key_indexes) == (1, [0])
    assert [row.k for row in session.execute(merged, [1])] == [1]
    with pytest.raises(InvalidRequest, match="is used as"):
        session.prepare("SELECT k FROM t WHERE k = :x LIMIT :x ALLOW FILTERING USING TIMEOUT :x")


def test_clients_are_served_again(tmp_path, variant):
    node = Server(tmp_path / "data", shards=2).start()
    try:
        for _ in range(2):
            assert node.nodetool("statusbinary") == "running\n"
            with connect(node, variant) as cluster:
                assert cluster.connect().execute("SELECT key FROM system.local").one().key == "local"
            node.nodetool("disablebinary")
            node.nodetool("disablebinary")
            assert node.nodetool("statusbinary") == "not running\n"
            for port in (node.native_port, node.shard_aware_port):
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port), 5)
            node.nodetool("enablebinary")
        assert "is not supported: " in refused(node, "tpstats")
    finally:
        assert node.stop() == 0
