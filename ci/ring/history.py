"""What a cluster may answer at QUORUM: writes of rows whose values grow, and the rule that every read is held to.

Every row has one writer, whose writes are numbered; the number is the value and the timestamp. A read must find a
write that is not older than the newest one that was acknowledged, or that an earlier read has found, before the read
began. What was never acknowledged may be found, and may come late; it must not be taken back once it was found.

    acknowledged 4, unknown 5 and 6:    4, 5 and 6 may be found; after 5 was found, 5 and 6
"""

import random
import threading
import time

from cassandra import ConsistencyLevel, InvalidRequest
from cassandra.protocol import SyntaxException

KEYSPACE = "ring"
ROWS_PER_WORKER = 60
IN_FLIGHT = 12
PAUSE_SECONDS = 0.01
KINDS, WEIGHTS = ["write", "delete", "read"], [5, 1, 4]


class Violation(Exception):
    """The cluster answered what it must not."""


class Row:
    """What is known of one row."""

    def __init__(self, key):
        self.key = key
        self.last = 0
        # The oldest write that may be found.
        self.floor = 0
        # Numbers of deletions.
        self.deletions = []

    def next(self, deletes):
        self.last += 1
        if deletes:
            self.deletions.append(self.last)
        return self.last

    def found(self, value, floor):
        """A read that began when the floor was `floor` has found a value, or nothing."""
        if value is None:
            later = [number for number in self.deletions if number >= floor]
            if floor and not later:
                raise Violation(f"row {self.key}: nothing found, write {floor} was acknowledged or found before")
            # Which of the deletions it was is not known: the oldest it can be.
            self.floor = max(self.floor, later[0]) if floor else self.floor
            return
        if not floor <= value <= self.last or value in self.deletions:
            raise Violation(f"row {self.key}: found {value}, from {floor} to {self.last} is possible")
        self.floor = max(self.floor, value)


class Worker:
    """One writer, and the reader of its own rows. Coordinators change as the test says."""

    def __init__(self, cluster, index, coordinators, first_timestamp):
        self.cluster = cluster
        self.random = random.Random(index)
        self.rows = [Row(index * ROWS_PER_WORKER + number) for number in range(ROWS_PER_WORKER)]
        self.coordinators = coordinators
        self.first_timestamp = first_timestamp
        self.acknowledged = 0
        # (when, coordinator, error) of every request that failed.
        self.failures = []
        self.violation = None

    def run(self, stop):
        try:
            while not stop.is_set():
                self.burst()
                time.sleep(PAUSE_SECONDS)
        except Exception as error:  # noqa: BLE001 - reported by the main thread
            self.violation = error

    def burst(self):
        sent = []
        for row in self.random.sample(self.rows, IN_FLIGHT):
            [kind] = self.random.choices(KINDS, WEIGHTS)
            coordinator = self.random.choice(self.coordinators())
            number = 0 if kind == "read" else row.next(kind == "delete")
            try:
                future = self.request(coordinator, kind, row.key, number)
            except Exception as error:  # noqa: BLE001 - the driver has no connection
                future = error
            sent.append((future, kind, row, number, row.floor, coordinator, time.monotonic()))
        for future, kind, row, number, floor, coordinator, began in sent:
            try:
                if isinstance(future, Exception):
                    raise future
                rows = list(future.result())
            except (InvalidRequest, SyntaxException):
                raise
            except Exception as error:  # noqa: BLE001 - the outcome is open
                self.failures.append((began, coordinator, error))
                continue
            self.acknowledged += 1
            if kind == "read":
                row.found(rows[0].v if rows else None, floor)
            else:
                row.floor = max(row.floor, number)

    def request(self, coordinator, kind, key, number):
        session = self.cluster.session(coordinator)
        timestamp = self.first_timestamp + number
        if kind == "read":
            return session.execute_async("SELECT v FROM ring.rows WHERE k = %s", (key,))
        if kind == "delete":
            return session.execute_async(f"DELETE FROM ring.rows USING TIMESTAMP {timestamp} WHERE k = %s", (key,))
        return session.execute_async(
            f"INSERT INTO ring.rows (k, v) VALUES (%s, %s) USING TIMESTAMP {timestamp}", (key, number)
        )


class Load:
    """Workers under way; `with Load(...) as load:` ends them and holds what they saw to the rule."""

    def __init__(self, cluster, workers=2):
        self.cluster = cluster
        self.coordinators = list(cluster.numbers)
        self.stop = threading.Event()
        first_timestamp = int(time.time() * 1e6)
        self.workers = [Worker(cluster, index, lambda: self.coordinators, first_timestamp) for index in range(workers)]
        self.threads = []

    @staticmethod
    def define(session, replication):
        session.execute(f"DROP KEYSPACE IF EXISTS {KEYSPACE}")
        session.execute(f"CREATE KEYSPACE {KEYSPACE} WITH replication = {replication}")
        session.execute(f"CREATE TABLE {KEYSPACE}.rows (k int PRIMARY KEY, v bigint)")

    def __enter__(self):
        for number in self.coordinators:
            self.cluster.session(number)
        self.threads = [threading.Thread(target=worker.run, args=(self.stop,), daemon=True) for worker in self.workers]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self.end()
        if kind is None:
            self.check()

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def use(self, *coordinators):
        """Only these nodes are asked from now on."""
        self.coordinators = list(coordinators)

    def acknowledged(self):
        return sum(worker.acknowledged for worker in self.workers)

    def failures(self, since=0.0):
        """Failed requests that began after a moment of time.monotonic()."""
        return [failure for worker in self.workers for failure in worker.failures if failure[0] >= since]

    def check(self):
        for worker in self.workers:
            if worker.violation:
                raise worker.violation

    def verify(self, coordinator, consistency=ConsistencyLevel.ALL):
        """Every row, as one node coordinates it."""
        session = self.cluster.session(coordinator)
        statement = session.prepare("SELECT v FROM ring.rows WHERE k = ?")
        statement.consistency_level = consistency
        for worker in self.workers:
            for row in worker.rows:
                rows = list(session.execute(statement, (row.key,)))
                row.found(rows[0].v if rows else None, row.floor)
