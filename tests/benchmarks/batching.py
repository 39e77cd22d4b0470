"""What a network gains by taking pictures together: `make bench-batching`.

The network alone, without preparation, in each runtime there is: by PyTorch and OpenVINO with one thread, as a worker
process has, and by PyTorch on a GPU where there is one. Batches of 1, 8 and 32 take turns, and medians are kept. The
README beside this says what follows from the gains.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

import app.worker.torchvision_cpu  # noqa: F401  # isort: skip  # before transformers, which imports torchvision
import openvino  # type: ignore[import-untyped, unused-ignore]  # carries no types
import transformers
from transformers import AutoModelForImageClassification

from tests.benchmarks import machine, report
from tests.benchmarks.__main__ import RESULTS, TRIES
from tests.processes import ROOT

SIZES = (1, 8, 32)
_SIDE = 224
#: No further round of a network is begun after so long.
_ENOUGH_S = 20
#: OpenVINO's plain settings of a worker process: one thread, and not tied to a core that the next one is tied to too.
_OPENVINO = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_NUM_THREADS": 1,
    "ENABLE_CPU_PINNING": False,
}
#: Runs a batch of pictures, of shape [n, 3, 224, 224], and waits for the answer.
Run = Callable[[torch.Tensor], object]


@dataclass(frozen=True)
class Gain:
    """Pictures a second by the size of the batch."""

    network: str
    runtime: str
    images_per_s: dict[int, float]

    def over_one(self, size: int) -> float:
        """How many times as fast as pictures on their own."""
        return round(self.images_per_s[size] / self.images_per_s[1], 2)


def main() -> None:
    """Measure all there is, print a table, and write the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.batching", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short and rough, and kept elsewhere")
    quick: bool = parser.parse_args().quick
    folder = TRIES if quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    warnings.simplefilter("ignore")  # what tracing and transformers have to say is no figure
    torch.set_num_threads(1)
    found = []
    for name, network in _networks():
        for runtime, run in _runtimes(network):
            found.append(_measure(name, runtime, run, rounds=1 if quick else 5))
            print(f"… {name}, {runtime}", file=sys.stderr, flush=True)
    rows = [(each.network, each.runtime, *each.images_per_s.values(), *map(each.over_one, SIZES[1:])) for each in found]
    about = machine.describe("transformers")
    names = ("network", "runtime", *(f"{size}: images/s" for size in SIZES), *(f"{size} ÷ 1" for size in SIZES[1:]))
    print(f"{report.heading(about)}\n\n{report.table(names, rows)}")
    figures = {**about, "gains": [asdict(each) for each in found]}
    (folder / "batching.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


def _networks() -> Iterator[tuple[str, Any]]:
    load = AutoModelForImageClassification.from_pretrained
    network: Any = load(ROOT / "models" / "efficientnet-lite0", dtype=torch.float32)
    # The same mean; the window of 1280 that transformers writes is refused by OpenVINO's front end.
    network.efficientnet.pooler = torch.nn.AdaptiveAvgPool2d(1)
    yield "EfficientNet-Lite0", network.eval()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "tests.benchmarks.vit", folder], check=True, cwd=ROOT)
        yield "ViT-B/16", load(folder, dtype=torch.float32).eval()


class _Logits(torch.nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self._network = network

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._network(pixel_values=pixel_values).logits
        return logits


def _runtimes(network: Any) -> Iterator[tuple[str, Run]]:
    logits = _Logits(network)
    for precision in ("f32", "bf16"):
        yield f"OpenVINO {precision}, 1 thread", _by_openvino(logits, precision)
    for dtype in (torch.float32, torch.bfloat16):
        yield f"torch {_name(dtype)}, 1 thread", _by_torch(logits, dtype, "cpu")
    if torch.cuda.is_available():
        for dtype in (torch.float32, torch.bfloat16):
            yield f"torch {_name(dtype)}, {torch.cuda.get_device_name()}", _by_torch(logits, dtype, "cuda")


def _by_openvino(logits: torch.nn.Module, precision: str) -> Run:
    example = torch.zeros(1, 3, _SIDE, _SIDE)
    converted = openvino.convert_model(logits, example_input=example, input=[-1, 3, _SIDE, _SIDE])
    settings = {**_OPENVINO, "INFERENCE_PRECISION_HINT": precision}
    compiled = {}

    def run(pictures: torch.Tensor) -> object:
        size = len(pictures)
        if size not in compiled:  # for the size alone: a network for any size is slower
            converted.reshape([size, 3, _SIDE, _SIDE])
            compiled[size] = openvino.compile_model(converted, "CPU", settings)
        return compiled[size](pictures.numpy())

    return run


def _by_torch(logits: torch.nn.Module, dtype: torch.dtype, device: str) -> Run:
    logits = logits.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stubs know it not

    def run(pictures: torch.Tensor) -> object:
        with torch.inference_mode():
            given = pictures.to(device=device, dtype=dtype, memory_format=torch.channels_last)
            return logits(given).cpu()

    return run


def _measure(name: str, runtime: str, run: Run, *, rounds: int) -> Gain:
    batches = {size: torch.rand(size, 3, _SIDE, _SIDE) for size in SIZES}
    speeds: dict[int, list[float]] = {size: [] for size in SIZES}
    for pictures in batches.values():
        run(pictures)  # compiles, and warms up
    began_s = time.perf_counter()
    for number in range(rounds):
        if number and time.perf_counter() - began_s > _ENOUGH_S:
            break
        for size, pictures in batches.items():
            times = max(SIZES) // size  # as many pictures of each
            batch_s = time.perf_counter()
            for _ in range(times):
                run(pictures)
            speeds[size].append(times * size / (time.perf_counter() - batch_s))
    return Gain(name, runtime, {size: round(median(found), 1) for size, found in speeds.items()})


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    main()
