"""Three nodes under load while one is killed, paused or cut off: what was acknowledged is there, and QUORUM goes on."""

import time

import pytest
from cassandra import ConsistencyLevel, Unavailable
from cassandra.cluster import NoHostAvailable
from cassandra.query import SimpleStatement

from cluster import address
from history import Load

REPLICATION = "{'class': 'NetworkTopologyStrategy', 'datacenter1': 3}"
# Until every node has noticed what happened to another.
NOTICE_SECONDS = 25
LOAD_SECONDS = 3


@pytest.fixture
def load(ring):
    Load.define(ring.session(1), REPLICATION)
    with Load(ring) as load:
        time.sleep(LOAD_SECONDS)
        assert load.acknowledged() > 100
        assert load.failures() == []
        yield load
    for number in ring.numbers:
        load.verify(number)


def goes_on(load, seconds=LOAD_SECONDS):
    """No request that begins from now on fails, and work is done."""
    since, before = time.monotonic(), load.acknowledged()
    time.sleep(seconds)
    assert load.failures(since) == []
    assert load.acknowledged() > before + 100


def test_all_is_well(ring, load):
    assert {number: set(ring.states(number).values()) for number in ring.numbers} == {n: {"UN"} for n in ring.numbers}
    peers = {row.peer for row in ring.session(1).execute("SELECT peer FROM system.peers")}
    assert peers == {address(2), address(3)}
    goes_on(load)


def test_a_killed_node_is_not_missed(ring, load):
    load.use(1, 2)
    ring.kill(3)
    ring.wait_until_seen(1, 3, "DN")
    ring.wait_until_seen(2, 3, "DN")
    goes_on(load)
    everywhere = SimpleStatement("SELECT v FROM ring.rows WHERE k = 1", consistency_level=ConsistencyLevel.ALL)
    with pytest.raises((Unavailable, NoHostAvailable)) as refusal:
        ring.session(1).execute(everywhere)
    error = refusal.value
    if isinstance(error, NoHostAvailable):
        [error] = error.errors.values()
    assert (error.required_replicas, error.alive_replicas) == (3, 2)
    ring.start(3)
    ring.wait_until_connected(3)
    load.use(1, 2, 3)
    goes_on(load)


def test_a_paused_node_is_not_waited_for_long(ring, load):
    load.use(1, 2)
    ring.pause(3)
    ring.wait_until_seen(1, 3, "DN", NOTICE_SECONDS)
    ring.wait_until_seen(2, 3, "DN", NOTICE_SECONDS)
    goes_on(load)
    ring.resume(3)
    for number in (1, 2):
        ring.wait_until_seen(number, 3, "UN", NOTICE_SECONDS)
    ring.wait_until_connected(3)
    load.use(1, 2, 3)
    goes_on(load)


@pytest.mark.parametrize("ways", ["both ways", "towards it", "from it"])
def test_a_node_that_is_cut_off(ring, load, network, ways):
    towards, away = [(1, 3), (2, 3)], [(3, 1), (3, 2)]
    lines = {"both ways": towards + away, "towards it": towards, "from it": away}[ways]
    load.use(1, 2)
    with network.without(*lines):
        ring.wait_until_seen(1, 3, "DN", NOTICE_SECONDS)
        ring.wait_until_seen(2, 3, "DN", NOTICE_SECONDS)
        goes_on(load)
    for number in (1, 2):
        ring.wait_until_seen(number, 3, "UN", NOTICE_SECONDS)
        ring.wait_until_seen(3, number, "UN", NOTICE_SECONDS)
    ring.wait_until_connected(3)
    load.use(1, 2, 3)
    goes_on(load)


def test_a_rolling_restart_costs_no_request_beyond_the_node_in_hand(ring, load):
    since = time.monotonic()
    for number in ring.numbers:
        load.use(*(other for other in ring.numbers if other != number))
        # What is under way at the node in hand ends first.
        time.sleep(1)
        ring.stop(number)
        time.sleep(1)
        ring.start(number)
        ring.wait_until_connected(number)
    load.use(*ring.numbers)
    assert load.failures(since) == []
    goes_on(load)
