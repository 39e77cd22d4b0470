"""What `detect` makes of a detector's objects, and of what clients ask."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from app.errors import InvalidOption
from app.imaging import Picture
from app.schemas import ModelInfo
from app.tasks.base import Detection
from app.tasks.detect import Detect, DetectAnswer, DetectOptions
from tests.attempts import FakeAttempt
from tests.images import upload
from tests.pictures import encoded

LABELS = ("person", "dog", "hot dog", "cat", "car")


class FakeDetector:
    """Sees what it was made with, and remembers what it was asked."""

    info = ModelInfo(name="fake", revision="1", runtime="python", device="cpu")
    labels: ClassVar[Mapping[int, str]] = dict(enumerate(LABELS))

    def __init__(self, *detections: Detection, least: tuple[int, int] | None = None) -> None:
        self.asked: dict[str, Any] = {}
        self.least = least
        self._detections = detections

    def least_size(self, width: int, height: int) -> tuple[int, int] | None:
        return self.least

    def preprocess(self, picture: Picture) -> Any:
        return picture

    def predict(self, inputs: Any) -> Mapping[str, np.ndarray]:
        return {"logits": np.zeros((1, len(LABELS)), np.float32)}

    def detections(
        self, outputs: Mapping[str, np.ndarray], *, threshold: float | None, width: int, height: int
    ) -> list[Detection]:
        self.asked = {"threshold": threshold, "width": width, "height": height, "outputs": list(outputs)}
        return list(self._detections)


def seen(label: str, score: float, *box: float) -> Detection:
    xmin, ymin, xmax, ymax = box or (0.0, 0.0, 10.0, 10.0)
    return Detection(label=label, score=score, xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)


def detected(model: FakeDetector, **options: Any) -> DetectAnswer:
    task, asked = Detect(), DetectOptions(**options)
    inputs = task.preprocess(Picture.whole(Image.new("RGB", (40, 30))), model, asked)
    return task.postprocess(task.predict(inputs, model, asked, FakeAttempt()), model, asked)


def labels_of(answer: DetectAnswer) -> list[str]:
    return [prediction.label for prediction in answer.predictions]


def test_the_detector_is_told_the_size_of_the_picture_and_the_threshold() -> None:
    model = FakeDetector()

    assert detected(model, threshold=0.25).predictions == []
    assert model.asked == {"threshold": 0.25, "width": 40, "height": 30, "outputs": ["logits"]}


def test_boxes_are_told_in_pixels_of_the_full_picture_however_small_it_is_decoded(tmp_path: Path) -> None:
    path = upload(tmp_path, encoded(Image.new("RGB", (203, 150)), "JPEG"))
    model = FakeDetector(seen("dog", 0.9, 1, 2, 10.5, 20), seen("cat", 0.8, 0, 0, 51, 38), least=(50, 37))
    task, asked = Detect(), DetectOptions()

    inputs = task.preprocess(task.decode(path, model, asked, max_pixels=10**6), model, asked)
    answer = task.postprocess(task.predict(inputs, model, asked, FakeAttempt()), model, asked)

    assert (model.asked["width"], model.asked["height"]) == (51, 38), "a quarter, rounded up"
    assert [list(each.box.model_dump().values()) for each in answer.predictions] == [[4, 8, 42, 80], [0, 0, 203, 150]]


def test_without_a_threshold_the_choice_is_the_models() -> None:
    model = FakeDetector()

    detected(model)

    assert model.asked["threshold"] is None


def test_scores_and_boxes_are_rounded() -> None:
    answer = detected(FakeDetector(seen("dog", 0.987654, 1.04, 2.06, 30.449, 29.951)))

    assert answer.model_dump() == {
        "predictions": [
            {"label": "dog", "score": 0.9877, "box": {"xmin": 1.0, "ymin": 2.1, "xmax": 30.4, "ymax": 30.0}}
        ],
        "found": None,
    }


def test_a_box_that_rounding_leaves_without_extent_is_left_out() -> None:
    answer = detected(
        FakeDetector(seen("dog", 0.9, 1.01, 0, 1.02, 9), seen("cat", 0.8, 0, 5.01, 9, 5.04)), labels="dog"
    )

    assert answer.predictions == []
    assert answer.found == {"dog": False}


def test_labels_filter_and_are_answered() -> None:
    model = FakeDetector(seen("person", 0.9), seen("dog", 0.8), seen("car", 0.7), seen("dog", 0.6))

    answer = detected(model, labels=["dog", "cat"])

    assert labels_of(answer) == ["dog", "dog"]
    assert answer.found == {"dog": True, "cat": False}


def test_the_filter_comes_before_the_limit() -> None:
    model = FakeDetector(seen("person", 0.9), seen("dog", 0.8), seen("cat", 0.7))

    assert labels_of(detected(model, max_detections=1)) == ["person"]
    limited = detected(model, max_detections=1, labels="cat,dog")
    assert labels_of(limited) == ["dog"]
    assert limited.found == {"cat": True, "dog": True}, "what the limit cuts off is in the picture all the same"


@pytest.mark.parametrize(
    ("sent", "understood"),
    [
        ("dog", ("dog",)),
        ("dog, hot dog,", ("dog", "hot dog")),
        (["dog", "a, b"], ("dog", "a, b")),
        ("", ()),
        ([], ()),
    ],
)
def test_labels_come_as_a_list_or_separated_by_commas(sent: object, understood: Sequence[str]) -> None:
    assert DetectOptions.model_validate({"labels": sent}).labels == understood


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": -0.1},
        {"threshold": 1.1},
        {"threshold": "nan"},
        {"max_detections": 0},
        {"max_detections": 101},
        {"labels": ["x" * 101]},
        {"labels": [""]},
        {"labels": ",".join(["dog"] * 101)},
        {"labels": {"dog": True}},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DetectOptions.model_validate(options)


def test_options_survive_the_message() -> None:
    options = DetectOptions(labels=("dog",), threshold=0.3)

    assert DetectOptions.model_validate(options.model_dump(mode="json")) == options


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("dgo", "labels: 'dgo' is no label of this model. Did you mean 'dog'?"),
        ("dog,CAT", "labels: 'CAT' is no label of this model. Did you mean 'cat' or 'car'?"),
        ("zzz", "labels: 'zzz' is no label of this model. It has 5, such as 'person', 'dog', 'hot dog'."),
    ],
)
def test_an_unknown_label_is_refused_with_its_likes(asked: str, sentence: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        Detect().check(DetectOptions.model_validate({"labels": asked}), LABELS)

    assert refused.value.message == sentence


def test_labels_are_not_checked_where_the_models_are_unknown() -> None:
    Detect().check(DetectOptions(labels=("dgo",)), ())
    Detect().check(DetectOptions(labels=("dog", "hot dog")), LABELS)
    Detect().check(DetectOptions(), LABELS)
