"""Sorting errors, and the delays between attempts."""

import pytest

from app.errors import AppError, DeviceOutOfMemory, InvalidImage, TransientError
from app.worker.run import _backoff_s, _sorted


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidImage("Damaged."), "invalid_image"),
        (DeviceOutOfMemory("Full."), "device_out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (FileNotFoundError(2, "no", "/srv/secret"), "transient_error"),
        (PermissionError(13, "no", "/srv/secret"), "transient_error"),
        (ConnectionResetError(), "transient_error"),
        (TimeoutError(), "transient_error"),
        (ZeroDivisionError(), "model_error"),
    ],
)
def test_every_exception_becomes_an_error_of_ours(error: Exception, code: str) -> None:
    found = _sorted(error, "job")

    assert isinstance(found, AppError)
    assert found.code == code
    assert "/srv" not in found.message


def test_only_passing_failures_are_tried_again() -> None:
    assert isinstance(_sorted(OSError(), "job"), TransientError)
    assert isinstance(_sorted(DeviceOutOfMemory("Full."), "job"), TransientError)
    assert not isinstance(_sorted(MemoryError(), "job"), TransientError)
    assert not isinstance(_sorted(ZeroDivisionError(), "job"), TransientError)


@pytest.mark.parametrize(("retries", "most"), [(0, 60), (1, 120), (2, 240), (3, 240), (50, 240)])
def test_delays_double_to_a_limit_and_are_spread(retries: int, most: float) -> None:
    drawn = [_backoff_s(retries, first_s=60) for _ in range(200)]

    assert all(most / 2 <= delay <= most for delay in drawn)
    assert max(drawn) - min(drawn) > most / 4
