#!/usr/bin/env python3
"""Suites that others wrote, run against a node: what users of drivers and of Cassandra would meet.

    compat.py PEERS [SUITE...]

PEERS is the folder of the suites' runners (cqlpy.sh, pydriver.sh, rustdriver.sh), which check the suites out of
snapshots under $PEER_MIRROR. Without runners or snapshots there is nothing to run: one line says so, and the exit status
is 77. Each suite gets a node of its own on an empty folder; cqlpy, which has tests of permissions, one where clients
log in. Prints each runner's table and every test that failed. The exit status is 0 when the suites ran, whatever they
found: which failures are right is told in COMPAT.md.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients" / "python"))

from server import Server, binary  # noqa: E402

SUITES = {
    # Name: (arguments of the node, arguments of the runner)
    "cqlpy": (["--auth"], lambda node: ["127.0.0.1", str(node.native_port)]),
    "pydriver": ([], lambda node: ["127.0.0.1", str(node.native_port)]),
    "rustdriver": ([], lambda node: [f"127.0.0.1:{node.native_port}", "--", "listed"]),
}
TEST_TIMEOUT_SECONDS = "60"
SKIPPED = 77


def run(peers, suite, work):
    arguments, runner_arguments = SUITES[suite]
    folder = work / suite
    folder.mkdir()
    verdicts = folder / "verdicts.tsv"
    node = Server(folder / "data", shards=2, arguments=arguments).start()
    # The runners take a command as one word or as several, by suite: a script is one.
    nodetool = folder / "nodetool"
    nodetool.write_text(f'#!/bin/sh\nexec "{binary()}" nodetool -p {node.admin_port} "$@"\n')
    nodetool.chmod(0o755)
    environment = {
        "TEST_TIMEOUT": TEST_TIMEOUT_SECONDS, **os.environ, "RESULTS": str(verdicts), "PEER_ADMIN": str(nodetool),
        "NODETOOL": str(peers / "nodetool_shim.sh"),
    }
    try:
        subprocess.run([peers / f"{suite}.sh", *runner_arguments(node)], env=environment, check=False)
        alive = node.is_alive()
    finally:
        node.stop()
    failed = []
    if verdicts.exists():
        lines = [line.split("\t") for line in verdicts.read_text().splitlines()]
        failed = [line[2] for line in lines if line[0] in ("failed", "error")]
    for name in failed:
        print(f"{suite}: failed: {name}")
    if not alive:
        print(f"{suite}: the node ended:\n{node.log_tail()}")
    return alive


def main():
    peers = pathlib.Path(sys.argv[1]).resolve()
    suites = sys.argv[2:] or list(SUITES)
    mirror = os.environ.get("PEER_MIRROR", "")
    if not (peers / "cqlpy.sh").is_file():
        print(f"skipped: there are no runners in {peers}")
        return SKIPPED
    if not pathlib.Path(mirror, "scylladb+scylladb").is_dir():
        print("skipped: PEER_MIRROR does not name a folder with snapshots of the suites")
        return SKIPPED
    with tempfile.TemporaryDirectory() as work:
        outcomes = [run(peers, suite, pathlib.Path(work)) for suite in suites]
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
