"""Every CQL type goes in and comes out unchanged: bound and as a literal, as a column and as a key, null and empty."""

import datetime
import math
import re
import uuid
from decimal import Decimal
from ipaddress import ip_address

import pytest

from cassandra import InvalidRequest
from cassandra.protocol import SyntaxException
from cassandra.query import UNSET_VALUE
from cassandra.util import Date, Duration, OrderedMap, OrderedMapSerializedKey, SortedSet, Time

TIMEUUID = uuid.UUID("50554d6e-29bb-11e5-b345-feff819cdc9f")

# Type: values as the driver gives them back, each with the literal of the same value.
SCALARS = {
    "ascii": [("plain", "'plain'"), ("it''s".replace("''", "'"), "'it''s'")],
    "bigint": [(0, "0"), (2**63 - 1, "9223372036854775807"), (-(2**63), "-9223372036854775808")],
    "blob": [(b"\x00\xff\x7f", "0x00ff7f"), (bytes(range(256)), "0x" + bytes(range(256)).hex())],
    "boolean": [(True, "true"), (False, "false")],
    "date": [(Date("2024-02-29"), "'2024-02-29'"), (Date("1969-12-31"), "'1969-12-31'"), (Date(0), "'1970-01-01'")],
    "decimal": [
        (Decimal("0"), "0"), (Decimal("-12345678901234567890.123456789"), "-12345678901234567890.123456789"),
        (Decimal("1.50"), "1.50"), (Decimal("1E+400"), "1E400"),
    ],
    "double": [
        (0.0, "0.0"), (-1.5e300, "-1.5e300"), (math.pi, repr(math.pi)), (5e-324, "5e-324"), (math.inf, "Infinity"),
    ],
    "duration": [
        (Duration(1, 2, 3), "1mo2d3ns"), (Duration(-14, -1, -3600 * 10**9), "-1y2mo1d1h"), (Duration(0, 0, 1), "1ns"),
    ],
    "float": [(0.5, "0.5"), (-2.0**100, repr(-2.0**100)), (math.inf, "Infinity")],
    "inet": [("127.0.0.1", "'127.0.0.1'"), ("2001:db8::1", "'2001:db8::1'")],
    "int": [(0, "0"), (2**31 - 1, "2147483647"), (-(2**31), "-2147483648")],
    "smallint": [(32767, "32767"), (-32768, "-32768")],
    "text": [("grüße, 世界 🐋", "'grüße, 世界 🐋'"), ("a\nb\tc", "'a\nb\tc'"), ("$$", "'$$'")],
    "time": [(Time("23:59:59.999999999"), "'23:59:59.999999999'"), (Time(0), "'00:00:00'")],
    "timestamp": [
        (datetime.datetime(2024, 2, 29, 23, 59, 59, 999000), "'2024-02-29 23:59:59.999+0000'"),
        (datetime.datetime(1950, 1, 1), "-631152000000"),
    ],
    "timeuuid": [(TIMEUUID, str(TIMEUUID))],
    "tinyint": [(127, "127"), (-128, "-128")],
    "uuid": [(uuid.UUID(int=2**128 - 1), "ffffffff-ffff-ffff-ffff-ffffffffffff"), (TIMEUUID, str(TIMEUUID))],
    "varchar": [("varchar is text", "'varchar is text'")],
    "varint": [(0, "0"), (2**200, str(2**200)), (-(2**127), str(-(2**127))), (-1, "-1"), (128, "128")],
}

