"""The example corpus: every CQL statement of the requirements document, as printed. See ci/corpus.

Each section has a keyspace of its own. A statement runs, or is refused with the error that the corpus names; then its
repaired form runs.
"""

import collections
import datetime
import decimal
import itertools
import os
import pathlib
import sys
import uuid

import pytest

from cassandra import AlreadyExists, InvalidRequest, Unauthorized
from cassandra.protocol import ConfigurationException, SyntaxException
from cassandra.util import Date, Time

import test_cqlsh
from conftest import IS_SHARD_AWARE_DRIVER, VARIANTS, connect
from server import REPOSITORY
from test_roles import guarded, logged_in  # noqa: F401

sys.path.insert(0, str(REPOSITORY / "ci" / "corpus"))

import corpus  # noqa: E402
import extract  # noqa: E402

pytestmark = [pytest.mark.one_variant, pytest.mark.one_driver]

ERRORS = {
    "Syntax": SyntaxException,
    "Invalid": InvalidRequest,
    "Config": ConfigurationException,
    "AlreadyExists": AlreadyExists,
    "Unauthorized": Unauthorized,
}
REPLICATION = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
# The newest protocol of the driver; what a statement means does not depend on it.
VARIANT = sorted(VARIANTS)[-1]

SECTIONS = corpus.load()
numbers = itertools.count()


@pytest.fixture(scope="module")
def corpus_session(server):
    cluster = connect(server, VARIANT, schema_metadata_enabled=False, token_metadata_enabled=False)
    yield cluster.connect()
    cluster.shutdown()


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.where)
def test_section(section, request):
    if not section.is_guarded:
        run_section(section, request.getfixturevalue("corpus_session"), request)
        return
    with logged_in(request.getfixturevalue("guarded"), VARIANT) as root:
        run_section(section, root, request)


def run_section(section, session, request):
    keyspace = f"corpus_{next(numbers)}"
    fixed = section.keyspaces
    for name in fixed:
        session.execute(f"DROP KEYSPACE IF EXISTS {name}")
    session.execute(f"CREATE KEYSPACE {keyspace} WITH replication = {REPLICATION}")
    try:
        session.set_keyspace(keyspace)
        for statement in section.statements:
            is_shell = section.shell_output is not None and statement.role != "given"
            if not is_shell:
                run_statement(session, keyspace, statement)
        if section.shell_output is not None:
            run_shell(section, keyspace, request)
    finally:
        for name in [keyspace, *fixed]:
            session.execute(f"DROP KEYSPACE IF EXISTS {name}")


def run_statement(session, keyspace, statement):
    *before, last = statement.parts()
    if statement.line is None:
        before = [text.replace("$KEYSPACE", keyspace) for text in before]
        last = last.replace("$KEYSPACE", keyspace)
    for text in before:
        session.execute(text)
    if statement.error is not None:
        kind, text = statement.error
        with pytest.raises(ERRORS[kind]) as refusal:
            execute(session, last, statement)
        assert text.lower() in str(refusal.value).lower(), f"{statement.where}: {refusal.value}"
        return
    try:
        rows = execute(session, last, statement)
    except Exception as error:
        raise AssertionError(f"{statement.where}: {last}\n{error}") from error
    if statement.rows is not None:
        found = [[plain(value) for value in row] for row in rows]
        assert len(found) == len(statement.rows), f"{statement.where}: {found}"
        for row, expected in zip(found, statement.rows):
            masked = ["*" if wanted == "*" else value for value, wanted in zip(row, expected)]
            assert masked == expected, f"{statement.where}: {found}"


def execute(session, text, statement):
    if statement.values is None:
        return list(session.execute(text))
    if statement.is_formatted:
        return list(session.execute(text, statement.values))
    prepared = session.prepare(text)
    values = [typed(value, column.type) for value, column in zip(statement.values, prepared.column_metadata)]
    return list(session.execute(prepared, values))


def typed(value, column_type):
    """A value of JSON as the driver takes it for a type."""
    if column_type.typename in ("uuid", "timeuuid"):
        return uuid.UUID(value)
    if column_type.typename == "timestamp":
        return datetime.datetime.fromisoformat(value)
    return value


def plain(value):
    """A value of the driver as the corpus writes it: JSON's kinds, everything else as text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (uuid.UUID, decimal.Decimal, datetime.datetime, Date, Time)):
        return str(value)
    if hasattr(value, "items"):
        return {str(plain(key)): plain(element) for key, element in value.items()}
    return [plain(element) for element in value]


def run_shell(section, keyspace, request):
    """A script of cqlsh, as the document shows it."""
    if IS_SHARD_AWARE_DRIVER:
        pytest.skip("cqlsh belongs to the other driver")
    shell = test_cqlsh.Shell(request.getfixturevalue("server"), request.getfixturevalue("tmp_path"))
    script = "\n".join(statement.text for statement in section.printed())
    assert section.shell_output in shell.run(script, f"--keyspace={keyspace}")


def document():
    """The requirements document's text; it is not part of the repository."""
    folder = pathlib.Path(os.environ.get("CETO_REQUIREMENTS", REPOSITORY.parent / "shared" / "requirements"))
    texts = sorted(folder.glob("*.txt")) if folder.is_dir() else [folder] * folder.is_file()
    if not texts:
        pytest.skip(f"no requirements document at {folder} (CETO_REQUIREMENTS)")
    return "\n".join(path.read_text(encoding="utf-8") for path in texts)


def test_corpus_has_every_statement_of_the_document():
    printed = [
        (statement.line, statement.text)
        for section in SECTIONS for statement in section.printed() if statement.role == "line"
    ]
    assert sorted(printed) == extract.extract(document())


def test_corpus_has_every_fragment_of_the_document():
    around = [
        statement for section in SECTIONS for statement in section.printed() if statement.role == "fragment"
    ]
    found = collections.Counter((statement.line, statement.code) for statement in around)
    assert found == collections.Counter(extract.fragments(document()))
    for statement in around:
        core = statement.code.strip("{}").removesuffix(")") if statement.code[-1] in "})" else statement.code
        assert core in statement.text, f"{statement.where}: {statement.code} is not in the statement"
