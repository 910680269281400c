"""The load: inserts, updates, deletions and batches over tables of several shapes, with the cells each one changes.

    plain      rows with two columns, a static column, deletions of cells, rows, ranges and partitions
    collected  a map, a set and a list, changed in parts and as a whole
    expiring   rows with a time to live
    counts     counters (an unknown increment may or may not have happened)
"""

import random
import threading
import time

from cassandra import InvalidRequest
from cassandra.protocol import SyntaxException
from cassandra.query import BatchStatement, BatchType

from model import ABSENT, Expiring

KEYSPACE = "crash"
PARTITIONS_PER_THREAD = 40
ROWS_PER_PARTITION = 12
IN_FLIGHT_PER_THREAD = 16
MAP_KEYS = ["a", "b", "c", "d"]
LARGE_VALUE_BYTES = 20_000
MAXIMUM_LIST_LENGTH = 20

DEFINITIONS = [
    f"CREATE KEYSPACE {KEYSPACE} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}",
    f"CREATE TABLE {KEYSPACE}.plain (k int, c int, s text static, v text, n bigint, PRIMARY KEY (k, c))",
    f"CREATE TABLE {KEYSPACE}.collected (k int PRIMARY KEY, m map<text, int>, s set<text>, l list<int>)",
    f"CREATE TABLE {KEYSPACE}.expiring (k int PRIMARY KEY, v int)",
    f"CREATE TABLE {KEYSPACE}.counts (k int PRIMARY KEY, n counter)",
]

STATEMENTS = {
    "insert": "INSERT INTO plain (k, c, v, n) VALUES (?, ?, ?, ?) USING TIMESTAMP ?",
    "update": "UPDATE plain USING TIMESTAMP ? SET v = ? WHERE k = ? AND c = ?",
    "static": "UPDATE plain USING TIMESTAMP ? SET s = ? WHERE k = ?",
    "delete_cell": "DELETE n FROM plain USING TIMESTAMP ? WHERE k = ? AND c = ?",
    "delete_row": "DELETE FROM plain USING TIMESTAMP ? WHERE k = ? AND c = ?",
    "delete_range": "DELETE FROM plain USING TIMESTAMP ? WHERE k = ? AND c >= ? AND c < ?",
    "delete_partition": "DELETE FROM plain USING TIMESTAMP ? WHERE k = ?",
    "map_put": "UPDATE collected USING TIMESTAMP ? SET m[?] = ? WHERE k = ?",
    "map_remove": "DELETE m[?] FROM collected USING TIMESTAMP ? WHERE k = ?",
    "map_replace": "UPDATE collected USING TIMESTAMP ? SET m = ? WHERE k = ?",
    "set_add": "UPDATE collected USING TIMESTAMP ? SET s = s + ? WHERE k = ?",
    "set_remove": "UPDATE collected USING TIMESTAMP ? SET s = s - ? WHERE k = ?",
    "list_append": "UPDATE collected USING TIMESTAMP ? SET l = l + ? WHERE k = ?",
    "list_replace": "UPDATE collected USING TIMESTAMP ? SET l = ? WHERE k = ?",
    "expire": "INSERT INTO expiring (k, v) VALUES (?, ?) USING TTL ? AND TIMESTAMP ?",
    "count": "UPDATE counts SET n = n + ? WHERE k = ?",
}


