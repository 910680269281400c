"""User-defined functions and aggregates: calls, failures, the driver's metadata and events, permissions, restarts."""

import pytest

from cassandra import FunctionFailure, InvalidRequest, Unauthorized

from conftest import VARIANTS, connect
from server import Server
from test_events import eventually, watcher  # noqa: F401
from test_roles import guarded, logged_in, role  # noqa: F401

pytestmark = pytest.mark.one_variant

PLUS = "CREATE FUNCTION plus (a int, b int) RETURNS NULL ON NULL INPUT RETURNS int LANGUAGE lua AS 'return a + b'"
STATE = ("CREATE FUNCTION note (s tuple<bigint, bigint>, v int) CALLED ON NULL INPUT RETURNS tuple<bigint, bigint> "
         "LANGUAGE lua AS 'return {s[1] + (v or 0), s[2] + 1}'")
FINAL = ("CREATE FUNCTION mean (s tuple<bigint, bigint>) CALLED ON NULL INPUT RETURNS double "
         "LANGUAGE lua AS 'return s[1] / s[2]'")
MEAN = "CREATE AGGREGATE mean_of (int) SFUNC note STYPE tuple<bigint, bigint> FINALFUNC mean INITCOND (0, 0)"


WASM_PLUS = ("CREATE FUNCTION plus (a int, b int) RETURNS NULL ON NULL INPUT RETURNS int LANGUAGE wasm AS "
             "'(module (func (export \"plus\") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))'")
# The state goes in and out as bytes in the module's memory: the count, big-endian, is the last byte of a bigint.
WASM_COUNT = '''CREATE FUNCTION tally (s bigint, v text) CALLED ON NULL INPUT RETURNS bigint LANGUAGE xwasm AS '(module
    (memory (export "memory") 1)
    (global (export "_scylla_abi") i32 (i32.const 1024))
    (data (i32.const 1024) "\\01")
    (func (export "tally") (param $s i64) (param $v i64) (result i64) (local $at i32)
        (local.set $at (i32.wrap_i64 (local.get $s)))
        (if (i64.ge_s (local.get $v) (i64.const 0)) (then
            (i32.store8 offset=7 (local.get $at)
                (i32.add (i32.load8_u offset=7 (local.get $at)) (i32.const 1)))))
        (local.get $s)))'
'''


@pytest.fixture
def numbers(session):
    session.execute("CREATE TABLE t (k int, c int, v int, PRIMARY KEY (k, c))")
    insert = session.prepare("INSERT INTO t (k, c, v) VALUES (?, ?, ?)")
    for c in range(100):
        session.execute(insert, (c % 3, c, c * 10))
    return session


def test_calls(numbers):
    execute = numbers.execute
    execute(PLUS)
    row = execute("SELECT plus(c, v), plus(c, plus(1, v)) AS more FROM t WHERE k = 0 AND c = 3").one()
    assert tuple(row) == (33, 34)
    assert execute("SELECT plus(c, v) FROM t WHERE k = 0 AND c = 3").column_names == [f"{numbers.keyspace}.plus(c, v)"]
    prepared = numbers.prepare("SELECT c FROM t WHERE k = plus(?, 0) AND c = plus(?, ?)")
    assert execute(prepared, (1, 3, 1)).one().c == 4
    execute("INSERT INTO t (k, c, v) VALUES (plus(40, 2), 1, plus(1, 1))")
    assert execute("SELECT v FROM t WHERE k = 42").one().v == 2
    assert execute("SELECT plus(v, null) AS n FROM t WHERE k = 42").one().n is None


def test_aggregates(numbers):
    execute = numbers.execute
    for statement in (STATE, FINAL, MEAN):
        execute(statement)
    assert execute("SELECT mean_of(v) AS m FROM t").one().m == 495.0
    expected = {k: sum(10 * c for c in range(k, 100, 3)) / len(range(k, 100, 3)) for k in range(3)}
    assert {row.k: row.m for row in execute("SELECT k, mean_of(v) AS m FROM t GROUP BY k")} == expected
    with pytest.raises(InvalidRequest, match="still referenced by aggregates"):
        execute("DROP FUNCTION note")
    execute("DROP AGGREGATE mean_of")
    execute("DROP FUNCTION note")


def test_webassembly(numbers):
    execute = numbers.execute
    execute(WASM_PLUS)
    row = execute("SELECT plus(c, v) AS n, plus(c, null) AS none FROM t WHERE k = 0 AND c = 3").one()
    assert tuple(row) == (33, None)
    execute(WASM_COUNT)
    execute("CREATE AGGREGATE tally_of (text) SFUNC tally STYPE bigint INITCOND 0")
    assert execute("SELECT tally_of(cast(v AS text)) AS n FROM t").one().n == 100
    with pytest.raises(InvalidRequest, match="still referenced by aggregates"):
        execute("DROP FUNCTION tally")
    rows = [row for row in execute(f"DESCRIBE KEYSPACE {numbers.keyspace}") if row.name.startswith("tally(")]
    assert len(rows) == 1 and "LANGUAGE wasm" in rows[0].create_statement
    execute("DROP AGGREGATE tally_of")
    execute("DROP FUNCTION tally")
    execute(rows[0].create_statement)


