"""The documents say what is so: paths and functions exist, dependencies have their reason, commands and examples run."""

import json
import pathlib
import re
import subprocess
import sys
import time

import pytest

from server import REPOSITORY, Server, binary, free_ports

DOCUMENTS = ["README.md", "ARCHITECTURE.md", "COMPAT.md", "CHANGELOG.md"]
ROOTS = ("engine/", "net/", "shard/", "tools/", "conf/", "perf/", "ci/")
PATH = re.compile(r"`((?:%s)[\w./-]*)`" % "|".join(root for root in ROOTS))
FUNCTION = re.compile(r"`((?:%s)[\w./-]*\.rs)` `(\w+)`" % "|".join(root for root in ROOTS))


def text(name):
    return (REPOSITORY / name).read_text()


def blocks(document, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text(document), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_exist(document):
    missing = [path for path in PATH.findall(text(document)) if not (REPOSITORY / path).exists()]
    assert not missing


def test_the_write_path_is_named():
    assert len(FUNCTION.findall(text("ARCHITECTURE.md"))) >= 8


@pytest.mark.parametrize("document", DOCUMENTS)
def test_functions_exist(document):
    missing = []
    for path, function in FUNCTION.findall(text(document)):
        file = REPOSITORY / path
        if not file.exists() or not re.search(rf"\bfn {function}\b", file.read_text()):
            missing.append(f"{path} {function}")
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    targets = re.findall(r"\]\(([^)#]+)\)", text(document))
    missing = [target for target in targets if "://" not in target and not (REPOSITORY / target).exists()]
    assert not missing


def test_every_dependency_has_its_reason():
    section = re.search(r"^\[workspace\.dependencies\]\n(.*?)^\[", text("Cargo.toml"), re.MULTILINE | re.DOTALL).group(1)
    names = [name for name in re.findall(r"^([\w-]+) =", section, re.MULTILINE) if not name.startswith("ceto-")]
    assert len(names) > 10
    rows = [line for line in text("ARCHITECTURE.md").splitlines() if line.startswith("|")]
    named = set(re.findall(r"[\w-]+", "\n".join(rows)))
    assert not [name for name in names if name not in named]


def test_every_member_is_in_the_table():
    section = re.search(r"^members = \[(.*?)\]", text("Cargo.toml"), re.MULTILINE | re.DOTALL).group(1)
    members = [member for member in re.findall(r'"([^"]+)"', section) if member.startswith(("engine", "net", "shard"))]
    assert len(members) >= 10
    assert not [member for member in members if f"`{member}`" not in text("ARCHITECTURE.md")]


def ceto(*arguments, timeout=60):
    return subprocess.run([binary(), *arguments], capture_output=True, text=True, timeout=timeout)


def test_commands_are_known():
    """Every `ceto ...` of the README is a command, and misuse is one line and exit status 2."""
    commands = set(re.findall(r"`ceto (\w+)", text("README.md")))
    assert {"dev", "server", "nodetool", "stress"} <= commands
    usage = ceto("--help").stdout
    assert not [command for command in commands if command not in usage]
    for arguments in (["frobnicate"], ["dev", "--shards", "0"], ["nodetool", "frobnicate"], ["stress", "frobnicate"], ["sstable", "frobnicate"], ["sstable", "dump"], ["sstable", "verify", "/nosuch"], ["server", "--config", "/nosuch"]):
        result = ceto(*arguments)
        assert result.returncode == 2 or arguments[0] == "server" and result.returncode in (1, 2), arguments
        assert len(result.stderr.strip().splitlines()) == 1, (arguments, result.stderr)
    assert ceto("--version").stdout.startswith("ceto ")


def test_nodetool_verbs(server):
    for verb in re.findall(r"`(\w+)`", re.search(r"`ceto nodetool info`(.*)\|", text("README.md")).group(1)):
        output = server.nodetool(verb)
        if verb == "status":
            assert re.search(r"^UN  127\.0\.0\.1 ", output, re.MULTILINE), output
        if verb == "version":
            assert re.match(r"ReleaseVersion: \d+\.\d+", output)
        if verb == "tablestats":
            assert "Keyspace: system_schema" in output and "Table: keyspaces" in output


def test_nodetool_info(server):
    output = server.nodetool("info")
    labels = [line.split(":")[0].strip() for line in output.splitlines()]
    assert labels[:4] == ["ID", "Gossip active", "Native Transport active", "Load"]
    assert re.search(r"^Data Center +: datacenter1$", output, re.MULTILINE)


def test_stress(server):
    node = ["-node", "127.0.0.1", f"port={server.native_port}"]
    written = ceto("stress", "write", "n=20000", "-rate", "threads=64", *node, timeout=120)
    assert written.returncode == 0 and "END" in written.stdout, written.stdout + written.stderr
    read = ceto("stress", "read", "n=20000", "-pop", "seq=1..20000", "-rate", "threads=64", *node, timeout=120)
    assert read.returncode == 0, read.stdout + read.stderr
    assert re.search(r"Total errors +: +0 ", read.stdout)


def test_sstable(server):
    """The sstables of a node that runs are shown and sound."""
    server.nodetool("flush")
    [folder] = (pathlib.Path(server.data) / "data" / "system_schema").glob("columns-*")
    verified = ceto("sstable", "verify", str(folder))
    assert verified.returncode == 0 and verified.stdout.endswith(": ok\n"), verified.stdout + verified.stderr
    lines = ceto("sstable", "dump", str(folder)).stdout.splitlines()
    keys = [json.loads(line)["partition"]["key"] for line in lines]
    assert ["system_schema"] in keys
    stats = ceto("sstable", "stats", str(folder)).stdout
    assert "Keyspace: system_schema\nTable: columns\n" in stats


def test_the_sample_configuration_starts(tmp_path):
    ports = free_ports(5)
    configuration = text("conf/ceto.yaml")
    for key, value in {
        "native_transport_port": ports[0], "native_shard_aware_transport_port": ports[1], "api_port": ports[2],
        "prometheus_port": ports[3], "storage_port": ports[4], "shards": 1,
    }.items():
        configuration = re.sub(rf"^#? ?{key}:.*$", f"{key}: {value}", configuration, flags=re.MULTILINE)
    configuration = re.sub(
        r"^#? ?data_file_directories:.*\n(?:[# ]+- .*\n)*", f"data_file_directories:\n  - {tmp_path}/data\n",
        configuration, flags=re.MULTILINE,
    )
    path = tmp_path / "ceto.yaml"
    path.write_text(configuration)
    node = Server(tmp_path / "data")
    node.native_port, node.shard_aware_port, node.admin_port, node.metrics_port = ports[:4]
    with open(node.log_path, "ab") as log:
        node.process = subprocess.Popen([binary(), "server", "--config", str(path)], stdout=subprocess.PIPE, stderr=log)
    try:
        assert "ready: CQL" in node._read_ready_line(time.monotonic() + 30)
        assert "Native Transport active: true" in node.nodetool("info")
    finally:
        status = node.stop()
    assert status == 0


def test_the_tour(server):
    """The README's cqlsh session, statement by statement; what it calls an error must be one."""
    [session] = blocks("README.md", "sql")
    statements, current = [], ""
    for line in session.splitlines():
        current += line + "\n"
        code = re.sub(r"--.*", "", line).rstrip()
        if code.endswith(";") or re.match(r"(TRACING|DESCRIBE|PAGING|CONSISTENCY) ?\w*", code) and not code.startswith(" "):
            statements.append(current)
            current = ""
    assert len(statements) >= 8 and not current.strip()
    use = ""
    for statement in statements:
        if "?" in statement:
            table, identity = re.search(r"UPDATE (\w+)", statement).group(1), re.search(r"(\w+) = \?", statement).group(1)
            output = run_shell(server, use + f"SELECT JSON {identity} FROM {table};\n", 0)
            found = re.findall(r'"%s": "([0-9a-f-]{36})"' % identity, output)
            statement = statement.replace("?", found[-1])
        if "an error" in statement:
            run_shell(server, use + statement, 2)
            continue
        run_shell(server, use + statement, 0)
        if re.match(r"\s*USE ", statement):
            use = statement


def test_the_tour_of_three_nodes(tmp_path):
    """The README's cluster: a driver goes on while a node dies."""
    [program] = blocks("README.md", "python")
    command = [binary(), "dev", "--nodes", "3", "--listen", "127.0.62.1", "--data", str(tmp_path / "three")]
    with open(tmp_path / "log", "ab") as log:
        nodes = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        lines = [nodes.stdout.readline() for _ in range(4)]
        assert re.match(r"ready: 3 nodes, CQL 127\.0\.62\.1:9042 ", lines[3]), lines
        third = int(re.match(r"node 3: ready: .*\(pid (\d+),", lines[2]).group(1))
        program = program.replace("127.0.0.", "127.0.62.") + f"""
import os, signal
os.kill({third}, signal.SIGKILL)
for crew in range(1000):
    assert session.execute("SELECT crew FROM harbour.ships WHERE name = %s", (f"ship {{crew}}",)).one().crew == crew
session.execute("INSERT INTO harbour.ships (name, crew) VALUES ('late', 1)")
session.execute("CREATE TABLE harbour.docks (name text PRIMARY KEY)")
print("went on")
"""
        outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
        assert outcome.stdout == "went on\n", outcome.stdout + outcome.stderr + (tmp_path / "log").read_text()
        assert nodes.stdout.readline().startswith("node 3: ended")
        deadline = time.monotonic() + 30
        while "DN  127.0.62.3" not in ceto("nodetool", "-h", "127.0.62.1", "status").stdout:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        nodes.terminate()
        status = nodes.wait(90)
    assert status == 0, (tmp_path / "log").read_text()


def run_shell(server, script, status):
    command = [str(pathlib.Path(sys.executable).parent / "cqlsh"), "127.0.0.1", str(server.native_port), "--no-color", "-e", script.strip()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert result.returncode == status, f"{script}\n{result.stdout}{result.stderr}"
    return result.stdout
