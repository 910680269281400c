#!/usr/bin/env python3
"""The full-disk test: a node on a file system of its own, small, that fills up while clients write.

    fill -> refuse -> reads go on -> SIGKILL -> start on the full disk -> reads go on -> space back -> writes resume

The file system is an ext4 image on a loop device, or a tmpfs where that is not permitted; without the right to mount
either the test says so in one line and counts nothing. Every acknowledged row must be there at each step.
"""

import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients" / "python"))

from server import Server  # noqa: E402
from session import connect  # noqa: E402

FILE_SYSTEM_MEBIBYTES = 320
BALLAST_MEBIBYTES = 160
VALUE_BYTES = 60_000
IN_FLIGHT = 32
REFUSALS = 40
RESUME_SECONDS = 60
FILL_SECONDS = 120
REQUEST_TIMEOUT_SECONDS = 15


class Failure(Exception):
    """The node did what it must not."""


def run(*command):
    """Runs a command as root, or through sudo where that asks nothing; False when it fails."""
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    try:
        return subprocess.run([*prefix, *command], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def mount(image, folder):
    """Mounts a small file system; its kind, or None where that is not permitted."""
    owner = f"{os.geteuid()}:{os.getegid()}"
    with open(image, "wb") as file:
        file.truncate(FILE_SYSTEM_MEBIBYTES << 20)
    if shutil.which("mkfs.ext4") and run("mkfs.ext4", "-q", "-m", "0", str(image)):
        if run("mount", "-o", "loop", str(image), str(folder)):
            run("chown", owner, str(folder))
            return "ext4"
    if run("mount", "-t", "tmpfs", "-o", f"size={FILE_SYSTEM_MEBIBYTES}m", "tmpfs", str(folder)):
        run("chown", owner, str(folder))
        return "tmpfs"
    return None


class FullDisk:
    def __init__(self, seed, folder):
        self.random = random.Random(seed)
        self.server = Server(folder / "data", shards=2, log=folder.parent / "server.log")
        self.ballast = folder / "ballast"
        self.acknowledged = {}
        self.next_key = 0
        self.session = self.cluster = None

    def open(self):
        self.server.start()
        self.cluster, self.session = connect(self.server, REQUEST_TIMEOUT_SECONDS)

    def close(self):
        if self.cluster is not None:
            self.cluster.shutdown()

    def statement(self):
        return self.session.prepare("INSERT INTO filled.t (k, v) VALUES (?, ?)")

    def burst(self, statement):
        """Several writes at once; the errors of those that were refused."""
        sent = []
        for _ in range(IN_FLIGHT):
            key, value = self.next_key, self.random.randbytes(VALUE_BYTES)
            self.next_key += 1
            sent.append((key, value, self.session.execute_async(statement, (key, value))))
        errors = []
        for key, value, future in sent:
            try:
                future.result()
                self.acknowledged[key] = hash(value)
            except Exception as error:  # noqa: BLE001 - what it says is looked at below
                errors.append(str(error))
        return errors

    def fill(self):
        statement, errors = self.statement(), []
        deadline = time.monotonic() + FILL_SECONDS
        while len(errors) < REFUSALS:
            if time.monotonic() > deadline:
                raise Failure(f"{len(self.acknowledged)} writes, and the disk did not fill up")
            errors += self.burst(statement)
            if not self.server.is_alive():
                raise Failure(f"the node ended on a full disk:\n{self.server.log_tail()}")
        return errors

    def check_readiness(self):
        """A node that takes no writes is not ready, and says why."""
        status, document = self.server.readiness()
        reasons = [shard["reason"] for shard in document.get("shards", [])]
        if status != 503 or not any("disk full" in reason for reason in reasons):
            raise Failure(f"/ready on the full disk: {status} {document}")

    def await_readiness(self):
        """A flush that met the full disk is tried again some seconds later."""
        deadline = time.monotonic() + RESUME_SECONDS
        while (readiness := self.server.readiness())[0] != 200:
            if time.monotonic() > deadline:
                raise Failure(f"/ready though there is space: {readiness}")
            time.sleep(0.5)

    def check(self, moment):
        found = {row.k: hash(row.v) for row in self.session.execute("SELECT k, v FROM filled.t")}
        lost = [key for key, value in self.acknowledged.items() if found.get(key) != value]
        if lost:
            raise Failure(f"{moment}: {len(lost)} of {len(self.acknowledged)} acknowledged rows are lost: {lost[:5]}")

    def resume(self):
        statement = self.statement()
        deadline = time.monotonic() + RESUME_SECONDS
        while errors := self.burst(statement):
            if time.monotonic() > deadline:
                raise Failure(f"writes do not resume though there is space: {errors[0]}")
            time.sleep(0.5)

    def test(self):
        self.ballast.write_bytes(bytes(BALLAST_MEBIBYTES << 20))
        self.open()
        self.session.execute(
            "CREATE KEYSPACE filled WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"
        )
        self.session.execute("CREATE TABLE filled.t (k int PRIMARY KEY, v blob) WITH compression = {'enabled': false}")
        errors = self.fill()
        if not any("disk full" in error for error in errors):
            raise Failure(f"no refusal names the full disk, but: {sorted(set(errors))[:3]}")
        print(f"full after {len(self.acknowledged)} rows: {[e for e in errors if 'disk full' in e][0][:160]}", flush=True)
        self.check_readiness()
        self.check("on the full disk")
        self.close()
        self.server.kill()
        self.open()
        self.check("after a start on the full disk")
        self.ballast.unlink()
        self.resume()
        self.check("after writes had resumed")
        self.await_readiness()
        self.close()
        if self.server.stop() != 0:
            raise Failure(f"no orderly end:\n{self.server.log_tail()}")
        self.open()
        self.check("after the last start")
        self.close()


def main():
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else int(time.time())
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ceto-full-"))
    mounted = folder / "mounted"
    mounted.mkdir()
    kind = mount(folder / "image", mounted)
    if kind is None:
        shutil.rmtree(folder, ignore_errors=True)
        print("full-disk test skipped: this machine does not let us mount a file system")
        print("0 passed, 0 failed")
        return 0
    print(f"full-disk test: seed {seed}, {kind} of {FILE_SYSTEM_MEBIBYTES} MiB", flush=True)
    test, failed = FullDisk(seed, mounted), 0
    try:
        test.test()
    except Exception as error:  # noqa: BLE001 - every failure ends the test the same way
        failed = 1
        print(f"FAILED (seed {seed}): {type(error).__name__}: {error}\n{test.server.log_tail()}", flush=True)
    finally:
        test.server.kill()
        run("umount", str(mounted)) or run("umount", "-l", str(mounted))
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{len(test.acknowledged)} acknowledged writes")
    print(f"{1 - failed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(main())
