"""Fixtures: one node for the whole run; a cluster and a session for each way to connect; a keyspace for each test.

The suite runs in two environments, with cassandra-driver and with scylla-driver, which share the package name. Each
protocol version and compression that the driver offers is a variant, and every test runs on every variant, unless it is
marked: `one_variant` tests something for which frames make no difference, `one_driver` something for which the client
makes none.
"""

import itertools

import pytest

import cassandra
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import FallthroughRetryPolicy, RoundRobinPolicy, TokenAwarePolicy

from server import Server

try:
    from cassandra.cluster import ShardAwareOptions  # noqa: F401

    IS_SHARD_AWARE_DRIVER = True
except ImportError:
    IS_SHARD_AWARE_DRIVER = False

# Name of a variant: (protocol version, compression).
VARIANTS = {
    "v4": (4, False),
    "v4-lz4": (4, "lz4"),
    "v4-snappy": (4, "snappy"),
    "v5": (5, False),
    "v5-lz4": (5, "lz4"),
}
if IS_SHARD_AWARE_DRIVER:
    # This driver has no v5.
    VARIANTS = {name: variant for name, variant in VARIANTS.items() if variant[0] < 5}

REQUEST_TIMEOUT_SECONDS = 30
keyspace_numbers = itertools.count()


# Where one is enough.
ONE_VARIANT = "v5-lz4" if "v5-lz4" in VARIANTS else "v4-lz4"


def is_needless(item):
    """Whether another variant or the other driver tests the same."""
    variant = item.callspec.params.get("variant") if hasattr(item, "callspec") else None
    if item.get_closest_marker("one_driver") and IS_SHARD_AWARE_DRIVER:
        return True
    return bool(item.get_closest_marker("one_variant")) and variant not in (None, ONE_VARIANT)


def pytest_collection_modifyitems(config, items):
    """What is needless goes; tests of one variant come together, so that its cluster is opened once."""
    config.hook.pytest_deselected(items=[item for item in items if is_needless(item)])
    items[:] = [item for item in items if not is_needless(item)]
    items.sort(key=lambda item: item.callspec.params.get("variant", "") if hasattr(item, "callspec") else "")


def connect(server, variant, **options):
    """A new cluster object for a server."""
    version, compression = VARIANTS[variant]
    profile = ExecutionProfile(
        request_timeout=REQUEST_TIMEOUT_SECONDS, load_balancing_policy=TokenAwarePolicy(RoundRobinPolicy()),
        retry_policy=FallthroughRetryPolicy(),
    )
    options = {
        "protocol_version": version,
        "compression": compression,
        "execution_profiles": {EXEC_PROFILE_DEFAULT: profile},
        "schema_event_refresh_window": 0,
        "connect_timeout": 20,
        **options,
    }
    return Cluster(["127.0.0.1"], port=server.native_port, **options)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    node = Server(folder / "data", shards=2).start()
    yield node
    alive = node.is_alive()
    status = node.stop()
    assert alive, f"the server ended during the tests:\n{node.log_tail()}"
    assert status == 0, f"exit status {status} after SIGTERM:\n{node.log_tail()}"


@pytest.fixture(scope="session", params=sorted(VARIANTS))
def variant(request):
    return request.param


@pytest.fixture(scope="session")
def cluster(server, variant):
    cluster = connect(server, variant)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="session")
def shared_session(cluster):
    return cluster.connect()


@pytest.fixture
def session(shared_session):
    """The variant's session, in a keyspace of the test's own."""
    name = f"test_{next(keyspace_numbers)}"
    shared_session.execute(
        f"CREATE KEYSPACE {name} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}"
    )
    shared_session.set_keyspace(name)
    yield shared_session
    shared_session.execute(f"DROP KEYSPACE {name}")


def pytest_report_header():
    kind = "scylla-driver" if IS_SHARD_AWARE_DRIVER else "cassandra-driver"
    return f"{kind} {cassandra.__version__}: {', '.join(VARIANTS)}"
