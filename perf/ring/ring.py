#!/usr/bin/env python3
"""What a cluster of three costs: processor time of all nodes per operation, and latency while one of them is dead.

    cost      RF 3 at QUORUM against RF 1 at ONE, on the same three nodes, in turns; writes and reads apart
    dead      p99 of QUORUM reads at a fixed rate, all nodes up, then with one killed and noticed

Nodes are started by ci/ccm with one shard each, the load is `ceto stress`. All of it shares the machine's cores, so only
ratios within one run mean something. A JSON line per workload goes to standard output: medians of the rounds.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

CCM = pathlib.Path(__file__).resolve().parents[2] / "ci" / "ccm"
PREFIX = "127.0.8."
NODES = [1, 2, 3]
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
SETTLE_SECONDS = 5


class Cluster:
    def __init__(self, folder, ceto):
        self.environment = {**os.environ, "CCM_CONFIG_DIR": folder, "CETO_BINARY": ceto}
        self.ceto = ceto
        self.ccm("create", "perf", "-i", PREFIX)
        self.ccm("populate", "-n", str(len(NODES)))
        self.ccm("start")

    def ccm(self, *arguments):
        outcome = subprocess.run(
            [sys.executable, str(CCM), *arguments], env=self.environment, capture_output=True, text=True, check=False,
        )
        if outcome.returncode != 0:
            raise SystemExit(f"ccm {' '.join(arguments)}: {outcome.stdout}{outcome.stderr}")
        return outcome.stdout

    def process_ids(self):
        shown = [self.ccm(f"node{number}", "show") for number in NODES]
        return [int(found[1]) for text in shown if (found := re.search(r"pid=(\d+)", text))]

    def processor_seconds(self):
        """Of all nodes since they started."""
        ticks = 0
        for process_id in self.process_ids():
            fields = pathlib.Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS_PER_SECOND

    def stress(self, command, keyspace, factor, operations, consistency, rate, nodes=tuple(NODES)):
        """Runs a load; its p99 in milliseconds."""
        schema = f"replication(strategy=NetworkTopologyStrategy,datacenter1={factor}) keyspace={keyspace}"
        outcome = subprocess.run(
            [self.ceto, "stress", command, f"n={operations}", f"cl={consistency}", "no-warmup",
             "-node", ",".join(f"{PREFIX}{number}" for number in nodes), "-schema", schema,
             "-rate", *rate, "-log", "interval=60s", "-pop", f"dist=uniform(1..{operations})" if command == "read"
             else f"seq=1..{operations}"],
            capture_output=True, text=True, check=False,
        )
        if outcome.returncode != 0:
            raise SystemExit(f"stress {command}: {outcome.stdout[-2000:]}{outcome.stderr[-2000:]}")
        latency = re.search(r"Latency 99th percentile\s*:\s*([\d.]+) ms", outcome.stdout)
        return float(latency[1])


def median_of(rounds, key):
    return round(statistics.median(entry[key] for entry in rounds), 3)


def cost(cluster, arguments):
    for command in ("write", "read"):
        rounds = []
        for _ in range(arguments.rounds):
            entry = {}
            for name, factor, consistency in [("one", 1, "ONE"), ("quorum", 3, "QUORUM")]:
                before = cluster.processor_seconds()
                cluster.stress(command, f"rf{factor}", factor, arguments.operations, consistency, ["threads=16"])
                spent = cluster.processor_seconds() - before
                entry[name] = spent * 1e6 / arguments.operations
            entry["ratio"] = entry["quorum"] / entry["one"]
            rounds.append(entry)
        print(json.dumps({
            "benchmark": "ring", "workload": f"cost-{command}", "nodes": len(NODES), "rounds": arguments.rounds,
            "operations": arguments.operations, "one_cpu_us_per_operation": median_of(rounds, "one"),
            "quorum_cpu_us_per_operation": median_of(rounds, "quorum"), "ratio": median_of(rounds, "ratio"),
            "lowest_ratio": round(min(entry["ratio"] for entry in rounds), 3),
            "highest_ratio": round(max(entry["ratio"] for entry in rounds), 3),
        }), flush=True)


def dead(cluster, arguments):
    operations = arguments.rate * arguments.seconds
    rate = ["threads=16", f"fixed={arguments.rate}/s"]
    cluster.stress("write", "rf3", 3, operations, "ALL", ["threads=16"])

    def p99(nodes):
        return [cluster.stress("read", "rf3", 3, operations, "QUORUM", rate, nodes) for _ in range(arguments.rounds)]

    whole = p99(NODES[:2])
    cluster.ccm("node3", "stop", "--not-gently")
    time.sleep(SETTLE_SECONDS)
    without = p99(NODES[:2])
    print(json.dumps({
        "benchmark": "ring", "workload": "read-one-dead", "nodes": len(NODES), "rounds": arguments.rounds,
        "rate": arguments.rate, "p99_ms_whole": statistics.median(whole), "p99_ms_one_dead": statistics.median(without),
        "ratio": round(statistics.median(without) / statistics.median(whole), 3),
    }), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ceto", required=True, help="the program")
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=int, default=2_000, help="operations per second of `dead`")
    parser.add_argument("--seconds", type=int, default=10, help="of each round of `dead`")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(folder, os.path.abspath(arguments.ceto))
        try:
            cost(cluster, arguments)
            dead(cluster, arguments)
        finally:
            cluster.ccm("remove")


main()
