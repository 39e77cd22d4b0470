"""`make bench`: what the service does on this machine, beside the raw loop of the same runtime and preparation.

for each photo: the service and the raw loop start → they take turns; with the first photo also one client alone, and
arrivals that wait for nobody → they end. Then the same with a ViT-B/16 of random weights, and again in batches. At the
end tables, JSON and a chart. The exit status is 1 if measuring failed, or, with --check, if a ratio was missed.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tests.benchmarks import chart, checks, machine, report
from tests.benchmarks.checks import BATCHED, Check
from tests.benchmarks.parts import FULL, QUICK, Closed, Idle, Open, Plan, closed, idle, open_loop
from tests.benchmarks.photos import Photo, photos
from tests.benchmarks.raw_loop import RawLoop, raw_loop
from tests.benchmarks.service import SETTINGS, Service, running
from tests.processes import ROOT

#: What the worker is told for batches, of which one is run while the next one gathers, and what that is called.
BATCHES = {"BATCH_MAX": "8", "WORKER_CONCURRENCY": "16"}
PARTS = ("idle", "sizes", "open", "vit")
RESULTS = ROOT / "tests" / "benchmarks" / "results"
#: Tries do not replace the figures that are kept.
TRIES = ROOT / ".cache" / "bench"


@dataclass
class Found:
    """All that was measured."""

    closed: list[Closed] = field(default_factory=list)
    idle: Idle | None = None
    open: list[Open] = field(default_factory=list)

    def checks(self) -> list[Check]:
        """What has to be true of it."""
        found = checks.of_closed(self.closed)
        if self.idle:
            found += checks.of_idle(self.idle)
            found += checks.of_open(self.open, self.idle) if self.open else []
        return found

    def tables(self) -> list[str]:
        """For people."""
        found = [report.closed_tables(self.closed)] if self.closed else []
        found += [report.idle_table(self.idle)] if self.idle else []
        found += [report.open_table(self.open)] if self.open else []
        return [*found, report.check_table(self.checks())]


def main() -> int:
    """Measure. Returns the exit status."""
    arguments = _arguments()
    folder: Path = arguments.out or (TRIES if arguments.quick else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    found = Found()
    plan = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as temporary:
        if {"idle", "sizes", "open"} & set(arguments.parts):
            _measure_lite0(found, Path(temporary), plan, parts=arguments.parts)
        if "vit" in arguments.parts:
            _measure_vit(found, Path(temporary), plan)
    about, verdicts = machine.describe(), found.checks()
    print("\n\n".join((report.heading(about), *found.tables())))
    figures = {**about, **asdict(found), "checks": [asdict(each) for each in verdicts]}
    (folder / "bench.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    if found.closed and found.open:
        chart.draw(folder / "bench.png", closed=found.closed, arrivals=found.open, machine=about)
    print(f"\nFigures and chart: {folder}")
    return int(arguments.check and not all(each.met for each in verdicts))


def _measure_lite0(found: Found, folder: Path, plan: Plan, *, parts: list[str]) -> None:
    for number, photo in enumerate(photos(folder)):
        if number and "sizes" not in parts:
            return
        with _side_by_side(folder / f"photo-{number}", SETTINGS) as (service, raw):
            if not number and "idle" in parts:
                _tell("one client alone")
                found.idle = idle(service, raw, photo, plan)
            _tell(f"16 clients with {photo.name}")
            figures = closed(service, raw, photo, plan, network="EfficientNet-Lite0")
            found.closed.append(figures)
            if not number and "open" in parts:
                _tell("arrivals that wait for nobody")
                found.open = open_loop(service, photo, plan, capacity=figures.jobs_per_s, raw_ms=figures.raw.image_ms)


def _measure_vit(found: Found, folder: Path, plan: Plan) -> None:
    weights = folder / "vit-b-16"
    subprocess.run([sys.executable, "-m", "tests.benchmarks.vit", str(weights)], check=True, cwd=ROOT)
    photo: Photo = photos(folder)[0]
    # It does few pictures a second, and they are counted.
    longer = replace(plan, raw_s=2 * plan.raw_s, closed_s=3 * plan.closed_s)
    settings = {**SETTINGS, "CLASSIFY_MODEL": str(weights)}
    for number, (network, batches) in enumerate((("ViT-B/16", {}), (BATCHED, BATCHES))):
        with _side_by_side(folder / f"vit-{number}", settings, batches) as (service, raw):
            _tell(f"16 clients with a {network}")
            found.closed.append(closed(service, raw, photo, longer, network=network))


@contextlib.contextmanager
def _side_by_side(
    folder: Path, settings: Mapping[str, str], batches: Mapping[str, str] | None = None
) -> Iterator[tuple[Service, RawLoop]]:
    """Both, of which the service alone may run batches."""
    _tell("starting")
    folder.mkdir()
    with (
        running(folder, settings={**settings, **(batches or {})}) as service,
        raw_loop(folder, processes=machine.cores(), settings=settings) as raw,
    ):
        yield service, raw


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short and rough, and kept elsewhere")
    parser.add_argument("--check", action="store_true", help="fail if a ratio is missed")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which; all")
    parser.add_argument("--out", type=Path, help="folder for the figures and the chart")
    return parser.parse_args()


def _tell(what: str) -> None:
    print(f"… {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
