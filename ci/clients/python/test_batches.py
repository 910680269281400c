"""Batches: logged, unlogged, of counters; as text and as a message; their timestamps and their limits."""

import pytest

from cassandra import InvalidRequest
from cassandra.query import BatchStatement, BatchType, SimpleStatement


@pytest.fixture
def table(session):
    session.execute("CREATE TABLE t (k int, c int, v text, PRIMARY KEY (k, c))")
    session.execute("CREATE TABLE u (k int PRIMARY KEY, v int)")
    session.execute("CREATE TABLE counts (k int PRIMARY KEY, n counter)")
    return session


def everything(session):
    return sorted(tuple(row) for row in session.execute("SELECT k, c, v FROM t"))


@pytest.mark.parametrize("kind", [BatchType.LOGGED, BatchType.UNLOGGED])
def test_messages(table, kind):
    insert = table.prepare("INSERT INTO t (k, c, v) VALUES (?, ?, ?)")
    batch = BatchStatement(batch_type=kind)
    for number in range(20):
        batch.add(insert, (number % 3, number, str(number)))
    batch.add(SimpleStatement("INSERT INTO u (k, v) VALUES (1, 7)"))
    batch.add("INSERT INTO u (k, v) VALUES (%s, %s)", (2, 8))
    batch.add(table.prepare("DELETE FROM t WHERE k = ? AND c = ?"), (0, 99))
    table.execute(batch)
    assert len(everything(table)) == 20
    assert sorted(tuple(row) for row in table.execute("SELECT * FROM u")) == [(1, 7), (2, 8)]


def test_texts(table):
    table.execute(
        "BEGIN BATCH INSERT INTO t (k, c, v) VALUES (1, 1, 'a'); UPDATE t SET v = 'b' WHERE k = 1 AND c = 2; "
        "DELETE FROM t WHERE k = 1 AND c = 3; APPLY BATCH"
    )
    table.execute("BEGIN UNLOGGED BATCH INSERT INTO t (k, c, v) VALUES (2, 1, 'c') INSERT INTO u (k, v) VALUES (5, 5); APPLY BATCH;")
    assert everything(table) == [(1, 1, "a"), (1, 2, "b"), (2, 1, "c")]
    prepared = table.prepare("BEGIN BATCH INSERT INTO t (k, c, v) VALUES (?, ?, ?); UPDATE u SET v = ? WHERE k = ?; APPLY BATCH")
    table.execute(prepared, (9, 9, "z", 3, 4))
    assert (9, 9, "z") in everything(table)
    assert table.execute("SELECT v FROM u WHERE k = 4").one().v == 3


def test_counters(table):
    add = table.prepare("UPDATE counts SET n = n + ? WHERE k = ?")
    batch = BatchStatement(batch_type=BatchType.COUNTER)
    for number in range(10):
        batch.add(add, (number, number % 2))
    table.execute(batch)
    assert sorted(tuple(row) for row in table.execute("SELECT k, n FROM counts")) == [(0, 20), (1, 25)]
    table.execute("BEGIN COUNTER BATCH UPDATE counts SET n = n - 20 WHERE k = 0; UPDATE counts SET n = n + 1 WHERE k = 0; APPLY BATCH")
    assert table.execute("SELECT n FROM counts WHERE k = 0").one().n == 1


def test_one_timestamp_for_all(table):
    table.execute("BEGIN BATCH USING TIMESTAMP 123 INSERT INTO t (k, c, v) VALUES (0, 0, 'a'); INSERT INTO u (k, v) VALUES (0, 1); APPLY BATCH")
    assert table.execute("SELECT writetime(v) FROM t").one()[0] == 123
    assert table.execute("SELECT writetime(v) FROM u").one()[0] == 123
    table.execute("BEGIN BATCH INSERT INTO u (k, v) VALUES (1, 1) USING TIMESTAMP 5; INSERT INTO u (k, v) VALUES (2, 1) USING TIMESTAMP 6; APPLY BATCH")
    assert [table.execute(f"SELECT writetime(v) FROM u WHERE k = {key}").one()[0] for key in (1, 2)] == [5, 6]


def test_deletion_and_insertion_of_one_row_in_one_batch(table):
    table.execute("BEGIN BATCH INSERT INTO t (k, c, v) VALUES (0, 0, 'a'); DELETE FROM t WHERE k = 0 AND c = 0; APPLY BATCH")
    assert everything(table) == [], "at the same timestamp the deletion wins"


def test_an_empty_batch(table):
    table.execute("BEGIN BATCH APPLY BATCH")
    assert everything(table) == []


@pytest.mark.parametrize(
    "text",
    [
        "BEGIN BATCH UPDATE counts SET n = n + 1 WHERE k = 0; INSERT INTO u (k, v) VALUES (0, 0); APPLY BATCH",
        "BEGIN BATCH UPDATE counts SET n = n + 1 WHERE k = 0; APPLY BATCH",
        "BEGIN COUNTER BATCH INSERT INTO u (k, v) VALUES (0, 0); APPLY BATCH",
        "BEGIN COUNTER BATCH USING TIMESTAMP 5 UPDATE counts SET n = n + 1 WHERE k = 0; APPLY BATCH",
        "BEGIN BATCH USING TIMESTAMP 5 INSERT INTO u (k, v) VALUES (0, 0) USING TIMESTAMP 6; APPLY BATCH",
        "BEGIN BATCH INSERT INTO nosuch (k) VALUES (0); APPLY BATCH",
    ],
)
def test_invalid(table, text):
    with pytest.raises(InvalidRequest):
        table.execute(text)
    assert list(table.execute("SELECT * FROM u")) == []


def test_nothing_of_an_invalid_batch_is_applied(table):
    batch = BatchStatement()
    batch.add("INSERT INTO u (k, v) VALUES (1, 1)")
    batch.add("INSERT INTO u (k, v) VALUES ('wrong', 1)")
    with pytest.raises(InvalidRequest):
        table.execute(batch)
    assert list(table.execute("SELECT * FROM u")) == []


def test_a_batch_over_the_failure_threshold(table):
    """50 KiB in one logged batch over several partitions is refused by default."""
    insert = table.prepare("INSERT INTO t (k, c, v) VALUES (?, 0, ?)")
    batch = BatchStatement()
    for key in range(60):
        batch.add(insert, (key, "x" * 1024))
    with pytest.raises(InvalidRequest, match="(?i)batch too large"):
        table.execute(batch)
    assert everything(table) == []


def test_a_batch_over_the_warning_threshold(table):
    """5 KiB in one logged batch over several partitions is answered with a warning."""
    insert = table.prepare("INSERT INTO t (k, c, v) VALUES (?, 0, ?)")
    batch = BatchStatement()
    for key in range(8):
        batch.add(insert, (key, "x" * 1024))
    result = table.execute(batch)
    warnings = result.response_future.warnings or []
    assert any("batch" in warning.lower() for warning in warnings), warnings
