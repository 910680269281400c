"""The crash test's own model: it must find what is lost, and must not cry wolf."""

import time

import pytest

from model import ABSENT, Expiring, Model, Violation

CELL = ("plain", 1, 2, "v")


def test_an_acknowledged_write_must_be_there():
    model = Model()
    model.acknowledge({CELL: "a"})
    model.check_table("plain", {CELL: "a"})
    model.acknowledge({CELL: "b"})
    for found in ({}, {CELL: "a"}, {CELL: "c"}):
        with pytest.raises(Violation):
            model.check_table("plain", found)


def test_an_unknown_write_may_be_there_and_is_settled_by_reading():
    for found in ("a", "b"):
        model = Model()
        model.acknowledge({CELL: "a"})
        model.doubt({CELL: "b"})
        model.check_table("plain", {CELL: found})
        with pytest.raises(Violation):
            model.check_table("plain", {CELL: "b" if found == "a" else "a"})


def test_a_deletion_must_hold():
    model = Model()
    model.acknowledge({CELL: "a"})
    model.acknowledge({CELL: ABSENT})
    model.check_table("plain", {})
    with pytest.raises(Violation):
        model.check_table("plain", {CELL: "a"})


def test_what_nobody_wrote_must_not_be_there():
    with pytest.raises(Violation):
        Model().check_table("plain", {CELL: "a"})


def test_expiry():
    name, now = ("expiring", 1, "v"), time.time()
    cases = [((1, 600, now, now), {1}), ((1, 600, now - 700, now - 700), {ABSENT}), ((1, 5, now - 5, now - 5), {1, ABSENT})]
    for arguments, expected in cases:
        model = Model()
        model.acknowledge({name: Expiring(*arguments)})
        assert model.possible(name) == expected
    model = Model()
    model.acknowledge({name: Expiring(1, 600, now, now)})
    model.check_table("expiring", {name: 1})
    assert model.possible(name) == {1}