def test_webassembly_that_fails(numbers):
    create = ("CREATE OR REPLACE FUNCTION bad (v int) RETURNS NULL ON NULL INPUT RETURNS int LANGUAGE wasm AS "
              "'(module (memory (export \"memory\") 1) (func (export \"bad\") (param i32) (result i32) {}))'")
    loops = "(loop $l (br $l)) (i32.const 0)"
    for instructions, match in {"(unreachable)": "trap: .*unreachable", loops: "was stopped"}.items():
        numbers.execute(create.format(instructions))
        with pytest.raises(FunctionFailure, match=match) as raised:
            numbers.execute("SELECT bad(v) FROM t")
        assert raised.value.function == "bad"
    with pytest.raises(InvalidRequest, match="Could not compile function .* from wasm source: .*exports no function 'worse'"):
        numbers.execute(create.format("(unreachable)").replace("bad (", "worse ("))
    assert numbers.execute("SELECT count(*) AS n FROM t").one().n == 100


def test_metadata_and_events(session, watcher):  # noqa: F811
    keyspace = session.keyspace
    seen = lambda: watcher.metadata.keyspaces[keyspace]
    for statement in (PLUS, STATE, FINAL, MEAN):
        session.execute(statement)
    assert eventually(lambda: "mean_of(int)" in seen().aggregates)
    function = seen().functions["plus(int,int)"]
    assert (function.argument_names, function.argument_types) == (["a", "b"], ["int", "int"])
    assert (function.return_type, function.language, function.body) == ("int", "lua", "return a + b")
    assert function.called_on_null_input is False
    aggregate = seen().aggregates["mean_of(int)"]
    assert (aggregate.state_func, aggregate.final_func) == ("note", "mean")
    assert aggregate.initial_condition == "(0, 0)" and aggregate.return_type == "double"
    session.execute(PLUS.replace("CREATE", "CREATE OR REPLACE").replace("a + b", "b + a"))
    assert eventually(lambda: seen().functions["plus(int,int)"].body == "return b + a")
    session.execute("DROP AGGREGATE mean_of")
    assert eventually(lambda: "mean_of(int)" not in seen().aggregates)
    session.execute("DROP FUNCTION plus(int, int)")
    assert eventually(lambda: "plus(int,int)" not in seen().functions)
    # What the driver writes of the metadata makes it again.
    of_mean = lambda: [name for name in seen().functions if name.startswith("mean(")]
    text = seen().functions[of_mean()[0]].as_cql_query()
    session.execute("DROP FUNCTION mean")
    assert eventually(lambda: not of_mean())
    session.execute(text)
    assert eventually(of_mean)


def test_prepared_statements_follow_a_replaced_function(numbers):
    numbers.execute(PLUS)
    prepared = numbers.prepare("SELECT plus(c, v) AS n FROM t WHERE k = 0 AND c = 3")
    assert numbers.execute(prepared).one().n == 33
    numbers.execute(PLUS.replace("CREATE", "CREATE OR REPLACE").replace("a + b", "a * b"))
    assert numbers.execute(prepared).one().n == 90
    numbers.execute("DROP FUNCTION plus")
    with pytest.raises(InvalidRequest, match="Unknown function"):
        numbers.execute(prepared)


# A machine that is busy with other things can take so long over the steps that the clock is first.
BODIES = {
    "while true do end": "more than 1000000 steps|more than 100 ms",
    "local s = 'x' while true do s = s .. s end": "more than 4096 KiB of memory|more than 100 ms",
    "local function f() return 1 + f() end return f()": "memory|stack overflow",
    "return {}": "not of its return type",
    "error('out of paper')": "out of paper",
    "return os.time()": "nil value",
    "return string.rep('x', 1 << 40)": "memory|too large",
}


@pytest.mark.parametrize("body", BODIES)
def test_hostile_bodies_fail_the_statement_only(numbers, body):
    escaped = body.replace("'", "''")
    numbers.execute(f"CREATE FUNCTION bad (v int) CALLED ON NULL INPUT RETURNS int LANGUAGE lua AS '{escaped}'")
    with pytest.raises(FunctionFailure, match=BODIES[body]) as raised:
        numbers.execute("SELECT bad(v) FROM t")
    assert (raised.value.keyspace, raised.value.function) == (numbers.keyspace, "bad")
    assert list(raised.value.arg_types) == ["int"]
    assert numbers.execute("SELECT count(*) AS n FROM t").one().n == 100


