"""Everything around a request: tracing, warnings, payloads, large values, many connections, many requests at once."""

import socket
import struct
import time

import pytest

from cassandra.cluster import Cluster
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.query import SimpleStatement

from conftest import VARIANTS, connect


def test_the_version_is_the_one_asked_for(cluster, shared_session, variant):
    assert cluster.protocol_version == VARIANTS[variant][0]
    connection = cluster.control_connection._connection
    compression = VARIANTS[variant][1]
    assert bool(connection.compressor) == bool(compression) or cluster.protocol_version == 5


def test_versions_are_negotiated(server):
    """A driver that begins with versions we do not have ends with the greatest that we both have."""
    cluster = Cluster(["127.0.0.1"], port=server.native_port)
    try:
        session = cluster.connect()
        assert session.execute("SELECT key FROM system.local").one().key == "local"
        assert cluster.protocol_version == 5
    finally:
        cluster.shutdown()


def test_tracing(session):
    session.execute("CREATE TABLE t (k int PRIMARY KEY, v int)")
    insert = session.prepare("INSERT INTO t (k, v) VALUES (?, ?)")
    for statement, arguments in [(insert, (1, 2)), ("SELECT * FROM t WHERE k = 1", None), ("SELECT * FROM t", None)]:
        result = session.execute(statement, arguments, trace=True)
        trace = result.get_query_trace(max_wait_sec=20)
        assert trace.duration is not None and trace.started_at
        assert trace.coordinator == "127.0.0.1" and trace.client == "127.0.0.1"
        assert trace.request_type.startswith("Execute CQL3"), trace.request_type
        assert trace.events and all(event.description for event in trace.events)
    assert session.execute("SELECT * FROM t").response_future.get_query_trace() is None


def test_warnings(session):
    session.execute("CREATE TABLE t (k int PRIMARY KEY)")
    result = session.execute("SELECT count(*) FROM t")
    warnings = result.response_future.warnings or []
    assert any("Aggregation query used without partition key" in warning for warning in warnings), warnings
    assert not session.execute("SELECT * FROM t WHERE k = 1").response_future.warnings


def test_custom_payload(session):
    payload = {"key": b"value", "empty": b""}
    result = session.execute_async("SELECT key FROM system.local", custom_payload=payload)
    assert result.result().one().key == "local"
    prepared = session.prepare("SELECT key FROM system.local WHERE key = ?", custom_payload=payload)
    assert session.execute(prepared, ("local",), custom_payload=payload).one().key == "local"


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 131_071, 131_072, 1 << 20, 3 << 20])
def test_values_of_every_size(session, size):
    session.execute("CREATE TABLE t (k int PRIMARY KEY, v blob)")
    insert = session.prepare("INSERT INTO t (k, v) VALUES (?, ?)")
    for key, value in enumerate([b"\x00" * size, bytes(index * 7 % 251 for index in range(size))]):
        session.execute(insert, (key, value))
        found = session.execute("SELECT v FROM t WHERE k = %s", (key,)).one().v
        assert len(found) == size and found == value


def test_a_large_answer(session):
    session.execute("CREATE TABLE t (k int, c int, v blob, PRIMARY KEY (k, c))")
    insert = session.prepare("INSERT INTO t (k, c, v) VALUES (0, ?, ?)")
    arguments = [(number, bytes([number]) * 100_000) for number in range(100)]
    execute_concurrent_with_args(session, insert, arguments, concurrency=10)
    rows = list(session.execute(SimpleStatement("SELECT c, v FROM t WHERE k = 0", fetch_size=None)))
    assert [(row.c, row.v) for row in rows] == arguments


def test_wide_rows_and_long_statements(session):
    names = [f"column_{number}" for number in range(400)]
    session.execute(f"CREATE TABLE t (k int PRIMARY KEY, {', '.join(name + ' int' for name in names)})")
    session.execute(f"INSERT INTO t (k, {', '.join(names)}) VALUES (0, {', '.join(str(n) for n in range(400))})")
    row = session.execute("SELECT * FROM t").one()
    assert sorted(row[1:]) == list(range(400))
    keys = ", ".join(str(number) for number in range(2000))
    assert len(list(session.execute(f"SELECT k FROM t WHERE k IN ({keys})"))) == 1


def test_many_requests_at_once(session):
    session.execute("CREATE TABLE t (k int PRIMARY KEY, v text)")
    insert = session.prepare("INSERT INTO t (k, v) VALUES (?, ?)")
    select = session.prepare("SELECT v FROM t WHERE k = ?")
    count = 5000
    results = execute_concurrent_with_args(session, insert, [(k, f"value {k}") for k in range(count)], concurrency=1000)
    assert all(success for success, _ in results)
    results = execute_concurrent_with_args(session, select, [(k,) for k in range(count)], concurrency=1000)
    assert [result.one().v for _, result in results] == [f"value {k}" for k in range(count)]


def test_answers_go_to_their_requests(session):
    """Slow and quick requests mixed on the same connections."""
    session.execute("CREATE TABLE t (k int, c int, PRIMARY KEY (k, c))")
    insert = session.prepare("INSERT INTO t (k, c) VALUES (?, ?)")
    execute_concurrent_with_args(session, insert, [(k, c) for k in range(20) for c in range(k)], concurrency=100)
    select = session.prepare("SELECT c FROM t WHERE k = ?")
    futures = []
    for round_number in range(20):
        futures.append((None, session.execute_async("SELECT * FROM t")))
        futures += [(key, session.execute_async(select, (key,))) for key in range(20)]
    for key, future in futures:
        assert len(list(future.result())) == (190 if key is None else key)


def frame(version, opcode, body=b"", stream=1, flags=0):
    return struct.pack(">BBhBI", version, flags, stream, opcode, len(body)) + body


