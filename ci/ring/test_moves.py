"""Nodes come and go under load: what was acknowledged is there, and on every replica of it."""

import time

import pytest
from cassandra import ConsistencyLevel
from cassandra.concurrent import execute_concurrent_with_args

from cluster import POLL_SECONDS, ClusterUnderTest, address
from history import Load

REPLICATION = "{'class': 'NetworkTopologyStrategy', 'datacenter1': 3}"
OLD_ROWS = 1500
# Requests end soon: whoever comes or goes waits for those that were begun before.
SETTINGS = ["counter_write_request_timeout:2s"]
LOAD_SECONDS = 1
NOTICE_SECONDS = 10


@pytest.fixture
def ring(tmp_path):
    cluster = ClusterUnderTest(tmp_path, [3], SETTINGS)
    cluster.ccm("node2", "updateconf", "shards:1")
    cluster.start()
    yield cluster
    cluster.remove()


def fill(ring):
    session = ring.session(1)
    session.execute(f"CREATE KEYSPACE old WITH replication = {REPLICATION}")
    session.execute("CREATE TABLE old.rows (k int, c int, v text, PRIMARY KEY (k, c))")
    insert = session.prepare("INSERT INTO old.rows (k, c, v) VALUES (?, ?, ?)")
    insert.consistency_level = ConsistencyLevel.ALL
    rows = [(number // 3, number % 3, f"value {number}") for number in range(OLD_ROWS)]
    execute_concurrent_with_args(session, insert, rows, concurrency=50)
    delete = session.prepare("DELETE FROM old.rows WHERE k = ? AND c = 1")
    delete.consistency_level = ConsistencyLevel.ALL
    execute_concurrent_with_args(session, delete, [(number,) for number in range(OLD_ROWS // 3)], concurrency=50)


def every_replica_has_the_old_rows(ring, numbers):
    """A node that is a replica answers ONE by itself: nobody repairs what it lacks."""
    for number in numbers:
        session = ring.session(number)
        select = session.prepare("SELECT c, v FROM old.rows WHERE k = ?")
        select.consistency_level = ConsistencyLevel.ONE
        keys = [(key,) for key in range(OLD_ROWS // 3)]
        for (key,), (_, rows) in zip(keys, execute_concurrent_with_args(session, select, keys, concurrency=50)):
            assert [tuple(row) for row in rows] == [(0, f"value {3 * key}"), (2, f"value {3 * key + 2}")], (number, key)


def under_load(ring, numbers, change):
    """Does something while `numbers` are asked, none of whom may fail a request; all of them have all then."""
    ring.numbers = numbers
    Load.define(ring.session(numbers[0]), REPLICATION)
    with Load(ring) as load:
        time.sleep(LOAD_SECONDS)
        change()
        time.sleep(LOAD_SECONDS)
        assert load.failures() == []
    return load


def only_these_are_members(ring, number, others):
    """As one node sees it, soon: it hears of what was decided with the next heartbeat."""
    deadline = time.monotonic() + NOTICE_SECONDS
    while set(ring.states(number)) != {address(other) for other in others}:
        assert time.monotonic() < deadline, ring.nodetool(number, "status")
        time.sleep(POLL_SECONDS)


def test_nodes_come_and_go(ring):
    fill(ring)

    def join():
        ring.ccm("add", "node4", "-b")
        ring.ccm("node4", "updateconf", "shards:3")
        ring.start(4, waits=False)
        ring.wait_until_seen(1, 4, "UJ")
        assert f"/{address(4)}" in ring.nodetool(1, "netstats")
        ring.wait_until_seen(1, 4, "UN", 90)
        ring.wait_until_connected(4)

    load = under_load(ring, [1, 2, 3], join)
    for number in (1, 2, 3, 4):
        load.verify(number)
    every_replica_has_the_old_rows(ring, (1, 2, 3, 4))
    peers = {row.peer for row in ring.session(1).execute("SELECT peer FROM system.peers")}
    assert peers == {address(2), address(3), address(4)}

    # The founder leaves, which has led the changes of the cluster so far.
    assert "would copy" in ring.nodetool(1, "decommission", "--dry-run")
    load = under_load(ring, [2, 3, 4], lambda: ring.nodetool(1, "decommission"))
    assert "Mode: DECOMMISSIONED" in ring.nodetool(1, "netstats")
    for number in (2, 3, 4):
        only_these_are_members(ring, number, (2, 3, 4))
        load.verify(number)
    every_replica_has_the_old_rows(ring, (2, 3, 4))
    ring.stop(1)

    # One dies; the two that are left have all of it.
    ring.kill(3)
    ring.wait_until_seen(2, 3, "DN")
    ring.wait_until_seen(4, 3, "DN")
    [host] = [row.split()[-2] for row in ring.nodetool(2, "status").splitlines() if row.startswith("DN")]
    load = under_load(ring, [2, 4], lambda: ring.nodetool(2, "removenode", host))
    for number in (2, 4):
        only_these_are_members(ring, number, (2, 4))
        load.verify(number, ConsistencyLevel.QUORUM)
    every_replica_has_the_old_rows(ring, (2, 4))
