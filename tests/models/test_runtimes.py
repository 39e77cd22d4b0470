"""Which runtime runs a network, and that all of them answer as PyTorch does in float32 behind the stock processor."""

import importlib
import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from app import imaging
from app.imaging import Picture
from app.tasks.base import Detection
from app.worker import networks, openvino_runtime, torch_runtime
from app.worker.detector import ObjectDetector
from app.worker.networks import ImageNetwork
from app.worker.openvino_runtime import OpenVINORunner
from app.worker.runners import Arrays, Unsuitable, drift_of
from app.worker.sources import fetch
from tests.images import noise
from tests.models.settings import settings_for
from tests.processes import PHOTOS, ROOT

CLASSIFIER = "models/efficientnet-lite0"
NAMES = sorted(path.name for path in PHOTOS.iterdir() if path.suffix in {".jpg", ".png"})
#: Scores of what `auto` picks may differ by so much from the stock processor's and float32's.
MAX_SCORE_DRIFT = 0.06
#: Sides of boxes, in parts of the picture's longer side, and scores of objects.
MAX_BOX_DRIFT, MAX_OBJECT_DRIFT = 0.02, 0.03


def classifier(**values: Any) -> ImageNetwork:
    torch_runtime.set_threads(2)
    source = fetch(CLASSIFIER, token=None)
    return ImageNetwork(source, auto_class="AutoModelForImageClassification", settings=settings_for(**values))


def detector(**values: Any) -> ObjectDetector:
    torch_runtime.set_threads(2)
    return ObjectDetector(fetch("models/nanodet-g", token=None), settings=settings_for(**values))


@pytest.fixture(scope="module")
def chosen() -> ImageNetwork:
    return classifier()


@pytest.fixture(scope="module")
def chosen_detector() -> ObjectDetector:
    return detector()


@pytest.fixture(scope="module")
def plain_detector() -> ObjectDetector:
    return detector(runtime="torch", dtype="float32")


@pytest.fixture(scope="module")
def photos() -> Mapping[str, Image.Image]:
    return {name: imaging.open_image(PHOTOS / name, max_pixels=10**6) for name in NAMES}


@pytest.fixture(scope="module")
def stock_scores(photos: Mapping[str, Image.Image]) -> Mapping[str, np.ndarray]:
    stock_processor: Any = AutoImageProcessor
    processor = stock_processor.from_pretrained(ROOT / CLASSIFIER)
    network = AutoModelForImageClassification.from_pretrained(ROOT / CLASSIFIER, dtype=torch.float32).eval()
    with torch.inference_mode():
        inputs = {name: processor(images=image, return_tensors="pt") for name, image in photos.items()}
        return {name: scores(network(**each).logits.numpy()) for name, each in inputs.items()}


def scores(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits[0] - logits[0].max())
    return np.asarray(exponents / exponents.sum())


def test_auto_is_openvino_for_the_models_that_ship(chosen: ImageNetwork, chosen_detector: ObjectDetector) -> None:
    assert {network.info.runtime for network in (chosen, chosen_detector)} == {"openvino"}
    assert {network.info.device for network in (chosen, chosen_detector)} == {"cpu"}
    assert (len(chosen.labels), len(chosen_detector.labels)) == (1000, 80)


@pytest.mark.parametrize("photo", NAMES)
def test_what_auto_picks_scores_as_float32_does(
    chosen: ImageNetwork, photo: str, photos: Mapping[str, Image.Image], stock_scores: Mapping[str, np.ndarray]
) -> None:
    found = scores(chosen.predict(chosen.preprocess(Picture.whole(photos[photo])))["logits"])
    expected = stock_scores[photo]

    assert found.argmax() == expected.argmax()
    best = np.argsort(-expected)[:5]
    np.testing.assert_allclose(found[best], expected[best], atol=MAX_SCORE_DRIFT)


def test_inputs_lie_in_memory_as_they_like_and_an_answer_outlives_the_next(
    chosen: ImageNetwork, photos: Mapping[str, Image.Image]
) -> None:
    plain, other = (np.asarray(chosen.preprocess(Picture.whole(photos[name]))) for name in NAMES[:2])
    read_only = plain.copy()
    read_only.flags.writeable = False
    first = chosen.predict(plain)["logits"]
    expected = first.copy()

    for inputs in (read_only, np.asfortranarray(plain), np.repeat(plain, 2, axis=2)[:, :, ::2], plain.astype(float)):
        np.testing.assert_array_equal(chosen.predict(inputs)["logits"], expected)

    assert (chosen.predict(other)["logits"] != expected).any()
    np.testing.assert_array_equal(first, expected)


