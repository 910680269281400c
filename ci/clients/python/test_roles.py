"""Roles and permissions: logging in, what is refused, that a change holds at once on every connection and shard, and
that all of it is there after a kill."""

import contextlib

import pytest

from cassandra import AuthenticationFailed, InvalidRequest, Unauthorized
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import NoHostAvailable

from conftest import VARIANTS, connect
from server import Server

pytestmark = pytest.mark.one_variant

KEYSPACE = "CREATE KEYSPACE ks WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A node where clients have to log in, with a keyspace and a table."""
    node = Server(tmp_path_factory.mktemp("guarded") / "data", shards=2, arguments=["--auth"]).start()
    with logged_in(node, sorted(VARIANTS)[0]) as root:
        root.execute(KEYSPACE)
        root.execute("CREATE TABLE ks.t (k int PRIMARY KEY, v int)")
    yield node
    assert node.stop() == 0, node.log_tail()


@contextlib.contextmanager
def logged_in(node, variant, name="cassandra", password=None):
    provider = PlainTextAuthProvider(name, name if password is None else password)
    cluster = connect(node, variant, auth_provider=provider)
    try:
        yield cluster.connect()
    finally:
        cluster.shutdown()


@contextlib.contextmanager
def role(root, name, options=""):
    root.execute(f"CREATE ROLE {name} WITH PASSWORD = '{name}' AND LOGIN = true {options}")
    try:
        yield name
    finally:
        root.execute(f"DROP ROLE {name}")


def refused_login(node, variant, **credentials):
    with pytest.raises(NoHostAvailable) as refusal, logged_in(node, variant, **credentials):
        pass
    (error,) = refusal.value.errors.values()
    assert isinstance(error, AuthenticationFailed), error
    return str(error)


def test_logging_in(guarded, variant):
    with logged_in(guarded, variant) as root:
        assert root.execute("SELECT cluster_name FROM system.local").one()
        users = {row.username for row in root.execute("SELECT username FROM system_views.clients")}
        assert "cassandra" in users
        root.execute("CREATE ROLE locked WITH PASSWORD = 'locked'")
        texts = [
            refused_login(guarded, variant, password="wrong"),
            refused_login(guarded, variant, name="nobody"),
            refused_login(guarded, variant, name="locked"),
        ]
        root.execute("DROP ROLE locked")
    assert "Provided username cassandra and/or password are incorrect" in texts[0]
    assert "Provided username nobody and/or password are incorrect" in texts[1]
    assert "locked is not permitted to log in" in texts[2]
    with pytest.raises(NoHostAvailable):
        cluster = connect(guarded, variant)
        try:
            cluster.connect()
        finally:
            cluster.shutdown()


def test_permissions_hold_at_once_everywhere(guarded, variant):
    with logged_in(guarded, variant) as root, role(root, "ada"), logged_in(guarded, variant, "ada") as ada:
        insert_text, select_text = "INSERT INTO ks.t (k, v) VALUES (?, ?)", "SELECT v FROM ks.t WHERE k = ?"
        insert, select = ada.prepare(insert_text), ada.prepare(select_text)

        def refused(statement, *values):
            # Twenty keys: both shards, every connection.
            for key in range(20):
                with pytest.raises(Unauthorized, match="has no"):
                    ada.execute(statement, [key, *values])

        refused(select)
        refused(insert, 1)
        root.execute("GRANT MODIFY ON ks.t TO ada")
        for key in range(20):
            ada.execute(insert, [key, key])
        refused(select)
        root.execute("GRANT SELECT ON KEYSPACE ks TO ada")
        assert [ada.execute(select, [key]).one().v for key in range(20)] == list(range(20))
        root.execute("REVOKE SELECT ON KEYSPACE ks FROM ada")
        refused(select)
        # What drivers need is everybody's.
        assert ada.execute("SELECT * FROM system_schema.tables").one()
        assert ada.execute("SELECT * FROM system.local").one()
        for text in [
            "SELECT * FROM system_auth.roles", "CREATE ROLE x", "DROP TABLE ks.t", "ALTER ROLE cassandra WITH PASSWORD = 'x'",
            "ALTER TABLE ks.t ADD w int", "CREATE INDEX ON ks.t (v)", "GRANT MODIFY ON ks.t TO cassandra",
            "CREATE KEYSPACE k2 WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
            "BEGIN BATCH INSERT INTO ks.t (k) VALUES (1); DELETE FROM ks.t WHERE k = 1 IF EXISTS; APPLY BATCH",
        ]:
            with pytest.raises(Unauthorized):
                ada.execute(text)


