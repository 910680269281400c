#!/usr/bin/env python3
"""Suites that others wrote, run against a node or a cluster: what users of drivers and of Cassandra would meet.

    compat.py PEERS [SUITE...]

PEERS is the folder of the suites' runners (cqlpy.sh, pydriver.sh, rustdriver.sh), which check the suites out of
snapshots under $PEER_MIRROR. Without runners or snapshots there is nothing to run: one line says so, and the exit status
is 77. Each suite gets nodes of its own on empty folders. cqlpy, which has tests of permissions, gets one node where clients
log in. The drivers' suites want three (keyspaces with three replicas, all nodes prepared): a cluster of ci/ccm at
$CETO_COMPAT_PREFIX (127.0.0. if not set; some tests say 127.0.0.1) on the ports of Cassandra.
Prints each runner's table and every test that failed. The exit status is 0 when the suites ran, whatever they
found: which failures are right is told in COMPAT.md.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients" / "python"))

from server import Server, binary  # noqa: E402

CCM = HERE.parent / "ccm"
CLUSTER, NODES, NATIVE_PORT = "compat", 3, 9042
PREFIX = os.environ.get("CETO_COMPAT_PREFIX", "127.0.0.")
# What the suites' own clusters have on, and room for their largest mutations (4 MiB).
CLUSTER_SETTINGS = [
    "user_defined_functions_enabled: true", "commitlog_segment_size: 32MiB", "commitlog_total_space: 512MiB",
]
TEST_TIMEOUT_SECONDS = "60"
SKIPPED = 77


class OneNode:
    """A node of its own, where clients log in."""

    def __init__(self, folder):
        self.server = Server(folder / "data", shards=2, arguments=["--auth"]).start()
        # The runners take a command as one word or as several, by suite: a script is one.
        self.nodetool = folder / "nodetool"
        self.nodetool.write_text(f'#!/bin/sh\nexec "{binary()}" nodetool -p {self.server.admin_port} "$@"\n')
        self.nodetool.chmod(0o755)
        self.address, self.port, self.environment = "127.0.0.1", self.server.native_port, {}

    def ended(self):
        """The log's end of a node that is not there any more."""
        return None if self.server.is_alive() else self.server.log_tail()

    def stop(self):
        self.server.stop()


class ThreeNodes:
    """A cluster of three. The Python driver's suite finds it by CCM_PATH and CCM_NAME (clusters.py)."""

    def __init__(self, folder):
        self.folder = folder / "ccm"
        self.environment = {
            "CCM_CONFIG_DIR": str(self.folder), "CCM_PATH": str(self.folder), "CCM_NAME": CLUSTER, "CETO_CCM": str(CCM),
        }
        self.ccm("create", CLUSTER, "-i", PREFIX, "-n", str(NODES))
        self.ccm("updateconf", *CLUSTER_SETTINGS)
        try:
            self.ccm("start")
        except subprocess.CalledProcessError:
            self.stop()
            raise
        self.nodetool = folder / "nodetool"
        self.nodetool.write_text(f'#!/bin/sh\nexec "{CCM}" --config-dir "{self.folder}" nodetool "$@"\n')
        self.nodetool.chmod(0o755)
        self.address, self.port = f"{PREFIX}1", NATIVE_PORT

    def ccm(self, *arguments):
        environment = {**os.environ, **self.environment}
        return subprocess.run(
            [sys.executable, CCM, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True,
        ).stdout

    def ended(self):
        alive = self.ccm("liveset").strip().split(",")
        gone = [number for number in range(1, NODES + 1) if f"{PREFIX}{number}" not in alive]
        return "\n".join(self.ccm(f"node{number}", "showlastlog") for number in gone) if gone else None

    def stop(self):
        self.ccm("remove")


SUITES = {
    # Name: (nodes, arguments of the runner)
    "cqlpy": (OneNode, lambda nodes: [nodes.address, str(nodes.port)]),
    "pydriver": (ThreeNodes, lambda nodes: [nodes.address, str(nodes.port)]),
    "rustdriver": (
        ThreeNodes,
        lambda nodes: [*(f"{PREFIX}{number}:{nodes.port}" for number in range(1, NODES + 1)), "--", "listed"],
    ),
}


def runners(peers, folder):
    """The runners beside clusters.py: they let Python find modules in their own folder."""
    folder.mkdir()
    for path in [*peers.iterdir(), HERE / "clusters.py"]:
        (folder / path.name).symlink_to(path)
    return folder


def run(peers, suite, work):
    make_nodes, runner_arguments = SUITES[suite]
    folder = work / suite
    folder.mkdir()
    verdicts = folder / "verdicts.tsv"
    nodes = make_nodes(folder)
    environment = {
        "TEST_TIMEOUT": TEST_TIMEOUT_SECONDS, **os.environ, "RESULTS": str(verdicts), "PEER_ADMIN": str(nodes.nodetool),
        "NODETOOL": str(peers / "nodetool_shim.sh"), **nodes.environment,
    }
    if suite == "pydriver":
        environment["PYTEST_PLUGINS"] = "clusters"
    try:
        runner = runners(peers, folder / "runners") / f"{suite}.sh"
        subprocess.run([runner, *runner_arguments(nodes)], env=environment, check=False)
        ended = nodes.ended()
    finally:
        nodes.stop()
    failed = []
    if verdicts.exists():
        lines = [line.split("\t") for line in verdicts.read_text().splitlines()]
        failed = [line[2] for line in lines if line[0] in ("failed", "error")]
    for name in failed:
        print(f"{suite}: failed: {name}")
    if ended is not None:
        print(f"{suite}: a node ended:\n{ended}")
    return ended is None


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
