"""What the benchmarks compute, and that their clients are honest: no bytes twice, no wait left out, no cache."""

import asyncio
import io
import json
import os
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.benchmarks import checks, machine, meter, report
from tests.benchmarks.arithmetic import Spread, arrivals, percentile, spread, typical
from tests.benchmarks.connection import Address, Connection
from tests.benchmarks.loadgen import Clients
from tests.benchmarks.loads import Load, Outcome
from tests.benchmarks.photos import MARK_BYTES, marks, photos, split_for_marks
from tests.benchmarks.service import Meters
from tests.processes import PHOTOS

Handler = Callable[[str, bytes], Awaitable[tuple[int, object]]]
MODEL = {"name": "net", "runtime": "torch"}
RESULT = {"cached": False, "coalesced_with": None, "model": MODEL}


@pytest.mark.parametrize(("share", "expected"), [(0, 1), (0.5, 2), (0.51, 3), (0.99, 4), (1, 4)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    assert percentile([4, 1, 3, 2], share) == expected


def test_of_nothing_there_is_no_percentile() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)
    assert spread([]) is None


def test_a_spread_is_in_milliseconds() -> None:
    assert spread([second / 1000 for second in range(1, 201)]) == Spread(100, 198)
    assert Spread(30, 50).less(20.5) == Spread(9.5, 29.5)


def test_rounds_are_told_by_their_medians() -> None:
    assert typical([Spread(1, 30), None, Spread(3, 10), Spread(2, 20)]) == Spread(2, 20)
    assert typical([None]) is None


def test_jobs_arrive_at_random_and_in_the_same_way_each_time() -> None:
    moments = arrivals(rate=50, seconds=100, seed=3)
    gaps = np.diff(moments)
    assert (
        moments == sorted(moments) == arrivals(rate=50, seconds=100, seed=3) != arrivals(rate=50, seconds=100, seed=4)
    )
    assert 0 < moments[0] < moments[-1] < 100
    assert len(moments) == pytest.approx(5000, abs=4 * 5000**0.5)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)  # as of no process that is any less random


def test_marked_photos_differ_and_look_the_same() -> None:
    before, after = split_for_marks((PHOTOS / "dog.jpg").read_bytes())
    some, others = marks(), marks()
    sent = [before + next(source) + after for source in (some, some, others)]
    pictures = [np.asarray(Image.open(io.BytesIO(each))) for each in sent]
    assert len(set(sent)) == 3
    assert all((picture == np.asarray(Image.open(PHOTOS / "dog.jpg"))).all() for picture in pictures)


def test_only_a_jpeg_can_be_marked() -> None:
    with pytest.raises(ValueError, match="no JPEG"):
        split_for_marks((PHOTOS / "coffee.png").read_bytes())


def test_the_photos_have_the_sizes_they_are_named_for(tmp_path: Path) -> None:
    found = photos(tmp_path)
    assert [round(photo.width * photo.height / 1e6, 1) for photo in found] == [0.4, 2.0, 12.0]
    for photo in found:
        with Image.open(photo.path) as image:
            assert (image.format, image.size) == ("JPEG", (photo.width, photo.height))


def test_the_form_says_how_long_it_is() -> None:
    address = Address("127.0.0.1", 1)
    opening, closing = address.form("/classify", part="file", before=b"1", after=b"23", mark_bytes=MARK_BYTES)
    head, _, body = (opening + b"m" * MARK_BYTES + closing).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")


async def test_answers_are_put_together_however_they_come() -> None:
    connection = Connection()
    connection.connection_made(_Sink())
    for body in (b"one", b""):
        answer = connection.request(b"")
        for byte in b"HTTP/1.1 202 Accepted\r\ncontent-length: %d\r\nx: y\r\n\r\n%b" % (len(body), body):
            assert not answer.done()
            connection.data_received(bytes([byte]))
        assert (answer.result().status, answer.result().body) == (202, body)
    broken = connection.request(b"")
    connection.connection_lost(None)
    with pytest.raises(ConnectionResetError):
        await broken


async def test_closed_clients_follow_each_job_to_its_result() -> None:
    async def handler(head: str, body: bytes) -> tuple[int, object]:
        if head.startswith("POST"):
            return 202, {"job_id": "one"}
        return (200, RESULT) if head.startswith("GET /result/one?wait=") else (200, {})

    async with server(handler) as (port, seen):
        outcome = await Clients(load(port, clients=3)).run()
    posted = [body for head, body in seen if head.startswith("POST")]
    assert outcome.jobs == len(posted) == len(set(posted))
    assert sum(head.startswith("GET /result") for head, _ in seen) == outcome.jobs
    assert outcome.submit
    assert outcome.result
    assert outcome.status
    assert outcome.models == [MODEL]
    assert Outcome.from_json(json.dumps(asdict(outcome))) == outcome


async def test_closed_clients_may_have_most_submissions_wait_for_the_result() -> None:
    async def handler(head: str, body: bytes) -> tuple[int, object]:
        if head.startswith("POST") and "Prefer: wait=30\r\n" not in head:
            return 202, {"job_id": "one"}
        return 200, RESULT

    async with server(handler) as (port, seen):
        outcome = await Clients(replace(load(port, clients=1), prefer=True)).run()
    by_hand = ["Prefer" not in head for head, _ in seen if head.startswith("POST")]
    assert len(by_hand) == outcome.jobs
    assert by_hand[:16] == ([True] + [False] * 7) * 2
    assert sum(head.startswith("GET /result") for head, _ in seen) == sum(by_hand)
    assert outcome.models == [MODEL]


