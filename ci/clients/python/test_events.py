"""Events: a second client learns of schema changes without asking."""

import time

import pytest

from conftest import connect

EVENT_TIMEOUT_SECONDS = 20


@pytest.fixture
def watcher(server, variant):
    """A cluster object that makes no changes itself."""
    cluster = connect(server, variant)
    cluster.connect()
    yield cluster
    cluster.shutdown()


def eventually(condition):
    deadline = time.monotonic() + EVENT_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        try:
            if condition():
                return True
        except KeyError:
            pass
        time.sleep(0.05)
    return False


def test_schema_changes_are_seen_by_another_client(session, watcher):
    keyspace = session.keyspace
    seen = lambda: watcher.metadata.keyspaces[keyspace]
    session.execute("CREATE TABLE t (k int PRIMARY KEY)")
    assert eventually(lambda: "t" in seen().tables)
    session.execute("ALTER TABLE t ADD v text")
    assert eventually(lambda: "v" in seen().tables["t"].columns)
    session.execute("CREATE TYPE point (x int)")
    assert eventually(lambda: "point" in seen().user_types)
    session.execute("ALTER TYPE point ADD y int")
    assert eventually(lambda: seen().user_types["point"].field_names == ["x", "y"])
    session.execute("DROP TYPE point")
    assert eventually(lambda: "point" not in seen().user_types)
    session.execute("DROP TABLE t")
    assert eventually(lambda: "t" not in seen().tables)
    session.execute(f"ALTER KEYSPACE {keyspace} WITH durable_writes = false")
    assert eventually(lambda: seen().durable_writes is False)
    session.execute(f"CREATE KEYSPACE {keyspace}_b WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}")
    assert eventually(lambda: f"{keyspace}_b" in watcher.metadata.keyspaces)
    session.execute(f"DROP KEYSPACE {keyspace}_b")
    assert eventually(lambda: f"{keyspace}_b" not in watcher.metadata.keyspaces)


def test_nothing_happens_for_a_change_that_is_none(session, watcher):
    session.execute("CREATE TABLE t (k int PRIMARY KEY)")
    assert eventually(lambda: "t" in watcher.metadata.keyspaces[session.keyspace].tables)
    before = session.execute("SELECT schema_version FROM system.local").one()
    session.execute("CREATE TABLE IF NOT EXISTS t (k int PRIMARY KEY)")
    session.execute("DROP TABLE IF EXISTS nosuch")
    assert session.execute("SELECT schema_version FROM system.local").one() == before
