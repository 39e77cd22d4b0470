"""Uploads on disk."""

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from app.errors import AppError, DiskFull, FileTooLarge, TransientError
from app.storage import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "data")


def files_in(storage: Storage) -> list[Path]:
    return [path for path in storage.root.rglob("*") if path.is_file()]


def test_folders_in_which_jobs_come_and_go_are_spread_over_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spread: list[Path] = []
    monkeypatch.setattr("app.storage.spread", spread.append)

    storage = Storage(tmp_path)

    assert spread == [storage.uploads, storage.artifacts]


def test_what_is_kept_is_found_again(storage: Storage) -> None:
    with storage.incoming("abcd", max_bytes=10) as upload:
        upload.write(b"hel")
        upload.write(b"lo")
        upload.finish()
        path = upload.keep(".png")

    assert path == "uploads/ab/abcd.png"
    assert storage.resolve(path).read_bytes() == b"hello"
    assert upload.bytes == 5
    assert upload.sha256 == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    storage.remove(path)
    storage.remove(path)
    assert files_in(storage) == []


def test_what_is_short_is_on_the_disk_once_it_is_kept(storage: Storage) -> None:
    with storage.incoming("abcd", max_bytes=10, hold_bytes=5) as upload:
        upload.write(memoryview(b"hel"))
        upload.write(memoryview(b"lo"))
        upload.finish()
        assert upload.content == b"hello"
        assert files_in(storage) == []
        path = upload.keep(".png")

    assert storage.resolve(path).read_bytes() == b"hello"
    assert len(files_in(storage)) == 1


def test_what_gets_longer_goes_to_the_disk(storage: Storage) -> None:
    with storage.incoming("abcd", max_bytes=10, hold_bytes=5) as upload:
        upload.write(b"hello")
        upload.write(b"!")
        upload.finish()
        assert upload.content == files_in(storage)[0]
        path = upload.keep(".png")

    assert storage.resolve(path).read_bytes() == b"hello!"


def test_where_very_many_come_at_once_they_go_to_the_disk(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.incoming._MAX_HELD_BYTES", 10)

    def on_disk(*, hold_bytes: int = 5) -> bool:
        with storage.incoming("abcd", max_bytes=10, hold_bytes=hold_bytes) as upload:
            upload.write(b"hello")
            return isinstance(upload.content, Path)

    with storage.incoming("one", max_bytes=10, hold_bytes=5) as one:
        one.write(b"hello")
        with storage.incoming("two", max_bytes=10, hold_bytes=5) as two:
            two.write(b"hello")
            assert on_disk()
            two.write(b"!")
            assert not on_disk(), "what has gone to the disk makes room"
    assert not on_disk()
    assert files_in(storage) == []


def test_what_is_not_kept_is_gone(storage: Storage) -> None:
    with storage.incoming("abcd", max_bytes=10) as upload:
        upload.write(b"hello")

    assert files_in(storage) == []


def test_one_byte_too_many_is_refused(storage: Storage) -> None:
    with storage.incoming("abcd", max_bytes=10) as upload:
        upload.write(b"0123456789")
        with pytest.raises(FileTooLarge, match="10 bytes"):
            upload.write(b"0")

    assert files_in(storage) == []


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "uploads/../../secret"])
def test_no_path_leaves_the_root(storage: Storage, path: str) -> None:
    with pytest.raises(AppError) as refused:
        storage.resolve(path)

    assert str(storage.root) not in str(refused.value)


def test_a_link_does_not_lead_out_either(storage: Storage, tmp_path: Path) -> None:
    (storage.root / "uploads" / "link").symlink_to(tmp_path)

    with pytest.raises(AppError):
        storage.resolve("uploads/link/secret")


@pytest.mark.parametrize(
    "path", ["uploads/ab/abcd", "uploads//ab/./abcd", "uploads/ab/../ab/abcd", "uploads/link/abcd"]
)
def test_a_path_within_the_root_is_found_however_it_is_written(storage: Storage, path: str) -> None:
    (storage.uploads / "link").symlink_to(storage.uploads / "ab")

    assert storage.resolve(path) == storage.uploads / "ab" / "abcd"


def test_old_files_are_listed_wherever_they_are(storage: Storage) -> None:
    with storage.incoming("abcd", max_bytes=10) as upload:
        upload.keep(".png")
    (storage.uploads / "incoming" / "left").touch()
    (storage.uploads / "incoming" / "new").touch()
    for path in (storage.uploads / "ab" / "abcd.png", storage.uploads / "incoming" / "left"):
        os.utime(path, (1000, 1000))

    assert sorted(storage.older_than(2000)) == [("abcd", "uploads/ab/abcd.png"), ("left", "uploads/incoming/left")]


def test_an_artifact_is_there_whole_or_not_at_all(storage: Storage) -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        storage.store_artifact("abcd", "image.webp", fail)
    assert not storage.artifact("abcd", "image.webp").exists()

    assert storage.store_artifact("abcd", "image.webp", lambda file: file.write(b"whole")) == 5
    assert storage.store_artifact("abcd", "image.webp", lambda file: file.write(b"another")) == 7

    assert files_in(storage) == [storage.artifact("abcd", "image.webp")]
    assert storage.artifact("abcd", "image.webp").read_bytes() == b"another"


def test_two_who_write_the_same_artifact_do_not_mix(storage: Storage) -> None:
    def write_one_inside_the_other(file: BinaryIO) -> None:
        file.write(b"AAAA")
        storage.store_artifact("abcd", "image.webp", lambda other: other.write(b"BB"))
        file.write(b"AAAA")

    storage.store_artifact("abcd", "image.webp", write_one_inside_the_other)

    assert [path.read_bytes() for path in files_in(storage)] == [b"AAAAAAAA"]


