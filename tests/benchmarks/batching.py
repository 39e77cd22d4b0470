"""What a network gains by taking pictures together: `make bench-batching`.

The network alone, without preparation, in each runtime there is: on the processor by as many processes as a worker has,
all at once and with one thread each, and on a GPU, where there is one, by one process. Batches of 1, 8 and 32 take
turns, and medians are kept. On the processor the seconds are those that a process had of it, which other work on the
machine takes little from. The README beside this says what follows from the gains.
"""

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median

from tests.benchmarks import machine, report
from tests.benchmarks.__main__ import RESULTS, TRIES
from tests.processes import ROOT

SIZES = (1, 8, 32)
#: After so long the other processes have failed.
_PATIENCE_S = 300
_ON_PROCESSOR = ("OpenVINO f32", "OpenVINO bf16", "torch float32", "torch bfloat16")
_ON_GPU = ("torch float32, GPU", "torch bfloat16, GPU")


@dataclass(frozen=True)
class Gain:
    """Pictures a second of all processes together, by the size of the batch."""

    network: str
    runtime: str
    processes: int
    images_per_s: Mapping[int, float]

    def over_one(self, size: int) -> float:
        """How many times as fast as pictures on their own."""
        return round(self.images_per_s[size] / self.images_per_s[1], 2)


@dataclass(frozen=True)
class Plan:
    """How often, and for how long at least each time."""

    rounds: int
    seconds: float


def main() -> None:
    """Measure all there is, print a table, and write the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.batching", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short and rough, and kept elsewhere")
    quick: bool = parser.parse_args().quick
    folder, plan = (TRIES, Plan(1, 1)) if quick else (RESULTS, Plan(3, 2))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as vit:
        subprocess.run([sys.executable, "-m", "tests.benchmarks.vit", vit], check=True, cwd=ROOT)
        networks = {"EfficientNet-Lite0": ROOT / "models" / "efficientnet-lite0", "ViT-B/16": Path(vit)}
        found = [
            _measure(name, weights, runtime, plan) for name, weights in networks.items() for runtime in _runtimes()
        ]
    rows = [
        (each.network, each.runtime, each.processes, *each.images_per_s.values(), *map(each.over_one, SIZES[1:]))
        for each in found
    ]
    about = machine.describe("transformers")
    columns = (*(f"{size}: images/s" for size in SIZES), *(f"{size} ÷ 1" for size in SIZES[1:]))
    print(f"{report.heading(about)}\n\n{report.table(('network', 'runtime', 'processes', *columns), rows)}")
    figures = {**about, "gains": [asdict(each) for each in found]}
    (folder / "batching.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


def _runtimes() -> tuple[str, ...]:
    asked = [sys.executable, "-c", "import sys, torch; sys.exit(not torch.cuda.is_available())"]
    has_gpu = subprocess.run(asked, check=False).returncode == 0
    return (*_ON_PROCESSOR, *(_ON_GPU if has_gpu else ()))


def _measure(network: str, weights: Path, runtime: str, plan: Plan) -> Gain:
    print(f"… {network}, {runtime}", file=sys.stderr, flush=True)
    processes = 1 if runtime in _ON_GPU else machine.cores()
    context = multiprocessing.get_context("spawn")
    ready = (context.Barrier(processes),)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare, initargs=ready) as pool:
        works = [pool.submit(_work, weights, runtime, plan) for _ in range(processes)]
        each = [work.result() for work in works]
    together = {size: [sum(speeds) for speeds in zip(*(one[size] for one in each), strict=True)] for size in SIZES}
    return Gain(network, runtime, processes, {size: round(median(speeds), 1) for size, speeds in together.items()})


class _Here:
    """What each process has."""

    #: Where they wait for each other before each measurement.
    start: Barrier


def _prepare(start: Barrier) -> None:
    _Here.start = start


def _work(weights: Path, runtime: str, plan: Plan) -> dict[int, list[float]]:
    """In each process: its pictures a second in each round, by the size of the batch."""
    clock = time.perf_counter if runtime in _ON_GPU else time.process_time
    import torch  # noqa: PLC0415  # only here: what measures needs none

    from tests.benchmarks.bare_networks import SIDE, runner  # noqa: PLC0415

    run = runner(weights, runtime)
    batches = {size: torch.rand(size, 3, SIDE, SIDE) for size in SIZES}
    for pictures in batches.values():
        run(pictures)  # compiles, and warms up
    speeds: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(plan.rounds):
        for size, pictures in batches.items():
            _Here.start.wait(_PATIENCE_S)
            done, began_s = 0, clock()
            while (took_s := clock() - began_s) < plan.seconds:
                run(pictures)
                done += size
            speeds[size].append(done / took_s)
    return speeds


if __name__ == "__main__":
    main()