def test_roles_of_roles(guarded, variant):
    with logged_in(guarded, variant) as root, role(root, "ada"), logged_in(guarded, variant, "ada") as ada:
        root.execute("CREATE ROLE readers")
        root.execute("GRANT SELECT ON ks.t TO readers")
        with pytest.raises(Unauthorized, match="User ada has no SELECT permission on <table ks.t> or any of its parents"):
            ada.execute("SELECT * FROM ks.t")
        root.execute("GRANT readers TO ada")
        ada.execute("SELECT * FROM ks.t")
        with pytest.raises(InvalidRequest, match="ada is a member of readers"):
            root.execute("GRANT ada TO readers")
        listed = {(row.role, row.resource, row.permission) for row in root.execute("LIST ALL PERMISSIONS OF ada")}
        assert ("readers", "<table ks.t>", "SELECT") in listed
        assert {row.role for row in ada.execute("LIST ROLES")} == {"ada", "readers"}
        stored = root.execute("SELECT permissions FROM system_auth.role_permissions WHERE role = 'readers'")
        assert set(stored.one().permissions) == {"SELECT"}
        root.execute("DROP ROLE readers")
        with pytest.raises(Unauthorized):
            ada.execute("SELECT * FROM ks.t")


def test_who_makes_a_table_owns_it(guarded, variant):
    with logged_in(guarded, variant) as root, role(root, "ada"), logged_in(guarded, variant, "ada") as ada:
        root.execute("GRANT CREATE ON KEYSPACE ks TO ada")
        ada.execute("CREATE TABLE ks.own (k int PRIMARY KEY)")
        ada.execute("INSERT INTO ks.own (k) VALUES (1)")
        assert ada.execute("SELECT k FROM ks.own").one().k == 1
        ada.execute("DROP TABLE ks.own")
        root.execute("CREATE TABLE ks.own (k int PRIMARY KEY)")
        with pytest.raises(Unauthorized):
            ada.execute("SELECT k FROM ks.own")
        root.execute("DROP TABLE ks.own")


def test_passwords_change(guarded, variant):
    with logged_in(guarded, variant) as root, role(root, "ada"):
        with logged_in(guarded, variant, "ada") as ada:
            ada.execute("ALTER ROLE ada WITH PASSWORD = 'new'")
            with pytest.raises(Unauthorized):
                ada.execute("ALTER ROLE ada WITH SUPERUSER = true")
        refused_login(guarded, variant, name="ada")
        with logged_in(guarded, variant, "ada", password="new"):
            pass


def test_service_levels(guarded, variant):
    with logged_in(guarded, variant) as root, role(root, "ada"):
        root.execute("CREATE SERVICE LEVEL quick WITH timeout = 750ms AND workload_type = 'interactive'")
        root.execute("ATTACH SERVICE LEVEL quick TO ada")
        listed = root.execute("LIST SERVICE LEVEL quick").one()
        assert (listed.timeout, listed.workload_type) == ("750ms", "interactive")
        attached = root.execute("LIST ATTACHED SERVICE LEVEL OF ada").one()
        assert (attached.role, attached.service_level) == ("ada", "quick")
        with logged_in(guarded, variant, "ada") as ada:
            assert ada.execute("SELECT key FROM system.local").one()
        described = {row.create_statement for row in root.execute("DESCRIBE SCHEMA WITH INTERNALS")}
        assert "ATTACH SERVICE LEVEL quick TO ada;" in described
        root.execute("DROP SERVICE LEVEL quick")


def test_everything_outlives_a_kill(tmp_path):
    node = Server(tmp_path / "data", shards=2, arguments=["--auth"]).start()
    variant = sorted(VARIANTS)[0]
    with logged_in(node, variant) as root:
        root.execute(KEYSPACE)
        root.execute("CREATE TABLE ks.t (k int PRIMARY KEY)")
        root.execute("CREATE ROLE readers")
        root.execute("CREATE ROLE ada WITH PASSWORD = 'ada' AND LOGIN = true")
        root.execute("CREATE ROLE boss WITH PASSWORD = 'boss' AND LOGIN = true AND SUPERUSER = true")
        root.execute("GRANT SELECT ON ks.t TO readers")
        root.execute("GRANT readers TO ada")
    with logged_in(node, variant, "boss") as boss:
        boss.execute("DROP ROLE cassandra")
    node.kill()
    node.shards = 3
    node.start()
    try:
        # The default superuser is not made again.
        refused_login(node, variant)
        with logged_in(node, variant, "ada") as ada:
            assert not ada.execute("SELECT * FROM ks.t").all()
            with pytest.raises(Unauthorized):
                ada.execute("INSERT INTO ks.t (k) VALUES (1)")
        with logged_in(node, variant, "boss") as boss:
            boss.execute("INSERT INTO ks.t (k) VALUES (1)")
    finally:
        assert node.stop() == 0


def test_without_logins_there_is_nobody_to_give_permissions(session):
    for text in ["CREATE ROLE x", "LIST ROLES", "GRANT SELECT ON ALL KEYSPACES TO x", "CREATE SERVICE LEVEL x"]:
        with pytest.raises(Unauthorized, match="You have to be logged in and not anonymous"):
            session.execute(text)
