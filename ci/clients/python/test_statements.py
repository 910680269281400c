"""Reading and changing rows: each clause of SELECT, INSERT, UPDATE and DELETE."""

import time

import pytest

from cassandra import InvalidRequest


@pytest.fixture
def rows(session):
    """Partitions 0 to 2; in each, clustering keys (a, b) with a in 0..3 and b in 'x', 'y', 'z'."""
    session.execute("CREATE TABLE rows (k int, a int, b text, s text static, v int, PRIMARY KEY (k, a, b))")
    insert = session.prepare("INSERT INTO rows (k, a, b, v) VALUES (?, ?, ?, ?)")
    for key in range(3):
        session.execute(f"INSERT INTO rows (k, s) VALUES ({key}, 'static {key}')")
        for a in range(4):
            for b in "xyz":
                session.execute(insert, (key, a, b, 100 * key + 10 * a + ord(b) - ord("x")))
    return session


def values(session, text):
    return [row.v for row in session.execute(f"SELECT v FROM rows WHERE {text}")]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("k = 1 AND a = 2 AND b = 'y'", [121]),
        ("k = 1 AND a = 2", [120, 121, 122]),
        ("k = 1 AND a > 2", [130, 131, 132]),
        ("k = 1 AND a >= 1 AND a < 2", [110, 111, 112]),
        ("k = 1 AND a = 0 AND b > 'x'", [101, 102]),
        ("k = 1 AND a = 0 AND b >= 'x' AND b <= 'y'", [100, 101]),
        ("k = 1 AND a IN (3, 0) AND b = 'z'", [102, 132]),
        ("k = 1 AND a IN (0, 1) AND b IN ('y', 'x', 'x')", [100, 101, 110, 111]),
        ("k IN (2, 0) AND a = 0 AND b = 'x'", [0, 200]),
        ("k = 1 AND (a, b) = (1, 'y')", [111]),
        ("k = 1 AND (a, b) IN ((1, 'y'), (0, 'z'))", [102, 111]),
        ("k = 1 AND (a, b) > (2, 'y')", [122, 130, 131, 132]),
        ("k = 1 AND (a, b) >= (0, 'z') AND (a) < (1)", [102]),
        ("k = 1 AND (a, b) >= (1, 'z') AND (a, b) < (2, 'y')", [112, 120]),
        ("k = 1 ORDER BY a DESC, b DESC LIMIT 2", [132, 131]),
        ("k = 1 AND a < 2 ORDER BY a DESC LIMIT 1", [112]),
        ("k = 1 LIMIT 3", [100, 101, 102]),
        ("k = 9", []),
        ("k = 1 AND a > 1 AND a < 1", []),
        ("v = 211 ALLOW FILTERING", [211]),
        ("k = 2 AND v > 230 ALLOW FILTERING", [231, 232]),
        ("a = 3 AND b = 'z' AND k = 0 ALLOW FILTERING", [32]),
        ("k = 0 AND b = 'y' ALLOW FILTERING", [1, 11, 21, 31]),
        ("s = 'static 2' AND a = 1 ALLOW FILTERING", [210, 211, 212]),
    ],
)
def test_where(rows, text, expected):
    assert values(rows, text) == expected


def test_whole_table(rows):
    everything = list(rows.execute("SELECT * FROM rows"))
    assert len(everything) == 36 and everything[0]._fields == ("k", "a", "b", "s", "v")
    tokens = [row[0] for row in rows.execute("SELECT token(k), v FROM rows")]
    assert tokens == sorted(tokens) and len(set(tokens)) == 3
    low = tokens[0]
    after = list(rows.execute(f"SELECT k FROM rows WHERE token(k) > {low}"))
    until = list(rows.execute(f"SELECT k FROM rows WHERE token(k) <= {low}"))
    assert (len(after), len(until)) == (24, 12)
    one = rows.execute("SELECT DISTINCT k, s FROM rows WHERE token(k) = token(1)").one()
    assert one == (1, "static 1")


def test_limits_and_distinct(rows):
    assert len(list(rows.execute("SELECT * FROM rows PER PARTITION LIMIT 2"))) == 6
    assert len(list(rows.execute("SELECT * FROM rows PER PARTITION LIMIT 2 LIMIT 5"))) == 5
    assert sorted(rows.execute("SELECT DISTINCT k, s FROM rows")) == [(key, f"static {key}") for key in range(3)]
    reversed_rows = rows.execute("SELECT v FROM rows WHERE k = 0 ORDER BY a DESC PER PARTITION LIMIT 1")
    assert [row.v for row in reversed_rows] == [32]


