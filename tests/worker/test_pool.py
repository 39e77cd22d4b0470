"""Our own ways of the pool of processes."""

import pickle
import select
import struct
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.pool import TASK
from celery.concurrency.asynpool import AsynPool

from app.worker.pool import RememberingPool, _Hub, _RememberingPool

PIPES = {7, 9}


class Job:
    """A job that nobody has been sent."""

    _payload: Any

    def __init__(self, number: int) -> None:
        self._job = number


class Pool(_RememberingPool):
    """A pool without processes: what is written is noted, and by which pipe."""

    def __init__(self) -> None:
        self._all_inqueues = set(PIPES)
        self._busy_workers: set[int] = set()
        self._active_writes: set[int] = set()
        self.outbound_buffer: list[Any] = []
        self._cache: dict[int, Any] = {}
        self.asked: list[Any] = []
        self.written: list[tuple[int, bytes]] = []

    def submit(self, number: int, text: str = "") -> None:
        self._cache[number] = Job(number)
        self._quick_put((TASK, (number, None, text, (), {})))


@pytest.fixture
def hub() -> Any:
    return SimpleNamespace(writers={}, consolidate_callback=None)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch, hub: Any) -> Pool:
    def make_handlers(self: Pool, hub: Any) -> None:
        def put(message: Any) -> None:
            body = pickle.dumps(message)
            job = self._cache[message[1][0]]
            job._payload = memoryview(struct.pack(">I", len(body))), memoryview(body), len(body)
            self.outbound_buffer.append(job)

        def write(pipes: list[int]) -> None:
            for pipe, job in zip(pipes, list(self.outbound_buffer), strict=False):
                self.outbound_buffer.remove(job)
                self._busy_workers.add(pipe)
                self.written += [(pipe, bytes(part)) for part in job._payload[:2] if part]

        self.on_poll_start = lambda: self.asked.append(hub)
        self._quick_put, hub.consolidate_callback = put, write

    monkeypatch.setattr(AsynPool, "_create_write_handlers", make_handlers)
    made = Pool()
    made._create_write_handlers(hub)
    return made


@pytest.mark.parametrize(
    ("jobs", "watched", "asks"),
    [([], {}, False), ([], {5: "another's"}, False), (["a job"], {}, True), ([], {9: "until it is written"}, True)],
)
def test_the_system_is_asked_about_pipes_only_where_there_is_something_to_write(
    pool: Pool,
    hub: Any,
    jobs: list[str],
    watched: dict[int, str],
    asks: bool,  # noqa: FBT001
) -> None:
    pool.outbound_buffer, hub.writers = jobs, watched

    pool.on_poll_start()

    assert bool(pool.asked) is asks


def test_a_job_is_written_to_a_free_process_as_soon_as_it_comes_and_waits_where_there_is_none(pool: Pool) -> None:
    for number in (1, 2, 3):
        pool.submit(number)

    assert {pipe for pipe, _ in pool.written} == PIPES
    assert [pickle.loads(written[4:])[1][0] for _, written in pool.written] == [1, 2]
    assert [job._job for job in pool.outbound_buffer] == [3]


def test_no_process_is_handed_a_job_whose_pipe_is_still_written_to(pool: Pool) -> None:
    pool._active_writes.add(7)
    pool._busy_workers.add(9)

    pool.submit(1)

    assert not pool.written


@pytest.mark.parametrize("length", [10, select.PIPE_BUF - 200, select.PIPE_BUF, 100_000])
def test_a_job_is_written_in_one_piece_if_a_pipe_takes_that_whole_or_not_at_all(pool: Pool, length: int) -> None:
    pool.submit(1, "x" * length)

    parts = [part for _, part in pool.written]
    assert len(parts) == (1 if length < select.PIPE_BUF - 100 else 2)
    written = b"".join(parts)
    assert struct.unpack_from(">I", written) == (len(written) - 4,)
    assert pickle.loads(written[4:])[1][2] == "x" * length


class EventLoop:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.readers: dict[int, Any] = {}
        self.writers: dict[int, Any] = {}
        self.asked: list[Any] = []

    def add_reader(self, pipe: int, callback: Any, *arguments: Any) -> None:
        self.readers[pipe] = (callback, arguments)
        self.asked.append(pipe)

    def remove_writer(self, pipe: Any) -> None:
        self.asked.append(pipe)


def test_the_event_loop_is_asked_only_for_what_is_new() -> None:
    loop = EventLoop()
    hub = _Hub(loop)

    hub.add_reader(7, print, 7)
    hub.add_reader(7, print, 7)
    assert loop.asked == [7]
    hub.add_reader(7, repr, 7)
    assert loop.asked == [7, 7]

    hub.remove_writer(9)
    assert loop.asked == [7, 7]
    loop.writers[9] = None
    hub.remove_writer(9)
    hub.remove_writer("what has a number of its own")
    assert loop.asked[2:] == [9, "what has a number of its own"]

    hub.consolidate_callback = print
    assert vars(loop)["consolidate_callback"] is print


def test_a_process_that_has_died_by_the_start_of_the_event_loop_is_no_reason_to_end_the_worker() -> None:
    pool = RememberingPool(limit=1)
    pool._pool = SimpleNamespace(did_start_ok=lambda: False)

    assert pool.did_start_ok()
