"""Paging: pages of every size, resumed elsewhere, over one partition, many, and filtered ones."""

import pytest

from cassandra import InvalidRequest
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.protocol import ProtocolException, ServerError
from cassandra.query import SimpleStatement

from conftest import connect

PARTITIONS = 30
ROWS = 40


@pytest.fixture
def paged(session):
    session.execute("CREATE TABLE t (k int, c int, s int static, v text, PRIMARY KEY (k, c))")
    insert = session.prepare("INSERT INTO t (k, c, v) VALUES (?, ?, ?)")
    arguments = [(key, row, f"{key}/{row}") for key in range(PARTITIONS) for row in range(ROWS)]
    execute_concurrent_with_args(session, insert, arguments, concurrency=100)
    for key in range(0, PARTITIONS, 2):
        session.execute(f"INSERT INTO t (k, s) VALUES ({key}, {key})")
    return session


def pages(session, text, size):
    """The rows of each page."""
    result = session.execute(SimpleStatement(text, fetch_size=size))
    found = [list(result.current_rows)]
    while result.has_more_pages:
        result.fetch_next_page()
        found.append(list(result.current_rows))
    return found


@pytest.mark.parametrize("size", [1, 7, 40, 41, 1199, 1200, 1201, 5000])
def test_every_row_once(paged, size):
    found = pages(paged, "SELECT k, c FROM t", size)
    assert all(len(page) == size for page in found[:-1])
    keys = [row for page in found for row in page]
    assert len(keys) == len(set(keys)) == PARTITIONS * ROWS
    # The same order in pages as in one.
    assert keys == [row for page in pages(paged, "SELECT k, c FROM t", 5000) for row in page]


@pytest.mark.parametrize("size", [1, 9, 40])
@pytest.mark.parametrize(
    "text, count",
    [
        ("SELECT c FROM t WHERE k = 3", 40),
        ("SELECT c FROM t WHERE k = 3 ORDER BY c DESC", 40),
        ("SELECT c FROM t WHERE k = 3 AND c > 5 AND c < 30 LIMIT 17", 17),
        ("SELECT c FROM t WHERE k IN (1, 5, 9)", 120),
        ("SELECT c FROM t WHERE k IN (1, 5, 9) AND c < 3", 9),
        ("SELECT k FROM t PER PARTITION LIMIT 2", 60),
        ("SELECT k FROM t PER PARTITION LIMIT 2 LIMIT 31", 31),
        ("SELECT DISTINCT k, s FROM t", 30),
        ("SELECT k FROM t LIMIT 100", 100),
        ("SELECT k FROM t WHERE v = '7/7' ALLOW FILTERING", 1),
        ("SELECT k FROM t WHERE c = 11 ALLOW FILTERING", 30),
        ("SELECT k FROM t WHERE s = 4 ALLOW FILTERING", 40),
        ("SELECT k FROM t WHERE token(k) > 0", None),
    ],
)
def test_pages_of_selections(paged, text, count, size):
    whole = [row for page in pages(paged, text, 5000) for row in page]
    found = [row for page in pages(paged, text, size) for row in page]
    assert found == whole
    if count is not None:
        assert len(found) == count


def test_count_is_not_paged(paged):
    assert pages(paged, "SELECT count(*) FROM t", 10) == [[(PARTITIONS * ROWS,)]]


def test_order_within_a_partition(paged):
    backwards = [row.c for page in pages(paged, "SELECT c FROM t WHERE k = 3 ORDER BY c DESC", 7) for row in page]
    assert backwards == list(range(ROWS - 1, -1, -1))


def test_a_paging_state_is_resumed_by_another_session(paged, server, variant):
    statement = SimpleStatement(f"SELECT k, c FROM {paged.keyspace}.t", fetch_size=100)
    first = paged.execute(statement)
    keys = list(first.current_rows)
    state = first.paging_state
    assert state
    other_cluster = connect(server, variant)
    try:
        other = other_cluster.connect()
        while state is not None:
            result = other.execute(statement, paging_state=state)
            keys += list(result.current_rows)
            state = result.paging_state
    finally:
        other_cluster.shutdown()
    assert len(keys) == len(set(keys)) == PARTITIONS * ROWS


def test_prepared_statements_are_paged(paged):
    select = paged.prepare("SELECT c FROM t WHERE k = ?")
    select.fetch_size = 6
    assert [row.c for row in paged.execute(select, (4,))] == list(range(ROWS))


def test_no_page_size_is_one_page(paged):
    result = paged.execute(SimpleStatement("SELECT * FROM t", fetch_size=None))
    assert not result.has_more_pages and len(list(result)) == PARTITIONS * ROWS


def test_rows_deleted_between_pages(paged):
    result = paged.execute(SimpleStatement("SELECT k, c FROM t WHERE k = 2", fetch_size=10))
    assert [row.c for row in result.current_rows] == list(range(10))
    paged.execute("DELETE FROM t WHERE k = 2 AND c >= 5 AND c < 20")
    result.fetch_next_page()
    assert [row.c for row in result.current_rows] == list(range(20, 30))


@pytest.mark.parametrize("state", [b"", b"\x00", b"nonsense", b"\xff" * 200])
def test_a_made_up_paging_state_is_refused(paged, state):
    if state == b"":
        pytest.skip("the driver sends no empty state")
    statement = SimpleStatement("SELECT * FROM t", fetch_size=10)
    with pytest.raises((ProtocolException, InvalidRequest)):
        paged.execute(statement, paging_state=state)
    try:
        assert len(list(paged.execute("SELECT * FROM t"))) == PARTITIONS * ROWS
    except ServerError:
        pytest.fail("the connection did not survive")
