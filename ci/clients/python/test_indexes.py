"""Secondary indexes: what they find, also after changes, pages and a kill; and what drivers are told of them."""

import time

import pytest

from cassandra import InvalidRequest
from cassandra.query import SimpleStatement

from conftest import connect
from server import Server

pytestmark = [pytest.mark.one_variant, pytest.mark.one_driver]


@pytest.fixture
def people(session):
    session.execute(
        "CREATE TABLE people (town text, id int, age int, name text, mayor text static, tags set<text>, "
        "marks map<text, int>, PRIMARY KEY (town, id))"
    )
    insert = session.prepare("INSERT INTO people (town, id, age, name, tags, marks) VALUES (?, ?, ?, ?, ?, ?)")
    for number in range(60):
        row = (f"town {number % 6}", number, number % 10, f"name {number % 4}", {f"tag {number % 5}"}, {"a": number % 3})
        session.execute(insert, row)
    return session


def ids(session, text, **options):
    statement = SimpleStatement(f"SELECT id FROM people WHERE {text}", **options)
    return sorted(row.id for row in session.execute(statement))


def test_an_index_on_rows_that_are_there(people):
    with pytest.raises(InvalidRequest, match="ALLOW FILTERING"):
        people.execute("SELECT * FROM people WHERE age = 3")
    people.execute("CREATE INDEX ON people (age)")
    people.execute("CREATE INDEX ON people (tags)")
    people.execute("CREATE INDEX ON people (entries(marks))")
    assert ids(people, "age = 3") == [3, 13, 23, 33, 43, 53]
    assert ids(people, "age = 3", fetch_size=2) == [3, 13, 23, 33, 43, 53]
    assert ids(people, "tags CONTAINS 'tag 4'") == list(range(4, 60, 5))
    assert ids(people, "marks['a'] = 2") == list(range(2, 60, 3))
    assert ids(people, "town = 'town 1' AND age = 3") == [13, 43]
    assert ids(people, "town = 'town 1' AND id IN (1, 13, 23) AND age = 3") == [13]
    assert ids(people, "age = 3 AND name = 'name 1' ALLOW FILTERING") == [13, 33, 53]
    with pytest.raises(InvalidRequest, match="ALLOW FILTERING"):
        people.execute("SELECT * FROM people WHERE age = 3 AND name = 'name 1'")


def test_changes(people):
    people.execute("CREATE INDEX ON people (age)")
    people.execute("CREATE INDEX ON people (mayor)")
    people.execute("UPDATE people SET age = 100 WHERE town = 'town 3' AND id = 3")
    people.execute("DELETE age FROM people WHERE town = 'town 1' AND id = 13")
    people.execute("DELETE FROM people WHERE town = 'town 5' AND id = 23")
    people.execute("DELETE FROM people WHERE town = 'town 5' AND id > 50")
    people.execute("UPDATE people SET mayor = 'one' WHERE town = 'town 2'")
    assert ids(people, "age = 100") == [3]
    assert ids(people, "age = 3") == [33, 43]
    assert ids(people, "mayor = 'one'") == list(range(2, 60, 6))
    people.execute("UPDATE people USING TTL 1 SET age = 3 WHERE town = 'town 0' AND id = 0")
    time.sleep(2)
    assert ids(people, "age = 3") == [33, 43]
    people.execute("TRUNCATE people")
    assert ids(people, "age = 3") == []


def test_storage_attached(people):
    people.execute("CREATE CUSTOM INDEX ON people (age) USING 'StorageAttachedIndex'")
    people.execute("CREATE INDEX ON people (name) USING 'sai' WITH OPTIONS = {'case_sensitive': 'false'}")
    assert ids(people, "age >= 8") == sorted(n for n in range(60) if n % 10 >= 8)
    assert ids(people, "age > 2 AND age < 5 AND name = 'NAME 3'", fetch_size=3) == [
        n for n in range(60) if n % 10 in (3, 4) and n % 4 == 3
    ]


def test_the_driver_knows_them(people):
    people.execute("CREATE INDEX ON people (age)")
    people.execute("CREATE INDEX by_key ON people (keys(marks))")
    name = people.keyspace
    people.cluster.refresh_keyspace_metadata(name)
    indexes = people.cluster.metadata.keyspaces[name].tables["people"].indexes
    assert {index.name: index.index_options["target"] for index in indexes.values()} == {
        "people_age_idx": "age",
        "by_key": "keys(marks)",
    }
    described = people.execute("DESCRIBE INDEX by_key").one().create_statement
    assert described == f"CREATE INDEX by_key ON {name}.people (keys(marks));"
    people.execute("DROP INDEX by_key")
    with pytest.raises(InvalidRequest, match="by_key"):
        people.execute("DROP INDEX by_key")


def test_after_a_kill_and_with_other_shards(tmp_path):
    node = Server(tmp_path / "data", shards=2).start()
    cluster = connect(node, "v4")
    session = cluster.connect()
    session.execute("CREATE KEYSPACE k WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
    session.execute("CREATE TABLE k.t (id int PRIMARY KEY, v int)")
    session.execute("CREATE INDEX ON k.t (v)")
    for number in range(100):
        session.execute(f"INSERT INTO k.t (id, v) VALUES ({number}, {number % 5})")
    for shards in (2, 3):
        cluster.shutdown()
        node.kill()
        node.shards = shards
        node.start()
        cluster = connect(node, "v4")
        session = cluster.connect()
        found = session.execute("SELECT id FROM k.t WHERE v = 2")
        assert sorted(row.id for row in found) == list(range(2, 100, 5))
    cluster.shutdown()
    node.stop()


def test_rebuild_index(people, server):
    people.execute("CREATE INDEX by_age ON people (age)")
    server.nodetool("rebuild_index", people.keyspace, "people", "by_age")
    assert ids(people, "age = 3") == [3, 13, 23, 33, 43, 53]
    server.nodetool("rebuild_index", people.keyspace, "people", "people.by_age")
    with pytest.raises(RuntimeError, match="has no index nosuch"):
        server.nodetool("rebuild_index", people.keyspace, "people", "nosuch")
    with pytest.raises(RuntimeError, match="requires ks, cf and idx args"):
        server.nodetool("rebuild_index", people.keyspace, "people")
