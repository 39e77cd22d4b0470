"""Redis that is gone, hangs or refuses to write: what each call answers, how soon, and that all is well afterwards.

The calls are those that the API itself says it has. Nobody works: the test plays the worker.
"""

import asyncio
import base64
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any

import httpx
import pytest
import redis

from app.backend import FencedBackend
from app.config import Settings
from app.errors import InvalidImage
from tests.backends import RESULT, backend_of, request_of
from tests.processes import Installation, free_port, installation, wait_for

TASKS = ("classify", "detect", "caption", "transform")
#: Two seconds are promised, and kept where nothing else runs; here other tests take the processors as well.
WITHIN_S = 5
Change = Callable[[Installation], None]


@dataclass(frozen=True)
class Call:
    """A request, as it is told to a client."""

    method: str
    path: str
    sent: dict[str, Any] = field(default_factory=dict)

    @property
    def is_read(self) -> bool:
        return self.method == "GET"

    @property
    def is_waiting(self) -> bool:
        return "wait" in self.sent.get("params", {})


@dataclass(frozen=True)
class Known:
    """What is there before the weather turns."""

    done: str
    failed: str
    open: str
    #: Open, too, until it is cancelled.
    unwanted: str
    batch: str


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path, ALLOW_URLS="true") as service:
        service.remember_worker(*TASKS)
        service.start_api("app.api")
        yield service


@pytest.fixture
def known(service: Installation, picture: bytes, dog: bytes) -> Known:
    backend = backend_of(Settings(_env_file=None, redis_url=service.redis.url, storage_root=service.storage))
    done, failed = service.submit("classify", picture), service.submit("detect", picture)
    end(backend, done, RESULT, "SUCCESS")
    end(backend, failed, InvalidImage("The picture is damaged. Send an intact one."), "FAILURE")
    batch = service.http.post("/batches/caption", files=[("file", picture), ("file", b"no picture")])
    waiting = service.submit("classify", dog), service.submit("transform", dog)
    return Known(done, failed, *waiting, batch.json()["batch_id"])


def end(backend: FencedBackend, job_id: str, value: Any, state: str) -> None:
    backend.start(job_id, {"progress": 5}, request=request_of(job_id))
    backend.store_result(job_id, value, state, request=request_of(job_id))


def all_calls(service: Installation, known: Known, picture: bytes) -> list[Call]:
    """Every call that the API says it has, in every form."""
    paths = service.http.get("/openapi.json").json()["paths"]
    calls = [
        call
        for path, operations in paths.items()
        for method, operation in operations.items()
        for call in forms(method.upper(), path, operation, known, picture)
    ]
    assert len(calls) > 30
    return calls


def forms(method: str, path: str, operation: dict[str, Any], known: Known, picture: bytes) -> Iterator[Call]:
    job_id = known.done
    if path.startswith("/jobs/") and method == "POST":
        job_id = known.failed if path.endswith("/retry") else known.unwanted
    filled = path.format(job_id=job_id, batch_id=known.batch, name="thumbnail.jpeg")
    parameters = {parameter["name"] for parameter in operation.get("parameters", ())}
    query = {"params": {"id": [known.done, known.open]}} if path == "/status" else {}
    if "requestBody" not in operation:
        yield Call(method, filled, query)
        if "wait" in parameters:
            yield Call(method, path.format(job_id=known.open), {"params": {"wait": "30"}})
        return
    files = {"files": [("file", ("a.png", picture))]}
    yield Call(method, filled, files)
    yield Call(method, filled, {**files, "headers": {"Idempotency-Key": f"of {filled}"}})
    if "application/json" in operation["requestBody"]["content"]:
        image = "data:image/png;base64," + base64.b64encode(picture).decode()
        yield Call(method, filled, {**files, "headers": {"Prefer": "wait=30"}})
        yield Call(method, filled, {"json": {"image": image}})
        yield Call(method, filled, {"json": {"url": "http://1.1.1.1/a.png"}})


def hang(service: Installation) -> None:
    service.redis.process.signal(SIGSTOP)


