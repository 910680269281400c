"""What the node is asked for while it is under load, so that it is killed in the middle of it.

    truncate   fills a table of its own and truncates it, again and again: each row is there until the truncation
               was asked for, and not after it was acknowledged
    schema     creates tables, puts a row in, adds a column, drops them: what was acknowledged is there, with its row;
               what was dropped is not, and its row is not either when the name is used again
    snapshot   takes snapshots and clears them
"""

from model import ABSENT, Violation
from workload import KEYSPACE

DEFINITIONS = [f"CREATE TABLE {KEYSPACE}.emptied (k int PRIMARY KEY, v int)"]
# Longest time from the order to the kill.
SECONDS = {"truncate": 1.0, "schema": 1.0, "snapshot": 0.5}
EMPTIED_ROWS = 60
TABLE_NAMES = [f"made{number}" for number in range(6)]
SNAPSHOTS = 20


def attempt(session, statement, *arguments):
    """True when the statement was acknowledged; False when nobody knows."""
    try:
        session.execute(statement, *arguments)
    except Exception:  # noqa: BLE001 - the node is killed meanwhile
        return False
    return True


def truncate(model, session):
    names = [("emptied", key, "v") for key in range(EMPTIED_ROWS)]
    for turn in range(1000):
        futures = [
            session.execute_async(f"INSERT INTO {KEYSPACE}.emptied (k, v) VALUES ({key}, {turn})")
            for key in range(EMPTIED_ROWS)
        ]
        alive = True
        for name, future in zip(names, futures):
            try:
                future.result()
                model.acknowledge({name: turn})
            except Exception:  # noqa: BLE001 - as above
                model.doubt({name: turn})
                alive = False
        if not alive:
            return
        done = attempt(session, f"TRUNCATE {KEYSPACE}.emptied")
        for name in names:
            (model.acknowledge if done else model.doubt)({name: ABSENT})
        if not done:
            return


def read_emptied(session):
    return {("emptied", row.k, "v"): row.v for row in session.execute(f"SELECT k, v FROM {KEYSPACE}.emptied")}


class Tables:
    """Tables that come and go. Each holds one row with the number of the turn in which it was made.

    A name's state: absent, or (turn, has its row, has its added column); several where nobody knows.
    """

    def __init__(self, model):
        self.model = model
        self.states = {name: [ABSENT] for name in TABLE_NAMES}
        self.turn = 0

    def change(self, session):
        for _ in range(1000):
            for name in TABLE_NAMES:
                if not self.change_one(session, name):
                    return

    def step(self, session, name, statement, after):
        """One change of a name's state, acknowledged or in doubt."""
        done = attempt(session, statement)
        self.states[name] = [after] if done else self.states[name] + [after]
        (self.model.acknowledge if done else self.model.doubt)({})
        return done

    def change_one(self, session, name):
        [state] = self.states[name]
        table = f"{KEYSPACE}.{name}"
        if state is not ABSENT:
            return self.step(session, name, f"DROP TABLE {table}", ABSENT)
        self.turn += 1
        turn = self.turn
        return (
            self.step(session, name, f"CREATE TABLE {table} (k int PRIMARY KEY, v int)", (turn, False, False))
            and self.step(session, name, f"INSERT INTO {table} (k, v) VALUES (1, {turn})", (turn, True, False))
            and self.step(session, name, f"ALTER TABLE {table} ADD w int", (turn, True, True))
        )

    def check(self, session):
        known = f"WHERE keyspace_name = '{KEYSPACE}'"
        tables = {row.table_name for row in session.execute(f"SELECT table_name FROM system_schema.tables {known}")}
        columns = {
            (row.table_name, row.column_name)
            for row in session.execute(f"SELECT table_name, column_name FROM system_schema.columns {known}")
        }
        for name in TABLE_NAMES:
            found = ABSENT
            if name in tables:
                rows = list(session.execute(f"SELECT k, v FROM {KEYSPACE}.{name}"))
                turns = {state[0] for state in self.states[name] if state is not ABSENT}
                turn = rows[0].v if rows else min(turns, default=0)
                found = (turn, bool(rows), (name, "w") in columns)
            if found not in self.states[name]:
                raise Violation(f"table {name}: found {found}, possible {self.states[name]}")
            self.states[name] = [found]


def snapshot(server):
    for number in range(SNAPSHOTS):
        server.nodetool("snapshot", "-t", f"kept{number}", KEYSPACE)
        if number % 2:
            server.nodetool("clearsnapshot", "-t", f"kept{number - 1}", KEYSPACE)
