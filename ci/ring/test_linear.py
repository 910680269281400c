"""The checker itself: it takes histories of one register, and refuses those that no register can have."""

import pytest

from linear import Attempt, Look, Violation, check

ONE = Attempt(0, 1, None, "a", True)
TWO = Attempt(2, 3, "a", "b", True)


def test_a_register():
    check([ONE, TWO], [Look(0, 0.5, None), Look(0.5, 0.9, "a"), Look(2.5, 2.6, "a"), Look(2.5, 2.7, "b"), Look(4, 5, "b")])


def test_an_unknown_change_may_come_late_or_never():
    unknown = Attempt(2, 3, "a", "c", False)
    check([ONE, unknown], [Look(4, 5, "a")])
    check([ONE, unknown], [Look(4, 5, "a"), Look(6, 7, "c")])
    check([ONE, unknown, Attempt(8, 9, "c", "d", True)], [])


@pytest.mark.parametrize(
    ("attempts", "looks"),
    [
        ([ONE], [Look(2, 3, None)]),
        ([ONE], [Look(2, 3, "x")]),
        ([ONE, TWO], [Look(4, 5, "a")]),
        ([ONE, TWO], [Look(1.1, 1.2, "b")]),
        ([ONE, TWO, Attempt(2, 3, "a", "c", True)], []),
        ([ONE, Attempt(2, 3, "a", "b", False), Attempt(2, 3, "a", "c", True)], [Look(4, 5, "b")]),
        ([Attempt(0, 1, "x", "y", True)], []),
        ([ONE, Attempt(2, 3, "a", "c", False)], [Look(4, 5, "c"), Look(6, 7, "a")]),
    ],
    ids=["lost", "unwritten", "stale", "early", "twice", "twice, one unknown", "from nowhere", "taken back"],
)
def test_no_register(attempts, looks):
    with pytest.raises(Violation):
        check(attempts, looks)
