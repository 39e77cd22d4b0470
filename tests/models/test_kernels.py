"""Both orders of kernels are tried for networks made of convolutions, and the faster one stays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from app.worker import kernels, openvino_runtime
from app.worker.kernels import Trial, better, is_faster, with_other_kernels
from app.worker.networks import ImageNetwork
from app.worker.openvino_quiet import openvino
from app.worker.sources import fetch
from tests.models.settings import settings_for

#: It is to be told which kernels ran.
OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True}
IMAGE = np.random.default_rng(3).random((1, 3, 20, 20), np.float32)
KERNELS = {"jit_avx2_f32", "jit_avx2_dw_f32", "jit_avx2_1x1_f32"}


def core() -> Any:
    return openvino_runtime._core()


def converted(network: nn.Module) -> Any:
    with torch.inference_mode(), openvino_runtime._silence():
        return openvino.convert_model(network.eval(), example_input=torch.from_numpy(IMAGE))


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 8, 1))


def kernels_of(compiled: Any) -> set[str]:
    request = compiled.create_infer_request()
    request.infer([IMAGE])
    return {part.exec_type for part in request.get_profiling_info() if "Convolution" in part.node_type}


def test_another_order_asks_for_other_kernels_and_computes_the_same(tmp_path: Path) -> None:
    model = converted(convolutions())

    other_model = with_other_kernels(core(), model, tmp_path)

    plain, other = [core().compile_model(each, "CPU", OPTIONS) for each in (model, other_model)]
    np.testing.assert_allclose(other(IMAGE)[0], plain(IMAGE)[0], atol=1e-5)
    used = kernels_of(other)
    if torch.backends.cpu.get_cpu_capability() == "AVX2":  # what others have is not known
        assert used == KERNELS
        assert kernels_of(plain) != KERNELS
    kept = core().import_model(other.export_model(), "CPU", OPTIONS)
    assert kernels_of(kept) == used, "the order is kept with the network"
    assert list(tmp_path.iterdir()) == []


class Patches(nn.Module):
    """Convolves little, as a vision transformer does."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.first, self.second = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        return self.second(self.first(tokens))  # type: ignore[no-any-return]


def test_networks_that_convolve_little_are_left_alone(tmp_path: Path) -> None:
    assert with_other_kernels(core(), converted(Patches()), tmp_path) is None


def test_very_large_networks_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_MOST_BYTES", 100)

    assert with_other_kernels(core(), converted(convolutions()), tmp_path) is None


def nothing() -> None:
    pass


PLAIN = Trial("plain", nothing, 0.0)


@pytest.mark.parametrize(
    ("faster", "drift", "model", "kept"),
    [
        (True, 0.1, "other", "other"),
        (False, 0.1, "other", "plain"),
        (True, 0.3, "other", "plain"),
        (True, 0, None, "plain"),
    ],
    ids=["faster", "slower", "far from what is expected", "there is none"],
)
def test_the_other_order_is_kept_if_it_is_as_good_and_faster(
    drift: float, model: str | None, kept: str, monkeypatch: pytest.MonkeyPatch, *, faster: bool
) -> None:
    monkeypatch.setattr(kernels, "is_faster", lambda *_, **__: faster)

    best = better(PLAIN, lambda: model, lambda _: Trial("other", nothing, drift), tolerance=0.25)

    assert best.compiled == kept


@pytest.mark.parametrize("error", [RuntimeError("basic_ios::clear: iostream error"), OSError("full"), MemoryError()])
def test_whatever_goes_wrong_with_the_other_order_the_network_runs(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> Any:
        raise error

    assert better(PLAIN, fail, fail, tolerance=0.25) is PLAIN
    assert better(PLAIN, lambda: "other", fail, tolerance=0.25) is PLAIN
    assert caplog.text.count("OpenVINO's own order of kernels stays") == 2


def test_what_is_kept_of_a_network_is_the_better_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Trial] = []

    def choose(plain: Trial, other: Any, try_it: Callable[[Any], Trial], *, tolerance: float) -> Trial:
        tried.extend((plain, try_it(other())))
        assert tried[1].drift <= tolerance
        return tried[1]

    monkeypatch.setattr(openvino_runtime, "better", choose)
    source = fetch("models/efficientnet-lite0", token=None)
    settings = settings_for(storage_root=tmp_path, dtype="float32")

    network = ImageNetwork(source, auto_class="AutoModelForImageClassification", settings=settings)

    (kept,) = tmp_path.glob("model-cache/*/network.blob")
    plain, other = (trial.compiled.export_model().getvalue() for trial in tried)
    assert plain != kept.read_bytes() == other
    assert network.info.runtime == "openvino"


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
    ("times_s", "faster"),
    [((0.008,), True), ((0.012,), False), ((0.0098,), False), ((0.030, 0.030, 0.008), True)],
    ids=["faster", "slower", "hardly faster", "disturbed"],
)
def test_what_is_faster_takes_clearly_less(times_s: tuple[float, ...], *, faster: bool) -> None:
    clock = Clock()

    assert is_faster(clock.takes(*times_s), than=clock.takes(0.010), clock=clock) is faster


def test_slow_ones_are_tried_a_few_times_only() -> None:
    clock = Clock()

    assert is_faster(clock.takes(4), than=clock.takes(5), clock=clock)

    assert clock.runs == 2 * kernels._LEAST_ROUNDS
