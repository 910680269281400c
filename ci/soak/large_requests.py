#!/usr/bin/env python3
"""Many clients with large requests and large answers, on a node that may use little memory.

    run ::= clients, each with several requests under way: writes of 1 MiB, now and then of 15 MiB; reads of many of them at
            once, without pages   ||   one client with small requests   -> every acknowledged write is read again

Checked: the node lives; its resident memory (the highest, from /proc) stays below memory_limit; a large request is answered,
or fails with an error that says why; small ones are answered meanwhile; nothing that was acknowledged is lost.
"""

import argparse
import pathlib
import random
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients" / "python"))

from large_partition import Failure, LimitedServer  # noqa: E402

MIB = 1 << 20
UNDER_WAY = 6
SMALL_SECONDS = 10


def value_of(number, size):
    return random.Random(number).randbytes(64).ljust(size, bytes([number % 251]))


class Clients:
    def __init__(self, server, count):
        from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
        from cassandra.policies import FallthroughRetryPolicy

        profile = ExecutionProfile(request_timeout=30, retry_policy=FallthroughRetryPolicy())
        self.clusters = [
            Cluster(["127.0.0.1"], port=server.native_port, execution_profiles={EXEC_PROFILE_DEFAULT: profile})
            for _ in range(count)
        ]
        self.sessions = [cluster.connect() for cluster in self.clusters]
        self.lock = threading.Lock()
        self.acknowledged = {}
        self.errors = {}
        self.answers = 0
        self.slowest = 0
        self.numbers = iter(range(1 << 30))

    def note(self, error):
        with self.lock:
            name = type(error).__name__
            self.errors[name] = self.errors.get(name, 0) + 1

    def load(self, session, until):
        """Writes and reads, UNDER_WAY at a time."""
        write = session.prepare("INSERT INTO large.v (k, v) VALUES (?, ?)")
        dice = random.Random(id(session))
        while time.monotonic() < until:
            futures = []
            for _ in range(UNDER_WAY):
                if dice.random() < 0.3:
                    keys = ", ".join(str(key) for key in dice.sample(range(200), 20))
                    futures.append((None, session.execute_async(f"SELECT k, v FROM large.v WHERE k IN ({keys})")))
                    continue
                with self.lock:
                    number = next(self.numbers)
                size = 15 * MIB if dice.random() < 0.03 else MIB
                future = session.execute_async(write, (number, value_of(number, size)))
                futures.append(((number, size), future))
            for written, future in futures:
                try:
                    rows = future.result()
                    with self.lock:
                        if written:
                            self.acknowledged[written[0]] = written[1]
                        self.answers += 1
                    for row in rows:
                        if row.v != value_of(row.k, len(row.v)):
                            raise Failure(f"the value of {row.k} is another")
                except Failure:
                    raise
                except Exception as error:  # noqa: BLE001: each is counted, and which may come is checked
                    self.note(error)

    def small(self, session, until):
        read = session.prepare("SELECT release_version FROM system.local")
        while time.monotonic() < until:
            began = time.monotonic()
            session.execute(read)
            self.slowest = max(self.slowest, time.monotonic() - began)
            time.sleep(0.05)


def run(server, seconds, count):
    clients = Clients(server, count + 1)
    session = clients.sessions[0]
    session.execute("CREATE KEYSPACE large WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
    session.execute("CREATE TABLE large.v (k int PRIMARY KEY, v blob)")
    until = time.monotonic() + seconds
    failures = []

    def guarded(work, *arguments):
        try:
            work(*arguments, until)
        except Exception as error:  # noqa: BLE001: told below
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(clients.load, own)) for own in clients.sessions[1:]]
    threads.append(threading.Thread(target=guarded, args=(clients.small, session)))
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    if failures:
        raise Failure(f"{failures[0]!r} (and {len(failures) - 1} more)")
    loaded = server.memory()
    print(f"{clients.answers} answers, errors {clients.errors}, slowest small request {clients.slowest:.2f} s: {loaded}", flush=True)
    expected = {"WriteTimeout", "ReadTimeout", "OverloadedErrorMessage", "OperationTimedOut", "Overloaded"}
    if set(clients.errors) - expected:
        raise Failure(f"errors that do not say that there is too much: {clients.errors}")
    if clients.answers < count or clients.slowest > SMALL_SECONDS:
        raise Failure(f"{clients.answers} answers, the slowest small request took {clients.slowest:.2f} s")
    read = session.prepare("SELECT v FROM large.v WHERE k = ?")
    for number, size in clients.acknowledged.items():
        row = session.execute(read, (number,)).one()
        if row is None or row.v != value_of(number, size):
            raise Failure(f"the acknowledged value {number} is lost")
    print(f"{len(clients.acknowledged)} values read again: {server.memory()}", flush=True)
    [cluster.shutdown() for cluster in clients.clusters]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--limit-mib", type=int, default=256)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--data", help="folder for the node's data; default: a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.data) as folder:
        server = LimitedServer(pathlib.Path(folder) / "data", arguments.limit_mib, arguments.shards, segment_mib=32)
        server.start()
        try:
            run(server, arguments.seconds, arguments.clients)
            peak = server.memory()["peak"]
            if peak >= arguments.limit_mib:
                raise Failure(f"resident memory reached {peak} MiB, above memory_limit ({arguments.limit_mib} MiB)")
            if server.stop() != 0:
                raise Failure(f"the node did not stop in order:\n{server.log_tail()}")
        finally:
            if not server.is_alive() and server.process is not None:
                print(f"the node ended:\n{server.log_tail()}", file=sys.stderr)
            server.kill()


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"large_requests: {failure}")
