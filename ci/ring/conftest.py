"""Fixtures: one cluster of three nodes for all tests of a module that leave it whole. The next module has the addresses."""

import pytest

from cluster import ClusterUnderTest
from network import Network, enter_own

WHY_NO_CUTS = pytest.StashKey()


def pytest_configure(config):
    config.stash[WHY_NO_CUTS] = enter_own()


@pytest.fixture(scope="module")
def three_nodes(tmp_path_factory):
    cluster = ClusterUnderTest(tmp_path_factory.mktemp("three"), [3])
    cluster.start()
    yield cluster
    cluster.remove()


@pytest.fixture
def ring(three_nodes):
    """The three nodes, all up before and after the test."""
    yield three_nodes
    for number in three_nodes.numbers:
        three_nodes.ccm(f"node{number}", "resume", fails=True)
    three_nodes.start()
    for number in three_nodes.numbers:
        three_nodes.wait_until_connected(number)


@pytest.fixture
def network(pytestconfig):
    if why := pytestconfig.stash[WHY_NO_CUTS]:
        pytest.skip(why)
    return Network()
