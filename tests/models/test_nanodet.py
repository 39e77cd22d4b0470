"""NanoDet as transformers sees it: loading, preparing pictures, and choosing among boxes."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection

from app.worker import nanodet
from app.worker.nanodet import NanoDetConfig, NanoDetForObjectDetection, NanoDetImageProcessor
from app.worker.nanodet.processor import suppress
from tests.processes import ROOT

FOLDER = ROOT / "models" / "nanodet-g"


def test_the_auto_classes_load_the_shipped_folder_however_often_it_is_registered() -> None:
    stock_processor: Any = AutoImageProcessor
    for _ in range(2):
        nanodet.register()

        assert isinstance(AutoConfig.from_pretrained(FOLDER), NanoDetConfig)
        assert isinstance(stock_processor.from_pretrained(FOLDER), NanoDetImageProcessor)
        network, loading = AutoModelForObjectDetection.from_pretrained(FOLDER, output_loading_info=True)
        assert isinstance(network, NanoDetForObjectDetection)
        assert not any(loading.values()), "every weight has its place and every place its weight"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_box_is_told_to_the_pixel_in_every_precision(dtype: torch.dtype) -> None:
    network: Any = NanoDetForObjectDetection(NanoDetConfig(id2label={0: "left", 1: "right"}))
    network = network.to(dtype).eval()
    with torch.inference_mode():
        for prediction in network.net.pred:
            prediction.weight.zero_()
            prediction.bias.zero_()
        output = network(torch.zeros(1, 3, 64, 416, dtype=dtype))

    # Even distributions have their mean at 5 strides, and the first row of stride 8 has 52 places.
    assert output.logits.shape == (1, 8 * 52 + 4 * 26 + 2 * 13, 2)
    np.testing.assert_allclose(output.pred_boxes[0, 51], [51.5 * 8 - 40, 4 - 40, 51.5 * 8 + 40, 4 + 40], atol=1e-3)


@pytest.mark.parametrize(
    ("size", "shape"),
    [((832, 416), (224, 416)), ((100, 100), (416, 416)), ((1, 1), (416, 416)), ((3000, 10), (32, 416))],
)
def test_a_picture_is_scaled_to_its_longest_side_and_padded(size: tuple[int, int], shape: tuple[int, int]) -> None:
    pixels = NanoDetImageProcessor().preprocess(Image.new("RGB", size, "white"), return_tensors="pt")["pixel_values"]

    assert tuple(pixels.shape) == (1, 3, *shape)
    # White less the mean, over the deviation, of blue, green and red.
    np.testing.assert_allclose(pixels[0, :, 0, 0], [2.6400, 2.4286, 2.2488], atol=1e-3)
    assert bool((pixels[0, :, -1] == 0).all()) == (size in {(832, 416), (3000, 10)})


def test_a_picture_is_to_be_decoded_at_twice_the_size_it_is_scaled_to() -> None:
    processor = NanoDetImageProcessor(size=416)

    assert processor.least_size(4000, 3000) == (832, 624)
    assert processor.least_size(10, 3000) == (2, 832)


def test_pictures_of_one_batch_share_the_larger_size() -> None:
    wide, tall = Image.new("RGB", (80, 40), "red"), Image.new("RGB", (40, 80), "blue")
    processor = NanoDetImageProcessor(size=64)

    pixels = processor.preprocess([wide, tall])["pixel_values"]

    assert pixels.shape == (2, 3, 64, 64)
    np.testing.assert_array_equal(pixels[0, :, :32, :], processor.preprocess(wide)["pixel_values"][0])
    np.testing.assert_array_equal(pixels[1, :, :, :32], processor.preprocess(tall)["pixel_values"][0])


def test_boxes_come_back_in_pixels_of_each_picture() -> None:
    logits = np.array([[[3.0, -9], [-9, 2], [-9, -9], [5, -9]]] * 2, np.float32)
    boxes = np.array([[[-5, 8, 32, 16], [16, 0, 64, 99], [0, 0, 9, 9], [0, 40, 9, 50]]] * 2, np.float32)

    half, double = NanoDetImageProcessor(size=64).post_process_object_detection(
        SimpleNamespace(logits=logits, pred_boxes=torch.from_numpy(boxes)), 0.5, [(64, 128), (16, 32)]
    )

    # The last box lies in the padding, the third scores too low.
    np.testing.assert_allclose(half["boxes"], [[0, 16, 64, 32], [32, 0, 128, 64]])
    np.testing.assert_allclose(double["boxes"], [[0, 4, 16, 8], [8, 0, 32, 16]])
    np.testing.assert_allclose(half["scores"], [0.952574, 0.880797], atol=1e-6)
    assert half["labels"].tolist() == [0, 1]


def test_scores_of_extreme_logits_are_0_and_1() -> None:
    logits, boxes = np.array([[[1e4], [-1e4]]], np.float32), np.array([[[0, 0, 9, 9], [20, 20, 30, 30]]], np.float32)

    (found,) = NanoDetImageProcessor().post_process_object_detection(
        SimpleNamespace(logits=logits, pred_boxes=boxes), -1, [(416, 416)]
    )

    assert found["scores"].tolist() == [1, 0]


@pytest.mark.parametrize("seed", range(20))
def test_suppression_is_what_brute_force_makes_of_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.integers(0, 30, (60, 2))
    boxes = np.concatenate([corners, corners + random.integers(1, 20, (60, 2))], 1).astype(np.float32)
    # Few distinct scores, so that some are equal.
    scores, classes = random.integers(1, 20, 60).astype(np.float32) / 20, random.integers(0, 3, 60)

    kept = suppress(boxes, scores, classes, max_overlap=0.4)

    assert kept.tolist() == brute_force(boxes.tolist(), scores.tolist(), classes.tolist(), max_overlap=0.4)
    assert 3 < len(kept) < 60


def test_of_no_boxes_none_are_kept() -> None:
    assert suppress(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), max_overlap=0.5).tolist() == []


def brute_force(boxes: list[list[float]], scores: list[float], classes: list[int], *, max_overlap: float) -> list[int]:
    """The definition, one pair of boxes at a time."""
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda index: (-scores[index], index)):
        better = [other for other in kept if classes[other] == classes[index]]
        if all(overlap(boxes[index], boxes[other]) <= max_overlap for other in better):
            kept.append(index)
    return kept


def overlap(one: list[float], other: list[float]) -> float:
    """Intersection over union, by counting unit squares of boxes with whole corners."""

    def squares(box: list[float]) -> set[tuple[int, int]]:
        xmin, ymin, xmax, ymax = (int(side) for side in box)
        return {(x, y) for x in range(xmin, xmax) for y in range(ymin, ymax)}

    return len(squares(one) & squares(other)) / len(squares(one) | squares(other))