def go_on(service: Installation) -> None:
    service.redis.process.signal(SIGCONT)


def stop(service: Installation) -> None:
    service.redis.process.stop()


def start(service: Installation) -> None:
    service.redis.start()


def fill_memory(client: redis.Redis) -> None:
    client.config_set("maxmemory", 1)


def free_memory(client: redis.Redis) -> None:
    client.config_set("maxmemory", 0)


def be_replica(client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", free_port())


def be_primary(client: redis.Redis) -> None:
    client.replicaof("NO", "ONE")


def want_replicas(client: redis.Redis) -> None:
    client.config_set("min-replicas-to-write", 1)


def want_none(client: redis.Redis) -> None:
    client.config_set("min-replicas-to-write", 0)


def fail_to_save(client: redis.Redis) -> None:
    # A folder of its name is in the way of the file.
    (Path(str(client.config_get("dir")["dir"])) / str(client.config_get("dbfilename")["dbfilename"])).mkdir()
    client.config_set("save", "3600 1000000")
    client.bgsave()
    wait_for(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", what="a save that fails")


def save(client: redis.Redis) -> None:
    client.config_set("save", "")


class Answer:
    """What came of a call, and when."""

    def __init__(self, call: Call, response: httpx.Response, took_s: float) -> None:
        self.call, self.response, self.took_s = call, response, took_s

    def __repr__(self) -> str:
        said = self.response.text[:150]
        return f"{self.call.method} {self.call.path}: {self.response.status_code} after {self.took_s:.2f} s: {said}"

    @property
    def is_away(self) -> bool:
        """Whether it says that Redis is away, in the way that belongs to the call."""
        document = self.response.json() if self.response.content else {}
        match self.call.path:
            case "/health":
                return self.response.status_code == 200 and not document["redis_connected"]
            case "/health/ready":
                return self.response.status_code == 503 and not document["redis_connected"]
            case "/health/live":
                return self.response.status_code == 200
        return (
            self.response.status_code == 503
            and document.get("code") == "broker_unavailable"
            and int(self.response.headers["retry-after"]) > 0
        )


async def ask(service: Installation, call: Call) -> Answer:
    """Make a call and take the time, with a client of its own: one with hundreds of connections is slow itself."""
    async with httpx.AsyncClient(base_url=str(service.http.base_url), timeout=60, verify=False) as http:
        request = http.build_request(call.method, call.path, **call.sent)
        began = time.monotonic()
        response = await http.send(request)
    return Answer(call, response, time.monotonic() - began)


@pytest.mark.parametrize(("turn", "mend"), [(hang, go_on), (stop, start)])
async def test_every_call_says_within_two_seconds_that_redis_is_away(
    service: Installation, known: Known, picture: bytes, turn: Change, mend: Change
) -> None:
    calls = all_calls(service, known, picture)
    turn(service)
    try:
        # One after the other first: whoever comes alone waits longest.
        answers = [await ask(service, call) for call in calls if call.is_waiting or call.path == "/classify"]
        answers += await asyncio.gather(*(ask(service, call) for call in calls))
    finally:
        mend(service)

    assert [answer for answer in answers if not answer.is_away] == []
    assert [answer for answer in answers if answer.took_s > WITHIN_S] == []
    check_all_is_well(service, known, picture)


@pytest.mark.parametrize(("turn", "mend"), [(hang, go_on), (stop, start)])
async def test_however_many_wait_all_are_told(
    service: Installation, known: Known, picture: bytes, turn: Change, mend: Change
) -> None:
    calls = all_calls(service, known, picture)
    waits = list(islice(cycle(call for call in calls if call.is_waiting), 100))
    turned_at = float("inf")

    async def wait(call: Call) -> Answer:
        answer = await ask(service, call)
        return Answer(call, answer.response, time.monotonic() - turned_at)

    waiting = [asyncio.create_task(wait(call)) for call in waits]
    await all_wait(service, len(waits))
    turn(service)
    turned_at = time.monotonic()
    try:
        answers = await asyncio.gather(*waiting, *(ask(service, call) for call in islice(cycle(calls), 50)))
    finally:
        mend(service)

    assert [answer for answer in answers if not answer.is_away] == []
    assert [answer for answer in answers if answer.took_s > WITHIN_S] == []
    check_all_is_well(service, known, picture)


async def all_wait(service: Installation, number: int) -> None:
    """Wait until so many connections to the API are there, and what was sent on them has been read from Redis."""
    with closing(service.redis.client()) as client:
        read = -1
        async with asyncio.timeout(30):
            while connections(service) < number or read != (read := scripts_run(client)):  # noqa: ASYNC110
                await asyncio.sleep(0.3)


def scripts_run(client: redis.Redis) -> int:
    return int(client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


def connections(service: Installation) -> int:
    """How many clients are connected to the API (Linux, proc(5); 01 is an established connection)."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[1].endswith(f":{service.port:04X}") and line[3] == "01" for line in lines)


REFUSALS = [(fill_memory, free_memory), (be_replica, be_primary), (want_replicas, want_none), (fail_to_save, save)]


@pytest.mark.parametrize("scripts", ["known", "forgotten"])
@pytest.mark.parametrize(("refuse", "relent"), REFUSALS)
async def test_a_redis_that_refuses_to_write_is_still_read(
    service: Installation,
    known: Known,
    picture: bytes,
    refuse: Callable[[redis.Redis], None],
    relent: Callable[[redis.Redis], None],
    scripts: str,
) -> None:
    calls = all_calls(service, known, picture)
    with closing(service.redis.client()) as client:
        # A name that is to be forgotten, which is a write.
        client.sadd("workers", "silent@test")
        if scripts == "forgotten":
            client.script_flush()
        refuse(client)
        try:
            waiting = [asyncio.create_task(ask(service, call)) for call in calls if call.is_waiting]
            answers = await asyncio.gather(*(ask(service, call) for call in calls if not call.is_waiting))
            # Refusals do not break the connection that carries wake-ups.
            _, still = await asyncio.wait(waiting, timeout=WITHIN_S)
            assert len(still) == len(waiting), [call.result() for call in waiting if call.done()]
            relent(client)
            assert service.http.delete(f"/jobs/{known.open}").status_code == 204
            ended = [await call for call in waiting]
        finally:
            relent(client)

    # What begins with freeing memory is done without any.
    frees = refuse is fill_memory
    done = [a for a in answers if frees and a.call.path.startswith("/jobs/") and a.response.is_success]
    writes = [answer for answer in answers if not answer.call.is_read and answer not in done]
    reads = [answer for answer in answers if answer.call.is_read]
    assert [answer for answer in writes if not answer.is_away] == []
    assert [answer for answer in answers if answer.took_s > WITHIN_S] == []
    # Erasing frees memory, so a read may come after it.
    gone = {410} if frees else set()
    assert {answer.response.status_code for answer in reads} <= {200, 404, 503} | gone, reads
    assert {answer.call.path for answer in reads if answer.response.status_code == 503} == {"/health/ready"}, reads
    assert {answer.response.status_code for answer in ended} == {410}
    check_all_is_well(service, known, picture)


def check_all_is_well(service: Installation, known: Known, picture: bytes) -> None:
    """The same API takes work again, and whatever was accepted has its picture."""

    def takes_work() -> bool:
        return service.post("classify", picture).status_code == 202

    wait_for(takes_work, what="a job that is taken")
    assert service.http.get(f"/result/{known.failed}").json()["code"] in ("job_failed", "job_gone")
    assert wait_for(lambda: service.http.get("/health").json()["redis_connected"], what="health")
    job_id = service.submit("detect", picture)
    wait_for(lambda: service.http.get(f"/status/{job_id}?wait=0.1").status_code == 200, what="a wait that works")
    with closing(service.redis.client()) as client:
        records: list[Any] = [client.hgetall(key) for key in client.scan_iter("job:*")]
    needed = [
        record for record in records if "finished_at" not in record and "url" not in record and "left" not in record
    ]
    assert [record for record in needed if not (service.storage / record["path"]).exists()] == []