async def test_open_clients_count_the_time_that_a_server_made_them_wait() -> None:
    due = arrivals(rate=200, seconds=0.2, seed=1)
    waiting: list[None] = []
    all_there = asyncio.Event()

    async def handler(head: str, body: bytes) -> tuple[int, object]:
        waiting.append(None)
        if len(waiting) == len(due):
            all_there.set()
        await all_there.wait()
        return 200, RESULT

    async with server(handler) as (port, _):
        outcome = await Clients(load(port, rate=200, seconds=0.2)).run()
    assert outcome.jobs == len(due)
    assert outcome.result
    assert outcome.result.p99_ms >= (due[-1] - due[0]) * 1000 - 1


async def test_refusals_are_counted_by_their_code() -> None:
    async def handler(head: str, body: bytes) -> tuple[int, object]:
        return 503, {"code": "queue_full"}

    async with server(handler) as (port, seen):
        outcome = await Clients(load(port, rate=100)).run()
    assert outcome.refused == {"queue_full": len(seen)}
    assert outcome.jobs == 0


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ((200, {**RESULT, "cached": True}), "not worked on"),
        ((200, {**RESULT, "coalesced_with": "two"}), "not worked on"),
        ((409, {"code": "job_failed"}), "job_failed"),
    ],
)
async def test_what_was_not_worked_on_ends_the_load(answer: tuple[int, object], complaint: str) -> None:
    async def handler(head: str, body: bytes) -> tuple[int, object]:
        return (202, {"job_id": "one"}) if head.startswith("POST") else answer

    async with server(handler) as (port, _):
        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match=complaint)):
            await Clients(load(port, clients=1)).run()


def test_the_processor_time_of_a_process_is_the_kernels() -> None:
    assert machine.cpu_s(os.getpid()) == pytest.approx(sum(os.times()[:4]), abs=0.1)


def test_a_job_costs_what_has_been_added_since() -> None:
    before = Meters({"API": 1.0}, {"get": 10}, redis_in_bytes=100, redis_out_bytes=0)
    after = Meters({"API": 1.5}, {"get": 30, "del": 5, "info": 0}, redis_in_bytes=600, redis_out_bytes=20)
    assert after.per_job(before, 10) == {
        "cpu_ms": {"API": 50.0},
        "commands": {"get": 2.0, "del": 0.5},
        "redis_in_bytes": 50.0,
        "redis_out_bytes": 2.0,
    }


@pytest.mark.parametrize(
    ("check", "met"),
    [
        (checks.at_least("a", 0.65, 0.65), True),
        (checks.at_least("a", 0.649, 0.65), False),
        (checks.at_most("a", 5, 5), True),
        (checks.at_most("a", 5.004, 5), False),
        (checks.below("a", 9.999, 10), True),
        (checks.below("a", 10, 10), False),
    ],
)
def test_a_check_judges_what_was_measured_and_not_what_is_shown(check: checks.Check, met: bool) -> None:  # noqa: FBT001
    assert check.met is met


def test_a_table_has_its_columns_in_line() -> None:
    assert report.table(("a", "long"), [(1, 2), ("three", "")]).splitlines() == [
        "| a     | long |",
        "|-------|------|",
        "| 1     | 2    |",
        "| three |      |",
    ]


class _Sink(asyncio.Transport):
    def write(self, data: object) -> None:
        pass


def load(port: int, *, seconds: float = 0.1, clients: int = 0, rate: float = 0) -> Load:
    return Load(port, PHOTOS / "dog.jpg", seconds, clients=clients, rate=rate, warm_s=0)


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[tuple[int, list[tuple[str, bytes]]]]:
    """An HTTP server on a free port, and what it was asked."""
    seen: list[tuple[str, bytes]] = []
    talks: list[asyncio.Task[None] | None] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append(asyncio.current_task())
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                _, _, rest = head.partition("Content-Length: ")
                body = await reader.readexactly(int(rest.split()[0])) if rest else b""
                seen.append((head, body))
                status, answer = await handler(head, body)
                text = json.dumps(answer).encode()
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(text), text))
        except asyncio.IncompleteReadError:
            writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", limit=2**20) as serving:
        yield serving.sockets[0].getsockname()[1], seen
        await asyncio.gather(*(each for each in talks if each))  # clients hang up when they are done


def test_what_a_stage_takes_is_added_up_for_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(meter.FOLDER, str(tmp_path))
    (tmp_path / "1").write_bytes(struct.pack("d", 100.0))
    began_s = time.process_time()

    @meter.metered
    def stage(seconds: float) -> str:
        while time.process_time() < began_s + seconds:
            pass
        return "done"

    assert stage(0.1) == "done"
    first = meter.read(tmp_path)
    stage(seconds=0.2)

    assert 100.05 < first < meter.read(tmp_path) <= 100 + time.process_time() - began_s
