"""Cuts between nodes: one way or both ways, on the loopback device of a network namespace of the tests' own.

A class of traffic whose queue holds nothing drops what a filter sends into it; a filter names the sender's and the
receiver's address. Packets vanish as on a broken line: nobody is told. Where a namespace is not allowed, or its kernel knows no such
classes, the tests that cut are skipped.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess

from cluster import address

OPEN, CUT = "1:1", "1:2"
# From <sched.h>.
CLONE_NEWUSER, CLONE_NEWNET = 0x1000_0000, 0x4000_0000


def enter_own():
    """Moves this process, and so what it starts from now on, into a network namespace of its own with a loopback device.
    Call it while there is one thread. None, or why it cannot be."""
    missing = [program for program in ("ip", "tc") if not shutil.which(program)]
    if missing:
        return f"no {' and no '.join(missing)}: install iproute2"
    user, group = os.getuid(), os.getgid()
    flags = CLONE_NEWNET if user == 0 else CLONE_NEWNET | CLONE_NEWUSER
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        return f"no network namespace: {os.strerror(ctypes.get_errno())}"
    try:
        if flags & CLONE_NEWUSER:
            for file, text in [("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")]:
                with open(f"/proc/self/{file}", "w", encoding="ascii") as out:
                    out.write(text)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        Network()
    except (OSError, subprocess.CalledProcessError, AssertionError) as error:
        return f"no cuts of lines: {error}"
    return None


def tc(*arguments):
    outcome = subprocess.run(["tc", *arguments], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, f"tc {' '.join(arguments)}: {outcome.stderr}"


class Network:
    """The lines between nodes."""

    def __init__(self):
        self.preferences = {}
        subprocess.run(["tc", "qdisc", "del", "dev", "lo", "root"], capture_output=True, check=False)
        tc("qdisc", "add", "dev", "lo", "root", "handle", "1:", "htb", "default", OPEN.partition(":")[2])
        tc("class", "add", "dev", "lo", "parent", "1:", "classid", OPEN, "htb", "rate", "100gbit", "quantum", "200000")
        tc("class", "add", "dev", "lo", "parent", "1:", "classid", CUT, "htb", "rate", "8bit", "burst", "1",
           "cburst", "1", "quantum", "1000")
        tc("qdisc", "add", "dev", "lo", "parent", CUT, "handle", "2:", "bfifo", "limit", "1")

    def cut(self, sender, receiver):
        """Nothing more of one node reaches the other; the other way stays."""
        if (sender, receiver) not in self.preferences:
            preference = str(10 + max(map(int, self.preferences.values()), default=0))
            tc("filter", "add", "dev", "lo", "parent", "1:", "prio", preference, "protocol", "ip", "u32",
               "match", "ip", "src", address(sender), "match", "ip", "dst", address(receiver), "flowid", CUT)
            self.preferences[sender, receiver] = preference

    def mend(self):
        """Everything reaches everybody."""
        for preference in self.preferences.values():
            tc("filter", "del", "dev", "lo", "parent", "1:", "prio", preference)
        self.preferences.clear()

    @contextlib.contextmanager
    def without(self, *lines):
        """Lines as pairs of sender and receiver, cut for a while."""
        try:
            for sender, receiver in lines:
                self.cut(sender, receiver)
            yield
        finally:
            self.mend()
