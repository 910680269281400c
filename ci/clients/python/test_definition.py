"""Definitions: keyspaces, tables, types; what the driver's metadata says about them afterwards."""

import pytest

from cassandra import AlreadyExists, InvalidRequest
from cassandra.protocol import ConfigurationException

pytestmark = pytest.mark.one_variant


def metadata_of(session):
    name = session.keyspace
    session.cluster.refresh_keyspace_metadata(name)
    return session.cluster.metadata.keyspaces[name]


def test_keyspace(session):
    execute = session.execute
    try:
        execute(
            "CREATE KEYSPACE made WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': 1} "
            "AND durable_writes = false"
        )
        keyspace = session.cluster.metadata.keyspaces["made"]
        assert keyspace.durable_writes is False
        assert keyspace.replication_strategy.name == "NetworkTopologyStrategy"
        execute("CREATE KEYSPACE IF NOT EXISTS made WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
        with pytest.raises(AlreadyExists) as raised:
            execute("CREATE KEYSPACE made WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
        assert (raised.value.keyspace, raised.value.table) == ("made", "")
        execute("ALTER KEYSPACE made WITH replication = {'class': 'SimpleStrategy', 'replication_factor': '1'}")
        row = execute("SELECT * FROM system_schema.keyspaces WHERE keyspace_name = 'made'").one()
        assert row.replication["class"] == "org.apache.cassandra.locator.SimpleStrategy"
        assert row.replication["replication_factor"] == "1"
        assert row.durable_writes is False
    finally:
        execute("DROP KEYSPACE IF EXISTS made")
    assert "made" not in session.cluster.metadata.keyspaces
    execute("DROP KEYSPACE IF EXISTS made")
    with pytest.raises((InvalidRequest, ConfigurationException), match="made"):
        execute("DROP KEYSPACE made")


def test_table_as_the_driver_sees_it(session):
    session.execute(
        'CREATE TABLE "Mixed" (a int, "B" text, c timeuuid, d bigint, s text static, "V" map<text, frozen<list<int>>>, '
        "w decimal, PRIMARY KEY ((a, \"B\"), c, d)) WITH CLUSTERING ORDER BY (c DESC, d ASC) AND comment = 'it''s' "
        "AND default_time_to_live = 3600 AND gc_grace_seconds = 100 AND compaction = "
        "{'class': 'SizeTieredCompactionStrategy', 'min_threshold': '6'} AND compression = {'class': 'LZ4Compressor'} "
        "AND caching = {'keys': 'ALL', 'rows_per_partition': '10'} AND bloom_filter_fp_chance = 0.05"
    )
    table = metadata_of(session).tables["Mixed"]
    assert [column.name for column in table.partition_key] == ["a", "B"]
    assert [(column.name, column.is_reversed) for column in table.clustering_key] == [("c", True), ("d", False)]
    assert table.columns["s"].is_static and not table.columns["w"].is_static
    assert table.columns["V"].cql_type == "map<text, frozen<list<int>>>"
    options = table.options
    assert (options["comment"], options["default_time_to_live"], options["gc_grace_seconds"]) == ("it's", 3600, 100)
    assert options["bloom_filter_fp_chance"] == 0.05
    assert options["compaction"]["class"].endswith("SizeTieredCompactionStrategy")
    assert options["compaction"]["min_threshold"] == "6"
    assert options["caching"]["rows_per_partition"] == "10"
    # The driver's own text of the table makes the same table again.
    text = table.export_as_string()
    session.execute('DROP TABLE "Mixed"')
    session.execute(text)
    again = metadata_of(session).tables["Mixed"]
    assert again.export_as_string() == text


def test_table_exists(session):
    session.execute("CREATE TABLE t (k int PRIMARY KEY)")
    session.execute("CREATE TABLE IF NOT EXISTS t (k int PRIMARY KEY, other text)")
    with pytest.raises(AlreadyExists) as raised:
        session.execute("CREATE TABLE t (k int PRIMARY KEY)")
    assert (raised.value.keyspace, raised.value.table) == (session.keyspace, "t")
    session.execute("DROP TABLE t")
    session.execute("DROP TABLE IF EXISTS t")
    with pytest.raises((InvalidRequest, ConfigurationException)):
        session.execute("DROP TABLE t")


def test_alter_table(session):
    session.execute("CREATE TABLE t (k int, c int, v text, PRIMARY KEY (k, c))")
    session.execute("INSERT INTO t (k, c, v) VALUES (0, 1, 'before')")
    session.execute("ALTER TABLE t ADD (w int, x set<text>)")
    session.execute("INSERT INTO t (k, c, w, x) VALUES (0, 2, 5, {'a'})")
    rows = list(session.execute("SELECT k, c, v, w, x FROM t WHERE k = 0"))
    assert rows == [(0, 1, "before", None, None), (0, 2, None, 5, {"a"})]
    session.execute("ALTER TABLE t DROP v")
    assert sorted(metadata_of(session).tables["t"].columns) == ["c", "k", "w", "x"]
    with pytest.raises(InvalidRequest, match="v"):
        session.execute("SELECT v FROM t")
    session.execute("ALTER TABLE t ADD v text")
    assert session.execute("SELECT v FROM t WHERE k = 0 AND c = 1").one().v is None, "what was dropped stays dropped"
    with pytest.raises(InvalidRequest):
        session.execute("ALTER TABLE t ADD w int")
    with pytest.raises(InvalidRequest):
        session.execute("ALTER TABLE t DROP c")
    session.execute("ALTER TABLE t RENAME c TO c2")
    assert session.execute("SELECT c2 FROM t WHERE k = 0 AND c2 = 2").one().c2 == 2
    session.execute("ALTER TABLE t WITH comment = 'changed' AND gc_grace_seconds = 5")
    table = metadata_of(session).tables["t"]
    assert (table.options["comment"], table.options["gc_grace_seconds"]) == ("changed", 5)


def test_types_are_listed(session):
    session.execute("CREATE TYPE inner_type (a int)")
    session.execute("CREATE TYPE outer_type (b frozen<inner_type>, c list<text>)")
    session.execute("CREATE TYPE IF NOT EXISTS inner_type (a int)")
    with pytest.raises((InvalidRequest, AlreadyExists)):
        session.execute("CREATE TYPE inner_type (a int)")
    types = metadata_of(session).user_types
    assert types["outer_type"].field_names == ["b", "c"]
    assert types["outer_type"].field_types == ["frozen<inner_type>", "list<text>"]
    session.execute("ALTER TYPE inner_type ADD z text")
    session.execute("ALTER TYPE inner_type RENAME a TO a2")
    assert metadata_of(session).user_types["inner_type"].field_names == ["a2", "z"]
    session.execute("CREATE TABLE t (k int PRIMARY KEY, v frozen<outer_type>)")
    for name in ("inner_type", "outer_type"):
        with pytest.raises(InvalidRequest, match="Cannot drop"):
            session.execute(f"DROP TYPE {name}")
    session.execute("DROP TABLE t")
    session.execute("DROP TYPE outer_type")
    session.execute("DROP TYPE inner_type")
    session.execute("DROP TYPE IF EXISTS inner_type")
    assert not metadata_of(session).user_types


def test_truncate(session):
    session.execute("CREATE TABLE t (k int PRIMARY KEY, v int)")
    for key in range(20):
        session.execute(f"INSERT INTO t (k, v) VALUES ({key}, 1)")
    session.execute("TRUNCATE t")
    assert list(session.execute("SELECT * FROM t")) == []
    session.execute("INSERT INTO t (k, v) VALUES (1, 2)")
    assert list(session.execute("SELECT * FROM t")) == [(1, 2)]
    session.execute("TRUNCATE TABLE t")
    with pytest.raises(InvalidRequest):
        session.execute("TRUNCATE nosuch")


def test_use(session):
    other = session.cluster.connect()
    try:
        session.execute("CREATE TABLE t (k int PRIMARY KEY)")
        with pytest.raises(InvalidRequest, match="(?i)no keyspace"):
            other.execute("SELECT * FROM t")
        other.execute(f"USE {session.keyspace}")
        assert other.keyspace == session.keyspace
        assert list(other.execute("SELECT * FROM t")) == []
        with pytest.raises(InvalidRequest, match="nosuch"):
            other.execute("USE nosuch")
    finally:
        other.shutdown()


def test_a_dropped_keyspace_takes_its_rows_along(session):
    for number in range(3):
        session.execute("CREATE TABLE t (k int PRIMARY KEY, v int)")
        assert list(session.execute("SELECT * FROM t")) == [], number
        session.execute("INSERT INTO t (k, v) VALUES (1, 2)")
        session.execute("DROP TABLE t")


def test_who_the_server_says_it_is(session):
    local = session.execute("SELECT * FROM system.local WHERE key = 'local'").one()
    assert local.partitioner == "org.apache.cassandra.dht.Murmur3Partitioner"
    assert (local.bootstrapped, local.data_center, local.rack) == ("COMPLETED", "datacenter1", "rack1")
    assert local.rpc_address == "127.0.0.1" and local.tokens and local.schema_version
    assert int(local.release_version.split(".")[0]) >= 4
    assert list(session.execute("SELECT * FROM system.peers")) == []
    assert list(session.execute("SELECT * FROM system.peers_v2")) == []
    host = session.cluster.metadata.all_hosts()[0]
    assert host.is_up and host.host_id == local.host_id
    assert session.cluster.control_connection.wait_for_schema_agreement()
