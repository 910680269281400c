"""cqlsh 6.2, unmodified: scripts on its command line and in files."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from conftest import IS_SHARD_AWARE_DRIVER

CQLSH = pathlib.Path(sys.executable).parent / "cqlsh"
TIMEOUT_SECONDS = 120

pytestmark = pytest.mark.skipif(IS_SHARD_AWARE_DRIVER, reason="cqlsh belongs to the other driver")


class Shell:
    """Runs cqlsh with a home folder of its own."""

    def __init__(self, server, folder):
        self.server = server
        self.folder = folder

    def run(self, script, *arguments, status=0):
        path = self.folder / "script.cql"
        path.write_text(script)
        command = [
            str(CQLSH), "127.0.0.1", str(self.server.native_port), "--no-color", "--request-timeout=30",
            "--connect-timeout=20", f"--file={path}", *arguments,
        ]
        environment = {**os.environ, "HOME": str(self.folder), "COLUMNS": "200"}
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, cwd=self.folder, env=environment,
            stdin=subprocess.DEVNULL,
        )
        assert result.returncode == status, f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result.stdout if status == 0 else result.stdout + result.stderr


@pytest.fixture
def shell(server, tmp_path):
    shell = Shell(server, tmp_path)
    shell.run(
        "DROP KEYSPACE IF EXISTS shell;"
        "CREATE KEYSPACE shell WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1};"
        "CREATE TABLE shell.people (id int, name text, born date, tags set<text>, scores map<text, int>, "
        "PRIMARY KEY (id, name)) WITH CLUSTERING ORDER BY (name DESC) AND comment = 'some people';"
        "INSERT INTO shell.people (id, name, born, tags, scores) VALUES (1, 'Ada', '1815-12-10', {'x', 'y'}, {'a': 1});"
        "INSERT INTO shell.people (id, name) VALUES (1, 'Bob');"
    )
    yield shell
    shell.run("DROP KEYSPACE IF EXISTS shell;")


def cells(output):
    """The table in cqlsh's output: header and rows."""
    rows = [line for line in output.splitlines() if "|" in line]
    return [[cell.strip() for cell in line.split("|")] for line in rows]


def test_select(shell):
    output = shell.run("USE shell; SELECT * FROM people;")
    assert cells(output) == [
        ["id", "name", "born", "scores", "tags"],
        ["1", "Bob", "null", "null", "null"],
        ["1", "Ada", "1815-12-10", "{'a': 1}", "{'x', 'y'}"],
    ]
    assert "(2 rows)" in output


def test_describe(shell):
    assert "shell" in shell.run("DESCRIBE KEYSPACES;")
    assert "people" in shell.run("USE shell; DESCRIBE TABLES;")
    table = shell.run("DESCRIBE TABLE shell.people;")
    for fragment in [
        "CREATE TABLE shell.people", "id int", "tags set<text>", "scores map<text, int>", "PRIMARY KEY (id, name)",
        "CLUSTERING ORDER BY (name DESC)", "comment = 'some people'",
    ]:
        assert fragment in table, table
    keyspace = shell.run("DESCRIBE KEYSPACE shell;")
    assert "CREATE KEYSPACE shell WITH replication = {'class': 'SimpleStrategy'" in keyspace
    assert "CREATE TABLE shell.people" in keyspace
    assert "CREATE TABLE shell.people" in shell.run("DESCRIBE SCHEMA;")
    cluster = shell.run("DESCRIBE CLUSTER;")
    assert re.search(r"Cluster: .+", cluster) and "Murmur3Partitioner" in cluster
    assert "system.local" in shell.run("DESCRIBE TABLE system.local;")
    # What DESCRIBE prints is CQL that makes the same again.
    shell.run("DROP TABLE shell.people;" + table)
    assert shell.run("DESCRIBE TABLE shell.people;") == table
    output = shell.run("DESCRIBE TABLE shell.nosuch;", status=2)
    assert "nosuch" in output


def test_describe_type(shell):
    shell.run("USE shell; CREATE TYPE inside (a int); CREATE TYPE outside (b frozen<inside>, c list<text>);")
    output = shell.run("USE shell; DESCRIBE TYPES; DESCRIBE TYPE outside;")
    assert "inside" in output and "CREATE TYPE shell.outside" in output and "b frozen<inside>" in output


def test_version_and_host(shell):
    output = shell.run("SHOW VERSION; SHOW HOST;")
    assert re.search(r"\[cqlsh 6\.2\.\S+ \| \S+ [45]\.\S+ \| CQL spec 3\.4\.\d+ \| Native protocol v5\]", output), output
    assert f"Connected to" in output and str(shell.server.native_port) in output


