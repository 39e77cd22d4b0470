"""The shipped weights on the photos, and what of preparing a picture must not change an answer."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from app import imaging
from app.imaging import Picture
from app.tasks.classify import Classify, ClassifyOptions
from app.worker import torch_runtime
from app.worker.networks import ImageNetwork
from app.worker.sources import fetch
from tests.attempts import FakeAttempt
from tests.models.settings import settings_for
from tests.pictures import encoded
from tests.processes import PHOTOS, ROOT

FOLDER = "models/efficientnet-lite0"
#: Best label and its score, as models/README.md states them.
STATED = {"dog.jpg": ("malamute", 0.37), "chelsea.png": ("tiger cat", 0.39), "coffee.png": ("espresso", 0.95)}


@pytest.fixture(scope="module")
def network() -> ImageNetwork:
    torch_runtime.set_threads(2)
    settings = settings_for(runtime="torch")
    return ImageNetwork(fetch(FOLDER, token=None), auto_class="AutoModelForImageClassification", settings=settings)


def classified(network: ImageNetwork, image: Image.Image) -> list[tuple[str, float]]:
    task, options = Classify(), ClassifyOptions()
    outputs = task.predict(task.preprocess(Picture.whole(image), network, options), network, options, FakeAttempt())
    answer = task.postprocess(outputs, network, options)
    return [(prediction.label, prediction.score) for prediction in answer.predictions]


@pytest.mark.parametrize("photo", STATED)
def test_a_photo_is_named_as_stated(network: ImageNetwork, photo: str) -> None:
    label, score = classified(network, imaging.open_image(PHOTOS / photo, max_pixels=10**6))[0]

    assert label == STATED[photo][0]
    assert score == pytest.approx(STATED[photo][1], abs=0.01)


def test_the_answer_is_that_of_the_stock_processor_and_network(network: ImageNetwork) -> None:
    image = imaging.open_image(PHOTOS / "dog.jpg", max_pixels=10**6)
    stock_processor: Any = AutoImageProcessor
    processor = stock_processor.from_pretrained(ROOT / FOLDER)
    stock = AutoModelForImageClassification.from_pretrained(ROOT / FOLDER, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = stock(**processor(images=image, return_tensors="pt")).logits.numpy()

    found = network.predict(network.preprocess(Picture.whole(image)))["logits"]

    assert found.shape == (1, 1000)
    assert found.dtype == np.float32
    # The stock processor has torchvision resize, whose bytes differ from Pillow's by one here and there.
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.05)


def test_a_turned_photo_gives_the_same_answer(network: ImageNetwork, tmp_path: Path) -> None:
    upright = Image.open(PHOTOS / "chelsea.png").convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    turned = tmp_path / "turned.png"
    turned.write_bytes(encoded(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif))

    assert classified(network, imaging.open_image(turned, max_pixels=10**6)) == classified(network, upright)


def test_the_weights_are_those_the_page_names() -> None:
    digest = hashlib.sha256((ROOT / FOLDER / "model.safetensors").read_bytes()).hexdigest()

    assert digest in (ROOT / "models" / "README.md").read_text()
