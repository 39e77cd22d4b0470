"""Downloads into a folder, from a server of a test's own."""

from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

import pytest

from app.config import Settings
from app.errors import AppError
from app.storage import Storage
from app.worker.download import download
from tests.web import response

MAX_BYTES = 100_000
PICTURE = bytes(range(256)) * 300
#: The one address of this machine that URLs may lead to.
HERE = "127.0.0.2"


@dataclass
class Fetcher:
    """Downloads into a folder."""

    folder: Path
    told: list[float] = field(default_factory=list)

    def get(self, url: str, *exempted: str) -> bytes:
        networks = tuple(ip_network(network) for network in exempted or (f"{HERE}/32",))
        settings = Settings(_env_file=None, allow_urls=True, url_allow_networks=networks, max_file_size=MAX_BYTES)
        with Storage(self.folder).incoming("picture", max_bytes=MAX_BYTES) as upload:
            download(url, into=upload, settings=settings, report=self.told.append)
            upload.finish()
            return upload.path.read_bytes()


def fails(fetcher: Fetcher, url: str, kind: type[AppError], *exempted: str) -> str:
    with pytest.raises(AppError) as failed:
        fetcher.get(url, *exempted)
    assert type(failed.value) is kind
    return failed.value.message


def redirect(location: str, status: str = "302 Found") -> bytes:
    return response(b"moved", status, Location=location)
