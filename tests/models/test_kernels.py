"""Both orders of kernels are tried for networks made of convolutions, and the faster one stays."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from app.worker import kernels, openvino_runtime
from app.worker.kernels import fastest, rankings
from app.worker.openvino_quiet import openvino

#: It is to be told which kernels ran.
OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True}
IMAGE = np.random.default_rng(3).random((1, 8, 20, 20), np.float32)


def core() -> Any:
    return openvino_runtime._core()


def converted(network: nn.Module) -> Any:
    with torch.inference_mode(), openvino_runtime._silence():
        return openvino.convert_model(network.eval(), example_input=torch.from_numpy(IMAGE))


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 8, 3))


def kernels_of(compiled: Any) -> set[str]:
    request = compiled.create_infer_request()
    request.infer([IMAGE])
    return {part.exec_type for part in request.get_profiling_info() if "Convolution" in part.node_type}


def test_another_order_asks_for_other_kernels_and_computes_the_same() -> None:
    models = rankings(core(), converted(convolutions()))

    plain, other = [core().compile_model(model, "CPU", OPTIONS) for model in models]

    np.testing.assert_allclose(other(IMAGE)[0], plain(IMAGE)[0], atol=1e-5)
    used = kernels_of(other)
    assert used
    if torch.backends.cpu.get_cpu_capability() == "AVX2":  # what others have is not known
        assert not any("brg" in kernel for kernel in used), "OpenVINO's favourites"
    kept = core().import_model(other.export_model(), "CPU", OPTIONS)
    assert kernels_of(kept) == used, "the order is kept with the network"


def test_networks_that_convolve_little_are_left_alone() -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.first, self.second = nn.Conv2d(8, 16, 4, 4), nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            tokens = self.patches(image).flatten(2).transpose(1, 2)
            return self.second(self.first(tokens))  # type: ignore[no-any-return]

    assert len(rankings(core(), converted(Patches()))) == 1


class Clock:
    """Time that passes only while something runs."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.runs = 0

    def __call__(self) -> float:
        return self.now_s

    def takes(self, *times_s: float) -> Callable[[], None]:
        """What takes so long at first, then so long, and so on, and then as long as the last time."""
        left = list(times_s)

        def run() -> None:
            self.runs += 1
            self.now_s += left.pop(0) if len(left) > 1 else left[0]

        return run


@pytest.mark.parametrize(
    ("times_s", "place"),
    [
        ([(0.010,), (0.008,)], 1),
        ([(0.010,), (0.012,)], 0),
        ([(0.010,), (0.0098,)], 0),
        ([(0.010,), (0.030, 0.030, 0.008)], 1),
        ([(0.010,), (0.009,), (0.007,)], 2),
        ([(0.5,)], 0),
    ],
    ids=["faster", "slower", "hardly faster", "disturbed", "the fastest", "alone"],
)
def test_the_first_stays_unless_another_clearly_takes_less(times_s: list[tuple[float, ...]], place: int) -> None:
    clock = Clock()

    assert fastest([clock.takes(*times) for times in times_s], clock=clock) == place


def test_slow_ones_are_tried_a_few_times_only() -> None:
    clock = Clock()

    assert fastest([clock.takes(5), clock.takes(4)], clock=clock) == 1

    assert clock.runs == 2 * kernels._LEAST_ROUNDS
