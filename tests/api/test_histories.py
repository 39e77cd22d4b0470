"""Whatever happens to identical jobs, in whatever order: each is listed once, as what it is, and none is left stuck.

The test plays clients, worker processes and chores, by lot.
"""

import json
import random

import httpx
import pytest
import redis

from app import keys, queues
from app.backend import FencedBackend
from app.config import Settings
from app.errors import InvalidImage, TransientError
from app.queues import Why
from app.registry import now_ms
from app.states import State
from app.storage import Storage
from app.worker import chores
from tests.api.following import submit
from tests.api.test_submit import files_in
from tests.backends import RESULT, backend_of, request_of
from tests.records import process_of


class History:
    """Some identical jobs, and the processes that run them."""

    def __init__(self, http: httpx.AsyncClient, settings: Settings, client: redis.Redis, lot: random.Random) -> None:
        self.http, self.client, self.lot = http, client, lot
        self.backend: FencedBackend = backend_of(settings)
        self.jobs: list[str] = []
        #: Processes so far; each is at a run, by its token, until that or the process ends.
        self.processes = 0
        self.running: dict[str, str] = {}

    async def step(self) -> None:
        """Let something happen."""
        act = self.lot.choice(["submit", "submit", "ask", "ask", "start", "start", "start", "go on", "go on", "due"])
        match act:
            case "submit" if len(self.jobs) < 30:
                self.jobs.append(await submit(self.http))
            case "ask" if self.jobs:
                method, call = self.lot.choice([("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")])
                answer = await self.http.request(method, f"/jobs/{self.lot.choice(self.jobs)}{call}")
                assert answer.status_code in {200, 202, 204, 409, 410}, answer.text
            case "start":
                self.start()
            case "go on" if self.running:
                self.go_on(self.lot.choice(list(self.running)))
            case "due":
                chores.publish_due(self.backend.app)

    def start(self) -> bool:
        """Take the next message, if there is one."""
        message = self.client.rpop(keys.lane("classify", 0)) or self.client.rpop(keys.lane("classify", 5))
        if message is None:
            return False
        run = json.loads(str(message))["headers"]["id"]
        self.processes += 1
        token = f"worker:{self.processes}"
        if self.backend.start(run, {"progress": 5}, request=request_of(run, token=token))[0] == "stored":
            assert run not in self.running.values(), "two processes are at one run"
            self.running[token] = run
        return True

    def go_on(self, token: str) -> None:
        """Let a process report, end or die."""
        run = self.running[token]
        request = request_of(run, token=token)
        act = self.lot.choice(["report", "succeed", "fail", "put aside", "crash"])
        if act == "report" and self.backend.write(run, {}, State.INFERENCE, request=request) == "stored":
            return
        del self.running[token]
        match act:
            case "succeed":
                self.backend.store_result(run, RESULT, "SUCCESS", request=request)
            case "fail":
                self.backend.store_result(run, InvalidImage("Damaged."), "FAILURE", request=request)
            case "put aside":
                busy = TransientError("Busy.")
                self.backend.store_result(run, busy, "RETRY", request=request, retry_at_ms=now_ms())
            case "crash":
                queues.requeue(self.client, run, Why.CRASHED, app=self.backend.app, token=token)

    async def documents(self) -> dict[str, dict[str, object]]:
        """The jobs that are still there."""
        found: list[dict[str, object]] = []
        for some in range(0, len(self.jobs), 100):
            found += (await self.http.get("/status", params={"id": self.jobs[some : some + 100]})).json()["jobs"]
        return {str(document["job_id"]): document for document in found if "status" in document}

    async def check_lists(self) -> None:
        """Each job is listed once, under the status it shows."""
        shown = {job_id: document["status"] for job_id, document in (await self.documents()).items()}
        listed = [
            (job["job_id"], status)
            for status in ("pending", "processing", "completed", "failed", "cancelled")
            for job in (await self.http.get("/jobs", params={"status": status, "limit": 100})).json()["results"]
        ]
        assert sorted(listed) == sorted(shown.items())

    async def finish(self) -> None:
        """Let all that is queued or runs come to its end."""
        while self.running or self.start() or chores.publish_due(self.backend.app):
            for token in list(self.running):
                self.go_on(token)


def found(client: redis.Redis, *patterns: str) -> list[str]:
    """The keys that are there."""
    return [str(key) for pattern in patterns for key in client.scan_iter(pattern)]


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("seed", range(6))
async def test_no_history_leaves_a_job_stuck_or_anything_behind(
    http: httpx.AsyncClient, client: redis.Redis, settings: Settings, seed: int
) -> None:
    history = History(http, settings, client, random.Random(seed))
    for number in range(120):
        await history.step()
        if number % 4 == 0:
            await history.check_lists()
    await history.finish()
    await history.check_lists()

    documents = await history.documents()
    assert {document["status"] for document in documents.values()} <= {"completed", "failed", "cancelled"}
    for job_id in documents:
        assert (await http.get(f"/result/{job_id}")).status_code in {200, 409}
    assert [process_of(client, job_id) for job_id in documents] == [None] * len(documents)
    assert found(client, "followers:*", "waiting:*") == []
    assert client.exists(keys.LEASES, keys.RETRIES) == 0

    for job_id in documents:
        assert (await http.delete(f"/jobs/{job_id}")).status_code == 204
    chores.erase_expired(history.backend.app, Storage(settings.storage_root))
    assert files_in(settings) == []
    assert found(client, "listed:*", "celery-task-meta-*", "expiring") == []