@pytest.mark.parametrize("photo", NAMES)
def test_what_auto_picks_finds_what_float32_finds(
    chosen_detector: ObjectDetector, plain_detector: ObjectDetector, photo: str, photos: Mapping[str, Image.Image]
) -> None:
    image = photos[photo]
    expected, found = detected(plain_detector, image), detected(chosen_detector, image)

    assert expected
    for one in expected:
        same = [other for other in found if other.label == one.label]
        alike = [other for other in same if abs(other.score - one.score) < MAX_OBJECT_DRIFT]
        drifts = [np.abs(sides(other) - sides(one)).max() / max(image.size) for other in alike]
        assert min(drifts, default=1) < MAX_BOX_DRIFT, one


def detected(network: ObjectDetector, image: Image.Image) -> list[Detection]:
    outputs = network.predict(network.preprocess(Picture.whole(image)))
    return network.detections(outputs, threshold=0.4, width=image.width, height=image.height)


def sides(one: Detection) -> np.ndarray:
    return np.array([one.xmin, one.ymin, one.xmax, one.ymax])


def test_in_float32_every_size_gives_the_same_as_pytorch(plain_detector: ObjectDetector) -> None:
    by_openvino, by_torch = detector(runtime="openvino", dtype="float32"), plain_detector

    for size in ((1, 1), (3000, 10), (10, 3000), (640, 480), (300, 301)):
        image = noise(*size)
        found, expected = (each.predict(each.preprocess(Picture.whole(image))) for each in (by_openvino, by_torch))
        assert drift_of(found, expected) < 1e-4, size


class Cropped:
    """What the stock processor of the classifier does, with the arithmetic left over."""

    scale = (1 / 128,) * 3
    shift = (-127 / 128,) * 3

    def least_size(self, width: int, height: int) -> tuple[int, int]:
        return min(512, width), min(512, height)

    def __call__(self, picture: Picture) -> np.ndarray:
        image = picture.image
        side = min(image.size)
        size = round(256 * image.width / side), round(256 * image.height / side)
        scaled = image.resize(size, Image.Resampling.BICUBIC)
        left, top = (scaled.width - 224) // 2, (scaled.height - 224) // 2
        return np.asarray(scaled.crop((left, top, left + 224, top + 224)))[None]


