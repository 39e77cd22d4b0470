"""Uploads of completed jobs: kept for as long as Redis may forget that they are, and no longer."""

from pathlib import Path

import pytest

from app.storage import Storage
from app.worker.spent import _AT_ONCE, _KEPT_S, Spent

#: What a Redis that is killed may forget (`appendfsync everysec`: redis.io, Persistence).
FORGOTTEN_S = 2


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test may set."""
    seconds = [100.0]
    monkeypatch.setattr("app.worker.spent.monotonic", lambda: seconds[0])
    return seconds


def kept(storage: Storage, name: str) -> Path:
    path = storage.resolve(f"uploads/{name}")
    path.write_bytes(b"a picture")
    return path


def test_an_upload_leaves_once_its_end_cannot_be_forgotten(storage: Storage, now: list[float]) -> None:
    spent = Spent(storage)
    first, second, third = (kept(storage, name) for name in "abc")
    assert _KEPT_S > FORGOTTEN_S

    spent.add("uploads/a")
    now[0] += _KEPT_S - 0.1
    spent.add("uploads/b")
    assert first.exists()

    now[0] += 0.1
    spent.add("uploads/c")
    assert not first.exists()
    assert second.exists()
    assert third.exists()


def test_no_job_waits_while_very_many_uploads_leave(storage: Storage, now: list[float]) -> None:
    spent = Spent(storage)
    uploads = [kept(storage, str(number)) for number in range(10)]
    for upload in uploads:
        spent.add(f"uploads/{upload.name}")

    now[0] += _KEPT_S
    spent.add("uploads/last")

    assert [upload.exists() for upload in uploads] == [False] * _AT_ONCE + [True] * (10 - _AT_ONCE)


def test_one_that_is_gone_already_is_no_error(
    storage: Storage, now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    spent = Spent(storage)
    spent.add("uploads/gone")
    now[0] += _KEPT_S
    later = kept(storage, "later")
    spent.add("uploads/later")
    now[0] += _KEPT_S

    spent.add("uploads/last")

    assert not later.exists()
    assert not caplog.records
