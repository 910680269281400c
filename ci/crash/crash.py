#!/usr/bin/env python3
"""The crash test: load from a real driver, SIGKILL at a random moment, restart, compare everything acknowledged.

    round ::= load -> order? -> SIGKILL -> (start -> SIGKILL)* -> start -> compare
    order ::= flush | compaction | snapshot | truncation | schema changes          under way when the node is killed

Some rounds come back with another number of shards, some are killed again while they recover, the last one ends with
SIGTERM. What the node holds afterwards must be possible (see model.py). The seed is printed; `--seed` repeats its
choices, though not the machine's timing.
"""

import argparse
import pathlib
import random
import shutil
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients" / "python"))

import orders  # noqa: E402
import workload  # noqa: E402
from model import ABSENT, Model, Violation  # noqa: E402
from server import Server  # noqa: E402
from session import connect  # noqa: E402

SHARD_COUNTS = [1, 2, 3]
ORDERS = [None, "flush", "flush", "compact", "truncate", "truncate", "schema", "schema", "snapshot"]
THREADS = 4
REQUEST_TIMEOUT_SECONDS = 10


class CrashTest:
    def __init__(self, seed, folder):
        self.random = random.Random(seed)
        self.folder = folder
        self.model = Model()
        self.counter_bounds = {}
        self.tables = orders.Tables(self.model)
        self.server = Server(folder / "data", shards=2, log=folder / "server.log")

    def prepare(self):
        self.server.start()
        cluster, session = connect(self.server, REQUEST_TIMEOUT_SECONDS)
        for definition in workload.DEFINITIONS + orders.DEFINITIONS:
            session.execute(definition)
        cluster.shutdown()

    def load(self, seconds, meanwhile, orderly):
        """Runs the load for a while, kills the node within it, and waits for the threads to notice."""
        cluster, session = connect(self.server, REQUEST_TIMEOUT_SECONDS)
        statements = workload.prepare(session)
        stop = threading.Event()
        workers = [
            workload.Worker(index, THREADS, self.model, session, statements, self.random.random(), self.counter_bounds)
            for index in range(THREADS)
        ]
        threads = workload.run_threads(workers, stop)
        time.sleep(seconds)
        order = threading.Thread(target=self.order, args=(meanwhile, session), daemon=True) if meanwhile else None
        if order:
            order.start()
            time.sleep(self.random.uniform(0, orders.SECONDS.get(meanwhile, 0.2)))
        if not self.server.is_alive():
            raise Violation(f"the node ended by itself:\n{self.server.log_tail()}")
        if orderly:
            status = self.server.stop()
            if status != 0:
                raise Violation(f"exit status {status} after SIGTERM:\n{self.server.log_tail()}")
        else:
            self.server.kill()
        stop.set()
        for thread in threads:
            thread.join(60)
            if thread.is_alive():
                raise Violation("a request neither failed nor was answered after the node had ended")
        if order:
            order.join(60)
        cluster.shutdown()
        failures = [worker.failure for worker in workers if worker.failure]
        if failures:
            raise failures[0]

    def order(self, what, session):
        """What the node is busy with when it is killed."""
        try:
            match what:
                case "truncate":
                    orders.truncate(self.model, session)
                case "schema":
                    self.tables.change(session)
                case "snapshot":
                    orders.snapshot(self.server)
                case verb:
                    self.server.nodetool(verb)
        except (RuntimeError, OSError):
            pass  # The node is killed meanwhile.

    def restart(self, kills):
        for _ in range(kills):
            # Killed while it recovers: the next recovery must find everything again.
            impatient = threading.Timer(self.random.uniform(0.005, 0.15), self.kill_process)
            impatient.start()
            try:
                self.server.start()
            except (RuntimeError, OSError):
                pass
            impatient.join()
            self.server.kill()
        self.server.start()

    def kill_process(self):
        process = self.server.process
        if process is not None:
            process.kill()

    def compare(self):
        cluster, session = connect(self.server, REQUEST_TIMEOUT_SECONDS)
        session.set_keyspace(workload.KEYSPACE)
        try:
            cells, rows = workload.read_plain(session)
            self.model.check_table("plain", cells)
            self.check_markers(cells, rows)
            self.model.check_table("collected", workload.read_collected(session))
            self.model.check_table("expiring", workload.read_expiring(session))
            self.check_counters(workload.read_counts(session))
            self.model.check_table("emptied", orders.read_emptied(session))
            self.tables.check(session)
        finally:
            cluster.shutdown()

    def check_markers(self, cells, rows):
        """A row without values is there if INSERT made it; a row with values hides whether it did."""
        for name in self.model.names("marker"):
            _, key, row = name
            values = [cells.get(("plain", key, row, column)) for column in ("v", "n")]
            if all(value is None for value in values):
                self.model.settle(name, True if (key, row) in rows else ABSENT)
        for key, row in rows:
            if ("marker", key, row) not in self.model.cells and cells["plain", key, row, "v"] is None:
                raise Violation(f"row {key}, {row}: found without a value, and nobody inserted it")

    def check_counters(self, found):
        for name, (low, high) in self.counter_bounds.items():
            value = found.get(name) or 0
            if not low <= value <= high:
                raise Violation(f"{name}: found {value}, possible {low}..{high}")
            self.counter_bounds[name] = (value, value)
        for name, value in found.items():
            if name not in self.counter_bounds and value:
                raise Violation(f"{name}: found {value}, which nobody wrote")

    def round(self, last):
        before = self.model.acknowledged
        meanwhile = self.random.choice(ORDERS)
        kills = self.random.choice([0, 0, 0, 1, 2])
        self.load(self.random.uniform(0.3, 2.5), meanwhile, orderly=last)
        if self.random.random() < 0.4:
            self.server.shards = self.random.choice(SHARD_COUNTS)
        self.restart(0 if last else kills)
        self.compare()
        self.check_again()
        return (
            f"{self.model.acknowledged - before} acknowledged, killed {'orderly' if last else 'during ' + (meanwhile or 'writes')}"
            f"{f' and {kills} times in recovery' if kills and not last else ''}, {self.server.shards} shard(s), "
            f"ready in {self.server.ready_seconds * 1000:.0f} ms"
        )

    def check_again(self):
        """A flush changes nothing that is read."""
        if self.random.random() < 0.3:
            self.server.nodetool("flush", workload.KEYSPACE)
            self.compare()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", action="store_true", help="keep the data folder")
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ceto-crash-"))
    print(f"crash test: seed {arguments.seed}, {arguments.rounds} rounds", flush=True)
    test = CrashTest(arguments.seed, folder)
    passed, failed = 0, 0
    try:
        test.prepare()
        for number in range(1, arguments.rounds + 1):
            text = test.round(last=number == arguments.rounds)
            passed += 1
            print(f"round {number}: {text}", flush=True)
    except Exception as error:  # noqa: BLE001 - every failure ends the test the same way
        failed = 1
        print(f"round {passed + 1} FAILED (seed {arguments.seed}): {type(error).__name__}: {error}", flush=True)
        print(f"data and log are kept in {folder}", flush=True)
    finally:
        test.server.kill()
    if not failed and not arguments.keep:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{test.model.acknowledged} acknowledged writes, {test.model.unknown} unknown")
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
