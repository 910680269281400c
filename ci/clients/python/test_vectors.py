"""Vector search: what an index of vectors finds beside brute force, after changes and a kill, with filters; and refusals."""

import random
import struct

import pytest

from cassandra import InvalidRequest
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.query import SimpleStatement

from conftest import connect
from server import Server

pytestmark = [pytest.mark.one_variant, pytest.mark.one_driver]

DIMENSION = 24
ROWS = 1500


def vector(dice):
    # As they arrive: single precision.
    numbers = [dice.gauss(0, 1) for _ in range(DIMENSION)]
    return list(struct.unpack(f"{DIMENSION}f", struct.pack(f"{DIMENSION}f", *numbers)))


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b))
    return dot / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5


def euclidean(a, b):
    return -sum((x - y) ** 2 for x, y in zip(a, b))


def nearest(vectors, wanted, count, likeness=cosine):
    return sorted(vectors, key=lambda number: likeness(vectors[number], wanted), reverse=True)[:count]


def found(session, wanted, count, where="", **options):
    text = f"SELECT id FROM items {where} ORDER BY v ANN OF {wanted} LIMIT {count}"
    return [row.id for row in session.execute(SimpleStatement(text, **options))]


def recall(session, vectors, dice, queries=20, count=10, where="", likeness=cosine):
    hits = 0
    for _ in range(queries):
        wanted = vector(dice)
        exact = nearest(vectors, wanted, count, likeness)
        own = found(session, wanted, count, where)
        assert len(own) == len(exact)
        likenesses = [likeness(vectors[number], wanted) for number in own]
        assert likenesses == sorted(likenesses, reverse=True), "not the nearest first"
        hits += len(set(own) & set(exact))
    return hits / (queries * count)


def fill(session, dice, rows=ROWS, first=0):
    vectors = {number: vector(dice) for number in range(first, first + rows)}
    insert = session.prepare("INSERT INTO items (id, kind, size, v) VALUES (?, ?, ?, ?)")
    arguments = [(number, f"kind {number % 5}", number % 100, own) for number, own in vectors.items()]
    execute_concurrent_with_args(session, insert, arguments, concurrency=32, raise_on_first_error=True)
    return vectors


def create(session, options=""):
    session.execute(f"CREATE TABLE items (id int PRIMARY KEY, kind text, size int, v vector<float, {DIMENSION}>)")
    session.execute(f"CREATE CUSTOM INDEX near ON items (v) USING 'StorageAttachedIndex' {options}")


def test_the_nearest_rows(session):
    dice = random.Random(1)
    create(session)
    vectors = fill(session, dice)
    assert recall(session, vectors, dice) >= 0.95
    # The first is the vector itself.
    assert found(session, vectors[7], 1) == [7]
    for number in range(0, ROWS, 3):
        session.execute("DELETE FROM items WHERE id = %s", (number,))
        del vectors[number]
    vectors.update(fill(session, dice, 100, first=1))
    session.execute("DELETE v FROM items WHERE id = 200")
    del vectors[200]
    assert recall(session, vectors, dice) >= 0.95
    assert 200 not in found(session, [0.5] * DIMENSION, 1000)
    session.execute("TRUNCATE items")
    assert found(session, vectors[7], 10) == []


@pytest.mark.parametrize("name, likeness", [("euclidean", euclidean), ("DOT_PRODUCT", None)])
def test_other_measures(session, name, likeness):
    dice = random.Random(2)
    create(session, f"WITH OPTIONS = {{'similarity_function': '{name}'}}")
    vectors = fill(session, dice, 600)
    likeness = likeness or (lambda a, b: sum(x * y for x, y in zip(a, b)))
    assert recall(session, vectors, dice, likeness=likeness) >= 0.95


def test_filters_and_restrictions(session):
    dice = random.Random(3)
    create(session)
    session.execute("CREATE INDEX ON items (kind) USING 'sai'")
    session.execute("CREATE INDEX ON items (size) USING 'sai'")
    vectors = fill(session, dice)
    some = {number: own for number, own in vectors.items() if number % 5 == 2}
    assert recall(session, some, dice, where="WHERE kind = 'kind 2'") >= 0.95
    few = {number: own for number, own in vectors.items() if number % 5 == 2 and number % 100 < 3}
    assert recall(session, few, dice, where="WHERE kind = 'kind 2' AND size < 3", queries=5) == 1
    assert found(session, vectors[9], 5, "WHERE id = 44") == [44]
    assert found(session, vectors[9], 5, "WHERE kind = 'none'") == []
    row = session.execute(
        f"SELECT id, similarity_cosine(v, {vectors[9]}) AS likeness FROM items ORDER BY v ANN OF {vectors[9]} LIMIT 1"
    ).one()
    assert row.id == 9 and abs(row.likeness - 1) < 1e-5
    prepared = session.prepare("SELECT id FROM items WHERE kind = ? ORDER BY v ANN OF ? LIMIT ?")
    assert [row.id for row in session.execute(prepared, ("kind 4", vectors[9], 1))] == [9]
    limits = {"fetch_size": 3}
    assert len(found(session, vectors[9], 10, **limits)) == 10