# A type, values, literals: collections, tuples and vectors, nested too.
COMPOUNDS = [
    ("list<int>", [3, 1, 2, 1], "[3, 1, 2, 1]"),
    ("set<text>", SortedSet(["b", "a"]), "{'b', 'a'}"),
    ("map<text, bigint>", {"a": 1, "b": -1}, "{'a': 1, 'b': -1}"),
    ("frozen<list<double>>", [0.5, -0.5], "[0.5, -0.5]"),
    ("frozen<set<uuid>>", SortedSet([TIMEUUID]), f"{{{TIMEUUID}}}"),
    ("frozen<map<int, boolean>>", {1: True, 2: False}, "{1: true, 2: false}"),
    ("list<frozen<list<int>>>", [[1, 2], []], "[[1, 2], []]"),
    ("map<text, frozen<list<frozen<set<int>>>>>", {"k": [SortedSet([2, 1])]}, "{'k': [{2, 1}]}"),
    ("map<frozen<set<int>>, text>", OrderedMap([(SortedSet([1]), "one")]), "{{1}: 'one'}"),
    ("tuple<int, text, boolean>", (1, "a", True), "(1, 'a', true)"),
    ("tuple<int, text>", (None, "a"), "(null, 'a')"),
    ("frozen<tuple<int, frozen<tuple<text, frozen<list<int>>>>>>", (1, ("x", [1, 2])), "(1, ('x', [1, 2]))"),
    ("set<frozen<tuple<int, text>>>", SortedSet([(1, "a"), (2, "b")]), "{(2, 'b'), (1, 'a')}"),
    ("vector<float, 3>", [1.0, -2.5, 0.0], "[1.0, -2.5, 0.0]"),
    ("vector<int, 2>", [7, -7], "[7, -7]"),
    ("vector<text, 2>", ["short", "a longer one"], "['short', 'a longer one']"),
    ("list<frozen<vector<float, 2>>>", [[1.0, 2.0], [3.0, 4.0]], "[[1.0, 2.0], [3.0, 4.0]]"),
    ("map<date, time>", {Date("2024-01-01"): Time("12:00:00")}, "{'2024-01-01': '12:00:00'}"),
    ("list<duration>", [Duration(0, 1, 0)], "[1d]"),
]


def plain(value):
    """A value in a form in which equal values are equal, whichever classes the driver chose."""
    if isinstance(value, (OrderedMap, OrderedMapSerializedKey, dict)):
        return sorted(((repr(plain(key)), plain(item)) for key, item in value.items()))
    if isinstance(value, (SortedSet, set, frozenset)):
        return sorted((plain(item) for item in value), key=repr)
    if isinstance(value, (list, tuple)) or type(value).__name__ == "CQLVectorType":
        return [plain(item) for item in value]
    if isinstance(value, str) and value.count(":") > 1:
        try:
            return str(ip_address(value))
        except ValueError:
            return value
    return value


def scalars():
    return [pytest.param(name, id=name) for name in sorted(SCALARS)]


def compounds():
    return [pytest.param(*case, id=case[0]) for case in COMPOUNDS]


@pytest.mark.parametrize("name", scalars())
def test_scalar_columns(session, name):
    session.execute(f"CREATE TABLE t (k int PRIMARY KEY, v {name})")
    insert = session.prepare("INSERT INTO t (k, v) VALUES (?, ?)")
    for key, (value, literal) in enumerate(SCALARS[name]):
        session.execute(insert, (2 * key, value))
        session.execute(f"INSERT INTO t (k, v) VALUES ({2 * key + 1}, {literal})")
        for found in (2 * key, 2 * key + 1):
            row = session.execute(f"SELECT v FROM t WHERE k = {found}").one()
            assert plain(row.v) == plain(value), (found, literal)
            assert type(row.v) is type(value) or name == "inet"


@pytest.mark.parametrize("name", [name for name in sorted(SCALARS) if name not in ("duration",)])
def test_scalar_keys(session, name):
    session.execute(f"CREATE TABLE t (p {name}, c {name}, v int, PRIMARY KEY (p, c))")
    insert = session.prepare("INSERT INTO t (p, c, v) VALUES (?, ?, ?)")
    select = session.prepare("SELECT p, c, v FROM t WHERE p = ? AND c = ?")
    values = [value for value, _ in SCALARS[name]]
    for number, value in enumerate(values):
        session.execute(insert, (value, values[0], number))
        session.execute(insert, (values[0], value, number))
    for number, value in enumerate(values):
        row = session.execute(select, (values[0], value)).one()
        assert (plain(row.p), plain(row.c), row.v) == (plain(values[0]), plain(value), number)
    literal = SCALARS[name][-1][1]
    assert session.execute(f"SELECT v FROM t WHERE p = {literal} LIMIT 1").one() is not None
    assert len(list(session.execute(f"SELECT c FROM t WHERE p = {SCALARS[name][0][1]}"))) == len(values)