def test_bodies_that_do_not_compile(session):
    with pytest.raises(InvalidRequest, match="Could not compile function .*unexpected symbol"):
        session.execute(PLUS.replace("return a + b", "return ("))
    with pytest.raises(InvalidRequest, match="java are not supported.*LANGUAGE lua"):
        session.execute(PLUS.replace("lua", "java"))
    session.cluster.refresh_keyspace_metadata(session.keyspace)
    assert not session.cluster.metadata.keyspaces[session.keyspace].functions


def test_describe_makes_it_again(session):
    for statement in (PLUS, STATE, FINAL, MEAN):
        session.execute(statement)
    rows = list(session.execute(f"DESCRIBE KEYSPACE {session.keyspace}"))
    made = [row for row in rows if row.type in ("function", "aggregate")]
    assert [row.type for row in made] == ["function"] * 3 + ["aggregate"]
    session.execute("DROP AGGREGATE mean_of")
    for name in ("plus", "note", "mean"):
        session.execute(f"DROP FUNCTION {name}")
    for row in made:
        session.execute(row.create_statement)
    again = list(session.execute(f"DESCRIBE KEYSPACE {session.keyspace}"))
    assert [row.create_statement for row in again] == [row.create_statement for row in rows]


def test_permissions(guarded, variant):  # noqa: F811
    with logged_in(guarded, variant) as root, role(root, "fay") as name:
        root.execute("CREATE FUNCTION IF NOT EXISTS ks.one (k int) CALLED ON NULL INPUT RETURNS int "
                     "LANGUAGE lua AS 'return 1'")
        root.execute("INSERT INTO ks.t (k, v) VALUES (1, 1)")
        root.execute(f"GRANT SELECT ON ks.t TO {name}")
        with logged_in(guarded, variant, name) as fay:
            with pytest.raises(Unauthorized, match="EXECUTE.*<function ks.one\\(int\\)>"):
                fay.execute("SELECT ks.one(k) FROM ks.t")
            root.execute(f"GRANT EXECUTE ON FUNCTION ks.one(int) TO {name}")
            assert fay.execute("SELECT ks.one(k) AS n FROM ks.t").one().n == 1
            with pytest.raises(Unauthorized, match="DROP"):
                fay.execute("DROP FUNCTION ks.one")
            create = "CREATE FUNCTION ks.two (k int) CALLED ON NULL INPUT RETURNS int LANGUAGE lua AS 'return 2'"
            with pytest.raises(Unauthorized, match="CREATE.*<all functions in ks>"):
                fay.execute(create)
            root.execute(f"GRANT CREATE ON ALL FUNCTIONS IN KEYSPACE ks TO {name}")
            fay.execute(create)
            # Who makes a function may do all with it.
            assert fay.execute("SELECT ks.two(k) AS n FROM ks.t").one().n == 2
            fay.execute("DROP FUNCTION ks.two")
        root.execute("DROP FUNCTION ks.one")
        with pytest.raises(InvalidRequest, match="doesn't exist"):
            root.execute(f"GRANT EXECUTE ON FUNCTION ks.one(int) TO {name}")


def test_functions_outlive_a_kill(tmp_path):
    node = Server(tmp_path / "data", shards=2).start()
    keyspace = "CREATE KEYSPACE ks WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"
    version = sorted(VARIANTS)[0]
    cluster = connect(node, version)
    session = cluster.connect()
    session.execute(keyspace)
    session.set_keyspace("ks")
    session.execute("CREATE TYPE point (x int, y int)")
    for statement in (PLUS, STATE, FINAL, MEAN):
        session.execute(statement)
    session.execute("CREATE FUNCTION x_of (p point) RETURNS NULL ON NULL INPUT RETURNS int "
                    "LANGUAGE lua AS 'return p.x'")
    before = [row.create_statement for row in session.execute("DESCRIBE KEYSPACE ks")]
    digest = session.execute("SELECT schema_version FROM system.local").one()
    cluster.shutdown()
    node.kill()
    node.start()
    cluster = connect(node, version)
    session = cluster.connect("ks")
    assert [row.create_statement for row in session.execute("DESCRIBE KEYSPACE ks")] == before
    assert session.execute("SELECT schema_version FROM system.local").one() == digest
    session.execute("CREATE TABLE t (k int PRIMARY KEY, v int)")
    session.execute("INSERT INTO t (k, v) VALUES (1, plus(40, 2))")
    row = session.execute("SELECT mean_of(v) AS m, x_of({x: 7, y: 1}) AS x FROM t").one()
    assert tuple(row) == (42.0, 7)
    cluster.shutdown()
    assert node.stop() == 0, node.log_tail()
