"""A node under test: the ceto binary on free loopback ports, started and ended by its process id."""

import json
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
READY_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 60


def binary():
    """The binary to test: $CETO_BINARY, or the release build."""
    target = os.environ.get("CARGO_TARGET_DIR", str(REPOSITORY / "target"))
    return os.environ.get("CETO_BINARY", os.path.join(target, "release", "ceto"))


def free_ports(count):
    """Ports that were free a moment ago, all different."""
    sockets = []
    for _ in range(count):
        candidate = socket.socket()
        candidate.bind(("127.0.0.1", 0))
        sockets.append(candidate)
    ports = [candidate.getsockname()[1] for candidate in sockets]
    for candidate in sockets:
        candidate.close()
    return ports


class Server:
    """One node. start() waits until it serves; stop() drains it; kill() is a crash."""

    def __init__(self, data, shards=2, log=None, arguments=()):
        self.data = str(data)
        self.shards = shards
        self.native_port, self.shard_aware_port, self.admin_port, self.metrics_port = free_ports(4)
        self.log_path = str(log) if log else os.path.join(os.path.dirname(self.data), "server.log")
        self.arguments = list(arguments)
        self.process = None
        self.ready_line = None
        self.ready_seconds = None

    def command(self):
        return [
            binary(), "dev", "--shards", str(self.shards), "--data", self.data, "--listen", "127.0.0.1",
            "--native-port", str(self.native_port), "--shard-aware-port", str(self.shard_aware_port),
            "--admin-port", str(self.admin_port), "--metrics-port", str(self.metrics_port), *self.arguments,
        ]

    def start(self):
        command = self.command()
        began = time.monotonic()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        self.ready_line = self._read_ready_line(began + READY_TIMEOUT_SECONDS)
        self.ready_seconds = time.monotonic() - began
        return self

    def _read_ready_line(self, deadline):
        received = b""
        descriptor = self.process.stdout.fileno()
        while b"\n" not in received:
            readable, _, _ = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))
            chunk = os.read(descriptor, 4096) if readable else b""
            if not chunk:
                status = self.process.poll()
                self.kill()
                raise RuntimeError(f"the server did not become ready (status {status}):\n{self.log_tail()}")
            received += chunk
        line = received.decode().splitlines()[0]
        if not line.startswith("ready: CQL "):
            self.kill()
            raise RuntimeError(f"unexpected first line of output: {line}")
        return line

    def log_tail(self, lines=40):
        with open(self.log_path, errors="replace") as log:
            return "".join(log.readlines()[-lines:])

    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    def stop(self):
        """SIGTERM; returns the exit status, which is 0 after an orderly drain."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._forget()
        return status

    def kill(self):
        """SIGKILL."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self._forget()

    def _forget(self):
        self.process.stdout.close()
        self.process = None

    def nodetool(self, *arguments):
        """Runs a nodetool verb on this node; returns its output, raises if it fails."""
        command = [binary(), "nodetool", "-h", "127.0.0.1", "-p", str(self.admin_port), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if result.returncode != 0:
            raise RuntimeError(f"nodetool {arguments}: exit code {result.returncode}: {result.stderr.strip()}")
        return result.stdout

    def readiness(self):
        """Status code and document of /ready."""
        url = f"http://127.0.0.1:{self.admin_port}/ready"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refusal:
            return refusal.code, json.load(refusal)

    def metrics(self):
        """The samples of the metrics port: {(name, frozenset of label pairs): value}."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            text = answer.read().decode()
        samples = {}
        for line in text.splitlines():
            match = re.match(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if match and not line.startswith("#"):
                labels = frozenset(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match.group(2) or ""))
                samples[match.group(1), labels] = float(match.group(3))
        return samples

    def counter(self, name, **labels):
        """The sum of a metric's samples that have these labels."""
        wanted = set(labels.items())
        return sum(value for (metric, found), value in self.metrics().items() if metric == name and wanted <= found)
