"""What ext4 is told of folders in which files come and go, and what happens elsewhere."""

import errno
import fcntl
import struct
from pathlib import Path

import pytest

from app.folders import spread

GET, SET = 0x80086601, 0x40086602
#: `T` of chattr(1), and `e` and `A`, which others may have set.
TOP, OTHERS = 0x20000, 0x80080


class FileSystem:
    """One that keeps the flags of a folder."""

    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.writes = 0

    def ioctl(self, _descriptor: int, call: int, argument: bytes) -> bytes:
        if call == SET:
            (self.flags,) = struct.unpack("i", argument)
            self.writes += 1
            return argument
        assert call == GET
        return struct.pack("i", self.flags)


@pytest.mark.parametrize(("before", "writes"), [(OTHERS, 1), (OTHERS | TOP, 0)])
def test_a_folder_is_made_the_top_of_hierarchies_once_and_else_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, writes: int
) -> None:
    system = FileSystem(before)
    monkeypatch.setattr(fcntl, "ioctl", system.ioctl)

    spread(tmp_path)

    assert (system.flags, system.writes) == (OTHERS | TOP, writes)


@pytest.mark.parametrize("number", [errno.ENOTTY, errno.EOPNOTSUPP, errno.EPERM])
def test_a_file_system_that_knows_no_such_thing_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "not here")

    monkeypatch.setattr(fcntl, "ioctl", refuse)

    spread(tmp_path)


def test_a_folder_that_cannot_be_opened_is_left_alone(tmp_path: Path) -> None:
    spread(tmp_path / "not there")
