"""EXPLAIN and EXPLAIN ANALYZE through a driver."""

import pytest
from cassandra import InvalidRequest
from cassandra.query import SimpleStatement

pytestmark = [pytest.mark.one_variant, pytest.mark.one_driver]


@pytest.fixture
def filled(session):
    session.execute("CREATE TABLE t (k int, c int, v int, PRIMARY KEY (k, c))")
    session.execute("CREATE INDEX by_v ON t (v)")
    insert = session.prepare("INSERT INTO t (k, c, v) VALUES (?, ?, ?)")
    for clustering in range(20):
        session.execute(insert, (1, clustering, clustering % 2))
    return session


def steps(rows):
    return [(row.stage, row.detail) for row in rows]


def test_a_plan_has_rows(filled):
    rows = list(filled.execute("EXPLAIN SELECT * FROM t WHERE k = 1 AND c > 5 LIMIT 3"))
    assert [row.step for row in rows] == list(range(1, len(rows) + 1))
    assert rows[0].stage == "read" and rows[0].shard in (0, 1) and rows[0].time_us is None
    assert "with k = 1" in rows[0].detail
    assert ("rows", "1 slice of each partition: c > 5") in steps(rows)
    stages = steps(filled.execute("EXPLAIN SELECT * FROM t WHERE v = 1"))
    assert ("index", "index by_v on v finds the rows: v = 1") in stages


def test_a_prepared_plan_takes_values(filled):
    explain = filled.prepare("EXPLAIN SELECT * FROM t WHERE k = ? AND c = ?")
    assert "with k = 7" in filled.execute(explain, (7, 1)).one().detail


def test_explain_writes_nothing_and_analyze_does(filled):
    count = filled.prepare("SELECT count(*) FROM t WHERE k = 2")
    rows = steps(filled.execute("EXPLAIN INSERT INTO t (k, c, v) VALUES (2, 1, 1)"))
    assert rows[0][0] == "write" and "with k = 2" in rows[0][1]
    assert filled.execute(count).one()[0] == 0
    rows = list(filled.execute("EXPLAIN ANALYZE INSERT INTO t (k, c, v) VALUES (2, 1, 1)"))
    assert filled.execute(count).one()[0] == 1
    assert any(row.stage == "ran: write" and row.time_us is not None for row in rows)
    filled.execute("EXPLAIN ANALYZE UPDATE t SET v = 5 WHERE k = 2 AND c = 1 IF v = 1")
    assert filled.execute("SELECT v FROM t WHERE k = 2").one().v == 5


def test_analyze_measures_a_page(filled):
    statement = SimpleStatement("EXPLAIN ANALYZE SELECT * FROM t", fetch_size=5)
    rows = list(filled.execute(statement))
    reads = [row for row in rows if row.stage == "ran: read"]
    assert reads and all(row.time_us >= 0 for row in reads)
    [made] = [row for row in rows if row.stage == "ran: rows"]
    assert made.detail.startswith("5 rows of ") and made.detail.endswith("there are more pages")
    assert sorted(row.shard for row in rows if row.stage == "shard") == [0, 1]


def test_what_has_no_plan_is_refused(filled):
    with pytest.raises(InvalidRequest, match="EXPLAIN takes SELECT, INSERT, UPDATE, DELETE and BATCH only"):
        filled.execute("EXPLAIN TRUNCATE t")
    with pytest.raises(InvalidRequest, match="virtual tables"):
        filled.execute("EXPLAIN ANALYZE UPDATE system.config SET value = '1' WHERE name = 'x'")