def read_frame(connection):
    def exactly(count):
        received = b""
        while len(received) < count:
            chunk = connection.recv(count - len(received))
            if not chunk:
                raise ConnectionError("the server closed the connection")
            received += chunk
        return received

    version, flags, stream, opcode, length = struct.unpack(">BBhBI", exactly(9))
    return version, flags, stream, opcode, exactly(length)


STARTUP = struct.pack(">H", 1) + b"".join(struct.pack(">H", len(text)) + text for text in (b"CQL_VERSION", b"3.0.0"))


def test_many_connections(server):
    """500 open connections answer, and the server counts them."""
    connections = []
    try:
        for _ in range(500):
            connection = socket.create_connection(("127.0.0.1", server.native_port), timeout=30)
            connection.sendall(frame(4, 1, STARTUP))
            connections.append(connection)
        for number, connection in enumerate(connections):
            assert read_frame(connection)[3] == 2, "READY"
            connection.sendall(frame(4, 5, stream=number))
        for number, connection in enumerate(connections):
            _, _, stream, opcode, _ = read_frame(connection)
            assert (stream, opcode) == (number, 6), "SUPPORTED"
        assert server.counter("ceto_connections") >= 500
    finally:
        for connection in connections:
            connection.close()
    deadline = time.monotonic() + 20
    while server.counter("ceto_connections") > 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert server.counter("ceto_connections") <= 200


@pytest.mark.parametrize("version", [1, 2, 7, 0x41, 0x42])
def test_other_versions_are_refused_in_words_that_drivers_know(server, version):
    with socket.create_connection(("127.0.0.1", server.native_port), timeout=30) as connection:
        connection.sendall(frame(version, 1, STARTUP) if version > 2 else struct.pack(">BBbBI", version, 0, 1, 1, 0))
        answered, _, _, opcode, body = read_frame(connection)
        code, length = struct.unpack(">IH", body[:6])
        assert (answered, opcode, code) == (0x85, 0, 0x0A)
        assert b"nvalid or unsupported protocol version" in body[6:6 + length]


def test_the_beta_version_is_for_those_who_ask_for_it(server):
    use_beta = 0x10
    with socket.create_connection(("127.0.0.1", server.native_port), timeout=30) as connection:
        connection.sendall(frame(6, 1, STARTUP))
        _, _, _, opcode, body = read_frame(connection)
        assert (opcode, body[:4]) == (0, b"\x00\x00\x00\x0a")
        assert b"USE_BETA flag is unset" in body
    with socket.create_connection(("127.0.0.1", server.native_port), timeout=30) as connection:
        connection.sendall(frame(6, 1, STARTUP, flags=use_beta))
        assert read_frame(connection)[3] == 2


def test_what_is_no_request(server):
    """Rubbish on one connection ends that connection at most."""
    for rubbish in [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 64, b"\xff" * 64,
        frame(4, 0x7F), frame(4, 7, b"\xff" * 20), frame(4, 7, STARTUP), frame(4, 1, b"\xff\xff"),
        struct.pack(">BBhBI", 4, 0, 1, 1, 0xFFFFFFFF), struct.pack(">BBhBI", 4, 0, 1, 7, 200 << 20) + b"x" * 100,
        frame(4, 1, STARTUP, flags=1),
    ]:
        with socket.create_connection(("127.0.0.1", server.native_port), timeout=30) as connection:
            connection.sendall(rubbish)
            connection.shutdown(socket.SHUT_WR)
            try:
                while connection.recv(65536):
                    pass
            except ConnectionError:
                pass
    with socket.create_connection(("127.0.0.1", server.native_port), timeout=30) as connection:
        connection.sendall(frame(4, 1, STARTUP))
        assert read_frame(connection)[3] == 2


def test_a_request_before_startup_is_a_protocol_error(server):
    with socket.create_connection(("127.0.0.1", server.native_port), timeout=30) as connection:
        text = b"SELECT * FROM system.local"
        connection.sendall(frame(4, 7, struct.pack(">I", len(text)) + text + b"\x00\x01\x00"))
        _, _, _, opcode, body = read_frame(connection)
        assert (opcode, struct.unpack(">I", body[:4])[0]) == (0, 0x0A)


@pytest.mark.parametrize("text, opcode", [(b"3.0.0", 2), (b"3.4.7", 2), (b"4.0.0", 2), (b"2.0.0", 0), (b"three", 0)])
def test_versions_of_the_language(server, text, opcode):
    """The Rust driver asks for 4.0.0, and Cassandra takes whatever is not below 3."""
    body = struct.pack(">HH", 1, 11) + b"CQL_VERSION" + struct.pack(">H", len(text)) + text
    with socket.create_connection(("127.0.0.1", server.native_port), timeout=30) as connection:
        connection.sendall(frame(4, 1, body))
        assert read_frame(connection)[3] == opcode


def test_heartbeats(server, variant):
    """OPTIONS on an idle connection, as drivers send it."""
    cluster = connect(server, variant, idle_heartbeat_interval=1)
    try:
        session = cluster.connect()
        time.sleep(3)
        assert session.execute("SELECT key FROM system.local").one().key == "local"
        assert all(host.is_up for host in cluster.metadata.all_hosts())
    finally:
        cluster.shutdown()


def test_values_of_ten_mebibytes(session):
    """Half of a commitlog segment of 32 MiB, as in Cassandra; the first segment after a start is smaller."""
    session.execute("CREATE TABLE large (k int PRIMARY KEY, v blob)")
    value = bytes(range(256)) * (10 << 12)
    insert = session.prepare("INSERT INTO large (k, v) VALUES (?, ?)")
    session.execute(insert, (1, value))
    assert session.execute("SELECT v FROM large WHERE k = 1").one().v == value
