"""Files that transformers would load although they do not suffice, and memory that does not."""

import builtins
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file

from app.errors import AppError, DeviceOutOfMemory, OutOfMemory
from app.imaging import Picture
from app.worker.captioner import TorchCaptioner
from app.worker.detector import ObjectDetector
from app.worker.networks import ImageNetwork
from app.worker.sources import fetch
from tests.models import tiny_captioners as tiny
from tests.models.settings import settings_for
from tests.models.test_any_detector import FAMILIES, with_config
from tests.models.tiny_captioners import hf
from tests.processes import ROOT

SETTINGS = settings_for(runtime="torch")
PICTURE = Picture.whole(Image.new("RGB", (40, 30), "red"))
#: What a checkpoint holds, by name.
Weights = dict[str, torch.Tensor]


def classifier(folder: Path) -> ImageNetwork:
    return ImageNetwork(fetch(str(folder), token=None), auto_class="AutoModelForImageClassification", settings=SETTINGS)


def detector(folder: Path) -> ObjectDetector:
    return ObjectDetector(fetch(str(folder), token=None), settings=SETTINGS)


def captioner(folder: Path) -> TorchCaptioner:
    return TorchCaptioner(fetch(str(folder), token=None), settings=SETTINGS)


def shipped(folder: Path) -> Path:
    return shutil.copytree(ROOT / "models" / "efficientnet-lite0", folder)


def detr(folder: Path) -> Path:
    for part in FAMILIES["tiny-detr"]():
        part.save_pretrained(folder)
    return folder


