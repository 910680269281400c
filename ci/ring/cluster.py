"""A cluster under test: nodes as processes, by way of ci/ccm, and a session for each node as coordinator.

Sessions never choose: a request goes to the node the test names, without retries, so that every failure is seen and
belongs to one coordinator.
"""

import os
import pathlib
import subprocess
import sys
import time

from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import ConstantReconnectionPolicy, FallthroughRetryPolicy, WhiteListRoundRobinPolicy

CCM = pathlib.Path(__file__).resolve().parents[1] / "ccm"
PREFIX = os.environ.get("CETO_RING_PREFIX", "127.0.7.")
REQUEST_TIMEOUT_SECONDS = 15
CONNECT_TIMEOUT_SECONDS = 20
RECONNECT_SECONDS = 0.2
POLL_SECONDS = 0.1


class ClusterUnderTest:
    """Nodes 1, 2, 3 ... at 127.0.7.1, .2, .3 ..."""

    def __init__(self, folder, counts, settings=()):
        self.environment = {**os.environ, "CCM_CONFIG_DIR": str(folder)}
        self.folder = folder / "ring"
        self.drivers = {}
        self.ccm("create", "ring", "-i", PREFIX)
        self.ccm("populate", "-n", ":".join(str(count) for count in counts))
        if settings:
            self.ccm("updateconf", *settings)
        self.numbers = range(1, sum(counts) + 1)

    def ccm(self, *arguments, fails=False):
        """What a call of ccm prints; it must succeed, unless it may fail."""
        outcome = subprocess.run(
            [sys.executable, str(CCM), *arguments], env=self.environment, capture_output=True, text=True, check=False,
        )
        assert fails or outcome.returncode == 0, f"ccm {' '.join(arguments)}:\n{outcome.stdout}{outcome.stderr}"
        return outcome.stdout

    # --- nodes ---

    def start(self, *numbers, waits=True):
        names = [f"node{number}" for number in numbers] or [None]
        for name in names:
            self.ccm(*filter(None, [name]), "start", *([] if waits else ["--no-wait"]))

    def kill(self, number):
        self.ccm(f"node{number}", "stop", "--not-gently")

    def stop(self, number):
        self.ccm(f"node{number}", "stop")

    def pause(self, number):
        self.ccm(f"node{number}", "pause")

    def resume(self, number):
        self.ccm(f"node{number}", "resume")

    def nodetool(self, number, *arguments):
        return self.ccm(f"node{number}", "nodetool", *arguments)

    def states(self, number):
        """Addresses with their state (UN, DN ...), as a node sees them."""
        rows = self.nodetool(number, "status").splitlines()
        return {row.split()[1]: row.split()[0] for row in rows if row[:2] in ("UN", "DN", "UJ", "DJ", "UL", "DL")}

    def wait_until_seen(self, by, number, state, seconds=30):
        """Until node `by` has node `number` in a state."""
        deadline = time.monotonic() + seconds
        while (found := self.states(by).get(address(number))) != state:
            assert time.monotonic() < deadline, f"node{by} has node{number} as {found}, not as {state}"
            time.sleep(POLL_SECONDS)

    def log(self, number):
        return self.ccm(f"node{number}", "showlastlog", fails=True)

    def remove(self):
        for driver in self.drivers.values():
            driver.shutdown()
        self.ccm("remove")

    # --- sessions ---

    def session(self, number):
        """The session whose coordinator is a node. Made once; it reconnects when the node comes back."""
        if number not in self.drivers:
            profile = ExecutionProfile(
                request_timeout=REQUEST_TIMEOUT_SECONDS, retry_policy=FallthroughRetryPolicy(),
                load_balancing_policy=WhiteListRoundRobinPolicy([address(number)]),
                consistency_level=ConsistencyLevel.QUORUM,
            )
            driver = Cluster(
                [address(number)], execution_profiles={EXEC_PROFILE_DEFAULT: profile}, protocol_version=5,
                connect_timeout=CONNECT_TIMEOUT_SECONDS, control_connection_timeout=CONNECT_TIMEOUT_SECONDS,
                reconnection_policy=ConstantReconnectionPolicy(RECONNECT_SECONDS, None),
            )
            driver.session = driver.connect()
            self.drivers[number] = driver
        return self.drivers[number].session

    def wait_until_connected(self, number, seconds=20):
        """Until the session of a node that came back takes requests."""
        session = self.session(number)
        deadline = time.monotonic() + seconds
        while True:
            try:
                return session.execute("SELECT key FROM system.local")
            except Exception:  # noqa: BLE001 - still reconnecting
                assert time.monotonic() < deadline, f"no connection to node{number}:\n{self.log(number)}"
                time.sleep(POLL_SECONDS)


def address(number):
    return f"{PREFIX}{number}"
