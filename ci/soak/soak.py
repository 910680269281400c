#!/usr/bin/env python3
"""The soak: one real node under a mixed load at 10, 50 and 100 % of what it can do, flushing and compacting all the while.

    soak ::= populate -> measure the most it does -> (load at a share of that -> check)*

The load is `ceto stress`, below 100 % at a fixed rate, in which latency counts from the intended start: a stall shows as
latency of every operation that waited. At 100 % each client thread sends as soon as it is answered. After each load: no
turn of a shard took a second, no operation failed or took ten seconds, memtables were flushed and sstables compacted
meanwhile, and every shard did its part.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients" / "python"))

from server import Server, binary  # noqa: E402

SHARDS = 2
SHARES = [10, 50, 100]
PARTITIONS = 500_000
LONGEST_TURN_SECONDS = 1.0
LONGEST_LATENCY_MS = 10_000.0
# Small enough that a node flushes several times within a minute, at any of the loads.
MEMTABLE_SPACE = "48MiB"


class Failure(Exception):
    pass


class ConfiguredServer(Server):
    """A node started from a configuration file, as an operator starts it."""

    def command(self):
        folder = pathlib.Path(self.data)
        folder.mkdir(parents=True, exist_ok=True)
        configuration = folder.parent / "ceto.yaml"
        configuration.write_text(f"""
shards: {self.shards}
data_file_directories:
    - {self.data}
memtable_heap_space: {MEMTABLE_SPACE}
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
native_transport_port: {self.native_port}
native_shard_aware_transport_port: {self.shard_aware_port}
api_port: {self.admin_port}
prometheus_port: {self.metrics_port}
""")
        return [binary(), "server", "--config", str(configuration)]


def stress(server, *words, seconds):
    """Runs `ceto stress`; returns its output."""
    command = [binary(), "stress", *words, "-node", "127.0.0.1", "-port", f"native={server.native_port}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 300)
    if result.returncode != 0:
        raise Failure(f"{' '.join(command)}: exit status {result.returncode}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}")
    return result.stdout


def result(output, name):
    """A figure of the results table of stress, thousands separators removed."""
    found = re.search(rf"^{name}\s*:\s*([\d,.]+)", output, re.MULTILINE | re.IGNORECASE)
    if not found:
        raise Failure(f"no line {name!r} in the output of stress:\n{output[-3000:]}")
    return float(found.group(1).replace(",", ""))


def figures(server):
    names = ["ceto_table_flushes_total", "ceto_table_compactions_total", "ceto_stalls_total"]
    return {name: server.counter(name) for name in names}


def longest_turns(server):
    samples = server.metrics()
    return {dict(labels)["shard"]: value for (name, labels), value in samples.items() if name == "ceto_longest_turn_seconds"}


def load(server, share, rate, seconds):
    population = f"dist=uniform(1..{PARTITIONS})"
    before = figures(server)
    writes = [server.counter("ceto_replica_writes_total", shard=str(shard)) for shard in range(SHARDS)]
    pace = [] if share == 100 else [f"fixed={int(rate)}/s"]
    output = stress(
        server, "mixed", "ratio(write=1,read=1)", f"duration={seconds}s", "no-warmup",
        "-rate", "threads=64", *pace, "-pop", population, seconds=seconds,
    )
    after = figures(server)
    longest = longest_turns(server)
    flushes, compactions, stalls = (after[name] - before[name] for name in before)
    operations, latency = result(output, "Op rate"), result(output, "Latency max")
    p99 = result(output, "Latency 99th percentile")
    print(
        f"{share} %: {operations:.0f} operations/s (asked {rate:.0f}) for {seconds} s, p99 {p99:.1f} ms, longest {latency:.1f} ms, "
        f"{flushes:.0f} flushes, {compactions:.0f} compactions, {stalls:.0f} turns over 10 ms, "
        f"longest turn {max(longest.values()) * 1000:.1f} ms", flush=True,
    )
    for shard, turn in longest.items():
        if turn >= LONGEST_TURN_SECONDS:
            raise Failure(f"shard {shard}: a turn took {turn:.3f} s")
    if latency >= LONGEST_LATENCY_MS:
        raise Failure(f"an operation took {latency:.0f} ms")
    if result(output, "Total errors") != 0:
        raise Failure("operations failed")
    if flushes == 0 or (share > 10 and compactions == 0):
        raise Failure(f"{flushes:.0f} flushes and {compactions:.0f} compactions: the load did not reach them")
    for shard in range(SHARDS):
        if server.counter("ceto_replica_writes_total", shard=str(shard)) == writes[shard]:
            raise Failure(f"shard {shard} had no writes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600, help="length of each load")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ceto-soak-") as folder:
        server = ConfiguredServer(pathlib.Path(folder) / "data", shards=SHARDS)
        server.start()
        try:
            stress(server, "write", f"n={PARTITIONS}", "cl=ONE", "no-warmup", "-rate", "threads=64", "-pop", f"seq=1..{PARTITIONS}", seconds=600)
            output = stress(
                server, "mixed", "ratio(write=1,read=1)", "duration=20s", "no-warmup", "-rate", "threads=64",
                "-pop", f"dist=uniform(1..{PARTITIONS})", seconds=20,
            )
            most = result(output, "Op rate")
            for share in SHARES:
                load(server, share, most * share / 100, arguments.seconds)
            if server.stop() != 0:
                raise Failure(f"no orderly end after SIGTERM:\n{server.log_tail()}")
        except Failure as failure:
            print(f"failed: {failure}\n{server.log_tail()}")
            sys.exit(1)
        finally:
            server.kill()
    print(f"{len(SHARES)} passed, 0 failed")


if __name__ == "__main__":
    main()
