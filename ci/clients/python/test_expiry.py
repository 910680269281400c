"""TTL and timestamps: what expires, what wins."""

import time

import pytest

from cassandra import InvalidRequest

pytestmark = [pytest.mark.one_variant, pytest.mark.one_driver]


@pytest.fixture
def table(session):
    session.execute("CREATE TABLE t (k int PRIMARY KEY, v int, w text)")
    return session


def test_time_to_live(table):
    table.execute("INSERT INTO t (k, v, w) VALUES (0, 1, 'x') USING TTL 3600")
    row = table.execute("SELECT ttl(v), ttl(w), v FROM t WHERE k = 0").one()
    assert 3590 <= row[0] <= 3600 and 3590 <= row[1] <= 3600
    table.execute("UPDATE t USING TTL 0 SET v = 2 WHERE k = 0")
    row = table.execute("SELECT ttl(v), ttl(w) FROM t WHERE k = 0").one()
    assert row[0] is None and row[1] is not None
    table.execute("INSERT INTO t (k, v) VALUES (1, 1) USING TTL 2")
    table.execute("UPDATE t USING TTL 2 SET w = 'gone' WHERE k = 2")
    table.execute("UPDATE t SET v = 5 WHERE k = 2")
    assert len(list(table.execute("SELECT * FROM t"))) == 3
    deadline = time.monotonic() + 20
    while len(list(table.execute("SELECT * FROM t"))) > 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert {row.k: (row.v, row.w) for row in table.execute("SELECT * FROM t")} == {0: (2, "x"), 2: (5, None)}


def test_default_time_to_live(session):
    session.execute("CREATE TABLE t (k int PRIMARY KEY, v int) WITH default_time_to_live = 500")
    session.execute("INSERT INTO t (k, v) VALUES (0, 1)")
    session.execute("INSERT INTO t (k, v) VALUES (1, 1) USING TTL 100")
    session.execute("INSERT INTO t (k, v) VALUES (2, 1) USING TTL 0")
    found = {row.k: row[1] for row in session.execute("SELECT k, ttl(v) FROM t")}
    assert 490 <= found[0] <= 500 and 90 <= found[1] <= 100 and found[2] is None


def test_the_greater_timestamp_wins(table):
    insert = table.prepare("INSERT INTO t (k, v) VALUES (?, ?) USING TIMESTAMP ?")
    for timestamp, value in [(200, 2), (100, 1), (300, 3), (250, 9)]:
        table.execute(insert, (0, value, timestamp))
    row = table.execute("SELECT v, writetime(v) FROM t WHERE k = 0").one()
    assert tuple(row) == (3, 300)
    table.execute("DELETE FROM t USING TIMESTAMP 299 WHERE k = 0")
    assert table.execute("SELECT v FROM t WHERE k = 0").one().v == 3
    table.execute("DELETE FROM t USING TIMESTAMP 300 WHERE k = 0")
    assert table.execute("SELECT v FROM t WHERE k = 0").one() is None, "a deletion wins at the same timestamp"
    table.execute(insert, (0, 4, 301))
    assert table.execute("SELECT v FROM t WHERE k = 0").one().v == 4


def test_equal_timestamps_keep_the_greater_value(table):
    for value in (5, 9, 7):
        table.execute(f"INSERT INTO t (k, v) VALUES (0, {value}) USING TIMESTAMP 10")
    assert table.execute("SELECT v FROM t").one().v == 9


def test_timestamps_of_the_client(table):
    """The driver sends a timestamp of its own with every request, in microseconds."""
    before = time.time() * 1e6
    table.execute("INSERT INTO t (k, v) VALUES (0, 1)")
    written = table.execute("SELECT writetime(v) FROM t").one()[0]
    assert before - 1e6 <= written <= time.time() * 1e6 + 1e6


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO t (k, v) VALUES (0, 1) USING TTL -1",
        "INSERT INTO t (k, v) VALUES (0, 1) USING TTL 630720001",
        "SELECT ttl(k) FROM t",
        "SELECT writetime(k) FROM t",
    ],
)
def test_invalid(table, text):
    with pytest.raises(InvalidRequest):
        table.execute(text)


def test_expiry_is_exact_to_the_second_on_every_path(session, server):
    """Rows die at one moment for point reads, scans, filters, counts and pages, in memory and on disk."""
    session.execute("CREATE TABLE e (k int, c int, v int, PRIMARY KEY (k, c))")
    for c in range(30):
        session.execute(f"INSERT INTO e (k, c, v) VALUES (1, {c}, {c % 3}) USING TTL 6")
        if c == 15:
            server.nodetool("flush", session.keyspace, "e")
    written = time.time()
    paths = {
        "slice": lambda: len(list(session.execute("SELECT * FROM e WHERE k = 1"))),
        "reversed": lambda: len(list(session.execute("SELECT * FROM e WHERE k = 1 ORDER BY c DESC"))),
        "scan": lambda: len(list(session.execute("SELECT * FROM e"))),
        "filter": lambda: len(list(session.execute("SELECT * FROM e WHERE v >= 0 ALLOW FILTERING"))),
        "count": lambda: session.execute("SELECT count(*) FROM e").one()[0],
    }
    assert {name: path() for name, path in paths.items()} == dict.fromkeys(paths, 30)
    time.sleep(max(0, written + 7 - time.time()))
    assert {name: path() for name, path in paths.items()} == dict.fromkeys(paths, 0)
    server.nodetool("compact", session.keyspace, "e")
    assert {name: path() for name, path in paths.items()} == dict.fromkeys(paths, 0)
