"""What the node must hold: the state of every cell, given which writes were acknowledged.

A cell has one possible value after an acknowledged write, and one more for each write whose outcome is unknown because
the node died before it answered. Every write has a timestamp of its own, greater than those before it on the same
cell, so there is no other doubt. Reading the node after a restart settles what was unknown.

    acknowledged write   {a, b}  ->  {c}
    unknown write        {a, b}  ->  {a, b, c}
    read                 {a, b}  ->  {b}          b must have been possible
"""

import time

# A cell that holds nothing.
ABSENT = None
# Seconds around an expiry in which a cell may be there or not.
EXPIRY_SLACK_SECONDS = 2.5


class Expiring:
    """A value that vanishes between two moments."""

    def __init__(self, value, seconds, sent, answered):
        self.value = value
        self.not_before = sent + seconds - EXPIRY_SLACK_SECONDS
        self.not_after = answered + seconds + EXPIRY_SLACK_SECONDS

    def possible(self, now):
        if now < self.not_before:
            return {self.value}
        if now > self.not_after:
            return {ABSENT}
        return {self.value, ABSENT}

    def __repr__(self):
        return f"Expiring({self.value!r}, {self.not_before - time.time():.1f}..{self.not_after - time.time():.1f} s)"


class Violation(Exception):
    """The node holds what it must not, or does not hold what it must."""


class Model:
    """All cells. A cell's name is a tuple: table, partition key, and what leads to the cell from there.

    Threads work on different partitions, so no lock is needed.
    """

    def __init__(self):
        self.cells = {}
        self.acknowledged = 0
        self.unknown = 0

    def states(self, name):
        return self.cells.get(name, [ABSENT])

    def acknowledge(self, effects):
        self.acknowledged += 1
        for name, value in effects.items():
            self.cells[name] = [value]

    def doubt(self, effects):
        self.unknown += 1
        for name, value in effects.items():
            self.cells[name] = self.states(name) + [value]

    def possible(self, name):
        now = time.time()
        values = set()
        for state in self.states(name):
            values |= state.possible(now) if isinstance(state, Expiring) else {state}
        return values

    def names(self, table):
        return [name for name in self.cells if name[0] == table]

    def settle(self, name, found):
        """The node holds `found` in a cell."""
        possible = self.possible(name)
        if found not in possible:
            raise Violation(f"{name}: found {found!r}, possible {sorted(map(repr, possible))}")
        certain = [state for state in self.states(name) if isinstance(state, Expiring)]
        # What may still expire stays as it is; the rest is known now.
        self.cells[name] = [state for state in certain if state.value == found] or [found]

    def check_table(self, table, found):
        """Compares all cells of a table with those found ({name: value}) and settles them."""
        for name in self.names(table):
            self.settle(name, found.get(name, ABSENT))
        for name, value in found.items():
            if name not in self.cells and value is not ABSENT:
                raise Violation(f"{name}: found {value!r}, which nobody wrote")
