"""Conditional writes from every coordinator at once, with a node killed or cut off meanwhile: each row is one register."""

import itertools
import random
import threading
import time

import pytest
from cassandra import ConsistencyLevel, InvalidRequest
from cassandra.protocol import SyntaxException

from linear import NOTHING, Attempt, Look, check

ROWS = 6
LOAD_SECONDS = 6
READS_OF_TEN = 3


class Contender:
    """A client of one coordinator that reads rows at SERIAL and changes them from what it knows."""

    def __init__(self, session, number):
        self.session = session
        self.random = random.Random(number)
        self.values = itertools.count(number + 100, 100)
        self.known = dict.fromkeys(range(ROWS), NOTHING)
        self.attempts = {row: [] for row in range(ROWS)}
        self.looks = {row: [] for row in range(ROWS)}
        self.look = session.prepare("SELECT v FROM ring.registers WHERE k = ?")
        self.look.consistency_level = ConsistencyLevel.SERIAL
        self.first = session.prepare("INSERT INTO ring.registers (k, v) VALUES (?, ?) IF NOT EXISTS")
        self.change = session.prepare("UPDATE ring.registers SET v = ? WHERE k = ? IF v = ?")
        # Of attempts whose outcome is open.
        self.errors = []
        self.failure = None

    def run(self, stop):
        try:
            while not stop.is_set():
                self.step(self.random.randrange(ROWS))
        except Exception as error:  # noqa: BLE001 - reported by the main thread
            self.failure = error

    def step(self, row):
        began = time.monotonic()
        if self.random.randrange(10) < READS_OF_TEN:
            try:
                rows = list(self.session.execute(self.look, (row,)))
            except Exception:  # noqa: BLE001 - nothing was learnt
                return time.sleep(0.02)
            return self.found(row, began, rows[0].v if rows else NOTHING)
        old, new = self.known[row], next(self.values)
        try:
            if old is NOTHING:
                [answer] = self.session.execute(self.first, (row, new))
            else:
                [answer] = self.session.execute(self.change, (new, row, old))
        except (InvalidRequest, SyntaxException):
            raise
        except Exception as error:  # noqa: BLE001 - the outcome is open
            self.errors.append(error)
            self.attempts[row].append(Attempt(began, time.monotonic(), old, new, False))
            return time.sleep(0.02)
        if answer.applied:
            self.attempts[row].append(Attempt(began, time.monotonic(), old, new, True))
            self.known[row] = new
            return None
        return self.found(row, began, answer.v)

    def found(self, row, began, value):
        self.looks[row].append(Look(began, time.monotonic(), value))
        self.known[row] = value


@pytest.fixture
def contenders(ring):
    """They contend until the test has ended; then what they saw is checked."""
    session = ring.session(1)
    session.execute("DROP KEYSPACE IF EXISTS ring")
    session.execute(
        "CREATE KEYSPACE ring WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': 3}"
    )
    session.execute("CREATE TABLE ring.registers (k int PRIMARY KEY, v int)")
    contenders = [Contender(ring.session(number), number) for number in ring.numbers]
    stop = threading.Event()
    threads = [threading.Thread(target=contender.run, args=(stop,), daemon=True) for contender in contenders]
    for thread in threads:
        thread.start()
    yield contenders
    stop.set()
    for thread in threads:
        thread.join()
    for contender in contenders:
        if contender.failure:
            raise contender.failure
    applied = 0
    for row in range(ROWS):
        attempts = [attempt for contender in contenders for attempt in contender.attempts[row]]
        check(attempts, [look for contender in contenders for look in contender.looks[row]])
        applied += sum(attempt.is_known for attempt in attempts)
    assert applied > 100


def applied(contenders):
    return sum(attempt.is_known for who in contenders for attempts in who.attempts.values() for attempt in attempts)


def test_three_coordinators(contenders):
    time.sleep(LOAD_SECONDS)
    # Who is outbid in the middle of a proposal cannot know what became of it; nothing else may go wrong.
    errors = [str(error) for contender in contenders for error in contender.errors]
    assert [error for error in errors if "CAS operation result is unknown" not in error] == []
    assert len(errors) < applied(contenders) / 2


def test_a_coordinator_is_killed(ring, contenders):
    time.sleep(LOAD_SECONDS / 2)
    ring.kill(2)
    ring.wait_until_seen(1, 2, "DN")
    before = applied(contenders)
    time.sleep(LOAD_SECONDS)
    assert applied(contenders) > before + 50
    ring.start(2)
    ring.wait_until_connected(2)
    time.sleep(LOAD_SECONDS / 2)


def test_a_coordinator_is_cut_off(ring, contenders, network):
    time.sleep(LOAD_SECONDS / 2)
    with network.without((3, 1), (3, 2), (1, 3), (2, 3)):
        time.sleep(LOAD_SECONDS)
    time.sleep(LOAD_SECONDS)
