"""What is kept of what is made of weights: made once, whole or not at all, and anew when it is damaged."""

import fcntl
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.config import Settings
from app.worker import model_cache
from app.worker.model_cache import ModelCache
from app.worker.sources import Source

#: Python 3.12 warns of it where there are threads; none is needed in these children.
forking = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return Source(name="model", folder=folder, revision="1")


class Making:
    """Fills a folder and counts."""

    def __init__(self, content: bytes = b"weights") -> None:
        self.times = 0
        self._content = content

    def __call__(self, folder: Path) -> None:
        self.times += 1
        (folder / "weights").write_bytes(self._content)


def test_what_is_made_once_is_kept(settings: Settings, source: Source) -> None:
    making = Making()

    first, second = (ModelCache(settings).keep(source, {"dtype": "float32"}, making) for _ in range(2))

    assert first == second
    assert first.is_relative_to(settings.storage_root / "model-cache")
    assert (first / "weights").read_bytes() == b"weights"
    assert making.times == 1


@pytest.mark.parametrize("other", ["revision", "configuration", "settings"])
def test_what_is_made_of_something_else_is_another(settings: Settings, source: Source, other: str) -> None:
    kept = ModelCache(settings).keep(source, {"threads": 1}, Making())
    assert source.folder is not None
    if other == "configuration":
        (source.folder / "config.json").write_text('{"depth": 2}')
    revision, threads = ("2" if other == "revision" else "1"), (2 if other == "settings" else 1)

    again = ModelCache(settings).keep(Source("model", source.folder, revision), {"threads": threads}, Making(b"new"))

    assert again != kept
    assert (kept / "weights").read_bytes() == b"weights"


def shorten(folder: Path) -> None:
    os.truncate(folder / "weights", 3)


def change(folder: Path) -> None:
    (folder / "weights").write_bytes(b"wEights")


def remove(folder: Path) -> None:
    (folder / "weights").unlink()


def forget(folder: Path) -> None:
    (folder / "digests.json").write_text("[]")


@pytest.mark.parametrize("harm", [shorten, change, remove, forget])
def test_what_is_damaged_is_made_anew(
    settings: Settings, source: Source, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    making = Making()
    kept = ModelCache(settings).keep(source, {}, making)
    harm(kept)

    assert ModelCache(settings).keep(source, {}, making) == kept

    assert (kept / "weights").read_bytes() == b"weights"
    assert making.times == 2
    assert f"{kept.name} is damaged, and is made anew" in caplog.text


def test_a_making_that_fails_leaves_nothing(settings: Settings, source: Source) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ValueError("no such layer")

    with pytest.raises(ValueError, match="no such layer"):
        ModelCache(settings).keep(source, {}, fail)

    assert list((settings.storage_root / "model-cache").glob("*/")) == []


def grow_old(folder: Path) -> None:
    month_ago = time.time() - 31 * 86_400
    os.utime(folder, (month_ago, month_ago))


def let_go(folder: Path) -> None:
    """As the end of this process would."""
    os.close(model_cache._held.pop(folder))


def test_what_a_process_has_is_kept_however_long_ago_it_asked(settings: Settings, source: Source) -> None:
    had = ModelCache(settings).keep(source, {"version": 1}, Making())
    grow_old(had)

    ModelCache(settings).keep(source, {"version": 2}, Making())

    assert (had / "weights").read_bytes() == b"weights"


def test_one_model_is_there_while_another_is_made(settings: Settings, source: Source) -> None:
    first = ModelCache(settings).keep(source, {"version": 1}, Making())

    def make(folder: Path) -> None:
        assert ModelCache(settings).keep(source, {"version": 1}, Making()) == first
        ModelCache(settings).keep(source, {"version": 3}, Making())  # does not take what is being made for left
        (folder / "weights").write_bytes(b"weights")

    second = ModelCache(settings).keep(source, {"version": 2}, make)

    assert (second / "weights").read_bytes() == b"weights"


def test_what_is_left_or_unused_is_removed_when_something_is_made(settings: Settings, source: Source) -> None:
    root = settings.storage_root / "model-cache"
    old, used = (ModelCache(settings).keep(source, {"version": each}, Making()) for each in (1, 2))
    (root / ".left").mkdir()
    grow_old(old)
    grow_old(used)
    let_go(old)
    let_go(used)
    ModelCache(settings).keep(source, {"version": 2}, Making())  # to ask for it is to use it
    let_go(used)

    new = ModelCache(settings).keep(source, {"version": 3}, Making())

    assert set(root.glob("*/")) == {used, new}


def test_a_disk_that_is_full_for_uploads_is_full_for_models(settings: Settings, source: Source) -> None:
    full = settings.model_copy(update={"min_free_disk": 2**60})

    with pytest.raises(OSError, match="MIN_FREE_DISK"):
        ModelCache(full).keep(source, {}, Making())


@forking
def test_of_several_processes_one_makes_and_the_others_wait(settings: Settings, source: Source) -> None:
    makers = settings.storage_root / "makers"
    settings.storage_root.mkdir()
    fork = multiprocessing.get_context("fork")
    together = fork.Barrier(4)

    def make(folder: Path) -> None:
        with makers.open("a") as file:
            file.write("one\n")
        (folder / "weights").write_bytes(b"weights")

    def ask() -> None:
        together.wait(10)
        kept = ModelCache(settings).keep(source, {}, make)
        raise SystemExit((kept / "weights").read_bytes() != b"weights")

    processes = [fork.Process(target=ask) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)

    assert [process.exitcode for process in processes] == [0] * 4
    assert makers.read_text() == "one\n"


@forking
def test_a_maker_that_dies_keeps_nobody_waiting(settings: Settings, source: Source) -> None:
    def die(folder: Path) -> None:
        (folder / "half").touch()
        os._exit(9)

    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=lambda: ModelCache(settings).keep(source, {}, die))
    process.start()
    process.join(20)
    assert process.exitcode == 9

    kept = ModelCache(settings).keep(source, {}, Making())

    assert (kept / "weights").read_bytes() == b"weights"
    assert [folder.name for folder in kept.parent.glob("*/")] == [kept.name]
    with (kept.parent / f"{kept.name}.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
