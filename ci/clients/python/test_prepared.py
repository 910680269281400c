"""Prepared statements: values by position and by name, routing keys, and what happens when the schema changes."""

import pytest

from cassandra import InvalidRequest
from cassandra.query import UNSET_VALUE


@pytest.fixture
def table(session):
    session.execute("CREATE TABLE t (a int, b text, c int, v text, w int, PRIMARY KEY ((a, b), c))")
    return session


def test_by_position_and_by_name(table):
    insert = table.prepare("INSERT INTO t (a, b, c, v) VALUES (?, ?, ?, ?)")
    table.execute(insert, (1, "x", 2, "one"))
    named = table.prepare("INSERT INTO t (a, b, c, v) VALUES (:a, :other, :c, :value)")
    table.execute(named, {"value": "two", "c": 3, "a": 1, "other": "x"})
    select = table.prepare("SELECT c, v FROM t WHERE a = ? AND b = ?")
    assert list(table.execute(select, {"a": 1, "b": "x"})) == [(2, "one"), (3, "two")]
    table.execute(named, {"a": 1, "other": "x", "c": 4})
    assert list(table.execute(select, (1, "x")))[2] == (4, None)


def test_metadata(table):
    insert = table.prepare("INSERT INTO t (a, b, c, v) VALUES (?, ?, ?, ?) USING TTL ? AND TIMESTAMP ?")
    assert [(column.name, column.type.typename) for column in insert.column_metadata] == [
        ("a", "int"), ("b", "varchar"), ("c", "int"), ("v", "varchar"), ("[ttl]", "int"), ("[timestamp]", "bigint"),
    ]
    assert insert.routing_key_indexes == [0, 1]
    swapped = table.prepare("UPDATE t SET w = ? WHERE c = ? AND b = ? AND a = ?")
    assert swapped.routing_key_indexes == [3, 2]
    partial = table.prepare("SELECT * FROM t WHERE a = 1 AND b = ? LIMIT ?")
    assert [column.name for column in partial.column_metadata] == ["b", "[limit]"]
    assert not partial.routing_key_indexes
    repeated = table.prepare("SELECT * FROM t WHERE a IN ? AND b = ? AND (c) > ?")
    assert repeated.column_metadata[0].type.typename == "list"


def test_in_limits_and_tuples_are_bound(table):
    insert = table.prepare("INSERT INTO t (a, b, c, v) VALUES (?, ?, ?, ?)")
    for number in range(10):
        table.execute(insert, (number % 2, "x", number, str(number)))
    within = table.prepare("SELECT c FROM t WHERE a IN ? AND b = 'x' AND c IN ?")
    assert sorted(row.c for row in table.execute(within, ([0, 1], [2, 3, 99]))) == [2, 3]
    limited = table.prepare("SELECT c FROM t WHERE a = 0 AND b = 'x' LIMIT ?")
    assert len(list(table.execute(limited, (2,)))) == 2
    tuples = table.prepare("SELECT c FROM t WHERE a = 0 AND b = 'x' AND (c) IN ?")
    assert [row.c for row in table.execute(tuples, ([(4,), (0,)],))] == [0, 4]
    with pytest.raises(InvalidRequest):
        table.execute(limited, (0,))


def test_unset_and_missing_values(table):
    insert = table.prepare("INSERT INTO t (a, b, c, v, w) VALUES (?, ?, ?, ?, ?)")
    table.execute(insert, (1, "x", 1, "kept", 5))
    table.execute(insert.bind((1, "x", 1)))
    table.execute(insert, (1, "x", 1, UNSET_VALUE, 6))
    assert table.execute("SELECT v, w FROM t").one() == ("kept", 6)
    # The driver may refuse these itself, when it computes the token.
    for absent in (UNSET_VALUE, None):
        with pytest.raises((InvalidRequest, ValueError, TypeError)):
            table.execute(insert, (1, absent, 1, "v", 1))
    with pytest.raises(InvalidRequest):
        table.execute(insert, (1, "x", None, "v", 1))


def test_the_same_text_has_the_same_id(table):
    first = table.prepare("SELECT * FROM t")
    second = table.prepare("SELECT * FROM t")
    assert first.query_id == second.query_id
    assert table.prepare("SELECT * FROM t ").query_id != b""


