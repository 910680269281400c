"""Errors: the class (which the driver chooses by the code) and the body of each error that one node can be brought to."""

import pytest

from cassandra import AlreadyExists, ConsistencyLevel, InvalidRequest, Unauthorized, Unavailable
from cassandra.protocol import ConfigurationException, SyntaxException
from cassandra.query import SimpleStatement


@pytest.fixture
def table(session):
    session.execute("CREATE TABLE t (a int, b int, c int, d int, v text, l list<int>, PRIMARY KEY ((a, b), c, d))")
    session.execute("CREATE TABLE counts (k int PRIMARY KEY, n counter)")
    return session


@pytest.mark.parametrize(
    "text",
    [
        "SELEC * FROM t", "SELECT FROM t", "SELECT * FROM", "SELECT * FROM t WHERE", "INSERT INTO t (a) VALUES (1",
        "CREATE TABLE t2 (k int PRIMARY KEY", "", "SELECT * FROM t LIMIT", "UPDATE t SET WHERE a = 1",
        "SELECT * FROM t; SELECT * FROM t", "DELETE t WHERE a = 1", "SELECT 'unterminated FROM t",
        "CREATE KEYSPACE", "SELECT * FROM t WHERE a = = 1", "UPDATE t SET v = 'x', v = 'y' WHERE a = 1 AND b = 1 AND c = 1 AND d = 1",
        "INSERT INTO counts (k) VALUES (0) USING TIMESTAMP 'x'",
    ],
)
def test_syntax(table, text):
    with pytest.raises(SyntaxException):
        table.execute(text)