def test_slices_of_a_partition(session):
    dice = random.Random(4)
    session.execute(f"CREATE TABLE items (k int, id int, v vector<float, {DIMENSION}>, PRIMARY KEY (k, id))")
    session.execute("CREATE INDEX ON items (v) USING 'sai'")
    vectors = {number: vector(dice) for number in range(300)}
    insert = session.prepare("INSERT INTO items (k, id, v) VALUES (?, ?, ?)")
    for number, own in vectors.items():
        session.execute(insert, (number % 3, number, own))
    wanted = vector(dice)
    of_one = {number: own for number, own in vectors.items() if number % 3 == 1}
    assert found(session, wanted, 7, "WHERE k = 1") == nearest(of_one, wanted, 7)
    low = {number: own for number, own in of_one.items() if number < 100}
    assert found(session, wanted, 7, "WHERE k = 1 AND id < 100") == nearest(low, wanted, 7)
    session.execute("DELETE FROM items WHERE k = 1 AND id < 100")
    session.execute("DELETE FROM items WHERE k = 2")
    rest = {number: own for number, own in vectors.items() if number % 3 == 0 or number % 3 == 1 and number >= 100}
    assert found(session, wanted, 20) == nearest(rest, wanted, 20)


def test_refusals(session):
    create(session)
    session.execute("CREATE TABLE plain (id int PRIMARY KEY, a int, v vector<float, 2>, i vector<int, 2>, one vector<float, 1>)")
    nothing = [0.0] * DIMENSION
    some = [1.0] * DIMENSION
    for text, message in [
        (f"SELECT id FROM items ORDER BY v ANN OF {some}", "must have a limit specified"),
        (f"SELECT id FROM items ORDER BY v ANN OF {some} LIMIT 1001", "LIMIT that is not greater than 1000. LIMIT was 1001"),
        (f"SELECT id FROM items ORDER BY v ANN OF {some} DESC LIMIT 5", "Descending ANN ordering is not supported"),
        (f"SELECT id FROM items ORDER BY v ANN OF {some}, id ASC LIMIT 5", "does not support any other ordering"),
        (f"SELECT id FROM items ORDER BY v ANN OF {some}, v ANN OF {some} LIMIT 5", "more than one ANN ordering"),
        (f"SELECT count(*) FROM items ORDER BY v ANN OF {some} LIMIT 5", "can not be run with aggregation"),
        (f"SELECT id FROM items ORDER BY v ANN OF {some} PER PARTITION LIMIT 1 LIMIT 5", "per-partition limits"),
        (f"SELECT id FROM items WHERE size = 1 ORDER BY v ANN OF {some} LIMIT 5", "restricted column(s) to be indexed"),
        (f"SELECT id FROM items WHERE size = 1 ORDER BY v ANN OF {some} LIMIT 5 ALLOW FILTERING", "restricted column(s) to be"),
        (f"SELECT id FROM items WHERE v = {some}", "Vector indexes only support ANN queries"),
        (f"SELECT id FROM items ORDER BY v ANN OF {nothing} LIMIT 5", "Zero and near-zero vectors"),
        (f"INSERT INTO items (id, v) VALUES (1, {nothing})", "Zero and near-zero vectors"),
        ("SELECT id FROM plain ORDER BY v ANN OF [1, 2] LIMIT 5", "requires the column to be indexed"),
        ("SELECT id FROM plain ORDER BY a ANN OF [1, 2] LIMIT 5", "only supported on float vector indexes"),
        ("CREATE INDEX ON plain (i) USING 'sai'", "only allowed on vector columns with float elements"),
        ("CREATE INDEX ON plain (one) USING 'sai'", "not supported for single-dimension vectors"),
        ("CREATE INDEX ON plain (v)", "only a storage-attached one"),
        ("CREATE INDEX ON plain (v) USING 'sai' WITH OPTIONS = {'similarity_function': 'near'}", "was not recognized for index"),
        ("CREATE INDEX ON plain (a) USING 'sai' WITH OPTIONS = {'similarity_function': 'cosine'}", "cannot have vector options"),
    ]:
        with pytest.raises(InvalidRequest) as refused:
            session.execute(text)
        assert message in str(refused.value), text


def test_a_kill_and_another_number_of_shards(tmp_path):
    dice = random.Random(5)
    data = tmp_path / "data"
    server = Server(data, shards=2).start()
    try:
        with connect(server, "v4") as cluster, cluster.connect() as session:
            session.execute("CREATE KEYSPACE ks WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
            session.set_keyspace("ks")
            create(session)
            vectors = fill(session, dice, 400)
        server.kill()
        server = Server(data, shards=3).start()
        with connect(server, "v4") as cluster, cluster.connect("ks") as session:
            assert recall(session, vectors, dice) >= 0.95
            vectors.update(fill(session, dice, 50, first=1000))
            assert recall(session, vectors, dice) >= 0.95
        assert server.stop() == 0
    finally:
        server.kill()
