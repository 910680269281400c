"""Snapshots, backups and restores through nodetool, with a driver that looks at the data."""

import glob
import json
import os
import re
import shutil
import time

import pytest

pytestmark = [pytest.mark.one_variant, pytest.mark.one_driver]


@pytest.fixture
def filled(session):
    session.execute("CREATE TABLE t (k int PRIMARY KEY, v text)")
    insert = session.prepare("INSERT INTO t (k, v) VALUES (?, ?)")
    for key in range(200):
        session.execute(insert, (key, f"value {key}"))
    return session


def count(session):
    return session.execute("SELECT count(*) FROM t").one()[0]


def table_folder(server, session, table="t"):
    (folder,) = glob.glob(os.path.join(server.data, "data", session.keyspace, f"{table}-*"))
    return folder


def snapshots(server):
    """Rows of listsnapshots: name, keyspace, table."""
    lines = server.nodetool("listsnapshots").splitlines()
    assert lines[0].rstrip() == "Snapshot Details:"
    return {tuple(line.split()[:3]) for line in lines[2:] if line and not line.startswith("Total")}


def test_a_snapshot_is_taken_listed_restored_and_cleared(server, filled):
    keyspace = filled.keyspace
    out = server.nodetool("snapshot", "-t", "first", keyspace)
    assert f"snapshot(s) for [{keyspace}] with snapshot name [first]" in out
    assert out.endswith("Snapshot directory: first\n")
    assert ("first", keyspace, "t") in snapshots(server)
    folder = table_folder(server, filled)
    shot = os.path.join(folder, "snapshots", "first")
    manifest = json.load(open(os.path.join(shot, "manifest.json")))
    assert manifest["files"] and all(os.path.exists(os.path.join(shot, file)) for file in manifest["files"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", manifest["created_at"])
    schema = open(os.path.join(shot, "schema.cql")).read()
    assert f"CREATE TABLE {keyspace}.t" in schema
    for file in manifest["files"]:
        assert os.stat(os.path.join(shot, file)).st_nlink == 2, "a link, no copy"
    filled.execute("TRUNCATE t")
    assert count(filled) == 0
    filled.execute("INSERT INTO t (k, v) VALUES (1000, 'later')")
    kept = [file for file in os.listdir(shot) if file.startswith("ceto-")]
    # A truncation lets go of its files when nobody reads them any more.
    deadline = time.monotonic() + 20
    while any(os.path.exists(os.path.join(folder, file)) for file in kept) and time.monotonic() < deadline:
        time.sleep(0.1)
    for file in kept:
        shutil.copy(os.path.join(shot, file), folder)
    server.nodetool("refresh", keyspace, "t")
    assert count(filled) == 201
    assert filled.execute("SELECT v FROM t WHERE k = 77").one().v == "value 77"
    server.nodetool("clearsnapshot", "-t", "first", keyspace)
    assert ("first", keyspace, "t") not in snapshots(server)
    assert not os.path.exists(shot)
    assert count(filled) == 201


def test_flags_and_mistakes(server, filled):
    keyspace = filled.keyspace
    filled.execute("CREATE TABLE u (k int PRIMARY KEY)")
    server.nodetool("snapshot", "-t", "one", "-cf", "t", keyspace)
    server.nodetool("snapshot", "-t", "two", "-kt", f"{keyspace}.t,{keyspace}.u")
    server.nodetool("snapshot", "-t", "three", "-sf", "--ttl", "1d", keyspace)
    found = {row for row in snapshots(server) if row[1] == keyspace}
    assert found == {
        ("one", keyspace, "t"), ("two", keyspace, "t"), ("two", keyspace, "u"),
        ("three", keyspace, "t"), ("three", keyspace, "u"),
    }
    without = server.nodetool("listsnapshots", "-nt")
    assert "two" in without and "three" not in without
    for words, text in [
        (["snapshot", "-t", "one", "-cf", "t", keyspace], "Snapshot one already exists"),
        (["snapshot", "-t", "a/b", keyspace], "cannot contain /"),
        (["snapshot", "-t", "x", "--ttl", "5s", keyspace], "at least 60 seconds"),
        (["snapshot", "-t", "x", "nosuch"], "does not exist"),
        (["clearsnapshot"], "Specify snapshot name or --all"),
        (["refresh", keyspace, "nosuch"], "Unknown keyspace/cf pair"),
    ]:
        with pytest.raises(RuntimeError, match=text):
            server.nodetool(*words)
    server.nodetool("clearsnapshot", "--all", keyspace)
    assert not [row for row in snapshots(server) if row[1] == keyspace]


def test_incremental_backups(server, filled):
    keyspace = filled.keyspace
    backups = os.path.join(table_folder(server, filled), "backups")
    assert server.nodetool("statusbackup") == "not running\n"
    server.nodetool("flush", keyspace)
    assert not os.path.exists(backups)
    server.nodetool("enablebackup")
    assert server.nodetool("statusbackup") == "running\n"
    filled.execute("INSERT INTO t (k, v) VALUES (1, 'again')")
    server.nodetool("flush", keyspace)
    assert len(glob.glob(os.path.join(backups, "*-Data.db"))) == 1
    server.nodetool("disablebackup")
    assert server.nodetool("statusbackup") == "not running\n"


def test_import_into_a_table_made_again(server, filled):
    keyspace = filled.keyspace
    server.nodetool("snapshot", "-t", "kept", keyspace)
    shot = os.path.join(table_folder(server, filled), "snapshots", "kept")
    filled.execute("DROP TABLE t")
    assert ("kept", keyspace, "t") in snapshots(server), "a snapshot outlives its table"
    filled.execute("CREATE TABLE t (k int PRIMARY KEY, v text)")
    server.nodetool("import", "--copy-data", keyspace, "t", shot)
    assert count(filled) == 200
    server.nodetool("clearsnapshot", "--all", keyspace)
    filled.execute("CREATE TABLE other (k int PRIMARY KEY, v int)")
    with pytest.raises(RuntimeError, match="Some directories failed to import"):
        server.nodetool("import", keyspace, "other", "relative/path")
