"""The shard-aware driver: it finds the shards, its requests take no hop between them, and both work alike.

Without a shard-aware driver the same load must still be right, at the price of hops.
"""

import time

import pytest

from cassandra.concurrent import execute_concurrent_with_args

from conftest import IS_SHARD_AWARE_DRIVER

KEYS = 4000
shard_aware_only = pytest.mark.skipif(not IS_SHARD_AWARE_DRIVER, reason="this driver knows no shards")


def wait_for_all_shards(session, shards):
    """The driver opens the connections to the other shards in the background."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        stats = session.cluster.shard_aware_stats() or {}
        if stats and all(host["connected"] == host["shards_count"] == shards for host in stats.values()):
            return
        time.sleep(0.1)
    pytest.fail(f"not connected to every shard: {session.cluster.shard_aware_stats()}")


@shard_aware_only
def test_the_shards_are_found(session, server):
    assert session.cluster.is_shard_aware()
    wait_for_all_shards(session, server.shards)


@shard_aware_only
def test_requests_take_no_hop_and_shards_work_alike(session, server):
    session.execute("CREATE TABLE t (k int PRIMARY KEY, v text)")
    insert = session.prepare("INSERT INTO t (k, v) VALUES (?, ?)")
    select = session.prepare("SELECT v FROM t WHERE k = ?")
    wait_for_all_shards(session, server.shards)
    shards = [str(shard) for shard in range(server.shards)]

    def executed():
        return [server.counter("ceto_requests_total", shard=shard, message="execute") for shard in shards]

    def hops():
        return server.counter("ceto_replica_hops_total")

    before, hops_before = executed(), hops()
    for statement, arguments in [
        (insert, [(key, f"value {key}") for key in range(KEYS)]),
        (select, [(key,) for key in range(KEYS)]),
    ]:
        results = execute_concurrent_with_args(session, statement, arguments, concurrency=200)
        assert all(success for success, _ in results)
    hops_after = hops()
    served = [after - earlier for after, earlier in zip(executed(), before)]
    assert sum(served) == 2 * KEYS, served
    assert hops_after - hops_before == 0, f"{hops_after - hops_before} of {2 * KEYS} requests took a hop"
    assert min(served) / sum(served) > 0.45, f"requests by shard: {served}"


@pytest.mark.skipif(IS_SHARD_AWARE_DRIVER, reason="this driver avoids the hops that are tested here")
def test_requests_on_the_wrong_shard_are_served_too(session, server):
    session.execute("CREATE TABLE t (k int PRIMARY KEY, v int)")
    insert = session.prepare("INSERT INTO t (k, v) VALUES (?, ?)")
    select = session.prepare("SELECT v FROM t WHERE k = ?")
    before = server.counter("ceto_replica_hops_total")
    execute_concurrent_with_args(session, insert, [(key, key) for key in range(KEYS)], concurrency=200)
    results = execute_concurrent_with_args(session, select, [(key,) for key in range(KEYS)], concurrency=200)
    assert [result.one().v for _, result in results] == list(range(KEYS))
    assert server.counter("ceto_replica_hops_total") > before
