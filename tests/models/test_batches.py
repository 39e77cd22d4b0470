"""The networks that ship, given several pictures at once."""

from collections.abc import Mapping
from typing import Any

import pytest
from PIL import Image

from app import imaging
from app.imaging import Picture
from app.worker import torch_runtime
from app.worker.batching.batches import BatchRunner
from app.worker.loading import NetworkLoader
from app.worker.networks import ImageNetwork, _named
from app.worker.runners import Arrays, drift_of
from app.worker.sources import fetch
from tests.models.settings import settings_for
from tests.processes import PHOTOS

CLASSIFIER, DETECTOR = "models/efficientnet-lite0", "models/nanodet-g"
#: As `drift_of` measures it; what batches are trusted for is five times that.
MAX_DRIFT = 0.02
NAMES = sorted(path.name for path in PHOTOS.iterdir() if path.suffix in {".jpg", ".png"})


def loader(**values: Any) -> NetworkLoader:
    torch_runtime.set_threads(2)
    sources = {name: fetch(name, token=None) for name in (CLASSIFIER, DETECTOR)}
    return NetworkLoader(settings_for(batch_max=32, **values), sources)


@pytest.mark.timeout(180)  # a processor without bfloat16 takes 2 s for a picture
@pytest.mark.parametrize(
    "values", [{}, {"dtype": "float32"}, {"runtime": "torch", "dtype": "bfloat16"}], ids=["auto", "float32", "torch"]
)
@pytest.mark.parametrize("size", [2, 8, 32])
def test_classifiers_answer_a_picture_in_a_batch_as_alone(values: Mapping[str, Any], size: int) -> None:
    network: Any = loader(**values).classifier(CLASSIFIER)
    pictures = _inputs(network, [imaging.open_image(PHOTOS / name, max_pixels=10**6) for name in NAMES], size)

    _assert_as_alone(network, pictures)


@pytest.mark.parametrize("size", [2, 8])
def test_detectors_answer_a_picture_in_a_batch_as_alone(size: int) -> None:
    network: Any = loader().detector(DETECTOR)
    images = [
        imaging.open_image(PHOTOS / name, max_pixels=10**6).resize((640, 480)) for name in ("dog.jpg", "giraffe.jpg")
    ]

    _assert_as_alone(network, _inputs(network, images, size))


def _inputs(network: ImageNetwork, images: list[Image.Image], size: int) -> list[Arrays]:
    prepared = [_named(network.preprocess(Picture.whole(image))) for image in images]
    return [prepared[number % len(prepared)] for number in range(size)]


def _assert_as_alone(network: ImageNetwork, pictures: list[Arrays]) -> None:
    batches, sizes = BatchRunner(network.run, network.probes(), name="some"), []

    def counted(inputs: Arrays) -> Arrays:
        sizes.append(len(inputs["pixel_values"]))
        return network.run(inputs)

    batches._run = counted
    found = batches(pictures)

    assert sizes == [len(pictures)]
    different = {id(inputs): inputs for inputs in pictures}
    alone = {key: network.run(inputs) for key, inputs in different.items()}
    for inputs, outputs in zip(pictures, found, strict=True):
        assert not isinstance(outputs, Exception)
        expected = alone[id(inputs)]
        assert drift_of(outputs, expected) < MAX_DRIFT
        assert outputs["logits"].argmax() == expected["logits"].argmax()
    assert drift_of(expected, alone[id(pictures[0])]) > 10 * MAX_DRIFT, "pictures are told apart by it"
