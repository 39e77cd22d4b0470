"""Other detectors than the shipped one: tiny, random, saved to folders as hub models are."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from app.imaging import Picture
from app.worker.detector import ObjectDetector
from app.worker.folding import Folded
from app.worker.sources import fetch
from tests.models.settings import settings_for
from tests.pictures import png
from tests.processes import Installation, installation

#: Untyped: its configurations take more than their types say.
stock: Any = transformers

LABELS = {0: "left", 1: "right"}
#: Transformers of no size to speak of.
_SMALL = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "num_queries": 5,
    "id2label": LABELS,
    "label2id": {name: index for index, name in LABELS.items()},
}
_BACKBONE = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"}


def _detr() -> tuple[Any, Any]:
    config = stock.DetrConfig(use_timm_backbone=False, backbone_config=stock.ResNetConfig(**_BACKBONE), **_SMALL)
    # A size that no picture has: what comes out is padded, and the mask says where.
    processor = stock.DetrImageProcessor(
        size={"shortest_edge": 64, "longest_edge": 100}, pad_size={"height": 128, "width": 128}
    )
    return stock.DetrForObjectDetection(config), processor


def _conditional_detr() -> tuple[Any, Any]:
    config = stock.ConditionalDetrConfig(
        use_timm_backbone=False, backbone_config=stock.ResNetConfig(**_BACKBONE), **_SMALL
    )
    processor = stock.ConditionalDetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 100})
    return stock.ConditionalDetrForObjectDetection(config), processor


def _rt_detr() -> tuple[Any, Any]:
    backbone = stock.RTDetrResNetConfig(**_BACKBONE, out_features=["stage2", "stage3", "stage4"])
    config = stock.RTDetrConfig(
        backbone_config=backbone,
        encoder_hidden_dim=16,
        encoder_in_channels=[16, 16, 32],
        decoder_in_channels=[16, 16, 16],
        num_denoising=0,
        **_SMALL,
    )
    processor = stock.RTDetrImageProcessor(size={"height": 64, "width": 64})
    return stock.RTDetrForObjectDetection(config), processor


def _yolos() -> tuple[Any, Any]:
    config = stock.YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[64, 96],
        patch_size=16,
        num_detection_tokens=5,
        id2label=LABELS,
        label2id=_SMALL["label2id"],
    )
    processor = stock.YolosImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    return stock.YolosForObjectDetection(config), processor


FAMILIES: Mapping[str, Callable[[], tuple[Any, Any]]] = {
    "tiny-detr": _detr,
    "tiny-conditional-detr": _conditional_detr,
    "tiny-rt-detr": _rt_detr,
    "tiny-yolos": _yolos,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("models")
    for name, family in FAMILIES.items():
        torch.manual_seed(1)
        network, processor = family()
        network.save_pretrained(root / name)
        processor.save_pretrained(root / name)
    return {name: root / name for name in FAMILIES}


def load(folder: Path, **settings: str) -> ObjectDetector:
    chosen = settings_for(**{"runtime": "torch", **settings})
    return ObjectDetector(fetch(str(folder), token=None), settings=chosen)


PICTURE = Image.effect_noise((120, 90), 60).convert("RGB")
WHOLE = Picture.whole(PICTURE)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_loads_and_finds(folders: Mapping[str, Path], name: str, dtype: str) -> None:
    detector = load(folders[name], dtype=dtype)

    outputs = detector.predict(detector.preprocess(WHOLE))
    found = detector.detections(outputs, threshold=0, width=120, height=90)

    assert (detector.info.name, dict(detector.labels)) == (name, LABELS)
    assert {array.dtype.name for array in outputs.values()} == {"float32"}
    assert len(found) >= 3
    assert {one.label for one in found} <= {"left", "right"}
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        assert 0 <= one.xmin < one.xmax <= 120, one
        assert 0 <= one.ymin < one.ymax <= 90, one
        assert one.xmax > 2, "pixels, not shares"


@pytest.mark.parametrize("name", FAMILIES)
def test_the_objects_are_those_of_the_stock_network_and_processor(folders: Mapping[str, Path], name: str) -> None:
    stock_processor = stock.AutoImageProcessor
    processor = stock_processor.from_pretrained(folders[name])
    network = stock.AutoModelForObjectDetection.from_pretrained(folders[name], dtype=torch.float32)
    with torch.inference_mode():
        output = network.eval()(**processor(images=PICTURE, return_tensors="pt"))
    (expected,) = processor.post_process_object_detection(output, threshold=0.1, target_sizes=[(90, 120)])

    detector = load(folders[name])
    outputs = detector.predict(detector.preprocess(WHOLE))
    found = detector.detections(outputs, threshold=0.1, width=120, height=90)

    order = expected["scores"].argsort(descending=True, stable=True)
    assert len(found) == len(order) > 0
    np.testing.assert_allclose([one.score for one in found], expected["scores"][order], atol=1e-5)
    boxes = expected["boxes"][order].clamp(min=torch.zeros(4), max=torch.tensor([120, 90, 120, 90]))
    np.testing.assert_allclose([(one.xmin, one.ymin, one.xmax, one.ymax) for one in found], boxes, atol=1e-3)
    assert [one.label for one in found] == [LABELS[int(index)] for index in expected["labels"][order]]


def test_padding_is_masked_from_the_network(folders: Mapping[str, Path]) -> None:
    detector = load(folders["tiny-detr"])

    inputs = detector.preprocess(WHOLE)
    masked = detector.predict(inputs)["logits"]
    unmasked = detector.predict({"pixel_values": inputs["pixel_values"]})["logits"]

    assert inputs["pixel_values"].shape[-2:] == (128, 128)
    assert not inputs["pixel_mask"].all()
    assert np.abs(masked - unmasked).max() > 1e-3


def outputs_of(*queries: tuple[list[float], list[float]]) -> dict[str, np.ndarray]:
    """What DETR gives: logits of left, right and nothing, and a box as centre and size in shares of the picture."""
    logits, boxes = zip(*queries, strict=True)
    return {"logits": np.array([logits], np.float32), "pred_boxes": np.array([boxes], np.float32)}


def test_boxes_are_clamped_and_those_without_extent_left_out(folders: Mapping[str, Path]) -> None:
    detector = load(folders["tiny-detr"])
    outputs = outputs_of(
        ([9, 0, 0], [0.5, 0.5, 3, 0.5]),  # wider than the picture
        ([0, 8, 0], [0.1, 0.1, 0.2, 0.2]),
        ([0, 0, 9], [0.5, 0.5, 0.5, 0.5]),  # nothing
        ([7, 0, 0], [0.5, 0.5, 0, 0.5]),  # no width
        ([7, 0, 0], [1.5, 0.5, 0.2, 0.2]),  # outside
    )

    found = detector.detections(outputs, threshold=None, width=200, height=100)

    assert [(one.label, one.xmin, one.ymin, one.xmax, one.ymax) for one in found] == [
        ("left", 0, 25, 200, 75),
        ("right", 0, 0, pytest.approx(40), pytest.approx(20)),
    ]


@pytest.mark.parametrize("query", [([float("nan")] * 3, [0.5] * 4), ([9, 0, 0], [float("inf")] * 4)])
def test_an_output_of_no_numbers_does_not_pass_for_an_empty_picture(
    folders: Mapping[str, Path], query: tuple[list[float], list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = load(folders["tiny-detr"], dtype="bfloat16")
    inputs, outputs = detector.preprocess(WHOLE), outputs_of(([9, 0, 0], [0.5] * 4), query)
    tensors = {name: torch.from_numpy(array).bfloat16() for name, array in outputs.items()}
    monkeypatch.setattr(Folded, "run", lambda *_: tensors)

    with pytest.raises(ArithmeticError, match=r"tiny-detr computes no numbers in bfloat16: set DTYPE=float32"):
        detector.predict(inputs)


@pytest.mark.parametrize(("threshold", "count"), [(0.49, 1), (0.5, 1), (0.51, 0)])
def test_only_what_scores_lower_than_the_threshold_is_left_out(
    folders: Mapping[str, Path], threshold: float, count: int
) -> None:
    detector = load(folders["tiny-detr"])
    outputs = outputs_of(([0, -999, 0], [0.5] * 4))

    found = detector.detections(outputs, threshold=threshold, width=9, height=9)

    assert [one.score for one in found] == [0.5] * count


def test_what_is_of_no_class_is_no_object(folders: Mapping[str, Path], tmp_path: Path) -> None:
    config = json.loads((folders["tiny-detr"] / "config.json").read_text())
    folder = with_config(folders["tiny-detr"], tmp_path, {**config, "id2label": {"0": "N/A", "1": "right"}})
    outputs = outputs_of(([9, 0, 0], [0.5] * 4), ([0, 8, 0], [0.5] * 4))

    found = load(folder).detections(outputs, threshold=0.5, width=9, height=9)

    assert [one.label for one in found] == ["right"]


def test_the_usual_threshold_is_a_half(folders: Mapping[str, Path]) -> None:
    detector = load(folders["tiny-detr"])
    box = [0.5, 0.5, 0.5, 0.5]
    outputs = outputs_of(([0.2, 0, -9], box), ([0, 0, 0.1], box))

    assert [round(one.score, 2) for one in detector.detections(outputs, threshold=None, width=9, height=9)] == [0.55]
    assert len(detector.detections(outputs, threshold=0.3, width=9, height=9)) == 2


def test_a_class_without_a_name_has_its_number(folders: Mapping[str, Path], tmp_path: Path) -> None:
    config = json.loads((folders["tiny-detr"] / "config.json").read_text())
    folder = with_config(folders["tiny-detr"], tmp_path, {**config, "id2label": {"0": "left", "7": "right"}})

    found = load(folder).detections(outputs_of(([0, 9, 0], [0.5] * 4)), threshold=0.5, width=9, height=9)

    assert [one.label for one in found] == ["LABEL_1"]


def test_a_model_that_wants_timm_says_so_and_what_to_do(folders: Mapping[str, Path], tmp_path: Path) -> None:
    config = json.loads((folders["tiny-detr"] / "config.json").read_text())
    wanting = {**config, "backbone_config": None, "backbone": "resnet50", "use_timm_backbone": True}

    with pytest.raises(ImportError, match=r"needs the package timm.*facebook/detr-resnet-50@no_timm.*or install timm"):
        load(with_config(folders["tiny-detr"], tmp_path, wanting))


def with_config(folder: Path, parent: Path, config: Mapping[str, Any]) -> Path:
    """The same model, configured otherwise."""
    copy = parent / "model"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.fixture(scope="module")
def service(folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    chosen = ",".join(str(folders[name]) for name in ("tiny-detr", "tiny-rt-detr"))
    folder = tmp_path_factory.mktemp("installation")
    with installation(folder, DETECT_MODEL=chosen, WORKER_TASKS="detect", WORKER_CONCURRENCY="1") as service:
        service.start_api("app.api")
        service.start_worker("app.worker.main")
        service.wait_until_ready()
        yield service


@pytest.mark.parametrize("name", ["tiny-detr", "tiny-rt-detr"])
def test_requests_choose_among_several_models(service: Installation, name: str) -> None:
    result: Any = service.result(service.submit("detect", png(120, 90), model=name, threshold=0, max_detections=2))

    assert result["model"]["name"] == name
    assert len(result["predictions"]) == 2
    for prediction in result["predictions"]:
        box = prediction["box"]
        assert 0 <= box["xmin"] < box["xmax"] <= 120
        assert 0 <= box["ymin"] < box["ymax"] <= 90
    assert result["found"] is None


def test_the_first_of_several_is_the_default(service: Installation) -> None:
    result: Any = service.result(service.submit("detect", png(120, 90), labels="right,left", threshold=0))

    assert result["model"]["name"] == "tiny-detr"
    assert set(result["found"]) == {"left", "right"}
    assert [model["name"] for model in service.http.get("/models").json()["models"] if model["task"] == "detect"] == [
        "tiny-detr",
        "tiny-rt-detr",
    ]


def test_an_unknown_label_is_refused_before_anything_is_queued(service: Installation) -> None:
    answer = service.post("detect", png(120, 90), labels="lft", model="tiny-rt-detr")

    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_option"
    assert answer.json()["detail"] == "labels: 'lft' is no label of this model. Did you mean 'left'?"
