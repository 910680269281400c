"""Materialized views: the base and its views agree whatever is written, also after kills, builds and with other numbers of
shards; and what drivers and tools are told of views."""

import random
import threading
import time

import pytest

from cassandra import InvalidRequest
from cassandra.query import BatchStatement, SimpleStatement

from conftest import connect
from server import Server

pytestmark = [pytest.mark.one_variant, pytest.mark.one_driver]

#: Key columns, other columns and the test of each view of `t` below; the names are those of the base's columns.
VIEWS = {
    "by_v": (("v", "p", "c"), ("w", "s"), lambda row: True),
    "by_v_all": (("p", "v", "c"), ("s", "u", "w"), lambda row: True),
    "by_v_key": (("c", "v", "p"), (), lambda row: True),
    "turned": (("c", "p"), ("v", "w", "s", "u"), lambda row: True),
    "turned_part": (("c", "p"), ("w",), lambda row: True),
    "turned_key": (("c", "p"), (), lambda row: True),
    "filtered": (("v", "c", "p"), ("w",), lambda row: row.v > 1 and row.c < 3),
}


def create_base(session):
    session.execute("CREATE TABLE t (p int, c int, v int, w int, s set<int>, u int, st int static, PRIMARY KEY (p, c))")


def create_view(session, name):
    key, others, _ = VIEWS[name]
    clause = " AND ".join(f"{column} IS NOT NULL" for column in key)
    if name == "filtered":
        clause = "v > 1 AND c < 3 AND p IS NOT NULL"
    session.execute(
        f"CREATE MATERIALIZED VIEW {name} AS SELECT {', '.join(key + others)} FROM t WHERE {clause} "
        f"PRIMARY KEY ({', '.join(key)})"
    )