class Worker:
    """One thread of the load. It alone writes to its partitions."""

    def __init__(self, index, threads, model, session, statements, seed, counter_bounds):
        self.keys = [index + threads * number for number in range(PARTITIONS_PER_THREAD)]
        self.model = model
        self.session = session
        self.statements = statements
        self.random = random.Random(seed)
        self.counter_bounds = counter_bounds
        self.last_timestamp = 0
        self.failure = None

    def timestamp(self):
        """Greater than any before, here and in earlier rounds."""
        self.last_timestamp = max(self.last_timestamp + 2, int(time.time() * 1e6))
        return self.last_timestamp

    def run(self, stop):
        try:
            while not stop.is_set():
                if not self.burst():
                    return
        except Exception as error:  # noqa: BLE001 - reported by the main thread
            self.failure = error

    def burst(self):
        """Several requests at once, on different partitions. False when the node is gone."""
        sent = []
        for key in self.random.sample(self.keys, min(IN_FLIGHT_PER_THREAD, len(self.keys))):
            statement, arguments, effects = self.operation(key)
            began = time.time()
            try:
                future = self.session.execute_async(statement, arguments)
            except Exception:  # noqa: BLE001 - the driver knows that the node is gone
                future = None
            sent.append((future, effects, began))
        alive = True
        for future, effects, began in sent:
            alive &= self.settle(future, effects, began)
        return alive

    def settle(self, future, effects, began):
        try:
            if future is None:
                raise ConnectionError
            future.result()
        except (InvalidRequest, SyntaxException):
            raise
        except Exception:  # noqa: BLE001 - no answer, or one that leaves the outcome open
            self.apply(effects, began, self.model.doubt, False)
            return False
        self.apply(effects, began, self.model.acknowledge, True)
        return True

    def apply(self, effects, began, change, acknowledged):
        if isinstance(effects, tuple):
            _, name, amount = effects
            low, high = self.counter_bounds.get(name, (0, 0))
            self.counter_bounds[name] = (low + amount if acknowledged else low, high + amount)
            change({})
            return
        now = time.time()
        change({
            name: Expiring(value[0], value[1], began, now) if isinstance(value, tuple) and name[0] == "expiring" else value
            for name, value in effects.items()
        })

    def operation(self, key):
        """A statement, its values, and the cells it changes."""
        kind = self.random.choices(
            ["insert", "update", "static", "delete_cell", "delete_row", "delete_range", "delete_partition", "map_put",
             "map_remove", "map_replace", "set_add", "set_remove", "list_append", "list_replace", "expire", "count",
             "batch"],
            [30, 15, 4, 4, 6, 3, 1, 6, 3, 2, 4, 2, 4, 2, 6, 4, 6],
        )[0]
        if kind == "batch":
            return self.batch(key)
        if kind == "list_append" and not self.can_append(key):
            kind = "list_replace"
        arguments, effects = getattr(self, kind)(key)
        return self.statements[kind], arguments, effects

    def batch(self, key):
        """A logged batch over three tables."""
        batch = BatchStatement(batch_type=BatchType.LOGGED)
        effects = {}
        for kind in ("insert", "map_put", "set_add"):
            arguments, changed = getattr(self, kind)(key)
            batch.add(self.statements[kind], arguments)
            effects.update(changed)
        return batch, None, effects

    def row(self):
        return self.random.randrange(ROWS_PER_PARTITION)

    def text(self):
        if self.random.random() < 0.05:
            return f"{self.random.random()}" + "x" * self.random.randrange(LARGE_VALUE_BYTES)
        return f"{self.random.random()}"

    def insert(self, key):
        row, text, number = self.row(), self.text(), self.random.randrange(1 << 60)
        effects = {
            ("plain", key, row, "v"): text, ("plain", key, row, "n"): number, ("marker", key, row): True,
        }
        return (key, row, text, number, self.timestamp()), effects

    def update(self, key):
        row, text = self.row(), self.text()
        return (self.timestamp(), text, key, row), {("plain", key, row, "v"): text}

    def static(self, key):
        text = self.text()
        return (self.timestamp(), text, key), {("plain", key, "s"): text}

    def delete_cell(self, key):
        row = self.row()
        return (self.timestamp(), key, row), {("plain", key, row, "n"): ABSENT}

    def rows_gone(self, key, rows):
        gone = {("plain", key, row, column): ABSENT for row in rows for column in ("v", "n")}
        gone.update({("marker", key, row): ABSENT for row in rows})
        return gone

    def delete_row(self, key):
        row = self.row()
        return (self.timestamp(), key, row), self.rows_gone(key, [row])

    def delete_range(self, key):
        first, last = sorted((self.row(), self.row()))
        return (self.timestamp(), key, first, last), self.rows_gone(key, range(first, last))

    def delete_partition(self, key):
        effects = self.rows_gone(key, range(ROWS_PER_PARTITION))
        effects["plain", key, "s"] = ABSENT
        return (self.timestamp(), key), effects

    def map_put(self, key):
        entry, value = self.random.choice(MAP_KEYS), self.random.randrange(1 << 30)
        return (self.timestamp(), entry, value, key), {("collected", key, "m", entry): value}

    def map_remove(self, key):
        entry = self.random.choice(MAP_KEYS)
        return (entry, self.timestamp(), key), {("collected", key, "m", entry): ABSENT}

    def map_replace(self, key):
        entries = {entry: self.random.randrange(1 << 30) for entry in self.random.sample(MAP_KEYS, 2)}
        effects = {("collected", key, "m", entry): entries.get(entry, ABSENT) for entry in MAP_KEYS}
        return (self.timestamp(), entries, key), effects

    def set_add(self, key):
        entry = self.random.choice(MAP_KEYS)
        return (self.timestamp(), {entry}, key), {("collected", key, "s", entry): True}

    def set_remove(self, key):
        entry = self.random.choice(MAP_KEYS)
        return (self.timestamp(), {entry}, key), {("collected", key, "s", entry): ABSENT}

    def can_append(self, key):
        states = self.model.states(("collected", key, "l"))
        return len(states) == 1 and len(states[0] or ()) < MAXIMUM_LIST_LENGTH

    def list_append(self, key):
        name, element = ("collected", key, "l"), self.random.randrange(1 << 30)
        [elements] = self.model.states(name)
        return (self.timestamp(), [element], key), {name: (elements or ()) + (element,)}

    def list_replace(self, key):
        elements = [self.random.randrange(1 << 30) for _ in range(3)]
        return (self.timestamp(), elements, key), {("collected", key, "l"): tuple(elements)}

    def expire(self, key):
        value, seconds = self.random.randrange(1 << 30), self.random.choice([3, 10, 600])
        return (key, value, seconds, self.timestamp()), {("expiring", key, "v"): (value, seconds)}

    def count(self, key):
        amount = self.random.randrange(1, 100)
        return (amount, key), ("counter", ("counts", key), amount)