def test_a_column_is_added_under_a_prepared_select(table):
    insert = table.prepare("INSERT INTO t (a, b, c, v) VALUES (1, 'x', ?, 'v')")
    select = table.prepare("SELECT * FROM t WHERE a = 1 AND b = 'x'")
    table.execute(insert, (1,))
    assert len(table.execute(select).one()) == 5
    table.execute("ALTER TABLE t ADD z int")
    table.execute("INSERT INTO t (a, b, c, z) VALUES (1, 'x', 2, 9)")
    rows = list(table.execute(table.prepare("SELECT * FROM t WHERE a = 1 AND b = 'x'")))
    assert len(rows) == 2 and rows[1].z == 9
    old = list(table.execute(select))
    assert len(old) == 2 and old[0].v == "v" and old[0].c == 1
    table.execute(insert, (3,))
    assert len(list(table.execute(select))) == 3


def test_a_table_is_made_again_under_a_prepared_statement(table):
    insert = table.prepare("INSERT INTO t (a, b, c, v) VALUES (?, ?, ?, ?)")
    select = table.prepare("SELECT v FROM t WHERE a = ? AND b = ?")
    table.execute(insert, (1, "x", 1, "old"))
    table.execute("DROP TABLE t")
    with pytest.raises(InvalidRequest):
        table.execute(insert, (1, "x", 1, "nowhere"))
    table.execute("CREATE TABLE t (a int, b text, c int, v text, w int, PRIMARY KEY ((a, b), c))")
    table.execute(insert, (1, "x", 1, "new"))
    assert [row.v for row in table.execute(select, (1, "x"))] == ["new"]


def test_a_dropped_column_makes_a_prepared_statement_invalid(table):
    insert = table.prepare("INSERT INTO t (a, b, c, w) VALUES (?, ?, ?, ?)")
    table.execute(insert, (1, "x", 1, 1))
    table.execute("ALTER TABLE t DROP w")
    with pytest.raises(InvalidRequest):
        table.execute(insert, (1, "x", 2, 1))


def test_a_type_is_extended_under_a_prepared_statement(session):
    session.execute("CREATE TYPE point (x int, y int)")
    session.execute("CREATE TABLE t (k int PRIMARY KEY, p frozen<point>)")
    insert = session.prepare("INSERT INTO t (k, p) VALUES (?, ?)")
    session.execute(insert, (0, (1, 2)))
    session.execute("ALTER TYPE point ADD z int")
    session.execute(insert, (1, (3, 4)))
    fresh = session.prepare("INSERT INTO t (k, p) VALUES (?, ?)")
    session.execute(fresh, (2, (5, 6, 7)))
    rows = {row.k: tuple(row.p) for row in session.execute("SELECT k, p FROM t")}
    assert rows == {0: (1, 2, None), 1: (3, 4, None), 2: (5, 6, 7)}


def test_other_columns_are_told_by_unprepared(server, table):
    insert = table.prepare("INSERT INTO t (a, b, c, v) VALUES (1, 'x', ?, 'v')")
    table.execute(insert, (1,))

    def told(change):
        """How often the statement is not prepared any more after a change."""
        before = server.counter("ceto_unprepared_total")
        table.execute(change)
        for number in range(3):
            table.execute(insert, (number,))
        return server.counter("ceto_unprepared_total") - before

    assert told("ALTER TABLE t WITH comment = 'the same columns'") == 0
    assert told("CREATE TABLE other (k int PRIMARY KEY)") == 0
    assert told("ALTER TABLE t ADD z int") == 1
    assert told("CREATE INDEX ON t (w)") == 1
    assert told("ALTER TABLE t DROP z") == 1


def test_many_prepared_statements(table):
    for number in range(300):
        select = table.prepare(f"SELECT v AS v{number} FROM t WHERE a = ? AND b = 'b' AND c = {number}")
        assert table.execute(select, (number,)).one() is None


@pytest.mark.parametrize(
    "text", ["SELECT * FROM nosuch WHERE k = ?", "SELECT nosuch FROM t", "INSERT INTO t (a) VALUES (?)"]
)
def test_preparing_what_is_invalid(table, text):
    with pytest.raises(InvalidRequest):
        table.prepare(text)