def test_aggregates(rows):
    row = rows.execute("SELECT count(*), count(v), min(v), max(v), sum(v), avg(v) FROM rows WHERE k = 1").one()
    assert tuple(row) == (12, 12, 100, 132, 1392, 116)
    assert rows.execute("SELECT count(*) FROM rows").one()[0] == 36
    assert rows.execute("SELECT count(*) FROM rows WHERE k = 77").one()[0] == 0
    assert tuple(rows.execute("SELECT min(v), sum(v) FROM rows WHERE k = 77").one()) == (None, 0)
    groups = list(rows.execute("SELECT k, a, count(*), max(v) FROM rows WHERE k = 1 GROUP BY k, a"))
    assert [tuple(group) for group in groups] == [(1, a, 3, 102 + 10 * a) for a in range(4)]


def test_json(rows):
    row = rows.execute("SELECT JSON k, b, v FROM rows WHERE k = 1 AND a = 2 AND b = 'y'").one()
    assert row[0] == '{"k": 1, "b": "y", "v": 121}'
    rows.execute("INSERT INTO rows JSON '{\"k\": 5, \"a\": 1, \"b\": \"j\", \"v\": 7}'")
    assert values(rows, "k = 5") == [7]


def test_static_columns(rows):
    assert {row.s for row in rows.execute("SELECT s FROM rows WHERE k = 2")} == {"static 2"}
    rows.execute("UPDATE rows SET s = 'changed' WHERE k = 2")
    assert rows.execute("SELECT s, v FROM rows WHERE k = 2 AND a = 0 AND b = 'x'").one().s == "changed"
    with pytest.raises(InvalidRequest, match="only static columns"):
        rows.execute("SELECT s FROM rows WHERE k = 2 AND a = 0 AND b = 'x'")
    rows.execute("INSERT INTO rows (k, s) VALUES (8, 'alone')")
    row = rows.execute("SELECT k, a, b, s, v FROM rows WHERE k = 8").one()
    assert tuple(row) == (8, None, None, "alone", None), "a partition of only a static row has one row"
    rows.execute("DELETE s FROM rows WHERE k = 8")
    assert list(rows.execute("SELECT * FROM rows WHERE k = 8")) == []


@pytest.mark.parametrize(
    "text, expected",
    [
        ("DELETE FROM rows WHERE k = 1 AND a = 2 AND b = 'y'", 11),
        ("DELETE FROM rows WHERE k = 1 AND a = 2", 9),
        ("DELETE FROM rows WHERE k = 1 AND a > 0 AND a <= 2", 6),
        ("DELETE FROM rows WHERE k = 1 AND a = 2 AND b < 'z'", 10),
        ("DELETE FROM rows WHERE k = 1 AND (a, b) >= (1, 'z')", 5),
        ("DELETE FROM rows WHERE k = 1 AND a IN (0, 3) AND b = 'x'", 10),
        ("DELETE FROM rows WHERE k IN (1, 2) AND a = 2 AND b = 'y'", 11),
        ("DELETE FROM rows WHERE k = 1", 0),
        ("DELETE v FROM rows WHERE k = 1 AND a = 2 AND b = 'y'", 12),
    ],
)
def test_delete(rows, text, expected):
    rows.execute(text)
    assert len(list(rows.execute("SELECT v FROM rows WHERE k = 1 AND a >= 0"))) == expected
    assert len(list(rows.execute("SELECT v FROM rows WHERE k = 0"))) == 12


def test_a_range_deletion_hides_only_what_was_before(rows):
    rows.execute("DELETE FROM rows WHERE k = 1 AND a >= 1 AND a <= 2")
    rows.execute("INSERT INTO rows (k, a, b, v) VALUES (1, 1, 'y', 7)")
    rows.execute("DELETE FROM rows WHERE k = 1 AND a = 3")
    assert values(rows, "k = 1") == [100, 101, 102, 7]
    rows.execute("DELETE FROM rows WHERE k = 1")
    rows.execute("INSERT INTO rows (k, a, b, v) VALUES (1, 3, 'q', 8)")
    assert values(rows, "k = 1") == [8]


def test_update_makes_rows_that_vanish_with_their_last_value(session):
    session.execute("CREATE TABLE t (k int PRIMARY KEY, v int)")
    session.execute("UPDATE t SET v = 1 WHERE k = 0")
    session.execute("INSERT INTO t (k, v) VALUES (1, 1)")
    session.execute("UPDATE t SET v = null WHERE k IN (0, 1)")
    assert list(session.execute("SELECT * FROM t")) == [(1, None)], "only INSERT marks the row itself"


