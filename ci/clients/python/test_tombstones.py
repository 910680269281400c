"""Reads over many tombstones: warnings, failures, and pages that end early instead."""

import pytest

from cassandra import ReadFailure
from cassandra.query import BatchStatement, BatchType, SimpleStatement

pytestmark = [pytest.mark.one_variant, pytest.mark.one_driver]

DEAD = 120_000
LIVE = 5
BATCH = 1000


@pytest.fixture
def graveyard(session):
    session.execute("CREATE TABLE g (k int, c int, v int, s int static, PRIMARY KEY (k, c))")
    delete = session.prepare("DELETE FROM g WHERE k = 0 AND c = ?")
    for start in range(0, DEAD, BATCH):
        batch = BatchStatement(BatchType.UNLOGGED)
        for c in range(start, start + BATCH):
            batch.add(delete, (c,))
        session.execute(batch)
    for c in range(DEAD, DEAD + LIVE):
        session.execute("INSERT INTO g (k, c, v) VALUES (0, %s, 1)", (c,))
    return session


def pages(session, text, size):
    """Rows of every page."""
    result = session.execute(SimpleStatement(text, fetch_size=size))
    found = []
    while True:
        found.append(list(result.current_rows))
        if not result.has_more_pages:
            return found
        result.fetch_next_page()


def test_long_runs_of_tombstones(graveyard, server):
    session = graveyard
    before = server.counter("ceto_short_pages_total"), server.counter("ceto_tombstone_failures_total")
    for text in ("SELECT c FROM g WHERE k = 0", "SELECT c FROM g", "SELECT c FROM g WHERE v = 1 ALLOW FILTERING"):
        found = pages(session, text, 100)
        assert len(found) > 1 and not found[0], "the first page ends among the tombstones"
        assert [row.c for page in found for row in page] == list(range(DEAD, DEAD + LIVE))
    reversed_pages = pages(session, "SELECT c FROM g WHERE k = 0 ORDER BY c DESC", 100)
    assert [row.c for page in reversed_pages for row in page] == list(range(DEAD + LIVE - 1, DEAD - 1, -1))
    assert session.execute("SELECT count(*) FROM g").one()[0] == LIVE
    with pytest.raises(ReadFailure) as failure:
        session.execute(SimpleStatement("SELECT c FROM g WHERE k = 0", fetch_size=None))
    codes = getattr(failure.value, "error_code_map", None)
    assert codes is None or set(codes.values()) == {1}, "READ_TOO_MANY_TOMBSTONES"
    assert server.counter("ceto_short_pages_total") >= before[0] + 3
    assert server.counter("ceto_tombstone_failures_total") > before[1]
    future = session.execute_async(SimpleStatement(f"SELECT c FROM g WHERE k = 0 AND c >= {DEAD - 2000}"))
    assert len(list(future.result())) == LIVE
    assert any("tombstone_warn_threshold" in warning for warning in future.warnings)


def test_a_static_row_stands_alone_behind_a_run_of_tombstones(graveyard):
    graveyard.execute("UPDATE g SET s = 7 WHERE k = 0")
    for c in range(DEAD, DEAD + LIVE):
        graveyard.execute("DELETE FROM g WHERE k = 0 AND c = %s", (c,))
    found = [row for page in pages(graveyard, "SELECT s, c FROM g WHERE k = 0", 100) for row in page]
    assert [tuple(row) for row in found] == [(7, None)]
