"""Three real processes: one schema whoever changes it, a node that dies and comes back, a majority that is lost."""

import concurrent.futures
import os
import pathlib
import re
import select
import signal
import subprocess
import time

import pytest
from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import ConstantReconnectionPolicy, FallthroughRetryPolicy, WhiteListRoundRobinPolicy
from cassandra.query import SimpleStatement

from server import binary

pytestmark = [pytest.mark.one_variant, pytest.mark.one_driver]

NODES = ["127.0.61.1", "127.0.61.2", "127.0.61.3"]
READY_TIMEOUT_SECONDS = 60
NOTICE_SECONDS = 30
POLL_SECONDS = 0.1


class Nodes:
    """The nodes of `ceto dev --nodes 3`, each of which can be killed and started again by itself."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.processes = {}
        self.sessions = {}

    def start(self, number):
        """Starts a node as `ceto dev --nodes` does, and waits until it serves."""
        command = [
            binary(), "dev", "--listen", NODES[number - 1], "--seed", NODES[0], "--data", str(self.folder / f"node{number}"),
        ]
        with open(self.folder / f"node{number}.log", "ab") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        self.processes[number] = process
        readable, _, _ = select.select([process.stdout], [], [], READY_TIMEOUT_SECONDS)
        line = os.read(process.stdout.fileno(), 4096).decode() if readable else ""
        assert line.startswith("ready: CQL "), line + self.log(number)
        return self

    def log(self, number):
        return (self.folder / f"node{number}.log").read_text(errors="replace")[-4000:]

    def kill(self, number):
        process = self.processes.pop(number)
        process.kill()
        process.wait()

    def end(self):
        for driver in self.sessions.values():
            driver.shutdown()
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        return {number: process.wait(60) for number, process in self.processes.items()}

    def session(self, number):
        """The session whose coordinator is one node."""
        if number not in self.sessions:
            address = NODES[number - 1]
            profile = ExecutionProfile(
                request_timeout=20, retry_policy=FallthroughRetryPolicy(),
                load_balancing_policy=WhiteListRoundRobinPolicy([address]), consistency_level=ConsistencyLevel.QUORUM,
            )
            driver = Cluster(
                [address], execution_profiles={EXEC_PROFILE_DEFAULT: profile}, connect_timeout=20,
                control_connection_timeout=20, protocol_version=4,
                reconnection_policy=ConstantReconnectionPolicy(0.2, None), schema_event_refresh_window=0,
            )
            driver.session = driver.connect()
            self.sessions[number] = driver
        return self.sessions[number].session

    def nodetool(self, number, *arguments):
        command = [binary(), "nodetool", "-h", NODES[number - 1], *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def states(self, number):
        """What `nodetool status` of a node says of all nodes: UN, DN ..."""
        rows = re.findall(r"^([UD][NLJM])  (\S+)", self.nodetool(number, "status"), re.MULTILINE)
        return {address: state for state, address in rows}

    def wait_until(self, number, states):
        wanted = dict(zip(NODES, states))
        deadline = time.monotonic() + NOTICE_SECONDS
        while (found := self.states(number)) != wanted:
            assert time.monotonic() < deadline, found
            time.sleep(POLL_SECONDS)

    def wait_until_connected(self, number):
        """Until the session of a node that came back takes requests."""
        session = self.session(number)
        deadline = time.monotonic() + NOTICE_SECONDS
        while True:
            try:
                return session.execute("SELECT key FROM system.local")
            except Exception:  # noqa: BLE001 - still reconnecting
                assert time.monotonic() < deadline, self.log(number)
                time.sleep(POLL_SECONDS)

    def schema(self, number):
        """The tables of a keyspace with their ids, as a node has them."""
        rows = self.session(number).execute("SELECT table_name, id FROM system_schema.tables WHERE keyspace_name = 'harbour'")
        return {row.table_name: row.id for row in rows}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    nodes = Nodes(tmp_path_factory.mktemp("three"))
    try:
        for number in (1, 2, 3):
            nodes.start(number)
        for number in (1, 2, 3):
            nodes.wait_until(number, ["UN"] * 3)
        yield nodes
    finally:
        statuses = nodes.end()
    assert set(statuses.values()) <= {0}, statuses


def read_all(session, consistency):
    statement = SimpleStatement("SELECT name, crew FROM harbour.ships", consistency_level=consistency)
    return {row.name: row.crew for row in session.execute(statement)}


def test_all_nodes_change_the_schema_at_once(nodes):
    def change(number):
        session = nodes.session(number)
        session.execute("CREATE KEYSPACE IF NOT EXISTS harbour WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': 3}")
        session.execute("CREATE TABLE IF NOT EXISTS harbour.ships (name text PRIMARY KEY, crew int)")
        for table in range(4):
            session.execute(f"CREATE TABLE IF NOT EXISTS harbour.shared{table} (k int PRIMARY KEY)")
        session.execute(f"CREATE TABLE harbour.own{number} (k int PRIMARY KEY)")
        session.execute(f"ALTER TABLE harbour.ships ADD column{number} int")

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for outcome in [pool.submit(change, number) for number in (1, 2, 3)]:
            outcome.result()
    first = nodes.schema(1)
    assert set(first) == {"ships", "own1", "own2", "own3"} | {f"shared{table}" for table in range(4)}
    assert nodes.schema(2) == first and nodes.schema(3) == first
    for number in (1, 2, 3):
        session = nodes.session(number)
        session.execute("INSERT INTO harbour.ships (name, crew, column1, column2, column3) VALUES (%s, %s, 1, 2, 3)", (f"ship {number}", number))
    for number in (1, 2, 3):
        assert read_all(nodes.session(number), ConsistencyLevel.ALL) == {f"ship {n}": n for n in (1, 2, 3)}


def test_a_trace_is_read_by_way_of_any_node(nodes):
    traced = nodes.session(1).execute("SELECT key FROM system.local", trace=True)
    [trace_id] = traced.response_future.get_query_trace_ids()
    deadline = time.monotonic() + NOTICE_SECONDS
    for number in (2, 3, 1):
        # Of its two replicas QUORUM wants both.
        while not (rows := list(nodes.session(number).execute(
                "SELECT coordinator, duration FROM system_traces.sessions WHERE session_id = %s", [trace_id]))):
            assert time.monotonic() < deadline
            time.sleep(POLL_SECONDS)
        assert (rows[0].coordinator, rows[0].duration > 0) == (NODES[0], True)
        events = nodes.session(number).execute("SELECT source FROM system_traces.events WHERE session_id = %s", [trace_id])
        assert {row.source for row in events} == {NODES[0]}


def test_nodetool_shows_the_cluster(nodes):
    for number in (1, 2, 3):
        described = nodes.nodetool(number, "describecluster")
        versions = re.findall(r"^\t\t(\S+): \[(.*)\]$", described, re.MULTILINE)
        assert len(versions) == 1 and len(versions[0][1].split(", ")) == 3, described
        assert "Live: 3" in described and "datacenter1 #Nodes: 3 #Down: 0" in described
        gossip = nodes.nodetool(number, "gossipinfo")
        assert all(f"/{address}\n" in gossip for address in NODES) and "RPC_READY" in gossip
        ring = re.findall(r"^(127\S+) +rack1 +Up +Normal ", nodes.nodetool(number, "ring", "harbour"), re.MULTILINE)
        assert len(ring) == 48 and set(ring) == set(NODES)
        ranges = nodes.nodetool(number, "describering", "harbour")
        assert len(re.findall(r"TokenRange\(start_token", ranges)) == 48
        phi = nodes.nodetool(number, "failuredetector")
        assert {line.split(",")[0].strip() for line in phi.splitlines()[1:]} == set(NODES) - {NODES[number - 1]}


def test_a_node_dies_and_the_others_go_on(nodes):
    nodes.kill(3)
    for number in (1, 2):
        nodes.wait_until(number, ["UN", "UN", "DN"])
    session = nodes.session(1)
    session.execute("CREATE TABLE harbour.without_it (k int PRIMARY KEY)")
    session.execute("INSERT INTO harbour.ships (name, crew) VALUES ('late', 7)")
    session.execute("DROP TABLE harbour.own3")
    assert read_all(nodes.session(2), ConsistencyLevel.QUORUM)["late"] == 7
    nodes.start(3)
    for number in (1, 2, 3):
        nodes.wait_until(number, ["UN"] * 3)
    nodes.wait_until_connected(3)
    deadline = time.monotonic() + NOTICE_SECONDS
    while nodes.schema(3) != nodes.schema(1):
        assert time.monotonic() < deadline, nodes.log(3)
        time.sleep(POLL_SECONDS)
    assert "own3" not in nodes.schema(3) and "without_it" in nodes.schema(3)
    assert read_all(nodes.session(3), ConsistencyLevel.ALL)["late"] == 7


def test_without_a_majority_data_goes_on_and_the_schema_waits(nodes):
    for number in (2, 3):
        nodes.kill(number)
    nodes.wait_until(1, ["UN", "DN", "DN"])
    session = nodes.session(1)
    began = time.monotonic()
    with pytest.raises(Exception, match="need a majority of the 3 nodes that vote on them, and 1 of these are up"):
        session.execute("CREATE TABLE harbour.alone (k int PRIMARY KEY)")
    assert time.monotonic() - began < 5
    write = SimpleStatement("INSERT INTO harbour.ships (name, crew) VALUES ('alone', 1)", consistency_level=ConsistencyLevel.ONE)
    session.execute(write)
    assert read_all(session, ConsistencyLevel.ONE)["alone"] == 1
    # The one that is left dies, too; then all come back, the last first.
    nodes.kill(1)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for outcome in [pool.submit(nodes.start, number) for number in (3, 2, 1)]:
            outcome.result()
    for number in (1, 2, 3):
        nodes.wait_until(number, ["UN"] * 3)
        nodes.wait_until_connected(number)
    nodes.session(2).execute("CREATE TABLE harbour.together (k int PRIMARY KEY)")
    assert read_all(nodes.session(3), ConsistencyLevel.ALL)["alone"] == 1
    assert "alone" not in nodes.schema(1)
    assert nodes.schema(1) == nodes.schema(2) == nodes.schema(3)


def test_a_node_of_another_cluster_is_refused(nodes, tmp_path):
    configuration = tmp_path / "ceto.yaml"
    configuration.write_text(
        f"cluster_name: Another\nseeds: ['{NODES[0]}']\nlisten_address: 127.0.61.4\nrpc_address: 127.0.61.4\n"
        f"api_address: 127.0.61.4\nprometheus_address: 127.0.61.4\nshards: 1\npin_shards: false\n"
        f"data_file_directories: ['{tmp_path}/data']\nmemory_limit: 384MiB\n"
    )
    with open(tmp_path / "log", "ab") as log:
        process = subprocess.Popen([binary(), "server", "--config", str(configuration)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + NOTICE_SECONDS
        while "change cluster_name or seeds" not in (text := (tmp_path / "log").read_text()):
            assert time.monotonic() < deadline, text
            time.sleep(POLL_SECONDS)
        assert "ready" not in text
        assert len(nodes.states(1)) == 3
    finally:
        process.terminate()
        process.wait(60)


def test_a_dead_node_is_let_go(nodes):
    """A member that will not come back is made none; the others vote among themselves from then on."""
    nodes.kill(3)
    for number in (1, 2):
        nodes.wait_until(number, ["UN", "UN", "DN"])
    nodes.nodetool(1, "assassinate", NODES[2])
    deadline = time.monotonic() + NOTICE_SECONDS
    while set(nodes.states(2)) != set(NODES[:2]):
        assert time.monotonic() < deadline, nodes.log(2)
        time.sleep(POLL_SECONDS)
    assert {row.peer for row in nodes.session(1).execute("SELECT peer FROM system.peers")} == {NODES[1]}
    nodes.session(2).execute("CREATE TABLE harbour.two (k int PRIMARY KEY)")
    try:
        nodes.start(3)
    except AssertionError:
        pass  # It was told before it served.
    assert nodes.processes.pop(3).wait(60) == 1
    assert "was removed from the cluster" in nodes.log(3)
