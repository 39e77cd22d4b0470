"""The shipped detector on the photos: the boxes of models/README.md, however the photo is stored."""

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from app import imaging
from app.imaging import Picture
from app.tasks.detect import Box, Detect, DetectAnswer, DetectOptions
from app.worker import torch_runtime
from app.worker.detector import ObjectDetector
from app.worker.sources import fetch
from tests.attempts import FakeAttempt
from tests.models.settings import settings_for
from tests.pictures import encoded
from tests.processes import PHOTOS, ROOT

FOLDER = "models/nanodet-g"
#: Label, score and box of every object, as models/README.md states them.
STATED = {
    "dog.jpg": [
        ("dog", 0.68, (130, 213, 329, 535)),
        ("bicycle", 0.50, (102, 115, 574, 489)),
        ("bicycle", 0.47, (308, 129, 570, 428)),
        ("car", 0.47, (467, 86, 696, 171)),
        ("bench", 0.46, (139, 138, 256, 210)),
    ],
    "giraffe.jpg": [("giraffe", 0.82, (166, 30, 453, 444)), ("zebra", 0.68, (307, 203, 421, 444))],
    "chelsea.png": [("cat", 0.55, (2, 2, 434, 298))],
    "coffee.png": [("dining table", 0.44, (9, 7, 580, 398))],
    "astronaut.png": [("person", 0.73, (15, 14, 364, 508))],
}
#: What a picture is turned by so that its EXIF orientation turns it back (Exif 2.32, 4.6.4 A).
COUNTER_TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def load(**settings: str) -> ObjectDetector:
    torch_runtime.set_threads(2)
    chosen = settings_for(**{"runtime": "torch", **settings})
    return ObjectDetector(fetch(FOLDER, token=None), settings=chosen)


@pytest.fixture(scope="module")
def detector() -> ObjectDetector:
    return load()


def detected(detector: ObjectDetector, path: Path, *, max_pixels: int = 10**6, **options: object) -> DetectAnswer:
    task, asked = Detect(), DetectOptions.model_validate(options)
    inputs = task.preprocess(task.decode(path, detector, asked, max_pixels=max_pixels), detector, asked)
    return task.postprocess(task.predict(inputs, detector, asked, FakeAttempt()), detector, asked)


def overlap(one: Box, other: tuple[float, float, float, float]) -> float:
    """Intersection over union."""
    width = min(one.xmax, other[2]) - max(one.xmin, other[0])
    height = min(one.ymax, other[3]) - max(one.ymin, other[1])
    shared = max(width, 0) * max(height, 0)
    areas = (one.xmax - one.xmin) * (one.ymax - one.ymin) + (other[2] - other[0]) * (other[3] - other[1])
    return shared / (areas - shared)


def assert_as_stated(answer: DetectAnswer, photo: str, *, score: float = 0.01) -> None:
    found = {(one.label, index): one for index, one in enumerate(answer.predictions)}
    assert sorted(one.label for one in answer.predictions) == sorted(label for label, _, _ in STATED[photo])
    for label, stated_score, box in STATED[photo]:
        nearest = max((key for key in found if key[0] == label), key=lambda key: overlap(found[key].box, box))
        assert overlap(found[nearest].box, box) > 0.9, label
        assert found.pop(nearest).score == pytest.approx(stated_score, abs=score), label


@pytest.mark.parametrize("photo", STATED)
def test_a_photo_shows_what_is_stated(detector: ObjectDetector, photo: str) -> None:
    answer = detected(detector, PHOTOS / photo)

    assert_as_stated(answer, photo)
    assert answer.found is None
    assert [one.score for one in answer.predictions] == sorted((one.score for one in answer.predictions), reverse=True)


def test_a_lower_threshold_finds_more_and_a_higher_one_less(detector: ObjectDetector) -> None:
    counts = [len(detected(detector, PHOTOS / "dog.jpg", threshold=each).predictions) for each in (0.2, 0.4, 0.6, 1)]

    assert counts[0] > 5
    assert counts[1:] == [5, 1, 0]
    assert len(detected(detector, PHOTOS / "dog.jpg", threshold=0).predictions) == 100, (
        "no more than are ever asked for"
    )


