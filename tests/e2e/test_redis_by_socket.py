"""Redis by a Unix socket, as without containers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Installation, installation


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path, by_socket=True, TASK_TIME_LIMIT="60") as service:
        service.start_api()
        service.start_worker()
        yield service


def test_an_outage_is_said_and_survived(service: Installation, picture: bytes) -> None:
    before = service.submit("echo", picture)
    service.result(before)

    service.redis.process.stop()
    refused = service.post("echo", picture)
    service.redis.start()

    assert refused.status_code == 503
    assert refused.json()["code"] == "broker_unavailable"
    assert service.result(before)["job_id"] == before
    service.result(service.submit("echo", picture))
