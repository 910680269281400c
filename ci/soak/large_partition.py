#!/usr/bin/env python3
"""A partition that is larger than the memory a node may use: written, read page by page, by slices, and backwards.

    run ::= write every row -> read all in pages -> read all in pages, backwards -> slices, in either direction -> check

Checked: every row comes exactly once, in order, with the value that was written; and the process's resident memory (its
highest, from /proc) stays below memory_limit.
"""

import argparse
import pathlib
import random
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients" / "python"))

from server import Server, binary  # noqa: E402

IN_FLIGHT = 64
SLICES = 200
SLICE_ROWS = 50


class Failure(Exception):
    pass


class LimitedServer(Server):
    def __init__(self, data, limit_mib, shards, segment_mib=8):
        super().__init__(data, shards=shards)
        self.limit_mib = limit_mib
        self.segment_mib = segment_mib

    def command(self):
        folder = pathlib.Path(self.data)
        folder.mkdir(parents=True, exist_ok=True)
        configuration = folder.parent / "ceto.yaml"
        configuration.write_text(f"""
shards: {self.shards}
data_file_directories:
    - {self.data}
memory_limit: {self.limit_mib}MiB
commitlog_segment_size: {self.segment_mib}MiB
commitlog_total_space: {max(8 * self.segment_mib, self.limit_mib)}MiB
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
native_transport_port: {self.native_port}
native_shard_aware_transport_port: {self.shard_aware_port}
api_port: {self.admin_port}
prometheus_port: {self.metrics_port}
write_request_timeout: 60s
read_request_timeout: 60s
""")
        return [binary(), "server", "--config", str(configuration)]

    def memory(self):
        """Resident memory in MiB, by kind; `peak` is the highest ever."""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        mib = lambda name: int(lines[name].split()[0]) // 1024
        return {"peak": mib("VmHWM"), "now": mib("VmRSS"), "anonymous": mib("RssAnon"), "files": mib("RssFile") + mib("RssShmem")}


def value_of(number, size):
    return random.Random(number).randbytes(64).ljust(size, bytes([number % 251]))


def write(session, rows, size):
    from cassandra.concurrent import execute_concurrent_with_args

    insert = session.prepare("INSERT INTO large.t (k, c, v) VALUES (1, ?, ?)")
    for first in range(0, rows, 4096):
        numbers = range(first, min(rows, first + 4096))
        arguments = ((number, value_of(number, size)) for number in numbers)
        for outcome in execute_concurrent_with_args(session, insert, arguments, concurrency=IN_FLIGHT, raise_on_first_error=True):
            assert outcome.success


def check(found, expected, size, what):
    """`found` are rows of `expected` numbers, in order."""
    count = 0
    for number, row in zip(expected, found):
        if row.c != number or row.v != value_of(number, size):
            raise Failure(f"{what}: row {row.c} where {number} was expected, or its value")
        count += 1
    # Not iter(found): a result begins its last page again.
    if count != len(expected) or next(found, None) is not None:
        raise Failure(f"{what}: {count} rows, or more, of {len(expected)}")


def read(session, rows, size):
    whole = session.prepare("SELECT c, v FROM large.t WHERE k = 1")
    back = session.prepare("SELECT c, v FROM large.t WHERE k = 1 ORDER BY c DESC")
    for what, statement, expected in [("forwards", whole, range(rows)), ("backwards", back, range(rows - 1, -1, -1))]:
        statement.fetch_size = 5000
        check(iter(session.execute(statement)), expected, size, what)
        yield what
    order = {True: " ORDER BY c DESC", False: ""}
    slices = {back: session.prepare(f"SELECT c, v FROM large.t WHERE k = 1 AND c >= ? AND c < ?{order[back]}") for back in order}
    dice = random.Random(1)
    for _ in range(SLICES):
        first, back = dice.randrange(rows), dice.random() < 0.5
        expected = range(first, min(rows, first + SLICE_ROWS))
        found = iter(session.execute(slices[back], (first, first + SLICE_ROWS)))
        check(found, expected[::-1] if back else expected, size, f"slice from {first}")
    yield "slices"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--partition-mib", type=int, default=256)
    parser.add_argument("--limit-mib", type=int, default=128)
    parser.add_argument("--row-kib", type=int, default=4)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--data", help="folder for the node's data; default: a temporary one")
    arguments = parser.parse_args()
    from cassandra.cluster import Cluster

    size = arguments.row_kib << 10
    rows = (arguments.partition_mib << 20) // size
    with tempfile.TemporaryDirectory(dir=arguments.data) as folder:
        server = LimitedServer(pathlib.Path(folder) / "data", arguments.limit_mib, arguments.shards).start()
        try:
            cluster = Cluster(["127.0.0.1"], port=server.native_port)
            session = cluster.connect()
            session.default_timeout = 120
            session.execute("CREATE KEYSPACE large WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
            session.execute("CREATE TABLE large.t (k int, c int, v blob, PRIMARY KEY (k, c))")
            print(f"{rows} rows of {size} bytes in one partition, under {arguments.limit_mib} MiB; at first {server.memory()}", flush=True)
            began = time.monotonic()
            write(session, rows, size)
            print(f"written in {time.monotonic() - began:.0f} s: {server.memory()}", flush=True)
            began = time.monotonic()
            for what in read(session, rows, size):
                print(f"{what} read in {time.monotonic() - began:.0f} s: {server.memory()}", flush=True)
                began = time.monotonic()
            peak = server.memory()["peak"]
            cluster.shutdown()
            if peak >= arguments.limit_mib:
                raise Failure(f"resident memory reached {peak} MiB, above memory_limit ({arguments.limit_mib} MiB)")
            if server.stop() != 0:
                raise Failure(f"the node did not stop in order:\n{server.log_tail()}")
        finally:
            server.kill()


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"large_partition: {failure}")
