"""The node fixture of the client tests."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients" / "python"))

from server import Server  # noqa: E402


@pytest.fixture
def server(tmp_path):
    node = Server(tmp_path / "data", shards=2).start()
    yield node
    assert node.stop() == 0
