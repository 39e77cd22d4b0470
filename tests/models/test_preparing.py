"""One resize and one multiplication in place of what transformers' image processors do in several passes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from app import imaging
from app.imaging import Picture
from app.worker import resizing, torch_runtime
from app.worker.preparing import TOLERANCE, Preparation, preparation_of
from tests.processes import PHOTOS, ROOT

hf: Any = transformers
FOLDER = ROOT / "models" / "efficientnet-lite0"
PHOTO_NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "dog.jpg", "giraffe.jpg")
CUT: dict[str, Any] = {"size": {"shortest_edge": 64}, "crop_size": {"height": 48, "width": 56}}
LANCZOS, NEAREST = 1, 0

UNDERSTOOD = {
    "bit": lambda: hf.BitImageProcessor(**CUT),
    "bit by pillow": lambda: BitImageProcessorPil(**CUT),
    "clip": hf.CLIPImageProcessor,
    "convnext": lambda: hf.ConvNextImageProcessor(size={"shortest_edge": 56}),
    "convnext large": lambda: hf.ConvNextImageProcessor(size={"shortest_edge": 384}),
    "deit": hf.DeiTImageProcessor,
    "efficientnet": lambda: hf.EfficientNetImageProcessor(size={"height": 70, "width": 60}),
    "efficientnet with an offset": lambda: hf.EfficientNetImageProcessor(rescale_offset=True, do_center_crop=True),
    "efficientnet without a top": lambda: hf.EfficientNetImageProcessor(include_top=False, do_normalize=False),
    "mobilenet 1": hf.MobileNetV1ImageProcessor,
    "mobilenet 2": hf.MobileNetV2ImageProcessor,
    "vit": lambda: hf.ViTImageProcessor(size={"height": 32, "width": 48}),
    "vit by pillow": lambda: ViTImageProcessorPil(size={"height": 32, "width": 48}),
    "vit of lanczos": lambda: hf.ViTImageProcessor(resample=LANCZOS),
    "vit of bytes": lambda: hf.ViTImageProcessor(do_rescale=False, do_normalize=False),
    "vit of normalised bytes": lambda: hf.ViTImageProcessor(do_rescale=False, image_mean=[120] * 3, image_std=[60] * 3),
    "vit of fractions": lambda: hf.ViTImageProcessor(do_normalize=False, rescale_factor=1 / 128),
}

NOT_UNDERSTOOD = {
    "a size of its own": hf.LevitImageProcessor,
    "channels in another order": hf.MobileViTImageProcessor,
    "a mask": hf.DetrImageProcessor,
    "several pictures of one": hf.LlavaNextImageProcessor,
    "padding": lambda: hf.ViTImageProcessor(do_pad=True, pad_size={"height": 300, "width": 300}),
    "a cut larger than the picture": lambda: hf.BitImageProcessor(**CUT | {"crop_size": {"height": 80, "width": 80}}),
    "an outcome of the picture's shape": lambda: hf.BitImageProcessor(do_center_crop=False),
    "a longest side": lambda: hf.BitImageProcessor(**CUT | {"size": {"shortest_edge": 64, "longest_edge": 90}}),
    "the nearest pixels": lambda: hf.ViTImageProcessor(resample=NEAREST),
    "no resize": lambda: hf.BitImageProcessor(do_resize=False),
    "no image processor": object,
}


def stock(processor: Any, image: Image.Image) -> np.ndarray:
    pixels: np.ndarray = np.asarray(processor(images=image, return_tensors="np")["pixel_values"])
    return pixels


def folded(preparation: Preparation, picture: Picture) -> np.ndarray:
    """What the network makes of the bytes before anything else, channels first."""
    pixels = preparation(picture)
    assert (str(pixels.dtype), pixels.shape[0], pixels.shape[3]) == ("uint8", 1, 3)
    values = pixels * np.array(preparation.scale, np.float32) + np.array(preparation.shift, np.float32)
    return values.astype(np.float32).transpose(0, 3, 1, 2)


def understood(processor: Any) -> Preparation:
    preparation = preparation_of(processor)
    assert preparation is not None
    return preparation


@pytest.mark.parametrize("by_torch", [True, False], ids=["torch", "pillow"])
@pytest.mark.parametrize("kind", UNDERSTOOD)
def test_a_picture_of_any_size_is_prepared_as_the_processor_does(
    kind: str, monkeypatch: pytest.MonkeyPatch, *, by_torch: bool
) -> None:
    monkeypatch.setattr(resizing, "_HAS_VECTORS", by_torch)
    processor = UNDERSTOOD[kind]()
    preparation = understood(processor)
    photo = Image.open(PHOTOS / "dog.jpg")
    scale = np.abs(np.array(preparation.scale)).reshape(1, 3, 1, 1)

    for size in ((768, 576), (300, 451), (99, 100), (500, 40), (7, 5)):
        image = photo.resize(size)
        levels = np.abs(folded(preparation, Picture.whole(image)) - stock(processor, image)) / scale

        assert levels.max() <= TOLERANCE + 1e-3, size
        assert levels.mean() < 0.1, size


@pytest.mark.parametrize("kind", ["bit by pillow", "vit by pillow"])
def test_cutting_before_the_resize_leaves_the_pixels_that_cutting_after_it_would(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resizing, "_HAS_VECTORS", False)
    processor = UNDERSTOOD[kind]()
    preparation = understood(processor)
    photo = Image.open(PHOTOS / "dog.jpg")
    unit = np.array(preparation.scale).reshape(1, 3, 1, 1)

    levels = np.abs(folded(preparation, Picture.whole(photo)) - stock(processor, photo)) / unit

    # Pillow keeps the corners of a box in single precision, so a value in thousands falls to the other side of a half.
    assert levels.max() < 1.001
    assert (levels > 0.5).mean() < 1e-3


@pytest.mark.parametrize("kind", NOT_UNDERSTOOD)
def test_what_is_not_understood_is_left_to_the_processor(kind: str) -> None:
    assert preparation_of(NOT_UNDERSTOOD[kind]()) is None


class Brighter(hf.ViTImageProcessor):  # type: ignore[misc]
    """Has a step of its own."""

    def rescale_and_normalize(self, images: Any, *args: Any) -> Any:
        return super().rescale_and_normalize(images, *args) + 0.1


def test_a_step_that_is_not_in_the_settings_is_not_overlooked(caplog: pytest.LogCaptureFixture) -> None:
    processor = hf.ViTImageProcessor()
    processor.center_crop = lambda image, _size: image.roll(1, -1)
    processor.do_center_crop, processor.crop_size = True, hf.image_utils.SizeDict(height=224, width=224)

    assert preparation_of(processor) is None
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("ViTImageProcessor strays from its settings by ")

    assert preparation_of(Brighter()) is None


def test_pictures_are_decoded_at_twice_the_size_that_the_resize_makes() -> None:
    assert understood(UNDERSTOOD["bit"]()).least_size(4000, 3000) == (170, 128)
    assert understood(UNDERSTOOD["bit"]()).least_size(30, 40) == (128, 170)
    assert understood(UNDERSTOOD["vit"]()).least_size(4000, 3000) == (96, 64)


def test_what_would_be_much_to_copy_is_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resizing, "_HAS_VECTORS", True)
    preparation = understood(UNDERSTOOD["bit"]())
    monkeypatch.setattr(resizing, "_resize_whole", lambda *_: pytest.fail("PyTorch resizes it"))
    large = Image.new("RGB", (2300, 2000), (10, 20, 30))

    assert (preparation(Picture.whole(large)) == (10, 20, 30)).all()


def test_a_very_long_picture_takes_no_more_room_than_what_is_kept_of_it() -> None:
    assert understood(UNDERSTOOD["bit"]())(Picture.whole(Image.new("RGB", (60_000, 3)))).shape == (1, 48, 56, 3)


@pytest.fixture(scope="module")
def network() -> Any:
    torch_runtime.set_threads(1)
    return AutoModelForImageClassification.from_pretrained(FOLDER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def processor() -> Any:
    stock_processor: Any = AutoImageProcessor
    return stock_processor.from_pretrained(FOLDER)


def scores(network: Any, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        found: np.ndarray = network(pixel_values=torch.from_numpy(pixels.copy())).logits.softmax(-1)[0].numpy()
    return found


@pytest.mark.parametrize("name", PHOTO_NAMES)
def test_scores_of_a_photo_are_those_of_the_processor(network: Any, processor: Any, name: str) -> None:
    preparation = understood(processor)
    picture = imaging.open_scaled(PHOTOS / name, max_pixels=10**6, least_size=preparation.least_size)

    expected = scores(network, stock(processor, imaging.open_image(PHOTOS / name, max_pixels=10**6)))
    found = scores(network, folded(preparation, picture))

    assert found.argmax() == expected.argmax()
    assert np.abs(found - expected).max() < 0.03


@pytest.mark.parametrize(
    ("name", "shorter", "scale"), [*((name, 1109, 2) for name in PHOTO_NAMES), ("dog.jpg", 2239, 4)]
)
def test_scores_of_a_photo_decoded_smaller_are_those_of_all_of_it(
    network: Any, processor: Any, tmp_path: Path, name: str, shorter: int, scale: int
) -> None:
    preparation, path = understood(processor), tmp_path / "photo.jpg"
    enlarged(name, shorter).save(path, quality=90)
    picture = imaging.open_scaled(path, max_pixels=10**7, least_size=preparation.least_size)
    assert picture.scale == scale

    expected = scores(network, stock(processor, imaging.open_image(path, max_pixels=10**7)))
    found = scores(network, folded(preparation, picture))

    assert np.abs(found - expected).max() < 0.04
    # The dog is a malamute and a German shepherd to nearly the same score.
    assert expected[found.argmax()] > expected.max() - 0.06
    assert name == "dog.jpg" or found.argmax() == expected.argmax()


@pytest.mark.parametrize("by_torch", [True, False], ids=["torch", "pillow"])
def test_the_middle_is_cut_out_where_it_is_in_the_full_picture(
    processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, by_torch: bool
) -> None:
    """Of sides that do not halve into whole numbers a smaller decode is of another shape, by less than a pixel."""
    monkeypatch.setattr(resizing, "_HAS_VECTORS", by_torch)
    preparation, path = understood(processor), tmp_path / "photo.jpg"
    enlarged("dog.jpg", 2239).save(path, quality=90)
    picture = imaging.open_scaled(path, max_pixels=10**7, least_size=preparation.least_size)
    expected = stock(processor, imaging.open_image(path, max_pixels=10**7))

    beside = np.abs(folded(preparation, Picture.whole(picture.image)) - expected).mean()
    assert np.abs(folded(preparation, picture) - expected).mean() < beside / 3


def enlarged(name: str, shorter: int) -> Image.Image:
    """A photo of odd sides."""
    photo = Image.open(PHOTOS / name).convert("RGB")
    width, height = (round(side * shorter / min(photo.size)) // 2 * 2 + 1 for side in photo.size)
    return photo.resize((width, height))