@pytest.mark.parametrize(
    "text, fragment",
    [
        ("SELECT * FROM nosuch", "nosuch"),
        ("SELECT * FROM nosuchkeyspace.t", "nosuchkeyspace"),
        ("SELECT nosuch FROM t", "nosuch"),
        ("SELECT * FROM t WHERE a = 1", "(?i)filtering|partition key"),
        ("SELECT * FROM t WHERE a = 1 AND b = 1 AND d = 1", "(?i)clustering|filtering|restricted"),
        ("SELECT * FROM t WHERE v = 'x'", "ALLOW FILTERING"),
        ("SELECT * FROM t WHERE a = 1 AND b = 1 AND c > 1 AND d = 1", "(?i)restricted|filtering"),
        ("SELECT * FROM t WHERE a = 1 AND b = 1 AND a = 2", "a"),
        ("SELECT * FROM t WHERE a > 1 AND b = 1", "(?i)token|partition|filtering"),
        ("SELECT * FROM t WHERE a = 1 AND b = 1 ORDER BY d", "(?i)order by"),
        ("SELECT * FROM t ORDER BY c", "(?i)order by"),
        ("SELECT * FROM t WHERE a = 1 AND b = 1 ORDER BY c ASC, d DESC", "(?i)order by|unsupported"),
        ("SELECT * FROM t WHERE a = 1 AND b = 1 LIMIT 0", "(?i)limit"),
        ("SELECT DISTINCT v FROM t", "(?i)distinct"),
        ("SELECT nosuchfunction(v) FROM t", "nosuchfunction"),
        ("SELECT token(a) FROM t", "(?i)token"),
        ("SELECT * FROM t WHERE token(b, a) > 0", "(?i)order|token"),
        ("INSERT INTO t (a, b, c) VALUES (1, 2, 3)", "(?i)clustering|missing|PRIMARY KEY"),
        ("INSERT INTO t (b, c, d) VALUES (1, 2, 3)", "(?i)missing|PRIMARY KEY"),
        ("INSERT INTO t (a, b, c, d, nosuch) VALUES (1, 2, 3, 4, 5)", "nosuch"),
        ("INSERT INTO t (a, b, c, d) VALUES (1, 2, 3)", "(?i)unmatched"),
        ("INSERT INTO t (a, b, c, d, v) VALUES (1, 2, 3, 4, 5)", "(?i)invalid"),
        ("INSERT INTO t (a, a, b, c, d) VALUES (1, 1, 2, 3, 4)", "(?i)multiple|duplicate"),
        ("INSERT INTO counts (k, n) VALUES (1, 1)", "(?i)counter"),
        ("UPDATE counts SET n = 5 WHERE k = 1", "(?i)counter"),
        ("UPDATE counts USING TTL 5 SET n = n + 1 WHERE k = 1", "(?i)counter"),
        ("UPDATE t SET v = v + 'x' WHERE a = 1 AND b = 1 AND c = 1 AND d = 1", "(?i)invalid"),
        ("UPDATE t SET a = 2 WHERE a = 1 AND b = 1 AND c = 1 AND d = 1", "(?i)primary key"),
        ("UPDATE t SET v = 'x' WHERE a = 1 AND b = 1", "(?i)clustering|missing"),
        ("DELETE FROM t WHERE a = 1", "(?i)missing|partition"),
        ("DELETE v FROM t WHERE a = 1 AND b = 1", "(?i)missing|clustering|range"),
        ("DELETE a FROM t WHERE a = 1 AND b = 1 AND c = 1 AND d = 1", "(?i)primary key"),
        ("CREATE TABLE bad (k int PRIMARY KEY, v nosuchtype)", "(?i)nosuchtype"),
        ("CREATE TABLE bad (k int PRIMARY KEY, v list<list<int>>)", "(?i)non-frozen|frozen"),
        ("CREATE TABLE bad (k list<int> PRIMARY KEY)", "(?i)PRIMARY KEY"),
        ("CREATE TABLE bad (k int PRIMARY KEY, v int, v int)", "(?i)v"),
        ("CREATE TABLE bad (k int, v int)", "(?i)PRIMARY KEY"),
        ("CREATE TABLE bad (k int PRIMARY KEY, k2 int PRIMARY KEY,)", "(?i)PRIMARY KEY"),
        ("CREATE TABLE bad (k int PRIMARY KEY, n counter, v int)", "(?i)counter"),
        ("CREATE TABLE bad (k counter PRIMARY KEY)", "(?i)counter"),
        ("CREATE TABLE bad (k duration PRIMARY KEY)", "(?i)duration"),
        ("CREATE TABLE bad (k int PRIMARY KEY, s int static)", "(?i)static"),
        ("CREATE TABLE bad (k int, c int, PRIMARY KEY (k, c)) WITH CLUSTERING ORDER BY (k DESC)", "(?i)clustering"),
        ("ALTER TABLE nosuch ADD v int", "nosuch"),
        ("ALTER TABLE t ADD v int", "v"),
        ("ALTER TABLE t DROP nosuch", "nosuch"),
        ("ALTER TABLE t DROP c", "(?i)primary key|c"),
        ("ALTER TABLE t RENAME v TO w", "(?i)rename|primary key"),
        ("CREATE TYPE bad (a counter)", "(?i)counter"),
    ],
)
def test_invalid(table, text, fragment):
    with pytest.raises(InvalidRequest, match=fragment):
        table.execute(text)


@pytest.mark.parametrize(
    "text",
    [
        "CREATE KEYSPACE bad WITH replication = {'class': 'NoSuchStrategy'}",
        "CREATE KEYSPACE bad WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 'x'}",
        "CREATE KEYSPACE bad WITH replication = {'class': 'NetworkTopologyStrategy', 'nosuchdc': 1}",
        "CREATE KEYSPACE bad WITH replication = {}",
        "CREATE TABLE bad (k int PRIMARY KEY) WITH compaction = {'class': 'NoSuchStrategy'}",
        "CREATE TABLE bad (k int PRIMARY KEY) WITH compression = {'class': 'NoSuchCompressor'}",
        "CREATE TABLE bad (k int PRIMARY KEY) WITH bloom_filter_fp_chance = 5",
        "CREATE TABLE bad (k int PRIMARY KEY) WITH gc_grace_seconds = -1",
    ],
)
def test_configuration(table, text):
    with pytest.raises((ConfigurationException, InvalidRequest)) as raised:
        table.execute(text)
    assert isinstance(raised.value, ConfigurationException), repr(raised.value)