def reweigh(folder: Path, change: Callable[[Weights], Weights]) -> None:
    """Change what a checkpoint holds."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def without(*beginnings: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: value for name, value in weights.items() if not name.startswith(beginnings)}


@pytest.mark.parametrize(
    ("save", "load", "beginnings", "named"),
    [
        (shipped, classifier, ("classifier.",), r"EfficientNetForImageClassification needs: classifier\.bias, "),
        (detr, detector, ("class_labels_classifier.",), r"DetrForObjectDetection needs: class_labels_classifier\.bias"),
        (detr, detector, ("class_labels_classifier.", "bbox_predictor."), r"needs: bbox_predictor.*, …$"),
        (tiny.save_blip, captioner, ("text_decoder.bert.encoder.",), r"needs: text_decoder\.bert\.encoder"),
        (tiny.save_vit_gpt2, captioner, ("encoder.encoder.", "encoder.layer"), r"needs: encoder\."),
    ],
)
def test_a_checkpoint_that_lacks_weights_does_not_load(
    tmp_path: Path, save: Any, load: Any, beginnings: tuple[str, ...], named: str
) -> None:
    folder = save(tmp_path / "headless")
    reweigh(folder, without(*beginnings))

    with pytest.raises(ValueError, match=r"^headless lacks weights of the shape that \w+ needs: \w") as refused:
        load(folder)

    assert refused.match(named)


def test_weights_of_another_shape_are_lacking_too(tmp_path: Path) -> None:
    folder = shipped(tmp_path / "other")
    reweigh(folder, lambda weights: {**weights, "classifier.bias": torch.zeros(2)})

    with pytest.raises(ValueError, match=r"needs: classifier\.bias$"):
        classifier(folder)


def test_what_only_training_needs_may_be_lacking(tmp_path: Path) -> None:
    folder = shipped(tmp_path / "trained")
    reweigh(
        folder,
        lambda weights: {name: value for name, value in weights.items() if not name.endswith(".num_batches_tracked")},
    )

    assert classifier(folder).predict(classifier(folder).preprocess(PICTURE))["logits"].shape == (1, 1000)


def test_what_a_decoder_does_not_read_may_be_lacking(tmp_path: Path) -> None:
    folder = tiny.save_vit_gpt2(tmp_path / "unpooled")
    before = load_file(folder / "model.safetensors")
    reweigh(folder, without("encoder.pooler."))

    assert before.keys() != load_file(folder / "model.safetensors").keys()
    assert captioner(folder).info.name == "unpooled"


def test_weights_that_are_no_numbers_show_at_the_load(tmp_path: Path) -> None:
    folder = shipped(tmp_path / "overflown")
    reweigh(folder, lambda weights: {**weights, "classifier.bias": torch.full((1000,), torch.nan)})

    with pytest.raises(ArithmeticError, match=r"^overflown computes no numbers in float32: set DTYPE=float32, or"):
        classifier(folder)


CODE = "raise SystemExit('the code that came with the weights was run')"


@pytest.mark.parametrize(
    ("save", "load", "auto_class"),
    [
        (shipped, classifier, "AutoModelForImageClassification"),
        (detr, detector, "AutoModelForObjectDetection"),
        (tiny.save_blip, captioner, "AutoModelForImageTextToText"),
    ],
)
@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_code_that_comes_with_weights_is_neither_asked_for_nor_run(
    tmp_path: Path, save: Any, load: Any, auto_class: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(tmp_path / "eager")
    (folder / "code.py").write_text(CODE)
    described = json.loads((folder / "config.json").read_text()) if file == "config.json" else {}
    described["auto_map"] = {"AutoConfig": "code.C", auto_class: "code.M", "AutoImageProcessor": "code.P"}
    described |= {"model_type": "own"} if file == "config.json" else {"image_processor_type": "Own"}
    (folder / file).write_text(json.dumps(described))
    (folder / "processor_config.json").unlink(missing_ok=True)
    asked: list[object] = []

    def agree(*question: object) -> str:
        asked.append(question)
        return "y"

    monkeypatch.setattr(builtins, "input", agree)

    with pytest.raises(ValueError, match=r"^eager needs code that comes with its weights, and such code is not run: "):
        load(folder)

    assert not asked


@pytest.fixture
def network_calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    calls: list[object] = []

    def refuse(*address: object, **_: object) -> None:
        calls.append(address)
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return calls


@pytest.mark.parametrize("name", ["tiny-detr", "tiny-rt-detr"])
def test_a_part_that_only_the_hub_describes_is_refused_without_asking_it(
    tmp_path: Path, name: str, network_calls: list[object]
) -> None:
    for part in FAMILIES[name]():
        part.save_pretrained(tmp_path / name)
    config = json.loads((tmp_path / name / "config.json").read_text())
    backbone = {"backbone": "microsoft/resnet-50", "use_timm_backbone": False, "use_pretrained_backbone": True}
    folder = with_config(tmp_path / name, tmp_path, {**config, **backbone, "backbone_config": None})

    with pytest.raises(ValueError, match=r"^model names a part that its files do not describe: choose a revision"):
        detector(folder)

    assert not network_calls
    assert constants.HF_HUB_OFFLINE is False, "the next fetch may go to the hub again"


def test_a_part_that_is_described_needs_no_weights_of_its_own(tmp_path: Path, network_calls: list[object]) -> None:
    config = json.loads((detr(tmp_path / "detr") / "config.json").read_text())
    backbone = {"backbone": "microsoft/resnet-50", "use_timm_backbone": False, "use_pretrained_backbone": True}

    assert detector(with_config(tmp_path / "detr", tmp_path, {**config, **backbone})).info.name == "model"

    assert not network_calls


FAILURES = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), DeviceOutOfMemory),
    (RuntimeError("CUDA error: out of memory"), DeviceOutOfMemory),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), OutOfMemory),
    (RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp:223:\nstd::bad_alloc"), OutOfMemory),
]


@pytest.mark.parametrize(("failure", "said"), FAILURES)
@pytest.mark.parametrize("place", ["preprocess", "predict", "detections"])
def test_memory_that_a_network_lacks_is_said(
    tmp_path: Path, place: str, failure: Exception, said: type[AppError], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = detector(detr(tmp_path / "detr"))
    inputs = network.preprocess(PICTURE)
    outputs = network.predict(inputs)
    places: dict[str, tuple[Any, str, Callable[[], Any]]] = {
        "preprocess": (torch.Tensor, "numpy", lambda: network.preprocess(PICTURE)),
        "predict": (torch.Tensor, "float", lambda: network.predict(inputs)),
        "detections": (
            type(network._processor),
            "post_process_object_detection",
            lambda: network.detections(outputs, threshold=None, width=40, height=30),
        ),
    }
    holder, name, call = places[place]
    monkeypatch.setattr(holder, name, fails(failure))

    with pytest.raises(said, match="memory") as raised:
        call()

    assert type(raised.value) is said


@pytest.mark.parametrize(("failure", "said"), FAILURES)
@pytest.mark.parametrize("place", ["preprocess", "generate"])
def test_memory_that_a_captioner_lacks_is_said(
    tmp_path: Path, place: str, failure: Exception, said: type[AppError], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = captioner(tiny.save_blip(tmp_path / "blip"))
    if place == "preprocess":
        monkeypatch.setattr(hf.BatchFeature, "to", fails(failure))
    else:
        monkeypatch.setattr(network._network, "generate", fails(failure))

    with pytest.raises(said, match="memory") as raised:
        network.generate(network.preprocess(PICTURE, prompt=None), max_new_tokens=2, num_beams=1, report=lambda _: None)

    assert type(raised.value) is said


def test_memory_that_the_processor_cannot_give_is_told_by_pytorch_in_these_words() -> None:
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        torch.empty(2**55, dtype=torch.uint8)


def test_other_failures_of_pytorch_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = detector(detr(tmp_path / "detr"))
    monkeypatch.setattr(torch.Tensor, "numpy", fails(RuntimeError("shapes do not fit")))

    with pytest.raises(RuntimeError, match=r"^shapes do not fit$"):
        network.preprocess(PICTURE)


def fails(failure: Exception) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> None:
        raise failure

    return call