def prepare(session):
    session.set_keyspace(KEYSPACE)
    return {name: session.prepare(text) for name, text in STATEMENTS.items()}


def run_threads(workers, stop):
    threads = [threading.Thread(target=worker.run, args=(stop,), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    return threads


def read_plain(session):
    """The cells, and the primary keys of the rows there are."""
    cells, rows = {}, set()
    for row in session.execute("SELECT k, c, s, v, n FROM plain"):
        if row.s is not None:
            cells["plain", row.k, "s"] = row.s
        if row.c is not None:
            rows.add((row.k, row.c))
            cells["plain", row.k, row.c, "v"] = row.v
            cells["plain", row.k, row.c, "n"] = row.n
    return cells, rows


def read_collected(session):
    found = {}
    for row in session.execute("SELECT k, m, s, l FROM collected"):
        for entry, value in (row.m or {}).items():
            found["collected", row.k, "m", entry] = value
        for entry in row.s or ():
            found["collected", row.k, "s", entry] = True
        if row.l:
            found["collected", row.k, "l"] = tuple(row.l)
    return found


def read_expiring(session):
    return {("expiring", row.k, "v"): row.v for row in session.execute("SELECT k, v FROM expiring")}


def read_counts(session):
    return {("counts", row.k): row.n for row in session.execute("SELECT k, n FROM counts")}