@pytest.mark.parametrize(
    "text",
    ["CREATE TABLE bad (k int PRIMARY KEY) WITH nosuchoption = 1", "CREATE KEYSPACE bad WITH nosuch = 1"],
)
def test_unknown_options(table, text):
    with pytest.raises((SyntaxException, ConfigurationException, InvalidRequest)):
        table.execute(text)


def test_already_exists(table):
    with pytest.raises(AlreadyExists) as raised:
        table.execute("CREATE TABLE t (k int PRIMARY KEY)")
    assert (raised.value.keyspace, raised.value.table) == (table.keyspace, "t")


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO system_schema.keyspaces (keyspace_name) VALUES ('x')", "DROP TABLE system.local", "DROP KEYSPACE system",
        "CREATE TABLE system.bad (k int PRIMARY KEY)", "TRUNCATE system_schema.tables",
        "ALTER KEYSPACE system_schema WITH durable_writes = false",
    ],
)
def test_system_keyspaces_are_not_to_be_changed(table, text):
    with pytest.raises((Unauthorized, InvalidRequest)) as raised:
        table.execute(text)
    assert isinstance(raised.value, Unauthorized), repr(raised.value)


def test_unavailable(session):
    name = f"{session.keyspace}_wide"
    session.execute(f"CREATE KEYSPACE {name} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 3}}")
    try:
        session.execute(f"CREATE TABLE {name}.t (k int PRIMARY KEY)")
        for text in (f"INSERT INTO {name}.t (k) VALUES (1)", f"SELECT * FROM {name}.t WHERE k = 1"):
            session.execute(SimpleStatement(text, consistency_level=ConsistencyLevel.ONE))
            with pytest.raises(Unavailable) as raised:
                session.execute(SimpleStatement(text, consistency_level=ConsistencyLevel.QUORUM))
            error = raised.value
            assert (error.consistency, error.required_replicas, error.alive_replicas) == (ConsistencyLevel.QUORUM, 2, 1)
    finally:
        session.execute(f"DROP KEYSPACE {name}")


def test_consistency_levels(table):
    levels = [
        ConsistencyLevel.ONE, ConsistencyLevel.LOCAL_ONE, ConsistencyLevel.QUORUM, ConsistencyLevel.LOCAL_QUORUM,
        ConsistencyLevel.ALL, ConsistencyLevel.EACH_QUORUM, ConsistencyLevel.ANY,
    ]
    for level in levels:
        insert = SimpleStatement("INSERT INTO t (a, b, c, d) VALUES (1, 1, 1, 1)", consistency_level=level)
        table.execute(insert)
    for level in levels[:5]:
        select = SimpleStatement("SELECT a FROM t WHERE a = 1 AND b = 1", consistency_level=level)
        assert table.execute(select).one().a == 1
    with pytest.raises(InvalidRequest, match="ANY"):
        table.execute(SimpleStatement("SELECT * FROM t WHERE a = 1 AND b = 1", consistency_level=ConsistencyLevel.ANY))
    with pytest.raises(Unavailable):
        table.execute(SimpleStatement("SELECT * FROM t WHERE a = 1 AND b = 1", consistency_level=ConsistencyLevel.TWO))
    with pytest.raises(InvalidRequest, match="(?i)serial"):
        insert = SimpleStatement("INSERT INTO t (a, b, c, d) VALUES (1, 1, 1, 1)", consistency_level=ConsistencyLevel.SERIAL)
        table.execute(insert)


def test_too_many_and_too_few_values(table):
    with pytest.raises(InvalidRequest):
        table.execute("INSERT INTO t (a, b, c, d) VALUES (1, 1, 1, ?)")
    insert = table.prepare("INSERT INTO t (a, b, c, d) VALUES (?, ?, ?, ?)")
    bound = insert.bind((1, 1, 1, 1))
    bound.values = bound.values[:2]
    with pytest.raises(InvalidRequest):
        table.execute(bound)


def test_an_error_does_not_end_the_connection(table):
    for _ in range(50):
        with pytest.raises(SyntaxException):
            table.execute("THIS IS NOT CQL")
    assert list(table.execute("SELECT * FROM t")) == []
