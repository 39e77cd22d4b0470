"""Identical uploads on the real worker: one inference, by the worker's own count."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.fakes import RUNS
from tests.processes import Installation, wait_for

MANY = 50


@pytest.fixture
def service(service: Installation) -> Installation:
    """With a worker that has loaded its models, and has said so."""
    service.start_worker()
    service.wait_until_ready()
    return service


def processes(service: Installation) -> list[int]:
    """Those that ran, one for each run."""
    runs = service.storage / RUNS
    return [int(line) for line in runs.read_text().splitlines()] if runs.exists() else []


def submit_at_once(service: Installation, picture: bytes, **options: object) -> list[str]:
    with ThreadPoolExecutor(MANY) as pool:
        return list(pool.map(lambda _: service.submit("shared", picture, **options), range(MANY)))


def results(service: Installation, job_ids: list[str]) -> list[dict[str, Any]]:
    return [service.result(job_id, timeout_s=60) for job_id in job_ids]


def uploads(service: Installation) -> set[str]:
    return {path.stem for path in service.storage.glob("uploads/*/*")}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seconds", [0, 2])
def test_many_identical_uploads_at_once_are_one_inference(service: Installation, picture: bytes, seconds: int) -> None:
    job_ids = submit_at_once(service, picture, seconds=seconds)

    found = results(service, job_ids)

    assert len(processes(service)) == 1
    assert len(set(job_ids)) == MANY
    assert [result["job_id"] for result in found] == job_ids
    statuses = [service.status(job_id)["status"] for job_id in job_ids]
    assert statuses == ["completed"] * MANY
    (first,) = [result["job_id"] for result in found if not result["cached"] and not result["coalesced_with"]]
    assert {result["coalesced_with"] for result in found} <= {None, first}
    assert len({result["process_id"] for result in found}) == 1
    assert uploads(service) == {result["job_id"] for result in found if not result["cached"]}
    later = service.result(service.submit("shared", picture, seconds=seconds))
    assert later["cached"] is True
    assert len(processes(service)) == 1


@pytest.mark.timeout(120)
def test_a_shared_run_whose_process_dies_is_run_again_for_all(service: Installation, picture: bytes) -> None:
    job_ids = [service.submit("shared", picture, seconds=5) for _ in range(6)]
    (victim,) = wait_for(lambda: processes(service), what="the run")

    os.kill(victim, signal.SIGKILL)

    found = results(service, job_ids)
    assert {result["attempts"] for result in found} == {2}
    assert len(processes(service)) == 2
    assert victim not in {result["process_id"] for result in found}