@pytest.mark.parametrize(("photo", "has_dog"), [("dog.jpg", True), ("chelsea.png", False)])
def test_whether_there_is_a_dog_is_one_call(detector: ObjectDetector, photo: str, has_dog: bool) -> None:  # noqa: FBT001
    answer = detected(detector, PHOTOS / photo, labels="dog")

    assert answer.found == {"dog": has_dog}
    assert [one.label for one in answer.predictions] == ["dog"] * has_dog


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", COUNTER_TURNS)
def test_a_turned_photo_gives_the_same_boxes(
    detector: ObjectDetector, tmp_path: Path, orientation: int, kind: str
) -> None:
    upright = imaging.open_image(PHOTOS / "dog.jpg", max_pixels=10**6)
    turn, exif = COUNTER_TURNS[orientation], Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    turned = tmp_path / "turned"
    turned.write_bytes(encoded(upright.transpose(turn) if turn is not None else upright, kind, exif=exif, **options))

    answer = detected(detector, turned)

    assert_as_stated(answer, "dog.jpg")
    if kind == "PNG":
        assert answer == detected(detector, PHOTOS / "dog.jpg")


@pytest.mark.parametrize("photo", ["dog.jpg", "giraffe.jpg"])
def test_a_large_photo_decoded_smaller_shows_the_same(detector: ObjectDetector, tmp_path: Path, photo: str) -> None:
    path, asked = tmp_path / "photo.jpg", DetectOptions()
    original = Image.open(PHOTOS / photo)
    width, height = (side * 5 + 1 for side in original.size)
    original.resize((width, height)).save(path, quality=90)
    picture = Detect().decode(path, detector, asked, max_pixels=10**8)
    assert (picture.size, picture.scale) == ((width, height), 4 if photo == "dog.jpg" else 2)

    in_full = detector.detections(
        detector.predict(detector.preprocess(Picture.whole(imaging.open_image(path, max_pixels=10**8)))),
        threshold=None,
        width=width,
        height=height,
    )
    answer = detected(detector, path, max_pixels=10**8)

    assert [one.label for one in answer.predictions] == [one.label for one in in_full]
    for one, expected in zip(answer.predictions, in_full, strict=True):
        assert overlap(one.box, (expected.xmin, expected.ymin, expected.xmax, expected.ymax)) > 0.95, one
        assert one.score == pytest.approx(expected.score, abs=0.03), one


@pytest.mark.parametrize("size", [(1, 1), (3000, 10), (10, 3000), (2, 999)])
def test_pictures_of_odd_shapes_have_boxes_within_them(detector: ObjectDetector, size: tuple[int, int]) -> None:
    width, height = size
    image = Image.effect_noise(size, 80).convert("RGB")

    outputs = detector.predict(detector.preprocess(Picture.whole(image)))
    found = detector.detections(outputs, threshold=0, width=width, height=height)

    assert found
    for one in found:
        assert 0 <= one.xmin < one.xmax <= width, one
        assert 0 <= one.ymin < one.ymax <= height, one


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_sees_the_same(dtype: str) -> None:
    assert_as_stated(detected(load(dtype=dtype), PHOTOS / "dog.jpg"), "dog.jpg", score=0.02)


def test_the_weights_are_those_the_page_names(detector: ObjectDetector) -> None:
    digest = hashlib.sha256((ROOT / FOLDER / "model.safetensors").read_bytes()).hexdigest()

    assert digest in (ROOT / "models" / "README.md").read_text()
    assert digest.startswith(detector.info.revision)
    assert (detector.info.name, len(detector.labels)) == (FOLDER, 80)


def test_the_page_states_these_boxes() -> None:
    lines = (ROOT / "models" / "README.md").read_text().splitlines()
    for photo, objects in STATED.items():
        (line,) = [line for line in lines if line.startswith(f"| {photo} ")]
        for label, score, box in objects:
            assert f"{label} {score:.2f} {list(box)}".replace(" 0.", " .") in line
