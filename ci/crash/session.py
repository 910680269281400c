"""How the crash and full-disk tests connect: every coordinator in turn, no retries behind the test's back."""

from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import FallthroughRetryPolicy, RoundRobinPolicy

CONNECT_TIMEOUT_SECONDS = 30


def connect(server, request_timeout_seconds):
    """A cluster object, to be shut down, and a session of it."""
    profile = ExecutionProfile(
        request_timeout=request_timeout_seconds, load_balancing_policy=RoundRobinPolicy(),
        retry_policy=FallthroughRetryPolicy(),
    )
    cluster = Cluster(
        ["127.0.0.1"], port=server.native_port, protocol_version=5, connect_timeout=CONNECT_TIMEOUT_SECONDS,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
    )
    return cluster, cluster.connect()