def wait_until_built(session, names, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        rows = session.execute(f"SELECT view_name FROM system.built_views WHERE keyspace_name = '{session.keyspace}'")
        if set(names) <= {row.view_name for row in rows}:
            return
        time.sleep(0.05)
    raise AssertionError("a view is not built")


def compare(session, names=VIEWS):
    """Recomputes each view from the base."""
    base = list(session.execute("SELECT * FROM t"))
    for name in names:
        key, others, test = VIEWS[name]
        shape = lambda row: tuple(
            frozenset(value) if column == "s" and value is not None else value
            for column, value in ((column, getattr(row, column)) for column in key + others)
        )
        expected = sorted(
            (shape(row) for row in base if row.c is not None and all(getattr(row, k) is not None for k in key)
             and test(row)),
            key=repr,
        )
        found = sorted((shape(row) for row in session.execute(SimpleStatement(f"SELECT * FROM {name}", fetch_size=7))),
                       key=repr)
        assert found == expected, name


def random_statement(rng, partitions=3, rows=4, values=4):
    p, c = rng.randrange(partitions), rng.randrange(rows)
    timestamp = f"TIMESTAMP {rng.randrange(1, 10**6)}" if rng.random() < 0.5 else ""
    ttl = f"TTL {rng.randrange(1, 4)}" if rng.random() < 0.15 else ""
    using = " AND ".join(part for part in (timestamp, ttl) if part)
    using = f"USING {using}" if using else ""
    deleting = f"USING {timestamp}" if timestamp else ""
    value = lambda: "null" if rng.random() < 0.15 else str(rng.randrange(values))
    kind = rng.randrange(14)
    where = f"WHERE p = {p} AND c = {c}"
    if kind < 4:
        names = [name for name in ("v", "w", "u") if rng.random() < 0.7]
        columns = "".join(f", {name}" for name in names)
        return f"INSERT INTO t (p, c{columns}) VALUES ({p}, {c}{''.join(', ' + value() for _ in names)}) {using}"
    if kind < 8:
        return f"UPDATE t {using} SET {rng.choice('vvwu')} = {value()} {where}"
    if kind == 8:
        change = rng.choice([f"s + {{{rng.randrange(3)}}}", f"s - {{{rng.randrange(3)}}}", f"{{{rng.randrange(3)}}}", "null"])
        return f"UPDATE t {using} SET s = {change} {where}"
    if kind == 9:
        return f"DELETE {rng.choice('vwsu')} FROM t {deleting} {where}"
    if kind == 10:
        return f"DELETE FROM t {deleting} {where}"
    if kind == 11:
        return f"DELETE FROM t {deleting} WHERE p = {p} AND c {rng.choice(['>', '<=', '>='])} {c}"
    if kind == 12 and rng.random() < 0.3:
        return f"DELETE FROM t {deleting} WHERE p = {p}"
    if kind == 13 and rng.random() < 0.5:
        return f"UPDATE t SET v = {value()} {where} IF v = {rng.randrange(values)}"
    return f"INSERT INTO t (p, st) VALUES ({p}, {rng.randrange(3)})"


def write_at_once(session, seed, writers=6, statements=60):
    """Several writers to the same rows."""
    failures = []

    def write(number):
        rng = random.Random(f"{seed} {number}")
        try:
            for _ in range(statements):
                if rng.random() < 0.1:
                    batch = BatchStatement()
                    for _ in range(4):
                        text = random_statement(rng)
                        if " IF " not in text:
                            batch.add(SimpleStatement(text))
                    session.execute(batch)
                else:
                    session.execute(random_statement(rng))
        except Exception as failure:  # noqa: BLE001 - shown by the main thread
            failures.append(failure)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("seed", range(3))
def test_views_agree_with_the_base(session, seed):
    create_base(session)
    for name in VIEWS:
        create_view(session, name)
    wait_until_built(session, VIEWS)
    for number in range(3):
        write_at_once(session, f"{seed} {number}")
        # Nothing may expire between the reads of base and view.
        time.sleep(4)
        compare(session)
    session.execute("TRUNCATE t")
    compare(session)
    assert not list(session.execute("SELECT * FROM turned_key"))
    write_at_once(session, f"{seed} after")
    time.sleep(4)
    compare(session)


def test_a_build_beside_writes(server, session):
    create_base(session)
    insert = session.prepare("INSERT INTO t (p, c, v, w, s) VALUES (?, ?, ?, ?, ?)")
    for number in range(2000):
        session.execute(insert, (number % 100, number // 100, number % 7, number, {number % 3}))
    stop = threading.Event()

    def write():
        seed = 0
        while not stop.is_set():
            write_at_once(session, f"build {seed}", writers=2, statements=20)
            seed += 1

    writer = threading.Thread(target=write)
    writer.start()
    for name in VIEWS:
        create_view(session, name)
    wait_until_built(session, VIEWS)
    stop.set()
    writer.join()
    time.sleep(4)
    compare(session)
    assert not list(session.execute("SELECT * FROM system.view_builds_in_progress"))
    text = f"SELECT status FROM system_distributed.view_build_status WHERE keyspace_name = '{session.keyspace}'"
    assert {row.status for row in session.execute(text + " AND view_name = 'by_v'")} == {"SUCCESS"}
    assert server.nodetool("viewbuildstatus", session.keyspace, "by_v").endswith("by_v has finished building\n")


def test_reads(session):
    session.execute("CREATE TABLE t (p int, c int, v int, w int, PRIMARY KEY (p, c))")
    session.execute(
        "CREATE MATERIALIZED VIEW mv AS SELECT * FROM t WHERE p IS NOT NULL AND c IS NOT NULL AND v IS NOT NULL "
        "PRIMARY KEY (v, c, p) WITH CLUSTERING ORDER BY (c DESC, p ASC)"
    )
    for c in range(10):
        for p in range(3):
            session.execute(f"INSERT INTO t (p, c, v, w) VALUES ({p}, {c}, {c % 2}, {p * c})")
    rows = [(row.c, row.p) for row in session.execute(SimpleStatement("SELECT c, p FROM mv WHERE v = 1", fetch_size=4))]
    assert rows == [(c, p) for c in (9, 7, 5, 3, 1) for p in range(3)]
    rows = [(row.c, row.p) for row in session.execute("SELECT * FROM mv WHERE v = 1 AND c < 5 ORDER BY c ASC, p DESC")]
    assert rows == [(c, p) for c in (1, 3) for p in (2, 1, 0)]
    assert list(session.execute("SELECT * FROM mv WHERE v = 0 AND c = 4 AND p = 2")) == [(0, 4, 2, 8)]
    assert list(session.execute("SELECT w FROM mv WHERE v = 0 AND c = 4 AND p IN (1, 2)")) == [(4,), (8,)]
    assert session.execute("SELECT count(*) FROM mv WHERE v = 1").one().count == 15
    assert list(session.execute("SELECT DISTINCT v FROM mv")) in ([(0,), (1,)], [(1,), (0,)])
    assert len(list(session.execute("SELECT * FROM mv PER PARTITION LIMIT 2"))) == 4
    assert len(list(session.execute("SELECT * FROM mv WHERE w = 8 ALLOW FILTERING"))) == 2
    assert list(session.execute("SELECT JSON * FROM mv WHERE v = 0 AND c = 4 AND p = 2")) == [
        ('{"v": 0, "c": 4, "p": 2, "w": 8}',)
    ]
    assert list(session.execute("SELECT *, c + p AS sum FROM mv WHERE v = 0 AND c = 4 AND p = 2")) == [(0, 4, 2, 8, 6)]
    with pytest.raises(InvalidRequest, match="Undefined column name written"):
        session.execute("SELECT written FROM mv")
    for text in (
        "INSERT INTO mv (v, c, p) VALUES (1, 1, 1)",
        "DELETE FROM mv WHERE v = 1",
        "UPDATE mv SET w = 1 WHERE v = 1 AND c = 1 AND p = 1",
    ):
        with pytest.raises(InvalidRequest, match="Cannot directly modify a materialized view"):
            session.execute(text)
    with pytest.raises(InvalidRequest, match="must truncate base table instead"):
        session.execute("TRUNCATE mv")


def test_what_a_view_cannot_be_of(session):
    session.execute("CREATE TABLE t (p int PRIMARY KEY, v int)")
    clause = "p IS NOT NULL AND v IS NOT NULL"
    with pytest.raises(InvalidRequest, match='Unsupported "!=" relation: v != 1'):
        session.execute(f"CREATE MATERIALIZED VIEW mv AS SELECT * FROM t WHERE {clause} AND v != 1 PRIMARY KEY (v, p)")
    with pytest.raises(InvalidRequest, match="anything beside"):
        session.execute(f"CREATE MATERIALIZED VIEW mv AS SELECT *, p FROM t WHERE {clause} PRIMARY KEY (v, p)")


def test_timestamps_are_those_of_the_base(session):
    session.execute("CREATE TABLE t (p int PRIMARY KEY, v int, w int)")
    session.execute(
        "CREATE MATERIALIZED VIEW mv AS SELECT * FROM t WHERE p IS NOT NULL AND v IS NOT NULL PRIMARY KEY (v, p)"
    )
    session.execute("INSERT INTO t (p, v, w) VALUES (1, 1, 1) USING TIMESTAMP 100")
    session.execute("UPDATE t USING TIMESTAMP 50 SET v = 5 WHERE p = 1")
    assert list(session.execute("SELECT v, p, w, writetime(w) FROM mv")) == [(1, 1, 1, 100)]
    session.execute("UPDATE t USING TIMESTAMP 200 SET v = 2 WHERE p = 1")
    assert list(session.execute("SELECT v, p, w, writetime(w) FROM mv")) == [(2, 1, 1, 100)]
    session.execute("UPDATE t USING TIMESTAMP 300 SET v = 1 WHERE p = 1")
    assert list(session.execute("SELECT v, p, w, writetime(w) FROM mv")) == [(1, 1, 1, 100)]
    session.execute("DELETE w FROM t USING TIMESTAMP 150 WHERE p = 1")
    assert list(session.execute("SELECT v, p, w FROM mv")) == [(1, 1, None)]
    session.execute("DELETE FROM t USING TIMESTAMP 250 WHERE p = 1")
    assert list(session.execute("SELECT v, p, w FROM mv")) == [(1, 1, None)]
    session.execute("DELETE v FROM t USING TIMESTAMP 300 WHERE p = 1")
    assert list(session.execute("SELECT * FROM mv")) == []


def test_the_driver_knows_them(session):
    session.execute("CREATE TABLE t (p int PRIMARY KEY, v int, w int)")
    session.execute(
        "CREATE MATERIALIZED VIEW mv AS SELECT * FROM t WHERE p IS NOT NULL AND v IS NOT NULL PRIMARY KEY (v, p) "
        "WITH CLUSTERING ORDER BY (p DESC) AND comment = 'x'"
    )
    name = session.keyspace
    session.cluster.refresh_keyspace_metadata(name)
    keyspace = session.cluster.metadata.keyspaces[name]
    view = keyspace.views["mv"]
    assert list(keyspace.tables) == ["t"] and list(keyspace.tables["t"].views) == ["mv"]
    assert [column.name for column in view.partition_key] == ["v"]
    assert [column.name for column in view.clustering_key] == ["p"]
    assert list(view.columns) == ["v", "p", "w"]
    assert (view.include_all_columns, view.where_clause) == (True, "p IS NOT NULL AND v IS NOT NULL")
    text = view.export_as_string()
    assert text.startswith(f"CREATE MATERIALIZED VIEW {name}.mv AS")
    described = session.execute("DESCRIBE MATERIALIZED VIEW mv").one().create_statement
    session.execute("DROP MATERIALIZED VIEW mv")
    session.execute(described)
    assert session.execute("DESCRIBE MATERIALIZED VIEW mv").one().create_statement == described
    session.execute("ALTER TABLE t ADD x int")
    session.execute("INSERT INTO t (p, v, x) VALUES (1, 2, 3)")
    assert list(session.execute("SELECT * FROM mv")) == [(2, 1, None, 3)]
    session.execute("ALTER TABLE t RENAME p TO q")
    assert list(session.execute("SELECT q FROM mv WHERE v = 2")) == [(1,)]
    session.execute("DROP MATERIALIZED VIEW mv")
    session.cluster.refresh_keyspace_metadata(name)
    assert not session.cluster.metadata.keyspaces[name].views
    wait_for = time.monotonic() + 10
    while list(session.execute(f"SELECT * FROM system.built_views WHERE keyspace_name = '{name}'")):
        assert time.monotonic() < wait_for
        time.sleep(0.05)


def test_kills_and_other_numbers_of_shards(tmp_path):
    node = Server(tmp_path / "data", shards=2).start()
    try:
        cluster = connect(node, "v4")
        session = cluster.connect()
        session.execute("CREATE KEYSPACE k WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
        session.set_keyspace("k")
        create_base(session)
        insert = session.prepare("INSERT INTO t (p, c, v, w, s) VALUES (?, ?, ?, ?, ?)")
        for number in range(1500):
            session.execute(insert, (100 + number % 100, number // 100, number % 7, number, {number % 3}))
        for name in list(VIEWS)[:3]:
            create_view(session, name)
        for number, shards in enumerate((2, 3, 1, 2)):
            killer = threading.Timer(1.0 + number / 3, node.kill)
            killer.start()
            rng = random.Random(number)
            try:
                write_at_once(session, f"kill {number}", writers=8, statements=100_000)
            except AssertionError:
                pass  # the node is gone
            killer.join()
            cluster.shutdown()
            node.shards = shards
            node.start()
            cluster = connect(node, "v4")
            session = cluster.connect("k")
            if number == 1:
                for name in list(VIEWS)[3:]:
                    create_view(session, name)
            names = list(VIEWS)[:3] if number < 1 else list(VIEWS)
            wait_until_built(session, names)
            time.sleep(4)
            compare(session, names)
        cluster.shutdown()
    finally:
        node.stop()
