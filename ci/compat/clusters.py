"""pytest plugin: the Python driver's suite drives the nodes of ci/ccm.

The suite loads an external cluster with `ClusterFactory.load(CCM_PATH, CCM_NAME)` of ccmlib and calls methods of it and of its
nodes. These are here, each a call of ci/ccm ($CETO_CCM), so there is one launcher of clusters. Only what the suite calls is here.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

WAIT_SECONDS = 60
POLL_SECONDS = 0.1


class Node:
    """What the suite may ask of a node."""

    def __init__(self, cluster, name, facts):
        self.cluster = cluster
        self.name = name
        self.address = facts["address"]
        self.data_center = facts["datacenter"]
        self.workloads = []
        self.network_interfaces = {"binary": (self.address, 9042), "storage": (self.address, 7000)}

    def start(self, wait_for_binary_proto=True, **_):
        self.cluster.ccm(self.name, "start", *([] if wait_for_binary_proto else ["--no-wait"]))

    def stop(self, wait=True, wait_other_notice=False, gently=True, **_):
        arguments = [*([] if gently else ["--not-gently"]), *([] if wait else ["--no-wait"])]
        self.cluster.ccm(self.name, "stop", *arguments)
        if wait_other_notice:
            self.wait_until_others_have_it_down()

    def wait_until_others_have_it_down(self):
        deadline = time.monotonic() + WAIT_SECONDS
        alive = self.cluster.ccm("liveset").strip().split(",")
        for other in self.cluster.nodelist():
            while other.address in alive:
                rows = self.cluster.ccm(other.name, "nodetool", "status").splitlines()
                if any(row.split()[:2] == ["DN", self.address] for row in rows):
                    break
                assert time.monotonic() < deadline, f"{other.name} does not have {self.name} as down"
                time.sleep(POLL_SECONDS)

    def pause(self):
        self.cluster.ccm(self.name, "pause")

    def resume(self):
        self.cluster.ccm(self.name, "resume")

    def nodetool(self, command):
        self.cluster.ccm(self.name, "nodetool", *command.split())


class Cluster:
    """What the suite may ask of a cluster."""

    def __init__(self, path, name):
        self.path, self.name = path, name
        facts = json.loads((pathlib.Path(path) / name / "cluster.json").read_text())
        self.nodes = {node: Node(self, node, of_node) for node, of_node in facts["nodes"].items()}

    def ccm(self, *arguments):
        command = [sys.executable, os.environ["CETO_CCM"], "--config-dir", self.path, *arguments]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout

    def nodelist(self):
        return list(self.nodes.values())


class ClusterFactory:
    """In place of ccmlib's."""

    load = staticmethod(Cluster)


sys.modules["ccmlib.cluster_factory"].ClusterFactory = ClusterFactory


def pytest_collection_finish():
    """Modules that do not ask for the external cluster find it all the same."""
    suite = sys.modules.get("tests.integration")
    if suite and not suite.CCM_CLUSTER:
        suite.CCM_CLUSTER = ClusterFactory.load(os.environ["CCM_PATH"], os.environ["CCM_NAME"])