def test_consistency(shell):
    output = shell.run("CONSISTENCY QUORUM; SELECT count(*) FROM shell.people; CONSISTENCY;")
    assert "Consistency level set to QUORUM." in output and "Current consistency level is QUORUM." in output
    output = shell.run("CONSISTENCY TWO; SELECT * FROM shell.people;", status=2)
    assert "Unavailable" in output or "NoHostAvailable" in output


def test_tracing(shell):
    output = shell.run("TRACING ON; SELECT * FROM shell.people WHERE id = 1; TRACING OFF;")
    assert "Tracing session:" in output and "Request complete" in output
    assert any("activity" in row[0] for row in cells(output) if row)


def test_paging(shell):
    inserts = "".join(f"INSERT INTO shell.people (id, name) VALUES (7, 'n{number:03}');" for number in range(250))
    shell.run(inserts)
    output = shell.run("PAGING 30; SELECT name FROM shell.people WHERE id = 7;")
    assert "Page size: 30" in output
    assert len(re.findall(r"\bn\d{3}\b", output)) == 250
    output = shell.run("PAGING OFF; SELECT name FROM shell.people WHERE id = 7;")
    assert "(250 rows)" in output


def test_expanded_output(shell):
    output = shell.run("EXPAND ON; SELECT id, name FROM shell.people WHERE id = 1 AND name = 'Ada';")
    assert "@ Row 1" in output and re.search(r"name\s*\|\s*Ada", output)


def test_errors_have_their_codes(shell):
    output = shell.run("SELEC 1;", status=2)
    assert "SyntaxException" in output
    output = shell.run("SELECT * FROM shell.nosuch;", status=2)
    assert "InvalidRequest" in output and "code=2200" in output
    output = shell.run("CREATE TABLE shell.people (k int PRIMARY KEY);", status=2)
    assert "AlreadyExists" in output


def test_copy(shell, tmp_path):
    lines = [f'{number},"name, {number}",2000-01-{number % 28 + 1:02},"{{\'t{number}\'}}","{{\'s\': {number}}}"' for number in range(500)]
    (tmp_path / "in.csv").write_text("\n".join(lines) + "\n")
    columns = "shell.people (id, name, born, tags, scores)"
    shell.run("TRUNCATE shell.people;")
    output = shell.run(f"COPY {columns} FROM '{tmp_path}/in.csv' WITH NUMPROCESSES = 2;")
    assert "500 rows imported" in output, output
    assert "500" in shell.run("SELECT count(*) FROM shell.people;")
    output = shell.run(f"COPY {columns} TO '{tmp_path}/out.csv' WITH NUMPROCESSES = 2 AND HEADER = true;")
    assert "500 rows exported" in output, output
    exported = (tmp_path / "out.csv").read_text().splitlines()
    assert exported[0] == "id,name,born,tags,scores"
    assert sorted(int(line.split(",")[0]) for line in exported[1:]) == list(range(500))
    shell.run("TRUNCATE shell.people;")
    shell.run(f"COPY {columns} FROM '{tmp_path}/out.csv' WITH HEADER = true AND NUMPROCESSES = 1;")
    row = cells(shell.run("SELECT * FROM shell.people WHERE id = 77;"))[1]
    assert row == ["77", "name, 77", "2000-01-22", "{'s': 77}", "{'t77'}"]


def test_capture_and_source(shell, tmp_path):
    (tmp_path / "more.cql").write_text("INSERT INTO shell.people (id, name) VALUES (9, 'sourced');\n")
    shell.run(f"SOURCE '{tmp_path}/more.cql'\nCAPTURE '{tmp_path}/captured.txt'\nSELECT name FROM shell.people WHERE id = 9;\nCAPTURE OFF;\n")
    assert "sourced" in (tmp_path / "captured.txt").read_text()


def test_every_type_is_printed(shell):
    output = shell.run(
        "CREATE TABLE shell.kinds (k int PRIMARY KEY, a ascii, b blob, c duration, d decimal, e double, f inet, "
        "g time, h timestamp, i uuid, j varint, l list<frozen<tuple<int, text>>>, v vector<float, 2>);"
        "INSERT INTO shell.kinds (k, a, b, c, d, e, f, g, h, i, j, l, v) VALUES (1, 'x', 0xcafe, 1h30m, 1.25, 0.5, "
        "'::1', '10:00:00', '2024-01-01 00:00:00+0000', 50554d6e-29bb-11e5-b345-feff819cdc9f, 12345678901234567890, "
        "[(1, 'one')], [1.5, 2]); SELECT JSON * FROM shell.kinds; SELECT * FROM shell.kinds;"
    )
    for text in ["0xcafe", "1h30m", "1.25", "::1", "10:00:00.000000000", "2024-01-01", "12345678901234567890", "(1, 'one')", "[1.5, 2"]:
        assert text in output, (text, output)
