"""The composer's sentence, and how it goes through its two networks."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.imaging import Picture
from app.schemas import ModelInfo
from app.tasks.base import Detection
from app.tasks.classify import Prediction
from app.tasks.composer import Composer, compose, phrase
from tests.processes import ROOT

UNSURE = Prediction(label="groom", score=0.1)
#: Every label of COCO, as detectors give it, and how many of them are called.
PLURALS = {
    "airplane": "airplanes",
    "apple": "apples",
    "backpack": "backpacks",
    "banana": "bananas",
    "baseball bat": "baseball bats",
    "baseball glove": "baseball gloves",
    "bear": "bears",
    "bed": "beds",
    "bench": "benches",
    "bicycle": "bicycles",
    "bird": "birds",
    "boat": "boats",
    "book": "books",
    "bottle": "bottles",
    "bowl": "bowls",
    "bus": "buses",
    "cake": "cakes",
    "car": "cars",
    "carrot": "carrots",
    "cat": "cats",
    "cell phone": "cell phones",
    "chair": "chairs",
    "clock": "clocks",
    "couch": "couches",
    "cow": "cows",
    "cup": "cups",
    "dining table": "dining tables",
    "dog": "dogs",
    "donut": "donuts",
    "elephant": "elephants",
    "fire hydrant": "fire hydrants",
    "fork": "forks",
    "frisbee": "frisbees",
    "giraffe": "giraffes",
    "hair drier": "hair driers",
    "handbag": "handbags",
    "horse": "horses",
    "hot dog": "hot dogs",
    "keyboard": "keyboards",
    "kite": "kites",
    "knife": "knives",
    "laptop": "laptops",
    "microwave": "microwaves",
    "motorcycle": "motorcycles",
    "mouse": "mice",
    "orange": "oranges",
    "oven": "ovens",
    "parking meter": "parking meters",
    "person": "people",
    "pizza": "pizzas",
    "potted plant": "potted plants",
    "refrigerator": "refrigerators",
    "remote": "remotes",
    "sandwich": "sandwiches",
    "scissors": "pairs of scissors",
    "sheep": "sheep",
    "sink": "sinks",
    "skateboard": "skateboards",
    "skis": "pairs of skis",
    "snowboard": "snowboards",
    "spoon": "spoons",
    "sports ball": "sports balls",
    "stop sign": "stop signs",
    "suitcase": "suitcases",
    "surfboard": "surfboards",
    "teddy bear": "teddy bears",
    "tennis racket": "tennis rackets",
    "tie": "ties",
    "toaster": "toasters",
    "toilet": "toilets",
    "toothbrush": "toothbrushes",
    "traffic light": "traffic lights",
    "train": "trains",
    "truck": "trucks",
    "tv": "tvs",
    "umbrella": "umbrellas",
    "vase": "vases",
    "wine glass": "wine glasses",
    "zebra": "zebras",
}


def box(label: str, side: float = 10) -> Detection:
    return Detection(label=label, score=0.9, xmin=0, ymin=0, xmax=side, ymax=side)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ([box("zebra", 5), box("giraffe", 30)], "a photo of a giraffe and a zebra"),
        ([box("dog"), box("bicycle", 30), box("car", 20)], "a photo of a bicycle, a car and a dog"),
        ([box("person")] * 2 + [box("umbrella", 5)], "a photo of two people and an umbrella"),
        ([box("sheep", 20)] * 5 + [box("knife")] * 4, "a photo of several sheep and four knives"),
        ([box("cup", 9)] + [box("fork", 5)] * 4, "a photo of four forks and a cup"),
        ([box("broccoli")] * 3, "a photo of broccoli"),
        (
            [box(label, side) for side, label in enumerate(("a", "be", "ce", "de", "ef"), 1)],
            "a photo of an ef, a de, a ce and a be",
        ),
    ],
)
def test_objects_are_told_by_the_area_they_fill(found: list[Detection], sentence: str) -> None:
    assert compose(found, UNSURE) == sentence


@pytest.mark.parametrize(
    ("found", "label", "score", "sentence"),
    [
        ([box("cup")], "espresso", 0.95, "a photo of a cup (looks like: espresso)"),
        ([box("cup")], "espresso", 0.49, "a photo of a cup"),
        ([box("zebra")], "zebra", 0.95, "a photo of a zebra"),
        ([box("cat")], "tabby, tabby cat", 0.95, "a photo of a cat (looks like: tabby)"),
        ([], "espresso", 0.95, "a photo of an espresso"),
        ([], "hay", 0.3, "a photo of hay"),
        ([], "espresso", 0.2, "a photo"),
    ],
)
def test_the_class_is_told_when_it_says_more(found: list[Detection], label: str, score: float, sentence: str) -> None:
    assert compose(found, Prediction(label=label, score=score)) == sentence


@pytest.mark.parametrize(("noun", "plural"), PLURALS.items())
def test_many_of_a_kind_are_named_in_the_plural(noun: str, plural: str) -> None:
    assert phrase(noun, 2) == f"two {plural}"


def test_labels_of_other_detectors_follow_the_same_rules() -> None:
    assert [phrase(noun, 7) for noun in ("fox", "ferry", "monkey", "brush", "meat loaf", "timber wolf")] == [
        "several foxes",
        "several ferries",
        "several monkeys",
        "several brushes",
        "several meat loaves",
        "several timber wolves",
    ]


@pytest.mark.parametrize(
    "words",
    [
        "an apple",
        "an hourglass",
        "a honeycomb",
        "a unicycle",
        "a ewe",
        "a one",
        "a ukulele",
        "an onion",
        "an umbrella",
        "an upright",
        "a European fire salamander",
        "an Old English sheepdog",
        "an iPod",
        "an oxcart",
        "a CD player",
        "a pair of sunglasses",
        "a pair of binoculars",
        "guacamole",
    ],
)
def test_an_article_goes_by_the_sound(words: str) -> None:
    noun = words.removeprefix("a ").removeprefix("an ").removeprefix("pair of ")

    assert phrase(noun) == words


def test_only_a_few_classes_of_the_shipped_model_defy_their_first_letter() -> None:
    config = json.loads((ROOT / "models" / "efficientnet-lite0" / "config.json").read_text())
    by_letter = {
        label: ("an " if label[0].lower() in "aeiou" else "a ") + label for label in config["id2label"].values()
    }

    odd = {phrase(label) for label, usual in by_letter.items() if phrase(label) != usual}

    counted = {words for words in odd if words.startswith(("a ", "an ")) and not words.startswith("a pair of ")}
    assert counted == {"an hourglass", "a unicycle", "a European fire salamander", "a European gallinule"}


class FakeNetwork:
    """Sees a zebra everywhere; notes what it is asked."""

    def __init__(self, name: str, device: str, *, least: tuple[int, int] | None = None) -> None:
        self.least = least
        self.info = ModelInfo(name=name, revision=name.upper(), runtime="torch", device=device)
        self.labels: Mapping[int, str] = {0: "horse", 1: "zebra"}
        self.asked: list[Any] = []

    def least_size(self, width: int, height: int) -> tuple[int, int] | None:
        return self.least

    def preprocess(self, picture: Picture) -> Any:
        return f"{self.info.name} of {picture.decoded_size} for {picture.size}"

    def predict(self, inputs: Any) -> Mapping[str, np.ndarray]:
        self.asked.append(inputs)
        return {"logits": np.array([[0, 9]], np.float32)}

    def detections(
        self, outputs: Mapping[str, np.ndarray], *, threshold: float | None, width: int, height: int
    ) -> list[Detection]:
        self.asked.append((threshold, width, height))
        return [box("giraffe", 30)]


def test_progress_goes_through_both_networks() -> None:
    detector, classifier = FakeNetwork("boxes", "cpu"), FakeNetwork("classes", "cpu")
    composer = Composer(detector, classifier)
    heard: list[tuple[float, int]] = []

    def report(fraction: float) -> None:
        heard.append((fraction, len(classifier.asked)))

    inputs = composer.preprocess(Picture(Image.new("RGB", (40, 30)), 80, 60), prompt="whatever")
    sentence = composer.generate(inputs, max_new_tokens=1, num_beams=8, report=report)

    assert sentence == "a photo of a giraffe (looks like: zebra)"
    assert heard == [(0.5, 0), (1, 1)]
    assert detector.asked == ["boxes of (40, 30) for (80, 60)", (None, 40, 30)]
    assert classifier.asked == ["classes of (40, 30) for (80, 60)"]


@pytest.mark.parametrize(
    ("boxes", "classes", "least"),
    [((8, 6), (4, 9), (8, 9)), ((4, 9), (2, 2), (4, 9)), (None, (4, 9), None), ((8, 6), None, None)],
)
def test_a_picture_is_as_large_as_either_network_needs_it(
    boxes: tuple[int, int] | None, classes: tuple[int, int] | None, least: tuple[int, int] | None
) -> None:
    composer = Composer(FakeNetwork("boxes", "cpu", least=boxes), FakeNetwork("classes", "cpu", least=classes))

    assert composer.least_size(80, 60) == least


def test_the_composer_names_the_revisions_of_both() -> None:
    composer = Composer(FakeNetwork("boxes", "cpu"), FakeNetwork("classes", "cuda"))

    assert composer.info == ModelInfo(name="composer", revision="BOXES+CLASSES", runtime="torch", device="cpu+cuda")
    assert not composer.labels
