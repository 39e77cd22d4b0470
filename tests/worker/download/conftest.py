"""A client to download with, and the names it knows."""

import socket
from pathlib import Path

import pytest

from tests.downloads import Fetcher
from tests.web import Names


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    return Fetcher(tmp_path)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """The only names that there are."""
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    return names