@pytest.mark.parametrize("name, value, literal", compounds())
def test_compound_columns(session, name, value, literal):
    session.execute(f"CREATE TABLE t (k int PRIMARY KEY, v {name})")
    session.execute(session.prepare("INSERT INTO t (k, v) VALUES (?, ?)"), (0, value))
    session.execute(f"INSERT INTO t (k, v) VALUES (1, {literal})")
    for key in (0, 1):
        row = session.execute(f"SELECT v FROM t WHERE k = {key}").one()
        assert plain(row.v) == plain(value), key


MARSHAL = "org.apache.cassandra.db.marshal."


def test_composites(session):
    """Types that have only a Java class."""
    pair = f"'{MARSHAL}CompositeType(AsciiType, Int32Type)'"
    session.execute(f"CREATE TABLE t (k int, c {pair}, v {pair}, PRIMARY KEY (k, c)) WITH CLUSTERING ORDER BY (c DESC)")
    for literal in ("abc:9", "abc", "abc:-10", "b", "abc:123"):
        session.execute(f"INSERT INTO t (k, c, v) VALUES (0, '{literal}', '{literal}')")
    values = [("b",), ("abc", 123), ("abc", 9), ("abc", -10), ("abc",)]
    assert [(row.c, row.v) for row in session.execute("SELECT c, v FROM t WHERE k = 0")] == [(v, v) for v in values]
    above = session.execute("SELECT c FROM t WHERE k = 0 AND c > 'abc:9'")
    assert [row.c for row in above] == values[:2]
    session.execute("INSERT INTO t (k, c) VALUES (1, 'q:7')")
    assert session.execute("SELECT c FROM t WHERE k = 1 AND c = 'q:7'").one().c == ("q", 7)
    shown = session.execute("SELECT type FROM system_schema.columns WHERE keyspace_name = %s AND table_name = 't' AND "
                            "column_name = 'v'", [session.keyspace]).one().type
    assert shown == f"'{MARSHAL}CompositeType({MARSHAL}AsciiType,{MARSHAL}Int32Type)'"
    for wrong in ("abc:x", "a:1:2"):
        with pytest.raises(InvalidRequest):
            session.execute(f"INSERT INTO t (k, c) VALUES (2, '{wrong}')")
    dynamic = "'DynamicCompositeType(s => UTF8Type, i => Int32Type)'"
    session.execute(f"CREATE TABLE d (k int PRIMARY KEY, v {dynamic})")
    session.execute("INSERT INTO d (k, v) VALUES (0, 's@x:i@7')")
    assert session.execute("SELECT k FROM d WHERE v = 's@x:Int32Type@7' ALLOW FILTERING").one().k == 0


@pytest.mark.parametrize(
    "class_name, why",
    [
        ("NoSuchType", f"Unable to find abstract-type class '{MARSHAL}NoSuchType'"),
        ("CompositeType(", "Cannot parse type"), ("UserType(ks,61)", "by name"), ("ReversedType(Int32Type)", "CLUSTERING ORDER"),
    ],
)
def test_classes_that_are_no_types(session, class_name, why):
    with pytest.raises(SyntaxException, match=re.escape(why)):
        session.execute(f"CREATE TABLE t (k int PRIMARY KEY, v '{class_name}')")


@pytest.mark.parametrize(
    "name, value", [("frozen<list<int>>", [1, 2]), ("frozen<tuple<int, text>>", (1, "a")), ("vector<float, 2>", [1.0, 2.0])]
)
def test_compound_keys(session, name, value):
    session.execute(f"CREATE TABLE t (p {name}, c {name}, v int, PRIMARY KEY (p, c))")
    session.execute(session.prepare("INSERT INTO t (p, c, v) VALUES (?, ?, 5)"), (value, value))
    row = session.execute(session.prepare("SELECT * FROM t WHERE p = ? AND c = ?"), (value, value)).one()
    assert (plain(row.p), plain(row.c), row.v) == (plain(value), plain(value), 5)