def test_a_folder_that_another_removes_too_is_removed(storage: Storage) -> None:
    for round_ in range(50):
        for number in range(20):
            storage.store_artifact("abcd", f"file-{number}.bin", lambda file: file.write(b"kept"))
        with ThreadPoolExecutor(4) as threads:
            removals = [threads.submit(storage.erase, "abcd") for _ in range(4)]
        assert [removal.exception() for removal in removals] == [None] * 4, round_
        assert files_in(storage) == []


def test_what_an_attempt_left_half_done_is_discarded(storage: Storage) -> None:
    (storage.uploads / "incoming" / "abcd.12345678").write_bytes(b"half a download")
    (storage.uploads / "incoming" / "abce.12345678").write_bytes(b"of another job")
    storage.store_artifact("abcd", "image.webp", lambda file: file.write(b"kept"))

    storage.discard_attempts("abcd")

    assert [path.name for path in files_in(storage)] == ["abce.12345678"]


@pytest.mark.parametrize(
    "name", ["", "..", ".hidden", "a/b.webp", "../b.webp", "Image.webp", "image", "a.webp\n", "a\0.webp"]
)
def test_an_artifact_has_a_name_that_leads_nowhere_else(storage: Storage, name: str) -> None:
    with pytest.raises(ValueError, match="no name of an artifact"):
        storage.artifact("abcd", name)


def test_all_of_a_job_is_erased_and_nothing_else(storage: Storage) -> None:
    for job_id, extension in (("abcd", ".png"), ("abce", ".png"), ("abcf", "")):
        with storage.incoming(job_id, max_bytes=10) as upload:
            upload.write(b"hello")
            upload.finish()
            upload.keep(extension)
        storage.store_artifact(job_id, "image.webp", lambda file: file.write(b"kept"))

    for job_id in ("abcd", "abcf", "abcd", "none"):
        storage.erase(job_id)

    assert {path.name for path in files_in(storage)} == {"abce.png", "image.webp"}
    assert storage.artifact("abce", "image.webp").exists()


def test_room_is_what_the_disk_has_left(storage: Storage) -> None:
    free = shutil.disk_usage(storage.root).free

    storage.check_room(0, leave_bytes=0)
    storage.check_room(free // 4, leave_bytes=free // 4)
    for more_bytes, leave_bytes in ((0, 2 * free), (2 * free, 0), (free, free)):
        with pytest.raises(DiskFull):
            storage.check_room(more_bytes, leave_bytes=leave_bytes)


@pytest.mark.parametrize(("lasts_s", "asked"), [(60, 1), (0, 3)])
def test_the_disk_is_asked_once_in_a_while(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, lasts_s: float, asked: int
) -> None:
    usage, calls = shutil.disk_usage, []

    def noted(root: str) -> object:
        calls.append(root)
        return usage(root)

    monkeypatch.setattr("app.storage._FREE_FOR_S", lasts_s)
    monkeypatch.setattr("app.storage.shutil.disk_usage", noted)

    for _ in range(3):
        storage.check_room(0, leave_bytes=0)

    assert len(calls) == asked


def test_a_full_disk_leaves_nothing_of_a_short_file(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, begun = os.open, []

    def full(path: str, *_how: int) -> int:
        Path(path).symlink_to("/dev/full")
        begun.append(Path(path))
        return opened(path, os.O_WRONLY)

    (storage.uploads / "ab").mkdir()
    monkeypatch.setattr(os, "open", full)
    with storage.incoming("abcd", max_bytes=10, hold_bytes=5) as upload:
        upload.write(b"hello")
        with pytest.raises(DiskFull):
            upload.keep(".png")

    assert begun == [storage.uploads / "ab" / "abcd.png"]
    assert not begun[0].is_symlink()


def test_nothing_is_left_of_a_short_file_whose_last_bytes_are_refused(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = os.close

    def close(descriptor: int) -> None:
        closed(descriptor)
        raise OSError(errno.EDQUOT, "as a disk behind a network says it")

    with storage.incoming("abcd", max_bytes=10, hold_bytes=10) as upload:
        upload.write(b"hello")
        monkeypatch.setattr(os, "close", close)
        with pytest.raises(DiskFull):
            upload.keep(".png")
        monkeypatch.undo()

    assert files_in(storage) == []


def test_a_short_file_is_written_on_where_the_disk_takes_it_in_pieces(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: written(descriptor, data[:2]))
    with storage.incoming("abcd", max_bytes=10, hold_bytes=10) as upload:
        upload.write(b"hello")
        upload.write(b"!")
        upload.finish()
        path = upload.keep(".png")

    assert storage.resolve(path).read_bytes() == b"hello!"


def test_a_short_file_is_written_over_no_other(storage: Storage) -> None:
    there = storage.uploads / "ab" / "abcd.png"
    there.parent.mkdir()
    there.write_bytes(b"first")

    with storage.incoming("abcd", max_bytes=10, hold_bytes=5) as upload:
        upload.write(b"hello")
        with pytest.raises(FileExistsError):
            upload.keep(".png")

    assert there.read_bytes() == b"first"


def test_a_full_disk_leaves_nothing_and_may_pass(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open
    # The kernel's own device that is always full.
    monkeypatch.setattr(Path, "open", lambda path, mode: opened(Path("/dev/full"), "wb"))

    with storage.incoming("abcd", max_bytes=10) as upload:
        upload.path.touch()
        upload.write(b"hello")
        with pytest.raises(TransientError, match="no room"):
            upload.finish()

    assert files_in(storage) == []