@pytest.mark.parametrize(("runtime", "dtype"), [("openvino", "float32"), ("torch", "float32"), ("torch", "bfloat16")])
def test_bytes_are_normalised_inside_the_network(
    runtime: str,
    dtype: str,
    photos: Mapping[str, Image.Image],
    stock_scores: Mapping[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(networks, "preparation_of", lambda _: Cropped())
    network = classifier(runtime=runtime, dtype=dtype)

    inputs = network.preprocess(Picture.whole(photos["dog.jpg"]))

    assert isinstance(inputs, np.ndarray)
    assert inputs.dtype == np.uint8
    assert inputs.shape == (1, 224, 224, 3)
    found = scores(network.predict(inputs)["logits"])
    np.testing.assert_allclose(found, stock_scores["dog.jpg"], atol=0.03)
    assert network.least_size(4000, 300) == (512, 300)


def test_a_picture_is_decoded_whole_where_no_processor_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "preparation_of", lambda _: None)
    network = classifier(runtime="torch")

    assert network.least_size(4000, 300) is None
    network._processor.least_size = lambda width, height: (width // 2, height // 2)
    assert network.least_size(4000, 300) == (2000, 150)


def test_a_network_that_openvino_refuses_is_run_by_pytorch_and_one_line_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def refuse(*_: object, **__: object) -> None:
        asked.append(1)
        raise RuntimeError("Exception from src/core.cpp:1:\nNo conversion rule for aten::new\nmore")

    monkeypatch.setattr("openvino.convert_model", refuse)

    networks_of = [classifier(storage_root=tmp_path) for _ in range(2)]

    assert {network.info.runtime for network in networks_of} == {"torch"}
    line = f"{CLASSIFIER} is run by PyTorch: OpenVINO cannot run {CLASSIFIER}: No conversion rule for aten::new"
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [line] * 2
    assert len(asked) == 1, "the refusal is remembered"
    with pytest.raises(Unsuitable, match=f"^OpenVINO cannot run {CLASSIFIER}: No conversion rule for aten::new$"):
        classifier(storage_root=tmp_path, runtime="openvino")


def test_a_network_that_would_answer_otherwise_is_not_run_by_openvino(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_runtime, "TOLERANCE", 1e-9)

    with pytest.raises(Unsuitable, match=r"answers for .* are too far from PyTorch's: 0\.\d\d of their spread$"):
        classifier(storage_root=tmp_path, runtime="openvino")


def test_float32_is_what_is_left_where_half_of_it_drifts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: OpenVINORunner, inputs: Arrays) -> Arrays:
        drift = 1 if self.dtype == "bfloat16" else 0  # a processor without it computes in float32, whatever is asked
        return {name: array + drift * array.std() * np.arange(array.size) for name, array in ran(self, inputs).items()}

    ran = OpenVINORunner.__call__
    monkeypatch.setattr(openvino_runtime, "TOLERANCE", 1e-4)
    monkeypatch.setattr(OpenVINORunner, "__call__", run)
    monkeypatch.setattr(openvino_runtime, "_precisions", lambda *_: ["bf16", "f32"])

    network = classifier(storage_root=tmp_path)

    assert (network.info.runtime, network.runner.dtype) == ("openvino", "float32")


def test_numbers_that_the_processor_does_not_compute_in_are_for_pytorch() -> None:
    class Core:
        """An old processor."""

        def get_property(self, _: str, name: str) -> Any:
            return {"OPTIMIZATION_CAPABILITIES": ["FP32", "INT8"]}[name]

    core = Core()

    assert openvino_runtime._precisions(core, settings_for(dtype="float32")) == ["f32"]
    with pytest.raises(Unsuitable, match="OpenVINO does not compute in bfloat16 on this processor"):
        openvino_runtime._precisions(core, settings_for(dtype="bfloat16"))


def test_a_signal_is_survived_when_networks_have_come_and_gone() -> None:
    # In a process of its own: one that does not survive it says nothing of why.
    script = """
import signal, threading
import app.worker.torchvision_cpu
from tests.models.test_runtimes import classifier

networks = [classifier(), classifier()]
for _ in range(2):
    thread = threading.Thread(target=networks.pop, args=(0,))
    thread.start()
    thread.join()
signal.signal(signal.SIGALRM, lambda *_: print("survived"))
signal.raise_signal(signal.SIGALRM)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )

    assert (ended.returncode, ended.stdout) == (0, "survived\n"), ended.stderr


def test_without_openvino_pytorch_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("app.worker.openvino_runtime")
    monkeypatch.setitem(sys.modules, "app.worker.openvino_runtime", None)

    assert classifier().info.runtime == "torch"
    with pytest.raises(Unsuitable, match="OpenVINO cannot be imported"):
        classifier(runtime="openvino")


def test_a_second_process_needs_no_network_of_pytorch(chosen: ImageNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "load_network", lambda *_, **__: pytest.fail("it was converted before"))

    assert classifier().info == chosen.info


def test_what_openvino_cannot_read_any_more_is_converted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def keep_nonsense(*_: object, **__: object) -> tuple[dict[str, Any], bytes]:
        return {"inputs": ["pixel_values"], "outputs": ["logits"], "precision": "f32"}, b"from elsewhere" * 99

    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(openvino_runtime, "_make", keep_nonsense)
        assert classifier(storage_root=tmp_path, dtype="float32").info.runtime == "torch", "there is nothing else"
        with pytest.raises(Unsuitable, match="OpenVINO cannot load"):
            classifier(storage_root=tmp_path, dtype="float32", runtime="openvino")
    caplog.clear()

    network = classifier(storage_root=tmp_path, dtype="float32")

    assert network.info.runtime == "openvino"
    assert "is converted anew" in caplog.text


def test_a_process_keeps_to_its_threads_and_is_bound_to_no_core(chosen: ImageNetwork) -> None:
    run: Any = chosen.runner
    compiled = run._request.get_compiled_model()

    assert compiled.get_property("INFERENCE_NUM_THREADS") == settings_for().threads_per_process
    assert compiled.get_property("NUM_STREAMS") == 1
    assert compiled.get_property("ENABLE_CPU_PINNING") is False


def test_an_output_of_no_numbers_is_an_error_whatever_the_runtime(
    chosen: ImageNetwork, photos: Mapping[str, Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = chosen.preprocess(Picture.whole(photos["dog.jpg"]))
    assert np.isfinite(drift_of(chosen.predict(inputs), chosen.predict(inputs)))
    monkeypatch.setattr(
        openvino_runtime.OpenVINORunner, "__call__", lambda *_: {"logits": np.full((1, 1000), np.nan, np.float32)}
    )

    with pytest.raises(ArithmeticError, match=rf"^{CLASSIFIER} computes no numbers in \w+: set DTYPE=float32"):
        chosen.predict(inputs)


def test_weights_of_pytorch_are_those_of_a_mapped_file() -> None:
    network = classifier(runtime="torch", dtype="bfloat16")

    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("weights.pt")]
    ranges = [tuple(int(end, 16) for end in line[0].split("-")) for line in maps]
    run: Any = network.runner
    weights = list(run._network.network.parameters())
    assert len(weights) > 100
    for weight in weights:
        assert any(start <= weight.data_ptr() < end for start, end in ranges), "no process has its own copy"
    assert {weight.dtype for weight in weights} == {torch.bfloat16}


def test_openvino_reports_to_nobody() -> None:
    telemetry = importlib.import_module("openvino.tools.ovc.telemetry_utils").tm

    assert telemetry.__name__ == "openvino.tools.ovc.telemetry_stub"


def test_a_device_is_told_as_it_is_asked_for() -> None:
    network: Any = SimpleNamespace(network=SimpleNamespace(device=torch.device("cuda:0")), dtype=torch.float32)

    assert torch_runtime.TorchRunner(network).device == "cuda"
