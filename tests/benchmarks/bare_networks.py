"""Networks alone, for batches of any size: PyTorch or OpenVINO, in one precision, with one thread on the processor."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import app.worker.torchvision_cpu  # noqa: F401  # isort: skip  # before transformers, which imports torchvision
import openvino  # type: ignore[import-untyped, unused-ignore]  # carries no types
import transformers

#: Pictures are squares of this side, in pixels.
SIDE = 224
#: As a worker process has it: one thread, and not tied to a core that the next one is tied to as well.
_OPENVINO = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}

#: Runs a batch of pictures, of shape [n, 3, SIDE, SIDE], and waits for the answer.
Run = Callable[[torch.Tensor], object]


def runner(weights: Path, runtime: str) -> Run:
    """A network of a folder in a runtime such as "OpenVINO bf16", "torch float32" or "torch bfloat16, GPU"."""
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    warnings.simplefilter("ignore")  # what tracing has to say is no figure
    torch.set_num_threads(1)
    network: Any = transformers.AutoModelForImageClassification.from_pretrained(weights, dtype=torch.float32)
    if hasattr(network, "efficientnet"):
        # The same mean; the window of 1280 that transformers writes is refused by OpenVINO's front end.
        network.efficientnet.pooler = torch.nn.AdaptiveAvgPool2d(1)
    logits = _Logits(network.eval())
    library, precision = runtime.removesuffix(", GPU").split()
    if library == "OpenVINO":
        return _by_openvino(logits, precision)
    return _by_torch(logits, getattr(torch, precision), "cuda" if runtime.endswith("GPU") else "cpu")


class _Logits(torch.nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self._network = network

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._network(pixel_values=pixel_values).logits
        return logits


def _by_openvino(logits: torch.nn.Module, precision: str) -> Run:
    example = torch.zeros(1, 3, SIDE, SIDE)
    converted = openvino.convert_model(logits, example_input=example, input=[-1, 3, SIDE, SIDE])
    settings = {**_OPENVINO, "INFERENCE_PRECISION_HINT": precision}
    compiled: dict[int, Any] = {}

    def run(pictures: torch.Tensor) -> object:
        size = len(pictures)
        if size not in compiled:  # for this size alone: a network for any size is slower
            converted.reshape([size, 3, SIDE, SIDE])
            compiled[size] = openvino.compile_model(converted, "CPU", settings)
        return compiled[size](pictures.numpy())

    return run


def _by_torch(logits: torch.nn.Module, dtype: torch.dtype, device: str) -> Run:
    placed: Any = logits.to(device=device, dtype=dtype)
    placed = placed.to(memory_format=torch.channels_last)

    def run(pictures: torch.Tensor) -> object:
        with torch.inference_mode():
            given = pictures.to(device=device, dtype=dtype, memory_format=torch.channels_last)
            return placed(given).cpu()

    return run
