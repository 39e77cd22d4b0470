"""What clients of the API do in several tests."""

import asyncio
from typing import Any

import httpx
from fastapi import FastAPI

from app import keys
from app.backend import FencedBackend
from app.errors import TransientError
from app.registry import now_ms
from app.states import State
from tests.api.test_submit import check_problem
from tests.backends import request_of
from tests.pictures import png


async def submit(http: httpx.AsyncClient) -> str:
    """Have a small picture classified."""
    answer = await http.post("/classify", files={"file": ("dog.png", png(8, 8))})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


async def status(http: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    """A job's status document."""
    answer = await http.get(f"/status/{job_id}")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def listed(http: httpx.AsyncClient, name: str) -> list[str]:
    """The jobs of one status."""
    return [job["job_id"] for job in (await http.get("/jobs", params={"status": name})).json()["results"]]


async def cancel(http: httpx.AsyncClient, job_id: str) -> str:
    """Cancel a job. Returns what became of it."""
    answer = await http.post(f"/jobs/{job_id}/cancel")
    assert answer.status_code == 200, answer.text
    assert answer.json()["job_id"] == job_id
    assert answer.json()["urls"]["status"] == f"/status/{job_id}"
    return str(answer.json()["outcome"])


def start(backend: FencedBackend, job_id: str) -> str:
    """Start a run, as a worker process does."""
    return backend.start(job_id, {"progress": 5}, request=request_of(job_id))[0]


def report(backend: FencedBackend, job_id: str) -> str:
    """Go on with a run."""
    return backend.write(job_id, {"progress": 50}, State.INFERENCE, request=request_of(job_id))


def put_aside(backend: FencedBackend, job_id: str) -> None:
    """End an attempt for a passing reason."""
    start(backend, job_id)
    due = now_ms() + 60_000
    backend.store_result(job_id, TransientError("Busy."), "RETRY", request=request_of(job_id), retry_at_ms=due)


def become_due(backend: FencedBackend) -> None:
    """Let the next attempts be due."""
    backend.client.delete(keys.RETRIES)


async def check_cancelled(http: httpx.AsyncClient, job_id: str) -> None:
    """It shows nothing but that."""
    document = await status(http, job_id)
    assert (document["status"], document["state"], document["progress"]) == ("cancelled", "REVOKED", None)
    assert document["finished_at"] == document["updated_at"]
    assert document["error"] is document["retry_at"] is document["queue_position"] is document["eta_s"] is None
    problem = check_problem(await http.get(f"/result/{job_id}"), 409, "job_cancelled")
    assert (problem["job_id"], problem["error"]) == (job_id, None)
    assert job_id in await listed(http, "cancelled")
    assert await cancel(http, job_id) == "already_ended"


async def waited_for(application: FastAPI, job_id: str) -> None:
    """Wait until somebody waits for the job."""
    changes = application.state.service.jobs._changes
    async with asyncio.timeout(10):
        while keys.change(job_id) not in changes._watches:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