def test_collections_change_in_parts(session):
    session.execute("CREATE TABLE t (k int PRIMARY KEY, l list<int>, s set<text>, m map<text, int>)")
    change = lambda text: session.execute(f"UPDATE t SET {text} WHERE k = 0")
    read = lambda: session.execute("SELECT l, s, m FROM t WHERE k = 0").one()
    change("l = [1, 2], s = {'a', 'b'}, m = {'x': 1}")
    change("l = l + [3, 4], s = s + {'c', 'a'}, m = m + {'y': 2, 'x': 9}")
    row = read()
    assert (row.l, set(row.s), dict(row.m.items())) == ([1, 2, 3, 4], {"a", "b", "c"}, {"x": 9, "y": 2})
    change("l = [-1, 0] + l")
    change("l[1] = 50")
    change("m['z'] = 3")
    change("m['x'] = null")
    change("s = s - {'a'}")
    row = read()
    assert (row.l, set(row.s), dict(row.m.items())) == ([-1, 50, 1, 2, 3, 4], {"b", "c"}, {"y": 2, "z": 3})
    change("l = l - [2, 4]")
    change("m = m - {'y'}")
    session.execute("DELETE l[0], m['nosuch'], s['b'] FROM t WHERE k = 0")
    row = read()
    assert (row.l, set(row.s), dict(row.m.items())) == ([50, 1, 3], {"c"}, {"z": 3})
    assert session.execute("SELECT m['z'], s['c'] FROM t WHERE k = 0").one()[0] == 3
    for text in ("l[7] = 1", "l[-1] = 1"):
        with pytest.raises(InvalidRequest):
            change(text)
    change("l = [], s = {}, m = {}")
    assert read() is None, "empty collections are no values, and UPDATE marks no row"


def test_collections_in_where(session):
    session.execute("CREATE TABLE t (k int PRIMARY KEY, l list<int>, s set<text>, m map<text, int>)")
    session.execute("INSERT INTO t (k, l, s, m) VALUES (1, [1, 2], {'a'}, {'x': 1})")
    session.execute("INSERT INTO t (k, l, s, m) VALUES (2, [3], {'b'}, {'y': 1})")
    for text, expected in [("l CONTAINS 2", 1), ("s CONTAINS 'b'", 2), ("m CONTAINS KEY 'x'", 1), ("m['y'] = 1", 2)]:
        found = [row.k for row in session.execute(f"SELECT k FROM t WHERE {text} ALLOW FILTERING")]
        assert found == [expected], text


def test_functions(session):
    session.execute("CREATE TABLE t (k int PRIMARY KEY, u timeuuid, ts timestamp, v int)")
    before = int(time.time() * 1000) - 2000
    session.execute("INSERT INTO t (k, u, ts, v) VALUES (0, now(), toTimestamp(now()), 5)")
    row = session.execute(
        "SELECT toUnixTimestamp(u) AS a, to_unix_timestamp(ts) AS b, toDate(u) AS d, uuid() AS r, "
        "cast(v AS text) AS c, intAsBlob(v) AS x, token(k) AS t, CAST(ts AS date) AS e FROM t"
    ).one()
    for milliseconds in (row.a, row.b):
        assert before <= milliseconds <= before + 30_000
    assert (row.c, row.x, row.r.version, row.d) == ("5", b"\x00\x00\x00\x05", 4, row.e)
    assert row.t == -3485513579396041028
    assert session.execute("SELECT v FROM t WHERE k = 0 AND u > minTimeuuid('2020-01-01') ALLOW FILTERING").one().v == 5


def test_selected_names(session):
    session.execute('CREATE TABLE t (k int PRIMARY KEY, "V" int)')
    session.execute('INSERT INTO t (k, "V") VALUES (1, 2)')
    result = session.execute('SELECT "V" AS w, k, count(*), writetime("V"), ttl("V") FROM t WHERE k = 1')
    assert result.column_names == ["w", "k", "count", 'writetime("V")', 'ttl("V")'] or result.column_names[:3] == [
        "w", "k", "count",
    ]
    assert session.execute("SELECT * FROM t").column_names == ["k", "V"]


def test_in_order_of_the_given_keys_is_token_order(session):
    session.execute("CREATE TABLE t (k int PRIMARY KEY)")
    for key in range(50):
        session.execute(f"INSERT INTO t (k) VALUES ({key})")
    found = [row.k for row in session.execute("SELECT k FROM t WHERE k IN (7, 3, 3, 49, 100)")]
    assert sorted(found) == [3, 7, 49]


def test_comments_and_spelling(session):
    session.execute("create TABLE T (K int primary key, V text) -- to the end\n")
    session.execute("insert into t(k,v)values(1,$$it's $ fine$$)/* here */;")
    assert session.execute("// before\nselect V from T where K=1").one().v == "it's $ fine"
