"""Whether what clients saw of registers, changed by compare and set alone, can have happened one after the other.

Every value is written by one attempt only, so the changes that took place form one chain from nothing to the last value,
and a value's place in the chain is the register's version. A history is linearizable exactly if versions never go
back in real time:

    A ended before B began    =>    version(A) <= version(B), and < where B is a change

An attempt whose outcome is unknown has taken place if anybody has seen its value; it may have taken place at any time
after it began.
"""

from collections import namedtuple

# A change of `old` into `new` that was applied, or (is_known is False) whose outcome nobody was told.
Attempt = namedtuple("Attempt", "began ended old new is_known")
# The register held `value`: a read, or an attempt that was refused for it.
Look = namedtuple("Look", "began ended value")

NOTHING = None


class Violation(Exception):
    """A history that no single register can have."""


def versions(attempts, looks):
    """Value -> place in the chain. Attempts of unknown outcome count when their value was seen, or was changed by others."""
    seen = {look.value for look in looks} | {attempt.old for attempt in attempts if attempt.is_known}
    by_new = {attempt.new: attempt for attempt in attempts}
    took_place = [attempt for attempt in attempts if attempt.is_known]
    waiting = [value for value in seen if value is not NOTHING]
    counted = {attempt.new for attempt in took_place}
    waiting += [attempt.old for attempt in took_place if attempt.old is not NOTHING]
    while waiting:
        value = waiting.pop()
        if value in counted:
            continue
        if value not in by_new:
            raise Violation(f"{value} was found, which nobody wrote")
        counted.add(value)
        took_place.append(by_new[value])
        if by_new[value].old is not NOTHING:
            waiting.append(by_new[value].old)
    successors = {}
    for attempt in took_place:
        if attempt.old in successors:
            raise Violation(f"{attempt.old} was changed twice: into {successors[attempt.old]} and into {attempt.new}")
        successors[attempt.old] = attempt.new
    chain, value = {NOTHING: 0}, NOTHING
    while value in successors:
        value = successors[value]
        chain[value] = len(chain)
    astray = [attempt for attempt in took_place if attempt.new not in chain]
    if astray:
        raise Violation(f"{astray[0].old} was changed into {astray[0].new}, but nothing led to it")
    return chain


def check(attempts, looks):
    """Raises Violation unless one register can have done all this."""
    chain = versions(attempts, looks)
    # (moment of the beginning, moment of the end, version, is a change)
    events = [(look.began, look.ended, chain[look.value], False) for look in looks]
    for attempt in attempts:
        if attempt.new in chain:
            ended = attempt.ended if attempt.is_known else float("inf")
            events.append((attempt.began, ended, chain[attempt.new], True))
    by_end = sorted(events, key=lambda event: event[1])
    newest, position = -1, 0
    for began, _, version, is_change in sorted(events, key=lambda event: event[0]):
        while position < len(by_end) and by_end[position][1] < began:
            newest = max(newest, by_end[position][2])
            position += 1
        if version < newest or (is_change and version == newest):
            what = "a change to" if is_change else "a look at"
            raise Violation(f"{what} version {version} began after version {newest} was seen")