def test_sets_and_maps_are_sorted_by_their_type(session):
    session.execute("CREATE TABLE t (k int PRIMARY KEY, s set<int>, m map<varint, text>)")
    session.execute("INSERT INTO t (k, s, m) VALUES (0, {3, -1, 20, 2}, {10: 'x', -300: 'y', 9: 'z'})")
    row = session.execute("SELECT s, m FROM t").one()
    assert list(row.s) == [-1, 2, 3, 20]
    assert list(row.m.keys()) == [-300, 9, 10]


def test_user_defined_types(session):
    session.execute("CREATE TYPE street (name text, number int)")
    session.execute("CREATE TYPE address (street frozen<street>, tags frozen<set<text>>, zip text)")
    session.execute(
        "CREATE TABLE t (k int PRIMARY KEY, a address, f frozen<address>, l list<frozen<street>>, "
        "m map<text, frozen<address>>)"
    )
    session.execute(
        "INSERT INTO t (k, a, f, l, m) VALUES (0, {street: {name: 'x', number: 1}, tags: {'b', 'a'}, zip: '1'}, "
        "{street: {name: 'y', number: 2}}, [{name: 'z'}], {'home': {zip: '9'}})"
    )
    row = session.execute("SELECT * FROM t").one()
    assert (row.a.street.name, row.a.street.number, list(row.a.tags), row.a.zip) == ("x", 1, ["a", "b"], "1")
    assert (row.f.street.number, row.f.tags, row.f.zip) == (2, None, None)
    assert (row.l[0].name, row.l[0].number) == ("z", None)
    assert row.m["home"].zip == "9"
    # What was read can be bound again.
    insert = session.prepare("INSERT INTO t (k, a, f, l, m) VALUES (1, ?, ?, ?, ?)")
    session.execute(insert, (row.a, row.f, row.l, row.m))
    copy = session.execute("SELECT * FROM t WHERE k = 1").one()
    assert (copy.a, copy.f, copy.l, dict(copy.m.items())) == (row.a, row.f, row.l, dict(row.m.items()))
    # One field of a type that is not frozen, and of it in a selection.
    session.execute("UPDATE t SET a.zip = '2' WHERE k = 0")
    assert session.execute("SELECT a.zip FROM t WHERE k = 0").one()[0] == "2"
    assert session.execute("SELECT a FROM t WHERE k = 0").one().a.street.name == "x"
    session.execute("ALTER TYPE street ADD floor int")
    session.execute("UPDATE t SET f = {street: {name: 'y', floor: 3}} WHERE k = 0")
    assert session.execute("SELECT f FROM t WHERE k = 0").one().f.street.floor == 3


def test_counters(session):
    session.execute("CREATE TABLE t (k int PRIMARY KEY, c counter, d counter)")
    add = session.prepare("UPDATE t SET c = c + ?, d = d - ? WHERE k = ?")
    for step in range(10):
        session.execute(add, (step, 1, 0))
    session.execute("UPDATE t SET c = c - 5 WHERE k = 0")
    row = session.execute("SELECT c, d FROM t WHERE k = 0").one()
    assert (row.c, row.d) == (40, -10)
    session.execute("UPDATE t SET c = c + 9223372036854775807 WHERE k = 1")
    assert session.execute("SELECT c, d FROM t WHERE k = 1").one() == (2**63 - 1, None)


@pytest.mark.parametrize("name", scalars())
def test_null_and_unset(session, name):
    session.execute(f"CREATE TABLE t (k int PRIMARY KEY, v {name}, w int)")
    value = SCALARS[name][0][0]
    insert = session.prepare("INSERT INTO t (k, v, w) VALUES (?, ?, ?)")
    select = session.prepare("SELECT v, w FROM t WHERE k = 0")
    session.execute(insert, (0, value, 1))
    session.execute(insert, (0, UNSET_VALUE, 2))
    assert plain(session.execute(select).one()) == [plain(value), 2], "unset leaves what is there"
    session.execute(insert, (0, None, 3))
    assert session.execute(select).one() == (None, 3), "null deletes"
    session.execute("INSERT INTO t (k, v) VALUES (0, null)")
    assert session.execute(select).one() == (None, 3)


