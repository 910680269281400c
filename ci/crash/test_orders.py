"""The checks of tables that come and go: they must find what is lost, and must not cry wolf."""

from types import SimpleNamespace

import pytest

from model import ABSENT, Model, Violation
from orders import TABLE_NAMES, Tables


class Session:
    """A node that has one table, or none."""

    def __init__(self, name=None, value=None, columns=("k", "v")):
        self.name, self.value, self.columns = name, value, columns

    def execute(self, statement):
        if "system_schema.tables" in statement:
            return [SimpleNamespace(table_name=self.name)] if self.name else []
        if "system_schema.columns" in statement:
            return [SimpleNamespace(table_name=self.name, column_name=column) for column in self.columns]
        return [SimpleNamespace(k=1, v=self.value)] if self.value is not None else []


def tables(*states):
    result = Tables(Model())
    result.states[TABLE_NAMES[0]] = list(states)
    return result


def test_a_table_that_was_made_must_be_there_with_its_row():
    name = TABLE_NAMES[0]
    made = (4, True, False)
    tables(made).check(Session(name, 4))
    for session in (Session(), Session(name), Session(name, 3), Session(name, 4, ("k", "v", "w"))):
        with pytest.raises(Violation):
            tables(made).check(session)


def test_a_table_that_was_dropped_must_not_be_there():
    tables(ABSENT).check(Session())
    with pytest.raises(Violation):
        tables(ABSENT).check(Session(TABLE_NAMES[0]))


def test_what_is_in_doubt_is_settled_by_looking():
    name = TABLE_NAMES[0]
    doubtful = tables(ABSENT, (7, False, False))
    doubtful.check(Session(name))
    with pytest.raises(Violation):
        doubtful.check(Session())