def test_empty_is_not_null(session):
    session.execute("CREATE TABLE t (k text, c blob, t text, b blob, l list<int>, f frozen<list<int>>, PRIMARY KEY (k, c))")
    insert = session.prepare("INSERT INTO t (k, c, t, b, l, f) VALUES (?, ?, ?, ?, ?, ?)")
    session.execute(insert, ("k", b"", "", b"", [], []))
    row = session.execute("SELECT * FROM t WHERE k = 'k' AND c = 0x").one()
    assert (row.c, row.t, row.b) == (b"", "", b"")
    assert row.l is None, "a collection that is not frozen has no empty value"
    assert list(row.f) == []
    with pytest.raises(InvalidRequest, match="Key may not be empty"):
        session.execute(insert, ("", b"", "", b"", [], []))


def test_empty_numbers(session):
    """A value of no bytes is kept apart from null by the types that Cassandra allows it for."""
    session.execute("CREATE TABLE t (k int PRIMARY KEY, v int)")
    session.execute("INSERT INTO t (k, v) VALUES (0, blob_as_int(0x))")
    assert session.execute("SELECT int_as_blob(v) FROM t").one()[0] == b""


def test_not_a_number(session):
    session.execute("CREATE TABLE t (k int PRIMARY KEY, d double, f float)")
    session.execute("INSERT INTO t (k, d, f) VALUES (0, NaN, -NaN)")
    row = session.execute("SELECT d, f FROM t").one()
    assert math.isnan(row.d) and math.isnan(row.f)


@pytest.mark.parametrize(
    "name, literals",
    [
        ("int", ["'1'", "2147483648", "1.5", "true", "[1]"]),
        ("text", ["1", "true", "{1}"]),
        ("boolean", ["1", "'true'"]),
        ("uuid", ["'50554d6e-29bb-11e5-b345-feff819cdc9f'", "5"]),
        ("timeuuid", ["ffffffff-ffff-ffff-ffff-ffffffffffff"]),
        ("inet", ["'300.0.0.1'", "'nosuchname.invalid'"]),
        ("date", ["'2024-02-30'", "'yesterday'"]),
        ("time", ["'24:00:00'", "'noon'"]),
        ("timestamp", ["'2024-13-01'", "'noon'"]),
        ("ascii", ["'grüße'"]),
        ("tinyint", ["128", "-129"]),
        ("smallint", ["32768"]),
        ("bigint", ["9223372036854775808"]),
        ("blob", ["'00ff'", "1"]),
        ("duration", ["'1d'", "5"]),
        ("list<int>", ["{1}", "['a']", "[null]"]),
        ("set<int>", ["[1]", "{1: 2}"]),
        ("map<int, int>", ["{1}", "{'a': 1}"]),
        ("tuple<int, text>", ["(1, 2)", "(1, 'a', 2)", "[1]"]),
        ("vector<float, 2>", ["[1.0]", "[1.0, 2.0, 3.0]", "{1.0, 2.0}"]),
    ],
)
def test_wrong_literals_are_invalid(session, name, literals):
    session.execute(f"CREATE TABLE t (k int PRIMARY KEY, v {name})")
    for literal in literals:
        with pytest.raises(InvalidRequest):
            session.execute(f"INSERT INTO t (k, v) VALUES (0, {literal})")
            pytest.fail(f"{name} took {literal}")
    assert session.execute("SELECT * FROM t").one() is None


def test_wrong_bytes_are_invalid(session):
    """Bound bytes that are no value of the type are refused before anything is written."""
    session.execute("CREATE TABLE t (k int PRIMARY KEY, i int, t text, a ascii, l list<int>, u uuid)")
    for column, value in [("i", b"\x00"), ("t", b"\xff\xfe"), ("a", b"\x80"), ("l", b"\x00\x00\x00\x05"), ("u", b"\x01")]:
        insert = session.prepare(f"INSERT INTO t (k, {column}) VALUES (?, ?)")
        bound = insert.bind((0, None))
        bound.values = [b"\x00\x00\x00\x00", value]
        with pytest.raises(InvalidRequest):
            session.execute(bound)
            pytest.fail(f"{column} took {value!r}")
    assert session.execute("SELECT * FROM t").one() is None
